"""Comparison of spaces by their dissimilarities, against scipy and slow computations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform
from scipy.stats import kstest, spearmanr

from neural_clip.errors import DataError
from neural_clip.evaluation.understanding import (
    rsa as understanding_rsa,
)
from neural_clip.evaluation.understanding.rsa import (
    RankedPairs,
    compare_spaces,
    dissimilarities,
    noise_ceiling,
    weighted_correlation,
)
from slow_scores import slow_ceiling

pytestmark = pytest.mark.numerical


def spearman(first, second, image_counts=None):
    """Spearman correlation of two matrices of distances as the package makes it, of one draw of images."""
    rows, columns = np.triu_indices(len(first), 1)
    counts = np.ones(len(first)) if image_counts is None else image_counts.astype(np.float64)
    pairs = counts[rows] * counts[columns]
    return weighted_correlation(RankedPairs.of(first).ranks(pairs), RankedPairs.of(second).ranks(pairs), pairs)


def test_distances_are_scipys():
    patterns = np.random.default_rng(0).standard_normal((7, 5))
    np.testing.assert_allclose(dissimilarities(patterns, "x"), squareform(pdist(patterns, "correlation")), atol=2e-9)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (np.zeros(4), r"shape \(2 or more images, 2 or more features\), but got \(4,\)"),
        (np.ones((4, 1)), r"but got \(4, 1\)"),
        (np.array([[1.0, 2], [3, np.nan]]), "1 of 2 patterns hold NaN or infinity, row 1 first"),
        (np.array([[1.0, 2], [3, 3], [0.1, 0.1]]), "2 of 3 patterns are constant, row 1 first"),
    ],
)
def test_patterns_without_distances_raise(patterns, message):
    with pytest.raises(DataError, match=f"space: {message}|space must have {message}|{message}"):
        dissimilarities(patterns, "space")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 12), st.booleans())
def test_spearman_equals_scipy_also_with_ties(seed, n, coarse):
    rng = np.random.default_rng(seed)
    first, second = (squareform(rng.random(n * (n - 1) // 2)) for _ in range(2))
    if coarse:
        first, second = np.round(4 * first), np.round(3 * second)
    upper = np.triu_indices(n, 1)
    expected = spearmanr(first[upper], second[upper]).statistic
    if np.ptp(first[upper]) == 0 or np.ptp(second[upper]) == 0:
        expected = np.nan
    np.testing.assert_allclose(spearman(first, second), expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_resampled_spearman_equals_writing_the_resample_out(seed, coarse):
    rng = np.random.default_rng(seed)
    first, second = (squareform(rng.random(36)) for _ in range(2))
    if coarse:
        first = np.round(3 * first)
    drawn = rng.integers(0, 9, size=9)
    pairs = [(a, b) for i, a in enumerate(drawn) for b in drawn[i + 1 :] if a != b]
    sides = [[matrix[pair] for pair in pairs] for matrix in (first, second)]
    expected = spearmanr(*sides).statistic if all(np.ptp(side) > 0 for side in sides) else np.nan
    np.testing.assert_allclose(spearman(first, second, np.bincount(drawn, minlength=9)), expected, atol=1e-12)


def random_spaces(seed, n=16, n_subjects=2):
    rng = np.random.default_rng(seed)
    return [{name: dissimilarities(rng.standard_normal((n, 6)), name) for name in "ab"} for _ in range(n_subjects)]


def test_identical_spaces_agree_fully_and_surely():
    spaces = [{"a": part["a"], "b": part["a"]} for part in random_spaces(0)]
    (record,) = compare_spaces(spaces, [np.arange(16)] * 2, [("a", "b")], 16, seed=0)
    assert record["spearman"] == pytest.approx(1) and record["p"] == pytest.approx(1 / 1001)
    assert record["interval"] == pytest.approx([1, 1]) and record["subjects"][1]["spearman"] == pytest.approx(1)


def test_unrelated_spaces_have_uniform_p_values(monkeypatch):
    monkeypatch.setattr(understanding_rsa, "PERMUTATIONS", 99)
    monkeypatch.setattr(understanding_rsa, "RESAMPLES", 100)
    records = [
        compare_spaces(random_spaces(seed), [np.arange(16)] * 2, [("a", "b")], 16, seed)[0] for seed in range(50, 110)
    ]
    assert abs(np.mean([record["spearman"] for record in records])) < 0.05
    assert kstest([record["p"] for record in records], "uniform").pvalue > 0.01
    # copies of an image, if their distance 0 counted, would lift every resample far above 0
    covered = [record["interval"][0] <= 0 <= record["interval"][1] for record in records]
    assert np.mean(covered) > 0.85
    assert abs(np.mean([np.mean(record["interval"]) for record in records])) < 0.05


def test_interval_and_p_equal_a_slow_computation(monkeypatch):
    monkeypatch.setattr(understanding_rsa, "PERMUTATIONS", 150)
    monkeypatch.setattr(understanding_rsa, "RESAMPLES", 60)
    n, members = 14, [np.arange(14), np.array([1, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13])]
    rng = np.random.default_rng(1)
    spaces = []
    for member in members:
        patterns = rng.standard_normal((len(member), 6))
        near = patterns + 1.5 * rng.standard_normal(patterns.shape)
        spaces.append({"a": dissimilarities(patterns, "a"), "b": dissimilarities(near, "b")})
    (record,) = compare_spaces(spaces, members, [("a", "b")], n, seed=5)

    def correlations(rows_of):
        values = []
        for space, member in zip(spaces, members, strict=True):
            upper = np.triu_indices(len(member), 1)
            rows = rows_of(member)
            values.append(spearmanr(space["a"][np.ix_(rows, rows)][upper], space["b"][upper]).statistic)
        return values

    observed = correlations(lambda member: np.arange(len(member)))
    assert record["spearman"] == pytest.approx(np.mean(observed))
    assert [part["spearman"] for part in record["subjects"]] == pytest.approx(observed)
    draws = np.random.default_rng([5, 1]).multinomial(n, np.full(n, 1 / n), size=60)
    resampled = [
        np.mean([spearman(s["a"], s["b"], counts[m]) for s, m in zip(spaces, members, strict=True)])
        for counts in draws
    ]
    assert record["interval"] == pytest.approx(np.quantile(resampled, [0.025, 0.975]))
    shuffles, reached = np.random.default_rng([5, 2]), np.zeros(3)
    for _ in range(150):
        keys = shuffles.random(n)
        values = correlations(lambda member, keys=keys: np.argsort(keys[member]))
        reached += np.array([*values, np.mean(values)]) >= np.array([*observed, np.mean(observed)])
    expected = (1 + reached) / 151
    assert [*(part["p"] for part in record["subjects"]), record["p"]] == pytest.approx(expected)
    assert 1 / 151 < max(expected) < 1


def test_a_collapsed_space_has_no_correlation():
    spaces = random_spaces(0)
    spaces[0]["b"] = np.zeros((16, 16))
    (record,) = compare_spaces(spaces, [np.arange(16)] * 2, [("a", "b")], 16, seed=0)
    assert record["spearman"] is None and record["p"] is None and record["subjects"][0]["interval"] is None
    assert record["subjects"][1]["spearman"] is not None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(5, 9), st.booleans())
def test_noise_ceiling_equals_loops_also_with_ties(seed, n_subjects, n_images, coarse):
    rng = np.random.default_rng(seed)
    shared = rng.random(n_images * (n_images - 1) // 2)
    distances = [squareform(shared + rng.random(len(shared))) for _ in range(n_subjects)]
    if coarse:
        distances = [np.round(4 * matrix) for matrix in distances]
    assert noise_ceiling(distances) == pytest.approx(slow_ceiling(distances), abs=1e-12)


def test_noise_ceiling_holds_what_the_true_space_reaches():
    rng, found = np.random.default_rng(0), []
    for _ in range(30):
        truth = rng.random(190)
        subjects = [squareform(truth + 0.4 * rng.standard_normal(190)) for _ in range(5)]
        reached = np.mean([spearman(subject, squareform(truth)) for subject in subjects])
        found.append([*noise_ceiling(subjects), reached])
    lower, upper, reached = np.mean(found, axis=0)
    assert 0 < lower < reached < upper and upper - lower < 0.2


def test_noise_ceiling_at_its_ends():
    one, two = (squareform(np.random.default_rng(seed).random(45)) for seed in (0, 1))
    assert noise_ceiling([one, one, one]) == pytest.approx((1, 1))
    assert noise_ceiling([one, two])[0] == pytest.approx(spearman(one, two))
    assert np.isnan(noise_ceiling([one, np.zeros((10, 10))])[0])
    with pytest.raises(DataError, match="2 or more subjects, but got 1"):
        noise_ceiling([one])
