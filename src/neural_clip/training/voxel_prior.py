"""A person's tuning from other people's, by voxel place, and the map of recordings to images that follows from it.

Tuning is a linear map W of an image, given by whitened coordinates z, to voxels: y = z W + noise. Each coordinate has
the same covariance over voxels. Part of W is a function of place that all people share, the rest a person's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from neural_clip.training.voxel_kernels import Kernels, Parcels


@dataclass(frozen=True)
class Tuning:
    """What recordings of many images tell of a person's tuning.

    Args:
        parcels ([`Parcels`]): Of the voxels.
        weights (`np.ndarray` of shape `(n_coordinates, n_parcels)`): Least squares estimates.
        share (`float`): Of the noise covariance that is in the covariance of the estimates.
    """

    parcels: Parcels
    weights: np.ndarray
    share: float


@dataclass(frozen=True)
class Prior:
    """What other people tell of a person's tuning before anything of that person was recorded.

    Args:
        parcels ([`Parcels`]): Of the person's voxels.
        mean (`np.ndarray` of shape `(n_coordinates, n_parcels)`): Expected tuning.
        covariance (`np.ndarray` of shape `(n_parcels, n_parcels)`): C, of each coordinate around it.
        noise (`np.ndarray` of shape `(n_parcels, n_parcels)`): Ψ, covariance of the noise of recordings.
        within (`tuple[float, float]`): Variance of tuning and of noise in directions within parcels, where the
            expected tuning is zero.
    """

    parcels: Parcels
    mean: np.ndarray
    covariance: np.ndarray
    noise: np.ndarray
    within: tuple[float, float]

    @classmethod
    def of(cls, known: Sequence[Tuning], parcels: Parcels, kernels: Kernels) -> Prior:
        """Mean and covariance of a new person's tuning, given the estimates of others: kriging.

        With K the covariance of all estimates and k that with the new person's tuning, the mean is weights K^-1 k and
        the covariance that of the new person less k^T K^-1 k.

        Source: simple kriging, Cressie 1993, Statistics for Spatial Data, section 3.2; Rasmussen and Williams 2006,
        Gaussian Processes for Machine Learning, eq. 2.25 and 2.26.
        """
        from scipy.linalg import cho_factor, cho_solve

        rows = []
        for number, one in enumerate(known):
            row = [kernels.shared.between(one.parcels, other.parcels) for other in known]
            row[number] += kernels.own.within(one.parcels)[0] + one.share * kernels.noise.within(one.parcels)[0]
            rows.append(row)
        cross = np.concatenate([kernels.shared.between(one.parcels, parcels) for one in known])
        solved = cho_solve(cho_factor(np.block(rows), overwrite_a=True), cross)  # (n_known_parcels, n_parcels)
        own, own_within = kernels.own.within(parcels)
        shared, shared_within = kernels.shared.within(parcels)
        noise, noise_within = kernels.noise.within(parcels)
        mean = np.concatenate([one.weights for one in known], axis=1) @ solved
        return cls(parcels, mean, own + shared - cross.T @ solved, noise, (own_within + shared_within, noise_within))

    def without_others(self, kernels: Kernels) -> Prior:
        """The same person, nothing known of the tuning of others but how alike it is by distance."""
        covariance = kernels.own.within(self.parcels)[0] + kernels.shared.within(self.parcels)[0]
        return replace(self, mean=np.zeros_like(self.mean), covariance=covariance)

    @cached_property
    def modes(self) -> tuple[np.ndarray, np.ndarray]:
        """λ `(n_modes,)` and V `(n_parcels, n_modes)` with V^T Ψ V = I and V^T C V = diag(λ)."""
        from scipy.linalg import eigh

        strengths, modes = eigh(self.covariance, self.noise)
        return np.maximum(strengths, 0.0), modes

    def decoder(self, z: np.ndarray, values: np.ndarray) -> Decoder:
        """The map of recordings to whitened coordinates of images, with what was recorded of the person taken in.

        In modes, where noise is white, tuning is found by ridge regression of strength 1 / λ around the mean. What is
        left of the recordings shows directions with more noise. With W the tuning, S the sum of its covariances and
        N the noise, all in modes, the expected z of a recording y V is y V N^-1 W^T (I + W N^-1 W^T + S)^-1.

        Args:
            z (`np.ndarray` of shape `(n, n_coordinates)`): Of the image of each recording.
            values (`np.ndarray` of shape `(n, n_voxels)`): Recordings.

        Source: Rasmussen and Williams 2006, eq. 2.8, for the tuning; for z, Bishop 2006, Pattern Recognition and
        Machine Learning, eq. 2.116, with W W^T replaced by its expectation.
        """
        z, values = z - z.mean(axis=0), values - values.mean(axis=0)
        left, sizes, right = np.linalg.svd(z, full_matrices=False)
        parts = self.parcels.gathered(values)
        strengths, modes = self.modes
        by_mode, mean = parts @ modes, self.mean @ modes
        tuning = mean + right.T @ (_gain(strengths, sizes) * (left.T @ by_mode - sizes[:, None] * (right @ mean)))
        directions, variances = noisy_directions(by_mode - z @ tuning)
        less = 1 - 1 / variances
        weighed = tuning - ((tuning @ directions.T) * less) @ directions  # W N^-1
        ratio = self.within[0] / self.within[1]
        inside = (values - self.parcels.scattered(parts)) / np.sqrt(self.within[1])
        rest = right.T @ (_gain(np.array([ratio]), sizes) * (left.T @ inside))  # (n_coordinates, n_voxels)
        counts = np.append(1 - less @ directions**2, self.parcels.n_within)  # diagonal of N^-1
        strengths = np.append(strengths, ratio)
        total = float(counts @ strengths)
        known = (strengths / (1 + np.outer(sizes**2, strengths))) @ counts - total
        inner = (1 + total) * np.eye(len(right.T)) + (right.T * known) @ right + weighed @ tuning.T + rest @ rest.T
        by_voxel = self.parcels.scattered(weighed @ modes.T) + rest / np.sqrt(self.within[1])
        return Decoder(self, np.linalg.solve(inner, by_voxel).T, directions, variances)


@dataclass(frozen=True)
class Decoder:
    """A map of recordings to images, and the noise that it was made for.

    Args:
        prior ([`Prior`]): What it comes from.
        weights (`np.ndarray` of shape `(n_voxels, n_coordinates)`): On recordings less their mean.
        directions (`np.ndarray` of shape `(n_directions, n_modes)`): Those with more noise than the prior says.
        variances (`np.ndarray` of shape `(n_directions,)`): Of the noise along them, where the prior says 1.
    """

    prior: Prior
    weights: np.ndarray
    directions: np.ndarray
    variances: np.ndarray

    def noise_of(self, weights: np.ndarray) -> float:
        """Variance that the noise of recordings gives to what a map `(n_voxels, width)` makes of them, summed."""
        parcels, parts = self.prior.parcels, self.prior.parcels.gathered(weights.T)
        by_mode = parts @ self.prior.noise @ self.prior.modes[1]  # V^-1 = V^T Ψ
        inside = max(float((weights**2).sum() - (parts**2).sum()), 0.0) if parcels.n_within else 0.0
        more = ((by_mode @ self.directions.T) ** 2) @ (self.variances - 1)
        return float((by_mode**2).sum() + more.sum()) + self.prior.within[1] * inside


def noisy_directions(residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions in which residuals vary more than white noise of variance 1 would.

    Args:
        residuals (`np.ndarray` of shape `(n, n_features)`): Of n recordings less their mean.

    Returns:
        `tuple` of `np.ndarray` `(n_directions, n_features)` and `(n_directions,)`: Unit vectors, and the variance to
        expect along them.

    Source: Donoho, Gavish and Johnstone 2018, Annals of Statistics 46, eq. 1.9 and 1.10 (eigenvalues and directions of
    a spiked covariance) and the shrinkage for the Frobenius norm.
    """
    n_samples = len(residuals) - 1
    ratio = residuals.shape[1] / n_samples
    found, vectors = np.linalg.eigh(residuals @ residuals.T / n_samples)
    above = found > (1 + np.sqrt(ratio)) ** 2
    found, vectors = found[above], vectors[:, above]
    half = (found + 1 - ratio) / 2
    spikes = half + np.sqrt(half**2 - found)
    met = (1 - ratio / (spikes - 1) ** 2) / (1 + ratio / (spikes - 1))  # squared cosine to the true direction
    return (residuals.T @ vectors / np.sqrt(found * n_samples)).T, 1 + (spikes - 1) * met


def _gain(strengths: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Of ridge along singular vectors, `(n_sizes, n_strengths)`: λ s / (1 + λ s²)."""
    return sizes[:, None] * strengths / (1 + np.outer(sizes**2, strengths))
