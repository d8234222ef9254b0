"""Ridge regression in closed form, for many strengths at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.whitening import UNWHITENED, whiten_features, whiten_rows

# Ridge strengths relative to the mean eigenvalue of the kernel: from nearly interpolating to nearly constant.
RELATIVE_ALPHAS = np.logspace(-3, 3, 13)
# Largest matrix in float32 that is factored in place: 3.6 GB. Where more rows have more features than that, a ridge is
# fitted on so many of them.
MAX_SIZE = 30_000
# Where the matrix is in rows, these are read again for each pair of blocks, so that a few more features cost less.
DUAL_SHARE = 0.8
MOST_AT_ONCE = 4  # strengths whose weights of all features are held
PANEL = 256  # columns of a matrix that are copied at a time


def one_thread(function: Callable) -> Callable:
    """Hold BLAS to one thread while a function runs."""

    @wraps(function)
    def limited(*arguments: Any, **settings: Any) -> Any:
        import scipy.linalg  # noqa: F401  has a BLAS of its own, which is not limited before it is loaded

        with threadpool_limits(limits=1, user_api="blas"):
            return function(*arguments, **settings)

    return limited


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


class CholeskyRidge:
    """Ridge regression by Cholesky in float32, on rows that are read by blocks.

    The one large matrix is X X^T, or X^T X where features are fewer than rows. It lies in the upper triangle of an
    array, and is factored in the lower one, one strength after the other. Predictions are those of [`KernelRidge`].
    Rows of several blocks are read once for X^T X, and once for each pair of blocks for X X^T, so that this is taken
    where it is smaller by a fifth at least.

    Args:
        read (`Callable`): Gives the rows of a block, `(n_rows, n_features)` float32, centred over all blocks.
        blocks (sequence of `np.ndarray` of shape `(n_rows,)`, int): Which rows each block has; one at least.
        targets (`np.ndarray` of shape `(n, projection_dim)`): Of these rows; centred here.
        least_shrinkage (`float`, *optional*): Least share of white noise in the noise covariance of the features, by
            whose inverse square root rows are multiplied; 1 leaves them.

    Raises:
        DataError: If there are more rows and more features than [`MAX_SIZE`], or numbers are not finite.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], np.ndarray],
        blocks: Sequence[np.ndarray],
        targets: np.ndarray,
        least_shrinkage: float = UNWHITENED,
    ) -> None:
        self.read, self.blocks = read, blocks
        self._last = -1, np.zeros(0, dtype=np.float32)
        n_rows, n_features = len(targets), read(blocks[0][:1]).shape[1]
        if min(n_rows, n_features) > MAX_SIZE:
            raise DataError(
                f"Ridge takes at most {MAX_SIZE} training rows of more features, but got {n_rows} rows of "
                f"{n_features}."
            )
        centred = np.asarray(targets - targets.mean(axis=0), dtype=np.float32)
        share = DUAL_SHARE if len(blocks) > 1 and n_features <= MAX_SIZE else 1
        self.is_dual = n_rows <= n_features * share
        size = n_rows if self.is_dual else n_features
        self.gram = np.zeros((size, size), dtype=np.float32, order="F")
        self.known = centred if self.is_dual else np.zeros((size, centred.shape[1]), dtype=np.float32)
        self._add_blocks(centred)
        self.unwhitened: Callable | None = None
        if least_shrinkage != UNWHITENED and self.is_dual:
            self.unwhitened = whiten_rows(self.gram, centred, n_features, least_shrinkage)
        elif least_shrinkage != UNWHITENED:
            self.unwhitened = whiten_features(self.gram, self.known, centred, least_shrinkage)
        self.diagonal = self.gram.diagonal().copy()
        self.mean_eigenvalue = float(self.diagonal.sum(dtype=np.float64)) / n_rows  # of X X^T in both cases
        if not np.isfinite(self.mean_eigenvalue):
            raise DataError("The training recordings hold NaN or infinity, or numbers whose squares are too large.")
        self._weights: tuple[float, np.ndarray] | None = None

    @property
    def n_numbers(self) -> int:
        """What it holds in memory."""
        return self.gram.size * (1 if self.unwhitened is None else 3) + self._last[1].size

    def _block(self, number: int) -> np.ndarray:
        """Training rows of a block; the last one stays in memory, and few rows are one block."""
        if self._last[0] != number:
            self._last = number, np.ascontiguousarray(self.read(self.blocks[number]), dtype=np.float32)
        return self._last[1]

    def _add_blocks(self, targets: np.ndarray) -> None:
        """Fill `gram`, and `known` where it is in features."""
        from scipy.linalg.blas import ssyrk

        starts = np.cumsum([0, *map(len, self.blocks)])
        for number in range(len(self.blocks)):
            rows, own = self._block(number), slice(starts[number], starts[number + 1])
            if not self.is_dual:
                self.gram = ssyrk(1.0, rows.T, beta=1.0, c=self.gram, overwrite_c=1)  # upper, in place
                self.known += rows.T @ targets[own]
                continue
            for other in range(number + 1):
                above = rows if other == number else self._block(other)
                self.gram[starts[other] : starts[other + 1], own] = above @ rows.T
        _mirror(self.gram)

    def solution(self, relative_alpha: float) -> np.ndarray:
        """Coefficients of the training rows, or of the features where these are fewer, `(size, projection_dim)`."""
        from scipy.linalg.lapack import spotrf, spotrs

        if self.mean_eigenvalue == 0:  # nothing varies
            return np.zeros_like(self.known)
        _mirror(self.gram)
        self.gram[np.diag_indices(len(self.gram))] = self.diagonal + np.float32(relative_alpha * self.mean_eigenvalue)
        factor, failed = spotrf(self.gram, lower=1, clean=0, overwrite_a=1)
        if failed:
            raise DataError(
                f"Ridge of relative strength {relative_alpha:g} cannot be computed: the recordings are too unequal "
                "for float32. Scale them, or leave out those that are extreme."
            )
        found = spotrs(factor, self.known, lower=1)[0]
        return found if self.unwhitened is None else self.unwhitened(found)

    def weights(self, relative_alpha: float) -> np.ndarray:
        """Weights of the features, `(n_features, projection_dim)`."""
        if self._weights is None or self._weights[0] != relative_alpha:
            found = self.solution(relative_alpha)
            self._weights = relative_alpha, self._in_features(found) if self.is_dual else found
        return self._weights[1]

    def _in_features(self, solution: np.ndarray) -> np.ndarray:
        """Weights of the features from coefficients of the training rows."""
        parts = np.split(solution, np.cumsum([len(block) for block in self.blocks])[:-1])
        return sum(self._block(number).T @ part for number, part in enumerate(parts))

    def deviations(
        self,
        others: Sequence[tuple[Callable[[np.ndarray], np.ndarray], Sequence[np.ndarray]]],
        relative_alphas: Sequence[float] | np.ndarray,
    ) -> list[np.ndarray]:
        """Predictions without the target mean for other rows.

        Args:
            others (sequence of `tuple`): What reads them, and their blocks, as for the training rows.
            relative_alphas (sequence of `float`): Strengths.

        Returns:
            `list[np.ndarray]`: For each of `others`, `(n_alphas, n_rows, projection_dim)`.
        """
        across = self.is_dual and len(self.blocks) == 1
        if self.is_dual and not across and len(relative_alphas) > MOST_AT_ONCE:
            few = [relative_alphas[i : i + MOST_AT_ONCE] for i in range(0, len(relative_alphas), MOST_AT_ONCE)]
            return [
                np.concatenate(paths) for paths in zip(*(self.deviations(others, each) for each in few), strict=True)
            ]
        width = self.known.shape[1]
        solutions = np.hstack([self.solution(alpha) for alpha in relative_alphas])  # (size, n_alphas * width)
        if self.is_dual and not across:
            solutions = self._in_features(solutions)
        found = []
        for read, blocks in others:
            parts = [np.empty((0, solutions.shape[1]), dtype=np.float32)]
            for block in blocks:
                rows = read(block)
                parts.append((rows @ self._block(0).T if across else rows) @ solutions)
            paths = np.concatenate(parts).reshape(-1, len(relative_alphas), width)
            found.append(np.ascontiguousarray(paths.swapaxes(0, 1)))
        return found


def _mirror(matrix: np.ndarray) -> None:
    """Copy the upper triangle of a square matrix to the lower one, in place."""
    for start in range(0, len(matrix), PANEL):
        own, after = slice(start, start + PANEL), slice(start + PANEL, None)
        upper = np.triu(matrix[own, own], 1)
        matrix[own, own] = upper + upper.T + np.diag(matrix[own, own].diagonal())
        matrix[after, own] = matrix[own, after].T
