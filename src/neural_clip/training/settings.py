"""Settings of `transformers.TrainingArguments` that this package's training cannot follow, refused by name.

The order of batches, what a batch holds and how the validation split is scored are the package's own. A setting of
`Trainer` that would change them behind its back, or that nothing reads, is an error and not silence.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from neural_clip.errors import DataError, check_option, check_value

_BATCHES = "batches are ordered and dealt to processes so that a resumed run sees the same ones"
_NEGATIVES = "the batch decides which images are compared, so its size is part of the recipe"
_SCORES = "the validation split is scored by retrieval, 256 recordings at a time"
_LABELS = "there are no labels or tokens"
_WHOLE = "every process holds the whole model, as it is"
_MIXED = "processes may hold batches of different modalities and subjects at a time"
_LISTED = "what goes to the Hub is the finished checkpoint, whose record lists its files"
_PARTS = "a process that saves on each machine would write parts of a checkpoint"
# setting: why only its default is allowed
ONLY_DEFAULT = {
    **dict.fromkeys(
        ("accelerator_config", "dataloader_drop_last", "dataloader_in_order", "dataloader_multiprocessing_context",
         "dataloader_persistent_workers", "dataloader_prefetch_factor", "ignore_data_skip", "length_column_name",
         "train_sampling_strategy"),
        _BATCHES,
    ),
    "auto_find_batch_size": _NEGATIVES,
    **dict.fromkeys(
        ("batch_eval_metrics", "bf16_full_eval", "eval_accumulation_steps", "eval_do_concat_batches",
         "eval_use_gather_object", "fp16_full_eval", "include_for_metrics", "per_device_eval_batch_size",
         "prediction_loss_only"),
        _SCORES,
    ),
    **dict.fromkeys(
        ("include_num_input_tokens_seen", "label_names", "label_smoothing_factor", "neftune_noise_alpha", "use_cache",
         "use_liger_kernel", "liger_kernel_config"),
        _LABELS,
    ),
    **dict.fromkeys(
        ("activation_checkpointing", "activation_checkpointing_kwargs", "deepspeed", "fsdp", "fsdp_config",
         "gradient_checkpointing", "gradient_checkpointing_kwargs", "optim_target_modules", "parallelism_config",
         "torch_compile", "torch_compile_backend", "torch_compile_mode"),
        _WHOLE,
    ),
    "save_on_each_node": _PARTS,
    **dict.fromkeys(("hub_always_push", "hub_revision"), _LISTED),
}  # fmt: skip
# setting: values that give what the package promises, and why
ALLOWED: dict[str, tuple[tuple, str]] = {
    "ddp_broadcast_buffers": ((None, True), "the processes share the statistics of the network"),
    "ddp_find_unused_parameters": ((None, True), _MIXED),
    "ddp_static_graph": ((None, False), _MIXED),
    "hub_strategy": (("end",), _LISTED),
    "greater_is_better": ((None, True), "a larger 2-way accuracy is better"),
    "remove_unused_columns": ((False,), "a batch has no columns to remove"),
}
LEAST = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 0, "warmup_steps": 0}


def check_settings(settings: dict[str, Any]) -> None:
    """Raise a `DataError` for the first setting of a wrong type, or that training would not follow.

    Args:
        settings (`dict`): The `training` section of a recipe; its keys are known.
    """
    from transformers import TrainingArguments

    defaults = {entry.name: _default_of(entry) for entry in fields(TrainingArguments)}
    for name, value in settings.items():
        key, default = f"training.{name}", defaults[name]
        if isinstance(default, bool):
            check_value(key, value, isinstance(value, bool), "true or false")
        elif isinstance(default, int | float):  # transformers takes words for numbers until it counts with them
            check_value(key, value, isinstance(value, int | float) and not isinstance(value, bool), "a number")
        allowed, why = ALLOWED.get(name, ((default,), ONLY_DEFAULT.get(name, "")))
        if why and value not in allowed:
            raise DataError(
                f"Invalid value for the {key!r} parameter. Allowed is {' or '.join(map(repr, allowed))}, since {why}, "
                f"but got {value!r} instead."
            )
        if name in LEAST:
            check_value(key, value, value >= LEAST[name], f"{LEAST[name]} and more")
    epochs = settings.get("num_train_epochs", 1)
    check_value("training.num_train_epochs", epochs, epochs > 0 or settings.get("max_steps", -1) > 0, "above 0")


def check_metric(settings: dict[str, Any], modalities: list[str]) -> None:
    """Raise a `DataError` where the best epoch would be chosen by a score that there is not.

    Args:
        settings (`dict`): The `training` section of a recipe.
        modalities (`list[str]`): Those with a validation split.
    """
    metric = settings.get("metric_for_best_model")
    if metric is not None:
        scores = ["two_way", *(f"{modality}_two_way" for modality in modalities)]
        check_option("training.metric_for_best_model", metric, [f"eval_{score}" for score in scores] + scores)


def _default_of(entry: Any) -> Any:
    """Default of a field; those of lists and dicts are made anew."""
    return entry.default if entry.default_factory is MISSING else entry.default_factory()
