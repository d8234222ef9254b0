"""The doctor: reads a prepared data set and reports what would make its scores wrong, and how.

`neural-clip doctor FOLDER` prints each finding with its consequence; every corpus program has its data set examined
before it is put in place. Everything is recomputed from the Parquet files: nothing that the writer counted is trusted.

Checked are: images, runs and recordings in several splits; identical recordings and images; concepts shared by
training and test; values that are not finite, channels that do not move, absurd scales; statistics fitted on the test
split; block designs; class balance; counts and fingerprint against the metadata; image embeddings; places of voxels.

What it cannot see: duplicates that differ in a single bit, such as recordings filtered or scaled again; images of the
same scene in other files; a choice of channels, voxels or parameters that was made with the test split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError, check_value
from neural_clip.files.whole import sha256_of
from neural_clip.preparation import STATISTICS_FILE
from neural_clip.prepared.doctor.findings import SEVERITIES, Finding, error, examples, note, warning
from neural_clip.prepared.doctor.images import check_images
from neural_clip.prepared.doctor.labels import Labels, check_labels, read_labels
from neural_clip.prepared.doctor.scan import Scan, scan_folder
from neural_clip.prepared.doctor.values import check_fit_scope, check_values
from neural_clip.prepared.facts import METADATA_FILE, read_metadata
from neural_clip.prepared.integrity import differences, fingerprint, fingerprint_of
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.places import PLACES_FILE, read_places
from neural_clip.prepared.splits import SPLITS

__all__ = ["Finding", "inspect"]

FEW_UNITS = 5  # images (recordings at category level) that an interval needs, as in `retrieval/scoring.py`
MANY_UNITS = 20  # fewer give 95 % intervals of a 2-way score that are wider than about 0.25


def inspect(folder: str | Path, *, metadata: Mapping | None = None, num_proc: int = 1) -> list[Finding]:
    """Examine a prepared data set.

    Args:
        folder (`str` or `Path`): The data set.
        metadata (`Mapping`, *optional*): What its `neural_clip.json` says or will say; read from there by default.
            Facts that are absent or `None` are not compared.
        num_proc (`int`, *optional*, defaults to 1): Files read at the same time.

    Returns:
        `list[Finding]`: Errors first, then warnings, then notes.

    Raises:
        DataError: If `folder` is no prepared data set, or a file is damaged or lacks a column.
    """
    check_value("num_proc", num_proc, num_proc >= 1, "1 and more")
    folder = Path(folder)
    metadata = read_metadata(folder) if metadata is None else metadata
    if metadata.get("modality") not in MODALITIES:
        raise DataError(f"'{folder / METADATA_FILE}' lacks 'modality'.")
    scan = scan_folder(folder, metadata["modality"], num_proc)
    labels = read_labels(scan.recordings)
    findings = [
        *check_labels(labels, metadata),
        *check_values(scan.recordings, metadata),
        *check_fit_scope(scan.recordings, metadata),
        *check_images(scan.images, labels, metadata),
        *_check_splits(labels, metadata),
        *_check_sizes(labels, metadata),
        *_check_counts(labels, scan, metadata),
        *_check_files(folder, metadata),
        *_check_statistics(folder, metadata),
        *_check_places(folder, metadata),
        *_check_stamps(metadata),
    ]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _subject_splits(labels: Labels) -> dict[str, dict[str, int]]:
    """Rows of each subject and split."""
    counts = Counter(zip(labels.codes["subject"].tolist(), labels.codes["split"].tolist(), strict=True))
    return {
        subject: {split: counts[i, j] for j, split in enumerate(SPLITS) if counts[i, j]}
        for i, subject in enumerate(labels.names["subject"])
    }


def _check_splits(labels: Labels, metadata: Mapping) -> Iterator[Finding]:
    """Splits that no subject has, or that a subject lacks."""
    counts, unit = _subject_splits(labels), metadata.get("split_unit")
    consequences: dict[str, tuple] = {
        "train": (error, "There is nothing to train on."),
        "validation": (
            warning,
            "Training chooses epochs by cross-validation on the training split (`folds`), which takes several "
            "trainings; the test split must not choose them.",
        ),
        "test": (error, "There is nothing to score."),
    }
    if unit == "subject" and not any("train" in splits for splits in counts.values()):
        consequences["train"] = (warning, "The set can only be scored, by a model that was trained on another one.")
    for split, (severity, consequence) in consequences.items():
        lacking = [subject for subject, splits in counts.items() if split not in splits]
        told = f"{len(lacking)} of {len(counts)} subjects {'has' if len(lacking) == 1 else 'have'}"
        if len(lacking) == len(counts):
            yield severity("splits", f"There is no {split} split.", consequence)
        elif lacking and split == "train":
            level = note if unit == "subject" else warning
            scored = ("as new subjects they are scored by the average subject (`evaluate --subject average`)"
                      if MODALITIES[metadata["modality"]].sensors else
                      "voxels have no average subject, so they cannot be scored without training rows")  # fmt: skip
            yield level("splits", f"{told} no train rows: {examples(lacking)}.",
                        f"A model trained on this set has no layer for them: {scored}.")  # fmt: skip
        elif lacking:  # whole runs, recordings and subjects cannot be cut up
            level = note if unit != "image" else warning
            yield level("splits", f"{told} no {split} rows: {examples(lacking)}.",
                        "Scores over subjects leave them out.")  # fmt: skip


def _check_sizes(labels: Labels, metadata: Mapping) -> Iterator[Finding]:
    """Splits of which a score says little; at category level rows are counted, as images are categories."""
    what = "recordings" if metadata.get("category_level") else "images"
    for code, split in enumerate(SPLITS[1:], start=1):
        rows = labels.codes["split"] == code
        count = int(rows.sum()) if what == "recordings" else len(np.unique(labels.codes["image_id"][rows]))
        if count == 1 and what == "images":
            yield warning("split size", f"The {split} split has one image.", "There is no other to tell it from: " + (
                "`evaluate --gallery all` searches all images of the set." if split == "test" else
                "no epoch or setting can be chosen by it."))  # fmt: skip
        elif 0 < count < FEW_UNITS:
            yield warning("split size", f"The {split} split has {count} {what}.", (
                f"No interval can be given for fewer than {FEW_UNITS}, and one lucky guess moves the score by "
                f"{1 / count:.0%}." if split == "test" else "By so few, epochs and settings are chosen by chance.")
            )  # fmt: skip
        elif 0 < count < MANY_UNITS and split == "test":
            yield note("split size", f"The {split} split has {count} {what}.",
                       "Intervals are wide: scores that differ much can still be equal.")  # fmt: skip


def _check_counts(labels: Labels, scan: Scan, metadata: Mapping) -> Iterator[Finding]:
    """Facts of the metadata that the files contradict."""
    stated = {key: value for key, value in metadata.items() if value is not None}
    if "subjects" in stated:
        stated["subjects"] = sorted(stated["subjects"])
    if "ch_names" in stated:
        stated["length of ch_names"] = len(stated["ch_names"])
    if "ch_positions" in stated:
        stated["length of ch_positions"] = len(stated["ch_positions"])
    found = _counted(labels, scan, metadata["modality"], metadata.get("format_version"))
    different = [line for key in found if key in stated for line in _differences(key, stated[key], found[key])]
    if different:
        yield error("counts", f"The files are not what the metadata says: {examples(different)}.",
                    "Card, chance levels and scores would speak of other data.")  # fmt: skip


def _counted(labels: Labels, scan: Scan, modality: str, version: int | None) -> dict:
    """Facts as the metadata names them, counted in the files."""
    found: dict = {"subjects": labels.names["subject"], "subject_splits": _subject_splits(labels), "splits": {}}
    named = np.array([bool(name) for name in labels.names["concept"]])[labels.codes["concept"]]
    if version == 1:  # which counted absent concepts as one
        named[:] = True
    for code, split in enumerate(SPLITS):
        rows = labels.codes["split"] == code
        images = len(np.unique(labels.codes["image_id"][rows]))
        concepts = len(np.unique(labels.codes["concept"][rows & named]))
        found["splits"][split] = {"rows": int(rows.sum()), "images": images, "concepts": concepts}
    shapes: dict[str, Counter] = {subject: Counter() for subject in labels.names["subject"]}
    for part in scan.recordings:
        shapes[part.subject].update(part.shapes)
    usual = {subject: counts.most_common(1)[0][0] for subject, counts in shapes.items() if counts}
    if not MODALITIES[modality].sensors:
        return found | {"n_voxels": {subject: shape[0] for subject, shape in usual.items()}}
    n_chans, n_times = next(iter(usual.values()), (0, 0))
    return found | {"n_chans": n_chans, "n_times": n_times, "length of ch_names": n_chans,
                    "length of ch_positions": n_chans}  # fmt: skip


def _differences(name: str, stated: object, found: object) -> list[str]:
    """Where two facts differ, as short as possible."""
    if stated == found:
        return []
    if not isinstance(stated, Mapping) or not isinstance(found, Mapping):
        return [f"{name} is {found} instead of {stated}"]
    keys = [*stated, *(key for key in found if key not in stated)]
    return [line for key in keys for line in _differences(f"{name} {key}", stated.get(key), found.get(key))]


def _check_files(folder: Path, metadata: Mapping) -> Iterator[Finding]:
    """Files that are not those that were written; older sets do not list theirs."""
    files, stated = metadata.get("files"), metadata.get("fingerprint")
    if stated is None:
        return
    if files is not None and (changed := list(differences(folder, files, contents=True))):
        yield error("fingerprint", examples(changed), "Scores would be of other data than stated.")
    elif (found := fingerprint(folder, 1) if files is None else fingerprint_of(files)) != stated:
        yield error(
            "fingerprint",
            f"It is {found[:12]} instead of {str(stated)[:12]}: a file was changed, added or lost.",
            "Scores would be of other data than stated.",
        )


def _check_statistics(folder: Path, metadata: Mapping) -> Iterator[Finding]:
    """Statistics of the scaling that are not those that were written, where no list of files tells it."""
    expected = (metadata.get("scaling") or {}).get("statistics")
    file = folder / STATISTICS_FILE
    listed = STATISTICS_FILE in (metadata.get("files") or {})
    if expected is not None and not listed and (not file.is_file() or sha256_of([file]) != expected):
        yield error(
            "statistics",
            f"'{STATISTICS_FILE}' {'is not the file that was written' if file.is_file() else 'is missing'}.",
            "No model can be trained on it: its processor could not scale new recordings as these were.",
        )


def _check_places(folder: Path, metadata: Mapping) -> Iterator[Finding]:
    """Places of voxels that cannot be, and subjects without them where others have some."""
    space, n_voxels = metadata.get("places_space"), metadata.get("n_voxels") or {}
    try:
        places = read_places(folder / PLACES_FILE, space, n_voxels)
    except DataError as problem:
        yield error("places", str(problem), "Whatever is carried from person to person by place would go astray.")
        return
    if places and (lacking := sorted(set(n_voxels) - set(places))):
        yield note("places", f"The places of voxels of {examples(lacking)} are not known in {space}.",
                   "Nothing can be carried over to them by place.")  # fmt: skip


def _check_stamps(metadata: Mapping) -> Iterator[Finding]:
    """What the metadata declares that readers of scores must know."""
    if metadata.get("simulated"):
        yield note("simulated", "The recordings are simulated.", "Scores say nothing about real recordings.")
    if shared := metadata.get("shared_windows"):
        yield warning("shared windows", f"The windows of {shared['rows']} of {shared['held_out']} test and validation "
                      "rows overlap windows of another split in the same recording.",
                      "They share samples with what was trained on or chosen by, so scores can be too high; split by "
                      "run, or shorten the window.")  # fmt: skip
    if metadata.get("partial"):
        yield note("partial", f"The corpus is not whole: {examples(metadata['partial'])} differ from what was "
                   "published.", "Scores cannot be compared with those on the whole corpus.")  # fmt: skip
    if metadata.get("redistribution") == "forbidden":
        yield note("redistribution", "The terms forbid to pass the data on.",
                   "Scores can be published, the data set and its copies cannot.")  # fmt: skip
