"""Ways of fitting a linear map of recordings to image embeddings, and the ridge regressions of one way.

Recordings are read by blocks whenever they are needed, so that memory holds one large matrix, a few blocks, and what
is small beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from neural_clip.evaluation.baselines import ridge as limits
from neural_clip.evaluation.baselines.inputs import (
    Inputs,
    aligned,
    kept_for,
    n_components,
    reduced,
    standardised,
    temporal_components,
    whitened,
)
from neural_clip.evaluation.baselines.ridge import (
    CholeskyRidge,
    Products,
    Rows,
    one_thread,
    pooled_products,
    products_of,
    products_without,
)
from neural_clip.evaluation.baselines.strengths import are_voxels, subjects_of
from neural_clip.evaluation.baselines.targets import Targets
from neural_clip.evaluation.baselines.whitening import (
    LEAST_SHRINKAGES,
    UNWHITENED,
    Standardised,
    average_of,
    reciprocal,
    row_blocks,
    stacked_rows,
)
from neural_clip.evaluation.finished_parts import NOT_KEPT, FinishedParts
from neural_clip.prepared.reader import Split

MAX_WHITENED_SIZE = 18_000  # of voxels; two or three such matrices take 3.9 GB
MAX_KEPT = 2**27  # numbers that the ridges of subjects may hold before they make room for the next: 0.5 GB


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
        train ([`Split`]): Reduced to components over time; its targets are taken as they are.
        components (`np.ndarray` of shape `(n_times, n_components)`, *optional*): These.
        kept ([`FinishedParts`]): Where matrices are kept.
        name (`str`, *optional*): Tells the fit from others on the same rows; by default that of the way.
        again (`Callable`, *optional*): Makes the inputs of other training rows, for [`Fit.at`].
    """

    def __init__(
        self, way: Way, inputs: Mapping[str, Inputs], train: Split, components: np.ndarray | None = None,
        kept: FinishedParts = NOT_KEPT, name: str = "", again: _Again | None = None,
    ) -> None:  # fmt: skip
        self.way, self.inputs, self.train, self.components, self.kept = way, inputs, train, components, kept
        self.name, self.again = name or way.name, again
        self.source: Callable[[str], Products | None] | None = None  # of products, before what is kept
        self._ridges: dict[str | None, CholeskyRidge] = {}
        self._others: dict[tuple[Any, ...], list[Rows]] = {}

    def at(self, rows: np.ndarray) -> Fit:
        """The same on some of the training rows, by their own statistics; components over time stay those of all.

        It predicts training rows of this fit, and keeps nothing on the disk.
        """
        assert self.again is not None  # as of all that this module makes
        ready = _Ready(self.train.at(rows), self.components, NOT_KEPT)
        return Fit(self.way, self.again(ready), ready.train, name=self.name, again=self.again)

    @cached_property
    def average(self) -> Inputs:
        """What the recordings of an unknown subject pass through, where subjects are pooled."""
        return average_of(list(self.inputs.values()))

    def _read(self, split: Split, rows: np.ndarray) -> np.ndarray:
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

    def _rows(self, split: Split, rows: np.ndarray) -> Rows:
        """Some rows of a split as ridge sees them."""
        return Rows(partial(self._read, split), [rows[part] for part in row_blocks(split, rows)])

    def ridge(self, subject: str) -> CholeskyRidge:
        """That of a subject, or of all where they are pooled; built again where all do not fit into memory."""
        key = None if self.way.pooled else subject
        if key not in self._ridges:
            n_numbers = sum(each.n_numbers for each in self._ridges.values())
            n_numbers += sum(rows.n_numbers for others in self._others.values() for rows in others)
            if n_numbers > MAX_KEPT:
                self.forget()
            rows = self.rows_fitted(subject)
            least = self.way.least_shrinkage if are_voxels(self.train) else UNWHITENED  # sensors are white by now
            made = self._products(subject)
            self._ridges[key] = CholeskyRidge(self._rows(self.train, rows), Targets.of(self.train, rows), least, made)
        return self._ridges[key]

    def _products(self, subject: str) -> Products | None:
        """Those of a ridge from what is kept; `None` where nothing is, or where they are made sooner from the rows."""
        if self.source is not None:
            return self.source(subject)
        in_rows = self.kept_in_rows(subject)
        if in_rows is None:
            return None
        if not self.way.pooled:
            return self.kept_products(subject, in_rows)
        alone = self.alone
        return self._pooled(alone, lambda name: alone.kept_products(name, False))

    @cached_property
    def alone(self) -> Fit:
        """Ridge of each subject's standardised rows."""
        inputs = standardised(self.train, False, bool(self.way.n_components), self.kept)
        return Fit(Way(False), inputs, self.train, kept=self.kept)

    def _pooled(self, alone: Fit, products: Callable[[str], Products]) -> Products:
        """Products of all subjects from those of each, in features."""
        targets = {name: Targets.of(self.train, self.train.rows_of(name)) for name in self.inputs}
        shape = self.train.values([0])[0].shape
        inputs: Any = alone.inputs
        return pooled_products(shape, inputs, self.inputs, products, targets)

    def kept_in_rows(self, subject: str) -> bool | None:
        """Whether the products of people that a ridge is made from are in rows; `None` where it is made without."""
        if self.kept.folder is None or (self.way.pooled and are_voxels(self.train)):
            return None
        is_dual = self._rows(self.train, self.rows_fitted(subject)).is_dual
        return (None if is_dual else False) if self.way.pooled else is_dual

    def kept_products(self, subject: str, is_dual: bool) -> Products:
        """Those of a subject's standardised rows, from their files where they are there."""
        rows = self.rows_fitted(subject)
        centred = Targets.of(self.train, rows)
        kept = self.kept.of(whose=subject, in_rows=is_dual)
        stored = kept.finished("matrix")
        gram = None if stored is None else stored["matrix"].T  # symmetric
        known = {"products": centred.whole()} if is_dual else kept.finished("products")
        if gram is not None and known is not None:
            return Products(gram, known["products"], is_dual)
        made = products_of(self._rows(self.train, rows), centred, is_dual, gram)
        if gram is None:
            kept.keep("matrix", {"matrix": made.gram.T})
        if not is_dual:
            kept.keep("products", {"products": made.known})
        return made

    def without(self, subject: str, left_out: np.ndarray, remaining: Fit) -> Products | None:
        """Products of a subject's ridge of another fit, from the matrices of this one that are kept.

        Args:
            subject (`str`): Whose ridge; anyone's where subjects are pooled.
            left_out (`np.ndarray` of shape `(n_rows,)`, int): Rows of that ridge, in this training split, that the
                other fit lacks.
            remaining ([`Fit`]): That one, of the same way.

        Returns:
            [`Products`], or `None` where they are made sooner from the rows.
        """
        ours, theirs = self.rows_fitted(subject), remaining.rows_fitted(subject)
        if self.kept.folder is None or len(ours) != len(theirs) + len(left_out):
            return None
        if self._rows(self.train, ours).is_dual or remaining._rows(remaining.train, theirs).is_dual:
            return None
        if not self.way.pooled:
            return self._without(subject, left_out, remaining)
        if are_voxels(self.train):
            return None
        alone, others = self.alone, remaining.alone
        whose = self.train.subjects[left_out]
        return remaining._pooled(others, lambda name: alone._without(name, left_out[whose == name], others))

    def _without(self, subject: str, left_out: np.ndarray, remaining: Fit) -> Products:
        """The same of a subject's standardised rows, in features."""
        ours, theirs = self.rows_fitted(subject), remaining.rows_fitted(subject)
        whole = self.kept_products(subject, False)
        before, after = self.inputs[subject], remaining.inputs[subject]
        assert isinstance(before, Standardised) and isinstance(after, Standardised)  # as of each subject alone
        if not len(left_out):
            return whole
        rows = self._rows(self.train, left_out)
        mean = Targets.of(self.train, ours).mean
        targets = np.asarray(self.train.targets_of(left_out) - mean, dtype=np.float32)
        total = sum(block.sum(axis=0, dtype=np.float64) for _, block in rows).astype(np.float32)
        ratio = reciprocal(before.scale) * after.scale
        return products_without(
            whole, products_of(rows, targets, False), len(theirs), (total, targets.sum(axis=0)), ratio
        )

    def rows_fitted(self, subject: str) -> np.ndarray:
        """Training rows of a subject's ridge, as many as a matrix may have where there are more features too."""
        rows = np.arange(len(self.train)) if self.way.pooled else self.train.rows_of(subject)
        most = limits.MAX_SIZE
        if len(rows) <= most or self._read(self.train, rows[:1]).shape[1] <= most:
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
        return min(len(rows), self._read(self.train, rows[:1]).shape[1])

    def rows_of(self, split: Split, subject: str) -> np.ndarray:
        """Rows of a split that a subject's ridge predicts."""
        return np.arange(len(split)) if self.way.pooled else split.rows_of(subject)

    def forget(self) -> None:
        """Drop the matrices; they are built again when they are needed."""
        self._ridges.clear()
        self._others.clear()

    def folded(self, subject: str, relative_alpha: float, transform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions times `transform` as one map of a subject's recordings.

        Returns:
            `tuple` of `np.ndarray` `(n_features, width)` and `(width,)`, weights and offset. The former are the same
            for all subjects where these are pooled; whitened sensors meet them after the subject's spatial whitening.
        """
        weights = self.ridge(subject).weights(relative_alpha) @ transform
        weights, offset = self.inputs[subject].folded(weights)
        if self.components is not None:
            by_chan = weights.reshape(-1, self.components.shape[1], weights.shape[1])
            weights = (self.components @ by_chan).reshape(-1, weights.shape[1])
        return weights, offset

    def paths(self, subject: str, splits: Sequence[Split], alphas: Sequence[float] | np.ndarray) -> list[np.ndarray]:
        """Predictions of a subject's ridge without the target mean, for the rows of each split that it predicts.

        Returns:
            `list[np.ndarray]`: For each split `(n_alphas, n_rows, projection_dim)`.
        """
        ridge, key = self.ridge(subject), (subject, *splits)
        if key not in self._others:
            self._others[key] = [
                self._rows(reduced(split, self.components), self.rows_of(split, subject)) for split in splits
            ]
        return ridge.deviations(self._others[key], alphas)

    def deviations(self, split: Split, alphas: Sequence[float] | np.ndarray) -> np.ndarray:
        """Predictions without the target mean, `(n_alphas, n_rows, projection_dim)`.

        Those of unknown subjects are 0 where subjects are fitted one by one.
        """
        found = np.zeros((len(alphas), len(split), self.train.projection_dim), dtype=np.float32)
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


@dataclass(frozen=True)
class _Ready:
    """Training rows as ridge sees them, and the components over time that they were reduced to."""

    train: Split
    components: np.ndarray | None
    kept: FinishedParts

    @classmethod
    def of(cls, train: Split, count: int, parts: FinishedParts) -> _Ready:
        """Reduce them to so many components; 0 keeps all samples."""
        kept = kept_for(train, parts)
        components = temporal_components(train, count, kept)
        return cls(reduced(train, components), components, kept)

    def fit(self, way: Way, again: _Again, name: str = "", inputs: Mapping[str, Inputs] | None = None) -> Fit:
        """That of a way, by its inputs where they are known."""
        found = again(self) if inputs is None else inputs
        return Fit(way, found, self.train, self.components, self.kept, name, again)

    def standardised(self, pooled: bool, subjects: Sequence[str] | None = None) -> dict[str, Any]:
        """Each subject's recordings less their mean, over their deviation."""
        return standardised(self.train, pooled, self.components is not None, self.kept, subjects)

    def aligned(self, layers: Mapping[str, np.ndarray] | None) -> dict[str, Any]:
        """Recordings behind fixed layers, and one scaling."""
        return aligned(self.train, layers, self.components is not None, self.kept)

    def whitened_inputs(self, shrinkages: Sequence[float]) -> list[dict[str, Any]]:
        """What pooled sensors pass through for each least share of white noise."""
        n_times = None if self.components is None else len(self.components)
        return [*whitened(self.train, shrinkages, n_times, self.kept)]

    def whitened(self, shrinkages: Sequence[float]) -> Iterator[Fit]:
        """Pooled sensors for each least share of white noise."""
        count = 0 if self.components is None else self.components.shape[1]
        for least, inputs in zip(shrinkages, self.whitened_inputs(shrinkages), strict=True):
            way = Way(True, least, count)
            name = "" if way.whitened else f"{way.name}, one scale a subject"
            yield self.fit(way, partial(_whitened, least), name, inputs)


_Again = Callable[[_Ready], Mapping[str, Inputs]]  # what recordings pass through, by the statistics of these rows


def _alone(ready: _Ready) -> Mapping[str, Inputs]:
    """Of subjects one by one."""
    return ready.standardised(pooled=False)


def _together(ready: _Ready) -> Mapping[str, Inputs]:
    """Of subjects who are pooled."""
    return ready.standardised(pooled=True)


def _whitened(least: float, ready: _Ready) -> Mapping[str, Inputs]:
    """Of pooled sensors with this least share of white noise."""
    return ready.whitened_inputs([least])[0]


def fits(train: Split, parts: FinishedParts = NOT_KEPT) -> Iterator[Fit]:
    """A fit of each way that recordings allow.

    Args:
        train ([`Split`]): Its targets are taken as they are.
        parts ([`FinishedParts`]): Where large matrices are kept.
    """
    alone = Way(False, n_components=n_components(train))
    ready = _Ready.of(train, alone.n_components, parts)
    inputs = ready.standardised(pooled=False)
    yield ready.fit(alone, _alone, inputs=inputs)
    shrinkages = [least for least in LEAST_SHRINKAGES if least != UNWHITENED]
    if are_voxels(train):
        if size_of(alone, train) <= MAX_WHITENED_SIZE:
            for least in shrinkages:
                yield ready.fit(replace(alone, least_shrinkage=least), _alone, inputs=inputs)
        return
    yield ready.fit(replace(alone, pooled=True), _together)
    yield from ready.whitened(shrinkages)


@one_thread
def keep_of_person(train: Split, subject: str, pooled: Iterable[bool], parts: FinishedParts) -> None:
    """Make and keep what several baselines need of a person's training rows: statistics and products.

    Args:
        train, parts: As for [`fits`].
        subject (`str`): Who.
        pooled (iterable of `bool`): For ridges of single people, of all together, or both.
    """
    if kept_for(train, parts).folder is None:
        return
    ready = _Ready.of(train, n_components(train), parts)
    inputs = ready.standardised(pooled=False, subjects=[subject])
    for together in pooled:
        in_rows = ready.fit(Way(together), _alone, inputs=inputs).kept_in_rows(subject)
        if in_rows is not None:
            ready.fit(Way(False), _alone, inputs=inputs).kept_products(subject, in_rows)


def fit_of(way: Way, train: Split, parts: FinishedParts = NOT_KEPT) -> Fit:
    """The fit of one way; `train` and `parts` as for [`fits`]."""
    ready = _Ready.of(train, way.n_components, parts)
    if way.pooled and way.whitened:
        return next(ready.whitened([way.least_shrinkage]))
    return ready.fit(way, _together if way.pooled else _alone)


def whitened_fits(train: Split, shrinkages: Sequence[float], parts: FinishedParts = NOT_KEPT) -> Iterator[Fit]:
    """Fits of pooled sensors for each least share of white noise; `train` and `parts` as for [`fits`]."""
    return _Ready.of(train, n_components(train), parts).whitened(shrinkages)


def aligned_fit(train: Split, layers: Mapping[str, np.ndarray] | None = None, parts: FinishedParts = NOT_KEPT) -> Fit:
    """One ridge for all subjects, whose recordings pass through fixed layers, or through none, and one scaling.

    Args:
        train, parts: As for [`fits`].
        layers (`Mapping[str, np.ndarray]`, *optional*): Of each subject, `(n_out, n_in)`: a mixture of the channels,
            or a projection of the voxels.
    """
    ready = _Ready.of(train, n_components(train), parts)
    way = Way(True, n_components=n_components(train))
    name = f"{way.name}, {'random' if layers else 'identity'} alignment"
    return ready.fit(way, lambda ready: ready.aligned(layers), name)
