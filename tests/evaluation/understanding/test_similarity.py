"""Similarity of spaces: over images that both show, with the noise ceiling."""

import numpy as np
import pytest

from changed_splits import changed, with_images
from neural_clip.evaluation.understanding.rsa import dissimilarities
from neural_clip.evaluation.understanding.similarity import _noise_ceiling, across_modalities
from slow_scores import slow_ceiling

pytestmark = pytest.mark.numerical


def test_noise_ceiling_is_over_common_images_or_says_why_there_is_none():
    rng = np.random.default_rng(3)
    members = [np.arange(14), np.array([0, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13])]
    spaces = [{"encoder": dissimilarities(rng.standard_normal((len(m), 4)), "x")} for m in members]
    found = _noise_ceiling(spaces, members, "encoder", "images")
    cut = spaces[0]["encoder"][np.ix_(members[1], members[1])]
    lower, upper = slow_ceiling([cut, spaces[1]["encoder"]])
    assert found == {"lower": pytest.approx(lower), "upper": pytest.approx(upper), "n_subjects": 2, "n_images": 12}
    assert "each subject's own" in _noise_ceiling(spaces, members, "encoder", "recordings")["not_computed"]
    assert "One subject" in _noise_ceiling(spaces[:1], members[:1], "encoder", "images")["not_computed"]
    few = _noise_ceiling(spaces, [members[0], members[1] + 5], "encoder", "images")["not_computed"]
    assert few.startswith("7 images that all subjects saw; at least 10")
    flat = [spaces[0], {"encoder": np.zeros((12, 12))}]
    assert _noise_ceiling(flat, members, "encoder", "images") == {
        "not_computed": "All distances of one side are equal."
    }


def test_modalities_compare_only_over_shared_images(planted):
    _, _, splits = planted
    records = across_modalities(splits, 0)
    assert [(r["first"], r["second"]) for r in records] == [("eeg", "meg"), ("eeg", "fmri"), ("meg", "fmri")]
    assert all("different images (0 in common, 10 needed)" in r["not_computed"] for r in records)
    eeg = splits["eeg"]
    twin = changed(eeg, modality="meg")
    (record,) = across_modalities({"eeg": eeg, "meg": twin}, 0)
    assert (record["spearman"], record["n_images"]) == (pytest.approx(1), 14)
    # the same names for other images
    other = with_images(twin, lambda embeds: embeds[::-1])
    assert "0 in common" in across_modalities({"eeg": eeg, "meg": other}, 0)[0]["not_computed"]
