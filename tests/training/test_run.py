"""Training: it learns, it resumes bit for bit, it starts in every advertised way, and it refuses what it must."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from damaged_files import damage
from folder_contents import contents
from loopback_hub import LoopbackHub
from neural_clip import NeuralClipModel, NeuralClipProcessor
from neural_clip.commands.train import main
from neural_clip.errors import DataError
from neural_clip.files.record import check_record
from neural_clip.image_tower_files import weights_digest
from neural_clip.preparation import Preparation
from neural_clip.prepared.reader import PreparedSet
from neural_clip.publishing.model_card import write_model_card
from neural_clip.targets.identity import common_image_encoder
from neural_clip.targets.tiny_clip import TINY_CLIP
from neural_clip.training import run
from neural_clip.training.batches import JointDataset, RecordingDataset
from neural_clip.training.checks import check_named_encoder, check_push
from neural_clip.training.model import build_model, load_tower, model_config
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from neural_clip.training.run_state import is_finished, mark_finished, states_of
from neural_clip.training.trainer import BestState, NeuralClipTrainer, validation_two_way
from paths import REPOSITORY
from planted_data import READY, facts_of
from second_process import python
from tolerances import assert_same_outputs


@pytest.mark.numerical
def test_learns_saves_and_says_what_it_did(recipe_file, folders):
    output = train(read_recipe([recipe_file, "--num_train_epochs", "12"]))
    model = NeuralClipModel.from_pretrained(output)
    record = json.loads((output / "training.json").read_text())
    scores = [entry["eval_two_way"] for entry in record["validation"]]
    assert max(scores) == pytest.approx(record["best_validation_two_way"])
    # What is saved is the best checkpoint, not the last: its scores can be had again.
    again = []
    for modality, folder in folders.items():
        subjects = getattr(model.config, f"{modality}_config").subjects
        again.append(
            validation_two_way(model, RecordingDataset.open(PreparedSet.open(folder), "validation", subjects))
        )
    assert sum(again) / 2 == pytest.approx(record["best_validation_two_way"], abs=1e-6)
    assert min(again) > 0.7  # planted signal; chance is 0.5
    assert NeuralClipProcessor.from_pretrained(output).recordings["eeg"][0]["n_chans"] == 6
    assert record["simulated"] == ["eeg", "fmri"]
    assert record["data"]["eeg"]["splits"]["train"]["rows"] == 160
    card = (output / "README.md").read_text()
    assert "simulated" in card
    assert f"{record['best_validation_two_way']:.4f}" in card
    initial = NeuralClipModel(model.config).encoders["eeg"].alignment.layers["sub-01"].weight
    assert (model.encoders["eeg"].alignment.layers["sub-01"].weight - initial).abs().max() > 1e-3  # it was trained


def test_frozen_alignment_stays_as_initialised(recipe_file, tmp_path, monkeypatch):
    """Weight decay of 0.5 would shrink every layer that the optimiser sees; a resumed run keeps them too."""
    arguments = [recipe_file, "--model.freeze_alignment", "true", "--weight_decay", "0.5"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    main(arguments)
    main([*arguments, "--num_train_epochs", "3", "--resume", "true"])
    output = tmp_path / "out"
    model = NeuralClipModel.from_pretrained(output)
    start = build_model(model.config, None, 5).state_dict()
    for checkpoint in (output, output / "checkpoint-60"):
        weights = load_file(checkpoint / "model.safetensors")
        kept = {name for name, value in weights.items() if torch.equal(value, start[name])}
        assert kept == {name for name in weights if ".alignment." in name}
    record = json.loads((output / "training.json").read_text())
    assert record["recipe"]["model"]["freeze_alignment"] is True
    assert "--model.freeze_alignment true" in (output / "README.md").read_text()
    assert json.loads((output / "config.json").read_text())["freeze_alignment"] is True


@pytest.mark.numerical
def test_two_epochs_and_two_more_equal_four(recipe_file, tmp_path):
    """Moved elsewhere after two of four epochs and resumed in the same schedule: the weights are equal bit for bit."""
    keep = ["--num_train_epochs", "4", "--save_total_limit", "9"]
    whole = train(read_recipe([recipe_file, *keep, "--output_dir", str(tmp_path / "whole")]))
    checkpoints = sorted(whole.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert len(checkpoints) == 4
    part = tmp_path / "part"
    part.mkdir()
    for checkpoint in checkpoints[:2]:
        os.rename(checkpoint, part / checkpoint.name)
    train(read_recipe([recipe_file, *keep, "--output_dir", str(part), "--resume", "true"]))
    resumed = load_file(part / checkpoints[3].name / "model.safetensors")
    expected = load_file(checkpoints[3] / "model.safetensors")
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


@pytest.fixture
def interrupt(monkeypatch):
    """Press Ctrl-C, or send another signal, after a step of the next training."""

    def press(step, sent=signal.SIGINT):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == step:
                os.kill(os.getpid(), sent)

        monkeypatch.setattr(BestState, "on_step_end", on_step_end)

    yield press
    monkeypatch.undo()


@pytest.mark.numerical
def test_told_to_end_it_saves_the_step_at_hand_and_goes_on_from_there(recipe_file, tmp_path, interrupt, capsys):
    """States are saved at the end of an epoch; the signal comes in the middle of the second one."""
    before = signal.getsignal(signal.SIGTERM)
    whole = train(read_recipe([recipe_file, "--output_dir", str(tmp_path / "whole")]))
    interrupt(27, signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        train(read_recipe([recipe_file, "--output_dir", str(tmp_path / "part")]))
    assert stop.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert [path.name for path in states_of(tmp_path / "part.partial")][-1] == "checkpoint-27"
    told = "training was interrupted after step 27 of 40, which was saved. Give the same command again with `--resume`"
    assert told in capsys.readouterr().err
    interrupt(-1)
    part = train(read_recipe([recipe_file, "--output_dir", str(tmp_path / "part"), "--resume", "true"]))
    assert (part / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.numerical
@pytest.mark.parametrize("max_steps", [20, 13])  # at the end of an epoch, and in the middle of one
def test_told_to_end_while_a_closed_form_is_fitted_it_ends_and_goes_on_from_there(
    recipe_file, tmp_path, monkeypatch, capsys, max_steps
):
    recipe = [recipe_file, "--closed-form", "true", "--max-steps", str(max_steps)]
    whole = train(read_recipe([*recipe, "--output_dir", str(tmp_path / "whole")]))
    with monkeypatch.context() as patch:
        patch.setattr(run, "add_closed_forms", lambda *given: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as stop:
            train(read_recipe([*recipe, "--output_dir", str(tmp_path / "part")]))
    assert stop.value.code == 143 and not (tmp_path / "part").exists()
    told = f"training was interrupted after step {max_steps} of {max_steps}, which was saved. Give the same command"
    assert told in capsys.readouterr().err
    part = train(read_recipe([*recipe, "--output_dir", str(tmp_path / "part"), "--resume"]))
    for name in ("model.safetensors", "config.json"):
        assert (part / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.numerical
@pytest.mark.parametrize("step", [3, 7, 9])
def test_interrupted_after_any_step_the_rest_is_as_it_would_have_been(recipe_file, tmp_path, interrupt, step):
    """Seven steps of three batches an epoch: within it, at its end, and in the second one."""
    arguments = [recipe_file, "--gradient_accumulation_steps", "3", "--save_strategy", "steps", "--save_steps", "2"]
    arguments += ["--load_best_model_at_end", "false", "--save_total_limit", "9", "--passes", "{fmri: 1}"]
    whole = train(read_recipe([*arguments, "--output_dir", str(tmp_path / "whole")]))
    interrupt(step)
    with pytest.raises(KeyboardInterrupt):
        train(read_recipe([*arguments, "--output_dir", str(tmp_path / "part")]))
    interrupt(-1)
    part = train(read_recipe([*arguments, "--output_dir", str(tmp_path / "part"), "--resume", "true"]))
    assert (part / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    records = [json.loads((folder / "training.json").read_text()) for folder in (whole, part)]
    assert records[0]["steps"] == records[1]["steps"] == 14
    assert records[0]["validation"] == records[1]["validation"] and len(records[0]["validation"]) == 2


def test_the_best_checkpoint_goes_with_a_run_that_is_moved(recipe_file, tmp_path):
    """No later epoch reaches the score that is noted for the first, so that one stays the best."""
    first = [recipe_file, "--lr_scheduler_type", "constant", "--save_total_limit", "9"]
    output = train(read_recipe([*first, "--num_train_epochs", "1"]))
    best = (output / "model.safetensors").read_bytes()
    state = output / "checkpoint-20" / "trainer_state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"best_metric": 1.0}))
    mark_finished(state.parent)
    moved = tmp_path / "moved"
    output.rename(moved)
    again = [*first, "--num_train_epochs", "2", "--output_dir", str(moved), "--resume", "true"]
    train(read_recipe(again))
    assert (moved / "model.safetensors").read_bytes() == best
    assert (moved / "checkpoint-40" / "model.safetensors").read_bytes() != best
    shutil.rmtree(moved / "checkpoint-20")
    before = contents(moved)
    with pytest.raises(DataError, match=r"checkpoint-20' is the best so far, with a score of 1\.0, and it is missing"):
        train(read_recipe(again))
    assert contents(moved) == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["--per_device_train_batch_size", "8"], "'batch_size' was 16 and is 8"),
        (["--seed", "6"], "'seed' was 5 and is 6"),
        (["--min-steps", "9"], "'min_steps' was 0 and is 9"),
        (["--passes", "{eeg: 2}"], r"'passes' was \[1, 1\] and is \[2, 1\]"),
        (["--gradient_accumulation_steps", "2"], "'gradient_accumulation_steps' was 1 and is 2"),
        (["--model.eeg.subjects", "[sub-01]"], r"'sizes' was \[160, 160\] and is \[80, 160\]"),
    ],
)
def test_a_run_goes_on_with_the_batches_it_began_with(recipe_file, tmp_path, changes, named):
    train(read_recipe([recipe_file, "--max_steps", "1", "--num_train_epochs", "1"]))
    with pytest.raises(DataError, match=rf"checkpoint-1' cannot be resumed from with other settings: {named}"):
        train(read_recipe([recipe_file, *changes, "--resume", "true"]))


@pytest.mark.numerical
def test_small_data_have_their_steps_and_more_epochs_go_on_from_them(recipe_file, tmp_path, capsys):
    """Ten batches in a pass, 17 in an epoch, scored once in each; as many in a third epoch that is asked for later."""
    few = [recipe_file, "--min-steps", "33", "--passes", "{fmri: 2}", "--save_total_limit", "9"]
    output = train(read_recipe(few))
    record = json.loads((output / "training.json").read_text())
    assert record["recipe"]["min_steps"] == 33 and record["steps"] == 2 * (17 + 20)
    assert [entry["step"] for entry in record["validation"]] == [37, 74]
    batches = json.loads((output / "checkpoint-37" / "batches.json").read_text())
    assert (batches["min_steps"], batches["min_batches"], batches["sizes"]) == (33, 17, [160, 160])
    more = [*few, "--num_train_epochs", "3"]
    train(read_recipe([*more, "--resume"]))
    assert json.loads((output / "training.json").read_text())["steps"] == 3 * 37
    with pytest.raises(DataError, match="'min_steps' was 33 and is 40"):
        train(read_recipe([*more, "--min-steps", "40", "--resume"]))
    assert "'min_steps' asks for" not in capsys.readouterr().err


def test_steps_that_were_asked_for_are_followed_and_told_to_be_few(recipe_file, capsys):
    output = train(read_recipe([recipe_file, "--max-steps", "6", "--min-steps", "30", "--passes", "{fmri: 2}"]))
    said = capsys.readouterr().err
    assert "note: training takes 6 steps, about 2 of eeg and 3 of fmri, fewer than the 30 that" in said
    assert json.loads((output / "training.json").read_text())["steps"] == 6


def test_a_run_of_before_there_was_a_floor_goes_on_without_one(recipe_file, tmp_path):
    state = train(read_recipe([recipe_file, "--max_steps", "1"])) / "checkpoint-1"
    batches = json.loads((state / "batches.json").read_text())
    for name in ("min_steps", "min_batches"):
        assert batches.pop(name) == 0
    (state / "batches.json").write_text(json.dumps(batches))
    mark_finished(state)
    again = [recipe_file, "--max_steps", "2", "--resume"]
    with pytest.raises(DataError, match="'min_steps' was 0 and is 30"):
        train(read_recipe([*again, "--min-steps", "30"]))
    train(read_recipe(again))


def test_recordings_that_were_prepared_otherwise_do_not_continue_a_run(recipe_file, folders, tmp_path):
    data = {name: str(shutil.copytree(folder, tmp_path / name)) for name, folder in folders.items()}
    arguments = [recipe_file, "--data", yaml.safe_dump(data, default_flow_style=True), "--max_steps", "1"]
    prepared_as(data["eeg"], scaling="z-score", scope="subject")
    train(read_recipe(arguments))
    prepared_as(data["eeg"], scaling="none")
    with pytest.raises(DataError, match=r"checkpoint-1' does not fit .*the scaling is none instead of z-score"):
        train(read_recipe([*arguments, "--resume", "true"]))


def prepared_as(folder, **facts):
    """Let a data set say what its rows went through."""
    path = Path(folder, "neural_clip.json")
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"preparation": Preparation(unit="V", **facts).as_dict()})
    )


def test_a_checkpoint_of_processes_that_shared_no_batch_is_not_resumed(recipe_file, tmp_path):
    """One of before the batches were recorded, which has as many random states as there were processes."""
    output = train(read_recipe([recipe_file, "--max_steps", "1"]))
    checkpoint = output / "checkpoint-1"
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    shutil.copy(checkpoint / "rng_state_0.pth", checkpoint / "rng_state_1.pth")
    for name in ("batches.json", "files.json"):
        (checkpoint / name).unlink()
    with pytest.raises(
        DataError, match="cannot be resumed from: its 2 processes each compared recordings of their own"
    ):
        train(read_recipe([recipe_file, "--resume", "true"]))


def test_a_taken_folder_is_refused_before_all_data_are_read(finished_run, monkeypatch):
    recipe, _ = finished_run
    monkeypatch.setattr(PreparedSet, "verify", lambda data: pytest.fail(f"{data.name} was read"))
    with pytest.raises(DataError, match="holds an earlier run"):
        train(read_recipe([recipe]))


@pytest.mark.numerical
def test_what_an_interruption_left_half_written_is_not_resumed_from(finished_run, tmp_path, capsys):
    recipe, whole = finished_run
    output = Path(shutil.copytree(whole, tmp_path / "out"))
    damage(output / "checkpoint-40" / "optimizer.pt", "cut")
    train(read_recipe([recipe, "--output_dir", str(output), "--resume"]))
    said = capsys.readouterr().err
    assert "checkpoint-40' cannot be resumed from: its optimizer.pt is not the file" in said
    assert f"going on from step 20, which was saved in '{output}/checkpoint-20'" in said
    for name in ("model.safetensors", "checkpoint-40/model.safetensors", "checkpoint-20/optimizer.pt"):
        assert (output / name).read_bytes() == (whole / name).read_bytes()
    assert check_record(output)["files"] == check_record(whole)["files"]


def test_another_model_does_not_go_on(finished_run, tmp_path):
    recipe, whole = finished_run
    output = Path(shutil.copytree(whole, tmp_path / "out"))
    before = contents(tmp_path)
    with pytest.raises(DataError, match=r"cannot be resumed from with another model: .* of shape \[8"):
        train(read_recipe([recipe, "--output_dir", str(output), "--resume", "--model.eeg.hidden_size", "16"]))
    with pytest.raises(DataError, match=r"'optim' was adamw_torch_fused and is adafactor"):
        train(read_recipe([recipe, "--output_dir", str(output), "--resume", "--optim", "adafactor"]))
    assert {name: found for name, found in contents(tmp_path).items() if name.startswith("out/")} == before


def test_a_refused_overwrite_leaves_the_checkpoints(recipe_file, folders):
    output = train(read_recipe([recipe_file, "--max_steps", "1"]))
    with pytest.raises(DataError, match="2 and more for the contrastive loss"):
        train(read_recipe([recipe_file, "--overwrite", "true", "--per_device_train_batch_size", "1"]))
    assert (output / "checkpoint-1").is_dir()


@pytest.mark.slow
@pytest.mark.numerical
def test_same_seed_same_weights_other_seed_others(recipe_file, tmp_path):
    outputs = [
        train(read_recipe([recipe_file, "--output_dir", str(tmp_path / name), "--seed", seed]))
        for name, seed in (("a", "1"), ("b", "1"), ("c", "2"))
    ]
    a, b, c = (load_file(output / "model.safetensors") for output in outputs)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


@pytest.mark.slow
def test_the_program_in_a_process_that_imports_everything_itself(recipe_file, tmp_path):
    """The launchers of several processes are those of tests/test_registration.py."""
    command = [sys.executable, "train.py", recipe_file]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads((tmp_path / "out" / "training.json").read_text())["processes"] == 1
    NeuralClipModel.from_pretrained(tmp_path / "out")
    again = python("train.py", recipe_file, cwd=REPOSITORY)
    assert again.returncode == 2
    assert again.stderr.strip().splitlines()[-1].startswith("error: ") and "holds an earlier run" in again.stderr


@pytest.mark.parametrize("recipe", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_of_this_repository_train(recipe, ready_folders, tmp_path):
    """An epoch on small data sets; their images have ready-made embeddings, so that no tower can be included."""
    data = {name: ready_folders[name] for name in yaml.safe_load(recipe.read_text())["data"]}
    changes = ["--data", yaml.safe_dump(data, default_flow_style=True), "--model.include_vision_tower", "false"]
    changes += ["--model.eeg.hidden_size", "8", "--model.meg.hidden_size", "8"]  # to be quick
    changes += ["--num_train_epochs", "1", "--min_steps", "0", "--warmup_steps", "0"]
    changes += ["--output_dir", str(tmp_path / "out")]
    main([str(recipe), *changes, "--use_cpu", "true"])
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    start = build_model(NeuralClipModel.from_pretrained(tmp_path / "out").config, None, record["seed"]).state_dict()
    weights = load_file(tmp_path / "out" / "model.safetensors")
    moved = {name for name, value in weights.items() if not torch.equal(value, start[name])}
    learnt = read_recipe([str(recipe)]).model.get("freeze_alignment", False) is False
    for modality in data:
        projections = {n for n in start if n.startswith(f"projections.{modality}.") and n.endswith("weight")}
        assert projections and projections <= moved
        assert any(name.startswith(f"encoders.{modality}.alignment.") for name in moved) == learnt


def test_an_earlier_run_is_never_overwritten_unasked(recipe_file):
    recipe = read_recipe([recipe_file])
    output = train(recipe)
    before = (output / "model.safetensors").read_bytes()
    with pytest.raises(DataError, match="holds an earlier run"):
        train(read_recipe([recipe_file, "--seed", "9"]))
    assert (output / "model.safetensors").read_bytes() == before
    train(read_recipe([recipe_file, "--seed", "9", "--overwrite", "true"]))
    assert (output / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "true"], "holds no checkpoint to resume from"),
        (["--data.eeg", "/nowhere/at/all"], "There is no folder"),
        (["--model.eeg.hiden_size", "3"], "Did you mean 'hidden_size'"),
        (["--model.include_vision_tower", "true"], "targets are ready-made embeddings"),
        (["--resume_from_checkpoint", "elsewhere"], "'training.resume_from_checkpoint' parameter"),
    ],
)
def test_bad_recipes_stop_before_anything_is_written(recipe_file, tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        train(read_recipe([recipe_file, *arguments]))
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_swapped_modalities_are_noticed(recipe_file, folders):
    with pytest.raises(DataError, match=r"'data.fmri' is .* but that data set holds eeg"):
        train(read_recipe([recipe_file, "--data", f"{{fmri: {folders['eeg']}}}"]))


def test_encoders_that_differ_are_refused():
    facts = {"eeg": facts_of("eeg", image_encoder=READY | {"projection_dim": 4}), "meg": facts_of("meg")}
    with pytest.raises(DataError, match=r"images of \['meg'\] have no embeddings; run `neural-clip embed-images meg`"):
        common_image_encoder(facts)
    with pytest.raises(DataError, match="run `neural-clip embed-images 'my set'` first"):
        common_image_encoder({"my set": facts["meg"]})
    facts["meg"] = facts_of("meg", image_encoder=READY | {"projection_dim": 4, "revision": "other"})
    with pytest.raises(DataError, match="different image encoders"):
        common_image_encoder(facts)

    processors = [{"size": 224}, {"size": 336}]
    for encoder, processor in zip(("eeg", "meg"), processors, strict=True):
        facts[encoder] = facts_of(encoder, image_encoder=READY | {"projection_dim": 4, "image_processor": processor})
    with pytest.raises(DataError, match=r"different image encoders.*'size': 224.*'size': 336"):
        common_image_encoder(facts)
    del facts["meg"].image_encoder["image_processor"]  # data sets of before it was recorded
    assert common_image_encoder(facts)["image_processor"] == {"size": 224}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vision_model_name", "other/clip"),
        ("vision_revision", "abc"),
        ("image_pooling", "cls"),
        ("projection_dim", 17),
    ],
)
def test_recipe_that_names_another_encoder_is_refused(recipe_file, folders, tmp_path, key, value):
    with pytest.raises(DataError) as caught:
        main([recipe_file, f"--model.{key}", str(value)])
    for part in ("The recipe's 'model' section", repr(value), "'planted'", folders["eeg"], folders["fmri"]):
        assert part in str(caught.value)
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_recipe_may_name_the_encoder_of_its_data(recipe_file, tmp_path):
    names = {"vision_model_name": "planted", "vision_revision": "'0'", "image_pooling": "precomputed"}
    named = [part for key, value in names.items() for part in (f"--model.{key}", value)]
    main([recipe_file, *named, "--model.projection_dim", "16", "--max_steps", "1"])
    config = NeuralClipModel.from_pretrained(tmp_path / "out").config
    assert (config.vision_model_name, config.vision_revision, config.projection_dim) == ("planted", "0", 16)


def test_recipe_may_name_the_folder_of_its_encoder(recipe_file, tmp_path):
    folder = tmp_path / "clips" / "planted"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    recipe = read_recipe([recipe_file, "--model.vision_model_name", str(folder)])
    encoder = READY | {"revision": weights_digest(folder), "projection_dim": 16}
    check_named_encoder(recipe, encoder)
    (folder / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(DataError, match="differ in 'revision'"):
        check_named_encoder(recipe, encoder)


@pytest.mark.slow
@pytest.mark.parametrize(("key", "value"), [("name", "other"), ("revision", "1"), ("pooling", "projected")])
def test_data_embedded_anew_do_not_continue_a_run(recipe_file, folders, tmp_path, monkeypatch, key, value):
    """The widths agree, so that nothing but the record tells the two spaces apart."""
    data = {name: str(shutil.copytree(folder, tmp_path / name)) for name, folder in folders.items()}
    arguments = [recipe_file, "--data", yaml.safe_dump(data, default_flow_style=True)]
    main([*arguments, "--num_train_epochs", "1"])
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    for folder in data.values():
        path = Path(folder, "neural_clip.json")
        metadata = json.loads(path.read_text())
        metadata["image_encoder"][key] = value
        path.write_text(json.dumps(metadata))
    with pytest.raises(DataError) as caught:
        main([*arguments, "--num_train_epochs", "2", "--resume", "true"])
    for part in (f"The checkpoint '{tmp_path}/out/checkpoint-", *data.values(), "'planted'", repr(value)):
        assert part in str(caught.value)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    main([*arguments, "--num_train_epochs", "1", "--overwrite", "true"])  # anew is fine


def test_checkpoint_without_configuration_is_not_resumed(recipe_file, tmp_path):
    (tmp_path / "out" / "checkpoint-1").mkdir(parents=True)
    with pytest.raises(DataError, match="checkpoint-1' cannot be resumed from"):
        main([recipe_file, "--resume", "true"])


def test_tower_that_prepares_images_otherwise_is_refused():
    from neural_clip.targets.tiny_clip import TINY_CLIP_DIR

    if not (TINY_CLIP_DIR / "model.safetensors").is_file():
        pytest.skip("the tiny CLIP has not been trained yet")
    made = load_tower(
        {
            "name": TINY_CLIP, "revision": weights_digest(TINY_CLIP_DIR), "pooling": "projected", "projection_dim": 64,
        },
        required=True,
    ).description  # fmt: skip
    assert load_tower(made, required=True).description == made
    with pytest.raises(
        DataError, match=r"'revision': 'sha256:0'.* but on this machine that is .*Embed the images again"
    ):
        load_tower(made | {"revision": "sha256:0"}, required=True)
    with pytest.raises(DataError, match=r"images were prepared for .*'resample': 99.*Embed the images again"):
        load_tower(made | {"image_processor": made["image_processor"] | {"resample": 99}}, required=True)


def test_data_that_must_not_spread_is_not_pushed_public(recipe_file, monkeypatch):
    from huggingface_hub import constants

    facts = {"fmri": facts_of("fmri", corpus="nsd", redistribution="forbidden")}
    push = ["--push_to_hub", "true", "--hub_model_id", "lab/model", "--hub_private_repo"]
    with LoopbackHub() as hub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        for private in ("false", "null"):  # by "null" the Hub would make a public one
            recipe = read_recipe([recipe_file, *push, private])
            with pytest.raises(DataError, match=r"redistribution of nsd \(fmri\) is forbidden"):
                check_push(recipe, facts)
            assert hub.requests == []
            check_push(recipe, {"fmri": facts_of("fmri", corpus="own")})
            hub.requests.clear()
        recipe = read_recipe([recipe_file, *push, "true"])
        check_push(recipe, facts)
        hub.add("model", "lab/model", private=True)
        check_push(recipe, facts)
        hub.add("model", "lab/model", private=False)
        with pytest.raises(DataError, match="'lab/model' is a public repository"):
            check_push(recipe, facts)
    with pytest.raises(DataError, match=r"Give 'training\.hub_model_id' as ORG/NAME"):
        check_push(read_recipe([recipe_file, *push, "true", "--hub_model_id", "model"]), facts)


def test_a_finished_checkpoint_is_pushed_without_the_run_around_it(recipe_file, monkeypatch, capsys):
    from huggingface_hub import constants

    words = ["--push_to_hub", "true", "--hub_model_id", "lab/model", "--hub_token", "planted-token", "--epochs", "1"]
    with LoopbackHub() as hub:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        output = train(read_recipe([recipe_file, *words]))
        repository = hub.repositories["model", "lab/model"]
    assert repository["private"] is True and len(repository["messages"]) == 1
    files = repository["files"]
    assert {"model.safetensors", "config.json", "training.json", "README.md", "modeling_eeg.py"} <= files.keys()
    assert not [name for name in files if "checkpoint-" in name or name.endswith((".bin", ".pt", ".pth"))]
    assert not [name for name, content in files.items() if b"planted-token" in content]
    assert (output / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert capsys.readouterr().out.splitlines()[-1] == f"repository: {hub.endpoint}/lab/model (private)"
    for strategy in ("every_save", "checkpoint", "all_checkpoints"):
        with pytest.raises(DataError, match=r"'training\.hub_strategy' parameter. Allowed is 'end'"):
            read_recipe([recipe_file, "--hub_strategy", strategy]).training_arguments  # noqa: B018


def test_a_checkpoint_says_what_it_learnt_from(recipe_file):
    output = train(read_recipe([recipe_file, "--epochs", "1"]))
    config = json.loads((output / "config.json").read_text())
    for modality in ("eeg", "fmri"):
        (entry,) = config[f"{modality}_config"]["trained_on"]
        facts = json.loads((output / "training.json").read_text())["data"][modality]
        told = {name: facts[name] for name in ("corpus", "subjects", "redistribution", "licence", "terms")}
        assert entry == told | {"simulated": True}
        assert json.loads((output / "processor_config.json").read_text())["trained_on"][modality] == [entry]
    card = (output / "README.md").read_text()
    assert "## Recordings" in card and "- EEG: 6 channels" in card and f"their licence: {facts['licence']}" in card
    with pytest.raises(DataError, match=r"'model\.eeg\.trained_on' is what the data sets say"):
        read_recipe([recipe_file, "--model.eeg.trained_on", "[]"])


def test_the_trainer_pushes_by_the_same_rules(recipe_file, folders, monkeypatch):
    recipe = read_recipe([recipe_file, "--push_to_hub", "true", "--hub_model_id", "lab/model"])
    config = model_config(recipe, {name: PreparedSet.open(folder).facts for name, folder in folders.items()})
    opened = PreparedSet.open(folders["eeg"])
    part = RecordingDataset.open(opened, "train", config.eeg_config.subjects)
    with LoopbackHub() as hub:
        hub.stand_in(monkeypatch)
        trainer = NeuralClipTrainer(
            model=build_model(config, None, 0), args=recipe.training_arguments, recordings=JointDataset([part]),
            validation=[], processor=NeuralClipProcessor.from_config(config),
        )  # fmt: skip
        assert hub.requests == []  # no repository before there is something to push
        trainer.push_to_hub("mine")
        repository = hub.repositories["model", "lab/model"]
        assert repository["private"] is True and repository["messages"] == ["mine", "mine"]
        assert {"README.md", "model.safetensors", "processor_config.json", "pushing.py"} <= repository["files"].keys()
        config.eeg_config.trained_on[0]["redistribution"] = "forbidden"
        with pytest.raises(DataError, match="must not become public"):
            trainer.push_to_hub(private=False)


@pytest.mark.skipif(importlib.util.find_spec("trackio") is not None, reason="trackio is installed")
def test_a_tracker_that_is_not_installed_is_a_sentence(recipe_file, tmp_path):
    with pytest.raises(DataError, match=r"'training' section cannot be used: .*requires trackio.*pip install trackio"):
        train(read_recipe([recipe_file, "--report_to", "trackio", "--epochs", "1"]))
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="trackio is not installed")
def test_scores_of_each_epoch_reach_trackio(recipe_file, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    train(read_recipe([recipe_file, "--report_to", "trackio", "--project", "planted", "--epochs", "2"]))
    stored = b"".join(path.read_bytes() for path in (tmp_path / "trackio").rglob("*") if path.is_file())
    assert b"two_way" in stored


def test_card_repeats_the_report(recipe_file):
    output = train(read_recipe([recipe_file]))
    row = {"method": "neural_clip", "aggregation": "single trial", "two_way": 0.71234, "top1": 0.125}
    row |= {"two_way_interval": [0.6, 0.8], "chance_two_way": 0.5, "gallery_size": 24, "top5": 0.25}
    rows = [row | {"method": "per-subject ridge", "two_way": 0.9}, row]
    path = write_model_card(output, {"checkpoints": [{"name": "neural_clip"}], "decoding": {"eeg": {"rows": rows}}})
    assert "| EEG | 0.7123 (0.6000 to 0.8000) | 0.50 | 24 images | 0.1250 | 0.2500 | simulated |" in path.read_text()


def test_one_person_of_fmri_is_enough(recipe_file, folders, tmp_path):
    only = ["--data", yaml.safe_dump({"fmri": folders["fmri"]}, default_flow_style=True)]
    main([recipe_file, *only, "--model.fmri.subjects", "[sub-02]", "--num_train_epochs", "1"])
    config = NeuralClipModel.from_pretrained(tmp_path / "out").config
    assert config.fmri_config.n_voxels == {"sub-02": 57} and config.modalities == ["fmri"]
    with pytest.raises(
        DataError, match=r"'model.fmri.subjects' names 'sub-09', but the subjects with training rows are"
    ):
        main([recipe_file, *only, "--model.fmri.subjects", "[sub-09]", "--overwrite", "true"])


def test_regression_learns(recipe_file, folders, tmp_path):
    main([recipe_file, "--model.objective", "mse", "--num_train_epochs", "12"])
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    model = NeuralClipModel.from_pretrained(tmp_path / "out")
    assert model.config.objective == "mse" and record["best_validation_two_way"] > 0.7  # chance is 0.5
    assert model.logit_scale.item() == pytest.approx(model.config.logit_scale_init_value)


def test_people_left_out_are_not_in_the_record(recipe_file, folders, tmp_path):
    main([str(recipe_file), "--model.eeg.subjects", "[sub-02]", "--num_train_epochs", "1"])
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    stated = json.loads(Path(folders["eeg"], "neural_clip.json").read_text())
    assert record["data"]["eeg"]["subjects"] == ["sub-02"]
    rows = {split: size["rows"] for split, size in record["data"]["eeg"]["splits"].items()}
    assert rows == {split: size["rows"] // 2 for split, size in stated["splits"].items()}  # two people, half each
    assert record["data"]["fmri"]["subjects"] == ["sub-01", "sub-02"]
    assert (
        record["data"]["fmri"]["splits"] == json.loads(Path(folders["fmri"], "neural_clip.json").read_text())["splits"]
    )
    assert "subjects sub-02;" in (tmp_path / "out" / "README.md").read_text()


def start_program(*arguments, threads="1"):
    """Start `train.py`; what it says comes through one pipe."""
    variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    return subprocess.Popen(
        [sys.executable, "train.py", *arguments], cwd=REPOSITORY, env=os.environ | variables, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_the_older_run_stays_until_the_one_that_replaces_it_stands(finished_run, tmp_path, sent):
    """The program itself, stopped from outside; Ctrl-C says how far it came and how to go on."""
    recipe, finished = finished_run
    output, partial = Path(shutil.copytree(finished, tmp_path / "out")), tmp_path / "out.partial"
    before = contents(output)
    again = [recipe, "--output-dir", str(output), "--seed", "9"]
    running = start_program(*again, "--overwrite")
    while not is_finished(partial / "checkpoint-20"):
        assert running.poll() is None, running.communicate()[0][-3000:]
        time.sleep(0.01)
    running.send_signal(sent)
    said, _ = running.communicate(timeout=300)
    assert contents(output) == before
    if sent == signal.SIGINT:
        assert running.returncode == 130 and "Traceback" not in said, said[-6000:]
        assert re.search(r"training was interrupted after step \d+ of 40", said)
        assert re.search(
            rf"finished parts? stays? in '{partial}'; a training with `--resume` goes on from there", said
        )
    unasked = start_program(*again)
    assert f"'{partial}' holds an interrupted run. Pass `--resume`" in unasked.communicate(timeout=300)[0]
    resumed = start_program(*again, "--resume")
    said, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, said[-3000:]
    assert check_record(output)["seed"] == 9 and sorted(os.listdir(tmp_path)) == ["out"]


@pytest.mark.slow
def test_one_and_two_threads_agree(finished_run, tmp_path):
    """Outputs of one model as on every processor; weights of forty steps, which multiply differences, within 1e-3."""
    recipe, finished = finished_run
    code = (
        "import sys, torch; from neural_clip import NeuralClipModel; torch.set_num_threads(int(sys.argv[2]));"
        "model = NeuralClipModel.from_pretrained(sys.argv[1]).eval(); torch.manual_seed(0);"
        "values = torch.randn(4096, 6, 10); ids = torch.arange(4096) % 2;"
        "torch.save(model.get_eeg_features(eeg_values=values, subject_ids=ids).detach(), sys.argv[3])"
    )
    for threads in ("1", "2"):
        running = start_program(recipe, "--output-dir", str(tmp_path / threads), threads=threads)
        subprocess.run(
            [sys.executable, "-c", code, str(finished), threads, str(tmp_path / f"{threads}.pt")], check=True
        )
        said, _ = running.communicate(timeout=300)
        assert running.returncode == 0, said[-3000:]
    one, two = (torch.load(tmp_path / f"{threads}.pt", weights_only=True) for threads in ("1", "2"))
    assert_same_outputs(two, one)
    one, two = (load_file(tmp_path / threads / "model.safetensors") for threads in ("1", "2"))
    assert all(torch.allclose(two[name], value, rtol=0, atol=1e-3) for name, value in one.items())
