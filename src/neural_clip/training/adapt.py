"""Fit an alignment layer for new subjects, and change nothing else.

Everything that the checkpoint holds stays as it is, bit for bit: the layers of the subjects it knows, the shared
network, the projection, the temperature. It fits those subjects of a data set that the checkpoint does not know by
name, so different subjects need different names. The layer starts as the mean of the known ones (EEG, MEG) or by ridge
regression (fMRI, `ridge_start.py`) and learns on the training split; the number of epochs, none included, is the best
one on the validation split.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments, set_seed

from neural_clip.errors import DataError, check_value
from neural_clip.evaluation.fit import check_shape
from neural_clip.files.whole import sha256_of, whole_folder
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.prepared.reader import PreparedSet
from neural_clip.publishing.model_card import RECORD_FILE
from neural_clip.targets.identity import EncoderIdentity, common_image_encoder
from neural_clip.training.batches import JointDataset, RecordingDataset
from neural_clip.training.checkpoint import read_checkpoint, write_checkpoint
from neural_clip.training.new_subjects import add_subjects, choose_recordings, choose_subjects
from neural_clip.training.processes import check_one_process
from neural_clip.training.recipe import TRAINING_DEFAULTS
from neural_clip.training.record import recorded_facts
from neural_clip.training.recording_time import minutes_of
from neural_clip.training.ridge_start import start_by_ridge
from neural_clip.training.splits import check_validation, notes_on_train
from neural_clip.training.trainer import NeuralClipTrainer, validation_two_way

# Chosen on validation recordings of one left-out subject of the simulated EEG.
EPOCHS, LEARNING_RATE, BATCH_SIZE = 30, 3e-3, 32


class AdaptationTrainer(NeuralClipTrainer):
    """[`NeuralClipTrainer`] that leaves dropout and the statistics of batch norms as they are after training."""

    def compute_loss(self, model: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Contrastive loss of the model in `eval()` mode; `Trainer` has just switched it to training."""
        return super().compute_loss(model.eval(), *args, **kwargs)


def check_data(model: NeuralClipModel, data: PreparedSet, checkpoint: str) -> None:
    """Raise a `DataError` when a data set is of another modality, shape or image encoder than the model's."""
    modality = data.facts.modality
    config = getattr(model.config, f"{modality}_config")
    if config is None:
        raise DataError(
            f"'{data.name}' holds {modality} recordings, but '{checkpoint}' has encoders of "
            f"{model.config.modalities} only."
        )
    check_shape(config, data, [])
    expected = EncoderIdentity.of_config(model.config)
    found = EncoderIdentity.of_facts(common_image_encoder({modality: data.facts}))
    if expected is None:
        raise DataError(f"'{checkpoint}' does not say which image encoder it was trained on.")
    expected.require(found, f"The checkpoint '{checkpoint}'", f"'{data.name}'")


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


def check_settings(settings: dict[str, Any]) -> None:
    """Raise a `DataError` for a setting out of its range, or two that say how much is used."""
    least = {"num_train_epochs": 1, "per_device_train_batch_size": 2}
    if settings["minutes"] is not None and settings["train_fraction"] != 1:
        raise DataError(
            f"'minutes' and 'train_fraction' exclude one another, but got {settings['minutes']} and "
            f"{settings['train_fraction']}."
        )
    for name, value in settings.items():
        if value is not None:
            most = 1 if name == "train_fraction" else math.inf
            allowed = f"{least[name]} and more" if name in least else f"above 0{' and at most 1' if most == 1 else ''}"
            check_value(name, value, least.get(name, 0) <= value <= most and value > 0, allowed)


def training_arguments(run_dir: Path, settings: dict[str, Any], seed: int) -> TrainingArguments:
    """Arguments of `Trainer`: those of `neural-clip train`, with a learning rate that falls as a cosine."""
    given = {key: settings[key] for key in ("num_train_epochs", "learning_rate", "per_device_train_batch_size")}
    given |= {"lr_scheduler_type": "cosine", "seed": seed, "save_only_model": True, "output_dir": str(run_dir)}
    return TrainingArguments(**{**TRAINING_DEFAULTS, **given})


def adapt(
    checkpoint: str | Path,
    folder: str | Path | PreparedSet,
    output_dir: str | Path,
    *,
    subjects: Sequence[str] | None = None,
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = BATCH_SIZE,
    train_fraction: float = 1.0,
    minutes: float | None = None,
    seconds_per_trial: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    command: str | None = None,
) -> Path:
    """Fit alignment layers for new subjects and write a whole new checkpoint.

    Args:
        checkpoint (`str` or `Path`): Folder of the checkpoint to start from; it is left as it is.
        folder (`str`, `Path` or [`PreparedSet`]): Data set with recordings of the new subjects, its images embedded.
        output_dir (`str` or `Path`): Folder of the new checkpoint.
        subjects (sequence of `str`, *optional*): Whom to fit; by default all whom the checkpoint does not know.
        epochs (`int`): Passes over the training recordings, of which the best by validation is kept.
        learning_rate (`float`): Of AdamW without weight decay, falling as a cosine to zero.
        batch_size (`int`): Recordings a step; their images are one another's negatives.
        train_fraction (`float`): Share of each new subject's training recordings that is used, drawn at random.
        minutes (`float`, *optional*): Instead, the first training recordings of each new subject that fit into so many
            minutes; a random choice where the data set does not know the order of presentation.
        seconds_per_trial (`float`, *optional*): From one onset to the next; by default the corpus's own.
        seed (`int`): Of the order of batches, the recordings drawn and the noise behind the start of fMRI layers.
        overwrite (`bool`): Replace a checkpoint at `output_dir`.
        command (`str`, *optional*): What the record says was run.

    Returns:
        `Path`: `output_dir`.

    Raises:
        DataError: If the checkpoint, the data set or the subjects do not fit, or `output_dir` is taken.
    """
    output_dir, data = Path(output_dir), PreparedSet.open(folder)
    settings: dict[str, Any] = {"num_train_epochs": epochs, "learning_rate": learning_rate}
    settings |= {"per_device_train_batch_size": batch_size, "train_fraction": train_fraction}
    settings |= {"minutes": minutes, "seconds_per_trial": seconds_per_trial}
    check_settings(settings)
    check_one_process("`neural-clip adapt`")
    with whole_folder(output_dir, holds=RECORD_FILE, what="checkpoint", overwrite=overwrite) as partial:
        model, processor, record = read_checkpoint(checkpoint)
        check_data(model, data, str(checkpoint))
        config = getattr(model.config, f"{data.facts.modality}_config")
        chosen = choose_subjects(data, config.subjects, subjects)
        set_seed(seed)
        known = list(config.subjects)
        learnt = add_subjects(model, data.facts, chosen)
        train, validation = (
            RecordingDataset(data.split(split, chosen), config.subjects) for split in ("train", "validation")
        )
        per_trial = choose_recordings(train, settings, seed)
        check_validation(validation)
        for note in notes_on_train(train, batch_size):
            print(f"note: {note}", file=sys.stderr)
        if data.facts.modality == "fmri":
            for name in chosen:
                start_by_ridge(model.eval(), name, known, train, validation, seed)
        scores, best = fit(model, learnt, train, validation, training_arguments(partial / "epochs", settings, seed))
        shutil.rmtree(partial / "epochs")
        entry: dict[str, Any] = {"command": command, "checkpoint": Path(checkpoint).resolve().name}
        entry |= {"weights": sha256_of(Path(checkpoint).glob("*.safetensors"))}
        entry |= adaptation_record(train, validation, chosen, settings | {"seed": seed}, scores, best)
        if per_trial is not None:
            entry["minutes"] = {"train": minutes_of(train, per_trial), "validation": minutes_of(validation, per_trial)}
        record["adaptations"] = [*record.get("adaptations", []), entry]
        write_checkpoint(partial, output_dir.name, model, processor, record)
    print(
        f"checkpoint: {output_dir}  ({', '.join(chosen)}: validation 2-way {scores[0]:.4f} at the start, "
        f"{scores[best]:.4f} after {best} of {epochs} epochs)",
        file=sys.stderr,
    )
    return output_dir


def adaptation_record(
    train: RecordingDataset,
    validation: RecordingDataset,
    subjects: list[str],
    settings: dict[str, Any],
    scores: list[float],
    best: int,
) -> dict[str, Any]:
    """What the record says of the new subjects, their recordings and how the fit went."""
    facts = train.part.facts
    return {
        "modality": facts.modality,
        "subjects": subjects,
        "data": recorded_facts(facts, subjects) | {"simulated": bool(facts.simulated)},
        "settings": settings,
        "validation_two_way": scores,
        "recordings": {"train": len(train), "validation": len(validation)},
        "best_epoch": best,
    }
