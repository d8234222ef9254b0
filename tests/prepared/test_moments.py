"""Moments of parts that are merged equal those of the whole, also where the mean is large beside the spread."""

import numpy as np
import pytest

from neural_clip.prepared import moments as module
from neural_clip.prepared.moments import Moments, block_moments


def of(values):
    mean = values.mean(axis=0)
    return Moments(len(values), mean, ((values - mean) ** 2).sum(axis=0))


def test_merged_parts_equal_the_whole():
    values = np.random.default_rng(0).normal(1e6, 0.01, (60, 4)).round(12)
    total = of(values[:1])
    for first, last in ((1, 2), (2, 30), (30, 31), (31, 60)):
        total = total.merged(of(values[first:last]))
    exact = values.astype(np.longdouble)
    assert total.count == 60
    np.testing.assert_allclose(total.mean, exact.mean(axis=0).astype(float), rtol=1e-14)
    np.testing.assert_allclose(total.std, exact.std(axis=0).astype(float), rtol=1e-6)


@pytest.mark.parametrize("shape", [(50, 3, 20), (50, 3, 1), (50, 6), (1, 3, 20), (1, 6)])
@pytest.mark.parametrize("block", [2**18, 130])
def test_moments_of_rows_equal_numbers_computed_at_once(shape, block, monkeypatch):
    """In one block and in many; weights count for the weighted mean alone."""
    monkeypatch.setattr(module, "BLOCK_VALUES", block)
    rng = np.random.default_rng(1)
    values = (rng.normal(size=shape) + np.arange(1, shape[1] + 1).reshape(-1, *(1,) * (len(shape) - 2))).astype(
        np.float32
    )
    weights = rng.integers(1, 5, len(values))
    if values.ndim == 3:
        values[::7, 1] = values[::7, 1, :1]  # rows in which a channel does not move
        values[:, 2] = 2.5  # a channel that never does
    exact = values.astype(np.float64).reshape(*shape[:2], -1)  # (n_rows, n_chans, n_times)
    rows = exact.mean(axis=2)
    found = block_moments(values, weights)
    assert (found.n_rows, found.n_times, found.weight) == (len(values), exact.shape[2], weights.sum())
    np.testing.assert_allclose(found.mean, exact.mean(axis=(0, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.std, exact.std(axis=(0, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.weighted_mean, weights @ rows / weights.sum(), rtol=1e-6)
    expected = rows.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(shape[1])
    np.testing.assert_allclose(found.row_std, expected, rtol=1e-5, atol=1e-6)
    moves = exact.std(axis=2) > 0 if exact.shape[2] > 1 else np.ones(shape[:2], bool)
    assert found.flat.tolist() == (~moves).sum(axis=0).tolist()
    assert found.constant.tolist() == (exact.std(axis=(0, 2)) == 0).tolist()


def test_no_recordings_have_no_moments():
    assert block_moments(np.zeros((0, 3, 20), np.float32), np.zeros(0)) is None
