"""What rows are mapped to. Many rows share an image, so that a vector for each would take gigabytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neural_clip.prepared.reader import Split
from neural_clip.retrieval.tiles import steps

TARGET_ROWS = 2048  # that are looked up at a time: 12 MB


class Targets:
    """Targets of rows less their mean, float32; looked up when they are asked for.

    Args:
        read (`Callable`): Gives those of a part of the rows, `(n_rows, projection_dim)`, with their mean.
        n_rows (`int`): Of all.
    """

    def __init__(self, read: Callable[[slice], np.ndarray], n_rows: int) -> None:
        self.read, self.n_rows = read, n_rows
        first = read(slice(0, 1))
        # of what is the same in all rows nothing is left: rounding would rank images
        same = np.all([(read(part) == first).all(axis=0) for part in steps(n_rows, TARGET_ROWS)], axis=0)
        self.mean = np.where(same, first[0], self.sum() / n_rows)

    @classmethod
    def of(cls, split: Split, rows: np.ndarray) -> Targets:
        """Embeddings of the images of some rows of a split."""
        embeds, images = split.data.images.embeds, split.image_rows[rows]
        return cls(lambda part: embeds[images[part]], len(images))

    def __getitem__(self, part: slice) -> np.ndarray:
        return np.asarray(self.read(part) - self.mean, dtype=np.float32)

    def whole(self) -> np.ndarray:
        """Those of all rows, `(n_rows, projection_dim)`."""
        found = np.empty((self.n_rows, len(self.mean)), dtype=np.float32)
        for part in steps(self.n_rows, TARGET_ROWS):
            found[part] = self[part]
        return found

    def sum(self, less: np.ndarray | float = 0.0) -> np.ndarray:
        """Sum over rows, each less a vector, in their order: bit for bit that of all at once."""
        total = self.read(slice(0, 0)).sum(axis=0)
        for part in steps(self.n_rows, TARGET_ROWS):
            block = self.read(part)
            total = np.concatenate([total[None], block - less if np.ndim(less) else block]).sum(axis=0)
        return total
