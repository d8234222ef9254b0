"""Which images are searched: those of the scored split, of the whole set, or those of another set as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neural_clip.errors import DataError, check_option
from neural_clip.files.places import command_line
from neural_clip.gallery.building import SAME_IMAGE_COSINE
from neural_clip.prepared.reader import ImageTable, PreparedSet, Split
from neural_clip.prepared.splits import SPLITS
from neural_clip.retrieval.scores import nearest_rows
from neural_clip.retrieval.tiles import unit_vectors
from neural_clip.targets.identity import identity_of


def searched_images(part: Split, gallery: str) -> ImageTable:
    """The images in which those of a split are looked for, sorted by id.

    Args:
        part ([`Split`]): What is scored.
        gallery (`str`): `"all"` for all images of its data set, `"train"`, `"validation"` or `"test"` for those of a
            split, or the folder (or Hub name) of another prepared data set, whose images join those of `part`. A
            picture that is in both counts once; it is recognised by its embedding, not by its name.

    Raises:
        DataError: If there is no such data set, or no or another image encoder embedded its images.
    """
    if gallery == "all":
        return part.data.images.of(sorted(part.data.images.image_ids))
    if gallery in SPLITS:
        return part.data.shown_images(gallery)
    check_gallery(gallery)
    return _joined(part, PreparedSet.open(gallery))


def check_gallery(gallery: str) -> None:
    """Raise a `DataError` where a gallery is neither a word for one nor the folder or Hub name of a data set."""
    if not Path(gallery).exists() and "/" not in gallery:
        check_option("gallery", gallery, ("all", *SPLITS, "FOLDER"))


def _joined(part: Split, other: PreparedSet) -> ImageTable:
    """The images of a split and those of another data set, under new names where two pictures share one."""
    if part.facts.category_level != other.facts.category_level:
        raise DataError(
            f"'{part.data.name}' and '{other.name}' cannot be searched together: images are categories in one only."
        )
    if not other.facts.image_encoder:
        raise DataError(
            f"The images of '{other.name}' have no embeddings; run "
            f"{command_line('neural-clip', 'embed-images', other.name)}."
        )
    identity_of(part.facts).require(
        identity_of(other.facts), f"'{part.data.name}'", f"'{other.name}'", means=False
    )  # fmt: skip
    other = other.moved_to(part.facts.target_space)
    own, more = part.shown_images, other.images
    nearest = own.embeds[nearest_rows(more.embeds, own.embeds)[:, 0]]
    cosines = (unit_vectors(more.embeds) * unit_vectors(nearest)).sum(axis=1)
    new = np.flatnonzero(cosines < SAME_IMAGE_COSINE)
    names, taken = [], set(own.image_ids)
    for row in new:
        name = more.image_ids[row]
        while name in taken:
            name = f"{other.folder.name}/{name}"
        names.append(name)
        taken.add(name)
    joined = ImageTable(
        [*own.image_ids, *names],
        np.concatenate([own.embeds, more.embeds[new]]),
        [*own.concepts, *(more.concepts[row] for row in new)],
        [*own.categories, *(more.categories[row] for row in new)],
    )
    return joined.of(sorted(joined.image_ids))
