"""The closed form: the strongest linear map of recordings to image embeddings that is fitted without gradients.

* Ridge regression from recordings to the unit vectors of the images, without the mean of these in the predictions.
* The covariance of the targets is undone: the predictions are multiplied by the power -`GAMMA` / 2 of it. Ridge
  follows the directions in which images differ most; what tells two images of one kind apart lies in the others.
* What predictions have along the mean of the targets is taken out, as far as all images share it. It tells no images
  apart, but of a recording that has more of it than others every image finds that one to be the nearest.
* Subjects one by one, or pooled (EEG, MEG) after each one's mean was subtracted, or after noise whitening: whichever
  has the lowest cross-entropy on rows that it was not fitted to.

EEG and MEG are decimated first where their rate is twice `MAX_RATE` or more. Where training rows are few, the strength
of a way of fitting is chosen by five-fold cross-validation over their images, and the way by these held-out rows and
those of the validation split together, of which such sets have next to none. Otherwise the validation split chooses
both. So it does where it shows images that are trained on, as the test then does: images that are held out would tell
about others. Where it shows fewer than two images, training rows choose way and strength, each predicted from the rows
of other folds. The criterion is a cross-entropy, not the 2-way score: it moves with every
row, and small sets have few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.closed_form_fit import Fit, Way, fits
from neural_clip.evaluation.baselines.ridge import RELATIVE_ALPHAS, one_thread
from neural_clip.evaluation.baselines.strengths import (
    BY_VALIDATION,
    FIRST_TRIED,
    MAX_CHUNK,
    MIN_CHOSEN_BY,
    N_FOLDS,
    Folds,
    can_choose,
    folds_of_rows,
    image_folds,
    n_told_apart,
    require_rows,
    share_seen,
    subjects_of,
    told_apart,
    validation_two_way,
    walked,
    with_unit_targets,
)
from neural_clip.evaluation.baselines.targets import TARGET_ROWS
from neural_clip.evaluation.baselines.tried import HeldOut, chosen_by, tried
from neural_clip.evaluation.finished_parts import NOT_KEPT, FinishedParts
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.reader import Split
from neural_clip.retrieval.scores import retrieval_scores
from neural_clip.retrieval.tiles import steps, unit_vectors

GAMMA = 0.75  # how much of the targets' covariance is undone: 0 none, 1 all
LEAST_VARIANCE = 1e-6  # relative to the largest: directions with less are outside the span of the targets
MAX_FOLDED_ROWS = 1000  # above them the validation split tells as much, and folds cost their number
TEMPERATURES = np.logspace(-1, 1, 11)  # of scores with a spread of one; at the lowest nothing is told apart
RECORDED = ("two_way", "top1")  # beside the cross-entropy
BY_FOLDS = f"{N_FOLDS} folds over training images"  # a strength is chosen, but not the way
MAX_RATE = 250.0  # Hz; responses to images hold little above 100 Hz, and the cost grows with the rate
MAX_LOADED = 2**27  # numbers of a split that is read once, and of predictions with all strengths: 0.5 GB


def undoing(targets: np.ndarray) -> np.ndarray:
    """What predictions are multiplied by, `(width, width)`.

    The power -`GAMMA` / 2 of the covariance of target vectors, zero outside their span, and then I - k m m^T / |m|^2:
    m is their mean, and k the share of their mean square along it that the mean has, 0 for centred targets.

    Args:
        targets (`np.ndarray` of shape `(n_images, width)`): Of each image once.
    """
    targets = np.asarray(targets, dtype=np.float64)
    mean = targets.mean(axis=0)
    products = np.zeros((len(mean), len(mean)))
    for part in steps(len(targets), TARGET_ROWS):
        centred = targets[part] - mean
        products += centred.T @ centred
    variances, directions = np.linalg.eigh(products / len(targets))
    kept = variances > LEAST_VARIANCE * variances[-1]
    if variances[-1] <= np.finfo(np.float32).eps ** 2:  # of unit vectors
        raise DataError("All training images have the same embedding; nothing can be learnt from them.")
    directions = directions[:, kept]
    undone = (directions * variances[kept] ** (-GAMMA / 2)) @ directions.T
    square = max(((targets @ mean) ** 2).mean(), np.finfo(np.float64).tiny)  # along the mean, times |m|^2
    return undone - np.outer(undone @ mean, mean) * (mean @ mean) / square


def centred_cosines(predictions: np.ndarray, split: Split) -> np.ndarray:
    """Cosines to the images of a split, `(n_rows, n_images)`, less the mean of each row."""
    cosines = unit_vectors(predictions) @ unit_vectors(split.of_its_images().gallery_embeds).T
    return cosines - cosines.mean(axis=1, keepdims=True)


def spread_of(predictions: np.ndarray, split: Split) -> float:
    """Root mean square of centred cosines, by blocks of rows."""
    means = [(centred_cosines(predictions[part], split) ** 2).mean() for part in _blocks(split)]
    counts = [len(predictions[part]) / len(split) for part in _blocks(split)]
    return float(np.sqrt(sum(mean * count for mean, count in zip(means, counts, strict=True))))


def _blocks(split: Split) -> list[slice]:
    """Rows whose cosines to the images of their split are held at a time."""
    step = max(MAX_CHUNK // len(split.shown_ids), 1)
    return [slice(start, start + step) for start in range(0, len(split), step)]


def cross_entropy(predictions: np.ndarray, split: Split) -> float:
    """Mean cross-entropy, in nats, of finding the image of each recording among those of its split.

    Cosines are divided by the spread of what is left after the mean of each row; the best of `TEMPERATURES` counts, so
    that only their order and proportion does.

    Args:
        predictions (`np.ndarray` of shape `(n_rows, projection_dim)`): Of any length.
        split ([`Split`]): `n_rows` recordings.
    """
    own = split.of_its_images()
    n_images, parts = len(own.shown_ids), _blocks(own)
    squares = sum(float((centred_cosines(predictions[part], own) ** 2).sum()) for part in parts)
    spread = np.sqrt(squares / (len(own) * n_images)) or 1.0
    total = np.zeros(len(TEMPERATURES))
    for part in parts:
        logits = centred_cosines(predictions[part], own) / spread
        true = logits[np.arange(len(logits)), own.columns[part]]
        for number, temperature in enumerate(TEMPERATURES):
            scaled = temperature * logits
            top = scaled.max(axis=1)
            total[number] += (np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top - temperature * true).sum()
    return float(total.min()) / len(own)


def scores_of(embeds: np.ndarray, split: Split) -> dict[str, float]:
    """Cross-entropy in nats, 2-way and top-1 of embeddings among the images of their split."""
    scores = retrieval_scores(unit_vectors(embeds).astype(np.float32), split.targets, split.image_ids.tolist())
    return {"cross_entropy": cross_entropy(embeds, split), **{name: float(scores[name]) for name in RECORDED}}


@dataclass(frozen=True)
class Choice:
    """A way and its strength, and how well they did.

    Args:
        fit ([`Fit`]): On all training rows.
        relative_alpha (`float`): Strength, relative to the mean eigenvalue of the kernel.
        cross_entropy (`float`): On the validation split.
        predictions (`np.ndarray` of shape `(n_validation, projection_dim)`): For it, the covariance undone.
        others (`tuple[np.ndarray, ...]`): The same for further splits.
        strength_by (`str`): What the strength was chosen by, for the record.
    """

    fit: Fit
    relative_alpha: float
    cross_entropy: float
    predictions: np.ndarray
    others: tuple[np.ndarray, ...] = ()
    strength_by: str = BY_VALIDATION


def ready(split: Split) -> Split:
    """The same split as the closed form takes it.

    The embeddings of images have unit length. EEG and MEG begin with image onset and are decimated. Recordings that
    need little memory are read once.
    """
    split = with_unit_targets(split.from_onset())
    split = replace(split, decimation=decimation_of(split.facts))
    small = len(split) and len(split) * split.values([0])[0].size <= MAX_LOADED
    return split.loaded() if small else split


def decimation_of(facts: Facts) -> int:
    """Consecutive samples to average into one, so that the rate is `MAX_RATE` or little above; 1 for fMRI."""
    return max(int((facts.sfreq or 0) // MAX_RATE), 1)


def choose(
    train: Split, validation: Split, others: Sequence[Split] = (), parts: FinishedParts = NOT_KEPT
) -> tuple[Choice, np.ndarray]:
    """The way of fitting and the strength by training and validation rows, and what undoes the targets' covariance.

    Args:
        train, validation ([`Split`]): Their targets have unit length.
        others (sequence of [`Split`]): Further splits that are predicted.
        parts ([`FinishedParts`]): Where the predictions of each subject's ridge are kept.
    """
    transform = undoing(train.shown_images.embeds)
    folded = _folded_strengths(train, validation)

    def score(path: np.ndarray, split: Split) -> float:
        return -cross_entropy(path @ transform, split)

    best, least, number = None, np.inf, FIRST_TRIED
    for fit in fits(train, parts):
        only, held_out = folded.get(fit.way, (None, 0.0))
        found = tried(fit, [validation, *others], parts, score, only, number)
        number, entropy = found.best, -found.scores[found.best]
        nats = len(validation) * entropy + len(train) * held_out
        if best is None or nats < least:
            made, *rest = (found.predictions(number, which) @ transform for which in range(1 + len(others)))
            strength_by = BY_FOLDS if fit.way in folded else BY_VALIDATION
            best = Choice(fit, float(RELATIVE_ALPHAS[number]), entropy, made, tuple(rest), strength_by)
            least = nats
    assert best is not None  # every recording can be fitted one way
    return best, transform


def _folded_strengths(train: Split, validation: Split) -> dict[Way, tuple[int, float]]:
    """Position of each way's strength by cross-validation over images, and its cross-entropy on the held-out rows.

    Empty where rows are many or images too few, or most validation images are trained on.
    """
    if len(train) > MAX_FOLDED_ROWS:
        return {}
    images = told_apart(train)
    shown = [len(set(images[train.subjects == name].tolist())) for name in set(train.subjects.tolist())]
    if min(shown) < 2 * N_FOLDS:
        return {}
    embeds = [split.shown_images.embeds for split in (validation, train)]
    if share_seen(*embeds) > 0.5:
        return {}
    found = _held_out(train, image_folds(images, N_FOLDS))
    return {way: (number, entropy) for way, number, entropy, _ in found}


def _held_out(train: Split, folds: np.ndarray) -> Iterator[tuple[Way, int, float, np.ndarray]]:
    """Of one way after the other the position of its best strength, and its cross-entropy and predictions with that.

    Each row is predicted from those of other folds. Memory holds predictions of one way.
    """
    rows = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    by_way: dict[Way, list[Fit]] = {}
    transforms = []
    for own in rows:
        fitted = train.at(np.setdiff1d(np.arange(len(train)), own))
        transforms.append(undoing(fitted.shown_images.embeds))
        for fit in fits(fitted):  # of which only what recordings pass through is there yet
            by_way.setdefault(fit.way, []).append(fit)
    number = FIRST_TRIED
    for way, of_folds in by_way.items():
        if len(of_folds) == len(rows):  # some folds may be too large for it
            number, entropy, predictions = _best_held_out(train, rows, of_folds, transforms, number)
            yield way, number, entropy, predictions


def _best_held_out(
    train: Split, rows: list[np.ndarray], of_folds: list[Fit], transforms: list[np.ndarray], first: int
) -> tuple[int, float, np.ndarray]:
    """The same of one way, by its fit for each fold; strengths are walked from `first` where there is much to hold.

    The stronger ridge wins a tie.
    """
    best: tuple[float, int, np.ndarray] | None = None

    def score(numbers: list[int]) -> list[float]:
        nonlocal best
        paths = np.empty((len(numbers), *train.targets.shape), dtype=np.float32)
        for own, fit in zip(rows, of_folds, strict=True):
            paths[:, own] = fit.deviations(train.at(own), RELATIVE_ALPHAS[numbers])
            fit.forget()
        scores = []
        for number, path in zip(numbers, paths, strict=True):
            predictions = np.empty(path.shape)
            for own, transform in zip(rows, transforms, strict=True):
                predictions[own] = path[own] @ transform
            entropy = cross_entropy(predictions, train)
            if best is None or (entropy, -number) < best[:2]:
                best = entropy, -number, predictions
            scores.append(-entropy)
        return scores

    n_numbers = len(RELATIVE_ALPHAS) * train.targets.size
    sizes = [fit.size_of(subject) for fit in of_folds for subject in fit.groups]
    walked(score, max(sizes) if n_numbers <= MAX_LOADED else n_numbers, first)
    assert best is not None  # some strength was tried
    return -best[1], best[0], best[2]


def choose_by_folds(train: Split, folds: np.ndarray) -> tuple[Way, float, np.ndarray]:
    """Way and strength by cross-validation, and what they predict of each row from the rows of other folds.

    Args:
        train ([`Split`]): Its targets have unit length.
        folds (`np.ndarray` of shape `(n_rows,)`): Fold of each row.

    Returns:
        `tuple` of [`Way`], `float` and `np.ndarray` `(n_rows, projection_dim)`: 0 for subjects all of whose rows lie
        in one fold, where subjects are fitted one by one.
    """
    best: tuple[float, Way, float, np.ndarray] | None = None
    for way, number, entropy, predictions in _held_out(train, folds):
        if best is None or entropy < best[0]:
            best = entropy, way, float(RELATIVE_ALPHAS[number]), predictions
    assert best is not None  # every recording can be fitted one way
    return best[1:]


@one_thread
def closed_form(
    train: Split, validation: Split, test: Split, *, parts: FinishedParts = NOT_KEPT
) -> tuple[np.ndarray, dict[str, Any]]:
    """The closed form on training rows.

    Args:
        train, validation, test, parts: As for [`per_subject_ridge`].

    Returns:
        `tuple` of `np.ndarray` `(n_test, projection_dim)` and `dict` with `way`, `relative_alpha`, `strength_by`,
        `validation_cross_entropy` and `validation_two_way`; where training rows choose, `n_folds`, `folds_over`,
        `n_images`, `held_out_cross_entropy` and `held_out_two_way`.
    """
    require_rows(train, validation)
    subjects_of(train, validation, test)
    if not can_choose(validation):
        folds = folds_of_rows(train, test)  # before recordings are read into memory, which have no runs there
        return _by_held_out(ready(train), ready(validation), ready(test), folds, parts)
    validation = ready(validation)
    choice, _ = choose(ready(train), validation, [ready(test)], parts)
    chosen = {"way": choice.fit.way.name, "relative_alpha": choice.relative_alpha}
    chosen |= {"strength_by": choice.strength_by}
    found = {
        "validation_cross_entropy": choice.cross_entropy,
        "validation_two_way": validation_two_way(choice.predictions, validation),
    }
    return choice.others[0], chosen | found | choice.fit.reductions


def _by_held_out(
    train: Split, validation: Split, test: Split, folds: Folds, parts: FinishedParts
) -> tuple[np.ndarray, dict[str, Any]]:
    """Predictions of the test rows by the way and strength with the lowest cross-entropy on held-out training rows."""
    images = told_apart(train)
    if min(len(set(images[folds.of_rows != fold].tolist())) for fold in range(folds.count)) < MIN_CHOSEN_BY:
        raise DataError(
            "It is chosen on validation images, two at least, or by folds over training images, three at least, but "
            f"there are {n_told_apart(validation)} and {folds.n_images}."
        )
    transforms: dict[bytes, np.ndarray] = {}  # by the images behind them

    def through(predictions: np.ndarray, split: Split, fitted: Split) -> np.ndarray:
        """Predictions with the covariance of the targets behind them undone."""
        key = fitted.shown_ids.tobytes()
        if key not in transforms:
            transforms[key] = undoing(fitted.data.images.of(fitted.shown_ids).embeds)
        return predictions @ transforms[key]

    best, number = None, FIRST_TRIED
    for fit in fits(train, parts):
        held_out = HeldOut(fit, folds, parts)
        found = tried(
            fit, [validation, test], parts, lambda path, split: -cross_entropy(path, split), first=number,
            held_out=held_out, through=through,
        )  # fmt: skip
        number = found.best
        if best is None or found.scores[number] > best[0]:
            best = found.scores[number], number, fit, held_out, found
    assert best is not None  # every recording can be fitted one way
    score, number, fit, held_out, found = best
    two_way = validation_two_way(held_out.passed(found.predictions(number, 0), through), held_out.split)
    chosen = {"way": fit.way.name, "relative_alpha": float(RELATIVE_ALPHAS[number]), **chosen_by(two_way, held_out)}
    predictions = through(found.predictions(number, 1), test, train)
    return predictions, chosen | {"held_out_cross_entropy": -score} | fit.reductions
