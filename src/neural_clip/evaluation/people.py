"""Scores of protocols that go person by person: single recordings and mean recordings, exact images and templates.

The score of a person is the mean over the images that this person saw, of the mean over the queries of an image; the
score of a protocol is the mean over people, as published tables have it. Intervals resample images with the people
held fixed, and images and people together; p-values exchange images with the people held fixed. Where each person has
a model of their own, intervals and p-values of means are over people (Student's t).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neural_clip.errors import DataError
from neural_clip.evaluation.published import CATEGORIES, EXACT, TEMPLATES
from neural_clip.files.places import command_line
from neural_clip.gallery.building import SAME_IMAGE_COSINE
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import ImageTable, PreparedSet, Split
from neural_clip.retrieval.scores import scores_and_contributions
from neural_clip.retrieval.scoring import MIN_CLUSTERS
from neural_clip.retrieval.tiles import unit_vectors
from neural_clip.retrieval.uncertainty import bootstrap_interval, permutation_p_value, unit_interval, unit_p_value
from neural_clip.targets.identity import identity_of

SCORES = ("top1", "top5", "two_way")
MIN_PEOPLE = 3  # for an interval and a p-value over people
ROWS_AT_ONCE = 256  # recordings that are read at a time while repeats are averaged


@dataclass(frozen=True, eq=False)
class Queries:
    """What is looked for, and whose it is.

    Args:
        embeds (`np.ndarray` of shape `(n, projection_dim)`): Of any length.
        subjects, image_ids (`np.ndarray` of shape `(n,)`): Who saw which image.
        repeats (`tuple[int, int]`, *optional*): Recordings behind each mean, at least and at most; `None` for single
            recordings.
    """

    embeds: np.ndarray
    subjects: np.ndarray
    image_ids: np.ndarray
    repeats: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Gallery:
    """What is searched.

    Args:
        name (`str`): `"exact images"`, `"concept templates"`, or `"categories"` where these stand for images.
        embeds (`np.ndarray` of shape `(n, projection_dim)`): Of any length.
        keys (`list[str]`): What each of them is called.
        key_of (`dict[str, str]`): The right one for each image id.
        made_of (`dict`): Of templates: corpus and fingerprint of the data set, whether it is simulated, and how many
            images a template has at least and at most.
    """

    name: str
    embeds: np.ndarray
    keys: list[str]
    key_of: dict[str, str]
    made_of: dict


def person_and_image(part: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The number of each recording's pair of person and image, and the person and image of each pair."""
    keys, codes = np.unique(np.stack([part.subjects, part.image_ids]), axis=1, return_inverse=True)
    return codes.ravel(), keys[0], keys[1]


def mean_recordings(part: Split) -> Split:
    """The mean recording of each image by each person, in memory; recordings are read by blocks.

    Args:
        part ([`Split`]): EEG or MEG.
    """
    codes, subjects, image_ids = person_and_image(part)
    sums: np.ndarray | None = None
    for rows, values in part.blocks(ROWS_AT_ONCE):
        values = np.asarray(values)  # (n_rows, n_chans, n_times)
        sums = np.zeros((len(subjects), *values.shape[1:])) if sums is None else sums
        np.add.at(sums, codes[rows], values)
    assert sums is not None  # a split has rows
    means = (sums / np.bincount(codes).reshape(-1, *[1] * (sums.ndim - 1))).astype(np.float32)
    return replace(
        part, recordings=means, subjects=subjects, image_ids=image_ids, first_sample=0, decimation=1, change=None
    )


def repeats_of(part: Split) -> tuple[int, int, bool]:
    """Recordings behind the mean of an image by a person, at least and at most, and whether rows are means already."""
    weights = part.labels("n_repeats")["n_repeats"].to_numpy()
    codes, _, _ = person_and_image(part)
    counts = np.bincount(codes, weights=weights).astype(int)
    return int(counts.min()), int(counts.max()), bool((weights > 1).all())


def queries_name(repeats: Sequence[int] | None) -> str:
    """How queries are called in tables, by what [`Queries`] says of repeats."""
    if repeats is None:
        return "single recordings"
    least, most = repeats
    return f"mean of {least} recordings" if least == most else f"mean of {least} to {most} recordings"


def has_means(part: Split) -> bool:
    """Whether mean recordings differ from the recordings and can be embedded like them."""
    sensors = MODALITIES[part.modality].sensors and not part.category_level
    return sensors and len(person_and_image(part)[1]) < len(part)


def mean_queries(embeds: np.ndarray, part: Split, repeats: tuple[int, int]) -> Queries:
    """Means of what a linear map made of single recordings: what it would make of the mean recordings."""
    codes, subjects, image_ids = person_and_image(part)
    sums = np.zeros((len(subjects), embeds.shape[1]))
    np.add.at(sums, codes, embeds)
    return Queries(sums / np.bincount(codes)[:, None], subjects, image_ids, repeats)


def exact_images(part: Split) -> Gallery:
    """The images that were shown, each once."""
    part = part.of_its_images()
    ids = part.gallery_ids.tolist()
    name = CATEGORIES if part.category_level else EXACT
    return Gallery(name, part.gallery_embeds, ids, dict(zip(ids, ids, strict=True)), {})


def concept_templates(part: Split, folder: str | PreparedSet) -> Gallery:
    """For each concept that was shown the mean unit embedding of other images of it.

    Args:
        part ([`Split`]): What is scored.
        folder (`str` or [`PreparedSet`]): Prepared data set of the images; those that are scored are left out, by name
            and by embedding.

    Raises:
        DataError: If the data set cannot be used, an image that was shown has no concept, two have the same, or there
            is no other image of a concept.
    """
    part, other = part.of_its_images(), PreparedSet.open(folder)
    if not other.facts.image_encoder:
        again = command_line("neural-clip", "embed-images", other.name)
        raise DataError(f"The images of '{other.name}' have no embeddings; run {again}.")
    identity_of(part.facts).require(
        identity_of(other.facts), f"'{part.data.name}'", f"'{other.name}'", means=False
    )  # fmt: skip
    images, concepts = other.moved_to(part.facts.target_space).images, list(part.gallery_concepts)
    if not all(concepts) or len(set(concepts)) < len(concepts):
        raise DataError(
            f"Templates need one test image a concept, but the {len(concepts)} images of the {part.name} split of "
            f"'{part.data.name}' have {len(set(concepts) - {''})} concepts."
        )
    members = _others_by_concept(images, part)
    if lacking := [concept for concept in concepts if not members.get(concept)]:
        raise DataError(
            f"'{other.name}' has no other image of {len(lacking)} of the {len(concepts)} test concepts of "
            f"'{part.data.name}', such as {lacking[0]!r}. Name a data set that has ('templates')."
        )
    units = unit_vectors(images.embeds)
    embeds = np.stack([units[members[concept]].mean(axis=0) for concept in concepts])
    counts = [len(members[concept]) for concept in concepts]
    made_of = {"corpus": other.facts.corpus, "fingerprint": other.facts.fingerprint, "least": min(counts)}
    made_of |= {"most": max(counts), "simulated": bool(other.facts.simulated)}
    key_of = dict(zip(part.gallery_ids.tolist(), concepts, strict=True))
    return Gallery(TEMPLATES, embeds, concepts, key_of, made_of)


def _others_by_concept(images: ImageTable, part: Split) -> dict[str, list[int]]:
    """Rows of images that are not among those that were shown, by concept."""
    shown, own = set(part.gallery_ids.tolist()), unit_vectors(part.gallery_embeds)
    column = {concept: number for number, concept in enumerate(part.gallery_concepts)}
    members: dict[str, list[int]] = {}
    for row, (image_id, concept) in enumerate(zip(images.image_ids, images.concepts, strict=True)):
        if concept in column and image_id not in shown:
            embed = unit_vectors(images.embeds[row : row + 1])[0]
            if embed @ own[column[concept]] < SAME_IMAGE_COSINE:
                members.setdefault(concept, []).append(row)
    return members


def person_rows(method: str, queries: Sequence[Queries], galleries: Sequence[Gallery], seed: int) -> list[dict]:
    """Scores of a method: each kind of queries in each gallery.

    Returns:
        `list[dict]`: `method`, `queries`, `repeats`, `gallery`, `n_queries`, `n_images`, `gallery_size`; each of
        `SCORES` with its interval, its interval where people are drawn too, and its chance; `two_way_p`, of 1,000
        exchanges of images (at category level of labels within a person); `people`, the scores and p by person.
    """
    return [{"method": method, **_row(asked, gallery, seed)} for asked in queries for gallery in galleries]


def _row(asked: Queries, gallery: Gallery, seed: int) -> dict:
    """One kind of queries in one gallery."""
    keys = [gallery.key_of[image_id] for image_id in asked.image_ids.tolist()]
    record, per_query = scores_and_contributions(asked.embeds, gallery.embeds, keys, gallery.keys)
    people, person = np.unique(asked.subjects, return_inverse=True)
    images, image = np.unique(asked.image_ids, return_inverse=True)
    cells, counts = np.unique(person * len(images) + image, return_inverse=True)
    sums = np.stack([np.bincount(counts, weights=per_query[name]) for name in SCORES], axis=1)
    table = sums / np.bincount(counts)[:, None]  # (n_cells, n_scores): the mean of a person's queries of an image
    by_person = np.stack([table[cells // len(images) == number].mean(axis=0) for number in range(len(people))])
    alike = (person[:, None] == np.arange(len(people))) / np.bincount(counts)[counts, None]  # of an image its queries
    ours, *p_values = _p_values(asked, gallery, keys, alike / alike.sum(axis=0), seed)
    row: dict[str, Any] = {
        "queries": queries_name(asked.repeats), "repeats": asked.repeats and list(asked.repeats),
        "gallery": gallery.name, "n_queries": len(keys), "n_images": len(images),
        "gallery_size": len(gallery.keys),
        "people": {
            str(name): dict(zip(SCORES, scores.tolist(), strict=True)) | {"two_way_p": p}
            for name, scores, p in zip(people, by_person, p_values, strict=True)
        },
        "two_way_p": ours,
    }  # fmt: skip
    means = by_person.mean(axis=0)
    fixed = _interval(table, means, cells % len(images), None, seed)
    drawn = _interval(table, means, cells % len(images), cells // len(images), seed) if len(people) > 1 else None
    for number, name in enumerate(SCORES):
        row |= {name: float(means[number]), f"chance_{name}": record[f"chance_{name}"]}
        row[f"{name}_interval"] = fixed and fixed[number]
        row[f"{name}_interval_people_drawn"] = drawn and drawn[number]
    return row


def _p_values(asked: Queries, gallery: Gallery, keys: list[str], shares: np.ndarray, seed: int) -> list[float]:
    """Of the mean over people, and of each; `shares` of queries in the scores of people, `(n_queries, n_people)`."""
    by_recording = gallery.name == CATEGORIES  # as in the table of decoding
    shuffled: dict[str, Any] = {"unit": "query", "groups": asked.subjects} if by_recording else {"unit": "image"}
    weights = np.column_stack([shares.mean(axis=1), shares])
    arguments = (asked.embeds, gallery.embeds, keys, gallery.keys)
    return np.asarray(permutation_p_value(*arguments, seed=seed, weights=weights, **shuffled)).tolist()


def _interval(
    table: np.ndarray, means: np.ndarray, images: np.ndarray, people: np.ndarray | None, seed: int
) -> list[list[float]] | None:
    """Ends of the 95 % interval of each score around the mean over people; nothing for fewer than five images."""
    if len(set(images.tolist())) < MIN_CLUSTERS:
        return None
    ends = np.stack(bootstrap_interval(table, images, seed, subjects=people), axis=1) - table.mean(axis=0)[:, None]
    return np.clip(means[:, None] + ends, 0.0, 1.0).tolist()


def rows_over_people(found: Mapping[str, list[dict]]) -> list[dict]:
    """Scores over people who were scored by models of their own; methods that somebody lacks are left out.

    Args:
        found (`Mapping[str, list[dict]]`): For each person what [`person_rows`] gave.

    Returns:
        `list[dict]`: Each method, kind of queries and gallery: `people` with their scores and intervals over images,
        and the means over people with their chance and their intervals over people (Student's t); `two_way_p` of each
        person is that of their exchanged images, that of a mean a one-sided t-test against chance over people. It is
        `None` for fewer than three people, and where all have the same score.
    """
    keyed = {person: {_key(row): row for row in rows} for person, rows in found.items()}
    (first, *others) = keyed.values()
    return [_over_people({person: rows[key] for person, rows in keyed.items()})
            for key in first if all(key in rows for rows in others)]  # fmt: skip


def _key(row: dict) -> tuple[str, bool, str]:
    return row["method"], row["repeats"] is None, row["gallery"]


def _over_people(rows: dict[str, dict]) -> dict:
    """One row of each person: their scores and intervals, the means, and the intervals over people."""
    kept = ("n_queries", "gallery_size", *SCORES, *(f"{name}_interval" for name in SCORES))
    kept += tuple(f"chance_{name}" for name in SCORES)
    (first, *_) = rows.values()
    repeats = None
    if first["repeats"] is not None:
        repeats = [min(row["repeats"][0] for row in rows.values()), max(row["repeats"][1] for row in rows.values())]
    record: dict[str, Any] = {"method": first["method"], "queries": queries_name(repeats), "gallery": first["gallery"]}
    record["people"] = {
        person: {name: row[name] for name in kept} | {"two_way_p": row.get("two_way_p")}
        for person, row in rows.items()
    }
    for name in SCORES:
        scores = [row[name] for row in rows.values()]
        record[name] = float(np.mean(scores))
        record[f"chance_{name}"] = float(np.mean([row[f"chance_{name}"] for row in rows.values()]))
        several = len(scores) >= MIN_PEOPLE
        record[f"{name}_interval"] = np.clip(unit_interval(scores), 0.0, 1.0).tolist() if several else None
    chance = [row["chance_two_way"] for row in rows.values()]
    record["two_way_p"] = unit_p_value(scores, chance) if several else None  # of the 2-way score, the last of all
    return record
