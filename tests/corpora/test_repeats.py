"""Means over repeats: a loop over the images as oracle, in the dtype of each corpus."""

import numpy as np
import pytest

from neural_clip.corpora.repeats import mean_of_repeats


def presentations(shown, n_values=7):
    values = np.random.default_rng(0).normal(3, 2, (len(shown), n_values)).astype(np.float32)
    return [
        {"image_id": image, "session": f"ses-{i // 4:02d}", "run": f"run-{i // 2:02d}", "trial": i, "n_repeats": 1,
         "meg": values[i]}
        for i, image in enumerate(shown)
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_means_equal_those_of_a_loop_and_come_at_the_last_presentation(dtype):
    shown = list("abcabdadbe")
    rows = presentations(shown)
    counts = {image: shown.count(image) for image in shown}
    before = [row["meg"].copy() for row in rows]
    found = list(mean_of_repeats(iter(rows), "meg", counts, dtype))
    assert [row["image_id"] for row in found] == list("cadbe")
    for row in found:
        own = [number for number, image in enumerate(shown) if image == row["image_id"]]
        total = np.zeros(7, dtype)
        for number in own:
            total = total + before[number].astype(dtype)
        np.testing.assert_array_equal(row["meg"], (total / dtype(len(own))).astype(np.float32))
        assert row["meg"].dtype == np.float32 and row["n_repeats"] == len(own) and row["trial"] == own[0]
    assert all(np.array_equal(row["meg"], values) for row, values in zip(rows, before, strict=True))


def test_session_and_run_stay_where_all_presentations_share_them():
    rows = presentations(list("aabbcxxcdyyd"))
    found = {row["image_id"]: row for row in mean_of_repeats(rows, "meg", dict.fromkeys("abcdxy", 2), np.float32)}
    assert (found["a"]["session"], found["a"]["run"]) == ("ses-00", "run-00")
    assert (found["c"]["session"], found["c"]["run"]) == ("ses-01", "")
    apart = list(mean_of_repeats([rows[0], rows[7] | {"image_id": "a"}], "meg", {"a": 2}, np.float32))
    assert (apart[0]["session"], apart[0]["run"]) == ("", "")


def test_an_image_is_given_out_as_soon_as_it_is_complete():
    def rows():
        yield from presentations(list("aba"))
        raise AssertionError("read too far")

    assert next(mean_of_repeats(rows(), "meg", {"a": 2, "b": 2}, np.float64))["image_id"] == "a"
