"""The metric against slow, independent computations, on random, tied, duplicated and constant embeddings."""

import itertools
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopback_hub import LoopbackHub
from neural_clip.retrieval import scores as scores_module
from neural_clip.retrieval import tiles
from neural_clip.retrieval.image_retrieval import OPTIONAL
from neural_clip.retrieval.scores import (
    chance_top_k,
    nearest_rows,
    retrieval_ranks,
    retrieval_scores,
    score_queries,
    two_way_accuracy,
)
from neural_clip.retrieval.tiles import unit_vectors
from paths import REPOSITORY
from second_process import python

pytestmark = pytest.mark.numerical
METRIC = REPOSITORY / "src" / "neural_clip" / "retrieval" / "image_retrieval.py"
FOLDER = REPOSITORY / "metrics" / "image_retrieval"
KINDS = [
    "random", "tied", "duplicated", "duplicated and tied", "constant predictions", "constant references",
    "equal numbers", "zero", "nearly", "one ulp", "huge and tiny", "antipodal", "nearly zero",
]  # fmt: skip


def cosine(a, b):
    return math.fsum(x * y for x, y in zip(unit(a), unit(b), strict=True))


def pearson(a, b):
    a, b = ([x - math.fsum(v) / len(v) for x in v] for v in (unit(a), unit(b)))
    small = [max(map(abs, v)) < 1e-12 for v in (a, b)]
    return 0.0 if any(small) else cosine(a, b)


def greater(a, b):
    """1 if a > b, one half if they are equal up to rounding."""
    return 0.5 if abs(a - b) < 1e-9 else float(a > b)


def places(true, others):
    """All ranks that the true one may take among others when ties are put in any order."""
    above = sum(value > true + 1e-9 for value in others)
    tied = sum(abs(value - true) <= 1e-9 for value in others)
    return range(above, above + tied + 1)


def of_ranks(true, others, suffix=""):
    """Scores of one query from the similarities of its competitors, each a mean over its possible ranks."""
    ranks, size = list(places(true, others)), len(others) + 1
    found = {"mean_rank": np.mean(ranks), "n_ties": len(ranks) - 1}
    found["two_way"] = np.mean([greater(true, value) for value in others]) if others else 0.5
    for k in (1, 5, 10):
        found[f"top{k}"] = np.mean([rank < k for rank in ranks])
    found["mrr"] = np.mean([1 / (rank + 1) for rank in ranks])
    for k in (4, 10, 50, 100, 300):
        if k <= size:  # none of the better ones is among the k - 1 drawn
            drawn = [math.comb(size - 1 - rank, k - 1) / math.comb(size - 1, k - 1) for rank in ranks]
            found[f"top1_of_{k}"] = np.mean(drawn)
    return {f"{name}{suffix}": value for name, value in found.items()}


def oracle(predictions, references, prediction_ids, reference_ids, classes=None):
    """Every score by loops over Python numbers; ties of class top-k by going through all choices of tied images."""
    gallery = {}
    for row, image_id in enumerate(reference_ids):
        gallery.setdefault(image_id, row)
    ids, rows = list(gallery), []
    for query, true in enumerate(prediction_ids):
        similarity = {i: cosine(predictions[query], references[gallery[i]]) for i in ids}
        found = of_ranks(similarity[true], [similarity[i] for i in ids if i != true])
        same_image = [other for other, image_id in enumerate(prediction_ids) if image_id == true]
        column = [cosine(other, references[gallery[true]]) for other in predictions]
        others = [value for other, value in enumerate(column) if other not in same_image]
        found |= of_ranks(similarity[true], others, "_image_to_neural")
        found["two_way_permutation_expected"] = np.mean([greater(similarity[true], value) for value in column])
        r = {i: pearson(predictions[query], references[gallery[i]]) for i in ids}
        found["two_way_pearson"] = np.mean([greater(r[true], r[i]) for i in ids if i != true])
        found["two_way_pearson_strict"] = np.mean([greater(r[true], r[i]) == 1 for i in ids if i != true])
        found["n_ties_pearson"] = sum(greater(r[true], r[i]) == 0.5 for i in ids if i != true)
        if classes is not None:
            found |= class_scores(predictions[query], references, similarity, true, gallery, classes)
        rows.append(found)
    names = [name for name in rows[0] if all(name in row for row in rows)]  # enough competitors for every query
    return {name: float((np.sum if "n_ties" in name else np.mean)([row[name] for row in rows])) for name in names}


def class_scores(prediction, references, similarity, true, gallery, classes):
    """Class top-k of one query, by its nearest images and by the mean of the unit vectors of each class."""
    members = {}
    for image_id, row in gallery.items():
        members.setdefault(classes[row], []).append(image_id)
    own = classes[gallery[true]]
    found = {f"class_top{k}": top_k_by_choices(similarity, set(members[own]), k) for k in (1, 5, 10)}
    to_class = {}
    for name, images in members.items():
        units = [unit(references[gallery[image]]) for image in images]
        mean = [math.fsum(column) / len(units) for column in zip(*units, strict=True)]
        to_class[name] = 0.0 if max(map(abs, mean)) < 1e-12 else cosine(prediction, mean)
    ranks = places(to_class[own], [value for name, value in to_class.items() if name != own])
    return found | {f"class_prototype_top{k}": np.mean([rank < k for rank in ranks]) for k in (1, 5, 10)}


def unit(vector):
    largest = max(abs(float(x)) for x in vector) or 1.0  # squares of huge and tiny numbers leave the range
    length = math.sqrt(math.fsum((float(x) / largest) ** 2 for x in vector))
    return [float(x) / largest / length if length else 0.0 for x in vector]


def top_k_by_choices(similarity, relevant, k):
    """Share of choices among images tied at the end of the list in which a relevant image is among the first k."""
    ordered = sorted(similarity, key=lambda i: -similarity[i])
    k = min(k, len(ordered))
    last = similarity[ordered[k - 1]]
    above = {i for i in ordered if similarity[i] > last + 1e-9}
    tied = [i for i in ordered if abs(similarity[i] - last) <= 1e-9]
    choices = list(itertools.combinations(tied, k - len(above)))
    return sum(bool(relevant & (above | set(choice))) for choice in choices) / len(choices)


def assert_equals_oracle(scores, *case):
    expected = oracle(*case)
    assert len(expected) >= 20
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=1e-9), name


def random_case(seed, n=14, width=5, dtype=np.float64):
    rng = np.random.default_rng(seed)
    references = rng.standard_normal((n, width)).astype(dtype)
    predictions = (references + rng.standard_normal((n, width))).astype(dtype)
    return predictions, references


def case(kind, dtype):
    predictions, references = random_case(3, dtype=dtype)
    ids = [f"image{i}" for i in range(len(predictions))]
    classes = [i % 4 for i in range(len(predictions))]
    if kind == "tied":  # a grid of few directions: many exactly equal cosines, also between images
        predictions, references = np.sign(predictions), np.sign(references)
        references[:, 2:] = 0
    if kind.startswith("duplicated"):  # repeats of images, as trials have them, and two images that look alike
        rows = [0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9]
        references, ids, classes = references[rows], [ids[r] for r in rows], [classes[r] for r in rows]
        references[5] = references[6]
    if kind == "duplicated and tied":  # a few outputs for all recordings
        predictions = predictions[[0, 1, 2, 0, 1, 2, 2, 2, 1, 0, 5, 5, 5, 1]]
    if kind == "constant predictions":
        predictions[:] = predictions[0]
    if kind == "constant references":
        references[:] = references[0]
    if kind == "equal numbers":  # no variance over dimensions
        predictions[:5], references[2:4] = 0.1, 0.3
    if kind == "zero":
        predictions[:4], references[3] = 0, 0
    if kind == "nearly":  # differences that float32 products cannot tell from rounding
        references = (references[:1] + 1e-3 * references).astype(dtype)
        predictions = (predictions[:1] + 1e-3 * predictions).astype(dtype)
    if kind == "one ulp":  # neighbours among the numbers of this type, on either side
        references[1::3] = np.nextafter(references[::3][:5], dtype(9))
        references[2::3] = np.nextafter(references[::3][:4], dtype(-9))
        predictions = references.copy()
    if kind == "huge and tiny":
        powers = np.array({2: [-12, 0, 12], 4: [-110, 0, 120], 8: [-1000, 0, 1000]}[np.dtype(dtype).itemsize])
        predictions, references = (
            np.ldexp(x, powers[np.random.default_rng(0).integers(3, size=(14, 1))]) for x in (predictions, references)
        )
    if kind == "antipodal":
        references[7:] = -references[:7]
        predictions[::2] = -references[::2]
        predictions[1::2] = references[1::2]
    if kind == "nearly zero":  # all but one number is zero, and that one is the smallest there is
        predictions[::2], references[::3] = 0, 0
        predictions[::2, 1], references[::3, 2] = np.nextafter(dtype(0), dtype(1)), -np.nextafter(dtype(0), dtype(1))
    return predictions, references, ids, classes


@pytest.mark.parametrize("size", ["whole", "small", "entry by entry"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_every_score_equals_the_slow_computation(kind, dtype, size, monkeypatch):
    if size != "whole":  # tiles of a few rows and columns; near ties by a float64 product, or one by one
        for name, value in {"TILE_ROWS": 6, "TILE_COLUMNS": 5, "PART_ROWS": 4, "BLOCK_BYTES": 200}.items():
            monkeypatch.setattr(tiles, name, value)
    if size == "entry by entry":
        monkeypatch.setattr(tiles, "DENSE", 1)
    predictions, references, ids, classes = case(kind, dtype)
    scores = retrieval_scores(predictions, references, ids, ids, classes)
    assert_equals_oracle(scores, predictions, references, ids, ids, classes)


@settings(max_examples=30, deadline=None)
@given(
    numbers=st.lists(st.lists(st.integers(-2, 2), min_size=6, max_size=6), min_size=4, max_size=9),
    images=st.lists(st.integers(0, 3), min_size=9, max_size=9).filter(lambda x: len(set(x[:4])) > 1),
    dtype=st.sampled_from([np.float16, np.float32]),
)
def test_grids_full_of_ties_equal_the_slow_computation(numbers, images, dtype):
    grid, ids = np.array(numbers, dtype), images[: len(numbers)]
    references = grid[ids, 3:]  # repeats of an image have its embedding
    classes = [image // 2 for image in ids]
    scores = retrieval_scores(grid[:, :3], references, ids, ids, classes)
    assert_equals_oracle(scores, grid[:, :3], references, ids, ids, classes)


def test_images_of_a_class_that_cancel_leave_no_prototype():
    angles = np.radians([0, 120, 240, 45, 50, 300])
    references = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # the first three add up to rounding errors
    classes = [0, 0, 0, 1, 1, 2]
    assert 0 < np.abs(references[:3].sum(axis=0)).max() < 1e-12
    assert_equals_oracle(
        retrieval_scores(references, references, classes=classes), *[references] * 2, *[range(6)] * 2, classes
    )


@pytest.mark.parametrize("width", [3, 7, 50, 300])
def test_equal_numbers_have_no_pearson_correlation(width):
    rng = np.random.default_rng(width)
    references = rng.standard_normal((40, width))
    predictions = np.repeat(rng.uniform(0.1, 9, (40, 1)), width, axis=1)  # rounding leaves some variance
    found = score_queries(predictions, references)
    assert (found["two_way_pearson"] == 0.5).all() and (found["ties_pearson"] == 39).all()


@pytest.mark.parametrize("kind", ["wide", "one sign", "nearly"])
def test_float32_products_decide_as_float64_does(kind):
    rng = np.random.default_rng(4)
    references = rng.standard_normal((700, 300)).astype(np.float32)
    predictions = (references + 9 * rng.standard_normal((700, 300))).astype(np.float32)
    if kind == "one sign":  # rounding errors of equal sign add up
        predictions, references = (0.1 + 1e-6 * x for x in (predictions, references))
    if kind == "nearly":
        references[:350] = references[0] + 1e-5 * references[:350]
    found = score_queries(predictions, references)
    units = [x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
             for x in (predictions, references)]  # fmt: skip
    centred = [x - x.mean(axis=1, keepdims=True) for x in units]
    centred = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in centred]
    similarity, r = units[0] @ units[1].T, centred[0] @ centred[1].T
    for matrix, name in ((similarity, "two_way"), (similarity.T, "two_way_image_to_neural"), (r, "two_way_pearson")):
        np.testing.assert_allclose(found[name], two_way_by_rows(matrix), atol=1e-12)


def two_way_by_rows(matrix):
    true = np.diag(matrix)[:, None]
    return ((matrix < true - 1e-9).sum(1) + (np.abs(matrix - true) <= 1e-9).sum(1) / 2 - 0.5) / (len(matrix) - 1)


def test_gallery_in_another_order_and_longer_than_the_queries():
    predictions, references = random_case(5)
    ids = [f"image{i}" for i in range(len(references))]
    queries, query_ids = predictions[[3, 1, 3]], ["image3", "image1", "image3"]
    order = np.random.default_rng(0).permutation(len(ids))
    scores = retrieval_scores(queries, references[order], query_ids, [ids[i] for i in order])
    assert_equals_oracle(scores, queries, references, query_ids, ids)
    assert (scores["n_queries"], scores["gallery_size"], scores["n_unique_images"]) == (3, 14, 2)


@pytest.mark.parametrize("what", ["predictions", "references", "both", "zero"])
def test_constant_embeddings_score_chance(what):
    predictions, references = random_case(1, n=40, width=16, dtype=np.float32)
    rng = np.random.default_rng(0)
    classes = [i // 4 for i in range(40)]
    if what in ("predictions", "both"):
        predictions = np.tile(predictions[0], (40, 1)) * 2.0 ** rng.integers(-9, 9, (40, 1))  # exact in float32
    if what in ("references", "both"):
        references = np.tile(references[0], (40, 1))
    if what == "zero":
        predictions = np.zeros_like(predictions)
    scores = retrieval_scores(predictions, references, classes=classes)
    names = [name.removeprefix("chance_") for name in scores if name.startswith("chance_")]
    assert len(names) >= 30
    for name in names:
        if scores[name] is None:
            assert scores[f"chance_{name}"] is None
        elif name == "two_way_pearson_strict":  # a tie is a failure, as in its sources
            assert scores[name] <= 0.5
        else:
            # one list for all queries: the classes of its five images are one draw, chance is the mean over draws
            one_draw = what == "predictions" and name in ("class_top5", "class_top10")
            one_draw |= what == "references" and name == "two_way_permutation"
            tolerance = 0.15 if one_draw else 1e-9
            assert scores[name] == pytest.approx(scores[f"chance_{name}"], abs=tolerance), name


def test_perfect_and_worst_embeddings():
    references = np.eye(6)
    perfect = retrieval_scores(references, references)
    assert (perfect["two_way"], perfect["top1"], perfect["mean_rank"], perfect["n_ties"]) == (1.0, 1.0, 0.0, 0)
    worst = retrieval_scores(-references, references)
    assert (worst["two_way"], worst["top5"], worst["mean_rank"]) == (0.0, 0.0, 5.0)


def test_known_numbers_by_hand():
    # query at 0 degrees; its image at 60, others at 0 (nearer), 60 (tied) and 90 degrees: rank (1 + 3 - 1) / 2 = 1.5
    angles = np.radians([60.0, 0.0, -60.0, 90.0])
    references = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    scores = score_queries(np.array([[1.0, 0.0]]), references, ["a"], ["a", "b", "c", "d"])
    assert (scores["rank"][0], scores["ties"][0], scores["two_way"][0]) == (1.5, 1, 0.5)
    assert (scores["top1"][0], scores["top5"][0]) == (0.0, 1.0)
    assert scores["mrr"][0] == pytest.approx((1 / 2 + 1 / 3) / 2)  # second or third place
    assert scores["top1_of_4"][0] == 0.0  # the better one is always drawn


def test_a_tie_across_the_end_of_the_list_counts_in_part():
    references = np.eye(12)
    query = np.array([[0.5] * 8 + [1.0] * 4])  # 4 better, 8 tied: the first 5, 10 hold 1, 6 of the 8
    scores = score_queries(query, references, [0], range(12))
    assert (scores["top1"][0], scores["top5"][0], scores["top10"][0]) == (0.0, 1 / 8, 6 / 8)


def test_ranks_average_ties():
    similarity = np.array([[3.0, 3.0, 1.0, 3.0], [0.0, 1.0, 2.0, 3.0]])
    ranks, ties = retrieval_ranks(similarity, np.array([0, 3]))
    assert ranks.tolist() == [1.0, 0.0] and ties.tolist() == [2, 0]


def test_chance_is_the_mean_over_random_orders():
    rng = np.random.default_rng(0)
    hits = [bool(set(rng.permutation(30)[:5]) & {0, 1, 2}) for _ in range(20_000)]
    assert chance_top_k(3, 30, 5) == pytest.approx(np.mean(hits), abs=0.01)
    assert chance_top_k(1, 200, 1) == pytest.approx(0.005)
    assert chance_top_k(1, 200, 5) == pytest.approx(0.025)
    assert chance_top_k(2, 4, 5) == 1.0


def test_class_chance_counts_the_classes_of_this_gallery():
    predictions, references = random_case(2)
    scores = retrieval_scores(predictions, references, classes=[0] * 12 + [1, 2])
    assert scores["n_classes"] == 3
    assert scores["chance_class_top1"] == pytest.approx((12 * 12 + 1 + 1) / 14 / 14)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["predictions", "references"])
def test_non_finite_input_raises(bad, where):
    arrays = dict(zip(("predictions", "references"), random_case(0), strict=True))
    arrays[where][4, 2] = bad
    with pytest.raises(ValueError, match=rf"'{where}'.*row 4"):
        retrieval_scores(**arrays)


def test_all_nan_model_does_not_score():
    _, references = random_case(0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        retrieval_scores(np.full_like(references, np.nan), references)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction_ids": list(range(13))}, "one id for each of 14 rows"),
        ({"prediction_ids": [*range(13), 99], "reference_ids": list(range(14))}, "99"),
        ({"reference_ids": [0] * 14}, "Rows 0 and 1 share the image id 0"),
        ({"references": np.ones((14, 4))}, "5 dimensions, but references 4"),
        ({"references": np.ones(14)}, "got shape"),
        ({"classes": ["a"] * 3}, "'classes'"),
    ],
)
def test_input_that_does_not_fit_raises(change, message):
    predictions, references = random_case(0)
    with pytest.raises(ValueError, match=message):
        retrieval_scores(**({"predictions": predictions, "references": references} | change))


def test_one_image_of_two_classes_raises():
    references = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="two classes"):
        retrieval_scores(references, references, [0, 0, 1], [0, 0, 1], classes=["cat", "dog", "dog"])


def test_a_single_image_cannot_be_told_apart():
    with pytest.raises(ValueError, match="at least two different images"):
        retrieval_scores(np.ones((3, 2)), np.ones((3, 2)), [7, 7, 7], [7, 7, 7])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), order_seed=st.integers(0, 100))
def test_order_of_rows_and_gallery_does_not_matter(seed, order_seed):
    predictions, references = random_case(seed)
    ids, classes = list(range(14)), [i % 3 for i in range(14)]
    before = retrieval_scores(predictions, references, ids, ids, classes)
    rng = np.random.default_rng(order_seed)
    rows, columns = rng.permutation(14), rng.permutation(14)
    after = retrieval_scores(predictions[rows], references[columns], rows, columns, [classes[i] for i in columns])
    del before["two_way_permutation"], after["two_way_permutation"]  # another permutation of the queries
    assert after == pytest.approx(before)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), repeats=st.integers(2, 4))
def test_scale_and_repeated_queries_do_not_matter(seed, scale, repeats):
    predictions, references = random_case(seed)
    before = retrieval_scores(predictions, references)
    ids = np.tile(np.arange(14), repeats)
    after = retrieval_scores(np.tile(predictions, (repeats, 1)) * scale, np.tile(references, (repeats, 1)), ids, ids)
    # top-k seen from the image changes: more recordings compete there
    same = [
        name for name in before if "image_to_neural" not in name and "permutation" not in name and name[:2] != "n_"
    ]
    assert len(same) > 20
    for name in [*same, "two_way_image_to_neural", "n_unique_images"]:
        assert after[name] == pytest.approx(before[name]), name


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), extra=st.lists(st.integers(0, 13), min_size=1, max_size=9))
def test_repeated_rows_of_the_gallery_change_nothing(seed, extra):
    predictions, references = random_case(seed)
    classes = [i % 3 for i in range(14)]
    before = retrieval_scores(predictions, references, range(14), range(14), classes)
    rows = [*range(14), *extra]
    after = retrieval_scores(predictions, references[rows], range(14), rows, [classes[i] for i in rows])
    assert after == pytest.approx(before)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_monotone_transforms_and_repeated_columns_keep_two_way(seed):
    similarity = np.random.default_rng(seed).standard_normal((9, 9)).round(1)  # rounding makes ties
    ids = list(range(9))
    before = two_way_accuracy(similarity, ids, ids)
    assert two_way_accuracy(np.exp(similarity), ids, ids) == before
    assert two_way_accuracy(np.round(similarity * 10) ** 3, ids, ids) == before
    assert two_way_accuracy(np.tile(similarity, (1, 2)), ids, ids * 2) == pytest.approx(before)
    expected = [greater(similarity[i, i], similarity[i, j]) for i in ids for j in ids if i != j]
    assert before == pytest.approx(np.mean(expected))


def test_two_way_accuracy_refuses_nan():
    with pytest.raises(ValueError, match="finite"):
        two_way_accuracy(np.full((2, 2), np.nan), [0, 1], [0, 1])


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    return evaluate.load(str(FOLDER), cache_dir=str(tmp_path_factory.mktemp("cache")))


def near(scores):
    """The scores up to the order of sums, also those of each subject."""
    return {name: near(value) if isinstance(value, dict) else pytest.approx(value) for name, value in scores.items()}


@pytest.mark.parametrize("optional", ["none", "reference_ids", "both ids", "classes", "subjects", "all"])
@pytest.mark.parametrize("how", ["compute", "add_batch", "add", "add_batch then compute"])
def test_the_metric_gives_the_same_scores(metric, how, optional):
    predictions, references, ids, classes = case("duplicated", np.float32)
    given = {"reference_ids": ids, "prediction_ids": ids, "classes": classes, "subjects": [1, "2"] * 7}
    kept = {"none": (), "reference_ids": ("reference_ids",), "both ids": ("reference_ids", "prediction_ids"),
            "classes": ("reference_ids", "classes"), "subjects": ("subjects",), "all": tuple(given)}  # fmt: skip
    given = {name: given[name] for name in kept[optional]}
    expected = retrieval_scores(predictions, references, **given)
    if how == "compute":
        got = metric.compute(predictions=predictions, references=references, **given)
    elif how == "add":
        for i in range(14):
            values = {name: column[i] for name, column in given.items()}
            metric.add(prediction=predictions[i], reference=references[i], **values)
        got = metric.compute()
    else:
        streamed = given if how == "add_batch" else {}
        for rows in (slice(0, 5), slice(5, 10), slice(10, 14)):
            parts = {name: column[rows] for name, column in streamed.items()}
            metric.add_batch(predictions=predictions[rows], references=references[rows], **parts)
        got = metric.compute(**({} if streamed else given))
    assert got == near(expected)


def test_the_metric_refuses_what_it_cannot_score(metric):
    predictions, references = random_case(0)
    with pytest.raises(ValueError, match="NaN"):
        metric.compute(predictions=predictions * np.nan, references=references)
    metric.add_batch(predictions=predictions, references=references, classes=list(range(14)))
    metric.add_batch(predictions=predictions, references=references)
    with pytest.raises(ValueError, match="'classes' was given for 14 of 28 rows"):
        metric.compute()
    metric.add_batch(predictions=predictions, references=references, subjects=[1] * 14)
    with pytest.raises(ValueError, match="'subjects' was given with the batches and again"):
        metric.compute(subjects=[2] * 14)
    metric.add_batch(predictions=predictions, references=references)
    metric.add_batch(predictions=predictions[:, :3], references=references)
    with pytest.raises(ValueError, match="'predictions' have different lengths"):
        metric.compute()


def test_seed_reaches_the_permutation(metric):
    predictions, references = random_case(0)
    arguments = {"predictions": predictions, "references": references}
    found = {metric.compute(**arguments, seed=seed)["two_way_permutation"] for seed in range(8)}
    assert len(found) > 1
    assert metric.compute(**arguments, seed=3) == retrieval_scores(**arguments, seed=3)


PROGRAM = """
import json, sys
sys.modules["neural_clip"] = None  # cannot be imported
import evaluate, numpy as np
rng = np.random.default_rng(0)
images = rng.standard_normal((320, 8))
metric = evaluate.load(sys.argv[1], cache_dir=sys.argv[2])
scores = metric.compute(
    predictions=images + rng.standard_normal((320, 8)), references=images, classes=[f"c{i % 7}" for i in range(320)],
    subjects=[f"s{i % 3}" for i in range(320)],
)
print(json.dumps(scores, allow_nan=False))
"""


@pytest.fixture(scope="module")
def arrived(tmp_path_factory):
    """What a Hub on this machine holds after the command of the card, in a folder outside the repository."""
    (line,) = (line for line in (FOLDER / "README.md").read_text("utf-8").splitlines() if line.startswith("hf upload"))
    program, *order = line.replace("<user>", "lab").split()
    with LoopbackHub() as hub:
        surroundings = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_none",
                                     "HF_HOME": str(tmp_path_factory.mktemp("home"))}  # fmt: skip
        subprocess.run(
            [str(Path(sys.executable).parent / program), *order], env=surroundings, cwd=FOLDER.parents[1],
            capture_output=True, timeout=120, check=True,
        )  # fmt: skip
    (created,) = hub.created
    assert (created["type"], created["sdk"]) == ("space", "gradio")
    folder = tmp_path_factory.mktemp("arrived") / "image_retrieval"
    folder.mkdir()
    for name, content in hub.repositories["space", "lab/image_retrieval"]["files"].items():
        (folder / name).write_bytes(content)
    return folder


def test_the_whole_metric_arrives_on_the_hub(arrived):
    names = {path.name for path in arrived.iterdir()}
    code = {"image_retrieval.py", "scores.py", "task.py", "tiles.py"}
    assert names == {".gitattributes", "README.md", "app.py", "requirements.txt"} | code
    assert (arrived / "image_retrieval.py").read_bytes() == METRIC.read_bytes()  # the content, not the link


def test_front_matter_is_that_of_a_space(arrived):
    from huggingface_hub import SpaceCard

    card = SpaceCard.load(arrived / "README.md")
    about = card.data.to_dict()
    assert about["sdk"] == "gradio" and (arrived / about["app_file"]).is_file()
    assert re.fullmatch(r"[5-9]\.\d+\.\d+", about["sdk_version"])  # the first that accept numpy 2
    assert about["title"] and about["license"] == "apache-2.0" and {"evaluate", "metric"} <= set(about["tags"])
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {about["colorFrom"], about["colorTo"]} <= colours


STAND_IN = """
import json, sys
class Error(Exception): pass
class Field:
    def __init__(self, label, value=None): self.label, self.value = label, value
Textbox = JSON = Field
class Interface:
    def __init__(self, fn, inputs, outputs, title, article): self.fn, self.inputs, self.article = fn, inputs, article
    def launch(self):
        print(json.dumps([self.fn(*[field.value for field in self.inputs]), self.article]))
        print(json.dumps([field.label for field in self.inputs]))
        try: self.fn(*["[[1, NaN]]"] * 2, *[""] * 5)
        except Error as error: print(error)
"""


@pytest.mark.slow
def test_the_page_gives_the_scores_of_its_example(arrived, tmp_path):
    (tmp_path / "gradio.py").write_text("import sys\nsys.modules['neural_clip'] = None" + STAND_IN)
    surroundings = {"PATH": "", "PYTHONPATH": str(tmp_path), "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=arrived, env=surroundings, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    first, names, refused = done.stdout.splitlines()
    scores, article = json.loads(first)
    assert (scores["two_way"], scores["gallery_size"], scores["class_top1"]) == (1.0, 2, 1.0)
    assert article.startswith("\n# Metric card") or article.startswith("# Metric card")
    assert json.loads(names) == ["predictions", "references", *OPTIONAL, "seed"]
    assert "NaN or infinity" in refused


@pytest.mark.slow
def test_two_processes_print_identical_json_from_what_arrived(arrived, tmp_path):
    printed = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(arrived), str(tmp_path / f"cache{i}")],
            capture_output=True, text=True, check=True, cwd=tmp_path,
            env={"PATH": "", "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": str(i),
                 "OMP_NUM_THREADS": str(i + 1)},
        ).stdout
        for i in range(2)
    ]  # fmt: skip
    assert printed[0] == printed[1] and json.loads(printed[0])["top1_of_300_pools"] > 1 / 300


@pytest.mark.slow
def test_the_example_of_the_card_runs():
    code = (FOLDER / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    done = python("-c", code, cwd=FOLDER.parents[1])
    assert done.stdout.split() == ["1.0", "1.0", "0.5", "2"], done.stderr


def test_the_card_names_every_score():
    scores = retrieval_scores(*random_case(0, n=310), classes=[0] * 155 + [1] * 155)
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name in scores:
        stem = name.removesuffix("_image_to_neural").removeprefix("chance_").removesuffix("_interval")
        short = [f"`{tail}`" for tail in (stem[len("top1_of") :], stem[len("class_top") :], "_strict", "n_pools")]
        shown = f"`{stem}`" in card or any(part in card for part in short) or stem.startswith("class_prototype")
        assert shown, name


def test_permutation_2_way_follows_its_definition_and_its_expectation():
    predictions, references, ids, _ = case("duplicated", np.float64)
    found = score_queries(predictions, references, ids, ids, seed=5)["two_way_permutation"]
    order = np.random.default_rng(5).permutation(14)
    for i in range(14):
        true, other = cosine(references[i], predictions[i]), cosine(references[i], predictions[order[i]])
        assert found[i] == greater(true, other)
    draws = [retrieval_scores(predictions, references, ids, ids, seed=s)["two_way_permutation"] for s in range(400)]
    expected = retrieval_scores(predictions, references, ids, ids)["two_way_permutation_expected"]
    assert np.mean(draws) == pytest.approx(expected, abs=4 * np.std(draws) / 20)


def test_sampled_pools_agree_with_the_expectation_and_with_a_slow_count():
    predictions, references = random_case(7, n=330, width=24)
    ids = np.arange(330)
    twice = (np.tile(predictions, (2, 1)), np.tile(references, (2, 1)), [*ids, *ids], [*ids, *ids])
    for arguments in ((predictions, references), twice):
        scores = retrieval_scores(*arguments)
        for suffix in ("", "_image_to_neural"):
            low, high = scores[f"top1_of_300_pools{suffix}_interval"]
            assert low < scores[f"top1_of_300_pools{suffix}"] < high
        assert scores["top1_of_300_pools"] == pytest.approx(scores["top1_of_300"], abs=0.01)
    assert scores["n_pools"] == 30
    halves = retrieval_scores(np.concatenate([references, -references]), *twice[1:])
    assert halves["top1_of_300_pools"] == pytest.approx(0.5, abs=0.05)  # one of both queries of an image is drawn
    similarity = unit_vectors(predictions) @ unit_vectors(references).T
    rng, hits = np.random.default_rng(0), []
    for _ in range(60):
        pool = rng.choice(330, 300, replace=False)
        hits.append(np.mean(similarity[np.ix_(pool, pool)].argmax(axis=1) == np.arange(300)))
    assert scores["top1_of_300"] == pytest.approx(np.mean(hits), abs=0.005)


def test_the_interval_of_pools_is_that_of_their_mean(monkeypatch):
    """The scores of single pools are told by one pool more each time."""
    arguments, name, totals = random_case(7, n=330, width=24), "top1_of_300_pools", [0.0]
    for n_pools in range(1, 5):
        monkeypatch.setattr(scores_module, "N_POOLS", n_pools)
        found = retrieval_scores(*arguments)
        totals.append(n_pools * found[name])
    half = 1.96 * np.std(np.diff(totals)) / np.sqrt(4)
    assert half > 0
    assert found[f"{name}_interval"] == pytest.approx([found[name] - half, found[name] + half], rel=1e-9)


def test_pools_of_a_gallery_with_repeats_hold_the_same_images():
    predictions, references = random_case(8, n=310, width=24)
    twice = np.repeat(references, 2, axis=0), range(310), np.repeat(range(310), 2)
    assert retrieval_scores(predictions, *twice) == retrieval_scores(predictions, references)


def test_sampled_k_way_is_the_mean_over_drawn_distractors():
    predictions, references = np.sign(random_case(3, n=60, width=7))  # with ties
    similarity = unit_vectors(predictions) @ unit_vectors(references).T
    rng, hits = np.random.default_rng(0), []
    for _ in range(300):
        for i in range(60):
            drawn = similarity[i, rng.choice(np.delete(np.arange(60), i), 9, replace=False)]
            beaten = (drawn > similarity[i, i] + 1e-9).any()
            hits.append(0.0 if beaten else 1 / (1 + np.sum(np.abs(drawn - similarity[i, i]) < 1e-9)))
    assert retrieval_scores(predictions, references)["top1_of_10"] == pytest.approx(np.mean(hits), abs=0.01)


def test_a_gallery_too_small_is_not_scored():
    scores = retrieval_scores(*random_case(0))
    for name in ("top1_of_50", "top1_of_300", "top1_of_300_pools", "top1_of_300_image_to_neural"):
        assert scores[name] is None and scores[f"chance_{name}"] is None
    assert scores["top1_of_10"] is not None and scores["n_pools"] == 0


def test_means_of_subjects():
    predictions, references, ids, classes = case("duplicated", np.float64)
    people = np.array([0, 1] * 7)
    scores = retrieval_scores(predictions, references, ids, ids, classes, subjects=people)
    per_query = score_queries(predictions, references, ids, ids, classes)
    assert set(scores["subjects"]) == {"0", "1"}
    for person, means in scores["subjects"].items():
        rows = people == int(person)
        assert means["n_queries"] == rows.sum() and means["mean_rank"] == per_query["rank"][rows].mean()
        for name in ("two_way", "class_top5", "mrr_image_to_neural"):
            assert means[name] == pytest.approx(per_query[name][rows].mean())
    with pytest.raises(ValueError, match="'subjects'"):
        retrieval_scores(predictions, references, ids, ids, subjects=[1])


def test_each_import_of_the_metric_stands_on_its_own_line():
    lines = [line for line in METRIC.read_text().splitlines() if line.startswith(("import ", "from "))]
    installed = ("difflib", "json", "datasets", "evaluate", "numpy as np", "pyarrow as pa")
    assert lines[:6] == [f"import {name}" for name in installed]
    imported = {line.split()[1] for line in lines[6:]}
    assert imported == {".scores", ".task", ".tiles"} and not any("(" in line for line in lines)
    for name in imported:  # and these import nothing that `evaluate.load` would not find
        text = METRIC.with_name(f"{name[1:]}.py").read_text()
        ours = set(re.findall(r"^\s*from (\.\w+) import", text, flags=re.M))
        assert ours <= imported and "neural_clip" not in re.sub(r"\"\"\".*?\"\"\"", "", text, flags=re.S)


def test_unit_vectors_survive_huge_and_tiny_numbers():
    rows = unit_vectors(np.array([[1e300, 1e300], [1e-300, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1.0, 1.0, 0.0])


def test_nearest_rows_in_order_and_ties_by_position():
    gallery = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0], [5.0, 0.0]])
    assert nearest_rows(np.array([[3.0, 0.0]]), gallery, 4).tolist() == [[1, 3, 2, 0]]
    assert nearest_rows(np.array([[3.0, 0.0]]), gallery, 9).shape == (1, 4)
