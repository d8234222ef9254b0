"""What fits with several strengths hold in memory: counts of the numbers that ridges predict at a time."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from kernel_ridge import KernelRidge
from neural_clip.errors import DataError
from neural_clip.evaluation.baselines import closed_form, closed_form_fit, linear, ridge, tried
from neural_clip.evaluation.baselines.closed_form_fit import Way, fit_of
from neural_clip.evaluation.baselines.linear import per_subject_ridge
from neural_clip.evaluation.baselines.ridge import RELATIVE_ALPHAS, CholeskyRidge, Products, Rows
from neural_clip.evaluation.baselines.rows import BASELINES
from neural_clip.evaluation.finished_parts import FinishedParts
from planted_splits import WIDTH, planted
from tolerances import assert_same_outputs

pytestmark = pytest.mark.numerical

PEOPLE, VALIDATION, TEST = 3, 16, 30  # of `planted`: rows of a person in each split
N_STRENGTHS = len(ridge.RELATIVE_ALPHAS)


@pytest.fixture
def predicted(monkeypatch):
    """What each call of a ridge predicts: strengths, and rows of each split."""
    calls, really = [], CholeskyRidge.deviations

    def spy(self, others, alphas):
        calls.append((len(alphas), [rows.n_rows for rows in others]))
        return really(self, others, alphas)

    monkeypatch.setattr(CholeskyRidge, "deviations", spy)
    return calls


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("modality", ["sensors", "voxels"])
@pytest.mark.parametrize(("method", "fit"), BASELINES, ids=[name for name, _ in BASELINES])
def test_few_predictions_at_a_time_end_with_the_same(method, fit, modality, kept, monkeypatch, tmp_path, predicted):
    if method == "ridge, identity alignment" and modality == "voxels":
        pytest.skip("voxels have none")
    monkeypatch.setattr(closed_form, "MAX_FOLDED_ROWS", 0)
    splits = planted(modality)
    whole, chosen = fit(*splits)
    assert max(n_alphas * sum(rows) for n_alphas, rows in predicted) > 12 * VALIDATION
    predicted.clear()
    most = 5 * (VALIDATION + TEST) * WIDTH  # of one person; all people together are told a few strengths
    for module in (tried, linear):
        monkeypatch.setattr(module, "MAX_PATHS", most, raising=False)
    found, again = fit(*splits, parts=FinishedParts(tmp_path / "parts" if kept else None))
    assert_same_outputs(found.astype(np.float32), whole.astype(np.float32))
    assert again == pytest.approx(chosen)
    for n_alphas, rows in predicted:
        assert n_alphas * sum(rows) * WIDTH <= most or n_alphas == 1
    if not kept and method != "pooled whitened ridge":
        tested = [n_alphas for n_alphas, rows in predicted if rows in ([TEST], [PEOPLE * TEST])]
        assert tested and set(tested) == {1}  # the scored split is predicted with the strength that was chosen


def test_memory_does_not_grow_with_people(monkeypatch):
    """All strengths of all people's test rows would be 13 times the predictions that are given back."""
    most, rows = 2**16, 400
    monkeypatch.setattr(tried, "MAX_PATHS", most)
    monkeypatch.setattr(closed_form_fit, "MAX_KEPT", 0)

    def peak(n_subjects):
        train, validation, test = planted("sensors", n_subjects=n_subjects, rows=20)
        test = test.at(np.tile(np.arange(len(test)), rows // TEST))
        tracemalloc.start()
        found, _ = per_subject_ridge(train, validation, test)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest - 4 * found.nbytes  # of the copies that are made of what is given back

    peak(2)  # what is imported
    assert peak(12) - peak(3) < 4 * most


def test_strengths_in_groups():
    assert tried.at_once([4, 5, 6, 7], tried.MAX_PATHS // 2) == [[4, 5], [6, 7]]
    assert tried.at_once([4, 5], 2 * tried.MAX_PATHS) == [[4], [5]]
    assert tried.at_once([], 10) == [] and tried.at_once([1, 2], 0) == [[1, 2]]


@pytest.mark.parametrize("most", [ridge.MAX_KEPT_CROSS, 0])
@pytest.mark.parametrize("n_features", [5, 90])
def test_predictions_by_blocks_are_written_where_they_belong(n_features, most, monkeypatch):
    """Other rows in blocks of seven, in features and in rows; their products are kept, or made block by block."""
    monkeypatch.setattr(ridge, "MAX_KEPT_CROSS", most)
    rng = np.random.default_rng(0)
    train, other = rng.standard_normal((40, n_features)), rng.standard_normal((20, n_features))
    targets, mean = rng.standard_normal((40, 3)), train.mean(axis=0)

    def rows_of(table):
        blocks = [np.arange(start, min(start + 7, len(table))) for start in range(0, len(table), 7)]
        return Rows(lambda block: (table[block] - mean).astype(np.float32), blocks)

    made = CholeskyRidge(rows_of(train), targets)
    assert made.is_dual == (n_features == 90)
    expected = KernelRidge(train, targets).deviations(other, [0.1, 10.0])
    for found in made.deviations([rows_of(other), rows_of(other[:0]), rows_of(other)], [0.1, 10.0])[::2]:
        assert found.flags.c_contiguous and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert sum(kept.size for kept in made._crossed.values()) <= most


def test_ridges_that_are_made_again_are_dropped():
    train, validation, test = planted("sensors")
    fit = fit_of(Way(False), train)
    found = tried.tried(fit, [validation, replace(test)], only=3)
    found.predictions(3, 1)
    assert not fit._ridges and not fit._others


def test_a_strength_that_float32_does_not_hold_is_the_next_that_it_does():
    """As rounding leaves of a large matrix whose largest eigenvalue is many times its mean: one just below zero."""
    rng, size, n_rows = np.random.default_rng(0), 50, 60
    directions = np.linalg.qr(rng.standard_normal((size, size)))[0]
    known, rows = rng.standard_normal((size, 4)), rng.standard_normal((n_rows, size)).astype(np.float32)

    def of(lowest):
        values = np.r_[lowest, rng.uniform(1, 3, size - 1)]
        gram = (directions * values) @ directions.T
        made = Products(np.asfortranarray(gram, np.float32), np.asfortranarray(known, np.float32), False)
        read = Rows(lambda block: rows[block], [np.arange(n_rows)])
        return gram, CholeskyRidge(read, rng.standard_normal((n_rows, 4)), made=made)

    gram, made = of(-0.003)
    mean = np.trace(gram) / n_rows
    held = RELATIVE_ALPHAS[RELATIVE_ALPHAS * mean > 0.003]
    expected = np.linalg.solve(gram + held[0] * mean * np.eye(size), known)
    assert len(held) == len(RELATIVE_ALPHAS) - 1
    for relative in RELATIVE_ALPHAS[:2]:
        np.testing.assert_allclose(made.solution(relative), expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
    stronger = np.linalg.solve(gram + held[-1] * mean * np.eye(size), known)
    np.testing.assert_allclose(made.solution(held[-1]), stronger, rtol=1e-3)
    _, made = of(-1e6)
    with pytest.raises(DataError, match=r"strength 0\.001 or more cannot be computed: the recordings are too unequal"):
        made.solution(RELATIVE_ALPHAS[0])
