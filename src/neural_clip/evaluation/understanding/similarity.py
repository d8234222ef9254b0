"""Representational similarity of a checkpoint: its space, the images' and the raw recordings', for each modality."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from neural_clip.evaluation.understanding.pictures import draw_similarity, write_csv
from neural_clip.evaluation.understanding.recordings import (
    Analysis,
    display_name,
    some_simulated,
    subjects_of,
    values_of_subject,
)
from neural_clip.evaluation.understanding.rsa import (
    DISTANCE,
    MIN_IMAGES,
    SPACES,
    compare_spaces,
    dissimilarities,
    noise_ceiling,
)
from neural_clip.gallery.embedding import IMAGE_MEAN, SUBJECT_MEAN, EmbeddedSplit, aggregate
from neural_clip.prepared.modalities import MODALITIES

PAIRS = [("encoder", "images"), ("recordings", "images"), ("encoder", "recordings")]
MAX_IMAGES = 500  # the time of an analysis grows with their square, times resamples


def modality_similarity(part: EmbeddedSplit, run: Analysis) -> dict:
    """Agreement of the three spaces of one modality; where there are too few images, why there is none."""
    if len(part.gallery_ids) < MIN_IMAGES:
        unit = "categories" if part.category_level else "images"
        return {"not_computed": f"{len(part.gallery_ids)} {unit}; at least {MIN_IMAGES} are needed."}
    rng = np.random.default_rng([run.seed, 3])
    n_images = min(MAX_IMAGES, len(part.gallery_ids))
    kept = np.sort(rng.choice(len(part.gallery_ids), n_images, replace=False))
    means, mean_subjects, image_ids = aggregate(part.embeds, part.subjects, part.image_ids, IMAGE_MEAN)
    spaces, members, subjects = [], [], []
    for subject in subjects_of(part):
        rows = mean_subjects == subject
        columns = np.searchsorted(part.gallery_ids, image_ids[rows])
        shown = np.isin(columns, kept)
        if np.count_nonzero(shown) < MIN_IMAGES:
            continue
        where = f"{MODALITIES[part.modality].title} of {subject}"
        spaces.append({
            "encoder": dissimilarities(means[rows][shown], f"{SPACES['encoder']}, {where}"),
            "images": dissimilarities(part.gallery_embeds[columns[shown]], f"{SPACES['images']}, {where}"),
            "recordings": dissimilarities(_raw_means(part, subject, columns[shown]), f"recordings, {where}"),
        })  # fmt: skip
        members.append(np.searchsorted(kept, columns[shown]))
        subjects.append(subject)
    if not spaces:
        return {"not_computed": f"No subject saw {MIN_IMAGES} of the images."}
    records = compare_spaces(spaces, members, PAIRS, n_images, run.seed)
    ceilings = [_noise_ceiling(spaces, members, first, second) for first, second in PAIRS]
    return {
        "unit": "mean over a subject's recordings of an image",
        "n_images": n_images,
        "left_out": sorted(set(subjects_of(part)) - set(subjects)),
        "pairs": [
            {"first": first, "second": second, **record, "noise_ceiling": ceiling,
             "subjects": {name: values for name, values in zip(subjects, record["subjects"], strict=True)}}
            for (first, second), record, ceiling in zip(PAIRS, records, ceilings, strict=True)
        ],
    }  # fmt: skip


def _noise_ceiling(spaces: list[dict[str, np.ndarray]], members: list[np.ndarray], first: str, second: str) -> dict:
    """Noise ceiling over the images that all subjects saw; where there is none, why."""
    common = reduce(np.intersect1d, members)
    if second != "images":
        return {"not_computed": "Both spaces are each subject's own; a ceiling is that of one space common to all."}
    if len(spaces) < 2:
        return {"not_computed": "One subject; at least 2 are needed."}
    if len(common) < MIN_IMAGES:
        return {"not_computed": f"{len(common)} images that all subjects saw; at least {MIN_IMAGES} are needed."}
    rows = [np.searchsorted(member, common) for member in members]
    lower, upper = noise_ceiling([space[first][np.ix_(row, row)] for space, row in zip(spaces, rows, strict=True)])
    if np.isnan(lower + upper):
        return {"not_computed": "All distances of one side are equal."}
    return {"lower": lower, "upper": upper, "n_subjects": len(spaces), "n_images": len(common)}


def _raw_means(part: EmbeddedSplit, subject: str, columns: np.ndarray) -> np.ndarray:
    """Mean recording `(n_images, n_features)` of each image that a subject saw, in the order of `columns`."""
    rows = part.rows_of(subject)
    shown = part.columns[rows]
    rows, shown = rows[np.isin(shown, columns)], shown[np.isin(shown, columns)]
    values = values_of_subject(part, rows).reshape(len(rows), -1)
    return np.stack([values[shown == column].mean(axis=0, dtype=np.float64) for column in columns])


def write_similarity(similarity: dict[str, dict], splits: dict[str, EmbeddedSplit], run: Analysis) -> None:
    """Picture and table of all modalities."""
    rows, drawn = [], []
    for modality, record in similarity.items():
        for group, pair in enumerate(record.get("pairs", [])):
            label = f"{SPACES[pair['first']]} ~ {SPACES[pair['second']]}"
            subjects = list(pair["subjects"].values())
            drawn.append(
                pair | {"label": f"{display_name(splits[modality])}: {label}", "group": group, "subjects": subjects}
            )
            for subject, values in {"mean": pair, **pair["subjects"]}.items():
                low, high = values["interval"] or (None, None)
                ceiling = [values.get("noise_ceiling", {}).get(end) for end in ("lower", "upper")]
                cells = [pair["first"], pair["second"], subject, values["spearman"], low, high, values["p"], *ceiling]
                rows.append([modality, bool(splits[modality].facts.simulated), *cells])
    if not drawn:
        return
    title = f"Representational similarity: which images are alike?{some_simulated(splits)}, {run.split} images"
    stem = run.stem(title, "similarity")
    head = ("modality", "simulated", "first", "second", "subject", "spearman", "low", "high", "p",
            "ceiling_lower", "ceiling_upper")  # fmt: skip
    write_csv(stem.with_suffix(".csv"), dict(zip(head, zip(*rows, strict=True), strict=True)))
    draw_similarity(drawn, f"{title}\n{DISTANCE}; image means within subject", stem)


def across_modalities(splits: dict[str, EmbeddedSplit], seed: int) -> list[dict]:
    """Agreement of the encoders of two modalities, over the images that both answer to."""
    records = []
    parts = list(splits.values())
    for number, first in enumerate(parts):
        for second in parts[number + 1 :]:
            record: dict[str, Any] = {"first": first.modality, "second": second.modality}
            shared, here, there = np.intersect1d(first.gallery_ids, second.gallery_ids, return_indices=True)
            # an image id that two corpora use for different images is no shared image
            same = np.isclose(first.gallery_embeds[here], second.gallery_embeds[there], atol=1e-3).all(axis=1)
            shared = shared[same]
            if len(shared) < MIN_IMAGES:
                names = " and ".join(MODALITIES[part.modality].title for part in (first, second))
                record["not_computed"] = (
                    f"{names} recordings answer to different images ({len(shared)} in common, {MIN_IMAGES} needed): "
                    f"distances between images have no counterpart."
                )
            else:
                spaces = {part.modality: _shared_distances(part, shared) for part in (first, second)}
                pair = [(first.modality, second.modality)]
                (found,) = compare_spaces([spaces], [np.arange(len(shared))], pair, len(shared), seed)
                record |= {key: found[key] for key in ("spearman", "interval", "p")} | {"n_images": len(shared)}
            records.append(record)
    return records


def _shared_distances(part: EmbeddedSplit, shared: np.ndarray) -> np.ndarray:
    """Distances of an encoder's means over subjects for some images."""
    means, _, image_ids = aggregate(part.embeds, part.subjects, part.image_ids, SUBJECT_MEAN)
    order = np.argsort(image_ids)
    rows = order[np.searchsorted(image_ids[order], shared)]
    return dissimilarities(means[rows], f"{SPACES['encoder']}, {MODALITIES[part.modality].title}")
