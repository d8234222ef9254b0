"""How many large arrays baselines hold at a time: matrices of people, and embeddings of images."""

import gc
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from neural_clip.evaluation.baselines import closed_form_fit, inputs, linear, ridge, strengths, tried, whitening
from neural_clip.evaluation.baselines.closed_form import undoing
from neural_clip.evaluation.baselines.linear import frozen_identity_alignment, per_subject_ridge, pooled_whitened_ridge
from neural_clip.evaluation.baselines.strengths import told_apart, with_unit_targets
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


def test_splits_share_the_images_at_unit_length_while_one_of_them_is_there():
    train, _, _ = people((8,))
    before = len(strengths._UNITS)
    first, other = with_unit_targets(train), with_unit_targets(replace(train, name="test"))
    assert first.data.images is other.data.images and len(strengths._UNITS) == before + 1
    np.testing.assert_allclose(np.linalg.norm(first.data.images.embeds, axis=1), 1)
    again = with_unit_targets(people((8,))[0])
    assert again.data.images is not first.data.images
    kept = strengths._UNITS[train.data.images]
    del first, other
    assert kept() is None
    assert with_unit_targets(train).data.images is not train.data.images


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_of_one_embedding_are_one(dtype):
    rng = np.random.default_rng(0)
    targets = rng.integers(-1, 2, (60, 3)).astype(dtype)  # many alike
    targets[targets == 0] *= rng.choice([-1, 1], (targets == 0).sum())  # 0.0 and -0.0
    ids = np.array([f"image{number:02d}" for number in rng.permutation(60)])
    split = split_of(np.zeros((60, 2, 2), np.float32), ["sub-01"] * 60, ids, targets)
    shown = split.shown_ids
    _, first, which = np.unique(split.data.images.of(shown).embeds, axis=0, return_index=True, return_inverse=True)
    expected = shown[first[which.ravel()]][np.searchsorted(shown, split.image_ids)]
    assert told_apart(split).tolist() == expected.tolist() and len(set(expected)) < 28


def test_embeddings_of_many_images_are_not_copied():
    embeds = np.random.default_rng(0).standard_normal((30_000, 64))
    ids = np.array([f"image{number:05d}" for number in range(len(embeds))])
    images = SimpleNamespace(embeds=embeds, rows_of=lambda names: np.arange(len(names)))
    split = SimpleNamespace(shown_ids=ids, image_ids=ids, data=SimpleNamespace(images=images))
    assert most_held(told_apart, split) < 0.7 * embeds.nbytes  # 3 times that by sorting them
    assert most_held(undoing, embeds) < 0.3 * embeds.nbytes
