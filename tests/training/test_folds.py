"""Cross-validation over images, runs or people: what is held out is not seen, and one model is trained on all."""

import json
import re
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from killed_command import KILLED
from neural_clip import NeuralClipConfig, NeuralClipModel
from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.closed_form import choose_by_folds, ready, undoing
from neural_clip.evaluation.validation_predictions import validation_predictions
from neural_clip.prepared.reader import PreparedSet
from neural_clip.retrieval.scores import two_way_accuracy
from neural_clip.training import folds as module
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.confidence import fit_confidence
from neural_clip.training.folds import config_of, finished_folds, folds_of, held_out_parts
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from planted_data import READY, write_planted
from planted_runs import write_runs
from second_process import python

pytestmark = pytest.mark.numerical

COUNTS = {"train": 24, "test": 8}
ASKED = ["--folds", "3", "--closed-form", "true", "--num_train_epochs", "4"]


@pytest.fixture(scope="module")
def small_sets(tmp_path_factory):
    """Data sets without a validation split."""
    root = tmp_path_factory.mktemp("small")
    options = {"pixels": False, "encoder": READY, "counts": COUNTS}
    return {name: str(write_planted(root / name, name, **options)) for name in ("eeg", "fmri")}


@pytest.fixture(scope="module")
def run(small_sets, new_recipe, tmp_path_factory):
    """A cross-validated run, what it kept of the held-out recordings, and its recipe."""
    root, kept = tmp_path_factory.mktemp("run"), []
    recipe = str(new_recipe(root, small_sets))
    with pytest.MonkeyPatch.context() as patch:
        # whitening is left out, so that the closed form can be had by hand
        patch.setattr("neural_clip.evaluation.baselines.closed_form_fit.LEAST_SHRINKAGES", (1.0,))
        whole = module.cross_validate
        patch.setattr("neural_clip.training.run.cross_validate", lambda *words: kept.append(whole(*words)) or kept[0])
        output = train(read_recipe([recipe, *ASKED]))
    return output, kept[0], recipe


def parts_of(folders):
    return [RecordingDataset.open(PreparedSet.open(folders[name]), "train", ["sub-01", "sub-02"]) for name in folders]


def test_an_image_is_held_out_in_all_modalities_at_once(small_sets):
    """Both saw the same 24 images, each under a name of its own."""
    parts = parts_of(small_sets)
    assert not {*parts[0].part.image_ids} & {*parts[1].part.image_ids}
    folds, seen = folds_of(parts, 3), set()
    for splits in held_out_parts(parts, folds):
        learnt, left = (
            {row.tobytes() for part in each for row in part.part.targets} for each in (splits.train, splits.validation)
        )
        assert not learnt & left and len(learnt | left) == 24
        assert not left & seen
        seen |= left
        for part, whole in zip(splits.train, parts, strict=True):
            assert len(part) < len(whole) == 96
    assert len(seen) == 24


def test_epochs_are_those_after_which_held_out_recordings_are_told_apart_best(run, small_sets, tmp_path):
    output, held_out, recipe = run
    record = json.loads((output / "training.json").read_text())
    found = record["cross_validation"]
    chosen = {"n_epochs": int(np.argmax(found["two_way"])) + 1, "two_way": held_out.two_way}
    assert found == {"n_folds": 3, "held_out": "images", "n_images": {"eeg": 24, "fmri": 24}, **chosen}
    for each in record["closed_form"].values():
        told = [each[name] for name in ("strength_by", "n_folds", "folds_over", "n_images")]
        assert told == ["held-out training recordings", 3, "images", 24]
    again = []  # of the kept epoch, fold by fold
    for fold in range(3):
        scores = []
        for part in parts_of(small_sets):
            rows = held_out.folds[part.modality] == fold
            ids, first = np.unique(part.part.image_ids[rows], return_index=True)
            gallery = part.part.targets[rows][first]
            gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
            similarity = held_out.embeds[part.modality][rows] @ gallery.T
            scores.append(two_way_accuracy(similarity, part.part.image_ids[rows], ids))
        again.append(np.mean(scores))
    assert np.mean(again) == pytest.approx(max(found["two_way"]), abs=1e-6)
    card = (output / "README.md").read_text()
    assert "cross-validation over\ntraining images in 3 folds (24 images of EEG, 24 images of fMRI): " in card
    assert f"{max(found['two_way']):.4f}" in card
    # the model itself is what so many epochs of the same schedule make of all recordings
    whole = [recipe, *ASKED, "--folds", "0", "--closed-form", "false", "--save_total_limit", "9"]
    plain = train(read_recipe([*whole, "--output-dir", str(tmp_path / "plain")]))
    steps = record["steps"]
    state = load_file(plain / f"checkpoint-{steps}" / "model.safetensors")
    weights = load_file(output / "model.safetensors")
    assert steps == found["n_epochs"] * 12 and all(torch.equal(weights[name], value) for name, value in state.items())


def test_the_closed_form_is_chosen_by_held_out_recordings(run, small_sets):
    output, held_out, _ = run
    record = json.loads((output / "training.json").read_text())["closed_form"]["fmri"]
    assert record["refitted_on"] == {"train": 96}
    (part,) = [part for part in parts_of(small_sets) if part.modality == "fmri"]
    targets = part.part.targets / np.linalg.norm(part.part.targets, axis=1, keepdims=True)
    assert record["way"] == "per subject"
    predictions = np.zeros_like(targets, dtype=float)
    for fold in range(3):
        own = held_out.folds["fmri"] == fold
        _, first = np.unique(part.part.image_ids[~own], return_index=True)
        transform = undoing(targets[~own][first])
        for name in ("sub-01", "sub-02"):
            learnt, left = (part.part.rows_of(name)[own[part.part.rows_of(name)] == holds] for holds in (False, True))
            rows = [np.stack(part.part.values(each)).astype(float) for each in (learnt, left)]
            mean, std = rows[0].mean(0), rows[0].std(0)
            inputs, others = ((each - mean) / std for each in rows)
            kernel = inputs @ inputs.T
            alpha = record["relative_alpha"] * np.trace(kernel) / len(kernel)
            wanted = targets[learnt] - targets[learnt].mean(0)
            found = others @ inputs.T @ np.linalg.solve(kernel + alpha * np.eye(len(kernel)), wanted)
            predictions[left] = found @ transform
    predictions /= np.linalg.norm(predictions, axis=1, keepdims=True)
    ids, first = np.unique(part.part.image_ids, return_index=True)
    score = two_way_accuracy(predictions @ targets[first].T, part.part.image_ids, ids)
    assert record["validation"]["closed form"]["two_way"] == pytest.approx(score, abs=2e-3)
    weight = record["weight_of_network"]
    assert 0 <= weight < 1
    (kept,) = [each for each in validation_predictions(output) if each.modality == "fmri"]
    network = held_out.embeds["fmri"] * weight / record["spread_of_network"]
    blend = network + predictions * (1 - weight) / record["spread_of_closed_form"]
    blend /= np.linalg.norm(blend, axis=1, keepdims=True)
    assert kept.split == "train" and kept.subjects == ["sub-01", "sub-02"]
    np.testing.assert_allclose(kept.embeds, blend, atol=1e-2)
    model = NeuralClipModel.from_pretrained(output)
    assert len(model.closed_forms) == 2
    found = json.loads((output / "training.json").read_text())["confidence"]["fmri"]
    assert found == fit_confidence(kept, part.part.data.images.embeds)  # of predictions of held-out recordings
    assert (found["split"], found["n_recordings"], found["n_images"]) == ("train", 96, 24)
    assert model.config.fmri_config.confidence_temperature == dict.fromkeys(kept.subjects, found["temperature"])
    assert "training recordings that cross-validation held out" in (output / "README.md").read_text()


def test_nothing_is_predicted_of_a_subject_whose_images_lie_in_one_fold(small_sets):
    (part,) = [part for part in parts_of(small_sets) if part.modality == "fmri"]
    one = part.part.image_ids == part.part.image_ids[-1]
    part.keep(np.flatnonzero((part.part.subjects == "sub-01") | one))
    _, _, predictions = choose_by_folds(ready(part.part), folds_of([part], 3)["fmri"])
    rows = part.part.subjects == "sub-02"
    assert rows.any() and not predictions[rows].any() and np.abs(predictions[~rows]).max(axis=1).min() > 0


def test_folds_of_different_length_and_late_scores_agree_about_epochs(new_recipe, tmp_path):
    """26 images make folds of 9, 9 and 8, which reach 18 steps in 2, 2 and 3 epochs, scored from the first on."""
    options = {"pixels": False, "encoder": READY, "counts": {"train": 26, "test": 8}}
    folder = write_planted(tmp_path / "fmri", "fmri", **options)
    words = ["--folds", "3", "--max_steps", "18", "--per_device_train_batch_size", "8", "--eval_delay", "1.5"]
    output = train(read_recipe([str(new_recipe(tmp_path, {"fmri": str(folder)})), *words]))
    assert len(json.loads((output / "training.json").read_text())["cross_validation"]["two_way"]) == 2


def test_recordings_that_answer_to_other_images_score_at_chance(new_recipe, tmp_path):
    """Both parts learn these by heart; what is held out must not profit."""
    options = {"pixels": False, "encoder": READY, "counts": COUNTS, "shuffled": True}
    folder = write_planted(tmp_path / "fmri", "fmri", **options)
    output = train(read_recipe([str(new_recipe(tmp_path, {"fmri": str(folder)})), *ASKED]))
    record = json.loads((output / "training.json").read_text())
    assert max(record["cross_validation"]["two_way"]) < 0.65
    found = record["closed_form"]["fmri"]["validation"]
    assert max(scores["two_way"] for scores in found.values()) < 0.65


def test_a_validation_split_is_taken_where_there_is_one(recipe_file):
    output = train(read_recipe([recipe_file, "--folds", "3"]))
    assert "cross_validation" not in json.loads((output / "training.json").read_text())


def test_too_few_images_and_wrong_numbers_are_named(small_sets, new_recipe, tmp_path):
    recipe = str(new_recipe(tmp_path, small_sets))
    with pytest.raises(
        DataError, match=r"24 training images are too few for 20 folds of two or more.*'folds' of the recipe"
    ):
        train(read_recipe([recipe, "--folds", "20"]))
    part = parts_of({"eeg": small_sets["eeg"]})[0]
    embeds = part.part.data.images.embeds
    embeds[:] = embeds[np.arange(len(embeds)) % 4]  # names that differ, of four vectors
    with pytest.raises(DataError, match=r"4 training images are too few for 3 folds of two or more"):
        folds_of([part], 3)
    assert not (tmp_path / "out").exists()
    for value in ("1", "-3", "true", "101", "2.5"):
        with pytest.raises(DataError, match=r"'folds' parameter\. Allowed is 0, or 2 to 100"):
            read_recipe([recipe, "--folds", value])


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Three subjects to train on, and a fourth for the test alone."""
    folder = tmp_path_factory.mktemp("people") / "eeg"
    options = {"pixels": False, "encoder": READY, "repeats": 1, "n_subjects": 4, "n_unseen": 1}
    return str(write_planted(folder, "eeg", counts={"train": 24}, **options))


def test_people_are_held_out_where_no_test_subject_is_trained_on(people):
    names = ["sub-01", "sub-02", "sub-03"]
    (part,) = parts = [RecordingDataset.open(PreparedSet.open(people), "train", names)]
    folds, left = folds_of(parts, 5), []  # no more folds than subjects
    config = NeuralClipConfig(eeg_config={"subjects": names, "n_chans": 6, "n_times": 10, "sfreq": 100.0})
    for splits in held_out_parts(parts, folds):
        (known,), (unknown,) = splits.train, splits.validation
        (name,) = set(unknown.part.subjects.tolist())
        left.append(name)
        assert known.subjects == [each for each in names if each != name]
        assert np.array_equal(np.array(known.subjects)[known.subject_ids], known.part.subjects)
        assert set(unknown.subject_ids.tolist()) == {-1}  # the average subject
        assert list(config_of(config, splits).eeg_config.subjects) == known.subjects  # nobody else spoils it
    assert sorted(left) == names == list(config.eeg_config.subjects) == part.subjects
    assert np.array_equal(part.subject_ids, np.repeat([0, 1, 2], 24))


def test_the_average_subject_is_what_chooses_for_people(people, new_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("neural_clip.evaluation.baselines.closed_form_fit.LEAST_SHRINKAGES", (1.0,))
    output = train(read_recipe([str(new_recipe(tmp_path, {"eeg": people})), *ASKED]))
    record = json.loads((output / "training.json").read_text())
    assert record["cross_validation"]["held_out"] == "subjects" and record["cross_validation"]["n_folds"] == 3
    assert "training subjects in 3 folds" in (output / "README.md").read_text()
    found = record["closed_form"]["eeg"]
    assert found["way"] == "pooled" and found["weight_of_network"] < 1
    part = PreparedSet.open(people).split("train", ["sub-01", "sub-02", "sub-03"])
    recordings = part.values().reshape(len(part), -1).astype(float)
    targets = part.targets / np.linalg.norm(part.targets, axis=1, keepdims=True)
    transform = undoing(targets[:24])
    predictions = np.zeros_like(targets, dtype=float)
    for name in ("sub-01", "sub-02", "sub-03"):
        left = part.subjects == name
        others = [recordings[part.subjects == each] for each in np.unique(part.subjects[~left])]
        scale = np.sqrt(np.mean([each.var(axis=0) for each in others], axis=0))
        inputs = np.concatenate([(each - each.mean(axis=0)) / scale for each in others])
        new = (recordings[left] - np.mean([each.mean(axis=0) for each in others], axis=0)) / scale
        kernel = inputs @ inputs.T
        alpha = found["relative_alpha"] * np.trace(kernel) / len(kernel)
        wanted = targets[~left] - targets[~left].mean(axis=0)
        predictions[left] = new @ inputs.T @ np.linalg.solve(kernel + alpha * np.eye(len(kernel)), wanted) @ transform
    predictions /= np.linalg.norm(predictions, axis=1, keepdims=True)
    ids, first = np.unique(part.image_ids, return_index=True)
    score = two_way_accuracy(predictions @ targets[first].T, part.image_ids, ids)
    assert found["validation"]["closed form"]["two_way"] == pytest.approx(score, abs=2e-3)
    model = NeuralClipModel.from_pretrained(output)
    assert model.closed_forms["eeg"].settings.shared  # the average subject has it
    fitted = json.loads((output / "training.json").read_text())["confidence"]["eeg"]["temperature"]
    assert model.config.eeg_config.confidence_temperature == {"average": fitted}  # nobody else was predicted so


def test_runs_are_held_out_where_the_test_shows_the_categories_again(new_recipe, tmp_path, capsys):
    folders = {name: write_runs(tmp_path / name, name, 5) for name in ("eeg", "fmri")}
    parts = parts_of(folders)
    for splits in held_out_parts(parts, folds_of(parts, 5)):  # no more folds than runs
        for learnt, left in zip(splits.train, splits.validation, strict=True):
            runs = [
                {tuple(row) for row in part.part.labels("subject", "session", "run").to_numpy()}
                for part in (learnt, left)
            ]
            assert not runs[0] & runs[1] and set(left.part.image_ids) == {f"im{n}" for n in range(8)}
    asked = [str(new_recipe(tmp_path, folders)), *ASKED, "--folds", "5"]
    train(read_recipe([*asked, "--dry-run"]))
    assert " in each of 5 trainings, " in capsys.readouterr().out
    output = train(read_recipe(asked))
    said = capsys.readouterr().err
    assert "(held-out 2-way: " in said and "validation 2-way" not in said
    record = json.loads((output / "training.json").read_text())
    assert record["cross_validation"]["held_out"] == "runs" and record["cross_validation"]["n_folds"] == 4
    assert "training runs in 4 folds" in (output / "README.md").read_text().replace("\n", " ")
    for found in record["closed_form"].values():  # answers that no map of embeddings predicts
        assert found["strength_by"] == "held-out training recordings"
        assert (found["n_folds"], found["folds_over"], found["n_images"]) == (4, "runs", 8)
        assert found["validation"]["closed form"]["two_way"] > 0.75


def test_one_run_of_categories_cannot_be_held_out(new_recipe, tmp_path):
    folder = write_runs(tmp_path / "fmri", "fmri", 2)
    with pytest.raises(DataError, match=r"its only training run is too few for 2 folds of two images or more.*0 for"):
        train(read_recipe([str(new_recipe(tmp_path, {"fmri": folder})), *ASKED]))


def test_images_and_runs_are_held_out_side_by_side(small_sets, tmp_path):
    parts = parts_of({"eeg": small_sets["eeg"], "fmri": write_runs(tmp_path / "fmri", "fmri", 4)})
    assert module.held_out_units(parts) == {"eeg": "images", "fmri": "runs"}
    found = folds_of(parts, 5)
    assert {name: sorted(set(folds.tolist())) for name, folds in found.items()} == {name: [0, 1, 2] for name in found}


def test_held_out_recordings_at_chance_are_told(new_recipe, tmp_path):
    options = {"pixels": False, "encoder": READY, "shuffled": True, "repeats": 1, "counts": {"train": 30, "test": 8}}
    folder = str(write_planted(tmp_path / "set", "fmri", **options))
    output = train(read_recipe([str(new_recipe(tmp_path, {"fmri": folder})), *ASKED]))
    (told,) = json.loads((output / "training.json").read_text())["warnings"]
    assert re.match(
        r"the network of fmri cannot be told from chance: its 2-way accuracy on held-out recordings is 0\.\d+ \(95 % "
        r"interval 0\.\d+ to 0\.\d+, the best of 4\), and guessing gives 0\.5\. This compares .* the mean over folds",
        told,
    )


def test_people_who_cannot_be_held_out_are_named(new_recipe, tmp_path):
    options = {"pixels": False, "encoder": READY, "repeats": 1, "n_unseen": 1, "counts": {"train": 8}}
    voxels = str(write_planted(tmp_path / "fmri", "fmri", n_subjects=3, **options))
    alone = str(write_planted(tmp_path / "meg", "meg", n_subjects=2, **options))
    for data, reason in (
        ({"fmri": voxels}, "/fmri' is fMRI, which has no average subject to score them by"),
        ({"meg": alone}, "/meg' has one training subject, and folds need two"),
    ):
        with pytest.raises(
            DataError, match=rf"No test subject is trained on.*but '.*{reason}.*0 as 'folds' of the recipe"
        ):
            train(read_recipe([str(new_recipe(tmp_path, data)), *ASKED]))
    assert not (tmp_path / "out").exists()


def told_of_folds(capsys):
    """Which folds a run said to have finished before, and which it trained."""
    found = re.findall(r"fold (\d) of 3( was finished before)?\n", capsys.readouterr().err)
    return [int(number) for number, before in found if before], [int(number) for number, before in found if not before]


def whole_files(output):
    """Bytes of a checkpoint, less the words of its command."""
    record = json.loads((output / "training.json").read_text())
    left_out = ("command", "recipe", "files", "sha256")
    kept = {path.name: path.read_bytes() for path in output.glob("*.safetensors")}
    return kept | {name: value for name, value in record.items() if name not in left_out}


def test_killed_in_the_second_fold_it_goes_on_and_ends_with_the_same_bytes(
    small_sets, new_recipe, tmp_path, capsys, monkeypatch
):
    """A process of its own dies after the first epoch of the second fold: 4 epochs and the scores of one are kept."""
    recipe = str(new_recipe(tmp_path, {"fmri": small_sets["fmri"]}))
    words = [recipe, "--folds", "3", "--num_train_epochs", "4", "--output-dir"]
    whole = train(read_recipe([*words, str(tmp_path / "whole")]))
    assert not (tmp_path / "whole.folds").exists() and told_of_folds(capsys) == ([], [1, 2, 3])
    done = python("-c", KILLED, ".safetensors", "7", "train", *words, tmp_path / "out")
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    folder = tmp_path / "out.folds"
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert len(kept) == 6 and not (tmp_path / "out").exists()

    stopped = []  # Ctrl-C in the last fold
    monkeypatch.setattr(module, "_trained", lambda *given: stopped.append(1) or _then(len(stopped) == 2, *given))
    with pytest.raises(KeyboardInterrupt):
        train(read_recipe([*words, str(tmp_path / "out")]))
    told = capsys.readouterr().err
    assert f"finished folds: 2, in '{folder}'; the same command goes on from there" in told
    assert "fold 1 of 3 was finished before" in told and "fold 2 of 3\n" in told
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"no checkpoint to resume from\. Without it, the run goes on from the folds"):
        train(read_recipe([*words, str(tmp_path / "out"), "--resume"]))
    still = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert (
        len(still) == 10 and sum(still.get(name) == time for name, time in kept.items()) == 5
    )  # the half fold is new
    output = train(read_recipe([*words, str(tmp_path / "out")]))
    assert told_of_folds(capsys) == ([1, 2], [3]) and whole_files(output) == whole_files(whole)
    assert not folder.exists()


def _then(stops, *given, trained=module._trained):
    """Train a fold, or be interrupted."""
    if stops:
        raise KeyboardInterrupt
    return trained(*given)


def test_folds_of_something_else_and_damaged_ones_are_trained_again(
    small_sets, new_recipe, tmp_path, capsys, monkeypatch
):
    recipe = str(new_recipe(tmp_path, {"fmri": small_sets["fmri"]}))
    words = [recipe, "--folds", "3", "--num_train_epochs", "1"]
    monkeypatch.setattr("neural_clip.training.run._run", lambda *given: (_ for _ in ()).throw(DataError("stopped")))

    def again(*more):
        with pytest.raises(DataError, match="stopped"):
            train(read_recipe([*words, *more]))
        return told_of_folds(capsys)[1]

    assert again() == [1, 2, 3] and again() == []
    assert again("--overwrite", "--closed-form", "true") == []  # decide nothing here
    assert again("--seed", "6") == again("--learning_rate", "0.002") == [1, 2, 3]
    assert again() == []
    largest = max((tmp_path / "out.folds").glob("held-out*"), key=lambda path: path.stat().st_mtime_ns)
    largest.unlink()
    assert again("--learning_rate", "0.002") == [3]
    data = {"fmri": PreparedSet.open(small_sets["fmri"])}
    keys = [finished_folds(tmp_path, read_recipe(words), data).key]
    monkeypatch.setitem(vars(data["fmri"].facts), "fingerprint", "another")
    keys.append(finished_folds(tmp_path, read_recipe(words), data).key)
    monkeypatch.setattr("neural_clip.training.folds.deciding_versions", lambda: {"torch": "0"})
    keys.append(finished_folds(tmp_path, read_recipe(words), data).key)
    assert keys[0] != keys[1] != keys[2] != keys[0]
