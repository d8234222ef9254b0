"""Pickled arrays of NumPy with plain values beside them, read without running anything that a pickle names.

Three containers: a pickle by itself, whatever its suffix; a `.npy` file of one object; and a file of torch (zip) that
holds no tensors. Large arrays stay on disk: they are mapped, and read where they are used.

A hostile file cannot ask for much more memory or time than its size explains: only what picklers write for such a dict
is followed, steps are counted, nothing nested is hashed or printed as a whole, and no text is copied again and again.
"""

from __future__ import annotations

import math
import mmap
import pickle
import re
import reprlib
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.reading import begins_like, existing, head_of, reading

NPY, ZIP, PICKLE = b"\x93NUMPY", b"PK\x03\x04", b"\x80"
MAPPED_FROM = 1 << 16  # bytes; a frame of a pickle is about as long, larger arrays lie outside of frames
MOST_READS = 1 << 22  # steps take two or three; four tables with a text for each of 66,160 recordings take 1.3 million
MOST_EMPTY = 1 << 20  # places of an array without values, which a list of it would have
DTYPE = re.compile(r"[biufUO][0-9]{1,9}|\?")
PLAIN = (str, bool, int, float, type(None))
_short = reprlib.Repr()  # a list that holds another one twice, and so on 60 times, has no end when it is printed
_short.maxstring, _short.maxlevel = 100, 2


def read_pickled(path: Path) -> dict[str, Any]:
    """The dict of a pickle.

    Args:
        path (`Path`): The file; its first bytes decide what it is.

    Returns:
        `dict`: By name texts, numbers, lists of these, arrays of numbers or text, which are read-only, and dicts of
            all these by names.

    Raises:
        DataError: If the file is absent, truncated or damaged, is something else, or holds anything more, which is
            named and was not loaded.
    """
    head = head_of(existing(path, "pickle"))
    if not head.startswith((NPY, ZIP, PICKLE)):
        raise DataError(f"'{path}' is no pickle: {begins_like(head)}.")
    with reading(path), path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if head.startswith(NPY):
            content = content[_pickle_in_npy(file) :]
        elif head.startswith(ZIP):
            first, size = _pickle_in_zip(path, content)
            content = content[first : first + size]
        try:
            found = _loaded(content)
            if isinstance(found, _Array):  # of a `.npy` file: an array without dimensions, of one object
                found = found.only()
            if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
                raise DataError(f"'{path}' should hold a dict by names, but holds a {type(found).__name__}.")
            sizes: dict[int, int] = {}
            if sum(_listed(value, sizes) for value in found.values()) > MOST_READS:
                _refuse("the same list under many names")
            return {key: _plain(value) for key, value in found.items()}
        except pickle.UnpicklingError as error:
            raise DataError(f"'{path}' is damaged or holds more than arrays and plain values: {error}.") from error


def read_pickled_list(content: bytes, where: str) -> list:
    """The texts and numbers of a pickled list or array.

    Args:
        content (`bytes`): The pickle.
        where (`str`): What it is part of, for messages.

    Raises:
        DataError: If it is damaged, or holds anything more, which is named and was not loaded.
    """
    try:
        found = _plain(_loaded(memoryview(content)))
        if not isinstance(found, list | np.ndarray):
            _refuse(f"{_kind(found)} where a list was expected")
        return found if isinstance(found, list) else found.ravel().tolist()
    except Exception as error:  # of a damaged pickle, of nearly every type
        raise DataError(f"{where}: its pickle is damaged or holds more than a list of names: {error}.") from error


def _loaded(content: memoryview) -> object:
    """What a pickle holds, of which nothing follows."""
    source = _Source(content)
    found = _Unpickler(source).load()
    if source.place != len(content):
        raise ValueError(f"{len(content) - source.place} bytes follow its pickle")
    return found


class _Source:
    """The bytes of a pickle as a file; long stretches are handed out as views of the mapped file."""

    def __init__(self, content: memoryview):
        self.content, self.place, self.reads = content, 0, 0

    def read(self, size: int) -> bytes | memoryview:
        """The next bytes."""
        self.reads += 1
        if self.reads > MOST_READS:
            _refuse(f"more than {MOST_READS:,} names and values, which are far more than a recording has,")
        piece = self.content[self.place : self.place + size]
        if size < 0 or len(piece) < size:
            raise EOFError(f"it ends {size - len(piece):,} bytes too early")
        self.place += size
        return piece if size > MAPPED_FROM else bytes(piece)

    def readline(self) -> bytes:
        """The bytes up to the end of the line, which are few where a pickle has lines."""
        return bytes(self.read(bytes(self.content[self.place : self.place + MAPPED_FROM]).find(b"\n") + 1))


class _Dtype:
    """A type of NumPy, checked."""

    def __init__(self, code: object, *_: object):
        if not isinstance(code, str) or not DTYPE.fullmatch(code):
            _refuse(f"values of type {_short.repr(code)}")
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]
        if self.order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            _refuse("an array of records")

    @property
    def real(self) -> np.dtype:
        """As NumPy knows it."""
        return np.dtype(self.code).newbyteorder(self.order)  # type: ignore[arg-type]  # checked above


class _Array:
    """An array on its way: type, shape and bytes."""

    def __init__(self, *_: object):
        self.state: tuple = (1, (0,), _Dtype("b1"), False, b"")

    def __setstate__(self, state: tuple) -> None:
        if len(state) != 5 or not isinstance(state[2], _Dtype):
            _refuse("an array in an unknown form")
        self.state = state

    def only(self) -> object:
        """The object of an array of one object."""
        _, shape, dtype, _, values = self.state
        if dtype.code[0] != "O" or shape != () or not isinstance(values, list) or len(values) != 1:
            _refuse(f"an array of type {dtype.code} and shape {_short.repr(shape)} where one object was expected")
        return values[0]

    def array(self) -> np.ndarray | list:
        """As NumPy knows it; a list of an array of objects."""
        _, shape, dtype, fortran, values = self.state
        fits = isinstance(shape, tuple) and len(shape) <= 32
        if not fits or not all(isinstance(size, int) and 0 <= size < 1 << 63 for size in shape):
            _refuse(f"an array of shape {_short.repr(shape)}")
        if dtype.code[0] == "O":
            if len(shape) != 1 or not isinstance(values, list) or len(values) != shape[0]:
                _refuse(f"an array of objects of shape {shape}")
            return [_scalar(value) for value in values]
        size = math.prod(shape) * dtype.real.itemsize
        if not size and math.prod(size or 1 for size in shape) > MOST_EMPTY:
            _refuse(f"an array of shape {shape}, which has no values,")
        if not isinstance(values, bytes | bytearray | memoryview) or len(values) != size:
            raise ValueError(f"an array of shape {shape} and type {dtype.real} should have {size:,} bytes")
        flat = np.frombuffer(values, dtype.real) if size else np.empty(0, dtype.real)
        array = flat.reshape(shape, order="F" if fortran else "C")
        array.flags.writeable = False
        return array


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(values: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", values))
    return array


def _number(dtype: object, values: object = b"") -> object:
    return np.asarray(_from_buffer(values, dtype, (), "C").array()).item()


def _encoded(text: object, encoding: object = "") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        _refuse(f"text in {_short.repr(encoding)}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


# What NumPy's own pickles name, of protocols 2 to 5, and what stands for it here.
KNOWN: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Dtype, ("_codecs", "encode"): _encoded,
    ("__builtin__", "bytes"): _no_bytes,
    **{(f"numpy.{core}.multiarray", name): stands
       for core in ("core", "_core") for name, stands in (("_reconstruct", _reconstruct), ("scalar", _number))},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}  # fmt: skip


# Steps that no pickler takes for arrays and plain values: sets, instances, and what calls or hashes anything.
OTHER = (
    *(pickle.OBJ, pickle.INST, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.DUP),
    *(pickle.DICT, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
)
_PythonUnpickler: Any = pickle._Unpickler  # that of Python, whose parts can be replaced; types know but its interface


class _Unpickler(_PythonUnpickler):
    """Knows no name but those of NumPy's own pickles, and calls what stands for them here."""

    dispatch: ClassVar[dict] = dict(_PythonUnpickler.dispatch)

    def __init__(self, source: _Source):
        super().__init__(source)
        self.left = len(source.content)  # bytes that calls may still be given; all of the file, if each is given once

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name."""
        return KNOWN.get((module, name)) or _refuse(f"{_short.repr(f'{module}.{name}')}, which could run code,")

    def persistent_load(self, pid: object) -> NoReturn:
        """Refuse what lies elsewhere."""
        _refuse("tensors of torch" if isinstance(pid, tuple) else "objects that lie elsewhere")

    def load_build(self) -> None:
        """Give an array or type its state, and nothing else."""
        state, built = self.stack.pop(), self.stack[-1]
        if not isinstance(built, _Array | _Dtype) or not isinstance(state, tuple):
            _refuse(f"the state of {_kind(built)}")
        built.__setstate__(state)

    def load_reduce(self) -> None:
        """Call what stands for a name, with a tuple of values."""
        given = self.stack.pop()
        if not isinstance(given, tuple):
            _refuse(f"a call with {_kind(given)}")
        self.left -= sum(len(one) for one in given if isinstance(one, str | bytes | memoryview))
        if self.left < 0:
            _refuse("the same text or bytes again and again")
        self.stack[-1] = self.stack[-1](*given)

    def load_setitem(self) -> None:
        """Give a dict a value."""
        value, key = self.stack.pop(), self.stack.pop()
        self._give([key], [value])

    def load_setitems(self) -> None:
        """Give a dict several values."""
        items = self.pop_mark()
        self._give(items[::2], items[1::2])

    def _give(self, keys: list, values: list) -> None:
        if not isinstance(self.stack[-1], dict) or not all(isinstance(key, str) for key in keys):
            _refuse("a dict whose keys are no names")
        self.stack[-1].update(zip(keys, values, strict=True))

    def load_frame(self) -> None:
        """Frames tell how much to read at once, and the file is mapped."""
        self.read(8)

    def load_other(self) -> None:
        """Refuse what arrays and plain values have no use for."""
        _refuse("sets or objects")

    def load_bytearray(self) -> None:
        """Bytes that may be changed; here they are not."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    dispatch |= dict.fromkeys((code[0] for code in OTHER), load_other)
    dispatch |= {
        pickle.BUILD[0]: load_build, pickle.REDUCE[0]: load_reduce, pickle.FRAME[0]: load_frame,
        pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems, pickle.BYTEARRAY8[0]: load_bytearray,
    }  # fmt: skip


def _refuse(what: str) -> NoReturn:
    raise pickle.UnpicklingError(f"it holds {what} and was not loaded")


def _plain(value: object, *, within: bool = False) -> Any:
    """What one name stands for; a dict holds no further ones."""
    if isinstance(value, dict) and not within:
        return {key: _plain(one, within=True) for key, one in value.items()}
    if isinstance(value, _Array):
        return value.array()
    if isinstance(value, list | tuple):
        return [_scalar(one) for one in value]
    return _scalar(value)


def _listed(value: object, sizes: dict[int, int], *, within: bool = False) -> int:
    """Values in the list or dict that one name stands for; `sizes` are those of dicts that were counted before."""
    if isinstance(value, dict) and not within:
        if id(value) not in sizes:
            sizes[id(value)] = len(value) + sum(_listed(one, sizes, within=True) for one in value.values())
        return sizes[id(value)]
    values = value.state[-1] if isinstance(value, _Array) else value
    return len(values) if isinstance(values, list | tuple) else 0


def _scalar(value: object) -> Any:
    """A text, number or nothing."""
    if not isinstance(value, PLAIN):
        _refuse(f"{_kind(value)} where a text or a number was expected")
    if isinstance(value, int) and value.bit_length() > 64:
        _refuse(f"a number of {value.bit_length():,} bits")
    return value


def _kind(value: object) -> str:
    """What a value is, for a message."""
    name = type(value).__name__.strip("_").lower()
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _pickle_in_npy(file: Any) -> int:
    """Where the pickle of a `.npy` file begins."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if not dtype.hasobject or shape != ():
        raise ValueError(f"it holds an array of shape {shape} and type {dtype} where a dict was expected")
    return file.tell()


def _pickle_in_zip(path: Path, content: memoryview) -> tuple[int, int]:
    """Where the pickle of a file of torch begins, and its size; the checksums of all members are compared."""
    with zipfile.ZipFile(path) as packed:
        everything = packed.infolist()
        members = [info for info in everything if info.filename.endswith("/data.pkl")]
        stored = all(info.compress_type == zipfile.ZIP_STORED for info in everything)
        if len(members) != 1 or not stored or sum(info.file_size for info in everything) > len(content):
            raise ValueError("it is no file of torch, which has one pickle 'data.pkl' and compresses nothing")
        if damaged := packed.testzip():
            raise ValueError(f"the checksum of {_short.repr(damaged)} in it differs")
    place = members[0].header_offset
    name, extra = struct.unpack_from("<HH", content, place + 26)  # lengths, in the header before the member
    return place + 30 + name + extra, members[0].file_size
