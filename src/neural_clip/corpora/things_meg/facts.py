"""What THINGS-MEG holds: the published facts, the same of a simulated twin, and how trials are compared with them.

The counts were taken from all 480 event files of version 3.0.0. They scale with the number of sessions, because every
session shows one image of each concept, all test images once, and catch trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from neural_clip.corpora.stamp import stamped
from neural_clip.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


BROKEN_SENSOR = "MRO11-1609"


@dataclass(frozen=True)
class CorpusFacts:
    """What a THINGS-MEG folder must hold.

    Args:
        subjects (`tuple[int, ...]`): Numbers of the subjects.
        n_sessions (`int`): Sessions of a subject.
        n_runs (`int`): Runs of a session.
        n_concepts, n_test_images, n_catch (`int`): Training images (one a concept), test images and catch trials of a
            session, spread over its runs as evenly as whole numbers allow.
        n_chans (`int`): Gradiometers without the malfunctioning one.
        sfreq (`float`): Rate of the recordings, in Hz.
        n_listed (`int`, *optional*): Images in the list of THINGS; unknown for a twin.
        dropouts (`Mapping`): Start in s of 0.2 s of lost signal by (subject, session, run), which the published script
            fills with the median.
        simulated (`bool`): Whether these are the facts of a twin.
    """

    subjects: tuple[int, ...]
    n_sessions: int
    n_runs: int
    n_concepts: int
    n_test_images: int
    n_catch: int
    n_chans: int
    sfreq: float
    n_listed: int | None = None
    dropouts: Mapping[tuple[int, int, int], float] = field(default_factory=dict)
    simulated: bool = False

    @property
    def session_trials(self) -> dict[str, int]:
        """Trials of a session by type."""
        return {"exp": self.n_concepts, "test": self.n_test_images, "catch": self.n_catch}

    def run_trials(self, kind: str) -> tuple[int, ...]:
        """Allowed numbers of trials of a type in a run: a tenth of the session's, rounded down or up."""
        share = self.session_trials[kind] / self.n_runs
        return tuple(sorted({int(share), -int(-share // 1)}))


REAL = CorpusFacts(
    subjects=(1, 2, 3, 4), n_sessions=12, n_runs=10, n_concepts=1854, n_test_images=200, n_catch=200, n_chans=271,
    sfreq=1200.0, n_listed=26_107, dropouts={(1, 11, 5): 13.4, (2, 10, 3): 59.8},
)  # fmt: skip


def corpus_facts(raw_dir: Path, stamp: Mapping | None) -> CorpusFacts:
    """Facts of the real corpus, or those that the stamp of a twin states; a `DataError` if it lacks one."""
    if stamp is None:
        return REAL
    sizes = stamped(raw_dir, stamp, "sizes", dict)
    count = partial(stamped, raw_dir, sizes, kind=int)
    numbers = {str(subject): subject for subject in stamped(raw_dir, sizes, "subjects", list)}
    return CorpusFacts(
        subjects=tuple(stamped(raw_dir, numbers, name, int) for name in numbers), n_sessions=count(key="n_sessions"),
        n_runs=count(key="n_runs"), n_concepts=count(key="n_concepts"), n_test_images=count(key="n_test_images"),
        n_catch=count(key="n_catch_per_session", least=0), n_chans=count(key="n_chans") - 1,
        sfreq=stamped(raw_dir, sizes, "sfreq", float), simulated=True,
    )  # fmt: skip


def declared_trials(facts: CorpusFacts, subjects: Sequence[int], sessions: Sequence[int]) -> dict:
    """Facts that the trials of the chosen subjects and sessions must show, by name.

    Args:
        facts (`CorpusFacts`): Of the corpus.
        subjects, sessions (`Sequence[int]`): Numbers that were chosen.
    """
    n_sessions = len(sessions)
    declared: dict = {"subjects": sorted(subjects), "sessions": sorted(sessions)}
    if len(subjects) == 1 or n_sessions == facts.n_sessions:  # subjects saw the same images, but in other sessions
        declared["images shown"] = facts.n_concepts * n_sessions + facts.n_test_images
    for subject in sorted(subjects):
        declared[f"trials of subject {subject}"] = {
            "runs": facts.n_runs * n_sessions,
            **{kind: count * n_sessions for kind, count in facts.session_trials.items()},
            "exp images": facts.n_concepts * n_sessions, "exp concepts": facts.n_concepts,
            "test images": facts.n_test_images, "test concepts": facts.n_test_images,
            "repeats of a test image": [n_sessions],
        }  # fmt: skip
        for session in sorted(sessions):
            declared[f"trials of subject {subject} in session {session}"] = facts.session_trials
    return declared


def found_trials(trials: pd.DataFrame) -> dict:
    """The facts of `declared_trials` as the trials show them.

    Args:
        trials (`pandas.DataFrame`): With `subject`, `session`, `run`, `trial_type`, `value` and `category`.
    """
    shown = trials[trials.trial_type != "catch"]
    found: dict = {
        "subjects": sorted(trials.subject.unique().tolist()), "sessions": sorted(trials.session.unique().tolist()),
        "images shown": int(shown.value.nunique()),
    }  # fmt: skip
    for subject, own in trials.groupby("subject"):
        exp, test = own[own.trial_type == "exp"], own[own.trial_type == "test"]
        found[f"trials of subject {subject}"] = {
            "runs": len(own[["session", "run"]].drop_duplicates()), **_by_type(own),
            "exp images": int(exp.value.nunique()), "exp concepts": int(exp.category.nunique()),
            "test images": int(test.value.nunique()), "test concepts": int(test.category.nunique()),
            "repeats of a test image": sorted(set(test.value.value_counts().tolist())),
        }  # fmt: skip
        for session, rows in own.groupby("session"):
            found[f"trials of subject {subject} in session {session}"] = _by_type(rows)
    return found


def check_repeats(trials: pd.DataFrame) -> None:
    """Refuse what no part of the corpus can show: a training image twice, or a test image twice in a session.

    Args:
        trials (`pandas.DataFrame`): With `subject`, `session`, `trial_type` and `value`.

    Raises:
        DataError: Which names the first such image.
    """
    for kind, columns in (("exp", ["subject", "value"]), ("test", ["subject", "session", "value"])):
        shown = trials[trials.trial_type == kind]
        twice = shown[shown.duplicated(columns)]
        if len(twice):
            first = twice.iloc[0]
            raise DataError(
                f"The events of sub-BIGMEG{first.subject} show the {kind} image number {first.value} twice, the "
                f"second time in session {first.session}, run {first.run}; {len(twice)} rows are such. Events were "
                "mixed up."
            )


def declared_splits(facts: CorpusFacts, subjects: Sequence[int], sessions: Sequence[int], split: str) -> dict:
    """Sizes that the splits of each subject must have.

    Args:
        facts (`CorpusFacts`): Of the corpus.
        subjects, sessions (`Sequence[int]`): Numbers that were chosen.
        split (`str`): `"paper"`, `"zero_shot"` or `"large"`.
    """
    n_train = (facts.n_concepts - (0 if split == "paper" else facts.n_test_images)) * len(sessions)
    n_test = facts.n_test_images * len(sessions)  # both meanings: repeats of 200 images, or 12 images of 200 concepts
    sizes = {"train and validation": n_train, "test": n_test}
    sizes["test images"] = n_test if split == "large" else facts.n_test_images
    return {f"split {split} of subject {subject}": sizes for subject in sorted(subjects)}


def found_splits(trials: pd.DataFrame, split: str) -> dict:
    """The facts of `declared_splits` as the trials show them.

    Args:
        trials (`pandas.DataFrame`): With `subject`, `image_id` and `split`.
        split (`str`): Name of the protocol.
    """
    found = {}
    for subject, own in trials.groupby("subject"):
        test = own.image_id[own.split == "test"]
        sizes = {"train and validation": int(own.split.isin(["train", "validation"]).sum()), "test": len(test)}
        found[f"split {split} of subject {subject}"] = sizes | {"test images": int(test.nunique())}
    return found


def _by_type(trials: pd.DataFrame) -> dict[str, int]:
    """Trials by type."""
    return {kind: int((trials.trial_type == kind).sum()) for kind in ("exp", "test", "catch")}
