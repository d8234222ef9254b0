"""Linear baselines: what ridge regression reaches on the same recordings, splits and gallery as the model.

* `per_subject_ridge`: the usual yardstick. One subject's flattened, standardised recordings to the embedding.
* `pooled_whitened_ridge`: the strong one. All subjects of a modality together, after noise whitening; much of
  an encoder's lead over per-subject ridge is pooling and whitening, which a linear map can have too.
* `frozen_identity_alignment`, `frozen_random_alignment`: one ridge for all subjects with alignment layers that never
  learn: what trained ones must beat.

Everything is fitted on the training split; the ridge strength is chosen on the validation split by the 2-way score;
the test split is read once. Predictions are compared with images without the mean of the training targets: strong
ridge shrinks towards it, and every recording would find the images that lie near it. All solutions are closed forms in
the smaller of rows and features, so that wide recordings and long tables are quick. Each fit holds BLAS to one thread:
where cores are shared, the threads of a small decomposition wait for one another far longer than they work, and the
sums do not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.ridge import RELATIVE_ALPHAS, KernelRidge, one_thread
from neural_clip.evaluation.baselines.whitening import (
    LEAST_SHRINKAGES,
    Standardised,
    WhitenedSensors,
    WhitenedVoxels,
    flat,
    sensor_whiteners,
)
from neural_clip.prepared.reader import Split
from neural_clip.retrieval.scores import two_way_accuracy
from neural_clip.retrieval.tiles import unit_vectors

ROWS_LOOKED_AT = 256
LEAST_DEVIATION, MOST_DEVIATION = 1e-16, 1e16  # MEG in T deviates by 1e-13
N_FOLDS = 4  # of the out-of-fold predictions behind the shared fMRI map; each fit keeps 75 % of the images
FOLD_SEED = 0
ALIGNMENT_SEED = 0
ALIGNMENT_SIZE = 1024  # outputs of the fMRI alignment layer in the code of arXiv 2411.09723


@one_thread
def per_subject_ridge(
    train: Split, validation: Split, test: Split, *, subject_means: bool = False
) -> tuple[np.ndarray, dict[str, float]]:
    """Ridge regression from each subject's standardised recording to the image embedding.

    One relative strength for all subjects is chosen on the validation rows of all together: validation sets
    of single subjects are too small to tell neighbours on the grid apart.

    Args:
        train, validation, test ([`Split`]): Every subject of the test split must be in the others.
        subject_means (`bool`, *optional*, defaults to `False`): Leave in the predictions what the mean training target
            of their subject has beside that of all: what the subject alone tells of the images.

    Returns:
        `tuple` of `np.ndarray` `(n_test, projection_dim)`, the predictions for the test rows, and `dict` with
        `relative_alpha` and `validation_two_way`.

    Raises:
        DataError: If a subject has no training rows, or there are fewer than two validation images.
    """
    require_rows(train, validation)
    tuned, tested = subject_paths(train, (validation, test), standardised, RELATIVE_ALPHAS, subject_means)
    best, score = best_alpha(tuned, validation)
    return tested[best], {"relative_alpha": float(RELATIVE_ALPHAS[best]), "validation_two_way": score}


def require_rows(train: Split, validation: Split) -> None:
    """Raise a `DataError` where there is nothing to fit on, nothing to choose by, or numbers cannot be squared."""
    if not len(train):
        raise DataError("There are no training recordings to fit it on.")
    if len(validation.shown_ids) < 2:
        raise DataError(
            f"Its strength is chosen on validation images, two at least, but there are {len(validation.shown_ids)}."
        )
    some = train.values(np.linspace(0, len(train) - 1, min(len(train), ROWS_LOOKED_AT)).astype(int))
    numbers = np.concatenate([np.ravel(values) for values in some]).astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DataError("The training recordings hold NaN or infinity.")
    deviation = float(numbers.std())
    if deviation and not LEAST_DEVIATION < deviation < MOST_DEVIATION:
        raise DataError(
            f"The training recordings deviate by {deviation:.2g}, and of such numbers float32 holds no squares. Scale "
            "the recordings."
        )


def subject_paths(
    train: Split,
    others: Sequence[Split],
    scaler: Callable,
    alphas: Sequence[float] | np.ndarray,
    subject_means: bool = False,
) -> list[np.ndarray]:
    """Predictions `(n_alphas, n_rows, projection_dim)` for each of `others`, each row by its own subject's ridge.

    `scaler(training recordings, targets)` fits what recordings pass through.
    """
    paths = [np.empty((len(alphas), len(split.subjects), train.targets.shape[1])) for split in others]
    for subject in subjects_of(train, *others):
        recordings, targets = train.of_subject(subject), train.targets[train.subjects == subject]
        scale = scaler(recordings, targets)
        ridge = KernelRidge(scale(recordings), targets)
        for path, split in zip(paths, others, strict=True):
            mask = split.subjects == subject
            if mask.any():
                path[:, mask] = ridge.deviations(scale(split.of_subject(subject)), alphas)
                if subject_means:
                    path[:, mask] += ridge.target_mean - train.targets.mean(axis=0)
    return paths


def standardised(recordings: np.ndarray, targets: np.ndarray) -> Standardised:
    """Scaling of recordings, whatever they show."""
    return Standardised.fitted(recordings)


def subjects_of(train: Split, *others: Split) -> list[str]:
    """Subjects to fit, in order; all must have training rows."""
    known = sorted(set(train.subjects.tolist()))
    unknown = sorted({subject for split in others for subject in split.subjects.tolist()} - set(known))
    if unknown:
        raise DataError(f"Subject '{unknown[0]}' has no training rows; ridge regression is fitted for {known}.")
    return known


def validation_two_way(predictions: np.ndarray, validation: Split) -> float:
    """2-way score of predictions `(n_rows, projection_dim)` among the images of their split."""
    _, first = np.unique(validation.image_ids, return_index=True)
    gallery, ids = unit_vectors(validation.targets[first]), validation.image_ids[first]
    return two_way_accuracy(unit_vectors(predictions) @ gallery.T, validation.image_ids, ids, tolerance=1e-9)


def best_alpha(paths: np.ndarray, validation: Split) -> tuple[int, float]:
    """Position and 2-way score of the best strength on the validation rows; the stronger ridge wins a tie."""
    scores = [validation_two_way(predictions, validation) for predictions in paths]
    best = len(scores) - 1 - int(np.argmax(scores[::-1]))
    return best, scores[best]


@one_thread
def pooled_whitened_ridge(train: Split, validation: Split, test: Split) -> tuple[np.ndarray, dict[str, float]]:
    """Ridge regression over all subjects of a modality after noise whitening.

    The noise is what a ridge regression from the image embedding leaves of the training recordings.

    * Sensors: each subject's recordings are multiplied by the symmetric inverse square root of that subject's spatial
      noise covariance (sensors stay in place, so subjects remain comparable) and by that of the temporal noise
      covariance of all subjects together; then one ridge regression over all rows.
    * Voxels do not correspond between subjects. Recordings of each are whitened by the inverse square root of its
      voxel noise covariance and mapped to the embedding by ridge (that subject's a_n); a shared linear map g of the
      embedding space, fitted by ridge towards the identity on out-of-fold predictions of all subjects, follows.

    Args:
        train, validation, test ([`Split`]): As for [`per_subject_ridge`].

    Returns:
        `tuple` of `np.ndarray` `(n_test, projection_dim)` and `dict` with the strengths, `least_shrinkage` (1: the
        recordings were pooled but not whitened) and `validation_two_way`.
    """
    require_rows(train, validation)
    if are_voxels(train):
        fits = [_pooled_voxels(train, validation, test, least) for least in LEAST_SHRINKAGES]
    else:
        whiteners = sensor_whiteners(train, subjects_of(train, validation, test), LEAST_SHRINKAGES)
        fits = [_pooled(partial(_whitened, by), train, validation, test) for by in whiteners]
    best = int(np.argmax([chosen["validation_two_way"] for _, chosen in fits]))
    return fits[best][0], {"least_shrinkage": LEAST_SHRINKAGES[best], **fits[best][1]}


def _whitened(whiteners: Mapping[str, WhitenedSensors], subject: str, recordings: np.ndarray) -> np.ndarray:
    """Recordings of a subject by that subject's whitening."""
    return whiteners[subject](recordings)


def are_voxels(split: Split) -> bool:
    """Whether recordings are rows of voxels, which do not correspond between subjects."""
    return split.values([0])[0].ndim == 1


def _pooled(
    align: Callable[[str, np.ndarray], np.ndarray],
    train: Split,
    validation: Split,
    test: Split,
    scaler: Callable | None = None,
) -> tuple[np.ndarray, dict[str, float]]:
    """One ridge for all subjects on `align(subject, recordings)`, scaled by what `scaler` fits on training rows."""

    def aligned(split: Split) -> np.ndarray:
        """All rows of a split, `(n, n_features)`."""
        rows = np.empty((len(split.subjects), 0))
        for subject in sorted(set(split.subjects)):
            part = flat(align(subject, split.of_subject(subject)))
            if not rows.size:
                rows = np.empty((len(rows), part.shape[1]), dtype=part.dtype)
            rows[split.subjects == subject] = part
        return rows

    rows = aligned(train)
    scale = scaler(rows, train.targets) if scaler else flat
    ridge = KernelRidge(scale(rows), train.targets)
    best, score = best_alpha(ridge.deviations(scale(aligned(validation)), RELATIVE_ALPHAS), validation)
    chosen = float(RELATIVE_ALPHAS[best])
    predictions = ridge.deviations(scale(aligned(test)), [chosen])[0]
    return predictions, {"relative_alpha": chosen, "validation_two_way": score}


@one_thread
def frozen_identity_alignment(train: Split, validation: Split, test: Split) -> tuple[np.ndarray, dict[str, float]]:
    """One ridge regression for all subjects, who are taken as they are: every alignment layer is the identity.

    Takes and returns what [`per_subject_ridge`] does, and test subjects who are not in the other splits as well, as
    nothing is fitted for one subject alone; recordings of voxels are a `DataError`.
    """
    require_rows(train, validation)
    if are_voxels(train):
        raise DataError("Voxels of different subjects do not correspond; they cannot be pooled without an alignment.")
    return _pooled(lambda subject, recordings: recordings, train, validation, test, standardised)


@one_thread
def frozen_random_alignment(train: Split, validation: Split, test: Split) -> tuple[np.ndarray, dict[str, float]]:
    """One ridge regression for all subjects behind random linear alignment layers, one a subject, that never learn.

    What a shared linear readout reaches in an encoder whose subject layers are left as they were drawn, as in the
    code released with arXiv 2411.09723, whose optimiser never sees them.

    * Sensors: a random mixture of the channels, `(n_chans, n_chans)`, like `torch.nn.Conv1d` with a kernel of one.
    * Voxels: a random projection to [`ALIGNMENT_SIZE`] numbers, like `torch.nn.Linear`.

    Both layers draw weights evenly from +-1 / sqrt(inputs). Their bias is left out: it would add a constant to all
    recordings of a subject, of a size that depends on the unit. Takes and returns what [`per_subject_ridge`] does.
    """
    require_rows(train, validation)
    layers = {}
    for number, subject in enumerate(subjects_of(train, validation, test)):
        recording = train.values(train.rows_of(subject)[:1])[0]
        n_in, rng = len(recording), np.random.default_rng([ALIGNMENT_SEED, number])
        size = (ALIGNMENT_SIZE if are_voxels(train) else n_in, n_in)
        layers[subject] = (rng.uniform(-1, 1, size) / np.sqrt(n_in)).astype(recording.dtype)
    if are_voxels(train):
        return _pooled(lambda subject, rows: rows @ layers[subject].T, train, validation, test, standardised)
    return _pooled(lambda subject, rows: layers[subject] @ rows, train, validation, test, standardised)


def _pooled_voxels(train: Split, validation: Split, test: Split, least: float) -> tuple[np.ndarray, dict[str, float]]:
    """Whitened ridge of each subject, then one linear map of the embedding space for all."""
    # at 1 whitening is one factor for all voxels of a subject, which the strength relative to the kernel takes out
    whitener = standardised if least == 1.0 else partial(WhitenedVoxels.fitted, least=least)
    tuned, tested = subject_paths(train, (validation, test), whitener, RELATIVE_ALPHAS)
    first, _ = best_alpha(tuned, validation)
    held_out = np.empty_like(train.targets, dtype=np.float64)  # (n_train, projection_dim)
    folds, predicted = image_folds(train.image_ids, N_FOLDS), np.zeros(len(train), dtype=bool)
    for fold in range(N_FOLDS):
        fitted = train.at(np.flatnonzero(folds != fold))
        left = (folds == fold) & np.isin(train.subjects, fitted.subjects)  # not those who saw images of one fold only
        parts = (train.at(np.flatnonzero(left)),)
        held_out[left] = subject_paths(fitted, parts, whitener, RELATIVE_ALPHAS[[first]])[0][0]
        predicted |= left
    if not predicted.any():
        raise DataError("No subject has training images enough for out-of-fold predictions, two at least.")
    held_out = held_out[predicted]
    # towards the identity: strong ridge adds a constant only
    shared = KernelRidge(held_out, train.targets[predicted] - held_out)
    shared_tuned = tuned[first] + shared.deviations(tuned[first], RELATIVE_ALPHAS)
    second, score = best_alpha(shared_tuned, validation)
    chosen = float(RELATIVE_ALPHAS[second])
    predictions = tested[first] + shared.deviations(tested[first], [chosen])[0]
    strengths = {"relative_alpha": float(RELATIVE_ALPHAS[first]), "relative_alpha_shared": chosen}
    return predictions, {**strengths, "validation_two_way": score}


def image_folds(image_ids: np.ndarray, n_folds: int) -> np.ndarray:
    """Fold of each row; all rows of an image share one."""
    unique, codes = np.unique(image_ids, return_inverse=True)
    return (np.random.default_rng(FOLD_SEED).permutation(len(unique)) % n_folds)[codes]
