"""Z-scores of one's own recordings with the statistics of each subject's training rows."""

from __future__ import annotations

import numpy as np

from neural_clip.corpora.custom.trials import Trials
from neural_clip.errors import DataError
from neural_clip.preparation import Statistics
from neural_clip.preparation import scaled as scaled_by
from neural_clip.prepared.moments import Moments


def fit_scaling(trials: list[Trials], splits: list[list[str]], unit: str | None) -> dict[str, Moments]:
    """Mean and deviation of each channel or voxel over the training rows of each subject.

    A subject without training rows (see [`unseen_subjects`]) is scaled by all of its own rows, as recordings of a new
    person are: no label takes part. Files are merged one by one, see [`Moments.merged`].

    Raises:
        DataError: If a subject's files differ in channels or voxels.
    """
    fitted: dict[str, Moments] = {}
    unseen = unseen_subjects(trials, splits)
    for trial, split in zip(trials, splits, strict=True):
        subject = trial.entry.subject
        rows = (np.array(split) == "train") | (subject in unseen)
        if rows.any():
            found = _moments(trial.values(unit)[rows].astype(np.float64))
            if subject in fitted and fitted[subject].mean.shape != found.mean.shape:
                raise _other_size(trial.name, found.mean.size, fitted[subject])
            fitted[subject] = fitted[subject].merged(found) if subject in fitted else found
    return fitted


def unseen_subjects(trials: list[Trials], splits: list[list[str]]) -> list[str]:
    """Subjects without training rows."""
    trained = {trial.entry.subject for trial, split in zip(trials, splits, strict=True) if "train" in split}
    return sorted({trial.entry.subject for trial in trials} - trained)


def statistics_of(subject: str, moments: Moments) -> Statistics:
    """What a subject's recordings are scaled by, in their own unit."""
    return Statistics(subject, "", moments.mean, _deviation(moments))


def scaling_facts(fitted: dict[str, Moments]) -> dict:
    """What the metadata tells of the scaling."""
    constant = {subject: int((moments.squares == 0).sum()) for subject, moments in sorted(fitted.items())}
    return {
        "method": "z-score of each channel or voxel",
        "fit_scope": "train",
        "constant": constant,
    }


def scaled(values: np.ndarray, moments: Moments, file: str) -> np.ndarray:
    """Recordings as z-scores of the training split, float32; a constant channel or voxel becomes 0.

    Raises:
        DataError: If there are more or fewer channels or voxels than in the training split.
    """
    if moments.mean.size != values.shape[1]:
        raise _other_size(file, values.shape[1], moments)
    return scaled_by(values, _column(moments.mean, values), _column(_deviation(moments), values))


def _moments(values: np.ndarray) -> Moments:
    """Of one file's training rows."""
    axes = (0,) if values.ndim == 2 else (0, 2)
    mean = values.mean(axis=axes)
    return Moments(values.size // values.shape[1], mean, ((values - _column(mean, values)) ** 2).sum(axis=axes))


def _deviation(moments: Moments) -> np.ndarray:
    """Deviation; 1 where a channel or voxel is constant."""
    return np.where(moments.std > 0, moments.std, 1.0)


def _other_size(file: str, size: int, moments: Moments) -> DataError:
    return DataError(f"'{file}' has {size} channels or voxels, other files of its subject have {moments.mean.size}.")


def _column(vector: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A value per channel or voxel, shaped to be broadcast over `values`."""
    return vector if values.ndim == 2 else vector[:, np.newaxis]
