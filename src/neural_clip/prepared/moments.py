"""Mean and spread of each channel or voxel over recordings, added up block by block."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

BLOCK_VALUES = 2**18  # 1 MiB of float32: small enough to stay in a core's cache
# float32 has 24 bits: a spread below a millionth of the value is rounding.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Moments:
    """How many values there are of each channel or voxel, their mean, and the sum of squared deviations from it.

    Args:
        count (`int`): Values of a channel.
        mean, squares (`np.ndarray` of shape `(n_chans,)`): float64.
    """

    count: int
    mean: np.ndarray
    squares: np.ndarray

    def merged(self, other: Moments) -> Moments:
        """Moments of the values of both together.

        Source: Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample
        variances"; it stays exact where the mean is large beside the spread.
        """
        total, step = self.count + other.count, other.mean - self.mean
        squares = self.squares + other.squares + step**2 * self.count * other.count / total
        return Moments(total, self.mean + step * other.count / total, squares)

    @property
    def std(self) -> np.ndarray:
        """Deviation (ddof 0), `(n_chans,)`."""
        return np.sqrt(self.squares / self.count)


@dataclass(frozen=True)
class RowMoments:
    """Moments of the rows of some part of a data set.

    Args:
        rows (`Moments`): Of the means of the rows.
        n_times (`int`): Samples of a channel in one recording; 1 for voxels.
        within (`np.ndarray` of shape `(n_chans,)`): Squared distances of the samples from the mean of their row.
        weight (`float`): Sum of `n_repeats`.
        weighted_mean (`np.ndarray` of shape `(n_chans,)`): Mean of the rows, each counted `n_repeats` times.
        flat (`np.ndarray` of shape `(n_chans,)`): Rows in which the channel does not move; 0 for voxels.
    """

    rows: Moments
    n_times: int
    within: np.ndarray
    weight: float
    weighted_mean: np.ndarray
    flat: np.ndarray

    def merged(self, other: RowMoments) -> RowMoments:
        """Moments of both parts together."""
        weight = self.weight + other.weight
        weighted = self.weight * self.weighted_mean + other.weight * other.weighted_mean
        return RowMoments(
            self.rows.merged(other.rows),
            self.n_times,
            self.within + other.within,
            weight,
            weighted / max(weight, 1),
            self.flat + other.flat,
        )

    @property
    def n_rows(self) -> int:
        """Recordings."""
        return self.rows.count

    @property
    def mean(self) -> np.ndarray:
        """Mean over recordings and samples, `(n_chans,)`."""
        return self.rows.mean

    @property
    def std(self) -> np.ndarray:
        """Deviation over all recordings and samples, `(n_chans,)`."""
        return np.sqrt((self.within / self.n_times + self.rows.squares) / self.n_rows)

    @property
    def row_std(self) -> np.ndarray:
        """Deviation of the rows' means, `(n_chans,)`; 0 where there is one row."""
        return np.sqrt(self.rows.squares / max(self.n_rows - 1, 1))

    @property
    def constant(self) -> np.ndarray:
        """Whether a channel has the same value everywhere, `(n_chans,)` bool."""
        return self.std <= ROUNDING * np.abs(self.mean)


def block_moments(values: np.ndarray, weights: np.ndarray) -> RowMoments | None:
    """Moments of a block of finite recordings; `None` where there is none.

    Args:
        values (`np.ndarray` of shape `(n_rows, n_chans, n_times)` or `(n_rows, n_voxels)`): float32.
        weights (`np.ndarray` of shape `(n_rows,)`): How many trials were averaged into each row.
    """
    step = max(BLOCK_VALUES // max(values[0].size, 1), 1) if len(values) else 1
    if values.ndim == 2:
        step = max(step, 16)  # a merge costs as much as a few rows
    total: RowMoments | None = None
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        moments = _sensor_moments if values.ndim == 3 else _of_rows
        part = moments(values[rows], weights[rows])
        total = part if total is None else total.merged(part)
    return total


def _sensor_moments(values: np.ndarray, weights: np.ndarray) -> RowMoments:
    """Moments of `(n_rows, n_chans, n_times)`."""
    n_times = values.shape[2]
    means = values.mean(axis=2)  # pairwise summation: float32 suffices
    centred = values - means[:, :, np.newaxis]
    within = np.einsum("rct,rct->rc", centred, centred).astype(np.float64)
    moments = _of_rows(means.astype(np.float64), weights)
    flat = (
        (within <= n_times * (ROUNDING * means.astype(np.float64)) ** 2).sum(axis=0) if n_times > 1 else moments.flat
    )
    return replace(moments, n_times=n_times, within=within.sum(axis=0), flat=flat)


def _of_rows(means: np.ndarray, weights: np.ndarray) -> RowMoments:
    """Moments of `(n_rows, n_chans)`, taken about the first row, so that a large mean costs no digits."""
    n_rows, n_chans = means.shape
    centred = means - means[0]
    sums = np.stack([np.ones(n_rows), weights]).astype(means.dtype) @ centred  # (2, n_chans)
    squares = np.einsum("rc,rc->c", centred, centred).astype(np.float64)
    first, sums, weight = means[0].astype(np.float64), sums.astype(np.float64), float(weights.sum())
    between = np.maximum(squares - sums[0] ** 2 / n_rows, 0)
    mean, weighted_mean = first + sums[0] / n_rows, first + sums[1] / max(weight, 1)
    flat = np.zeros(n_chans, dtype=int)
    return RowMoments(Moments(n_rows, mean, between), 1, np.zeros(n_chans), weight, weighted_mean, flat)
