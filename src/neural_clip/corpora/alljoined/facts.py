"""What Alljoined-1.6M and Alljoined1 hold: the published facts, or the same of a simulated copy.

Alljoined-1.6M follows the design of THINGS-EEG2 and shows its images: ids from 0 on are training images, ten of each
concept in a row, and the test images come last. Counts of trials were taken from the event tables of a copy in BIDS
(nm000134).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from neural_clip.corpora.stamp import stamped

_CHANNELS = (
    "Cz FCz AFz Fp1 F5 F1 CP5 CP3 CP1 P1 P3 P5 P7 PO7 PO3 O1 Pz POz Oz O2 PO4 PO8 P8 P6 P4 P2 CP2 CP4 CP6 F2 F6 Fp2"
)
CHANNELS = _CHANNELS.split()
"""The 32 electrodes of Alljoined-1.6M, in the order of its files."""
PARTS = ("training", "test")
LABELS = {"training": "stim_train", "test": "stim_test"}  # what annotations and tables call the parts


@dataclass(frozen=True)
class CorpusFacts:
    """What a folder must hold.

    Args:
        subjects (`tuple[int, ...]`): Numbers of the subjects of Alljoined-1.6M.
        first_subjects (`tuple[int, ...]`): Of Alljoined1.
        fewer (`dict[int, int]`): Test trials of those who have fewer than all.
        moved (`tuple[int, ...]`): Of `subject, row, place`: a row of the subject's table that was recorded before
            another one.
        n_sessions, test_blocks, train_blocks (`int`): Sessions of a subject; blocks of a session, the test blocks
            first.
        n_concepts, images_per_concept, n_test_images (`int`): Images.
        test_shown (`int`): Test trials of a session.
        first_images, first_test_images (`int`): Images of Alljoined1, and those of them in its test file.
        sfreq (`float`): Rate of the recordings, in Hz.
    """

    subjects: tuple[int, ...] = tuple(range(1, 21))
    first_subjects: tuple[int, ...] = tuple(range(1, 9))
    fewer: dict[int, int] = field(default_factory=lambda: {9: 16_084, 19: 16_204, 20: 16_212})
    moved: tuple[int, ...] = (6, 73_762, 73_760)
    n_sessions: int = 4
    test_blocks: int = 4
    train_blocks: int = 15
    n_concepts: int = 1654
    images_per_concept: int = 10
    n_test_images: int = 200
    test_shown: int = 4056
    first_images: int = 960
    first_test_images: int = 194
    sfreq: float = 256.0

    @property
    def n_training_images(self) -> int:
        """Which is also the id of the first test image."""
        return self.n_concepts * self.images_per_concept

    def part(self, number: int) -> str | None:
        """Part that an image belongs to."""
        if not 0 <= number < self.n_training_images + self.n_test_images:
            return None
        return "training" if number < self.n_training_images else "test"

    def concept(self, number: int) -> int:
        """Number of the concept of an image, from 0; test images have concepts of their own."""
        beyond = number - self.n_training_images
        return number // self.images_per_concept if beyond < 0 else self.n_concepts + beyond

    def test_trials(self, subject: int) -> int:
        """Test trials of all sessions."""
        return self.fewer.get(subject, self.n_sessions * self.test_shown)


def corpus_facts(raw_dir: Path, stamp: Mapping | None) -> CorpusFacts:
    """Facts of the real corpus, or those that the stamp of a simulated one states; a `DataError` if it lacks one."""
    if stamp is None:
        return CorpusFacts()
    sizes = stamped(raw_dir, stamp, "sizes", dict)

    def numbers(name: str) -> tuple[int, ...]:
        listed = stamped(raw_dir, sizes, name, list)
        return tuple(stamped(raw_dir, {name: one}, name, int, least=0) for one in listed)

    fewer = numbers("fewer")  # subject, trials, and so on
    counts = {item.name: stamped(raw_dir, sizes, item.name, int) for item in fields(CorpusFacts)[4:-1]}
    return CorpusFacts(
        numbers("subjects"), numbers("first_subjects"), dict(zip(fewer[::2], fewer[1::2], strict=False)),
        numbers("moved"), **counts, sfreq=stamped(raw_dir, sizes, "sfreq", float),
    )  # fmt: skip
