"""The recordings of a run: opened, and checked before the time of training is spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import TrainingArguments

from neural_clip.errors import DataError
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.modalities import kind_of
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.streamed_rows import StreamedRows
from neural_clip.training.batches import PooledDataset, RecordingDataset, same_images


@dataclass(frozen=True)
class Splits:
    """What a run learns from and is scored on.

    Args:
        train (`list[RecordingDataset or PooledDataset]`): One entry a modality.
        validation (`list[RecordingDataset]`): One entry a data set that has such recordings.
        notes (`list[str]`): What is to be said of them before training starts.
    """

    train: list[Any]
    validation: list[RecordingDataset]
    notes: list[str]

    @classmethod
    def open(cls, data: dict[str, PreparedSet], subjects: dict[str, list[str]], batch_size: int) -> Splits:
        """Open the training and the validation split of each data set.

        Args:
            data (`dict[str, PreparedSet]`): By modality, or `modality.corpus`.
            subjects (`dict[str, list[str]]`): Those of the model, by modality.
            batch_size (`int`): Recordings a batch.

        Raises:
            DataError: If there is nothing to tell apart in a split, or a corpus holds out images that another one of
                the same modality is trained on.
        """
        sets: dict[str, list[RecordingDataset]] = {}
        notes, validation = [], []
        for key, opened in data.items():
            known = subjects[kind_of(key)]
            sets.setdefault(kind_of(key), []).append(RecordingDataset.open(opened, "train", known))
            counts = opened.facts.subject_splits
            if any(counts.get(subject, {}).get("validation") for subject in known):
                validation.append(RecordingDataset.open(opened, "validation", known))
                check_validation(validation[-1])
            else:
                own = [name for name in known if name in opened.facts.subjects]
                notes.append(f"'{opened.name}' has no validation recordings of {own}; none are scored.")
            notes += notes_on_test(opened.name, opened.facts)
        train = [PooledDataset(own) if len(own) > 1 else own[0] for own in sets.values()]
        notes = [note for own in sets.values() for part in own for note in notes_on_train(part, batch_size)] + notes
        for own in sets.values():
            check_held_out(own, list(data.values()))
        return cls(train, validation, notes)


def check_held_out(train: list[RecordingDataset], data: list[PreparedSet]) -> None:
    """Raise a `DataError` where a corpus holds out an image that another one of the same modality is trained on.

    Args:
        train (`list[RecordingDataset]`): Training recordings of one modality, one entry a corpus.
        data (`list[PreparedSet]`): All data sets of the run.
    """
    for part in train if len(train) > 1 else ():
        for other in data:
            if other.key == part.key or other.facts.modality != part.modality:
                continue
            for split in (name for name in ("test", "validation") if other.facts.splits[name]["rows"]):
                shown = other.images.of(other.split(split).shown_ids)
                mine = part.part.data.images.of(part.part.shown_ids)
                if len(found := np.flatnonzero(same_images(mine, shown) >= 0)):
                    raise DataError(
                        f"{len(found)} of the {len(mine.image_ids)} training images of '{part.part.data.name}' are "
                        f"{split} images of '{other.name}', such as '{mine.image_ids[found[0]]}': what is scored on "
                        "them would be memory. Prepare one of the two without these images."
                    )


def notes_on_train(part: RecordingDataset, batch_size: int) -> list[str]:
    """What is to be said of a training split.

    Raises:
        DataError: If its images cannot be told apart.
    """
    name, embeds = part.part.data.name, part.part.gallery_embeds
    if (embeds == embeds[0]).all():
        raise DataError(
            f"The images of the training split of '{name}' have 1 embedding (of {len(embeds)} image ids); learning "
            "needs two or more that differ."
        )
    if len(part) < batch_size:
        return [
            f"the training split of '{name}' holds {len(part)} recordings, fewer than a batch of "
            f"{batch_size}: each of its batches holds all of them."
        ]
    return []


def notes_on_streaming(train: list[RecordingDataset], shuffle_buffer_size: int) -> list[str]:
    """What is to be said where streamed row groups leave the memory before they are needed again."""
    sets = [each for part in train for each in part.sets]
    files = [part.part.recordings.files for part in sets if isinstance(part.part.recordings, StreamedRows)]
    n_bytes, most = sum(each.n_bytes for each in files), sum(each.share for each in files)
    if shuffle_buffer_size or n_bytes <= most:
        return []
    return [
        f"the recordings take {n_bytes / 2**30:.1f} GB, of which {most / 2**30:.1f} GB are kept in memory: row groups "
        "are read again and again. `--shuffle-buffer-size 10000` shuffles so many recordings at a time and reads each "
        "row group once in a pass."
    ]


def check_validation(part: RecordingDataset) -> None:
    """Raise a `DataError` where a validation split cannot be scored."""
    if (n_images := len(part.part.gallery_ids)) < 2:
        raise DataError(
            f"The validation split of '{part.part.data.name}' shows {n_images} image to the subjects that are "
            "trained; 2-way accuracy needs two or more. Prepare the data set with a larger share for validation."
        )


def notes_on_test(name: str, facts: Facts) -> list[str]:
    """What evaluation will not be able to do with a test split."""
    test = facts.splits.get("test", {})
    if (n_images := test.get("images", 2)) < 2:
        found = "one image" if n_images else "no image"
        return [f"the test split of '{name}' shows {found}; an evaluation needs two or more."]
    if test.get("concepts", 2) < 2:
        return [f"the test split of '{name}' shows one concept; scores of classes will say nothing."]
    return []


def without_validation(arguments: TrainingArguments, asked: dict[str, Any], places: str) -> None:
    """Let training go for its fixed number of steps, as there is no validation split to choose an epoch on.

    Args:
        arguments (`TrainingArguments`): Changed in place.
        asked (`dict`): The `training` section of the recipe.
        places (`str`): The data sets, for the message.

    Raises:
        DataError: If the recipe asks for something that needs a validation split.
    """
    for name in ("eval_strategy", "load_best_model_at_end", "metric_for_best_model", "eval_on_start", "save_strategy"):
        value = asked.get(name)
        if value == "best" if name == "save_strategy" else value not in (None, False, "no"):
            raise DataError(
                f"'training.{name}' is {value!r}, but {places} hold no validation recordings of these subjects."
            )
    arguments.eval_strategy, arguments.load_best_model_at_end = type(arguments.eval_strategy)("no"), False
    arguments.metric_for_best_model, arguments.do_eval = None, False
