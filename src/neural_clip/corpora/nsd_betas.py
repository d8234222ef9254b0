"""Single-trial fMRI responses (betas) of the Natural Scenes Dataset, from NIfTI or HDF5, one session at a time.

Betas are int16, percent signal change times 300 (NSD data manual, "Functional data"). The NIfTI file has the axes
(X, Y, Z, trial); the HDF5 file, written by MATLAB, appears to h5py as (trial, Z, Y, X). Voxels come out in one order
from both: the C order of the NIfTI mask, `numpy.argwhere(mask)`.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError

__all__ = ["BETAS_DIR", "SCALE", "available_sessions", "read_mask", "read_session"]

BETAS_DIR = "func1pt8mm/betas_fithrf_GLMdenoise_RR"
SCALE = 300.0
"""Stored integers per percent signal change."""
_SUFFIXES = {"nifti": ".nii.gz", "hdf5": ".hdf5"}
_BLOCK = 64 * 2**20  # bytes of volumes held at once while a NIfTI stream is read


def subject_folder(raw_dir: Path, subject: int) -> Path:
    """Folder of a subject's betas."""
    return raw_dir / "nsddata_betas" / "ppdata" / f"subj{subject:02d}" / BETAS_DIR


def available_sessions(raw_dir: Path, subject: int, betas_format: str = "auto") -> dict[int, Path]:
    """Files of a subject by session, counted from 1; NIfTI is preferred where both exist and the format is "auto".

    Raises:
        DataError: If `betas_format` is unknown.
    """
    if betas_format != "auto" and betas_format not in _SUFFIXES:
        raise DataError(
            "Invalid value for the 'betas_format' parameter. Allowed values are 'auto', 'nifti' and 'hdf5', "
            f"but got '{betas_format}' instead."
        )
    found: dict[int, Path] = {}
    for name, suffix in _SUFFIXES.items():
        if betas_format in ("auto", name):
            for path in sorted(subject_folder(raw_dir, subject).glob(f"betas_session[0-9][0-9]{suffix}")):
                found.setdefault(int(path.name[len("betas_session") : -len(suffix)]), path)
    return dict(sorted(found.items()))


def read_mask(path: Path) -> np.ndarray:
    """Voxels of a region file whose value is above 0 (nsdgeneral holds -1 and 0 outside), bool of shape (X, Y, Z).

    Raises:
        DataError: If the file is absent, damaged, not 3-D or marks no voxel.
    """
    import nibabel

    if not path.is_file():
        raise DataError(f"'{path}' does not exist. See https://naturalscenesdataset.org for access to NSD.")
    try:
        values = np.asanyarray(nibabel.Nifti1Image.from_filename(path).dataobj)
    except (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        raise DataError(f"'{path}' cannot be read; the copy may be incomplete: {error}") from error
    if values.ndim != 3:
        raise DataError(f"'{path}' should be 3-D, but has shape {values.shape}.")
    mask = values > 0
    if not mask.any():
        raise DataError(f"'{path}' marks no voxel: no value is above 0.")
    return mask


def read_session(path: Path, mask: np.ndarray, n_trials: int) -> np.ndarray:
    """Betas of one session within a mask.

    Args:
        path (`Path`): `betas_sessionNN.nii.gz` or `.hdf5`.
        mask (`numpy.ndarray` of shape `(X, Y, Z)`, bool): Voxels to keep.
        n_trials (`int`): Trials that the file must hold.

    Returns:
        `numpy.ndarray` of shape `(n_trials, n_voxels)`, float32: Percent signal change, voxels in C order of the mask.

    Raises:
        DataError: If the file is truncated, has another shape or type, or is scaled by its header.
    """
    reader = _read_hdf5 if path.suffix == ".hdf5" else _read_nifti
    try:
        return reader(path, mask, n_trials).astype(np.float32) / np.float32(SCALE)
    except DataError:
        raise
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, zlib.error) as error:
        raise DataError(f"'{path}' cannot be read; the copy may be incomplete: {error}") from error


def _read_nifti(path: Path, mask: np.ndarray, n_trials: int) -> np.ndarray:
    """Masked int16 values from a NIfTI stream; a few volumes are in memory at a time."""
    import nibabel

    with gzip.open(path, "rb") as stream:
        try:
            header = nibabel.Nifti1Header.from_fileobj(stream)
        except (nibabel.wrapstruct.WrapStructError, nibabel.spatialimages.HeaderDataError) as error:
            raise ValueError(f"no NIfTI-1 header: {error}") from error
        _check_layout(path, tuple(header.get_data_shape()), (*mask.shape, n_trials), header.get_data_dtype())
        slope, intercept = header.get_slope_inter()
        if slope not in (None, 1) or intercept not in (None, 0):
            raise DataError(f"'{path}' should hold unscaled integers, but its header has slope {slope}, {intercept}.")
        stream.seek(int(header.get_data_offset()))
        voxels = np.flatnonzero(mask.ravel(order="F"))  # position in the file
        # file order is Fortran order; argsort turns it into the C order of the mask
        c_rank = np.arange(mask.size).reshape(mask.shape).ravel(order="F")[voxels]
        voxels = voxels[np.argsort(c_rank)]
        out = np.empty((n_trials, voxels.size), np.int16)
        size = mask.size * 2
        step = max(1, _BLOCK // size)
        for start in range(0, n_trials, step):
            count = min(step, n_trials - start)
            block = stream.read(count * size)
            if len(block) != count * size:
                raise EOFError(f"it ends within trial {start + len(block) // size + 1} of {n_trials}")
            out[start : start + count] = np.frombuffer(block, header.get_data_dtype()).reshape(count, -1)[:, voxels]
        if stream.read(1):  # also makes gzip verify its checksum
            raise DataError(f"'{path}' is longer than its header says.")
    return out


def _read_hdf5(path: Path, mask: np.ndarray, n_trials: int) -> np.ndarray:
    """Masked int16 values from an HDF5 file, slab by slab along z."""
    import h5py

    x, y, z = np.nonzero(mask)  # in C order of the mask
    out = np.empty((n_trials, x.size), np.int16)
    with h5py.File(path, "r") as file:
        betas = file["betas"]
        _check_layout(path, betas.shape, (n_trials, *mask.shape[::-1]), betas.dtype)
        for level in np.unique(z):
            rows = np.flatnonzero(z == level)
            low_y, low_x = y[rows].min(), x[rows].min()
            slab = betas[:, level, low_y : y[rows].max() + 1, low_x : x[rows].max() + 1]
            out[:, rows] = slab[:, y[rows] - low_y, x[rows] - low_x]
    return out


def _check_layout(path: Path, shape: tuple, expected: tuple, dtype: np.dtype) -> None:
    """Require shape and int16."""
    if tuple(shape) != expected:
        raise DataError(
            f"'{path}' should have shape {expected} (from the subject's mask and the trials of a session), but has "
            f"{tuple(shape)}. Do mask and betas belong to the same subject?"
        )
    if dtype.kind != "i" or dtype.itemsize != 2:
        raise DataError(f"'{path}' should hold int16 (percent signal change x 300), but holds {dtype}.")
