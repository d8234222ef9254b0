"""Embedded splits: means over recordings of an image."""

import tracemalloc

import numpy as np
import pytest

from neural_clip.gallery import embedding
from neural_clip.gallery.embedding import IMAGE_MEAN, SINGLE_TRIAL, SUBJECT_MEAN, aggregate
from neural_clip.retrieval.tiles import float32_units, unit_vectors

pytestmark = pytest.mark.numerical


def test_aggregate_averages_unit_vectors():
    embeds = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 5.0]])
    subjects, ids = np.array(["a", "a", "a", "b"]), np.array(["x", "x", "y", "x"])
    means, people, images = aggregate(embeds, subjects, ids, IMAGE_MEAN)
    assert (people.tolist(), images.tolist()) == (["a", "a", "b"], ["x", "y", "x"])
    np.testing.assert_allclose(means, [[0.5, 0.5], [1, 0], [0, 1]])
    means, people, images = aggregate(embeds, subjects, ids, SUBJECT_MEAN)
    assert (people.tolist(), images.tolist()) == (["all", "all"], ["x", "y"])
    np.testing.assert_allclose(means, [[1 / 3, 2 / 3], [1, 0]])


@pytest.mark.parametrize("level", [IMAGE_MEAN, SUBJECT_MEAN])
def test_means_are_those_of_one_sum_in_the_order_of_rows(level, monkeypatch):
    """Bit for bit, by blocks of five rows; some images were shown once, others many times."""
    monkeypatch.setattr(embedding, "MEAN_ROWS", 5)
    rng = np.random.default_rng(0)
    embeds = rng.standard_normal((200, 7), dtype=np.float32)
    subjects, ids = rng.choice(["a", "b", "c"], 200), np.array([f"i{n}" for n in rng.geometric(0.1, 200)])
    means, people, images = aggregate(embeds, subjects, ids, level)
    who = subjects if level == IMAGE_MEAN else np.full(200, "all")
    for mean, person, image in zip(means, people, images, strict=True):
        total = np.zeros(7)
        rows = np.flatnonzero((who == person) & (ids == image))
        for row in rows:
            total += unit_vectors(embeds)[row]
        np.testing.assert_array_equal(mean, total / len(rows))
    assert len(set(zip(people, images, strict=True))) == len(means) == len(set(zip(who, ids, strict=True)))


def test_no_second_copy_of_embeddings_is_made():
    """Unit vectors in float64 would be twice the embeddings."""
    embeds = np.random.default_rng(0).standard_normal((20_000, 64), dtype=np.float32)
    subjects, ids = np.full(len(embeds), "a"), (np.arange(len(embeds)) % 50).astype("<U2")
    tracemalloc.start()
    assert aggregate(embeds, subjects, ids, SINGLE_TRIAL)[0] is embeds
    aggregate(embeds, subjects, ids, IMAGE_MEAN)
    peaks = [tracemalloc.get_traced_memory()[1]]
    tracemalloc.reset_peak()
    found = float32_units(embeds)
    peaks.append(tracemalloc.get_traced_memory()[1] - found.nbytes)
    tracemalloc.stop()
    np.testing.assert_array_equal(found, unit_vectors(embeds).astype(np.float32))
    assert max(peaks) < 1.5 * embeds.nbytes, peaks
