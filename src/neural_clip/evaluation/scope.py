"""Whom an evaluation scores and what it searches: chosen subjects of a split, and the gallery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from neural_clip.errors import DataError, check_option
from neural_clip.evaluation.options import EvaluateOptions
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
            raise DataError(f"'{opened.name}' has none of the subjects {list(wanted or ())}; it has {everyone}.")
        part = opened.split(options.split, own)
        if options.gallery is not None:
            part = replace(part, searched=searched_images(part, options.gallery))
        if len(part.gallery_ids) < 2:
            n_images = len(opened.images.image_ids)
            raise DataError(
                f"The {options.split} recordings of '{opened.name}' show one image, and a score needs another to "
                f"compare it with. `--gallery all` searches the {n_images} images of the set."
            )
        parts[modality] = part
    return parts


def other_split(part: Split, name: str) -> Split:
    """Another split of all subjects; one without rows where the data set has none."""
    if part.facts.splits[name]["rows"]:
        return part.data.split(name)
    return Split(part.data, name, [], part.subjects[:0], part.image_ids[:0])
