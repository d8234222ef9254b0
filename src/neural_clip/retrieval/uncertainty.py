"""How far a score can be trusted: intervals, p-values and the comparison of two checkpoints.

Queries of one image rise and fall together, and so do those of one subject; so images, or images and subjects, are
resampled and shuffled, never single trials. Everything takes the contributions of each query as
`scores.score_queries` gives them (the scores are their means), and a seed.

Two statements can be made, and they differ in width:

* **subjects fixed** (default): other images, these subjects. Whole images are resampled. The honest choice for the
  three to six subjects of most corpora, and the one the paper's tables need.
* **subjects drawn** (`subjects=...`): other images, other subjects. Images and subjects are resampled separately and
  a query weighs as often as its image times its subject was drawn: the pigeonhole bootstrap for crossed designs (Owen
  2007, Annals of Applied Statistics 1(2), 386-411), which does not ask that every subject saw every image. It counts
  the noise of single queries up to three times; the width is therefore set to the two-way clustered variance (Cameron,
  Gelbach and Miller 2011, Journal of Business & Economic Statistics 29(2), 238-249).

Resampling k units gives intervals that are too narrow by sqrt((k - 1) / k) and by the difference between the normal
and Student's t distribution. Both are corrected: the distances from the mean to the percentiles are stretched by
t(df) / z * sqrt(k / (k - 1)) (after the expanded percentile interval, Hesterberg 2015, The American Statistician
69(4), 371-386). In simulations 95 % intervals then cover the truth in 93 to 97 % of cases, and in 91 to 95 % where
four subjects are drawn. The gallery stays fixed: all intervals speak of the same competitors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from neural_clip.errors import DataError, check_option
from neural_clip.retrieval.scores import two_way
from neural_clip.retrieval.task import RetrievalTask
from neural_clip.retrieval.tiles import CACHED, TIE_TOLERANCE, steps

BLOCK_BYTES = 32 * 2**20  # of the numbers of one block of resamples or queries


def bootstrap_interval(
    per_query: np.ndarray,
    image_ids: Sequence | np.ndarray,
    seed: int,
    n: int = 2000,
    level: float = 0.95,
    subjects: Sequence | np.ndarray | None = None,
) -> tuple:
    """Interval of a mean over queries, resampling images, or images and subjects.

    Args:
        per_query (`np.ndarray` of shape `(n_queries,)` or `(n_queries, n_scores)`): Contributions to the scores; the
            same resamples serve all scores.
        image_ids (sequence of `n_queries` `str` or `int`): Image, or other unit, that each query belongs to.
        seed (`int`): Seed of the resampling.
        n (`int`, defaults to 2000): Resamples.
        level (`float`, defaults to 0.95): Coverage.
        subjects (sequence of `n_queries` `str` or `int`, *optional*): Who each query comes from; subjects are then
            resampled too.

    Returns:
        `tuple` of lower and upper end: two `float`, or two `np.ndarray` of shape `(n_scores,)`.

    Raises:
        DataError: If a contribution is not finite, the lengths differ, or there are fewer than two images or subjects.
    """
    values = _checked(per_query, "per_query")
    table = values.reshape(len(values), -1)  # (n_queries, n_scores)
    images = _codes(image_ids, len(values), "image_ids")
    if subjects is None:
        means = _image_resamples(table, images, n, seed)
        factor: float | np.ndarray = stretch(level, int(images.max()))
    else:
        codes = _codes(subjects, len(values), "subjects")
        means = _crossed_resamples(table, images, codes, n, np.random.default_rng(seed))
        factor = _crossed_stretch(level, table, images, codes, means.var(axis=0))
    centre = table.mean(axis=0)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    low, high = centre - factor * (centre - low), centre + factor * (high - centre)
    return (float(low[0]), float(high[0])) if values.ndim == 1 else (low, high)


def unit_interval(values: Sequence | np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean over a few units, such as people, each of whom has one score: Student's t.

    Args:
        values (sequence of `n_units` `float`): A score of each, two or more.
        level (`float`, defaults to 0.95): Coverage.

    Raises:
        DataError: If a score is not finite, or there are fewer than two.
    """
    from scipy.stats import t

    scores = _checked(np.asarray(values), "values")
    _codes(range(len(scores)), len(scores), "values")
    half = t.ppf((1 + level) / 2, len(scores) - 1) * scores.std(ddof=1) / np.sqrt(len(scores))
    return float(scores.mean() - half), float(scores.mean() + half)


def unit_p_value(values: Sequence | np.ndarray, chance: float | Sequence | np.ndarray) -> float | None:
    """One-sided p-value of the mean over a few units, such as people, against chance: Student's t.

    Args:
        values (sequence of `n_units` `float`): A score of each, two or more.
        chance (`float`, or a sequence of `n_units` `float`): What guessing scores, for all or for each.

    Returns:
        `float`, *optional*: `None` where all are as far from chance as one another, which has no t.

    Raises:
        DataError: If a number is not finite, or there are fewer than two units.
    """
    from scipy.stats import ttest_1samp

    above = _checked(np.asarray(values) - np.asarray(chance), "values")
    _codes(range(len(above)), len(above), "values")
    if np.ptp(above) <= TIE_TOLERANCE:  # rounding
        return None
    return float(ttest_1samp(above, 0.0, alternative="greater").pvalue)


def resampled_means(per_query: np.ndarray, image_ids: Sequence | np.ndarray, seed: int, n: int = 2000) -> np.ndarray:
    """Means of contributions over resampled images, for scores that are no mean over queries themselves.

    Args:
        per_query (`np.ndarray` of shape `(n_queries, n_scores)`): Contributions of each query.
        image_ids, seed, n: see [`bootstrap_interval`].

    Returns:
        `np.ndarray` of shape `(n, n_scores)`.

    Raises:
        DataError: As [`bootstrap_interval`].
    """
    values = _checked(per_query, "per_query")
    return _image_resamples(values, _codes(image_ids, len(values), "image_ids"), n, seed)


def _checked(values: np.ndarray, name: str) -> np.ndarray:
    """Finite numbers, float64."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in (1, 2) or 0 in array.shape or not np.isfinite(array).all():
        raise DataError(f"Invalid value for the '{name}' parameter. Allowed are finite numbers, one row a query.")
    return array


def _codes(ids: Sequence | np.ndarray, length: int, name: str) -> np.ndarray:
    """Units numbered from 0 in order of appearance."""
    numbers: dict = {}
    codes = np.array([numbers.setdefault(i.item() if isinstance(i, np.generic) else i, len(numbers)) for i in ids])
    if len(codes) != length or len(numbers) < 2:
        raise DataError(
            f"Invalid value for the '{name}' parameter. Allowed is one id for each of {length} queries, of two units "
            f"or more, but got {len(codes)} ids of {len(numbers)} units instead."
        )
    return codes


def _blocks(n_rows: int, row_bytes: int) -> Iterator[slice]:
    """Slices of rows so that one block stays below BLOCK_BYTES."""
    size = max(1, BLOCK_BYTES // max(1, row_bytes))
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def _draws(n_units: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """How often each unit is drawn in each of n resamples, `(n, n_units)`, float64."""
    return rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=n).astype(np.float64)


def _sums(table: np.ndarray, codes: np.ndarray, n_codes: int) -> np.ndarray:
    """Sums of each column and, last, numbers of rows, by code: `(n_codes, n_scores + 1)`."""
    columns = [np.bincount(codes, weights=column, minlength=n_codes) for column in table.T]
    return np.stack([*columns, np.bincount(codes, minlength=n_codes)], axis=1)


def _image_resamples(table: np.ndarray, images: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Means of resampled images, `(n, n_scores)`."""
    sums = _sums(table, images, images.max() + 1)
    totals = np.concatenate([draws @ sums for draws in _image_draws(len(sums), n, seed)])
    return totals[:, :-1] / totals[:, -1:]


def _image_draws(n_units: int, n: int, seed: int) -> Iterable[np.ndarray]:
    """Those of all resamples, by blocks; where they make one block, the last ones are kept for the next scores."""
    if 8 * n * n_units <= BLOCK_BYTES:
        return [_kept_draws(n_units, n, seed)]
    rng = np.random.default_rng(seed)
    return (_draws(n_units, step.stop - step.start, rng) for step in _blocks(n, 8 * n_units))


@lru_cache(maxsize=1)
def _kept_draws(n_units: int, n: int, seed: int) -> np.ndarray:
    return _draws(n_units, n, np.random.default_rng(seed))


def _crossed_resamples(
    table: np.ndarray, images: np.ndarray, subjects: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Means of resampled images and subjects, `(n, n_scores)`; draws that hold no query at all are left out."""
    n_images, n_subjects = images.max() + 1, subjects.max() + 1
    cells = _sums(table, images * n_subjects + subjects, n_images * n_subjects).reshape(n_images, -1)
    parts = []
    for step in _blocks(n, 8 * (n_images + cells.shape[1])):
        size = step.stop - step.start
        of_subjects = (_draws(n_images, size, rng) @ cells).reshape(size, n_subjects, -1)
        parts.append(np.einsum("ij,ijk->ik", _draws(n_subjects, size, rng), of_subjects))
    totals = np.concatenate(parts)
    totals = totals[totals[:, -1] > 0]
    return totals[:, :-1] / totals[:, -1:]


def stretch(level: float, df: int) -> float:
    """Factor from percentiles of df + 1 resampled units to Student's t with df degrees of freedom."""
    from scipy.stats import norm, t

    quantile = (1 + level) / 2
    return float(t.ppf(quantile, df) / norm.ppf(quantile) * np.sqrt((df + 1) / df))


def _crossed_stretch(
    level: float, table: np.ndarray, images: np.ndarray, subjects: np.ndarray, variance: np.ndarray
) -> np.ndarray:
    """Factor from pigeonhole percentiles of this variance to the two-way clustered variance and Student's t."""
    from scipy.stats import norm, t

    by_image, by_subject = _clustered_variance(table, images), _clustered_variance(table, subjects)
    by_both = _clustered_variance(table, images * (subjects.max() + 1) + subjects)
    subjects_add = np.maximum(by_subject - by_both, 0.0)  # never narrower than with the subjects fixed
    total = by_image + subjects_add
    parts = by_image**2 / images.max() + subjects_add**2 / subjects.max()
    df = np.divide(total**2, parts, out=np.ones_like(total), where=parts > 0)  # Satterthwaite 1946
    ratio = np.divide(total, variance, out=np.ones_like(total), where=variance > 0)
    return t.ppf((1 + level) / 2, df) / norm.ppf((1 + level) / 2) * np.sqrt(ratio)


def _clustered_variance(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Variance of the means of queries that depend on one another within units, `(n_scores,)`."""
    sums = _sums(table - table.mean(axis=0), codes, codes.max() + 1)
    sums = sums[sums[:, -1] > 0, :-1]
    return (sums**2).sum(axis=0) / len(table) ** 2 * len(sums) / max(len(sums) - 1, 1)


def permutation_p_value(
    predictions: np.ndarray,
    references: np.ndarray,
    prediction_ids: Sequence | np.ndarray | None = None,
    reference_ids: Sequence | np.ndarray | None = None,
    *,
    seed: int,
    n: int = 1000,
    unit: str = "image",
    groups: Sequence | np.ndarray | None = None,
    among_shown: bool = False,
    weights: np.ndarray | None = None,
) -> float | np.ndarray:
    """One-sided p-value of the 2-way score against shuffled labels.

    Args:
        predictions, references, prediction_ids, reference_ids: see `scores.score_queries`.
        seed (`int`): Seed of the shuffles.
        n (`int`, defaults to 1000): Shuffles; the smallest p-value is 1 / (n + 1).
        unit (`str`, defaults to `"image"`): `"image"` gives all queries of an image one other image (keeps what
            repeats have in common; needs many images); `"query"` shuffles the queries' labels, for galleries of a
            few categories.
        groups (sequence of `n_queries` `str`, *optional*): With `unit="query"`, shuffles stay inside a group.
        among_shown (`bool`): With `unit="image"`, images are exchanged for others that have queries, not for any of
            the gallery.
        weights (`np.ndarray` of shape `(n_queries, n_scores)`, *optional*): How much each query counts in each of
            several scores, such as those of single people; the same shuffles serve all.

    Returns:
        `float`: (1 + shuffles that score at least as well) / (1 + n); with `weights` one of each, `(n_scores,)`.
    """
    check_option("unit", unit, ("image", "query"))
    task = RetrievalTask(predictions, references, prediction_ids, reference_ids)
    rng = np.random.default_rng(seed)
    true = task.true_columns
    kind = np.min_scalar_type(len(task.gallery))  # of numbers of images
    if unit == "image":
        units, queries = np.unique(true, return_inverse=True)
        pool = units if among_shown else np.arange(len(task.gallery))
    else:
        names = np.zeros(len(true), int) if groups is None else np.unique(np.array(groups), return_inverse=True)[1]
        units, queries, base = true, np.arange(len(true)), np.argsort(names, kind="stable")
    labels = np.empty((len(units), 1 + n), kind)
    labels[:, 0] = units
    for column in labels.T[1:]:
        if unit == "image":
            column[:] = pool[rng.permutation(len(pool))[: len(units)]]
        else:
            column[base] = true[np.lexsort((rng.random(len(true)), names))]
    counted = np.ones((len(true), 1)) if weights is None else np.asarray(weights, dtype=np.float64)
    totals = np.zeros((1 + n, counted.shape[1]))
    gallery = task.gallery.units(slice(0, len(task.gallery))).T
    for rows in _blocks(len(true), 8 * (len(task.gallery) + n)):
        cosines, asked, own = task.queries.units(rows) @ gallery, queries[rows], counted[rows]
        for part in steps(len(cosines), max(1, 4 * CACHED // (len(task.gallery) + n))):
            wins = np.take_along_axis(_wins(cosines[part]), labels[asked[part]].astype(np.intp), 1)
            totals += wins.T @ own[part]
    reached = np.count_nonzero(totals[1:] >= totals[0] - 1e-9 * counted.sum(axis=0), axis=0)
    found = (1 + reached) / (1 + n)
    return float(found[0]) if weights is None else found


def _wins(cosines: np.ndarray) -> np.ndarray:
    """2-way score of queries with each image in the place of the true one; both `(n_rows, gallery_size)`."""
    others = cosines.shape[1] - 1
    scores = two_way(np.arange(others, -1, -1), np.zeros(others + 1), others)  # by the images below, none tied
    order = np.argsort(cosines, axis=1)
    ordered = np.take_along_axis(cosines, order, axis=1)
    lower, upper = ordered[:, :-1], ordered[:, 1:]
    apart = ((lower < upper - TIE_TOLERANCE) & (upper > lower + TIE_TOLERANCE)).all(axis=1)
    wins = np.empty_like(cosines)
    np.put_along_axis(wins, order, np.broadcast_to(scores, wins.shape), axis=1)
    for row in np.flatnonzero(~apart):
        less = np.searchsorted(ordered[row], cosines[row] - TIE_TOLERANCE, side="left")
        not_greater = np.searchsorted(ordered[row], cosines[row] + TIE_TOLERANCE, side="right")
        wins[row] = two_way(others + 1 - not_greater, not_greater - less - 1, others)
    return wins


def compare_paired(
    per_query_a: np.ndarray,
    per_query_b: np.ndarray,
    image_ids: Sequence | np.ndarray,
    seed: int,
    n: int = 2000,
    level: float = 0.95,
    subjects: Sequence | np.ndarray | None = None,
) -> dict:
    """Difference of two checkpoints on the same queries.

    Args:
        per_query_a, per_query_b (`np.ndarray` of shape `(n_queries,)`): Contributions to one score, row by row of the
            same queries in the same gallery.
        image_ids, seed, n, level, subjects: see [`bootstrap_interval`].

    Returns:
        `dict`: `difference` (a - b), its `interval`, two-sided `p` (signs of whole images are flipped: were the two
        equal, each would lead on an image as often as the other; subjects fixed), `n_queries`, `n_images`.

    Raises:
        DataError: If the lengths differ, or as [`bootstrap_interval`].
    """
    a, b = _checked(per_query_a, "per_query_a"), _checked(per_query_b, "per_query_b")
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(
            f"Invalid value for the 'per_query_b' parameter. Allowed is one number for each of the {len(a)} queries "
            f"of 'per_query_a', but got shape {b.shape} instead."
        )
    difference = a - b
    interval = bootstrap_interval(difference, image_ids, seed, n, level, subjects)
    images = _codes(image_ids, len(a), "image_ids")
    sums = np.bincount(images, weights=difference)
    rng = np.random.default_rng(seed)
    reached = 0
    for step in _blocks(n, 8 * len(sums)):
        signs = 1.0 - 2.0 * rng.integers(0, 2, (step.stop - step.start, len(sums)))
        reached += int(np.count_nonzero(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9 * len(a)))
    return {
        "difference": float(difference.mean()),
        "interval": list(interval),
        "p": float((1 + reached) / (1 + n)),
        "n_queries": len(a),
        "n_images": len(sums),
    }
