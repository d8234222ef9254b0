"""What stands beside a score: interval within the scale, p-value, unit of resampling."""

import numpy as np
import pytest

from neural_clip.scoring import score_record


def record(noise, n_images=10, **options):
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((n_images, 6))
    queries = gallery + noise * rng.standard_normal(gallery.shape)
    ids = [f"im{i}" for i in range(n_images)]
    return score_record(queries, gallery, ids, ids, seed=0, **options)


def test_intervals_hold_the_score_and_stay_on_the_scale():
    found, per_query = record(0.6)
    assert found["two_way"] == pytest.approx(per_query["two_way"].mean())
    for name, interval in found.items():
        if name.endswith("_interval") and interval is not None and "pools" not in name:
            score = found[name.removesuffix("_interval")]
            assert 0 <= interval[0] <= score <= interval[1] <= 1, name
    assert found["two_way_interval"][1] == 1.0  # ten images, nearly all right: the correction would lead beyond 1
    assert found["two_way_p"] < 0.01 and found["resampled_unit"] == "image"


def test_a_perfect_model_has_no_width_and_too_few_images_no_interval():
    assert record(0.0)[0]["two_way_interval"] == [1.0, 1.0]
    assert record(0.5, n_images=4)[0]["two_way_interval"] is None
    assert record(0.5, by_recording=True)[0]["resampled_unit"] == "recording"
