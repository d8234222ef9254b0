"""What THINGS-EEG1 holds: the published facts, or the same of a simulated copy.

The counts were taken from the event tables of all 50 subjects (ds003825, version 1.2.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from neural_clip.corpora.stamp import stamped

SOA = (0.09, 0.12)  # s: from one onset to the next it is 0.1 s, of subjects 38 to 42 partly 0.094 s


@dataclass(frozen=True)
class CorpusFacts:
    """What a THINGS-EEG1 folder must hold.

    Args:
        subjects (`tuple[int, ...]`): Numbers of the subjects.
        other_setup (`tuple[int, ...]`): Those of them who wore another cap, of which half was connected.
        less (`dict[int, tuple[int, int]]`): Training and test images of those who saw fewer than all.
        n_concepts, images_per_concept (`int`): Training concepts, and images of each, which are shown once.
        n_test_images, test_repeats (`int`): Test images, each of another concept, and how often each is shown.
        n_chans (`int`): Channels.
        sfreq (`float`): Rate of the recordings, in Hz.
    """

    subjects: tuple[int, ...] = tuple(range(1, 51))
    other_setup: tuple[int, ...] = (49, 50)
    less: dict[int, tuple[int, int]] = field(default_factory=lambda: {1: (22_248, 0), 6: (12_360, 0)})
    n_concepts: int = 1854
    images_per_concept: int = 12
    n_test_images: int = 200
    test_repeats: int = 12
    n_chans: int = 63
    sfreq: float = 1000.0

    def shown(self, subject: int) -> dict[str, int]:
        """Counts that the events of a subject must show."""
        every = (self.n_concepts * self.images_per_concept, self.n_test_images)
        training, test = self.less.get(subject, every)
        return {
            "training images": training, "training images shown once": training, "test images": test,
            f"test images shown {self.test_repeats} times": test,
        }  # fmt: skip


def corpus_facts(raw_dir: Path, stamp: Mapping | None) -> CorpusFacts:
    """Facts of the real corpus, or those that the stamp of a simulated one states; a `DataError` if it lacks one."""
    if stamp is None:
        return CorpusFacts()
    sizes = stamped(raw_dir, stamp, "sizes", dict)

    def numbers(name: str) -> tuple[int, ...]:
        listed = stamped(raw_dir, sizes, name, list)
        return tuple(stamped(raw_dir, {name: one}, name, int, least=0) for one in listed)

    less = numbers("less")  # subject, training images, test images, and so on
    triples = zip(less[::3], less[1::3], less[2::3], strict=False)
    counts = {item.name: stamped(raw_dir, sizes, item.name, int) for item in fields(CorpusFacts)[3:-1]}
    return CorpusFacts(
        numbers("subjects"), numbers("other_setup"), {one: (training, test) for one, training, test in triples},
        **counts, sfreq=stamped(raw_dir, sizes, "sfreq", float),
    )  # fmt: skip
