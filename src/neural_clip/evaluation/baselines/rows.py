"""The baselines of a decoding table, in its order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from neural_clip.evaluation.baselines.closed_form import closed_form
from neural_clip.evaluation.baselines.linear import (
    frozen_identity_alignment,
    frozen_random_alignment,
    per_subject_ridge,
    pooled_whitened_ridge,
)

BASELINES: tuple[tuple[str, Callable[..., tuple[np.ndarray, dict[str, Any]]]], ...] = (
    ("per-subject ridge", per_subject_ridge),
    ("pooled whitened ridge", pooled_whitened_ridge),
    ("closed form", closed_form),
    ("ridge, identity alignment", frozen_identity_alignment),
    ("ridge, random alignment", frozen_random_alignment),
)
