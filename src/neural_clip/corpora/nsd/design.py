"""Which image the Natural Scenes Dataset showed when: experimental design, behaviour and stimulus tables.

All ids of NSD's MATLAB files and of `responses.tsv` are 1-based; `nsdId` and the index into `imgBrick` are 0-based.
This module returns 0-based ids only, and checks the four sources against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.mat import read_matrices
from neural_clip.files.numbers import number
from neural_clip.files.tables import read_columns, whole_number

EXPERIMENT_DIR = "nsddata/experiments/nsd"
N_SUBJECTS, N_STIMULI = 8, 73000
MAX_REPEATS = 3
"""NSD shows an image at most three times to a subject."""
COCO_SPLITS = ("train2017", "val2017")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
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
    path = raw_dir / EXPERIMENT_DIR / "nsd_expdesign.mat"
    if not path.is_file():
        raise DataError(f"'{path}' does not exist. See https://naturalscenesdataset.org for access to NSD.")
    names = ["masterordering", "subjectim", "sharedix"]
    tables = read_matrices(path, names)
    order, lists, shared = (_whole_numbers(path, tables[name]) for name in names)
    order, shared = order.ravel(), shared.ravel()
    if not order.size or not shared.size or lists.ndim != 2 or len(lists) != N_SUBJECTS:
        raise DataError(
            f"'{path}' should hold subjectim of {N_SUBJECTS} subjects and a masterordering and sharedix that are not "
            f"empty, but holds {lists.shape}, {order.size} and {shared.size}."
        )
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


def _whole_numbers(path: Path, table: np.ndarray) -> np.ndarray:
    """A numeric table as int64."""
    if not (np.isfinite(table) & (table == np.round(table))).all():
        raise DataError(f"'{path}' is damaged or no design of NSD: it holds values that are no whole numbers.")
    if (np.abs(table.astype(np.float64)) > 2**31).any():
        raise DataError(f"'{path}' is damaged or no design of NSD: it holds numbers that are too large.")
    return table.astype(np.int64)


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


@dataclass(frozen=True)
class StimInfo:
    """The stimulus table; place i tells of nsdId i.

    Args:
        path (`Path`): File it was read from.
        coco_ids (`list[int]`), coco_splits (`list[str]`): Image of COCO, and "train2017" or "val2017".
        crop_boxes (`list[tuple]`): Fractions of the COCO image that were cut away: top, bottom, left, right.
        shared (`numpy.ndarray` of shape `(n_images,)`): Whether all subjects share an image.
        trials (`dict[int, numpy.ndarray]`): For each subject, 1-based trials of shape `(n_images, 3)`; 0: none.
    """

    path: Path
    coco_ids: list[int]
    coco_splits: list[str]
    crop_boxes: list[tuple[float, float, float, float]]
    shared: np.ndarray
    trials: dict[int, np.ndarray]


def read_stim_info(raw_dir: Path, subjects: Sequence[int], official: bool) -> StimInfo:
    """Read `nsd_stim_info_merged.csv`.

    Args:
        raw_dir (`Path`): Root of the corpus.
        subjects (`Sequence[int]`): Subjects, 1 to 8, whose trials are wanted.
        official (`bool`): Require all images of the real experiment.

    Raises:
        DataError: If the file is absent, lacks a column, holds what is no number, or its rows are not numbered from 0.
    """
    path = raw_dir / EXPERIMENT_DIR / "nsd_stim_info_merged.csv"
    repeats = [f"subject{subject}_rep{repeat}" for subject in subjects for repeat in range(MAX_REPEATS)]
    columns = ["nsdId", "cocoId", "cocoSplit", "cropBox", "shared1000", *repeats]
    coco_ids, coco_splits, crop_boxes, shared, trials = [], [], [], [], []
    for i, (line, cells) in enumerate(read_columns(path, columns, ",")):
        nsd_id, coco_id, split, crop_box, is_shared = cells[:5]
        if nsd_id != str(i):
            raise DataError(f"'{path}': line {line} should have nsdId {i} (0-based), but has {nsd_id!r}.")
        if split not in COCO_SPLITS:
            raise DataError(f"'{path}': line {line} should have cocoSplit {' or '.join(COCO_SPLITS)}, not {split!r}.")
        if is_shared.strip().lower() not in _TRUTH:
            raise DataError(f"'{path}': line {line} should have shared1000 True or False, but has {is_shared!r}.")
        coco_ids.append(whole_number(path, line, "cocoId", coco_id))
        coco_splits.append(split)
        crop_boxes.append(_crop_box(path, line, crop_box))
        shared.append(_TRUTH[is_shared.strip().lower()])
        trials.append([whole_number(path, line, *cell) for cell in zip(repeats, cells[5:], strict=True)])
    if not trials or (official and len(trials) != N_STIMULI):
        raise DataError(f"'{path}' should have {N_STIMULI if official else 'some'} images, but has {len(trials)}.")
    parts = np.split(np.array(trials, np.int64), len(subjects), axis=1)
    return StimInfo(path, coco_ids, coco_splits, crop_boxes, np.array(shared), dict(zip(subjects, parts, strict=True)))


def _crop_box(path: Path, line: int, text: str) -> tuple[float, float, float, float]:
    """Four fractions, written like (0, 0, 0.1, 0.1), that leave something of the image."""
    try:
        top, bottom, left, right = (
            number(part) for part in text.strip().removeprefix("(").removesuffix(")").split(",")
        )
    except ValueError:
        top = bottom = left = right = -1.0
    if not (min(top, bottom, left, right) >= 0 and top + bottom < 1 and left + right < 1):
        raise DataError(
            f"'{path}': line {line} should have a cropBox of four fractions (top, bottom, left, right) that leave a "
            f"part of the image, but has {text!r}."
        )
    return top, bottom, left, right


def check_stim_info(stim_info: StimInfo, design: Design, subject: int, recorded: np.ndarray) -> None:
    """Require that the stimulus table agrees with the design on shared images and on every trial of a subject.

    Args:
        stim_info (`StimInfo`): From `read_stim_info`.
        design (`Design`): From `read_design`.
        subject (`int`): 1 to 8.
        recorded (`numpy.ndarray` of int): 0-based trials that the table must name; others may be absent, not differ.

    Raises:
        DataError: At the first contradiction.
    """
    path = stim_info.path
    shared = set(np.flatnonzero(stim_info.shared).tolist())
    if shared != set(design.lists[subject - 1, : design.n_shared].tolist()):
        raise DataError(f"'{path}': the images marked shared1000 differ from sharedix of '{design.path}'.")
    images, repeats = np.nonzero(stim_info.trials[subject])
    trials = stim_info.trials[subject][images, repeats] - 1
    outside = np.flatnonzero((trials < 0) | (trials >= design.order.size))
    if outside.size:
        raise DataError(
            f"'{path}': image {images[outside[0]]} names trial {trials[outside[0]] + 1} of subject {subject}; allowed "
            f"are 1 to {design.order.size}, and 0 for none."
        )
    stated = np.full(design.order.size, -1)  # -1 marks trials that the table does not name
    stated[trials] = images
    expected = design.nsd_ids(subject, design.order.size)
    needed = stated != -1
    needed[recorded] = True
    wrong = np.flatnonzero(needed & (stated != expected))
    if wrong.size or np.unique(trials).size != trials.size:
        trial = wrong[0] if wrong.size else np.flatnonzero(np.bincount(trials) > 1)[0]
        raise DataError(
            f"'{path}' and '{design.path}' disagree: trial {trial + 1} of subject {subject} shows image "
            f"{stated[trial]} or {expected[trial]} (0-based; -1 stands for none), or is named twice."
        )


def check_responses(
    path: Path, subject: int, design: Design, recorded: np.ndarray, trials_per_session: int
) -> np.ndarray:
    """Require that the behavioural record agrees with the design, trial by trial.

    Args:
        path (`Path`): `responses.tsv` of the subject.
        subject (`int`): 1 to 8.
        design (`Design`): From `read_design`.
        recorded (`numpy.ndarray` of int): 0-based trials to check, rising; other rows may be absent.
        trials_per_session (`int`): Trials of a session.

    Returns:
        `numpy.ndarray` of shape `(max(recorded) + 1,)`, int: Run of every such trial, 0 elsewhere.

    Raises:
        DataError: If a trial is missing, its subject, session or image differs, or runs go back within a session.
    """
    names = ("SUBJECT", "SESSION", "73KID", "10KID", "RUN")
    rows = list(read_columns(path, names, "\t"))
    if len(rows) <= recorded[-1]:
        raise DataError(f"'{path}' should have {recorded[-1] + 1} rows or more, but has {len(rows)}.")
    ids = design.nsd_ids(subject, recorded[-1] + 1)
    runs = np.zeros(recorded[-1] + 1, np.int64)
    for trial in recorded.tolist():
        line, cells = rows[trial]
        *found, run = (whole_number(path, line, *cell) for cell in zip(names, cells, strict=True))
        # both ids are 1-based in this file
        expected = [subject, trial // trials_per_session + 1, int(ids[trial]) + 1, int(design.order[trial]) + 1]
        if found != expected:
            raise DataError(
                f"'{path}' contradicts '{design.path}': trial {trial + 1} (line {line}) has (SUBJECT, SESSION, 73KID, "
                f"10KID) {tuple(found)}, expected {tuple(expected)}."
            )
        before = runs[trial - 1] if trial % trials_per_session else 0
        if not 0 < run < 100 or run < before:
            raise DataError(
                f"'{path}': trial {trial + 1} (line {line}) is of run {run} after run {before}; rows should be in "
                "order of time."
            )
        runs[trial] = run
    return runs
