"""Ridge regression in closed form, for many strengths at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from neural_clip.errors import DataError

# Ridge strengths relative to the mean eigenvalue of the kernel: from nearly interpolating to nearly constant.
RELATIVE_ALPHAS = np.logspace(-3, 3, 13)
# Largest number of training rows, unless features are fewer: the kernel of 20,000 takes 3.2 GB in float64 and its
# eigenvectors as much again.
MAX_TRAIN_ROWS = 20_000
one_thread = threadpool_limits.wrap(limits=1, user_api="blas")


class KernelRidge:
    """Ridge regression for many strengths at once, by one eigendecomposition.

    Args:
        inputs (`np.ndarray` of shape `(n, n_features)`): Training inputs; centred here.
        targets (`np.ndarray` of shape `(n, projection_dim)`): Training targets; centred here, mean added back.

    With X X^T = U diag(l) U^T the prediction for x is x X^T U diag(1 / (l + alpha)) U^T Y; with fewer features than
    rows, and X^T X = V diag(l) V^T, it is x V diag(1 / (l + alpha)) V^T X^T Y. Both are the numbers of
    `sklearn.linear_model.Ridge(alpha)` with an intercept.

    Raises:
        DataError: If there are more training rows than [`MAX_TRAIN_ROWS`], and as many features.
    """

    def __init__(self, inputs: np.ndarray, targets: np.ndarray):
        if min(inputs.shape) > MAX_TRAIN_ROWS:
            raise DataError(
                f"Ridge takes at most {MAX_TRAIN_ROWS} training rows of more features, but got {len(inputs)} rows "
                f"of {inputs.shape[1]}."
            )
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
        self.mean_eigenvalue = max(float(self.eigenvalues.sum()) / len(inputs), np.finfo(np.float64).tiny)

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
