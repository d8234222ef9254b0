"""Tests of studies/compare_people.py and studies/people_page.py: who learns from what, what is kept and shown."""

import json
import os
import re
import statistics
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import compare_people
import people_page
import results_page
from neural_clip.errors import DataError
from neural_clip.prepared.reader import PreparedSet
from neural_clip.training import recording_time
from paths import REPOSITORY
from planted_data import READY, write_planted


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    """Planted EEG and fMRI of three people, in the folders of a twin."""
    root = tmp_path_factory.mktemp("people") / "tiny"
    for modality, name in (("eeg", "imagenet_eeg"), ("fmri", "nsd")):
        write_planted(root / "data" / name, modality, n_subjects=3, pixels=False, encoder=READY, noise=0.5)
    return root


@pytest.fixture(scope="module")
def compared(twin):
    """The command on the planted data: its arguments, results and the files it left."""
    results = twin.parent / "results"
    command = ["--twin", "tiny", "--output-dir", str(twin.parent), "--results-dir", str(results), "--epochs", "3"]
    command += ["--modalities", "eeg", "fmri", "--seeds", "0"]
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_people, "SHARES", (0.25, 1.0))
        patch.setattr(recording_time, "CORPORA", {"planted": SimpleNamespace(seconds_per_trial=3.0)})
        compare_people.main(command)
        found = json.loads((results / "people_tiny.json").read_text())
        patch.setattr(compare_people, "left_out", None)  # nothing is made again
        compare_people.main(command)
        os.chdir(before)
    assert json.loads((results / "people_tiny.json").read_text())["records"] == found["records"]
    return found, twin, results


@pytest.mark.slow
def test_every_score_is_there_with_its_provenance(compared):
    results, _, _ = compared
    assert results["simulated"] is True and results["recipe"] == "demo" and results["split"] == "test"
    ways = [("adapted", 0.25), ("adapted", 1.0), ("everybody", 1.0)]
    ways += [("a quarter, with everybody", 0.25), ("a quarter, alone", 0.25)]
    ways += [("ridge alone", 0.25), ("ridge alone", 1.0)]
    expected = {("eeg", how, share) for how, share in [*ways, ("average subject", 0.0)]}
    expected |= {("fmri", how, share) for how, share in ways}
    assert {(r["modality"], r["how"], r["share"]) for r in results["records"]} == expected
    for record in results["records"]:
        assert record["person"] == "sub-03" and record["simulated"] is True
        assert (record["gallery_size"], record["n_queries"], record["chance_two_way"]) == (24, 48, 0.5)
        assert record["recordings"] == round(80 * record["share"])
        assert record["minutes"] == pytest.approx(record["recordings"] * 3 / 60)
        low, high = record["two_way_interval"]
        assert low <= record["two_way"] <= high
        assert record["versions"]["torch"] and record["fingerprint"]
    scores = {(r["modality"], r["how"], r["share"]): r["two_way"] for r in results["records"]}
    assert scores["fmri", "adapted", 1.0] > 0.6 and scores["fmri", "ridge alone", 1.0] > 0.6


@pytest.mark.slow
def test_who_was_in_which_training(compared):
    _, twin, _ = compared
    for modality in ("eeg", "fmri"):
        runs = twin / "people" / f"demo-{modality}-0"
        without, everybody, adapted = (
            json.loads((runs / name / "training.json").read_text())
            for name in ("without", "everybody", "adapted-0.25")
        )
        assert without["data"][modality]["subjects"] == ["sub-01", "sub-02"]
        assert everybody["data"][modality]["subjects"] == ["sub-01", "sub-02", "sub-03"]
        (entry,) = adapted["adaptations"]
        assert entry["subjects"] == ["sub-03"] and entry["recordings"]["train"] == 20


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False, True])
def test_a_quarter_is_the_quarter_that_adapting_takes(twin, tmp_path, monkeypatch, alone):
    seen = {}

    class Spy:
        def __init__(self, model, args, recordings, validation, passes, min_steps):
            seen.update(train=recordings.parts[0], validation=validation[0], args=args)
            raise InterruptedError

    from neural_clip.training import trainer
    from neural_clip.training.batches import RecordingDataset
    from neural_clip.training.new_subjects import fraction_rows

    monkeypatch.setattr(trainer, "NeuralClipTrainer", Spy)
    folder = twin / "data" / "nsd"
    metadata = json.loads((folder / "neural_clip.json").read_text())
    people = ["sub-03"] if alone else metadata["subjects"]
    words = compare_people.recipe_words("demo", 0, {"fmri": folder}, tmp_path, None)
    words[0] = str(REPOSITORY / words[0])
    recipe = compare_people.read_recipe([*words, *compare_people.only("fmri", people)])
    with pytest.raises(InterruptedError):
        compare_people.train_quarter(recipe, people, "sub-03", 5, 160 if alone else None)
    own = RecordingDataset(PreparedSet.open(folder).split("train", ["sub-03"]), ["sub-03"])
    own.keep(fraction_rows(own.subject_ids, 0.25, 5))
    train = seen["train"]
    mine = train.subject_ids == people.index("sub-03")
    assert np.array_equal(train.part.image_rows[mine], own.part.image_rows)
    assert (~mine).sum() == (0 if alone else 160) and len(seen["validation"]) == 24 * len(people)
    if alone:
        assert (seen["args"].max_steps, seen["args"].eval_steps, seen["args"].save_steps) == (160, 10, 10)


def test_ridge_takes_what_adapting_takes_and_nobody_else(twin, monkeypatch):
    from neural_clip.evaluation.baselines import linear as baselines
    from neural_clip.training.batches import RecordingDataset
    from neural_clip.training.new_subjects import fraction_rows

    seen, fit = [], baselines.per_subject_ridge

    def spy(*splits):
        seen.append(splits)
        return fit(*splits)

    monkeypatch.setattr(baselines, "per_subject_ridge", spy)
    data = PreparedSet.open(twin / "data" / "imagenet_eeg")
    onset = data.facts.samples_before_onset
    monkeypatch.setattr(compare_people, "SHARES", (0.1, 0.25))
    records = compare_people.ridge_alone(data, "sub-02", 5, "validation")
    assert [(r["how"], r["share"], r["recordings"]) for r in records] == [
        ("ridge alone", 0.1, 8),
        ("ridge alone", 0.25, 20),
    ]
    for share, (train, validation, test) in zip((0.1, 0.25), seen, strict=True):
        own = RecordingDataset(data.split("train", ["sub-02"]), ["sub-02"])
        own.keep(fraction_rows(own.subject_ids, share, 5))
        assert train.image_ids.tolist() == own.part.image_ids.tolist()
        assert {*train.subjects, *validation.subjects, *test.subjects} == {"sub-02"}
        assert np.array_equal(validation.targets, test.targets)  # the split that was asked for
        shown = train.values()
        assert shown.shape[-1] == data.facts.n_times - onset
        for row in (0, len(own) - 1):
            np.testing.assert_array_equal(shown[row], own[row]["eeg_values"][0, :, onset:])


def record(modality, how, share, seed, two_way, minutes, top1=0.1):
    return {
        "modality": modality, "person": "sub-09", "how": how, "share": share, "seed": seed, "two_way": two_way,
        "two_way_interval": [two_way - 0.05, two_way + 0.05], "top1": top1, "chance_two_way": 0.5,
        "chance_top1": 0.0125, "gallery_size": 80, "n_queries": 79, "recordings": int(200 * share),
        "minutes": minutes, "simulated": True, "commit": "c0ffee", "fingerprint": "abcdef0123456789",
        "versions": {"torch": "9.8.7"},
    }  # fmt: skip


SCORES = {0: (0.70, 0.90), 1: (0.74, 0.88), 2: (0.69, 0.93)}


def made_up():
    records = []
    for seed, (few, full) in SCORES.items():
        records += [
            record("eeg", "average subject", 0.0, seed, 0.6, 0.0),
            record("eeg", "adapted", 0.1, seed, few, 1.5 + seed),
            record("eeg", "adapted", 1.0, seed, full - 0.02, 20.0),
            record("eeg", "everybody", 1.0, seed, full, 20.0),
            record("eeg", "ridge alone", 0.1, seed, few - 0.1, 1.5 + seed),
        ]
        records += [record("fmri", "adapted", 0.1, seed, 0.6, None), record("fmri", "everybody", 1.0, seed, 0.7, None)]
    return {"twin": "realistic", "recipe": "demo", "split": "test", "command": "python x", "simulated": True,
            "records": records}  # fmt: skip


def test_table_shows_the_records():
    head, rows = people_page.people_table(made_up()["records"])
    assert len({len(head), *map(len, rows)}) == 1
    assert [cells[2] for cells in rows] == [
        "left out, average subject", "left out, then adapted", "left out, then adapted", "trained with all subjects",
        "ridge regression alone", "chance", "left out, then adapted", "trained with all subjects", "chance",
    ]  # fmt: skip
    values = [few for few, _ in SCORES.values()]
    mean, half = statistics.mean(values), 4.302653 * statistics.stdev(values) / 3**0.5  # t(2), 97.5 %
    few = rows[1]
    assert few[:2] == ["EEG simulated", "sub-09"] and few[3:6] == ["20", "2.5", "0, 1, 2"]
    assert [float(found) for found in re.findall(r"\d+\.\d+", few[6])] == pytest.approx(
        [mean, mean - half, mean + half], abs=6e-4
    )
    assert few[7] == "seed 0: 0.700 [0.650, 0.750]" and few[8] == "10.0"
    share = statistics.mean((few - 0.5) / (full - 0.5) for few, full in SCORES.values())
    assert float(few[9]) == pytest.approx(100 * share, abs=0.06)
    assert rows[3][9] == "100.0" and rows[6][4] == "-" and rows[5][6:] == ["0.500", "", "1.2", "0.0"]


def test_page_and_picture(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "people_realistic.json").write_text(json.dumps(made_up()))
    page, picture = tmp_path / "docs" / "new_people.md", tmp_path / "docs" / "images" / "new_people.png"
    people_page.publish(tmp_path / "results", page, picture)
    text = page.read_text()
    assert "**simulated**" in text and "## Twin `realistic` (simulated), recipe `demo`" in text
    assert "](images/new_people.png)" in text and "Made by `python x` at commit c0ffee; torch 9.8.7" in text
    assert picture.read_bytes().startswith(b"\x89PNG") and list(picture.parent.iterdir()) == [picture]
    before = picture.read_bytes()
    people_page.publish(tmp_path / "results", page, picture)
    assert picture.read_bytes() == before and page.read_text() == text
    with pytest.raises(DataError, match="holds no people_<twin>"):
        people_page.publish(tmp_path, page, picture)


def test_the_page_of_recipes_leaves_these_results_out(tmp_path):
    (tmp_path / "people_realistic.json").write_text(json.dumps(made_up()))
    with pytest.raises(DataError, match="holds no results"):
        results_page.publish(tmp_path, tmp_path / "results.md")


def test_picture_shows_the_scores(monkeypatch, tmp_path):
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    people_page.draw_people(made_up()["records"], "realistic", tmp_path / "a.png")
    figure = pyplot.gcf()
    (axes,) = figure.axes  # fMRI has no minutes here
    assert "simulated" in figure.get_suptitle() and axes.get_title() == "EEG, simulated"
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert lines["chance"].get_ydata()[0] == 0.5
    assert lines["trained with all subjects"].get_ydata()[0] == pytest.approx((0.90 + 0.88 + 0.93) / 3)
    assert lines["left out, average subject"].get_ydata()[0] == pytest.approx(0.6)
    np.testing.assert_allclose(lines["left out, then adapted"].get_xydata(), [[2.5, 0.71], [20.0, 2.65 / 3]])
    np.testing.assert_allclose(lines["ridge regression alone"].get_xydata(), [[2.5, 0.61]])


def test_data_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"There is no .*imagenet_eeg; `neural-clip demo --data-only"):
        compare_people.main(["--output-dir", str(tmp_path)])
