"""Whitening of voxels by the explicit covariance of their noise, beside which that of the baselines is quick."""

import numpy as np
from scipy.linalg import fractional_matrix_power
from sklearn.covariance import oas
from sklearn.linear_model import Ridge


def whitening_of(rows, targets, least):
    """What whitens rows `(n, n_voxels)`, by the noise that ridge from the image embedding leaves of these ones."""
    rows, targets = rows.astype(np.float64), targets.astype(np.float64)
    mean, deviation = rows.mean(0), rows.std(0)
    rows = (rows - mean) / deviation
    centred = targets - targets.mean(0)
    strength = np.linalg.eigvalsh(centred.T @ centred).mean()
    noise = rows - Ridge(alpha=strength, solver="svd").fit(targets, rows).predict(targets)
    covariance = noise.T @ noise / len(noise)
    share = max(oas(noise, assume_centered=True)[1], least)
    white = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    whitener = fractional_matrix_power((1 - share) * covariance + share * white, -0.5).real
    return lambda others: (others - mean) / deviation @ whitener
