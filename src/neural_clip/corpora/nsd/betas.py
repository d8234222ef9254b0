"""Single-trial fMRI responses (betas) of the Natural Scenes Dataset, from NIfTI or HDF5, one session at a time.

Betas are int16, percent signal change times 300 (NSD data manual, "Functional data"). The NIfTI file has the axes
(X, Y, Z, trial); the HDF5 file, written by MATLAB, appears to h5py as (trial, Z, Y, X). Voxels come out in one order
from both: the C order of the NIfTI mask, `numpy.argwhere(mask)`.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.hdf5 import check_storage, open_dataset, read_slab
from neural_clip.files.nifti import open_nifti, read_all
from neural_clip.files.reading import reading

SCALE = 300.0
"""Stored integers per percent signal change."""


def read_mask(path: Path, values: Sequence[int] | None = None) -> np.ndarray:
    """Voxels of a region file, bool of shape (X, Y, Z).

    Args:
        path (`Path`): NIfTI-1 file of whole numbers: -1 and 0 outside of all regions, 1, 2, ... inside.
        values (`Sequence[int]`, *optional*): The regions to take; default all above 0.

    Raises:
        DataError: If the file is absent, damaged, not 3-D or scaled, or does not hold each of `values`.
    """
    with open_nifti(path) as stream:
        if len(stream.shape) != 3:
            raise DataError(f"'{path}' should be 3-D, but has shape {stream.shape}.")
        if stream.scaled or stream.dtype.kind not in "iuf":
            raise DataError(
                f"'{path}' should hold plain numbers, but holds {stream.dtype}, scaled by {stream.scaling}."
            )
        regions = read_all(stream)
    if regions.dtype.kind == "f" and not np.isfinite(regions).all():
        raise DataError(f"'{path}' holds NaN or infinite values, but should hold whole numbers.")
    if values is None:
        mask = regions > 0
        if not mask.any():
            raise DataError(f"'{path}' marks no voxel: no value is above 0.")
        return mask
    present = np.unique(regions[regions > 0]).tolist()
    absent = [value for value in values if value not in present]
    if absent:
        known = ", ".join(f"{value:g}" for value in present[:40])
        raise DataError(
            f"Invalid value for the 'roi_values' parameter. '{path}' holds {known or 'no value above 0'}, "
            f"but got {', '.join(map(str, absent))} instead."
        )
    return np.isin(regions, list(values))


def mask_file(path: Path, mask: np.ndarray) -> bytes:
    """A mask as a `.nii.gz` file with the place in space of the region file that it was taken from.

    Args:
        path (`Path`): The region file.
        mask (`numpy.ndarray` of shape `(X, Y, Z)`, bool): Voxels; the columns of the recordings are these, in C order.
    """
    import nibabel

    with reading(path):
        region: Any = nibabel.load(path)
    image = nibabel.Nifti1Image(mask.astype(np.uint8), region.affine)
    return gzip.compress(image.to_bytes(), mtime=0)


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

    Memory: the result, its integers, and a volume (NIfTI) or the list of chunks (HDF5).
    """
    reader = _read_hdf5 if path.suffix == ".hdf5" else _read_nifti
    betas = reader(path, mask, n_trials).astype(np.float32)
    betas /= np.float32(SCALE)
    return betas


def _read_nifti(path: Path, mask: np.ndarray, n_trials: int) -> np.ndarray:
    """Masked int16 values from a NIfTI stream, volume by volume."""
    # positions in the file, which is in Fortran order, listed in the C order of the mask
    voxels = np.arange(mask.size).reshape(mask.shape, order="F")[mask]
    out = np.empty((n_trials, voxels.size), np.int16)
    with open_nifti(path) as stream:
        _check_layout(path, stream.shape, (*mask.shape, n_trials), stream.dtype)
        if stream.scaled:
            slope, intercept = stream.scaling
            raise DataError(f"'{path}' should hold unscaled integers, but its header has slope {slope}, {intercept}.")
        for trial in range(n_trials):
            try:
                volume = stream.values(mask.size)
            except EOFError as error:
                raise EOFError(f"it ends within trial {trial + 1} of {n_trials}; {error}") from error
            out[trial] = volume[voxels]
    return out


def _read_hdf5(path: Path, mask: np.ndarray, n_trials: int) -> np.ndarray:
    """Masked int16 values from an HDF5 file, by runs of voxels along x, the fastest axis on disk."""
    import h5py

    # columns of the result, which are in C order of the mask, listed in the order of the file
    columns = np.full(mask.shape, -1)
    columns[mask] = np.arange(mask.sum())
    z, y, x = np.nonzero(mask.T)
    columns = columns[x, y, z]
    broken = (np.diff(x) != 1) | (np.diff(y) != 0) | (np.diff(z) != 0)
    out = np.empty((n_trials, x.size), np.int16)
    with open_dataset(path, "betas") as betas:
        _check_layout(path, betas.shape, (n_trials, *mask.shape[::-1]), betas.dtype)
        if not betas.id.get_type().equal(h5py.h5t.STD_I16LE):  # another precision would be converted silently
            raise DataError(f"'{path}' should hold little-endian int16, but holds {betas.id.get_type().dtype}.")
        check_storage(path, betas)
        for run in np.split(np.arange(x.size), np.flatnonzero(broken) + 1):
            first, last = run[0], run[-1]
            spans = [(int(axis[first]), int(axis[last]) + 1) for axis in (z, y, x)]
            out[:, columns[run]] = read_slab(betas, (0, n_trials), *spans)[:, 0, 0]
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
