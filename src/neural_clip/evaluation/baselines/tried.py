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

    Args:
        fit ([`Fit`]): Not fitted yet.
        splits (sequence of [`Split`]): The first is the validation split, by which strengths are chosen.
        parts ([`FinishedParts`]): Where the predictions of each subject's ridge are kept.
        score (`Callable`): Of predictions and their split; higher is better.
        only (`int`, *optional*): Position of a strength that is chosen already.
        first (`int`): Position of the strength from which a walk sets out: the best of a similar fit.
    """
    validation, everything = splits[0], range(len(RELATIVE_ALPHAS))
    found: dict[str, dict[int, Mapping[str, np.ndarray]]] = {subject: {} for subject in fit.groups}
    sizes = {subject: fit.size_of(subject) for subject in found}

    def predict(subject: str, numbers: Sequence[int]) -> None:
        """Make the predictions of a subject's ridge that are lacking."""
        lacking = [number for number in numbers if number not in found[subject]]
        found[subject] |= paths_of(fit, subject, splits, lacking, parts)

    def compute(subject: str, own: Split, numbers: Sequence[int]) -> list[float]:
        """Scores of a subject's ridge on that subject's validation rows."""
        predict(subject, numbers)
        return [score(found[subject][number]["0"], own) for number in numbers]

    best: list[int] = []
    for subject in found if only is None else ():
        rows = fit.rows_of(validation, subject)
        own = validation if len(rows) == len(validation) else validation.at(rows)
        if len(own.shown_ids) > 1:
            first = best_of(walked(partial(compute, subject, own), sizes[subject], first))
            best.append(first)
    between = range(min(best), max(best) + 1) if best and max(sizes.values()) > MAX_GRID_SIZE else everything
    for subject in found:
        predict(subject, between if only is None else [only])
        parts.tick()
    fit.forget()

    def predictions(number: int, which: int) -> np.ndarray:
        """Of all subjects."""
        split = splits[which]
        made = np.zeros((len(split), fit.train.targets.shape[1]), dtype=np.float32)
        for subject, by_number in found.items():
            made[fit.rows_of(split, subject)] = by_number[number][str(which)]
        return made

    common = sorted(set.intersection(*(set(by_number) for by_number in found.values())))
    return Tried({number: score(predictions(number, 0), validation) for number in common}, predictions)


def paths_of(
    fit: Fit, subject: str, splits: Sequence[Split], numbers: Sequence[int], parts: FinishedParts
) -> dict[int, Mapping[str, np.ndarray]]:
    """Predictions of a subject's ridge with some strengths, by split; those that are not finished are made at once."""
    whose = {"whose": None if fit.way.pooled else subject, "recording": list(fit.train.values([0])[0].shape)}
    own = parts.of(fit=fit.name, unit_targets=fit.unit_targets, **whose)
    kept = {number: own.of(strength=number) for number in numbers}
    stored = {number: kept[number].finished("ridge") for number in numbers}
    found = {number: arrays for number, arrays in stored.items() if arrays is not None}
    lacking = [number for number in numbers if number not in found]
    made = fit.paths(subject, splits, RELATIVE_ALPHAS[lacking]) if lacking else []
    for row, number in enumerate(lacking):
        found[number] = kept[number].keep("ridge", {str(which): path[row] for which, path in enumerate(made)})
    return found


def described(fit: Fit, number: int, score: float) -> dict[str, Any]:
    """What was chosen, and to what recordings or rows were reduced before."""
    chosen: dict[str, Any] = {"relative_alpha": float(RELATIVE_ALPHAS[number]), "validation_two_way": score}
    return chosen | fit.reductions
