"""Checkpoints and data sets to evaluate: their encoders, and recordings that are streamed."""

import pyarrow.parquet as pq
import pytest

from neural_clip import FmriConfig, NeuralClipConfig, NeuralClipModel
from neural_clip.commands.evaluate import main
from neural_clip.errors import DataError
from neural_clip.evaluation.checkpoints import MOST_KEPT, open_data
from neural_clip.evaluation.run import evaluate_checkpoints
from neural_clip.prepared import parquet
from neural_clip.prepared.reader import PreparedSet
from planted_data import ENCODER, WIDTH, PlantedModel, plant, write_planted
from saved_models import save_model

pytestmark = pytest.mark.numerical
COUNTS = {"train": 24, "validation": 8, "test": 12}


def test_the_first_checkpoint_needs_every_encoder_and_others_one(folders, tmp_path, monkeypatch):
    models = {"a": PlantedModel(("eeg",)), "b": PlantedModel(("eeg", "meg")), "c": PlantedModel(("fmri",))}
    plant(monkeypatch, models.get)
    data = [folders["eeg"], folders["meg"]]
    with pytest.raises(DataError, match="the model 'a' has no meg encoder, and the first checkpoint needs one"):
        evaluate_checkpoints({"x": "a", "y": "b"}, data, tmp_path / "out")
    with pytest.raises(DataError, match="the model 'c' has no eeg encoder"):
        evaluate_checkpoints({"y": "b", "z": "c"}, data, tmp_path / "out")
    with pytest.raises(DataError, match="'b' is called 'per-subject ridge', which is the name of a baseline"):
        evaluate_checkpoints({"y": "b", "per-subject ridge": "b"}, data, tmp_path / "out")
    with pytest.raises(DataError, match=r"Allowed is one or more, but got \[\]"):
        evaluate_checkpoints({}, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["name", "revision", "pooling"])
def test_data_sets_of_different_encoders_are_refused(tmp_path, key):
    counts = {"train": 4, "validation": 2, "test": 2}
    options = {"n_subjects": 1, "repeats": 1, "counts": counts, "pixels": False}
    meg, eeg = (write_planted(tmp_path / name, name, **options) for name in ("meg", "eeg"))
    found = {modality: data.folder for modality, data in open_data([meg, eeg]).items()}
    assert list(found.items()) == [("eeg", eeg), ("meg", meg)]  # in the order of the modalities
    other = write_planted(tmp_path / "other", "fmri", encoder=ENCODER | {key: "another"}, **options)
    with pytest.raises(DataError, match=f"different image encoders.*{meg}.*planted.*{other}.*'{key}': 'another'"):
        open_data([meg, other])
    with pytest.raises(DataError, match=f"'{meg}' and '{meg}' both hold meg"):
        open_data([meg, meg])


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_a_streamed_evaluation_has_the_report_of_another_and_copies_nothing(tmp_path, monkeypatch, modality):
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 6000)
    data = write_planted(tmp_path / "data", modality, pixels=False, counts=COUNTS)
    checkpoint = tmp_path / "model"
    if modality == "eeg":
        save_model(checkpoint)
    else:
        facts = PreparedSet.open(data).facts
        fmri = FmriConfig(subjects=facts.subjects, n_voxels=facts.n_voxels, alignment_size=8, hidden_size=8)
        NeuralClipModel(NeuralClipConfig(fmri_config=fmri, projection_dim=WIDTH)).save_pretrained(checkpoint)
    words = ["--checkpoint", str(checkpoint), "--data", f"{modality}={data}", "--no-pictures", "--baselines",
             "ridge,closed_form,random"]  # fmt: skip
    expected = main([*words, "--output-dir", str(tmp_path / "mapped")])
    monkeypatch.setattr(PreparedSet, "_of_subject", lambda *_: pytest.fail("recordings were written as Arrow"))
    found = main([*words, "--streaming", "--output-dir", str(tmp_path / "streamed")])
    for report in (found, expected):
        for name in ("command", "sha256", "embeddings"):
            report.pop(name)
    for name in found:
        assert found[name] == expected[name], name


def test_what_is_streamed_is_kept_in_little_memory(tmp_path):
    data = write_planted(tmp_path / "data", "eeg", pixels=False, counts=COUNTS)
    streamed = open_data([data], streaming=True)["eeg"]
    for opened in (streamed, streamed.moved_to(None)):
        assert opened.streaming and opened.split("train").recordings.files.most_bytes <= MOST_KEPT


def test_a_file_that_was_changed_is_refused_by_its_size_or_footer(tmp_path):
    data = write_planted(tmp_path / "data", "eeg", pixels=False, counts=COUNTS)
    path = next((tmp_path / "data").glob("data/*/train-*.parquet"))
    path.write_bytes(path.read_bytes()[:-20])
    words = ["--checkpoint", str(save_model(tmp_path / "model")), "--data", f"eeg={data}", "--output-dir",
             str(tmp_path / "out"), "--streaming"]  # fmt: skip
    with pytest.raises(DataError, match=path.name):
        main(words)


@pytest.mark.parametrize("controls", [[], ["--no-controls"]])
def test_a_file_that_cannot_be_read_to_its_end_is_no_reason_to_leave_baselines_out(tmp_path, controls):
    data = write_planted(tmp_path / "data", "eeg", pixels=False, counts=COUNTS)
    path = next((tmp_path / "data").glob("data/*/train-*.parquet"))
    columns = pq.ParquetFile(path).metadata.row_group(0)
    column = columns.column(columns.num_columns - 1)
    with path.open("r+b") as file:
        file.seek(column.data_page_offset)
        file.write(b"\xff" * 64)  # where a page says how it is packed
    words = ["--checkpoint", str(save_model(tmp_path / "model")), "--data", f"eeg={data}", "--output-dir",
             str(tmp_path / "out"), "--streaming", *controls]  # fmt: skip
    with pytest.raises(DataError, match=f"{path.name}' cannot be read"):
        main([*words, *([] if controls else ["--baselines", "none"])])
    assert not (tmp_path / "out" / "report.json").exists()
