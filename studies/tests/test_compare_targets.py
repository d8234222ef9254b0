"""Tests of studies/compare_targets.py: what is embedded, trained, scored and shown."""

import argparse
import json
import os
import re
import shlex
from pathlib import Path

import pytest

import compare_targets
from neural_clip.errors import DataError
from neural_clip.prepared.facts import read_metadata, verify_prepared
from neural_clip.targets.encoder import TargetEncoder
from paths import REPOSITORY
from planted_data import write_planted

PLACE = "# page\n\n<!-- results: targets -->\n<!-- end -->\n\nthe rest\n"


def record(modality, target, seed, two_way, top1):
    return {
        "modality": modality, "target": target, "seed": seed, "two_way": two_way, "top1": top1,
        "two_way_interval": [two_way - 0.05, two_way + 0.05], "chance_two_way": 0.5, "chance_top1": 0.0125,
        "gallery_size": 80, "simulated": True, "commit": "c0ffee", "image_encoder": {"projection_dim": 64},
    }  # fmt: skip


def test_table_shows_the_records():
    records = [record("eeg", "projected", 0, 0.8, 0.2), record("eeg", "cls", 0, 0.7, 0.1),
               record("fmri", "projected", 0, 0.9, 0.3), record("eeg", "projected", 1, 0.6, 0.3)]  # fmt: skip
    head, rows = compare_targets.targets_table(records)
    assert len({len(head), *map(len, rows)}) == 1
    # t(1), 97.5 % = 12.7062; of .8 and .6 the standard error is .1
    assert rows == [
        ["EEG simulated", "projected", "64", "0, 1", "0.700 [-0.571, 1.971]", "seed 0: 0.800 [0.750, 0.850]", "25.0",
         "80"],
        ["EEG simulated", "cls", "64", "0", "0.700 (one seed)", "seed 0: 0.700 [0.650, 0.750]", "10.0", "80"],
        ["EEG simulated", "chance", "", "", "0.500", "", "1.2", "80"],
        ["fMRI simulated", "projected", "64", "0", "0.900 (one seed)", "seed 0: 0.900 [0.850, 0.950]", "30.0", "80"],
        ["fMRI simulated", "chance", "", "", "0.500", "", "1.2", "80"],
    ]  # fmt: skip


def test_what_was_not_run_is_named():
    results = {"twin": "realistic", "recipe": "demo", "split": "validation", "command": "python x", "simulated": True}
    some = [record("eeg", target, 0, 0.8, 0.2) for target in ("projected", "cls")]
    shown = compare_targets.section(results | {"records": some})
    assert "Made by `python x` at commit c0ffee." in shown and "twin `realistic` (simulated recordings)" in shown
    assert shown.endswith("Not run yet: `projected + cls`, `projected, blur 0.02`, `projected, blur 0.05`.")
    whole = [record("eeg", target, 0, 0.8, 0.2) for target in compare_targets.TARGETS]
    assert "Not run" not in compare_targets.section(results | {"records": whole})


def test_page_and_committed_results_agree():
    """The page shows the table of the committed results, and none where there are none."""
    file = REPOSITORY / "studies" / "results" / "validation" / "targets.json"
    page = (REPOSITORY / "docs" / "studies" / "encoders.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- results: targets -->(.*?)<!-- end -->", page, re.DOTALL).group(1).strip()
    if not file.is_file():
        assert shown == ""
        return
    results = json.loads(file.read_text(encoding="utf-8"))
    assert shown == compare_targets.section(results)
    assert results["split"] == "validation" and results["simulated"] and "simulated" in shown
    for found in results["records"]:
        assert found["embedding"].endswith(" --overwrite " + shlex.join(compare_targets.TARGETS[found["target"]]))
        assert re.fullmatch("[0-9a-f]{40}(-dirty)?", found["commit"])
        assert found["versions"]["torch"] and "neural-clip train" in found["command"]


def test_targets_are_different_spaces():
    """Each is one that `embed-images` takes, and no two are the same."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", nargs="+")
    parser.add_argument("--pooling", nargs="+", default=["projected"])
    parser.add_argument("--blur", type=float)
    names = []
    for words in compare_targets.TARGETS.values():
        given = parser.parse_args(words)
        encoder = TargetEncoder(given.model, given.pooling, device="cpu", blur=given.blur).description
        names.append((encoder["name"], encoder["pooling"]))
    assert len(set(names)) == len(names) == 5


def test_data_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"There is no .*imagenet_eeg; `neural-clip demo --data-only"):
        compare_targets.main(["--data-dir", str(tmp_path)])


@pytest.mark.slow
def test_copies_are_embedded_trained_and_scored(tmp_path, monkeypatch, capsys):
    """The command on planted data, once anew and once from what is kept; the twin itself stays as it was."""
    twin = tmp_path / "recipes" / "tiny"
    counts = {"train": 24, "validation": 8, "test": 4}
    for modality, folder in compare_targets.data_folders(twin).items():
        write_planted(folder, modality, repeats=1, counts=counts)
    before = {path: path.read_bytes() for path in twin.rglob("*") if path.is_file()}
    page, results = tmp_path / "page.md", tmp_path / "results" / "targets.json"
    page.write_text(PLACE)
    words = ["--twin", "tiny", "--epochs", "1", "--data-dir", str(tmp_path / "recipes"), "--page", str(page)]
    words += ["--output-dir", str(tmp_path / "targets"), "--results", str(results)]
    target = "projected, blur 0.05"
    words += ["--targets", target]
    here = Path.cwd()
    try:
        compare_targets.main(words)
        first, text = results.read_bytes(), page.read_text()
        made = capsys.readouterr().out
        assert made.count("started") == 3 + 1 + 1 and "kept" not in made
        compare_targets.main(words)
        again = capsys.readouterr().out
        assert "started" not in again and again.count("kept") == 3 + 1 + 1
    finally:
        os.chdir(here)
    assert results.read_bytes() == first and page.read_text() == text
    assert {path: path.read_bytes() for path in before} == before
    records = json.loads(first)["records"]
    assert [(found["target"], found["modality"]) for found in records] == [(target, m) for m in ("eeg", "meg", "fmri")]
    for found in records:
        folder = compare_targets.data_folders(tmp_path / "targets" / "tiny" / "projected,blur0.05")[found["modality"]]
        metadata = verify_prepared(folder)
        assert metadata["image_encoder"] == found["image_encoder"] and metadata["fingerprint"] == found["fingerprint"]
        assert "blurred with sigma 0.05" in metadata["image_encoder"]["name"]
        assert (found["gallery_size"], found["n_queries"]) == (8, 16)  # two people, one recording of each image
        assert str(folder) in found["embedding"]
    assert text.startswith("# page") and text.endswith("<!-- end -->\n\nthe rest\n")
    assert "| EEG simulated | projected, blur" in text
    assert read_metadata(compare_targets.data_folders(twin)["eeg"])["image_encoder"]["name"] == "planted"
