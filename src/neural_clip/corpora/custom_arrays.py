"""Arrays, images of voxels and tables from files, with errors that name the file."""

from __future__ import annotations

import csv
import gzip
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.errors import DataError

ARRAY_SUFFIXES = (".npy", ".npz", ".mat")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
TIME_UNITS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}  # a header of unknown unit does not tell the repetition time

CHUNK = 1 << 24  # bytes that are read at once where only a checksum is wanted


@contextmanager
def reading(path: Path | str, what: str = "") -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into a `DataError` that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # parsers of binary files raise nearly every type when a byte is wrong
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise DataError(f"'{path}' cannot be read{what}: {reason}. Is it damaged or truncated?") from error


def check_gzip(path: Path) -> None:
    """Read a `.gz` file to its end, because only there the checksum is compared."""
    with gzip.open(path) as packed:
        while packed.read(CHUNK):
            pass


def existing(path: Path, what: str) -> Path:
    """The path, if there is such a file."""
    if not path.is_file():
        raise DataError(f"There is no {what} '{path}'.")
    return path


def is_nifti(path: Path) -> bool:
    """Whether the name is a NIfTI file's."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


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


def read_volumes(path: Path, mask_path: Path | None, data_key: str | None) -> tuple[np.ndarray, float | None]:
    """Read fMRI data as `(n_volumes, n_voxels)` float32 with the repetition time in s, if the file tells it.

    Voxels are those where the mask is above 0, in C order of the mask. Arrays are `(n_volumes, n_voxels)`, or
    `(x, y, z, n_volumes)` with a mask.

    Raises:
        DataError: If a file is missing or damaged, grids differ, the mask is empty, or values are not finite.
    """
    if is_nifti(path):
        if mask_path is None:
            raise DataError(f"'{path}' is a NIfTI file, so 'mask' must name the voxels to take.")
        data, affine, t_r = _read_nifti(path)
    else:
        data, affine, t_r = read_array(path, data_key), None, None
    if mask_path is not None:
        data = _masked(data, affine, path, mask_path)
    if data.ndim != 2 or data.dtype.kind not in "biuf":
        raise DataError(f"'{path}' holds {data.dtype} of shape {data.shape}; expected numbers (n_volumes, n_voxels).")
    data = np.ascontiguousarray(data, dtype=np.float32)
    bad = ~np.isfinite(data).all(axis=0)
    if bad.any():
        raise DataError(
            f"'{path}': {int(bad.sum())} of {bad.size} voxels hold values that are not finite (NaN or infinite). "
            "Exclude them by 'mask'."
        )
    return data, t_r


def _masked(data: np.ndarray, affine: np.ndarray | None, path: Path, mask_path: Path) -> np.ndarray:
    """`(n_volumes, n_voxels)` of data `(x, y, z, n_volumes)`."""
    if is_nifti(mask_path):
        mask, mask_affine, _ = _read_nifti(mask_path)
        if affine is not None and not np.allclose(affine, mask_affine, atol=1e-3):
            raise DataError(f"The mask '{mask_path}' lies elsewhere in space than '{path}': their affines differ.")
    else:
        mask = read_array(mask_path)
    mask = mask[..., 0] if mask.ndim == 4 and mask.shape[3] == 1 else mask
    data = data[..., np.newaxis] if data.ndim == 3 and mask.ndim == 3 else data
    if data.ndim != 4 or mask.shape != data.shape[:3]:
        raise DataError(f"The mask '{mask_path}' has shape {mask.shape}, but '{path}' has shape {data.shape}.")
    if not (mask > 0).any():
        raise DataError(f"The mask '{mask_path}' has no voxel above 0.")
    return data[mask > 0].T


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Values, affine and repetition time in s."""
    import nibabel

    existing(path, "NIfTI file")
    with reading(path):
        if path.suffix == ".gz":
            check_gzip(path)
        image: Any = nibabel.load(path)
        data = np.asarray(image.dataobj, dtype=np.float32)
        zooms = image.header.get_zooms()
        factor = TIME_UNITS.get(image.header.get_xyzt_units()[1])
    if factor is None or len(zooms) < 4 or not zooms[3] > 0:
        return data, image.affine, None
    return data, image.affine, float(str(zooms[3])) * factor  # the decimal that was stored with 24 bits


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a `.tsv` or `.csv` file with a header.

    Raises:
        DataError: If the file is missing or is no table.
    """
    existing(path, "table")
    delimiter = {".tsv": "\t", ".csv": ","}.get(path.suffix.lower())
    if delimiter is None:
        raise DataError(f"'{path}' has suffix {path.suffix!r}; allowed are '.tsv' and '.csv'.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            names = list(reader.fieldnames or [])
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{path}' is no table: {error}.") from error
    if not rows or any(None in row or None in row.values() for row in rows):
        raise DataError(f"'{path}' is no table: it is empty, or its rows differ in length.")
    if len(set(names)) < len(names):
        raise DataError(f"'{path}' has two columns of one name; its columns are {', '.join(map(repr, names))}.")
    return rows


def column(rows: list[dict], name: str, where: object) -> list[str]:
    """One column of a table."""
    if name not in rows[0]:
        raise DataError(f"'{where}' has no column {name!r}; it has {', '.join(repr(key) for key in rows[0])}.")
    return [str(row[name]) for row in rows]


def numbers(values: list[str], name: str, where: object, rows: np.ndarray) -> np.ndarray:
    """A column as finite numbers; `rows` are the values' rows in the table, for the message."""
    array = np.empty(len(values))
    for i, value in enumerate(values):
        try:
            array[i] = float(value)
        except ValueError as error:
            raise DataError(f"'{where}', column {name!r}, row {rows[i]}: {error}.") from error
        if not np.isfinite(array[i]):
            raise DataError(f"'{where}', column {name!r}, row {rows[i]}: {value!r} is not finite.")
    return array


def kept(rows: list[dict], keep: dict, where: object) -> np.ndarray:
    """Which rows have one of the listed values in each column of `keep`; bool `(n,)`."""
    chosen = np.ones(len(rows), dtype=bool)
    for name, values in keep.items():
        allowed = {str(value) for value in (values if isinstance(values, list) else [values])}
        chosen &= np.array([value in allowed for value in column(rows, name, where)])
    if not chosen.any():
        raise DataError(f"'{where}': no row is left after 'keep' {keep}.")
    return chosen
