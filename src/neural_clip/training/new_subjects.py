"""Whom to adapt to, their layers, and which of their recordings are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from neural_clip.errors import DataError
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.options import WITHOUT, AdaptOptions
from neural_clip.training.recording_time import first_minutes, trial_seconds

VALIDATION_SHARE = 0.2  # of the images that are used, two at least


def choose_subjects(data: PreparedSet, known: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """Subjects to fit: those wanted, or all of the data set whom the model does not know; in the data set's order.

    Raises:
        DataError: If a subject is known already, is not in the data set, has no training or validation recordings, or
            nobody is left.
    """
    present = list(data.facts.subjects)
    if wanted is None:
        new = [name for name in present if name not in known]
        if not new:
            raise DataError(f"The model knows every subject of '{data.name}' already: {present}.")
    else:
        new = [name for name in present if name in wanted]
    for name in wanted or ():
        if name in known:
            raise DataError(f"'--subjects' names {name!r}, whom the model knows already; it knows {list(known)}.")
        if name not in present:
            raise DataError(f"'--subjects' names {name!r}, but '{data.name}' has {present}.")
    for name in new:
        for split, use in (("train", "learns from them"), ("validation", "chooses the epoch by them")):
            if not data.facts.subject_splits[name].get(split):
                raise DataError(f"'{data.name}' has no {split} recordings of {name!r}, but adapting {use}. {WITHOUT}")
    return new


def add_subjects(model: NeuralClipModel, facts: Facts, subjects: Sequence[str]) -> list[torch.nn.Parameter]:
    """Give each of the new subjects a layer, freeze everything else, and return what is left to learn."""
    modality = facts.modality
    for name in subjects:
        model.add_subject(modality, name, None if MODALITIES[modality].sensors else facts.n_voxels[name])
    model.requires_grad_(False)
    encoder: Any = model.encoders[modality]
    layers = encoder.alignment.layers
    return [parameter for name in subjects for parameter in layers[name].requires_grad_(True).parameters()]


def fraction_rows(subject_ids: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Rows of a random share of each subject's recordings, two at least, in the order of the rows."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(subject_ids == subject) for subject in np.unique(subject_ids)]
    kept = [rng.permutation(those)[: max(round(fraction * len(those)), 2)] for those in rows]
    return np.sort(np.concatenate(kept))


def choose_recordings(train: RecordingDataset, validation: RecordingDataset, options: AdaptOptions) -> float | None:
    """Keep the share, the minutes or the images that the options ask for.

    A share and minutes are of the training recordings; images are of both splits.

    Returns:
        `float`, *optional*: Seconds a trial, `None` where they are unknown.
    """
    per_trial = trial_seconds(train.part.facts, options.seconds_per_trial)
    if options.images is not None:
        rows = rows_of_images(train, validation, options.images, options.seed)
        for part, kept in zip((train, validation), rows, strict=True):
            part.keep(kept)
    elif options.minutes is None:
        train.keep(fraction_rows(train.subject_ids, options.train_fraction, options.seed))
    else:
        train.keep(first_minutes(train, options.minutes, per_trial, options.seed))
    return per_trial


def rows_of_images(
    train: RecordingDataset, validation: RecordingDataset, n_images: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of so many images of each subject, drawn at random from both splits.

    Where the validation split has too few, there are more of the training split.

    Raises:
        DataError: If a subject has fewer images.
    """
    kept: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for subject in np.unique(train.subject_ids):
        own = [np.flatnonzero(part.subject_ids == subject) for part in (train, validation)]
        shown = [part.part.image_ids[rows] for part, rows in zip((train, validation), own, strict=True)]
        n_train, n_validation = (len(np.unique(ids)) for ids in shown)
        wanted = min(max(round(VALIDATION_SHARE * n_images), 2), n_validation)
        if n_train < n_images - wanted:
            raise DataError(
                f"Invalid value for the 'images' parameter. It takes {n_images - wanted} images of the training split "
                f"and {wanted} of the validation split, but {train.subjects[subject]!r} has {n_train} and "
                f"{n_validation} there in '{train.part.data.name}'."
            )
        for rows, ids, n, found in zip(own, shown, (n_images - wanted, wanted), kept, strict=True):
            drawn = np.random.default_rng(seed).permutation(np.unique(ids))[:n]
            found.append(rows[np.isin(ids, drawn)])
    first, second = (np.sort(np.concatenate(rows)) for rows in kept)
    return first, second
