"""Exact search by blocks against the slow definition of retrieval/scores.py."""

import numpy as np
import pytest

from neural_clip.gallery import search
from neural_clip.gallery.search import local_scaling, nearest_by_cosine
from neural_clip.retrieval.scores import nearest_rows
from neural_clip.retrieval.tiles import Vectors

pytestmark = pytest.mark.numerical


def planted(n, width, seed=0):
    rng = np.random.default_rng(seed)
    gallery = rng.standard_normal((n, width)) * rng.uniform(0.1, 30, (n, 1))
    queries = np.concatenate([rng.standard_normal((20, width)), gallery[:5] * 3])
    return queries.astype(np.float32), gallery.astype(np.float32)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("n", "k"), [(5000, 7), (2048, 1), (30, 30), (4097, 40)])
def test_the_order_is_that_of_float64(n, k, dtype):
    queries, gallery = planted(n, 24)
    gallery = gallery.astype(dtype)
    rows, cosines = nearest_by_cosine(Vectors(queries, "q"), Vectors(gallery, "g"), k)
    assert np.array_equal(rows, nearest_rows(queries, gallery, k))
    for query, found, scores in zip(queries.astype(float), rows, cosines, strict=True):
        chosen = gallery[found].astype(float)
        expected = chosen @ query / np.linalg.norm(chosen, axis=1) / np.linalg.norm(query)
        np.testing.assert_allclose(scores, expected, atol=1e-9)


def test_ties_stand_in_order_of_the_gallery_however_many_there_are(monkeypatch):
    """More equal rows than are kept of float32, in several blocks; those are decided in float64."""
    queries, gallery = planted(5000, 8)
    gallery[100:180] = gallery[2]
    gallery[4000:4040] = gallery[2] * 2
    asked = np.concatenate([gallery[2:3], queries])
    decided = []
    monkeypatch.setattr(
        search, "_exhaustive", lambda units, *more, real=search._exhaustive: decided.append(1) or real(units, *more)
    )
    rows, _ = nearest_by_cosine(Vectors(asked, "q"), Vectors(gallery, "g"), 6)
    assert rows[0].tolist() == [2, 100, 101, 102, 103, 104] and decided
    assert np.array_equal(rows, nearest_rows(asked, gallery, 6))


def test_rows_are_left_out_and_lowered():
    queries, gallery = planted(3000, 12)
    handicap = np.where(np.arange(3000) % 3 == 0, np.inf, np.linspace(0, 0.4, 3000))
    rows, cosines = nearest_by_cosine(Vectors(queries, "q"), Vectors(gallery, "g"), 4, handicap)
    assert (rows % 3 != 0).all()
    units = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (queries.astype(float), gallery)]
    values = units[0] @ units[1].T
    expected = np.argsort(-np.round(values - handicap, 9), axis=1, kind="stable")[:, :4]
    assert np.array_equal(rows, expected)
    np.testing.assert_allclose(cosines, np.take_along_axis(values, rows, axis=1), atol=1e-6)  # scores stay cosines


def test_local_scaling_is_half_the_mean_cosine_with_the_nearest_queries():
    queries, gallery = planted(2100, 6)
    found = local_scaling(Vectors(queries, "q"), Vectors(gallery, "g"), 3)
    for row in (0, 4, 1000, 2099):
        cosines = sorted(
            float(q @ gallery[row] / np.linalg.norm(q) / np.linalg.norm(gallery[row])) for q in queries.astype(float)
        )
        assert found[row] == pytest.approx(sum(cosines[-3:]) / 3 / 2, abs=1e-6)
