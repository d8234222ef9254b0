"""Cross-validation over images or people, for data sets that are too small for a validation split.

The recordings of every image, in all modalities, are held out once: a model is trained on the others, by the same
recipe. Where no test subject is trained on, subjects are held out instead of images, and the average subject stands in
for those whom a model has not seen, as it will in the test. The number of epochs is the one after which the held-out
recordings are told apart best; the closed form and its share are chosen by what is predicted of them. Then one model
is trained on all recordings. It costs as many trainings as there are folds beside that one.
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

from neural_clip.configuration_neural_clip import AVERAGE_SUBJECT, NeuralClipConfig
from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.strengths import image_folds
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.splits import Splits
from neural_clip.training.trainer import NeuralClipTrainer, neural_embeds

MIN_HELD_OUT = 2  # images of a fold, which are told apart
FEWER_FOLDS = (
    "Choose fewer with 'folds', or 0 for the last weights of a training on all, which nothing was chosen for."
)


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
        unit (`str`): What was held out, `"images"` or `"subjects"`.
    """

    folds: dict[str, np.ndarray]
    embeds: dict[str, np.ndarray]
    two_way: list[float]
    unit: str

    @property
    def n_epochs(self) -> int:
        """Epochs to train for."""
        return int(np.argmax(self.two_way)) + 1

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        chosen = {"n_epochs": self.n_epochs, "two_way": self.two_way}
        return {"n_folds": number_of(self.folds), "held_out": self.unit, **chosen}


def cross_validate(
    trainer_of: Callable[[TrainingArguments, Splits], FoldTrainer],
    arguments: TrainingArguments,
    train: list[RecordingDataset],
    n_folds: int,
) -> HeldOut:
    """Train on all images or subjects but those of each fold in turn.

    Args:
        trainer_of (`Callable`): Makes a new model and what trains it.
        arguments (`TrainingArguments`): Of the run; left as they are.
        train (`list[RecordingDataset]`): One entry a modality.
        n_folds (`int`): Folds, at most.

    Raises:
        DataError: If several processes train, or [`folds_of`] refuses.
    """
    if arguments.world_size > 1:
        raise DataError("Cross-validation ('folds') runs in one process. Start one, or make a validation split.")
    folds, scores = folds_of(train, n_folds), []
    print(f"cross-validation: {number_of(folds)} trainings, then one on all recordings", file=sys.stderr)
    kept: list[list[dict[str, np.ndarray]]] = []  # by fold and epoch
    for fold, parts in enumerate(held_out_parts(train, folds)):
        print(f"fold {fold + 1} of {number_of(folds)}", file=sys.stderr)
        torch.manual_seed(arguments.seed)
        trainer = trainer_of(_fold_arguments(arguments), parts)
        trainer.train()
        scores.append([entry["eval_two_way"] for entry in trainer.state.log_history if "eval_two_way" in entry])
        kept.append(trainer.kept)
    n_epochs = min(map(len, scores))  # of `max_steps`, folds of fewer batches make more
    two_way = np.mean([each[:n_epochs] for each in scores], axis=0).tolist()
    found = HeldOut(folds, {}, two_way, "subjects" if hold_out_people(train) else "images")
    for part in train:
        name = part.modality
        width = kept[0][0][name].shape[1]
        found.embeds[name] = np.empty((len(part), width), np.float32)
        for fold, epochs in enumerate(kept):
            found.embeds[name][folds[name] == fold] = epochs[found.n_epochs - 1][name]
    print(f"cross-validation: best 2-way {max(two_way):.4f} after {found.n_epochs} epochs", file=sys.stderr)
    return found


def hold_out_people(train: list[RecordingDataset]) -> bool:
    """Whether subjects are held out: where there are test subjects, none of whom is trained on."""
    splits = [part.part.facts.subject_splits.items() for part in train]
    tested = {name for counts in splits for name, rows in counts if rows.get("test")}
    return bool(tested) and not any(tested & set(part.subjects) for part in train)


def number_of(folds: dict[str, np.ndarray]) -> int:
    """Of folds."""
    return int(max(each.max() for each in folds.values())) + 1


def folds_of(train: list[RecordingDataset], n_folds: int) -> dict[str, np.ndarray]:
    """Fold of each recording by modality.

    An image lies in one fold in all modalities, whatever its name there. Where subjects are held out, a subject does,
    and there are no more folds than subjects.

    Raises:
        DataError: If some fold of a modality would hold fewer than two images, or subjects are held out who have no
            average subject.
    """
    if people := hold_out_people(train):
        units = np.concatenate([part.part.subjects for part in train])
        n_folds = min(n_folds, _n_people(train))
    else:
        targets = np.concatenate([part.part.targets for part in train])
        units = np.unique(targets, axis=0, return_inverse=True)[1].ravel()  # images of one embedding are one
    found = np.split(image_folds(units, n_folds), np.cumsum([len(part) for part in train])[:-1])
    for part, folds in zip(train, found, strict=True):
        counts = [len(set(part.part.image_ids[folds == fold].tolist())) for fold in range(n_folds)]
        if min(counts) < MIN_HELD_OUT:
            shown, subjects = len(part.part.shown_ids), len(set(part.part.subjects.tolist()))
            few = f"{subjects} training subjects" if people else f"{shown} training images"
            raise DataError(
                f"'{part.part.data.name}' has no validation recordings, and its {few} are too few for {n_folds} folds "
                f"of two {'images ' * people}or more. {FEWER_FOLDS}"
            )
    return {part.modality: folds for part, folds in zip(train, found, strict=True)}


def _n_people(train: list[RecordingDataset]) -> int:
    """Subjects of the modality with the fewest, two at least."""
    counts = {part.part.data.name: len(set(part.part.subjects.tolist())) for part in train}
    voxels = [part.part.data.name for part in train if not MODALITIES[part.modality].sensors]
    why = None
    if voxels:
        why = f"'{voxels[0]}' is fMRI, which has no average subject to score them by"
    elif min(counts.values()) < 2:
        why = f"'{min(counts, key=lambda name: counts[name])}' has one training subject, and folds need two"
    if why:
        raise DataError(
            "No test subject is trained on and there are no validation recordings, so that cross-validation holds out "
            f"subjects, but {why}. Prepare the data with a share for validation, or choose 0 'folds' for the last "
            "weights of a training on all."
        )
    return min(counts.values())


def held_out_parts(train: list[RecordingDataset], folds: dict[str, np.ndarray]) -> Iterator[Splits]:
    """For each fold the recordings of the others, and its own as validation."""
    for fold in range(number_of(folds)):
        learnt, left = (_where(train, folds, fold, inside) for inside in (False, True))
        if hold_out_people(train):
            for known, unknown in zip(learnt, left, strict=True):
                present = set(known.part.subjects.tolist())
                _number(known, [name for name in known.subjects if name in present])
                unknown.subjects, unknown.subject_ids[:] = known.subjects, AVERAGE_SUBJECT
        yield Splits(learnt, left, notes=[])


def config_of(config: NeuralClipConfig, parts: Splits) -> NeuralClipConfig:
    """The configuration of a fold: a layer that nobody trains would spoil the average subject."""
    found = copy.deepcopy(config)
    for part in parts.train:
        getattr(found, f"{part.modality}_config").subjects = list(part.subjects)
    return found


def _number(part: RecordingDataset, subjects: list[str]) -> None:
    """Count subjects anew."""
    part.subject_ids = np.array([subjects.index(name) for name in part.part.subjects.tolist()], dtype=np.int64)
    part.subjects = subjects


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
