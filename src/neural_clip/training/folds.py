"""Cross-validation over images, for data sets that are too small for a validation split.

The recordings of every image, in all modalities, are held out once: a model is trained on the others, by the same
recipe. The number of epochs is the one after which the held-out recordings are told apart best; the closed form and
its share are chosen by what is predicted of them. Then one model is trained on all recordings. It costs as many
trainings as there are folds beside that one.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainingArguments

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.linear import image_folds
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.splits import Splits
from neural_clip.training.trainer import NeuralClipTrainer, neural_embeds

MIN_HELD_OUT = 2  # images of a fold, which are told apart


class FoldTrainer(NeuralClipTrainer):
    """[`NeuralClipTrainer`] that keeps what the network makes of the held-out recordings after each epoch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept: list[dict[str, np.ndarray]] = []

    def _scores(self, prefix: str) -> dict[str, float]:
        self.kept.append({})
        return super()._scores(prefix)

    def embeds_of(self, model: Any, part: RecordingDataset) -> np.ndarray:
        """Unit vectors of held-out recordings, `(n_recordings, projection_dim)`."""
        self.kept[-1][part.modality] = found = neural_embeds(model, part)
        return found


class StopAfter(TrainerCallback):
    """End training after so many epochs, in the middle of a schedule that is made for more."""

    def __init__(self, n_epochs: int) -> None:
        self.n_epochs = n_epochs

    def on_epoch_end(self, args: object, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop once they are over."""
        if round(state.epoch) >= self.n_epochs:
            control.should_training_stop = True


@dataclass(frozen=True)
class HeldOut:
    """What cross-validation found.

    Args:
        folds (`dict[str, np.ndarray]`): Fold of each training recording by modality, `(n_recordings,)`.
        embeds (`dict[str, np.ndarray]`): What networks that had not seen them make of the recordings, unit vectors
            `(n_recordings, projection_dim)`.
        two_way (`list[float]`): Mean 2-way accuracy of held-out recordings after each epoch.
    """

    folds: dict[str, np.ndarray]
    embeds: dict[str, np.ndarray]
    two_way: list[float]

    @property
    def n_epochs(self) -> int:
        """Epochs to train for."""
        return int(np.argmax(self.two_way)) + 1

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        n_folds = int(max(folds.max() for folds in self.folds.values())) + 1
        return {"n_folds": n_folds, "n_epochs": self.n_epochs, "two_way": self.two_way}


def cross_validate(
    trainer_of: Callable[[TrainingArguments, Splits], FoldTrainer],
    arguments: TrainingArguments,
    train: list[RecordingDataset],
    n_folds: int,
) -> HeldOut:
    """Train on all images but those of each fold in turn.

    Args:
        trainer_of (`Callable`): Makes a new model and what trains it.
        arguments (`TrainingArguments`): Of the run; left as they are.
        train (`list[RecordingDataset]`): One entry a modality.
        n_folds (`int`): Folds.

    Raises:
        DataError: If several processes train, or a modality has too few images.
    """
    if arguments.world_size > 1:
        raise DataError("Cross-validation ('folds') runs in one process. Start one, or make a validation split.")
    folds, scores = folds_of(train, n_folds), []
    kept: list[list[dict[str, np.ndarray]]] = []  # by fold and epoch
    for fold, parts in enumerate(held_out_parts(train, folds, n_folds)):
        print(f"fold {fold + 1} of {n_folds}", file=sys.stderr)
        torch.manual_seed(arguments.seed)
        trainer = trainer_of(_fold_arguments(arguments), parts)
        trainer.train()
        scores.append([entry["eval_two_way"] for entry in trainer.state.log_history if "eval_two_way" in entry])
        kept.append(trainer.kept)
    n_epochs = min(map(len, scores))  # of `max_steps`, folds of fewer batches make more
    two_way = np.mean([each[:n_epochs] for each in scores], axis=0).tolist()
    found = HeldOut(folds, {}, two_way)
    for part in train:
        name = part.modality
        width = kept[0][0][name].shape[1]
        found.embeds[name] = np.empty((len(part), width), np.float32)
        for fold, epochs in enumerate(kept):
            found.embeds[name][folds[name] == fold] = epochs[found.n_epochs - 1][name]
    print(f"cross-validation: best 2-way {max(two_way):.4f} after {found.n_epochs} epochs", file=sys.stderr)
    return found


def folds_of(train: list[RecordingDataset], n_folds: int) -> dict[str, np.ndarray]:
    """Fold of each recording by modality; an image lies in one fold in all of them, whatever its name there.

    Raises:
        DataError: If some fold of a modality would hold fewer than two images.
    """
    targets = np.concatenate([part.part.targets for part in train])
    pictures = np.unique(targets, axis=0, return_inverse=True)[1].ravel()  # images of one embedding are one
    found = np.split(image_folds(pictures, n_folds), np.cumsum([len(part) for part in train])[:-1])
    for part, folds in zip(train, found, strict=True):
        counts = [len(set(part.part.image_ids[folds == fold].tolist())) for fold in range(n_folds)]
        if min(counts) < MIN_HELD_OUT:
            raise DataError(
                f"'{part.part.data.name}' has no validation recordings, and its {len(part.part.shown_ids)} training "
                f"images are too few for {n_folds} folds of two or more. Choose fewer with 'folds', or 0 for the last "
                "weights of a training on all, which nothing was chosen for."
            )
    return {part.modality: folds for part, folds in zip(train, found, strict=True)}


def held_out_parts(train: list[RecordingDataset], folds: dict[str, np.ndarray], n_folds: int) -> Iterator[Splits]:
    """For each fold the recordings of the others, and its own as validation."""
    for fold in range(n_folds):
        yield Splits(_where(train, folds, fold, False), _where(train, folds, fold, True), notes=[])


def _where(
    train: list[RecordingDataset], folds: dict[str, np.ndarray], fold: int, inside: bool
) -> list[RecordingDataset]:
    """Recordings inside or outside of a fold."""
    found = [copy.copy(part) for part in train]
    for part in found:
        part.keep(np.flatnonzero((folds[part.modality] == fold) == inside))
    return found


def _fold_arguments(arguments: TrainingArguments) -> TrainingArguments:
    """Those of a fold: scored after each epoch, saved never."""
    changed = copy.copy(arguments)
    changed.eval_strategy, changed.eval_delay = type(arguments.eval_strategy)("epoch"), 0
    changed.save_strategy = type(arguments.save_strategy)("no")
    changed.load_best_model_at_end, changed.do_eval, changed.push_to_hub = False, True, False
    return changed
