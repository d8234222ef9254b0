"""From prepared data sets and a model to `report.json`, on planted signals with known answers."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from neural_clip import evaluation
from neural_clip.configuration_neural_clip import EegConfig, NeuralClipConfig
from neural_clip.corpora.prepared import write_prepared
from neural_clip.errors import DataError
from neural_clip.evaluation import conversion_record, encoding_record, evaluate_checkpoint, main, picture_hits
from neural_clip.image_retrieval import retrieval_scores
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.recording_embeddings import IMAGE_MEAN, SINGLE_TRIAL, SUBJECT_MEAN, aggregate, embed_split
from neural_clip.reporting import markdown
from planted_data import ENCODER, WIDTH, PlantedModel, write_planted


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three planted data sets."""
    root = tmp_path_factory.mktemp("planted")
    noise = {"eeg": 8.0, "meg": 8.0, "fmri": 6.0}
    return {m: write_planted(root / m, m, noise=noise[m], seed=i) for i, m in enumerate(noise)}


@pytest.fixture(scope="module")
def evaluated(folders, tmp_path_factory):
    """Report of the planted model over all three, and the folder it was written to."""
    patch = pytest.MonkeyPatch()
    patch.setattr(evaluation, "_load_model", lambda checkpoint: PlantedModel(("eeg", "meg", "fmri")))
    output_dir = tmp_path_factory.mktemp("evaluated")
    report = evaluate_checkpoint("planted", list(folders.values()), output_dir, command="test")
    patch.undo()
    return report, output_dir


def test_planted_signal_scores_high_everywhere(evaluated):
    report, _ = evaluated
    for modality in ("eeg", "meg", "fmri"):
        row = report["decoding"][modality]["rows"][0]
        assert row["two_way"] > 0.95 and row["two_way_p"] < 0.01 and row["two_way_interval"][0] > 0.9
        assert (row["method"], row["aggregation"]) == ("neural_clip", SINGLE_TRIAL)
        assert (row["n_queries"], row["gallery_size"], row["chance_top1"]) == (96, 24, pytest.approx(1 / 24))
        assert report["encoding"][modality]["two_way"] > 0.9
        assert report["encoding"][modality]["top1"] > 0.5
    assert [(r["source"], r["target"]) for r in report["conversion"]] == [
        ("eeg", "meg"), ("eeg", "fmri"), ("meg", "eeg"), ("meg", "fmri"), ("fmri", "eeg"), ("fmri", "meg")
    ]  # fmt: skip
    for record in report["conversion"]:
        assert record["two_way"] > 0.6 and record["two_way_p"] < 0.05
        denominator = report["decoding"][record["target"]]["rows"][0]["two_way"]
        assert record["normalised"] == pytest.approx(record["two_way"] / denominator)
        assert record["denominator_two_way"] == denominator and "test" in record["denominator"]


def test_rows_name_method_and_aggregation(evaluated):
    report, _ = evaluated
    rows = [(r["method"], r["aggregation"], r["n_queries"]) for r in report["decoding"]["eeg"]["rows"]]
    expected = []
    for method in ("neural_clip", "per-subject ridge", "pooled whitened ridge"):
        expected += [(method, SINGLE_TRIAL, 96), (method, IMAGE_MEAN, 48), (method, SUBJECT_MEAN, 24)]
    assert rows == expected
    means = [r["two_way"] for r in report["decoding"]["eeg"]["rows"][:3]]
    assert means[0] < means[2]  # averaging takes noise away


def test_controls_stand_beside_the_scores(evaluated):
    report, _ = evaluated
    checks = {record["check"]: record for record in report["audits"]["eeg"]}
    assert checks["shuffled labels"]["two_way"] == pytest.approx(0.5, abs=0.2)
    assert checks["2 repeats"]["two_way"] >= checks["1 repeat"]["two_way"]
    assert "not known" in checks["time alone"]["not_computed"]  # nothing says that trials are in order of time
    assert all(record["meaning"] for records in report["audits"].values() for record in records)
    text = markdown(report, {})
    assert "## Controls beside the scores" in text
    assert f"| EEG simulated | shuffled labels | ridge | {checks['shuffled labels']['two_way']:.3f} [" in text


def test_trials_numbered_anew_in_each_run_are_told_apart_by_run():
    table = pd.DataFrame({"subject": ["sub-01"] * 4, "session": ["a"] * 4, "run": ["1", "1", "2", "2"]})
    once = {"train": table.assign(trial=[0, 1, 2, 3])}
    assert evaluation._stretches(once["train"], once).tolist() == ["sub-01/a"] * 4
    anew = {"train": table.assign(trial=[0, 1, 0, 1])}
    assert evaluation._stretches(anew["train"], anew).tolist() == ["sub-01/a/1"] * 2 + ["sub-01/a/2"] * 2


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
    assert {name: row[name] for name in scores if name != "n_classes"} == {
        name: value for name, value in scores.items() if name != "n_classes"
    }


def test_same_seed_gives_the_same_report(evaluated, folders, tmp_path, monkeypatch):
    report, _ = evaluated
    monkeypatch.setattr(evaluation, "_load_model", lambda checkpoint: PlantedModel(("eeg", "meg", "fmri")))
    again = evaluate_checkpoint("planted", [folders["eeg"]], tmp_path, command="test")
    assert again["decoding"]["eeg"] == report["decoding"]["eeg"]
    assert again["encoding"]["eeg"] == report["encoding"]["eeg"]
    assert again["conversion"] == []


def test_shuffled_labels_score_chance(tmp_path, monkeypatch):
    folder = write_planted(tmp_path / "eeg", "eeg", n_subjects=3, shuffled=True)
    monkeypatch.setattr(evaluation, "_load_model", lambda checkpoint: PlantedModel(("eeg",), 3))
    report = evaluate_checkpoint("planted", [folder], tmp_path / "out")
    for row in report["decoding"]["eeg"]["rows"]:
        assert row["two_way"] == pytest.approx(0.5, abs=0.2)
        assert row["two_way_p"] > 0.01
    assert report["encoding"]["eeg"]["two_way"] == pytest.approx(0.5, abs=0.25)


def test_encoding_and_conversion_equal_a_slow_computation(folders):
    model = PlantedModel(("eeg", "fmri"))
    eeg, fmri = (embed_split(model, str(folders[m]), "test") for m in ("eeg", "fmri"))

    def cosine(a, b):
        return float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))

    def behind(query, target):  # embedding of the image behind the nearest recording
        nearest = max(range(len(target.embeds)), key=lambda row: cosine(query, target.embeds[row]))
        return target.gallery_embeds[list(target.gallery_ids).index(target.image_ids[nearest])]

    def two_way(found, ids, part):
        images = dict(zip(part.gallery_ids, part.gallery_embeds, strict=True))
        return np.mean([
            np.mean([np.heaviside(cosine(f, images[i]) - cosine(f, images[j]), 0.5) for j in images if j != i])
            for f, i in zip(found, ids, strict=True)
        ])  # fmt: skip

    found = [behind(query, eeg) for query in eeg.gallery_embeds]
    assert encoding_record(eeg, seed=0)["two_way"] == pytest.approx(two_way(found, eeg.gallery_ids, eeg), abs=1e-6)
    found = [behind(query, fmri) for query in eeg.embeds]
    record = conversion_record(eeg, fmri, 0.8, "test", seed=0)
    assert record["two_way"] == pytest.approx(two_way(found, eeg.image_ids, eeg), abs=1e-6)
    assert record["normalised"] == pytest.approx(record["two_way"] / 0.8)


def test_picture_hits_are_the_nearest_of_each_image(folders):
    model = PlantedModel(("eeg", "meg"))
    parts = {m: embed_split(model, str(folders[m]), "test") for m in ("eeg", "meg")}
    arrays = picture_hits(parts)
    similarity = parts["eeg"].embeds @ parts["meg"].embeds.T
    for query in range(0, 96, 17):
        images = []
        for row in np.argsort(-similarity[query]):
            if parts["meg"].image_ids[row] not in images:
                images.append(parts["meg"].image_ids[row])
        got = [parts["meg"].image_ids[row] for row in arrays["eeg_to_meg_hits"][query]]
        assert got == images[:5]
    assert arrays["eeg_decoding_scores"].shape == (96,) and arrays["meg_encoding_hits"].shape == (24, 5)


def test_aggregate_averages_unit_vectors():
    embeds = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 5.0]])
    subjects, ids = np.array(["a", "a", "a", "b"]), np.array(["x", "x", "y", "x"])
    means, people, images = aggregate(embeds, subjects, ids, IMAGE_MEAN)
    assert (people.tolist(), images.tolist()) == (["a", "a", "b"], ["x", "y", "x"])
    np.testing.assert_allclose(means, [[0.5, 0.5], [1, 0], [0, 1]])
    means, people, images = aggregate(embeds, subjects, ids, SUBJECT_MEAN)
    assert (people.tolist(), images.tolist()) == (["all", "all"], ["x", "y"])
    np.testing.assert_allclose(means, [[1 / 3, 2 / 3], [1, 0]])


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

    def _features(self, modality, values, subject_ids):
        return torch.nn.functional.pad(values.mean(dim=2), (0, WIDTH - 2))


def test_category_level_resamples_recordings_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "_load_model", lambda checkpoint: TwoCategoryModel(("eeg",)))
    report = evaluate_checkpoint("planted", [category_folder(tmp_path / "faces")], tmp_path / "out")
    assert report["category_level"] and report["data"]["eeg"]["category_level"]
    row = report["decoding"]["eeg"]["rows"][0]
    assert (row["gallery_size"], row["n_queries"], row["resampled_unit"]) == (2, 40, "recording")
    assert row["two_way"] > 0.75 and row["two_way_p"] < 0.01 and row["two_way_interval"][0] > 0.5
    assert [r["aggregation"] for r in report["decoding"]["eeg"]["rows"]] == [SINGLE_TRIAL] * 3
    assert report["encoding"]["eeg"]["two_way_interval"] is None  # two queries are too few to resample


def save_model(path, **changes):
    torch.manual_seed(0)
    config = {"n_chans": 6, "n_times": 10, "sfreq": 100.0, "subjects": ["sub-01", "sub-02"], "hidden_size": 8,
              "temporal_kernel_size": 3, "n_windows": 2} | changes  # fmt: skip
    model = NeuralClipModel(NeuralClipConfig(eeg_config=EegConfig(**config), projection_dim=WIDTH))
    model.save_pretrained(path)
    return path


def test_the_command_evaluates_a_saved_model(folders, tmp_path, capsys):
    checkpoint = save_model(tmp_path / "model")
    output_dir = tmp_path / "out"
    arguments = ["--checkpoint", str(checkpoint), "--data", f"eeg={folders['eeg']}", "--output-dir", str(output_dir)]
    report = main([*arguments, "--no-baselines", "--no-pictures", "--no-audits", "--understand", "6"])
    assert report["audits"] == {}
    assert {"eeg_time_course.png", "similarity.png"} <= set(report["understanding"]["pictures"].values())
    assert "understanding/similarity.png" in (output_dir / "report.md").read_text()
    assert (output_dir / "report.html").is_file()
    row = report["decoding"]["eeg"]["rows"][0]
    assert row["two_way"] == pytest.approx(0.5, abs=0.25)  # never trained
    assert len(report["checkpoint"]["sha256"]) == 64
    assert "EEG simulated" in capsys.readouterr().out
    assert (output_dir / "report.md").is_file() and not (output_dir / "pictures").exists()
    with torch.no_grad():
        model = NeuralClipModel.from_pretrained(checkpoint)
        part = embed_split(model, str(folders["eeg"]), "test", batch_size=7)
    np.testing.assert_allclose(np.linalg.norm(part.embeds, axis=1), 1, atol=1e-6)
    whole = embed_split(model, str(folders["eeg"]), "test", batch_size=500)
    np.testing.assert_allclose(part.embeds, whole.embeds, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subjects": ["sub-01"]}, "subject 'sub-02'"),
        ({"n_chans": 7}, "n_chans is 6, but the model expects 7"),
        ({"n_times": 12}, "n_times is 10, but the model expects 12"),
        ({"sfreq": 250.0}, "sfreq is 100.0, but the model expects 250.0"),
        ({"ch_names": [f"C{5 - i}" for i in range(6)]}, "ch_names"),
    ],
)
def test_a_data_set_that_does_not_fit_the_model_raises(folders, tmp_path, changes, message):
    checkpoint = save_model(tmp_path / "model", **changes)
    with pytest.raises(DataError, match=message):
        evaluate_checkpoint(checkpoint, [folders["eeg"]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_input_raises(folders, tmp_path):
    checkpoint = save_model(tmp_path / "model")
    with pytest.raises(DataError, match="no meg encoder"):
        evaluate_checkpoint(checkpoint, [folders["meg"]], tmp_path / "out")
    with pytest.raises(DataError, match="both hold eeg"):
        evaluate_checkpoint(checkpoint, [folders["eeg"], folders["eeg"]], tmp_path / "out")
    other = write_planted(tmp_path / "other", "fmri", encoder=ENCODER | {"revision": "1"})
    with pytest.raises(DataError, match="different encoders"):
        evaluate_checkpoint(checkpoint, [folders["eeg"], other], tmp_path / "out")
    with pytest.raises(DataError, match="no readable checkpoint"):
        evaluate_checkpoint(tmp_path / "nothing", [folders["eeg"]], tmp_path / "out")
    common = ["--checkpoint", str(checkpoint), "--output-dir", str(tmp_path / "out")]
    with pytest.raises(DataError, match="says meg, but the data set holds eeg"):
        main([*common, "--data", f"meg={folders['eeg']}"])
    with pytest.raises(DataError, match="but got 'ecg=x'"):
        main([*common, "--data", "ecg=x"])


def test_a_model_that_gives_nan_raises(folders, tmp_path, monkeypatch):
    class Broken(PlantedModel):
        def _features(self, modality, values, subject_ids):
            return super()._features(modality, values, subject_ids) * float("nan")

    monkeypatch.setattr(evaluation, "_load_model", lambda checkpoint: Broken(("eeg",)))
    with pytest.raises(DataError, match="NaN or infinity"):
        evaluate_checkpoint("planted", [folders["eeg"]], tmp_path / "out")


@pytest.mark.parametrize(("key", "value"), [("name", "other"), ("revision", "1"), ("pooling", "cls")])
def test_embeddings_of_another_encoder_than_the_models_raise(folders, tmp_path, key, value):
    """The widths agree, so that nothing but the record tells the two spaces apart."""
    named = {"vision_model_name": "planted", "vision_revision": "0", "image_pooling": "projected"}
    checkpoint = save_model(tmp_path / "model")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | named))
    arguments = ["--checkpoint", str(checkpoint), "--output-dir", str(tmp_path / "out"), "--no-baselines"]
    main([*arguments, "--no-pictures", "--data", f"eeg={folders['eeg']}"])
    folder = write_planted(tmp_path / "again", "eeg", encoder=ENCODER | {key: value})
    with pytest.raises(DataError) as caught:
        main([*arguments, "--data", f"eeg={folder}"])
    for part in (f"The checkpoint '{checkpoint}'", f"'{folder}'", "'planted'", repr(value), f"differ in '{key}'"):
        assert part in str(caught.value)
