"""Intervals against their coverage and slow resampling, p-values against shuffled and flipped scores."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from scipy.stats import t

from neural_clip.errors import DataError
from neural_clip.retrieval import uncertainty
from neural_clip.retrieval.scores import retrieval_scores, score_queries, two_way
from neural_clip.retrieval.tiles import TIE_TOLERANCE, unit_vectors
from neural_clip.retrieval.uncertainty import bootstrap_interval, compare_paired, permutation_p_value

pytestmark = pytest.mark.numerical


def repeated_case():
    """Fourteen recordings of ten images."""
    rng = np.random.default_rng(3)
    rows = [0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9]
    references = rng.standard_normal((14, 5))
    predictions = references + rng.standard_normal((14, 5))
    return predictions, references[rows], [f"image{row}" for row in rows]


def crossed_values(rng, n_subjects, n_images, subject_sd, image_sd, noise_sd):
    """Values of every subject for every image with a true mean of 0, and the images and subjects of each."""
    table = subject_sd * rng.standard_normal((n_subjects, 1)) + image_sd * rng.standard_normal((1, n_images))
    table = table + noise_sd * rng.standard_normal(table.shape)
    return table.ravel(), np.tile(np.arange(n_images), n_subjects), np.repeat(np.arange(n_subjects), n_images)


def test_bootstrap_resamples_images_not_trials():
    rng = np.random.default_rng(0)
    image_means = rng.uniform(0, 1, 60)
    values, images = np.repeat(image_means, 20), np.repeat(np.arange(60), 20)
    low, high = bootstrap_interval(values, images, seed=0)
    error = image_means.std(ddof=1) / math.sqrt(60)
    assert high - low == pytest.approx(2 * t.ppf(0.975, 59) * error, rel=0.08)  # 20 repeats carry no information
    assert low < values.mean() < high
    assert bootstrap_interval(values, images, seed=0) == (low, high)
    assert bootstrap_interval(values, images, seed=1) != (low, high)
    naive = bootstrap_interval(values, np.arange(len(values)), seed=0)
    assert naive[1] - naive[0] < 0.4 * (high - low)


def test_bootstrap_equals_slow_resampling():
    rng = np.random.default_rng(2)
    images = np.array([0, 0, 0, 1, 2, 2, 3, 4, 4, 5])
    values = rng.exponential(size=10)
    means = []
    for _ in range(20_000):
        drawn = np.concatenate([values[images == image] for image in rng.integers(0, 6, 6)])
        means.append(drawn.mean())
    ends = np.quantile(means, [0.05, 0.95])
    stretch = t.ppf(0.95, 5) / 1.6448536 * math.sqrt(6 / 5)
    expected = values.mean() + stretch * (ends - values.mean())
    assert bootstrap_interval(values, images, seed=0, n=20_000, level=0.9) == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize(("noise", "wider"), [(1.0, 1.3), (5.0, 1.0)])
def test_crossed_width_follows_the_analysis_of_variance(noise, wider):
    values, images, people = crossed_values(np.random.default_rng(5), 6, 40, 0.4, 1.0, noise)
    table = values.reshape(6, 40)
    rows, columns = table.mean(1) - table.mean(), table.mean(0) - table.mean()
    cells = table - table.mean()
    by_image = 40 / 39 * (columns**2).sum() / 40**2
    by_person = 6 / 5 * (rows**2).sum() / 6**2
    add = max(by_person - 240 / 239 * (cells**2).sum() / 240**2, 0)
    df = (by_image + add) ** 2 / (by_image**2 / 39 + add**2 / 5)
    expected = 2 * t.ppf(0.975, df) * math.sqrt(by_image + add)
    low, high = bootstrap_interval(values, images, seed=0, n=10_000, subjects=people)
    assert high - low == pytest.approx(expected, rel=0.06)
    fixed = bootstrap_interval(values, images, seed=0)
    assert high - low > 0.95 * wider * (fixed[1] - fixed[0])


def test_crossed_draws_equal_slow_ones():
    values, images, people = crossed_values(np.random.default_rng(1), 3, 4, 1.0, 1.0, 1.0)
    kept = np.array([i for i in range(12) if i not in (2, 7, 8)])  # not every subject saw every image
    values, images, people = values[kept], images[kept], people[kept]
    found = uncertainty._crossed_resamples(values[:, None], images, people, 40_000, np.random.default_rng(0))
    rng, means = np.random.default_rng(1), []
    for _ in range(10_000):
        image_counts = np.bincount(rng.integers(0, 4, 4), minlength=4)
        person_counts = np.bincount(rng.integers(0, 3, 3), minlength=3)
        weights = image_counts[images] * person_counts[people]
        if weights.sum():
            means.append(np.average(values, weights=weights))
    expected = np.quantile(means, [0.05, 0.25, 0.5, 0.75, 0.95])
    np.testing.assert_allclose(np.quantile(found[:, 0], [0.05, 0.25, 0.5, 0.75, 0.95]), expected, atol=0.06)


def test_several_scores_share_the_draws_and_blocks_change_little(monkeypatch):
    values, images, people = crossed_values(np.random.default_rng(5), 6, 40, 0.4, 1.0, 1.0)
    both = np.stack([values, -values], axis=1)
    for subjects in (None, people):
        low, high = bootstrap_interval(both, images, seed=0, subjects=subjects)
        assert (low[0], high[0]) == pytest.approx(bootstrap_interval(values, images, seed=0, subjects=subjects))
        assert (low[1], high[1]) == pytest.approx((-high[0], -low[0]))
    whole = bootstrap_interval(values, images, seed=0)
    monkeypatch.setattr(uncertainty, "BLOCK_BYTES", 8 * 40 * 7)
    assert bootstrap_interval(values, images, seed=0) == pytest.approx(whole)


def test_values_that_do_not_vary_give_an_interval_of_no_width():
    for subjects in (None, [0, 1, 0, 1]):
        assert bootstrap_interval([0.5] * 4, [0, 0, 1, 1], seed=0, subjects=subjects) == pytest.approx((0.5, 0.5))


def coverage(design, n_trials, n=600):
    """Share of 95 % intervals that hold the true mean."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(n_trials):
        values, images, subjects, truth = design(rng)
        low, high = bootstrap_interval(values, images, seed=trial, n=n, subjects=subjects)
        covered += low <= truth <= high
    return covered / n_trials


def repeats_of_images(rng):
    """Shares of right answers, 4 trials an image, skewed towards 1 as 2-way scores of a good model are."""
    chances = rng.beta(4, 1, 50)
    return rng.binomial(20, np.repeat(chances, 4)) / 20, np.repeat(np.arange(50), 4), None, 0.8


def people_and_images(rng):
    return *crossed_values(rng, 10, 60, 0.3, 1.0, 1.0), 0.0


def noisy_trials(rng):
    """Single trials whose noise is far above what images and people add."""
    return *crossed_values(rng, 8, 60, 0.1, 0.3, 2.0), 0.0


def subjects_of_a_corpus(rng):
    """Four people, as in THINGS-MEG, who do not differ."""
    return *crossed_values(rng, 4, 100, 0.0, 1.0, 1.0), 0.0


def people_who_saw_different_images(rng):
    """Twelve people, each of whom saw about half of the images."""
    values, images, subjects, truth = *crossed_values(rng, 12, 60, 0.3, 1.0, 1.0), 0.0
    seen = rng.random(len(values)) < 0.5
    return values[seen], images[seen], subjects[seen], truth


def few_people(rng):
    """Four people who differ."""
    return *crossed_values(rng, 4, 100, 0.3, 1.0, 1.0), 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "design",
    [repeats_of_images, people_and_images, noisy_trials, subjects_of_a_corpus, people_who_saw_different_images],
)
def test_intervals_cover_the_truth(design):
    assert 0.92 <= coverage(design, 1200) <= 0.98  # standard error of the share: 0.006


@pytest.mark.slow
def test_four_people_who_differ_are_covered_as_far_as_the_docstring_says():
    assert 0.89 <= coverage(few_people, 1200) <= 0.96


def test_trials_taken_for_images_do_not_cover():
    def wrong(rng):
        values, images, _, truth = repeats_of_images(rng)
        return values, np.arange(len(images)), None, truth

    assert coverage(wrong, 150, n=300) < 0.85


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1, np.nan], [0, 1]), "'per_query'.*finite"),
        (([0.1, 0.2], [0]), "'image_ids'.*2 queries"),
        (([0.1, 0.2], [7, 7]), "'image_ids'.*1 units"),
        (([0.1, 0.2], [0, 1], 0, 10, 0.95, ["a", "a"]), "'subjects'"),
    ],
)
def test_input_that_does_not_fit_raises(arguments, message):
    values, images, *rest = arguments
    with pytest.raises(DataError, match=message):
        bootstrap_interval(values, images, *(rest or [0]))


def test_permutation_p_value_equals_shuffled_scores(monkeypatch):
    predictions, references, ids = repeated_case()
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
    monkeypatch.setattr(uncertainty, "BLOCK_BYTES", 1)  # one query at a time
    assert permutation_p_value(predictions, references, ids, ids, seed=3, n=200) == p_value


def test_permutation_among_shown_images_exchanges_these_alone():
    predictions, references, ids = repeated_case()
    unique = list(dict.fromkeys(ids))
    more = np.concatenate([references, np.random.default_rng(9).standard_normal((5, references.shape[1]))])
    gallery = [*ids, *(f"more {i}" for i in range(5))]
    observed = two_way_of(predictions, more, ids, gallery)
    rng = np.random.default_rng(3)
    reached = 0
    for _ in range(200):
        columns = rng.permutation(len(unique))
        shuffled = [unique[columns[unique.index(image_id)]] for image_id in ids]
        reached += two_way_of(predictions, more, shuffled, gallery) >= observed - 1e-9
    found = permutation_p_value(predictions, more, ids, gallery, seed=3, n=200, among_shown=True)
    assert found == pytest.approx((1 + reached) / 201)
    assert permutation_p_value(predictions, more, ids, gallery, seed=3, n=200) != found
    arguments = (predictions, references, ids, ids)  # without others in the gallery
    assert permutation_p_value(*arguments, seed=3, among_shown=True) == permutation_p_value(*arguments, seed=3)


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
    arguments = (images[ids], images, ids, [0, 1])
    assert permutation_p_value(*arguments, seed=0, n=99, unit="query") == 0.01
    assert permutation_p_value(*arguments, seed=0, n=99, unit="query", groups=subjects) == 1.0


def slow_permutation(predictions, references, columns, seed, n, unit, groups, among_shown):
    """All labels of all shuffles at once, and two searches of each cosine among those of its query."""
    rng, size = np.random.default_rng(seed), len(references)
    true = np.array(columns)
    if unit == "image":
        images, group = np.unique(true, return_inverse=True)
        pool = images if among_shown else np.arange(size)
        shuffled = [pool[rng.permutation(len(pool))[: len(images)]] for _ in range(n)]
        labels = np.stack([images, *shuffled])[:, group]
    else:
        names = np.zeros(len(true), int) if groups is None else np.unique(groups, return_inverse=True)[1]
        base, labels = np.argsort(names, kind="stable"), np.empty((1 + n, len(true)), np.int64)
        labels[0] = true
        for row in labels[1:]:
            row[base] = true[np.lexsort((rng.random(len(true)), names))]
    wins = unit_vectors(predictions) @ unit_vectors(references).T
    for row in wins:
        ordered = np.sort(row)
        less = np.searchsorted(ordered, row - TIE_TOLERANCE, side="left")
        not_greater = np.searchsorted(ordered, row + TIE_TOLERANCE, side="right")
        row[:] = two_way(size - not_greater, not_greater - less - 1, size - 1)
    totals = wins[np.arange(len(true)), labels].sum(axis=1)
    return (1 + np.count_nonzero(totals[1:] >= totals[0] - 1e-9 * len(true))) / (1 + n)


@pytest.mark.parametrize("unit", ["image", "query"])
@pytest.mark.parametrize("size", [12, 300])  # numbers of images in one byte, and in two
@pytest.mark.parametrize("tied", [False, True])
def test_permutation_p_values_are_those_of_all_labels_at_once(unit, size, tied):
    rng = np.random.default_rng(size)
    references = rng.standard_normal((size, 6))
    if tied:
        references = np.round(references)  # few directions, so that many images tie
    columns = rng.integers(0, size, 90)
    predictions = references[columns] * 0.2 + rng.standard_normal((90, 6))
    if tied:
        predictions = np.round(predictions)
    groups = rng.choice(["a", "b", "c"], 90)
    ids = [f"i{n}" for n in range(size)]
    for among_shown in (False, True):
        expected = slow_permutation(predictions, references, columns, 5, 300, unit, groups, among_shown)
        found = permutation_p_value(
            predictions, references, [ids[column] for column in columns], ids, seed=5, n=300, unit=unit,
            groups=groups, among_shown=among_shown,
        )  # fmt: skip
        assert found == expected and (tied or 1 / 301 <= found < 0.9)


@pytest.mark.parametrize("unit", ["image", "query"])
def test_labels_of_all_shuffles_take_little_memory(unit):
    """1,001 x 4,000 labels of eight bytes were 32 MB, and the copy that was indexed another."""
    n_queries, size = 4000, 40
    rng = np.random.default_rng(0)
    references, predictions = (rng.standard_normal((rows, 8), dtype=np.float32) for rows in (size, n_queries))
    columns = rng.integers(0, size, n_queries).tolist()
    tracemalloc.start()
    permutation_p_value(predictions, references, columns, range(size), seed=0, unit=unit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    labels = 1001 * n_queries if unit == "query" else 0  # of one byte
    assert peak < labels + 12e6


def test_draws_that_are_kept_are_those_of_each_call(monkeypatch):
    """The last draws serve the next scores of as many images; other seeds and numbers have their own."""
    rng = np.random.default_rng(0)
    values, images = rng.random(40), np.arange(40) % 8
    few, others = values[:6], np.arange(6)
    expected = [bootstrap_interval(*arguments) for arguments in
                ((values, images, 1), (values, images, 2), (few, others, 1), (values, images, 1, 500))]  # fmt: skip
    made, really = [], uncertainty._draws
    monkeypatch.setattr(uncertainty, "_draws", lambda *a: made.append(a[:2]) or really(*a))
    uncertainty._kept_draws.cache_clear()
    for _ in range(2):
        assert bootstrap_interval(values, images, 1) == expected[0]
    assert made == [(8, 2000)]
    assert bootstrap_interval(values, images, 2) == expected[1] != expected[0]
    assert bootstrap_interval(few, others, 1) == expected[2]
    assert bootstrap_interval(values, images, 1, 500) == expected[3]
    assert len(made) == 4
    monkeypatch.setattr(uncertainty, "BLOCK_BYTES", 1)  # too many to be kept
    for _ in range(2):
        bootstrap_interval(values, images, 1, 3)
    assert made[4:] == [(8, 1)] * 6


def test_permutation_refuses_unknown_units():
    with pytest.raises(DataError, match="'image' and 'query', but got 'trial'"):
        permutation_p_value(np.eye(2), np.eye(2), seed=0, unit="trial")


def test_flipped_signs_equal_all_flips():
    rng = np.random.default_rng(4)
    images = np.repeat(np.arange(8), 3)
    a, b = rng.standard_normal((2, 24))
    a += 0.3
    found = compare_paired(a, b, images, seed=0, n=20_000)
    sums = [math.fsum((a - b)[images == image]) for image in range(8)]
    flips = [
        abs(sum(s * x for s, x in zip(signs, sums, strict=True))) for signs in itertools.product((1, -1), repeat=8)
    ]
    assert found["p"] == pytest.approx(np.mean(np.array(flips) >= abs(sum(sums)) - 1e-9), abs=0.01)
    assert found["difference"] == pytest.approx(np.mean(a) - np.mean(b))
    assert found["interval"] == list(bootstrap_interval(a - b, images, 0, 20_000))
    assert (found["n_queries"], found["n_images"]) == (24, 8)


def test_paired_comparison_finds_what_unpaired_intervals_hide_and_no_more():
    rng = np.random.default_rng(0)
    images, people = np.tile(np.arange(60), 4), np.repeat(np.arange(4), 60)
    hard = rng.uniform(0, 1, 60)[images]  # images differ far more than checkpoints do
    better, worse = (hard + shift + 0.05 * rng.standard_normal(240) for shift in (0.03, 0.0))
    found = compare_paired(better, worse, images, seed=0)
    assert found["p"] < 0.01 and 0 < found["interval"][0] < 0.03 < found["interval"][1]
    ends = [bootstrap_interval(values, images, seed=0) for values in (better, worse)]
    assert ends[0][0] < ends[1][1]  # the intervals of the two overlap
    assert compare_paired(better, worse, images, seed=0, subjects=people)["interval"][0] > 0
    assert compare_paired(worse, worse, images, seed=0)["p"] == 1.0
    swapped = compare_paired(worse, better, images, seed=0)
    assert swapped["p"] == found["p"] and swapped["difference"] == pytest.approx(-found["difference"])
    null = [compare_paired(*rng.standard_normal((2, 60)), np.arange(60), seed=i, n=199)["p"] for i in range(100)]
    assert 0.4 < np.mean(null) < 0.6 and np.mean(np.array(null) <= 0.05) < 0.12


def shared_difficulty(rng):
    """Two checkpoints that are equal on average, four trials of each of 40 images."""
    images = np.repeat(np.arange(40), 4)
    hard, better = rng.standard_normal(40), 0.5 * rng.standard_normal(40)  # what helps the one hurts the other
    a, b = (hard[images] + sign * better[images] + rng.standard_normal(160) for sign in (1, -1))
    return a, b, images, None, 0.0


def constant_lead(rng):
    """The same, but the first leads by 0.3."""
    a, b, images, _, _ = shared_difficulty(rng)
    return a + 0.3, b, images, None, 0.3


def people_and_images_paired(rng):
    """Ten people, to some of whom the first checkpoint is better suited; it leads by 0.2 on average."""
    images, people = np.tile(np.arange(50), 10), np.repeat(np.arange(10), 50)
    shared = rng.standard_normal(50)[images]
    suited = 0.3 * rng.standard_normal(10)[people] + 0.5 * rng.standard_normal(50)[images]
    return shared + suited + 0.2 + rng.standard_normal(500), shared, images, people, 0.2


def equally_noisy_copies(rng):
    """2-way scores of two noisy copies of embeddings, two queries an image: no difference is expected."""
    embeds, ids = rng.standard_normal((40, 6)), np.repeat(np.arange(40), 2)
    a, b = (
        score_queries(
            embeds[ids] + rng.standard_normal((40, 6))[ids] + rng.standard_normal((80, 6)), embeds, ids, range(40)
        )["two_way"]
        for _ in range(2)
    )
    return a, b, ids, None, 0.0


def partly_replaced_copies(rng):
    """2-way scores of two copies in which the embedding of an image is another's with a known chance.

    A replaced one is as near to its image as to any other: it wins one half of the comparisons on average, a kept one
    all. The difference is half of that of the chances, whatever the images.
    """
    embeds, ids, scores = rng.standard_normal((40, 6)), np.repeat(np.arange(40), 2), []
    for chance in (0.2, 0.5):
        replaced = (rng.random(40) < chance)[ids]
        copy = np.where(replaced[:, None], rng.standard_normal((80, 6)), embeds[ids])
        scores.append(score_queries(copy, embeds, ids, range(40))["two_way"])
    return *scores, ids, None, 0.15


def paired_shares(design, n_trials, n=399):
    """Shares of intervals that hold the true difference and of p-values up to 0.05, and the mean difference."""
    rng = np.random.default_rng(0)
    found = []
    for trial in range(n_trials):
        a, b, images, subjects, truth = design(rng)
        record = compare_paired(a, b, images, seed=trial, n=n, subjects=subjects)
        low, high = record["interval"]
        found.append((low <= truth <= high, record["p"] <= 0.05, record["difference"]))
    return np.mean(found, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("design", "truth"),
    [
        (shared_difficulty, 0.0),
        (constant_lead, 0.3),
        (people_and_images_paired, 0.2),
        (equally_noisy_copies, 0.0),
        (partly_replaced_copies, 0.15),
    ],
)
def test_intervals_of_differences_cover_the_truth_and_p_values_keep_their_level(design, truth):
    covered, significant, difference = paired_shares(design, 1000)
    assert 0.92 <= covered <= 0.98
    assert difference == pytest.approx(truth, abs=0.015)
    if truth == 0:
        assert 0.03 <= significant <= 0.07  # standard error of the share: 0.007
    else:
        assert significant > 0.2


def test_trials_taken_for_images_find_differences_that_are_none():
    def wrong(rng):
        a, b, images, _, truth = shared_difficulty(rng)
        return a, b, np.arange(len(images)), None, truth

    covered, significant, _ = paired_shares(wrong, 150, n=199)
    assert covered < 0.88 and significant > 0.1


def test_paired_comparison_refuses_other_queries():
    with pytest.raises(DataError, match=r"'per_query_b'.*3 queries"):
        compare_paired([0.1, 0.2, 0.3], [0.1, 0.2], [0, 1, 2], seed=0)
