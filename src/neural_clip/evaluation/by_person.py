"""What a protocol that goes person by person adds to a report; the scores are those of `people.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.evaluation.checkpoints import encodes
from neural_clip.evaluation.options import EvaluateOptions
from neural_clip.evaluation.people import (
    Gallery,
    Queries,
    concept_templates,
    exact_images,
    has_means,
    mean_queries,
    mean_recordings,
    person_rows,
    repeats_of,
)
from neural_clip.evaluation.protocols import PROTOCOLS, conditions, meaning_of, published_beside
from neural_clip.gallery.embedding import EmbeddedSplit, embed_split
from neural_clip.prepared.reader import Split

if TYPE_CHECKING:
    from neural_clip.modeling_neural_clip import NeuralClipModel


def person_galleries(parts: Mapping[str, Split], options: EvaluateOptions) -> dict[str, list[Gallery]]:
    """What is searched by modality, for protocols that go person by person; none for others.

    Raises:
        DataError: If there are no templates of what was shown.
    """
    found: dict[str, list[Gallery]] = {}
    for modality, part in parts.items() if PROTOCOLS[options.protocol].by_person else ():
        found[modality] = [exact_images(part)]
        if options.templates is not None:
            found[modality].append(concept_templates(part, options.templates))
    return found


@dataclass
class ByPerson:
    """Queries, galleries and scores of each modality.

    Args:
        means (`dict[str, dict[str, EmbeddedSplit]]`): By modality, mean recordings in the space of each checkpoint;
            none where every image was shown once, or rows are means already.
        repeats (`dict[str, tuple[int, int]]`): Recordings of an image by a person, at least and at most.
        averaged (`dict[str, bool]`): Whether rows are means already.
        galleries (`dict[str, list[Gallery]]`): What is searched, by modality.
        told (`dict[str, str]`): Under what each modality is scored.
        meaning (`str`): What the scores are.
        published (`list[dict]`): Results that they may stand beside.
        rows (`dict[str, list[dict]]`): What was found.
    """

    means: dict[str, dict[str, EmbeddedSplit]]
    repeats: dict[str, tuple[int, int]]
    averaged: dict[str, bool]
    galleries: dict[str, list[Gallery]]
    told: dict[str, str]
    meaning: str
    published: list[dict]
    rows: dict[str, list[dict]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        models: Mapping[str, NeuralClipModel],
        parts: Mapping[str, Split],
        galleries: Mapping[str, list[Gallery]],
        options: EvaluateOptions,
    ) -> ByPerson | None:
        """Average and embed what the protocol asks for; nothing for protocols that do not go person by person."""
        if not PROTOCOLS[options.protocol].by_person:
            return None
        published = [entry.as_dict() for entry in published_beside(options.protocol, parts.values())]
        found = cls({}, {}, {}, dict(galleries), {}, meaning_of(options.protocol, parts.values()), published)
        for modality, part in parts.items():
            *ends, found.averaged[modality] = repeats_of(part)
            found.repeats[modality] = (ends[0], ends[1])
            found.told[modality] = conditions(part)
            found.means[modality] = {}
            if has_means(part):
                means = mean_recordings(part)
                for name, model in models.items():
                    if encodes(model, part.data, options):
                        found.means[modality][name] = embed_split(
                            model, means, subject=options.subject, batch_size=options.batch_size,
                            device=options.device, montage=options.montage,
                        )  # fmt: skip
        return found

    def add(
        self, modality: str, embedded: Mapping[str, Mapping[str, EmbeddedSplit]],
        predictions: Mapping[str, Mapping[str, np.ndarray]], seed: int,
    ) -> None:  # fmt: skip
        """Score checkpoints and baselines.

        Args:
            modality (`str`): Which.
            embedded (`Mapping`): Single recordings in the space of each checkpoint that has the modality.
            predictions (`Mapping[str, Mapping]`): By baseline, `predictions`: what it makes of them.
            seed (`int`): Of intervals.
        """
        rows, repeats = [], self.repeats[modality]
        of_each = repeats if self.averaged[modality] else None
        for name, splits in embedded.items():
            part = splits[modality]
            queries = [Queries(part.embeds, part.subjects, part.image_ids, of_each)]
            if (of_means := self.means[modality].get(name)) is not None:
                queries.append(Queries(of_means.embeds, of_means.subjects, of_means.image_ids, repeats))
            rows += person_rows(name, queries, self.galleries[modality], seed)
        for name, kept in predictions.items():
            made = kept["predictions"]
            queries = [Queries(made, part.subjects, part.image_ids, of_each)]
            if self.means[modality]:
                queries.append(mean_queries(made, part, repeats))
            rows += person_rows(name, queries, self.galleries[modality], seed)
        self.rows[modality] = rows

    def as_dict(self) -> dict[str, Any]:
        """For the protocol of `report.json`."""
        templates = {
            modality: gallery.made_of
            for modality, galleries in self.galleries.items()
            for gallery in galleries
            if gallery.made_of
        }
        return {
            "meaning": self.meaning, "conditions": self.told, "by_person": self.rows, "templates": templates,
            "published": self.published,
        }  # fmt: skip
