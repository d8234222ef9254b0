"""Recordings of an embedded split as the analyses of `understanding` read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.errors import DataError
from neural_clip.evaluation.embedding import EmbeddedSplit
from neural_clip.prepared.modalities import MODALITIES

if TYPE_CHECKING:
    from neural_clip.modeling_neural_clip import NeuralClipModel


@dataclass
class Analysis:
    """What every part of an analysis needs.

    Args:
        model ([`NeuralClipModel`]): In `eval()` mode, on `device`.
        output_dir (`Path`): Where everything is written.
        split, seed, device, batch_size, max_recordings, progress: see [`understanding.understand`].
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
    simulated, level = part.metadata.get("simulated"), " (category level)" if part.category_level else ""
    return f"{'SIMULATED ' if simulated else ''}{MODALITIES[part.modality].title}{level}"


def some_simulated(splits: dict[str, EmbeddedSplit]) -> str:
    """What a title says of several modalities."""
    flags = [bool(part.metadata.get("simulated")) for part in splits.values()]
    return " (SIMULATED recordings)" if all(flags) else " (some recordings SIMULATED)" if any(flags) else ""


class SplitRecordings:
    """Recordings of an embedded split, read a subject at a time."""

    def __init__(self, part: EmbeddedSplit, split: str) -> None:
        from neural_clip.prepared.reader import load_recordings

        self.part, self.modality = part, part.modality
        self.data = load_recordings(part.folder, split)
        same = all(
            np.array_equal(np.array(self.data[column][:]), found)
            for column, found in (("subject", part.subjects), ("image_id", part.image_ids))
        )
        if not same:
            raise DataError(
                f"The embedded {part.modality} recordings ({len(part.subjects)} rows) are not the {split} split of "
                f"'{part.folder}' ({len(self.data)} rows): subjects or images differ."
            )
        shapes = {
            "embeds": (part.embeds, len(part.subjects)),
            "gallery_embeds": (part.gallery_embeds, len(part.gallery_ids)),
        }
        for name, (array, length) in shapes.items():
            if array.ndim != 2 or len(array) != length or array.shape[1] != part.embeds.shape[1]:
                raise DataError(
                    f"'{name}' of {part.modality} must have shape ({length}, projection_dim), but got {array.shape}."
                )
            if not np.isfinite(array).all():
                raise DataError(f"'{name}' of {part.modality} holds NaN or infinity; all must be finite.")
        if len(part.gallery_ids) < 2:
            raise DataError(f"'{part.folder}' has one {split} image; a score needs another to compare it with.")

    def subjects(self) -> list[str]:
        """People, sorted."""
        return sorted({str(subject) for subject in self.part.subjects})

    def rows(self, subject: str) -> np.ndarray:
        """Rows of a subject, `(n_rows,)`."""
        return np.flatnonzero(self.part.subjects == subject)

    def values(self, rows: np.ndarray) -> np.ndarray:
        """Recordings of one subject, `(n_rows, ...)` float32."""
        from neural_clip.prepared.reader import recording_array

        values = recording_array(self.data.select(rows), self.modality)
        if len({row.shape for row in values}) > 1:
            raise DataError(f"'{self.part.folder}': recordings of one subject differ in their number of voxels.")
        stacked = np.stack(list(values))
        bad = ~np.isfinite(stacked).reshape(len(stacked), -1).all(axis=1)
        if bad.any():
            raise DataError(f"'{self.part.folder}': {bad.sum()} of {len(bad)} recordings hold NaN or infinity.")
        return stacked
