"""Where the voxels of one's own recordings lie in a space that people share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neural_clip.corpora.custom.manifest import Manifest
from neural_clip.corpora.custom.trials import Trials
from neural_clip.errors import DataError
from neural_clip.files.arrays import read_array
from neural_clip.files.nifti import check_same_place, is_nifti, read_affine, read_nifti
from neural_clip.files.volumes import read_mask
from neural_clip.prepared.places import checked_places, in_mm


def voxel_places(manifest: Manifest, root: Path, trials: Sequence[Trials]) -> dict[str, np.ndarray]:
    """Places of the voxels of each subject that has them, `(n_voxels, 3)` in mm, float32.

    Args:
        manifest (`Manifest`): What it says of them.
        root (`Path`): Where relative paths begin.
        trials (sequence of [`Trials`]): The recordings; one of a subject without a mask is loaded to count voxels.

    Raises:
        DataError: If a file is missing or damaged, or its places do not fit the voxels or cannot be.
    """
    if manifest.places is None:
        return {}
    named = manifest.places.files
    places = {}
    for subject in sorted({entry.subject for entry in manifest.recordings}):
        masks = [root / entry.mask for entry in manifest.recordings if entry.subject == subject and entry.mask]
        if named is None:
            places[subject] = _of_masks(list(dict.fromkeys(masks)))
        elif subject in named:
            path = root / named[subject]
            if is_nifti(path):
                places[subject] = _of_volume(path, masks[0] if masks else None, subject)
                continue
            mine = next(trial for trial in trials if trial.entry.subject == subject)
            n_voxels = int(read_mask(masks[0])[0].sum()) if masks else mine.load().shape[1]
            places[subject] = checked_places(read_array(path), n_voxels, f"'{path}'")
    return places


def _of_masks(paths: list[Path]) -> np.ndarray:
    """Places by the affine of the masks of a subject, which mark the same voxels."""
    mask = read_mask(paths[0])[0]
    affines = [read_affine(path) if is_nifti(path) else None for path in paths]
    affine = affines[0]
    if affine is None:
        raise DataError(
            f"'{paths[0]}' does not tell where its voxels lie: it is no NIfTI file, or its header has no affine. Give "
            "'files' of 'places', or save the mask as NIfTI."
        )
    for path, other in zip(paths, affines, strict=True):
        check_same_place(paths[0], affine, path, other)
    return checked_places(in_mm(np.argwhere(mask), affine), int(mask.sum()), f"'{paths[0]}'")


def _of_volume(path: Path, mask_path: Path | None, subject: str) -> np.ndarray:
    """Places from a volume of them, within the mask."""
    volume, affine, _ = read_nifti(path)
    if mask_path is None:
        raise DataError(f"'{path}' is a volume of places, but the recordings of {subject} have no 'mask'.")
    mask, mask_affine = read_mask(mask_path)
    check_same_place(path, affine, mask_path, mask_affine)
    if volume.shape != (*mask.shape, 3):
        raise DataError(
            f"'{path}' should have shape {(*mask.shape, 3)}, a place for each voxel of the grid of '{mask_path}', but "
            f"has {volume.shape}."
        )
    return checked_places(volume[mask], int(mask.sum()), f"'{path}'")
