"""Data sets at the edge of what can be learnt from, through the command line: a right result or a sentence."""

import json

import numpy as np
import pytest
import torch

from neural_clip import NeuralClipModel
from neural_clip.commands.adapt import main as adapt
from neural_clip.commands.train import main as train
from neural_clip.errors import DataError
from neural_clip.evaluation.validation_predictions import validation_predictions
from neural_clip.prepared.writer import write_prepared
from planted_data import READY

pytestmark = pytest.mark.numerical

WIDTH, FOLDED = 16, ["--folds", "3"]
SPLITS = {"train": range(16), "validation": range(16, 20), "test": range(20, 24)}
FEW = {"train": range(4), "validation": range(4, 6), "test": range(6, 8)}
PEOPLE = ("sub-01", "sub-02")


def embeddings(n=24, seed=1):
    return np.random.default_rng(seed).standard_normal((n, WIDTH))


def rows(people=PEOPLE, splits=SPLITS, shift=0):
    """Subject, number of the image and split of each recording; `shift` gives the second subject images of its own."""
    return [
        (name, number + shift * person, split)
        for person, name in enumerate(people)
        for split, numbers in splits.items()
        for number in numbers
    ]


def line(n=24):
    """Embeddings on one line, which differ in one direction."""
    return embeddings(1) + np.linspace(-2, 2, n)[:, None] * embeddings(1, seed=2)


ONE_ROW = [*rows(PEOPLE[:1]), ("sub-02", 0, "train"), ("sub-02", 20, "test")]
CASES = {
    "one person": (embeddings(), rows(PEOPLE[:1])),
    "the same images for both under other names": (np.tile(embeddings(), (2, 1)), rows(shift=24)),
    "targets of rank 1": (line(), rows()),
    "two vectors and their signs": (np.linspace(-2, 2, 24)[:, None] * embeddings(1), rows()),
    "a subject with one row": (embeddings(), ONE_ROW),
    "subjects with one row each": (
        embeddings(8), [("sub-01", 0, "train"), ("sub-02", 1, "train"), *rows(splits={**FEW, "train": []})]
    ),
    "more dimensions than images": (embeddings(8), rows(splits=FEW)),
    "two training images": (embeddings(8), rows(splits={**FEW, "train": range(2)})),
    "a subject without validation": (
        embeddings(), [*rows(PEOPLE[:1]), *(("sub-02", number, "train") for number in range(16))]
    ),
}  # fmt: skip
TOO_FEW = ("subjects with one row each", "two training images")  # for folds
TRIED = [
    pytest.param(name, folded, marks=[] if name == "a subject with one row" and not folded else pytest.mark.slow)
    for name in CASES
    for folded in (False, True)
    if not (folded and name in TOO_FEW)
]


def write_set(folder, modality, embeds, recordings, constant=None):
    """A prepared data set whose recordings are linear in the embedding; one value of each can be constant."""
    rng = np.random.default_rng(0)
    size = (30,) if modality == "fmri" else (4, 6)
    maps = rng.standard_normal((WIDTH, int(np.prod(size))))
    named = {"concept": "c", "categories": []}
    images = [{"image_id": f"im{n:03d}", "image_embeds": row, **named} for n, row in enumerate(np.float32(embeds))]

    def written():
        for subject, number, split in recordings:
            values = (embeds[number] @ maps + rng.standard_normal(maps.shape[1])).reshape(size)
            if constant is not None:
                values[constant] = 0.37
            yield {"subject": subject, "image_id": images[number]["image_id"], "split": split, modality: values}

    stated = dict.fromkeys(("corpus", "split_protocol", "licence", "citation", "source"), "planted")
    metadata = stated | {"modality": modality, "split_unit": "image", "redistribution": "allowed"}
    metadata |= {"image_encoder": READY}
    if modality != "fmri":
        metadata |= {"sfreq": 100.0, "tmin": 0.0, "ch_names": list("abcd")}
    return str(write_prepared(folder, metadata, written(), images))


def trained(new_recipe, tmp_path, modality, folder, *more):
    """What training wrote: numbers alone, no NaN."""
    recipe = str(new_recipe(tmp_path, {modality: folder}))
    train([recipe, "--closed-form", "true", "--num_train_epochs", "1", *more])
    return checked(tmp_path / "out")


def checked(output):
    def refuse(constant):
        raise AssertionError(f"the record holds {constant}")

    record = json.loads((output / "training.json").read_text(), parse_constant=refuse)
    for value in NeuralClipModel.from_pretrained(output).state_dict().values():
        assert torch.isfinite(value).all()
    for found in validation_predictions(output):
        assert np.isfinite(found.embeds).all()
    return record


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
@pytest.mark.parametrize(("name", "folded"), TRIED)
def test_sets_at_the_edge_give_numbers(new_recipe, tmp_path, name, modality, folded):
    embeds, recordings = CASES[name]
    if folded:
        recordings = [(who, number, split.replace("validation", "train")) for who, number, split in recordings]
    folder = write_set(tmp_path / "set", modality, embeds, recordings)
    record = trained(new_recipe, tmp_path, modality, folder, *FOLDED)
    assert ("cross_validation" in record) == folded
    found = record["closed_form"][modality]
    assert "could not be computed" not in found.get("left_out", "")
    if name in ("one person", "a subject with one row"):
        assert found["validation"]["closed form"]["two_way"] > 0.8  # the signal is found


@pytest.mark.slow
@pytest.mark.parametrize(("modality", "constant"), [("eeg", 0), ("fmri", slice(5))])
def test_constant_channels_and_voxels_give_numbers(new_recipe, tmp_path, modality, constant):
    folder = write_set(tmp_path / "set", modality, embeddings(), rows(), constant)
    record = trained(new_recipe, tmp_path, modality, folder)
    assert record["closed_form"][modality]["validation"]["closed form"]["two_way"] > 0.8


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
@pytest.mark.parametrize(
    ("splits", "more", "message"),
    [
        ({**FEW, "train": range(1)}, [], "training split of .* have 1 embedding .of 1 image ids.; learning needs two"),
        ({**FEW, "validation": range(4, 5)}, [], "validation split of .* shows 1 image .*needs two or more"),
        ({"train": range(5), "test": range(6, 8)}, FOLDED, "its 5 training images are too few for 3 folds"),
    ],
    ids=["one training image", "one validation image", "fewer images than folds"],
)
def test_sets_that_tell_nothing_apart_are_refused(new_recipe, tmp_path, modality, splits, more, message):
    folder = write_set(tmp_path / "set", modality, embeddings(8), rows(splits=splits))
    with pytest.raises(DataError, match=message):
        trained(new_recipe, tmp_path, modality, folder, *more)
    assert not (tmp_path / "out").exists()


def test_targets_that_do_not_vary_are_not_written(tmp_path):
    with pytest.raises(DataError, match="embeddings: All 24 are identical"):
        write_set(tmp_path / "set", "eeg", np.tile(embeddings(1), (24, 1)), rows())


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_new_subjects_with_next_to_nothing(new_recipe, tmp_path, modality):
    """One has one training image, the other one validation image, by which nothing can be chosen."""
    recordings = rows(PEOPLE[:1])
    recordings += [("sub-02", 0, "train"), ("sub-02", 0, "train"), *rows(PEOPLE[1:], {**SPLITS, "train": []})]
    recordings += rows(["sub-03"], {**SPLITS, "validation": range(16, 17)})
    folder = write_set(tmp_path / "set", modality, embeddings(), recordings)
    trained(new_recipe, tmp_path, modality, folder, f"--model.{modality}.subjects", "[sub-01]")
    asked = ["--checkpoint", str(tmp_path / "out"), "--data", f"{modality}={folder}", "--epochs", "1"]
    asked += ["--output-dir", str(tmp_path / "adapted")]
    if modality == "fmri":  # where the ridge regression that a layer starts from needs more
        with pytest.raises(DataError, match=r"validation recordings of 'sub-03' in .* show one image.*'--subjects'"):
            adapt(asked)
        with pytest.raises(DataError, match="have 1 embedding"):
            adapt([*asked, "--subjects", "sub-02"])
        return
    adapt(asked)
    (entry,) = checked(tmp_path / "adapted")["adaptations"]
    assert "two at least, but there are 1" in entry["closed_form"]["sub-03"]["left_out"]
    found = [each.subjects for each in validation_predictions(tmp_path / "adapted")]
    assert found == [["sub-01"], ["sub-02", "sub-03"]]
