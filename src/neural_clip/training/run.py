"""Training on `transformers.Trainer`: from a recipe and prepared data sets to a checkpoint.

Start it with `accelerate launch train.py RECIPE.yaml`, `python train.py ...`, `torchrun ... train.py ...` or
`neural-clip train RECIPE.yaml`. See [`Recipe`] for what a recipe holds. Several processes share each batch: two with
batches of 64 compute what one computes with batches of 128.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from transformers import TrainingArguments

from neural_clip.configuration_neural_clip import AVERAGE_NAME
from neural_clip.errors import DataError
from neural_clip.evaluation.validation_predictions import ValidationPredictions, write_predictions
from neural_clip.files.places import command_line, place_line
from neural_clip.files.whole import only_writer
from neural_clip.gallery.fit import check_prepared_alike
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.several import by_key
from neural_clip.processing_neural_clip import NeuralClipProcessor
from neural_clip.publishing.push import push
from neural_clip.targets.identity import common_identity, common_image_encoder
from neural_clip.training.across_processes import raised_by_all
from neural_clip.training.batches import JointDataset
from neural_clip.training.checkpoint import check_weights, write_checkpoint
from neural_clip.training.checks import (
    check_folds,
    check_made_by,
    check_mini_batches,
    check_modalities,
    check_named_encoder,
    check_objective,
    check_push,
    check_resumed_batches,
    check_resumed_encoder,
    check_resumed_weights,
    check_streaming,
    data_places,
    is_public,
)
from neural_clip.training.closed_form import add_closed_forms
from neural_clip.training.confidence import fit_confidence, keep_temperature
from neural_clip.training.dry_run import estimate
from neural_clip.training.end_warnings import end_warnings
from neural_clip.training.folds import (
    FoldTrainer,
    HeldOut,
    StopAfter,
    config_of,
    cross_validate,
    finished_folds,
    folds_of,
    number_of,
)
from neural_clip.training.model import build_model, load_tower, model_config
from neural_clip.training.processes import once_a_machine
from neural_clip.training.recipe import Recipe
from neural_clip.training.record import training_record
from neural_clip.training.run_folder import RunFolder, check_place
from neural_clip.training.run_state import states_of
from neural_clip.training.settings import check_metric
from neural_clip.training.splits import Splits, notes_on_streaming, without_validation
from neural_clip.training.termination import EXIT_CODE, SaveOnTermination, Terminated
from neural_clip.training.trainer import BestState, KeepTowerInEval, NeuralClipTrainer, OwnNoise, neural_embeds


def train(recipe: Recipe) -> Path:
    """Train a model as a recipe says and save it whole.

    Args:
        recipe ([`Recipe`]): What to train on, what to build and how.

    Returns:
        `Path`: The folder with the best checkpoint by validation 2-way accuracy (the last where no subject has
            validation recordings), its processor, card and record.

    Raises:
        DataError: If the recipe or a data set cannot be used; nothing is overwritten.

    With `recipe.dry_run` it prints what the run would take, and writes nothing.
    """
    arguments = recipe.training_arguments
    if recipe.dry_run:
        arguments.report_to, arguments.push_to_hub = [], False
    output_dir = Path(str(arguments.output_dir))
    given = [
        (modality, PreparedSet.open(folder, recipe.streaming or recipe.dry_run)) for modality, folder in recipe.folders
    ]
    check_place(output_dir, [opened.folder for _, opened in given])
    check_modalities(given)
    data = by_key(opened for _, opened in given)
    facts = {key: opened.facts for key, opened in data.items()}
    check_objective(recipe)
    check_streaming(recipe)
    check_push(recipe, facts)
    encoder = common_image_encoder({opened.name: opened.facts for opened in data.values()})
    identity = common_identity(facts)
    check_named_encoder(recipe, encoder)
    folder = RunFolder(output_dir)
    if not recipe.resume:
        folder.start(resume=False, overwrite=recipe.overwrite, needs_best=False)  # refused before all data are read
    if not (recipe.resume or recipe.dry_run or recipe.streaming):
        once_a_machine(lambda: [opened.verify() for opened in data.values()], arguments)
    tower = load_tower(encoder, bool(recipe.model.get("include_vision_tower")), identity.space)
    if tower is not None:
        for opened in data.values():
            check_made_by(tower, opened)
    config = model_config(recipe, facts, tower)
    subjects = {name: getattr(config, f"{name}_config").subjects for name in config.modalities}
    splits = Splits.open(data, subjects, arguments.train_batch_size * arguments.world_size)
    folds = recipe.folds if not splits.validation else 0
    if folds:
        check_folds(splits.train)
        folds = number_of(folds_of(splits.train, folds))  # refused before anything is read
    if not splits.validation:
        without_validation(arguments, recipe.training, data_places(recipe))
    check_metric(recipe.training, [part.key for part in splits.validation])
    processor = NeuralClipProcessor.from_config(
        config, tower.processor if tower else None,
        {name: opened.preparation for name, opened in data.items()},
        {name: opened.statistics for name, opened in data.items()},
    )  # fmt: skip
    start = folder.start(
        resume=recipe.resume, overwrite=recipe.overwrite, needs_best=bool(arguments.load_best_model_at_end)
    )
    if start is not None:
        check_resumed_encoder(str(start), recipe, identity)
        check_prepared_alike(start, list(data.values()))
    held_out, finished = None, finished_folds(folder.folds, recipe, data)
    if folds and not recipe.dry_run:

        def trainer_of(of_fold: TrainingArguments, parts: Splits) -> FoldTrainer:
            model = build_model(config_of(config, parts), None, of_fold.seed)
            return cast(FoldTrainer, _trainer(of_fold, model, parts, recipe, processor, FoldTrainer))

        with only_writer(folder.path):
            held_out = cross_validate(trainer_of, arguments, splits.train, folds, finished)
    model = build_model(config, tower, arguments.seed)
    trainer = _trainer(arguments, model, splits, recipe, processor)
    if held_out is not None:
        trainer.add_callback(StopAfter(held_out.n_epochs))
    if start is not None:
        trainer.min_batches = check_resumed_batches(str(start), trainer.deciding_batches())
        check_resumed_weights(start, model)
    if trainer.is_world_process_zero():
        streaming = notes_on_streaming(splits.train, recipe.shuffle_buffer_size) if recipe.streaming else []
        _print_notes([*splits.notes, *folder.notes, *streaming], trainer)
    if recipe.dry_run:
        lines = estimate(trainer, output_dir, recipe, data.values(), 1 + folds)
        if trainer.is_world_process_zero():
            print("\n".join(["dry run: nothing is kept or written", *lines]))
        return output_dir
    _run(trainer, folder, start, recipe, facts, held_out)
    if trainer.is_world_process_zero():
        finished.remove()
    if arguments.push_to_hub and trainer.is_world_process_zero():
        _push(recipe, output_dir)
    return output_dir


def _run(
    trainer: NeuralClipTrainer, folder: RunFolder, start: Path | None, recipe: Recipe, facts: dict[str, Facts],
    held_out: HeldOut | None,
) -> None:  # fmt: skip
    """Train in the folder of a run and save what was learnt; the first of several processes makes the folder."""
    arguments, is_first, wait = trainer.args, trainer.is_world_process_zero(), trainer.accelerator.wait_for_everyone
    output_dir = arguments.output_dir
    wait()  # until every process has looked where to start
    opened: Any = folder.opened(start, replaces=recipe.resume or recipe.overwrite) if is_first else nullcontext()
    termination = SaveOnTermination()
    trainer.add_callback(termination)
    with opened, termination:
        wait()  # until the folder is there
        arguments.output_dir = str(folder.partial)
        try:
            try:
                trainer.train(resume_from_checkpoint=str(folder.partial / start.name) if start else None)
            finally:
                arguments.output_dir = output_dir
            termination.end_at_once(bool(states_of(folder.partial)), arguments.device)
            wait()  # until every process has read the best weights
            with raised_by_all(arguments.device):
                if is_first:
                    warnings = _save(trainer, folder, recipe, facts, held_out)
                    trainer.remove_other_states()
        except (KeyboardInterrupt, Terminated) as stop:
            if is_first:
                steps = f"step {trainer.state.global_step} of {trainer.state.max_steps}"
                print(f"training was interrupted after {steps}{_advice(stop)}", file=sys.stderr)
            if isinstance(stop, Terminated):
                raise SystemExit(EXIT_CODE) from None
            raise
    wait()  # until the checkpoint stands
    if is_first:
        print(f"kept: {_outcome(trainer, held_out)}", file=sys.stderr)
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(place_line("checkpoint", str(output_dir)))


def _advice(stop: BaseException) -> str:
    """What is to be done after an interruption that no command tells of."""
    if not isinstance(stop, Terminated):
        return ""
    return ", which was saved. Give the same command again with `--resume`, in place of `--overwrite`, to go on."


def _save(
    trainer: NeuralClipTrainer, folder: RunFolder, recipe: Recipe, facts: dict[str, Facts], held_out: HeldOut | None
) -> list[str]:
    """Write what was learnt, with a closed form where the recipe asks for one; returns what is to be warned of."""
    model = cast(NeuralClipModel, trainer.model)
    check_weights(model)
    train, validation = trainer.recordings.sets, trainer.validation
    scored, folds, embeds, n_held_out = validation, None, {}, 0
    if held_out is not None:
        scored, folds, embeds, n_held_out = train, held_out.folds, held_out.embeds, len(held_out.two_way)
    else:
        embeds = {part.key: neural_embeds(model.eval(), part) for part in validation}
    warnings = end_warnings(trainer, scored, embeds, n_held_out)
    record = training_record(recipe, facts, trainer) | {"warnings": warnings}
    if held_out is not None:
        record["cross_validation"] = held_out.as_dict()
    if recipe.closed_form:
        record["closed_form"], embeds = add_closed_forms(model, train, validation, embeds, folds)
    predictions = [ValidationPredictions.of(part.part, part.rows, embeds[part.key]) for part in scored]
    record["confidence"] = {}
    for part, found in zip(scored, predictions, strict=True):
        fitted = fit_confidence(found, part.part.data.images.embeds)
        held_out_people = held_out is not None and held_out.unit == "subjects"  # the average subject predicted theirs
        keep_temperature(model, part.modality, fitted, [AVERAGE_NAME] if held_out_people else found.subjects)
        record["confidence"][part.key] = fitted
    write_predictions(folder.partial, predictions)
    processor = cast(NeuralClipProcessor, trainer.processor)
    write_checkpoint(folder.partial, folder.path.name, model, processor, record)
    return warnings


def _trainer(
    arguments: TrainingArguments,
    model: NeuralClipModel,
    splits: Splits,
    recipe: Recipe,
    processor: NeuralClipProcessor,
    kind: type[NeuralClipTrainer] = NeuralClipTrainer,
) -> NeuralClipTrainer:
    """What trains the model, or a `DataError` where `Trainer` cannot follow its settings on this machine."""
    check_mini_batches(recipe.mini_batch_size, model)
    output_dir, arguments.output_dir = arguments.output_dir, os.curdir  # `Trainer` makes its folder at once
    try:
        trainer = kind(
            model=model,
            args=arguments,
            recordings=JointDataset(splits.train),
            validation=splits.validation,
            passes=recipe.passes,
            min_steps=recipe.min_steps,
            mini_batch_size=recipe.mini_batch_size,
            shuffle_buffer_size=recipe.shuffle_buffer_size,
            processor=processor,
            callbacks=[KeepTowerInEval(), BestState(), OwnNoise()],
        )
        # now, so that what cannot be had is known before anything is written
        trainer.create_optimizer()
        steps = trainer.n_steps()
        trainer.create_scheduler(steps, torch.optim.SGD([torch.zeros(1)], lr=1.0))
        trainer.lr_scheduler = None  # the one that counts is made for the optimiser above
    except Exception as error:  # a wrong value comes to light wherever it is first used
        raise DataError(f"The recipe's 'training' section cannot be used: {error}") from error
    finally:
        arguments.output_dir = output_dir
    return trainer


def _push(recipe: Recipe, checkpoint: Path) -> None:
    """Push a finished checkpoint as `neural-clip push` does."""
    arguments = recipe.training_arguments
    repo = str(arguments.hub_model_id)
    try:
        address = push(checkpoint, repo, public=is_public(recipe), token=arguments.hub_token)
    except DataError as error:
        again = command_line("neural-clip", "push", checkpoint, "--repo", repo, *["--public"] * is_public(recipe))
        raise DataError(f"{error} The checkpoint stands; {again} sends it.") from error
    print(place_line("repository", f"{address} ({'public' if is_public(recipe) else 'private'})"))


def _print_notes(notes: list[str], trainer: NeuralClipTrainer) -> None:
    """Say what is peculiar about a run before it starts."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    n_steps = trainer.n_steps()
    few = [f"{steps} of {name}" for name, steps in trainer.steps_of(n_steps).items() if steps < trainer.min_steps]
    if few:
        asked = f"fewer than the {trainer.min_steps} that 'min_steps' asks for"
        print(f"note: training takes {n_steps} steps, about {' and '.join(few)}, {asked}.", file=sys.stderr)
    if not trainer.validation and not any(isinstance(each, StopAfter) for each in trainer.callback_handler.callbacks):
        steps = f"training takes {n_steps} steps, and the last weights are kept"
        print(f"note: without a validation split, {steps}.", file=sys.stderr)


def _outcome(trainer: NeuralClipTrainer, held_out: HeldOut | None) -> str:
    """How the kept weights were found, and whether they tell recordings apart."""
    if held_out is not None:
        two_way = f"mean 2-way of the folds {max(held_out.two_way):.4f}"
        return f"{held_out.n_epochs} epochs, as cross-validation chose: {two_way}"
    if trainer.state.best_metric is None:
        return f"the weights after step {trainer.state.global_step}, unscored"
    found = f"best validation 2-way {trainer.state.best_metric:.4f}"
    if collapsed := trainer.collapsed_at(trainer.state.best_global_step):
        found += f"; warning: the embeddings of {' and '.join(collapsed)} are collapsed in it"
    return found
