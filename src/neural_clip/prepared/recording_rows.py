"""Rows of the recordings of a prepared data set: each checked as it passes, the counts merged over all parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.errors import DataError
from neural_clip.preparation import Statistics
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.parquet import ParquetShards
from neural_clip.prepared.splits import SPLITS

if TYPE_CHECKING:
    import datasets


SUBJECT_PATTERN = re.compile(r"sub-[A-Za-z0-9]+")


def write_recordings(
    folder: Path,
    rows: Iterable[dict | Statistics],
    label: str,
    tick: Callable[[int], object],
    *,
    metadata: Mapping,
    images: Mapping[str, dict],
    shard_rows: int,
) -> dict:
    """Write the rows of a part and return what must agree with the other parts (see [`merge_recordings`])."""
    audit = _Audit(metadata, images, label)
    features = None
    with ParquetShards(folder, shard_rows) as shards:
        for row in rows:
            if isinstance(row, Statistics):
                audit.statistics |= row.arrays()
                continue
            checked = audit.check(row)
            features = features or recording_features(metadata["modality"], audit.shape)
            shards.add(f"data/{checked['subject']}/{row['split']}{label}", features, checked)
            tick(1)
    return audit.summary()


def merge_recordings(metadata: dict, summaries: Iterable[dict]) -> dict[str, np.ndarray]:
    """Check that parts agree with each other, fill the counts of the whole into the metadata, give the statistics.

    Raises:
        DataError: If an image, a run or a held-out subject is in two splits, shapes differ, the train or the test
            split is empty, or subjects are not those that were declared.
    """
    whole: dict = {"rows": {}, "run_split": {}, "voxels": dict(metadata["n_voxels"] or {})}
    images: dict[str, set] = {split: set() for split in SPLITS}
    concepts: dict[str, set] = {split: set() for split in SPLITS}
    shape: list[int] = []
    statistics: dict[str, list[float]] = {}
    for part in summaries:
        statistics |= part["statistics"]
        _merge(whole["run_split"], part["run_split"], "Run")
        _merge(whole["voxels"], part["voxels"], "Subject")
        for image_id, found in part["image_split"].items():
            for split in found:
                images[split].add(image_id)
        for subject, counts in part["rows"].items():
            known = whole["rows"].setdefault(subject, dict.fromkeys(SPLITS, 0))
            for split, count in counts.items():
                known[split] += count
        for split, names in part["concepts"].items():
            concepts[split].update(names)
        if part["shape"] is not None and (shape := shape or part["shape"]) != part["shape"]:
            raise DataError(f"Recordings have shape {tuple(part['shape'])}, others {tuple(shape)}.")
    if not whole["rows"]:
        raise DataError("There are no recordings to write.")
    if MODALITIES[metadata["modality"]].sensors:
        metadata["n_chans"], metadata["n_times"] = shape
    _check_subjects(whole["rows"], metadata["split_unit"])
    if not metadata["category_level"]:
        _check_disjoint(images, whole["rows"], metadata["split_unit"])
    _fill_counts(metadata, whole["rows"], whole["voxels"], images, concepts)
    return {name: np.array(values, dtype=np.float64) for name, values in statistics.items()}


def _merge(known: dict, more: dict, what: str) -> None:
    for name, value in more.items():
        if known.setdefault(name, value) != value:
            raise DataError(
                f"{what} {name!r} has {value} in one part of the recordings, but {known[name]} in another."
            )


def _check_disjoint(images: dict[str, set], rows: dict[str, dict], unit: str) -> None:
    """Require that no image is in two splits; where subjects are held out, in no two splits of one subject."""
    for first, second in combinations(SPLITS, 2):
        common = sorted(images[first] & images[second])
        if common and (unit != "subject" or any(counts[first] and counts[second] for counts in rows.values())):
            raise DataError(
                f"{len(common)} images are in split {first!r} and in split {second!r} as well, such as {common[0]!r}."
            )


def _fill_counts(metadata: dict, rows: dict, voxels: dict, images: dict[str, set], concepts: dict[str, set]) -> None:
    """Check who is in which split and fill the counts in."""
    subjects = sorted(rows)
    if metadata["subjects"] is not None and sorted(metadata["subjects"]) != subjects:
        raise DataError(f"Recordings were expected of subjects {sorted(metadata['subjects'])}, but got {subjects}.")
    metadata["subjects"] = subjects
    metadata["n_voxels"] = None if MODALITIES[metadata["modality"]].sensors else {s: voxels[s] for s in subjects}
    metadata["subject_splits"] = {s: {k: rows[s][k] for k in SPLITS if rows[s][k]} for s in subjects}
    metadata["splits"] = {
        split: {
            "rows": sum(rows[subject][split] for subject in subjects),
            "images": len(images[split]),
            "concepts": len(concepts[split]),
        }
        for split in SPLITS
    }


def _check_subjects(rows: dict[str, dict], unit: str) -> None:
    """Require rows to train on and to score; where subjects are held out, that they are held out whole.

    A subject may lack splits, the set may lack validation rows, and one of held-out subjects alone may lack training
    rows: the doctor says so.
    """
    for split in ("test",) if unit == "subject" else ("train", "test"):
        if not any(counts[split] for counts in rows.values()):
            raise DataError(f"Split {split!r} is empty: it has no rows of {', '.join(sorted(rows))}.")
    for subject, counts in rows.items() if unit == "subject" else ():
        if counts["test"] and (counts["train"] or counts["validation"]):
            raise DataError(
                f"Subjects are held out, but {subject} has rows in 'test' and in another split as well: {counts}."
            )


class _Audit:
    """Checks each recording as it passes and counts what the metadata must tell."""

    def __init__(self, metadata: Mapping, images: Mapping[str, dict], label: str):
        self.metadata, self.images, self.modality, self.label = metadata, images, metadata["modality"], label
        self.row = 0
        self.image_split: dict[str, list[str]] = {}
        self.run_split: dict[str, str] = {}
        self.voxels: dict[str, int] = dict(metadata["n_voxels"] or {})
        self.shape: tuple[int, ...] | None = None
        if metadata["n_chans"] is not None and metadata["n_times"] is not None:
            self.shape = (metadata["n_chans"], metadata["n_times"])
        self.rows: dict[str, dict[str, int]] = {}
        self.concepts: dict[str, set[str]] = {split: set() for split in SPLITS}
        self.statistics: dict[str, np.ndarray] = {}

    def check(self, row: dict) -> dict:
        """Return the row as it is stored, or raise a `DataError` that names it."""
        where = f"recording {self.row} (subject {row.get('subject')!r}, image {row.get('image_id')!r})"
        for key in ("subject", "image_id", "split", self.modality):
            if row.get(key) is None:
                raise DataError(f"{where} has no {key!r}.")
        subject, image_id, split = row["subject"], str(row["image_id"]), row["split"]
        if split not in SPLITS:
            raise DataError(
                f"{where}: allowed splits are 'train', 'validation' and 'test', but got {split!r} instead."
            )
        if not SUBJECT_PATTERN.fullmatch(subject):
            raise DataError(f"{where}: subjects are named like 'sub-01', but got {subject!r} instead.")
        if image_id not in self.images:
            raise DataError(f"{where}: image {image_id!r} is not among the {len(self.images)} images.")
        self._check_split(where, row, image_id, split)
        values = self._check_values(where, row[self.modality], subject)
        concept = str(row.get("concept") or self.images[image_id]["concept"])
        categories = row.get("categories")
        categories = self.images[image_id]["categories"] if categories is None else [str(c) for c in categories]
        counts = self.rows.setdefault(subject, {})
        counts[split] = counts.get(split, 0) + 1
        if concept:
            self.concepts[split].add(concept)
        self.row += 1
        return {
            "subject": subject, "session": str(row.get("session") or ""), "run": str(row.get("run") or ""),
            "trial": int(row.get("trial", self.row - 1)), "image_id": image_id, "concept": concept,
            "categories": categories, "n_repeats": int(row.get("n_repeats", 1)), self.modality: values,
        }  # fmt: skip

    def summary(self) -> dict:
        """What was counted, as JSON knows it."""
        declared = self.metadata["n_voxels"] or {}
        return {
            "rows": self.rows, "image_split": self.image_split, "run_split": self.run_split,
            "voxels": {s: n for s, n in self.voxels.items() if s in self.rows or s not in declared},
            "concepts": {split: sorted(names) for split, names in self.concepts.items()},
            "shape": list(self.shape) if self.shape and self.row else None,
            "statistics": {name: values.tolist() for name, values in self.statistics.items()},
        }  # fmt: skip

    def _check_split(self, where: str, row: dict, image_id: str, split: str) -> None:
        known = self.image_split.setdefault(image_id, [split])
        if split not in known:
            # whose images may be in several splits is known when all rows are
            if not self.metadata["category_level"] and self.metadata["split_unit"] != "subject":
                raise DataError(
                    f"{where} is in split {split!r}, but image {image_id!r} is in split {known[0]!r} as well. "
                    "Divide by image, or where the same few images are shown in every run, call them categories "
                    "('category_level'): only these may be in several splits."
                )
            known.append(split)
        # by subject, images of the others are chosen for validation, or runs at category level
        if self.metadata["split_unit"] in ("run", "recording") or self.metadata["category_level"]:
            key = f"{row['subject']}/{row.get('session') or ''}/{row.get('run') or ''}"
            other = self.run_split.setdefault(key, split)
            if other != split:
                raise DataError(f"{where} is in split {split!r}, but its run {key} is in {other!r} as well.")

    def _check_values(self, where: str, values: np.ndarray, subject: str) -> np.ndarray:
        values = np.asarray(values, dtype=np.float32)
        if not MODALITIES[self.modality].sensors:
            expected: tuple | None = (self.voxels.setdefault(subject, values.size),)
        else:
            if self.shape is None and values.ndim == 2:
                self.shape = values.shape
            expected = self.shape
            names = self.metadata["ch_names"]
            if names is not None and expected is not None and len(names) != expected[0]:
                raise DataError(f"'ch_names' lists {len(names)} channels, but the recordings have {expected[0]}.")
        if values.shape != expected or values.size == 0:
            raise DataError(f"{where} has shape {values.shape}; expected {expected or '(n_chans, n_times)'}.")
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            raise DataError(f"{where} holds {count} values that are not finite (NaN or infinite) of {values.size}.")
        return values


def recording_features(modality: str, shape: tuple[int, ...] | None) -> datasets.Features:
    """Columns of a recording (`datasets.Features`); sensors have a shape `(n_chans, n_times)`."""
    from datasets import Array2D, Features, List, Value

    columns = {name: Value("string") for name in ("subject", "session", "run")}
    columns |= {"trial": Value("int32"), "image_id": Value("string"), "concept": Value("string")}
    columns |= {"categories": List(Value("string")), "n_repeats": Value("int32")}
    if MODALITIES[modality].sensors:
        columns[modality] = Array2D(shape, "float32")
    else:
        columns[modality] = List(Value("float32"))  # as long as the subject's region: no padding on disk
    return Features(columns)
