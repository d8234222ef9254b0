"""Training on `transformers.Trainer`: from a recipe and prepared data sets to a checkpoint.

Start it with `accelerate launch train.py RECIPE.yaml`, `python train.py ...`, `torchrun ... train.py ...` or
`neural-clip train RECIPE.yaml`. See [`Recipe`] for what a recipe holds. With several processes each compares its own
recordings with its own images: negatives are not gathered, so two processes with batches of 64 are not one with 128,
but one that accumulates the gradients of two batches of 64.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from transformers import TrainingArguments

from neural_clip.errors import DataError
from neural_clip.evaluation.fit import check_prepared_alike
from neural_clip.files.record import RECORD_FILE
from neural_clip.files.whole import write_whole
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.prepared.reader import PreparedSet
from neural_clip.processing_neural_clip import NeuralClipProcessor
from neural_clip.publishing.model_card import write_model_card
from neural_clip.targets.identity import common_identity, common_image_encoder
from neural_clip.training.batches import JointDataset
from neural_clip.training.checks import (
    check_made_by,
    check_modalities,
    check_named_encoder,
    check_objective,
    check_push,
    check_resumed_batches,
    check_resumed_encoder,
    data_places,
    prepare_output,
    remove_checkpoints,
)
from neural_clip.training.model import build_model, load_tower, model_config
from neural_clip.training.recipe import Recipe
from neural_clip.training.record import training_record
from neural_clip.training.settings import check_metric
from neural_clip.training.splits import Splits, without_validation
from neural_clip.training.trainer import CompleteCheckpoint, KeepTowerInEval, NeuralClipTrainer


def train(recipe: Recipe) -> Path:
    """Train a model as a recipe says and save it whole.

    Args:
        recipe ([`Recipe`]): What to train on, what to build and how.

    Returns:
        `Path`: The folder with the best checkpoint by validation 2-way accuracy (the last where no subject has
            validation recordings), its processor, card and record.

    Raises:
        DataError: If the recipe or a data set cannot be used; nothing is overwritten.
    """
    arguments = recipe.training_arguments
    output_dir = Path(str(arguments.output_dir))
    data = {modality: PreparedSet.open(folder) for modality, folder in recipe.data.items()}
    facts = {modality: opened.facts for modality, opened in data.items()}
    check_modalities(data)
    check_objective(recipe)
    check_push(recipe, facts)
    encoder, identity = common_image_encoder(facts), common_identity(facts)
    check_named_encoder(recipe, encoder)
    resume_from = prepare_output(recipe, output_dir)
    if resume_from is not None:
        check_resumed_encoder(resume_from, recipe, identity)
        check_prepared_alike(resume_from, list(data.values()))
    tower = load_tower(encoder, bool(recipe.model.get("include_vision_tower")), identity.space)
    if tower is not None:
        for opened in data.values():
            check_made_by(tower, opened)
    config = model_config(recipe, facts, tower)
    subjects = {name: getattr(config, f"{name}_config").subjects for name in facts}
    splits = Splits.open(data, subjects, arguments.train_batch_size)
    if not splits.validation:
        without_validation(arguments, recipe.training, data_places(recipe))
    check_metric(recipe.training, [part.modality for part in splits.validation])
    processor = NeuralClipProcessor.from_config(
        config, tower.processor if tower else None,
        {name: opened.preparation for name, opened in data.items()},
        {name: opened.statistics for name, opened in data.items()},
    )  # fmt: skip
    trainer = _trainer(arguments, build_model(config, tower, arguments.seed), splits, recipe.passes)
    batches = trainer.deciding_batches()
    if resume_from is not None:
        check_resumed_batches(resume_from, batches)
    trainer.add_callback(CompleteCheckpoint(processor, batches))
    if trainer.is_world_process_zero():
        if recipe.overwrite:
            remove_checkpoints(output_dir)
        _print_notes(splits, trainer)
    trainer.train(resume_from_checkpoint=resume_from)
    trainer.save_model(str(output_dir))
    if trainer.is_world_process_zero():
        processor.save_pretrained(output_dir)
        record = training_record(recipe, facts, trainer)
        write_whole(output_dir / RECORD_FILE, json.dumps(record, indent=2) + "\n")
        write_model_card(output_dir)
        print(f"checkpoint: {output_dir}  ({_outcome(trainer)})", file=sys.stderr)
    if arguments.push_to_hub:
        trainer.push_to_hub()
    return output_dir


def _trainer(
    arguments: TrainingArguments, model: NeuralClipModel, splits: Splits, passes: dict[str, int]
) -> NeuralClipTrainer:
    """What trains the model, or a `DataError` where `Trainer` cannot follow its settings on this machine."""
    try:
        trainer = NeuralClipTrainer(
            model=model,
            args=arguments,
            recordings=JointDataset(splits.train),
            validation=splits.validation,
            passes=passes,
            callbacks=[KeepTowerInEval()],
        )
        trainer.create_optimizer()  # now, so that one that is not installed is known before anything is written
    except (ImportError, ValueError) as error:
        raise DataError(f"The recipe's 'training' section cannot be used: {error}") from error
    return trainer


def _print_notes(splits: Splits, trainer: NeuralClipTrainer) -> None:
    """Say what is peculiar about a run before it starts."""
    for note in splits.notes:
        print(f"note: {note}", file=sys.stderr)
    if not splits.validation:
        steps = f"training takes {trainer.n_steps()} steps, and the last weights are kept"
        print(f"note: without a validation split, {steps}.", file=sys.stderr)


def _outcome(trainer: NeuralClipTrainer) -> str:
    """How the kept weights were found, and whether they tell recordings apart."""
    if trainer.state.best_metric is None:
        return f"the weights after step {trainer.state.global_step}, unscored"
    found = f"best validation 2-way {trainer.state.best_metric:.4f}"
    if collapsed := trainer.collapsed_at(trainer.state.best_global_step):
        found += f"; warning: the embeddings of {' and '.join(collapsed)} are collapsed in it"
    return found
