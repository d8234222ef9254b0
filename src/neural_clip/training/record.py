"""The record of a training: `training.json`."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from importlib import metadata as package_metadata
from typing import Any, cast

from transformers import PreTrainedModel

from neural_clip.files.privacy import shared_command, shared_value
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.modalities import kind_of
from neural_clip.targets.identity import common_image_encoder
from neural_clip.training.pooled import seen_stimuli
from neural_clip.training.recipe import Recipe
from neural_clip.training.trainer import NeuralClipTrainer

RECORDED_FACTS = ("corpus", "fingerprint", "splits", "subjects", "split_protocol", "redistribution", "licence",
                  "terms")  # fmt: skip


def recorded_facts(facts: Facts, subjects: Sequence[str]) -> dict:
    """What the record of a checkpoint says of a data set, of which it may have seen some subjects only."""
    recorded = {name: getattr(facts, name) for name in RECORDED_FACTS}
    if list(subjects) != list(facts.subjects):
        counts = [facts.subject_splits[name] for name in subjects]
        rows = {split: sum(count.get(split, 0) for count in counts) for split in facts.splits}
        recorded |= {"subjects": list(subjects), "splits": {split: {"rows": count} for split, count in rows.items()}}
    return recorded


def training_record(recipe: Recipe, facts: dict[str, Facts], trainer: NeuralClipTrainer) -> dict:
    """Collect what made a checkpoint: recipe, data, versions, seed, validation scores."""
    packages = ("neural_clip", "torch", "transformers", "datasets", "accelerate", "numpy")
    simulated = [name for name, found in facts.items() if found.simulated]
    config: Any = cast(PreTrainedModel, trainer.model).config
    known = {name: getattr(config, f"{kind_of(name)}_config").subjects for name in facts}
    return {
        "command": shared_command(sys.argv[0], sys.argv[1:]),  # the former is `neural-clip train` or a path
        "recipe": shared_value(recipe.as_dict()),
        "seed": recipe.training_arguments.seed,
        "data": {
            name: recorded_facts(found, [subject for subject in known[name] if subject in found.subjects])
            for name, found in facts.items()
        },
        "stimuli": seen_stimuli([*trainer.recordings.parts, *trainer.validation]),
        "simulated": simulated,
        "image_encoder": common_image_encoder(facts),
        "best_validation_two_way": trainer.state.best_metric,
        "best_step": trainer.state.best_global_step,
        "epochs": trainer.state.epoch,
        "steps": trainer.state.global_step,
        "validation": [entry for entry in trainer.state.log_history if "eval_two_way" in entry],
        "processes": trainer.args.world_size,
        "device": str(trainer.args.device),
        "python": platform.python_version(),
        "versions": {name: package_metadata.version(name) for name in packages},
    }
