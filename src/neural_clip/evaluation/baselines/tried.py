"""Fits with several strengths, of which the one that is best on the validation rows counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from neural_clip.evaluation.baselines.closed_form_fit import Fit
from neural_clip.evaluation.baselines.ridge import RELATIVE_ALPHAS
from neural_clip.evaluation.baselines.strengths import (
    FIRST_TRIED,
    MAX_GRID_SIZE,
    best_of,
    validation_two_way,
    walked,
)
from neural_clip.evaluation.finished_parts import NOT_KEPT, FinishedParts
from neural_clip.prepared.reader import Split

MAX_PATHS = 2**28  # numbers that the predictions of several strengths may have at a time: 1 GB


@dataclass(frozen=True)
class Tried:
    """Predictions of a fit with some strengths.

    Args:
        scores (`dict[int, float]`): On the validation rows, by position of the strength in `RELATIVE_ALPHAS`.
        predictions (`Callable`): Called with such a position and the number of a split, gives `(n_rows,
            projection_dim)`, without the target mean.
    """

    scores: dict[int, float]
    predictions: Callable[[int, int], np.ndarray]

    @property
    def best(self) -> int:
        """Position of the best strength; the stronger ridge wins a tie."""
        return best_of(self.scores)


def tried(
    fit: Fit,
    splits: Sequence[Split],
    parts: FinishedParts = NOT_KEPT,
    score: Callable[[np.ndarray, Split], float] = validation_two_way,
    only: int | None = None,
    first: int = FIRST_TRIED,
) -> Tried:
    """Fit with all strengths, or where the matrix is large with those around the best one.

    Each subject's ridge is walked to the best for that subject's validation rows. The best of all rows together lies
    between these, so that the matrix of a subject is made once unless another subject's best is far away.

    Memory holds what one subject's ridge predicts with some strengths at a time. Where nothing is kept on disk and all
    predictions are too many, the splits after the first are predicted with the strength that is asked for alone, by
    ridges that are made again; and where every strength is tried, the first one is scored with some at a time.

    Args:
        fit ([`Fit`]): Not fitted yet.
        splits (sequence of [`Split`]): The first is the validation split, by which strengths are chosen.
        parts ([`FinishedParts`]): Where the predictions of each subject's ridge are kept.
        score (`Callable`): Of predictions and their split; higher is better.
        only (`int`, *optional*): Position of a strength that is chosen already.
        first (`int`): Position of the strength from which a walk sets out: the best of a similar fit.
    """
    validation, everything, width = splits[0], range(len(RELATIVE_ALPHAS)), fit.train.projection_dim
    is_kept = parts.folder is not None
    total = sum(map(len, splits)) * width * (len(everything) if only is None else 1)
    ahead = splits if is_kept or total <= MAX_PATHS else splits[:1]
    found: dict[str, dict[int, Mapping[str, np.ndarray]]] = {subject: {} for subject in fit.groups}
    sizes = {subject: fit.size_of(subject) for subject in found}
    walks = only is None and max(sizes.values()) > MAX_GRID_SIZE

    def predict(subject: str, numbers: Sequence[int]) -> None:
        """Make the predictions of a subject's ridge that are lacking."""
        lacking = [number for number in numbers if number not in found[subject]]
        found[subject] |= paths_of(fit, subject, ahead, lacking, parts)

    def compute(subject: str, own: Split, numbers: Sequence[int]) -> list[float]:
        """Scores of a subject's ridge on that subject's validation rows."""
        predict(subject, numbers)
        return [score(found[subject][number]["0"], own) for number in numbers]

    def predictions(number: int, which: int) -> np.ndarray:
        """Of all subjects."""
        split = splits[which]
        made = np.zeros((len(split), width), dtype=np.float32)
        for subject, by_number in found.items():
            if number in by_number and str(which) in by_number[number]:
                made[fit.rows_of(split, subject)] = by_number[number][str(which)]
            else:
                made[fit.rows_of(split, subject)] = fit.paths(subject, [split], RELATIVE_ALPHAS[[number]])[0][0]
        return made

    best: list[int] = []
    for subject in found if walks else ():
        rows = fit.rows_of(validation, subject)
        own = validation if len(rows) == len(validation) else validation.at(rows)
        if len(own.shown_ids) > 1:
            first = best_of(walked(partial(compute, subject, own), sizes[subject], first))
            best.append(first)
    between = range(min(best), max(best) + 1) if best else everything
    numbers = list(between) if only is None else [only]
    groups = [numbers] if is_kept or walks else at_once(numbers, len(validation) * width)
    scores: dict[int, float] = {}
    for some in groups:
        for by_number in found.values() if len(groups) > 1 else ():
            by_number.clear()
        for subject in found:
            predict(subject, some)
            if some is groups[-1]:
                parts.tick()
        common = sorted(set.intersection(*(set(by_number) for by_number in found.values())))
        scores |= {number: score(predictions(number, 0), validation) for number in common}
    fit.forget()

    def of_one(number: int, which: int) -> np.ndarray:
        """Predictions; ridges that are made again for them are dropped."""
        made = predictions(number, which)
        fit.forget()
        return made

    return Tried(scores, of_one)


def at_once(numbers: Sequence[int], size: int) -> list[list[int]]:
    """Strengths in groups of which predictions fit into memory, each of so many numbers."""
    step = max(MAX_PATHS // max(size, 1), 1)
    return [list(numbers[start : start + step]) for start in range(0, len(numbers), step)]


def paths_of(
    fit: Fit, subject: str, splits: Sequence[Split], numbers: Sequence[int], parts: FinishedParts
) -> dict[int, Mapping[str, np.ndarray]]:
    """Predictions of a subject's ridge with some strengths, by split; those that are not finished are made at once."""
    whose = {"whose": None if fit.way.pooled else subject, "recording": list(fit.train.values([0])[0].shape)}
    own = parts.of(fit=fit.name, **whose)
    kept = {number: own.of(strength=number) for number in numbers}
    stored = {number: kept[number].finished("ridge") for number in numbers}
    found = {number: arrays for number, arrays in stored.items() if arrays is not None}
    lacking = [number for number in numbers if number not in found]
    n_rows = sum(len(fit.rows_of(split, subject)) for split in splits)
    for some in at_once(lacking, n_rows * fit.train.projection_dim):
        made = fit.paths(subject, splits, RELATIVE_ALPHAS[some])
        for row, number in enumerate(some):
            found[number] = kept[number].keep("ridge", {str(which): path[row] for which, path in enumerate(made)})
    return found


def described(fit: Fit, number: int, score: float) -> dict[str, Any]:
    """What was chosen, and to what recordings or rows were reduced before."""
    chosen: dict[str, Any] = {"relative_alpha": float(RELATIVE_ALPHAS[number]), "validation_two_way": score}
    return chosen | fit.reductions
