"""Recordings of a file, embedded some at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.errors import DataError, check_value
from neural_clip.gallery.embedder import BATCH, Embedder, modality_of
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.queries.options import RecordingOptions

if TYPE_CHECKING:
    from neural_clip.montage import Interpolation

BLOCK = 4 * BATCH  # recordings in memory: whole batches, so that vectors are those of all recordings at once


@dataclass(frozen=True, eq=False)
class RecordingFile:
    """Recordings of a file, read when asked.

    Args:
        place (`str`): What the file is called in messages.
        modality (`str`): Of the recordings.
        subject (`str`, *optional*): Whose they are.
        names (`list[str]`): What each is called.
        read (`Callable`): Recordings from a first one up to another, as [`NeuralClipProcessor`] takes them.
        said (`dict`): What the processor is told of them.
        made ([`Interpolation`], *optional*): How the model's channels are made of theirs, where that was asked.
    """

    place: str
    modality: str
    subject: str | None
    names: list[str]
    read: Callable[[int, int], Any]
    said: dict[str, Any]
    made: Interpolation | None = None

    def blocks(self) -> Iterator[Any]:
        """All recordings; at once where their scaling is fitted to them."""
        step = len(self.names) if self.said.get("scaling") else BLOCK
        for start in range(0, len(self.names), step):
            yield self.read(start, min(start + step, len(self.names)))

    def one(self, number: Any) -> Any:
        """The recording of a number, from 1, as a batch of one."""
        row = row_of(number, len(self.names))
        return self.read(row, row + 1)

    def embedded(self, embedder: Embedder) -> tuple[np.ndarray, list[str]]:
        """Unit vectors of all recordings, `(n, projection_dim)` float32, and whose alignment layer embedded each.

        Raises:
            DataError: If there are none, or they do not fit the model.
        """
        from tqdm import tqdm

        if not self.names:
            raise DataError(f"'{self.place}' holds no recordings.")
        found: list[np.ndarray] = []
        layers: list[str] = []
        with tqdm(total=len(self.names), desc=f"embed {self.modality}", file=sys.stderr, unit="recording",
                  disable=len(self.names) <= BLOCK) as bar:  # fmt: skip
            for block in self.blocks():
                try:
                    _, vectors, own = embedder.embed_with_layers(block, self.subject, self.modality, **self.said)
                except DataError as error:
                    raise DataError(f"'{self.place}': {error}") from error
                found.append(vectors)
                layers += own
                bar.update(len(found[-1]))
        return np.concatenate(found), layers


def row_of(number: Any, count: int) -> int:
    """Place of a recording that is called by its number, from 1; a `DataError` where there is none."""
    fits = isinstance(number, int | float) and 1 <= number <= count and number == int(number)
    check_value("recording", number, fits, f"1 to {count}, the recordings that there are")
    return int(number) - 1


def said_of(options: RecordingOptions, *names: str) -> dict[str, Any]:
    """Options that the processor is told."""
    told = {name: getattr(options, name) for name in ("session", "unit", "scaling", "montage", *names)}
    return {name: value for name, value in told.items() if value is not None}


def sensors_of(path: Path, recording: Any, embedder: Embedder, modality: str | None) -> str:
    """Modality of what mne reads; a `DataError` where the model takes no EEG or MEG."""
    known = [name for name in embedder.modalities if MODALITIES[name].sensors]
    if not known or (modality is not None and modality not in known):
        raise DataError(
            f"'{path}' holds EEG or MEG, but the model takes {', '.join(embedder.modalities)}"
            + (f" and --modality is {modality}." if modality else ".")
        )
    return modality_of(recording, embedder) if modality is None else modality


def interpolation_of_file(
    path: Path,
    embedder: Embedder,
    modality: str,
    options: RecordingOptions,
    subject: str | None,
    recording: Any = None,
) -> Interpolation | None:
    """What `--montage` does to a file; a `DataError` where it cannot be done."""
    if options.montage is None:
        return None
    try:
        named = {} if subject is None else {"subject": subject}
        return embedder.processor.interpolation(modality, recording, ch_names=options.ch_names, **named)
    except ValueError as error:
        raise DataError(f"'{path}': {error}") from error


def check_repeated(path: Path, renamed: set[str], embedder: Embedder, modality: str) -> None:
    """Raise a `DataError` where a channel that the model needs occurs twice in a file."""
    wanted = [name for group in embedder.processor.groups(modality) for name in group["ch_names"] or []]
    if repeated := sorted(renamed.intersection(wanted)):
        raise DataError(f"'{path}': the channel names are not unique: {', '.join(repeated)}. Rename them.")


def numbered(labels: list[str]) -> list[str]:
    """`"1 (face)"`, or the number alone where there is no label."""
    return [f"{number}{f' ({label})' if label else ''}" for number, label in enumerate(labels, 1)]
