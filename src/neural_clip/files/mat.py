"""Numbers and text in MATLAB's level 5 MAT-files (`-v6`, `-v7`), read strictly.

scipy's reader ends the whole process (segmentation fault) when a type code in the file is damaged, so what recordings
need is read here: real, full matrices of numbers, text, and cells of text. Source: MathWorks, "MAT-File Format",
level 5. What is compressed carries a checksum; of the rest, types, sizes and shapes are held against each other.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.names import text_array
from neural_clip.files.reading import begins_like, check_unpacked, existing, reading

_HEADER_SIZE = 128
_ORDERS = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "ascii", 2: "ascii", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_FLAGS, _DIMENSIONS, _NAME = 6, 5, 1
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_CELL, _CHARACTERS, _OPAQUE = 1, 4, 17
_OBJECT = "an object of MATLAB, such as a `string` (save text as `cellstr(names)`)"
_UNREAD = {2: "a structure", 3: "an object", 5: "a sparse matrix", 16: "a function", _OPAQUE: _OBJECT}
_LEVEL_4 = tuple(struct.pack(order + "I", kind) for order in "<>" for kind in (0, 10, 20, 30, 40, 50, 1000, 1010))
_COMPLEX = 8


class _UnreadError(ValueError):
    """What a sound variable holds that is not read here."""


def read_mat(path: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of a level 5 MAT-file, compressed or not.

    Args:
        path (`Path`): The file.
        names (`Collection[str]`, *optional*): Variables that it must hold; by default all of numbers or text.

    Returns:
        `dict[str, numpy.ndarray]`: Numbers in the type they are stored in, which may be narrower than MATLAB's class
        (0 and 1 as uint8 for logical), in MATLAB's shape of two dimensions or more. Text has one dimension: the lines
        of a matrix of characters, the cells of a cell array.

    Raises:
        DataError: If the file is absent, damaged or of another level, or lacks a variable, or a variable that was
            asked for holds something else.
    """
    existing(path, "MAT-file")
    found: dict[str, np.ndarray] = {}
    unread: dict[str, str] = {}
    with reading(path):
        content = memoryview(path.read_bytes())
        order = _ORDERS.get(bytes(content[124:_HEADER_SIZE]))
        if order is None:
            instead = "it may be of level 4" if content[:4] in _LEVEL_4 else begins_like(bytes(content[:32]))
            raise DataError(
                f"'{path}' cannot be read: no MAT-file of level 5, which MATLAB writes with -v6 or -v7: {instead}. "
                "Save it again by `save(file, '-v7')`."
            )
        elements = list(_elements(content[_HEADER_SIZE:], order))
        check_unpacked(path, sum(_unpacked_size(kind, data, order) for kind, data in elements))
        for kind, data in elements:
            name, matrix = _variable(kind, data, order)
            if name in found or name in unread:
                raise ValueError(f"two variables called {name!r}")
            if isinstance(matrix, str):
                unread[name] = matrix
            elif names is None or name in names:
                found[name] = matrix
            else:
                unread[name] = "not wanted"
    for name in names or ():
        if name not in found and name in unread:
            raise DataError(f"'{path}': {name!r} is {unread[name]}; only real numbers and text are read.")
        if name not in found:
            known = ", ".join(map(repr, sorted({*found, *unread} - {""})))
            raise DataError(f"'{path}': there is no array {name!r}; it holds {known or 'none'}.")
    return found


def read_matrices(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """[`read_mat`] of numbers alone.

    Raises:
        DataError: If the file is absent or damaged, or lacks a matrix of numbers.
    """
    found = read_mat(path, names)
    texts = [name for name, matrix in found.items() if matrix.dtype.kind == "U"]
    if texts:
        raise DataError(f"'{path}' has no numeric matrix called {texts[0]!r}, which is text.")
    return found


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Types and data of the elements that follow each other."""
    place = 0
    while place < len(content):
        if place + 8 > len(content):
            raise ValueError("it ends within an element")
        kind, size = struct.unpack_from(f"{order}II", content, place)
        start, step = place + 8, 8 + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if kind >> 16:  # small elements hold their data in the second half of the tag
            kind, size, start, step = kind & 0xFFFF, kind >> 16, place + 4, 8
            if size > 4:
                raise ValueError("a small element of more than 4 bytes")
        if start + size > len(content):
            raise ValueError("it ends within an element")
        yield kind, content[start : start + size]
        place += step


def _unpacked_size(kind: int, data: memoryview, order: str) -> int:
    """Bytes of an element as its tag announces them, which is compressed with it."""
    if kind != _COMPRESSED:
        return len(data)
    tag = zlib.decompressobj().decompress(data, 8)
    return 8 if len(tag) < 8 else 8 + struct.unpack(f"{order}II", tag)[1]


def _unpacked(data: memoryview, size: int) -> bytes:
    """What a compressed element holds, which must be of the announced size."""
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(data, size + 1)
    if len(content) != size or not unpacking.eof:
        raise ValueError("a compressed element is longer or shorter than it says")
    return content


def _variable(kind: int, data: memoryview, order: str) -> tuple[str, np.ndarray | str]:
    """Name and values of a variable, or in words what else it is."""
    if kind == _COMPRESSED:
        content = memoryview(_unpacked(data, _unpacked_size(kind, data, order)))
        ((kind, data),) = _elements(content, order)
    if kind != _MATRIX:
        raise ValueError(f"an element of type {kind} where a matrix should be")
    name, matrix_class, shape, parts = _matrix(data, order)
    try:
        return name, _values(name, matrix_class, shape, parts, order)
    except _UnreadError as error:
        return name, str(error)


def _matrix(data: memoryview, order: str) -> tuple[str, int, tuple[int, ...], list[tuple[int, memoryview]]]:
    """Name, class with its flags, shape and parts of a matrix."""
    (flags_kind, flags), (shape_kind, shape), (name_kind, name), *parts = _elements(data, order)
    (matrix_class,) = struct.unpack_from(f"{order}I", flags) if len(flags) == 8 else (0,)
    if flags_kind == _FLAGS and matrix_class & 0xFF == _OPAQUE and shape_kind == _NAME:  # these have no dimensions
        return bytes(shape).decode("ascii"), matrix_class, (), []
    if (flags_kind, shape_kind, name_kind, len(flags)) != (_FLAGS, _DIMENSIONS, _NAME, 8) or len(shape) % 4:
        raise ValueError("a matrix without flags, dimensions or name")
    sizes = struct.unpack(f"{order}{len(shape) // 4}i", shape)
    if len(sizes) < 2 or min(sizes) < 0:
        raise ValueError(f"a matrix of shape {sizes}")
    return bytes(name).decode("ascii"), matrix_class, sizes, parts


def _values(
    name: str, matrix_class: int, shape: tuple[int, ...], parts: list[tuple[int, memoryview]], order: str
) -> np.ndarray:
    """Values of a matrix of numbers or text."""
    kind = matrix_class & 0xFF
    if kind in _UNREAD:
        raise _UnreadError(_UNREAD[kind])
    if kind == _CELL:
        return _cells(name, shape, parts, order)
    if kind in _CLASSES and (matrix_class >> 8) & _COMPLEX:
        raise _UnreadError("complex")
    if len(parts) != 1 or kind not in (*_CLASSES, _CHARACTERS):
        raise ValueError(f"the matrix {name!r} of class {kind} should have one part of real numbers or text")
    ((stored, data),) = parts
    return (
        _text(name, shape, stored, data, order)
        if kind == _CHARACTERS
        else _numbers(name, kind, shape, stored, data, order)
    )


def _numbers(name: str, kind: int, shape: tuple[int, ...], stored: int, data: memoryview, order: str) -> np.ndarray:
    """Numbers in the type they are stored in: that of their class, or narrower whole numbers."""
    dtype, own = np.dtype(order + _NUMBERS.get(stored, "V1")), np.dtype(order + _CLASSES[kind])
    if dtype != own and not (dtype.kind in "iu" and dtype.itemsize < own.itemsize):
        raise ValueError(
            f"the matrix {name!r} of {own.name} should have one part of real numbers, not of type {stored}"
        )
    values = np.frombuffer(data, dtype)  # raises ValueError where sizes do not fit
    if math.prod(shape) != values.size:
        raise ValueError(f"the matrix {name!r} has {values.size} values and shape {shape}")
    return values.astype(dtype.newbyteorder("="), copy=False).reshape(shape, order="F")


def _text(name: str, shape: tuple[int, ...], stored: int, data: memoryview, order: str) -> np.ndarray:
    """Lines of a matrix of characters, `(n_lines,)`."""
    if stored not in _TEXTS or len(shape) != 2:
        raise ValueError(f"the text {name!r} is of type {stored} and shape {shape}")
    wide = {"<": "-le", ">": "-be"}[order] if _TEXTS[stored] in ("utf-16", "utf-32") else ""
    letters = bytes(data).decode(_TEXTS[stored] + wide)
    if math.prod(shape) != len(letters):
        raise ValueError(f"the text {name!r} has {len(letters)} characters and shape {shape}")
    lines = range(shape[0]) if letters else ()  # none of them takes room, so their number is not held against the file
    return text_array([letters[line :: shape[0]] for line in lines])


def _cells(name: str, shape: tuple[int, ...], parts: list[tuple[int, memoryview]], order: str) -> np.ndarray:
    """Cells that each hold a line of text or nothing, row by row, `(n_cells,)`."""
    if math.prod(shape) != len(parts) or any(kind != _MATRIX for kind, _ in parts):
        raise ValueError(f"the cell array {name!r} has {len(parts)} cells and shape {shape}")
    texts = []
    for _, data in parts:
        _, matrix_class, size, inner = _matrix(data, order)
        if matrix_class & 0xFF != _CHARACTERS or len(inner) != 1 or (0 not in size and size[0] != 1):
            raise _UnreadError("a cell array of other things than lines of text")
        texts.append("".join(_text(name, size, *inner[0], order)))
    return text_array(texts).reshape(shape, order="F").ravel()
