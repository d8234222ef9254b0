"""What stands beside a score: interval within the scale, p-value, unit of resampling."""

import numpy as np
import pytest

from neural_clip.retrieval.scoring import compare_methods, score_record

pytestmark = pytest.mark.numerical


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


def test_intervals_for_other_people_are_wider_where_people_differ():
    rng = np.random.default_rng(3)
    gallery = rng.standard_normal((30, 6))
    noise = np.repeat([0.2, 1.0, 3.0], 30)[:, None]  # three people, from clear to noisy
    queries = np.tile(gallery, (3, 1)) + noise * rng.standard_normal((90, 6))
    ids = [f"im{i}" for i in range(30)]
    people = np.repeat(["a", "b", "c"], 30)

    def width(found, name):
        return found[name][1] - found[name][0]

    found, per_query = score_record(queries, gallery, ids * 3, ids, seed=0, groups=people)
    assert width(found, "two_way_interval_subjects_drawn") > 1.5 * width(found, "two_way_interval")
    low, high = found["top1_interval_subjects_drawn"]
    assert 0 <= low <= per_query["top1"].mean() <= high <= 1
    alone, _ = score_record(queries[:30], gallery, ids, ids, seed=0, groups=people[:30])
    assert "two_way_interval_subjects_drawn" not in alone


def test_methods_are_compared_on_the_same_queries():
    rng = np.random.default_rng(0)
    good, bad = rng.random(40), rng.random(40) / 2
    found = compare_methods(
        {"a": {"s": good}, "b": {"s": bad}, "c": {"s": good}}, [i // 2 for i in range(40)], ["s"], 0
    )
    assert [(part["method"], part["other"], part["score"]) for part in found] == [("a", "b", "s"), ("a", "c", "s")]
    assert found[0]["difference"] == pytest.approx((good - bad).mean()) and found[0]["p"] < 0.05
    assert (found[1]["difference"], found[1]["p"], found[1]["n_images"]) == (0, 1, 20)
    assert compare_methods({"a": {"s": good}, "b": {"s": bad}}, [i % 4 for i in range(40)], ["s"], 0) == []
