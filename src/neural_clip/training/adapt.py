"""Fit an alignment layer for new subjects, and change nothing else: known layers, network, projection, temperature.

The layer starts as the mean of the known ones (EEG, MEG) or by ridge regression (fMRI, `ridge_start.py`) and learns on
the training split; the number of epochs, none included, is the best one on the validation split.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments, set_seed

from neural_clip.errors import DataError
from neural_clip.evaluation.validation_predictions import (
    ValidationPredictions,
    validation_predictions,
    write_predictions,
)
from neural_clip.files.places import place_line
from neural_clip.files.record import RECORD_FILE
from neural_clip.files.whole import sha256_of, whole_folder
from neural_clip.gallery.fit import check_fit, check_preparation
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet
from neural_clip.processing_neural_clip import NeuralClipProcessor
from neural_clip.publishing.terms import data_carried_over
from neural_clip.targets.identity import EncoderIdentity, common_image_encoder, in_space_of
from neural_clip.training.batches import JointDataset, RecordingDataset
from neural_clip.training.checkpoint import read_checkpoint, write_checkpoint
from neural_clip.training.closed_form import give_closed_forms, leave_to_network
from neural_clip.training.confidence import fit_confidence, keep_temperature
from neural_clip.training.known_people import KnownPeople
from neural_clip.training.new_subjects import add_subjects, choose_recordings, choose_subjects
from neural_clip.training.options import AdaptOptions
from neural_clip.training.places_prior import carried_over
from neural_clip.training.pooled import with_seen
from neural_clip.training.processes import check_one_process
from neural_clip.training.recipe import TRAINING_DEFAULTS
from neural_clip.training.record import recorded_facts
from neural_clip.training.recording_time import minutes_of
from neural_clip.training.ridge_start import of_subject, start_by_ridge
from neural_clip.training.run_folder import carry_over, check_place
from neural_clip.training.splits import check_validation, notes_on_train
from neural_clip.training.trainer import NeuralClipTrainer, neural_embeds, validation_two_way


class AdaptationTrainer(NeuralClipTrainer):
    """[`NeuralClipTrainer`] that leaves dropout and the statistics of batch norms as they are after training."""

    def compute_loss(self, model: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Contrastive loss of the model in `eval()` mode; `Trainer` has just switched it to training."""
        return super().compute_loss(model.eval(), *args, **kwargs)


def fitting_data(model: NeuralClipModel, data: PreparedSet, checkpoint: str) -> PreparedSet:
    """A data set in the space of the model; a `DataError` for another modality, shape or image encoder."""
    check_fit(model, data, [])
    common_image_encoder({data.name: data.facts})  # refuses images without embeddings
    if EncoderIdentity.of_config(model.config) is None:
        raise DataError(f"'{checkpoint}' does not say which image encoder it was trained on.")
    return in_space_of(model.config, data, f"The checkpoint '{checkpoint}'")


def fit(
    model: NeuralClipModel,
    learnt: Sequence[torch.nn.Parameter],
    train: RecordingDataset,
    validation: RecordingDataset,
    arguments: TrainingArguments,
) -> tuple[list[float], int]:
    """Train the parameters that are not frozen and leave in the model those of the best epoch.

    Returns:
        `tuple`: Validation 2-way accuracy before training and after each epoch, and which of these is the best.
    """
    scores = [validation_two_way(model.eval(), validation)]
    start = [parameter.detach().clone() for parameter in learnt]
    trainer = AdaptationTrainer(model=model, args=arguments, recordings=JointDataset([train]), validation=[validation])
    trainer.train()
    scores += [entry["eval_two_way"] for entry in trainer.state.log_history if "eval_two_way" in entry]
    best = int(np.argmax(scores))
    if best == 0:
        with torch.no_grad():
            for parameter, value in zip(learnt, start, strict=True):
                parameter.copy_(value)
    return scores, best


def training_arguments(run_dir: Path, options: AdaptOptions) -> TrainingArguments:
    """Arguments of `Trainer`: those of `neural-clip train`, with a learning rate that falls as a cosine."""
    given: dict[str, Any] = {"num_train_epochs": options.epochs, "per_device_train_batch_size": options.batch_size}
    given |= {"learning_rate": options.learning_rate, "lr_scheduler_type": "cosine", "seed": options.seed}
    return TrainingArguments(**{**TRAINING_DEFAULTS, **given, "save_only_model": True, "output_dir": str(run_dir)})


def adapt(
    checkpoint: str | Path,
    folder: str | Path | PreparedSet,
    output_dir: str | Path,
    options: AdaptOptions | None = None,
    *,
    known: str | Path | PreparedSet | None = None,
    command: str | None = None,
    **changes: Any,
) -> Path:
    """Fit alignment layers for new subjects and write a whole new checkpoint.

    Args:
        checkpoint (`str` or `Path`): Folder of the checkpoint to start from; it is left as it is.
        folder (`str`, `Path` or [`PreparedSet`]): Data set with recordings of the new subjects, its images embedded.
        output_dir (`str` or `Path`): Folder of the new checkpoint.
        options ([`AdaptOptions`], *optional*): Whom to fit, and how.
        known (`str`, `Path` or [`PreparedSet`], *optional*): For `prior`: data set with recordings of people whom the
            checkpoint knows, its images embedded, and the places of their voxels.
        command (`str`, *optional*): What the record says was run.
        **changes: Options by name, in place of those of `options`.

    Returns:
        `Path`: `output_dir`.

    Raises:
        DataError: If an option, the checkpoint, the data set or the subjects do not fit, or `output_dir` is taken.
    """
    options = replace(options or AdaptOptions(), **changes)
    check_prior(options, known)
    output_dir, data = Path(output_dir), PreparedSet.open(folder, options.streaming)
    others = None if known is None else PreparedSet.open(known, options.streaming)
    check_one_process("`neural-clip adapt`")
    check_place(output_dir, [Path(checkpoint), *(opened.folder for opened in (data, others) if opened)])
    with whole_folder(output_dir, holds=RECORD_FILE, what="checkpoint", overwrite=options.overwrite) as partial:
        model, processor, record = read_checkpoint(checkpoint)
        check_one_corpus(processor, data, str(checkpoint))
        data = fitting_data(model, data if data.streaming else data.verify(), str(checkpoint))
        check_preparation(processor, data, f"The checkpoint '{checkpoint}'")
        if others is not None and others.folder.resolve() == data.folder.resolve():
            others = data
        elif others is not None:
            others = fitting_data(model, others if others.streaming else others.verify(), str(checkpoint))
            check_preparation(processor, others, f"The checkpoint '{checkpoint}'")
        config = getattr(model.config, f"{data.facts.modality}_config")
        chosen = choose_subjects(data, config.subjects, options.subjects)
        people = None if others is None else KnownPeople.of(others, config, data, chosen)
        set_seed(options.seed)
        before = list(config.subjects)
        learnt = add_subjects(model, data.facts, chosen)
        leave_to_network(model, data.facts.modality, chosen)
        train, validation = (
            RecordingDataset(data.split(split, chosen), config.subjects) for split in ("train", "validation")
        )
        per_trial = choose_recordings(train, validation, options)
        check_validation(validation)
        for note in notes_on_train(train, options.batch_size):
            print(f"note: {note}", file=sys.stderr)
        if not MODALITIES[data.facts.modality].sensors:
            for name in chosen:
                start_by_ridge(model.eval(), name, before, train, validation, options.seed)
        scores, best = fit(model, learnt, train, validation, training_arguments(partial / "epochs", options))
        shutil.rmtree(partial / "epochs")
        closed_forms, predictions = fit_closed_forms(model, train, validation, chosen, options, people)
        entry: dict[str, Any] = {"command": command, "checkpoint": Path(checkpoint).resolve().name}
        entry |= {"weights": sha256_of(Path(checkpoint).glob("model*.safetensors"))}
        entry |= adaptation_record(train, validation, chosen, options, scores, best)
        entry["confidence"] = fit_confidence(predictions, data.images.embeds)
        keep_temperature(model, data.facts.modality, entry["confidence"], chosen)
        if closed_forms:
            entry["closed_form"] = closed_forms
        if people is not None:
            entry["known"] = people.record
        if per_trial is not None:
            entry["minutes"] = {"train": minutes_of(train, per_trial), "validation": minutes_of(validation, per_trial)}
        record["adaptations"] = [*record.get("adaptations", []), entry]
        if record.get("stimuli") is not None:  # else nobody knows of the others
            record["stimuli"] = with_seen(record["stimuli"], [train, validation])
        if config.trained_on is not None:  # else nobody knows of the others
            sources = [data.facts.stated_terms(chosen)]
            if others is not None and people is not None and any(data_carried_over(entry)):
                sources.insert(0, others.facts.stated_terms(list(people.tunings)))
            config.trained_on += [each for each in sources if each not in config.trained_on]
        processor.add_subjects(config, data.facts.modality, chosen, data.preparation, data.statistics)
        write_predictions(partial, [*validation_predictions(checkpoint), predictions])
        write_checkpoint(partial, output_dir.name, model, processor, record)
        carry_over(output_dir, partial)
    print(
        f"{', '.join(chosen)}: validation 2-way {scores[0]:.4f} at the start, {scores[best]:.4f} after {best} of "
        f"{options.epochs} epochs",
        file=sys.stderr,
    )
    print(place_line("checkpoint", output_dir))
    return output_dir


def check_one_corpus(processor: NeuralClipProcessor, data: PreparedSet, checkpoint: str) -> None:
    """Raise a `DataError` where people of several corpora share the network."""
    known = [group.get("corpus") for group in processor.recordings.get(data.facts.modality, [])]
    if any(known):
        raise DataError(
            f"The checkpoint '{checkpoint}' has people of the corpora {known}. `adapt` adds new subjects to a "
            "checkpoint of one corpus; train with their data set as one of several (--data) instead."
        )


def check_prior(options: AdaptOptions, known: str | Path | PreparedSet | None) -> None:
    """Raise a `DataError` unless a prior and the data set that it comes from are both given, or neither is."""
    if options.prior != "none" and known is None:
        raise DataError(
            f"'prior' is {options.prior!r}, but 'known' does not name the prepared data set of known people "
            "(--known fmri=FOLDER)."
        )
    if options.prior == "none" and known is not None:
        raise DataError("'known' names a data set, but 'prior' is 'none' (--prior places).")


def fit_closed_forms(
    model: NeuralClipModel,
    train: RecordingDataset,
    validation: RecordingDataset,
    subjects: Sequence[str],
    options: AdaptOptions,
    people: KnownPeople | None,
) -> tuple[dict[str, Any], ValidationPredictions]:
    """Give new subjects closed forms with what is carried over from known people, where these are wanted.

    Returns:
        `tuple`: What the record says of them, and what was predicted of the validation recordings before they were
        fitted on these.
    """
    found: dict[str, Any] = {}
    embeds = {
        name: neural_embeds(model.eval(), of_subject(validation, validation.subjects.index(name))) for name in subjects
    }
    if options.closed_form:
        carried, priors = {}, {}
        for name in subjects if people is not None else ():
            function, priors[name] = carried_over(people, train, validation, name, options.seed)
            if function is not None:
                carried[name] = function
        found, embeds = give_closed_forms(model, train, validation, embeds, carried)
        found = {name: record | ({"prior": priors[name]} if name in priors else {}) for name, record in found.items()}
    whole = np.empty((len(validation), model.config.projection_dim))
    for name, own in embeds.items():
        whole[validation.part.subjects == name] = own
    return found, ValidationPredictions.of(validation.part, validation.rows, whole)


def adaptation_record(
    train: RecordingDataset,
    validation: RecordingDataset,
    subjects: list[str],
    options: AdaptOptions,
    scores: list[float],
    best: int,
) -> dict[str, Any]:
    """What the record says of the new subjects, their recordings and how the fit went."""
    facts = train.part.facts
    return {
        "modality": facts.modality,
        "subjects": subjects,
        "data": recorded_facts(facts, subjects) | {"simulated": bool(facts.simulated)},
        "settings": options.settings,
        "validation_two_way": scores,
        "recordings": {"train": len(train), "validation": len(validation)},
        "best_epoch": best,
    }
