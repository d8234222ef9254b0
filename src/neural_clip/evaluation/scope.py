"""Whom an evaluation scores and what it searches: chosen subjects of a split, and the gallery."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from neural_clip.errors import DataError, check_option
from neural_clip.evaluation.options import EvaluateOptions
from neural_clip.evaluation.protocols import PROTOCOLS
from neural_clip.gallery.searched import searched_images
from neural_clip.prepared.reader import PreparedSet, Split


def scored_parts(data: Mapping[str, PreparedSet], options: EvaluateOptions) -> dict[str, Split]:
    """What is scored of each data set, and the images that are searched.

    Raises:
        DataError: If a subject is in none of the data sets, a data set has none of them or no recordings of the split,
            or a gallery lacks an image or holds a single one.
    """
    parts, wanted = {}, options.subjects
    everyone = sorted({name for opened in data.values() for name in opened.facts.subjects})
    for name in wanted or ():
        check_option("subjects", name, everyone)
    for modality, opened in data.items():
        own = None if wanted is None else [name for name in opened.facts.subjects if name in wanted]
        if own == []:
            raise DataError(f"'{opened.name}' has {opened.facts.subjects}, none of the subjects {list(wanted or ())}.")
        for name in own or ():
            if not opened.facts.subject_splits[name].get(options.split):
                raise DataError(f"'{opened.name}' has no {options.split} recordings of '{name}'; choose others.")
        part = opened.split(options.split, own)
        if options.gallery is not None:
            part = replace(part, searched=searched_images(part, options.gallery))
        _check_size(part, options)
        parts[modality] = part
    return parts


def _check_size(part: Split, options: EvaluateOptions) -> None:
    """Raise where one image is all there is."""
    one = f"The {part.name} recordings of '{part.data.name}' show one image, and a score needs another to compare with"
    if len(part.gallery_ids) < 2:
        n_images = len(part.data.images.image_ids)
        more = f" `--gallery all` searches the {n_images} images of the set." if n_images > 1 else ""
        raise DataError(f"{one}.{more}")
    if options.understand is not None and len(part.shown_ids) < 2:
        raise DataError(f"{one}. What was learned (--understand) is shown by images that have recordings.")


def other_split(part: Split, name: str, without: Collection[str] = ()) -> Split:
    """Another split of all subjects but those `without`; one without rows where the data set has none of theirs."""
    if people := _recorded(part, name, without):
        return part.data.split(name, people)
    return Split(part.data, name, [], part.subjects[:0], part.image_ids[:0])


def left_out_of(part: Split, protocol: str) -> list[str]:
    """Whose other recordings nothing is fitted on: people who are scored, where the protocol wants them unseen."""
    return sorted(set(part.subjects.tolist())) if PROTOCOLS[protocol].unseen_people else []


def fitted_splits(part: Split, left_out: Collection[str]) -> list[Split]:
    """Training, validation and scored rows."""
    names = ("train", "validation", part.name)
    return [part if name == part.name else other_split(part, name, left_out) for name in names]


def other_images(part: Split, name: str) -> np.ndarray:
    """Ids of the images of another split of all subjects, each once, sorted; recordings are not opened."""
    people = _recorded(part, name)
    return part.data.distinct(name, subjects=people) if people else part.image_ids[:0]


def _recorded(part: Split, name: str, without: Collection[str] = ()) -> list[str]:
    """Subjects who have recordings in a split."""
    counts = part.facts.subject_splits
    return [subject for subject in part.facts.subjects if subject not in without and counts[subject].get(name)]
