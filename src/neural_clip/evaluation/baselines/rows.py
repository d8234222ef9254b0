"""The baselines of a decoding table, in its order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.closed_form import closed_form
from neural_clip.evaluation.baselines.linear import (
    frozen_identity_alignment,
    frozen_random_alignment,
    per_subject_ridge,
    pooled_whitened_ridge,
)
from neural_clip.evaluation.baselines.strengths import require_rows, subjects_of
from neural_clip.prepared.reader import Split

BASELINES: tuple[tuple[str, Callable[..., tuple[np.ndarray, dict[str, Any]]]], ...] = (
    ("per-subject ridge", per_subject_ridge),
    ("pooled whitened ridge", pooled_whitened_ridge),
    ("closed form", closed_form),
    ("ridge, identity alignment", frozen_identity_alignment),
    ("ridge, random alignment", frozen_random_alignment),
)

IDENTITY = "ridge, identity alignment"
# Ridges that are made from matrices of people: of each alone (False), of all together (True).
OF_SENSORS: dict[str, tuple[bool, ...]] = {
    "per-subject ridge": (False,), "pooled whitened ridge": (True,), "closed form": (False, True),
    IDENTITY: (True,), "ridge, random alignment": (True,),
}  # fmt: skip
OF_VOXELS = {name: (False,) for name in ("per-subject ridge", "pooled whitened ridge", "closed form")}


def not_refused(names: Sequence[str], train: Split, validation: Split, scored: Split) -> list[str]:
    """Baselines that can be fitted to these people and images, as far as is known before."""
    try:
        require_rows(train, validation)
    except DataError:
        return []
    try:
        subjects_of(train, validation, scored)
    except DataError:
        return [name for name in names if name == IDENTITY]
    return list(names)
