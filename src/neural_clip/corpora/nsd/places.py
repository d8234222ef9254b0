"""Where the voxels of NSD lie in MNI space, from its own transforms.

`transforms/MNI-to-func1pt8.nii.gz` of a subject has the shape `(X, Y, Z, 3)` of the 1.8 mm volume and says of each
voxel where it lies in the 1 mm MNI152 template, as positions in the template's array (182 x 218 x 182): decimals,
counted from 1, the first axis from right to left. 9999 marks voxels without a place. (`func1pt8-to-MNI.nii.gz` is the
other way round: a volume of the template that says where each of its voxels lies in the subject.)

Source: `nsd_mapdata` of https://github.com/cvnlab/nsdcode: its coordinates are "1-based", 9999 is invalid, volumes in
MNI space are kept from right to left, and the origin of MNI lies at (91, 127, 73).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.nifti import read_nifti
from neural_clip.prepared.places import checked_places

UNKNOWN = 9999
ORIGIN = np.array([91.0, 127.0, 73.0])
DIRECTIONS = np.array([-1.0, 1.0, 1.0])  # of the axes of the template: to the left, to the front, up; 1 mm a step


def read_mni_places(path: Path, mask: np.ndarray) -> tuple[np.ndarray | None, int]:
    """Places of a subject's voxels in MNI152.

    Args:
        path (`Path`): `MNI-to-func1pt8.nii.gz` of the subject.
        mask (`numpy.ndarray` of shape `(X, Y, Z)`, bool): Voxels to look up.

    Returns:
        `tuple[numpy.ndarray | None, int]`: Places `(n_voxels, 3)` in mm, float32, in C order of the mask; `None` where
        some are marked as unknown. And how many those are.

    Raises:
        DataError: If the file is damaged, of another grid, or holds what cannot be places.
    """
    volume = read_nifti(path)[0]
    if volume.shape != (*mask.shape, 3):
        raise DataError(
            f"'{path}' should have shape {(*mask.shape, 3)}, a place for each voxel of the subject's volume, but has "
            f"{volume.shape}. Is it another subject's, or that of another transform?"
        )
    found = volume[mask].astype(np.float64)
    if unknown := int((found == UNKNOWN).any(axis=1).sum()):
        return None, unknown
    return checked_places((found - ORIGIN) * DIRECTIONS, len(found), f"'{path}'"), 0
