"""What the scored split shares with training: images, near copies of them, concepts, and the score with and without.

The same image is defined as in the doctor (`prepared/doctor/images.py`): its id, its file, its embedding;
near duplicates have a cosine above the doctor's bound.
"""

from __future__ import annotations

import numpy as np

from neural_clip.gallery.embedding import EmbeddedSplit
from neural_clip.prepared.doctor.images import MAX_COSINE
from neural_clip.prepared.reader import PreparedSet, Split

KINDS = {"same_id": "by id", "same_file": "by file", "same_embedding": "by embedding", "near": "as near duplicates"}
KEPT = ("two_way", "two_way_interval", "two_way_p", "chance_two_way", "top1", "top1_interval", "chance_top1",
        "n_queries", "n_unique_images", "gallery_size", "resampled_unit")  # fmt: skip
DIVIDED = "The gallery stays as it is, all scored images; only the queries are divided."
MEANINGS = {
    "overlap with training": "What the scored split shares with training, over all subjects. An image occurs in "
    f"training if a training image has its id, its file or its embedding, or a cosine above {MAX_COSINE} with it. "
    "Then its score is memory. A shared concept is no leak, but its score is not zero-shot.",
    "queries whose image was trained": f"The model on recordings of images that occur in training. {DIVIDED}",
    "queries whose image was not trained": f"The model on recordings of images that do not occur in training. "
    f"{DIVIDED}",
    "queries whose concept was trained": "The model on recordings of images whose concept occurs in training, with "
    f"whichever image. {DIVIDED}",
    "queries whose concept was not trained": "The model on recordings of images whose concept does not occur in "
    f"training: the zero-shot part of the score. {DIVIDED}",
}


def overlap_records(scored: EmbeddedSplit, train: Split, seed: int) -> list[dict]:
    """Count what the scored split shares with training, and score the model with and without it.

    Args:
        scored (`EmbeddedSplit`): Recordings of the scored split in the model's space.
        train ([`Split`]): All training recordings.
        seed (`int`): Seed of resampling and shuffling.

    Returns:
        `list[dict]`: First the counts: `check`, `by` (`"count"`), `meaning`, `found` (a sentence), `images` and
        `concepts`. `images` has `scored` and `trained` (how many there are), `same_id`, `same_file` (`None` if the
        data set holds no files), `same_embedding` and `near`, in each of which an image counts once, in the first that
        holds, and `highest_cosine`, of those in none of the first three with any training image; all but `same_id`
        are `None` where images are categories. `concepts` has `scored`, `trained` and `shared`. Then the model's
        scores on queries of either kind, divided by image and (where concepts are named and are not the images
        themselves) by concept, each where both kinds occur.
    """
    table = scored.data.images
    named = dict(zip(table.image_ids, table.concepts, strict=True))
    trained_ids, first = np.unique(train.image_ids, return_index=True)
    shown = scored.of_its_images()
    kinds, unknown = _kinds(shown, trained_ids, train.targets_of(first))
    images = {"scored": len(kinds), "trained": len(trained_ids)}
    images |= {kind: int((kinds == kind).sum()) for kind in KINDS} | unknown
    trained_concepts = {named[image_id] for image_id in trained_ids.tolist()} - {""}
    asked = set(shown.gallery_concepts) - {""}
    concepts = {"scored": len(asked), "trained": len(trained_concepts), "shared": len(asked & trained_concepts)}
    head = {"check": "overlap with training", "by": "count", "meaning": MEANINGS["overlap with training"]}
    records = [{**head, "found": _found(images, concepts, scored.category_level), "images": images,
                "concepts": concepts}]  # fmt: skip
    known = (kinds != "")[shown.columns]
    records += _divided(scored, "image", known, ~known, seed)
    if asked and not scored.category_level:
        has_name = np.array([name != "" for name in shown.gallery_concepts])[shown.columns]
        known = np.array([name in trained_concepts for name in shown.gallery_concepts])[shown.columns]
        records += _divided(scored, "concept", known, has_name & ~known, seed)
    return records


def _kinds(scored: EmbeddedSplit, trained_ids: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, dict]:
    """Way in which each image of the gallery occurs in training (`""`: none); what is not known, highest cosine."""
    from neural_clip.retrieval.scores import nearest_rows
    from neural_clip.retrieval.tiles import unit_vectors

    kinds = np.where(np.isin(scored.gallery_ids, trained_ids), "same_id", "").astype("<U14")
    if scored.category_level:
        return kinds, dict.fromkeys(("same_file", "same_embedding", "near", "highest_cosine"))
    files = _file_hashes(scored.data, {*trained_ids.tolist(), *scored.gallery_ids.tolist()})
    trained_files = {files[image_id] for image_id in trained_ids.tolist() if image_id in files}
    same_file = np.array([files.get(image_id) in trained_files for image_id in scored.gallery_ids.tolist()])
    trained_embeds = {row.tobytes() for row in np.asarray(targets, dtype=np.float32)}
    embeds = np.asarray(scored.gallery_embeds, dtype=np.float32)
    same_embedding = np.array([row.tobytes() in trained_embeds for row in embeds])
    nearest = targets[nearest_rows(embeds, targets)[:, 0]]
    cosines = np.einsum("ij,ij->i", unit_vectors(embeds), unit_vectors(nearest))
    for kind, found in (("same_file", same_file), ("same_embedding", same_embedding)):
        kinds[(kinds == "") & found] = kind
    others = kinds == ""
    kinds[others & (cosines > MAX_COSINE)] = "near"
    highest = {"highest_cosine": float(cosines[others].max()) if others.any() else None}
    return kinds, highest | ({} if files else {"same_file": None})


def _file_hashes(data: PreparedSet, wanted: set[str]) -> dict[str, int]:
    """Hash of the bytes of each wanted image's file; images without a file are left out."""
    from xxhash import xxh3_64_intdigest

    if "image" not in data.stored_images.column_names:
        return {}
    rows = [row for row, image_id in enumerate(data.images.image_ids) if image_id in wanted]
    hashes = {}
    for batch in data.stored_images.select(rows).select_columns(["image_id", "image"]).with_format("arrow").iter(256):
        for image_id, image in zip(batch["image_id"].to_pylist(), batch["image"].to_pylist(), strict=True):
            if image and image["bytes"]:
                hashes[image_id] = xxh3_64_intdigest(image["bytes"])
    return hashes


def _found(images: dict, concepts: dict, category_level: bool) -> str:
    """The counts as a sentence."""
    if category_level:
        return (
            f"{images['same_id']} of the {images['scored']} scored categories occur in training, as they must where "
            "categories stand for images; images cannot be compared."
        )
    counts = {name: images[kind] for kind, name in KINDS.items() if images[kind] is not None}
    near = f"cosine above {MAX_COSINE}"
    if images["highest_cosine"] is not None:
        near += f"; the highest is {images['highest_cosine']:.3f}"
    listed = ", ".join(f"{count} {name}" for name, count in counts.items())
    unseen = "" if "by file" in counts else ", files being absent"
    tested = (
        f"{concepts['shared']} of the {concepts['scored']} scored concepts occur in training"
        if concepts["scored"]
        else "concepts are not named"
    )
    return (
        f"{sum(counts.values())} of the {images['scored']} scored images occur among the {images['trained']} training "
        f"images ({listed}: {near}{unseen}), and {tested}."
    )


def _divided(scored: EmbeddedSplit, what: str, known: np.ndarray, unknown: np.ndarray, seed: int) -> list[dict]:
    """The model's scores on queries whose image or concept was trained, and on those whose was not, if both occur."""
    from neural_clip.retrieval.scoring import score_record

    if not (known.any() and unknown.any()):
        return []  # the counts say it
    records = []
    for check, rows in ((f"queries whose {what} was trained", known),
                        (f"queries whose {what} was not trained", unknown)):  # fmt: skip
        head = {"check": check, "by": "model", "meaning": MEANINGS[check]}
        record, _ = score_record(
            scored.embeds[rows], scored.gallery_embeds, scored.image_ids[rows], scored.gallery_ids,
            seed=seed, by_recording=scored.category_level, groups=scored.subjects[rows],
            among_shown=scored.searched is not None,
        )  # fmt: skip
        records.append({**head, **{name: record[name] for name in KEPT}})
    return records
