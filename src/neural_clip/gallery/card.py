"""The card (`README.md`) of a saved gallery: what it holds, of whom, on which terms, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.checkpoint_card import listed
from neural_clip.gallery.columns import IMAGE, PIXELS, VECTOR, column_of
from neural_clip.markup import code, markdown, one_line
from neural_clip.prepared.card import size_category
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.terms import licences_of, shared_licence, terms_of

if TYPE_CHECKING:
    import datasets

    from neural_clip.gallery.embedder import CheckpointIdentity
    from neural_clip.targets.identity import EncoderIdentity

TEMPLATE = Path(__file__).with_name("card.md")
UNKNOWN = [{"corpus": "a source that is not recorded", "redistribution": None}]


def card_text(
    rows: datasets.Dataset, encoder: EncoderIdentity | None, checkpoint: CheckpointIdentity | None,
    terms: Mapping[str, list[dict] | None],
) -> str:  # fmt: skip
    """Write the card of a gallery.

    Args:
        rows (`datasets.Dataset`): All of them.
        encoder, checkpoint: What embedded the images and the recordings.
        terms (`Mapping[str, list[dict]]`): By modality, what the data sets state that rows were made of; `None` where
            nobody knows.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    kind: Any = rows.features[VECTOR]
    entries = [entry for stated in terms.values() for entry in (UNKNOWN if stated is None else stated)]
    simulated = any(entry.get("simulated") for entry in entries)
    title = f"Gallery of {listed(_title(name) for name in terms)}"
    title += "" if IMAGE in terms else " recordings"
    title += " (simulated)" if simulated else ""
    licence: dict[str, Any] = {**shared_licence(licences_of(entries), "terms-of-the-data")}
    data = DatasetCardData(
        pretty_name=one_line(title),
        tags=["neural-clip", "neural-clip-gallery", *terms, *(["simulated"] if simulated else [])],
        size_categories=[size_category(len(rows))],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data-*.arrow"}]}],
        **licence,
    )
    card = DatasetCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=title,
        simulated=simulated,
        terms=terms_of(terms),
        n_rows=f"{len(rows):,}",
        width=kind.length,
        dtype=kind.feature.dtype,
        counts=_counts(rows),
        encoder=encoder,
        checkpoint=checkpoint,
        n_pictures=sum(one is not None for one in column_of(rows, PIXELS)),
        sources=[(_title(name), UNKNOWN if stated is None else stated) for name, stated in terms.items()],
        people=checkpoint is not None and not _nobody(terms),
        markdown=markdown,
        code=code,
    )
    return card.content + "\n"


def _nobody(terms: Mapping[str, list[dict] | None]) -> bool:
    """Whether all recordings are known to be simulated."""
    recorded = [entries for modality, entries in terms.items() if modality != IMAGE]
    return all(entries and all(entry.get("simulated") for entry in entries) for entries in recorded)


def _title(modality: str) -> str:
    """As sentences name it."""
    return MODALITIES[modality].title if modality in MODALITIES else "images"


def _counts(rows: datasets.Dataset) -> list[tuple[str, int, int, int]]:
    """Title, rows, images and people of each modality."""
    labels = [np.array(column_of(rows, name)) for name in ("modality", "image_id", "subject")]
    found = []
    for modality in np.unique(labels[0]):
        images, people = (column[labels[0] == modality] for column in labels[1:])
        found.append((_title(modality), len(images), len(np.unique(images)), len(set(people) - {""})))
    return found
