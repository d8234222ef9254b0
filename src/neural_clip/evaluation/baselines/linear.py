"""Linear baselines: what ridge regression reaches on the same recordings, splits and gallery as the model.

* `per_subject_ridge`: the usual yardstick. One subject's flattened, standardised recordings to the embedding.
* `pooled_whitened_ridge`: the strong one. All subjects of a modality together, after noise whitening; much of
  an encoder's lead over per-subject ridge is pooling and whitening, which a linear map can have too.
* `frozen_identity_alignment`, `frozen_random_alignment`: one ridge for all subjects with alignment layers that never
  learn: what trained ones must beat.

The targets are the embeddings of images at unit length. Everything is fitted on the training split; the ridge strength
is chosen on the validation split by the 2-way score; the test split is read once. Predictions are compared with images
without the mean of the training targets: strong ridge shrinks towards it, and every recording would find the images
that lie near it. Recordings are read by blocks; memory holds few matrices in the smaller of rows and features.
Baselines that are given the same `parts` share statistics, matrices and ridges. EEG and MEG with more than
`MAX_FEATURES` numbers are first reduced to principal components over time, and the fit says to how many. Each fit
holds BLAS to one thread: where cores are shared, the threads of a small decomposition wait for one another far longer
than they work, and the sums do not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.closed_form_fit import (
    MAX_WHITENED_SIZE,
    Fit,
    Way,
    aligned_fit,
    fit_of,
    size_of,
    whitened_fits,
)
from neural_clip.evaluation.baselines.inputs import n_components
from neural_clip.evaluation.baselines.ridge import RELATIVE_ALPHAS, CholeskyRidge, Products, Rows, one_thread
from neural_clip.evaluation.baselines.strengths import (
    FIRST_TRIED,
    MAX_GRID_SIZE,
    are_voxels,
    best_of,
    image_folds,
    require_rows,
    subjects_of,
    told_apart,
    validation_two_way,
    with_unit_targets,
)
from neural_clip.evaluation.baselines.targets import Targets
from neural_clip.evaluation.baselines.tried import Tried, at_once, described, paths_of, tried
from neural_clip.evaluation.baselines.whitening import BLOCK_ROWS, LEAST_SHRINKAGES, UNWHITENED
from neural_clip.evaluation.finished_parts import NOT_KEPT, FinishedParts
from neural_clip.prepared.reader import Split

N_FOLDS = 4  # of the out-of-fold predictions behind the shared fMRI map; each fit keeps 75 % of the images
ALIGNMENT_SEED = 0
ALIGNMENT_SIZE = 1024  # outputs of the fMRI alignment layer in the code of arXiv 2411.09723


@one_thread
def per_subject_ridge(
    train: Split, validation: Split, test: Split, *, subject_means: bool = False, parts: FinishedParts = NOT_KEPT
) -> tuple[np.ndarray, dict[str, Any]]:
    """Ridge regression from each subject's standardised recording to the image embedding.

    One relative strength for all subjects is chosen on the validation rows of all together: validation sets
    of single subjects are too small to tell neighbours on the grid apart.

    Args:
        train, validation, test ([`Split`]): Every subject of the test split must be in the others.
        subject_means (`bool`, *optional*, defaults to `False`): Leave in the predictions what the mean training target
            of their subject has beside that of all: what the subject alone tells of the images.
        parts ([`FinishedParts`]): Where the predictions of each subject are kept.

    Returns:
        `tuple` of `np.ndarray` `(n_test, projection_dim)`, the predictions for the test rows, and `dict` with
        `relative_alpha` and `validation_two_way`, and what recordings were reduced to where they were.

    Raises:
        DataError: If a subject has no training rows, or there are fewer than two validation images.
    """
    require_rows(train, validation)
    train, validation, test = map(with_unit_targets, (train, validation, test))
    subjects_of(train, validation, test)
    fit = fit_of(Way(False, n_components=n_components(train)), train, parts)
    means = {}
    if subject_means:
        mean = Targets.of(train, np.arange(len(train))).mean
        means = {name: Targets.of(train, train.rows_of(name)).mean - mean for name in fit.inputs}

    def shifted(predictions: np.ndarray, split: Split) -> np.ndarray:
        """Predictions with what their subject has beside all."""
        if not subject_means:
            return predictions
        made = predictions.astype(np.float64)
        for name in set(split.subjects.tolist()):
            made[split.subjects == name] += means[name]
        return made

    def score(predictions: np.ndarray, split: Split) -> float:
        return validation_two_way(shifted(predictions, split), split)

    found = tried(fit, [validation, test], parts, score)
    best = found.best
    return shifted(found.predictions(best, 1), test), described(fit, best, found.scores[best])


@one_thread
def pooled_whitened_ridge(
    train: Split, validation: Split, test: Split, *, parts: FinishedParts = NOT_KEPT
) -> tuple[np.ndarray, dict[str, Any]]:
    """Ridge regression over all subjects of a modality after noise whitening.

    The noise is what a ridge regression from the image embedding leaves of the training recordings.

    * Sensors: each subject's recordings are multiplied by the symmetric inverse square root of that subject's spatial
      noise covariance (sensors stay in place, so subjects remain comparable) and by that of the temporal noise
      covariance of all subjects together; then one ridge regression over all rows.
    * Voxels do not correspond between subjects. Recordings of each are whitened by the inverse square root of its
      voxel noise covariance and mapped to the embedding by ridge (that subject's a_n); a shared linear map g of the
      embedding space, fitted by ridge towards the identity on out-of-fold predictions of all subjects, follows. With
      large matrices the shared map is fitted for the best whitening only.

    Args:
        train, validation, test, parts: As for [`per_subject_ridge`].

    Returns:
        `tuple` of `np.ndarray` `(n_test, projection_dim)` and `dict` with the strengths, `least_shrinkage` (1: the
        recordings were pooled but not whitened) and `validation_two_way`.
    """
    require_rows(train, validation)
    train, validation, test = map(with_unit_targets, (train, validation, test))
    subjects_of(train, validation, test)
    if are_voxels(train):
        return _pooled_voxels(train, validation, test, parts)
    fits, first = [], FIRST_TRIED
    for fit in whitened_fits(train, LEAST_SHRINKAGES, parts):
        found = tried(fit, [validation, test], parts, first=first)
        first = found.best
        fits.append((found.scores[found.best], fit, found))
    best = int(np.argmax([score for score, _, _ in fits]))
    score, fit, found = fits[best]
    chosen = {"least_shrinkage": LEAST_SHRINKAGES[best], **described(fit, found.best, score)}
    return found.predictions(found.best, 1), chosen


@one_thread
def frozen_identity_alignment(
    train: Split, validation: Split, test: Split, *, parts: FinishedParts = NOT_KEPT
) -> tuple[np.ndarray, dict[str, Any]]:
    """One ridge regression for all subjects, who are taken as they are: every alignment layer is the identity.

    Takes and returns what [`per_subject_ridge`] does, and test subjects who are not in the other splits as well, as
    nothing is fitted for one subject alone; recordings of voxels are a `DataError`.
    """
    require_rows(train, validation)
    train, validation, test = map(with_unit_targets, (train, validation, test))
    if are_voxels(train):
        raise DataError("Voxels of different subjects do not correspond; they cannot be pooled without an alignment.")
    fit = aligned_fit(train, parts=parts)
    found = tried(fit, [validation, test], parts)
    return found.predictions(found.best, 1), described(fit, found.best, found.scores[found.best])


@one_thread
def frozen_random_alignment(
    train: Split, validation: Split, test: Split, *, parts: FinishedParts = NOT_KEPT
) -> tuple[np.ndarray, dict[str, Any]]:
    """One ridge regression for all subjects behind random linear alignment layers, one a subject, that never learn.

    What a shared linear readout reaches in an encoder whose subject layers are left as they were drawn, as in the
    code released with arXiv 2411.09723, whose optimiser never sees them.

    * Sensors: a random mixture of the channels, `(n_chans, n_chans)`, like `torch.nn.Conv1d` with a kernel of one.
    * Voxels: a random projection to [`ALIGNMENT_SIZE`] numbers, like `torch.nn.Linear`.

    Both layers draw weights evenly from +-1 / sqrt(inputs). Their bias is left out: it would add a constant to all
    recordings of a subject, of a size that depends on the unit. Takes and returns what [`per_subject_ridge`] does.
    """
    require_rows(train, validation)
    train, validation, test = map(with_unit_targets, (train, validation, test))
    layers = {}
    for number, subject in enumerate(subjects_of(train, validation, test)):
        recording = train.values(train.rows_of(subject)[:1])[0]
        n_in, rng = len(recording), np.random.default_rng([ALIGNMENT_SEED, number])
        size = (ALIGNMENT_SIZE if are_voxels(train) else n_in, n_in)
        layers[subject] = (rng.uniform(-1, 1, size) / np.sqrt(n_in)).astype(recording.dtype)
    fit = aligned_fit(train, layers, parts)
    found = tried(fit, [validation, test], parts)
    return found.predictions(found.best, 1), described(fit, found.best, found.scores[found.best])


def _pooled_voxels(
    train: Split, validation: Split, test: Split, parts: FinishedParts
) -> tuple[np.ndarray, dict[str, Any]]:
    """Whitened ridge of each subject, then one linear map of the embedding space for all."""
    size = size_of(Way(False), train)
    shrinkages = LEAST_SHRINKAGES if size <= MAX_WHITENED_SIZE else (UNWHITENED,)
    fits = {least: fit_of(Way(False, least), train, parts) for least in shrinkages}
    first: dict[float, Tried] = {}
    number = FIRST_TRIED
    for least, fit in fits.items():
        first[least] = tried(fit, [validation, test], parts, first=number)
        number = first[least].best
    if size > MAX_GRID_SIZE:
        best = max(first, key=lambda least: first[least].scores[first[least].best])
        first = {best: first[best]}
    found = {least: _shared(fits[least], each, validation, parts) for least, each in first.items()}
    least = max(found, key=lambda least: found[least][1]["validation_two_way"])
    return found[least][0], {"least_shrinkage": least, **found[least][1]}


def _shared(fit: Fit, first: Tried, validation: Split, parts: FinishedParts) -> tuple[np.ndarray, dict[str, Any]]:
    """Predictions of the test rows behind a linear map of the embedding space that all subjects share."""
    train, number = fit.train, first.best
    held_out, predicted = _out_of_fold(fit, number, parts)
    if not predicted.any():
        raise DataError("No subject has training images enough for out-of-fold predictions, two at least.")
    rows = np.flatnonzero(predicted)
    known = held_out if predicted.all() else held_out[predicted]
    mean = known.mean(axis=0)
    blocks = [np.arange(start, min(start + BLOCK_ROWS, len(known))) for start in range(0, len(known), BLOCK_ROWS)]
    # towards the identity: strong ridge adds a constant only
    left = Targets(lambda part: train.targets_of(rows[part]) - known[part], len(rows))
    shared = CholeskyRidge(Rows(lambda part: known[part] - mean, blocks), left)

    def behind(which: int, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Predictions with some strengths of the shared map, one after the other."""
        made = first.predictions(number, which)
        rows = Rows(lambda rows: made[rows] - mean, [np.arange(len(made))])
        for each in at_once(numbers, made.size):
            for path in shared.deviations([rows], RELATIVE_ALPHAS[each])[0]:
                path += made
                yield path

    scores = {}
    for each, predictions in enumerate(behind(0, range(len(RELATIVE_ALPHAS)))):
        scores[each] = validation_two_way(predictions, validation)
    second = best_of(scores)
    chosen = described(fit, number, scores[second])
    return next(behind(1, [second])), chosen | {"relative_alpha_shared": float(RELATIVE_ALPHAS[second])}


def _out_of_fold(fit: Fit, number: int, parts: FinishedParts) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of each training row from those of other folds, and whether there are any."""
    train = fit.train
    held_out = np.zeros((len(train), train.projection_dim), dtype=np.float32)
    folds, predicted = image_folds(told_apart(train), N_FOLDS), np.zeros(len(train), dtype=bool)
    for fold in range(N_FOLDS):
        fitted = train.at(np.flatnonzero(folds != fold))
        left = (folds == fold) & np.isin(train.subjects, fitted.subjects)  # not those who saw images of one fold only
        part = train.at(np.flatnonzero(left))
        of_fold = fit_of(fit.way, fitted)
        of_fold.source = partial(_in_fold, fit, of_fold, folds == fold)
        made = np.zeros((len(part), train.projection_dim), dtype=np.float32)
        for subject in of_fold.groups:
            rows = part.rows_of(subject)
            if len(rows):
                kept = parts.of(fold=fold, of=N_FOLDS)
                made[rows] = paths_of(of_fold, subject, [part], [number], kept)[number]["0"]
            of_fold.forget()  # each is asked for once, and a fit refers to itself: its matrices would outlive the fold
            parts.tick()
        held_out[left] = made
        predicted |= left
    return held_out, predicted


def _in_fold(fit: Fit, of_fold: Fit, left_out: np.ndarray, subject: str) -> Products | None:
    """Products of a subject's ridge without the rows of a fold."""
    return fit.without(subject, np.flatnonzero(left_out & (fit.train.subjects == subject)), of_fold)
