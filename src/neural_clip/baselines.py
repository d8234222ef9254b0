"""Linear baselines: what ridge regression reaches on the same recordings, splits and gallery as the model.

* `per_subject_ridge`: the usual yardstick. One person's flattened, standardised recordings to the embedding.
* `pooled_whitened_ridge`: the strong one. All people of a modality together, after noise whitening; much of
  an encoder's lead over per-subject ridge is pooling and whitening, which a linear map can have too.

Everything is fitted on the training split; the ridge strength is chosen on the validation split by the 2-way score;
the test split is read once. All solutions are closed forms in the dual (n x n), so that wide recordings are quick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from neural_clip.errors import DataError
from neural_clip.image_retrieval import two_way_accuracy, unit_vectors

# Ridge strengths relative to the mean eigenvalue of the kernel: from nearly interpolating to nearly constant.
RELATIVE_ALPHAS = np.logspace(-3, 3, 13)
# Least share of the mean variance mixed into a noise covariance before it is inverted; validation chooses. 0.01 keeps
# band-limited recordings, which have directions with hardly any noise, from being amplified without limit; 1 leaves
# them unwhitened, which is better where the directions of least noise hold no signal either.
LEAST_SHRINKAGES = (0.01, 1.0)
# Largest number of training rows: the kernel of 20,000 takes 3.2 GB in float64 and its eigenvectors as much again.
MAX_TRAIN_ROWS = 20_000
N_FOLDS = 4  # of the out-of-fold predictions behind the shared fMRI map; each fit keeps 75 % of the images
FOLD_SEED = 0


@dataclass(frozen=True)
class BaselineSplit:
    """One split of one modality.

    Args:
        recordings (`Sequence[np.ndarray]` of length `n`): `(n_chans, n_times)` each, or `(n_voxels,)` with as many
            voxels as that subject has.
        subjects (`np.ndarray` of shape `(n,)`, str): Person of each row.
        image_ids (`np.ndarray` of shape `(n,)`, str): Image of each row.
        targets (`np.ndarray` of shape `(n, projection_dim)`): Embedding of each row's image.
    """

    recordings: Sequence[np.ndarray] | np.ndarray
    subjects: np.ndarray
    image_ids: np.ndarray
    targets: np.ndarray

    def of_subject(self, subject: str) -> np.ndarray:
        """Recordings of one person, `(n_rows, ...)`."""
        return np.stack([self.recordings[int(row)] for row in np.flatnonzero(self.subjects == subject)])


class KernelRidge:
    """Ridge regression for many strengths at once, solved in the dual.

    Args:
        inputs (`np.ndarray` of shape `(n, n_features)`): Training inputs; centred here.
        targets (`np.ndarray` of shape `(n, projection_dim)`): Training targets; centred here, mean added back.

    With K = X X^T = U diag(l) U^T the prediction for x is x X^T U diag(1 / (l + alpha)) U^T Y: the same numbers as
    `sklearn.linear_model.Ridge(alpha)` with an intercept, one eigendecomposition for all alphas.

    Raises:
        DataError: If there are more training rows than [`MAX_TRAIN_ROWS`].
    """

    def __init__(self, inputs: np.ndarray, targets: np.ndarray):
        if len(inputs) > MAX_TRAIN_ROWS:
            raise DataError(f"Ridge in the dual takes at most {MAX_TRAIN_ROWS} training rows, but got {len(inputs)}.")
        self.input_mean, self.target_mean = inputs.mean(axis=0), targets.mean(axis=0)
        self.inputs = inputs - self.input_mean
        kernel = np.asarray(self.inputs @ self.inputs.T, dtype=np.float64)  # (n, n)
        eigenvalues, self.vectors = np.linalg.eigh(kernel)
        self.eigenvalues = np.maximum(eigenvalues, 0.0)
        self.projected = self.vectors.T @ (targets - self.target_mean)  # (n, projection_dim)
        self.mean_eigenvalue = max(float(self.eigenvalues.mean()), np.finfo(np.float64).tiny)

    def predict(self, inputs: np.ndarray, relative_alphas: Sequence[float] | np.ndarray) -> np.ndarray:
        """Predictions `(n_alphas, n_rows, projection_dim)`; alpha = relative alpha x mean eigenvalue of the kernel."""
        cross = ((inputs - self.input_mean) @ self.inputs.T) @ self.vectors  # (n_rows, n)
        return np.stack(
            [
                (cross / (self.eigenvalues + alpha * self.mean_eigenvalue)) @ self.projected + self.target_mean
                for alpha in relative_alphas
            ]
        )


def per_subject_ridge(
    train: BaselineSplit, validation: BaselineSplit, test: BaselineSplit
) -> tuple[np.ndarray, dict[str, float]]:
    """Ridge regression from each person's standardised recording to the image embedding.

    One relative strength for all people is chosen on the validation rows of all together: single people's validation
    sets are too small to tell neighbours on the grid apart.

    Args:
        train, validation, test (`BaselineSplit`): Every subject of the test split must be in the others.

    Returns:
        `tuple` of `np.ndarray` `(n_test, projection_dim)`, the predictions for the test rows, and `dict` with
        `relative_alpha` and `validation_two_way`.

    Raises:
        DataError: If a subject has no training or validation rows.
    """
    return _ridge_of_subjects(train, validation, test, _standardiser)


def _ridge_of_subjects(
    train: BaselineSplit, validation: BaselineSplit, test: BaselineSplit, scaler: Callable
) -> tuple[np.ndarray, dict[str, float]]:
    """Per-subject ridge after a scaling that `scaler(train rows, targets)` fits."""
    tuned, tested = _subject_paths(train, (validation, test), scaler, RELATIVE_ALPHAS)
    best, score = _best_alpha(tuned, validation)
    return tested[best], {"relative_alpha": float(RELATIVE_ALPHAS[best]), "validation_two_way": score}


def _subject_paths(
    train: BaselineSplit, others: Sequence[BaselineSplit], scaler: Callable, alphas: Sequence[float] | np.ndarray
) -> list[np.ndarray]:
    """Predictions `(n_alphas, n_rows, projection_dim)` for each of `others`, each row by its own person's ridge."""
    paths = [np.empty((len(alphas), len(split.subjects), train.targets.shape[1])) for split in others]
    for subject in _subjects(train, *others):
        rows = train.subjects == subject
        scale = scaler(train.of_subject(subject), train.targets[rows])
        ridge = KernelRidge(scale(train.of_subject(subject)), train.targets[rows])
        for path, split in zip(paths, others, strict=True):
            mask = split.subjects == subject
            if mask.any():
                path[:, mask] = ridge.predict(scale(split.of_subject(subject)), alphas)
    return paths


def _subjects(train: BaselineSplit, *others: BaselineSplit) -> list[str]:
    """Subjects to fit, in order; all must have training rows."""
    known = sorted(set(train.subjects))
    unknown = sorted({subject for split in others for subject in split.subjects} - set(known))
    if unknown:
        raise DataError(f"Subject '{unknown[0]}' has no training rows; ridge regression is fitted for {known}.")
    return known


def _best_alpha(paths: np.ndarray, validation: BaselineSplit) -> tuple[int, float]:
    """Position and 2-way score of the best strength on the validation rows; the stronger ridge wins a tie."""
    _, first = np.unique(validation.image_ids, return_index=True)
    gallery, ids = unit_vectors(validation.targets[first]), validation.image_ids[first]
    scores = [
        two_way_accuracy(unit_vectors(predictions) @ gallery.T, validation.image_ids, ids, tolerance=1e-9)
        for predictions in paths
    ]
    best = len(scores) - 1 - int(np.argmax(scores[::-1]))
    return best, scores[best]


def _flat(recordings: np.ndarray) -> np.ndarray:
    """`(n, ...)` to `(n, n_features)`."""
    return recordings.reshape(len(recordings), -1)


def _standardiser(recordings: np.ndarray, targets: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Mean 0, variance 1 of each feature over the training rows; constant features become 0."""
    mean, std = _flat(recordings).mean(axis=0), _flat(recordings).std(axis=0)
    scale = np.where(std > 0, 1.0 / np.where(std > 0, std, 1.0), 0.0).astype(recordings.dtype)
    return lambda rows: (_flat(rows) - mean) * scale


def pooled_whitened_ridge(
    train: BaselineSplit, validation: BaselineSplit, test: BaselineSplit
) -> tuple[np.ndarray, dict[str, float]]:
    """Ridge regression over all people of a modality after noise whitening.

    The noise is what a ridge regression from the image embedding leaves of the training recordings.

    * Sensors: each person's recordings are multiplied by the symmetric inverse square root of that person's spatial
      noise covariance (sensors stay in place, so people remain comparable) and by that of the temporal noise
      covariance of all people together; then one ridge regression over all rows.
    * Voxels do not correspond between people. Each person's recordings are whitened by the inverse square root of the
      voxel noise covariance and mapped to the embedding by ridge (that person's a_n); a shared linear map g of the
      embedding space, fitted by ridge towards the identity on out-of-fold predictions of all people, follows.

    Args:
        train, validation, test (`BaselineSplit`): As for [`per_subject_ridge`].

    Returns:
        `tuple` of `np.ndarray` `(n_test, projection_dim)` and `dict` with the strengths, `least_shrinkage` (1: the
        recordings were pooled but not whitened) and `validation_two_way`.
    """
    fit = _pooled_voxels if np.asarray(train.recordings[0]).ndim == 1 else _pooled_sensors
    fits = [fit(train, validation, test, least) for least in LEAST_SHRINKAGES]
    best = int(np.argmax([chosen["validation_two_way"] for _, chosen in fits]))
    return fits[best][0], {"least_shrinkage": LEAST_SHRINKAGES[best], **fits[best][1]}


def _pooled_sensors(
    train: BaselineSplit, validation: BaselineSplit, test: BaselineSplit, least: float
) -> tuple[np.ndarray, dict[str, float]]:
    """Pooled ridge over spatially and temporally whitened sensors."""
    subjects = _subjects(train, validation, test)
    means: dict[str, np.ndarray] = {}
    spatial: dict[str, np.ndarray] = {}
    temporal_sum: np.ndarray = np.zeros(())
    n_samples = 0
    for subject in subjects:
        recordings = train.of_subject(subject)  # (n, n_chans, n_times)
        means[subject] = recordings.mean(axis=0)
        noise = _noise(_flat(recordings), train.targets[train.subjects == subject]).reshape(recordings.shape)
        n_chans, n_times = recordings.shape[1:]
        by_chan = noise.transpose(1, 0, 2).reshape(n_chans, -1)
        covariance = by_chan @ by_chan.T / by_chan.shape[1]  # (n_chans, n_chans)
        spatial[subject] = inverse_square_root(covariance, least).astype(recordings.dtype)
        by_time = (spatial[subject] @ by_chan).reshape(-1, n_times)  # (n_chans * n, n_times)
        temporal_sum = temporal_sum + np.asarray(by_time.T @ by_time, dtype=np.float64)
        n_samples += len(by_time)
    temporal = inverse_square_root(temporal_sum / n_samples, least).astype(recordings.dtype)

    def whitened(split: BaselineSplit) -> np.ndarray:
        """All rows of a split, `(n, n_chans * n_times)`."""
        rows = np.empty((len(split.subjects), n_chans * n_times), dtype=recordings.dtype)
        for subject in sorted(set(split.subjects)):
            centred = split.of_subject(subject) - means[subject]
            rows[split.subjects == subject] = _flat(spatial[subject] @ centred @ temporal)
        return rows

    ridge = KernelRidge(whitened(train), train.targets)
    best, score = _best_alpha(ridge.predict(whitened(validation), RELATIVE_ALPHAS), validation)
    chosen = float(RELATIVE_ALPHAS[best])
    return ridge.predict(whitened(test), [chosen])[0], {"relative_alpha": chosen, "validation_two_way": score}


def _noise(recordings: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """What ridge regression from the image embedding leaves of centred recordings `(n, n_features)`."""
    centred = targets - targets.mean(axis=0)
    gram = centred.T @ centred
    # strength: the mean eigenvalue, which keeps a fit with few rows from swallowing the noise
    strength = max(np.trace(gram) / len(gram), np.finfo(np.float64).tiny)
    hat = centred @ np.linalg.solve(gram + strength * np.eye(len(gram)), centred.T)  # (n, n)
    recordings = recordings - recordings.mean(axis=0)
    return recordings - hat.astype(recordings.dtype) @ recordings


def shrinkage_of(variances: np.ndarray, n_features: int, n_samples: int, least: float) -> float:
    """Share of the mean variance to mix into a covariance: oracle-approximating shrinkage, at least `least`.

    Args:
        variances (`np.ndarray` of shape `(n_kept,)`): Eigenvalues of the covariance that are not zero.
        n_features (`int`): Width of the covariance.
        n_samples (`int`): Rows it was computed from. With fewer rows than features it fits their noise, and the
            share is large.
        least (`float`): Lower bound, 0 to 1.

    Returns:
        `float`: Between `least` and 1.

    Source: Chen et al. 2010, IEEE Trans. Signal Processing 58, eq. 23; also `sklearn.covariance.oas`.
    """
    mean_square = (variances**2).sum() / n_features**2  # of the covariance's elements
    squared_mean = (variances.sum() / n_features) ** 2  # of its diagonal
    denominator = (n_samples + 1) * (mean_square - squared_mean / n_features)
    oas = 1.0 if denominator <= 0 else (mean_square + squared_mean) / denominator
    return float(np.clip(oas, least, 1.0))


def inverse_square_root(covariance: np.ndarray, shrinkage: float) -> np.ndarray:
    """Symmetric inverse square root of a shrunk covariance.

    Args:
        covariance (`np.ndarray` of shape `(n, n)`): Symmetric, positive semi-definite.
        shrinkage (`float`): Share of the mean variance that is mixed in, 0 to 1.

    Returns:
        `np.ndarray` of shape `(n, n)`, float64: ((1 - shrinkage) C + shrinkage tr(C)/n I)^(-1/2).
    """
    eigenvalues, vectors = np.linalg.eigh(np.asarray(covariance, dtype=np.float64))
    mean = max(float(eigenvalues.mean()), np.finfo(np.float64).tiny)
    return (vectors / np.sqrt((1 - shrinkage) * np.maximum(eigenvalues, 0.0) + shrinkage * mean)) @ vectors.T


def _voxel_whitener(recordings: np.ndarray, targets: np.ndarray, least: float) -> Callable[[np.ndarray], np.ndarray]:
    """Inverse square root of the shrunk voxel noise covariance, without forming it (n_voxels may be large)."""
    standardise = _standardiser(recordings, targets)
    noise = _noise(standardise(recordings), targets)
    eigenvalues, vectors = np.linalg.eigh(noise @ noise.T)  # (n, n): quicker than an SVD
    kept = eigenvalues > 1e-6 * eigenvalues[-1]  # float32 products: smaller ones are rounding
    directions = ((vectors[:, kept] / np.sqrt(eigenvalues[kept])).astype(noise.dtype).T) @ noise  # (n_kept, n_voxels)
    variances = eigenvalues[kept].astype(np.float64) / len(noise)
    shrinkage = shrinkage_of(variances, noise.shape[1], len(noise), least)
    floor = shrinkage * variances.sum() / noise.shape[1]  # outside the noise's own directions the covariance is this
    gains = 1 / np.sqrt((1 - shrinkage) * variances + floor) - 1 / np.sqrt(floor)

    def whiten(rows: np.ndarray) -> np.ndarray:
        rows = standardise(rows)
        return rows / np.sqrt(floor) + ((rows @ directions.T) * gains.astype(rows.dtype)) @ directions

    return whiten


def _pooled_voxels(
    train: BaselineSplit, validation: BaselineSplit, test: BaselineSplit, least: float
) -> tuple[np.ndarray, dict[str, float]]:
    """Whitened ridge of each person, then one linear map of the embedding space for all."""
    whitener = partial(_voxel_whitener, least=least)
    tuned, tested = _subject_paths(train, (validation, test), whitener, RELATIVE_ALPHAS)
    first, _ = _best_alpha(tuned, validation)
    held_out = np.empty_like(train.targets, dtype=np.float64)  # (n_train, projection_dim)
    folds = _image_folds(train.image_ids)
    for fold in range(N_FOLDS):
        fitted, left = _rows(train, folds != fold), _rows(train, folds == fold)
        held_out[folds == fold] = _subject_paths(fitted, (left,), whitener, RELATIVE_ALPHAS[[first]])[0][0]
    shared = KernelRidge(held_out, train.targets - held_out)  # towards the identity: strong ridge adds a constant only
    shared_tuned = tuned[first] + shared.predict(tuned[first], RELATIVE_ALPHAS)
    second, score = _best_alpha(shared_tuned, validation)
    chosen = float(RELATIVE_ALPHAS[second])
    predictions = tested[first] + shared.predict(tested[first], [chosen])[0]
    strengths = {"relative_alpha": float(RELATIVE_ALPHAS[first]), "relative_alpha_shared": chosen}
    return predictions, {**strengths, "validation_two_way": score}


def _image_folds(image_ids: np.ndarray) -> np.ndarray:
    """Fold of each row; all rows of an image share one."""
    unique, codes = np.unique(image_ids, return_inverse=True)
    return (np.random.default_rng(FOLD_SEED).permutation(len(unique)) % N_FOLDS)[codes]


def _rows(split: BaselineSplit, mask: np.ndarray) -> BaselineSplit:
    """The rows of a split where `mask` is true."""
    recordings = [split.recordings[int(row)] for row in np.flatnonzero(mask)]
    return BaselineSplit(recordings, split.subjects[mask], split.image_ids[mask], split.targets[mask])
