"""Recordings as batches of one modality."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from neural_clip.prepared.reader import column_arrays, load_image_table, load_metadata, load_recordings


def pad_rows(flat: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Lay rows of different lengths, given end to end, into `(n_rows, max_length)` followed by zeros."""
    padded = np.zeros((len(lengths), int(lengths.max(initial=0))), dtype=np.float32)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = flat
    return padded


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
