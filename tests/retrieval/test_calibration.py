"""Temperature, confidence and calibration error: against slow computations, and on data with a known answer."""

import math

import numpy as np
import pytest

from neural_clip.errors import DataError
from neural_clip.retrieval import calibration
from neural_clip.retrieval.calibration import (
    calibration_error,
    calibration_record,
    cross_entropy_at,
    first_hits,
    fit_temperature,
    log_totals,
    n_bins_of,
    shares_of,
)
from neural_clip.retrieval.tiles import Vectors, unit_vectors
from neural_clip.retrieval.uncertainty import resampled_means
from slow_scores import cosine


def slow_error(confidence, right, n_bins):
    """Guo et al. 2017, equation 3, one bin after the other."""
    total = 0.0
    for number in range(n_bins):
        low, high = number / n_bins, (number + 1) / n_bins
        inside = [
            (c, r) for c, r in zip(confidence, right, strict=True) if low < c <= high or (number == 0 and c == 0)
        ]
        if inside:
            accuracy = sum(r for _, r in inside) / len(inside)
            mean = sum(c for c, _ in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean)
    return total


def slow_softmax(query, images, temperature):
    """Of images, each counted once."""
    kept = []
    for image in images:
        if not any((image == other).all() for other in kept):
            kept.append(image)
    total = sum(math.exp(temperature * cosine(query, image)) for image in kept)
    return [math.exp(temperature * cosine(query, image)) / total for image in images]


def slow_cross_entropy(cosines, true, temperature):
    found = 0.0
    for row, own in zip(cosines, true, strict=True):
        found -= math.log(math.exp(temperature * row[own]) / sum(math.exp(temperature * c) for c in row))
    return found / len(cosines)


def known(temperature, n_queries=1000, n_images=20, width=8, seed=0):
    """Queries whose right images are drawn with the very probabilities that a temperature gives them."""
    rng = np.random.default_rng(seed)
    images, queries = rng.standard_normal((n_images, width)), rng.standard_normal((n_queries, width))
    cosines = unit_vectors(queries) @ unit_vectors(images).T
    weights = np.exp(temperature * cosines)
    weights /= weights.sum(axis=1, keepdims=True)
    true = (weights.cumsum(axis=1) < rng.random((n_queries, 1))).sum(axis=1)
    return queries, images, true, cosines


@pytest.mark.parametrize(("n", "n_bins"), [(1, 1), (40, 2), (400, 15)])
def test_the_error_is_that_of_its_definition(n, n_bins):
    rng = np.random.default_rng(n)
    confidence, right = rng.random(n), (rng.random(n) < 0.4).astype(float)
    confidence[0] = 0.0
    confidence[n // 2 :: 7] = np.round(confidence[n // 2 :: 7] * n_bins) / n_bins  # on the edges of bins
    found = calibration_error(confidence, right, n_bins)
    assert found == pytest.approx(slow_error(confidence, right, n_bins), abs=1e-12) and 0 <= found <= 1


def test_errors_that_can_be_had_by_hand():
    assert calibration_error(np.array([0.9] * 10), np.array([1.0] * 9 + [0.0]), 15) == pytest.approx(0)
    assert calibration_error(np.array([1.0] * 4), np.zeros(4), 15) == 1
    # two bins that err in opposite directions do not cancel
    assert calibration_error(np.array([0.2, 0.2, 0.8, 0.8]), np.array([1, 1, 0, 0]), 2) == pytest.approx(0.8)
    assert [n_bins_of(n) for n in (1, 39, 40, 100, 299, 300, 10_000)] == [1, 1, 2, 5, 14, 15, 15]


def test_the_temperature_has_the_lowest_cross_entropy():
    """By trying them one after the other."""
    _, _, true, cosines = known(6.0, n_queries=60, n_images=7)
    found = fit_temperature(cosines, true)
    tried = np.linspace(max(found - 1, 0), found + 1, 81)
    entropies = [slow_cross_entropy(cosines, true, t) for t in tried]
    assert abs(tried[int(np.argmin(entropies))] - found) <= 0.025
    assert cross_entropy_at(cosines, true, found) == pytest.approx(slow_cross_entropy(cosines, true, found))
    assert cross_entropy_at(cosines, true, 0.0) == pytest.approx(math.log(7))


@pytest.mark.parametrize("temperature", [3.0, 12.0])
def test_a_known_temperature_is_found_and_is_calibrated_and_others_are_not(temperature):
    _, _, true, cosines = known(temperature)
    found = fit_temperature(cosines, true)
    assert found == pytest.approx(temperature, rel=0.1)
    queries, images, true, _ = known(temperature, seed=1)

    def error(t):
        confidence, right = first_hits(queries, images, true, np.full(len(queries), t))
        return calibration_record(confidence, right, range(len(queries)), 0)

    calibrated = error(found)
    assert calibrated["ece"] < 0.05 and calibrated["ece"] < 2 * calibrated["ece_by_chance"]
    assert abs(calibrated["right"] - calibrated["mean_confidence"]) < 0.04
    for wrong in (4 * found, found / 4):
        record = error(wrong)
        assert record["ece"] > 0.1 and record["ece_interval"][0] > 0.08 > 2 * record["ece_by_chance"]


def test_a_temperature_holds_for_galleries_of_other_sizes_where_noise_has_no_direction():
    """Predictions stray from the right embedding in all directions alike."""
    rng = np.random.default_rng(0)
    errors = {}
    images = unit_vectors(rng.standard_normal((400, 8)))
    queries = np.repeat(images, 4, axis=0) + 0.45 * rng.standard_normal((1600, 8))
    true = np.repeat(np.arange(400), 4)
    temperature = fit_temperature(unit_vectors(queries[:200]) @ images[:50].T, true[:200])
    for size in (10, 50, 400):
        rows = true < size
        confidence, right = first_hits(queries[rows], images[:size], true[rows], np.full(rows.sum(), temperature))
        errors[size] = abs(right.mean() - confidence.mean())
    assert max(errors.values()) < 0.08


def test_recordings_that_all_find_their_images_allow_no_certainty():
    """No temperature is the best then; Laplace's rule of succession says how sure so many images allow to be."""
    cosines = 0.2 + 0.6 * np.eye(12)
    probability = np.exp(fit_temperature(cosines, np.arange(12)) * cosines)
    probability /= probability.sum(axis=1, keepdims=True)
    assert probability.max(axis=1) == pytest.approx(13 / 14)


@pytest.mark.parametrize("kind", ["constant", "reversed", "shuffled"])
def test_what_tells_nothing_apart_is_not_sure(kind):
    rng = np.random.default_rng(0)
    cosines, true = 0.1 * rng.standard_normal((4000, 12)), rng.integers(0, 12, 4000)
    if kind == "constant":
        cosines[:] = 0.3
    if kind == "reversed":  # the right image is the last
        true = cosines.argmin(axis=1)
    found = fit_temperature(cosines, true)
    assert found == 0 if kind != "shuffled" else found < 0.5


def test_sums_are_those_of_all_images_each_counted_once(monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((40, 6))
    images[[7, 30, 31]] = images[2]
    images[[5]] = images[39]
    queries, temperatures = rng.standard_normal((5, 6)), np.array([0.0, 1.0, 20.0, 300.0, 1e6])
    shares = shares_of(images)
    assert shares[[2, 7, 30, 31]].tolist() == [0.25] * 4 and shares[[5, 39]].tolist() == [0.5] * 2
    assert shares.sum() == pytest.approx(36)
    monkeypatch.setattr(calibration, "BLOCK_IMAGES", 7)
    monkeypatch.setattr(calibration, "BLOCK_QUERIES", 2)
    totals = log_totals(Vectors(queries, "queries"), Vectors(images, "images"), temperatures, shares)
    for number in range(4):  # beyond, `math.exp` overflows
        expected = slow_softmax(queries[number], images, temperatures[number])
        cosines = np.array([cosine(queries[number], image) for image in images])
        assert np.allclose(np.exp(temperatures[number] * cosines - totals[number]), expected, rtol=1e-6)
    assert np.isfinite(totals).all()


def test_hits_that_tie_are_right_as_often_as_one_of_them_is():
    images = np.array([[1.0, 0], [0, 1], [0, 1], [1, 0]])  # of which two pairs are one image each
    queries = np.array([[1.0, 1], [0.1, 1], [0.1, 1], [0, 1]])
    confidence, right = first_hits(queries, images, np.array([0, 1, 2, 0]), np.full(4, 5.0))
    assert right.tolist() == [0.5, 1, 1, 0]
    assert confidence[0] == pytest.approx(0.5) and confidence[1] == confidence[2] > 0.9


def test_the_interval_covers_an_error_that_is_known(monkeypatch):
    """Stated 80 %, right 65 %: an error of 0.15, of images whose repeats rise and fall together."""
    monkeypatch.setattr(calibration, "N_DRAWS", 1)
    monkeypatch.setattr(calibration, "resampled_means", lambda *words: resampled_means(*words, n=400))
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        right = np.repeat(rng.random(80) < 0.65, 2).astype(float)
        found = calibration_record(np.full(160, 0.8), right, np.repeat(np.arange(80), 2).tolist(), seed)
        low, high = found["ece_interval"]
        covered += low <= 0.15 <= high
    assert covered >= 88


def test_a_record_holds_what_stands_beside_the_error():
    rng = np.random.default_rng(0)
    confidence = rng.random(200)
    right = (rng.random(200) < confidence).astype(float)
    units = np.repeat(np.arange(50), 4).tolist()
    found = calibration_record(confidence, right, units, 0)
    assert found == calibration_record(confidence, right, units, 0)
    assert found["n_bins"] == 10 and sum(part["n_queries"] for part in found["bins"]) == 200
    weighed = [part["n_queries"] * abs(part["right"] - part["confidence"]) for part in found["bins"]]
    assert sum(weighed) / 200 == pytest.approx(found["ece"])
    drawn = [slow_error(confidence, rng.random(200) < confidence, 10) for _ in range(100)]
    assert found["ece_by_chance"] == pytest.approx(np.mean(drawn), rel=0.1)
    assert calibration_record(confidence[:8], right[:8], units[:8], 0)["ece_interval"] is None
    with pytest.raises(DataError, match="one id for each"):
        calibration_record(confidence, right, units[:-1], 0)
