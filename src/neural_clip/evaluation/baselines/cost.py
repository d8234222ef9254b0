"""What linear baselines cost: how many ridges they fit, in how large matrices, and about how long that takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from neural_clip.evaluation.baselines.closed_form import decimation_of
from neural_clip.evaluation.baselines.closed_form_fit import MAX_WHITENED_SIZE, Way, size_of
from neural_clip.evaluation.baselines.inputs import n_components
from neural_clip.evaluation.baselines.linear import ALIGNMENT_SIZE, N_FOLDS
from neural_clip.evaluation.baselines.ridge import MAX_SIZE, in_rows
from neural_clip.evaluation.baselines.strengths import MAX_GRID_SIZE, are_voxels, n_folds_of, subjects_of
from neural_clip.evaluation.baselines.whitening import BLOCK_NUMBERS, BLOCK_ROWS, LEAST_SHRINKAGES, UNWHITENED
from neural_clip.prepared.reader import Split

# Of one core of 2021 (AMD EPYC 7003), float32: products and factors of large matrices, and numbers read from disk,
# standardised and reduced.
FLOPS, NUMBERS = 7.5e10, 5e7
N_FACTORED = 5  # strengths of a ridge
POOLED = 1.5  # of what is counted, which ridges over people took: their matrices are read and written many times
LONG = 60.0  # s of one core, beyond which a cost is told before the work, and progress shown
# Passes over training rows: components, means, variances and the matrix; noise; what random layers make of them.
N_PASSES, N_NOISE_PASSES, N_RANDOM_PASSES = 4, 4, 2
# Products and factors that whiten a matrix of voxels, of its size cubed, in rows and in features; and of its size
# squared and the width of the embeddings.
WHITENING, WHITENING_BY_FEATURES, EVOKED = 7 / 3, 2 / 3, 6
MEASURED = ("whitened", "one scale")  # pieces that noise is measured for
SHARED_MAP = "folds"  # the piece behind the shared map of voxels; folds that choose a strength serve for it too


@dataclass(frozen=True)
class Cost:
    """Of a baseline.

    Args:
        ridges (`int`): That are fitted, one for a subject or for all.
        seconds (`float`): Of one core, about.
        size (`int`): Rows of the largest matrix.
    """

    ridges: int
    seconds: float
    size: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.ridges + other.ridges, self.seconds + other.seconds, max(self.size, other.size))

    def times(self, count: int) -> Cost:
        """So often."""
        return Cost(count * self.ridges, count * self.seconds, self.size)


NOTHING = Cost(0, 0.0, 0)


def costs_of(methods: Sequence[str], train: Split, validation: Split | None = None) -> dict[str, Cost]:
    """Cost of baselines by their names in tables, fitted to training rows one after the other.

    What several need is made once, for the first of them. Folds over training images count where a validation split
    is given that cannot choose strengths.
    """
    if not len(train):
        return dict.fromkeys(methods, NOTHING)
    works, done, found = _Works.of_splits(train, validation), set[str](), {}
    for method in methods:
        needed = works.of(method)
        found[method] = sum((work for name, work in needed.items() if name not in done), NOTHING)
        done |= set(needed)
    return found


def in_turns(methods: Sequence[str], train: Split, validation: Split | None = None) -> list[list[str]]:
    """Baselines that can be fitted at the same time: one that shares ridges with an earlier one waits for it."""
    works, turns = _Works.of_splits(train, validation), dict[str, int]()
    ridges = {method: {name for name, work in works.of(method).items() if work.ridges} for method in methods}
    for method in methods:
        turns[method] = max((turn + 1 for other, turn in turns.items() if ridges[other] & ridges[method]), default=0)
    return [[method for method in methods if turns[method] == turn] for turn in sorted({*turns.values()})]


@dataclass(frozen=True, eq=False)
class _Works:
    """What there is to do on training rows, or a share of them, in pieces that baselines share."""

    train: Split
    n_folds: int = 0
    share: float = 1.0

    @classmethod
    def of_splits(cls, train: Split, validation: Split | None) -> _Works:
        """Where strengths are chosen by a validation split, or else by folds."""
        return cls(train, 0 if validation is None else n_folds_of(train, validation))

    @cached_property
    def n_rows(self) -> float:
        """Of all subjects."""
        return len(self.train) * self.share

    @cached_property
    def n_subjects(self) -> int:
        return len(subjects_of(self.train))

    @cached_property
    def n_numbers(self) -> int:
        """Of a recording."""
        return int(self.train.values([0])[0].size)

    @cached_property
    def n_features(self) -> int:
        """Of a recording as ridge sees it."""
        return self.train.values([0])[0].shape[0] * n_components(self.train) or self.n_numbers

    def _size(self, n_rows: float) -> int:
        """Of the matrix of a ridge."""
        n_blocks = n_rows / min(BLOCK_ROWS, max(BLOCK_NUMBERS // self.n_numbers, 1))
        return int(n_rows) if in_rows(int(n_rows), self.n_features, math.ceil(n_blocks)) else self.n_features

    def reading(self, passes: float) -> Cost:
        """All training rows, so many times."""
        return Cost(0, passes * self.n_rows * self.n_numbers / NUMBERS, 0)

    def _ridges(self, count: int, size: int, extra: float = 0.0, strengths: int = N_FACTORED) -> Cost:
        """Factors and solutions of each, and extra products and factors in FLOPs."""
        each = strengths * (size**3 / 3 + 2 * size**2 * self.train.projection_dim) + extra
        return Cost(count, count * each / FLOPS, size)

    def of(self, method: str) -> dict[str, Cost]:
        """Pieces of a baseline; those that another one shares have the same name.

        At a high rate the closed form alone averages samples, and has no piece in common with another one.
        """
        if method == "closed form" and (step := decimation_of(self.train.facts)) > 1 == self.train.decimation:
            own = replace(self, train=replace(self.train, decimation=step)).of(method)
            return {f"decimated {name}": cost for name, cost in own.items()}
        found = (self._of_voxels if are_voxels(self.train) else self._of_sensors)(method)
        return self._folded(method, found) if self.n_folds else found

    def _folded(self, method: str, found: dict[str, Cost]) -> dict[str, Cost]:
        """Pieces of a baseline where folds choose: all of it without each fold, then what is chosen on all rows."""
        in_fold = replace(self, n_folds=0, share=1 - 1 / self.n_folds).of(method)
        matrices, noise = (in_fold.get(name, NOTHING) for name in ("matrices", "noise"))  # made for each way by itself
        fits = [name for name, cost in found.items() if cost.ridges and name != SHARED_MAP]
        pieces = {name: found[name] for name in found if name == "matrices"}
        for name in fits:
            cost = in_fold[name] + matrices + (noise if name.startswith(MEASURED) else NOTHING)
            pieces[f"{name} in folds"] = cost.times(self.n_folds)
        return pieces | {f"chosen {method}": found[name] for name in fits[-1:]}

    def _own(self) -> tuple[int, dict[str, Cost]]:
        """Size of a subject's matrix, all of these, and their ridges."""
        n_rows = self.n_rows / self.n_subjects
        n_rows = n_rows if self.n_features <= MAX_SIZE else min(n_rows, MAX_SIZE)
        size = self._size(n_rows)
        matrices = Cost(0, self.n_subjects * n_rows * self.n_features * size / FLOPS, 0)
        return size, {"matrices": self.reading(N_PASSES) + matrices, "alone": self._ridges(self.n_subjects, size)}

    def _of_sensors(self, method: str) -> dict[str, Cost]:
        _, own = self._own()
        matrices, alone = own["matrices"], own["alone"]
        size = self._size(self.n_rows)
        if size < self.n_features:  # in rows
            pooled = self._ridges(1, size, size**2 * self.n_features) + self.reading(1)
        else:
            n_chans, n_times = self.train.values([0])[0].shape[0], self.n_features / self.train.values([0])[0].shape[0]
            summed = self._ridges(1, size, self.n_subjects * 4 * size**2 * (n_chans + n_times))
            pooled = replace(summed, seconds=POOLED * summed.seconds)
        noise = self.reading(N_NOISE_PASSES)
        white = {f"whitened {least:g}": pooled for least in LEAST_SHRINKAGES if least != UNWHITENED}
        return {
            "per-subject ridge": {"matrices": matrices, "alone": alone},
            "pooled whitened ridge": {"matrices": matrices, "noise": noise, **white, "one scale a subject": pooled},
            "closed form": {"matrices": matrices, "alone": alone, "pooled": pooled, "noise": noise, **white},
            "ridge, identity alignment": {"matrices": matrices, "identity": pooled},
            "ridge, random alignment": {"matrices": matrices, "random": pooled + self.reading(N_RANDOM_PASSES)},
        }[method]

    def _of_voxels(self, method: str) -> dict[str, Cost]:
        size, own = self._own()
        n_white = len(LEAST_SHRINKAGES) - 1 if size_of(Way(False), self.train) <= MAX_WHITENED_SIZE else 0
        by_features = size == self.n_features
        n_folds = N_FOLDS * (1 if size > MAX_GRID_SIZE else 1 + n_white)
        read = (
            1 / N_FOLDS if by_features else 1 - 1 / N_FOLDS
        )  # of the rows of a person: those left out, or the others
        in_fold = size if by_features else int(read * size)

        def whitening(size: int) -> float:
            cubes = WHITENING_BY_FEATURES if by_features else WHITENING
            return cubes * size**3 + EVOKED * size**2 * self.train.projection_dim

        whitened = self._ridges(self.n_subjects, size, whitening(size))
        white = {f"whitened {number}": whitened for number in range(n_white)}
        folds = self._ridges(self.n_subjects * n_folds, in_fold, whitening(in_fold) if n_white else 0.0, strengths=1)
        folds += Cost(0, n_folds * read * own["matrices"].seconds, 0)
        layer = 2 * self.n_rows * self.n_numbers * ALIGNMENT_SIZE * N_PASSES / FLOPS
        random = self.reading(N_PASSES) + self._ridges(1, min(ALIGNMENT_SIZE, int(self.n_rows))) + Cost(0, layer, 0)
        return {
            "per-subject ridge": own,
            "pooled whitened ridge": {**own, **white, SHARED_MAP: folds},
            "closed form": {**own, **white},
            "ridge, identity alignment": {},
            "ridge, random alignment": {"random": random},
        }[method]


def told(modality: str, costs: Sequence[Cost], processes: int = 1) -> str:
    """What baselines will cost, in a line."""
    size, n_ridges = max(cost.size for cost in costs), sum(cost.ridges for cost in costs)
    return (
        f"{modality}: fitting {_counted(len(costs), 'baseline')} ({_counted(n_ridges, 'ridge')}, matrices of up to "
        f"{size:,} x {size:,}, {4 * size**2 / 1e9:.1f} GB each) takes about "
        f"{sum(cost.seconds for cost in costs) / 60:.0f} min of one core. "
        + (f"{processes} processes share the work, each with its own matrices. " if processes > 1 else "")
        + "What is finished is kept if this is interrupted."
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
