"""The recordings of a run: opened, and checked before the time of training is spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import TrainingArguments

from neural_clip.errors import DataError
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.modalities import kind_of
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.streamed_rows import StreamedRows
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.pooled import leave_out_test_concepts
from neural_clip.training.several_corpora import PooledDataset, check_held_out


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
            DataError: If there is nothing to tell apart in a split; data sets share their images and nothing is left
                without what one of them holds out; or a corpus holds out images that another one of the same
                modality is trained on.
        """
        sets: dict[str, list[RecordingDataset]] = {}
        notes, validation = [], []
        for key, opened in data.items():
            known = subjects[kind_of(key)]
            sets.setdefault(kind_of(key), []).append(RecordingDataset.open(opened, "train", known))
            counts = opened.facts.subject_splits
            if any(counts.get(subject, {}).get("validation") for subject in known):
                validation.append(RecordingDataset.open(opened, "validation", known))
            else:
                people = [name for name in known if name in opened.facts.subjects]
                notes.append(f"'{opened.name}' has no validation recordings of {people}; none are scored.")
            notes += notes_on_test(opened.name, opened.facts)
        left_out = leave_out_test_concepts([*(part for own in sets.values() for part in own), *validation])
        for part in validation:
            check_validation(part)
        for own in sets.values():
            check_held_out(own, list(data.values()))
        train = [PooledDataset(own) if len(own) > 1 else own[0] for own in sets.values()]
        notes = [note for part in train for note in notes_on_train(part, batch_size)] + left_out + notes
        return cls(train, validation, notes)


def notes_on_train(part: RecordingDataset | PooledDataset, batch_size: int) -> list[str]:
    """What is to be said of the training recordings of a modality.

    Raises:
        DataError: If the images of a data set cannot be told apart.
    """
    for each in part.sets:
        embeds = each.part.gallery_embeds
        if (embeds == embeds[0]).all():
            raise DataError(
                f"The images of the training split of {each.name} have 1 embedding (of {len(embeds)} image ids); "
                "learning needs two or more that differ."
            )
    if len(part) < batch_size:
        alone = len(part.sets) == 1
        hold = f"the training split of {part.name} holds" if alone else f"the training splits of {part.name} hold"
        return [
            f"{hold} {len(part)} recordings, fewer than a batch of {batch_size}: each of "
            f"{'its' if alone else 'their'} batches holds all of them."
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
        found, more = ("one image", ", or `--gallery all`") if n_images else ("no image", "")
        return [f"the test split of '{name}' shows {found}; an evaluation needs two or more{more}."]
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
