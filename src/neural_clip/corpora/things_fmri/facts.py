"""What THINGS-fMRI holds: the published facts, the same of a simulated twin, and how trials are compared with them.

The counts were taken from the event tables of all 360 runs. A session shows one new image of each of 720 concepts and
each of the 100 test images once; the concepts of all test images are among the 720. Catch trials are in the volumes
only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from neural_clip.corpora.stamp import stamped
from neural_clip.errors import DataError

KINDS = ("train", "test")
VISUAL = (
    "V1", "V2", "V3", "hV4", "VO1", "VO2", "LO1 (prf)", "LO2 (prf)", "TO1", "TO2", "V3b", "V3a", "lEBA", "rEBA",
    "lFFA", "rFFA", "lOFA", "rOFA", "lSTS", "rSTS", "lPPA", "rPPA", "lRSC", "rRSC", "lTOS", "rTOS", "lLOC", "rLOC",
    "IT",
)  # fmt: skip
"""Regions of the pRF and the localizer experiments, and IT, by the names of their columns."""


@dataclass(frozen=True)
class CorpusFacts:
    """What a THINGS-fMRI folder must hold.

    Args:
        subjects (`tuple[int, ...]`): Numbers of the subjects, who all see the same images.
        n_sessions, n_runs (`int`): Sessions of a subject, and runs of a session.
        n_concepts (`int`): Concepts of training images; a session shows a new image of each.
        n_test_images (`int`): Test images, each of one of these concepts; a session shows each once.
        n_catch (`int`): Catch trials of a session.
    """

    subjects: tuple[int, ...] = (1, 2, 3)
    n_sessions: int = 12
    n_runs: int = 10
    n_concepts: int = 720
    n_test_images: int = 100
    n_catch: int = 100

    @property
    def session_trials(self) -> int:
        """Trials of a session without catch trials."""
        return self.n_concepts + self.n_test_images

    @property
    def n_trials(self) -> int:
        """Trials of a subject without catch trials."""
        return self.session_trials * self.n_sessions


REAL = CorpusFacts()


def corpus_facts(raw_dir: Path, stamp: Mapping | None) -> CorpusFacts:
    """Facts of the real corpus, or those that the stamp of a twin states; a `DataError` if it lacks one."""
    if stamp is None:
        return REAL
    sizes = stamped(raw_dir, stamp, "sizes", dict)
    numbers = {str(subject): subject for subject in stamped(raw_dir, sizes, "subjects", list)}
    subjects = tuple(stamped(raw_dir, numbers, name, int) for name in numbers)
    counts = {
        item.name: stamped(raw_dir, sizes, item.name, int, least=0 if item.name == "n_catch" else 1)
        for item in fields(CorpusFacts)[1:]
    }
    return CorpusFacts(subjects, **counts)


@dataclass(frozen=True)
class Trial:
    """One presentation.

    Args:
        session, run (`int`): From 1.
        kind (`str`): `"train"` or `"test"`.
        image_id (`str`): Stem of the image's file, `"hula_hoop_16s"`: the same in all corpora of THINGS.
        file (`str`): Name of the image's file.
        folder (`str`): Concept by the published table or folder, which is wrong for three test images.
    """

    session: int
    run: int
    kind: str
    image_id: str
    file: str
    folder: str

    @property
    def concept(self) -> str:
        """`hula_hoop_16s` is of concept `hula_hoop`, whatever the folder is called; names hold underscores."""
        return self.image_id.rsplit("_", 1)[0]


def declared_trials(facts: CorpusFacts) -> dict[str, int]:
    """Counts that the trials of every subject must show."""
    return {
        "trials": facts.n_trials, "training trials": facts.n_concepts * facts.n_sessions,
        "training images": facts.n_concepts * facts.n_sessions, "training concepts": facts.n_concepts,
        "test trials": facts.n_test_images * facts.n_sessions, "test images": facts.n_test_images,
        "test concepts": facts.n_test_images, "test concepts among the training concepts": facts.n_test_images,
        "runs": facts.n_runs * facts.n_sessions,
    }  # fmt: skip


def found_trials(trials: Sequence[Trial]) -> dict[str, int]:
    """The counts of [`declared_trials`] as trials show them."""
    train, test = ([trial for trial in trials if trial.kind == kind] for kind in KINDS)
    concepts, test_concepts = ({trial.concept for trial in some} for some in (train, test))
    return {
        "trials": len(trials), "training trials": len(train),
        "training images": len({trial.image_id for trial in train}), "training concepts": len(concepts),
        "test trials": len(test), "test images": len({trial.image_id for trial in test}),
        "test concepts": len(test_concepts),
        "test concepts among the training concepts": len(test_concepts & concepts),
        "runs": len({(trial.session, trial.run) for trial in trials}),
    }  # fmt: skip


def check_trials(path: Path, trials: Sequence[Trial], facts: CorpusFacts) -> None:
    """Refuse trials that cannot be those of a subject of this corpus.

    Args:
        path (`Path`): Where they were read, for messages.
        trials (`Sequence[Trial]`): All of a subject, in order.
        facts (`CorpusFacts`): Of the corpus.

    Raises:
        DataError: If counts differ from the published ones, a session does not show each concept and each test image
            once, sessions or runs are out of order, or an image is of both kinds.
    """
    declared, found = declared_trials(facts), found_trials(trials)
    if different := [f"{name}: {found[name]} instead of {n}" for name, n in declared.items() if found[name] != n]:
        raise DataError(
            f"'{path}' does not hold the trials of THINGS-fMRI as published: {'; '.join(different)}. Is it of another "
            "corpus, incomplete, or changed?"
        )
    if both := {trial.image_id for trial in trials if trial.kind == "train"} & {
        trial.image_id for trial in trials if trial.kind == "test"
    }:
        raise DataError(f"'{path}' shows {min(both)!r} and {len(both) - 1} more as training and as test images.")
    places = [(trial.session, trial.run) for trial in trials]
    if places != sorted(places) or {session for session, _ in places} != set(range(1, facts.n_sessions + 1)):
        raise DataError(f"'{path}' is not in the order of sessions 1 to {facts.n_sessions} and their runs.")
    for session in range(1, facts.n_sessions + 1):
        own = [trial for trial in trials if trial.session == session]
        shown = Counter(trial.concept if trial.kind == "train" else trial.image_id for trial in own)
        if len(own) != facts.session_trials or len(shown) != len(own):
            name, times = shown.most_common(1)[0]
            raise DataError(
                f"'{path}' has {len(own)} trials in session {session}, in which {name!r} occurs {times} times; a "
                f"session has {facts.session_trials} trials: one image of each training concept, and each test image "
                "once. Were trials mixed up?"
            )
