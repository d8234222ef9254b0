"""Splits that cannot be learnt from or scored: a sentence before training starts."""

import json
from pathlib import Path

import numpy as np
import pytest

from neural_clip.errors import DataError
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from neural_clip.training.splits import notes_on_test, notes_on_train
from neural_clip.training.trainer import NeuralClipTrainer
from planted_data import READY, facts_of, split_of, write_planted


def trained(recipe_file, folder, *changes, modality="fmri"):
    return train(read_recipe([recipe_file, "--data", f"{modality}={folder}", *changes]))


def planted(folder, **counts):
    counts = {"train": 40, "validation": 6, "test": 6} | counts
    return write_planted(folder, "fmri", pixels=False, encoder=READY, counts=counts, repeats=1)


def change_facts(folder, change):
    path = Path(folder, "neural_clip.json")
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


def drop_validation(facts, *subjects):
    for subject in subjects:
        facts["splits"]["validation"]["rows"] -= facts["subject_splits"][subject].pop("validation")
    if not facts["splits"]["validation"]["rows"]:
        del facts["splits"]["validation"]


@pytest.fixture
def untrained(monkeypatch):
    """Fail where a training starts."""

    def start(self, *args, **kwargs):
        raise AssertionError("training started")

    monkeypatch.setattr(NeuralClipTrainer, "train", start)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"validation": 1}, r"The validation split of '.*' shows 1 image to the subjects .*needs two or more"),
        ({"train": 1}, r"The images of the training split of '.*' have 1 embedding \(of 1 image ids\)"),
    ],
)
def test_one_image_is_refused(recipe_file, tmp_path, untrained, counts, message):
    folder = planted(tmp_path / "set", **counts)
    with pytest.raises(DataError, match=message):
        trained(recipe_file, folder)
    assert not any((tmp_path / "out").glob("*"))


def test_images_of_one_embedding_are_refused():
    """Many images whose embeddings are the same: of one category, say."""
    targets = np.ones((6, 4), np.float32)
    values, ids = np.zeros((6, 3, 5)), [f"i{number}" for number in range(6)]

    def part():
        return RecordingDataset(split_of(values, ["sub-01"] * 6, ids, targets), ["sub-01"])

    with pytest.raises(DataError, match=r"have 1 embedding \(of 6 image ids\); learning needs two or more"):
        notes_on_train(part(), 2)
    targets[3] = 2
    assert notes_on_train(part(), 2) == notes_on_train(part(), 6) == []
    (note,) = notes_on_train(part(), 7)
    assert "holds 6 recordings, fewer than a batch of 7" in note


def test_fewer_rows_than_a_batch_are_told_of(recipe_file, tmp_path, capsys):
    output = trained(recipe_file, planted(tmp_path / "set", train=5))
    said = capsys.readouterr().err
    assert "holds 10 recordings, fewer than a batch of 16:" in said
    assert json.loads((output / "training.json").read_text())["steps"] == 2


@pytest.mark.parametrize(
    ("test", "told"),
    [
        (
            {"rows": 4, "images": 1, "concepts": 1},
            "shows one image; an evaluation needs two or more, or `--gallery all`",
        ),
        ({"rows": 0, "images": 0, "concepts": 0}, "shows no image; an evaluation needs two or more"),
        ({"rows": 4, "images": 4, "concepts": 1}, "shows one concept; scores of classes will say nothing"),
    ],
)
def test_a_test_split_that_evaluation_cannot_use_is_told_of(test, told):
    (note,) = notes_on_test("a set", facts_of("eeg", splits={"test": test}))
    assert note == f"the test split of 'a set' {told}."
    assert notes_on_test("a set", facts_of("eeg", splits={"test": {"rows": 4, "images": 4, "concepts": 2}})) == []
    assert notes_on_test("a set", facts_of("eeg", splits={})) == []


def test_without_validation_training_takes_its_steps_and_says_so(recipe_file, tmp_path, capsys):
    folder = planted(tmp_path / "set")
    change_facts(folder, lambda facts: drop_validation(facts, "sub-01", "sub-02"))
    output = trained(recipe_file, folder)
    said = capsys.readouterr().err
    assert "has no validation recordings of ['sub-01', 'sub-02']" in said
    assert "note: without a validation split, training takes 10 steps, and the last weights are kept." in said
    assert said.rstrip().endswith("kept: the weights after step 10, unscored")
    record = json.loads((output / "training.json").read_text())
    assert record["steps"] == 10 and record["best_validation_two_way"] is None and record["validation"] == []
    assert "10 steps (2 epochs), seed 5. Nothing was scored or chosen" in (output / "README.md").read_text()
    last = output / "checkpoint-10" / "model.safetensors"
    assert last.read_bytes() == (output / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("load_best_model_at_end", "true"),
        ("eval_strategy", "epoch"),
        ("metric_for_best_model", "eval_two_way"),
        ("save_strategy", "best"),
        ("eval_on_start", "true"),
    ],
)
def test_what_needs_a_validation_split_is_refused_without_one(recipe_file, tmp_path, untrained, name, value):
    folder = planted(tmp_path / "set")
    change_facts(folder, lambda facts: drop_validation(facts, "sub-01", "sub-02"))
    with pytest.raises(DataError, match=rf"'training\.{name}' is .*hold no validation recordings"):
        trained(recipe_file, folder, f"--{name}", value)


def test_a_modality_without_validation_is_trained_and_not_scored(recipe_file, folders, tmp_path, capsys):
    folder = planted(tmp_path / "set")
    change_facts(folder, lambda facts: drop_validation(facts, "sub-01", "sub-02"))
    both = [recipe_file, "--data", f"eeg={folders['eeg']}", f"fmri={folder}", "--num_train_epochs", "1"]
    with pytest.raises(DataError, match="got 'eval_fmri_two_way'"):
        train(read_recipe([*both, "--metric_for_best_model", "eval_fmri_two_way"]))
    output = train(read_recipe(both))
    (scores,) = json.loads((output / "training.json").read_text())["validation"]
    assert scores["eval_two_way"] == scores["eval_eeg_two_way"] and "eval_fmri_two_way" not in scores
    assert "none are scored" in capsys.readouterr().err


def test_a_subject_without_validation_recordings(recipe_file, tmp_path):
    """The others are scored; alone, the run has nothing to choose by."""
    folder = planted(tmp_path / "set")
    change_facts(folder, lambda facts: drop_validation(facts, "sub-02"))
    output = trained(recipe_file, folder, "--num_train_epochs", "1")
    assert json.loads((output / "training.json").read_text())["best_validation_two_way"] is not None
    alone = ["--model.fmri.subjects", "[sub-02]", "--num_train_epochs", "1", "--overwrite", "true"]
    output = trained(recipe_file, folder, *alone)
    assert json.loads((output / "training.json").read_text())["best_validation_two_way"] is None
