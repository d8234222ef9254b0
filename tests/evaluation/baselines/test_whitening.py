"""Noise of recordings and whitening against scikit-learn and explicit matrices."""

import numpy as np
import pytest
from sklearn.covariance import oas

from neural_clip.evaluation.baselines.whitening import inverse_square_root, shrinkage_of

pytestmark = pytest.mark.numerical


def test_inverse_square_root_whitens():
    rng = np.random.default_rng(0)
    data = rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6))
    covariance = data.T @ data / 500
    whitener = inverse_square_root(covariance, 0.0)
    np.testing.assert_allclose(whitener @ covariance @ whitener, np.eye(6), atol=1e-8)
    np.testing.assert_allclose(whitener, whitener.T)
    flat = inverse_square_root(covariance, 1.0)
    np.testing.assert_allclose(flat, np.eye(6) / np.sqrt(np.trace(covariance) / 6), atol=1e-12)


@pytest.mark.parametrize("shape", [(30, 50), (400, 20)])
def test_shrinkage_equals_sklearn(shape):
    data = np.random.default_rng(0).standard_normal(shape) * np.linspace(0.1, 3, shape[1])
    centred = data - data.mean(0)
    eigenvalues = np.linalg.eigvalsh(centred.T @ centred / len(data))
    _, expected = oas(centred, assume_centered=True)
    sums = eigenvalues.sum(), (eigenvalues**2).sum()
    assert shrinkage_of(*sums, shape[1], shape[0], 0.0) == pytest.approx(expected)
    assert shrinkage_of(*sums, shape[1], shape[0], 0.9) == pytest.approx(max(expected, 0.9))
