"""Prepared data sets as the trainer and the evaluation read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.errors import DataError
from neural_clip.prepared.facts import read_metadata
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.splits import SPLITS

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa


@dataclass
class ImageTable:
    """The images of a prepared data set, one row each, without pixels.

    Args:
        image_ids (`list[str]`): Unique names.
        embeds (`np.ndarray` of shape `(n_images, projection_dim)`): float32, as the image encoder gave them.
        concepts (`list[str]`): One concept an image.
        categories (`list[list[str]]`): Categories of each image; may be empty.
    """

    image_ids: list[str]
    embeds: np.ndarray
    concepts: list[str]
    categories: list[list[str]]

    def rows_of(self, image_ids: Sequence[str]) -> np.ndarray:
        """Row of each image id, `(len(image_ids),)` int64."""
        index = {image_id: row for row, image_id in enumerate(self.image_ids)}
        return np.array([index[image_id] for image_id in image_ids], dtype=np.int64)


def resolve_folder(folder: str | Path) -> Path:
    """Return a local prepared data set, or fetch one of that name from the Hub.

    Raises:
        DataError: If it is no local folder and cannot be had from the Hub.
    """
    if Path(folder).is_dir():
        return Path(folder)
    if (name := str(folder)).count("/") != 1 or name.startswith((".", "/", "~")):
        raise DataError(f"'{folder}' is no folder; make a prepared data set with `neural-clip prepare`.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset", etag_timeout=5))
    except (OSError, ValueError) as error:
        raise DataError(
            f"'{folder}' is neither a folder here nor a data set that could be fetched from the Hub "
            f"({type(error).__name__}). Prepare it with `neural-clip prepare` and give the folder."
        ) from error


def load_metadata(folder: str | Path) -> dict:
    """Read what a prepared data set says of itself (`neural_clip.json`)."""
    return read_metadata(resolve_folder(folder))


def folder_of(argument: str) -> str:
    """Folder of a `MODALITY=FOLDER` argument, which holds recordings of that modality or raises a `DataError`."""
    modality, separator, folder = argument.partition("=")
    if not separator or modality not in MODALITIES:
        raise DataError(
            f"Invalid value for the '--data' parameter. Allowed are eeg=FOLDER, meg=FOLDER and fmri=FOLDER, "
            f"but got '{argument}' instead."
        )
    found = load_metadata(folder)["modality"]
    if found != modality:
        raise DataError(f"'{argument}' says {modality}, but the data set holds {found} recordings.")
    return folder


def load_recordings(folder: str | Path, split: str, subjects: Sequence[str] | None = None) -> datasets.Dataset:
    """Open the recordings of a split, memory-mapped.

    Args:
        folder (`str` or `Path`): Prepared data set, local or by its Hub name.
        split (`str`): `"train"`, `"validation"` or `"test"`.
        subjects (sequence of `str`, *optional*): Keep these; all by default.

    Raises:
        DataError: If the folder, the split or a subject does not exist.
    """
    from datasets import concatenate_datasets, load_dataset

    if split not in SPLITS:
        raise DataError(f"Invalid value for the 'split' parameter. Allowed values are {SPLITS}, but got {split!r}.")
    local = resolve_folder(folder)
    metadata = read_metadata(local)
    wanted = list(subjects) if subjects is not None else list(metadata["subjects"])
    unknown = sorted(set(wanted) - set(metadata["subjects"]))
    if unknown:
        raise DataError(f"'{folder}' has no subject {unknown}; it has {metadata['subjects']}.")
    counts = metadata["subject_splits"]
    parts = [load_dataset(str(local), name, split=split) for name in wanted if counts[name].get(split)]
    if not parts:
        raise DataError(f"'{folder}' has no {split} recordings of {wanted}.")
    return concatenate_datasets(parts)


def load_image_table(folder: str | Path) -> ImageTable:
    """Read ids, embeddings and labels of the images of a prepared data set.

    Raises:
        DataError: If the images have not been embedded yet.
    """
    from datasets import load_dataset

    local = resolve_folder(folder)
    images = load_dataset(str(local), "images", split="images")
    if "image_embeds" not in images.column_names:
        raise DataError(f"The images of '{folder}' have no embeddings; run `neural-clip embed-images {folder}`.")
    columns = images.select_columns(["image_id", "image_embeds", "concept", "categories"]).with_format("arrow")[:]
    embeds = columns["image_embeds"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return ImageTable(
        image_ids=columns["image_id"].to_pylist(),
        embeds=embeds.astype(np.float32).reshape(len(columns), -1),
        concepts=columns["concept"].to_pylist(),
        categories=columns["categories"].to_pylist(),
    )


def column_arrays(column: pa.ChunkedArray, shape: tuple[int, ...] | None) -> tuple[np.ndarray, np.ndarray]:
    """Turn an Arrow column of arrays into one flat array and the length of each row.

    Going through Arrow's buffers is several times quicker than the numpy and torch formats of `datasets`.
    """
    array = column.combine_chunks()
    array = getattr(array, "storage", array)
    if shape is not None:
        flat = array.flatten().flatten().to_numpy(zero_copy_only=False)
        return flat, np.full(len(array), int(np.prod(shape)))
    lengths = np.asarray(array.value_lengths().to_numpy(zero_copy_only=False), dtype=np.int64)
    return array.flatten().to_numpy(zero_copy_only=False), lengths


def recording_array(recordings: datasets.Dataset, modality: str) -> np.ndarray | list[np.ndarray]:
    """Read all recordings of a data set into memory.

    Returns:
        `np.ndarray` of shape `(n_recordings, n_chans, n_times)`, float32, for EEG and MEG; a list of
        `n_recordings` arrays of shape `(n_voxels,)` for fMRI.
    """
    shape = getattr(recordings.features[modality], "shape", None)
    column = recordings.select_columns([modality]).with_format("arrow")[:][modality]
    flat, lengths = column_arrays(column, shape)
    flat = flat.astype(np.float32, copy=False)
    if shape is not None:
        return flat.reshape(-1, *shape)
    return np.split(flat, np.cumsum(lengths)[:-1])


@dataclass(frozen=True)
class BaselineSplit:
    """One split of one modality.

    Args:
        recordings (`Sequence[np.ndarray]` of length `n`): `(n_chans, n_times)` each, or `(n_voxels,)` with as many
            voxels as that subject has.
        subjects (`np.ndarray` of shape `(n,)`, str): Person of each row.
        image_ids (`np.ndarray` of shape `(n,)`, str): Image of each row.
        targets (`np.ndarray` of shape `(n, projection_dim)`): Embedding of each row's image.
    """

    recordings: Sequence[np.ndarray] | np.ndarray
    subjects: np.ndarray
    image_ids: np.ndarray
    targets: np.ndarray

    def of_subject(self, subject: str) -> np.ndarray:
        """Recordings of one person, `(n_rows, ...)`."""
        rows = np.flatnonzero(self.subjects == subject)
        if isinstance(self.recordings, np.ndarray):
            return self.recordings[rows]
        return np.stack([self.recordings[int(row)] for row in rows])

    def at(self, rows: np.ndarray) -> BaselineSplit:
        """Some of the rows, by their indices; recordings are not copied."""
        recordings = [self.recordings[int(row)] for row in rows]
        return BaselineSplit(recordings, self.subjects[rows], self.image_ids[rows], self.targets[rows])

    def from_onset(self, tmin: float, sfreq: float) -> BaselineSplit:
        """EEG or MEG without the samples before image onset, which tell nothing of the image.

        Args:
            tmin (`float`): First sample, in seconds from image onset.
            sfreq (`float`): Sampling rate, in Hz.
        """
        return replace(self, recordings=np.asarray(self.recordings)[:, :, samples_before_onset(tmin, sfreq) :])


def samples_before_onset(tmin: float, sfreq: float) -> int:
    """Samples with t < 0, where the first is at `tmin` seconds and they follow one another at `sfreq` Hz."""
    return max(math.ceil(-tmin * sfreq - 1e-6), 0)  # 0.1 * 200 may be 20.000000000000004


def read_split(folder: str, split: str) -> BaselineSplit:
    """Recordings of one split of a prepared data set, with the embeddings of their images."""
    recordings, images = load_recordings(folder, split), load_image_table(folder)
    image_ids = np.array(recordings["image_id"][:])
    return BaselineSplit(
        recording_array(recordings, load_metadata(folder)["modality"]), np.array(recordings["subject"][:]), image_ids,
        images.embeds[images.rows_of(image_ids.tolist())],
    )  # fmt: skip


__all__ = ["ImageTable", "load_image_table", "load_metadata", "load_recordings", "recording_array"]
