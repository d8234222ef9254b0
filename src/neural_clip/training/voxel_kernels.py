"""How alike voxels are by their distance, within a person and between people.

Voxels are grouped into parcels of neighbours where they are too many for a matrix of all pairs; otherwise each is a
parcel of its own. Numbers of a parcel are sums over its voxels, divided by the square root of how many these are, so
that independent noise of equal variance keeps that variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

N_LENGTHS = 8  # Gaussians of a kernel, from the distance of neighbours to half of the extent
N_BINS = 60  # of distances
MAX_SAMPLED = 1500  # voxels of a person by whose pairs kernels are estimated

LEAST_NOISE = 1e-3  # variance of what a voxel does alone, of 1: the covariance of the noise is inverted


@dataclass(frozen=True)
class Parcels:
    """Groups of neighbouring voxels of one person.

    Args:
        labels (`np.ndarray` of shape `(n_voxels,)`, int): Parcel of each voxel.
        centres (`np.ndarray` of shape `(n_parcels, 3)`): Mean place of its voxels, in mm.
        variances (`np.ndarray` of shape `(n_parcels,)`): Mean square of their distance to it along an axis, in mm².
    """

    labels: np.ndarray
    centres: np.ndarray
    variances: np.ndarray

    @classmethod
    def of(cls, places: np.ndarray, most: int) -> Parcels:
        """Divide places `(n_voxels, 3)`, again and again across the longest axis, until there are `most` parcels."""
        places = np.asarray(places, dtype=np.float64)
        labels = np.arange(len(places))
        if len(places) > most:
            for number, rows in enumerate(_halved(places, labels, most)):
                labels[rows] = number
        sizes = np.bincount(labels)
        centres = np.stack([np.bincount(labels, axis) for axis in places.T], axis=1) / sizes[:, None]
        squares = ((places - centres[labels]) ** 2).mean(axis=1)
        return cls(labels, centres, np.bincount(labels, squares) / sizes)

    def __len__(self) -> int:
        return len(self.centres)

    @cached_property
    def roots(self) -> np.ndarray:
        """Square root of how many voxels each parcel has."""
        return np.sqrt(np.bincount(self.labels))

    @property
    def n_within(self) -> int:
        """Directions among voxels in which no parcel lies."""
        return len(self.labels) - len(self)

    def gathered(self, rows: np.ndarray) -> np.ndarray:
        """Numbers of voxels `(n, n_voxels)` as those of parcels, `(n, n_parcels)`."""
        order = np.argsort(self.labels, kind="stable")
        starts = np.searchsorted(self.labels[order], np.arange(len(self)))
        return np.add.reduceat(rows[:, order], starts, axis=1) / self.roots

    def scattered(self, rows: np.ndarray) -> np.ndarray:
        """Numbers of parcels `(n, n_parcels)` as those of voxels; the transpose of [`~Parcels.gathered`]."""
        return (rows / self.roots)[:, self.labels]


def _halved(places: np.ndarray, rows: np.ndarray, n_parts: int) -> list[np.ndarray]:
    """Rows in so many parts of equal size, but for one, each cut across the longest axis."""
    if n_parts == 1:
        return [rows]
    own = places[rows]
    order = rows[np.argsort(own[:, np.argmax(np.ptp(own, axis=0))], kind="stable")]
    left = n_parts // 2
    cut = len(rows) * left // n_parts
    return _halved(places, order[:cut], left) + _halved(places, order[cut:], n_parts - left)


@dataclass(frozen=True)
class Kernel:
    """Covariance of two voxels by their distance h: sum of variance · exp(-h² / (2 length²)), and a nugget at h = 0.

    Args:
        lengths (`np.ndarray` of shape `(n_lengths,)`): In mm.
        variances (`np.ndarray` of shape `(n_lengths,)`): Not negative, so that it is a covariance in every space.
        nugget (`float`): Variance that a voxel shares with no other.
    """

    lengths: np.ndarray
    variances: np.ndarray
    nugget: float = 0.0

    @property
    def parts(self) -> list[tuple[float, float]]:
        """Length and variance of each Gaussian."""
        return list(zip(self.lengths.tolist(), self.variances.tolist(), strict=True))

    def by_distance(self, distances: np.ndarray) -> np.ndarray:
        """Covariance of two different voxels."""
        shapes = np.exp(-(np.asarray(distances)[..., None] ** 2) / (2 * self.lengths**2))
        return shapes @ self.variances

    def between(self, one: Parcels, other: Parcels) -> np.ndarray:
        """Covariance of the numbers of parcels, `(n_one, n_other)`, nugget aside.

        Voxels are taken as scattered around the centre of their parcel like a Gaussian of its variance, over which
        the kernel is averaged: a convolution of Gaussians.
        """
        squares = _squared_distances(one.centres, other.centres)
        blur = one.variances[:, None] + other.variances
        found = np.zeros(squares.shape)
        for length, variance in self.parts:
            if variance:
                wide = length**2 + blur
                found += variance * (length**2 / wide) ** 1.5 * np.exp(-squares / (2 * wide))
        return found * np.outer(one.roots, other.roots)

    def within(self, parcels: Parcels) -> tuple[np.ndarray, float]:
        """Covariance of the parcels of one person `(n, n)`, and the variance of each direction within parcels."""
        smooth = self.between(parcels, parcels)
        total = len(parcels.labels) * float(self.variances.sum())
        left = max(total - float(np.trace(smooth)), 0.0) / max(parcels.n_within, 1)
        return smooth + self.nugget * np.eye(len(parcels)), left + self.nugget


def _squared_distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of places `(n, 3)` and `(m, 3)`, `(n, m)`."""
    from scipy.spatial.distance import cdist

    return cdist(one, other, "sqeuclidean")


@dataclass(frozen=True)
class Sample:
    """Some voxels of a person, by which kernels are estimated.

    Args:
        places (`np.ndarray` of shape `(n, 3)`): In mm.
        weights (`np.ndarray` of shape `(n_directions, n)`): Least squares estimates of their tuning.
        noise (`np.ndarray` of shape `(n, n)`): Unbiased estimate of the covariance of their noise.
        share (`float`): Of the noise covariance that is in the covariance of the estimates.
    """

    places: np.ndarray
    weights: np.ndarray
    noise: np.ndarray
    share: float


@dataclass(frozen=True)
class Kernels:
    """What voxels have in common.

    Args:
        noise ([`Kernel`]): Of what a person's voxels do besides answering to the image.
        own ([`Kernel`]): Of a person's tuning, as far as no other person shares it.
        shared ([`Kernel`]): Of the tuning that people share at a place.
    """

    noise: Kernel
    own: Kernel
    shared: Kernel

    def as_dict(self) -> dict[str, Any]:
        """For the record: variances by length in mm, where there are some."""
        return {
            name: {
                "nugget": kernel.nugget,
                "smooth": {f"{length:.3g}": value for length, value in kernel.parts if value},
            }
            for name, kernel in (("noise", self.noise), ("own", self.own), ("shared", self.shared))
        }

    @classmethod
    def estimated(cls, people: Sequence[Sample]) -> Kernels:
        """Kernels by moments, over pairs of voxels at a distance.

        Residuals of least squares give the noise. Products of two people's estimates give the shared tuning, since
        their noises are independent; those of one person's estimates, less what noise adds to them, give all of it.

        Source: estimates by moments as in Haseman and Elston 1972, Behavior Genetics 2; variograms as sums of
        Gaussians with a nugget, Cressie 1993, Statistics for Spatial Data, section 2.5; signs by non-negative least
        squares.
        """
        lengths = _lengths(people)
        inside = [(person.places, person.places) for person in people]
        noise = _fitted(lengths, inside, [person.noise for person in people], nugget=True)
        noise = replace(noise, nugget=max(noise.nugget, LEAST_NOISE))
        pairs = [(one, other) for number, one in enumerate(people) for other in people[:number]]
        shared = _fitted(
            lengths,
            [(one.places, other.places) for one, other in pairs],
            [one.weights.T @ other.weights / len(one.weights) for one, other in pairs],
            nugget=False,
        )
        rest = [
            each.weights.T @ each.weights / len(each.weights)
            - each.share * each.noise
            - shared.by_distance(np.sqrt(_squared_distances(each.places, each.places)))
            for each in people
        ]
        return cls(noise, _fitted(lengths, inside, rest, nugget=True), shared)


def _lengths(people: Sequence[Sample]) -> np.ndarray:
    """Lengths of Gaussians, in mm."""
    from scipy.spatial import cKDTree

    everywhere = np.concatenate([person.places for person in people])
    nearest = [np.median(cKDTree(person.places).query(person.places, k=2)[0][:, 1]) for person in people]
    extent = float(np.ptp(everywhere, axis=0).max())
    return np.geomspace(max(min(nearest), extent / 1000), extent / 2, N_LENGTHS)


def _fitted(
    lengths: np.ndarray, places: Sequence[tuple[np.ndarray, np.ndarray]], products: Sequence[np.ndarray], nugget: bool
) -> Kernel:
    """The kernel nearest to mean products of pairs by distance; with `nugget`, a voxel's with itself are apart."""
    from scipy.optimize import nnls

    top = max(float(np.sqrt(_squared_distances(*pair).max())) for pair in places) * (1 + 1e-9)
    counts, sums, reach = np.zeros((3, N_BINS))
    itself: list[np.ndarray] = []
    for pair, found in zip(places, products, strict=True):
        distances = np.sqrt(_squared_distances(*pair))
        if nugget:
            itself.append(found.diagonal())
            distances, found = (each[np.triu_indices(len(each), 1)] for each in (distances, found))
        bins = (N_BINS * np.sqrt(distances / top)).astype(int).ravel()  # finer where voxels are near
        for total, values in ((counts, None), (sums, found.ravel()), (reach, distances.ravel())):
            total += np.bincount(bins, values, minlength=N_BINS)
    used = counts > 0
    n, middles = counts[used], reach[used] / counts[used]
    shapes = np.exp(-(middles[:, None] ** 2) / (2 * lengths**2))
    table, goal, weigh = shapes, sums[used] / n, np.sqrt(n)
    if nugget:
        own = np.concatenate(itself)
        table = np.vstack([np.column_stack([shapes, np.zeros(len(shapes))]), np.ones(len(lengths) + 1)])
        goal, weigh = np.append(goal, own.mean()), np.append(weigh, weigh.sum())  # the total variance is met
    found = nnls(table * weigh[:, None], goal * weigh)[0]
    return Kernel(lengths, found[: len(lengths)], float(found[-1]) if nugget else 0.0)
