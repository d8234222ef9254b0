"""Tuning from other people's by place: against one Gaussian of everything unknown, conditioned by linear algebra."""

import numpy as np
import pytest

from neural_clip.training.voxel_kernels import Kernel, Kernels, Parcels
from neural_clip.training.voxel_prior import Prior, Tuning, noisy_directions

pytestmark = pytest.mark.numerical

KERNELS = Kernels(
    noise=Kernel(np.array([4.0, 9.0]), np.array([0.3, 0.2]), 0.5),
    own=Kernel(np.array([6.0]), np.array([0.02]), 0.05),
    shared=Kernel(np.array([8.0, 15.0]), np.array([0.05, 0.02])),
)
SHARES = (0.02, 0.05)
N_COORDINATES, N_ROWS = 3, 9


def dense(kernel, one, other, nugget=False):
    """Covariance of parcels by loops."""
    found = np.zeros((len(one), len(other)))
    for i in range(len(one)):
        for j in range(len(other)):
            for length, variance in kernel.parts:
                wide = length**2 + one.variances[i] + other.variances[j]
                square = ((one.centres[i] - other.centres[j]) ** 2).sum()
                peak = variance * (length**2 / wide) ** 1.5 * np.exp(-square / (2 * wide))
                found[i, j] += peak * np.sqrt((one.labels == i).sum() * (other.labels == j).sum())
    return found + (kernel.nugget * np.eye(len(one)) if nugget else 0)


def kriging_by_hand(known, parcels):
    """Mean `(n_coordinates, n)` and covariance of the new person's tuning: one Gaussian of all, conditioned."""
    everybody = [one.parcels for one in known] + [parcels]
    joint = np.block([[dense(KERNELS.shared, one, other) for other in everybody] for one in everybody])
    starts = np.cumsum([0, *map(len, everybody)])
    for number, one in enumerate(everybody):
        block = slice(starts[number], starts[number + 1])
        joint[block, block] += dense(KERNELS.own, one, one, nugget=True)
        if number < len(known):
            joint[block, block] += known[number].share * dense(KERNELS.noise, one, one, nugget=True)
    new, old = slice(starts[-2], None), slice(0, starts[-2])
    inverse = np.linalg.inv(joint[old, old])
    weights = np.concatenate([one.weights for one in known], axis=1)
    return weights @ inverse @ joint[old, new], joint[new, new] - joint[new, old] @ inverse @ joint[old, new]


def people(most):
    """Two known people and the parcels of a new one with 14 voxels."""
    rng = np.random.default_rng(1)
    known = []
    for number, share in enumerate(SHARES):
        parcels = Parcels.of(rng.uniform(0, 20, (10 + number, 3)), most)
        known.append(Tuning(parcels, rng.standard_normal((N_COORDINATES, len(parcels))) / 3, share))
    return known, Parcels.of(rng.uniform(0, 20, (14, 3)), most)


@pytest.mark.parametrize("most", [99, 5])
def test_kriging_is_a_conditioned_gaussian(most):
    known, parcels = people(most)
    prior = Prior.of(known, parcels, KERNELS)
    mean, covariance = kriging_by_hand(known, parcels)
    np.testing.assert_allclose(prior.mean, mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(prior.covariance, covariance, rtol=1e-6, atol=1e-9)
    assert np.trace(covariance) < np.trace(prior.without_others(KERNELS).covariance)
    assert not prior.without_others(KERNELS).mean.any()


def by_hand(prior, z, values, noise):
    """Tuning of voxels given recordings, and the map to z, by one Gaussian of all tuning and all recordings.

    `noise` is the covariance of the recordings that are read; those that tuning is learnt from have the prior's.
    """
    basis = prior.parcels.scattered(np.eye(len(prior.parcels))).T  # (n_voxels, n_parcels)
    others = np.eye(len(basis)) - basis @ basis.T
    tuned, quiet = (
        basis @ matrix @ basis.T + variance * others
        for matrix, variance in zip((prior.covariance, prior.noise), prior.within, strict=True)
    )
    contrasts = np.linalg.svd(np.eye(len(z)) - 1 / len(z))[2][:-1]  # of rows, without their mean
    z, values = contrasts @ z, contrasts @ values
    n = len(basis)
    before = np.kron(np.eye(N_COORDINATES), tuned)  # of w = rows of W one after the other
    reads = np.kron(z, np.eye(n))  # from w to the recordings one after the other
    total = reads @ before @ reads.T + np.kron(np.eye(len(z)), quiet)
    gain = before @ reads.T @ np.linalg.inv(total)
    start = (prior.mean @ basis.T).ravel()
    after = (start + gain @ (values.ravel() - reads @ start)).reshape(N_COORDINATES, n)
    covariance = (before - gain @ reads @ before).reshape(N_COORDINATES, n, N_COORDINATES, n)
    inverse = np.linalg.inv(noise(quiet))
    spread = np.einsum("aibj,ji->ab", covariance, inverse)
    inner = np.eye(N_COORDINATES) + after @ inverse @ after.T + spread
    return inverse @ after.T @ np.linalg.inv(inner), noise(quiet)


@pytest.mark.parametrize("most", [99, 5])
@pytest.mark.parametrize("loud", [False, True])
def test_a_decoder_is_a_conditioned_gaussian(most, loud):
    known, parcels = people(most)
    prior = Prior.of(known, parcels, KERNELS)
    rng = np.random.default_rng(2)
    z = rng.standard_normal((N_ROWS, N_COORDINATES))
    values = z @ parcels.scattered(prior.mean) + 0.7 * rng.standard_normal((N_ROWS, 14))
    if loud:  # one direction that the kernel does not know
        values += 6 * np.outer(rng.standard_normal(N_ROWS), parcels.scattered(rng.standard_normal((1, len(parcels)))))
    decoder = prior.decoder(z, values)
    assert (len(decoder.variances) > 0) == loud
    basis = parcels.scattered(np.eye(len(parcels))).T
    back = prior.noise @ prior.modes[1]  # V^-T
    more = back @ decoder.directions.T

    def noise(quiet):
        return quiet + basis @ (more * (decoder.variances - 1)) @ more.T @ basis.T

    expected, covariance = by_hand(prior, z, values, noise)
    np.testing.assert_allclose(decoder.weights, expected, rtol=1e-6, atol=1e-9)
    weights = rng.standard_normal((14, 4))
    np.testing.assert_allclose(decoder.noise_of(weights), np.trace(weights.T @ covariance @ weights), rtol=1e-9)


def test_noisy_directions_are_found_and_white_noise_has_none():
    rng = np.random.default_rng(3)
    white = rng.standard_normal((200, 100))
    white -= white.mean(axis=0)
    assert len(noisy_directions(white)[1]) == 0
    truth = np.linalg.qr(rng.standard_normal((100, 2)))[0].T
    loud = white + rng.standard_normal((200, 2)) * (5, 3) @ truth
    directions, variances = noisy_directions(loud - loud.mean(axis=0))
    np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-9)
    cosines = np.sort(np.linalg.norm(directions @ truth.T, axis=1))
    assert cosines[0] > 0.9 and cosines[1] > 0.95
    assert np.sort(variances) == pytest.approx([10, 26], rel=0.25)


def test_two_recordings_and_equal_ones_are_enough():
    known, parcels = people(99)
    prior = Prior.of(known, parcels, KERNELS)
    rng = np.random.default_rng(4)
    for values in (rng.standard_normal((2, 14)), np.ones((2, 14)), np.zeros((3, 14))):
        decoder = prior.decoder(rng.standard_normal((len(values), N_COORDINATES)), values)
        assert np.isfinite(decoder.weights).all() and decoder.weights.any()  # the expected tuning is still there
