"""Which corpora show images of one database under the same names, and lists of such images in a record.

An image of THINGS is called by the stem of its file, `aircraft_carrier_06s`, in all corpora that show it; its concept
is what stands before the last underscore. An image of NSD is called by its number among the 73,000, counted from 0, as
in `nsd-00042`, and has no concept. So a training image of one corpus is known as a test image of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from neural_clip.errors import DataError

# Corpora by the database whose names their `image_id` and `concept` are.
DATABASES = {
    "THINGS": ("things_meg", "things_eeg2", "things_eeg1", "things_fmri", "alljoined"),
    "NSD": ("nsd", "alljoined1"),
}


def database_of(corpus: str) -> str | None:
    """The database whose names the images of a corpus have; `None` for images that one corpus alone names so."""
    return next((name for name, corpora in DATABASES.items() if corpus in corpora), None)


def numbered(image_ids: Iterable[str]) -> bool:
    """Whether images have numbers in place of the names of the database: those of Alljoined without its table."""
    return any(str(image_id).startswith("alljoined-") for image_id in image_ids)


def packed(named: Mapping[str, str]) -> dict[str, str]:
    """Images by concept, as short as they can be read.

    Args:
        named (`Mapping[str, str]`): Concept of each image id. Ids hold no spaces, as those of all `DATABASES`.

    Returns:
        `dict[str, str]`: For each concept its image ids in order, divided by spaces. An id that begins with the
        concept is told by what follows: `{"aircraft_carrier": "_06s _07s"}`.
    """
    found: dict[str, list[str]] = {}
    for image_id, concept in sorted(named.items(), key=lambda item: (item[1], item[0])):
        begins = concept and image_id.startswith(f"{concept}_")
        found.setdefault(concept, []).append(image_id[len(concept) :] if begins else image_id)
    return {concept: " ".join(endings) for concept, endings in found.items()}


def unpacked(concepts: Mapping[str, str]) -> dict[str, str]:
    """Concept of each image id of what [`packed`] gave."""
    return {
        (concept + ending if ending.startswith("_") else ending): concept
        for concept, endings in concepts.items()
        for ending in endings.split()
    }


def shown_images(record: Mapping, database: str, path: str) -> list[tuple[str, dict[str, str]]] | None:
    """Images of a database that a checkpoint was trained or chosen on, as its record tells.

    Args:
        record (`Mapping`): What `training.json` holds.
        database (`str`): Key of `DATABASES`.
        path (`str`): The checkpoint, for messages.

    Returns:
        `list[tuple[str, dict[str, str]]]`, *optional*: Corpus, and concept of each image id, of each data set and
        split; `None` where a corpus of this database was trained on whose images are not listed: by older records, and
            of Alljoined where images have numbers.

    Raises:
        DataError: If the entry is damaged.
    """
    entries = record.get("stimuli")
    try:
        if entries is None:
            corpora = [part["corpus"] for part in (record.get("data") or {}).values()]
            return None if any(database_of(name) == database for name in corpora) or not corpora else []
        listed = {entry["corpus"] for entry in entries}
        learnt = {part["corpus"] for part in (record.get("data") or {}).values()}
        if any(database_of(name) == database for name in learnt - listed):
            return None  # its images have other names
        chosen: Iterable = [entry for entry in entries if entry["database"] == database]
        return [(str(entry["corpus"]), unpacked(entry["concepts"])) for entry in chosen]
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"The record of '{path}' is damaged: its 'stimuli' are no lists of images.") from error
