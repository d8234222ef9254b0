"""Tests of studies/compare_networks.py: what is compared, ranked and shown; a real run of two small networks."""

import json

import pytest

import compare_networks
from neural_clip import EegConfig, MegConfig
from neural_clip.errors import DataError
from planted_data import write_planted


@pytest.mark.parametrize(("modality", "config_class"), [("eeg", EegConfig), ("meg", MegConfig)])
def test_candidates_differ_in_nothing_but_the_network(modality, config_class):
    found = {name: config_class(**settings) for name, settings in compare_networks.candidates(modality).items()}
    assert len(found) == 7 and len({(c.encoder_type, c.braindecode_model) for c in found.values()}) == 7
    same = {(c.crop_tmin, c.decimation, c.alignment_kernel_size, c.num_networks, c.time_shift) for c in found.values()}
    assert len(same) == 1 and next(iter(same))[2:] == (1, 1, 0.0)


def entry(network, rate, score, modality="eeg"):
    return {
        "modality": modality, "network": network, "learning_rate": rate, "validation_two_way": score,
        "simulated": True, "cpu_seconds": 12.3, "parameters": 7 if score else None,
    }  # fmt: skip


def test_the_better_learning_rate_counts_and_what_was_stopped_comes_last():
    runs = [entry("a", 5e-3, 0.6), entry("b", 5e-3, None), entry("a", 1e-3, 0.7), entry("c", 1e-3, 0.8)]
    rows = compare_networks.table([*runs, entry("a", 1e-3, 0.9, "meg")]).splitlines()[2:]
    assert [row.split(" | ")[1:5] for row in rows] == [
        ["c", "0.800", "0.001", "0.001"],
        ["a", "0.700", "0.001", "0.005, 0.001"],
        ["b", "stopped", "0.005", "0.005"],
        ["a", "0.900", "0.001", "0.001"],
    ]
    assert rows[0].startswith("| EEG simulated |") and rows[3].startswith("| MEG simulated |")


def test_what_is_no_network_or_no_data_is_named(tmp_path):
    with pytest.raises(DataError, match="takes eeg=FOLDER and meg=FOLDER"):
        compare_networks.main(["--data", "fmri=x"])
    with pytest.raises(DataError, match=r"takes BrainModule.*but got \['Brain'\]"):
        compare_networks.main(["--data", "eeg=x", "--networks", "Brain"])


@pytest.mark.slow
def test_networks_are_trained_kept_and_shown(tmp_path, capsys):
    data = write_planted(tmp_path / "eeg", "eeg", n_subjects=2, repeats=2)
    page, results = tmp_path / "page.md", tmp_path / "networks.json"
    page.write_text("before\n\n<!-- results: networks -->\n\nold\n\n<!-- end -->\n\nafter\n")
    words = ["--data", f"eeg={data}", "--networks", "temporal_spatial", "spectrogram_cnn", "--learning-rates", "1e-3"]
    words += ["--output-dir", str(tmp_path / "out"), "--results", str(results), "--page", str(page)]
    compare_networks.main(words)
    runs = json.loads(results.read_text())["runs"]
    assert [run["network"] for run in runs] == ["temporal_spatial", "spectrogram_cnn"]
    assert all(0 <= run["validation_two_way"] <= 1 and run["parameters"] > 0 for run in runs)
    text = page.read_text()
    assert text.startswith("before") and "after" in text and "old" not in text and "| temporal_spatial |" in text
    compare_networks.main(words)
    assert json.loads(results.read_text())["runs"] == runs  # nothing is trained again
    assert not list((tmp_path / "out").glob("*/*.safetensors"))
