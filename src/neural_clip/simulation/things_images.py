"""The images that the twins of THINGS show: one name is one picture in all of them, as in the real corpora.

The twin of THINGS-MEG draws its images in order. Those of THINGS-EEG2 and THINGS-fMRI take the images that it has by
their names, and draw others from the name. So a test image of one twin can be a training image of another. How many
are follows the real corpora:

* The test images of THINGS-fMRI are test images of THINGS-MEG.
* No test image of THINGS-EEG2 is a test image of another corpus. 178 of the 200 are training images of THINGS-EEG1,
  and so of THINGS-MEG, if both show the same twelve images a concept (inferred). 77 are those of THINGS-fMRI.
* THINGS-MEG tests 200 of the 1,854 concepts, by images that THINGS-EEG2 does not show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from neural_clip.simulation.images import CONCEPTS, ImageSpec, sample_specs
from neural_clip.simulation.presets import TwinPreset
from neural_clip.simulation.things_meg_twin import CORPUS_INDEX as MEG_INDEX
from neural_clip.simulation.things_meg_twin import make_stimuli

SEEN_BY_MEG, SEEN_BY_FMRI = 178 / 200, 77 / 200  # of the test images of THINGS-EEG2: training images there
TESTED_BY_MEG = 200 / 1854  # of all concepts
OWN_NUMBER = 15  # of an image that no other twin shows
EEG2_INDEX, FMRI_INDEX = 3, 4  # of the random streams


def name_of(concept: str, number: int, letter: str = "b") -> str:
    """Stem of the file of an image."""
    return f"{concept}_{number:02d}{letter}"


def concept_of(name: str) -> str:
    """Concept of an image by its name."""
    return name.rpartition("_")[0]


@dataclass(frozen=True)
class ThingsImages:
    """What the twins of one preset and seed show.

    Args:
        preset (`TwinPreset`): The counts of its parts `meg`, `things_eeg2` and `things_fmri` decide.
        seed (`int`): Of the simulation.
    """

    preset: TwinPreset
    seed: int

    @cached_property
    def _meg(self) -> dict[str, tuple[str, ImageSpec]]:
        """Kind and picture of each image of THINGS-MEG by name."""
        stimuli = make_stimuli(self.preset.meg, np.random.default_rng([self.seed, 100 + MEG_INDEX]))
        return {stimulus.file.rpartition(".")[0]: (stimulus.kind, stimulus.spec) for stimulus in stimuli}

    def spec(self, name: str) -> ImageSpec:
        """The picture of a name."""
        if name in self._meg:
            return self._meg[name][1]
        digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        return sample_specs(1, np.random.default_rng([self.seed, digest]), concept=concept_of(name))[0]

    @cached_property
    def _concepts(self) -> tuple[list[str], list[str]]:
        """Concepts that THINGS-MEG tests, and all others, those that it shows first."""
        tested = sorted(concept_of(name) for name, (kind, _) in self._meg.items() if kind == "test")
        return tested, [concept for concept in CONCEPTS if concept not in set(tested)]

    def _permuted(self, index: int) -> tuple[np.random.Generator, list[str], list[str]]:
        """Generator of a corpus, and both lists of concepts in its order; what THINGS-MEG does not show stays last."""
        rng, (tested, others) = np.random.default_rng([self.seed, 100 + index]), self._concepts
        n_shown = self.preset.meg.n_concepts - len(tested)
        mixed = [*rng.permutation(others[:n_shown]).tolist(), *others[n_shown:]]
        return rng, rng.permutation(tested).tolist(), mixed

    @cached_property
    def eeg2(self) -> dict[str, list[str]]:
        """Names of the training and test images of THINGS-EEG2 by part, sorted."""
        sizes = self.preset.things_eeg2
        rng, *lists = self._permuted(EEG2_INDEX)
        tested, others = (iter(concepts) for concepts in lists)
        test = _taken(sizes.n_test_images, tested, others)
        training = _taken(sizes.n_concepts, tested, others)
        common = set(CONCEPTS[: self.preset.meg.n_concepts])
        shared = [concept for concept in test if concept in common][: round(SEEN_BY_MEG * len(test))]
        n_numbers = min(self.preset.meg.n_sessions, self.preset.things_fmri.n_sessions)
        numbers = rng.integers(1, n_numbers + 1, len(test)).tolist()
        names = [
            name_of(concept, number) if concept in shared else name_of(concept, OWN_NUMBER, "s")
            for concept, number in zip(test, numbers, strict=True)
        ]
        return {
            "training": _numbered(training, sizes.images_per_concept),
            "test": sorted(names, key=concept_of),
        }

    @cached_property
    def fmri(self) -> dict[str, list[str]]:
        """Names of the training and test images of THINGS-fMRI, sorted; test concepts have training images too."""
        sizes = self.preset.things_fmri
        _, tested, others = self._permuted(FMRI_INDEX)
        theirs = [concept_of(name) for name in self.eeg2["test"]]
        shared = [concept_of(name) for name in self.eeg2["test"] if name in self._meg and concept_of(name) in others]
        own = [concept for concept in others if concept not in theirs]
        test = _first(sizes.n_test_images, [concept for concept in tested if concept not in theirs], own)
        shared = shared[: round(SEEN_BY_FMRI * len(theirs))]
        train = _first(sizes.n_concepts, test, shared, own, CONCEPTS)
        number = self.preset.meg.n_sessions + 1
        return {
            "train": _numbered(train, sizes.n_sessions),
            "test": [name_of(concept, number, "s") for concept in sorted(test)],
        }


def _taken(n: int, tested: Iterator[str], others: Iterator[str]) -> list[str]:
    """The next concepts, the real share of them tested by THINGS-MEG."""
    found = list(islice(tested, int(n * TESTED_BY_MEG)))
    found += islice(others, n - len(found))
    return [*found, *islice(tested, n - len(found))]


def _first(n: int, *lists: Iterable[str]) -> list[str]:
    """The first different ones."""
    return list(dict.fromkeys(concept for concepts in lists for concept in concepts))[:n]


def _numbered(concepts: Iterable[str], n_images: int) -> list[str]:
    """Names of images by concept, in order."""
    return [name_of(concept, number) for concept in sorted(concepts) for number in range(1, n_images + 1)]
