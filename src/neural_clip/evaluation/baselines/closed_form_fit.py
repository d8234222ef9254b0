"""Ways of fitting a linear map of recordings to image embeddings, and the ridge regressions of one way.

Recordings are read by blocks whenever they are needed, so that memory holds one large matrix, a few blocks, and what
is small beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from neural_clip.evaluation.baselines import ridge as limits
from neural_clip.evaluation.baselines.ridge import CholeskyRidge
from neural_clip.evaluation.baselines.strengths import are_voxels, subjects_of
from neural_clip.evaluation.baselines.whitening import (
    LEAST_SHRINKAGES,
    ROUNDING,
    UNWHITENED,
    Mixed,
    Standardised,
    WhitenedSensors,
    average_of,
    mean_of,
    mixed,
    reciprocal,
    row_blocks,
    sensor_whiteners,
    squares_of,
    stacked_rows,
)
from neural_clip.prepared.reader import Split

MAX_FEATURES = 21_700  # of sensors; more of them lose time first, the channels are what tells images apart
MAX_WHITENED_SIZE = 18_000  # of voxels; two or three such matrices take 3.9 GB
MAX_KEPT = 2**27  # numbers that the ridges of subjects may hold before they make room for the next: 0.5 GB

Inputs = Standardised | WhitenedSensors | Mixed


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
        inputs (`Mapping[str, Inputs]`): What each subject's recordings pass through. The mean of them is for subjects
            who are not there.
        train ([`Split`]): Its targets are taken as they are.
    """

    def __init__(self, way: Way, inputs: Mapping[str, Inputs], train: Split) -> None:
        self.way, self.inputs, self.train = way, inputs, train
        self.components = None if not way.n_components else self._temporal_components()
        self._ridges: dict[str | None, CholeskyRidge] = {}

    @cached_property
    def average(self) -> Inputs:
        """What the recordings of an unknown subject pass through, where subjects are pooled."""
        return average_of(list(self.inputs.values()))

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
        values, subjects = split.values(rows), split.subjects[rows]
        found = np.empty((len(rows), 0), dtype=np.float32)
        for name in sorted(set(subjects.tolist())):
            own = np.flatnonzero(subjects == name)
            inputs: Any = self.inputs.get(name) or self.average
            if len(own) == len(rows):
                return inputs(stacked_rows(values))
            part = inputs(stacked_rows([values[row] for row in own]))
            found = found if found.size else np.empty((len(rows), part.shape[1]), dtype=np.float32)
            found[own] = part
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
            if sum(found.n_numbers for found in self._ridges.values()) > MAX_KEPT:
                self._ridges.clear()
            rows = self.rows_fitted(subject)
            blocks = [rows[part] for part in row_blocks(self.train, rows)]
            least = self.way.least_shrinkage if are_voxels(self.train) else UNWHITENED  # sensors are white by now
            self._ridges[key] = CholeskyRidge(partial(self._rows, self.train), blocks, self.train.targets[rows], least)
        return self._ridges[key]

    def rows_fitted(self, subject: str) -> np.ndarray:
        """Training rows of a subject's ridge, as many as a matrix may have where there are more features too."""
        rows = np.arange(len(self.train)) if self.way.pooled else self.train.rows_of(subject)
        most = limits.MAX_SIZE
        if len(rows) <= most or self._rows(self.train, rows[:1]).shape[1] <= most:
            return rows
        return rows[np.linspace(0, len(rows) - 1, most).astype(int)]

    @property
    def reductions(self) -> dict[str, str]:
        """To what recordings and rows were reduced, in words; nothing where they were taken whole."""
        found = {}
        if self.way.n_components:
            n_chans = self.train.values([0])[0].shape[0]
            found["reduced_to"] = f"{n_chans} channels x {self.way.n_components} temporal components"
        for name in self.groups:
            fitted, there = len(self.rows_fitted(name)), len(self.rows_of(self.train, name))
            if fitted < there:
                found["rows_fitted"] = f"at most {fitted:,} of each ridge"
        return found

    @property
    def groups(self) -> list[str]:
        """A subject of each ridge."""
        return list(self.inputs)[:1] if self.way.pooled else list(self.inputs)

    def size_of(self, subject: str) -> int:
        """Rows of the matrix of a subject's ridge."""
        rows = self.rows_fitted(subject)
        return min(len(rows), self._rows(self.train, rows[:1]).shape[1])

    def rows_of(self, split: Split, subject: str) -> np.ndarray:
        """Rows of a split that a subject's ridge predicts."""
        return np.arange(len(split)) if self.way.pooled else split.rows_of(subject)

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

    def paths(self, subject: str, splits: Sequence[Split], alphas: Sequence[float] | np.ndarray) -> list[np.ndarray]:
        """Predictions of a subject's ridge without the target mean, for the rows of each split that it predicts.

        Returns:
            `list[np.ndarray]`: For each split `(n_alphas, n_rows, projection_dim)`.
        """
        others = []
        for split in splits:
            rows = self.rows_of(split, subject)
            others.append((partial(self._rows, split), [rows[part] for part in row_blocks(split, rows)]))
        return self.ridge(subject).deviations(others, alphas)

    def deviations(self, split: Split, alphas: Sequence[float] | np.ndarray) -> np.ndarray:
        """Predictions without the target mean, `(n_alphas, n_rows, projection_dim)`.

        Those of unknown subjects are 0 where subjects are fitted one by one.
        """
        found = np.zeros((len(alphas), len(split), self.train.targets.shape[1]), dtype=np.float32)
        present = set(split.subjects.tolist())
        for name in self.groups:
            if self.way.pooled or name in present:
                found[:, self.rows_of(split, name)] = self.paths(name, [split], alphas)[0]
        return found


def size_of(way: Way, train: Split) -> int:
    """Rows of the largest matrix of a way."""
    sizes = []
    for rows in [np.arange(len(train))] if way.pooled else map(train.rows_of, subjects_of(train)):
        shape = train.values(rows[:1])[0].shape
        sizes.append(min(len(rows), shape[0] * way.n_components or int(np.prod(shape))))
    return max(sizes)


def fits(train: Split) -> Iterator[Fit]:
    """A fit of each way that recordings allow."""
    for way, inputs in _ways(train, subjects_of(train)):
        yield Fit(way, inputs, train)


def fit_of(way: Way, train: Split) -> Fit:
    """The fit of one way."""
    return Fit(way, _inputs_of(way, train, subjects_of(train)), train)


def aligned_fit(train: Split, layers: Mapping[str, np.ndarray] | None = None) -> Fit:
    """One ridge for all subjects, whose recordings pass through fixed layers, or through none, and one scaling.

    Args:
        train ([`Split`]): Its targets are taken as they are.
        layers (`Mapping[str, np.ndarray]`, *optional*): Of each subject, `(n_out, n_in)`: a mixture of the channels,
            or a projection of the voxels.
    """
    subjects = subjects_of(train)
    changes: dict[str, Any] = {name: partial(mixed, (layers or {}).get(name)) for name in subjects}
    rows = {name: train.rows_of(name) for name in subjects}
    means = {name: mean_of(train, own, changes[name]) for name, own in rows.items()}
    mean = sum(len(own) * means[name].astype(np.float64) for name, own in rows.items()) / len(train)
    squares = sum(
        squares_of(train, own, means[name], changes[name]) + len(own) * (means[name] - mean) ** 2
        for name, own in rows.items()
    )
    deviation = np.sqrt(np.asarray(squares) / len(train))
    deviation[deviation <= ROUNDING * np.abs(mean)] = 0  # a constant, less what rounding made of its mean
    scaling = Standardised(np.asarray(mean, np.float32).ravel(), reciprocal(deviation).ravel().astype(np.float32))
    inputs = {name: Mixed(layers[name], scaling) if layers else scaling for name in subjects}
    return Fit(Way(True, n_components=n_components(train)), inputs, train)


def _ways(train: Split, subjects: list[str]) -> Iterator[tuple[Way, Mapping[str, Inputs]]]:
    """Ways of fitting, and what recordings pass through in each."""
    shrinkages = [least for least in LEAST_SHRINKAGES if least != UNWHITENED]
    alone = Way(False, n_components=n_components(train))
    inputs = _inputs_of(alone, train, subjects)
    yield alone, inputs
    if are_voxels(train):
        if size_of(alone, train) <= MAX_WHITENED_SIZE:
            yield from ((replace(alone, least_shrinkage=least), inputs) for least in shrinkages)
        return
    pooled = replace(alone, pooled=True)
    yield pooled, _inputs_of(pooled, train, subjects)
    for least, whitened in zip(shrinkages, sensor_whiteners(train, subjects, shrinkages), strict=True):
        yield replace(pooled, least_shrinkage=least), whitened


def n_components(train: Split) -> int:
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
        weighed = np.stack([len(own) * variances[name] for name, own in rows.items()])
        variances = dict.fromkeys(subjects, weighed.sum(axis=0) / len(train))
    found: dict[str, Inputs] = {}
    for name in subjects:
        found[name] = Standardised(
            means[name].ravel(), reciprocal(np.sqrt(variances[name])).ravel().astype(np.float32)
        )
    return found
