"""Noise of recordings, and the whitening that follows from its covariance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neural_clip.prepared.reader import Split

# Least share of the mean variance mixed into a noise covariance before it is inverted; validation chooses. 0.01 keeps
# band-limited recordings, which have directions with hardly any noise, from being amplified without limit; 1 leaves
# them unwhitened, which is better where the directions of least noise hold no signal either.
LEAST_SHRINKAGES = (0.01, 0.1, 0.3, 1.0)


def residual_noise(recordings: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """What ridge regression from the image embedding leaves of recordings.

    Args:
        recordings (`np.ndarray` of shape `(n, n_features)`): Centred here.
        targets (`np.ndarray` of shape `(n, projection_dim)`): Embedding of each row's image; centred here.

    Returns:
        `np.ndarray` of shape `(n, n_features)`: What is left, in the type of the recordings.
    """
    centred = targets - targets.mean(axis=0)
    gram = centred.T @ centred
    # strength: the mean eigenvalue, which keeps a fit with few rows from swallowing the noise
    strength = max(np.trace(gram) / len(gram), np.finfo(np.float64).tiny)
    hat = centred @ np.linalg.solve(gram + strength * np.eye(len(gram)), centred.T)  # (n, n)
    recordings = recordings - recordings.mean(axis=0)
    return recordings - hat.astype(recordings.dtype) @ recordings


def shrinkage_of(variances: np.ndarray, n_features: int, n_samples: int, least: float) -> float:
    """Share of the mean variance to mix into a covariance: oracle-approximating shrinkage, at least `least`.

    Args:
        variances (`np.ndarray` of shape `(n_kept,)`): Eigenvalues of the covariance that are not zero.
        n_features (`int`): Width of the covariance.
        n_samples (`int`): Rows it was computed from. With fewer rows than features it fits their noise, and the
            share is large.
        least (`float`): Lower bound, 0 to 1.

    Returns:
        `float`: Between `least` and 1.

    Source: Chen et al. 2010, IEEE Trans. Signal Processing 58, eq. 23; also `sklearn.covariance.oas`.
    """
    mean_square = (variances**2).sum() / n_features**2  # of the covariance's elements
    squared_mean = (variances.sum() / n_features) ** 2  # of its diagonal
    denominator = (n_samples + 1) * (mean_square - squared_mean / n_features)
    oas = 1.0 if denominator <= 0 else (mean_square + squared_mean) / denominator
    return float(np.clip(oas, least, 1.0))


def inverse_square_root(covariance: np.ndarray, shrinkage: float) -> np.ndarray:
    """Symmetric inverse square root of a shrunk covariance.

    Args:
        covariance (`np.ndarray` of shape `(n, n)`): Symmetric, positive semi-definite.
        shrinkage (`float`): Share of the mean variance that is mixed in, 0 to 1.

    Returns:
        `np.ndarray` of shape `(n, n)`, float64: ((1 - shrinkage) C + shrinkage tr(C)/n I)^(-1/2).
    """
    eigenvalues, vectors = np.linalg.eigh(np.asarray(covariance, dtype=np.float64))
    mean = max(float(eigenvalues.mean()), np.finfo(np.float64).tiny)
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

    @classmethod
    def fitted(cls, recordings: np.ndarray) -> Standardised:
        """Mean 0 and variance 1 over recordings; constant features become 0."""
        rows = flat(recordings)
        return cls(rows.mean(axis=0), reciprocal(rows.std(axis=0)))

    def __call__(self, recordings: np.ndarray) -> np.ndarray:
        """`(n, ...)` to `(n, n_features)`."""
        return (flat(recordings) - self.mean) * self.scale

    def folded(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights `(n_features, n_out)` and offset `(n_out,)` on recordings that equal `weights` after this."""
        scaled = self.scale[:, None] * weights
        return scaled, -self.mean @ scaled


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
        return flat(self.spatial @ (recordings - self.mean) @ self.temporal)

    def folded(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights and offset on recordings whose channels went through `spatial`, as in [`Standardised.folded`]."""
        by_chan = weights.reshape(*self.mean.shape, -1)  # (n_chans, n_times, n_out)
        timed = np.einsum("st,cto->cso", self.temporal, by_chan).reshape(weights.shape)
        return timed, -(self.spatial @ self.mean).ravel() @ timed


def sensor_whiteners(
    train: Split, subjects: Sequence[str], shrinkages: Sequence[float]
) -> list[dict[str, WhitenedSensors]]:
    """Spatial and temporal whitening of each subject's sensors, for each least share of white noise."""
    means: dict[str, np.ndarray] = {}
    spatial: list[dict[str, np.ndarray]] = [{} for _ in shrinkages]
    temporal_sums: list[np.ndarray] = [np.zeros(()) for _ in shrinkages]
    n_samples = 0
    for subject in subjects:
        recordings = train.of_subject(subject)  # (n, n_chans, n_times)
        means[subject] = recordings.mean(axis=0)
        noise = residual_noise(flat(recordings), train.targets[train.subjects == subject]).reshape(recordings.shape)
        n_chans, n_times = recordings.shape[1:]
        by_chan = noise.transpose(1, 0, 2).reshape(n_chans, -1)
        covariance = by_chan @ by_chan.T / by_chan.shape[1]  # (n_chans, n_chans)
        for number, least in enumerate(shrinkages):
            spatial[number][subject] = inverse_square_root(covariance, least).astype(recordings.dtype)
            by_time = (spatial[number][subject] @ by_chan).reshape(-1, n_times)  # (n_chans * n, n_times)
            temporal_sums[number] = temporal_sums[number] + np.asarray(by_time.T @ by_time, dtype=np.float64)
        n_samples += by_chan.size // n_times
    found = []
    for number, least in enumerate(shrinkages):
        temporal = inverse_square_root(temporal_sums[number] / n_samples, least).astype(means[subjects[0]].dtype)
        found.append({name: WhitenedSensors(means[name], spatial[number][name], temporal) for name in subjects})
    return found


@dataclass(frozen=True)
class WhitenedVoxels:
    """Voxels of a subject, standardised and multiplied by the inverse square root of their shrunk noise covariance.

    The matrix is not formed, because voxels may be many: it is `1 / sqrt(floor)` but for the noise's own directions.

    Args:
        standardised ([`Standardised`]): What comes first.
        floor (`float`): Variance outside the noise's own directions.
        directions (`np.ndarray` of shape `(n_kept, n_voxels)`): The noise's own, of unit length.
        gains (`np.ndarray` of shape `(n_kept,)`): What is added to `1 / sqrt(floor)` along each.
    """

    standardised: Standardised
    floor: float
    directions: np.ndarray
    gains: np.ndarray

    @classmethod
    def fitted(cls, recordings: np.ndarray, targets: np.ndarray, least: float) -> WhitenedVoxels:
        """Whitening by the noise of recordings `(n, n_voxels)`, at least a share `least` of it taken as white."""
        standardised = Standardised.fitted(recordings)
        noise = residual_noise(standardised(recordings), targets)
        eigenvalues, vectors = np.linalg.eigh(noise @ noise.T)  # (n, n): quicker than an SVD
        kept = eigenvalues > 1e-6 * eigenvalues[-1]  # float32 products: smaller ones are rounding
        directions = ((vectors[:, kept] / np.sqrt(eigenvalues[kept])).astype(noise.dtype).T) @ noise
        variances = eigenvalues[kept].astype(np.float64) / len(noise)
        shrinkage = shrinkage_of(variances, noise.shape[1], len(noise), least)
        floor = shrinkage * variances.sum() / noise.shape[1]
        gains = 1 / np.sqrt((1 - shrinkage) * variances + floor) - 1 / np.sqrt(floor)
        return cls(standardised, float(floor), directions, gains.astype(noise.dtype))

    def __call__(self, recordings: np.ndarray) -> np.ndarray:
        """`(n, n_voxels)` to the same shape."""
        return self._whitened(self.standardised(recordings))

    def folded(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights and offset on recordings, as in [`Standardised.folded`]; the whitening is symmetric."""
        return self.standardised.folded(self._whitened(weights.T).T)

    def _whitened(self, rows: np.ndarray) -> np.ndarray:
        return rows / np.sqrt(self.floor) + ((rows @ self.directions.T) * self.gains) @ self.directions
