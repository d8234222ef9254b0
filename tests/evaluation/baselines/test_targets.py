"""Targets that are looked up by blocks: numbers and memory of all at once."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from neural_clip.evaluation.baselines import targets as module
from neural_clip.evaluation.baselines.closed_form_fit import aligned_fit, whitened_fits
from neural_clip.evaluation.baselines.strengths import with_unit_targets
from neural_clip.evaluation.baselines.targets import Targets
from neural_clip.evaluation.finished_parts import FinishedParts
from neural_clip.prepared.reader import Split
from planted_splits import planted

pytestmark = pytest.mark.numerical


def shown(n_images, n_rows, width, dtype):
    """A split of which only the images are there."""
    rng = np.random.default_rng(n_rows)
    embeds = rng.standard_normal((n_images, width)).astype(dtype)
    return SimpleNamespace(data=SimpleNamespace(images=SimpleNamespace(embeds=embeds)),
                           image_rows=rng.integers(0, n_images, n_rows))  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_rows", [1, 6, 7, 50])
def test_targets_by_blocks_are_those_of_all_rows_bit_for_bit(n_rows, dtype, monkeypatch):
    monkeypatch.setattr(module, "TARGET_ROWS", 7)
    split, rows = shown(9, 60, 5, dtype), np.random.default_rng(0).permutation(60)[:n_rows]
    every = split.data.images.embeds[split.image_rows[rows]]
    found = Targets.of(split, rows)
    np.testing.assert_array_equal(found.mean, every.mean(axis=0))
    expected = np.asarray(every - every.mean(axis=0), dtype=np.float32)
    np.testing.assert_array_equal(found.whole(), expected)
    np.testing.assert_array_equal(found[2:5], expected[2:5])
    other = every[0] * 0.3
    np.testing.assert_array_equal(found.sum(less=other), (every - other).sum(axis=0))
    assert found.whole().dtype == np.float32 and found.mean.dtype == dtype


def test_a_vector_for_each_row_is_not_held():
    split = shown(10, 100_000, 64, np.float64)
    tracemalloc.start()
    found = Targets.of(split, np.arange(100_000))
    found.sum(less=found.mean)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # of 51 MB


@pytest.mark.parametrize("kept", [False, True])
def test_pooled_ridges_never_ask_for_the_targets_of_all_rows(kept, tmp_path, monkeypatch):
    """One matrix in features, from the rows or from the matrices of people."""
    train, validation, _ = map(with_unit_targets, planted("sensors"))
    monkeypatch.setattr(Split, "targets", property(lambda split: pytest.fail("targets of all rows")))
    monkeypatch.setattr("neural_clip.evaluation.baselines.inputs.MAX_GRID_SIZE", 0)
    monkeypatch.setattr(Targets, "whole", lambda self, really=Targets.whole: (
        pytest.fail("targets of all people") if self.n_rows == len(train) else really(self)))  # fmt: skip
    parts = FinishedParts(tmp_path if kept else None)
    for fit in (aligned_fit(train, parts=parts), *whitened_fits(train, [0.1], parts)):
        assert fit.way.pooled and np.isfinite(fit.deviations(validation, [1.0])).all()
