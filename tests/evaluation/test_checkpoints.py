"""Checkpoints to evaluate: their encoders."""

import pytest

from neural_clip.errors import DataError
from neural_clip.evaluation.checkpoints import open_data
from neural_clip.evaluation.run import evaluate_checkpoints
from planted_data import ENCODER, PlantedModel, plant, write_planted

pytestmark = pytest.mark.numerical


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
