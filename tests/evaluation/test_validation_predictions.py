"""Predictions of validation recordings that lie beside a checkpoint."""

import json
from dataclasses import fields

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from neural_clip.errors import DataError
from neural_clip.evaluation.validation_predictions import (
    ValidationPredictions,
    validation_predictions,
    write_predictions,
)
from neural_clip.files.record import PREDICTIONS_FILE, check_record, record_files, sealed
from planted_data import split_of
from planted_splits import planted


def predictions_of(part, embeds):
    rows = np.concatenate([np.arange((part.subjects == name).sum()) for name in np.unique(part.subjects)])
    return ValidationPredictions.of(part, rows, embeds)


def checkpoint(folder, predictions):
    """A folder with predictions and a record that lists them."""
    folder.mkdir()
    write_predictions(folder, predictions)
    (folder / "config.json").write_text("{}")
    record = {"files": record_files(folder, ["config.json"])}
    record["local_files"] = record_files(folder, [path.name for path in folder.glob("*.safetensors")])
    (folder / "training.json").write_text(json.dumps(sealed(record)))
    return folder


@pytest.fixture
def found(tmp_path):
    """Predictions of two splits, and the folder that they were written to."""
    rng = np.random.default_rng(0)
    parts = [planted(kind)[1] for kind in ("sensors", "voxels")]
    made = [predictions_of(part, 5 * part.targets + rng.standard_normal(part.targets.shape)) for part in parts]
    return made, checkpoint(tmp_path / "checkpoint", made), parts


def test_what_is_written_is_read(found):
    made, folder, parts = found
    read = validation_predictions(folder)
    assert len(read) == 2
    for before, after in zip(made, read, strict=True):
        for each in fields(before):
            assert np.array_equal(getattr(before, each.name), getattr(after, each.name))
    for prediction, part in zip(read, parts, strict=True):
        assert prediction.embeds.dtype == np.float16 and prediction.fingerprint == part.facts.fingerprint
        assert np.array_equal(np.array(prediction.subjects)[prediction.subject_ids], part.subjects)
        assert np.array_equal(np.array(part.data.images.image_ids)[prediction.image_rows], part.image_ids)
        for name in prediction.subjects:  # each recording is found by its subject and its row
            own = prediction.subject_ids == prediction.subjects.index(name)
            assert np.array_equal(np.flatnonzero(part.subjects == name)[prediction.rows[own]], np.flatnonzero(own))
        assert np.allclose(np.linalg.norm(prediction.embeds.astype(float), axis=1), 1, atol=1e-3)


def test_the_same_predictions_give_the_same_bytes(found, tmp_path):
    made, folder, _ = found
    again = checkpoint(tmp_path / "again", made)
    assert (again / PREDICTIONS_FILE).read_bytes() == (folder / PREDICTIONS_FILE).read_bytes()


def test_half_of_the_bits_are_not_taken_where_scores_change():
    """Images so near to one another that 16 bits do not tell them apart."""
    rng = np.random.default_rng(0)
    targets = 1 + 1e-4 * rng.standard_normal((16, 8))
    part = split_of(np.zeros((16, 2, 3)), ["sub-01"] * 16, [f"im{i:02d}" for i in range(16)], targets)
    assert predictions_of(part, targets).embeds.dtype == np.float32
    assert predictions_of(part, part.targets + rng.standard_normal(targets.shape)).embeds.dtype == np.float16


def test_a_checkpoint_is_whole_without_them(found, tmp_path):
    """As it comes from the Hub, where they are not sent."""
    _, folder, _ = found
    (folder / PREDICTIONS_FILE).unlink()
    assert validation_predictions(folder) == [] and check_record(folder)["local_files"].keys() == {PREDICTIONS_FILE}
    assert validation_predictions(checkpoint(tmp_path / "none", [])) == []


def test_predictions_that_were_changed_or_added_are_refused(found, tmp_path):
    _, folder, _ = found
    path = folder / PREDICTIONS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for read in (validation_predictions, check_record):
        with pytest.raises(DataError, match=r"validation_predictions\.safetensors' is not the file.*SHA-256 differs"):
            read(folder)
    other = checkpoint(tmp_path / "other", [])
    (other / PREDICTIONS_FILE).write_bytes(whole)
    for read in (validation_predictions, check_record):
        with pytest.raises(DataError, match=r"validation_predictions\.safetensors' was added to a checkpoint"):
            read(other)


@pytest.mark.parametrize("damage", ["cut", "no metadata", "lacks an array", "unequal lengths", "unknown key"])
def test_a_damaged_file_is_one_sentence(found, damage):
    """The digest is right, as of a file that was written wrongly."""
    _, folder, _ = found
    path = folder / PREDICTIONS_FILE
    tensors, about = load_file(path), {"predictions": [{"modality": "eeg", "split": "validation"}]}
    if damage == "lacks an array":
        del tensors["0.rows"]
    if damage == "unequal lengths":
        tensors["1.rows"] = tensors["1.rows"][:-1]
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        stated = dict.fromkeys(("modality", "split", "fingerprint", "subjects"), "x")
        about["predictions"] = [stated | ({"more": 1} if damage == "unknown key" else {})] * 2
        save_file(tensors, path, None if damage == "no metadata" else {"validation_predictions": json.dumps(about)})
    record = json.loads((folder / "training.json").read_text())
    record["local_files"] = record_files(folder, [PREDICTIONS_FILE])
    (folder / "training.json").write_text(json.dumps(sealed(record)))
    with pytest.raises(DataError, match=r"validation_predictions\.safetensors' is damaged"):
        validation_predictions(folder)
