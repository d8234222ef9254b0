"""Checks of images: ids against recordings, identical images, and embeddings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from neural_clip.prepared.doctor.findings import Finding, error, examples, note, warning
from neural_clip.prepared.doctor.labels import Labels
from neural_clip.prepared.doctor.scan import ImageScan

MAX_COSINE = 0.99  # CLIP's image embeddings share a direction, but two photographs reach 0.5 to 0.9


def check_images(images: list[ImageScan], labels: Labels, metadata: Mapping) -> Iterator[Finding]:
    """All findings on images."""
    image_ids = [image_id for scan in images for image_id in scan.image_ids]
    yield from _ids(image_ids, set(labels.names["image_id"]))
    yield from _embeddings(images, metadata)
    pixels = np.concatenate([scan.pixels for scan in images])
    embeds = np.concatenate([scan.embeds for scan in images])
    if len(np.unique(embeds)) == 1:
        embeds = np.zeros_like(embeds)  # there are none, or all are identical, which has its own finding
    # held-out subjects may see what others were trained on
    harm = warning if metadata.get("split_unit") == "subject" else error
    yield from _duplicates(image_ids, pixels, embeds, labels, harm)


def _ids(image_ids: list[str], shown: set[str]) -> Iterator[Finding]:
    twice = [image_id for image_id, count in Counter(image_ids).items() if count > 1]
    if twice:
        yield error("images", f"{len(twice)} image ids occur twice: {examples(map(repr, twice))}.",
                    "It is not defined which image a recording answers to.")  # fmt: skip
    known = set(image_ids)
    if dangling := sorted(shown - known):
        yield error("images", f"{len(dangling)} image ids of recordings are not among the images: "
                    f"{examples(map(repr, dangling))}.", "Their recordings have no target.")  # fmt: skip
    if unseen := sorted(known - shown):
        yield note("images", f"{len(unseen)} of {len(known)} images have no recording: {examples(map(repr, unseen))}.",
                   "They are no one's target; galleries made of all images are harder with them.")  # fmt: skip


def _embeddings(images: list[ImageScan], metadata: Mapping) -> Iterator[Finding]:
    """Embeddings that cannot serve as targets."""
    widths: Counter = sum((scan.widths for scan in images), Counter())
    encoder = metadata.get("image_encoder")
    if not widths:
        if encoder:
            yield error("embeddings", f"The image encoder is stated as {encoder.get('name')!r}, but no image has an "
                        "embedding.", "There is nothing to train on or to retrieve.")  # fmt: skip
        return
    if not encoder:
        yield error("embeddings", "The images have embeddings, but no image encoder is stated.",
                    "Further images cannot be embedded in the same way, and scores cannot be compared.")  # fmt: skip
    if len(widths) > 1 or sum(widths.values()) < sum(len(scan.image_ids) for scan in images):
        listed = ", ".join(f"{count} are {shape[0]} wide" for shape, count in widths.most_common())
        yield error("embeddings", f"Not all images have embeddings of one width: {listed}.",
                    "They cannot be compared with one another.")  # fmt: skip
    stated = (encoder or {}).get("projection_dim")
    if len(widths) == 1 and stated is not None and (stated,) not in widths:
        yield error("embeddings", f"They are {next(iter(widths))[0]} wide, but 'projection_dim' is {stated}.",
                    "They are not from the encoder that is stated.")  # fmt: skip
    for what, names in (("hold values that are not finite", [n for scan in images for n in scan.not_finite]),
                        ("are all zeros", [n for scan in images for n in scan.zeros])):  # fmt: skip
        if names:
            yield error("embeddings", f"{len(names)} {what}: {examples(map(repr, names))}.",
                        "They have no direction, so no similarity to them is defined.")  # fmt: skip
    yield from _directions(images)


def _directions(images: list[ImageScan]) -> Iterator[Finding]:
    """Embeddings that hardly differ; the mean cosine of different ones follows from the sum of unit vectors."""
    sums = [scan.directions for scan in images if scan.directions is not None]
    count = sum(scan.n_directions for scan in images)
    if count < 2 or len({vector.size for vector in sums}) != 1:
        return
    if len(np.unique(np.concatenate([scan.embeds for scan in images]))) == 1:
        yield error("embeddings", f"All {count} are identical.",
                    "Every answer is a tie: scores are chance, or wrong where ties are counted as hits.")  # fmt: skip
        return
    cosine = (float(np.sum(np.sum(sums, axis=0) ** 2)) - count) / (count * (count - 1))
    if cosine > MAX_COSINE:
        yield warning("embeddings", f"The mean cosine of different images is {cosine:.4f}.",
                      "They have collapsed to a direction or were not centred: similarities differ in the last digits "
                      "only, and training hardly moves.")  # fmt: skip


def _duplicates(
    image_ids: list[str], pixels: np.ndarray, embeds: np.ndarray, labels: Labels, harm: Callable[..., Finding]
) -> Iterator[Finding]:
    """Images that are the same under different ids, by their files or else by their embeddings."""
    splits = _splits_of(labels)
    told: set[frozenset[str]] = set()
    for hashes, what in ((pixels, "files"), (embeds, "embeddings")):
        across: list[list[str]] = []
        within: list[list[str]] = []
        for group in _groups(image_ids, hashes):
            if group in told:
                continue
            told.add(group)
            found = {split for image_id in group for split in splits.get(image_id, ())}
            (across if len(found) > 1 else within).append(sorted(group))
        for groups, severity, where, consequence in (
            (across, harm, "in different splits", "The model is tested on images that it was trained on or chosen "
             "by, under other names, so scores are too high."),
            (within, warning, "within a split", "They tie in retrieval, and a right answer may count as wrong."),
        ):  # fmt: skip
            if groups:
                count, listed = sum(map(len, groups)), examples(" = ".join(map(repr, group[:2])) for group in groups)
                message = f"{count} images have {len(groups)} identical {what} {where}: {listed}."
                yield severity("duplicate images", message, consequence)


def _groups(image_ids: list[str], hashes: np.ndarray) -> Iterator[frozenset[str]]:
    """Sets of different ids with the same hash."""
    order = np.argsort(hashes, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(hashes[order])) + 1):
        group = frozenset(image_ids[row] for row in rows)
        if len(group) > 1 and hashes[rows[0]]:
            yield group


def _splits_of(labels: Labels) -> dict[str, set[int]]:
    """Splits in which each image is shown."""
    found: dict[str, set[int]] = {}
    pairs = np.unique(np.stack([labels.codes["image_id"], labels.codes["split"]]), axis=1)
    for image, split in pairs.T.tolist():
        found.setdefault(labels.names["image_id"][image], set()).add(split)
    return found
