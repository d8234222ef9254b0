"""A training that had too few steps, or learnt nothing that shows, says so at its end."""

import json

import numpy as np
import pytest

from neural_clip.gallery.embedding import embed_recordings
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.end_warnings import chance_of
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from planted_data import READY, split_of, write_planted

pytestmark = pytest.mark.numerical


def trained(recipe_file, folders, capsys, *changes):
    """Warnings of the record; they are the last words on stderr, and stand in the card."""
    data = [f"{modality}={folder}" for modality, folder in folders.items()]
    output = train(read_recipe([recipe_file, "--data", *data, *changes]))
    shown = capsys.readouterr()
    said = shown.err.rstrip().splitlines()
    assert shown.out.splitlines()[-1] == f"checkpoint: {output}"
    record, card = (json.loads((output / "training.json").read_text()), (output / "README.md").read_text())
    found = record["warnings"]
    assert [line for line in said if line.startswith("warning: ")] == [f"warning: {text}" for text in found]
    assert said[len(said) - len(found) :] == [f"warning: {text}" for text in found]
    for text in found:
        assert f"**Warning:** {text}" in card.replace("\\", "")
    return found


def test_a_training_that_learns_is_told_nothing(recipe_file, folders, capsys, tmp_path):
    more = ["--warmup_steps", "0.03", "--min_steps", "40"]
    assert trained(recipe_file, {"fmri": folders["fmri"]}, capsys, *more) == []
    assert "Warning:" not in (tmp_path / "out" / "README.md").read_text()


def test_validation_recordings_are_embedded_once_at_the_end(recipe_file, folders, monkeypatch):
    """Beside once an epoch: for the warnings, the closed form and the predictions that are kept."""
    embedded = []

    def counted(forward, part, *words):
        embedded.append((part.modality, part.name))
        return embed_recordings(forward, part, *words)

    monkeypatch.setattr("neural_clip.training.trainer.embed_recordings", counted)
    train(read_recipe([recipe_file, "--closed-form", "true", "--num_train_epochs", "1"]))
    assert sorted(embedded) == [("eeg", "validation")] * 2 + [("fmri", "validation")] * 2


def test_a_training_shorter_than_its_warm_up(recipe_file, folders, capsys):
    first, *_ = trained(recipe_file, {"fmri": folders["fmri"]}, capsys, "--warmup_steps", "21")
    assert first == (
        "training took 20 steps, fewer than the 21 of its warm-up, so that the learning rate never reached 0.003. "
        "Give more epochs, or 'min_steps'."
    )


def test_a_modality_with_fewer_steps_than_the_warm_up(recipe_file, folders, capsys):
    changes = ["--warmup_steps", "15", "--passes", "{fmri: 2}", "--num_train_epochs", "1"]
    found = trained(recipe_file, folders, capsys, *changes)
    assert "training took 30 steps, about 10 of eeg, fewer than the 15 of its warm-up." in found[0]


@pytest.mark.parametrize(
    "modality", [pytest.param("eeg", marks=pytest.mark.slow), pytest.param("meg", marks=pytest.mark.slow), "fmri"]
)
def test_recordings_without_a_signal_stay_at_chance(recipe_file, tmp_path, folders, capsys, modality):
    """Answers that were shuffled, beside a modality that has its signal."""
    counts = {"train": 40, "validation": 24, "test": 8}
    folder = write_planted(
        tmp_path / "set", modality, pixels=False, encoder=READY, shuffled=True, repeats=1, counts=counts
    )
    other = "fmri" if modality == "eeg" else "eeg"
    both = {modality: folder, other: folders[other]}
    found = trained(recipe_file, both, capsys, "--num_train_epochs", "4", "--min_steps", "60")
    (text,) = found
    assert text.startswith(f"the network of {modality} stayed at chance: its validation 2-way accuracy is 0.")
    assert "(95 % interval 0." in text and ", the best of 4), and guessing gives 0.5." in text


def recordings(n_images, repeats=4, **facts):
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((n_images, 8)).astype(np.float32)
    rows = np.repeat(np.arange(n_images), repeats)
    ids = [f"i{row}" for row in rows]
    part = split_of(np.zeros((len(rows), 3, 5)), ["sub-01"] * len(rows), ids, targets[rows], "eeg", **facts)
    return RecordingDataset(part, ["sub-01"]), targets[rows], rng


def test_the_interval_counts_images_and_not_their_repeats():
    """A dozen images, each repeated as it is: the same score as of one recording of each, and the same interval."""
    said = []
    for repeats in (1, 9):
        data, *_ = recordings(12, repeats)
        noise = np.repeat(np.random.default_rng(5).standard_normal((12, 8)), repeats, axis=0)
        said.append(chance_of(noise, data, 1))
    assert said == ["0.598 (95 % interval 0.359 to 0.812)"] * 2


def test_a_category_level_set_counts_its_recordings():
    data, targets, rng = recordings(2, 40, category_level=True)
    noisy = targets + rng.standard_normal(targets.shape)
    assert chance_of(noisy, data, 1) is None
    assert chance_of(-noisy, data, 1).startswith("0.")
    few, *_ = recordings(2, 40)
    assert chance_of(noisy, few, 1) is None  # two images have no interval
    assert chance_of(-noisy, few, 1) == f"{1 - float(wins(noisy, targets)):.3f}"


def wins(embeds, targets):
    """Share of recordings that lie nearer to their own image than to the other one of two."""
    images = np.unique(targets, axis=0)
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (embeds, images)]
    nearest = images[(unit[0] @ unit[1].T).argmax(axis=1)]
    return (nearest == targets).all(axis=1).mean()


def test_the_best_of_many_epochs_needs_more_than_one_that_was_not_chosen():
    """Networks that know nothing: of 40 epochs the best one is above chance by its plain interval, as often as not."""
    data, targets, rng = recordings(30, 1)
    plain = corrected = 0
    for _ in range(20):
        epochs = [rng.standard_normal(targets.shape) for _ in range(40)]
        best = max(epochs, key=lambda embeds: float(two_way_of(embeds, targets)))
        plain += chance_of(best, data, 1) is None
        corrected += chance_of(best, data, 40) is None
    assert plain > 10 and corrected <= 2


def two_way_of(embeds, targets):
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (embeds, targets)]
    cosines = unit[0] @ unit[1].T
    own = np.diag(cosines)[:, None]
    return (own > cosines).sum() / (len(own) * (len(own) - 1))
