"""Recordings as batches of one modality."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from neural_clip.errors import DataError
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.training.termination import ignore_termination

N_NAMED = 8  # recordings that a message names


class RecordingDataset(Dataset):
    """Recordings of one modality with the embedding of the image that each answers to.

    Args:
        part ([`Split`]): Of a prepared data set whose images have embeddings.
        subjects (`list[str]`): Subjects in the order of the model's `subject_ids`; those of `part` are among them.

    A slice is read at a time: `dataset.__getitems__(rows)` gives a whole batch as `<modality>_values`, `subject_ids`,
    `image_embeds` and `image_ids` (the row of the image in `part.data.images`).
    """

    def __init__(self, part: Split, subjects: Sequence[str]) -> None:
        self.part, self.subjects = part, list(subjects)
        index = {name: number for number, name in enumerate(self.subjects)}
        self.subject_ids = np.array([index[name] for name in part.subjects.tolist()], dtype=np.int64)
        self.rows = np.empty(len(part), dtype=np.int64)  # of each recording among its subject's in the split
        for subject in np.unique(self.subject_ids):
            own = self.subject_ids == subject
            self.rows[own] = np.arange(own.sum())
        self._read = list(dict.fromkeys(part.subjects.tolist()))  # whose files are read
        self._kept = np.arange(len(part))  # of their rows
        self.left_out: dict[str, int] | None = None  # by `leave_out_test_concepts`, where data sets share images

    @classmethod
    def open(cls, data: PreparedSet, split: str, subjects: Sequence[str]) -> RecordingDataset:
        """Recordings of a split, of those `subjects` who have some there."""
        counts = data.facts.subject_splits
        present = [name for name in subjects if counts.get(name, {}).get(split)]
        return cls(data.split(split, present or subjects), subjects)

    @property
    def modality(self) -> str:
        """`"eeg"`, `"meg"` or `"fmri"`."""
        return self.part.modality

    @property
    def key(self) -> str:
        """What scores are called: `"eeg"`, or `"eeg.things_eeg2"` of one of several corpora."""
        return self.part.data.key

    @property
    def sets(self) -> list[RecordingDataset]:
        """Itself, as the only data set."""
        return [self]

    @property
    def name(self) -> str:
        """The data set, for messages."""
        return f"'{self.part.data.name}'"

    def names_of_images(self, image_ids: Sequence[int]) -> list[str]:
        """Images by their numbers in a batch."""
        return [self.part.data.images.image_ids[row] for row in image_ids]

    @property
    def groups(self) -> np.ndarray:
        """Number of the Parquet row group of each recording, `(n,)` int."""
        return self.part.data.row_groups(self.part.name, self._read)[self._kept]

    def keep(self, rows: np.ndarray) -> None:
        """Leave out every recording but these rows, `(n_kept,)` int."""
        self._kept = self._kept[rows]
        self.part, self.subject_ids, self.rows = self.part.at(rows), self.subject_ids[rows], self.rows[rows]

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, row: int) -> dict:
        return self.__getitems__([row])

    def __getitems__(self, rows: list[int]) -> dict:
        return {f"{self.modality}_values": self.values(rows), **self.labels(rows)}

    def values(self, rows: list[int]) -> torch.Tensor:
        """Recordings, `(n_rows, ...)`; rows of subjects with fewer voxels end in zeros."""
        if not rows:
            return self.values([0])[:0]
        values = self.part.batch(rows)
        self._check_finite("Recordings", values, rows)
        return torch.from_numpy(values)

    def labels(self, rows: list[int]) -> dict:
        """Of a batch all but the recordings."""
        image_rows = self.part.image_rows[rows]
        embeds = self.part.data.images.embeds[image_rows]
        self._check_finite("Image embeddings", embeds, rows)
        return {
            "subject_ids": torch.from_numpy(self.subject_ids[rows]),
            "image_embeds": torch.from_numpy(embeds),
            "image_ids": torch.from_numpy(image_rows),
        }

    def _check_finite(self, what: str, numbers: np.ndarray, rows: list[int]) -> None:
        """Raise a `DataError` that names the rows whose values are not finite."""
        if math.isfinite(torch.from_numpy(numbers).sum()):  # which any NaN or infinity spoils
            return
        finite = np.isfinite(numbers).all(axis=tuple(range(1, numbers.ndim)))
        if finite.all():  # but their sum is too large
            return
        rows, part = [row for row, fine in zip(rows, finite, strict=True) if not fine], self.part
        listed = named(part.subjects[rows].tolist(), part.image_ids[rows].tolist(), self.rows[rows].tolist())
        raise DataError(
            f"{what} in the {part.name} split of '{part.data.name}' hold NaN or infinity: {listed}. Prepare the data "
            "set again from whole recordings, or without these."
        )


def named(subjects: Sequence[str], images: Sequence[str], rows: Sequence[int] | None = None) -> str:
    """Recordings as messages name them, the first of many."""
    texts = [f"{subject} (image '{image}')" for subject, image in zip(subjects, images, strict=True)]
    if rows is not None:
        texts = [f"row {row} of {text}" for row, text in zip(rows, texts, strict=True)]
    more = f" and {len(texts) - N_NAMED} more" if len(texts) > N_NAMED else ""
    return ", ".join(texts[:N_NAMED]) + more


@dataclass(frozen=True)
class StoredRecordings:
    """Recordings of a batch that are read a part at a time, whenever they are needed.

    Args:
        dataset ([`RecordingDataset`] or `PooledDataset`): Where they are.
        rows (`list[int]`): Which.
    """

    dataset: Any
    rows: list[int]

    @property
    def modality(self) -> str:
        """`"eeg"`, `"meg"` or `"fmri"`."""
        return self.dataset.modality

    def read(self, which: slice) -> torch.Tensor:
        """Some of them, `(n_rows, ...)`."""
        return self.dataset.values(self.rows[which])


class JointDataset(Dataset):
    """Several modalities end to end; each batch comes from one of them (see [`ModalityBatchSampler`]).

    Args:
        parts (sequence of [`RecordingDataset`] or `PooledDataset`): One entry a modality.

    `share` is which of how many equal parts of each batch this process reads: `(process_index, num_processes)`. With
    `stored`, a batch holds its recordings as [`StoredRecordings`].
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = list(parts)
        self.offsets = np.cumsum([0] + [len(part) for part in self.parts])
        self.share, self.stored = (0, 1), False

    @property
    def sets(self) -> list[RecordingDataset]:
        """One entry a data set."""
        return [each for part in self.parts for each in part.sets]

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def __getitems__(self, rows: list[int]) -> dict:
        part = int(np.searchsorted(self.offsets, rows[0], side="right")) - 1
        index, count = self.share
        rows = [row - int(self.offsets[part]) for row in rows]
        # sorted, so that each process needs few of the row groups that the batch lies in
        own = rows if count == 1 else np.array_split(np.sort(rows), count)[index].tolist()
        if self.stored:
            return {"recordings": StoredRecordings(self.parts[part], own), **self.parts[part].labels(own)}
        return self.parts[part].__getitems__(own)


def least_batches(min_steps: int, epochs: float, accumulated: int) -> int:
    """Batches of a modality that an epoch needs, so that a run has so many optimiser steps of it.

    Args:
        min_steps (`int`): Steps of the whole run; a modality that has a part of the batches of a step has that part of
            the step.
        epochs (`float`): Of the run. The whole ones must do, since a part of one may lack any of its batches; a run of
            less than one has fewer steps.
        accumulated (`int`): Batches whose gradients are added up in a step.
    """
    return math.ceil(min_steps * accumulated / max(int(epochs), 1))


class ModalityBatchSampler:
    """Shuffled batches, each from one modality, the modalities in random order.

    Args:
        sizes (sequence of `int`): Recordings of each modality.
        batch_size (`int`): Recordings a batch, over all processes, each of which has a part of it; a modality that
            has fewer makes one batch of all.
        seed (`int`): With the epoch it decides the order, so that a resumed run sees the same batches.
        passes (sequence of `int`, *optional*): How often an epoch goes over the recordings of each modality; once by
            default. Each pass has an order of its own.
        min_batches (`int`): Batches that each modality has in an epoch, or more. One whose passes give fewer has more
            passes, the last of which may be cut short; the batches of the others stay what they are.
        shuffle_buffer_size (`int`): A pass over more recordings than these goes from row group to row group of their
            files, in random order, and shuffles so many recordings at a time; 0 shuffles all at once.
        groups (sequence of `np.ndarray`, *optional*): The row group of each recording of each modality, for that.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        seed: int,
        passes: Sequence[int] | None = None,
        min_batches: int = 0,
        shuffle_buffer_size: int = 0,
        groups: Sequence[np.ndarray] | None = None,
    ) -> None:
        self.sizes, self.passes = list(sizes), [1] * len(sizes) if passes is None else list(passes)
        self.batch_size = batch_size
        self.seed = seed
        self.min_batches, self.shuffle_buffer_size, self.groups = min_batches, shuffle_buffer_size, groups
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.epoch = epoch

    @property
    def counts(self) -> list[int]:
        """Batches of each modality in an epoch."""
        passes = zip(self.sizes, self.passes, strict=True)
        return [max(n * max(size // self.batch_size, 1), self.min_batches) for size, n in passes]

    def __len__(self) -> int:
        return sum(self.counts)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        batches, offset = [], 0
        for number, (size, n_passes, count) in enumerate(zip(self.sizes, self.passes, self.counts, strict=True)):
            more = np.random.default_rng([self.seed, self.epoch, 1 + number])  # a 0 would repeat `rng`
            in_pass = max(size // self.batch_size, 1)
            for first in range(0, count, in_pass):
                order = offset + self._pass_over(number, rng if first < n_passes * in_pass else more)
                starts = range(0, min(in_pass, count - first) * self.batch_size, self.batch_size)
                batches += [order[start : start + self.batch_size].tolist() for start in starts]
            offset += size
        order, modality = rng.permutation(len(batches)), np.repeat(np.arange(len(self.counts)), self.counts)
        for number in filter(self._by_groups, range(len(self.sizes))):
            order[modality[order] == number] = np.flatnonzero(modality == number)  # one row group after the other
        for index in order:
            yield batches[index]

    def _by_groups(self, number: int) -> bool:
        """Whether a modality has more recordings than are shuffled at a time."""
        return 0 < self.shuffle_buffer_size < self.sizes[number]

    def _pass_over(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """The recordings of a modality in the order of a pass, `(size,)`."""
        if not self._by_groups(number) or self.groups is None:
            return rng.permutation(self.sizes[number])
        first = np.flatnonzero(np.diff(self.groups[number], prepend=-1))
        parts = np.split(np.arange(self.sizes[number]), first[1:])
        order, buffer = [], np.zeros(0, np.int64)
        for index in rng.permutation(len(parts)):
            buffer = np.concatenate([buffer, parts[index]])
            if len(buffer) >= self.shuffle_buffer_size:
                order.append(rng.permutation(buffer))
                buffer = buffer[:0]
        return np.concatenate([*order, rng.permutation(buffer)])

    def as_dict(self) -> dict[str, Any]:
        """What decides the batches, whatever the number of processes."""
        names = ("sizes", "passes", "min_batches", "batch_size", "seed", "shuffle_buffer_size")
        return {name: getattr(self, name) for name in names}


class BatchLoader(DataLoader):
    """Loader of whole batches whose order `Trainer` chooses anew for each epoch."""

    def __init__(self, recordings: JointDataset, batches: ModalityBatchSampler, **kwargs: Any) -> None:
        self.batches = batches
        super().__init__(
            recordings, batch_sampler=batches, collate_fn=whole_batch, worker_init_fn=ignore_termination, **kwargs
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.batches.set_epoch(epoch)


def whole_batch(batch: Any) -> Any:
    """Collate function for data sets whose `__getitems__` makes the whole batch."""
    return batch
