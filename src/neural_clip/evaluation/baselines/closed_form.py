"""The closed form: the strongest linear map of recordings to image embeddings that is fitted without gradients.

* Ridge regression from recordings to the unit vectors of the images, without the mean of these in the predictions.
* The covariance of the targets is undone: the predictions are multiplied by the power -`GAMMA` / 2 of it. Ridge
  follows the directions in which images differ most; what tells two images of one kind apart lies in the others.
* Subjects one by one, or pooled (EEG, MEG) after each one's mean was subtracted, or after noise whitening: whichever
  has the lowest cross-entropy on the validation split.

EEG and MEG are decimated first where their rate is twice `MAX_RATE` or more. The strength of a way of fitting is
chosen by five-fold cross-validation over images on the training rows where these are few, and on the validation split
otherwise. The criterion is a cross-entropy, not the 2-way score: it moves with every row, and small sets have few.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.linear import (
    are_voxels,
    image_folds,
    require_rows,
    subjects_of,
    validation_two_way,
)
from neural_clip.evaluation.baselines.ridge import RELATIVE_ALPHAS, KernelRidge, one_thread
from neural_clip.evaluation.baselines.whitening import (
    LEAST_SHRINKAGES,
    Standardised,
    WhitenedSensors,
    WhitenedVoxels,
    flat,
    reciprocal,
    sensor_whiteners,
)
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.retrieval.tiles import unit_vectors

GAMMA = 0.75  # how much of the targets' covariance is undone: 0 none, 1 all
LEAST_VARIANCE = 1e-6  # relative to the largest: directions with less are outside the span of the targets
N_FOLDS = 5
MAX_FOLDED_ROWS = 1000  # above them the validation split tells as much, and folds cost their number
TEMPERATURES = np.logspace(-1, 1, 11)  # of scores with a spread of one; at the lowest nothing is told apart
MAX_RATE = 250.0  # Hz; responses to images hold little above 100 Hz, and the cost grows with the rate
UNWHITENED = 1.0  # least share of white noise

Inputs = Standardised | WhitenedSensors | WhitenedVoxels


@dataclass(frozen=True)
class Way:
    """A way of fitting.

    Args:
        pooled (`bool`): One ridge for all subjects, or one each.
        least_shrinkage (`float`): Least share of the noise covariance that is taken as white, 1 without whitening.
    """

    pooled: bool
    least_shrinkage: float = UNWHITENED

    @property
    def whitened(self) -> bool:
        """Whether noise is whitened."""
        return self.least_shrinkage != UNWHITENED

    @property
    def name(self) -> str:
        """For records and reports."""
        whitened = f", whitened ({self.least_shrinkage:g})" if self.whitened else ""
        return f"{'pooled' if self.pooled else 'per subject'}{whitened}"


class Fit:
    """Ridge regression of one way, for all strengths.

    Args:
        way ([`Way`]): Which.
        inputs (`Mapping[str, Inputs]`): What each subject's recordings pass through.
        train ([`Split`]): Its targets are taken as they are.
    """

    def __init__(self, way: Way, inputs: Mapping[str, Inputs], train: Split) -> None:
        self.way, self.inputs, self.width = way, inputs, train.targets.shape[1]
        groups = {None: list(inputs)} if way.pooled else {name: [name] for name in inputs}
        self.ridges = {}
        for key, names in groups.items():
            rows = [inputs[name](train.of_subject(name)) for name in names]
            targets = [train.targets[train.subjects == name] for name in names]
            self.ridges[key] = KernelRidge(np.concatenate(rows), np.concatenate(targets))

    def folded(self, subject: str, relative_alpha: float, transform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions times `transform` as one map of a subject's recordings.

        Returns:
            `tuple` of `np.ndarray` `(n_features, width)` and `(width,)`, weights and offset. The former are the same
            for all subjects where these are pooled; whitened sensors meet them after the subject's spatial whitening.
        """
        ridge = self.ridges[None if self.way.pooled else subject]
        weights = ridge.coefficients(relative_alpha)[0] @ transform
        folded, offset = self.inputs[subject].folded(weights)
        return folded, offset - ridge.input_mean @ weights

    def deviations(self, split: Split, alphas: Sequence[float] | np.ndarray) -> np.ndarray:
        """Predictions without the target mean, `(n_alphas, n_rows, projection_dim)`."""
        found = np.empty((len(alphas), len(split), self.width))
        for name in sorted(set(split.subjects.tolist())):
            ridge = self.ridges[None if self.way.pooled else name]
            found[:, split.subjects == name] = ridge.deviations(self.inputs[name](split.of_subject(name)), alphas)
        return found


def fits(train: Split) -> Iterator[Fit]:
    """A fit of each way that recordings allow."""
    for way, inputs in _ways(train, subjects_of(train)):
        yield Fit(way, inputs, train)


def fit_of(way: Way, train: Split) -> Fit:
    """The fit of one way."""
    return Fit(way, _inputs_of(way, train, subjects_of(train)), train)


def _ways(train: Split, subjects: list[str]) -> Iterator[tuple[Way, Mapping[str, Inputs]]]:
    """Ways of fitting, and what recordings pass through in each."""
    shrinkages = [least for least in LEAST_SHRINKAGES if least != UNWHITENED]
    plain = [Way(pooled=False)] if are_voxels(train) else [Way(pooled=False), Way(pooled=True)]
    for way in plain:
        yield way, _inputs_of(way, train, subjects)
    if are_voxels(train):
        for way in [Way(False, least) for least in shrinkages]:
            yield way, _inputs_of(way, train, subjects)
    else:
        for least, inputs in zip(shrinkages, sensor_whiteners(train, subjects, shrinkages), strict=True):
            yield Way(True, least), inputs


def _inputs_of(way: Way, train: Split, subjects: list[str]) -> Mapping[str, Inputs]:
    """What each subject's recordings pass through."""
    if way.pooled:
        whitened = sensor_whiteners(train, subjects, [way.least_shrinkage]) if way.whitened else None
        return whitened[0] if whitened else _centred(train, subjects)
    found: dict[str, Inputs] = {}
    for name in subjects:
        recordings, targets = train.of_subject(name), train.targets[train.subjects == name]
        found[name] = (
            WhitenedVoxels.fitted(recordings, targets, way.least_shrinkage)
            if way.whitened
            else Standardised.fitted(recordings)
        )
    return found


def _centred(train: Split, subjects: list[str]) -> dict[str, Inputs]:
    """Each subject's mean is subtracted; the scale of a feature is that of all subjects."""
    means, squares = {}, 0.0
    for name in subjects:
        rows = flat(train.of_subject(name))
        means[name] = rows.mean(axis=0)
        squares = squares + ((rows - means[name]) ** 2).sum(axis=0)
    scale = reciprocal(np.sqrt(squares / len(train)))
    return {name: Standardised(mean, scale) for name, mean in means.items()}


def undoing(targets: np.ndarray) -> np.ndarray:
    """Power -`GAMMA` / 2 of the covariance of target vectors, zero outside their span, `(width, width)`.

    Args:
        targets (`np.ndarray` of shape `(n_images, width)`): Of each image once.
    """
    centred = np.asarray(targets - targets.mean(axis=0), dtype=np.float64)
    variances, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = variances > LEAST_VARIANCE * variances[-1]
    if variances[-1] <= np.finfo(np.float32).eps ** 2:  # of unit vectors
        raise DataError("All training images have the same embedding; nothing can be learnt from them.")
    directions = directions[:, kept]
    return (directions * variances[kept] ** (-GAMMA / 2)) @ directions.T


def centred_cosines(predictions: np.ndarray, split: Split) -> np.ndarray:
    """Cosines to the images of a split, `(n_rows, n_images)`, less the mean of each row."""
    cosines = unit_vectors(predictions) @ unit_vectors(split.of_its_images().gallery_embeds).T
    return cosines - cosines.mean(axis=1, keepdims=True)


def spread_of(cosines: np.ndarray) -> float:
    """Root mean square of centred cosines."""
    return float(np.sqrt((cosines**2).mean()))


def cross_entropy(predictions: np.ndarray, split: Split) -> float:
    """Mean cross-entropy, in nats, of finding the image of each recording among those of its split.

    Cosines are divided by the spread of what is left after the mean of each row; the best of `TEMPERATURES` counts, so
    that only their order and proportion does.

    Args:
        predictions (`np.ndarray` of shape `(n_rows, projection_dim)`): Of any length.
        split ([`Split`]): `n_rows` recordings.
    """
    own = split.of_its_images()
    cosines = centred_cosines(predictions, own)
    spread = spread_of(cosines)
    logits = cosines / spread if spread > 0 else cosines
    true = logits[np.arange(len(own)), own.columns]
    found = []
    for temperature in TEMPERATURES:
        scaled = temperature * logits
        top = scaled.max(axis=1)
        found.append(float((np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top - temperature * true).mean()))
    return min(found)


@dataclass(frozen=True)
class Choice:
    """A way and its strength, and how well they did.

    Args:
        fit ([`Fit`]): On all training rows.
        relative_alpha (`float`): Strength, relative to the mean eigenvalue of the kernel.
        cross_entropy (`float`): On the validation split.
    """

    fit: Fit
    relative_alpha: float
    cross_entropy: float


def with_unit_targets(split: Split) -> Split:
    """The same split, the embeddings of its images at unit length."""
    data = split.data
    images = replace(data.images, embeds=unit_vectors(data.images.embeds))
    return replace(split, data=PreparedSet(data.name, data.folder, data.facts, images))


def decimation_of(facts: Facts) -> int:
    """Consecutive samples to average into one, so that the rate is `MAX_RATE` or little above; 1 for fMRI."""
    return max(int((facts.sfreq or 0) // MAX_RATE), 1)


def decimated(split: Split) -> Split:
    """EEG and MEG in memory at a rate of `MAX_RATE` or little above; fMRI as it is."""
    factor = decimation_of(split.facts)
    if factor < 2 or not len(split):
        return split
    values = np.asarray(split.values())
    n_times = values.shape[2] // factor
    kept = values[:, :, : n_times * factor]
    return replace(split, recordings=kept.reshape(*values.shape[:2], n_times, factor).mean(axis=3))


def choose(train: Split, validation: Split) -> tuple[Choice, np.ndarray]:
    """The way of fitting and the strength by training and validation rows, and what undoes the targets' covariance.

    Args:
        train, validation ([`Split`]): Their targets have unit length.
    """
    transform = undoing(train.data.images.of(train.shown_ids).embeds)
    strengths = _folded_strengths(train)
    best: Choice | None = None
    for fit in fits(train):
        alphas = [strengths[fit.way]] if fit.way in strengths else RELATIVE_ALPHAS
        entropies = [cross_entropy(path @ transform, validation) for path in fit.deviations(validation, alphas)]
        first = _lowest(entropies)
        if best is None or entropies[first] < best.cross_entropy:
            best = Choice(fit, float(alphas[first]), entropies[first])
    assert best is not None  # every recording can be fitted one way
    return best, transform


def _lowest(entropies: Sequence[float]) -> int:
    """Position of the lowest; the stronger ridge wins a tie."""
    return len(entropies) - 1 - int(np.argmin(entropies[::-1]))


def _folded_strengths(train: Split) -> dict[Way, float]:
    """Strength of each way by cross-validation over images; empty where rows are many, or images too few."""
    shown = [len(set(train.image_ids[train.subjects == name].tolist())) for name in set(train.subjects.tolist())]
    if len(train) > MAX_FOLDED_ROWS or min(shown) < 2 * N_FOLDS:
        return {}
    paths = _folded_paths(train, image_folds(train.image_ids, N_FOLDS))
    return {
        way: float(RELATIVE_ALPHAS[_lowest([cross_entropy(one, train) for one in path])])
        for way, path in paths.items()
    }


def _folded_paths(train: Split, folds: np.ndarray) -> dict[Way, np.ndarray]:
    """Predictions of each row, by each way and all strengths, from the rows of other folds."""
    paths: dict[Way, np.ndarray] = {}
    for fold in np.unique(folds):
        fitted, left = train.at(np.flatnonzero(folds != fold)), train.at(np.flatnonzero(folds == fold))
        transform = undoing(fitted.data.images.of(fitted.shown_ids).embeds)
        for fit in fits(fitted):
            path = paths.setdefault(fit.way, np.empty((len(RELATIVE_ALPHAS), *train.targets.shape)))
            path[:, folds == fold] = fit.deviations(left, RELATIVE_ALPHAS) @ transform
    return paths


def choose_by_folds(train: Split, folds: np.ndarray) -> tuple[Way, float, np.ndarray]:
    """Way and strength by cross-validation, and what they predict of each row from the rows of other folds.

    Args:
        train ([`Split`]): Its targets have unit length.
        folds (`np.ndarray` of shape `(n_rows,)`): Fold of each row.

    Returns:
        `tuple` of [`Way`], `float` and `np.ndarray` `(n_rows, projection_dim)`.
    """
    best: tuple[float, Way, float, np.ndarray] | None = None
    for way, path in _folded_paths(train, folds).items():
        entropies = [cross_entropy(one, train) for one in path]
        first = _lowest(entropies)
        if best is None or entropies[first] < best[0]:
            best = entropies[first], way, float(RELATIVE_ALPHAS[first]), path[first]
    assert best is not None  # every recording can be fitted one way
    return best[1:]


@one_thread
def closed_form(train: Split, validation: Split, test: Split) -> tuple[np.ndarray, dict[str, Any]]:
    """The closed form on training rows.

    Args:
        train, validation, test ([`Split`]): As for [`per_subject_ridge`].

    Returns:
        `tuple` of `np.ndarray` `(n_test, projection_dim)` and `dict` with `way`, `relative_alpha`,
        `validation_cross_entropy` and `validation_two_way`.
    """
    require_rows(train, validation)
    subjects_of(train, validation, test)
    train, validation, test = (decimated(split) for split in (train, validation, test))
    train, validation = with_unit_targets(train), with_unit_targets(validation)
    choice, transform = choose(train, validation)
    tuned, predictions = (
        choice.fit.deviations(split, [choice.relative_alpha])[0] @ transform for split in (validation, test)
    )
    chosen = {"way": choice.fit.way.name, "relative_alpha": choice.relative_alpha}
    found = {
        "validation_cross_entropy": choice.cross_entropy,
        "validation_two_way": validation_two_way(tuned, validation),
    }
    return predictions, chosen | found
