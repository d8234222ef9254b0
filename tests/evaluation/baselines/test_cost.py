"""What baselines are said to cost, against the ridges that are fitted and counts of their products by hand."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines import closed_form, ridge
from neural_clip.evaluation.baselines.cost import (
    FLOPS,
    N_FACTORED,
    N_PASSES,
    N_RANDOM_PASSES,
    NUMBERS,
    POOLED,
    Cost,
    costs_of,
    in_turns,
    told,
)
from neural_clip.evaluation.baselines.rows import BASELINES
from neural_clip.evaluation.finished_parts import FinishedParts
from planted_splits import planted

WIDTH = 768


def cost_of(method, train):
    """Of a baseline alone."""
    return costs_of([method], train)[method]


def of_size(n_subjects, n_rows, *shape):
    """Recordings of which only the shape is there."""
    subjects = np.repeat([f"sub-{number:02d}" for number in range(n_subjects)], n_rows)

    class Rows(SimpleNamespace):
        def __len__(self):
            return len(subjects)

    return Rows(
        subjects=subjects, projection_dim=WIDTH, facts=SimpleNamespace(sfreq=200.0),
        values=lambda rows: [np.broadcast_to(np.float32(0), shape)],
        rows_of=lambda name: np.flatnonzero(subjects == name),
    )  # fmt: skip


@pytest.mark.parametrize("modality", ["sensors", "voxels"])
def test_as_many_ridges_are_fitted_as_was_said(modality, monkeypatch):
    splits, fits = planted(modality), []
    fitted = ridge.CholeskyRidge.__init__
    monkeypatch.setattr(ridge.CholeskyRidge, "__init__", lambda *a, **k: fits.append(a[0]) or fitted(*a, **k))
    monkeypatch.setattr(closed_form, "MAX_FOLDED_ROWS", 0)  # with few rows there are folds, which take no time
    shared = {"pooled whitened ridge": 4} if modality == "voxels" else {}  # small ones, from embedding to embedding
    for name, fit in BASELINES:
        fits.clear()
        expected = cost_of(name, splits[0])
        if name == "ridge, identity alignment" and modality == "voxels":
            with pytest.raises(DataError, match="Voxels of different subjects do not correspond"):
                fit(*splits)
        else:
            fit(*splits)
        assert len(fits) == expected.ridges + shared.get(name, 0), name
        assert max([0, *(len(made.gram) for made in fits)]) == expected.size, name


def test_the_time_is_that_of_products_factors_and_reading():
    """More features than rows, as of averaged trials: the products of all pairs of rows."""
    cost = cost_of("per-subject ridge", of_size(3, 2000, 5000))
    products = 2000 * 2000 * 5000 + N_FACTORED * (2000**3 / 3 + 2 * 2000**2 * WIDTH)
    assert cost.seconds == pytest.approx(3 * (N_PASSES * 2000 * 5000 / NUMBERS + products / FLOPS))
    assert (cost.ridges, cost.size) == (3, 2000)
    assert cost_of("closed form", of_size(1, 35_000, 40_000)).size == ridge.MAX_SIZE  # on so many of the rows
    size = 271 * 80  # reduced to 80 components
    sensors = cost_of("ridge, random alignment", of_size(2, 25_000, 271, 201))
    over_people = N_FACTORED * (size**3 / 3 + 2 * size**2 * WIDTH) + 2 * 4 * size**2 * (271 + 80)
    products = 50_000 * size**2 + POOLED * over_people
    reading = (N_PASSES + N_RANDOM_PASSES) * 50_000 * 271 * 201 / NUMBERS
    assert sensors.size == size and sensors.seconds == pytest.approx(reading + products / FLOPS)
    voxels = cost_of("ridge, random alignment", of_size(2, 2000, 9000))
    solved = N_FACTORED * (1024**3 / 3 + 2 * 1024**2 * WIDTH) + 2 * N_PASSES * 4000 * 9000 * 1024
    assert voxels.size == 1024 and voxels.seconds == pytest.approx(N_PASSES * 4000 * 9000 / NUMBERS + solved / FLOPS)


def test_what_several_baselines_need_is_made_once():
    """For the first of them."""
    names = [name for name, _ in BASELINES]
    train = of_size(4, 20_000, 271, 201)
    together = costs_of(names, train)
    assert [cost.ridges for cost in together.values()] == [4, 4, 1, 1, 1]
    alone = {name: cost_of(name, train) for name in names}
    assert together[names[0]] == alone[names[0]]
    assert all(together[name].seconds < alone[name].seconds for name in names[1:])
    voxels = costs_of(names, of_size(8, 27_000, 15_700))
    assert [cost.ridges for cost in voxels.values()] == [8, 8 * 3 + 8 * 4, 0, 0, 1]


@pytest.mark.parametrize("sfreq", [100.0, 1000.0])
def test_as_many_ridges_are_fitted_for_all_as_was_said(sfreq, tmp_path, monkeypatch):
    """Above 250 Hz the closed form averages samples, and shares no ridge with the others."""
    monkeypatch.setattr(closed_form, "MAX_FOLDED_ROWS", 0)
    splits, fits = planted("sensors"), []
    splits = [replace(split, data=split.data.with_facts(replace(split.facts, sfreq=sfreq))) for split in splits]
    fitted = ridge.CholeskyRidge.__init__
    monkeypatch.setattr(ridge.CholeskyRidge, "__init__", lambda *a, **k: fits.append(a[0]) or fitted(*a, **k))
    for _, fit in BASELINES:
        fit(*splits, parts=FinishedParts(tmp_path))
    names = [name for name, _ in BASELINES]
    assert len(fits) == sum(cost.ridges for cost in costs_of(names, splits[0]).values())
    assert len(in_turns(names, splits[0])) == (1 if sfreq > 250 else 2)


def test_the_line_is_told_of_one_and_of_many():
    one = told("fmri", [Cost(1, 240.0, 20_000)])
    assert one.startswith("fmri: fitting 1 baseline (1 ridge, matrices of up to 20,000 x 20,000, 1.6 GB each) takes ")
    assert "about 4 min of one core" in one
    assert "fitting 2 baselines (5 ridges, matrices of up to 200 x 200, " in told(
        "eeg", [Cost(1, 1, 2), Cost(4, 1, 200)]
    )


def test_the_hours_that_the_documentation_tells_are_those_that_are_printed():
    page = Path(__file__).parents[3].joinpath("docs", "evaluation.md").read_text(encoding="utf-8")
    sizes = {"THINGS-MEG, 4 people, 20,000 rows of 271 x 201 samples": (4, 20_000, 271, 201),
             "single trials of NSD, 8 people, 24,300 rows of 15,000 voxels": (8, 24_300, 15_000),
             "averaged trials of NSD, 8 people, 8,100 rows of 15,000 voxels": (8, 8100, 15_000),
             "averaged trials of THINGS-EEG2, 10 people, 14,900 rows of 63 x 200 samples": (10, 14_900, 63, 200),
    }  # fmt: skip
    names = [name for name, _ in BASELINES]
    for words, size in sizes.items():
        cells = []
        for methods in (["closed form"], names):
            seconds = sum(cost.seconds for cost in costs_of(methods, of_size(*size)).values())
            cells.append(f"{seconds / 3600:.1f}")
        assert f"| {words} each | {' | '.join(cells)} |" in page, (words, cells)


@pytest.mark.parametrize("modality", ["sensors", "voxels"])
def test_baselines_of_one_turn_fit_no_ridge_twice(modality, tmp_path, monkeypatch):
    """What each keeps by itself: those of one turn have no ridge in common, and one that waits has one."""
    monkeypatch.setattr(closed_form, "MAX_FOLDED_ROWS", 0)
    splits = planted(modality)
    kept, names = {}, [name for name, _ in BASELINES]
    for name, fit in BASELINES:
        with suppress(DataError):
            fit(*splits, parts=FinishedParts(tmp_path / name))
        kept[name] = {path.name for path in (tmp_path / name).glob("ridge-*")}
    turns = in_turns(names, splits[0])
    assert sorted(name for turn in turns for name in turn) == sorted(names)
    for number, turn in enumerate(turns):
        for name in turn:
            assert not any(kept[name] & kept[other] for other in turn if other != name)
            assert not number or any(kept[name] & kept[other] for other in turns[number - 1])
    assert len(turns) == (3 if modality == "voxels" else 2)
