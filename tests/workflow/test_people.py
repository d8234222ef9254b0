"""Each person left out in turn: folds that are kept, go on and are refused, and their table."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from folder_contents import contents
from killed_command import KILLED
from neural_clip.commands import main as cli
from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.linear import frozen_identity_alignment
from neural_clip.evaluation.baselines.ridge import CholeskyRidge
from neural_clip.evaluation.people import Queries, exact_images, person_rows
from neural_clip.files.record import sealed
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.prepared.reader import PreparedSet
from planted_data import write_planted
from things_sets import images_of, write_things

SHOWN = {
    "train": images_of([f"seen{n}" for n in range(12)], "01b", "02b"),
    "validation": images_of(["kept0", "kept1", "kept2"], "01b", "02b"),
    "test": images_of([f"new{n}" for n in range(6)], "05s"),
}  # fmt: skip
RECIPE = {
    "data": {"eeg": "x"},
    "model": {"eeg": {"hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 2, "dropout": 0.1}},
    "training": {"output_dir": "x", "num_train_epochs": 2, "per_device_train_batch_size": 16, "learning_rate": 0.003,
                 "seed": 5, "use_cpu": True, "disable_tqdm": True},
}  # fmt: skip
PEOPLE = ["sub-01", "sub-02", "sub-03"]
COMMAND = ["leave-one-person-out", "eeg", "--output-dir", "out", "--recipe", "recipe.yaml"]
COMMAND += ["--baselines", "identity", "ridge"]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished call: the folder, and what the command returned and printed."""
    work = tmp_path_factory.mktemp("people")
    write_things(work / "eeg", "things_eeg2", "eeg", SHOWN, n_people=3, noise=6.0)
    (work / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        record = cli.main(COMMAND)
    return work, record


@pytest.fixture
def work(first, tmp_path, monkeypatch):
    """A copy of it, times of files included, as working directory."""
    folder = shutil.copytree(first[0], tmp_path / "work")
    monkeypatch.chdir(folder)
    return folder


def test_each_person_is_scored_by_a_model_of_the_others(first):
    work, record = first
    assert record == json.loads((work / "out" / "people.json").read_text()) == sealed(record)
    assert [*record["people"]] == PEOPLE and record["simulated"]
    for person in PEOPLE:
        others = [name for name in PEOPLE if name != person]
        model = NeuralClipModel.from_pretrained(str(work / "out" / person / "checkpoint"))
        assert model.config.eeg_config.subjects == others == record["people"][person]["trained_on"]
        report = json.loads((work / "out" / person / "evaluation" / "report.json").read_text())
        assert report["data"]["eeg"]["unseen_subjects"] == [person] and report["data"]["eeg"]["subject"] == "average"
        assert report["protocol"]["name"] == "leave-one-person-out"
        for row in record["rows"]:
            (own,) = [
                other for other in report["protocol"]["by_person"]["eeg"]
                if all(other[key] == row[key] for key in ("method", "queries", "gallery"))
            ]  # fmt: skip
            assert row["people"][person]["top1"] == own["top1"] == own["people"][person]["top1"]
            assert row["people"][person]["two_way_p"] == own["two_way_p"] == own["people"][person]["two_way_p"]


def test_means_and_intervals_over_people_are_those_of_a_slow_computation(first):
    _, record = first
    found = {(row["method"], row["queries"]): row for row in record["rows"]}
    assert set(found) == {
        (method, queries)
        for method in ("neural_clip", "ridge, identity alignment")
        for queries in ("single recordings", "mean of 2 recordings")
    }
    for row in record["rows"]:
        for name in ("top1", "top5", "two_way"):
            scores = [row["people"][person][name] for person in PEOPLE]
            mean = sum(scores) / 3
            half = 4.302652729911275 * np.sqrt(sum((s - mean) ** 2 for s in scores) / 2 / 3)  # t(2 df) at 97.5 %
            assert row[name] == pytest.approx(mean)
            assert row[f"{name}_interval"] == pytest.approx([max(mean - half, 0), min(mean + half, 1)])
        above = np.array([row["people"][person]["two_way"] - 0.5 for person in PEOPLE])
        t = above.mean() / (above.std(ddof=1) / np.sqrt(3))
        assert row["two_way_p"] == pytest.approx(0.5 - t / (2 * np.sqrt(2 + t**2)))  # two degrees of freedom
        assert row["chance_top1"] == pytest.approx(1 / 6) and row["people"]["sub-01"]["gallery_size"] == 6
    assert "per-subject ridge" in record["not_computed"]


def test_baselines_are_fitted_without_the_person(first):
    work, record = first
    data = PreparedSet.open(work / "eeg")
    train, validation = (data.split(split, ["sub-01", "sub-03"]) for split in ("train", "validation"))
    part = data.split("test", ["sub-02"])
    predictions, _ = frozen_identity_alignment(train, validation, part)
    slow = person_rows("m", [Queries(predictions, part.subjects, part.image_ids)], [exact_images(part)], 0)[0]
    (row,) = [r for r in record["rows"] if r["method"] != "neural_clip" and r["queries"] == "single recordings"]
    for name in ("top1", "top5", "two_way"):
        assert row["people"]["sub-02"][name] == pytest.approx(slow[name])


def test_the_table_says_whose_and_what(first):
    work, _ = first
    text = (work / "out" / "people.md").read_text()
    assert "things_eeg2, SIMULATED recordings, 6 images" in text and "mean of 3" in text
    for person in PEOPLE:
        assert f"* {person}: things_eeg2, 1 of 3 people, simulated, 6 images; trained on" in text
    assert "| SAMGA |" not in text  # nothing published is of simulated recordings
    assert "per-subject ridge: not computed" in text and "\\`" not in text
    assert "<table>" in (work / "out" / "people.html").read_text()


def test_finished_folds_are_kept_and_a_missing_one_is_made_again(work, capsys):
    before = contents("out")
    shutil.rmtree("out/sub-02/evaluation")
    os.remove("out/people.json")
    cli.main(COMMAND)
    said = capsys.readouterr().err
    assert "without sub-01: train (done before)" in said and "without sub-01: evaluate (done before)" in said
    assert "without sub-02: train (done before)" in said and "without sub-02: evaluate\n" in said
    after = contents("out")
    assert after == before


def test_baselines_of_several_processes_are_those_of_one(work, monkeypatch):
    def kept():
        reports = [json.loads((work / "out" / name / "evaluation" / "report.json").read_text()) for name in PEOPLE]
        return [{key: value for key, value in each.items() if key not in ("command", "sha256")} for each in reports]

    before, fitted = kept(), []
    monkeypatch.setattr(CholeskyRidge, "__init__", lambda *a, **k: fitted.append(a))
    for person in PEOPLE:
        shutil.rmtree(f"out/{person}/evaluation")
    cli.main([*COMMAND, "--num-proc", "2"])
    assert kept() == before and not fitted  # here


def test_streamed_folds_are_the_same_ones(work, monkeypatch, capsys):
    """One that lacks goes on with `--streaming`, whose weights and scores are the same."""
    weights = (work / "out" / "sub-02" / "checkpoint" / "model.safetensors").read_bytes()
    before = json.loads((work / "out" / "people.json").read_text())["people"]["sub-02"]
    shutil.rmtree(work / "out" / "sub-02")
    monkeypatch.setattr(PreparedSet, "_of_subject", lambda *_: pytest.fail("recordings were written as Arrow"))
    found = cli.main([*COMMAND, "--streaming"])
    assert "without sub-01: train (done before)" in capsys.readouterr().err
    assert (work / "out" / "sub-02" / "checkpoint" / "model.safetensors").read_bytes() == weights
    assert found["people"]["sub-02"]["weights"] == before["weights"]


def test_something_else_is_refused_before_anything_is_trained(work, capsys):
    before = contents("out")
    with pytest.raises(DataError, match=r"'out/sub-01' holds a run .*training.seed was 5 and is 6"):
        cli.main([*COMMAND, "--seed", "6"])
    with pytest.raises(DataError, match=r"the option 'baselines' was"):
        cli.main([*COMMAND[:-3], "--baselines", "none"])
    write_things("other", "things_eeg2", "eeg", SHOWN, n_people=3, seed=4)
    shutil.rmtree("eeg")
    os.rename("other", "eeg")
    with pytest.raises(DataError, match="the eeg data set has changed"):
        cli.main(COMMAND)
    assert contents("out") == before and "step 1" not in capsys.readouterr().err


def test_one_person_can_be_asked_for_and_others_later(work):
    shutil.rmtree("out")
    alone = cli.main([*COMMAND, "--subjects", "sub-03", "--epochs", "1"])
    assert [*alone["people"]] == ["sub-03"] and alone["rows"][0]["top1_interval"] is None
    assert alone["rows"][0]["two_way_p"] is None and "none: too few people" in Path("out/people.md").read_text()
    assert {path.name for path in os.scandir("out")} == {"data", "people.html", "people.json", "people.md", "sub-03"}
    with pytest.raises(DataError, match=r"subjects.*'sub-09'"):
        cli.main([*COMMAND, "--subjects", "sub-09"])


def test_what_cannot_be_done_is_said_first(work, tmp_path):
    write_planted(tmp_path / "fmri", "fmri")
    write_things(tmp_path / "one", "things_eeg2", "eeg", SHOWN, n_people=1)
    write_things(tmp_path / "bare", "things_eeg2", "eeg", SHOWN, encoder=None)
    for place, said in [
        (tmp_path / "fmri", "holds fmri: voxels of two people do not correspond"),
        (tmp_path / "one", "training recordings of sub-01 alone"),
        (tmp_path / "bare", "neural-clip embed-images"),
    ]:
        with pytest.raises(DataError, match=said):
            cli.main(["leave-one-person-out", str(place), "--output-dir", "new", "--recipe", "recipe.yaml"])
        assert not os.path.exists("new")
    without = [*COMMAND[:3], "new", *COMMAND[4:], "--templates", "eeg"]
    with pytest.raises(DataError, match="has no other image of 6 of the 6 test concepts"):
        cli.main(without)
    assert not os.path.exists("new")
    (work / "full").mkdir()
    (work / "full" / "notes.txt").write_text("mine")
    for place, said in [("full", "holds 'notes.txt'"), ("eeg", "is a data set"), ("recipe.yaml", "is a file")]:
        with pytest.raises(DataError, match=said):
            cli.main([*COMMAND[:3], place, *COMMAND[4:]])


@pytest.mark.slow
def test_killed_in_the_second_fold_it_goes_on_and_ends_as_if_nothing_had_happened(first, work):
    expected = {name: value for name, value in contents("out").items() if name.endswith((".safetensors", "people.md"))}
    shutil.rmtree("out")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, "checkpoint", "2", *COMMAND], capture_output=True, check=False, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert os.path.isdir("out/sub-01/checkpoint") and not os.path.exists("out/people.json")
    kept = os.stat("out/sub-01/checkpoint/model.safetensors").st_mtime_ns
    cli.main(COMMAND)
    assert os.stat("out/sub-01/checkpoint/model.safetensors").st_mtime_ns == kept
    assert {name: contents("out")[name] for name in expected} == expected
