"""Evaluation protocols: which of the scores a report puts first, and under which conditions they may stand there.

All scores are those of `retrieval/scores.py`; a protocol chooses among them. Only `legacy` computes something
of its own: what the authors' published code prints (matteoferrante/neural_CLIP, commit c0c4ce6), so that its numbers
can be explained.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neural_clip.errors import DataError, check_value
from neural_clip.evaluation.published import THINGS_EEG2, THINGS_EEG2_UNSEEN, THINGS_MEG, Published
from neural_clip.gallery.embedding import EmbeddedSplit
from neural_clip.prepared.modalities import kind_of
from neural_clip.prepared.reader import PreparedSet, Split

# Trials that the authors' code takes before it makes a set of their images; it scores no top-k for fMRI.
LEGACY_NEAREST = {"eeg": 30, "meg": 500}
# What the authors' code divides conversions by, for each target.
LEGACY_DENOMINATORS = {"eeg": 0.8017, "meg": 0.595, "fmri": 0.889}
POOLS = "top1_of_300_pools"


@dataclass(frozen=True)
class Whole:
    """The test recordings of a whole corpus.

    Args:
        title (`str`): What people call it.
        n_images, n_repeats, n_people (`int`): Images, recordings of each by a person, and people.
    """

    title: str
    n_images: int
    n_repeats: int
    n_people: int


WHOLE = {"things_eeg2": Whole("THINGS-EEG2", 200, 80, 10), "things_meg": Whole("THINGS-MEG", 200, 12, 4)}


@dataclass(frozen=True)
class Protocol:
    """One way to read an evaluation.

    Args:
        meaning (`str`): What its scores are, for the report; see [`meaning_of`].
        scores (`dict[str, str]`): Names of scores of `retrieval/scores.py` and what to call them.
        by_person (`bool`): Also score single recordings and the mean of all repeats of an image, person by person (see
            `evaluation/people.py`).
        corpus (`str`, *optional*): The only corpus that it is for, a key of [`WHOLE`]. Simulated twins may have other
            images and repeats.
        zero_shot (`bool`): No test concept may occur among training or validation images.
        unseen_people (`bool`): Nobody who is scored may be trained on, by the checkpoints or by baselines.
        published (`tuple[Published, ...]`): Results that these scores may stand beside.
    """

    meaning: str
    scores: dict[str, str]
    by_person: bool = False
    corpus: str | None = None
    zero_shot: bool = False
    unseen_people: bool = False
    published: tuple[Published, ...] = ()


RANKS = {"top1": "top-1", "top5": "top-5", "two_way": "2-way"}
OF_CORPUS = (
    "{images}. Queries are single recordings, and the mean recording of all {repeats} repeats of an image by a "
    "person; scores are means over people. The gallery holds the exact images, or (with 'templates') the mean "
    "embedding of other images of each concept: two different tasks, never to be ranked together. Chance is {chance}."
)
UNSEEN_CONCEPTS = (
    "No test concept occurs among training or validation images (checked in the data set, and in the record of a "
    "checkpoint that has one)."
)
EEG2: dict[str, Any] = {"by_person": True, "corpus": "things_eeg2", "published": THINGS_EEG2}
MEG: dict[str, Any] = {"by_person": True, "corpus": "things_meg", "published": THINGS_MEG}


PROTOCOLS = {
    "strict": Protocol(
        "Ranks over the unique images of the split, ties averaged; 2-way over all pairs of different images, ties one "
        "half. Nothing is sampled.",
        {
            "top1": "top-1", "top5": "top-5", "class_top1": "class top-1", "class_top5": "class top-5",
            "two_way": "2-way, recording to image", "two_way_image_to_neural": "2-way, image to recording",
        },
    ),
    "paper": Protocol(
        "The quantities of arXiv 2411.09723 without the defects of its code: class top-k are ranks, and the 2-way "
        "score of one random permutation stands beside its expectation. Conversions are divided by the same score of "
        "decoding.",
        {
            "class_top1": "class top-1", "class_top5": "class top-5",
            "two_way_permutation": "2-way, one permutation", "two_way_permutation_expected": "2-way, its expectation",
        },
    ),
    "mindeye-300": Protocol(
        "Top-1 in 30 random pools of 300 images, and the Pearson 2-way score with ties as failures (MindEye, "
        "brain-diffuser). Intervals of pools speak of the draw of the pools alone.",
        {
            POOLS: "top-1 of 300, recording to image", f"{POOLS}_image_to_neural": "top-1 of 300, image to recording",
            "two_way_pearson_strict": "2-way, Pearson, ties fail",
        },
    ),
    "zero-shot-200": Protocol(
        "Concepts of the scored split that occur in no training or validation recording (checked in the data set, and "
        "in the record of a checkpoint that has one). Candidates are the exact images, or one prototype a concept: "
        "two different tasks, never to be ranked together.",
        {
            "top1": "exact image, top-1", "top5": "exact image, top-5", "class_prototype_top1": "prototype, top-1",
            "class_prototype_top5": "prototype, top-5",
        },
        zero_shot=True,
    ),
    "things-eeg2-200": Protocol(OF_CORPUS, RANKS, **EEG2),
    "things-eeg2-200-zero-shot": Protocol(f"{OF_CORPUS} {UNSEEN_CONCEPTS}", RANKS, zero_shot=True, **EEG2),
    "things-meg-200": Protocol(
        f"{OF_CORPUS} With the split protocol 'paper' all test concepts occur among training images.", RANKS, **MEG
    ),
    "things-meg-200-zero-shot": Protocol(f"{OF_CORPUS} {UNSEEN_CONCEPTS}", RANKS, zero_shot=True, **MEG),
    "leave-one-person-out": Protocol(
        "People whom neither the checkpoint nor a baseline was trained on (checked), on the images of the scored "
        "split; the gallery holds each of them once. Queries are single recordings, and the mean recording of all "
        "repeats of an image. 'neural-clip leave-one-person-out' does this for everybody in turn.",
        RANKS, by_person=True, unseen_people=True, published=THINGS_EEG2_UNSEEN,
    ),
    "legacy": Protocol(
        "What the authors' published code prints, NOT ranks: the images of the nearest trials (30 for EEG, 500 for "
        "MEG) lose their order in a set, so its top-1 is an arbitrary one of them; given is the expectation over that "
        "order. The 2-way score is of one random permutation; conversions are divided by fixed constants.",
        {"two_way_permutation": "2-way, one permutation"},
    ),
}  # fmt: skip


def check_protocol(name: str, data: Sequence[PreparedSet], split: str = "test", gallery: str | None = None) -> None:
    """Raise a `DataError` if data sets, split or gallery do not meet the conditions of a protocol."""
    protocol = PROTOCOLS[name]
    if protocol.corpus is not None:
        check_value("split", split, split == "test", f"'test' for the protocol '{name}'")
        check_value("gallery", gallery, gallery is None, f"none for the protocol '{name}', which has its own")
    for opened in data:
        if protocol.corpus is not None:
            _check_corpus(name, opened)
        if protocol.zero_shot:
            _check_zero_shot(name, opened)


def _check_corpus(name: str, opened: PreparedSet) -> None:
    """Raise where a data set is of another corpus, or recorded with other test images or repeats."""
    protocol, facts = PROTOCOLS[name], opened.facts
    if facts.corpus != protocol.corpus:
        raise DataError(f"Protocol '{name}' is for {protocol.corpus}, but '{opened.name}' is of {facts.corpus}.")
    if facts.simulated:
        return
    whole, n_images = WHOLE[protocol.corpus], (facts.splits.get("test") or {}).get("images")
    again = "Prepare the whole corpus, or choose another protocol."
    if n_images != whole.n_images:
        raise DataError(
            f"Protocol '{name}' is over the {whole.n_images} test images of {protocol.corpus}, but the test split "
            f"of '{opened.name}' shows {n_images}. {again}"
        )
    least, most = _repeats(opened.split("test"))
    if (least, most) != (whole.n_repeats, whole.n_repeats):
        raise DataError(
            f"Protocol '{name}' is of {whole.n_repeats} recordings of each test image by a person, but the test split "
            f"of '{opened.name}' holds {_ends(least, most)}. {again}"
        )


def _repeats(part: Split) -> tuple[int, int]:
    """Recordings of an image by a person, at least and at most."""
    from neural_clip.evaluation.people import repeats_of

    least, most, _ = repeats_of(part)
    return least, most


def _ends(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least} to {most}"


def _check_zero_shot(name: str, opened: PreparedSet) -> None:
    """Raise where a test concept occurs among training or validation images, or concepts are not known."""
    counts = opened.facts.splits
    train, validation, test = (
        set(opened.distinct(split, "concept").tolist()) if (counts.get(split) or {}).get("rows") else set()
        for split in ("train", "validation", "test")
    )
    if "" in train | validation | test:
        raise DataError(f"Protocol '{name}' needs the concept of every image, but '{opened.name}' lacks some.")
    if common := sorted((train | validation) & test):
        raise DataError(
            f"Protocol '{name}' needs test concepts that no training recording shows, but {len(common)} of "
            f"{len(test)} of '{opened.name}' occur in training or validation, such as {common[0]!r}. Prepare the data "
            "set with a split that keeps them apart (things_meg: --split-protocol zero_shot)."
        )


def conditions(part: Split) -> str:
    """Under what a protocol was scored: corpus, people and images, and whether they are simulated."""
    facts, people, images = part.facts, len(set(part.subjects.tolist())), f"{len(part.shown_ids)} images"
    if facts.simulated:
        return f"{facts.corpus}, {people} of {len(facts.subjects)} people, simulated, {images}"
    whole = WHOLE.get(facts.corpus)
    of = f"{len(facts.subjects)} people of the data set" if whole is None else f"{whole.n_people} people of the corpus"
    return f"{facts.corpus}, {people} of the {of}, {images}"


def meaning_of(name: str, parts: Iterable[Split]) -> str:
    """What the scores of a protocol are, with the images, repeats and chance of what was scored.

    Args:
        name (`str`): Key of `PROTOCOLS`.
        parts (iterable of [`Split`]): What is scored; of a protocol of one corpus, one.
    """
    protocol = PROTOCOLS[name]
    if protocol.corpus is None:
        return protocol.meaning
    (part,) = parts
    whole, n_images = WHOLE[protocol.corpus], len(part.shown_ids)
    images = f"The {n_images} test images of {whole.title}"
    if part.facts.simulated:
        images = (
            f"SIMULATED recordings of {n_images} test images, a twin of {whole.title}, which has {whole.n_images} "
            f"that a person saw {whole.n_repeats} times"
        )
    chance = f"{100 / n_images:.3g} % for top-1" + (f" and {500 / n_images:.3g} % for top-5" if n_images > 5 else "")
    least, most = _repeats(part)
    return protocol.meaning.format(images=images, repeats=_ends(least, most), chance=chance)


def published_beside(name: str, parts: Iterable[Split]) -> list[Published]:
    """Published results that scores may stand beside: of real recordings of all test images and repeats alone."""
    whole = {part.facts.corpus for part in parts if _is_whole(part)}
    return [entry for entry in PROTOCOLS[name].published if entry.corpus in whole]


def _is_whole(part: Split) -> bool:
    """Whether people recorded all test images of a corpus as often as the corpus has them."""
    whole = WHOLE.get(part.facts.corpus)
    if whole is None or part.facts.simulated or part.name != "test":
        return False
    return (len(part.shown_ids), *_repeats(part)) == (whole.n_images, whole.n_repeats, whole.n_repeats)


def decoding_entries(name: str, part: EmbeddedSplit, record: dict) -> list[dict]:
    """Scores of a protocol for one modality.

    Args:
        name (`str`): Key of `PROTOCOLS`.
        part (`EmbeddedSplit`): Single trials.
        record (`dict`): Their scores, from `scoring.score_record`.

    Returns:
        `list[dict]`: `label`, `score` (`None` where the gallery is too small or classes are unknown), `interval` and
        `chance`.
    """
    entries = [
        {
            "label": label,
            "score": record.get(key),
            "interval": record.get(f"{key}_interval"),
            "chance": record.get(f"chance_{key}"),
        }
        for key, label in PROTOCOLS[name].scores.items()
    ]
    if name == "legacy" and part.modality in LEGACY_NEAREST:
        count, named = LEGACY_NEAREST[part.modality], all(part.gallery_concepts)
        entries += [
            {
                "label": f"'top-{k}' from a set of the {count} nearest trials",
                "interval": None,
                **(legacy_top_k(part.of_its_images(), count, k) if named else {"score": None, "chance": None}),
            }
            for k in (1, 5)
        ]
    return entries


def legacy_top_k(part: EmbeddedSplit, n_nearest: int, k: int) -> dict[str, float]:
    """Expected "top-k" of the authors' code, where a set of images has lost its order.

    The images behind the `n_nearest` most alike trials are a set of m images. Of these, k arbitrary ones are looked
    at: with r of the right class among them, the expected hit is 1 - C(m - r, k) / C(m, k).

    Args:
        part (`EmbeddedSplit`): Single trials; each trial's image stands in the gallery as often as it was shown.
        n_nearest (`int`): Trials taken.
        k (`int`): Images looked at.

    Returns:
        `dict`: `score` and its `chance` level, which is that of a random gallery order, not k / classes.
    """
    from scipy.special import comb

    from neural_clip.retrieval.tiles import unit_vectors

    similarity = unit_vectors(part.embeds) @ unit_vectors(part.gallery_embeds).T  # (n, n_images)
    order = np.argsort(-similarity, axis=1, kind="stable")
    shown = np.bincount(part.columns, minlength=len(part.gallery_ids))  # trials of each image
    taken = np.cumsum(shown[order], axis=1) - shown[order] < n_nearest  # (n, n_images), in order of similarity
    classes = np.unique(np.array(part.gallery_concepts), return_inverse=True)[1]
    right = classes[order] == classes[part.columns][:, None]
    sizes, hits = taken.sum(axis=1), (taken & right).sum(axis=1)
    score = 1 - comb(sizes - hits, np.minimum(k, sizes)) / comb(sizes, np.minimum(k, sizes))
    members = np.bincount(classes)[classes[part.columns]]  # images of the right class in the gallery
    n_images = len(part.gallery_ids)
    # a random gallery order and an arbitrary choice from its beginning is an arbitrary choice from the whole
    looked = np.minimum(k, sizes)
    chance = 1 - comb(n_images - members, looked) / comb(n_images, looked)
    return {"score": float(score.mean()), "chance": float(chance.mean())}


def conversion_entries(name: str, record: dict, denominator: float) -> list[dict]:
    """Conversion of one pair of modalities as a protocol counts it; nothing for protocols that do not.

    Args:
        name (`str`): Key of `PROTOCOLS`.
        record (`dict`): Scores of the conversion, from `evaluation.conversion_record`.
        denominator (`float`): One-permutation decoding score of the target.
    """
    if name not in ("paper", "legacy"):
        return []
    target = kind_of(record["target"])
    known = name == "legacy" and target in LEGACY_DENOMINATORS
    divisor = LEGACY_DENOMINATORS[target] if known else denominator
    score = record["two_way_permutation"]
    of = "a constant of the authors' code" if known else "the decoding score of the target"
    return [
        {"label": "2-way, one permutation", "score": score, "interval": None, "chance": 0.5},
        {
            "label": f"divided by {of}, {divisor:.3f}",
            "score": score / divisor if divisor else None,
            "interval": None,
            "chance": 0.5 / divisor if divisor else None,
        },
    ]
