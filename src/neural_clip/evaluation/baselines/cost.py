"""What linear baselines cost: how many ridges they fit, in how large matrices, and about how long that takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neural_clip.evaluation.baselines.closed_form_fit import MAX_WHITENED_SIZE, Way, n_components, size_of
from neural_clip.evaluation.baselines.linear import N_FOLDS
from neural_clip.evaluation.baselines.strengths import MAX_GRID_SIZE, are_voxels, subjects_of
from neural_clip.evaluation.baselines.whitening import LEAST_SHRINKAGES
from neural_clip.prepared.reader import Split

# Of one core of 2021 (AMD EPYC 7003), float32: products and factors of large matrices, and numbers read from disk,
# standardised and reduced.
FLOPS, NUMBERS = 7.5e10, 5e7
N_PASSES, N_FACTORED = 4, 5  # means, variances, components and the matrix; strengths


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


def cost_of(method: str, train: Split) -> Cost:
    """Cost of a baseline by its name in tables, on training rows; nothing where there are none."""
    if not len(train):
        return Cost(0, 0.0, 0)
    n_subjects, voxels = len(subjects_of(train)), are_voxels(train)
    numbers = train.values([0])[0].size
    alone = Way(False, n_components=n_components(train))
    own, all_rows = size_of(alone, train), size_of(Way(True, n_components=alone.n_components), train)
    one = _seconds(len(train) / n_subjects, numbers, own)
    together = _seconds(len(train), numbers, all_rows)
    n_white = len(LEAST_SHRINKAGES) - 1
    white = n_white if own <= MAX_WHITENED_SIZE else 0
    folds = N_FOLDS * (1 if own > MAX_GRID_SIZE else 1 + white)
    counts = {  # ridges of single subjects, and of all
        "per-subject ridge": (n_subjects, 0),
        "pooled whitened ridge": (n_subjects * (1 + white + folds), 0) if voxels else (0, n_white + 1),
        "closed form": (n_subjects * (1 + white), 0) if voxels else (n_subjects, n_white + 1),
    }
    single, pooled = counts.get(method, (0, 1))
    return Cost(single + pooled, single * one + pooled * together, all_rows if pooled else own)


def _seconds(n_rows: float, numbers: int, size: int) -> float:
    """Of a ridge: reading, the matrix, and its factors."""
    return N_PASSES * n_rows * numbers / NUMBERS + (n_rows * size**2 + N_FACTORED * size**3 / 3) / FLOPS


def told(modality: str, costs: Sequence[Cost]) -> str:
    """What baselines will cost, in a line."""
    size = max(cost.size for cost in costs)
    return (
        f"{modality}: {len(costs)} baselines fit {sum(cost.ridges for cost in costs)} ridges, in matrices of up to "
        f"{size:,} x {size:,} ({4 * size**2 / 1e9:.1f} GB each), in about "
        f"{sum(cost.seconds for cost in costs) / 60:.0f} min of one core. What is finished is kept if this is "
        "interrupted."
    )
