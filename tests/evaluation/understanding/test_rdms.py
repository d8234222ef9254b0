"""Maps of dissimilarities: means, ranks, kinds."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import squareform

from captured_figures import captured
from neural_clip.evaluation.understanding import (
    rdms as understanding_rdms,
)
from neural_clip.evaluation.understanding.rdms import draw_dissimilarities, main_kinds, mean_distances, rank_shares

pytestmark = pytest.mark.numerical


def test_mean_distances_equal_loops():
    rng = np.random.default_rng(0)
    members = [np.array([0, 2, 3]), np.array([0, 1, 3])]
    distances = [squareform(rng.random(3)) for _ in members]
    found = mean_distances(distances, members, 5)
    for i in range(5):
        for j in range(5):
            seen = [
                d[list(m).index(i), list(m).index(j)]
                for d, m in zip(distances, members, strict=True)
                if {i, j} <= {*m}
            ]
            if seen and i != j:
                assert found[i, j] == pytest.approx(np.mean(seen))
            else:
                assert np.isnan(found[i, j])
    assert np.isfinite(found).sum() == 10


def test_rank_shares_run_from_nearest_to_farthest_and_ties_share_one():
    distances = np.array([[np.nan, 3.0, 1.0], [3.0, np.nan, 7.0], [1.0, 7.0, np.nan]])
    # six distances, two by two: ranks 1.5, 3.5 and 5.5
    ranks = np.array([[np.nan, 3.5, 1.5], [3.5, np.nan, 5.5], [1.5, 5.5, np.nan]])
    np.testing.assert_allclose(rank_shares(distances), (ranks - 1.5) / 4)


def test_an_image_stands_under_its_most_frequent_category():
    part = SimpleNamespace(
        gallery_categories=[["dog", "animal"], ["animal"], ["zebra"], [], ["dog", "cat"], ["car"]],
        gallery_concepts=["a", "b", "c", "d", "e", "f"],
    )
    assert main_kinds(part, np.arange(5)) == ["animal", "animal", "zebra", "d", "dog"]
    assert main_kinds(part, np.array([0, 5])) == ["animal", "car"]  # a tie, by name


def test_maps_of_dissimilarities_show_ranks_and_name_kinds(monkeypatch, tmp_path):
    figures = captured(monkeypatch, understanding_rdms)
    rng = np.random.default_rng(0)
    maps = {name: squareform(rng.random(780)) + np.diag(np.full(40, np.nan)) for name in ("one", "two")}
    kinds = ["bird_of_prey"] * 20 + ["cat"] * 19 + ["an uncommonly long name"]
    draw_dissimilarities(maps, kinds, ("Title", "Note"), tmp_path / "x")
    (figure,) = figures
    for axes, (name, distances) in zip(figure.axes, maps.items(), strict=False):
        np.testing.assert_allclose(np.ma.filled(axes.images[0].get_array(), np.nan), rank_shares(distances))
        assert axes.get_title().startswith(name) and f"{np.nanmax(distances):.2f}" in axes.get_title()
    names = {label.get_text(): place for label, place in zip(figure.axes[0].get_yticklabels(),
             figure.axes[0].get_yticks(), strict=True)}  # fmt: skip
    assert names == {"bird of prey": 9.5, "cat": 29.0, "an uncommonly long …": 39.0}
    assert figure.axes[0].get_yticks(minor=True).tolist() == [19.5, 38.5]
