"""Recordings of several corpora of one modality: batches of all, images in common, and images that are held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset

from neural_clip.errors import DataError
from neural_clip.gallery.building import SAME_IMAGE_COSINE
from neural_clip.prepared.image_table import ImageTable
from neural_clip.prepared.reader import PreparedSet
from neural_clip.retrieval.scores import nearest_rows
from neural_clip.retrieval.tiles import unit_vectors
from neural_clip.training.batches import RecordingDataset


class PooledDataset(Dataset):
    """Recordings of several corpora of one modality, end to end; a batch may hold some of each.

    Args:
        sets (sequence of [`RecordingDataset`]): One entry a corpus, with the same `subjects`.

    A batch is what it is of a [`RecordingDataset`]: zeros follow channels, samples or voxels of smaller recordings,
    and images that several corpora show have one number.
    """

    def __init__(self, sets: Sequence[RecordingDataset]) -> None:
        self.sets = list(sets)
        self.subjects, self.modality = self.sets[0].subjects, self.sets[0].modality
        self.offsets = np.cumsum([0] + [len(each) for each in self.sets])
        tables = [each.part.data.images for each in self.sets]
        self.images = [name for table in tables for name in table.image_ids]
        self.image_numbers = numbers_of_images(tables)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @property
    def name(self) -> str:
        """The data sets, for messages."""
        return " and ".join(each.name for each in self.sets)

    @property
    def groups(self) -> np.ndarray:
        """Number of the Parquet row group of each recording, `(n,)` int."""
        found: list[np.ndarray] = []
        for each in self.sets:
            found.append(each.groups + (found[-1].max() + 1 if found else 0))
        return np.concatenate(found)

    def names_of_images(self, image_ids: Sequence[int]) -> list[str]:
        """Images by their numbers in a batch."""
        return [self.images[number] for number in image_ids]

    def _by_set(self, rows: list[int]) -> list[tuple[int, np.ndarray, list[int]]]:
        """Number of each data set that rows are of, their places among those given, and their rows there."""
        given = np.asarray(rows, dtype=np.int64)
        numbers = np.searchsorted(self.offsets, given, side="right") - 1
        return [
            (number, places := np.flatnonzero(numbers == number), (given[places] - self.offsets[number]).tolist())
            for number in np.unique(numbers).tolist()
        ]

    def __getitems__(self, rows: list[int]) -> dict:
        return {f"{self.modality}_values": self.values(rows), **self.labels(rows)}

    def values(self, rows: list[int]) -> torch.Tensor:
        """Recordings, `(n_rows, ...)`; zeros follow smaller ones."""
        if not rows:
            return self.sets[0].values([])
        parts = self._by_set(rows)
        found = [self.sets[number].values(own) for number, _, own in parts]
        shape = np.max([values.shape[1:] for values in found], axis=0)
        missing = [[n for lack in (shape - values.shape[1:])[::-1] for n in (0, int(lack))] for values in found]
        padded_alike = [functional.pad(values, lack) for values, lack in zip(found, missing, strict=True)]
        return torch.cat(padded_alike)[_order(parts)]

    def labels(self, rows: list[int]) -> dict:
        """Of a batch all but the recordings."""
        if not rows:
            return self.sets[0].labels([])
        parts = self._by_set(rows)
        found = [self.sets[number].labels(own) for number, _, own in parts]
        for (number, _, _), labels in zip(parts, found, strict=True):
            labels["image_ids"] = torch.from_numpy(self.image_numbers[number])[labels["image_ids"]]
        return {name: torch.cat([labels[name] for labels in found])[_order(parts)] for name in found[0]}


def _order(parts: list[tuple[int, np.ndarray, list[int]]]) -> torch.Tensor:
    """What brings rows of one data set after the other into the order in which they were asked for."""
    return torch.from_numpy(np.argsort(np.concatenate([places for _, places, _ in parts])))


def same_images(table: ImageTable, other: ImageTable) -> np.ndarray:
    """For each image of one data set its row in another, -1 where that has not got it; `(n_images,)` int64.

    An image is the same if its id is, or its embedding up to rounding.
    """
    rows = {name: row for row, name in enumerate(other.image_ids)}
    found = np.array([rows.get(name, -1) for name in table.image_ids], dtype=np.int64)
    mine, theirs = unit_vectors(table.embeds), unit_vectors(other.embeds)
    nearest = nearest_rows(mine, theirs)[:, 0]
    alike = np.einsum("ij,ij->i", mine, theirs[nearest]) >= SAME_IMAGE_COSINE
    return np.where((found < 0) & alike, nearest, found)


def numbers_of_images(tables: Sequence[ImageTable]) -> list[np.ndarray]:
    """Number of each image of several data sets, one for the same image of several; `(n_images,)` int64 each."""
    found: list[np.ndarray] = []
    for number, table in enumerate(tables):
        own = np.arange(len(table.image_ids)) + sum(len(other.image_ids) for other in tables[:number])
        for other, numbers in reversed(list(zip(tables[:number], found, strict=True))):
            same = same_images(table, other)
            own = np.where(same >= 0, numbers[same], own)
        found.append(own)
    return found


def check_held_out(train: list[RecordingDataset], data: list[PreparedSet]) -> None:
    """Raise a `DataError` where a corpus holds out an image that another one of the same modality is trained on.

    Args:
        train (`list[RecordingDataset]`): Training recordings of one modality, one entry a corpus.
        data (`list[PreparedSet]`): All data sets of the run.
    """
    for part in train if len(train) > 1 else ():
        for other in data:
            if other.key == part.key or other.facts.modality != part.modality or other.facts.category_level:
                continue  # categories are in all splits
            for split in (name for name in ("test", "validation") if other.facts.splits[name]["rows"]):
                shown = other.shown_images(split)
                mine = part.part.shown_images
                if len(found := np.flatnonzero(same_images(mine, shown) >= 0)):
                    raise DataError(
                        f"{len(found)} of the {len(mine.image_ids)} training images of '{part.part.data.name}' are "
                        f"{split} images of '{other.name}', such as '{mine.image_ids[found[0]]}': what is scored on "
                        "them would be memory. Prepare one of the two without these images."
                    )
