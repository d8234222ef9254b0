"""Training on `transformers.Trainer`: from a recipe and prepared data sets to a checkpoint.

Start it with `accelerate launch train.py RECIPE.yaml`, `python train.py ...`, `torchrun ... train.py ...` or
`neural-clip train RECIPE.yaml`. See [`Recipe`] for what a recipe holds. With several processes each compares its own
recordings with its own images: negatives are not gathered, so two processes with batches of 64 are not one with 128.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from neural_clip.files.whole import write_whole
from neural_clip.prepared.reader import PreparedSet
from neural_clip.processing_neural_clip import NeuralClipProcessor
from neural_clip.publishing.model_card import write_model_card
from neural_clip.targets.identity import common_identity, common_image_encoder
from neural_clip.training.batches import JointDataset, RecordingDataset
from neural_clip.training.checks import (
    check_made_by,
    check_modalities,
    check_named_encoder,
    check_push,
    check_resumed_encoder,
    prepare_output,
)
from neural_clip.training.model import build_model, load_tower, model_config
from neural_clip.training.recipe import Recipe
from neural_clip.training.record import training_record
from neural_clip.training.trainer import KeepTowerInEval, NeuralClipTrainer, SaveProcessor


def train(recipe: Recipe) -> Path:
    """Train a model as a recipe says and save it whole.

    Args:
        recipe ([`Recipe`]): What to train on, what to build and how.

    Returns:
        `Path`: The folder with the best checkpoint by validation 2-way accuracy, its processor, card and record.

    Raises:
        DataError: If the recipe or a data set cannot be used; nothing is overwritten.
    """
    arguments = recipe.training_arguments
    output_dir = Path(str(arguments.output_dir))
    data = {modality: PreparedSet.open(folder) for modality, folder in recipe.data.items()}
    facts = {modality: opened.facts for modality, opened in data.items()}
    check_modalities(data)
    check_push(recipe, facts)
    encoder, identity = common_image_encoder(facts), common_identity(facts)
    check_named_encoder(recipe, encoder)
    resume_from = prepare_output(recipe, output_dir)
    if resume_from is not None:
        check_resumed_encoder(resume_from, recipe, identity)
    tower = load_tower(encoder, bool(recipe.model.get("include_vision_tower")), identity.space)
    if tower is not None:
        for opened in data.values():
            check_made_by(tower, opened)
    config = model_config(recipe, facts, tower)
    subjects = {name: getattr(config, f"{name}_config").subjects for name in facts}
    train_parts = [RecordingDataset.open(data[name], "train", subjects[name]) for name in data]
    validation_parts = [RecordingDataset.open(data[name], "validation", subjects[name]) for name in data]
    processor = NeuralClipProcessor.from_config(
        config, tower.processor if tower else None,
        {name: opened.preparation for name, opened in data.items()},
        {name: opened.statistics for name, opened in data.items()},
    )  # fmt: skip
    trainer = NeuralClipTrainer(
        model=build_model(config, tower, arguments.seed),
        args=arguments,
        recordings=JointDataset(train_parts),
        validation=validation_parts,
        passes=recipe.passes,
        callbacks=[KeepTowerInEval(), SaveProcessor(processor)],
    )
    trainer.train(resume_from_checkpoint=resume_from)
    trainer.save_model(str(output_dir))
    if trainer.is_world_process_zero():
        processor.save_pretrained(output_dir)
        record = training_record(recipe, facts, trainer)
        write_whole(output_dir / "training.json", json.dumps(record, indent=2) + "\n")
        write_model_card(output_dir)
        print(f"checkpoint: {output_dir}  (best validation 2-way {trainer.state.best_metric:.4f})", file=sys.stderr)
    if arguments.push_to_hub:
        trainer.push_to_hub()
    return output_dir
