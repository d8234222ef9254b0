"""fMRI data and masks from NIfTI files and arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.arrays import read_array
from neural_clip.files.nifti import check_same_place, is_nifti, read_nifti


def read_volumes(path: Path, mask_path: Path | None, data_key: str | None) -> tuple[np.ndarray, float | None]:
    """Read fMRI data as `(n_volumes, n_voxels)` float32 with the repetition time in s, if the file tells it.

    Voxels are those where the mask is above 0, in C order of the mask. Arrays are `(n_volumes, n_voxels)`, or
    `(x, y, z, n_volumes)` with a mask.

    Raises:
        DataError: If a file is missing or damaged, grids differ, the mask is empty, or values are not finite.
    """
    if is_nifti(path):
        if data_key is not None:
            raise DataError(f"'{path}' is a NIfTI file, which holds one array without a name, but 'data_key' is set.")
        if mask_path is None:
            raise DataError(f"'{path}' is a NIfTI file, so 'mask' must name the voxels to take.")
        data, affine, t_r = read_nifti(path)
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


def read_mask(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Which voxels a mask marks, bool `(x, y, z)`, and its affine, if the file tells it."""
    mask, affine = read_nifti(path)[:2] if is_nifti(path) else (read_array(path), None)
    if mask.dtype.kind == "f" and not np.isfinite(mask).all():
        raise DataError(f"The mask '{path}' holds NaN or infinite values. Save it with 0 outside and 1 inside.")
    return (mask[..., 0] if mask.ndim == 4 and mask.shape[3] == 1 else mask) > 0, affine


def _masked(data: np.ndarray, affine: np.ndarray | None, path: Path, mask_path: Path) -> np.ndarray:
    """`(n_volumes, n_voxels)` of data `(x, y, z, n_volumes)`."""
    mask, mask_affine = read_mask(mask_path)
    check_same_place(path, affine, mask_path, mask_affine)
    data = data[..., np.newaxis] if data.ndim == 3 and mask.ndim == 3 else data
    if data.ndim != 4 or mask.shape != data.shape[:3]:
        raise DataError(f"The mask '{mask_path}' has shape {mask.shape}, but '{path}' has shape {data.shape}.")
    if not mask.any():
        raise DataError(f"The mask '{mask_path}' has no voxel above 0.")
    return data[mask].T
