"""How sure a search is of its first hit, and how often it is right when it is that sure.

With `c[j]` the cosine of a query with image `j` of a gallery that holds each image once, the probability that image j
is the right one is

    p[j] = exp(t c[j]) / sum over k of exp(t c[k])

with one temperature t, fitted on recordings that the model has not learnt from (temperature scaling: Guo et al. 2017,
"On calibration of modern neural networks", arXiv:1706.04599, section 4.2; t is one over their T). This is the right
probability if the image that was seen is in the gallery, all its images are equally likely beforehand, and t holds for
them too. The last is so for a gallery of any size where what is predicted strays from the right embedding in all
directions alike (the distribution of von Mises and Fisher, whose concentration is t). Otherwise it must be measured.

The error of calibration is the mean difference between the share of first hits that are right and the mean
probability, over bins of equal width, weighed by the queries in them (expected calibration error: Guo et al., equation
3). Few queries in a bin raise it: what chance alone would make of it is computed beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neural_clip.retrieval.scoring import MIN_CLUSTERS
from neural_clip.retrieval.tiles import Vectors, steps
from neural_clip.retrieval.uncertainty import resampled_means, stretch

DIGITS = 9  # of cosines, as in `nearest_rows` of scores.py: equal vectors tie whatever their place
MAX_BINS = 15  # Guo et al. 2017
MIN_IN_BIN = 20  # queries in a bin on average, below which there are fewer bins
HIGHEST = 2.0**30  # where cosines differ in their ninth digit, no temperature above tells more apart
BLOCK_QUERIES, BLOCK_IMAGES = 1024, 2048  # compared at a time: 16 MB of cosines
N_DRAWS = 200  # of what calibrated probabilities would give; their mean is known to a hundredth of itself then


def fit_temperature(cosines: np.ndarray, true: np.ndarray) -> float:
    """The temperature of the lowest cross-entropy of finding the right images.

    Where every query finds its image, no temperature is the best: the higher, the better. Then it is the one at which
    the mean probability of the first hit is (n + 1) / (n + 2) for n images, Laplace's rule of succession.

    Args:
        cosines (`np.ndarray` of shape `(n_queries, n_images)`): With each image once.
        true (`np.ndarray` of shape `(n_queries,)`, int): Column of the right image.

    Returns:
        `float`: 0 and more; 0 where the right images are no nearer than others.
    """
    from scipy.optimize import brentq
    from scipy.special import softmax

    own = cosines[np.arange(len(cosines)), true]
    second = np.partition(cosines, -2, axis=1)[:, -2]
    n_found = len(np.unique(true))
    first_hit = (n_found + 1) / (n_found + 2)

    def slope(t: float) -> float:
        """Derivative of the cross-entropy, which rises with t; or the mean probability beyond Laplace's."""
        probabilities = softmax(t * cosines, axis=1)
        if (own > second).all():
            return float(probabilities.max(axis=1).mean()) - first_hit
        return float(((probabilities * cosines).sum(axis=1) - own).mean())

    if slope(0.0) > -(10.0**-DIGITS):
        return 0.0
    high = 1.0
    while slope(high) < 0 and high < HIGHEST:
        high *= 2
    return float(brentq(slope, 0.0, high, rtol=1e-9)) if slope(high) > 0 else high


def cross_entropy_at(cosines: np.ndarray, true: np.ndarray, temperature: float) -> float:
    """Mean cross-entropy, in nats, of finding the right images; arguments as for [`fit_temperature`]."""
    from scipy.special import logsumexp

    own = cosines[np.arange(len(cosines)), true]
    return float((logsumexp(temperature * cosines, axis=1) - temperature * own).mean())


def log_totals(queries: Vectors, images: Vectors, temperatures: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Logarithm of the sum over images of exp(t c), block by block.

    Args:
        queries, images ([`Vectors`]): Of one width.
        temperatures (`np.ndarray` of shape `(n_queries,)`): t of each query.
        shares (`np.ndarray` of shape `(n_images,)`): What each row counts: 1, or one over the rows of its image.

    Returns:
        `np.ndarray` of shape `(n_queries,)`, float64.
    """
    from scipy.special import logsumexp

    found = np.full(len(queries), -np.inf)
    for rows in steps(len(queries), BLOCK_QUERIES):
        asked, t = queries.units(rows), temperatures[rows, None]
        for block in steps(len(images), BLOCK_IMAGES):
            cosines = np.round(asked @ images.units(block).T, DIGITS)  # (queries, images of a block)
            found[rows] = np.logaddexp(found[rows], logsumexp(t * cosines, axis=1, b=shares[block]))
    return found


def probabilities(
    cosines: np.ndarray | float, temperatures: np.ndarray | float, totals: np.ndarray | float
) -> np.ndarray:
    """exp(t c) over its sum, whose logarithms [`log_totals`] gives; all of one shape."""
    return np.minimum(np.exp(temperatures * cosines - totals), 1.0)


def shares_of(vectors: np.ndarray) -> np.ndarray:
    """What each row counts where images are to count once: one over the rows with the same numbers, `(n,)`."""
    # 64 bits tell a million rows apart but for one time in thirty million
    keys = np.fromiter((hash(row.tobytes()) for row in vectors), np.int64, len(vectors))
    _, images, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return 1.0 / counts[images]


def first_hits(
    queries: np.ndarray, images: np.ndarray, true: np.ndarray, temperatures: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the first hit of each query, and whether it is right.

    Args:
        queries (`np.ndarray` of shape `(n_queries, projection_dim)`): Any scale.
        images (`np.ndarray` of shape `(n_images, projection_dim)`): Any scale; equal rows are one image.
        true (`np.ndarray` of shape `(n_queries,)`, int): Row of the right image.
        temperatures (`np.ndarray` of shape `(n_queries,)`): t of each query.

    Returns:
        `tuple` of `np.ndarray` `(n_queries,)`: Probabilities, and 1 or 0; one over the images that tie for the first
        place where the right one is among them.
    """
    asked, searched = Vectors(queries, "queries"), Vectors(images, "images")
    units, shares = searched.units(slice(None)), shares_of(images)
    best, right = np.empty(len(asked)), np.empty(len(asked))
    for rows in steps(len(asked), BLOCK_QUERIES):
        cosines = np.round(asked.units(rows) @ units.T, DIGITS)  # (queries, images)
        best[rows] = cosines.max(axis=1)
        first = cosines == best[rows, None]
        right[rows] = first[np.arange(len(first)), true[rows]] / (first @ shares)
    return probabilities(best, temperatures, log_totals(asked, searched, temperatures, shares)), right


def n_bins_of(n_queries: int) -> int:
    """Bins of equal width: 15, or as many as leave 20 queries in each on average, one at least."""
    return int(np.clip(n_queries // MIN_IN_BIN, 1, MAX_BINS))


def bins_of(confidence: np.ndarray, n_bins: int) -> np.ndarray:
    """Bin of each probability: bin m of M holds those above m / M, up to (m + 1) / M."""
    return np.clip(np.ceil(confidence * n_bins).astype(np.int64) - 1, 0, n_bins - 1)


def calibration_error(confidence: np.ndarray, right: np.ndarray, n_bins: int) -> float:
    """Expected calibration error: sum over bins of |share of right ones - mean probability| times the bin's share.

    Args:
        confidence (`np.ndarray` of shape `(n_queries,)`): Probability that the first hit is right.
        right (`np.ndarray` of shape `(n_queries,)`): 1 where it is, 0 where not, between where several tie.
        n_bins (`int`): Of equal width from 0 to 1.

    Returns:
        `float`: From 0, the best, to 1.

    Source: Guo et al. 2017, arXiv:1706.04599, equation 3.
    """
    sums = np.bincount(bins_of(confidence, n_bins), weights=right - confidence, minlength=n_bins)
    return float(np.abs(sums).sum() / len(confidence))


def calibration_record(confidence: np.ndarray, right: np.ndarray, units: Sequence | np.ndarray, seed: int) -> dict:
    """Expected calibration error with what must stand beside it.

    Args:
        confidence, right: See [`calibration_error`].
        units (sequence of `n_queries`): What is resampled: the image (or the recording) of each query.
        seed (`int`): Of resampling and drawing.

    Returns:
        `dict`: `ece`; its 95 % interval `ece_interval` (`None` for fewer than five units): images are resampled, and
        the distances are reflected at `ece`, because resampling adds to it as much as few queries did (basic
        bootstrap); `ece_by_chance`: mean over 200 draws of what would be found if all probabilities were right;
        `right` and `mean_confidence` of all; `n_queries`, `n_bins`; and `bins`, those that hold queries, each with
        `low`, `high`, `n_queries`, `right` and `confidence`.
    """
    n_bins = n_bins_of(len(confidence))
    places = bins_of(confidence, n_bins)
    error, interval = calibration_error(confidence, right, n_bins), None
    if (n_units := len(set(units))) >= MIN_CLUSTERS:
        table = (right - confidence)[:, None] * (places[:, None] == np.arange(n_bins))  # (n_queries, n_bins)
        drawn = np.abs(resampled_means(table, units, seed)).sum(axis=1)
        low, high = error - stretch(0.95, n_units - 1) * (np.quantile(drawn, [0.025, 0.975]) - error)
        interval = np.clip([high, low], 0.0, 1.0).tolist()
    rng = np.random.default_rng(seed)
    chance = [
        calibration_error(confidence, (rng.random(len(confidence)) < confidence).astype(float), n_bins)
        for _ in range(N_DRAWS)
    ]
    bins = [
        {"low": number / n_bins, "high": (number + 1) / n_bins, "n_queries": int(inside.sum()),
         "right": float(right[inside].mean()), "confidence": float(confidence[inside].mean())}
        for number in range(n_bins)
        if (inside := places == number).any()
    ]  # fmt: skip
    return {
        "ece": error, "ece_interval": interval, "ece_by_chance": float(np.mean(chance)),
        "right": float(right.mean()), "mean_confidence": float(confidence.mean()),
        "n_queries": len(confidence), "n_bins": n_bins, "bins": bins,
    }  # fmt: skip
