"""Ways to damage a valid input: bytes of a file, or files of a folder; `rewrites.py` makes well-formed files anew.

A way has a kind, which decides who must notice it (`GUARDS`):
    missing   a file is gone, empty, a folder or a link to nothing
    cut       bytes at the end are gone or came on top
    bytes     bytes are others, and no checksum was made to fit
    invalid   a file is well-formed, but holds what no such file may hold: NaN, no rows, objects
    valid     a file is well-formed and holds other values, or is another file of its kind
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attack.rewrites import REWRITES

# Which kinds of damage must be told where they change a result. The rest cannot be: nothing says what was there.
GUARDS = {
    "sealed": {
        "missing",
        "cut",
        "bytes",
        "invalid",
        "valid",
    },  # a digest stands elsewhere, of all or of the footer where pages have sums
    "kept here": {"cut", "bytes", "invalid", "valid"},  # the same, but it may be absent, as on another machine
    "summed": {"missing", "cut", "bytes", "invalid"},  # the file holds a checksum of itself
    "bare": {"missing", "cut", "invalid"},  # samples without a checksum; their count is declared
    "optional": {"cut", "bytes", "invalid"},  # the file holds a checksum of itself, and may be absent
    "text": {"missing"},  # written by people: another value is another, valid wish
    "note": set(),  # text that may also be absent
}
EXTREMES = [
    struct.pack(order + kind, value)
    for order in "<>"
    for kind, values in (("q", (0, 1, -1, 2**31 - 1, 2**30)), ("d", (np.nan, 1e30)))
    for value in values
]
IMPOSTORS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"\x80\x04\x95\x10", b"PK\x03\x04" + b"\0" * 40,
    b"\x93NUMPY\x01\x00\xff\xff", b"\x89HDF\r\n\x1a\n" + b"\0" * 100, b"GIF89a\xff\xff\xff\xff" + b"\0" * 20,
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", b"<html></html>", b"\xff\xfe" + b"a\0" * 50,
    b"PAR1" + b"\0" * 8 + b"PAR1", b"{}", b"[]", b"null", b"\x1f\x8b\x08\0" + b"\0" * 30, b" ", b"#",
)  # fmt: skip


class Damage(NamedTuple):
    """What was done to which files (relative to the folder)."""

    way: str
    kind: str
    files: list[str]


def bite(folder: Path, names: list[str], donor: Path, rng: np.random.Generator) -> Damage:
    """Damage one of the files, or two of them; `donor` is another valid input of the same layout."""
    name = names[rng.integers(len(names))]
    path = folder / name
    ways: list[Callable] = [*BYTES, *BYTES, *PARTS]
    rewrite = next((function for suffixes, function in REWRITES if name.endswith(suffixes)), None)
    chosen = rewrite if rewrite and rng.random() < 0.5 else ways[rng.integers(len(ways))]
    if chosen in PARTS:
        other = names[rng.integers(len(names))]
        alike = [n for n in names if Path(n).suffix == path.suffix and n != name]
        if alike and rng.random() < 0.8:
            other = alike[rng.integers(len(alike))]
        return chosen(folder, name, other, donor, rng)
    packed = name.endswith(".gz") and rng.random() < 0.5
    if chosen is not rewrite and packed:  # a lying content under a checksum that fits
        path.write_bytes(gzip.compress(chosen(gzip.decompress(path.read_bytes()), rng)[0], 1))
        return Damage(f"{chosen.__name__} within gzip", "valid", [name])
    if chosen is rewrite:
        try:
            way, kind = chosen(path, rng)
        except Exception as error:  # this file cannot hold that
            path.write_bytes(b"")
            way, kind = f"emptied, for want of {type(error).__name__}", "missing"
        return Damage(f"{chosen.__name__}: {way}", kind, [name])
    content, kind = chosen(path.read_bytes(), rng)
    path.write_bytes(content)
    return Damage(chosen.__name__, kind, [name])


# ------------------------------------------------------------------------------------------------- bytes of any file


def truncate(content: bytes, rng) -> tuple[bytes, str]:
    """Cut the end off: anywhere, by a byte, by a block, to nothing."""
    keep = [rng.integers(len(content) + 1), len(content) - 1, len(content) - 512, 0, 1, len(content) // 2]
    return content[: max(int(keep[rng.integers(len(keep))]), 0)], "cut"


def append(content: bytes, rng) -> tuple[bytes, str]:
    """Bytes on top."""
    return content + rng.bytes(int(rng.integers(1, 2000))), "valid"


def flip(content: bytes, rng) -> tuple[bytes, str]:
    """Turn bits, also many."""
    found = bytearray(content)
    for position in rng.integers(len(found), size=int(rng.choice([1, 1, 2, 8, 64]))) if found else ():
        found[position] ^= 1 << int(rng.integers(8))
    return bytes(found), "bytes"


def flip_head(content: bytes, rng) -> tuple[bytes, str]:
    """Turn bits among the first bytes, where headers lie."""
    n = int(rng.choice([16, 128, 1024]))
    return flip(content[:n], rng)[0] + content[n:], "bytes"


def flip_tail(content: bytes, rng) -> tuple[bytes, str]:
    """Turn bits among the last bytes, where footers and directories lie."""
    n = int(rng.choice([16, 128, 1024]))
    return content[:-n] + flip(content[-n:], rng)[0], "bytes"


def block(content: bytes, rng) -> tuple[bytes, str]:
    """Overwrite, remove or double a block."""
    start, size = int(rng.integers(len(content) + 1)), int(rng.choice([1, 8, 512, 4096]))
    inside = content[start : start + size]
    fill = [b"\0" * len(inside), b"\xff" * len(inside), rng.bytes(len(inside)), b"", inside * 2][rng.integers(5)]
    return content[:start] + fill + content[start + size :], "bytes"


def lie(content: bytes, rng) -> tuple[bytes, str]:
    """Put extreme numbers into the header or the footer, as integers and floats of both orders."""
    size, value = int(rng.choice([1, 2, 4, 8])), EXTREMES[rng.integers(len(EXTREMES))]
    start = int(rng.integers(min(len(content), 2048) + 1)) // size * size
    if rng.random() < 0.2:
        start = max(len(content) - start, 0)
    return content[:start] + value[:size] + content[start + size :], "bytes"


def digits(content: bytes, rng) -> tuple[bytes, str]:
    """Change a number that is written out (EDF, BrainVision, JSON, footers), in as many characters."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", content[:20000]))
    if not found:
        return flip(content, rng)
    match = found[rng.integers(len(found))]
    wide = len(match[0])
    texts = [
        b"9" * wide,
        b"0" * wide,
        b"-" + b"9" * (wide - 1),
        b"nan",
        b"1e9",
        b"-1",
        b"",
        bytes(rng.choice(list(b"0123456789"), wide)),
    ]
    text = texts[rng.integers(len(texts))]
    return content[: match.start()] + text[:wide].ljust(wide) + content[match.end() :], "bytes"


BYTES = (truncate, append, flip, flip_head, flip_tail, block, lie, digits)


# ---------------------------------------------------------------------------------------------------- whole files


def remove(folder, name, other, donor, rng) -> Damage:
    """The file is gone."""
    (folder / name).unlink()
    return Damage("missing", "missing", [name])


def misplace(folder, name, other, donor, rng) -> Damage:
    """In place of the file stands a folder, a link in a circle or to nothing, or a pipe that nobody writes to."""
    path, way = folder / name, ["folder", "loop", "dangling", "pipe", "device"][rng.integers(5)]
    path.unlink()
    if way == "folder":
        path.mkdir()
    elif way == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"loop": path.name, "dangling": "nowhere", "device": "/dev/null"}[way])
    return Damage(f"{way} in its place", "missing", [name])


def link(folder, name, other, donor, rng) -> Damage:
    """The file is a link to its content elsewhere."""
    path = folder / name
    target = path.with_name(f"moved {path.name}.real")
    path.rename(target)
    path.symlink_to(target.name if rng.random() < 0.5 else target.resolve())
    return Damage("link to the file", "valid", [name])


def swap(folder, name, other, donor, rng) -> Damage:
    """Two files have each other's names."""
    one, two = (folder / name).read_bytes(), (folder / other).read_bytes()
    (folder / name).write_bytes(two)
    (folder / other).write_bytes(one)
    return Damage("swapped", "valid", [name, other])


def mix(folder, name, other, donor, rng) -> Damage:
    """The file is that of another input of the same layout."""
    if not (donor / name).is_file():
        return swap(folder, name, other, donor, rng)
    shutil.copyfile(donor / name, folder / name)
    return Damage("of another input", "valid", [name])


def double(folder, name, other, donor, rng) -> Damage:
    """The file is there twice, under another name that may be odd."""
    path = folder / name
    stem, dot, suffix = path.name.partition(".")
    counted = re.sub(r"(\d)(?!.*\d)", lambda digit: str((int(digit[1]) + 1) % 10), path.name)
    names = [f".{path.name}", counted, *(f"{stem}{odd}{dot}{suffix}" for odd in ("_copy", " (1)", "\n2", "é*[0]"))]
    target = path.with_name(names[rng.integers(len(names))])
    if not target.exists():
        shutil.copyfile(path, target)
    return Damage("also there as " + repr(target.name), "valid", [name, target.relative_to(folder).as_posix()])


def impostor(folder, name, other, donor, rng) -> Damage:
    """The name is that of the file, the content that of another format."""
    (folder / name).write_bytes(IMPOSTORS[rng.integers(len(IMPOSTORS))])
    return Damage("content of another format", "missing", [name])


PARTS = (remove, misplace, link, swap, mix, double, impostor)
