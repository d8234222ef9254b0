"""Files that visitors upload, as recordings that the processor takes, and one recording of many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.corpora.custom.epochs import FIF_SUFFIXES, fif_parts, strict_mne
from neural_clip.errors import DataError, check_value
from neural_clip.files.arrays import ARRAY_SUFFIXES, read_array
from neural_clip.files.nifti import NIFTI_SUFFIXES, is_nifti, read_nifti
from neural_clip.files.reading import existing
from neural_clip.files.volumes import read_mask

SUFFIXES = (*ARRAY_SUFFIXES, *FIF_SUFFIXES, *NIFTI_SUFFIXES)


def read_recordings(path: Path) -> Any:
    """Recordings of a file: an array, `mne.Epochs` or a NIfTI image in memory.

    Raises:
        DataError: If the file is of another kind, damaged, or holds no epochs.
    """
    name = path.name.lower()
    check_value("file", path.name, name.endswith(SUFFIXES), f"a name that ends in {', '.join(SUFFIXES)}")
    if name.endswith(ARRAY_SUFFIXES):
        values = read_array(path)
        if not values.size:
            raise DataError(f"'{path}' holds no recordings: the array has the shape {values.shape}.")
        return values
    return _image(path) if is_nifti(path) else _epochs(path)


def read_region(path: Path) -> Any:
    """A mask as a NIfTI image, or as an array where the file has no place."""
    import nibabel

    name = path.name.lower()
    check_value("mask", path.name, is_nifti(path) or name.endswith(ARRAY_SUFFIXES), "a NIfTI file or an array")
    mask, affine = read_mask(path)
    return mask if affine is None else nibabel.Nifti1Image(mask.astype(np.uint8), affine)


def one_of(recordings: Any, number: int, n_axes: int) -> tuple[Any, int]:
    """One recording, as a batch of one, and how many there are.

    Args:
        recordings (array, `mne.Epochs`, NIfTI image or `datasets.Dataset`): As they were read.
        number (`int`): From 1.
        n_axes (`int`): Of an array that is a single recording.

    Raises:
        DataError: If there is no recording of this number.
    """
    if hasattr(recordings, "affine"):
        count = 1 if len(recordings.shape) < 4 else recordings.shape[3]
    else:
        count = 1 if isinstance(recordings, np.ndarray) and recordings.ndim <= n_axes else len(recordings)
    fits = isinstance(number, int | float) and 1 <= number <= count and number == int(number)
    check_value("recording", number, fits, f"1 to {count}, the recordings that there are")
    row = int(number) - 1
    if hasattr(recordings, "affine"):
        return (recordings if len(recordings.shape) < 4 else recordings.slicer[..., row : row + 1]), count
    if hasattr(recordings, "select"):
        return recordings.select([row]), count
    return (recordings if count == 1 else recordings[row : row + 1]), count


def _image(path: Path) -> Any:
    """A NIfTI image in memory."""
    import nibabel

    values, affine, _ = read_nifti(path)
    return nibabel.Nifti1Image(values, affine)


def _epochs(path: Path) -> Any:
    """`mne.Epochs` in memory; what another program saved as one file has one part."""
    import mne

    existing(path, "FIF file")
    with strict_mne(path, " as mne.Epochs"):
        if len(fif_parts(path)) > 1:
            raise DataError(f"'{path}' was saved in several parts; save the epochs that are asked about in one file.")
        epochs = mne.read_epochs(path, proj=False, preload=True, verbose="warning")
    if not len(epochs):
        raise DataError(f"'{path}' holds no epochs; were all of them rejected?")
    return epochs
