"""The metric against slow, independent computations, on random, tied, duplicated and constant embeddings."""

import itertools
import math
from pathlib import Path

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neural_clip.image_retrieval import (
    bootstrap_interval,
    chance_top_k,
    nearest_rows,
    permutation_p_value,
    retrieval_ranks,
    retrieval_scores,
    score_queries,
    top_k_credit,
    two_way_accuracy,
    unique_gallery,
    unit_vectors,
)

METRIC = Path(__file__).resolve().parents[1] / "src" / "neural_clip" / "image_retrieval.py"


def cosine(a, b):
    lengths = math.sqrt(math.fsum(float(x) ** 2 for x in a)) * math.sqrt(math.fsum(float(x) ** 2 for x in b))
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def greater(a, b):
    """1 if a > b, one half if they are equal up to rounding."""
    return 0.5 if abs(a - b) < 1e-9 else float(a > b)


def oracle(predictions, references, prediction_ids, reference_ids, classes=None):
    """Every score by loops over Python numbers; ties of top-k by going through all orders of the tied images."""
    gallery = {}
    for row, image_id in enumerate(reference_ids):
        gallery.setdefault(image_id, row)
    ids = list(gallery)
    scores = {name: [] for name in ("two_way", "two_way_image_to_neural", "top1", "top5", "class_top1", "class_top5")}
    for query, true in enumerate(prediction_ids):
        similarity = {i: cosine(predictions[query], references[gallery[i]]) for i in ids}
        scores["two_way"].append(np.mean([greater(similarity[true], similarity[i]) for i in ids if i != true]))
        others = [other for other, image_id in enumerate(prediction_ids) if image_id != true]
        columns = [cosine(predictions[other], references[gallery[true]]) for other in others]
        scores["two_way_image_to_neural"].append(np.mean([greater(similarity[true], value) for value in columns]))
        for k in (1, 5):
            scores[f"top{k}"].append(top_k_by_orders(similarity, {true}, k))
            if classes is not None:
                same = {i for i in ids if classes[gallery[i]] == classes[gallery[true]]}
                scores[f"class_top{k}"].append(top_k_by_orders(similarity, same, k))
    return {name: float(np.mean(values)) for name, values in scores.items() if values}


def top_k_by_orders(similarity, relevant, k):
    """Share of choices among images tied at the end of the list in which a relevant image is among the first k."""
    ordered = sorted(similarity, key=lambda i: -similarity[i])
    k = min(k, len(ordered))
    last = similarity[ordered[k - 1]]
    above = {i for i in ordered if similarity[i] > last + 1e-9}
    tied = [i for i in ordered if abs(similarity[i] - last) <= 1e-9]
    choices = list(itertools.combinations(tied, k - len(above)))
    return sum(bool(relevant & (above | set(choice))) for choice in choices) / len(choices)


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
    if kind == "duplicated":  # repeats of images, as trials have them, and two images that look alike
        rows = [0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9]
        references, ids, classes = references[rows], [ids[r] for r in rows], [classes[r] for r in rows]
        references[5] = references[6]
    if kind == "constant predictions":
        predictions[:] = predictions[0]
    if kind == "constant references":
        references[:] = references[0]
    if kind == "zero":
        predictions[:4], references[3] = 0, 0
    return predictions, references, ids, classes


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize(
    "kind", ["random", "tied", "duplicated", "constant predictions", "constant references", "zero"]
)
def test_every_score_equals_the_slow_computation(kind, dtype):
    predictions, references, ids, classes = case(kind, dtype)
    scores = retrieval_scores(predictions, references, ids, ids, classes)
    for name, value in oracle(predictions, references, ids, ids, classes).items():
        assert scores[name] == pytest.approx(value, abs=1e-9), name


def test_gallery_in_another_order_and_longer_than_the_queries():
    predictions, references = random_case(5)
    ids = [f"image{i}" for i in range(len(references))]
    queries, query_ids = predictions[[3, 1, 3]], ["image3", "image1", "image3"]
    order = np.random.default_rng(0).permutation(len(ids))
    scores = retrieval_scores(queries, references[order], query_ids, [ids[i] for i in order])
    for name, value in oracle(queries, references, query_ids, ids).items():
        assert scores[name] == pytest.approx(value, abs=1e-9), name
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
    for name in ("two_way", "two_way_image_to_neural", "top1", "top5", "class_top1", "class_top5"):
        # one list for all queries: the classes of its five images are one draw, chance is the mean over draws
        tolerance = 0.1 if name == "class_top5" and what == "predictions" else 1e-9
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
    similarity = np.array([[0.5, 1.0, 0.5, 0.0]])
    assert top_k_credit(similarity, np.array([[True, False, False, False]]), 2)[0] == 0.5  # one place, two tied


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
        ({"reference_ids": [0] * 14}, "share the image id 0"),
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


def test_blocks_do_not_change_anything(monkeypatch):
    predictions, references, ids, classes = case("duplicated", np.float64)
    whole = score_queries(predictions, references, ids, ids, classes)
    p_value = permutation_p_value(predictions, references, ids, ids, seed=1, n=50)
    monkeypatch.setattr("neural_clip.image_retrieval.BLOCK_BYTES", 200)
    for name, values in score_queries(predictions, references, ids, ids, classes).items():
        np.testing.assert_array_equal(values, whole[name])
    assert permutation_p_value(predictions, references, ids, ids, seed=1, n=50) == p_value


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), order_seed=st.integers(0, 100))
def test_order_of_rows_and_gallery_does_not_matter(seed, order_seed):
    predictions, references = random_case(seed)
    ids, classes = list(range(14)), [i % 3 for i in range(14)]
    before = retrieval_scores(predictions, references, ids, ids, classes)
    rng = np.random.default_rng(order_seed)
    rows, columns = rng.permutation(14), rng.permutation(14)
    after = retrieval_scores(predictions[rows], references[columns], rows, columns, [classes[i] for i in columns])
    assert after == pytest.approx(before)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), repeats=st.integers(2, 4))
def test_scale_and_repeated_queries_do_not_matter(seed, scale, repeats):
    predictions, references = random_case(seed)
    before = retrieval_scores(predictions, references)
    ids = np.tile(np.arange(14), repeats)
    after = retrieval_scores(np.tile(predictions, (repeats, 1)) * scale, np.tile(references, (repeats, 1)), ids, ids)
    for name in ("two_way", "two_way_image_to_neural", "top1", "top5", "mean_rank", "gallery_size"):
        assert after[name] == pytest.approx(before[name]), name


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


def test_evaluate_load_gives_the_same_scores():
    metric = evaluate.load(str(METRIC))
    predictions, references, ids, classes = case("duplicated", np.float32)
    expected = retrieval_scores(predictions, references, ids, ids, classes)
    got = metric.compute(
        predictions=predictions, references=references, prediction_ids=ids, reference_ids=ids, classes=classes
    )
    assert got == expected
    for start in range(0, 14, 5):
        metric.add_batch(predictions=predictions[start : start + 5], references=references[start : start + 5])
    assert metric.compute(reference_ids=ids, classes=classes) == expected
    with pytest.raises(ValueError, match="NaN"):
        metric.compute(predictions=predictions * np.nan, references=references)


def test_each_import_of_the_metric_stands_on_its_own_line():
    lines = [line for line in METRIC.read_text().splitlines() if line.startswith(("import ", "from "))]
    assert lines == ["import datasets", "import evaluate", "import numpy as np"]


def test_unit_vectors_survive_huge_and_tiny_numbers():
    rows = unit_vectors(np.array([[1e300, 1e300], [1e-300, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1.0, 1.0, 0.0])


def test_unique_gallery_keeps_first_rows_in_order():
    references = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    rows, columns = unique_gallery(references, ["b", "a", "b"])
    assert rows.tolist() == [0, 1] and columns == {"b": 0, "a": 1}


def test_nearest_rows_in_order_and_ties_by_position():
    gallery = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0], [5.0, 0.0]])
    assert nearest_rows(np.array([[3.0, 0.0]]), gallery, 4).tolist() == [[1, 3, 2, 0]]
    assert nearest_rows(np.array([[3.0, 0.0]]), gallery, 9).shape == (1, 4)


def test_bootstrap_resamples_images_not_trials():
    rng = np.random.default_rng(0)
    image_means = rng.uniform(0, 1, 60)
    values, images = np.repeat(image_means, 20), np.repeat(np.arange(60), 20)
    low, high = bootstrap_interval(values, images, seed=0)
    error = image_means.std(ddof=1) / math.sqrt(60)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)  # 20 repeats of an image carry no information
    assert low < values.mean() < high
    assert bootstrap_interval(values, images, seed=0) == (low, high)
    naive = bootstrap_interval(values, np.arange(len(values)), seed=0)
    assert naive[1] - naive[0] < 0.4 * (high - low)


def test_bootstrap_interval_covers_the_truth():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        values = np.repeat(rng.normal(0.3, 1.0, 50), 2)
        low, high = bootstrap_interval(values, np.repeat(np.arange(50), 2), seed=trial, n=400)
        covered += low < 0.3 < high
    assert 0.90 <= covered / 200 <= 0.985


def test_bootstrap_refuses_nan_and_wrong_lengths():
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval([0.1, np.nan], [0, 1], seed=0)
    with pytest.raises(ValueError, match="cluster_ids"):
        bootstrap_interval([0.1, 0.2], [0], seed=0)


def test_permutation_p_value_equals_shuffled_scores():
    predictions, references, ids, _ = case("duplicated", np.float64)
    unique = list(dict.fromkeys(ids))
    observed = two_way_of(predictions, references, ids, ids)
    rng = np.random.default_rng(3)
    reached = 0
    for _ in range(200):
        columns = rng.permutation(len(unique))[: len(unique)]
        shuffled = [unique[columns[unique.index(image_id)]] for image_id in ids]
        reached += two_way_of(predictions, references, shuffled, ids) >= observed - 1e-9
    p_value = permutation_p_value(predictions, references, ids, ids, seed=3, n=200)
    assert p_value == pytest.approx((1 + reached) / 201)


def two_way_of(predictions, references, prediction_ids, reference_ids):
    return retrieval_scores(predictions, references, prediction_ids, reference_ids)["two_way"]


@pytest.mark.parametrize("unit", ["image", "query"])
def test_permutation_p_values_are_uniform_without_signal_and_small_with_it(unit):
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(12), 2)
    images = rng.standard_normal((12, 6))
    null = [
        permutation_p_value(rng.standard_normal((24, 6)), images, ids, range(12), seed=i, n=99, unit=unit)
        for i in range(100)
    ]
    assert 0.4 < np.mean(null) < 0.6 and 0 < np.mean(np.array(null) <= 0.1) < 0.2
    signal = images[ids] + 0.5 * rng.standard_normal((24, 6))
    assert permutation_p_value(signal, images, ids, range(12), seed=0, n=99, unit=unit) == 0.01


def test_permutation_of_queries_stays_inside_groups():
    # each subject saw one category only: shuffling inside subjects can change nothing, so nothing is shown
    images = np.eye(2)
    ids, subjects = np.array([0] * 10 + [1] * 10), np.array(["a"] * 10 + ["b"] * 10)
    predictions = images[ids]
    arguments = (predictions, images, ids, [0, 1])
    assert permutation_p_value(*arguments, seed=0, n=99, unit="query") == 0.01
    assert permutation_p_value(*arguments, seed=0, n=99, unit="query", groups=subjects) == 1.0


def test_permutation_refuses_unknown_units():
    with pytest.raises(ValueError, match="'image' and 'query', but got 'trial'"):
        permutation_p_value(np.eye(2), np.eye(2), seed=0, unit="trial")
