"""One's own recordings as parts that are written on their own, and what decides their rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from neural_clip.corpora.custom.manifest import Manifest
from neural_clip.corpora.custom.scaling import scaled, statistics_of
from neural_clip.corpora.custom.trials import Trials, unit_of
from neural_clip.corpora.image_parts import image_parts
from neural_clip.preparation import Statistics
from neural_clip.prepared.moments import Moments
from neural_clip.prepared.parts import Part

# Where files lie does not change the rows, and would make two machines' data sets differ.
PATH_KEYS = ("file", "events", "mask", "folder")


def recording_parts(
    trials: list[Trials],
    image_ids: list[list[str]],
    splits: list[list[str]],
    manifest: Manifest,
    scaling: Mapping[str, Moments] | None,
) -> list[Part]:
    """One part a file of recordings.

    Args:
        trials (`list[Trials]`): The files.
        image_ids, splits (`list[list[str]]`): Of each row of each file.
        manifest (`Manifest`): Gives modality and unit.
        scaling (`Mapping[str, Moments]`, *optional*): By subject.
    """
    parts = []
    for i, (trial, ids, split) in enumerate(zip(trials, image_ids, splits, strict=True)):
        moments = None if scaling is None else scaling[trial.entry.subject]
        rows = partial(_recording_rows, trial, ids, split, manifest.modality, unit_of(manifest, trials), moments)
        parts.append(Part(f"{i:04d}_{trial.entry.subject}", rows, trial.files, len(ids)))
    return parts


def images_of(rows: dict[str, dict]) -> list[Part] | list[dict]:
    """Parts of image files; rows as they are, where pixels or embeddings are in memory already."""
    listed = [{"image_id": image_id, **row} for image_id, row in rows.items()]
    if not all(isinstance(row.get("image"), Path) for row in listed):
        return listed
    return image_parts(listed, list, lambda chunk: [row["image"] for row in chunk])


def design_hash(
    manifest: Manifest, image_ids: list[list[str]], splits: list[list[str]], arrays: Mapping[str, np.ndarray]
) -> str:
    """SHA-256 of what decides the rows beside the files: the manifest, who saw what in which split, and the fits."""
    deciding = {key: value for key, value in asdict(manifest).items() if key != "places"}  # rows are the same anywhere
    content = {"manifest": _without_paths(deciding), "images": image_ids, "splits": splits}
    total = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode())
    for name in sorted(arrays):
        total.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()


def _without_paths(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _without_paths(item) for key, item in value.items() if key not in PATH_KEYS}
    return [_without_paths(item) for item in value] if isinstance(value, list) else value


def _recording_rows(
    trial: Trials, image_ids: list[str], splits: list[str], modality: str, unit: str | None, scaling: Moments | None
) -> Iterator[dict | Statistics]:
    """Rows of one file for `write_prepared`, after the statistics that they are scaled by."""
    values = trial.values(unit)
    if scaling is not None:
        yield statistics_of(trial.entry.subject, scaling)
        values = scaled(values, scaling, trial.name)
    for i, image_id in enumerate(image_ids):
        yield {
            "subject": trial.entry.subject, "session": trial.entry.session, "run": trial.runs[i],
            "trial": int(trial.numbers[i]), "image_id": image_id, "split": splits[i], modality: values[i],
        }  # fmt: skip
