"""Tests of studies/compare_priors.py: who is left out, what is scored beside what, what is kept."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

import compare_priors
from neural_clip.prepared.reader import PreparedSet
from paths import REPOSITORY
from placed_people import PEOPLE, write_people


@pytest.mark.slow
def test_every_way_is_scored_on_the_same_images(tmp_path, monkeypatch, capsys):
    data = write_people(tmp_path / "set", images={"train": 60, "validation": 20, "test": 40})
    words = ["--data", str(data), "--name", "planted", "--people", PEOPLE[3], "--images", "20", "--seeds", "0"]
    words += ["--output-dir", str(tmp_path / "out"), "--results-dir", str(tmp_path / "results"), "--epochs", "2"]
    page = tmp_path / "page.md"
    page.write_text("<!-- results: priors_planted -->\n<!-- end -->\n")
    words += ["--page", str(page)]
    before = Path.cwd()
    compare_priors.main(words)
    os.chdir(before)
    results = json.loads((tmp_path / "results" / "priors_planted.json").read_text())
    found = {record["how"]: record for record in results["records"]}
    assert list(found) == ["ridge", "closed form", "adapted", "adapted with a prior"]
    assert {(record["person"], record["images"], record["n_queries"]) for record in found.values()} == {
        (PEOPLE[3], 20, 40)
    }
    assert found["adapted with a prior"]["two_way"] > found["adapted"]["two_way"]
    assert found["adapted with a prior"]["prior"]["weight"] > 0 and found["adapted"]["prior"] is None
    table = capsys.readouterr().out
    assert "| 20 | " in table and f"{100 * found['ridge']['two_way']:.1f} / " in table
    assert compare_priors.section(results) in page.read_text() and "simulated recordings" in page.read_text()
    record = json.loads((tmp_path / "out" / "planted" / PEOPLE[3] / "training.json").read_text())
    assert record["data"]["fmri"]["subjects"] == list(PEOPLE[:3])
    monkeypatch.setattr("neural_clip.training.run.train", None)  # a training is kept
    kept = SimpleNamespace(output_dir=tmp_path / "out", name="planted", recipe="demo", epochs=2)
    assert compare_priors.trained(PreparedSet.open(data), PEOPLE[3], kept) == tmp_path / "out" / "planted" / PEOPLE[3]
    monkeypatch.setattr(compare_priors, "alone", None)  # and so is what is scored
    compare_priors.main([*words, "--add"])
    os.chdir(before)
    assert json.loads((tmp_path / "results" / "priors_planted.json").read_text())["records"] == results["records"]


@pytest.mark.parametrize("name", ["demo", "unshared"])
def test_page_and_committed_results_agree(name):
    file = REPOSITORY / "studies" / "results" / f"priors_{name}.json"
    page = (REPOSITORY / "docs" / "new_subjects.md").read_text(encoding="utf-8")
    results = json.loads(file.read_text(encoding="utf-8"))
    assert f"<!-- results: priors_{name} -->\n\n{compare_priors.section(results)}\n" in page
    assert results["simulated"] and results["split"] == "test"
