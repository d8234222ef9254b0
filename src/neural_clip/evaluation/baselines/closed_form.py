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
from functools import partial
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
from neural_clip.evaluation.baselines.ridge import RELATIVE_ALPHAS, CholeskyRidge, one_thread
from neural_clip.evaluation.baselines.whitening import (
    LEAST_SHRINKAGES,
    UNWHITENED,
    Standardised,
    WhitenedSensors,
    mean_of,
    reciprocal,
    row_blocks,
    sensor_whiteners,
    squares_of,
    stacked,
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
MAX_FEATURES = 21_700  # of sensors; more of them lose time first, the channels are what tells images apart
MAX_GRID_SIZE = 1000  # rows of a matrix for which every strength is tried; a larger one is factored for a few
MAX_KEPT = 2**28  # numbers of matrices that a fit keeps for its subjects: 1 GB
MAX_LOADED = 2**27  # numbers of a split that is read once: 0.5 GB

Inputs = Standardised | WhitenedSensors


@dataclass(frozen=True)
class Way:
    """A way of fitting.

    Args:
        pooled (`bool`): One ridge for all subjects, or one each.
        least_shrinkage (`float`): Least share of the noise covariance that is taken as white, 1 without whitening.
        n_components (`int`): Principal components over time that sensors are reduced to; 0 keeps all samples.
    """

    pooled: bool
    least_shrinkage: float = UNWHITENED
    n_components: int = 0

    @property
    def whitened(self) -> bool:
        """Whether noise is whitened."""
        return self.least_shrinkage != UNWHITENED

    @property
    def name(self) -> str:
        """For records and reports."""
        whitened = f", whitened ({self.least_shrinkage:g})" if self.whitened else ""
        reduced = f", {self.n_components} temporal components" if self.n_components else ""
        return f"{'pooled' if self.pooled else 'per subject'}{whitened}{reduced}"


class Fit:
    """Ridge regression of one way, for all strengths. Rows are read by blocks, when they are needed.

    Args:
        way ([`Way`]): Which.
        inputs (`Mapping[str, Inputs]`): What each subject's recordings pass through.
        train ([`Split`]): Its targets are taken as they are.
    """

    def __init__(self, way: Way, inputs: Mapping[str, Inputs], train: Split) -> None:
        self.way, self.inputs, self.train = way, inputs, train
        self.components = None if not way.n_components else self._temporal_components()
        self._ridges: dict[str | None, CholeskyRidge] = {}

    def _temporal_components(self) -> np.ndarray:
        """The first principal components over time of the training rows, `(n_times, n_components)`."""
        n_times = self.train.values([0])[0].shape[1]
        total, everything = np.zeros((n_times, n_times)), np.arange(len(self.train))
        for part in row_blocks(self.train, everything):
            by_time = self._transformed(self.train, everything[part]).reshape(-1, n_times)
            total += by_time.T @ by_time
        return np.linalg.eigh(total)[1][:, ::-1][:, : self.way.n_components].astype(np.float32)

    def _transformed(self, split: Split, rows: np.ndarray) -> np.ndarray:
        """Recordings after what each subject's pass through, `(n_rows, n_features)`."""
        values, subjects = stacked(split, rows), split.subjects[rows]
        names = sorted(set(subjects.tolist()))
        if len(names) == 1:
            return self.inputs[names[0]](values)
        found = np.empty((len(rows), values[0].size), dtype=np.float32)
        for name in names:
            found[subjects == name] = self.inputs[name](values[subjects == name])
        return found

    def _rows(self, split: Split, rows: np.ndarray) -> np.ndarray:
        """Recordings as ridge sees them, `(n_rows, n_features)` float32."""
        found = np.asarray(self._transformed(split, rows), dtype=np.float32)
        if self.components is None:
            return found
        return (found.reshape(-1, len(self.components)) @ self.components).reshape(len(rows), -1)

    def ridge(self, subject: str) -> CholeskyRidge:
        """That of a subject, or of all where they are pooled; built again where all do not fit into memory."""
        key = None if self.way.pooled else subject
        if key not in self._ridges:
            if sum(found.gram.size for found in self._ridges.values()) > MAX_KEPT:
                self._ridges.clear()
            rows = np.arange(len(self.train)) if self.way.pooled else self.train.rows_of(subject)
            blocks = [rows[part] for part in row_blocks(self.train, rows)]
            least = self.way.least_shrinkage if are_voxels(self.train) else UNWHITENED  # sensors are white by now
            self._ridges[key] = CholeskyRidge(partial(self._rows, self.train), blocks, self.train.targets[rows], least)
        return self._ridges[key]

    def forget(self) -> None:
        """Drop the matrices; they are built again when they are needed."""
        self._ridges.clear()

    def folded(self, subject: str, relative_alpha: float, transform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions times `transform` as one map of a subject's recordings.

        Returns:
            `tuple` of `np.ndarray` `(n_features, width)` and `(width,)`, weights and offset. The former are the same
            for all subjects where these are pooled; whitened sensors meet them after the subject's spatial whitening.
        """
        weights = self.ridge(subject).weights(relative_alpha) @ transform
        if self.components is not None:
            by_chan = weights.reshape(-1, self.components.shape[1], weights.shape[1])
            weights = (self.components @ by_chan).reshape(-1, weights.shape[1])
        return self.inputs[subject].folded(weights)

    def deviations(self, split: Split, alphas: Sequence[float] | np.ndarray) -> np.ndarray:
        """Predictions without the target mean, `(n_alphas, n_rows, projection_dim)`."""
        found = np.empty((len(alphas), len(split), self.train.targets.shape[1]), dtype=np.float32)
        names = sorted(set(split.subjects.tolist()))
        for name in names[:1] if self.way.pooled else names:
            rows = np.arange(len(split)) if self.way.pooled else split.rows_of(name)
            blocks = [rows[part] for part in row_blocks(split, rows)]
            found[:, rows] = self.ridge(name).deviations(partial(self._rows, split), blocks, alphas)
        return found

    @property
    def size(self) -> int:
        """Rows of its largest matrix; subjects may differ in voxels, of whom the first one's count."""
        counts = [len(self.train)] if self.way.pooled else [len(self.train.rows_of(name)) for name in self.inputs]
        return min(max(counts), self._rows(self.train, np.arange(1)).shape[1])


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
    alone = Way(False, n_components=_n_components(train))
    inputs = _inputs_of(alone, train, subjects)
    yield alone, inputs
    if are_voxels(train):
        yield from ((replace(alone, least_shrinkage=least), inputs) for least in shrinkages)
        return
    pooled = replace(alone, pooled=True)
    yield pooled, _inputs_of(pooled, train, subjects)
    for least, whitened in zip(shrinkages, sensor_whiteners(train, subjects, shrinkages), strict=True):
        yield replace(pooled, least_shrinkage=least), whitened


def _n_components(train: Split) -> int:
    """Principal components over time that recordings are reduced to; 0 keeps all samples."""
    shape = train.values([0])[0].shape
    return max(MAX_FEATURES // shape[0], 1) if len(shape) == 2 and np.prod(shape) > MAX_FEATURES else 0


def _inputs_of(way: Way, train: Split, subjects: list[str]) -> Mapping[str, Inputs]:
    """What each subject's recordings pass through."""
    if way.pooled and way.whitened:
        return sensor_whiteners(train, subjects, [way.least_shrinkage])[0]
    rows = {name: train.rows_of(name) for name in subjects}
    means = {name: mean_of(train, own) for name, own in rows.items()}
    variances = {name: squares_of(train, own, means[name]) / len(own) for name, own in rows.items()}
    if way.pooled:
        shared = sum(len(own) * variances[name] for name, own in rows.items()) / len(train)
        variances = dict.fromkeys(subjects, shared)
    found: dict[str, Inputs] = {}
    for name in subjects:
        found[name] = Standardised(
            means[name].ravel(), reciprocal(np.sqrt(variances[name])).ravel().astype(np.float32)
        )
    return found


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
        predictions (`np.ndarray` of shape `(n_validation, projection_dim)`): For it, the covariance undone.
    """

    fit: Fit
    relative_alpha: float
    cross_entropy: float
    predictions: np.ndarray


def ready(split: Split) -> Split:
    """The same split as the closed form takes it.

    The embeddings of images have unit length. EEG and MEG begin with image onset and are decimated. Recordings that
    need little memory are read once.
    """
    split = with_unit_targets(split.from_onset())
    split = replace(split, decimation=decimation_of(split.facts))
    small = len(split) and len(split) * split.values([0])[0].size <= MAX_LOADED
    return split.loaded() if small else split


def with_unit_targets(split: Split) -> Split:
    """The same split, the embeddings of its images at unit length."""
    data = split.data
    images = replace(data.images, embeds=unit_vectors(data.images.embeds))
    return replace(split, data=PreparedSet(data.name, data.folder, data.facts, images))


def decimation_of(facts: Facts) -> int:
    """Consecutive samples to average into one, so that the rate is `MAX_RATE` or little above; 1 for fMRI."""
    return max(int((facts.sfreq or 0) // MAX_RATE), 1)


def choose(train: Split, validation: Split) -> tuple[Choice, np.ndarray]:
    """The way of fitting and the strength by training and validation rows, and what undoes the targets' covariance.

    Args:
        train, validation ([`Split`]): Their targets have unit length.
    """
    transform = undoing(train.data.images.of(train.shown_ids).embeds)
    strengths = _folded_strengths(train)
    best: Choice | None = None
    for fit in fits(train):
        found = _tried(fit, validation, transform, strengths.get(fit.way))
        fit.forget()
        number = _lowest({number: entropy for number, (entropy, _) in found.items()})
        if best is None or found[number][0] < best.cross_entropy:
            best = Choice(fit, float(RELATIVE_ALPHAS[number]), *found[number])
    assert best is not None  # every recording can be fitted one way
    return best, transform


def _tried(
    fit: Fit, validation: Split, transform: np.ndarray, only: int | None
) -> dict[int, tuple[float, np.ndarray]]:
    """Cross-entropy and predictions on the validation split, by position of the strength.

    All strengths, or `only` one; with a large matrix those around the lowest cross-entropy, which is walked to.
    """
    found: dict[int, tuple[float, np.ndarray]] = {}
    last = len(RELATIVE_ALPHAS) - 1
    wanted = list(range(last + 1)) if fit.size <= MAX_GRID_SIZE else [last // 2 + step for step in (-1, 0, 1)]
    if only is not None:
        wanted = [only]
    while wanted:
        for number, path in zip(wanted, fit.deviations(validation, RELATIVE_ALPHAS[wanted]), strict=True):
            predictions = path @ transform
            found[number] = cross_entropy(predictions, validation), predictions
        if only is not None:
            break
        best = _lowest({number: entropy for number, (entropy, _) in found.items()})
        wanted = [number for number in (best - 1, best + 1) if 0 <= number <= last and number not in found]
    return found


def _lowest(entropies: Mapping[int, float]) -> int:
    """Position of the lowest; the stronger ridge wins a tie."""
    return min(entropies, key=lambda number: (entropies[number], -number))


def _folded_strengths(train: Split) -> dict[Way, int]:
    """Position of each way's strength by cross-validation over images; empty where rows are many or images too few."""
    shown = [len(set(train.image_ids[train.subjects == name].tolist())) for name in set(train.subjects.tolist())]
    if len(train) > MAX_FOLDED_ROWS or min(shown) < 2 * N_FOLDS:
        return {}
    folds = image_folds(train.image_ids, N_FOLDS)
    paths: dict[Way, np.ndarray] = {}
    for fold in range(N_FOLDS):
        fitted, left = train.at(np.flatnonzero(folds != fold)), train.at(np.flatnonzero(folds == fold))
        transform = undoing(fitted.data.images.of(fitted.shown_ids).embeds)
        for fit in fits(fitted):
            path = paths.setdefault(fit.way, np.empty((len(RELATIVE_ALPHAS), *train.targets.shape)))
            path[:, folds == fold] = fit.deviations(left, RELATIVE_ALPHAS) @ transform
    return {
        way: _lowest({number: cross_entropy(one, train) for number, one in enumerate(path)})
        for way, path in paths.items()
    }


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
    train, validation, test = ready(train), ready(validation), ready(test)
    choice, transform = choose(train, validation)
    predictions = choice.fit.deviations(test, [choice.relative_alpha])[0] @ transform
    chosen = {"way": choice.fit.way.name, "relative_alpha": choice.relative_alpha}
    found = {
        "validation_cross_entropy": choice.cross_entropy,
        "validation_two_way": validation_two_way(choice.predictions, validation),
    }
    return predictions, chosen | found
