"""Files of format 1, written by an earlier version: they load whole, and mean what they meant."""

import hashlib
import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from safetensors import safe_open

from neural_clip import NeuralClipModel, NeuralClipProcessor
from second_process import python
from tolerances import assert_same_outputs

pytestmark = pytest.mark.numerical
FOLDER = Path(__file__).parent / "data" / "format_1"
MODALITIES = ("eeg", "meg", "fmri")
SPLITS = {"train": 6, "validation": 4, "test": 4}


@pytest.fixture(scope="module")
def answers():
    with np.load(FOLDER / "answers.npz", allow_pickle=False) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def checkpoint():
    folder = FOLDER / "checkpoint"
    return NeuralClipModel.from_pretrained(folder), NeuralClipProcessor.from_pretrained(folder)


@pytest.fixture
def load(tmp_path):
    """`datasets.load_dataset` of a folder of format 1, with a cache of its own."""

    def load(modality, name, split):
        return datasets.load_dataset(str(FOLDER / modality), name, split=split, cache_dir=str(tmp_path))

    return load


def test_weights_load_whole_and_bit_for_bit(checkpoint):
    state = checkpoint[0].state_dict()
    with safe_open(FOLDER / "checkpoint" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(state)
        for name in state:
            assert torch.equal(file.get_tensor(name), state[name]), name


def test_the_configuration_says_what_it_said(checkpoint):
    model, processor = checkpoint
    config = model.config
    assert config.modalities == ["eeg", "meg", "fmri"] and config.projection_dim == 8
    for part in (config.eeg_config, config.meg_config, config.fmri_config):
        assert part.subjects == ["sub-01", "sub-02"]
    assert (config.eeg_config.num_networks, config.eeg_config.time_shift) == (2, 0.01)
    assert (config.meg_config.encoder_type, config.meg_config.first_sample) == ("temporal_cnn", 10)
    assert (config.fmri_config.n_voxels, config.fmri_config.linear_path) == ({"sub-01": 9, "sub-02": 7}, True)
    assert processor.recordings["meg"][0]["ch_names"] == ["M0", "M1", "M2"]
    assert (processor.recordings["meg"][0]["tmin"], processor.recordings["eeg"][0]["sfreq"]) == (-0.1, 100.0)


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_checkpoint_answers_what_it_answered(checkpoint, answers, load, modality):
    model, processor = checkpoint
    inputs = processor(**{modality: list(load(modality, "all", "test"))})
    with torch.no_grad():
        features = getattr(model, f"get_{modality}_features")(**inputs)
        embeds = model(**inputs).neural_embeds
    assert inputs["subject_ids"].tolist() == [0, 0, 1, 1]
    assert_same_outputs(features, answers[f"{modality} features"])
    assert_same_outputs(embeds, answers[f"{modality} neural_embeds"])


@pytest.mark.parametrize("modality", MODALITIES)
def test_rows_and_values_are_those_that_were_written(load, modality):
    lines = (json.loads(line) for line in (FOLDER / "rows.jsonl").read_text().splitlines())
    expected = [row for row in lines if row.pop("modality") == modality]
    for name, subjects in (("all", ["sub-01", "sub-02"]), ("sub-02", ["sub-02"])):
        found = []
        for split, count in SPLITS.items():
            recordings = load(modality, name, split)
            assert len(recordings) == count * len(subjects) // 2
            for row in recordings:
                values = np.array(row.pop(modality), "<f4")
                told = {"shape": list(values.shape), "sha256": hashlib.sha256(values.tobytes()).hexdigest()}
                found.append(row | told | {"split": split})
        wanted = [row for row in expected if row["subject"] in subjects]
        assert [{key: row[key] for key in wanted[0]} for row in found] == wanted


@pytest.mark.parametrize("modality", MODALITIES)
def test_images_are_those_that_were_written(load, answers, modality):
    images = load(modality, "images", "images")
    assert images["image_id"][:] == answers[f"{modality} image_ids"].tolist() == [f"{modality}-{i}" for i in range(7)]
    embeds = np.array(images["image_embeds"][:], np.float32)
    np.testing.assert_array_equal(embeds, answers[f"{modality} image_embeds"])
    assert ("image" in images.column_names) == (modality == "eeg")
    if modality == "eeg":
        np.testing.assert_array_equal(
            np.stack([np.asarray(image) for image in images["image"]]), answers["eeg pixels"]
        )


def doctor(folder):
    done = python("-m", "neural_clip.commands.main", "doctor", folder, "--json")
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("modality", MODALITIES)
def test_doctor_finds_the_fingerprint_in_order(modality):
    assert json.loads((FOLDER / modality / "neural_clip.json").read_text())["format_version"] == 1
    status, told = doctor(FOLDER / modality)
    assert (status, told["counts"]["error"]) == (0, 0)
    warned = {finding["check"] for finding in told["findings"] if finding["severity"] == "warning"}
    assert warned == {"split size"}  # two images each
    assert "fingerprint" not in {finding["check"] for finding in told["findings"]}


def test_doctor_notices_another_fingerprint(tmp_path):
    """So that the test above can fail."""
    folder = tmp_path / "eeg"
    for path in (FOLDER / "eeg").rglob("*"):
        if path.is_file():
            copy = folder / path.relative_to(FOLDER / "eeg")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    metadata = json.loads((folder / "neural_clip.json").read_text())
    (folder / "neural_clip.json").write_text(json.dumps(metadata | {"fingerprint": "0" * 64}))
    status, told = doctor(folder)
    assert status == 1 and "fingerprint" in {finding["check"] for finding in told["findings"]}


def test_the_files_stay_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 200_000
