"""Settings of `transformers.TrainingArguments` that this package's training cannot follow, refused by name.

The order of batches, what a batch holds and how the validation split is scored are the package's own. A setting of
`Trainer` that would change them behind its back, or that nothing reads, is an error and not silence.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

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
    "resume_from_checkpoint": "`--resume` goes on from the last whole checkpoint of the 'output_dir'",
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
MOST = 2**31 - 1  # steps, recordings: what counters of torch hold
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("per_device_train_batch_size", "gradient_accumulation_steps", "save_total_limit"), (1, MOST)),
    **dict.fromkeys(("torch_empty_cache_steps", "ddp_timeout", "ddp_bucket_cap_mb"), (1, MOST)),
    **dict.fromkeys(("logging_steps", "eval_steps", "save_steps"), (1e-6, MOST)),  # a share of all steps below 1
    **dict.fromkeys(("warmup_steps", "eval_delay"), (0, MOST)),
    **dict.fromkeys(("learning_rate", "weight_decay", "max_grad_norm"), (0, 1e38)),
    **dict.fromkeys(("seed", "data_seed"), (0, 2**32 - 1)),
    "num_train_epochs": (-MOST, 1e6), "max_steps": (-1, MOST), "dataloader_num_workers": (0, 1024),
}  # fmt: skip
KINDS: dict[Any, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "keys with values",
    list: "a list", NoneType: "null",
}  # fmt: skip


def check_settings(settings: dict[str, Any]) -> None:
    """Raise a `DataError` for the first setting of a wrong type or size, or that training would not follow.

    Args:
        settings (`dict`): The `training` section of a recipe; its keys are known.
    """
    from transformers import TrainingArguments

    defaults = {entry.name: _default_of(entry) for entry in fields(TrainingArguments)}
    hints = get_type_hints(TrainingArguments)
    for name, value in settings.items():
        key, default = f"training.{name}", defaults[name]
        allowed, why = ALLOWED.get(name, ((default,), ONLY_DEFAULT.get(name, "")))
        if why and value not in allowed:
            raise DataError(
                f"Invalid value for the {key!r} parameter. Allowed is {' or '.join(map(repr, allowed))}, since {why}, "
                f"but got {value!r} instead."
            )
        kinds = _kinds(hints[name])
        fits = any(type(value) is kind or (kind is float and type(value) is int) for kind in kinds)
        check_value(
            key, value, fits, " or ".join(KINDS[kind] for kind in kinds)
        )  # transformers takes words for numbers
        if name in RANGES and value is not None:
            least, most = RANGES[name]
            check_value(key, value, least <= value <= most, f"{least:,} to {most:,}")
    steps = settings.get("max_steps", -1)  # `Trainer` would take one step for 0
    check_value("training.max_steps", steps, steps != 0, "-1 (as many as the epochs have) or 1 and more")
    epochs = settings.get("num_train_epochs", 1)
    check_value("training.num_train_epochs", epochs, epochs > 0 or settings.get("max_steps", -1) > 0, "above 0")


def _kinds(hint: Any) -> list[type]:
    """Types that YAML has for a hint of `TrainingArguments`; names of choices are text."""
    parts = get_args(hint) if isinstance(hint, UnionType) or get_origin(hint) is Union else [hint]
    found = [type(get_args(part)[0]) if get_origin(part) is Literal else get_origin(part) or part for part in parts]
    return [kind for kind in found if kind in KINDS]


def check_metric(settings: dict[str, Any], modalities: list[str]) -> None:
    """Raise a `DataError` where the best epoch would be chosen by a score that there is not.

    Args:
        settings (`dict`): The `training` section of a recipe.
        modalities (`list[str]`): Those with a validation split.
    """
    metric = settings.get("metric_for_best_model")
    if metric is not None or ("metric_for_best_model" in settings and modalities):
        scores = ["two_way", *(f"{modality}_two_way" for modality in modalities)]
        check_option("training.metric_for_best_model", metric, [f"eval_{score}" for score in scores] + scores)


def _default_of(entry: Any) -> Any:
    """Default of a field; those of lists and dicts are made anew."""
    return entry.default if entry.default_factory is MISSING else entry.default_factory()
