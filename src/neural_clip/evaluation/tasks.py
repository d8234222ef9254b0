"""The three tasks of arXiv 2411.09723 on embedded recordings: decoding, encoding and modality conversion.

* Decoding: recording -> images. The gallery holds every image of the split once, or more images.
* Encoding: image -> nearest recording; the image *behind* that recording is compared with the query by their image
  embeddings.
* Conversion: recording of one modality -> nearest recording of another; again the image behind it is compared with
  the image behind the query. Normalised: divided by the decoding score of the target modality; beside it, by the
  weaker of the decoding scores of source and target, which bounds what passes through both. Three ways: to single
  recordings, to the mean recording of each image, and to single recordings by the expected image embedding.

Encoding, and conversion where both modalities answered to the same images, have a direct form too: the query looks for
its own image in a gallery of recordings, averaged for each image, and no image embedding stands between the two. Of
corpora that share a database of images, these are the pictures of any split that training has not seen
(`same_pictures.py`).

Every score is one of `retrieval/scores.py`, made by `scoring.score_record`. The functions return what the report
holds, and the contributions of each query, by which checkpoints are compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neural_clip.evaluation.same_pictures import SAME_NAME_COSINE, SamePictures
from neural_clip.gallery.building import SAME_IMAGE_COSINE
from neural_clip.gallery.confidence import Temperatures
from neural_clip.gallery.conversion import IMAGES, MEAN_RECORDINGS, RECORDINGS, expected_images
from neural_clip.gallery.embedding import IMAGE_MEAN, SINGLE_TRIAL, SUBJECT_MEAN, EmbeddedSplit, aggregate
from neural_clip.gallery.neural_gallery import NeuralGallery
from neural_clip.prepared.modalities import kind_of
from neural_clip.prepared.stimuli import database_of
from neural_clip.retrieval.calibration import calibration_record, first_hits
from neural_clip.retrieval.scores import score_queries
from neural_clip.retrieval.scoring import score_record
from neural_clip.retrieval.tiles import unit_vectors

Contributions = dict[str, np.ndarray]
BEHIND = ("two_way", "n_queries", "gallery_size", "n_unique_images", "resampled_unit", "chance_two_way")
DIRECT = (*BEHIND, "top1", "top5", "chance_top1", "chance_top5", "class_top", "chance_class_top")


def decoding_rows(data: EmbeddedSplit, embeds: np.ndarray, method: str, seed: int) -> tuple[list[dict], Contributions]:
    """Scores of one method at each level of aggregation that differs from the one before.

    Args:
        data ([`EmbeddedSplit`]): Gallery and what is known of each recording.
        embeds (`np.ndarray` of shape `(n, projection_dim)`): What the method makes of each recording.
        method (`str`): Its name in the report.
        seed (`int`): Seed of resampling and shuffling.

    Returns:
        `tuple` of `list[dict]`, single trials first, and the contributions of single trials.
    """
    classes = data.gallery_concepts if all(data.gallery_concepts) else None
    rows: list[dict] = []
    contributions: Contributions = {}
    for level in (SINGLE_TRIAL,) if data.category_level else (SINGLE_TRIAL, IMAGE_MEAN, SUBJECT_MEAN):
        queries, subjects, image_ids = aggregate(embeds, data.subjects, data.image_ids, level)
        if rows and len(queries) == rows[-1]["n_queries"]:
            continue  # every image was shown once to each subject (or there is one subject): the same numbers
        record, per_query = score_record(
            queries, data.gallery_embeds, image_ids, data.gallery_ids,
            seed=seed, classes=classes, by_recording=data.category_level, groups=subjects,
            among_shown=data.searched is not None,
        )  # fmt: skip
        record["subjects"] = {
            str(subject): {
                "n_queries": int((subjects == subject).sum()),
                **{name: float(per_query[name][subjects == subject].mean()) for name in ("two_way", "top1", "top5")},
            }
            for subject in np.unique(subjects)
        }
        rows.append({"method": method, "aggregation": level, **record})
        contributions = contributions or per_query
    return rows, contributions


def confidence_record(data: EmbeddedSplit, temperatures: Temperatures, method: str, seed: int) -> dict:
    """How far the probability of the first hit is from the share of first hits that are right.

    Args:
        data ([`EmbeddedSplit`]): Single trials and their gallery.
        temperatures ([`Temperatures`]): Of each recording, from the checkpoint.
        method (`str`): Its name in the report.
        seed (`int`): Seed of resampling and drawing.

    Returns:
        `dict`: What [`calibration.calibration_record`] gives, `gallery_size`, `temperatures` by subject, `n_left_out`:
        recordings without a temperature, and `why` they have none. Or `not_computed` with the reason, where all lack
        one.
    """
    values, rows = temperatures.values, np.flatnonzero(~np.isnan(temperatures.values))
    reasons = sorted({reason for reason in temperatures.reasons if reason})
    if not len(rows):
        return {"method": method, "not_computed": " ".join(reasons)}
    confidence, right = first_hits(data.embeds[rows], data.gallery_embeds, data.columns[rows], values[rows])
    units = rows.tolist() if data.category_level else data.image_ids[rows].tolist()
    return {
        "method": method,
        **calibration_record(confidence, right, units, seed),
        "gallery_size": len(data.gallery_ids),
        "resampled_unit": "recording" if data.category_level else "image",
        "temperatures": dict(zip(data.subjects[rows].tolist(), values[rows].tolist(), strict=True)),
        "n_left_out": len(values) - len(rows),
        "why": reasons,
    }


def encoding_record(data: EmbeddedSplit, seed: int) -> tuple[dict, Contributions]:
    """Image -> nearest recording -> image behind it, scored against the query image; and the direct form.

    Returns:
        `tuple` of `dict` and contributions. `same_image` is the share of images whose nearest recording was of that
        very image; `direct` scores images against the mean recording of each image, `None` where there is one image.
    """
    recordings = NeuralGallery.of_recordings(data, data.embeds)
    shown = data.gallery_embeds[data.shown_columns]  # (n_shown, projection_dim)
    nearest = data.columns[recordings.nearest(shown)[:, 0]]  # (n_shown,), columns of the gallery
    record, per_query = _behind(data.gallery_embeds[nearest], data.shown_ids, data, seed)
    shares = np.bincount(data.columns)[data.shown_columns] / len(data.columns)
    means, _, image_ids = aggregate(data.embeds, data.subjects, data.image_ids, SUBJECT_MEAN)
    direct = None
    if len(shown) > 1:
        direct = _kept(score_record(shown, means, data.shown_ids, image_ids, seed=seed)[0], DIRECT)
    record |= {
        "same_image": float((nearest == data.shown_columns).mean()),
        "chance_same_image": float(shares.mean()),
        "n_recordings": len(data.columns),
        "category_level": data.category_level,
        "direct": direct,
    }
    return record, per_query


def conversion_record(
    source: EmbeddedSplit, target: EmbeddedSplit, denominator: float, seed: int, *, method: str,
    source_two_way: float | None = None, bank: np.ndarray | None = None, same: SamePictures | None = None,
) -> tuple[dict, Contributions]:  # fmt: skip
    """Recording of one modality -> nearest recording of another -> image behind it, against the query's image.

    Args:
        source, target ([`EmbeddedSplit`]): Queries and gallery.
        denominator (`float`): Single-trial decoding 2-way score of the target modality.
        seed (`int`): Seed of resampling and shuffling.
        method (`str`): Checkpoint that made all of them.
        source_two_way (`float`, *optional*): Single-trial decoding 2-way score of the source modality.
        bank (`np.ndarray` of shape `(n_images, projection_dim)`, *optional*): Images for the way through images.
        same ([`SamePictures`], *optional*): Recordings for the direct form, and what `same_pictures` of the record
            says of them; by default those of source and target.

    Returns:
        `tuple` of `dict` and contributions; `direct` is `None` where the modalities have fewer than two images in
        common, and so is `normalised` where the target is decoded never. `ways` holds the scores of each way, the
        first of which is that of the record and of the contributions.
    """
    weaker = denominator if source_two_way is None else min(denominator, source_two_way)
    ways, contributions = [], []
    for way, columns in _ways(source, target, bank):
        found, per_query = _behind(
            target.gallery_embeds[columns], source.image_ids, source, seed, source.subjects
        )  # fmt: skip
        ways.append({"via": way, **found, **_normalised(found, denominator, weaker)})
        contributions.append(per_query)
    plain = {name: value for name, value in ways[0].items() if name != "via"}
    record = {
        "source": source.data.key,
        "target": target.data.key,
        **plain,
        "numerator": f"conversion 2-way, {source.data.key} queries to {target.data.key} recordings, "
        f"{source.name} splits",
        "denominator": f"decoding 2-way of {target.data.key} by {method}, {SINGLE_TRIAL}, {target.name} split",
        "denominator_two_way": denominator,
        "weaker": target.data.key if weaker == denominator else source.data.key,
        "weaker_two_way": weaker,
        "ways": ways,
        "n_bank_images": 0 if bank is None else len(bank),
        "n_bank_scored": 0 if bank is None else _n_common(bank, source.gallery_embeds[source.shown_columns]),
        "n_recordings": len(target.columns),
        "category_level": source.category_level or target.category_level,
        "direct": direct_conversion(*((source, target) if same is None else (same.source, same.target)), seed),
        **({} if same is None else {"same_pictures": same.told}),
    }
    return record, contributions[0]


def _n_common(one: np.ndarray, other: np.ndarray) -> int:
    """Rows that two tables have in common, bit for bit."""
    return len({row.tobytes() for row in one} & {row.tobytes() for row in other})


def _ways(source: EmbeddedSplit, target: EmbeddedSplit, bank: np.ndarray | None) -> Iterator[tuple[str, np.ndarray]]:
    """By each way, the image (a column of the target's gallery) behind the nearest recording of each query."""
    recordings = NeuralGallery.of_recordings(target, target.embeds)
    yield RECORDINGS, target.columns[recordings.nearest(source.embeds)[:, 0]]
    means = recordings.mean_recordings()
    yield MEAN_RECORDINGS, np.searchsorted(target.gallery_ids, means.image_ids[means.nearest(source.embeds)[:, 0]])
    if bank is not None and len(bank):
        yield IMAGES, target.columns[recordings.nearest(expected_images(source.embeds, bank))[:, 0]]


def _normalised(record: dict, denominator: float, weaker: float) -> dict:
    """The 2-way score and its interval, divided by decoding scores; `None` where nothing is decoded."""
    found: dict = {}
    for name, divisor in (("normalised", denominator), ("normalised_by_weaker", weaker)):
        interval = record["two_way_interval"]
        found[name] = record["two_way"] / divisor if divisor else None
        found[f"{name}_interval"] = [end / divisor for end in interval] if interval and divisor else None
    return found


def common_images(source: EmbeddedSplit, target: EmbeddedSplit) -> np.ndarray:
    """For each image of the source's gallery its column in the target's, -1 where the target has another picture.

    Pictures are the same where their embeddings are, up to rounding (cosine of 1 - 1e-5 and more), or where both
    corpora give them one name of a database ([`images_of_one_name`]). Elsewhere names are not compared: two corpora
    may use one name for different pictures.
    """
    nearest = NeuralGallery.of_images(target).nearest(source.gallery_embeds)[:, 0]
    same = np.where(_cosines(source, target, nearest) >= SAME_IMAGE_COSINE, nearest, -1)
    named = images_of_one_name(source, target)
    return np.where(named >= 0, named, same)


def images_of_one_name(source: EmbeddedSplit, target: EmbeddedSplit) -> np.ndarray:
    """The same by name alone, of corpora that name the images of one database (`prepared/stimuli.py`).

    Their copies of a picture may differ in size, and so a little in embedding; but for that (a cosine of 0.95 and
    more) embeddings must agree, as simulated twins may give one name to different pictures.
    """
    database = database_of(source.facts.corpus)
    if database is None or database != database_of(target.facts.corpus):
        return np.full(len(source.gallery_ids), -1)
    place = np.searchsorted(target.gallery_ids, source.gallery_ids).clip(max=len(target.gallery_ids) - 1)
    same = (target.gallery_ids[place] == source.gallery_ids) & (_cosines(source, target, place) >= SAME_NAME_COSINE)
    return np.where(same, place, -1)


def _cosines(source: EmbeddedSplit, target: EmbeddedSplit, columns: np.ndarray) -> np.ndarray:
    """Of each image of the source's gallery with one of the target's."""
    return (unit_vectors(source.gallery_embeds) * unit_vectors(target.gallery_embeds)[columns]).sum(axis=1)


def direct_conversion(source: EmbeddedSplit, target: EmbeddedSplit, seed: int) -> dict | None:
    """Recording of one modality -> mean recording of the same image in the other.

    Queries are the source's recordings of images that both modalities have; the gallery holds the mean recording of
    every image of the target. Class scores ask whether the recording that is found is of an image of the same concept.

    Returns:
        `dict`, *optional*: Scores, `n_common_images` and how many of these were found `by_name`; `None` with fewer
        than two images in common.
    """
    source, target = source.of_its_images(), target.of_its_images()
    if not len(source) or not len(target):
        return None
    columns = common_images(source, target)[source.columns]
    rows = np.flatnonzero(columns >= 0)
    if (n_common := len(np.unique(columns[rows]))) < 2:
        return None
    by_name = int((images_of_one_name(source, target) >= 0).sum())
    means, _, image_ids = aggregate(target.embeds, target.subjects, target.image_ids, SUBJECT_MEAN)
    record, _ = score_record(
        source.embeds[rows], means, target.gallery_ids[columns[rows]], image_ids, seed=seed,
        classes=target.gallery_concepts if all(target.gallery_concepts) else None,
        by_recording=source.category_level, groups=source.subjects[rows],
    )  # fmt: skip
    return _kept(record, DIRECT) | {"n_common_images": n_common, "by_name": by_name}


def _behind(
    found: np.ndarray, image_ids: np.ndarray, queries: EmbeddedSplit, seed: int, groups: np.ndarray | None = None
) -> tuple[dict, Contributions]:
    """2-way scores of the images behind retrieved recordings; top-k of that detour has no meaning of its own.

    `groups` are the subjects behind queries that are recordings; images as queries have none.
    """
    record, per_query = score_record(
        found, queries.gallery_embeds, image_ids, queries.gallery_ids, seed=seed,
        by_recording=groups is not None and queries.category_level, groups=groups,
        among_shown=queries.searched is not None,
    )  # fmt: skip
    return _kept(record, BEHIND), per_query


def _kept(record: dict, prefixes: tuple[str, ...]) -> dict:
    """Entries whose names begin so."""
    return {name: value for name, value in record.items() if name.startswith(prefixes)}


def picture_hits(splits: dict[str, EmbeddedSplit]) -> dict[str, np.ndarray]:
    """First five hits and the 2-way score of every query, for the panels of retrieved images.

    Returns:
        `dict`: For each modality `<m>_decoding_hits` (positions in the gallery), `<m>_encoding_hits` and, for pairs,
        `<source>_to_<target>_hits`: rows of the nearest recordings, the first of each image, -1 where there are no
        five; and `..._scores` for each.
    """
    arrays = {}
    recorded = {name: NeuralGallery.of_recordings(part, part.embeds) for name, part in splits.items()}
    for name, part in splits.items():
        queries = (part.embeds, part.image_ids)
        arrays[f"{name}_decoding_hits"] = NeuralGallery.of_images(part).hits(part.embeds)
        arrays[f"{name}_decoding_scores"] = _scores_of(*queries, part)
        tasks = {f"{name}_encoding": (part.gallery_embeds[part.shown_columns], part.shown_ids, name)}
        tasks |= {f"{name}_to_{other}": (*queries, other) for other in splits if kind_of(other) != kind_of(name)}
        for task, (embeds, image_ids, searched) in tasks.items():
            arrays[f"{task}_hits"] = hits = recorded[searched].hits(embeds)
            behind = splits[searched].gallery_embeds[splits[searched].columns[hits[:, 0]]]
            arrays[f"{task}_scores"] = _scores_of(behind, image_ids, part)
    return arrays


def _scores_of(found: np.ndarray, image_ids: np.ndarray, part: EmbeddedSplit) -> np.ndarray:
    """2-way score of each query among the images of a split."""
    return score_queries(found, part.gallery_embeds, list(image_ids), list(part.gallery_ids))["two_way"]
