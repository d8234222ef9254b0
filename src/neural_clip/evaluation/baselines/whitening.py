"""Noise of recordings, and the whitening that follows from its covariance."""

from __future__ import annotations

import numpy as np


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
