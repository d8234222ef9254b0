"""Two EEG corpora of other channels, rates and windows, from their raw formats to a report, in real processes."""

import json

import pytest

from neural_clip import NeuralClipModel
from neural_clip.prepared.reader import PreparedSet
from second_process import python

NAMES = {"imagenet_eeg": (16, 440, 1000.0), "things_eeg2": (63, 250, 250.0)}


def neural_clip(*words, cwd):
    done = python("-m", "neural_clip.commands.main", *words, cwd=cwd, timeout=1200)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.mark.slow
def test_twins_of_two_corpora_are_trained_and_scored_together(tmp_path):
    neural_clip("simulate", "--corpora", "eeg", "things_eeg2", "--preset", "tiny", "--output-dir", "raw", cwd=tmp_path)
    for name in NAMES:
        neural_clip("prepare", name, "--raw-dir", f"raw/{name}", "--output-dir", name, cwd=tmp_path)
        neural_clip("embed-images", name, "--model", "neural_clip/tiny-clip", cwd=tmp_path)
    data = ["--data", *(f"eeg={name}" for name in NAMES)]
    done = neural_clip("train", *data, "--output-dir", "out", "--epochs", "2", "--min-steps", "0", cwd=tmp_path)
    assert "'imagenet_eeg' and" not in done.stderr  # 176 recordings fill a batch of both
    neural_clip("evaluate", "--checkpoint", "out", *data, "--output-dir", "report", "--baselines", "ridge",
                "--no-controls", cwd=tmp_path)  # fmt: skip

    config = json.loads((tmp_path / "out" / "config.json").read_text())["eeg_config"]
    assert (config["n_chans"], config["sfreq"], config["tmin"], config["n_times"]) == (63, 250.0, 0.04, 110)
    for name, shape in NAMES.items():
        assert tuple(config["corpora"][name][key] for key in ("n_chans", "n_times", "sfreq")) == shape
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert list(report["decoding"]) == [f"eeg.{name}" for name in NAMES]
    for name in NAMES:
        rows = report["decoding"][f"eeg.{name}"]["rows"]
        assert {"neural_clip", "per-subject ridge"} <= {row["method"] for row in rows}
        assert report["data"][f"eeg.{name}"]["fingerprint"] == PreparedSet.open(tmp_path / name).facts.fingerprint
    model = NeuralClipModel.from_pretrained(tmp_path / "out")
    assert model.config.eeg_config.subjects == [f"{name}/sub-0{n}" for name in NAMES for n in (1, 2)]
    assert set(model.closed_forms["eeg"].settings.own) <= set(model.config.eeg_config.subjects)
    again = python("-m", "neural_clip.commands.main", "adapt", "--checkpoint", "out", "--data", "eeg=things_eeg2",
                   "--output-dir", "adapted", cwd=tmp_path)  # fmt: skip
    assert again.returncode != 0 and "has people of the corpora" in again.stderr
