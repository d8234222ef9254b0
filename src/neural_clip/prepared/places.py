"""Where voxels lie: in a space that people share, as `places.safetensors` holds it, or in their scanner, by the mask.

Places are `(n_voxels, 3)` in mm, one row a column of the recordings. A common space is needed to carry anything from
one person's voxels to another's. `places.safetensors` has a tensor for each subject whose places are known, under the
subject's name; `places_space` of `neural_clip.json` names the space.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.reading import reading

PLACES_FILE = "places.safetensors"
SPACES = ("MNI152", "fsaverage")
# Heads end within 130 mm of the origin of these spaces: farther is another unit or a mark for "unknown", such as 9999.
MAX_DISTANCE_MM = 250.0
# A region of voxels is larger; metres stay below.
MIN_DISTANCE_MM = 1.0


def checked_places(places: np.ndarray, n_voxels: int, where: str) -> np.ndarray:
    """Places as they are stored.

    Args:
        places (`np.ndarray` of shape `(n_voxels, 3)`): In mm.
        n_voxels (`int`): Columns of the subject's recordings.
        where (`str`): The file, or whose places they are, for the message.

    Returns:
        `np.ndarray` of shape `(n_voxels, 3)`, float32.

    Raises:
        DataError: If the shape is another, a place is not finite, lies outside of any head, or all are the same.
    """
    if places.dtype.kind not in "iuf" or places.shape != (n_voxels, 3):
        raise DataError(
            f"{where} should hold places of voxels as numbers of shape ({n_voxels}, 3), in mm, a row a voxel, but "
            f"holds {places.dtype} of shape {places.shape}."
        )
    if count := int((~np.isfinite(places)).any(axis=1).sum()):
        raise DataError(f"{where}: the places of {count} of {n_voxels} voxels are not finite (NaN or infinite).")
    with np.errstate(over="ignore"):
        distance = np.linalg.norm(places.astype(np.float64), axis=1)
    if count := int((distance > MAX_DISTANCE_MM).sum()):
        raise DataError(
            f"{where}: the places of {count} of {n_voxels} voxels lie more than {MAX_DISTANCE_MM:g} mm from the "
            f"origin, the farthest {distance.max():.4g} mm: outside of any head. Places are in mm."
        )
    if n_voxels > 1 and not np.ptp(places, axis=0).any():
        raise DataError(f"{where}: all {n_voxels} voxels lie in the same place.")
    if n_voxels > 1 and distance.max() < MIN_DISTANCE_MM:
        raise DataError(
            f"{where}: all {n_voxels} voxels lie within {MIN_DISTANCE_MM:g} mm of the origin. Places are in mm, not "
            "in m."
        )
    return np.ascontiguousarray(places, dtype=np.float32)  # safetensors stores the bytes as they lie


def checked_set(
    places: Mapping[str, np.ndarray], space: str | None, n_voxels: Mapping[str, int] | None, where: str
) -> dict[str, np.ndarray]:
    """Places of all subjects of a data set who have them.

    Args:
        places (`Mapping[str, np.ndarray]`): By subject.
        space (`str`, *optional*): What the data set says they are in.
        n_voxels (`Mapping[str, int]`, *optional*): Voxels of each subject of the data set; `None` for EEG and MEG.
        where (`str`): The file or the data set, for the message.

    Raises:
        DataError: If a space without places is named or the other way round, a subject is unknown, or the places of
            one cannot be (see [`checked_places`]).
    """
    if bool(places) != (space is not None):
        raise DataError(f"{where}: 'places_space' is {space!r}, but {len(places)} subjects have places of voxels.")
    if unknown := sorted(set(places) - set(n_voxels or {})):
        raise DataError(f"{where}: there are places of voxels of {unknown[0]!r}, of whom there are no voxels.")
    known = n_voxels or {}
    return {name: checked_places(own, known[name], f"{where}, {name}") for name, own in sorted(places.items())}


def read_places(path: Path, space: str | None, n_voxels: Mapping[str, int] | None) -> dict[str, np.ndarray]:
    """Places by subject, of a prepared data set's file; empty where the data set has none.

    Raises:
        DataError: If the file is missing or damaged, or what it holds cannot be places ([`checked_set`]).
    """
    from safetensors.numpy import load_file

    if space is None and not path.exists():
        return {}
    with reading(path):
        places = load_file(path)
    return checked_set(places, space, n_voxels, f"'{path}'")


def in_mm(indices: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Places of voxels `(n, 3)` by their indices and the affine of their grid, float64."""
    return indices @ affine[:3, :3].T + affine[:3, 3]
