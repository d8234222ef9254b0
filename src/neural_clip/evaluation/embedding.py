"""Recordings embedded by a model, and averaged: what decoding, encoding and conversion are scored on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.errors import DataError
from neural_clip.evaluation.fit import check_fit
from neural_clip.prepared.modalities import MODALITIES

if TYPE_CHECKING:
    from neural_clip.modeling_neural_clip import NeuralClipModel


SINGLE_TRIAL, IMAGE_MEAN, SUBJECT_MEAN = "single trial", "image mean within subject", "image mean over subjects"


@dataclass
class EmbeddedSplit:
    """Recordings of one split in the space of the images, with the images behind them.

    Args:
        modality (`str`): `"eeg"`, `"meg"` or `"fmri"`.
        folder (`str`): Prepared data set.
        metadata (`dict`): Its `neural_clip.json`.
        embeds (`np.ndarray` of shape `(n, projection_dim)`): Unit vectors, float32.
        subjects, image_ids (`np.ndarray` of shape `(n,)`, str): Person and image of each recording.
        gallery_ids (`np.ndarray` of shape `(n_images,)`, str): Unique images of the split, sorted.
        gallery_embeds (`np.ndarray` of shape `(n_images, projection_dim)`): Their embeddings, float32.
        gallery_concepts (`list[str]`): Concept of each image.
        gallery_categories (`list[list[str]]`): Categories of each image.
    """

    modality: str
    folder: str
    metadata: dict
    embeds: np.ndarray
    subjects: np.ndarray
    image_ids: np.ndarray
    gallery_ids: np.ndarray
    gallery_embeds: np.ndarray
    gallery_concepts: list[str]
    gallery_categories: list[list[str]]

    @property
    def category_level(self) -> bool:
        """Whether "images" are categories."""
        return bool(self.metadata.get("category_level"))

    @property
    def columns(self) -> np.ndarray:
        """Position of each recording's image in the gallery, `(n,)`."""
        return np.searchsorted(self.gallery_ids, self.image_ids)


def embed_split(
    model: NeuralClipModel,
    folder: str,
    split: str,
    *,
    subjects: Sequence[str] | None = None,
    batch_size: int = 64,
    device: str = "cpu",
) -> EmbeddedSplit:
    """Embed the recordings of one split of a prepared data set.

    Args:
        model ([`NeuralClipModel`]): In `eval()` mode.
        folder (`str`): Prepared data set, its images embedded.
        split (`str`): `"train"`, `"validation"` or `"test"`.
        subjects (`Sequence[str]`, *optional*): Embed their recordings; everybody's by default.
        batch_size (`int`): Recordings a forward pass.
        device (`str`): Where to compute.

    Raises:
        DataError: If the model has no such modality or subject, the channels, voxels or the width of the image
            embeddings differ from the model's, or an embedding is not finite.
    """
    from neural_clip.prepared.reader import load_image_table, load_metadata, load_recordings, recording_array
    from neural_clip.retrieval.tiles import unit_vectors

    metadata = load_metadata(folder)
    modality = metadata["modality"]
    recordings = load_recordings(folder, split, subjects)
    people, image_ids = np.array(recordings["subject"][:]), np.array(recordings["image_id"][:])
    check_fit(model, metadata, folder, sorted(set(people)))
    values = recording_array(recordings, modality)
    embeds = _forward(model, modality, values, people, batch_size, device)
    try:
        embeds = unit_vectors(embeds, f"{modality} embeddings").astype(np.float32)
    except ValueError as error:
        raise DataError(f"The model's embeddings of '{folder}' cannot be scored: {error}") from error
    images = load_image_table(folder)
    gallery_ids = np.unique(image_ids)
    rows = images.rows_of(gallery_ids.tolist())
    if images.embeds.shape[1] != embeds.shape[1]:
        raise DataError(
            f"The images of '{folder}' have embeddings of width {images.embeds.shape[1]}, "
            f"but the model embeds recordings in {embeds.shape[1]} dimensions."
        )
    return EmbeddedSplit(
        modality=modality,
        folder=str(folder),
        metadata=metadata,
        embeds=embeds,
        subjects=people,
        image_ids=image_ids,
        gallery_ids=gallery_ids,
        gallery_embeds=images.embeds[rows],
        gallery_concepts=[images.concepts[row] for row in rows],
        gallery_categories=[list(images.categories[row]) for row in rows],
    )


def _forward(
    model: NeuralClipModel,
    modality: str,
    values: Sequence[np.ndarray] | np.ndarray,
    subjects: np.ndarray,
    batch_size: int,
    device: str,
) -> np.ndarray:
    """Features `(n, projection_dim)` of recordings, fMRI padded with zeros inside a batch."""
    import torch
    from tqdm import tqdm

    known = list(getattr(model.config, f"{modality}_config").subjects)
    features = getattr(model.eval().to(torch.device(device)), f"get_{modality}_features")
    parts = []
    for start in tqdm(range(0, len(values), batch_size), desc=f"embed {modality}", unit="batch", file=sys.stderr):
        rows = values[start : start + batch_size]
        if not MODALITIES[modality].sensors:
            width = max(len(row) for row in rows)
            batch = np.stack([np.pad(row, (0, width - len(row))) for row in rows])  # (batch, max_n_voxels)
        else:
            batch = np.stack(list(rows))  # (batch, n_chans, n_times)
        subject_ids = [known.index(subject) for subject in subjects[start : start + batch_size]]
        with torch.inference_mode():
            inputs = {f"{modality}_values": torch.from_numpy(batch).float().to(device)}
            parts.append(
                features(**inputs, subject_ids=torch.tensor(subject_ids, device=device)).float().cpu().numpy()
            )
    return np.concatenate(parts)


def aggregate(
    embeds: np.ndarray, subjects: np.ndarray, image_ids: np.ndarray, level: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average recordings of the same image.

    Args:
        embeds (`np.ndarray` of shape `(n, projection_dim)`): Scaled to unit length before averaging, so that no
            recording counts more.
        level (`str`): `"single trial"`, `"image mean within subject"` or `"image mean over subjects"`.

    Returns:
        `tuple`: Embeddings `(m, projection_dim)`, subjects `(m,)` (`"all"` over subjects), image ids `(m,)`.
    """
    from neural_clip.retrieval.tiles import unit_vectors

    units = unit_vectors(embeds)
    if level == SINGLE_TRIAL:
        return units, subjects, image_ids
    people = subjects if level == IMAGE_MEAN else np.full(len(subjects), "all")
    keys, codes = np.unique(np.stack([people, image_ids]), axis=1, return_inverse=True)
    sums = np.zeros((keys.shape[1], units.shape[1]))
    np.add.at(sums, codes.ravel(), units)
    return sums / np.bincount(codes.ravel())[:, None], keys[0], keys[1]


Embedded = dict[str, dict[str, EmbeddedSplit]]  # checkpoint -> modality -> recordings in its space
