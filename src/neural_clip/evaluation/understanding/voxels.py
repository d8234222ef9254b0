"""Values of voxels written back into the grid they came from, and cut into slices."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.errors import DataError

SLICES = 6  # of a volume in each plane
# axis across which is cut, and what lies left, right, below and above in the slice: Left or Right of the subject,
# Posterior or Anterior, Inferior or Superior
PLANES = (("z", "LRPA"), ("y", "LRIS"), ("x", "PAIS"))


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


@dataclass
class Plane:
    """Slices of a volume across one axis, as they are drawn: the first row lowest.

    Args:
        axis (`str`): `"x"` (to the right), `"y"` (to the front) or `"z"` (up).
        sides (`str`): Letters of what lies left, right, below and above.
        places (`list[float]`): Where along the axis each slice lies, mm, at the middle of the region.
        slices (`list[np.ndarray]` of shape `(n_up, n_across)`): Values, NaN outside the region.
        extent (`tuple[float, float]`): Width and height of a slice, mm.
    """

    axis: str
    sides: str
    places: list[float]
    slices: list[np.ndarray]
    extent: tuple[float, float]


def cut_planes(volume: np.ndarray, inside: np.ndarray, affine: np.ndarray) -> list[Plane]:
    """Cut a volume into axial, coronal and sagittal slices, cropped to a region and one voxel around it.

    Each of the at most `SLICES` slices goes through the middle voxel of one of as many equal shares of the region's
    voxels, ordered along the axis: most of them lie where most voxels are, and none is empty.

    Args:
        volume (`np.ndarray` of shape `(x, y, z)`): Values.
        inside (`np.ndarray` of shape `(x, y, z)`, bool): The region.
        affine (`np.ndarray` of shape `(4, 4)`): From voxels to mm. Axes are swapped and flipped until they point to
            the right, to the front and up; grids that are askew are not resampled.
    """
    import nibabel

    turned = [
        nibabel.as_closest_canonical(nibabel.Nifti1Image(array.astype(np.float32), affine))
        for array in (volume, inside)
    ]
    values, region = turned[0].get_fdata(), turned[1].get_fdata() > 0
    box = [(max(found.min() - 1, 0), min(found.max() + 2, size)) for found, size in
           zip(np.nonzero(region), region.shape, strict=True)]  # fmt: skip
    middle = np.mean(box, axis=1) - 0.5
    extents = np.diff(box, axis=1)[:, 0] * nibabel.affines.voxel_sizes(turned[0].affine)
    shown = np.where(region, values, np.nan)[tuple(slice(*ends) for ends in box)]
    planes = []
    for name, sides in PLANES:
        axis = "xyz".index(name)
        along = np.sort(np.nonzero(region)[axis])
        levels = np.unique(along[((np.arange(SLICES) + 0.5) / SLICES * len(along)).astype(int)])
        centres = [np.where(np.arange(3) == axis, level, middle) for level in levels]
        places = [float(nibabel.affines.apply_affine(turned[0].affine, centre)[axis]) for centre in centres]
        slices = [np.take(shown, level - box[axis][0], axis=axis).T for level in levels]
        width, height = np.delete(extents, axis)
        planes.append(Plane(name, sides, places, slices, (float(width), float(height))))
    return planes
