"""Arrays, images of voxels and tables from files, with errors that name the file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.reading import CHUNK, existing, reading

ARRAY_SUFFIXES = (".npy", ".npz", ".mat")


def read_array(path: Path, key: str | None = None) -> np.ndarray:
    """Read one array of a `.npy`, `.npz` or `.mat` file (MATLAB 7.3 as well); pickled objects are refused.

    Raises:
        DataError: If the file is missing or damaged, or has no such array.
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
    if array.dtype.kind not in "biufUS":
        raise DataError(f"'{path}': array {key!r} has type {array.dtype}; expected numbers or text.")
    return array


def _read_npy(path: Path, key: str | None) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _read_npz(path: Path, key: str | None) -> np.ndarray:
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
    import scipy.io

    try:
        names = [name for name, _, _ in scipy.io.whosmat(path)]
    except NotImplementedError:  # MATLAB 7.3 is HDF5
        return _read_hdf5(path, key)
    name = _chosen(path, key, names)
    return _plain_text(scipy.io.loadmat(path, variable_names=[name])[name])


def _read_hdf5(path: Path, key: str | None) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        names = [name for name in file if isinstance(file[name], h5py.Dataset)]
        return np.asarray(file[_chosen(path, key, names)]).T  # MATLAB counts dimensions from the other end


def _chosen(path: Path, key: str | None, names: list[str]) -> str:
    """The array asked for, or the only one there is."""
    if key is None and len(names) == 1:
        return names[0]
    if key not in names:
        wanted = "no array was chosen" if key is None else f"there is no array {key!r}"
        raise DataError(f"'{path}': {wanted}; it holds {', '.join(map(repr, sorted(names)))}.")
    return key


def _plain_text(array: np.ndarray) -> np.ndarray:
    """MATLAB cells of text as an array of text."""
    if array.dtype == object and all(np.ndim(cell) == 1 and np.asarray(cell).dtype.kind == "U" for cell in array.flat):
        return np.array([str(cell[0]) if len(cell) else "" for cell in array.ravel()])
    return array
