"""Fits with several strengths, of which the one that is best on rows that it was not fitted to counts.

These are the validation rows. Where these show fewer than two images, they are the training rows: each is predicted
from those of other folds, and what is chosen is fitted to all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.closed_form_fit import Fit
from neural_clip.evaluation.baselines.ridge import RELATIVE_ALPHAS
from neural_clip.evaluation.baselines.strengths import (
    BY_HELD_OUT,
    BY_VALIDATION,
    FIRST_TRIED,
    MAX_GRID_SIZE,
    Folds,
    best_of,
    can_choose,
    folds_of_rows,
    validation_two_way,
    walked,
)
from neural_clip.evaluation.finished_parts import NOT_KEPT, FinishedParts
from neural_clip.prepared.reader import Split

MAX_PATHS = 2**28  # numbers that the predictions of several strengths may have at a time: 1 GB
Passed = Callable[[np.ndarray, Split, Split], np.ndarray]  # predictions, their split, and the rows behind them


def as_they_are(predictions: np.ndarray, split: Split, fitted: Split) -> np.ndarray:
    """Predictions that are scored as a ridge makes them."""
    return predictions


class HeldOut:
    """Training rows, each predicted from those of other folds.

    Args:
        fit ([`Fit`]): On all training rows.
        folds ([`Folds`]): Of all of them.
        parts ([`FinishedParts`]): Where predictions are kept.

    Raises:
        DataError: If no row is predicted: subjects all of whose rows lie in one fold are left out.
    """

    def __init__(self, fit: Fit, folds: Folds, parts: FinishedParts) -> None:
        self.fit, self.told, self.folds, self.parts = fit, folds, folds.of_rows, parts
        self.n_folds, train = folds.count, fit.train
        predicted = np.zeros(len(train), dtype=bool)
        for fold in range(self.n_folds):
            inside = self.folds == fold
            predicted |= inside & np.isin(train.subjects, train.subjects[~inside])
        if not predicted.any():
            raise DataError("No subject has training images enough for out-of-fold predictions, two at least.")
        self.rows = np.flatnonzero(predicted)
        self.split = train if predicted.all() else train.at(self.rows)
        self._fits: dict[int, Fit] = {}
        self._counted: set[tuple[int, str]] = set()

    @classmethod
    def instead_of(cls, validation: Split, scored: Split, fit: Fit, parts: FinishedParts) -> HeldOut | None:
        """What a strength is chosen by where validation rows cannot choose it; `None` where they can."""
        return None if can_choose(validation) else cls(fit, folds_of_rows(fit.train, scored), parts)

    def of_fold(self, fold: int) -> Fit:
        """The fit without the rows of a fold."""
        if fold not in self._fits:
            self._fits[fold] = of_fold = self.fit.at(np.flatnonzero(self.folds != fold))
            of_fold.source = partial(self._products, of_fold, fold)
        return self._fits[fold]

    def _products(self, of_fold: Fit, fold: int, subject: str) -> Any:
        """Those of a subject's ridge without the rows of a fold."""
        left_out = self.folds == fold
        if not self.fit.way.pooled:
            left_out = left_out & (self.fit.train.subjects == subject)
        return self.fit.without(subject, np.flatnonzero(left_out), of_fold)

    def paths(self, subject: str, numbers: Sequence[int]) -> dict[int, Mapping[str, np.ndarray]]:
        """Predictions with some strengths of the rows of `split` that a subject's ridge predicts, by strength."""
        own = self.rows[self.fit.rows_of(self.split, subject)]
        found: list[tuple[np.ndarray, dict[int, Mapping[str, np.ndarray]]]] = []
        for fold in range(self.n_folds):
            inside = self.folds[own] == fold
            if inside.any():
                of_fold, kept = self.of_fold(fold), self.parts.of(fold=fold, of=self.n_folds, over=self.told.over)
                found.append((inside, paths_of(of_fold, subject, [self.fit.train.at(own[inside])], numbers, kept)))
                of_fold.forget()
            if (fold, subject) not in self._counted:
                self._counted.add((fold, subject))
                self.parts.tick()
        shape = (len(own), self.fit.train.projection_dim)
        return {number: _Joined(shape, [(inside, made[number]) for inside, made in found]) for number in numbers}

    def passed(self, predictions: np.ndarray, through: Passed, own: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Predictions of some rows of `split` as they are scored, those of each fold by the rows behind them."""
        if through is as_they_are:
            return predictions
        rows = self.rows[own]
        made = np.empty(predictions.shape)
        for fold in np.unique(self.folds[rows]).tolist():
            inside = self.folds[rows] == fold
            made[inside] = through(predictions[inside], self.fit.train.at(rows[inside]), self.of_fold(fold).train)
        return made


@dataclass(frozen=True)
class _Joined(Mapping[str, np.ndarray]):
    """Predictions of the rows of several folds as those of one split, read from their parts when they are asked for.

    Args:
        shape (`tuple[int, int]`): Of all together.
        parts (`list`): Which rows those of a fold are, `(n_rows,)` bool, and their predictions.
    """

    shape: tuple[int, int]
    parts: list[tuple[np.ndarray, Mapping[str, np.ndarray]]]

    def __getitem__(self, name: str) -> np.ndarray:
        if name != "0":
            raise KeyError(name)
        made = np.zeros(self.shape, dtype=np.float32)
        for inside, part in self.parts:
            made[inside] = part[name]
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(("0",))

    def __len__(self) -> int:
        return 1


@dataclass(frozen=True)
class Tried:
    """Predictions of a fit with some strengths.

    Args:
        scores (`dict[int, float]`): On the rows that choose, by position of the strength in `RELATIVE_ALPHAS`.
        predictions (`Callable`): Called with such a position and the number of a split, gives `(n_rows,
            projection_dim)`, without the target mean. The first split are the rows that choose.
        held_out ([`HeldOut`], *optional*): Training rows that choose in place of the validation split.
    """

    scores: dict[int, float]
    predictions: Callable[[int, int], np.ndarray]
    held_out: HeldOut | None = None

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
    held_out: HeldOut | None = None,
    through: Passed = as_they_are,
) -> Tried:
    """Fit with all strengths, or where the matrix is large with those around the best one.

    Each subject's ridge is walked to the best for that subject's validation rows. The best of all rows together lies
    between these, so that the matrix of a subject is made once unless another subject's best is far away.

    Memory holds what one subject's ridge predicts with some strengths at a time. Where nothing is kept on disk and all
    predictions are too many, the splits after the first are predicted with the strength that is asked for alone, by
    ridges that are made again; and where every strength is tried, the first one is scored with some at a time.
    Where training rows choose, the other splits are predicted with the strength that is asked for alone.

    Args:
        fit ([`Fit`]): Not fitted yet.
        splits (sequence of [`Split`]): The first is the validation split, by which strengths are chosen.
        parts ([`FinishedParts`]): Where the predictions of each subject's ridge are kept.
        score (`Callable`): Of predictions and their split; higher is better.
        only (`int`, *optional*): Position of a strength that is chosen already.
        first (`int`): Position of the strength from which a walk sets out: the best of a similar fit.
        held_out ([`HeldOut`], *optional*): Training rows, by which strengths are chosen in place of the first split.
        through (`Callable`): What predictions pass through before they are scored; called with them, their split and
            the training rows behind them.
    """
    validation = splits[0] if held_out is None else held_out.split
    everything, width = range(len(RELATIVE_ALPHAS)), fit.train.projection_dim
    is_kept = parts.folder is not None
    total = sum(map(len, splits)) * width * (len(everything) if only is None else 1)
    ahead = splits if is_kept or total <= MAX_PATHS else splits[:1]
    found: dict[str, dict[int, Mapping[str, np.ndarray]]] = {subject: {} for subject in fit.groups}
    sizes = {subject: fit.size_of(subject) for subject in found}
    walks = only is None and max(sizes.values()) > MAX_GRID_SIZE

    def predict(subject: str, numbers: Sequence[int]) -> None:
        """Make the predictions of a subject's ridge that are lacking."""
        lacking = [number for number in numbers if number not in found[subject]]
        if held_out is not None:
            found[subject] |= held_out.paths(subject, lacking)
        else:
            found[subject] |= paths_of(fit, subject, ahead, lacking, parts)

    def scored(made: np.ndarray, own: Split, rows: np.ndarray | slice = slice(None)) -> float:
        """Score of predictions of some rows that choose."""
        if held_out is not None:
            return score(held_out.passed(made, through, rows), own)
        return score(through(made, own, fit.train), own)

    def compute(subject: str, own: Split, rows: np.ndarray, numbers: Sequence[int]) -> list[float]:
        """Scores of a subject's ridge on that subject's validation rows."""
        predict(subject, numbers)
        return [scored(found[subject][number]["0"], own, rows) for number in numbers]

    def predictions(number: int, which: int) -> np.ndarray:
        """Of all subjects."""
        if held_out is not None and which:
            return of_everyone(fit, splits, number, which, parts)
        split = validation if which == 0 else splits[which]
        made = np.zeros((len(split), width), dtype=np.float32)
        for subject, by_number in found.items():
            if number in by_number and str(which) in by_number[number]:
                made[fit.rows_of(split, subject)] = by_number[number][str(which)]
            elif held_out is not None:  # never by the fit to all rows
                made[fit.rows_of(split, subject)] = held_out.paths(subject, [number])[number]["0"]
            else:
                made[fit.rows_of(split, subject)] = fit.paths(subject, [split], RELATIVE_ALPHAS[[number]])[0][0]
        return made

    best: list[int] = []
    for subject in found if walks else ():
        rows = fit.rows_of(validation, subject)
        own = validation if len(rows) == len(validation) else validation.at(rows)
        if len(own.shown_ids) > 1:
            first = best_of(walked(partial(compute, subject, own, rows), sizes[subject], first))
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
            if some is groups[-1] and held_out is None:
                parts.tick()
        common = sorted(set.intersection(*(set(by_number) for by_number in found.values())))
        scores |= {number: scored(predictions(number, 0), validation) for number in common}
    fit.forget()

    def of_one(number: int, which: int) -> np.ndarray:
        """Predictions; ridges that are made again for them are dropped."""
        made = predictions(number, which)
        fit.forget()
        return made

    return Tried(scores, of_one, held_out)


def of_everyone(
    fit: Fit, splits: Sequence[Split], number: int, which: int, parts: FinishedParts = NOT_KEPT
) -> np.ndarray:
    """Predictions of all subjects' ridges with one strength for one split, from their parts where they are there."""
    made = np.zeros((len(splits[which]), fit.train.projection_dim), dtype=np.float32)
    for subject in fit.groups:
        own = paths_of(fit, subject, splits, [number], parts)[number]
        made[fit.rows_of(splits[which], subject)] = own[str(which)]
        parts.tick()
    return made


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


def described(fit: Fit, number: int, score: float, held_out: HeldOut | None = None) -> dict[str, Any]:
    """What was chosen and by what, and to what recordings or rows were reduced before."""
    return {"relative_alpha": float(RELATIVE_ALPHAS[number]), **chosen_by(score, held_out), **fit.reductions}


def chosen_by(score: float, held_out: HeldOut | None) -> dict[str, Any]:
    """What a strength was chosen by, and its 2-way score there."""
    if held_out is None:
        return {"strength_by": BY_VALIDATION, "validation_two_way": score}
    told = {"n_folds": held_out.n_folds, "folds_over": held_out.told.over, "n_images": held_out.told.n_images}
    return {"strength_by": BY_HELD_OUT, **told, "held_out_two_way": score}
