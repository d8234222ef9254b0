"""A map of the shared space in two dimensions."""

from __future__ import annotations

from collections import Counter

import numpy as np

from neural_clip.evaluation.understanding.pictures import KINDS, draw_latent_space, write_csv
from neural_clip.evaluation.understanding.recordings import Analysis, display_name, some_simulated
from neural_clip.gallery.embedding import SUBJECT_MEAN, EmbeddedSplit, aggregate


def write_latent_space(splits: dict[str, EmbeddedSplit], run: Analysis) -> dict:
    """Project recordings into the plane in which the images vary most, draw it and write it.

    Images and recordings are unit vectors; a recording's point is the mean over all recordings of that image.
    """
    from sklearn.decomposition import PCA

    from neural_clip.retrieval.tiles import unit_vectors

    images = np.concatenate([unit_vectors(part.gallery_embeds) for part in splits.values()])
    plane = PCA(n_components=2, svd_solver="full").fit(images)
    columns: dict[str, list] = {name: [] for name in ("modality", "corpus", "image_id", "kind", "simulated")}
    places, gaps = [], {}
    kinds = _frequent_kinds(splits)
    for modality, part in splits.items():
        gallery = unit_vectors(part.gallery_embeds)
        means, _, image_ids = aggregate(part.embeds, part.subjects, part.image_ids, SUBJECT_MEAN)
        kind_of = dict(zip(part.gallery_ids, (_kind(part, row, kinds) for row in range(len(gallery))), strict=True))
        for name, ids, embeds in (("image", part.gallery_ids, gallery), (modality, image_ids, means)):
            simulated = bool(part.facts.simulated)
            for column, values in zip(
                columns.values(),
                ([name] * len(ids), [part.facts.corpus] * len(ids), ids.tolist(),
                 [kind_of[image_id] for image_id in ids], [simulated] * len(ids)),
                strict=True,
            ):  # fmt: skip
                column += values
            places.append(plane.transform(embeds))
        gaps[modality] = {
            "distance_of_centres": float(np.linalg.norm(means.mean(axis=0) - gallery.mean(axis=0))),
            "share_of_recordings_variance": plane.transform(means).var(axis=0).sum() / means.var(axis=0).sum(),
        }
    points = {name: np.array(values) for name, values in columns.items()}
    points["pc1"], points["pc2"] = np.concatenate(places).T
    title = f"Images and recordings in the shared space{some_simulated(splits)}, {run.split} split"
    stem = run.stem(title, "latent_space")
    write_csv(stem.with_suffix(".csv"), points)
    labels = {"image": "images"} | {modality: f"{display_name(part)} recordings" for modality, part in splits.items()}
    note = "principal components of the image embeddings; recordings: mean over all recordings of an image"
    shares = plane.explained_variance_ratio_
    draw_latent_space(points, kinds, shares, labels, f"{title}\n{note}", stem)
    return {
        "method": "principal components of the image embeddings, recordings projected",
        "share_of_images_variance": shares.tolist(),
        "modalities": gaps,
    }


def _frequent_kinds(splits: dict[str, EmbeddedSplit]) -> list[str]:
    """Categories (concepts where there are none) of most images, as many of each modality; ties by name."""
    kinds: list[str] = []
    for part in splits.values():
        counts: Counter[str] = Counter()
        for categories, concept in zip(part.gallery_categories, part.gallery_concepts, strict=True):
            counts.update((set(categories) or {concept}) - {"", *kinds})
        kinds += sorted(counts, key=lambda kind: (-counts[kind], kind))[: len(KINDS) // len(splits)]
    return kinds


def _kind(part: EmbeddedSplit, row: int, kinds: list[str]) -> str:
    """Category under which an image is shown: the first of those that have a colour."""
    own = set(part.gallery_categories[row]) or {part.gallery_concepts[row]}
    return next((kind for kind in kinds if kind in own), "other")
