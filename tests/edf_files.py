"""EDF and BDF recordings, written byte by byte."""

import numpy as np


def annotations(onsets, texts=None, width=20):
    """Signal of annotations, one list a record; `texts` are `(onset, duration, words)`, in the first record."""
    blocks = []
    for number, onset in enumerate(onsets):
        block = f"+{onset}\x14\x14\0".encode()
        for second, duration, words in texts or () if number == 0 else ():
            block += f"+{second}\x15{duration}\x14{words}\x14\0".encode()
        blocks.append(block.ljust(2 * width, b"\0"))
    return np.frombuffer(b"".join(blocks), "<i2")


def write_edf(path, signals, records, *, seconds=1, marked="", unit="uV"):
    """Write signals `(label, whole numbers)`, which stand for as many microvolts, with a rate each of its own."""
    wide = path.suffix == ".bdf"
    count, top = len(signals), 2**23 if wide else 2**15

    def text(value, width):
        return str(value).ljust(width).encode("latin-1")

    head = (b"\xffBIOSEMI" if wide else text(0, 8)) + text("X X X X", 80) + text("Startdate 01-JAN-2020 X X X", 80)
    head += text("01.01.20", 8) + text("00.00.00", 8) + text(256 * (count + 1), 8) + text(marked, 44)
    head += text(records, 8) + text(seconds, 8) + text(count, 4)
    sizes = [len(values) // records for _, values in signals]
    columns = [
        [text(label, 16) for label, _ in signals], [text("", 80)] * count, [text(unit, 8)] * count,
        [text(-top, 8)] * count, [text(top - 1, 8)] * count, [text(-top, 8)] * count, [text(top - 1, 8)] * count,
        [text("", 80)] * count, [text(size, 8) for size in sizes], [text("", 32)] * count,
    ]  # fmt: skip
    head += b"".join(b"".join(column) for column in columns)
    body = b""
    for record in range(records):
        for (_, values), size in zip(signals, sizes, strict=True):
            part = np.asarray(values)[record * size : (record + 1) * size]
            body += (
                part.astype("<i4").view("u1").reshape(-1, 4)[:, :3].tobytes() if wide else part.astype("<i2").tobytes()
            )
    path.write_bytes(head + body)
