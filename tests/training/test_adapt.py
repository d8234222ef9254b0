"""Adapting to new people: their layer learns, nothing else moves, and a run leaves a whole checkpoint or none."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import planted_data
from damaged_files import damage
from folder_contents import contents
from neural_clip import NeuralClipModel, NeuralClipProcessor
from neural_clip.commands.adapt import main
from neural_clip.commands.evaluate import main as evaluate
from neural_clip.errors import DataError
from neural_clip.files.record import check_record
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.reader import PreparedSet
from neural_clip.publishing.terms import model_terms
from neural_clip.training import adapt as adapting
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.new_subjects import rows_of_images
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from neural_clip.training.trainer import validation_two_way
from planted_data import READY, SHAPES, write_planted
from second_process import python
from tolerances import assert_same_outputs

pytestmark = pytest.mark.numerical

MODALITIES = ("eeg", "meg", "fmri")
MODEL = {
    "eeg": {"hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 5, "dropout": 0.2, "subject_dropout": 0.2},
    "meg": {"encoder_type": "linear", "hidden_size": 16, "dropout": 0.1},
    "fmri": {"alignment_size": 32, "hidden_size": 32, "dropout": 0.1, "input_dropout": 0.1},
}
QUICK = ["--epochs", "2", "--learning-rate", "0.01", "--batch-size", "16"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Data sets of three people, of whom the checkpoint learns two; the sensors of the third are in reverse order."""
    root = tmp_path_factory.mktemp("adapting")
    planted_maps = planted_data.planted_maps

    def reversed_third(modality, n_subjects):
        maps = planted_maps(modality, n_subjects)
        if modality != "fmri":
            maps[2] = maps[2].reshape(-1, *SHAPES[modality])[:, ::-1].reshape(maps[2].shape)
        return maps

    options = {"n_subjects": 3, "pixels": False, "encoder": READY}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planted_data, "planted_maps", reversed_third)
        return {name: str(write_planted(root / name, name, **options)) for name in MODALITIES}


@pytest.fixture(scope="module")
def checkpoint(folders, tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoint")
    known = {name: settings | {"subjects": ["sub-01", "sub-02"]} for name, settings in MODEL.items()}
    known["fmri"]["n_voxels"] = {"sub-01": 50, "sub-02": 57}
    training = {"output_dir": str(root / "known"), "num_train_epochs": 6, "per_device_train_batch_size": 16}
    training |= {"learning_rate": 0.003, "seed": 5, "use_cpu": True, "disable_tqdm": True}
    recipe = root / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"data": folders, "model": known, "training": training}))
    return train(read_recipe([str(recipe)]))


def arguments(checkpoint, folders, output, modality="eeg", *more):
    data = f"{modality}={folders[modality]}"
    return ["--checkpoint", str(checkpoint), "--data", data, "--output-dir", str(output), *QUICK, *more]


@pytest.mark.parametrize("modality", MODALITIES)
def test_only_the_new_layer_changes_and_it_learns(checkpoint, folders, modality, tmp_path):
    before = contents(checkpoint)
    learning = ("--epochs", "12", "--learning-rate", "0.03", "--no-closed-form")
    output = main(arguments(checkpoint, folders, tmp_path / "new", modality, *learning))
    assert contents(checkpoint) == before
    old, new = (load_file(folder / "model.safetensors") for folder in (checkpoint, output))
    layer = f"encoders.{modality}.alignment.layers.sub-03"
    assert set(new) - set(old) == {f"{layer}.weight", f"{layer}.bias"}
    assert all(torch.equal(new[name], value) for name, value in old.items())
    models = [NeuralClipModel.from_pretrained(folder) for folder in (checkpoint, output)]
    for name in MODALITIES:  # people who were known, in a mixed batch
        recordings = RecordingDataset.open(PreparedSet.open(folders[name]), "test", ["sub-01", "sub-02"])
        batch = recordings.__getitems__(list(range(0, len(recordings), 3)))
        embeds = [model(**batch).neural_embeds for model in models]
        assert_same_outputs(*embeds)
    (entry,) = json.loads((output / "training.json").read_text())["adaptations"]
    subjects = ["sub-01", "sub-02", "sub-03"]
    validation = RecordingDataset.open(PreparedSet.open(folders[modality]), "validation", subjects)
    validation.keep(torch.nonzero(torch.tensor(validation.subject_ids) == 2)[:, 0].numpy())
    score = validation_two_way(models[1], validation)
    assert len(validation) == entry["recordings"]["validation"] == 24
    assert score == pytest.approx(max(entry["validation_two_way"]), abs=1e-6)  # the best epoch is the one saved
    assert score > max(0.75, entry["validation_two_way"][0] + (0.02 if modality != "fmri" else 0))
    if modality == "fmri":  # the start is ridge regression, far better than a layer of noise
        noise = NeuralClipModel.from_pretrained(checkpoint)
        torch.manual_seed(0)
        noise.add_subject("fmri", "sub-03", 64)
        assert entry["validation_two_way"][0] > validation_two_way(noise, validation) + 0.1
    else:  # the start is the average subject
        validation.subject_ids[:] = -1
        average = validation_two_way(models[0], validation)
        assert entry["validation_two_way"][0] == pytest.approx(average, abs=1e-6)
        start = torch.stack([old[f"encoders.{modality}.alignment.layers.{name}.weight"] for name in subjects[:2]])
        assert (new[f"{layer}.weight"] - start.mean(dim=0)).abs().max() > 1e-3


def test_new_checkpoint_is_whole(checkpoint, folders, tmp_path):
    output = main(arguments(checkpoint, folders, tmp_path / "new", "fmri"))
    assert sorted(path.name for path in output.iterdir() if path.suffix != ".py") == [
        "README.md", "config.json", "model.safetensors", "processor_config.json", "training.json",
        "validation_predictions.safetensors",
    ]  # fmt: skip
    rows = PreparedSet.open(folders["fmri"]).split("test", ["sub-03"]).recordings[:3]
    processor = NeuralClipProcessor.from_pretrained(output)
    inputs = processor(fmri=rows)
    assert inputs["subject_ids"].tolist() == [2, 2, 2] and inputs["fmri_values"].shape == (3, 64)
    with pytest.raises(ValueError, match="neural-clip adapt"):
        NeuralClipProcessor.from_pretrained(checkpoint)(fmri=rows)
    card, record = (output / "README.md").read_text(), json.loads((output / "training.json").read_text())
    (entry,) = record.pop("adaptations")
    assert check_record(output)["files"].keys() == {path.name for path in output.iterdir()} - {
        "README.md", "training.json", "validation_predictions.safetensors"
    }  # fmt: skip
    before = json.loads((checkpoint / "training.json").read_text())
    assert (
        all(record.pop(name) != before.pop(name) for name in ("files", "local_files", "sha256")) and record == before
    )
    assert "fMRI alignment layers of sub-03 were added to `known`" in card and "# new\n" in card
    assert f"{entry['validation_two_way'][entry['best_epoch']]:.4f}" in card and entry["command"] in card
    assert "Adaptation" not in (checkpoint / "README.md").read_text()


def test_terms_of_the_new_data_are_remembered(checkpoint, folders, tmp_path):
    folder = shutil.copytree(folders["eeg"], tmp_path / "eeg")
    metadata = json.loads((folder / "neural_clip.json").read_text())
    (folder / "neural_clip.json").write_text(json.dumps(metadata | {"redistribution": "forbidden"}))
    output = main(arguments(checkpoint, {"eeg": folder}, tmp_path / "new", "eeg", "--epochs", "1"))
    expected = dict.fromkeys([f"planted ({name})" for name in MODALITIES], "allowed")
    assert model_terms(checkpoint) == expected
    assert model_terms(output) == expected | {"planted (sub-03)": "forbidden"}
    first, second = json.loads((output / "config.json").read_text())["eeg_config"]["trained_on"]
    assert (first["subjects"], first["redistribution"]) == (["sub-01", "sub-02"], "allowed")
    assert (second["subjects"], second["redistribution"]) == (["sub-03"], "forbidden")
    for kind in (NeuralClipModel, NeuralClipProcessor):
        with pytest.raises(DataError, match=r"redistribution of planted \(eeg\) is forbidden"):
            kind.from_pretrained(output).push_to_hub("lab/model", private=False)
        assert set(kind.from_pretrained(checkpoint).data_terms().values()) == {"allowed"}


def test_epochs_that_harm_are_not_kept(checkpoint, folders, tmp_path, monkeypatch):
    """A start that nothing surpasses is what the checkpoint holds."""
    monkeypatch.setattr(adapting, "validation_two_way", lambda model, recordings: 1.0)
    output = main(arguments(checkpoint, folders, tmp_path / "new", "eeg"))
    (entry,) = json.loads((output / "training.json").read_text())["adaptations"]
    assert entry["best_epoch"] == 0 and max(entry["validation_two_way"][1:]) < entry["validation_two_way"][0]
    weights = load_file(output / "model.safetensors")
    layers = [weights[f"encoders.eeg.alignment.layers.sub-0{number}.weight"] for number in (1, 2, 3)]
    torch.testing.assert_close(layers[2], (layers[0] + layers[1]) / 2)


def test_a_share_of_the_recordings(checkpoint, folders, tmp_path):
    entries = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        more = ("--train-fraction", "0.25", "--seed", seed, "--epochs", "2")
        output = main(arguments(checkpoint, folders, tmp_path / name, "eeg", *more))
        entries += json.loads((output / "training.json").read_text())["adaptations"]
    assert [entry["recordings"]["train"] for entry in entries] == [20, 20, 20]  # of 80
    assert entries[0]["validation_two_way"] == entries[1]["validation_two_way"]
    assert entries[0]["validation_two_way"][1:] != entries[2]["validation_two_way"][1:]


def test_minutes_of_recordings(checkpoint, folders, tmp_path):
    more = ("--seconds-per-trial", "6", "--epochs", "1")
    output = main(arguments(checkpoint, folders, tmp_path / "new", "eeg", "--minutes", "2.05", *more))
    (entry,) = json.loads((output / "training.json").read_text())["adaptations"]
    assert entry["recordings"]["train"] == 20 and entry["settings"]["minutes"] == 2.05
    assert entry["minutes"] == {"train": {"sub-03": 2.0}, "validation": {"sub-03": pytest.approx(2.4)}}
    assert entry["settings"]["seconds_per_trial"] == 6
    assert "fitted to 20 training recordings, 2.0 minutes of trials, of planted" in (output / "README.md").read_text()
    unknown = main(arguments(checkpoint, folders, tmp_path / "unknown", "eeg", "--epochs", "1"))
    assert "minutes" not in json.loads((unknown / "training.json").read_text())["adaptations"][0]


def test_images_of_both_splits(checkpoint, folders, tmp_path):
    """Whole images: each was recorded twice."""
    output = main(arguments(checkpoint, folders, tmp_path / "new", "eeg", "--images", "12", "--epochs", "1"))
    (entry,) = json.loads((output / "training.json").read_text())["adaptations"]
    assert entry["recordings"] == {"train": 20, "validation": 4} and entry["settings"]["images"] == 12
    data = RecordingDataset.open(PreparedSet.open(folders["eeg"]), "train", ["sub-02", "sub-03"])
    held_out = RecordingDataset.open(PreparedSet.open(folders["eeg"]), "validation", ["sub-02", "sub-03"])
    (first, few), (again, _), (other, _) = (rows_of_images(data, held_out, 7, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.bincount(data.subject_ids[first]).tolist() == [10, 10]
    assert len(set(data.part.image_ids[first[data.subject_ids[first] == 0]])) == 5 and len(few) == 8
    with pytest.raises(
        DataError, match=r"takes 68 images of the training split and 12 .* 'sub-03' has 40 and 12 there"
    ):
        adapting.adapt(checkpoint, folders["eeg"], tmp_path / "more", images=80)
    assert not (tmp_path / "more").exists()


def test_minutes_exclude_a_share(checkpoint, folders, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(arguments(checkpoint, folders, tmp_path / "new", "eeg", "--minutes", "2", "--train-fraction", "0.5"))
    assert "not allowed with argument" in capsys.readouterr().err
    both = {"minutes": 2.0, "train_fraction": 0.5}
    with pytest.raises(DataError, match=r"exclude one another, but got 2.0 and 0.5"):
        adapting.adapt(checkpoint, folders["eeg"], tmp_path / "new", **both)
    with pytest.raises(DataError, match=r"'minutes' and 'images' exclude one another, but got 1.0 and 8"):
        adapting.adapt(checkpoint, folders["eeg"], tmp_path / "new", minutes=1.0, images=8)
    assert list(tmp_path.iterdir()) == []


def test_frozen_alignment_does_not_freeze_new_people(checkpoint, folders, tmp_path):
    frozen = shutil.copytree(checkpoint, tmp_path / "frozen")
    config = json.loads((frozen / "config.json").read_text())
    (frozen / "config.json").write_text(json.dumps(config | {"freeze_alignment": True}))
    drop_files(frozen)
    output = main(arguments(frozen, folders, tmp_path / "new", "meg"))
    (entry,) = json.loads((output / "training.json").read_text())["adaptations"]
    assert entry["best_epoch"] > 0
    assert NeuralClipModel.from_pretrained(output).config.freeze_alignment is True


def drop_files(folder):
    """Make the record one of before the files were listed."""
    record = json.loads((folder / "training.json").read_text())
    del record["files"], record["sha256"]
    (folder / "training.json").write_text(json.dumps(record))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "processor_config.json"])
def test_a_checkpoint_whose_files_are_not_its_own_is_refused(checkpoint, folders, tmp_path, name):
    other = shutil.copytree(checkpoint, tmp_path / "other")
    damage(other / name, "flipped")
    before = contents(tmp_path)
    with pytest.raises(DataError, match=rf"other/{name}' is not the file that training.json was written for"):
        main(arguments(other, folders, tmp_path / "new"))
    assert contents(tmp_path) == before


def test_the_checkpoint_and_the_data_are_not_written_into(checkpoint, folders, tmp_path):
    """Not the checkpoint itself either, which is left as it is."""
    copy = shutil.copytree(checkpoint, tmp_path / "known")
    before = contents(tmp_path)
    for output in (copy, copy / "new", f"{folders['eeg']}/new"):
        with pytest.raises(DataError, match=r"which is read|lies in the data set"):
            main(arguments(copy, folders, output, "eeg", "--overwrite"))
    assert contents(tmp_path) == before


def test_what_lies_beside_a_checkpoint_stays_when_it_is_replaced(checkpoint, folders, tmp_path):
    new = shutil.copytree(checkpoint, tmp_path / "new")
    (new / "notes.txt").write_text("mine")
    main(arguments(checkpoint, folders, new, "eeg", "--overwrite", "--epochs", "1"))
    assert (new / "notes.txt").read_text() == "mine" and "adaptations" in check_record(new)


def test_streamed_recordings_give_the_same_layer(checkpoint, folders, tmp_path, monkeypatch):
    """And no recording is copied, nor are files read whole before."""
    expected = main(arguments(checkpoint, folders, tmp_path / "mapped", "fmri"))
    for method in ("_of_subject", "verify"):
        monkeypatch.setattr(PreparedSet, method, lambda *_: pytest.fail("recordings were copied"))
    found = main(arguments(checkpoint, folders, tmp_path / "streamed", "fmri", "--streaming"))
    assert (found / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_real_command_line(checkpoint, folders, tmp_path):
    command = ["-m", "neural_clip.commands.main", "adapt"]
    options = arguments(checkpoint, folders, tmp_path / "new", "eeg", "--subjects", "sub-03")
    done = python(*command, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "sub-03: validation 2-way" in done.stderr
    again = python(*command, *options)
    assert again.returncode == 2
    assert "Pass `--overwrite` to replace the checkpoint" in again.stderr.splitlines()[-1]
    data = f"eeg={folders['eeg']}"
    report = evaluate(
        ["--checkpoint", str(tmp_path / "new"), "--data", data, "--split", "validation",
         "--output-dir", str(tmp_path / "report"), "--baselines=none", "--no-controls", "--no-pictures"]
    )  # fmt: skip
    assert report["decoding"]["eeg"]["rows"][0]["two_way"] > 0.7


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--subjects", "sub-01"], r"'sub-01', whom the model knows already; it knows \['sub-01', 'sub-02'\]"),
        (["--subjects", "sub-09"], r"names 'sub-09', but .* has \['sub-01', 'sub-02', 'sub-03'\]"),
        (["--minutes", "2"], "How long a trial of 'planted' lasts is not known .*--seconds-per-trial"),
        (
            ["--minutes", "-1", "--seconds-per-trial", "4"],
            "'minutes' parameter. Allowed is a number above 0, but got -1.0",
        ),
        (
            ["--minutes", "2", "--seconds-per-trial", "0"],
            "'seconds_per_trial' parameter. Allowed is a number above 0, but got 0.0",
        ),
        (["--minutes", "0.1", "--seconds-per-trial", "4"], "Two recordings of 'sub-03' at least must fit"),
        (["--images", "3"], "'images' parameter. Allowed is 4 and more, but got 3"),
        (
            ["--images", "0"],
            "'images' is 0, but adapting learns from recordings of the new subjects. .*--subject average",
        ),
        (["--minutes", "0"], "'minutes' is 0, but adapting learns from recordings .*; fMRI has no average subject"),
        (["--train-fraction", "0"], "'train_fraction' is 0, but adapting learns from recordings of the new subjects"),
        (["--train-fraction", "-1"], "'train_fraction' parameter. Allowed is above 0 and at most 1, but got -1.0"),
        (["--train-fraction", "1.5"], "above 0 and at most 1, but got 1.5"),
        (["--epochs", "0"], "'epochs' parameter. Allowed is 1 and more, but got 0"),
        (["--batch-size", "1"], "'batch_size' parameter. Allowed is 2 and more"),
        (["--learning-rate", "-1"], "'learning_rate' parameter. Allowed is a number above 0"),
        (["--data", "eeg"], "Allowed is eeg=FOLDER"),
        (["--checkpoint", "nowhere"], "'nowhere' is no checkpoint folder of `neural-clip train`: it has no config"),
    ],
)
def test_bad_arguments_are_named(checkpoint, folders, tmp_path, more, message):
    with pytest.raises(DataError, match=message):
        main(arguments(checkpoint, folders, tmp_path / "new", "eeg", *more))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("n_chans", 7, "n_chans is 7, but the model expects 6"),
        ("sfreq", 50.0, "sfreq is 50.0, but the model expects 100.0"),
        ("tmin", -0.2, "tmin is -0.2, but the model expects 0.0"),
        ("n_times", 12, "n_times is 12, but the model expects 10"),
        ("ch_names", list("abcdef"), "does not fit the model in its channels: it lacks 'C0'"),
        ("image_encoder", READY | {"projection_dim": 16, "revision": "1"}, "differ in 'revision'"),
        ("image_encoder", None, "have no embeddings"),
        ("subjects", ["sub-01", "sub-02"], "knows every subject"),
        ("subject_splits", {"sub-03": {"train": 80}}, "no validation recordings of 'sub-03', but adapting chooses"),
        ("subject_splits", {"sub-03": {"validation": 8}}, "no train recordings of 'sub-03', .* --subject average"),
    ],
)
def test_data_that_do_not_fit(checkpoint, folders, tmp_path, monkeypatch, key, value, message):
    found = Facts.of(Facts.read(folders["eeg"]).as_dict() | {key: value})
    monkeypatch.setattr(Facts, "read", lambda folder: found)
    with pytest.raises(DataError, match=message):
        main(arguments(checkpoint, folders, tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


def test_one_validation_image_is_refused_before_anything_is_fitted(checkpoint, tmp_path):
    counts = planted_data.COUNTS | {"validation": 1}
    folder = write_planted(tmp_path / "one", "eeg", n_subjects=3, pixels=False, encoder=READY, counts=counts)
    with pytest.raises(DataError, match="shows 1 image to the subjects that are trained"):
        adapting.adapt(checkpoint, folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_damaged_record_is_a_sentence(checkpoint, folders, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "cut")
    (tmp_path / "cut" / "training.json").write_text('{"data": ')
    with pytest.raises(DataError, match=r"cut/training\.json' is damaged"):
        main(arguments(tmp_path / "cut", folders, tmp_path / "new", "eeg"))


def test_modality_without_encoder(checkpoint, folders, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    model = NeuralClipModel(NeuralClipModel.config_class(**(config | {"eeg_config": None})))
    model.save_pretrained(tmp_path / "other")
    NeuralClipProcessor.from_config(model.config).save_pretrained(tmp_path / "other")
    shutil.copy(checkpoint / "training.json", tmp_path / "other")
    drop_files(tmp_path / "other")
    with pytest.raises(DataError, match=r"holds eeg recordings, but the model has no eeg encoder"):
        main(arguments(tmp_path / "other", folders, tmp_path / "new"))
    with pytest.raises(DataError, match="says eeg, but the data set holds meg recordings"):
        main(arguments(checkpoint, folders | {"eeg": folders["meg"]}, tmp_path / "new"))


def test_what_stands_there_is_not_overwritten_unasked(checkpoint, folders, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "new")
    before = contents(tmp_path / "new")
    with pytest.raises(DataError, match="Pass `--overwrite`"):
        main(arguments(checkpoint, folders, tmp_path / "new"))
    assert contents(tmp_path / "new") == before
    main(arguments(checkpoint, folders, tmp_path / "new", "eeg", "--overwrite", "--epochs", "1"))
    assert "adaptations" in json.loads((tmp_path / "new" / "training.json").read_text())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="is no checkpoint, so it is not overwritten; choose another name"):
        main(arguments(checkpoint, folders, tmp_path / "mine", "eeg", "--overwrite"))
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize("moment", ["fit", "write_whole", "write_checkpoint"])
@pytest.mark.parametrize("earlier", [False, True])
def test_interrupted_runs_leave_no_half_checkpoint(checkpoint, folders, tmp_path, monkeypatch, moment, earlier):
    if earlier:
        shutil.copytree(checkpoint, tmp_path / "new")
    before = contents(tmp_path)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    module = "checkpoint" if moment == "write_whole" else "adapt"
    monkeypatch.setattr(f"neural_clip.training.{module}.{moment}", interrupt)
    with pytest.raises(KeyboardInterrupt):
        main(arguments(checkpoint, folders, tmp_path / "new", "eeg", "--overwrite", "--epochs", "1"))
    assert contents(tmp_path) == before and not (tmp_path / "new.partial").exists()


def test_leftovers_of_a_killed_run_are_no_obstacle(checkpoint, folders, tmp_path):
    (tmp_path / "new.partial" / "epochs").mkdir(parents=True)
    (tmp_path / "new.partial" / "stale.txt").write_text("")
    output = main(arguments(checkpoint, folders, tmp_path / "new", "eeg", "--epochs", "1"))
    assert not (output / "stale.txt").exists() and not (tmp_path / "new.partial").exists()
