"""Tests of studies/compare_shares.py: what a share holds, what is compared, what is kept and shown."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

import compare_shares
import variants
from neural_clip.prepared.known_corpora import CORPUS_OF
from neural_clip.prepared.reader import PreparedSet
from paths import REPOSITORY
from planted_data import write_planted

SPLITS = ("train", "validation", "test")


def n_images(folder):
    return [len(PreparedSet.open(folder).split(name).shown_ids) for name in SPLITS]


def test_a_share_holds_all_recordings_of_some_images(tmp_path):
    whole = write_planted(tmp_path / "whole", "fmri", pixels=False)
    for cut, expected in ((["train", "validation"], [10, 3, 24]), (["train"], [10, 12, 24])):
        folder = tmp_path / "-".join(cut)
        compare_shares.write_share(whole, folder, 0.25, cut)
        assert n_images(folder) == expected
        for name in SPLITS:
            part, before = (PreparedSet.open(place).split(name) for place in (folder, whole))
            rows = np.flatnonzero(np.isin(before.image_ids, part.shown_ids))
            assert part.image_ids.tolist() == before.image_ids[rows].tolist()
            assert part.subjects.tolist() == before.subjects[rows].tolist()
            for found, planted in zip(part.values(), before.values(rows), strict=True):
                np.testing.assert_array_equal(found, planted)
            np.testing.assert_array_equal(part.gallery_embeds, before.data.images.of(part.gallery_ids).embeds)


def test_best_baseline_and_what_is_behind():
    def pair(seed, score, difference, half):
        interval = [difference - half, difference + half]
        return {"seed": seed, "score": score, "difference": difference, "interval": interval, "p": 0.5}

    about = {"share": 0.05, "seeds": [0, 1], "modality": "fmri", "simulated": True, "training_images": 27}
    own = about | {"method": "demo", "two_way": [0.6, 0.7], "top1": [0.02, 0.04]}
    weak = about | {"method": "ridge", "two_way": 0.5, "top1": 0.05}
    weak["ahead"] = [pair(0, "two_way", 0.1, 0.05), pair(1, "two_way", 0.2, 0.05), pair("mean", "two_way", 0.15, 0.05),
                     pair(0, "top1", -0.03, 0.01), pair(1, "top1", -0.01, 0.02),
                     pair("mean", "top1", -0.02, 0.01)]  # fmt: skip
    strong = about | {"method": "closed form", "two_way": 0.66, "top1": 0.01}
    strong["ahead"] = [pair(0, "two_way", -0.06, 0.05), pair(1, "two_way", 0.04, 0.05),
                       pair("mean", "two_way", -0.01, 0.05), pair(0, "top1", 0.01, 0.02),
                       pair(1, "top1", 0.03, 0.02), pair("mean", "top1", 0.02, 0.02)]  # fmt: skip
    _, lines = compare_shares.shares_table([own, weak, strong])
    assert lines == [
        ["fMRI simulated", "27 (5%)", "2-way", "0.650", "ridge", "0.500", "+0.150 [+0.100, +0.200]", "0.660",
         "-0.010 [-0.060, +0.040]", "1 of 2", "0 of 2"],
        ["fMRI simulated", "27 (5%)", "top-1", "0.030", "ridge", "0.050", "-0.020 [-0.030, -0.010]", "0.010",
         "+0.020 [+0.000, +0.040]", "1 of 2", "1 of 2"],
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["demo", *compare_shares.REAL, *compare_shares.FOLDS])
def test_page_and_committed_results_agree(name):
    file = REPOSITORY / "studies" / "results" / f"shares_{name}.json"
    page = (REPOSITORY / "docs" / "studies" / "ridge.md").read_text(encoding="utf-8")
    shown = re.search(f"<!-- results: {name} -->(.*?)<!-- end -->", page, re.DOTALL).group(1).strip()
    assert shown == compare_shares.section(json.loads(file.read_text(encoding="utf-8")))
    assert ("simulated" in shown) == (name == "demo") and "Chance is 0.5" in shown


@pytest.mark.slow
def test_shares_are_written_trained_and_compared(tmp_path, capsys):
    for modality, corpus in CORPUS_OF.items():
        write_planted(tmp_path / "data" / corpus.name, modality, pixels=False)
    page = tmp_path / "page.md"
    page.write_text("# page\n\n<!-- results: planted -->\n<!-- end -->\n")
    words = ["--data", str(tmp_path / "data"), "--name", "planted", "--seeds", "0", "1", "--epochs", "1"]
    words += ["--output-dir", str(tmp_path / "out"), "--results-dir", str(tmp_path / "results"), "--page", str(page)]
    here = Path.cwd()
    try:
        compare_shares.main([*words, "--shares", "0.5"])
        assert capsys.readouterr().out.count("started") == 2
        compare_shares.main([*words, "--shares", "0.5", "1", "--add"])
        told = capsys.readouterr().out
        assert (told.count("started"), told.count("kept")) == (2, 2)
    finally:
        os.chdir(here)
    records = json.loads((tmp_path / "results" / "shares_planted.json").read_text())["records"]
    assert [record["share"] for record in records] == sorted(record["share"] for record in records)
    recipe = [record for record in records if record["method"] == "demo"]
    assert [(record["modality"], record["training_images"]) for record in recipe] == [
        (modality, n) for n in (20, 40) for modality in ("eeg", "meg", "fmri")
    ]
    ridge = next(record for record in records if record["method"] == "per-subject ridge")
    assert {(pair["seed"], pair["score"]) for pair in ridge["ahead"]} == {
        (seed, score) for seed in (0, 1, "mean") for score in ("two_way", "top1")
    }
    for score in ("two_way", "top1"):  # the mean over seeds of what trials contribute is the mean of the scores
        (pair,) = (pair for pair in ridge["ahead"] if (pair["seed"], pair["score"]) == ("mean", score))
        assert pair["difference"] == pytest.approx(np.mean(recipe[0][score]) - ridge[score], abs=1e-9)
    assert page.read_text().count("| EEG simulated | 20 (50%) |") == 2


@pytest.mark.slow
def test_real_recordings_are_taken_whole_from_where_they_lie(tmp_path, monkeypatch):
    folder = write_planted(tmp_path / "digits", "fmri", pixels=False, simulated=False)
    monkeypatch.setattr(variants, "REAL", {"digits": {"fmri": folder}})
    page = tmp_path / "page.md"
    page.write_text("# page\n\n<!-- results: digits -->\n<!-- end -->\n")
    monkeypatch.chdir(REPOSITORY)
    words = ["--name", "digits", "--recipe", "base", "--seeds", "0", "--epochs", "1", "--page", str(page)]
    compare_shares.main([*words, "--output-dir", str(tmp_path / "out"), "--results-dir", str(tmp_path)])
    records = json.loads((tmp_path / "shares_digits.json").read_text())["records"]
    assert {(record["modality"], record["share"], record["simulated"]) for record in records} == {("fmri", 1, False)}
    assert "| fMRI | 40 (100%) |" in page.read_text() and "cut" not in page.read_text()


@pytest.mark.slow
def test_trials_of_all_folds_count_together(tmp_path, monkeypatch):
    """Each among the images of its own test split; scores are means over folds, differences over all trials."""
    folders = {f"digits_fold{k}": write_planted(tmp_path / f"set{k}", "fmri", pixels=False, simulated=False, seed=k)
               for k in range(2)}  # fmt: skip
    monkeypatch.setattr(variants, "REAL", {name: {"fmri": folder} for name, folder in folders.items()})
    monkeypatch.setattr(compare_shares, "FOLDS", {"digits_folds": list(folders)})
    page = tmp_path / "page.md"
    page.write_text("".join(f"<!-- results: {name} -->\n<!-- end -->\n" for name in ("digits_folds", *folders)))
    monkeypatch.chdir(REPOSITORY)
    words = ["--recipe", "base", "--seeds", "0", "--epochs", "1", "--page", str(page)]
    words += ["--output-dir", str(tmp_path / "out"), "--results-dir", str(tmp_path)]
    monkeypatch.setattr(compare_shares, "REAL", variants.REAL)
    found = {}
    for name in ("digits_folds", *folders):
        compare_shares.main(["--name", name, *words])
        records = json.loads((tmp_path / f"shares_{name}.json").read_text())["records"]
        found[name] = {record["method"]: record for record in records}
    whole, *parts = found.values()
    for method, record in whole.items():
        for score in ("two_way", "top1"):
            of_folds = [np.mean(part[method][score]) for part in parts]
            assert np.mean(record[score]) == pytest.approx(np.mean(of_folds), abs=1e-9)
    assert whole["base"]["n_queries"] == sum(part["base"]["n_queries"] for part in parts)
    assert len(whole["base"]["fingerprint"]) == len(whole["base"]["weights_of_network"]) == 2
    (pair,) = (p for p in whole["per-subject ridge"]["ahead"] if (p["seed"], p["score"]) == ("mean", "two_way"))
    alone = [p for part in parts for p in part["per-subject ridge"]["ahead"]
             if (p["seed"], p["score"]) == ("mean", "two_way")]  # fmt: skip
    assert pair["difference"] == pytest.approx(np.mean([p["difference"] for p in alone]), abs=1e-9)
    assert np.ptp(pair["interval"]) < max(np.ptp(p["interval"]) for p in alone)
