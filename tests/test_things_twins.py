"""Simulated twins of THINGS-EEG2, THINGS-MEG and THINGS-fMRI, from raw files to protocols, by the command line."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml

from neural_clip.commands import main as cli
from neural_clip.errors import DataError
from neural_clip.prepared.reader import PreparedSet
from neural_clip.simulation import things_eeg2_twin
from neural_clip.simulation.presets import get_preset
from neural_clip.simulation.simulate import simulate
from neural_clip.simulation.things_images import concept_of
from neural_clip.targets.tiny_clip import TINY_CLIP
from paths import REPOSITORY

MODEL = {"hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 5, "dropout": 0.1}
RECIPE = {
    "data": {"eeg": "x"},
    "model": {"eeg": MODEL, "meg": MODEL, "fmri": {"alignment_size": 8, "num_hidden_layers": 0}},
    "training": {"output_dir": "x", "num_train_epochs": 1, "per_device_train_batch_size": 16, "learning_rate": 0.003,
                 "seed": 5, "use_cpu": True, "disable_tqdm": True},
}  # fmt: skip
TINY = get_preset("tiny")
LARGER = replace(
    TINY,
    meg=replace(TINY.meg, n_concepts=60, n_test_images=8),
    things_eeg2=replace(
        TINY.things_eeg2, n_concepts=40, n_test_images=14, train_shown=84, test_shown=44, test_repeats=3
    ),
    things_fmri=replace(TINY.things_fmri, n_concepts=50, n_test_images=6, n_voxels=(150, 120)),
)
SETS = {"eeg": "things_eeg2", "meg": "things_meg", "fmri": "things_fmri"}
SHORT = RECIPE["training"] | {"num_train_epochs": 2, "per_device_train_batch_size": 64}
KINDS = ("single recordings", "mean of 16 recordings")
QUICK = ["--baselines", "identity", "--no-controls", "--no-pictures"]


@pytest.mark.slow
def test_twins_go_through_their_protocols(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    cli.main(["simulate", "--preset", "tiny", "--corpora", "meg", "things_eeg2", "things_fmri", "--output-dir", "raw"])
    for corpus, folder in (("things_meg", "meg"), ("things_eeg2", "eeg"), ("things_fmri", "fmri")):
        cli.main(["prepare", corpus, "--raw-dir", f"raw/{corpus}", "--output-dir", folder])
        cli.main(["embed-images", folder, "--model", TINY_CLIP])
        table = PreparedSet.open(folder).images
        assert [name.rpartition("_")[0] for name in table.image_ids] == table.concepts  # one key in both corpora
    cli.main(["train", "recipe.yaml", "--data", "eeg=eeg", "meg=meg", "fmri=fmri", "--output-dir", "pooled"])
    stimuli = json.loads((tmp_path / "pooled" / "training.json").read_text())["stimuli"]
    tested = {
        concept
        for folder in ("eeg", "meg", "fmri")
        for concept in PreparedSet.open(folder).split("test").labels("concept")["concept"]
    }
    assert not tested & {concept for entry in stimuli for concept in entry["concepts"]}
    assert sum(entry["left_out"]["rows"] for entry in stimuli) > 0
    assert {(entry["modality"], entry["split"]) for entry in stimuli if entry["images"]} == {
        (modality, split) for modality in ("eeg", "meg", "fmri") for split in ("train", "validation")
    }
    for modality, protocol, n_images in (("eeg", "things-eeg2-200", 4), ("meg", "things-meg-200", 6)):
        words = ["evaluate", "--checkpoint", "pooled", "--data", f"{modality}={modality}", *QUICK]
        words += ["--output-dir", f"scored-{modality}", "--protocol", protocol]
        words += ["--templates", "meg"] if modality == "eeg" else []
        report = cli.main(words)
        told = f"2 of 2 people, simulated, {n_images} images"
        assert f"Protocol {protocol}: {report['data'][modality]['corpus']}, {told}" in capsys.readouterr().out
        rows = report["protocol"]["by_person"][modality]
        assert {row["queries"] for row in rows} == {
            "single recordings",
            f"mean of {12 if modality == 'eeg' else 2} recordings",
        }
        assert {row["gallery"] for row in rows} == {"exact images"} | (
            {"concept templates"} if modality == "eeg" else set()
        )
        assert all(row["chance_top1"] == 1 / n_images and len(row["people"]) == 2 for row in rows)
    with pytest.raises(DataError, match="6 of 6 of 'meg' occur in training or validation"):
        cli.main([
            "evaluate", "--checkpoint", "pooled", "--data", "meg=meg", *QUICK, "--output-dir", "zero",
            "--protocol", "things-meg-200-zero-shot",
        ])  # fmt: skip
    record = cli.main([
        "leave-one-person-out", "eeg", "--output-dir", "unseen", "--recipe", "recipe.yaml", "--subjects", "sub-01",
        "--baselines", "identity",
    ])  # fmt: skip
    assert record["people"]["sub-01"]["trained_on"] == ["sub-02"]
    assert "SIMULATED recordings, 4 images" in capsys.readouterr().out


def images_of(folder, split):
    return set(PreparedSet.open(folder).split(split).shown_ids.tolist())


@pytest.mark.slow
def test_twins_of_three_modalities_are_converted_on_the_same_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | {"closed_form": True, "training": SHORT}))
    simulate("raw", LARGER, corpora=("meg", "things_eeg2", "things_fmri"))
    for modality, corpus in SETS.items():
        cli.main(["prepare", corpus, "--raw-dir", f"raw/{corpus}", "--output-dir", modality])
        cli.main(["embed-images", modality, "--model", TINY_CLIP])
    data = [f"{modality}={modality}" for modality in SETS]
    cli.main(["train", "recipe.yaml", "--data", *data, "--output-dir", "pooled"])
    stimuli = json.loads((tmp_path / "pooled" / "training.json").read_text())["stimuli"]
    learnt = {concept for entry in stimuli for concept in entry["concepts"]}
    tested = {modality: images_of(modality, "test") for modality in SETS}
    assert not learnt & {concept_of(name) for own in tested.values() for name in own}
    capsys.readouterr()
    words = [
        "evaluate",
        "--checkpoint",
        "pooled",
        "--data",
        *data,
        "--baselines",
        "none",
        "--no-controls",
        "--no-pictures",
    ]
    report = cli.main([*words, "--output-dir", "report"])
    shown = capsys.readouterr().out
    assert "Exact conversion of SIMULATED recordings: the same picture in the other modality" in shown
    n_images = {
        ("eeg", "meg"): 12,
        ("eeg", "fmri"): 5,
        ("fmri", "meg"): 6,
    }  # of 14 test images of EEG2: 178 and 77 of 200
    for part in report["conversion"]:
        source, target = part["source"], part["target"]
        n_common = n_images.get((source, target)) or n_images[target, source]
        same, direct = part["same_pictures"], part["direct"]
        splits = {"eeg": "test", "meg": "test" if "fmri" in (source, target) else "train", "fmri": "train"}
        splits |= {"fmri": "test"} if "meg" in (source, target) else {}
        for modality, counts in ((source, same["query_splits"]), (target, same["gallery_splits"])):
            assert sum(counts.values()) == n_common and set(counts) <= {splits[modality], "validation"}
        assert (same["known"], same["seen"], same["images"]) == (True, 0, n_common)
        assert (direct["gallery_size"], direct["chance_top1"]) == (n_common, pytest.approx(1 / n_common))
        assert direct["n_common_images"] == direct["by_name"] == n_common
        low, high = direct["two_way_interval"]
        assert 0 <= low <= direct["two_way"] <= high <= 1 and 0 < direct["two_way_p"] <= 1
        if "fmri" not in (source, target):  # the largest of the three
            assert direct["two_way"] > 0.55 and direct["two_way_p"] < 0.05
    page = (tmp_path / "report" / "report.md").read_text()
    assert "12 unseen pictures in common, for the queries (test), for the gallery (" in page


@pytest.mark.slow
def test_unseen_people_are_decoded_above_chance_beside_a_baseline(tmp_path, monkeypatch):
    """Three simulated people, each scored by a model of the other two; docs/protocols.md tells the figures."""
    monkeypatch.chdir(tmp_path)
    tiny = get_preset("tiny")
    sizes = replace(
        tiny.things_eeg2, subjects=(1, 2, 3), n_concepts=40, images_per_concept=5, n_test_images=20, test_repeats=4,
        train_shown=210, train_targets=10, test_shown=85, test_targets=5,
    )  # fmt: skip
    things_eeg2_twin.write(tmp_path / "raw", replace(tiny, things_eeg2=sizes), 0, releases=False)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | {"closed_form": True}))
    cli.main(["prepare", "things_eeg2", "--raw-dir", "raw", "--output-dir", "eeg"])
    cli.main(["embed-images", "eeg", "--model", TINY_CLIP])
    record = cli.main([
        "leave-one-person-out", "eeg", "--output-dir", "unseen", "--recipe", "recipe.yaml", "--baselines", "identity",
    ])  # fmt: skip
    report = cli.main([
        "evaluate", "--checkpoint", "unseen/sub-01/checkpoint", "--data", "eeg=eeg", "--subjects", "sub-02", "sub-03",
        "--protocol", "things-eeg2-200", "--baselines", "identity", "--no-controls", "--no-pictures",
        "--output-dir", "seen",
    ])  # fmt: skip
    ours, ridge = "neural_clip", "ridge, identity alignment"
    shown = {}
    for people, rows in (("same", report["protocol"]["by_person"]["eeg"]), ("unseen", record["rows"])):
        found = {(row["method"], row["queries"]): row for row in rows}
        assert set(found) == {(name, kind) for name in (ours, ridge) for kind in KINDS}
        for row in found.values():
            assert row["chance_top1"] == pytest.approx(1 / 20) and row["top1_interval"][0] > 1 / 20
            assert row["two_way_interval"][0] > 0.5
        shown[people] = [100 * found[name, kind]["top1"] for name in (ours, ridge) for kind in KINDS]
    assert set(record["people"]) == {"sub-01", "sub-02", "sub-03"} and record["simulated"]
    page = (REPOSITORY / "docs" / "protocols.md").read_text(encoding="utf-8")
    for people, scores in shown.items():
        (told,) = re.findall(rf"^\| {people} people[^|]*\| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", page, re.M)
        np.testing.assert_allclose(scores, [int(number) for number in told], atol=5)  # what another machine rounds
