"""Matrices of numbers in MATLAB's level 5 MAT-files, read strictly.

scipy's reader ends the whole process (segmentation fault) when a type code in the file is damaged, so the little that
NSD's design needs is read here. Source: MathWorks, "MAT-File Format", level 5.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

__all__ = ["read_matrices"]


_HEADER_SIZE = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {
    1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8",
}  # fmt: skip
_FLAGS, _DIMENSIONS, _NAME = 6, 5, 1
_NUMERIC_CLASSES = range(6, 16)  # double, single, and integers of 8 to 64 bits


def read_matrices(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Real numeric matrices of a level 5 MAT-file, compressed or not.

    Args:
        path (`Path`): The file.
        names (`Collection[str]`): Variables that it must hold.

    Returns:
        `dict[str, numpy.ndarray]`: Matrices in the type they are stored in, which may be narrower than MATLAB's class.

    Raises:
        ValueError: If the file is damaged, of another level, or lacks a matrix.
        OSError: If it cannot be read.
    """
    content = path.read_bytes()
    if content[124:128] != b"\x00\x01IM":
        raise ValueError("no little-endian MAT-file of level 5")
    found: dict[str, np.ndarray] = {}
    for kind, data in _elements(content[_HEADER_SIZE:]):
        if kind == _COMPRESSED:
            try:
                ((kind, data),) = _elements(zlib.decompress(data))
            except zlib.error as error:
                raise ValueError(str(error)) from error
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} where a matrix should be")
        name, matrix = _matrix(data)
        if name in found:
            raise ValueError(f"two matrices called {name!r}")
        if matrix is not None:
            found[name] = matrix
    absent = [name for name in names if name not in found]
    if absent:
        raise ValueError(f"no numeric matrix called {absent[0]!r}")
    return {name: found[name] for name in names}


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Types and data of the elements that follow each other."""
    place = 0
    while place < len(content):
        if place + 8 > len(content):
            raise ValueError("it ends within an element")
        kind, size = struct.unpack_from("<II", content, place)
        start, step = place + 8, 8 + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if kind >> 16:  # small elements hold their data in the second half of the tag
            kind, size, start, step = kind & 0xFFFF, kind >> 16, place + 4, 8
            if size > 4:
                raise ValueError("a small element of more than 4 bytes")
        if start + size > len(content):
            raise ValueError("it ends within an element")
        yield kind, content[start : start + size]
        place += step


def _matrix(content: bytes) -> tuple[str, np.ndarray | None]:
    """Name and values of a matrix; `None` for cells, structures and text."""
    (flags_kind, flags), (shape_kind, shape_bytes), (name_kind, name), *parts = _elements(content)
    if (flags_kind, shape_kind, name_kind, len(flags)) != (_FLAGS, _DIMENSIONS, _NAME, 8) or len(shape_bytes) % 4:
        raise ValueError("a matrix without flags, dimensions or name")
    if flags[0] not in _NUMERIC_CLASSES:
        return name.decode("latin-1"), None
    shape = tuple(struct.unpack(f"<{len(shape_bytes) // 4}i", shape_bytes))
    if len(parts) != 1 or parts[0][0] not in _NUMBERS:
        raise ValueError(f"the matrix {name!r} should have one part of real numbers")
    values = np.frombuffer(parts[0][1], _NUMBERS[parts[0][0]])  # raises ValueError where sizes do not fit
    if min(shape, default=-1) < 0 or math.prod(shape) != values.size:
        raise ValueError(f"the matrix {name!r} has {values.size} values and shape {shape}")
    return name.decode("latin-1"), values.reshape(shape, order="F")
