"""Images of baselines: at unit length, told apart by their embeddings, without whole copies."""

import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from neural_clip.evaluation.baselines import strengths
from neural_clip.evaluation.baselines.strengths import told_apart, with_unit_targets
from planted_data import split_of
from planted_splits import planted

pytestmark = pytest.mark.numerical


def test_splits_share_the_images_at_unit_length_while_one_of_them_is_there():
    train, _, _ = planted("voxels")
    before = len(strengths._UNITS)
    first, other = with_unit_targets(train), with_unit_targets(replace(train, name="test"))
    assert first.data.images is other.data.images and len(strengths._UNITS) == before + 1
    np.testing.assert_allclose(np.linalg.norm(first.data.images.embeds, axis=1), 1)
    again = with_unit_targets(planted("voxels")[0])
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
    tracemalloc.start()
    told_apart(split)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 0.7 * embeds.nbytes  # 3 times that by sorting them


def test_folds_over_images_are_balanced_by_recordings():
    """The largest images are told apart by fold, and each fold has as many images as before, to one."""
    rng, wide = np.random.default_rng(5), []
    for trial in range(40):
        counts = np.r_[[60] * 5, rng.integers(1, 9, 15)]
        ids = rng.permutation(np.repeat([f"im{n:02d}" for n in rng.permutation(20)], counts))
        folds = strengths.image_folds(ids, 5)
        n_images = [len(set(ids[folds == fold].tolist())) for fold in range(5)]
        sizes = np.bincount(folds, minlength=5)
        wide.append(int(np.ptp(sizes)))
        assert n_images == [4] * 5 and len({(i, f) for i, f in zip(ids, folds, strict=True)}) == 20, trial
    assert max(wide) <= 8  # of 375 recordings; the largest of the small images


def test_images_shown_equally_often_keep_their_folds():
    ids = np.repeat([f"im{n:02d}" for n in range(23)], 3)
    order = np.random.default_rng(strengths.FOLD_SEED).permutation(23)
    np.testing.assert_array_equal(strengths.image_folds(ids, 5), np.repeat(order % 5, 3))
