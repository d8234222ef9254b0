"""Files of recordings, opened by what they are."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.corpora.custom.epochs import FIF_SUFFIXES, fif_parts, open_epochs
from neural_clip.errors import DataError, did_you_mean
from neural_clip.files.arrays import ARRAY_SUFFIXES, read_array
from neural_clip.files.nifti import check_nifti, is_nifti
from neural_clip.files.reading import existing, reading
from neural_clip.files.volumes import read_mask
from neural_clip.gallery.embedder import Embedder, modality_of
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.queries.bids import bids_place
from neural_clip.queries.continuous import open_continuous
from neural_clip.queries.options import RecordingOptions
from neural_clip.queries.recorded import (
    RecordingFile,
    check_repeated,
    interpolation_of_file,
    numbered,
    said_of,
    sensors_of,
)

# What is used of each kind of file; anything else would be ignored in silence.
EPOCHS, CONTINUOUS, IMAGE, ARRAY = "epochs", "continuous recordings", "an fMRI image", "an array"
USED = {
    EPOCHS: {"unit", "scaling", "montage"},
    CONTINUOUS: {"unit", "scaling", "montage", "events", "keep", "bad_segments", "notch", "task", "run"},
    IMAGE: {"unit", "scaling", "mask"},
    ARRAY: {"unit", "scaling", "montage", "ch_names", "key", "sfreq", "tmin"},
}


def open_recordings(place: str | Path, embedder: Embedder, options: RecordingOptions) -> RecordingFile:
    """Open a file of recordings.

    Args:
        place (`str` or `Path`): Epochs or a continuous recording that mne reads, a file or the root of a BIDS data
            set, a NIfTI image whose volumes are responses, or an array.
        embedder ([`Embedder`]): Whose checkpoint says what recordings must become.
        options ([`RecordingOptions`]): What the file does not tell.

    Raises:
        DataError: If it is no such file, is damaged, or an option is not used of its kind.
    """
    path = Path(place)
    if is_nifti(path):
        return _image(path, options)
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return _array(path, embedder, options)
    if not path.exists():
        beside = [other.name for other in path.parent.glob("*")]
        raise DataError(f"There is no recording '{path}'.{did_you_mean(path.name, beside)}")
    bids = bids_place(path, options)
    if bids is None and path.name.lower().endswith(FIF_SUFFIXES) and _kind_of_fif(path) == "epochs":
        return _epochs(path, embedder, options)
    check_used(path, CONTINUOUS, USED[CONTINUOUS] if bids else USED[CONTINUOUS] - {"task", "run"}, options)
    if bids is None:
        _check_no_folder(path)
    return open_continuous(path, embedder, options, bids)


def check_used(place: str | Path, kind: str, used: set[str], options: RecordingOptions) -> None:
    """Raise a `DataError` where an option is given that a kind of recordings does not use."""
    common = {"modality", "subject", "session"}
    for item in fields(options):
        if getattr(options, item.name) is not None and item.name not in used | common:
            flag = f"--{item.name.replace('_', '-')}"
            allowed = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(used | common))
            raise DataError(f"'{place}' holds {kind}, of which {flag} is not used. Used are {allowed}.")


def _kind_of_fif(path: Path) -> str:
    """What a FIF file holds, `"epochs"` or `"raw"`; a `DataError` for anything else."""
    import mne

    fif_parts(existing(path, "recording"))
    with reading(path):
        kind = str(mne.what(path))
    if kind not in ("epochs", "raw"):
        raise DataError(f"'{path}' holds no recordings, but {kind!r}; allowed are epochs and continuous recordings.")
    return kind


def _check_no_folder(path: Path) -> None:
    """Raise a `DataError` for a folder, unless it is a recording of CTF."""
    if path.is_dir() and path.suffix.lower() != ".ds":
        raise DataError(
            f"'{path}' is a folder without recordings: it is no prepared data set (neural_clip.json), no gallery "
            "(gallery.json) and no BIDS data set (dataset_description.json). Name a file."
        )


def _epochs(path: Path, embedder: Embedder, options: RecordingOptions) -> RecordingFile:
    """`mne.Epochs`, of which some are loaded at a time."""
    import mne

    check_used(path, EPOCHS, USED[EPOCHS], options)
    epochs, renamed = open_epochs(path)
    modality = sensors_of(path, epochs, embedder, options.modality)
    names_of_type = {number: name for name, number in epochs.event_id.items()}
    kinds = [names_of_type[number] for number in epochs.events[:, 2]]
    names = numbered(kinds if len(set(kinds)) > 1 else [""] * len(kinds))
    check_repeated(path, renamed, embedder, modality)
    made = interpolation_of_file(path, embedder, modality, options, options.subject, epochs)

    def read(start: int, stop: int) -> mne.Epochs:
        with reading(path), mne.use_log_level("error"):
            return epochs[start:stop].load_data()

    return RecordingFile(str(path), modality, options.subject, names, read, said_of(options), made)


def _image(path: Path, options: RecordingOptions) -> RecordingFile:
    """Volumes of a NIfTI image, each a response; some are in memory at a time."""
    import nibabel

    check_used(path, IMAGE, USED[IMAGE], options)
    check_nifti(path)
    with reading(path):
        image: Any = nibabel.load(path, keep_file_open=True)  # one that is compressed is read once, from front to end
    said = said_of(options)
    if options.mask is not None:
        inside, affine = read_mask(options.mask)
        said["mask"] = inside if affine is None else nibabel.Nifti1Image(inside.astype(np.uint8), affine)
    several = len(image.shape) == 4

    def read(start: int, stop: int) -> Any:
        with reading(path):
            return image.slicer[..., start:stop] if several else image

    names = numbered([""] * (image.shape[3] if several else 1))
    return RecordingFile(str(path), "fmri", options.subject, names, read, said)


def _array(path: Path, embedder: Embedder, options: RecordingOptions) -> RecordingFile:
    """An array of recordings, or of one; that of a `.npy` file stays on disk."""
    check_used(path, ARRAY, USED[ARRAY], options)
    values = read_array(path, options.key, mapped=True)
    if not values.size:
        raise DataError(f"'{path}' holds no recordings: its array has the shape {values.shape}.")
    modality = modality_of(values, embedder) if options.modality is None else options.modality
    single = values.ndim == (2 if MODALITIES[modality].sensors else 1)
    names = numbered([""] * (1 if single or not values.ndim else len(values)))

    def read(start: int, stop: int) -> np.ndarray:
        return values if single else values[start:stop]

    made = interpolation_of_file(path, embedder, modality, options, options.subject)
    said = said_of(options, "sfreq", "tmin", "ch_names")
    return RecordingFile(str(path), modality, options.subject, names, read, said, made)
