"""Arrays and names from files, with errors that name the file."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.hdf5 import open_dataset, stored, text_of
from neural_clip.files.mat import read_mat
from neural_clip.files.names import plain_name
from neural_clip.files.reading import CHUNK, begins_like, check_unpacked, existing, head_of, reading

ARRAY_SUFFIXES = (".npy", ".npz", ".mat")
NPY_VERSIONS = ((1, 0), (2, 0), (3, 0))


def read_array(path: Path, key: str | None = None, *, mapped: bool = False) -> np.ndarray:
    """Read one array of a `.npy`, `.npz` or `.mat` file (MATLAB 7.3 as well); pickled objects are refused.

    With `mapped`, that of a `.npy` file stays on disk.

    Returns:
        `np.ndarray`: Numbers, or text as `str`, whatever it is stored as. Text of MATLAB has one dimension.

    Raises:
        DataError: If the file is missing, damaged or of another kind, or has no such array.
    """
    existing(path, "array file")
    suffix = path.suffix.lower()
    if suffix not in ARRAY_SUFFIXES:
        raise DataError(f"'{path}' has suffix {suffix!r}; allowed are '.npy', '.npz' and '.mat'.")
    if suffix == ".npy" and key is not None:
        raise DataError(f"'{path}' holds one array without a name, but array {key!r} was asked for.")
    readers: dict[str, Callable[[Path, str | None], np.ndarray]] = {
        ".npy": partial(_read_npy, mapped=mapped), ".npz": _read_npz, ".mat": _read_mat,
    }  # fmt: skip
    with reading(path):
        array = readers[suffix](path, key)
    if array.dtype.kind == "S":
        array = _decoded(array, path, key)
    if array.dtype.kind not in "biufU":
        raise DataError(f"'{path}': array {key!r} has type {array.dtype}; expected numbers or text.")
    return array


def read_names(path: Path, key: str | None = None) -> list[str]:
    """Names from an array of text or numbers, as [`plain_name`] writes them; 3.0 becomes `"3"`."""
    array = np.ravel(read_array(path, key))
    if array.dtype.kind == "f" and np.array_equal(array, np.round(array)):  # MATLAB's numbers are double by default
        array = array.astype(np.int64)
    return [plain_name(str(name)) for name in array]


def _decoded(array: np.ndarray, path: Path, key: str | None) -> np.ndarray:
    """Text stored as bytes."""
    try:
        return np.char.decode(array, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}': the text in array {key!r} is not UTF-8 ({error}). Save it as `str`.") from error


def _read_npy(path: Path, key: str | None, *, mapped: bool) -> np.ndarray:
    head = head_of(path)
    if not head.startswith(b"\x93NUMPY"):
        raise DataError(f"'{path}' is no .npy file: {begins_like(head)}.")
    if tuple(head[6:8]) not in NPY_VERSIONS:
        raise DataError(f"'{path}' is of version {head[6]}.{head[7]} of the .npy format; known are 1.0, 2.0 and 3.0.")
    with path.open("rb") as file:
        _check_announced(file, path.stat().st_size)
    return np.load(path, "r" if mapped else None, allow_pickle=False)


def _check_announced(file: IO[bytes], size: int) -> None:
    """Require that an array of `size` bytes, header included, has as many as its header says."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    expected = file.tell() + math.prod(shape) * dtype.itemsize
    if size != expected and not dtype.hasobject:  # NumPy itself refuses objects
        raise ValueError(f"it has {size} bytes, but its header announces {expected}")


def _read_npz(path: Path, key: str | None) -> np.ndarray:
    if not (head := head_of(path)).startswith(b"PK"):
        raise DataError(f"'{path}' is no .npz file: {begins_like(head)}.")
    with np.load(path, allow_pickle=False) as archive:
        name = _chosen(path, key, list(archive.files))
        with zipfile.ZipFile(path) as packed:
            if len({info.filename for info in packed.infolist()}) < len(packed.infolist()):
                raise ValueError("it holds two arrays of one name")
            info = _member(packed, name)
            check_unpacked(path, info.file_size)
            with packed.open(info) as member:
                _check_announced(member, info.file_size)
                # To the end, because only there zipfile compares the checksum.
                while member.read(CHUNK):
                    pass
        return archive[name]


def _member(packed: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """What holds an array; NumPy leaves the suffix out of the names."""
    return packed.getinfo(name if name in packed.namelist() else f"{name}.npy")


def _read_mat(path: Path, key: str | None) -> np.ndarray:
    import h5py

    if h5py.is_hdf5(path):  # MATLAB 7.3
        return _read_hdf5(path, key)
    found = read_mat(path, None if key is None else [key])
    return found[_chosen(path, key, list(found))]


def _read_hdf5(path: Path, key: str | None) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        own = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]  # no other file's
        names = [name for name in own if file.get(name, getclass=True) is h5py.Dataset]
    with open_dataset(path, _chosen(path, key, names)) as dataset:
        text = text_of(path, dataset)
        if text is not None:
            return text
        if dataset.attrs.get("MATLAB_empty", 0):  # then its values are the sizes
            sizes = [int(size) for size in stored(path, dataset)]
            if 0 not in sizes:
                raise ValueError(f"it calls an array of shape {sizes} empty")
            return np.empty(sizes)
        return stored(path, dataset).T  # MATLAB counts dimensions from the other end


def _chosen(path: Path, key: str | None, names: list[str]) -> str:
    """The array asked for, or the only one there is."""
    if key is None and len(names) == 1:
        return names[0]
    if key not in names:
        wanted = "no array was chosen" if key is None else f"there is no array {key!r}"
        raise DataError(f"'{path}': {wanted}; it holds {', '.join(map(repr, sorted(names)))}.")
    return key
