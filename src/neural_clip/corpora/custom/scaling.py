"""Z-scores of one's own recordings with the statistics of each subject's training rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neural_clip.corpora.custom.trials import Trials
from neural_clip.errors import DataError


@dataclass(frozen=True)
class Moments:
    """Statistics of one subject's training rows.

    Args:
        count (`int`): Values a channel or voxel.
        mean, squares (`np.ndarray`): Of each channel or voxel: mean, and sum of squared deviations from it.
    """

    count: int
    mean: np.ndarray
    squares: np.ndarray

    def deviation(self) -> np.ndarray:
        """Deviation (ddof 0); 1 where a channel or voxel is constant, which then becomes 0."""
        deviation = np.sqrt(self.squares / self.count)
        return np.where(deviation > 0, deviation, 1.0)

    def apply(self, values: np.ndarray, file: str) -> np.ndarray:
        """Values as z-scores of the training split."""
        if self.mean.size != values.shape[1]:
            raise DataError(
                f"'{file}' has {values.shape[1]} channels or voxels, other files of its subject have {self.mean.size}."
            )
        scaled = (values - _column(self.mean, values)) / _column(self.deviation(), values)
        return scaled.astype(np.float32)


def fit_scaling(trials: list[Trials], splits: list[list[str]], unit: str | None) -> dict[str, Moments]:
    """Mean and deviation of each channel or voxel over the training rows of each subject.

    Files are merged one by one with the update of Chan, Golub & LeVeque 1979 ("Updating formulae and a pairwise
    algorithm for computing sample variances"), which stays exact where the offset is large beside the deviation.

    Raises:
        DataError: If a subject has no training rows, or its files differ in channels or voxels.
    """
    fitted: dict[str, Moments] = {}
    for trial, split in zip(trials, splits, strict=True):
        rows = np.array(split) == "train"
        if rows.any():
            subject = trial.entry.subject
            found = _moments(trial.values(unit)[rows].astype(np.float64))
            fitted[subject] = _merged(fitted[subject], found, trial) if subject in fitted else found
    lacking = sorted({trial.entry.subject for trial in trials} - fitted.keys())
    if lacking:
        raise DataError(f"{lacking[0]} has no training rows, so 'scaling: train' has nothing to be fitted on.")
    return fitted


def scaling_arrays(fitted: dict[str, Moments]) -> dict[str, np.ndarray]:
    """Contents of `scaling.npz`: `<subject>_mean` and `<subject>_std`, in the recordings' own unit."""
    means = {f"{subject}_mean": moments.mean for subject, moments in sorted(fitted.items())}
    return means | {f"{subject}_std": moments.deviation() for subject, moments in sorted(fitted.items())}


def scaling_facts(fitted: dict[str, Moments]) -> dict:
    """What the metadata tells of the scaling."""
    constant = {subject: int((moments.squares == 0).sum()) for subject, moments in sorted(fitted.items())}
    return {
        "method": "z-score of each channel or voxel",
        "fit_scope": "train",
        "file": "scaling.npz",
        "constant": constant,
    }


def _moments(values: np.ndarray) -> Moments:
    """Of one file's training rows."""
    axes = (0,) if values.ndim == 2 else (0, 2)
    mean = values.mean(axis=axes)
    return Moments(values.size // values.shape[1], mean, ((values - _column(mean, values)) ** 2).sum(axis=axes))


def _merged(old: Moments, new: Moments, trial: Trials) -> Moments:
    """Of both files' rows together."""
    if old.mean.shape != new.mean.shape:
        raise DataError(
            f"'{trial.entry.file}' has {new.mean.size} channels or voxels, other files of {trial.entry.subject} have "
            f"{old.mean.size}."
        )
    total, difference = old.count + new.count, new.mean - old.mean
    squares = old.squares + new.squares + difference**2 * old.count * new.count / total
    return Moments(total, old.mean + difference * new.count / total, squares)


def _column(vector: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A value per channel or voxel, shaped to be broadcast over `values`."""
    return vector if values.ndim == 2 else vector[:, np.newaxis]
