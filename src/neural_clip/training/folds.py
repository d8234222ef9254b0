"""Cross-validation over images, runs or people, for data sets that are too small for a validation split.

What is held out is new to a model in the way in which the test is. The recordings of every image, in all modalities,
are held out once: a model is trained on the others, by the same recipe. Where images are categories, which the
test shows again, runs are held out instead. Where no test subject is trained on, subjects are, and the average subject
stands in for those whom a model has not seen, as it will in the test. The number of epochs is the one after
which the held-out recordings are told apart best; the closed form and its share are chosen by what is predicted of
them. Then one model is trained on all recordings. It costs as many trainings as there are folds beside that one.

What later steps need of a fold is kept on disk when the fold is finished, so that a run which was interrupted goes on
with the next one.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainingArguments

from neural_clip.configuration_neural_clip import AVERAGE_SUBJECT, NeuralClipConfig
from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.strengths import image_folds, n_told_apart, runs_of, told_apart
from neural_clip.evaluation.finished_parts import NOT_KEPT, FinishedParts
from neural_clip.files.kept import deciding_versions
from neural_clip.files.privacy import shared_value
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.recipe import Recipe
from neural_clip.training.splits import Splits
from neural_clip.training.trainer import NeuralClipTrainer, neural_embeds

MIN_HELD_OUT = 2  # images of a fold, which are told apart
EMBEDS, TWO_WAY = "held-out embeddings", "two-way"  # of a fold, what is kept
NOT_DECIDING = {"data", "output_dir", "closed_form", "resume", "overwrite", "dry_run"}  # in a recipe, for a fold
FEWER_FOLDS = (
    "Choose fewer by 'folds' of the recipe, or 0 for the last weights of a training on all, which nothing was chosen "
    "for."
)


class FoldTrainer(NeuralClipTrainer):
    """[`NeuralClipTrainer`] that keeps what the network makes of the held-out recordings after each epoch.

    `parts` is where, and `kept` has by epoch what is read from there when it is asked for.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parts, self.kept, self.found = NOT_KEPT, list[Mapping[str, np.ndarray]](), dict[str, np.ndarray]()

    def _scores(self, prefix: str) -> dict[str, float]:
        scores = super()._scores(prefix)
        self.kept.append(self.parts.of(epoch=len(self.kept)).keep(EMBEDS, self.found))
        self.found = {}
        return scores

    def embeds_of(self, model: Any, part: RecordingDataset) -> np.ndarray:
        """Unit vectors of held-out recordings, `(n_recordings, projection_dim)`."""
        self.found[part.modality] = found = neural_embeds(model, part)
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
        two_way (`list[float]`): Mean 2-way accuracy of held-out recordings after each epoch, over folds and data sets,
            each of a fold's recordings among that fold's images.
        unit (`str`): What was held out: `"images"`, `"runs"`, `"images and runs"` or `"subjects"`.
        n_images (`dict[str, int]`): Training images by modality, as they are told apart.
    """

    folds: dict[str, np.ndarray]
    embeds: dict[str, np.ndarray]
    two_way: list[float]
    unit: str
    n_images: dict[str, int]

    @property
    def n_epochs(self) -> int:
        """Epochs to train for."""
        return int(np.argmax(self.two_way)) + 1

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        chosen = {"n_epochs": self.n_epochs, "two_way": self.two_way}
        told = {"n_folds": number_of(self.folds), "held_out": self.unit, "n_images": self.n_images}
        return told | chosen


def cross_validate(
    trainer_of: Callable[[TrainingArguments, Splits], FoldTrainer],
    arguments: TrainingArguments,
    train: list[RecordingDataset],
    n_folds: int,
    parts: FinishedParts = NOT_KEPT,
) -> HeldOut:
    """Train on all images, runs or subjects but those of each fold in turn, unless it is finished.

    Args:
        trainer_of (`Callable`): Makes a new model and what trains it.
        arguments (`TrainingArguments`): Of the run; left as they are.
        train (`list[RecordingDataset]`): One entry a modality.
        n_folds (`int`): Folds, at most.
        parts ([`FinishedParts`]): Where finished folds are kept.

    Raises:
        DataError: If several processes train, or [`folds_of`] refuses.
    """
    if arguments.world_size > 1:
        raise DataError(
            "Cross-validation ('folds' of the recipe) runs in one process. Start one, or make a validation split."
        )
    folds = folds_of(train, n_folds)
    print(f"cross-validation: {number_of(folds)} trainings, then one on all recordings", file=sys.stderr)
    scores, kept = _by_fold(trainer_of, arguments, train, folds, parts)
    n_epochs = min(map(len, scores))  # of `max_steps`, folds of fewer batches make more
    two_way = np.mean([each[:n_epochs] for each in scores], axis=0).tolist()
    unit = " and ".join(sorted(set(held_out_units(train).values())))
    held_out = HeldOut(folds, {}, two_way, unit, {part.modality: n_told_apart(part.part) for part in train})
    for part in train:
        name = part.modality
        width = kept[0][0][name].shape[1]
        held_out.embeds[name] = np.empty((len(part), width), np.float32)
        for fold, epochs in enumerate(kept):
            held_out.embeds[name][folds[name] == fold] = epochs[held_out.n_epochs - 1][name]
    print(
        f"cross-validation: best mean 2-way of the folds {max(two_way):.4f} after {held_out.n_epochs} epochs",
        file=sys.stderr,
    )
    return held_out


def _by_fold(
    trainer_of: Callable[[TrainingArguments, Splits], FoldTrainer],
    arguments: TrainingArguments,
    train: list[RecordingDataset],
    folds: dict[str, np.ndarray],
    parts: FinishedParts,
) -> tuple[list[list[float]], list[list[Mapping[str, np.ndarray]]]]:
    """Mean 2-way accuracy of held-out recordings, and what was made of them, by fold and epoch."""
    found: list[tuple[list[float], list[Mapping[str, np.ndarray]]]] = []
    try:
        for fold, splits in enumerate(held_out_parts(train, folds)):
            own = parts.of(fold=fold)
            before = _finished(own)
            print(f"fold {fold + 1} of {number_of(folds)}{' was finished before' if before else ''}", file=sys.stderr)
            torch.manual_seed(arguments.seed)
            found.append(before or _trained(trainer_of(_fold_arguments(arguments), splits), own))
    except KeyboardInterrupt:
        print(
            f"finished folds: {len(found)}, in '{parts.folder}'; the same command goes on from there", file=sys.stderr
        )
        raise
    scores, kept = zip(*found, strict=True)
    return list(scores), list(kept)


def finished_folds(folder: Path, recipe: Recipe, data: Mapping[str, PreparedSet]) -> FinishedParts:
    """Where the folds of a run are kept, told apart by all that decides what they learn.

    Args:
        folder (`Path`): For them alone.
        recipe ([`Recipe`]): Of the run.
        data (`Mapping[str, PreparedSet]`): Its data sets.
    """
    settings = shared_value({name: value for name, value in recipe.as_dict().items() if name not in NOT_DECIDING})
    settings["training"] = {name: value for name, value in settings["training"].items() if name not in NOT_DECIDING}
    sets = {key: [opened.facts.fingerprint, opened.images.sha256] for key, opened in data.items()}
    key = {"recipe": settings, "data": sets, "versions": deciding_versions()}
    return FinishedParts(folder, key | {"device": str(recipe.training_arguments.device)})


def _trained(trainer: FoldTrainer, parts: FinishedParts) -> tuple[list[float], list[Mapping[str, np.ndarray]]]:
    """Mean 2-way accuracy of the held-out recordings after each epoch of a fold, and what was made of them."""
    trainer.parts = parts
    trainer.train()
    scores = [entry["eval_two_way"] for entry in trainer.state.log_history if "eval_two_way" in entry]
    parts.keep(TWO_WAY, {TWO_WAY: np.array(scores)})  # last: now the fold is finished
    return scores, trainer.kept


def _finished(parts: FinishedParts) -> tuple[list[float], list[Mapping[str, np.ndarray]]] | None:
    """The same of a fold that was finished before, from its files."""
    if (scores := parts.finished(TWO_WAY)) is None:
        return None
    kept = [parts.of(epoch=number).finished(EMBEDS) for number in range(len(scores[TWO_WAY]))]
    whole = [found for found in kept if found is not None]
    return (scores[TWO_WAY].tolist(), whole) if len(whole) == len(kept) else None


def hold_out_people(train: list[RecordingDataset]) -> bool:
    """Whether subjects are held out: where there are test subjects, none of whom is trained on."""
    splits = [part.part.facts.subject_splits.items() for part in train]
    tested = {name for counts in splits for name, rows in counts if rows.get("test")}
    return bool(tested) and not any(tested & set(part.subjects) for part in train)


def held_out_units(train: list[RecordingDataset]) -> dict[str, str]:
    """What is held out of each modality, as it is in the test: `"subjects"`, `"images"`, or `"runs"` of categories."""
    if hold_out_people(train):
        return {part.modality: "subjects" for part in train}
    return {part.modality: "runs" if _shows_again(part) else "images" for part in train}


def _shows_again(part: RecordingDataset) -> bool:
    """Whether images are categories, most of which are trained on and tested."""
    data = part.part.data
    if not (part.part.category_level and (data.facts.splits.get("test") or {}).get("rows")):
        return False
    return bool(np.isin(data.distinct("test"), part.part.shown_ids).mean() > 0.5)


def number_of(folds: dict[str, np.ndarray]) -> int:
    """Of folds."""
    return int(max(each.max() for each in folds.values())) + 1


def folds_of(train: list[RecordingDataset], n_folds: int) -> dict[str, np.ndarray]:
    """Fold of each recording by modality.

    An image lies in one fold in all modalities, whatever its name there. Where subjects or runs are held out, a
    subject or run does, and there are no more folds than subjects, or than somebody of each modality has runs.

    Raises:
        DataError: If some fold of a modality would hold fewer than two images, or subjects are held out who have no
            average subject.
    """
    units = held_out_units(train)
    whole = [part for part in train if units[part.modality] != "runs"]  # divided together
    runs = {part.modality: runs_of(part.part) for part in train if units[part.modality] == "runs"}
    n_folds = min([n_folds, *(len(set(numbers.tolist())) for numbers in runs.values())])
    n_folds = min(n_folds, _n_people(train)) if "subjects" in units.values() else n_folds
    found = {modality: numbers % n_folds for modality, numbers in runs.items()}
    if whole:
        if "subjects" in units.values():
            codes = np.concatenate([part.part.subjects for part in whole])
        else:
            targets = np.concatenate([part.part.targets for part in whole])
            codes = np.unique(targets, axis=0, return_inverse=True)[1].ravel()  # images of one embedding are one
        of_each = np.split(image_folds(codes, n_folds), np.cumsum([len(part) for part in whole])[:-1])
        found |= {part.modality: folds for part, folds in zip(whole, of_each, strict=True)}
    for part in train:
        unit, folds = units[part.modality], found[part.modality]
        shown = told_apart(part.part)
        counts = [len(set(shown[folds == fold].tolist())) for fold in range(n_folds)]
        if n_folds < 2 or min(counts) < MIN_HELD_OUT:
            of = {"subjects": len(set(part.part.subjects.tolist())), "images": len(set(shown.tolist()))}
            count = of.get(unit) or len(set(runs[part.modality].tolist()))
            few = f"{count} training {unit} are" if count > 1 else f"only training {unit[:-1]} is"
            folds_of_two = f"{max(n_folds, 2)} folds of two {'images ' * (unit != 'images')}or more"
            raise DataError(
                f"'{part.part.data.name}' has no validation recordings, and its {few} too few for {folds_of_two}. "
                f"{FEWER_FOLDS}"
            )
    return {part.modality: found[part.modality] for part in train}


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
            f"subjects, but {why}. Prepare the data with a share for validation, or choose 0 as 'folds' of "
            "the recipe for the last weights of a training on all."
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
