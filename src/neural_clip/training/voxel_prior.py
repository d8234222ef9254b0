"""A person's tuning from other people's, by voxel place, and the map of recordings to images that follows from it.

Tuning is a linear map of an image, given by whitened coordinates z, to voxels: y = z W + noise. Every coordinate has
the same covariance over voxels. Part of W is a function of place that all people share, the rest a person's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from neural_clip.training.voxel_kernels import Kernels, Parcels


@dataclass(frozen=True)
class Tuning:
    """What is known of one person's tuning.

    Args:
        parcels ([`Parcels`]): Of the voxels.
        weights (`np.ndarray` of shape `(n_directions, n_parcels)`): Least squares estimates.
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
        mean (`np.ndarray` of shape `(n_directions, n_parcels)`): Expected tuning.
        covariance (`np.ndarray` of shape `(n_parcels, n_parcels)`): Around it, for each direction.
        noise (`np.ndarray` of shape `(n_parcels, n_parcels)`): Covariance of the noise of recordings.
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

        Source: simple kriging, Cressie 1993, section 3.2; Rasmussen and Williams 2006, eq. 2.25 and 2.26.
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

    @cached_property
    def modes(self) -> tuple[np.ndarray, np.ndarray]:
        """λ `(n_modes,)` and V `(n_parcels, n_modes)` with V^T Ψ V = I and V^T C V = diag(λ)."""
        from scipy.linalg import eigh

        strengths, modes = eigh(self.covariance, self.noise)
        return np.maximum(strengths, 0.0), modes

    def noise_of(self, weights: np.ndarray) -> float:
        """Variance that the noise of recordings gives to what a map `(n_voxels, width)` makes of them."""
        parts = self.parcels.gathered(weights.T)
        inside = float((weights**2).sum() - (parts**2).sum())
        return float(((parts @ self.noise) * parts).sum()) + self.within[1] * inside

    def decoder(self, z: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The map of recordings to whitened coordinates of images, with what was recorded of the person taken in.

        Columns v of V with V^T Ψ V = I and V^T C V = diag(λ) are modes: ridge regression with a strength of its own
        each, around the expected tuning. With W the mean of the tuning of modes given the recordings, and S the sum
        of its covariances, the expected z of a recording is y V W^T (I + W W^T + S)^-1, to second order.

        Args:
            z (`np.ndarray` of shape `(n, n_directions)`): Of the image of each recording.
            values (`np.ndarray` of shape `(n, n_voxels)`): Recordings.

        Returns:
            `tuple` of `np.ndarray` `(n_voxels, n_directions)` and `(n_directions,)`: Weights and offset.

        Source: Rasmussen and Williams 2006, eq. 2.8, for the tuning; for z, the linear estimate of least mean square
        error under a standard normal z and Gaussian noise, Bishop 2006, eq. 2.116.
        """
        level, centre = values.mean(axis=0), z.mean(axis=0)
        left, sizes, right = np.linalg.svd(z - centre, full_matrices=False)
        parts = self.parcels.gathered(values - level)
        strengths, modes = self.modes
        expected = self.mean @ modes
        surprise = left.T @ (parts @ modes) - sizes[:, None] * (right @ expected)
        tuning = expected + right.T @ (_gain(strengths, sizes) * surprise)  # (n_directions, n_modes)
        inside = (values - level - self.parcels.scattered(parts)) / np.sqrt(self.within[1])
        ratio = np.array([self.within[0] / self.within[1]])
        rest = right.T @ (_gain(ratio, sizes) * (left.T @ inside))  # (n_directions, n_voxels)
        strengths = np.append(strengths, np.repeat(ratio, self.parcels.n_within))
        uncertain = (strengths / (1 + np.outer(sizes**2, strengths))).sum(axis=1) - strengths.sum()
        spread = strengths.sum() * np.eye(len(centre)) + (right.T * uncertain) @ right
        power = tuning @ tuning.T + rest @ rest.T
        inner = np.linalg.inv(np.eye(len(centre)) + power + spread)
        by_voxel = self.parcels.scattered((modes @ tuning.T).T) + rest / np.sqrt(self.within[1])
        weights = by_voxel.T @ inner
        return weights, (centre @ power) @ inner - level @ weights


def _gain(strengths: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Of ridge along singular vectors, `(n_sizes, n_strengths)`: λ s / (1 + λ s²)."""
    return sizes[:, None] * strengths / (1 + np.outer(sizes**2, strengths))
