"""Data sets at the edge of what can be learnt from, through the command line: a right result or a sentence."""

import json

import numpy as np
import pytest
import torch

from edge_sets import CASES, FEW, PEOPLE, SPLITS, embeddings, rows, write_set
from neural_clip import NeuralClipModel
from neural_clip.commands.adapt import main as adapt
from neural_clip.commands.evaluate import main as evaluate
from neural_clip.commands.train import main as train
from neural_clip.errors import DataError
from neural_clip.evaluation.validation_predictions import validation_predictions

pytestmark = pytest.mark.numerical

FOLDED = ["--folds", "3"]
TOO_FEW = ("subjects with one row each", "two training images")  # for folds
TRIED = [
    pytest.param(name, folded, marks=[] if name == "a subject with one row" and not folded else pytest.mark.slow)
    for name in CASES
    for folded in (False, True)
    if not (folded and name in TOO_FEW)
]


def trained(new_recipe, tmp_path, modality, folder, *more):
    """What training wrote: numbers alone, no NaN."""
    recipe = str(new_recipe(tmp_path, {modality: folder}))
    train([recipe, "--closed-form", "true", "--num_train_epochs", "1", *more])
    return checked(tmp_path / "out")


def read_numbers(path):
    """What a JSON file holds, in which NaN and infinity have no place."""

    def refuse(constant):
        raise AssertionError(f"'{path}' holds {constant}")

    return json.loads(path.read_text(), parse_constant=refuse)


def evaluated(checkpoint, modality, folder):
    """Rows of single trials by method, those that were computed; the others say why not."""
    output = checkpoint.with_name("report")
    evaluate(["--checkpoint", str(checkpoint), "--data", f"{modality}={folder}", "--output-dir", str(output),
              "--no-pictures"])  # fmt: skip
    rows = read_numbers(output / "report.json")["decoding"][modality]["rows"]
    assert {"per-subject ridge", "pooled whitened ridge", "closed form"} <= {row["method"] for row in rows}
    for row in rows:
        assert 0 <= row["two_way"] <= 1 if "not_computed" not in row else len(row["not_computed"].split()) > 4
    return {row["method"]: row for row in rows if row["aggregation"] == "single trial" and "not_computed" not in row}


def checked(output):
    record = read_numbers(output / "training.json")
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
    rows = evaluated(tmp_path / "out", modality, folder)
    if name in ("one person", "a subject with one row"):
        assert found["validation"]["closed form"]["two_way"] > 0.8  # the signal is found
    if name == "one person" and not folded:
        assert all(rows[ridge]["two_way"] > 0.8 for ridge in ("per-subject ridge", "closed form"))


ADAPTED = ("the same images for both under other names", "targets of rank 1", "two vectors and their signs",
           "more dimensions than images", "two training images")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["eeg", "fmri"])
@pytest.mark.parametrize("name", [*ADAPTED, "a constant channel or voxel"])
def test_new_subjects_at_the_edge_give_numbers(new_recipe, tmp_path, name, modality):
    embeds, recordings = CASES.get(name, (embeddings(), rows()))
    constant = None if name in CASES else 0
    folder = write_set(tmp_path / "set", modality, embeds, recordings, constant)
    trained(new_recipe, tmp_path, modality, folder, f"--model.{modality}.subjects", "[sub-01]")
    output = adapt(["--checkpoint", str(tmp_path / "out"), "--data", f"{modality}={folder}", "--epochs", "1",
                    "--output-dir", str(tmp_path / "adapted")])  # fmt: skip
    (entry,) = checked(output)["adaptations"]
    assert "could not be computed" not in entry["closed_form"]["sub-02"].get("left_out", "")
    evaluated(output, modality, folder)


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
