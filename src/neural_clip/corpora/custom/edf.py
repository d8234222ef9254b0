"""What mne does not tell of EDF, BDF and GDF files: channels of different rates, and gaps in time.

mne brings channels of lower rates to the highest, by values that were never recorded, and reads records of an
interrupted recording one after the other. Source: Kemp & Olivan 2003, "European data format 'plus' (EDF+)"; Schlögl
2006, "GDF", arXiv:cs/0608052.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.files.numbers import number, whole
from neural_clip.files.reading import begins_like, reading

EDF_SUFFIXES = (".edf", ".bdf", ".gdf")
SIGNATURES = (b"0", b"\xffBIOSEMI", b"GDF")
ANNOTATIONS = ("EDF Annotations", "BDF Annotations")


@dataclass(frozen=True)
class EdfHeader:
    """Signals of a file.

    Args:
        labels (`tuple[str, ...]`): Their names, in order; they may repeat.
        samples (`tuple[int, ...]`): Samples of each in a record.
        seconds (`float`, *optional*): Of a record, `None` where a file of GDF tells it otherwise.
        n_records (`int`): -1 where the file does not tell.
        interrupted (`bool`): Whether the file says that there may be gaps between records.
        size (`int`): Bytes of the header.
        width (`int`): Bytes of a sample.
        unscaled (`frozenset[str]`): Labels of signals whose least and largest value are the same, so that nothing
            tells what a digit stands for; not known of GDF.
    """

    labels: tuple[str, ...]
    samples: tuple[int, ...]
    seconds: float | None
    n_records: int
    interrupted: bool
    size: int
    width: int
    unscaled: frozenset[str]


def read_header(path: Path) -> EdfHeader:
    """Header of a file.

    Raises:
        DataError: If it is damaged.
    """
    with reading(path), path.open("rb") as file:
        head = file.read(256)
        if not head.startswith(SIGNATURES):
            raise DataError(
                f"'{path}' cannot be read: it is no EDF, BDF or GDF file, or its header is damaged: "
                f"{begins_like(head)}."
            )
        if head.startswith(b"GDF"):
            version = number(head[4:8])
            count = struct.unpack_from("<I" if version < 1.9 else "<H", head, 252)[0]
            facts: dict = {"seconds": None, "n_records": -1, "interrupted": False, "size": 0, "width": 0}
        else:
            count, binary = whole(head[252:256]), head.startswith(b"\xff")
            facts = {
                "seconds": float(number(head[244:252])), "n_records": whole(head[236:244]), "size": 256 * (count + 1),
                "interrupted": head[192:197] in (b"EDF+D", b"BDF+D"), "width": 3 if binary else 2,
            }  # fmt: skip
        if count < 1 or 256 + 220 * count > path.stat().st_size:
            raise ValueError(
                f"its header announces {count} signals, which its {path.stat().st_size} bytes do not hold"
            )
        labels = [file.read(16).decode("latin-1").strip(" \0") for _ in range(count)]
        unscaled: set[str] = set()
        if facts["width"]:
            file.seek(256 + 104 * count)
            ranges = [
                [number(file.read(8)) for _ in range(count)] for _ in range(4)
            ]  # physical and digital, from and to
            unscaled = {label for label, a, b, c, d in zip(labels, *ranges, strict=True) if a == b or c == d}
        file.seek(256 + 216 * count)
        if facts["width"]:
            samples = [whole(file.read(8)) for _ in range(count)]
        else:
            samples = list(struct.unpack(f"<{count}i", file.read(4 * count)))
    if min(samples) < 0 or not max(samples):
        raise DataError(f"'{path}' cannot be read: its header announces {min(samples)} samples a record.")
    header = EdfHeader(tuple(labels), tuple(samples), **facts, unscaled=frozenset(unscaled))
    if header.width:
        _check_size(path, header)
    return header


def _check_size(path: Path, header: EdfHeader) -> None:
    """Refuse a file that has other records than its header announces, before any of them is read."""
    record, size = header.width * sum(header.samples), path.stat().st_size - header.size
    records, rest = divmod(size, record)
    if not records or (header.n_records >= 0 and (rest or header.n_records != records)):
        announced = f"{header.n_records} records" if header.n_records >= 0 else "records"
        raise DataError(
            f"'{path}' has {size:,} bytes of recordings, but its header announces {announced} of {record:,} bytes. Is "
            "it damaged or truncated?"
        )


def channels_to_read(path: Path, picks: Sequence[str] | None) -> list[str] | None:
    """Channels that mne must be asked for, so that it invents no values; `None` where it may read all.

    Args:
        path (`Path`): The file.
        picks (`Sequence[str]`, *optional*): Names of the wanted channels, if they are named.

    Raises:
        DataError: If wanted channels have different rates, or there are gaps between records.
    """
    header = read_header(path)
    _check_continuous(path, header)
    named = [name for name in picks or () if name in header.labels]
    unscaled = sorted(header.unscaled.intersection(named or header.labels).difference(ANNOTATIONS))
    if unscaled:
        raise DataError(
            f"'{path}': channel {unscaled[0]!r} has no scale, because its header gives it one value as least and as "
            "largest. Leave it out by 'picks'."
        )
    pairs = [pair for pair in zip(header.labels, header.samples, strict=True) if pair[0] not in ANNOTATIONS]
    if len({count for _, count in pairs}) < 2:
        return None
    rates = dict(pairs)
    wanted = {name: rates[name] for name in named} or rates
    if len(set(wanted.values())) == 1:
        return named
    (first, one), *others = wanted.items()
    other, another = next(pair for pair in others if pair[1] != one)
    unit = "samples a record" if not header.seconds else "Hz"
    seconds = header.seconds or 1.0
    raise DataError(
        f"'{path}': channels have different rates: {first!r} has {one / seconds:g} {unit}, {other!r} has "
        f"{another / seconds:g} {unit}; values between the slower samples would be invented. Name channels of one "
        "rate by 'picks'."
    )


def _check_continuous(path: Path, header: EdfHeader) -> None:
    """Refuse a file that says it may be interrupted, unless each record begins where the one before it ends."""
    if not header.interrupted:
        return
    place = next((i for i, label in enumerate(header.labels) if label in ANNOTATIONS), None)
    if place is None or not header.seconds:
        raise DataError(f"'{path}' is marked as interrupted (EDF+D), but does not tell when its records begin.")
    record = header.width * sum(header.samples)
    offset, length = header.width * sum(header.samples[:place]), header.width * header.samples[place]
    half_sample = 0.5 * header.seconds / max(header.samples)
    before: float | None = None
    with reading(path), path.open("rb") as file:
        for index in range((path.stat().st_size - header.size) // record):
            file.seek(header.size + index * record + offset)
            onset = number(file.read(length).partition(b"\x14")[0])
            if before is not None and abs(onset - before - header.seconds) > half_sample:
                raise DataError(
                    f"'{path}' is interrupted: its record {index + 1} begins at {onset:g} s, the one before it ends "
                    f"at {before + header.seconds:g} s. Save each part as a file of its own."
                )
            before = onset
