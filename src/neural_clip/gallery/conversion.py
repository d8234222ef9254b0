"""The three ways from a recording to recordings of another modality, and the bank of images that one of them needs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.record import read_record
from neural_clip.prepared.reader import PreparedSet
from neural_clip.retrieval.tiles import blocks, unit_vectors

if TYPE_CHECKING:
    from neural_clip.prepared.image_table import ImageTable

WAYS = RECORDINGS, MEAN_RECORDINGS, IMAGES = "recordings", "mean recordings", "images"
# Of the softmax over images: exp(5) for a unit of cosine, chosen on validation recordings; CLIP's limit is 100.
INVERSE_TEMPERATURE = math.exp(5)
NAME_ONE = "Name a bank of images: bank=NeuralGallery.from_images(model, FOLDER), or --bank FOLDER at a shell"


def expected_images(queries: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """What image embedding is to be expected behind each recording, without knowing any.

    Args:
        queries (`np.ndarray` of shape `(n_queries, projection_dim)`): Embedded recordings, of any length.
        bank (`np.ndarray` of shape `(n_images, projection_dim)`): Embeddings of images, of any length.

    Returns:
        `np.ndarray` of shape `(n_queries, projection_dim)`, float64: The mean of the unit embeddings of the bank,
        weighted by the softmax of their cosines with the query times exp(5).
    """
    queries, images = unit_vectors(queries, "queries"), unit_vectors(bank, "bank")
    found = []
    for rows in blocks(len(queries), 24 * len(images)):
        logits = INVERSE_TEMPERATURE * (queries[rows] @ images.T)  # (block, n_images)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        found.append(weights / weights.sum(axis=1, keepdims=True) @ images)
    return np.concatenate(found)


def training_images(checkpoint: str | Path) -> list[tuple[PreparedSet, ImageTable]]:
    """The images that a checkpoint was trained on, from the data sets that its record names.

    Raises:
        DataError: If the checkpoint has no record, or a data set is not at hand or another one by now.
    """
    record = read_record(checkpoint) if Path(checkpoint).is_dir() else None
    if record is None:
        raise DataError(f"'{checkpoint}' has no record of the images that it was trained on. {NAME_ONE}.")
    places = (record.get("recipe") or {}).get("data") or {}
    found = []
    for modality, known in (record.get("data") or {}).items():
        place = str(places.get(modality, ""))
        if not Path(place).is_dir():
            raise DataError(f"The data set '{place}' that '{checkpoint}' was trained on is not at hand. {NAME_ONE}.")
        data = PreparedSet.open(place)
        if data.facts.fingerprint != known.get("fingerprint"):
            raise DataError(f"'{place}' is no longer the data set that '{checkpoint}' was trained on. {NAME_ONE}.")
        found.append((data, data.shown_images("train")))
    if not found:
        raise DataError(f"The record of '{checkpoint}' names no data set. {NAME_ONE}.")
    return found
