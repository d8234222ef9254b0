"""What a local copy of the Natural Scenes Dataset holds, checked before the first beta is read.

Published facts are compared with what was found; a copy that lacks sessions is accepted only as a partial one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neural_clip.corpora.declared import check_facts
from neural_clip.corpora.nsd.betas import read_mask
from neural_clip.corpora.nsd.design import (
    N_STIMULI,
    Design,
    StimInfo,
    check_responses,
    check_stim_info,
    read_design,
    read_stim_info,
)
from neural_clip.corpora.nsd.layout import STIMULI_FILE, available_sessions, find_subjects, region_file, responses_file
from neural_clip.corpora.nsd.options import DEFAULT_ROI, N_SESSIONS, NsdOptions
from neural_clip.corpora.stamp import read_stamp, stamped
from neural_clip.errors import DataError, check_value
from neural_clip.files.hdf5 import check_storage, open_dataset
from neural_clip.files.nifti import check_same_place, is_nifti, read_affine
from neural_clip.prepared.splits import SPLITS, validation_split

TRIALS_PER_SESSION = 750
STIMULUS_SIZE = 425
NSDGENERAL_VOXELS = {1: 15724, 2: 14278, 3: 15226, 4: 13153, 5: 13039, 6: 17907, 7: 12682, 8: 14386}
GRIDS = {1: (81, 104, 83), 2: (82, 106, 84), 5: (79, 97, 78), 7: (78, 95, 81)}
"""1.8 mm volumes of the subjects with 40 sessions (NSD data manual, "Technical notes")."""
_FACTS = ("trials of unshared images", "trials of shared images", "unshared images", "shared images")


@dataclass
class Corpus:
    """What was found and checked.

    Args:
        raw_dir (`Path`): Root of the copy.
        stamp (`dict`, *optional*): Mark of a simulated corpus.
        n_sessions (`int`): Sessions that were asked for.
        design (`Design`), stim_info (`StimInfo`): Tables of the experiment.
        plans (`list[SubjectPlan]`): One a subject.
        masks (`dict[int, Path]`): Files of the region by subject.
        declared (`dict`): What the corpus must hold.
        partial (`dict`, *optional*): What it lacks of that.
        defects (`list[str]`): What a reader must know.
    """

    raw_dir: Path
    stamp: dict | None
    n_sessions: int
    design: Design
    stim_info: StimInfo
    plans: list[SubjectPlan]
    masks: dict[int, Path]
    declared: dict
    partial: dict | None
    defects: list[str] = field(default_factory=list)

    @property
    def stimuli(self) -> Path:
        """File of all images."""
        return self.raw_dir / STIMULI_FILE

    def shown(self) -> list[int]:
        """0-based nsdIds of all images that were shown in a session that there is, rising."""
        return np.unique(np.concatenate([plan.nsd_ids[plan.recorded] for plan in self.plans])).tolist()

    def files(self, plan: SubjectPlan, sessions: Sequence[int]) -> list[Path]:
        """Raw files that rows of some sessions depend on."""
        behaviour = responses_file(self.raw_dir, plan.subject)
        tables = [self.masks[plan.subject], self.design.path, self.stim_info.path]
        return [plan.sessions[n] for n in sessions] + tables + ([behaviour] if behaviour.is_file() else [])


def open_corpus(raw_dir: Path, options: NsdOptions) -> Corpus:
    """Find the files, read the tables, and check all that can be checked before the betas.

    Raises:
        DataError: If a file is absent or damaged, or files contradict each other or the published facts.
    """
    stamp = read_stamp(raw_dir)
    numbers = find_subjects(raw_dir, options.subjects)
    n_sessions = _n_sessions(raw_dir, options.n_sessions, stamp)
    per_session = TRIALS_PER_SESSION if stamp is None else stamped(raw_dir, stamp, "trials_per_session", int)
    sessions = {subject: _sessions(raw_dir, subject, n_sessions, options) for subject in numbers}
    masks = {subject: region_file(raw_dir, subject, options.roi, len(numbers)) for subject in numbers}
    regions = {subject: _mask(raw_dir, path, subject, options, stamp) for subject, path in masks.items()}
    for subject, path in masks.items():
        _check_place(path, sessions[subject])
    design = read_design(raw_dir, numbers, official=not stamp)
    n_trials = n_sessions * per_session
    if n_trials > design.order.size:
        raise DataError(
            f"Invalid value for the 'n_sessions' parameter. '{design.path}' plans {design.order.size} trials, which "
            f"are {design.order.size // per_session} sessions, but got {n_sessions} instead."
        )
    stim_info = read_stim_info(raw_dir, numbers, official=not stamp)
    plans, absent = [], []
    for subject in numbers:
        plan = SubjectPlan(
            subject, sessions[subject], per_session, regions[subject], design.nsd_ids(subject, n_trials),
            _splits(design, subject, n_trials, options), np.zeros(n_trials, np.int64),
        )  # fmt: skip
        check_stim_info(stim_info, design, subject, plan.recorded)
        absent += [] if _read_runs(raw_dir, plan, design, options.allow_partial) else [subject]
        plans.append(plan)
    declared, partial = _compare(raw_dir, design, plans, absent, n_sessions, options.allow_partial)
    defects = [f"responses.tsv of sub-{s:02d} is absent: trial order not cross-checked, runs unknown" for s in absent]
    corpus = Corpus(raw_dir, stamp, n_sessions, design, stim_info, plans, masks, declared, partial, defects)
    _check_stimuli(corpus)
    return corpus


def _n_sessions(raw_dir: Path, n_sessions: int | None, stamp: dict | None) -> int:
    """Sessions to use."""
    if n_sessions is None:
        n_sessions = N_SESSIONS if stamp is None else stamped(raw_dir, stamp, "n_sessions", int)
    check_value("n_sessions", n_sessions, n_sessions >= 1, "1 and more")
    return n_sessions


def _sessions(raw_dir: Path, subject: int, n_sessions: int, options: NsdOptions) -> dict[int, Path]:
    """Files of the first sessions; all of them, or those that there are."""
    found = available_sessions(raw_dir, subject, options.betas_format)
    wanted = {number: found[number] for number in range(1, n_sessions + 1) if number in found}
    absent = [number for number in range(1, n_sessions + 1) if number not in found]
    if absent and not (options.allow_partial and wanted):
        raise DataError(
            f"Subject sub-{subject:02d} lacks the betas of session {absent[0]}; {n_sessions} sessions are asked "
            f"for and {len(found)} are in '{raw_dir}'. Choose fewer with the 'n_sessions' parameter "
            "(--n-sessions), or other subjects (3, 4, 6 and 8 have fewer than 37), or take what is there with the "
            "'allow_partial' parameter (--allow-partial)."
        )
    return wanted


def _mask(raw_dir: Path, path: Path, subject: int, options: NsdOptions, stamp: dict | None) -> np.ndarray:
    """Voxels of the region; size and grid are compared with the published (or the simulated corpus' own) ones."""
    roi_values = options.roi_values
    fits = roi_values is None or min(roi_values, default=0) >= 1
    check_value("roi_values", list(roi_values or ()), fits, "numbers of regions, 1 and more")
    mask = read_mask(path, roi_values)
    grid = None if stamp else GRIDS.get(subject)
    if options.roi == DEFAULT_ROI and roi_values is None:
        expected = NSDGENERAL_VOXELS[subject]
        if stamp is not None:
            expected = stamped(raw_dir, stamped(raw_dir, stamp, "n_voxels", dict), f"sub-{subject:02d}", int)
        if int(mask.sum()) != expected:
            raise DataError(
                f"nsdgeneral of subj{subject:02d} should mark {expected} voxels with values above 0, but marks "
                f"{int(mask.sum())}. Is it another subject's or another resolution's?"
            )
    if grid and mask.shape != grid:
        raise DataError(f"'{path}' of subj{subject:02d} should have shape {grid}, but has {mask.shape}.")
    return mask


def _check_place(region: Path, sessions: dict[int, Path]) -> None:
    """Refuse a region that lies elsewhere than betas in NIfTI; HDF5 tells no place."""
    place = read_affine(region)
    for path in sessions.values():
        if is_nifti(path):
            check_same_place(path, read_affine(path), region, place)


def _splits(design: Design, subject: int, n_trials: int, options: NsdOptions) -> np.ndarray:
    """Split of every trial; validation is chosen from the subject's own images of all planned sessions.

    So the choice depends neither on who else is prepared nor on which sessions are there.
    """
    names = [image_id(i) for i in design.nsd_ids(subject, n_trials)]
    shared = design.shared(n_trials)
    own = (name for name, no in zip(names, shared, strict=True) if not no)
    chosen = validation_split(own, options.validation_fraction, options.seed)
    validation = np.array([name in chosen for name in names])
    codes = [SPLITS.index("test"), SPLITS.index("validation")]
    return np.select([shared, validation], codes, SPLITS.index("train"))


def _read_runs(raw_dir: Path, plan: SubjectPlan, design: Design, allow_partial: bool) -> bool:
    """Cross-check responses.tsv and take the runs from it; return whether there is one."""
    path = responses_file(raw_dir, plan.subject)
    if not path.is_file():
        if allow_partial:
            return False
        raise DataError(
            f"'{path}' does not exist, so the order of trials cannot be cross-checked. Download it, or accept that "
            "with the 'allow_partial' parameter (--allow-partial)."
        )
    runs = check_responses(path, plan.subject, design, plan.recorded, plan.trials_per_session)
    plan.runs[: runs.size] = runs
    return True


def _counts(shared: np.ndarray, order: np.ndarray) -> dict[str, int]:
    """Trials and different images, unshared and shared."""
    images = [np.unique(order[~shared]).size, np.unique(order[shared]).size]
    return dict(zip(_FACTS, map(int, [(~shared).sum(), shared.sum(), *images]), strict=True))


def _compare(
    raw_dir: Path,
    design: Design,
    plans: Sequence[SubjectPlan],
    absent: Sequence[int],
    n_sessions: int,
    allow_partial: bool,
) -> tuple[dict, dict | None]:
    """Declared facts, and how what is there differs from them."""
    n_trials = n_sessions * plans[0].trials_per_session
    shared, order = design.shared(n_trials), design.order[:n_trials]
    declared = {"sessions": n_sessions, "trials of a session": plans[0].trials_per_session}
    declared |= _counts(shared, order)
    expected: dict[str, int | str] = {}
    found: dict[str, int | str] = {}
    for plan in plans:
        here = {"sessions": len(plan.sessions), **_counts(shared[plan.recorded], order[plan.recorded])}
        found |= {f"sub-{plan.subject:02d} {name}": value for name, value in here.items()}
        expected |= {f"sub-{plan.subject:02d} {name}": declared[name] for name in here}
        found[f"sub-{plan.subject:02d} responses.tsv"] = "absent" if plan.subject in absent else "present"
        expected[f"sub-{plan.subject:02d} responses.tsv"] = "present"
    return declared, check_facts(raw_dir, expected, found, allow_partial=allow_partial)


def _check_stimuli(corpus: Corpus) -> None:
    """Require (N, height, width, 3) of uint8 that holds every image."""
    expected = None if corpus.stamp else (N_STIMULI, STIMULUS_SIZE, STIMULUS_SIZE, 3)
    last = corpus.shown()[-1]
    with open_dataset(corpus.stimuli, "imgBrick") as bricks:
        right = bricks.shape == expected if expected else bricks.ndim == 4 and bricks.shape[3] == 3
        if not right or bricks.dtype != np.uint8 or bricks.shape[0] <= last:
            raise DataError(
                f"'{corpus.stimuli}': imgBrick should be uint8 of shape "
                f"{expected or f'(more than {last}, height, width, 3)'}, but is {bricks.dtype} of {bricks.shape}."
            )
        check_storage(corpus.stimuli, bricks)


@dataclass(frozen=True)
class SubjectPlan:
    """All that decides the rows of a subject; trials are counted from 0 over all planned sessions.

    Args:
        subject (`int`): 1 to 8.
        sessions (`dict[int, Path]`): File of betas by session, counted from 1; sessions may be missing.
        trials_per_session (`int`): Trials of every session.
        mask (`numpy.ndarray` of shape `(X, Y, Z)`, bool): Voxels to keep.
        nsd_ids (`numpy.ndarray` of shape `(n_trials,)`): 0-based image of every planned trial.
        splits (`numpy.ndarray` of shape `(n_trials,)`): Place in `SPLITS`.
        runs (`numpy.ndarray` of shape `(n_trials,)`): From 1; 0 where unknown.
    """

    subject: int
    sessions: dict[int, Path]
    trials_per_session: int
    mask: np.ndarray
    nsd_ids: np.ndarray
    splits: np.ndarray
    runs: np.ndarray

    def trials(self, session: int) -> np.ndarray:
        """Trials of a session."""
        return np.arange((session - 1) * self.trials_per_session, session * self.trials_per_session)

    @property
    def recorded(self) -> np.ndarray:
        """Trials of all sessions that there are, rising."""
        return np.concatenate([self.trials(session) for session in self.sessions])


def image_id(nsd_id: int) -> str:
    """Name of an image from its 0-based nsdId."""
    return f"nsd-{nsd_id:05d}"
