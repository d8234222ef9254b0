"""Ridge regression in float64 by one eigendecomposition, which the ridge of the package is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class KernelRidge:
    """Ridge regression for many strengths at once, by one eigendecomposition.

    Args:
        inputs (`np.ndarray` of shape `(n, n_features)`): Training inputs; centred here.
        targets (`np.ndarray` of shape `(n, projection_dim)`): Training targets; centred here, mean added back.

    With X X^T = U diag(l) U^T the prediction for x is x X^T U diag(1 / (l + alpha)) U^T Y; with fewer features than
    rows, and X^T X = V diag(l) V^T, it is x V diag(1 / (l + alpha)) V^T X^T Y. Both are the numbers of
    `sklearn.linear_model.Ridge(alpha)` with an intercept.
    """

    def __init__(self, inputs: np.ndarray, targets: np.ndarray):
        self.input_mean, self.target_mean = inputs.mean(axis=0), targets.mean(axis=0)
        centred = inputs - self.input_mean
        self.inputs: np.ndarray | None = None  # kept where predictions need them
        if len(inputs) <= inputs.shape[1]:
            self.inputs = centred
            eigenvalues, self.vectors = np.linalg.eigh(np.asarray(centred @ centred.T, dtype=np.float64))  # (n, n)
            self.projected = self.vectors.T @ (targets - self.target_mean)  # (n, projection_dim)
        else:
            centred = np.asarray(centred, dtype=np.float64)
            eigenvalues, self.vectors = np.linalg.eigh(centred.T @ centred)  # (n_features, n_features)
            self.projected = self.vectors.T @ (centred.T @ (targets - self.target_mean))
        self.eigenvalues = np.maximum(eigenvalues, 0.0)
        # of the n x n matrix in both cases
        mean = float(self.eigenvalues.sum()) / len(inputs)
        self.mean_eigenvalue = mean if mean > np.finfo(np.float64).tiny else 1.0  # of nothing: predictions are 0

    def predict(self, inputs: np.ndarray, relative_alphas: Sequence[float] | np.ndarray) -> np.ndarray:
        """Predictions `(n_alphas, n_rows, projection_dim)`; alpha = relative alpha x mean eigenvalue of X X^T."""
        return self.deviations(inputs, relative_alphas) + self.target_mean

    def deviations(self, inputs: np.ndarray, relative_alphas: Sequence[float] | np.ndarray) -> np.ndarray:
        """Predictions without the target mean, `(n_alphas, n_rows, projection_dim)`.

        Strong ridge shrinks predictions towards the target mean. Their cosines then tell which image lies near that
        mean, whatever was recorded; those of the deviations do not.
        """
        centred = inputs - self.input_mean
        cross = (centred if self.inputs is None else centred @ self.inputs.T) @ self.vectors  # (n_rows, n_eigenvalues)
        return np.stack(
            [(cross / (self.eigenvalues + alpha * self.mean_eigenvalue)) @ self.projected for alpha in relative_alphas]
        )

    def coefficients(self, relative_alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Weights `(n_features, projection_dim)` and intercept `(projection_dim,)` of [`~KernelRidge.predict`]."""
        penalty = self.eigenvalues + relative_alpha * self.mean_eigenvalue
        weights = self.vectors @ (self.projected / penalty[:, None])
        if self.inputs is not None:
            weights = self.inputs.T @ weights
        return weights, self.target_mean - self.input_mean @ weights
