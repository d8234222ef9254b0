"""What THINGS-EEG2 holds: the published facts, the same of a simulated twin, and how files are compared with them.

The counts of events were taken from the event tables of all 40 sessions, which are alike in them. Images are known by
codes: training image n of concept c is (c - 1) * 10 + n, test images are 1 to 200, and a target is 99999. Sessions 1
and 2 show half of the training concepts each, and so do sessions 3 and 4; which half differs between people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from neural_clip.corpora.stamp import stamped
from neural_clip.errors import DataError
from neural_clip.preparation import channel_differences

TARGET = 99_999  # code of the images of Buzz Lightyear that people had to notice
PARTS = ("training", "test")
SHORT = {"training": "train", "test": "test"}  # what names of files and columns call the parts
_RAW_ORDER = (
    "Fp1 F3 F7 FT9 FC5 FC1 C3 T7 TP9 CP5 CP1 Pz P3 P7 O1 Oz O2 P4 P8 TP10 CP6 CP2 Cz C4 T8 FT10 FC6 FC2 F4 F8 Fp2 AF7 "
    "AF3 AFz F1 F5 FT7 FC3 FCz C1 C5 TP7 CP3 P1 P5 PO7 PO3 POz PO4 PO8 P6 P2 CPz CP4 TP8 C6 C2 FC4 FT8 F6 F2 AF4 AF8"
)
RAW_ORDER = _RAW_ORDER.split()
"""Channels of the raw recordings. There is no Fz, which was the reference."""
_ALL_CHANNELS = (
    "Fp1 Fp2 AF7 AF3 AFz AF4 AF8 F7 F5 F3 F1 F2 F4 F6 F8 FT9 FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8 FT10 T7 C5 C3 C1 Cz "
    "C2 C4 C6 T8 TP9 TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8 TP10 P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz O2"
)
ALL_CHANNELS = _ALL_CHANNELS.split()
"""The same from front to back, as all preprocessed releases of 63 channels have them."""
POSTERIOR = [name for name in RAW_ORDER if name[0] in "OP"]
"""The 17 channels of the official preprocessing, in the order of the raw recordings."""


@dataclass(frozen=True)
class CorpusFacts:
    """What a THINGS-EEG2 folder must hold.

    Args:
        subjects (`tuple[int, ...]`): Numbers of the subjects.
        n_sessions (`int`): Sessions of a subject; each pair of them shows all training images.
        n_concepts, images_per_concept (`int`): Training concepts, and images of each.
        n_test_images (`int`): Test images, each of a concept of its own.
        train_repeats, test_repeats (`int`): How often an image is shown in a session at least; more is surplus.
        train_shown, train_targets, test_shown, test_targets (`int`): Images and targets of a session.
        n_train_runs (`int`): Files of the training part of a session in BIDS.
        sfreq (`float`): Rate of the recordings, in Hz.
    """

    subjects: tuple[int, ...] = tuple(range(1, 11))
    n_sessions: int = 4
    n_concepts: int = 1654
    images_per_concept: int = 10
    n_test_images: int = 200
    train_repeats: int = 2
    test_repeats: int = 20
    train_shown: int = 16_710
    train_targets: int = 90
    test_shown: int = 4056
    test_targets: int = 24
    n_train_runs: int = 5
    sfreq: float = 1000.0

    def n_images(self, part: str) -> int:
        """Images of a part, which are the largest code."""
        return self.n_test_images if part == "test" else self.n_concepts * self.images_per_concept

    def n_exemplars(self, part: str) -> int:
        """Images of each concept of a part."""
        return 1 if part == "test" else self.images_per_concept

    def repeats(self, part: str) -> int:
        """How often an image of a part is shown in a session at least."""
        return self.test_repeats if part == "test" else self.train_repeats

    def all_repeats(self, part: str) -> int:
        """How often an image of a part is shown in all sessions, without the surplus."""
        return self.repeats(part) * (self.n_sessions if part == "test" else self.n_sessions // 2)

    def session(self, part: str) -> dict[str, int]:
        """Counts that a part of a session must show."""
        test = part == "test"
        return {
            "images shown": self.test_shown if test else self.train_shown,
            "targets": self.test_targets if test else self.train_targets,
            "different images": self.n_images(part) if test else self.n_images(part) // 2,
            f"images shown {self.repeats(part)} times or more": self.n_images(part) // (1 if test else 2),
        }


REAL = CorpusFacts()


def corpus_facts(raw_dir: Path, stamp: Mapping | None) -> CorpusFacts:
    """Facts of the real corpus, or those that the stamp of a twin states; a `DataError` if it lacks one."""
    if stamp is None:
        return REAL
    sizes = stamped(raw_dir, stamp, "sizes", dict)
    numbers = {str(subject): subject for subject in stamped(raw_dir, sizes, "subjects", list)}
    subjects = tuple(stamped(raw_dir, numbers, name, int) for name in numbers)
    counts = {item.name: stamped(raw_dir, sizes, item.name, int, least=0) for item in fields(CorpusFacts)[1:-1]}
    return CorpusFacts(subjects, **counts, sfreq=stamped(raw_dir, sizes, "sfreq", float))


def found_session(codes: np.ndarray, part: str, facts: CorpusFacts) -> dict[str, int]:
    """The counts of [`CorpusFacts.session`] as the codes of a part of a session show them."""
    different, times = np.unique(codes[codes != TARGET], return_counts=True)
    return {
        "images shown": int(times.sum()), "targets": int((codes == TARGET).sum()), "different images": len(different),
        f"images shown {facts.repeats(part)} times or more": int((times >= facts.repeats(part)).sum()),
    }  # fmt: skip


def check_codes(path: Path, part: str, codes: np.ndarray, facts: CorpusFacts) -> None:
    """Refuse codes that no session of this part can show.

    Raises:
        DataError: If a code is no image of this part, the file holds the other part, or shows only some images of a
            training concept.
    """
    shown = codes[codes != TARGET]
    if not len(shown):
        raise DataError(f"'{path}' shows no image: it has {len(codes)} events, {len(codes)} of them targets.")
    other = PARTS[part == "training"]
    if found_session(codes, other, facts) == facts.session(other):
        raise DataError(
            f"'{path}' holds the {other} part of a session, not its {part} part. Were the two files swapped?"
        )
    wrong = shown[(shown < 1) | (shown > facts.n_images(part))]
    if len(wrong):
        raise DataError(
            f"'{path}' has the code {wrong[0]} among its events; allowed are 1 to {facts.n_images(part)} for images "
            f"and {TARGET} for targets. Is it damaged, or of another corpus?"
        )
    if part == "training":
        numbers, sizes = np.unique((np.unique(shown) - 1) // facts.images_per_concept, return_counts=True)
        lacking = np.flatnonzero(sizes != facts.images_per_concept)
        if len(lacking):
            first = lacking[0]
            raise DataError(
                f"'{path}' shows {sizes[first]} of the {facts.images_per_concept} images of training concept "
                f"{numbers[first] + 1}, and so of {len(lacking)} of {len(sizes)} concepts; a session shows all or "
                "none. Is it half of a recording?"
            )


def check_sessions(subject: int, codes: Mapping[int, np.ndarray], facts: CorpusFacts) -> None:
    """Refuse training parts of a subject that do not belong together.

    Args:
        subject (`int`): Number of the subject.
        codes (`Mapping[int, numpy.ndarray]`): Codes of the training part of each session.
        facts (`CorpusFacts`): Of the corpus.

    Raises:
        DataError: If two sessions of a pair show an image both, or do not show all images together.
    """
    for first in range(1, facts.n_sessions, 2):
        pair = [
            set(codes[number][codes[number] != TARGET].tolist()) for number in (first, first + 1) if number in codes
        ]
        if len(pair) < 2:
            continue
        common, n_images = len(pair[0] & pair[1]), facts.n_images("training")
        if common or len(pair[0] | pair[1]) != n_images:
            raise DataError(
                f"Sessions {first} and {first + 1} of sub-{subject:02d} have {common} training images in common and "
                f"show {len(pair[0] | pair[1])} of {n_images} together; they should have none in common and show all. "
                "Is a file of another session or subject among them?"
            )


def check_channels(path: Path, found: Sequence[str], expected: Sequence[str]) -> None:
    """Refuse other channels than expected, or another order, which would exchange signals; a `DataError` tells it."""
    if "Fz" in found:
        raise DataError(f"'{path}' has a channel Fz, which THINGS-EEG2 has not: it was the reference.")
    if told := channel_differences(list(found), list(expected)):
        raise DataError(f"'{path}' has other channels than THINGS-EEG2, or in another order: {told}.")
