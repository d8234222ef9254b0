"""Which image the Natural Scenes Dataset showed when: experimental design, behaviour and stimulus tables.

All ids of NSD's MATLAB files and of `responses.tsv` are 1-based; `nsdId` and the index into `imgBrick` are 0-based.
This module returns 0-based ids only, and checks the four sources against each other.
"""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError

__all__ = ["Design", "check_responses", "check_stim_info", "coco_categories", "read_design", "read_stim_info"]

EXPERIMENT_DIR = "nsddata/experiments/nsd"
MAX_REPEATS = 3
"""NSD shows an image at most three times to a subject."""
SPLIT_COUNTS = {30: (20312, 2188, 8302, 907), 37: (24980, 2770, 8859, 982), 40: (27000, 3000, 9000, 1000)}
"""By number of sessions: trials of unshared and shared images, unshared and shared images; equal for all subjects."""


@dataclass(frozen=True)
class Design:
    """The order of images.

    Args:
        path (`Path`): File it was read from.
        order (`numpy.ndarray` of shape `(n_planned_trials,)`): 0-based position in a subject's list, for every trial.
        lists (`numpy.ndarray` of shape `(8, n_images)`): 0-based nsdId of every position, for every subject.
        n_shared (`int`): The first so many positions hold the images that all subjects share.
    """

    path: Path
    order: np.ndarray
    lists: np.ndarray
    n_shared: int

    def nsd_ids(self, subject: int, n_trials: int) -> np.ndarray:
        """0-based nsdId of the first trials of a subject (1 to 8), int array of shape `(n_trials,)`."""
        return self.lists[subject - 1, self.order[:n_trials]]

    def shared(self, n_trials: int) -> np.ndarray:
        """Whether a trial shows a shared image, bool array of shape `(n_trials,)`."""
        return self.order[:n_trials] < self.n_shared


def read_design(raw_dir: Path, subjects: Iterable[int], official: bool) -> Design:
    """Read and check `nsd_expdesign.mat`.

    Args:
        raw_dir (`Path`): Root of the corpus.
        subjects (`Iterable[int]`): Subjects, 1 to 8, whose lists must be complete.
        official (`bool`): Require the sizes and counts of the real experiment.

    Returns:
        `Design`: With 0-based ids.

    Raises:
        DataError: If the file is absent or damaged, or its tables contradict each other.
    """
    from scipy.io import loadmat

    path = raw_dir / EXPERIMENT_DIR / "nsd_expdesign.mat"
    if not path.is_file():
        raise DataError(f"'{path}' does not exist. See https://naturalscenesdataset.org for access to NSD.")
    try:
        tables = loadmat(path, variable_names=["masterordering", "subjectim", "sharedix"])
        order, lists, shared = (tables[name].astype(np.int64) for name in ("masterordering", "subjectim", "sharedix"))
    except (KeyError, ValueError, TypeError, OSError, EOFError, NotImplementedError) as error:
        raise DataError(f"'{path}' is damaged or no design of NSD: {error}") from error
    order, shared = order.ravel(), shared.ravel()
    if official and (order.size, lists.shape, shared.size) != (30000, (8, 10000), 1000):
        raise DataError(
            f"'{path}' should hold masterordering of 30000, subjectim of (8, 10000) and sharedix of 1000 entries, "
            f"but holds {order.size}, {lists.shape} and {shared.size}."
        )
    if order.min() < 1 or order.max() > lists.shape[1]:
        span = f"{order.min()} to {order.max()}"
        raise DataError(f"'{path}': masterordering should span 1 to {lists.shape[1]}, but spans {span}.")
    for row, ids in enumerate(lists):
        if not np.array_equal(ids[: shared.size], shared):
            raise DataError(f"'{path}': the first {shared.size} images of subject {row + 1} differ from sharedix.")
    for subject in subjects:
        ids = lists[subject - 1]
        if ids.min() < 1 or np.unique(ids).size != ids.size:
            raise DataError(f"'{path}': subjectim of subject {subject} should hold different ids from 1 on.")
    design = Design(path, order - 1, lists - 1, shared.size)
    if official:
        _check_split_counts(design)
    return design


def _check_split_counts(design: Design) -> None:
    """Compare trials and images after 30, 37 and 40 sessions with the published design."""
    for n_sessions, expected in SPLIT_COUNTS.items():
        order = design.order[: n_sessions * 750]
        shared = order < design.n_shared
        found = ((~shared).sum(), shared.sum(), np.unique(order[~shared]).size, np.unique(order[shared]).size)
        if tuple(map(int, found)) != expected:
            raise DataError(
                f"'{design.path}': after {n_sessions} sessions, unshared and shared trials and images should number "
                f"{expected}, but number {tuple(map(int, found))}."
            )


def read_stim_info(raw_dir: Path) -> list[dict[str, str]]:
    """Rows of `nsd_stim_info_merged.csv`; row i tells of nsdId i.

    Raises:
        DataError: If the file is absent, lacks a column, or its rows are not numbered from 0.
    """
    path = raw_dir / EXPERIMENT_DIR / "nsd_stim_info_merged.csv"
    if not path.is_file():
        raise DataError(f"'{path}' does not exist. See https://naturalscenesdataset.org for access to NSD.")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    needed = {"cocoId", "cocoSplit", "cropBox", "nsdId", "shared1000", "subject1_rep0"}
    if not rows or needed - set(rows[0]):
        raise DataError(f"'{path}' should have the columns {', '.join(sorted(needed))}.")
    for i, row in enumerate(rows):
        if row["nsdId"] != str(i):
            raise DataError(f"'{path}': row {i} should have nsdId {i} (0-based), but has {row['nsdId']!r}.")
    return rows


def check_stim_info(raw_dir: Path, rows: list[dict[str, str]], design: Design, subject: int) -> None:
    """Require that the stimulus table agrees with the design on shared images and on every trial of a subject.

    Raises:
        DataError: At the first contradiction.
    """
    path = raw_dir / EXPERIMENT_DIR / "nsd_stim_info_merged.csv"
    shared = {i for i, row in enumerate(rows) if row["shared1000"].strip().lower() in ("true", "1")}
    if shared != set(design.lists[subject - 1, : design.n_shared].tolist()):
        raise DataError(f"'{path}': the images marked shared1000 differ from sharedix of '{design.path}'.")
    # -1 marks trials that the table does not name
    stated = np.full(design.order.size, -1)
    for i, row in enumerate(rows):
        for repeat in range(MAX_REPEATS):
            trial = int(row[f"subject{subject}_rep{repeat}"])  # 1-based, 0: not shown
            if trial > stated.size:
                raise DataError(f"'{path}': image {i} names trial {trial} of subject {subject} of {stated.size}.")
            if trial > 0:
                stated[trial - 1] = i
    wrong = np.flatnonzero(stated != design.nsd_ids(subject, design.order.size))
    if wrong.size:
        expected = design.nsd_ids(subject, design.order.size)[wrong[0]]
        raise DataError(
            f"'{path}' and '{design.path}' disagree: trial {wrong[0] + 1} of subject {subject} shows image "
            f"{stated[wrong[0]]} or {expected} (0-based; -1 stands for none)."
        )


def check_responses(path: Path, subject: int, design: Design, n_sessions: int, trials_per_session: int) -> list[str]:
    """Require that the behavioural record agrees with the design, trial by trial.

    Args:
        path (`Path`): `responses.tsv` of the subject.
        subject (`int`): 1 to 8.
        design (`Design`): From `read_design`.
        n_sessions, trials_per_session (`int`): The trials to check; later rows may be absent.

    Returns:
        `list[str]`: Run of every trial, such as "run-01".

    Raises:
        DataError: If a trial is missing or its subject, session or image differs.
    """
    n_trials = n_sessions * trials_per_session
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    needed = {"SUBJECT", "SESSION", "RUN", "73KID", "10KID"}
    if len(rows) < n_trials or needed - set(rows[0]):
        names = ", ".join(sorted(needed))
        raise DataError(f"'{path}' should have the columns {names} and {n_trials} rows or more, not {len(rows)}.")
    ids = design.nsd_ids(subject, n_trials)
    for t, row in enumerate(rows[:n_trials]):
        found = tuple(int(float(row[name])) for name in ("SUBJECT", "SESSION", "73KID", "10KID"))
        # both ids are 1-based in this file
        expected = (subject, t // trials_per_session + 1, int(ids[t]) + 1, int(design.order[t]) + 1)
        if found != expected:
            raise DataError(
                f"'{path}' contradicts '{design.path}': trial {t + 1} has (SUBJECT, SESSION, 73KID, 10KID) {found}, "
                f"expected {expected}."
            )
    return [f"run-{int(float(row['RUN'])):02d}" for row in rows[:n_trials]]


def coco_categories(annotations_dir: Path, rows: list[dict[str, str]], nsd_ids: Iterable[int]) -> dict[int, list[str]]:
    """COCO categories visible in the crop that NSD showed.

    Args:
        annotations_dir (`Path`): Holds `instances_train2017.json` and `instances_val2017.json`.
        rows (`list[dict]`): From `read_stim_info`.
        nsd_ids (`Iterable[int]`): 0-based ids to look up.

    Returns:
        `dict[int, list[str]]`: Category names of each image, largest visible bounding box first; may be empty.

    Raises:
        DataError: If a file is absent or damaged, or does not know an image.

    cropBox is (top, bottom, left, right), fractions cut away (NSD data manual, "Experiments"). The bounding box
    decides what is visible: a category whose box reaches into the crop with background only is still listed.
    """
    wanted: dict[str, dict[int, int]] = {}
    for i in nsd_ids:
        wanted.setdefault(rows[i]["cocoSplit"], {})[int(rows[i]["cocoId"])] = i
    result: dict[int, list[str]] = {}
    for split, ids in wanted.items():
        path = annotations_dir / f"instances_{split}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
            names = {category["id"]: category["name"] for category in content["categories"]}
            boxes = [(a["image_id"], a["category_id"], a["bbox"]) for a in content["annotations"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"'{path}' is absent, damaged or no COCO instances file: {error}") from error
        unknown = sorted(set(ids) - set(sizes))
        if unknown:
            raise DataError(f"'{path}' does not know COCO image {unknown[0]}, NSD's image {ids[unknown[0]]}.")
        areas: dict[int, dict[str, float]] = {i: {} for i in ids.values()}
        for coco_id, category, box in boxes:
            if coco_id in ids:
                area = _visible_area(box, rows[ids[coco_id]]["cropBox"], *sizes[coco_id])
                if area > 0:
                    largest = areas[ids[coco_id]]
                    largest[names[category]] = max(area, largest.get(names[category], 0.0))
        for i, found in areas.items():
            result[i] = [name for _, name in sorted((-area, name) for name, area in found.items())]
    return result


def _visible_area(box: list[float], crop_box: str, width: float, height: float) -> float:
    """Area in pixels of the part of a COCO box (x, y, width, height) that the crop keeps."""
    top, bottom, left, right = ast.literal_eval(crop_box)
    x, y, box_width, box_height = box
    across = min(x + box_width, (1 - right) * width) - max(x, left * width)
    down = min(y + box_height, (1 - bottom) * height) - max(y, top * height)
    return max(across, 0.0) * max(down, 0.0)
