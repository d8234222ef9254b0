"""Parcels of voxels and kernels of their distance: against loops, and worlds that were made with known kernels."""

import numpy as np
import pytest

from neural_clip.training.voxel_kernels import Kernel, Kernels, Parcels, Sample

pytestmark = pytest.mark.numerical

RNG = np.random.default_rng(0)


def block(n, seed=0, size=(40, 30, 20)):
    return np.random.default_rng(seed).uniform(0, 1, (n, 3)) * size


@pytest.mark.parametrize(("n", "most"), [(50, 7), (64, 8), (20, 20), (20, 50), (9, 1)])
def test_every_voxel_lies_in_one_parcel_of_its_neighbourhood(n, most):
    places = block(n)
    parcels = Parcels.of(places, most)
    sizes = np.bincount(parcels.labels)
    assert len(parcels) == min(n, most) == len(sizes) and sizes.max() - sizes.min() <= 1
    for number in range(len(parcels)):
        own = places[parcels.labels == number]
        np.testing.assert_allclose(parcels.centres[number], own.mean(axis=0))
        expected = np.mean([(place - own.mean(axis=0)) ** 2 for place in own])
        np.testing.assert_allclose(parcels.variances[number], expected, atol=1e-12)
    if n > most > 1:  # nearer to one another than to all
        assert parcels.variances.mean() < places.var(axis=0).mean() / 2


def test_numbers_of_parcels_keep_the_variance_of_independent_voxels():
    parcels = Parcels.of(block(30), 7)
    rows = RNG.standard_normal((4, 30))
    found = parcels.gathered(rows)
    for number in range(7):
        own = rows[:, parcels.labels == number]
        np.testing.assert_allclose(found[:, number], own.sum(axis=1) / np.sqrt(own.shape[1]))
    basis = parcels.scattered(np.eye(7))  # (7, 30)
    np.testing.assert_allclose(basis @ basis.T, np.eye(7), atol=1e-12)
    np.testing.assert_allclose(rows @ basis.T, found)


def test_single_voxels_have_the_kernel_itself():
    kernel = Kernel(np.array([3.0, 9.0]), np.array([0.5, 0.2]), nugget=0.3)
    one, other = Parcels.of(block(12), 12), Parcels.of(block(8, seed=1), 8)
    expected = [
        [sum(v * np.exp(-((a - b) ** 2).sum() / (2 * s**2)) for s, v in zip((3, 9), (0.5, 0.2), strict=True))
         for b in other.centres] for a in one.centres
    ]  # fmt: skip
    np.testing.assert_allclose(kernel.between(one, other), expected)
    covariance, within = kernel.within(one)
    np.testing.assert_allclose(covariance.diagonal(), 1.0)
    assert within == pytest.approx(0.3)  # there are no directions within


def test_parcels_have_the_mean_of_the_kernel():
    kernel = Kernel(np.array([6.0]), np.array([1.0]))
    one, other = (Parcels.of(block(4000, seed), 27) for seed in (0, 1))
    found = kernel.between(one, other)
    places = [block(4000, seed) for seed in (0, 1)]
    for row, column in ((0, 0), (2, 5), (7, 7)):
        a, b = (place[each.labels == n] for place, each, n in zip(places, (one, other), (row, column), strict=True))
        distances = ((a[:, None] - b[None]) ** 2).sum(axis=2)
        expected = np.exp(-distances / 72).mean() * np.sqrt(len(a) * len(b))
        assert found[row, column] == pytest.approx(expected, abs=0.02 * 4000 / 27)  # they are boxes, not Gaussians
    covariance, within = kernel.within(one)
    assert np.linalg.eigvalsh(covariance).min() > -1e-9 * covariance.max()
    assert np.trace(covariance) + within * one.n_within == pytest.approx(4000)  # nothing is lost


def field(places, kernel, n_maps, rng):
    """Draws of a Gaussian process, `(n_maps, n)`."""
    covariance = kernel.between(*[Parcels.of(places, len(places))] * 2) + kernel.nugget * np.eye(len(places))
    return rng.multivariate_normal(np.zeros(len(places)), covariance, size=n_maps, method="cholesky")


def world(shared, n_people=3, n_voxels=200, n_maps=40, n_rows=400):
    """What is estimated of people whose tuning has the kernels of this test."""
    rng = np.random.default_rng(7)
    places = [block(n_voxels + 11 * person, person) for person in range(n_people)]
    own, noise = Kernel(np.array([8.0]), np.array([0.3]), 0.2), Kernel(np.array([5.0]), np.array([2.0]), 4.0)
    together = field(np.concatenate(places), Kernel(np.array([8.0]), np.array([shared]), 1e-9), n_maps, rng)
    found = []
    starts = np.cumsum([0, *map(len, places)])
    for person, place in enumerate(places):
        truth = together[:, starts[person] : starts[person + 1]] + field(place, own, n_maps, rng)
        z = rng.standard_normal((n_rows, n_maps))
        values = z @ truth + field(place, noise, n_rows, rng)
        inverse = np.linalg.inv(z.T @ z)
        weights = inverse @ (z.T @ values)
        left = values - z @ weights
        found.append(Sample(place, weights, left.T @ left / (n_rows - n_maps), np.trace(inverse) / n_maps))
    return found


def test_kernels_are_found_again():
    found = Kernels.estimated(world(shared=0.6))
    at = np.array([2.0, 8.0, 16.0])
    np.testing.assert_allclose(found.noise.by_distance(at), 2 * np.exp(-(at**2) / 50), atol=0.15)
    assert found.noise.nugget == pytest.approx(4.0, abs=0.3)
    np.testing.assert_allclose(found.shared.by_distance(at), 0.6 * np.exp(-(at**2) / 128), atol=0.1)
    np.testing.assert_allclose(found.own.by_distance(at), 0.3 * np.exp(-(at**2) / 128), atol=0.1)
    assert found.own.nugget == pytest.approx(0.2, abs=0.1)
    assert set(found.as_dict()) == {"noise", "own", "shared"}


def test_what_nobody_shares_is_not_found():
    found = Kernels.estimated(world(shared=0.0))
    assert found.shared.by_distance(np.array([0.0]))[0] < 0.05
    assert found.own.by_distance(np.array([0.0]))[0] == pytest.approx(0.3, abs=0.1)


def test_recordings_without_noise_leave_a_covariance_that_can_be_inverted():
    quiet = [Sample(one.places, one.weights, 0 * one.noise, 0.0) for one in world(shared=0.6)]
    found = Kernels.estimated(quiet)
    np.linalg.cholesky(found.noise.within(Parcels.of(quiet[0].places, 200))[0])
