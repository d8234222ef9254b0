"""What recordings pass through before a ridge, by statistics of the training rows.

Long passes over recordings are made once: their results are kept while an evaluation runs, for all baselines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from neural_clip.evaluation.baselines.strengths import MAX_GRID_SIZE, subjects_of
from neural_clip.evaluation.baselines.whitening import (
    ROUNDING,
    Mixed,
    Standardised,
    WhitenedSensors,
    mean_of,
    mixed,
    reciprocal,
    row_blocks,
    sensor_whiteners,
    squares_of,
    stacked,
)
from neural_clip.evaluation.finished_parts import NOT_KEPT, FinishedParts
from neural_clip.prepared.reader import Split

MAX_FEATURES = 21_700  # of sensors; more of them lose time first, the channels are what tells images apart

Inputs = Standardised | WhitenedSensors | Mixed


def n_components(train: Split) -> int:
    """Principal components over time that recordings are reduced to; 0 keeps all samples."""
    shape = train.values([0])[0].shape
    return max(MAX_FEATURES // shape[0], 1) if len(shape) == 2 and np.prod(shape) > MAX_FEATURES else 0


def kept_for(train: Split, parts: FinishedParts) -> FinishedParts:
    """Where statistics and matrices of training rows are kept; nowhere where they are made in no time."""
    recording = train.values([0])[0]
    if min(len(train), recording.size) <= MAX_GRID_SIZE:
        return NOT_KEPT
    return parts.of(recording=list(recording.shape))


def temporal_components(train: Split, count: int, kept: FinishedParts) -> np.ndarray | None:
    """The first principal components over time of the training rows, `(n_times, count)`; `None` for all samples.

    Each subject's channels have a variance of one.
    """
    if not count:
        return None

    def compute() -> dict[str, np.ndarray]:
        total: Any = 0.0
        for name in subjects_of(train):
            rows = train.rows_of(name)
            first = stacked(train, rows[:1])[0]
            sums: Any = 0.0  # of each channel
            products: Any = 0.0
            for part in row_blocks(train, rows):
                by_chan = (stacked(train, rows[part]) - first).transpose(1, 0, 2)  # (n_chans, n_rows, n_times)
                sums = sums + by_chan.sum(axis=1, dtype=np.float64)
                products = products + np.asarray(by_chan.transpose(0, 2, 1) @ by_chan, dtype=np.float64)
            mean: Any = sums / len(rows)
            covariance = products / len(rows) - mean[:, :, None] * mean[:, None, :]
            total = total + np.tensordot(reciprocal(np.trace(covariance, axis1=1, axis2=2)), covariance, 1)
        vectors = np.linalg.eigh(total)[1][:, ::-1]
        return {"components": vectors[:, :count].astype(np.float32)}

    return kept.of(count=count).arrays("temporal components", compute)["components"]


def reduced(split: Split, components: np.ndarray | None) -> Split:
    """The same split with its recordings reduced to components over time."""
    if components is None:
        return split
    before = split.change
    return replace(
        split, change=lambda values, subjects: (before(values, subjects) if before else values) @ components
    )


def moments_of(train: Split, subject: str, kept: FinishedParts) -> tuple[np.ndarray, np.ndarray]:
    """Mean (float32) and variance (float64) of a subject's training rows."""
    rows = train.rows_of(subject)

    def compute() -> dict[str, np.ndarray]:
        mean = mean_of(train, rows)
        return {"mean": mean, "variance": squares_of(train, rows, mean) / len(rows)}

    found = kept.of(whose=subject, recording=list(train.values([0])[0].shape)).arrays("moments", compute)
    return found["mean"], found["variance"]


def standardised(
    train: Split, pooled: bool, by_chan: bool, kept: FinishedParts = NOT_KEPT, subjects: Sequence[str] | None = None
) -> dict[str, Standardised]:
    """Each subject's recordings less their mean, over their deviation.

    Args:
        train ([`Split`]): As ridge sees it.
        pooled (`bool`): One deviation for all subjects.
        by_chan (`bool`): One deviation for all numbers of a channel: recordings that are reduced over time have their
            largest numbers in their first components, and keep them.
        kept ([`FinishedParts`]): Where statistics are kept.
        subjects (sequence of `str`, *optional*): Of these alone, where deviations are not pooled.
    """
    rows = {name: train.rows_of(name) for name in subjects or subjects_of(train)}
    moments = {name: moments_of(train, name, kept) for name in rows}
    variances = {name: variance for name, (_, variance) in moments.items()}
    if pooled:
        weighed = np.stack([len(own) * variances[name] for name, own in rows.items()])
        variances = dict.fromkeys(rows, weighed.sum(axis=0) / len(train))
    found = {}
    for name in rows:
        scale = reciprocal(np.sqrt(_of_chans(variances[name]) if by_chan else variances[name]))
        found[name] = Standardised(moments[name][0].ravel(), scale.ravel().astype(np.float32))
    return found


def _of_chans(variances: np.ndarray) -> np.ndarray:
    """The mean variance of each channel, as often as it has numbers."""
    return np.broadcast_to(variances.mean(axis=-1, keepdims=True), variances.shape)


def aligned(
    train: Split, layers: Mapping[str, np.ndarray] | None, by_chan: bool, kept: FinishedParts = NOT_KEPT
) -> dict[str, Inputs]:
    """One scaling for all subjects, whose recordings pass through fixed layers before, or through none.

    Args:
        train, by_chan, kept: As for [`standardised`].
        layers (`Mapping[str, np.ndarray]`, *optional*): Of each subject, `(n_out, n_in)`: a mixture of the channels,
            or a projection of the voxels.
    """
    subjects = subjects_of(train)
    rows = {name: train.rows_of(name) for name in subjects}
    moments = {name: _behind(train, name, layers[name] if layers else None, kept) for name in subjects}
    mean = sum(len(own) * moments[name][0].astype(np.float64) for name, own in rows.items()) / len(train)
    variance = sum(
        len(own) * (moments[name][1] + (moments[name][0] - mean) ** 2) for name, own in rows.items()
    ) / len(train)  # fmt: skip
    within = sum(len(own) * np.asarray(moments[name][1]) for name, own in rows.items()) / len(train)
    largest = np.max([np.abs(moments[name][0]) for name in subjects], axis=0)
    varies = ~(np.sqrt(within) <= ROUNDING * largest)  # or it is a constant of each subject, but for its rounded mean
    variance = np.where(varies, np.asarray(variance), 0)
    deviation = np.where(varies, np.sqrt(_of_chans(variance) if by_chan else variance), 0)
    scaling = Standardised(np.asarray(mean, np.float32).ravel(), reciprocal(deviation).ravel().astype(np.float32))
    return {name: Mixed(layers[name], scaling) if layers else scaling for name in subjects}


def _behind(
    train: Split, subject: str, layer: np.ndarray | None, kept: FinishedParts
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of a subject's training rows behind a layer, or as they are."""
    if layer is None:
        return moments_of(train, subject, kept)
    rows, change = train.rows_of(subject), partial(mixed, layer)
    mean = mean_of(train, rows, change)
    return mean, squares_of(train, rows, mean, change) / len(rows)


def whitened(
    train: Split, shrinkages: Sequence[float], n_times: int | None = None, kept: FinishedParts = NOT_KEPT
) -> list[dict[str, WhitenedSensors]]:
    """What each subject's sensors pass through for each least share of white noise.

    Args:
        train, kept: As for [`standardised`].
        shrinkages (sequence of `float`): Least shares.
        n_times (`int`, *optional*): Samples that recordings had before they were reduced to components.
    """
    subjects = subjects_of(train)
    places = [kept.of(least=least) for least in shrinkages]
    found = [place.finished("whitening") for place in places]
    lacking = [number for number, arrays in enumerate(found) if arrays is None]
    few = [shrinkages[number] for number in lacking]
    made = sensor_whiteners(train, subjects, few, n_times) if lacking else []
    for number, whiteners in zip(lacking, made, strict=True):
        arrays = {"temporal": next(iter(whiteners.values())).temporal}
        for name, each in whiteners.items():
            arrays |= {f"mean {name}": each.mean, f"spatial {name}": each.spatial}
        found[number] = places[number].keep("whitening", arrays)
    return [
        {name: WhitenedSensors(each[f"mean {name}"], each[f"spatial {name}"], each["temporal"]) for name in subjects}
        for each in found
        if each is not None
    ]
