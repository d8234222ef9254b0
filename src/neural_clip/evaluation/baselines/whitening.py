"""Noise of recordings, and the whitening that follows from its covariance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neural_clip.evaluation.baselines.targets import Targets
from neural_clip.prepared.reader import Split

# Least share of the mean variance mixed into a noise covariance before it is inverted; validation chooses. 0.01 keeps
# band-limited recordings, which have directions with hardly any noise, from being amplified without limit; 1 leaves
# them unwhitened, which is better where the directions of least noise hold no signal either.
LEAST_SHRINKAGES = (0.01, 0.1, 0.3, 1.0)
UNWHITENED = 1.0  # least share of white noise
ROUNDING = 1e-6  # of float32, relative to a mean
NEARLY_WHITE = 0.999  # share of white noise
BLOCK_NUMBERS, BLOCK_ROWS = 2**26, 2048  # of recordings that are read at a time: 256 MB of float32


def row_blocks(split: Split, rows: np.ndarray) -> list[slice]:
    """Parts of some rows of a split, each few enough to be read at once."""
    if not len(rows):
        return []
    read = replace(split, change=None).values(rows[:1])[0].size
    n_rows = int(np.clip(BLOCK_NUMBERS // max(read, 1), 1, BLOCK_ROWS))
    return [slice(start, start + n_rows) for start in range(0, len(rows), n_rows)]


def stacked_rows(values: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Recordings of one shape as one array, `(n_rows, ...)`."""
    return values if isinstance(values, np.ndarray) else np.stack(values)


def stacked(split: Split, rows: np.ndarray) -> np.ndarray:
    """Recordings of one shape that are read as one array, `(n_rows, ...)`."""
    return stacked_rows(split.values(rows))


def mixed(layer: np.ndarray | None, recordings: np.ndarray) -> np.ndarray:
    """Recordings behind a layer `(n_out, n_in)` that mixes channels or projects voxels, or as they are."""
    if layer is None:
        return recordings
    return recordings @ layer.T if recordings.ndim == 2 else layer @ recordings


def mean_of(split: Split, rows: np.ndarray, change: Callable[[np.ndarray], np.ndarray] = np.asarray) -> np.ndarray:
    """Mean of some recordings, float32; `change` is what they pass through before."""
    first = change(stacked(split, rows[:1]))[0]
    # less the first, so that what is constant has exactly its own value as mean
    total = sum(
        (change(stacked(split, rows[part])) - first).sum(axis=0, dtype=np.float64) for part in row_blocks(split, rows)
    )
    return (first + total / len(rows)).astype(np.float32)


def squares_of(
    split: Split, rows: np.ndarray, mean: np.ndarray, change: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> np.ndarray:
    """Sum of the squared deviations of some recordings from a mean, float64; `change` as for [`mean_of`]."""
    total = np.zeros(mean.shape)
    for part in row_blocks(split, rows):
        deviations = change(stacked(split, rows[part])) - mean
        total += np.einsum("n...,n...->...", deviations, deviations)
    return total


def evoked(targets: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Ridge regression from the image embedding to recordings.

    Args:
        targets (`np.ndarray` of shape `(n, projection_dim)`): Embedding of each row's image, centred.
        products (`np.ndarray` of shape `(projection_dim, n_features)`): `targets.T @ recordings`.

    Returns:
        `np.ndarray` of shape `(projection_dim, n_features)`: Weights, in the type of the products; 0 where targets do
        not vary, as those of a single row.
    """
    gram = np.asarray(targets.T @ targets, dtype=np.float64)
    # strength: the mean eigenvalue, which keeps a fit with few rows from swallowing the noise
    strength = np.trace(gram) / len(gram)
    if strength < np.finfo(np.float32).tiny:
        return np.zeros_like(products)
    inverse = np.linalg.inv(gram + strength * np.eye(len(gram)))  # well conditioned
    return inverse.astype(products.dtype) @ products


def shrinkage_of(total: float, squares: float, n_features: int, n_samples: int, least: float) -> float:
    """Share of the mean variance to mix into a covariance: oracle-approximating shrinkage, at least `least`.

    Args:
        total, squares (`float`): Sum of the covariance's eigenvalues, and of their squares.
        n_features (`int`): Width of the covariance.
        n_samples (`int`): Rows it was computed from. With fewer rows than features it fits their noise, and the
            share is large.
        least (`float`): Lower bound, 0 to 1.

    Returns:
        `float`: Between `least` and 1.

    Source: Chen et al. 2010, IEEE Trans. Signal Processing 58, eq. 23; also `sklearn.covariance.oas`.
    """
    mean_square = squares / n_features**2  # of the covariance's elements
    squared_mean = (total / n_features) ** 2  # of its diagonal
    denominator = (n_samples + 1) * (mean_square - squared_mean / n_features)
    oas = 1.0 if denominator <= 0 else (mean_square + squared_mean) / denominator
    return float(np.clip(oas, least, 1.0))


def inverse_square_root(covariance: np.ndarray, shrinkage: float, n_features: int | None = None) -> np.ndarray:
    """Symmetric inverse square root of a shrunk covariance.

    Args:
        covariance (`np.ndarray` of shape `(n, n)`): Symmetric, positive semi-definite.
        shrinkage (`float`): Share of the mean variance that is mixed in, 0 to 1.
        n_features (`int`, *optional*): Whose variance the mean is of, where the covariance is that of the components
            which hold nearly all of it; by default n.

    Returns:
        `np.ndarray` of shape `(n, n)`, float64: ((1 - shrinkage) C + shrinkage tr(C)/n I)^(-1/2), and I for C = 0.
    """
    eigenvalues, vectors = np.linalg.eigh(np.asarray(covariance, dtype=np.float64))
    mean = float(eigenvalues.sum()) / (n_features or len(eigenvalues))
    if mean <= 0:
        return np.eye(len(covariance))
    return (vectors / np.sqrt((1 - shrinkage) * np.maximum(eigenvalues, 0.0) + shrinkage * mean)) @ vectors.T


def flat(recordings: np.ndarray) -> np.ndarray:
    """`(n, ...)` to `(n, n_features)`."""
    return recordings.reshape(len(recordings), -1)


@dataclass(frozen=True)
class Standardised:
    """Recordings less a mean, times a scale, flattened.

    Args:
        mean, scale (`np.ndarray` of shape `(n_features,)`): Of each feature.
    """

    mean: np.ndarray
    scale: np.ndarray

    def __call__(self, recordings: np.ndarray) -> np.ndarray:
        """`(n, ...)` to `(n, n_features)`."""
        found = flat(recordings) - self.mean
        found *= self.scale
        return found

    def linear(self, deviations: np.ndarray) -> np.ndarray:
        """What becomes of deviations from any mean, `(n, ...)` to `(n, n_features)`."""
        return flat(deviations) * self.scale

    def folded(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights `(n_features, n_out)` and offset `(n_out,)` on recordings that equal `weights` after this."""
        scaled = self.scale[:, None] * weights
        return scaled, -self.mean @ scaled


@dataclass(frozen=True)
class Mixed:
    """Recordings behind a layer that mixes channels or projects voxels, then scaled.

    Args:
        layer (`np.ndarray` of shape `(n_out, n_in)`): Of the subject.
        standardised ([`Standardised`]): What comes last.
    """

    layer: np.ndarray
    standardised: Standardised

    @property
    def mean(self) -> np.ndarray:
        """What is subtracted."""
        return self.standardised.mean

    def __call__(self, recordings: np.ndarray) -> np.ndarray:
        """`(n, ...)` to `(n, n_features)`."""
        return self.standardised(mixed(self.layer, recordings))

    def linear(self, deviations: np.ndarray) -> np.ndarray:
        """As in [`Standardised.linear`]."""
        return self.standardised.linear(mixed(self.layer, deviations))

    def folded(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights and offset on what the layer makes of recordings, as in [`Standardised.folded`]."""
        return self.standardised.folded(weights)


def reciprocal(values: np.ndarray) -> np.ndarray:
    """1 / values, and 0 where there is nothing to divide by."""
    return np.where(values > 0, 1.0 / np.where(values > 0, values, 1.0), 0.0).astype(values.dtype)


@dataclass(frozen=True)
class WhitenedSensors:
    """Recordings of a subject less their mean, whitened over channels and over time, flattened.

    Args:
        mean (`np.ndarray` of shape `(n_chans, n_times)`): Of the subject's training recordings.
        spatial (`np.ndarray` of shape `(n_chans, n_chans)`): Of the subject.
        temporal (`np.ndarray` of shape `(n_times, n_times)`): Symmetric, of all subjects.
    """

    mean: np.ndarray
    spatial: np.ndarray
    temporal: np.ndarray

    def __call__(self, recordings: np.ndarray) -> np.ndarray:
        """`(n, n_chans, n_times)` to `(n, n_chans * n_times)`."""
        return self.linear(recordings - self.mean)

    def linear(self, deviations: np.ndarray) -> np.ndarray:
        """As in [`Standardised.linear`]."""
        return flat(self.spatial @ deviations @ self.temporal)

    def folded(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights and offset on recordings whose channels went through `spatial`, as in [`Standardised.folded`]."""
        by_chan = weights.reshape(*self.mean.shape, -1)  # (n_chans, n_times, n_out)
        timed = (self.temporal @ by_chan).reshape(weights.shape)
        return timed, -(self.spatial @ self.mean).ravel() @ timed


def sensor_whiteners(
    train: Split, subjects: Sequence[str], shrinkages: Sequence[float], n_times: int | None = None
) -> list[dict[str, WhitenedSensors]]:
    """Spatial and temporal whitening of each subject's sensors, for each least share of white noise.

    `n_times` is the number of samples before these were reduced to components; the white noise stays as it was.
    """
    means: dict[str, np.ndarray] = {}
    spatial: list[dict[str, np.ndarray]] = [{} for _ in shrinkages]
    temporal: list[Any] = [0.0 for _ in shrinkages]  # sums of products, (n_times, n_times)
    for subject in subjects:
        means[subject] = mean_of(train, train.rows_of(subject))
        noise = _SensorNoise(train, subject, means[subject])
        covariance: Any = sum(np.asarray(by_chan @ by_chan.T, dtype=np.float64) for by_chan in noise.blocks())
        for number, least in enumerate(shrinkages):
            spatial[number][subject] = inverse_square_root(covariance / noise.n_samples, least).astype(np.float32)
        for by_chan in noise.blocks():
            for number in range(len(shrinkages)):
                by_time = (spatial[number][subject] @ by_chan).reshape(-1, means[subject].shape[1])
                temporal[number] = temporal[number] + np.asarray(by_time.T @ by_time, dtype=np.float64)
    found = []
    for number, least in enumerate(shrinkages):
        n_rows = len(means[subjects[0]]) * sum(len(train.rows_of(subject)) for subject in subjects)
        whitener = inverse_square_root(temporal[number] / n_rows, least, n_times).astype(np.float32)
        found.append({name: WhitenedSensors(means[name], spatial[number][name], whitener) for name in subjects})
    return found


def average_of(inputs: Sequence[Standardised | WhitenedSensors | Mixed]) -> Any:
    """What a new subject's recordings pass through: as the average subject of a model, the mean of all.

    The mean is that of what is computed: where channels are mixed, of the mixing and of what the mixing makes of each
    subject's mean.
    """
    mean: Any = np.mean([each.mean for each in inputs], axis=0, dtype=np.float32)
    first = inputs[0]
    if isinstance(first, Standardised):
        return replace(first, mean=mean)
    whitened = [each for each in inputs if isinstance(each, WhitenedSensors)]
    spatial = np.mean([each.spatial for each in whitened], axis=0)
    mixed = np.mean([each.spatial @ each.mean for each in whitened], axis=0)
    return replace(whitened[0], spatial=spatial, mean=np.linalg.solve(spatial, mixed))


class _SensorNoise:
    """What ridge regression from the image embedding leaves of a subject's sensors, by blocks."""

    def __init__(self, train: Split, subject: str, mean: np.ndarray) -> None:
        self.train, self.rows, self.mean = train, train.rows_of(subject), mean
        self.targets = Targets.of(train, self.rows).whole()
        products = sum(self.targets[part].T @ flat(values) for part, values in self._centred())
        self.weights = evoked(self.targets, np.asarray(products))
        self.n_samples = len(self.rows) * mean.shape[1]

    def _centred(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Recordings less their mean, `(n_rows, n_chans, n_times)`."""
        for part in row_blocks(self.train, self.rows):
            yield part, stacked(self.train, self.rows[part]) - self.mean

    def blocks(self) -> Iterator[np.ndarray]:
        """The noise of each block, `(n_chans, n_rows * n_times)`."""
        for part, values in self._centred():
            values -= (self.targets[part] @ self.weights).reshape(values.shape)
            yield values.transpose(1, 0, 2).reshape(len(self.mean), -1)


def whiten_rows(gram: np.ndarray, targets: np.ndarray, n_features: int, least: float) -> Callable | None:
    """Replace K = X X^T by the same after whitening over features, without these.

    E = R X is what [`evoked`] leaves of X, R = I - H. With S = (1 - shrinkage) E^T E / n + floor I and
    c = n floor / (1 - shrinkage), X S^-1 X^T is (K - K R (c I + R K R)^-1 R K) / floor; the factor does not count.

    Args:
        gram (`np.ndarray` of shape `(n, n)`): K, float32 by columns; its upper triangle is replaced.
        targets (`np.ndarray` of shape `(n, projection_dim)`): Embedding of each row's image, centred.
        n_features (`int`): Columns of X.
        least (`float`): Least share of white noise.

    Returns:
        `Callable` that turns coefficients of whitened rows into those of X, `(n, n_out)`; `None` where noise is white.
    """
    from scipy.linalg.blas import ssyrk, strsm

    inverse = evoked(targets, targets.T)  # H = targets @ inverse
    products = inverse @ gram
    half = products.T - targets @ (products @ inverse.T) / 2
    factor = _noise_factor(gram, half, targets.T, len(targets), n_features, least)  # of c I + R K R
    if factor is None:
        return None
    left = np.array(gram, order="F")
    for panel in _panels(len(left)):
        left[:, panel] -= targets @ products[:, panel]  # R K
    left = strsm(1.0, factor, left, trans_a=1, overwrite_b=1)
    ssyrk(-1.0, left, beta=1.0, c=gram, trans=1, overwrite_c=1)

    def unwhitened(solution: np.ndarray) -> np.ndarray:
        reached = strsm(1.0, factor, left @ solution)
        return solution - reached + targets @ (inverse @ reached)

    return unwhitened


def penalty_of(
    gram: np.ndarray, known: np.ndarray, targets: np.ndarray, least: float
) -> tuple[np.ndarray, float] | None:
    """What whitening over features makes of the penalty of ridge, where features are fewer than rows.

    Ridge on X S^-1/2, with a strength alpha, has the predictions X w of (X^T X + alpha S) w = X^T Y. So nothing is
    inverted but that sum. S is a multiple of N + c I, as in [`whiten_rows`]; N = E^T E.

    Args:
        gram (`np.ndarray` of shape `(n_features, n_features)`): X^T X, float32 by columns.
        known (`np.ndarray` of shape `(n_features, projection_dim)`): X^T Y.
        targets (`np.ndarray` of shape `(n, projection_dim)`): Y, centred.
        least (`float`): Least share of white noise.

    Returns:
        `tuple` of `np.ndarray` `(n_features, n_features)`, N + c I in the upper triangle, and `float`, the trace of
        (N + c I)^-1 X^T X; `None` where noise is white.
    """
    from scipy.linalg.lapack import spotrf, spotrs, strtri

    weights = evoked(targets, known.T)
    half = known - weights.T @ (targets.T @ targets) / 2
    found = _shrunk_noise(gram, half, weights, len(targets), len(gram), least)
    if found is None:
        return None
    penalty, floor = found
    diagonal = penalty.diagonal().copy()
    factor = spotrf(penalty, lower=1, clean=0, overwrite_a=1)[0]  # in the lower triangle
    # X^T X is N + c I, less c I, and what was evoked
    trace = len(gram) + 2.0 * float((weights.T * spotrs(factor, half, lower=1)[0]).sum(dtype=np.float64))
    inverse = strtri(factor, lower=1, overwrite_c=1)[0]
    for panel in _panels(len(inverse)):
        below = inverse[panel.start :, panel]
        trace -= floor * float(np.linalg.norm(np.tril(below))) ** 2
    if floor > NEARLY_WHITE * float(diagonal.mean()):  # the difference of large numbers is lost to rounding
        trace = float(gram.diagonal().sum(dtype=np.float64)) / float(diagonal.mean())
    penalty[np.diag_indices(len(penalty))] = diagonal
    return penalty, trace


def _noise_factor(
    gram: np.ndarray, half: np.ndarray, weights: np.ndarray, n_rows: int, n_features: int, least: float
) -> np.ndarray | None:
    """Upper Cholesky factor of what [`_shrunk_noise`] makes."""
    from scipy.linalg.lapack import spotrf

    found = _shrunk_noise(gram, half, weights, n_rows, n_features, least)
    return None if found is None else spotrf(found[0], clean=0, overwrite_a=1)[0]


def _shrunk_noise(
    gram: np.ndarray, half: np.ndarray, weights: np.ndarray, n_rows: int, n_features: int, least: float
) -> tuple[np.ndarray, float] | None:
    """N + c I and c, N = gram - half @ weights - (half @ weights)^T; `None` where it is white."""
    noise = np.array(gram, order="F")
    squares = 0.0  # of all numbers
    for panel in _panels(len(noise)):
        noise[:, panel] -= half @ weights[:, panel] + weights.T @ half[panel].T
        squares += float(np.linalg.norm(noise[:, panel])) ** 2
    total = float(noise.diagonal().sum(dtype=np.float64))
    shrinkage = shrinkage_of(total / n_rows, squares / n_rows**2, n_features, n_rows, least) if total > 0 else 1.0
    if shrinkage == 1:
        return None
    floor = shrinkage * total / n_features / (1 - shrinkage)
    noise[np.diag_indices(len(noise))] += np.float32(floor)
    return noise, floor


def _panels(n_columns: int) -> list[slice]:
    """Columns of a matrix, few enough for a copy."""
    return [slice(start, start + BLOCK_ROWS) for start in range(0, n_columns, BLOCK_ROWS)]
