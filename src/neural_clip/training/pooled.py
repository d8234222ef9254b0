"""Corpora that show images of one database, pooled in a training: no test concept of any of them is learnt from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from neural_clip.errors import DataError
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.stimuli import database_of, numbered, packed
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.several_corpora import PooledDataset


def leave_out_test_concepts(parts: Sequence[RecordingDataset]) -> list[str]:
    """Leave recordings out whose image or concept is tested in any of the data sets, where several share a database.

    Of several sets of one modality, none is trained on images or whole concepts that another one validates on, either.

    One data set alone stays as it is, whatever its split protocol; so do images that one corpus alone names.

    Args:
        parts (sequence of [`RecordingDataset`]): Training and validation splits of all data sets, in any order. They
            are changed in place, and `left_out` of each says how much went.

    Returns:
        `list[str]`: What is to be said before training starts.

    Raises:
        DataError: If nothing is left of a split, or of somebody who is trained on, or one of them has numbers in place
            of the names of its images.
    """
    notes = []
    databases = [database_of(part.part.facts.corpus) for part in parts]
    for database in sorted({name for name in databases if name}):
        own = [part for part, name in zip(parts, databases, strict=True) if name == database]
        sets = {part.part.facts.fingerprint: part.part.data for part in own}
        if len(sets) > 1:
            _check_named(own, database)
            images, concepts = _tested(sets.values())
            names = " and ".join(f"'{data.name}'" for data in sets.values())
            held_out = {id(part): _held_out(part, own) for part in own}  # before anything goes
            for part in own:
                also, theirs = held_out[id(part)]
                note = _leave_out(part, images | also, concepts | theirs, f"{names} ({database})")
                notes += [note] if note else []
    return notes


def _check_named(parts: Sequence[RecordingDataset], database: str) -> None:
    """Raise where images of a data set have numbers, so that nobody can tell which of them others hold out."""
    for part in parts:
        if numbered(part.part.shown_ids):
            other = next(one for one in parts if not _of_one_set(one, part))
            raise DataError(
                f"'{part.part.data.name}' ({part.part.facts.corpus}) has numbers in place of the names of its images, "
                f"and '{other.part.data.name}' shows images of {database} too: nobody can tell which of them it holds "
                "out. Prepare the first with `--image-metadata` (image_metadata.npy of THINGS-EEG2), or train them "
                "one by one."
            )


def _tested(sets: Iterable[PreparedSet]) -> tuple[set[str], set[str]]:
    """Images and concepts of the test splits of all people."""
    images: set[str] = set()
    concepts: set[str] = set()
    for data in sets:
        if (data.facts.splits.get("test") or {}).get("rows"):
            shown = data.shown_images("test")
            images |= set(shown.image_ids)
            concepts |= set(shown.concepts) - {""}
    return images, concepts


def _held_out(part: RecordingDataset, parts: Sequence[RecordingDataset]) -> tuple[set[str], set[str]]:
    """What other sets of its modality validate on, for a training split: images, and concepts they hold out whole."""
    images: set[str] = set()
    concepts: set[str] = set()
    for other in parts if part.part.name == "train" else ():
        if other.part.name == "validation" and other.modality == part.modality and not _of_one_set(other, part):
            learnt = [one for one in parts if one.part.name == "train" and _of_one_set(one, other)]
            images |= set(other.part.shown_images.image_ids)
            learnt_concepts = (one.part.shown_images.concepts for one in learnt)
            concepts |= set(other.part.shown_images.concepts) - {""}.union(*learnt_concepts)
    return images, concepts


def _of_one_set(part: RecordingDataset, other: RecordingDataset) -> bool:
    return part.part.facts.fingerprint == other.part.facts.fingerprint


def _leave_out(part: RecordingDataset, images: set[str], concepts: set[str], names: str) -> str:
    """Keep the other rows; what is to be said, empty where all stay."""
    shown = part.part.shown_images
    named = dict(zip(shown.image_ids, shown.concepts, strict=True))
    gone = {image_id for image_id, concept in named.items() if image_id in images or concept in concepts}
    out = np.isin(part.part.image_ids, sorted(gone))
    name, split = part.part.data.name, {"train": "training"}.get(part.part.name, part.part.name)
    n_concepts = len({named[image_id] for image_id in gone})
    images_of = f"{len(gone)} image{'s' * (len(gone) > 1)} of {n_concepts} concept{'s' * (n_concepts > 1)}"
    told = f"{out.sum()} of the {len(out)} {split} recordings of '{name}' ({images_of})"
    lost = sorted(set(part.part.subjects.tolist()) - set(part.part.subjects[~out].tolist()))
    if lost and (out.all() or part.part.name == "train"):
        others = "test images" if part.part.name == "train" else "validation concepts (--seed)"
        raise DataError(
            f"{told} show what is held out in {names}, and nothing is left of {', '.join(lost)}. Data sets that share "
            "their images are trained together without what one of them holds out: train them one by one, or "
            f"prepare them with other {others}."
        )
    part.left_out = {"rows": int(out.sum()), "images": len(gone), "concepts": n_concepts}
    if not out.any():
        return ""
    part.keep(np.flatnonzero(~out))
    return f"{told} are left out: they are held out in {names}."


def seen_stimuli(parts: Sequence[RecordingDataset | PooledDataset]) -> list[dict[str, Any]]:
    """What the record of a checkpoint says of the images that it was trained and chosen on, of shared databases."""
    found = []
    for part in (each for pooled in parts for each in pooled.sets):
        database = database_of(part.part.facts.corpus)
        if database is not None and not numbered(part.part.shown_ids):
            shown = part.part.shown_images
            found.append({
                "modality": part.modality, "corpus": part.part.facts.corpus,
                "fingerprint": part.part.facts.fingerprint, "database": database, "split": part.part.name,
                "images": len(shown.image_ids), "left_out": part.left_out,
                "concepts": packed(dict(zip(shown.image_ids, shown.concepts, strict=True))),
            })  # fmt: skip
    return found


def with_seen(
    stimuli: list[dict[str, Any]], parts: Sequence[RecordingDataset | PooledDataset]
) -> list[dict[str, Any]] | None:
    """What [`seen_stimuli`] listed before, and further recordings; `None` where one has numbers in place of names."""
    shown = [each.part for pooled in parts for each in pooled.sets]
    if any(database_of(part.facts.corpus) and numbered(part.shown_ids) for part in shown):
        return None
    return [*stimuli, *seen_stimuli(parts)]
