"""Rows of the `images` config of a prepared data set: each image once, its pixels and its embedding."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.corpora.parquet import ParquetShards
from neural_clip.errors import DataError

if TYPE_CHECKING:
    import datasets


def write_images(shards: ParquetShards, images: Iterable[dict]) -> tuple[dict[str, dict], int | None]:
    """Write the `images` config; return concept and categories by image id, and the width of the embeddings."""
    known: dict[str, dict] = {}
    columns, width = None, None
    for row in images:
        image_id = str(row["image_id"])
        where = f"image {image_id!r}"
        if image_id in known:
            raise DataError(f"{where} occurs twice among the images.")
        stored: dict = {"image_id": image_id, "concept": str(row.get("concept") or "")}
        stored["categories"] = [str(category) for category in row.get("categories") or []]
        known[image_id] = {"concept": stored["concept"], "categories": stored["categories"]}
        if row.get("image") is not None:
            stored["image"] = {"bytes": image_bytes(row["image"], where), "path": None}
        if row.get("image_embeds") is not None:
            stored["image_embeds"] = checked_embedding(row["image_embeds"], where, width)
            width = stored["image_embeds"].size
        if not stored.keys() & {"image", "image_embeds"}:
            raise DataError(f"{where} has neither pixels nor an embedding.")
        if columns is None:
            columns = stored.keys()
            features = image_features("image" in stored, width)
        if columns != stored.keys():
            raise DataError(f"{where} has {sorted(stored)}, other images have {sorted(columns)}; give all the same.")
        shards.add("images/images", features, stored)
    if not known:
        raise DataError("There are no images to write.")
    return known, width


def checked_embedding(vector: np.ndarray, where: str, width: int | None = None) -> np.ndarray:
    """Embedding as a float32 vector of `width` finite numbers that are not all 0."""
    vector = np.asarray(vector, dtype=np.float32)
    if vector.ndim != 1 or vector.size == 0 or (width is not None and vector.size != width):
        raise DataError(f"The embedding of {where} has shape {vector.shape}; expected ({width or 'projection_dim'},).")
    if not np.isfinite(vector).all():
        raise DataError(f"The embedding of {where} holds values that are not finite (NaN or infinite).")
    if not vector.any():
        raise DataError(f"The embedding of {where} is all zeros, so it has no direction.")
    return vector


def image_bytes(image: object, where: str) -> bytes:
    """Bytes of an image file; pixels become PNG, files stay as they are."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
            raise DataError(f"{where} is an array {image.dtype} {image.shape}; expected uint8 (height, width[, 3]).")
        image = Image.fromarray(image)
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, format="PNG")
        return buffer.getvalue()
    content = image if isinstance(image, bytes) else Path(str(image)).read_bytes()
    try:
        Image.open(io.BytesIO(content)).load()  # decodes it all: `verify()` does not notice a truncated JPEG
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{where} is no readable image file: {error}.") from error
    return content


def image_features(with_pixels: bool, width: int | None) -> datasets.Features:
    """Columns of the `images` config (`datasets.Features`)."""
    from datasets import Features, Image, List, Value

    columns = {"image_id": Value("string"), "concept": Value("string"), "categories": List(Value("string"))}
    if with_pixels:
        columns["image"] = Image()
    if width is not None:
        columns["image_embeds"] = List(Value("float32"), length=width)
    return Features(columns)
