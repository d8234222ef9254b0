"""The score that maps explain is that of the reports."""

import numpy as np
import pytest
import torch

from neural_clip.evaluation.understanding.attribution import TWO_WAY, pair_scores
from neural_clip.retrieval.scores import score_queries
from neural_clip.retrieval.tiles import unit_vectors


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [2, 3, 1000])  # few different values: many ties
def test_two_way_equals_that_of_retrieval(seed, levels):
    rng = np.random.default_rng([seed, levels])
    n_images, width = 12, 6
    gallery = rng.integers(-levels, levels + 1, (n_images, width)).astype(float)
    gallery[rng.integers(n_images, size=3)] = gallery[0]  # images that look alike
    columns = rng.permutation(np.concatenate([np.arange(n_images), rng.integers(n_images, size=20)]))  # repeats
    embeds = gallery[columns] + rng.integers(-levels, levels + 1, (len(columns), width))
    embeds[rng.random(embeds.shape) < 0.3] = 0.0  # masked
    embeds[:2] = 0.0  # without a direction
    found = pair_scores(
        torch.from_numpy(embeds), torch.from_numpy(columns), torch.from_numpy(unit_vectors(gallery)), TWO_WAY
    )
    expected = score_queries(embeds, gallery, columns, np.arange(n_images))
    assert expected["ties"].any() and 0 < expected["two_way"].mean() < 1
    np.testing.assert_allclose(found, expected["two_way"], rtol=0, atol=1e-12)
