"""The temperature in a checkpoint: fitted on what the model had not learnt from, and on nothing else."""

import json
from dataclasses import replace

import numpy as np
import pytest

from neural_clip import NeuralClipConfig, NeuralClipModel
from neural_clip.errors import DataError
from neural_clip.evaluation.run import evaluate_checkpoints
from neural_clip.evaluation.tasks import confidence_record
from neural_clip.evaluation.validation_predictions import ValidationPredictions, validation_predictions
from neural_clip.gallery.confidence import Temperatures
from neural_clip.gallery.embedding import embed_split
from neural_clip.gallery.neural_gallery import NeuralGallery
from neural_clip.prepared.reader import PreparedSet
from neural_clip.retrieval.calibration import cross_entropy_at, fit_temperature
from neural_clip.retrieval.tiles import unit_vectors
from neural_clip.training import confidence as module
from neural_clip.training.adapt import adapt
from neural_clip.training.confidence import MIN_IMAGES, fit_confidence
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from planted_data import READY, write_planted
from planted_splits import planted

NOISE = 12.0  # some first hits are right, some are not
COUNTS = {"train": 40, "validation": 24, "test": 40}
SUBJECTS = ["sub-01", "sub-02"]


def predictions_of(part, embeds):
    return ValidationPredictions.of(part, np.arange(len(part)), embeds)


def config_of(checkpoint, modality="eeg"):
    return getattr(NeuralClipConfig.from_pretrained(checkpoint), f"{modality}_config")


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A planted data set of three people with much noise."""
    folder = tmp_path_factory.mktemp("noisy") / "eeg"
    return str(write_planted(folder, "eeg", n_subjects=3, noise=NOISE, counts=COUNTS, pixels=False, encoder=READY))


@pytest.fixture(scope="module")
def checkpoint(noisy, new_recipe, tmp_path_factory):
    """Of two of the three people, network and closed form."""
    root = tmp_path_factory.mktemp("checkpoint")
    return trained(new_recipe(root, {"eeg": noisy}), "--model.eeg.subjects", json.dumps(SUBJECTS))


def trained(recipe, *more):
    return train(read_recipe([str(recipe), "--closed-form", "true", "--num_train_epochs", "3", *more]))


def test_it_is_what_the_predictions_beside_the_checkpoint_give(checkpoint, noisy):
    """With a gallery that is put together by hand."""
    (found,), data = validation_predictions(checkpoint), PreparedSet.open(noisy)
    ids = sorted(set(data.split("validation").image_ids.tolist()))
    gallery = data.images.of(ids).embeds
    true = np.array([ids.index(data.images.image_ids[row]) for row in found.image_rows])
    cosines = unit_vectors(found.embeds) @ unit_vectors(gallery).T
    temperature = fit_temperature(np.round(cosines, 9), true)
    assert config_of(checkpoint).confidence_temperature == pytest.approx(dict.fromkeys(SUBJECTS, temperature))
    record = json.loads((checkpoint / "training.json").read_text())["confidence"]["eeg"]
    assert (record["n_recordings"], record["n_images"], record["subjects"]) == (96, 24, SUBJECTS)
    entropy = record["cross_entropy"]
    assert entropy["guessing"] == pytest.approx(np.log(24))
    assert entropy["before"] == pytest.approx(cross_entropy_at(cosines, true, 1.0))
    assert entropy["after"] < min(entropy["before"], entropy["guessing"])
    card = (checkpoint / "README.md").read_text().split("## Confidence")[1]
    row = f"| EEG simulated | {temperature:.4g} | 96, 24 | {entropy['guessing']:.3f} | {entropy['before']:.3f} |"
    assert row in card and f"| {entropy['after']:.3f} |" in card


def test_test_recordings_do_not_move_it(checkpoint, noisy, new_recipe, tmp_path, monkeypatch):
    """A data set whose test recordings are others: the same temperature and weights, bit for bit."""
    other = tmp_path / "eeg"
    monkeypatch.setattr("planted_data.write_prepared", spoiling_tests)
    write_planted(other, "eeg", n_subjects=3, noise=NOISE, counts=COUNTS, pixels=False, encoder=READY)
    monkeypatch.undo()
    first, second = (PreparedSet.open(folder).split("test").values() for folder in (noisy, other))
    assert not np.array_equal(first[0], second[0])
    again = trained(new_recipe(tmp_path, {"eeg": str(other)}), "--model.eeg.subjects", json.dumps(SUBJECTS))
    assert config_of(again).confidence_temperature == config_of(checkpoint).confidence_temperature
    assert (again / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()


def spoiling_tests(folder, metadata, recordings, images, **more):
    """Write test recordings backwards."""
    from neural_clip.prepared.writer import write_prepared

    spoilt = (row | {"eeg": -3 * row["eeg"]} if row["split"] == "test" else row for row in recordings)
    return write_prepared(folder, metadata, spoilt, images, **more)


def test_a_checkpoint_of_planted_data_is_calibrated_and_another_temperature_is_not(checkpoint, noisy):
    part = embed_split(NeuralClipModel.from_pretrained(checkpoint), PreparedSet.open(noisy).split("test", SUBJECTS))
    config, names = NeuralClipConfig.from_pretrained(checkpoint), part.subjects.tolist()
    fitted = Temperatures.of(config, ["eeg"] * len(part), names)

    def record(factor):
        return confidence_record(part, Temperatures(factor * fitted.values, fitted.reasons), "x", 0)

    found = record(1)
    assert found["n_queries"] == 160 and found["gallery_size"] == 40 and found["n_left_out"] == 0
    assert 0.1 < found["right"] < 0.9  # neither all nor none
    assert found["ece"] < 0.12 and found["ece_interval"][0] <= found["ece_by_chance"]
    assert found["temperatures"] == config.eeg_config.confidence_temperature
    assert record(6)["ece"] > 0.25 and record(1 / 6)["ece"] > 0.15


def test_hits_and_the_evaluation_are_equally_sure(checkpoint, noisy, tmp_path):
    """The same numbers of the same recordings, and the same words where there are none."""
    part = PreparedSet.open(noisy).split("test", SUBJECTS)
    images = NeuralGallery.from_images(checkpoint, part)
    hits = images.decode(part, top_k=1)
    options = {"baselines": False, "controls": False, "subjects": SUBJECTS}
    report = evaluate_checkpoints({"x": checkpoint}, [noisy], tmp_path / "out", **options)
    (record,) = report["confidence"]["eeg"]
    assert record["right"] == pytest.approx(report["decoding"]["eeg"]["rows"][0]["top1"])
    assert np.mean([found.confidence for found in hits]) == pytest.approx(record["mean_confidence"], abs=1e-12)
    average = images.decode(part, subject="average", top_k=1)
    assert {found.confidence for found in average} == {None}
    assert "no temperature for the EEG of 'average'" in average[0].why_no_confidence
    report = evaluate_checkpoints({"x": checkpoint}, [noisy], tmp_path / "average", subject="average", **options)
    assert report["confidence"]["eeg"][0]["not_computed"] == average[0].why_no_confidence
    assert average[0].why_no_confidence in (tmp_path / "average" / "report.json").read_text()


def test_adapting_fits_one_for_new_people_and_leaves_the_others(checkpoint, noisy, tmp_path):
    output = adapt(checkpoint, noisy, tmp_path / "new", epochs=1, subjects=["sub-03"])
    before, after = config_of(checkpoint).confidence_temperature, config_of(output).confidence_temperature
    assert {name: after[name] for name in SUBJECTS} == before and list(after) == ["sub-01", "sub-02", "sub-03"]
    record = json.loads((output / "training.json").read_text())
    found = record["adaptations"][0]["confidence"]
    assert (found["temperature"], found["subjects"], found["n_recordings"]) == (after["sub-03"], ["sub-03"], 48)
    own = validation_predictions(output)[1]
    assert fit_confidence(own, PreparedSet.open(noisy).images.embeds) == found
    assert f"The temperature of their confidence is {found['temperature']:.4g}" in (output / "README.md").read_text()


def test_too_few_images_give_no_temperature_and_a_reason(new_recipe, tmp_path):
    few = {"train": 20, "validation": MIN_IMAGES - 1, "test": 8}
    folder = write_planted(tmp_path / "eeg", "eeg", counts=few, pixels=False, encoder=READY)
    output = train(read_recipe([str(new_recipe(tmp_path, {"eeg": str(folder)})), "--num_train_epochs", "1"]))
    assert config_of(output).confidence_temperature is None
    record = json.loads((output / "training.json").read_text())
    assert record["confidence"]["eeg"]["left_out"] == "9 images are too few to fit a temperature on; 10 are needed."
    assert "none: 9 images are too few" in (output / "README.md").read_text()
    part = PreparedSet.open(folder).split("test")
    best = NeuralGallery.from_images(output, part).decode(part, top_k=1)[0]
    assert best.confidence is None and "too few validation images" in best.why_no_confidence
    assert best[0].as_dict()["confidence"] is None


def test_images_under_several_names_are_one():
    _, part, _ = planted("sensors")
    rng = np.random.default_rng(0)
    embeds = part.targets + rng.standard_normal(part.targets.shape)
    found = fit_confidence(predictions_of(part, embeds), part.data.images.embeds)
    doubled = np.concatenate([part.data.images.embeds] * 2)
    again = predictions_of(part, embeds)
    odd = np.arange(len(embeds)) % 2 == 1
    again = replace(again, image_rows=np.where(odd, again.image_rows + 16, again.image_rows))
    assert fit_confidence(again, doubled) == found and found["n_images"] == 16


def test_recordings_beyond_what_memory_takes_are_left_out_evenly(monkeypatch):
    _, part, _ = planted("sensors", n_subjects=8)
    embeds = part.targets + 0.5 * np.random.default_rng(0).standard_normal(part.targets.shape)
    whole = fit_confidence(predictions_of(part, embeds), part.data.images.embeds)
    monkeypatch.setattr(module, "MAX_COSINES", 16 * 64)
    some = fit_confidence(predictions_of(part, embeds), part.data.images.embeds)
    assert (whole["n_recordings"], some["n_recordings"]) == (128, 64)
    assert some["temperature"] == pytest.approx(whole["temperature"], rel=0.3)


def test_a_recipe_may_not_state_it(new_recipe, noisy, tmp_path):
    path = new_recipe(tmp_path, {"eeg": noisy})
    with pytest.raises(DataError, match=r"'model\.eeg\.confidence_temperature' is fitted by training"):
        read_recipe([str(path), "--model.eeg.confidence_temperature", '{"sub-01": 3}'])
