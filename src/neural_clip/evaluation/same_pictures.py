"""Recordings of the same pictures in two modalities, of any split, that a checkpoint has not learnt from.

Corpora that show images of one database (`prepared/stimuli.py`) seldom test the same ones: no test image of
THINGS-EEG2 is a test image of THINGS-fMRI, but 77 are training images there. Training on both leaves these out. So the
recordings of them are unseen, and conversion is scored on them exactly: the right answer is the recording of that very
picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.evaluation.options import EvaluateOptions
from neural_clip.evaluation.seen import images_seen
from neural_clip.gallery.embedding import EmbeddedSplit, embed_split
from neural_clip.prepared.modalities import kind_of
from neural_clip.prepared.reader import Split
from neural_clip.prepared.splits import SPLITS
from neural_clip.prepared.stimuli import database_of, numbered
from neural_clip.retrieval.tiles import unit_vectors

if TYPE_CHECKING:
    from neural_clip.modeling_neural_clip import NeuralClipModel

# Two copies of a picture that were resized in different ways come near 1, two pictures of THINGS reach 0.5 to 0.9.
SAME_NAME_COSINE = 0.95


@dataclass(frozen=True, eq=False)
class SamePictures:
    """Recordings of a pair of modalities that answered to the same pictures.

    Args:
        source, target ([`EmbeddedSplit`]): Queries and gallery, of these pictures alone.
        told (`dict`): What the report says: `known`, whether it is known what the checkpoint has seen; `images`, how
            many pictures; `query_splits` and `gallery_splits`, how many of them are of each split; `seen`, how many
            more were left out as training has seen them. Where it is not known, the first alone, and source and target
            are the scored splits.
    """

    source: EmbeddedSplit
    target: EmbeddedSplit
    told: dict[str, Any]

    def turned(self) -> SamePictures:
        """The other direction."""
        names = {"query_splits": "gallery_splits", "gallery_splits": "query_splits"}
        told = {name: self.told[names.get(name, name)] for name in self.told}
        return SamePictures(self.target, self.source, told)


class Recorded:
    """All recordings of the scored people in one data set, by split.

    Args:
        part ([`EmbeddedSplit`]): The scored split.
        model ([`NeuralClipModel`]): What embeds the others.
        options ([`EvaluateOptions`]): How.
    """

    def __init__(self, part: EmbeddedSplit, model: NeuralClipModel, options: EvaluateOptions) -> None:
        self.scored, self.model, self.options = part.of_its_images(), model, options
        people, counts = set(part.subjects.tolist()), part.facts.subject_splits
        self.splits: dict[str, Split] = {}
        for name in SPLITS:
            own = [subject for subject in part.facts.subjects if subject in people and counts[subject].get(name)]
            if own:
                self.splits[name] = self.scored if name == part.name else part.data.split(name, own)
        self.split_of = {str(image): name for name, split in self.splits.items() for image in split.shown_ids}

    def of(self, images: list[str]) -> EmbeddedSplit:
        """Recordings of these images in the space of the checkpoint."""
        asked, found = self.options, []
        for split in self.splits.values():
            rows = split.at(np.flatnonzero(np.isin(split.image_ids, images)))
            if len(rows) and not isinstance(rows, EmbeddedSplit):
                rows = embed_split(
                    self.model, rows, batch_size=asked.batch_size, device=asked.device, subject=asked.subject,
                    montage=asked.montage,
                )  # fmt: skip
            found += [rows] if isinstance(rows, EmbeddedSplit) else []
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in found]) for name in EmbeddedSplit.by_row
        }
        nothing = np.empty((len(columns["image_ids"]), 0), dtype=np.float32)  # what was recorded is embedded already
        return replace(self.scored, recordings=nothing, **columns)

    def counts(self, images: list[str]) -> dict[str, int]:
        """How many of these images are of each split."""
        splits = [self.split_of[name] for name in images]
        return {name: splits.count(name) for name in SPLITS if name in splits}


def same_pictures(
    checkpoint: str | Path, model: NeuralClipModel, splits: Mapping[str, EmbeddedSplit], options: EvaluateOptions
) -> dict[tuple[str, str], SamePictures]:
    """Recordings of the same pictures for each pair of modalities whose corpora share a database, both ways.

    A picture counts that is in the scored test split of one of the two and in any split of the other, under one name
    and with nearly one embedding, and that the checkpoint was neither trained nor chosen on in any modality.

    Args:
        checkpoint (`str` or `Path`): Where the record of training lies.
        model ([`NeuralClipModel`]): It, opened.
        splits (`Mapping[str, EmbeddedSplit]`): What is scored, by modality.
        options ([`EvaluateOptions`]): Of the evaluation; nothing is found for splits other than the test split.
    """
    own = {name: part for name, part in splits.items() if _database(part) is not None and options.split == "test"}
    found: dict[tuple[str, str], SamePictures] = {}
    for one, other in combinations(own, 2):
        if kind_of(one) == kind_of(other) or _database(own[one]) != _database(own[other]):
            continue
        pair = _pair(checkpoint, *(Recorded(own[name], model, options) for name in (one, other)))
        found[one, other], found[other, one] = pair, pair.turned()
    return found


def _pair(checkpoint: str | Path, source: Recorded, target: Recorded) -> SamePictures:
    """One direction of a pair of modalities."""
    if (listed := images_seen(checkpoint, source.scored.data)) is None:
        return SamePictures(source.scored, target.scored, {"known": False})
    common = _common(source, target)
    seen = set(common) & {image for _, named in listed for image in named}
    unseen = [name for name in common if name not in seen]
    told = {"known": True, "images": len(unseen), "seen": len(seen), "query_splits": source.counts(unseen),
            "gallery_splits": target.counts(unseen)}  # fmt: skip
    return SamePictures(source.of(unseen), target.of(unseen), told)


def _database(part: Split) -> str | None:
    return None if numbered(part.shown_ids) else database_of(part.facts.corpus)


def _common(one: Recorded, other: Recorded) -> list[str]:
    """Pictures that both have, and one of them tests, sorted."""
    tested = {str(name) for part in (one, other) for name in part.scored.shown_ids}
    names = sorted(tested & set(one.split_of) & set(other.split_of))
    if not names:
        return []
    first, second = (unit_vectors(part.scored.data.images.of(names).embeds) for part in (one, other))
    alike = (first * second).sum(axis=1) >= SAME_NAME_COSINE
    return [name for name, same in zip(names, alike, strict=True) if same]
