"""Embedded splits: means over recordings of an image."""

import numpy as np
import pytest

from neural_clip.gallery.embedding import IMAGE_MEAN, SUBJECT_MEAN, aggregate

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
