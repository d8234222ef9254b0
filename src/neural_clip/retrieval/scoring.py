"""One retrieval with everything that must stand beside its score: sizes, chance, interval, p-value, comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WITH_SUBJECTS = ("two_way", "top1", "top5")
MIN_CLUSTERS = 5  # resampling fewer units gives an interval of a handful of distinct values


def score_record(
    predictions: np.ndarray,
    references: np.ndarray,
    prediction_ids: np.ndarray,
    reference_ids: np.ndarray,
    *,
    seed: int,
    classes: list[str] | None = None,
    by_recording: bool = False,
    groups: np.ndarray | None = None,
    among_shown: bool = False,
) -> tuple[dict, dict[str, np.ndarray]]:
    """Scores, 95 % intervals and p-value of one retrieval.

    Args:
        predictions, references, prediction_ids, reference_ids, classes: see `scores.score_queries`.
        seed (`int`): Seed of resampling and shuffling.
        by_recording (`bool`): Resample and shuffle recordings instead of images; for galleries of a few categories,
            where there are not enough images to resample.
        groups (`np.ndarray` of shape `(n,)`, *optional*): Subject of each query. With `by_recording`, labels are
            shuffled within subjects; otherwise, where there are several, the record also says how far the scores of
            `WITH_SUBJECTS` would differ for other subjects (`<score>_interval_subjects_drawn`).
        among_shown (`bool`): Shuffle the images that are asked for among themselves alone. Others in the gallery may
            come from elsewhere, and a score against them says nothing of what was seen.

    Returns:
        `tuple` of the scores (`dict`, JSON-serialisable; an interval is `None` with fewer than five units) and the
        contributions of each query.
    """
    from neural_clip.retrieval.scores import scores_and_contributions
    from neural_clip.retrieval.uncertainty import bootstrap_interval, permutation_p_value

    arguments = (predictions, references, list(prediction_ids), list(reference_ids))
    record, per_query = scores_and_contributions(*arguments, classes)
    clusters = list(range(len(predictions))) if by_recording else list(prediction_ids)
    enough = len(set(clusters)) >= MIN_CLUSTERS
    names = sorted(record.keys() & per_query.keys())
    intervals: list = [None] * len(names)
    if enough:
        ends = bootstrap_interval(np.stack([per_query[name] for name in names], axis=1), clusters, seed)
        # all scores are shares: an end that the correction for few images puts beyond 0 or 1 says no more than that
        intervals = np.clip(np.stack(ends, axis=1), 0.0, 1.0).tolist()  # (n_scores, 2)
    record |= {f"{name}_interval": interval for name, interval in zip(names, intervals, strict=True)}
    if enough and groups is not None and not by_recording and len(set(groups)) > 1:
        table = np.stack([per_query[name] for name in WITH_SUBJECTS], axis=1)
        ends = bootstrap_interval(table, clusters, seed, subjects=list(groups))
        drawn = np.clip(np.stack(ends, axis=1), 0.0, 1.0).tolist()
        record |= {f"{name}_interval_subjects_drawn": ends for name, ends in zip(WITH_SUBJECTS, drawn, strict=True)}
    shuffled = {"unit": "query", "groups": groups} if by_recording else {"unit": "image", "among_shown": among_shown}
    record["two_way_p"] = permutation_p_value(*arguments, seed=seed, **shuffled)
    record["resampled_unit"] = "recording" if by_recording else "image"
    return dict(sorted(record.items())), per_query


def compare_methods(
    contributions: dict[str, dict[str, np.ndarray]], units: Sequence | np.ndarray, names: Sequence[str], seed: int
) -> list[dict]:
    """Differences of the first method to each other one, on the same queries.

    Args:
        contributions (`dict[str, dict[str, np.ndarray]]`): For each method the contributions of each query to each
            score, `(n_queries,)`, row by row of the same queries in the same gallery.
        units (sequence of `n_queries`): What is resampled: the image (or the recording) of each query.
        names (`Sequence[str]`): Scores to compare.
        seed (`int`): Seed of resampling and of the flips of signs.

    Returns:
        `list[dict]`: `method`, `other`, `score` and what [`uncertainty.compare_paired`] gives; nothing where fewer
        than five units could be resampled.
    """
    from neural_clip.retrieval.uncertainty import compare_paired

    if len(set(units)) < MIN_CLUSTERS:
        return []
    (first, own), *others = contributions.items()
    return [
        {"method": first, "other": other, "score": name, **compare_paired(own[name], theirs[name], units, seed)}
        for other, theirs in others
        for name in names
    ]
