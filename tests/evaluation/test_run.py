"""From prepared data sets and a model to `report.json`, on planted signals with known answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from neural_clip.commands.evaluate import main
from neural_clip.commands.options import named_checkpoints
from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.rows import BASELINES
from neural_clip.evaluation.run import evaluate_checkpoints
from neural_clip.gallery.embedding import IMAGE_MEAN, SINGLE_TRIAL, SUBJECT_MEAN, embed_split
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.writer import write_prepared
from neural_clip.report.text import markdown
from neural_clip.retrieval.scores import retrieval_scores
from planted_data import ENCODER, WIDTH, PlantedModel, plant, write_planted
from saved_models import save_model

pytestmark = pytest.mark.numerical


@pytest.fixture(scope="module")
def evaluated(folders, tmp_path_factory):
    """Report of the planted model over all three, and the folder it was written to."""
    patch = pytest.MonkeyPatch()
    plant(patch, lambda checkpoint: PlantedModel(("eeg", "meg", "fmri")))
    output_dir = tmp_path_factory.mktemp("evaluated")
    report = evaluate_checkpoints({"neural_clip": "planted"}, list(folders.values()), output_dir, command="test")
    patch.undo()
    return report, output_dir


def test_planted_signal_scores_high_everywhere(evaluated):
    report, _ = evaluated
    for modality in ("eeg", "meg", "fmri"):
        row = report["decoding"][modality]["rows"][0]
        assert row["two_way"] > 0.95 and row["two_way_p"] < 0.01 and row["two_way_interval"][0] > 0.9
        assert (row["method"], row["aggregation"]) == ("neural_clip", SINGLE_TRIAL)
        assert (row["n_queries"], row["gallery_size"], row["chance_top1"]) == (96, 24, pytest.approx(1 / 24))
        (encoded,) = report["encoding"][modality]["rows"]
        assert encoded["two_way"] > 0.9 and encoded["same_image"] > 0.5
        assert encoded["direct"]["two_way"] > 0.9 and encoded["direct"]["chance_top1"] == pytest.approx(1 / 24)
    assert [(r["source"], r["target"]) for r in report["conversion"]] == [
        ("eeg", "meg"), ("eeg", "fmri"), ("meg", "eeg"), ("meg", "fmri"), ("fmri", "eeg"), ("fmri", "meg")
    ]  # fmt: skip
    for record in report["conversion"]:
        assert record["two_way"] > 0.6 and record["two_way_p"] < 0.05
        denominator = report["decoding"][record["target"]]["rows"][0]["two_way"]
        assert record["normalised"] == pytest.approx(record["two_way"] / denominator)
        assert record["denominator_two_way"] == denominator and "test" in record["denominator"]
        assert record["direct"] is None  # the three corpora show different pictures


def test_rows_name_method_and_aggregation(evaluated):
    report, _ = evaluated
    rows = [(r["method"], r["aggregation"], r["n_queries"]) for r in report["decoding"]["eeg"]["rows"]]
    expected = []
    for method in ("neural_clip", *(name for name, _ in BASELINES)):
        expected += [(method, SINGLE_TRIAL, 96), (method, IMAGE_MEAN, 48), (method, SUBJECT_MEAN, 24)]
    assert rows == expected
    means = [r["two_way"] for r in report["decoding"]["eeg"]["rows"][:3]]
    assert means[0] < means[2]  # averaging takes noise away


def test_controls_stand_beside_the_scores(evaluated):
    report, _ = evaluated
    checks = {record["check"]: record for record in report["controls"]["eeg"]}
    assert checks["shuffled labels"]["two_way"] == pytest.approx(0.5, abs=0.2)
    assert checks["2 repeats"]["two_way"] >= checks["1 repeat"]["two_way"]
    assert "not known" in checks["time alone"]["not_computed"]  # nothing says that trials are in order of time
    assert all(record["meaning"] for records in report["controls"].values() for record in records)
    text = markdown(report, {})
    assert "## Controls beside the scores" in text
    assert f"| EEG simulated | shuffled labels | ridge | {checks['shuffled labels']['two_way']:.3f} [" in text


def test_report_states_where_it_comes_from(evaluated, folders):
    report, output_dir = evaluated
    assert report["simulated"] and report["simulated_modalities"] == ["eeg", "meg", "fmri"]
    assert (report["split"], report["seed"], report["command"]) == ("test", 0, "test")
    assert report["versions"]["numpy"] == np.__version__
    stated = json.loads((folders["meg"] / "neural_clip.json").read_text())
    assert report["data"]["meg"]["fingerprint"] == stated["fingerprint"]
    assert report["decoding"]["fmri"]["ceiling"]["two_way"] == 0.99
    assert json.loads((output_dir / "report.json").read_text()) == report
    assert not list(output_dir.glob("*.partial"))


def test_decoding_equals_the_metric_on_the_saved_embeddings(evaluated):
    report, output_dir = evaluated
    with np.load(output_dir / "embeddings.npz", allow_pickle=False) as arrays:
        scores = retrieval_scores(
            arrays["meg_embeds"], arrays["meg_gallery_embeds"], arrays["meg_image_ids"], arrays["meg_gallery_ids"]
        )
    row = report["decoding"]["meg"]["rows"][0]
    assert {name: row[name] for name in scores if name != "n_classes"} == pytest.approx(
        {name: value for name, value in scores.items() if name != "n_classes"}
    )


class Noisy(PlantedModel):
    """A spoilt model."""

    def features(self, modality, values, subject_ids):
        features = super().features(modality, values, subject_ids)
        return features + 2 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))


def test_each_checkpoint_is_normalised_by_its_own_decoding(folders, tmp_path, monkeypatch):
    models = {"good": PlantedModel(("eeg", "meg")), "bad": Noisy(("eeg", "meg"))}
    plant(monkeypatch, models.get)
    data = [folders["eeg"], folders["meg"]]
    report = evaluate_checkpoints({"a": "good", "b": "bad"}, data, tmp_path, baselines=False, controls=False)
    for record in report["conversion"]:
        rows = report["decoding"][record["target"]]["rows"]
        own = next(row for row in rows if (row["method"], row["aggregation"]) == (record["method"], SINGLE_TRIAL))
        assert record["denominator_two_way"] == own["two_way"]
        assert f"by {record['method']}, " in record["denominator"]
    assert len({record["denominator_two_way"] for record in report["conversion"]}) == 4
    units = {(part["task"], part["n_queries"], part["n_images"]) for part in report["comparisons"]}
    assert units == {("decoding", 96, 24), ("encoding", 24, 24), ("conversion", 96, 24)}  # repeats of an image are one


def test_several_checkpoints_stand_in_one_report(folders, tmp_path, monkeypatch):
    """A copy of the first differs by nothing, a spoilt one by what the paired comparison says."""
    models = {
        "planted": PlantedModel(("eeg", "meg")), "copy": PlantedModel(("eeg", "meg")), "noisy": Noisy(("eeg",)),
    }  # fmt: skip
    plant(monkeypatch, models.get)
    names = named_checkpoints(["planted", "again=copy", "spoilt=noisy"])
    data = [folders["eeg"], folders["meg"]]
    report = evaluate_checkpoints(names, data, tmp_path, baselines=False, controls=False)
    assert [(part["name"], part["modalities"]) for part in report["checkpoints"]] == [
        ("neural_clip", ["eeg", "meg"]), ("again", ["eeg", "meg"]), ("spoilt", ["eeg"])
    ]  # fmt: skip
    methods = {m: [row["method"] for row in report["encoding"][m]["rows"]] for m in ("eeg", "meg")}
    assert methods == {"eeg": ["neural_clip", "again", "spoilt"], "meg": ["neural_clip", "again"]}
    rows = {row["method"]: row for row in reversed(report["decoding"]["eeg"]["rows"])}  # single trials come first
    for part in report["comparisons"]:
        if part["other"] == "again":
            assert (part["difference"], part["interval"], part["p"]) == (0, [0, 0], 1)
        elif part["task"] == "decoding":
            score = part["score"]
            assert part["difference"] == pytest.approx(rows["neural_clip"][score] - rows["spoilt"][score])
            assert part["interval"][0] > 0.05 and part["p"] < 0.01
    found = [(part["task"], *part["modalities"], part["score"], part["other"]) for part in report["comparisons"]]
    assert found == [
        ("decoding", "eeg", "two_way", "again"), ("decoding", "eeg", "top1", "again"),
        ("decoding", "eeg", "two_way", "spoilt"), ("decoding", "eeg", "top1", "spoilt"),
        ("encoding", "eeg", "two_way", "again"), ("encoding", "eeg", "two_way", "spoilt"),
        ("decoding", "meg", "two_way", "again"), ("decoding", "meg", "top1", "again"),
        ("encoding", "meg", "two_way", "again"),
        ("conversion", "eeg", "meg", "two_way", "again"), ("conversion", "meg", "eeg", "two_way", "again"),
    ]  # fmt: skip
    text = markdown(report, {})
    spoilt = next(part for part in report["comparisons"] if part["other"] == "spoilt")
    row = f"| EEG simulated | decoding | 2-way | neural_clip (ours) | spoilt | {spoilt['difference']:+.3f} ["
    assert row in text


def test_baselines_are_compared_with_the_model(evaluated):
    report, _ = evaluated
    others = [
        part["other"] for part in report["comparisons"] if part["modalities"] == ["eeg"] and part["score"] == "top1"
    ]
    assert others == [name for name, _ in BASELINES]
    assert all(part["method"] == "neural_clip" for part in report["comparisons"])


def test_same_seed_gives_the_same_report(evaluated, folders, tmp_path, monkeypatch):
    report, _ = evaluated
    plant(monkeypatch, lambda checkpoint: PlantedModel(("eeg", "meg", "fmri")))
    again = evaluate_checkpoints({"neural_clip": "planted"}, [folders["eeg"]], tmp_path, command="test")
    assert again["decoding"]["eeg"] == report["decoding"]["eeg"]
    assert again["encoding"]["eeg"] == report["encoding"]["eeg"]
    assert again["conversion"] == []


def test_shuffled_labels_score_chance(tmp_path, monkeypatch):
    folder = write_planted(tmp_path / "eeg", "eeg", n_subjects=3, shuffled=True)
    plant(monkeypatch, lambda checkpoint: PlantedModel(("eeg",), 3))
    report = evaluate_checkpoints({"neural_clip": "planted"}, [folder], tmp_path / "out")
    for row in report["decoding"]["eeg"]["rows"]:
        assert row["two_way"] == pytest.approx(0.5, abs=0.2)
        assert row["two_way_p"] > 0.01
    assert report["encoding"]["eeg"]["rows"][0]["two_way"] == pytest.approx(0.5, abs=0.25)


def category_folder(path, modality="eeg", seed=0):
    """Two categories, each trial's run decides its split."""
    rng = np.random.default_rng(seed)
    embeds = np.eye(WIDTH, dtype=np.float32)[:2]

    def recordings():
        for trial in range(120):
            kind = trial % 2
            split = ("train", "validation", "test")[trial // 40]
            values = np.zeros((2, 5))
            values[kind] = 1
            yield {"subject": "sub-01", "run": f"run-{trial // 40}", "trial": trial, "split": split,
                   "image_id": ("face", "house")[kind], modality: values + rng.standard_normal((2, 5))}  # fmt: skip

    metadata = {
        "corpus": "faces", "modality": modality, "split_protocol": "by run", "split_unit": "run",
        "category_level": True,
        "licence": "none", "redistribution": "allowed", "citation": "none", "source": "none", "image_encoder": ENCODER,
        "sfreq": 100.0, "tmin": 0.0, "ch_names": ["A", "B"],
    }  # fmt: skip
    images = [
        {"image_id": name, "concept": name, "image_embeds": embeds[i]} for i, name in enumerate(("face", "house"))
    ]
    return write_prepared(path, metadata, recordings(), images)


class TwoCategoryModel(PlantedModel):
    """Tells the two categories of `category_folder` apart."""

    def features(self, modality, values, subject_ids):
        return torch.nn.functional.pad(values.mean(dim=2), (0, WIDTH - 2))


def test_category_level_resamples_recordings_and_says_so(tmp_path, monkeypatch):
    plant(monkeypatch, lambda checkpoint: TwoCategoryModel(("eeg",)))
    report = evaluate_checkpoints({"neural_clip": "planted"}, [category_folder(tmp_path / "faces")], tmp_path / "out")
    assert report["category_level"] and report["data"]["eeg"]["category_level"]
    row = report["decoding"]["eeg"]["rows"][0]
    assert (row["gallery_size"], row["n_queries"], row["resampled_unit"]) == (2, 40, "recording")
    assert row["two_way"] > 0.75 and row["two_way_p"] < 0.01 and row["two_way_interval"][0] > 0.5
    assert [r["aggregation"] for r in report["decoding"]["eeg"]["rows"]] == [SINGLE_TRIAL] * (1 + len(BASELINES))
    assert report["encoding"]["eeg"]["rows"][0]["two_way_interval"] is None  # two queries are too few to resample


def test_the_command_evaluates_a_saved_model(folders, tmp_path, capsys):
    checkpoint = save_model(tmp_path / "model")
    output_dir = tmp_path / "out"
    named = f"never trained={checkpoint}"
    arguments = ["--checkpoint", named, "--data", f"eeg={folders['eeg']}", "--output-dir", str(output_dir)]
    report = main([*arguments, "--baselines", "none", "--no-pictures", "--no-controls", "--understand", "6"])
    assert report["controls"] == {}
    # as a shell reads it, and of absolute paths the last part
    assert report["command"].startswith("neural-clip evaluate --checkpoint 'never trained=model' --data eeg=eeg ")
    assert {"eeg_time_course.png", "similarity.png"} <= set(report["understanding"]["pictures"].values())
    assert "understanding/similarity.png" in (output_dir / "report.md").read_text()
    assert (output_dir / "report.html").is_file()
    row = report["decoding"]["eeg"]["rows"][0]
    assert row["two_way"] == pytest.approx(0.5, abs=0.25)  # never trained
    assert len(report["checkpoints"][0]["sha256"]) == 64
    assert "EEG simulated" in capsys.readouterr().out
    assert (output_dir / "report.md").is_file() and not (output_dir / "pictures").exists()
    with torch.no_grad():
        model = NeuralClipModel.from_pretrained(checkpoint)
        shown = PreparedSet.open(folders["eeg"]).split("test")
        part = embed_split(model, shown, batch_size=7)
    np.testing.assert_allclose(np.linalg.norm(part.embeds, axis=1), 1, atol=1e-6)
    whole = embed_split(model, shown, batch_size=500)
    np.testing.assert_allclose(part.embeds, whole.embeds, atol=1e-5)


@pytest.mark.slow
def test_two_processes_write_identical_files(tmp_path):
    """Two checkpoints, baselines, controls and pictures, with hash seeds of their own."""
    write_planted(tmp_path / "data", "eeg", repeats=1, counts={"train": 20, "validation": 6, "test": 10})
    save_model(tmp_path / "model")
    save_model(tmp_path / "wide", hidden_size=12)
    program = [str(Path(sys.executable).parent / "neural-clip"), "evaluate", "--checkpoint", "../model", "../wide"]
    written = []
    for number in ("1", "2"):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        command = [*program, "--data", "eeg=../data", "--output-dir", "out"]
        subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONHASHSEED": number}, check=True)
        files = [path for path in sorted((folder / "out").rglob("*")) if path.is_file()]
        written.append({str(path.relative_to(folder)): path.read_bytes() for path in files})
    assert written[0] == written[1]
    assert {"out/report.json", "out/report.html", "out/pictures/intervals_decoding.png"} <= written[0].keys()


def test_bad_input_raises(folders, tmp_path):
    checkpoint = save_model(tmp_path / "model")
    with pytest.raises(DataError, match="no meg encoder"):
        evaluate_checkpoints({"neural_clip": checkpoint}, [folders["meg"]], tmp_path / "out")
    with pytest.raises(DataError, match="both hold eeg"):
        evaluate_checkpoints({"neural_clip": checkpoint}, [folders["eeg"], folders["eeg"]], tmp_path / "out")
    other = write_planted(tmp_path / "other", "fmri", encoder=ENCODER | {"revision": "1"})
    with pytest.raises(DataError, match=r"different image encoders.*other"):
        evaluate_checkpoints({"neural_clip": checkpoint}, [folders["eeg"], other], tmp_path / "out")
    with pytest.raises(DataError, match="no readable checkpoint"):
        evaluate_checkpoints({"neural_clip": tmp_path / "nothing"}, [folders["eeg"]], tmp_path / "out")
    common = ["--checkpoint", str(checkpoint), "--output-dir", str(tmp_path / "out")]
    with pytest.raises(DataError, match="says meg, but the data set holds eeg"):
        main([*common, "--data", f"meg={folders['eeg']}"])
    with pytest.raises(DataError, match="but got 'ecg=x'"):
        main([*common, "--data", "ecg=x"])


def test_a_model_that_gives_nan_raises(folders, tmp_path, monkeypatch):
    class Broken(PlantedModel):
        def features(self, modality, values, subject_ids):
            return super().features(modality, values, subject_ids) * float("nan")

    plant(monkeypatch, lambda checkpoint: Broken(("eeg",)))
    with pytest.raises(DataError, match="NaN or infinity"):
        evaluate_checkpoints({"neural_clip": "planted"}, [folders["eeg"]], tmp_path / "out")
