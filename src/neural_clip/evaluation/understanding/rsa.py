"""Representational similarity: do two spaces find the same images alike?

Each space gives a matrix of dissimilarities between images (RDM), here 1 - Pearson correlation over features; two
spaces agree as far as the ranks of their upper triangles correlate (Spearman). Source: Kriegeskorte, Mur and
Bandettini 2008, doi:10.3389/neuro.06.004.2008.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neural_clip.errors import DataError

SPACES = {"encoder": "encoder's space", "images": "image embeddings", "recordings": "raw recordings"}
DISTANCE = "1 - Pearson correlation over features"
PERMUTATIONS, RESAMPLES = 1000, 1000
MIN_IMAGES = 10  # 45 pairs; with fewer, neither resampling nor shuffling images says anything
TIE_DECIMALS = 9  # distances are rounded: those that differ by the rounding of a sum are ties


def dissimilarities(patterns: np.ndarray, where: str) -> np.ndarray:
    """Distances between the patterns of images.

    Args:
        patterns (`np.ndarray` of shape `(n_images, n_features)`): One row an image.
        where (`str`): Named in errors.

    Returns:
        `np.ndarray` of shape `(n_images, n_images)`, float64: 1 - Pearson correlation, symmetric, diagonal 0.

    Raises:
        DataError: If the shape is another, a number is not finite, or a pattern is constant and has no correlation.
    """
    array = np.asarray(patterns, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] < 2 or array.shape[1] < 2:
        raise DataError(f"{where} must have shape (2 or more images, 2 or more features), but got {array.shape}.")
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise DataError(
            f"{where}: {bad.sum()} of {len(array)} patterns hold NaN or infinity, row {bad.argmax()} first."
        )
    centred = array - array.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    flat = lengths[:, 0] <= 1e-12 * np.abs(array).max(axis=1)
    if flat.any():
        raise DataError(f"{where}: {flat.sum()} of {len(array)} patterns are constant, row {flat.argmax()} first.")
    centred /= lengths
    distances = np.round(1 - centred @ centred.T, TIE_DECIMALS)
    distances = np.triu(distances, 1)
    return distances + distances.T


@dataclass
class RankedPairs:
    """The pairs of images of one space, sorted by distance once, so that resamples need no sorting.

    Args:
        order (`np.ndarray` of shape `(n_pairs,)`): Pairs of the upper triangle from nearest to farthest.
        starts (`np.ndarray` of shape `(n_distances,)`): Where each distance begins in `order`.
    """

    order: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, distances: np.ndarray) -> RankedPairs:
        """Sort the upper triangle of a matrix of distances."""
        pairs = distances[np.triu_indices(len(distances), 1)]
        order = np.argsort(pairs, kind="stable")
        first = np.append(True, np.diff(pairs[order]) != 0)
        return cls(order, np.flatnonzero(first))

    def ranks(self, counts: np.ndarray) -> np.ndarray:
        """Mean rank of each pair where pair k stands `counts[k]` times, `(n_pairs,)`."""
        sizes = np.add.reduceat(counts[self.order].astype(np.float64), self.starts)
        middle = np.cumsum(sizes) - (sizes - 1) / 2
        ranks = np.empty(len(self.order))
        ranks[self.order] = np.repeat(middle, np.diff(np.append(self.starts, len(self.order))))
        return ranks


def weighted_correlation(first: np.ndarray, second: np.ndarray, counts: np.ndarray) -> float:
    """Pearson correlation where entry k stands `counts[k]` times; NaN where one side does not vary."""
    present = counts > 0
    if not present.any() or any(np.ptp(side[present]) == 0 for side in (first, second)):
        return float("nan")
    first, second = (side - (counts @ side) / counts.sum() for side in (first, second))
    return float((counts * first) @ second / np.sqrt((counts @ first**2) * (counts @ second**2)))


def noise_ceiling(distances: list[np.ndarray]) -> tuple[float, float]:
    """Best mean correlation with the subjects that any one space common to all could reach, from below and above.

    The ranks of each subject's distances are correlated with their mean over the other subjects, which a perfect space
    should reach, and over all of them, which fits the noise of the subject too and cannot be beaten by much. Source:
    Nili et al. 2014, doi:10.1371/journal.pcbi.1003553.

    Args:
        distances (`list[np.ndarray]` of shapes `(n_images, n_images)`): Of two subjects or more, over the same images.

    Returns:
        `tuple` of lower and upper bound, means over subjects; NaN where all distances of a side are equal.
    """
    from scipy.stats import rankdata

    if len(distances) < 2:
        raise DataError(f"A noise ceiling needs the distances of 2 or more subjects, but got {len(distances)}.")
    pairs = np.triu_indices(len(distances[0]), 1)
    ranks = np.stack([rankdata(matrix[pairs]) for matrix in distances])
    total, once = ranks.sum(axis=0), np.ones(ranks.shape[1])  # sums of ranks are exact, and rank as means do
    bounds = [[weighted_correlation(own, rankdata(pooled), once) for pooled in (total - own, total)] for own in ranks]
    lower, upper = np.mean(bounds, axis=0)
    return float(lower), float(upper)


def compare_spaces(
    spaces: list[dict[str, np.ndarray]],
    members: list[np.ndarray],
    pairs: list[tuple[str, str]],
    n_images: int,
    seed: int,
) -> list[dict]:
    """Correlate spaces for each subject, with intervals and p-values.

    Args:
        spaces (`list[dict[str, np.ndarray]]`): For each subject, the distances `(n_s, n_s)` of each space.
        members (`list[np.ndarray]`): For each subject, which of the `n_images` images its rows are, `(n_s,)`.
        pairs (`list[tuple[str, str]]`): Spaces to compare.
        n_images (`int`): Images of all subjects.
        seed (`int`): Seed of resampling and shuffling.

    Returns:
        `list[dict]`, one a pair: `spearman` (mean over subjects), its 95 % `interval` (images resampled, the same for
        all subjects; subjects held fixed), one-sided `p` (images of the first space shuffled) and, in `subjects`, the
        same three for each. A value that is not defined, all distances of a space being equal, is `None`.
    """
    ranked = [{name: RankedPairs.of(distances) for name, distances in space.items()} for space in spaces]
    observed = _correlations(ranked, members, pairs, np.ones(n_images))[None]  # (1, n_subjects, n_pairs)
    rng = np.random.default_rng([seed, 1])
    draws = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=RESAMPLES)
    resampled = np.stack([_correlations(ranked, members, pairs, counts) for counts in draws])
    shuffled = _shuffled(spaces, members, pairs, n_images, np.random.default_rng([seed, 2]))
    records = []
    for column in range(len(pairs)):
        parts = [values[:, :, column] for values in (observed, resampled, shuffled)]
        record = _record(*(part.mean(axis=1) for part in parts))
        record["subjects"] = [_record(*(part[:, number] for part in parts)) for number in range(len(spaces))]
        records.append(record)
    return records


def _correlations(
    ranked: list[dict[str, RankedPairs]], members: list[np.ndarray], pairs: list[tuple[str, str]], counts: np.ndarray
) -> np.ndarray:
    """Spearman correlations `(n_subjects, n_pairs)` where image k stands `counts[k]` times.

    Two copies of one image are at distance 0 in every space, which would count as agreement: such pairs are left out.
    """
    values = np.empty((len(ranked), len(pairs)))
    for number, (space, member) in enumerate(zip(ranked, members, strict=True)):
        rows, columns = np.triu_indices(len(member), 1)
        weights = (counts[member][rows] * counts[member][columns]).astype(np.float64)
        ranks = {name: part.ranks(weights) for name, part in space.items()}
        values[number] = [weighted_correlation(ranks[first], ranks[second], weights) for first, second in pairs]
    return values


def _shuffled(
    spaces: list[dict[str, np.ndarray]],
    members: list[np.ndarray],
    pairs: list[tuple[str, str]],
    n_images: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Correlations `(PERMUTATIONS, n_subjects, n_pairs)` with the images of the first space shuffled.

    Subjects who saw the same images are shuffled alike: what they share by seeing the same images stays shared.
    """
    squares = [{name: _rank_square(distances) for name, distances in space.items()} for space in spaces]
    values = np.empty((PERMUTATIONS, len(spaces), len(pairs)))
    for draw in range(PERMUTATIONS):
        keys = rng.random(n_images)
        for number, (square, member) in enumerate(zip(squares, members, strict=True)):
            order = np.argsort(keys[member])
            moved = {name: square[name][np.ix_(order, order)] for name in {first for first, _ in pairs}}
            values[draw, number] = [float(np.vdot(moved[first], square[second])) for first, second in pairs]
    return values


def _rank_square(distances: np.ndarray) -> np.ndarray:
    """Ranks of the distances as a square of length 1 with mean 0 off the diagonal, 0 on it; NaN if all are equal."""
    rows, columns = np.triu_indices(len(distances), 1)
    ranks = RankedPairs.of(distances).ranks(np.ones(len(rows)))
    varies = np.ptp(ranks) > 0
    ranks -= ranks.mean()
    square = np.zeros(distances.shape)
    square[rows, columns] = ranks / np.sqrt(2 * (ranks @ ranks)) if varies else np.nan
    return square + square.T


def _record(observed: np.ndarray, resampled: np.ndarray, shuffled: np.ndarray) -> dict:
    """Value, 95 % interval and one-sided p-value."""
    value = float(observed[0])
    if np.isnan(value):
        return {"spearman": None, "interval": None, "p": None}
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    # 1e-12: an arrangement that is the observed one up to rounding counts as reaching it
    reached = np.count_nonzero(shuffled >= value - 1e-12)
    p_value = (1 + reached) / (1 + len(shuffled))
    return {"spearman": value, "interval": [float(low), float(high)], "p": p_value}
