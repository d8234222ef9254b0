"""Settings of `Trainer` that a recipe may not change, and those that keep what they promise."""

from dataclasses import fields

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments

from neural_clip.errors import DataError
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from neural_clip.training.settings import ALLOWED, ONLY_DEFAULT, RANGES, check_metric
from paths import REPOSITORY

OTHER = {
    "accelerator_config": {"split_batches": True}, "dataloader_in_order": False, "eval_do_concat_batches": False,
    "train_sampling_strategy": "group_by_length", "length_column_name": "n", "fsdp": "full_shard",
    "dataloader_multiprocessing_context": "spawn", "dataloader_prefetch_factor": 2, "eval_accumulation_steps": 2,
    "per_device_eval_batch_size": 4, "include_for_metrics": ["loss"], "include_num_input_tokens_seen": "all",
    "label_names": ["subject_ids"], "label_smoothing_factor": 0.1, "neftune_noise_alpha": 5.0,
    "torch_compile_backend": "inductor", "torch_compile_mode": "default", "optim_target_modules": "all-linear",
    "deepspeed": "zero.json", "ddp_broadcast_buffers": False, "ddp_find_unused_parameters": False,
    "greater_is_better": False,
}  # fmt: skip
for _name in ("activation_checkpointing", "gradient_checkpointing"):
    OTHER[f"{_name}_kwargs"] = {"use_reentrant": True}
for _name in ("fsdp_config", "parallelism_config", "liger_kernel_config"):
    OTHER[_name] = {"x": 1}


def test_every_setting_in_the_tables_is_one_of_trainer():
    known = {entry.name for entry in fields(TrainingArguments)}
    assert known >= {*ONLY_DEFAULT, *ALLOWED, *RANGES}


@pytest.mark.parametrize("name", [*ONLY_DEFAULT, *ALLOWED])
def test_settings_that_training_would_not_follow_are_refused_by_name(recipe_file, name):
    recipe = read_recipe([recipe_file])
    recipe.training[name] = OTHER.get(name, True)
    with pytest.raises(DataError, match=rf"'training\.{name}' parameter\. Allowed is .*, since .*, but got "):
        _ = recipe.training_arguments


def test_the_page_names_every_setting_that_is_refused():
    page = (REPOSITORY / "docs" / "training.md").read_text()
    parts = ("_kwargs", "_config", "_backend", "_mode")  # they are told of with what they belong to
    for name in [*ONLY_DEFAULT, *ALLOWED]:
        whole = next((name.removesuffix(part) for part in parts if name.endswith(part)), name)
        assert f"`{name}`" in page or f"`{whole}`" in page


@pytest.mark.parametrize("inner", ["dispatch_batches", "split_batches"])
def test_inner_settings_of_accelerate_are_named(recipe_file, inner):
    with pytest.raises(DataError, match=rf"'training\.accelerator_config'.*'{inner}': True"):
        train(read_recipe([recipe_file, "--accelerator_config", f"{{{inner}: true}}"]))


def test_a_setting_of_an_older_transformers_is_unknown(recipe_file):
    with pytest.raises(DataError, match="Unknown key 'group_by_length'"):
        train(read_recipe([recipe_file, "--group_by_length", "true"]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("per_device_train_batch_size", "0"),
        ("per_device_train_batch_size", "1"),
        ("gradient_accumulation_steps", "0"),
        ("learning_rate", "-1.0"),
        ("learning_rate", ".nan"),
        ("num_train_epochs", "0"),
        ("num_train_epochs", "null"),
        ("max_steps", "null"),
        ("seed", "null"),
        ("learning_rate", "true"),
        ("metric_for_best_model", "eval_loss"),
        ("metric_for_best_model", "null"),
        ("seed", "-1"),
        ("seed", "99999999999999999999999"),
        ("max_steps", "1.5"),
        ("max_steps", "0"),
        ("max_steps", ".inf"),
        ("max_steps", "1e30"),
        ("num_train_epochs", "1e30"),
        ("num_train_epochs", "2020-01-01"),
        ("learning_rate", ".inf"),
        ("save_steps", "0"),
        ("save_total_limit", "{a: 1}"),
        ("bf16", "1"),
        ("run_name", "[1]"),
        ("metric_for_best_model", "eval_meg_two_way"),
    ],
)
def test_values_that_no_training_can_use_are_refused_before_it(recipe_file, tmp_path, name, value):
    with pytest.raises(DataError, match=rf"'training\.{name}' parameter\. Allowed "):
        train(read_recipe([recipe_file, f"--{name}", value]))
    assert not any((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optim", "adamw_bnb_8bit"),
        ("optim", "none_such"),
        ("bf16", "maybe"),
        ("lr_scheduler_type", "none_such"),
        ("lr_scheduler_kwargs", "{none_such: 1}"),
        ("adam_beta1", "3"),
        ("log_level", "none_such"),
        ("optim_args", "a=b=c"),
    ],
)
def test_settings_that_cannot_be_had_here_are_a_sentence(recipe_file, tmp_path, name, value):
    with pytest.raises(DataError, match=r"The recipe's 'training' section cannot be used: |Allowed is true or false"):
        train(read_recipe([recipe_file, f"--{name}", value]))
    assert not any((tmp_path / "out").glob("*"))


def test_the_score_that_chooses_must_be_computed():
    check_metric({"metric_for_best_model": "eval_eeg_two_way"}, ["eeg"])
    check_metric({"metric_for_best_model": "two_way"}, [])
    with pytest.raises(DataError, match="got 'eval_fmri_two_way'"):
        check_metric({"metric_for_best_model": "eval_fmri_two_way"}, ["eeg"])


@pytest.mark.numerical
def test_settings_beside_the_batches_leave_the_weights_as_they_are(recipe_file, tmp_path):
    keep = ["--load_best_model_at_end", "false", "--output_dir"]
    changes = ["--dataloader_num_workers", "2", "--dataloader_pin_memory", "false", "--eval_on_start", "true"]
    changes += ["--eval_strategy", "steps", "--eval_steps", "5", "--save_strategy", "steps", "--save_steps", "10"]
    changes += ["--logging_strategy", "steps", "--logging_steps", "3"]
    plain = load_file(train(read_recipe([recipe_file, *keep, str(tmp_path / "a")])) / "model.safetensors")
    other = load_file(train(read_recipe([recipe_file, *keep, str(tmp_path / "b"), *changes])) / "model.safetensors")
    assert plain.keys() == other.keys() and all(torch.equal(plain[name], other[name]) for name in plain)
