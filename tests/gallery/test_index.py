"""The approximate index: the same cosines, a recall that is measured right, and the same rows in every process."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from neural_clip import NeuralGallery
from neural_clip.errors import DataError
from second_process import python

K = 10


def clustered(n_rows, seed=0, width=24):
    """Unit vectors around 40 centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, width))
    found = centres[rng.integers(40, size=n_rows)] + 0.5 * rng.standard_normal((n_rows, width))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def gallery_of(vectors, dtype="float32"):
    return NeuralGallery.of_arrays("image", vectors, [f"im{i}" for i in range(len(vectors))], dtype=dtype)


@pytest.fixture(scope="module", params=["float32", "float16"])
def gallery(request):
    return gallery_of(clustered(3000), request.param)


def slow_nearest(queries, vectors, k):
    """Rows by float64 cosines, one query at a time."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return [np.argsort(-np.round(units @ (query / np.linalg.norm(query)), 9), kind="stable")[:k] for query in queries]


def test_scores_are_cosines_and_recall_is_what_it_says(gallery):
    indexed, vectors = gallery.with_index(recall=0.9, k=K), gallery.vectors.astype(np.float64)
    assert 0.9 <= indexed.index.recall <= 1 and indexed.index.searched < indexed.index.lists.nlist
    assert repr(indexed).startswith(f"NeuralGallery(3000 rows: image; 24 dimensions, {gallery.vectors.dtype}; Gallery")
    assert f"recall@10 {indexed.index.recall:.3f} of 256 of its own vectors" in repr(indexed)
    queries = clustered(400, seed=5)
    rows, cosines = indexed.search(queries, K)
    exact = slow_nearest(queries.astype(np.float64), vectors, K)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = queries / np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(cosines, np.einsum("qd,qkd->qk", asked, units[rows]), atol=1.01e-9)
    assert (np.diff(cosines, axis=1) <= 0).all()
    found = np.mean([len(set(ours) & set(theirs)) / K for ours, theirs in zip(rows, exact, strict=True)])
    assert abs(found - indexed.index.recall) < 0.05  # of other vectors of the same kind
    both = gallery.search(queries, K)
    same = (both[0] == rows).all(axis=1)
    np.testing.assert_array_equal(both[1][same], cosines[same])  # to the last digit where the rows are
    assert 0 < same.sum() < len(same)


def test_recall_is_that_of_a_slow_count(gallery):
    """Of the gallery's own vectors without themselves."""
    indexed, vectors = gallery.with_index(recall=0.8, k=3), gallery.vectors.astype(np.float64)
    chosen = np.sort(np.random.default_rng(0).choice(len(vectors), 256, replace=False))
    ours, _ = indexed.search(vectors[chosen], 4)
    theirs = slow_nearest(vectors[chosen], vectors, 4)
    shares = []
    for row, found, exact in zip(chosen, ours, theirs, strict=True):
        found, exact = ([one for one in rows if one != row][:3] for rows in (found, exact))
        shares.append(len(set(found) & set(exact)) / 3)
    assert indexed.index.recall == pytest.approx(np.mean(shares), abs=1e-12)


def test_the_fewest_lists_that_reach_the_recall_are_searched(gallery):
    """With one list fewer it is missed, by a slow count."""
    index, vectors = gallery.with_index(recall=0.9).index, gallery.vectors.astype(np.float64)
    fewer = replace(gallery, index=replace(index, searched=index.searched - 1))
    chosen = np.sort(np.random.default_rng(0).choice(len(vectors), 256, replace=False))
    ours, _ = fewer.search(vectors[chosen], K + 1)
    theirs = slow_nearest(vectors[chosen], vectors, K + 1)
    shares = [len(set(a) & set(b) - {row}) / K for row, a, b in zip(chosen, ours, theirs, strict=True)]
    assert index.searched > 1 and np.mean(shares) < 0.9 <= index.recall


def test_all_lists_find_all(gallery):
    indexed = gallery.with_index(recall=1.0, k=5)
    assert indexed.index.recall == 1.0 or indexed.index.searched == indexed.index.lists.nlist
    some = gallery.with_index(recall=0.5, k=5)
    assert some.index.searched <= indexed.index.searched and some.index.recall <= indexed.index.recall


@pytest.mark.parametrize("n_rows", [1, 2, 9, 10, 11])
def test_small_galleries_have_an_index_too(n_rows):
    """Recall is of all other rows where there are no more than ten."""
    gallery = gallery_of(clustered(n_rows))
    own, given = gallery.with_index(), gallery.with_index(clustered(4, seed=1))
    assert (own.index.k, given.index.k) == (min(10, n_rows - 1), min(10, n_rows))
    assert own.index.recall >= 0.95 and given.index.recall >= 0.95
    queries = clustered(5, seed=2)
    for one, other in zip(own.search(queries, 1), gallery.search(queries, 1), strict=True):
        assert one.shape == other.shape
    for one, other in zip(own.search(queries, n_rows), gallery.search(queries, n_rows), strict=True):
        np.testing.assert_array_equal(one, other)


def test_recall_is_measured_on_given_queries(gallery):
    far = np.random.default_rng(3).standard_normal((50, 24))  # nothing like the gallery
    own, given = gallery.with_index(recall=0.9), gallery.with_index(far, recall=0.9)
    assert "of 50 queries" in repr(given)
    rows, exact = given.search(far, K)[0], slow_nearest(far, gallery.vectors.astype(np.float64), K)
    found = np.mean([len(set(ours) & set(theirs)) / K for ours, theirs in zip(rows, exact, strict=True)])
    assert found == pytest.approx(given.index.recall, abs=1e-12) and given.index.searched > own.index.searched


def test_what_is_not_approximate_stays_exact(gallery):
    """Filters and joins drop the index; CSLS and a modality search all rows; more rows than lists hold are exact."""
    indexed, queries = gallery.with_index(recall=0.5), clustered(7, seed=8)
    assert indexed.filter(image_id=["im1", "im5"]).index is None
    assert indexed.add(gallery.filter(image_id="im7")).index is None
    handicap = np.zeros(len(gallery))
    for one, other in zip(indexed.search(queries, 5, handicap), gallery.search(queries, 5, handicap), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(indexed.search(queries, 2500), gallery.search(queries, 2500), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_process_makes_the_same_index(tmp_path):
    gallery = gallery_of(clustered(3000))
    queries = clustered(50, seed=6)
    np.savez(tmp_path / "arrays.npz", vectors=gallery.vectors, queries=queries)
    code = (
        "import sys, numpy as np, faiss\nfaiss.omp_set_num_threads(2)\nfrom neural_clip import NeuralGallery\n"
        "arrays = np.load(sys.argv[1])\n"
        "gallery = NeuralGallery.of_arrays('image', arrays['vectors'], [f'im{i}' for i in range(3000)],\n"
        "    dtype=str(arrays['vectors'].dtype)).with_index(recall=0.7)\n"
        "np.savez(sys.argv[2], *gallery.search(arrays['queries'], 10))\nprint(gallery.index)\n"
        "assert faiss.omp_get_max_threads() == 2\n"
    )
    done = python("-c", code, tmp_path / "arrays.npz", tmp_path / "found.npz")
    assert done.returncode == 0, done.stderr
    indexed = gallery.with_index(recall=0.7)
    assert done.stdout.strip() == repr(indexed.index)
    with np.load(tmp_path / "found.npz") as found:
        for name, ours in zip(found.files, indexed.search(queries, 10), strict=True):
            np.testing.assert_array_equal(found[name], ours)


def test_decoding_goes_through_the_index(images, world):
    part = world.data["eeg"].split("test")
    exact, indexed = images.decode(part, top_k=3), images.with_index(recall=1.0, k=3)
    indexed = replace(indexed, index=replace(indexed.index, searched=indexed.index.lists.nlist)).decode(part, top_k=3)
    np.testing.assert_array_equal(exact.rows, indexed.rows)
    np.testing.assert_array_equal(exact.scores, indexed.scores)
    images.with_index(images.filter(split=""))  # queries of the same space


@pytest.mark.parametrize(
    ("options", "message"),
    [({"recall": 0}, "'recall'"), ({"recall": 1.5}, "'recall'"), ({"k": 0}, "'k'"),
     ({"queries": np.ones((2, 3))}, "3 dimensions, but the gallery 24"),
     ({"queries": np.full((2, 24), np.nan)}, "finite")],
)  # fmt: skip
def test_wrong_wishes_are_told(gallery, options, message):
    with pytest.raises(DataError, match=message):
        gallery.with_index(**options)


def test_without_faiss_a_sentence_says_what_to_install(gallery, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(DataError, match=r"An index needs FAISS: pip install 'neural_clip\[gallery\]'"):
        gallery.with_index()
    assert gallery.search(clustered(1), 1)[0].shape == (1, 1)


def test_faiss_is_not_imported_before_it_is_needed():
    code = "import sys, neural_clip.gallery.neural_gallery\nassert 'faiss' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
