"""Ridge regression in closed form, for many strengths at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, wraps
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.targets import Targets
from neural_clip.evaluation.baselines.whitening import (
    UNWHITENED,
    Mixed,
    Standardised,
    WhitenedSensors,
    penalty_of,
    reciprocal,
    whiten_rows,
)

# Ridge strengths relative to the mean eigenvalue of the kernel: from nearly interpolating to nearly constant.
RELATIVE_ALPHAS = np.logspace(-3, 3, 13)
# Largest matrix in float32 that is factored in place: 3.6 GB. Where more rows have more features than that, a ridge is
# fitted on so many of them.
MAX_SIZE = 30_000
# Where the matrix is in rows, these are read again for each pair of blocks, so that a few more features cost less.
DUAL_SHARE = 0.8
PANEL = 256  # columns of a matrix that are copied at a time
MAX_KEPT_CROSS = 2**26  # products of other rows with training rows that are kept for further strengths: 256 MB


def one_thread(function: Callable) -> Callable:
    """Hold BLAS to one thread while a function runs."""

    @wraps(function)
    def limited(*arguments: Any, **settings: Any) -> Any:
        import scipy.linalg  # noqa: F401  has a BLAS of its own, which is not limited before it is loaded

        with threadpool_limits(limits=1, user_api="blas"):
            return function(*arguments, **settings)

    return limited


class Products(NamedTuple):
    """What a ridge is solved from, float32.

    Args:
        gram (`np.ndarray` of shape `(size, size)`): X X^T or X^T X, by columns.
        known (`np.ndarray` of shape `(size, projection_dim)`): Y or X^T Y; Y is centred.
        is_dual (`bool`): Whether these are in rows, X X^T and Y.
    """

    gram: np.ndarray
    known: np.ndarray
    is_dual: bool


def in_rows(n_rows: int, n_features: int, n_blocks: int) -> bool:
    """Whether X X^T is taken, or X^T X.

    The smaller one. Rows of several blocks are read once for X^T X, and once for each pair of blocks for X X^T, which
    is taken where it is smaller by a fifth at least.
    """
    return n_rows <= n_features * (DUAL_SHARE if n_blocks > 1 and n_features <= MAX_SIZE else 1)


class CholeskyRidge:
    """Ridge regression by Cholesky in float32, on rows that are read by blocks.

    The one large matrix is X X^T, or X^T X where features are fewer than rows. It lies in the upper triangle of an
    array, and is factored in the lower one, one strength after the other. Predictions are the numbers of
    `sklearn.linear_model.Ridge` with an intercept.

    Args:
        rows ([`Rows`]): Training rows, centred over all blocks, of which there is one at least.
        targets (`np.ndarray` of shape `(n, projection_dim)` or [`Targets`]): Of these rows; centred here.
        least_shrinkage (`float`, *optional*): Least share of white noise in the noise covariance of the features, by
            whose inverse square root rows are multiplied; 1 leaves them.
        made ([`Products`], *optional*): Of these rows, where they are known. Its arrays are changed.

    Raises:
        DataError: If there are more rows and more features than [`MAX_SIZE`], or numbers are not finite.
    """

    def __init__(
        self,
        rows: Rows,
        targets: np.ndarray | Targets,
        least_shrinkage: float = UNWHITENED,
        made: Products | None = None,
    ) -> None:
        self.rows = rows
        n_rows, n_features = rows.n_rows, rows.n_features
        if min(n_rows, n_features) > MAX_SIZE:
            raise DataError(
                f"Ridge takes at most {MAX_SIZE} training rows of more features, but got {n_rows} rows of "
                f"{n_features}."
            )
        centred = Targets(targets.__getitem__, n_rows) if isinstance(targets, np.ndarray) else targets
        if made is None:
            made = products_of(rows, centred)
        self.gram, self.known, self.is_dual = made
        self.unwhitened: Callable | None = None
        self.penalty: np.ndarray | None = None  # in place of the identity
        found = None
        if least_shrinkage != UNWHITENED and self.is_dual:
            self.unwhitened = whiten_rows(self.gram, centred.whole(), n_features, least_shrinkage)
        elif least_shrinkage != UNWHITENED:
            found = penalty_of(self.gram, self.known, centred.whole(), least_shrinkage)
        self.diagonal = self.gram.diagonal().copy()
        trace = float(self.diagonal.sum(dtype=np.float64))
        if found is not None:
            self.penalty, trace = found
        self.mean_eigenvalue = trace / n_rows  # of X X^T in both cases, whitened where it is
        if not np.isfinite(self.mean_eigenvalue):
            raise DataError("The training recordings hold NaN or infinity, or numbers whose squares are too large.")
        self._weights: tuple[float, np.ndarray] | None = None
        self._crossed: dict[Rows, np.ndarray] = {}

    @property
    def n_numbers(self) -> int:
        """What it holds in memory."""
        n_matrices = 3 if self.unwhitened is not None else 2 if self.penalty is not None else 1
        return n_matrices * self.gram.size + self.rows.n_numbers

    def solution(self, relative_alpha: float) -> np.ndarray:
        """Coefficients of the training rows, or of the features where these are fewer, `(size, projection_dim)`.

        A strength that float32 does not hold, as the largest eigenvalue is too many times the penalty, is that of the
        next of `RELATIVE_ALPHAS` which it does. They tie, and the stronger ridge wins a tie.
        """
        from scipy.linalg.lapack import spotrs

        if self.mean_eigenvalue == 0:  # nothing varies
            return np.zeros_like(self.known)
        for relative in (relative_alpha, *RELATIVE_ALPHAS[relative_alpha < RELATIVE_ALPHAS]):
            if (factor := self._factor(np.float32(relative * self.mean_eigenvalue))) is not None:
                found = spotrs(factor, self.known, lower=1)[0]
                return found if self.unwhitened is None else self.unwhitened(found)
        raise DataError(
            f"Ridge of relative strength {relative_alpha:g} or more cannot be computed: the recordings are too "
            "unequal for float32. Scale them, or leave out those that are extreme."
        )

    def _factor(self, alpha: np.float32) -> np.ndarray | None:
        """Cholesky factor of the matrix with a penalty, in its place; `None` where it is not positive definite."""
        from scipy.linalg.lapack import spotrf

        diagonal = np.ones(1, dtype=np.float32)
        _mirror(self.gram)
        if self.penalty is not None:
            _add_upper(self.gram, self.penalty, alpha)
            diagonal = self.penalty.diagonal()
        self.gram[np.diag_indices(len(self.gram))] = self.diagonal + alpha * diagonal
        factor, failed = spotrf(self.gram, lower=1, clean=0, overwrite_a=1)
        return None if failed else factor

    def weights(self, relative_alpha: float) -> np.ndarray:
        """Weights of the features, `(n_features, projection_dim)`."""
        if self._weights is None or self._weights[0] != relative_alpha:
            found = self.solution(relative_alpha)
            self._weights = relative_alpha, self._in_features(found) if self.is_dual else found
        return self._weights[1]

    def _in_features(self, solution: np.ndarray) -> np.ndarray:
        """Weights of the features from coefficients of the training rows."""
        return sum(block.T @ solution[part] for part, block in self.rows)

    def _crossed_with(self, others: Rows) -> Iterator[tuple[slice, np.ndarray]]:
        """Products of other rows with the training rows, `(n_rows, n)`, by blocks; small ones are kept, whole."""
        if others.n_rows * len(self.gram) > MAX_KEPT_CROSS:
            self._crossed.clear()
            for place, rows in others:
                yield place, self._cross(rows)
            return
        if others not in self._crossed:
            found = np.empty((others.n_rows, len(self.gram)), dtype=np.float32)
            for place, rows in others:
                found[place] = self._cross(rows)
            self._crossed[others] = found
        yield slice(None), self._crossed[others]

    def _cross(self, rows: np.ndarray) -> np.ndarray:
        """Products of rows with the training rows, `(n_rows, n)`."""
        found = np.empty((len(rows), len(self.gram)), dtype=np.float32)
        for own, block in self.rows:
            found[:, own] = rows @ block.T
        return found

    def deviations(self, others: Sequence[Rows], relative_alphas: Sequence[float] | np.ndarray) -> list[np.ndarray]:
        """Predictions without the target mean for other rows.

        Returns:
            `list[np.ndarray]`: For each of `others`, `(n_alphas, n_rows, projection_dim)`.
        """
        width = self.known.shape[1]
        solutions = np.hstack([self.solution(alpha) for alpha in relative_alphas])  # (size, n_alphas * width)
        found = []
        for rows in others:
            paths = np.empty((len(relative_alphas), rows.n_rows, width), dtype=np.float32)
            for place, block in self._crossed_with(rows) if self.is_dual else rows:
                paths[:, place] = (block @ solutions).reshape(len(block), len(paths), width).swapaxes(0, 1)
            found.append(paths)
        return found


class Rows:
    """Rows that are read by blocks, the last of which stays in memory; iterated over as pairs of place and block.

    Args:
        read (`Callable`): Gives the rows of a block, `(n_rows, n_features)` float32.
        blocks (sequence of `np.ndarray` of shape `(n_rows,)`, int): Which rows each block has.
    """

    def __init__(self, read: Callable[[np.ndarray], np.ndarray], blocks: Sequence[np.ndarray]) -> None:
        self.read, self.blocks = read, blocks
        self.starts = np.cumsum([0, *map(len, blocks)])
        self._last = -1, np.zeros(0, dtype=np.float32)

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        for number in range(len(self.blocks)):
            yield self.place(number), self.block(number)

    @property
    def n_rows(self) -> int:
        """Of all blocks."""
        return int(self.starts[-1])

    @cached_property
    def n_features(self) -> int:
        """Of each row."""
        return self.read(self.blocks[0][:1]).shape[1]

    @property
    def n_numbers(self) -> int:
        """What is in memory."""
        return self._last[1].size

    @property
    def is_dual(self) -> bool:
        """Whether a ridge of these rows is in rows."""
        return in_rows(self.n_rows, self.n_features, len(self.blocks))

    def place(self, number: int) -> slice:
        """Where a block lies among all rows."""
        return slice(self.starts[number], self.starts[number + 1])

    def block(self, number: int) -> np.ndarray:
        """Rows of a block, `(n_rows, n_features)` float32."""
        if self._last[0] != number:
            self._last = number, np.ascontiguousarray(self.read(self.blocks[number]), dtype=np.float32)
        return self._last[1]


def products_of(
    rows: Rows, targets: np.ndarray | Targets, is_dual: bool | None = None, gram: np.ndarray | None = None
) -> Products:
    """Read rows for their products.

    Args:
        rows ([`Rows`]): Training rows, centred over all blocks.
        targets (`np.ndarray` of shape `(n, projection_dim)` or [`Targets`]): Of these rows, centred, float32.
        is_dual (`bool`, *optional*): As in [`Products`]; by default what [`Rows.is_dual`] says.
        gram (`np.ndarray`, *optional*): The matrix, where it is known.
    """
    from scipy.linalg.blas import ssyrk

    is_dual = rows.is_dual if is_dual is None else is_dual
    size = rows.n_rows if is_dual else rows.n_features
    made = np.zeros((size, size), dtype=np.float32, order="F") if gram is None else gram
    if is_dual:
        for number in range(len(rows.blocks)) if gram is None else ():
            block, own = rows.block(number), rows.place(number)
            for other in range(number + 1):
                above = block if other == number else rows.block(other)
                made[rows.place(other), own] = above @ block.T
        known = targets if isinstance(targets, np.ndarray) else targets.whole()
    else:
        known = np.zeros((size, targets[:0].shape[1]), dtype=np.float32)
        for own, block in rows:
            if gram is None:
                made = ssyrk(1.0, block.T, beta=1.0, c=made, overwrite_c=1)  # upper, in place
            known += block.T @ targets[own]
    _mirror(made)
    return Products(made, known, is_dual)


def pooled_products(
    shape: tuple[int, ...],
    own: Mapping[str, Standardised],
    inputs: Mapping[str, Standardised | WhitenedSensors | Mixed],
    products: Callable[[str], Products],
    targets: Mapping[str, Targets],
) -> Products:
    """Those of all subjects' sensors, X^T X and X^T Y, without reading these again.

    Rows of a subject are A z and a constant: z are standardised, with Z^T Z and Z^T Y known, and A is what they pass
    through, which is quick to apply. X^T X is the sum of A Z^T Z A^T and of what the means of subjects add.

    Args:
        shape (`tuple`): Of a recording.
        own (`Mapping[str, Standardised]`): What made each subject's z of recordings.
        inputs (`Mapping`): What makes each subject's rows of recordings.
        products (`Callable`): Gives Z^T Z and Z^T Y of a subject; its arrays are changed.
        targets (`Mapping[str, Targets]`): Of each subject's rows.
    """
    gram, known = None, None
    mean = sum(each.sum() for each in targets.values()) / sum(each.n_rows for each in targets.values())
    for name, through in inputs.items():
        made, deviation = products(name), reciprocal(own[name].scale)

        def passed(rows: np.ndarray, through: Any = through, deviation: np.ndarray = deviation) -> np.ndarray:
            """A times each row of z."""
            return through.linear((rows * deviation).reshape(len(rows), *shape))

        if gram is None or known is None:
            gram, known = np.zeros_like(made.gram), np.zeros_like(made.known)
        panels = [slice(start, start + PANEL) for start in range(0, len(gram), PANEL)]
        for panel in panels:
            made.gram[:, panel] = passed(made.gram[:, panel].T).T
        constant = through(own[name].mean.reshape(1, *shape))[0]
        for panel in panels:
            gram[:, panel] += passed(made.gram[panel]).T
            gram[:, panel] += np.outer(constant, targets[name].n_rows * constant[panel])
        known += passed(made.known.T).T
        known += np.outer(constant, targets[name].sum(less=mean))
        del made  # before the matrix of the next person is there
    assert gram is not None and known is not None  # of one subject at least
    return Products(gram, known, is_dual=False)


def products_without(
    whole: Products, left_out: Products, n_rows: int, sums: tuple[np.ndarray, np.ndarray], ratio: np.ndarray
) -> Products:
    """Those of what remains of standardised rows, standardised again, in features.

    Args:
        whole, left_out ([`Products`]): Of all rows Z and of those that are left out, both as all are standardised; the
            arrays of `whole` are changed.
        n_rows (`int`): That remain.
        sums (`tuple`): Of the rows that are left out, `(n_features,)`, and of their targets.
        ratio (`np.ndarray` of shape `(n_features,)`): Deviation of all rows over that of those that remain.
    """
    gram, known = whole.gram, whole.known
    constant = ratio * sums[0] / n_rows  # what remains of Z has the mean -sums / n_rows
    for start in range(0, len(gram), PANEL):
        panel = slice(start, start + PANEL)
        gram[:, panel] -= left_out.gram[:, panel]
        gram[:, panel] *= ratio[:, None] * ratio[panel]
        gram[:, panel] -= np.outer(constant, n_rows * constant[panel])
    known -= left_out.known
    known *= ratio[:, None]
    known -= np.outer(constant, sums[1])
    return Products(gram, known, is_dual=False)


def _mirror(matrix: np.ndarray) -> None:
    """Copy the upper triangle of a square matrix to the lower one, in place."""
    for start in range(0, len(matrix), PANEL):
        own, after = slice(start, start + PANEL), slice(start + PANEL, None)
        upper = np.triu(matrix[own, own], 1)
        matrix[own, own] = upper + upper.T + np.diag(matrix[own, own].diagonal())
        matrix[after, own] = matrix[own, after].T


def _add_upper(matrix: np.ndarray, other: np.ndarray, factor: np.float32) -> None:
    """Add a multiple of the upper triangle of another matrix to the lower one, in place; the diagonal stays."""
    for start in range(0, len(matrix), PANEL):
        own, after = slice(start, start + PANEL), slice(start + PANEL, None)
        matrix[own, own] += factor * np.triu(other[own, own], 1).T
        matrix[after, own] += factor * other[own, after].T
