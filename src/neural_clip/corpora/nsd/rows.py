"""Rows of a prepared NSD: single trials, averages over the presentations of an image, and the images."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from neural_clip.corpora.nsd.betas import read_session
from neural_clip.corpora.nsd.plan import SubjectPlan, image_id
from neural_clip.corpora.repeats import mean_of_repeats
from neural_clip.errors import DataError
from neural_clip.files.hdf5 import open_dataset, read_slab
from neural_clip.preparation import Statistics, scaled
from neural_clip.prepared.splits import SPLITS
from neural_clip.prepared.units import check_unit


def trial_rows(plan: SubjectPlan, sessions: Sequence[int], session_zscore: str) -> Iterator[dict | Statistics]:
    """One row a presentation, and before those of a session the statistics that they are scaled by.

    Args:
        plan (`SubjectPlan`): Of the subject.
        sessions (`Sequence[int]`): The sessions to read, one at a time.
        session_zscore (`str`): `"train_only"` or `"none"`.

    Raises:
        DataError: If a file of betas is damaged, or a session has too few training trials for z-scores.
    """
    for session in sessions:
        path, trials = plan.sessions[session], plan.trials(session)
        betas = read_session(path, plan.mask, plan.trials_per_session)  # (n_trials, n_voxels)
        check_unit(betas, "percent signal change", f"'{path}'", None, " Get the release's own file.")
        if session_zscore == "train_only":
            mean, std = _statistics(path, betas, plan.splits[trials] == SPLITS.index("train"))
            yield Statistics(f"sub-{plan.subject:02d}", f"ses-{session:02d}", mean, std)
            betas = _zscore(betas, mean, std)
        for trial, values in zip(trials.tolist(), betas, strict=True):
            run = int(plan.runs[trial])
            yield {
                "subject": f"sub-{plan.subject:02d}", "session": f"ses-{session:02d}",
                "run": f"run-{run:02d}" if run else "", "trial": trial, "image_id": image_id(plan.nsd_ids[trial]),
                "n_repeats": 1, "split": SPLITS[plan.splits[trial]], "fmri": values,
            }  # fmt: skip


def average_rows(plan: SubjectPlan, session_zscore: str) -> Iterator[dict | Statistics]:
    """One row an image, by [`mean_of_repeats`]."""
    counts = Counter(map(image_id, plan.nsd_ids[plan.recorded].tolist()))
    return mean_of_repeats(trial_rows(plan, list(plan.sessions), session_zscore), "fmri", counts, np.float32)


def image_rows(images: Sequence[tuple[int, list[str]]], path: Path) -> Iterator[dict]:
    """Rows of some images; the file of all stimuli (40 GB) is read image by image, in its own order.

    Args:
        images (`Sequence[tuple[int, list[str]]]`): 0-based nsdIds, rising, and names of categories.
        path (`Path`): `nsd_stimuli.hdf5`.

    Raises:
        DataError: If the file is damaged.
    """
    with open_dataset(path, "imgBrick") as bricks:
        whole = [(0, size) for size in bricks.shape[1:]]
        for nsd_id, names in images:
            pixels = read_slab(bricks, (nsd_id, nsd_id + 1), *whole)[0]
            concept = names[0] if names else ""
            yield {"image_id": image_id(nsd_id), "image": pixels, "concept": concept, "categories": names}


def _statistics(path: Path, betas: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the training trials by voxel, float64; that of a voxel that never varies is infinite."""
    if train.sum() < 2:
        raise DataError(f"'{path}' has {train.sum()} training trials, too few for the 'session_zscore' parameter.")
    std = betas[train].std(0, dtype=np.float64)
    if constant := int((std == 0).sum()):
        warnings.warn(f"{constant} voxels of '{path}' are constant; they are set to 0.", stacklevel=2)
    return betas[train].mean(0, dtype=np.float64), np.where(std == 0, np.inf, std)


def _zscore(betas: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """`(betas - mean) / std` by voxel, float32; voxels that never vary become 0."""
    zscores = scaled(betas, mean, std)
    zscores[:, np.isinf(std)] = 0.0  # and not -0
    return zscores
