"""Recordings of an embedded split as the analyses of `understanding` read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.errors import DataError
from neural_clip.gallery.embedding import EmbeddedSplit
from neural_clip.prepared.modalities import MODALITIES

if TYPE_CHECKING:
    from neural_clip.modeling_neural_clip import NeuralClipModel


@dataclass
class Analysis:
    """What every part of an analysis needs.

    Args:
        model ([`NeuralClipModel`]): In `eval()` mode, on `device`.
        output_dir (`Path`): Where everything is written.
        split (`str`): Split of the recordings.
        seed, device, batch_size, max_recordings, progress: see [`run.understand`].
        pictures (`dict[str, str]`): Titles and files of the pictures so far.
    """

    model: NeuralClipModel
    output_dir: Path
    split: str
    seed: int
    device: str
    batch_size: int
    max_recordings: int
    progress: bool
    pictures: dict[str, str]

    def stem(self, title: str, name: str) -> Path:
        """Path of a picture without ending, after noting its title."""
        self.pictures[title] = f"{name}.png"
        return self.output_dir / name


def display_name(part: EmbeddedSplit) -> str:
    """Modality as titles say it: simulated recordings are called so."""
    level = " (category level)" if part.category_level else ""
    return f"{'SIMULATED ' if part.facts.simulated else ''}{MODALITIES[part.modality].title}{level}"


def some_simulated(splits: dict[str, EmbeddedSplit]) -> str:
    """What a title says of several modalities."""
    flags = [bool(part.facts.simulated) for part in splits.values()]
    return " (SIMULATED recordings)" if all(flags) else " (some recordings SIMULATED)" if any(flags) else ""


def check_embedded(part: EmbeddedSplit) -> None:
    """Raise a `DataError` where embeddings are not finite or do not fit their split, or one image is alone."""
    for name, array in {"embeds": part.embeds, "gallery_embeds": part.gallery_embeds}.items():
        if array.ndim != 2 or array.shape[1] != part.embeds.shape[1]:
            raise DataError(
                f"'{name}' of {part.modality} must have shape ({len(array)}, projection_dim), but got {array.shape}."
            )
        if not np.isfinite(array).all():
            raise DataError(f"'{name}' of {part.modality} holds NaN or infinity; all must be finite.")
    if len(part.gallery_ids) < 2:
        raise DataError(f"'{part.data.name}' has one {part.name} image; a score needs another to compare it with.")


def subjects_of(part: EmbeddedSplit) -> list[str]:
    """Subjects, sorted."""
    return sorted({str(subject) for subject in part.subjects})


def values_of_subject(part: EmbeddedSplit, rows: np.ndarray) -> np.ndarray:
    """Recordings of one subject, `(n_rows, ...)` float32."""
    values = part.values(rows)
    if len({row.shape for row in values}) > 1:
        raise DataError(f"'{part.data.name}': recordings of one subject differ in their number of voxels.")
    stacked = np.stack(list(values))
    bad = ~np.isfinite(stacked).reshape(len(stacked), -1).all(axis=1)
    if bad.any():
        raise DataError(f"'{part.data.name}': {bad.sum()} of {len(bad)} recordings hold NaN or infinity.")
    return stacked
