"""Attribution by occlusion and gradients, against explicit loops and integrals."""

import numpy as np
import pytest
import torch

from neural_clip.errors import DataError
from neural_clip.evaluation.understanding.attribution import (
    MARGIN,
    TWO_WAY,
    Scorer,
    pair_scores,
    split_half,
    training_mean,
)
from neural_clip.prepared.reader import PreparedSet
from neural_clip.retrieval.scores import score_queries
from neural_clip.retrieval.tiles import unit_vectors

pytestmark = pytest.mark.numerical

pytest.importorskip("captum")


def slow_cosine(first, second):
    return float(first @ second) / float(np.sqrt(first @ first) * np.sqrt(second @ second))


def slow_margin(embed, column, gallery):
    others = [slow_cosine(embed, image) for number, image in enumerate(gallery) if number != column]
    return slow_cosine(embed, gallery[column]) - sum(others) / len(others)


def slow_two_way(embed, column, gallery):
    own = slow_cosine(embed, gallery[column])
    others = [slow_cosine(embed, image) for number, image in enumerate(gallery) if number != column]
    return float(np.mean([1.0 if own > other else 0.5 if own == other else 0.0 for other in others]))


def test_scores_equal_loops_and_ties_count_half():
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((6, 4))
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    gallery[3] = gallery[1]
    embeds, columns = 5 * rng.standard_normal((9, 4)), np.arange(9) % 6
    arguments = (torch.tensor(embeds), torch.tensor(columns), torch.tensor(gallery))
    pairs = list(zip(embeds, columns, strict=True))
    margins, wins = ([score(*pair, gallery) for pair in pairs] for score in (slow_margin, slow_two_way))
    np.testing.assert_allclose(pair_scores(*arguments, MARGIN), margins)
    np.testing.assert_allclose(pair_scores(*arguments, TWO_WAY), wins)
    collapsed = (torch.ones(9, 4), arguments[1], torch.ones(6, 4).double() / 2)
    np.testing.assert_allclose(pair_scores(*collapsed, TWO_WAY), 0.5)
    np.testing.assert_allclose(pair_scores(*collapsed, MARGIN), 0, atol=1e-12)


def planted_scorer(planted, modality, subject=1, **options):
    _, model, splits = planted
    gallery = splits[modality].gallery_embeds.astype(float)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    return Scorer(model, modality, subject, gallery, "cpu", **options), gallery


@pytest.mark.parametrize("kind", [MARGIN, TWO_WAY])
@pytest.mark.parametrize(("window", "stride"), [((9, 4), (9, 2)), ((1, 12), (1, 12)), ((1, 5), (1, 5))])
def test_occlusion_equals_explicit_loops(planted, kind, window, stride):
    scorer, gallery = planted_scorer(planted, "eeg", batch_size=50)
    rng = np.random.default_rng(0)
    values, columns = rng.standard_normal((19, 9, 12)).astype(np.float32), rng.integers(0, 14, 19)
    replacement = rng.standard_normal((9, 12)).astype(np.float32)
    weights = scorer.model.weights["eeg", 1].numpy()

    def slow(recording, column):
        return {MARGIN: slow_margin, TWO_WAY: slow_two_way}[kind](recording.ravel() @ weights + 0.3, column, gallery)

    expected = np.zeros((2, 9, 12))
    for row in range(2):
        seen = np.zeros((9, 12))
        for sensor in range(0, 9, stride[0]):
            for sample in range(0, max(1, 12 - window[1] + stride[1]), stride[1]):
                where = (slice(sensor, sensor + window[0]), slice(sample, sample + window[1]))
                occluded = values[row].copy()
                occluded[where] = replacement[where]
                expected[row][where] += slow(values[row], columns[row]) - slow(occluded, columns[row])
                seen[where] += 1
        assert seen.min() >= 1
        expected[row] /= seen
    found = scorer.occlude(values, columns, replacement, window, stride, kind)
    assert found.shape == values.shape and np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found[:2], expected, atol=1e-5)


def test_integrated_gradients_equal_an_explicit_integral(planted):
    scorer, gallery = planted_scorer(planted, "fmri", batch_size=64)
    rng = np.random.default_rng(0)
    values, columns = rng.standard_normal((18, 23)).astype(np.float32), rng.integers(0, 14, 18)
    start = (0.4 + 0.1 * rng.standard_normal(23)).astype(np.float32)
    found = scorer.integrate(values, columns, start)
    weights, images = scorer.model.weights["fmri", 1].double(), torch.tensor(gallery)
    nodes, shares = np.polynomial.legendre.leggauss(50)
    for row in (0, 17):
        total = torch.zeros(23, dtype=torch.float64)
        for node, share in zip((nodes + 1) / 2, shares / 2, strict=True):
            point = torch.tensor(start + node * (values[row] - start), dtype=torch.float64, requires_grad=True)
            cosines = torch.nn.functional.cosine_similarity((point @ weights + 0.3)[None], images)
            own = cosines[columns[row]]
            margin = own - (cosines.sum() - own) / 13
            total += share * torch.autograd.grad(margin, point)[0]
        np.testing.assert_allclose(found[row], total * torch.tensor(values[row] - start), atol=1e-5)
    ends = scorer.scores(values, columns, MARGIN) - scorer.scores(np.tile(start, (18, 1)), columns, MARGIN)
    np.testing.assert_allclose(found.sum(axis=1), ends, atol=1e-3)


def test_training_mean_is_of_this_subjects_training_recordings(planted):
    opened = {name: PreparedSet.open(folder) for name, folder in planted[0].items()}
    rows = [row for row in opened["eeg"].split("train").recordings if row["subject"] == "sub-02"]
    expected = np.mean([np.array(row["eeg"], dtype=float) for row in rows], axis=0)
    np.testing.assert_allclose(training_mean(opened["eeg"], "sub-02"), expected, atol=1e-6)
    assert training_mean(opened["fmri"], "sub-02").shape == (23,)
    with pytest.raises(DataError, match="sub-09"):
        training_mean(opened["eeg"], "sub-09")


def test_split_half_correlates_two_sets_of_images():
    rng = np.random.default_rng(0)
    maps, images = rng.standard_normal((12, 3, 4)), list("aabbccddeeff")
    even = np.mean([m for m, i in zip(maps, images, strict=True) if i in "ace"], axis=0)
    odd = np.mean([m for m, i in zip(maps, images, strict=True) if i in "bdf"], axis=0)
    assert split_half(maps, images) == pytest.approx(np.corrcoef(even.ravel(), odd.ravel())[0, 1])
    assert split_half(maps, ["a"] * 12) is None and split_half(np.ones((12, 3)), images) is None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [2, 3, 1000])  # few different values: many ties
def test_two_way_equals_that_of_retrieval(seed, levels):
    rng = np.random.default_rng([seed, levels])
    n_images, width = 12, 6
    gallery = rng.integers(-levels, levels + 1, (n_images, width)).astype(float)
    gallery[rng.integers(n_images, size=3)] = gallery[0]  # images that look alike
    columns = rng.permutation(np.concatenate([np.arange(n_images), rng.integers(n_images, size=20)]))  # repeats
    embeds = gallery[columns] + rng.integers(-levels, levels + 1, (len(columns), width))
    embeds[rng.random(embeds.shape) < 0.3] = 0.0  # masked
    embeds[:2] = 0.0  # without a direction
    found = pair_scores(
        torch.from_numpy(embeds), torch.from_numpy(columns), torch.from_numpy(unit_vectors(gallery)), TWO_WAY
    )
    expected = score_queries(embeds, gallery, columns, np.arange(n_images))
    assert expected["ties"].any() and 0 < expected["two_way"].mean() < 1
    np.testing.assert_allclose(found, expected["two_way"], rtol=0, atol=1e-12)
