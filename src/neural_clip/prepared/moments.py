"""Mean and spread of each channel or voxel over recordings, added up block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Moments", "block_moments"]


BLOCK_VALUES = 2**18  # 1 MiB of float32: small enough to stay in a core's cache
# float32 has 24 bits: a spread below a millionth of the value is rounding.
ROUNDING = 1e-6


@dataclass
class Moments:
    """Moments of the rows of some part of a data set.

    Two parts are merged with the update of Chan, Golub & LeVeque 1979 ("Updating formulae and a pairwise algorithm for
    computing sample variances"), which stays exact where the mean is large beside the spread.

    Args:
        n_rows (`int`): Recordings.
        n_times (`int`): Samples of a channel in one recording; 1 for voxels.
        mean (`np.ndarray` of shape `(n_chans,)`): Mean over recordings and samples.
        within (`np.ndarray` of shape `(n_chans,)`): Squared distances of the samples from the mean of their row.
        between (`np.ndarray` of shape `(n_chans,)`): Squared distances of the rows' means from `mean`.
        weight (`float`): Sum of `n_repeats`.
        weighted_mean (`np.ndarray` of shape `(n_chans,)`): Mean of the rows, each counted `n_repeats` times.
        flat (`np.ndarray` of shape `(n_chans,)`): Rows in which the channel does not move; 0 for voxels.
    """

    n_rows: int
    n_times: int
    mean: np.ndarray
    within: np.ndarray
    between: np.ndarray
    weight: float
    weighted_mean: np.ndarray
    flat: np.ndarray

    def merged(self, other: Moments) -> Moments:
        """Moments of both parts together."""
        n_rows, weight = self.n_rows + other.n_rows, self.weight + other.weight
        step = other.mean - self.mean
        weighted = self.weight * self.weighted_mean + other.weight * other.weighted_mean
        return Moments(
            n_rows,
            self.n_times,
            self.mean + step * (other.n_rows / n_rows),
            self.within + other.within,
            self.between + other.between + step**2 * (self.n_rows * other.n_rows / n_rows),
            weight,
            weighted / max(weight, 1),
            self.flat + other.flat,
        )

    @property
    def std(self) -> np.ndarray:
        """Deviation over all recordings and samples, `(n_chans,)`."""
        return np.sqrt((self.within / self.n_times + self.between) / self.n_rows)

    @property
    def row_std(self) -> np.ndarray:
        """Deviation of the rows' means, `(n_chans,)`; 0 where there is one row."""
        return np.sqrt(self.between / max(self.n_rows - 1, 1))

    @property
    def constant(self) -> np.ndarray:
        """Whether a channel has the same value everywhere, `(n_chans,)` bool."""
        return self.std <= ROUNDING * np.abs(self.mean)


def block_moments(values: np.ndarray, weights: np.ndarray) -> Moments | None:
    """Moments of a block of finite recordings; `None` where there is none.

    Args:
        values (`np.ndarray` of shape `(n_rows, n_chans, n_times)` or `(n_rows, n_voxels)`): float32.
        weights (`np.ndarray` of shape `(n_rows,)`): How many trials were averaged into each row.
    """
    step = max(BLOCK_VALUES // max(values[0].size, 1), 1) if len(values) else 1
    if values.ndim == 2:
        step = max(step, 16)  # a merge costs as much as a few rows
    total: Moments | None = None
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        moments = _sensor_moments if values.ndim == 3 else _of_rows
        part = moments(values[rows], weights[rows])
        total = part if total is None else total.merged(part)
    return total


def _sensor_moments(values: np.ndarray, weights: np.ndarray) -> Moments:
    """Moments of `(n_rows, n_chans, n_times)`."""
    n_times = values.shape[2]
    means = values.mean(axis=2)  # pairwise summation: float32 suffices
    centred = values - means[:, :, np.newaxis]
    within = np.einsum("rct,rct->rc", centred, centred).astype(np.float64)
    moments = _of_rows(means.astype(np.float64), weights)
    moments.n_times, moments.within = n_times, within.sum(axis=0)
    if n_times > 1:
        moments.flat = (within <= n_times * (ROUNDING * means.astype(np.float64)) ** 2).sum(axis=0)
    return moments


def _of_rows(means: np.ndarray, weights: np.ndarray) -> Moments:
    """Moments of `(n_rows, n_chans)`, taken about the first row, so that a large mean costs no digits."""
    n_rows, n_chans = means.shape
    centred = means - means[0]
    sums = np.stack([np.ones(n_rows), weights]).astype(means.dtype) @ centred  # (2, n_chans)
    squares = np.einsum("rc,rc->c", centred, centred).astype(np.float64)
    first, sums, weight = means[0].astype(np.float64), sums.astype(np.float64), float(weights.sum())
    between = np.maximum(squares - sums[0] ** 2 / n_rows, 0)
    mean, weighted_mean = first + sums[0] / n_rows, first + sums[1] / max(weight, 1)
    return Moments(n_rows, 1, mean, np.zeros(n_chans), between, weight, weighted_mean, np.zeros(n_chans, dtype=int))
