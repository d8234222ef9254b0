"""Arrays and names from files, with errors that name the file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.hdf5 import check_storage, open_dataset, text_of
from neural_clip.files.mat import read_mat
from neural_clip.files.names import plain_name
from neural_clip.files.reading import CHUNK, begins_like, existing, head_of, reading

ARRAY_SUFFIXES = (".npy", ".npz", ".mat")
NPY_VERSIONS = ((1, 0), (2, 0), (3, 0))


def read_array(path: Path, key: str | None = None) -> np.ndarray:
    """Read one array of a `.npy`, `.npz` or `.mat` file (MATLAB 7.3 as well); pickled objects are refused.

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
    reader = {".npy": _read_npy, ".npz": _read_npz, ".mat": _read_mat}[suffix]
    with reading(path):
        array = reader(path, key)
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


def _read_npy(path: Path, key: str | None) -> np.ndarray:
    head = head_of(path)
    if not head.startswith(b"\x93NUMPY"):
        raise DataError(f"'{path}' is no .npy file: {begins_like(head)}.")
    if tuple(head[6:8]) not in NPY_VERSIONS:
        raise DataError(f"'{path}' is of version {head[6]}.{head[7]} of the .npy format; known are 1.0, 2.0 and 3.0.")
    return np.load(path, allow_pickle=False)


def _read_npz(path: Path, key: str | None) -> np.ndarray:
    if not (head := head_of(path)).startswith(b"PK"):
        raise DataError(f"'{path}' is no .npz file: {begins_like(head)}.")
    with np.load(path, allow_pickle=False) as archive:
        name = _chosen(path, key, list(archive.files))
        # To the end, because only there zipfile compares the checksum, and a damaged shape makes NumPy stop before.
        with zipfile.ZipFile(path) as packed, packed.open(_member(packed, name)) as member:
            while member.read(CHUNK):
                pass
        return archive[name]


def _member(packed: zipfile.ZipFile, name: str) -> str:
    """NumPy leaves the suffix out of the names of its arrays."""
    return name if name in packed.namelist() else f"{name}.npy"


def _read_mat(path: Path, key: str | None) -> np.ndarray:
    import h5py

    if h5py.is_hdf5(path):  # MATLAB 7.3
        return _read_hdf5(path, key)
    found = read_mat(path, None if key is None else [key])
    return found[_chosen(path, key, list(found))]


def _read_hdf5(path: Path, key: str | None) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        names = [name for name in file if isinstance(file[name], h5py.Dataset)]
    with open_dataset(path, _chosen(path, key, names)) as dataset:
        text = text_of(path, dataset)
        if text is not None:
            return text
        if dataset.attrs.get("MATLAB_empty", 0):  # then its values are the sizes
            return np.empty([int(size) for size in dataset[()]])
        if dataset.size and dataset.id.get_create_plist().get_layout() != h5py.h5d.COMPACT:  # these are in the header
            check_storage(path, dataset)
        return np.asarray(dataset).T  # MATLAB counts dimensions from the other end


def _chosen(path: Path, key: str | None, names: list[str]) -> str:
    """The array asked for, or the only one there is."""
    if key is None and len(names) == 1:
        return names[0]
    if key not in names:
        wanted = "no array was chosen" if key is None else f"there is no array {key!r}"
        raise DataError(f"'{path}': {wanted}; it holds {', '.join(map(repr, sorted(names)))}.")
    return key
