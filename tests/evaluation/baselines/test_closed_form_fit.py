"""How many large matrices baselines hold at a time."""

import gc
import tracemalloc

import numpy as np
import pytest

from neural_clip.evaluation.baselines import closed_form_fit, inputs, linear, ridge, strengths, tried, whitening
from neural_clip.evaluation.baselines.linear import frozen_identity_alignment, per_subject_ridge, pooled_whitened_ridge
from neural_clip.evaluation.finished_parts import FinishedParts
from planted_data import split_of

pytestmark = pytest.mark.numerical

ROWS, WIDTH = 500, 4  # of a person's training recordings; of embeddings


def people(shape, n_subjects=3):
    """Train, validation and test splits of noise in which some of the embedding is."""
    rng, splits = np.random.default_rng(0), []
    weights = rng.standard_normal((WIDTH, int(np.prod(shape))))
    for name, count in (("train", ROWS), ("validation", 12), ("test", 12)):
        targets = rng.standard_normal((n_subjects * count, WIDTH)).astype(np.float32)
        values = targets @ weights + 3 * rng.standard_normal((len(targets), weights.shape[1]))
        subjects = np.repeat([f"sub-{number}" for number in range(n_subjects)], count)
        ids = [f"{name}{number:05d}" for number in range(len(targets))]
        modality = "fmri" if len(shape) == 1 else "eeg"
        values = list(values.astype(np.float32).reshape(-1, *shape))
        splits.append(split_of(values, subjects, ids, targets, modality, name=name))
    return splits


@pytest.fixture
def large(monkeypatch):
    """Every matrix counts as large, blocks as small; what refers to itself is not collected meanwhile."""
    for module in (strengths, inputs, linear, tried):
        monkeypatch.setattr(module, "MAX_GRID_SIZE", 0)
    monkeypatch.setattr(closed_form_fit, "MAX_KEPT", 0)
    monkeypatch.setattr(whitening, "BLOCK_ROWS", 16)
    monkeypatch.setattr(ridge, "PANEL", 16)
    monkeypatch.setattr(strengths, "ROWS_LOOKED_AT", 16)
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def most_held(function, *given, **settings):
    """The most bytes that arrays take while a function runs."""
    tracemalloc.start()
    try:
        function(*given, **settings)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("fit", "shape", "n_matrices"),
    [
        (per_subject_ridge, (640,), 1),
        (pooled_whitened_ridge, (640,), 3),  # and none of the folds before
        (per_subject_ridge, (20, 24), 1),
        (frozen_identity_alignment, (20, 24), 2),  # the sum over people, and what one of them adds
        (pooled_whitened_ridge, (20, 24), 2),
    ],
)
def test_few_matrices_are_held_at_a_time(fit, shape, n_matrices, large, tmp_path):
    splits = people(shape)
    fit(*splits, parts=FinishedParts(tmp_path / "first"))  # what is imported
    size = min(ROWS, int(np.prod(shape)))
    most = most_held(fit, *splits, parts=FinishedParts(tmp_path / "second")) / (4 * size**2)
    assert most < n_matrices + 0.9
