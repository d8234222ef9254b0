"""Rows of a prepared THINGS-fMRI: single trials, or means over the presentations of an image."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neural_clip.corpora.repeats import mean_of_repeats
from neural_clip.corpora.things_fmri.betas import TableBetas, VolumeBetas
from neural_clip.corpora.things_fmri.facts import Trial
from neural_clip.corpora.things_fmri.layout import name_of
from neural_clip.corpora.things_fmri.voxels import Voxels
from neural_clip.errors import DataError
from neural_clip.preparation import Statistics, scaled
from neural_clip.prepared.parts import Part


@dataclass(frozen=True)
class SubjectPlan:
    """All that decides the rows of a subject.

    Args:
        subject (`int`): Number.
        trials (`Sequence[Trial]`): All, in order, without catch trials.
        splits (`Mapping[str, str]`): Split by image; images without one are left out.
        voxels (`Voxels`): Those that are taken.
        betas ([`TableBetas`] or [`VolumeBetas`]): Where the betas lie.
        sessions (`Sequence[int]`): Those that are read.
        tables (`Sequence[Path]`): Files of trials, voxels and the brain mask.
    """

    subject: int
    trials: Sequence[Trial]
    splits: Mapping[str, str]
    voxels: Voxels
    betas: TableBetas | VolumeBetas
    sessions: Sequence[int]
    tables: Sequence[Path]

    def of(self, session: int) -> list[tuple[int, Trial]]:
        """Trials of a session with their numbers, counted from 0 over all sessions."""
        return [(number, trial) for number, trial in enumerate(self.trials) if trial.session == session]

    def used(self, sessions: Sequence[int]) -> list[Trial]:
        """Trials of some sessions that become rows, or parts of one."""
        return [trial for trial in self.trials if trial.session in sessions and trial.image_id in self.splits]

    def files(self, sessions: Sequence[int]) -> list[Path]:
        """Raw files on which the rows of some sessions depend."""
        if isinstance(self.betas, TableBetas):
            return [self.betas.path, *self.tables]
        return [path for session in sessions for path in self.betas.files(session)] + list(self.tables)

    def read(self, session: int) -> np.ndarray:
        """Betas `(n_trials, n_voxels)`, float32, of all trials of a session."""
        if isinstance(self.betas, VolumeBetas):
            return self.betas.read(self.voxels.rows, session)
        numbers = [number for number, _ in self.of(session)]
        return self.betas.read(self.voxels.rows, numbers[0], numbers[-1] + 1)


def recording_parts(plans: Sequence[SubjectPlan], session_zscore: str, *, average: bool) -> list[Part]:
    """A part a subject when averaging, as repeats lie in different sessions; else a part a session."""
    parts = []
    for plan in plans:
        name = name_of(plan.subject)
        if average:
            rows, n_rows = _Rows(plan, plan.sessions, session_zscore, True), len(_counts(plan, plan.sessions))
            parts.append(Part(name, rows, plan.files(plan.sessions), n_rows))
            continue
        for session in plan.sessions:
            rows, n_rows = _Rows(plan, [session], session_zscore, False), len(plan.used([session]))
            parts.append(Part(f"{name}_ses-{session:02d}", rows, plan.files([session]), n_rows))
    return parts


@dataclass(frozen=True)
class _Rows:
    """Gives the rows of some sessions of a subject."""

    plan: SubjectPlan
    sessions: Sequence[int]
    session_zscore: str
    average: bool

    def __call__(self) -> Iterator[dict | Statistics]:
        rows = _trial_rows(self.plan, self.sessions, self.session_zscore)
        return mean_of_repeats(rows, "fmri", _counts(self.plan, self.sessions), np.float32) if self.average else rows


def _counts(plan: SubjectPlan, sessions: Sequence[int]) -> Counter:
    """Presentations of each image in some sessions."""
    return Counter(trial.image_id for trial in plan.used(sessions))


def _trial_rows(plan: SubjectPlan, sessions: Sequence[int], session_zscore: str) -> Iterator[dict | Statistics]:
    """One row a presentation, and before those of a session the statistics that they are scaled by."""
    name = name_of(plan.subject)
    for session in sessions:
        trials = plan.of(session)
        betas = plan.read(session)  # (n_trials, n_voxels)
        if session_zscore == "train_only":
            train = np.array([plan.splits.get(trial.image_id) == "train" for _, trial in trials])
            mean, std = _statistics(f"{name}, session {session}", betas, train)
            yield Statistics(name, f"ses-{session:02d}", mean, std)
            betas = scaled(betas, mean, std)
            betas[:, np.isinf(std)] = 0.0  # and not -0
        for (number, trial), values in zip(trials, betas, strict=True):
            if trial.image_id in plan.splits:
                yield {
                    "subject": name, "session": f"ses-{session:02d}", "run": f"run-{trial.run:02d}", "trial": number,
                    "image_id": trial.image_id, "concept": trial.concept, "n_repeats": 1,
                    "split": plan.splits[trial.image_id], "fmri": values,
                }  # fmt: skip


def _statistics(where: str, betas: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the training trials by voxel, float64; that of a voxel that never varies is infinite."""
    if train.sum() < 2:
        raise DataError(f"{where} has {train.sum()} training trials, too few for the 'session_zscore' parameter.")
    std = betas[train].std(0, dtype=np.float64)
    if constant := int((std == 0).sum()):
        warnings.warn(f"{constant} voxels of {where} are constant; they are set to 0.", stacklevel=2)
    return betas[train].mean(0, dtype=np.float64), np.where(std == 0, np.inf, std)
