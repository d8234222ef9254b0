"""What linear baselines cost: how many ridges they fit, in how large matrices, and about how long that takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neural_clip.evaluation.baselines.closed_form_fit import MAX_WHITENED_SIZE, Way, n_components, size_of
from neural_clip.evaluation.baselines.linear import ALIGNMENT_SIZE, N_FOLDS
from neural_clip.evaluation.baselines.ridge import MAX_SIZE
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
    n_subjects, voxels, recording = len(subjects_of(train)), are_voxels(train), train.values([0])[0]
    reduced = n_components(train)
    n_features = recording.shape[0] * reduced or recording.size
    own = _one_ridge(len(train) / n_subjects, recording.size, n_features)
    for_all = ALIGNMENT_SIZE if voxels else n_features  # voxels are pooled behind projections only
    pooled = _one_ridge(len(train), recording.size, for_all)
    n_white = len(LEAST_SHRINKAGES) - 1
    white = n_white if size_of(Way(False, n_components=reduced), train) <= MAX_WHITENED_SIZE else 0
    folds = N_FOLDS * (1 if own.size > MAX_GRID_SIZE else 1 + white)
    counts = {  # ridges of single subjects, and of all
        "per-subject ridge": (n_subjects, 0),
        "pooled whitened ridge": (n_subjects * (1 + white + folds), 0) if voxels else (0, n_white + 1),
        "closed form": (n_subjects * (1 + white), 0) if voxels else (n_subjects, n_white + 1),
        "ridge, identity alignment": (0, 0 if voxels else 1),
        "ridge, random alignment": (0, 1),
    }
    single, together = counts[method]
    size = max(own.size if single else 0, pooled.size if together else 0)
    return Cost(single + together, single * own.seconds + together * pooled.seconds, size)


def _one_ridge(n_rows: float, n_numbers: int, n_features: int) -> Cost:
    """Of reading its rows, its matrix, and the factors of that."""
    n_rows = n_rows if n_features <= MAX_SIZE else min(n_rows, MAX_SIZE)
    size = min(n_rows, n_features)
    products = n_rows * n_features * size + N_FACTORED * size**3 / 3
    return Cost(1, N_PASSES * n_rows * n_numbers / NUMBERS + products / FLOPS, int(size))


def told(modality: str, costs: Sequence[Cost]) -> str:
    """What baselines will cost, in a line."""
    size, n_ridges = max(cost.size for cost in costs), sum(cost.ridges for cost in costs)
    return (
        f"{modality}: fitting {_counted(len(costs), 'baseline')} ({_counted(n_ridges, 'ridge')}, matrices of up to "
        f"{size:,} x {size:,}, {4 * size**2 / 1e9:.1f} GB each) takes about "
        f"{sum(cost.seconds for cost in costs) / 60:.0f} min of one core. What is finished is kept if this is "
        "interrupted."
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
