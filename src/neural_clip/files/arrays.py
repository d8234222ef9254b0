"""Arrays from files, with errors that name the file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.hdf5 import check_storage, open_dataset
from neural_clip.files.mat import read_mat
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
    with reading(path):
        if suffix == ".npy":
            array = np.load(path, allow_pickle=False)
        else:
            array = (_read_npz if suffix == ".npz" else _read_mat)(path, key)
    if array.dtype.kind not in "biufUS":
        raise DataError(f"'{path}': array {key!r} has type {array.dtype}; expected numbers or text.")
    return array


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
