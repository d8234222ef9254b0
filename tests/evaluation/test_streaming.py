"""Evaluations that read recordings from Parquet files, without copies of them."""

import pytest

from neural_clip import FmriConfig, NeuralClipConfig, NeuralClipModel
from neural_clip.commands.evaluate import main
from neural_clip.errors import DataError
from neural_clip.evaluation.checkpoints import MOST_KEPT, open_data
from neural_clip.prepared import parquet
from neural_clip.prepared.reader import PreparedSet
from planted_data import WIDTH, write_planted
from saved_models import save_model

COUNTS = {"train": 24, "validation": 8, "test": 12}


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
