"""Values of voxels written back into the grid they came from."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.errors import DataError


@dataclass
class VoxelMask:
    """Region of one subject: where its voxels lie, in C order of the mask."""

    inside: np.ndarray
    affine: np.ndarray

    def volume(self, values: np.ndarray) -> np.ndarray:
        """Lay values `(n_voxels,)` into the grid, float32, 0 outside the mask."""
        if np.shape(values) != (int(self.inside.sum()),):
            raise DataError(f"The mask holds {int(self.inside.sum())} voxels, but got values {np.shape(values)}.")
        volume = np.zeros(self.inside.shape, dtype=np.float32)
        volume[self.inside] = values
        return volume

    def nifti(self, values: np.ndarray, description: str) -> bytes:
        """Bytes of a `.nii.gz` of values; `description` (80 bytes at most) says what they are."""
        import nibabel

        image = nibabel.Nifti1Image(self.volume(values), self.affine)
        image.header["descrip"] = description.encode()[:79]
        image.header.set_xyzt_units("mm")
        return gzip.compress(image.to_bytes(), mtime=0)  # no time of writing: the same map, the same bytes


def read_mask(path: Path, n_voxels: int) -> VoxelMask | None:
    """Read the mask of a subject's voxels, or nothing where the data set has none.

    Raises:
        DataError: If the file is damaged, not three-dimensional, or holds another number of voxels.
    """
    import zlib

    import nibabel

    if not path.is_file():
        return None
    try:
        image: Any = nibabel.load(path)
        inside = np.asanyarray(image.dataobj)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"'{path}' is no readable NIfTI mask: {error}") from error
    if inside.ndim != 3 or not np.isfinite(inside).all() or not np.isfinite(image.affine).all():
        raise DataError(f"'{path}' must be a mask of three dimensions, finite throughout, but has {inside.shape}.")
    inside = inside > 0
    if int(inside.sum()) != n_voxels:
        raise DataError(f"'{path}' holds {int(inside.sum())} voxels, but the recordings have {n_voxels}.")
    return VoxelMask(inside, np.asarray(image.affine))
