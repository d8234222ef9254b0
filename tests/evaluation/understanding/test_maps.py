"""Intervals of maps."""

import numpy as np
import pytest
from scipy.stats import t

from neural_clip.evaluation.understanding.maps import image_intervals

pytestmark = pytest.mark.numerical


def test_intervals_resample_images_not_recordings():
    rng = np.random.default_rng(0)
    by_image = rng.standard_normal((40, 3))
    ids = np.repeat([f"i{n:02d}" for n in range(40)], 6)
    low, high = image_intervals(np.repeat(by_image, 6, axis=0), ids, seed=0)
    once_low, once_high = image_intervals(by_image, ids[::6], seed=0)
    np.testing.assert_allclose([low, high], [once_low, once_high])  # copies of recordings add no certainty
    few_low, few_high = image_intervals(by_image[:6], ids[:36:6], seed=0)
    for width, values in ((high - low, by_image), (few_high - few_low, by_image[:6])):
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
        np.testing.assert_allclose(width, 2 * t.ppf(0.975, len(values) - 1) * error, rtol=0.12)
    assert np.isnan(image_intervals(by_image[:4], ids[:24:6], seed=0)).all()
