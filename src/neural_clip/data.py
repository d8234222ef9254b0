"""Prepared data sets as the trainer and the evaluation read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from neural_clip.corpora.prepared import read_metadata
from neural_clip.errors import DataError

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

SPLITS = ("train", "validation", "test")
MODALITIES = ("eeg", "meg", "fmri")


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


def pad_rows(flat: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Lay rows of different lengths, given end to end, into `(n_rows, max_length)` followed by zeros."""
    padded = np.zeros((len(lengths), int(lengths.max(initial=0))), dtype=np.float32)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = flat
    return padded


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


class RecordingDataset(Dataset):
    """Recordings of one modality with the embedding of the image that each answers to.

    Args:
        folder (`str` or `Path`): Prepared data set whose images have embeddings.
        split (`str`): `"train"`, `"validation"` or `"test"`.
        subjects (`list[str]`): Subjects in the order of the model's `subject_ids`.

    A slice is read at a time: `dataset.__getitems__(rows)` gives a whole batch as `modality`, `values`,
    `subject_ids`, `image_embeds` and `image_ids` (the row of the image in `dataset.images`).
    """

    def __init__(self, folder: str | Path, split: str, subjects: Sequence[str]) -> None:
        self.metadata = load_metadata(folder)
        self.modality: str = self.metadata["modality"]
        self.subjects = list(subjects)
        self.images = load_image_table(folder)
        present = [name for name in self.subjects if self.metadata["subject_splits"].get(name, {}).get(split)]
        self.recordings = load_recordings(folder, split, present or self.subjects)
        self.shape = getattr(self.recordings.features[self.modality], "shape", None)
        labels = self.recordings.select_columns(["subject", "image_id"]).with_format("arrow")[:]
        subject_index = {name: index for index, name in enumerate(self.subjects)}
        self.subject_ids = np.array([subject_index[name] for name in labels["subject"].to_pylist()], dtype=np.int64)
        self.image_rows = self.images.rows_of(labels["image_id"].to_pylist())
        self._values = self.recordings.select_columns([self.modality]).with_format("arrow")

    def keep(self, rows: np.ndarray) -> None:
        """Leave out every recording but these rows, `(n_kept,)` int."""
        self.recordings, self._values = self.recordings.select(rows), self._values.select(rows)
        self.subject_ids, self.image_rows = self.subject_ids[rows], self.image_rows[rows]

    def __len__(self) -> int:
        return len(self.subject_ids)

    def __getitem__(self, row: int) -> dict:
        return self.__getitems__([row])

    def __getitems__(self, rows: list[int]) -> dict:
        flat, lengths = column_arrays(self._values[rows][self.modality], self.shape)
        values = flat.reshape(len(rows), *self.shape) if self.shape is not None else pad_rows(flat, lengths)
        image_rows = self.image_rows[rows]
        return {
            f"{self.modality}_values": torch.from_numpy(np.array(values, dtype=np.float32)),
            "subject_ids": torch.from_numpy(self.subject_ids[rows]),
            "image_embeds": torch.from_numpy(self.images.embeds[image_rows]),
            "image_ids": torch.from_numpy(image_rows),
        }


class JointDataset(Dataset):
    """Several modalities end to end; each batch comes from one of them (see [`ModalityBatchSampler`])."""

    def __init__(self, parts: Sequence[RecordingDataset]) -> None:
        self.parts = list(parts)
        self.offsets = np.cumsum([0] + [len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def __getitems__(self, rows: list[int]) -> dict:
        part = int(np.searchsorted(self.offsets, rows[0], side="right")) - 1
        return self.parts[part].__getitems__([row - int(self.offsets[part]) for row in rows])


class ModalityBatchSampler:
    """Shuffled batches, each from one modality, the modalities in random order.

    Args:
        sizes (sequence of `int`): Recordings of each modality.
        batch_size (`int`): Recordings a batch; a modality that has fewer makes one batch of all.
        seed (`int`): With the epoch it decides the order, so that a resumed run sees the same batches.
        passes (sequence of `int`, *optional*): How often an epoch goes over the recordings of each modality; once by
            default. Each pass has an order of its own.
    """

    drop_last = True

    def __init__(self, sizes: Sequence[int], batch_size: int, seed: int, passes: Sequence[int] | None = None) -> None:
        self.sizes, self.passes = list(sizes), [1] * len(sizes) if passes is None else list(passes)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.sampler = self  # accelerate calls `batch_sampler.sampler.set_epoch` when it shards batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(n * max(size // self.batch_size, 1) for size, n in zip(self.sizes, self.passes, strict=True))

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        batches, offset = [], 0
        for size, n_passes in zip(self.sizes, self.passes, strict=True):
            count = max(size // self.batch_size, 1)
            for _ in range(n_passes):
                order = offset + rng.permutation(size)
                batches += [order[i * self.batch_size : (i + 1) * self.batch_size].tolist() for i in range(count)]
            offset += size
        for index in rng.permutation(len(batches)):
            yield batches[index]


def whole_batch(batch: Any) -> Any:
    """Collate function for data sets whose `__getitems__` makes the whole batch."""
    return batch


__all__ = [
    "ImageTable",
    "JointDataset",
    "ModalityBatchSampler",
    "RecordingDataset",
    "load_image_table",
    "load_metadata",
    "load_recordings",
    "recording_array",
]
