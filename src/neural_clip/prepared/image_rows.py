"""Rows of the `images` config of a prepared data set: each image once, its pixels and its embedding."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.reading import begins_like, existing, reason_of
from neural_clip.image_pixels import open_image, rgb_image
from neural_clip.prepared.image_metadata import check_jpeg, check_png, without_metadata
from neural_clip.prepared.parquet import ParquetShards

if TYPE_CHECKING:
    import datasets
    import PIL.Image


def write_images(
    folder: Path, rows: Iterable[dict], label: str, tick: Callable[[int], object], *, shard_rows: int
) -> dict:
    """Write the rows of a part; return concept and categories by image id, the columns, and the embeddings' width."""
    known: dict[str, dict] = {}
    columns: list[str] | None = None
    width = None
    with ParquetShards(folder, shard_rows) as shards:
        for row in rows:
            stored = _checked(row, width)
            if stored["image_id"] in known:
                raise DataError(f"image {stored['image_id']!r} occurs twice among the images.")
            known[stored["image_id"]] = {"concept": stored["concept"], "categories": stored["categories"]}
            if columns is None:
                columns, width = sorted(stored), stored["image_embeds"].size if "image_embeds" in stored else None
                features = image_features("image" in stored, width)
            _check_alike(stored["image_id"], sorted(stored), columns)
            shards.add(f"images/images{label}", features, stored)
            tick(1)
    return {"images": known, "columns": columns, "width": width}


def merge_images(summaries: Iterable[dict]) -> tuple[dict[str, dict], int | None]:
    """Concept and categories of all images by id, and the width of the embeddings, `None` without any.

    Raises:
        DataError: If there are no images, an image occurs in two parts, or parts have other columns or widths.
    """
    known: dict[str, dict] = {}
    first: dict = {}
    for part in summaries:
        twice = sorted(known.keys() & part["images"].keys())
        if twice:
            raise DataError(f"image {twice[0]!r} occurs twice among the images.")
        known |= part["images"]
        if part["columns"] is not None:
            first = first or part
            name = next(iter(part["images"]))
            _check_alike(name, part["columns"], first["columns"])
            if part["width"] != first["width"]:
                raise DataError(f"The embedding of image {name!r} has width {part['width']}, others {first['width']}.")
    if not known:
        raise DataError("There are no images to write.")
    return known, first["width"]


def _checked(row: dict, width: int | None) -> dict:
    """The row as it is stored."""
    image_id = str(row["image_id"])
    where = f"image {image_id!r}"
    stored: dict = {"image_id": image_id, "concept": str(row.get("concept") or "")}
    stored["categories"] = [str(category) for category in row.get("categories") or []]
    if row.get("image") is not None:
        stored["image"] = {"bytes": image_bytes(row["image"], where), "path": None}
    if row.get("image_embeds") is not None:
        stored["image_embeds"] = checked_embedding(row["image_embeds"], where, width)
    if not stored.keys() & {"image", "image_embeds"}:
        raise DataError(f"{where} has neither pixels nor an embedding.")
    return stored


def _check_alike(image_id: str, columns: list[str], expected: list[str]) -> None:
    if columns != expected:
        raise DataError(f"image {image_id!r} has {columns}, other images have {expected}; give all the same.")


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
    """Bytes of an image file without what it tells beside the picture (EXIF, comments, hidden pictures).

    Pixels become PNG by [`rgb_image`], as do files that plain readers show otherwise or that cannot be cleared.
    """
    from PIL import Image, ImageOps

    if isinstance(image, np.ndarray | Image.Image):
        try:
            return _png(rgb_image(image))
        except DataError as error:
            raise DataError(f"{where} cannot be used: {error}") from error
    if isinstance(image, bytes):
        content = image
    else:
        content, where = existing(Path(str(image)), "image").read_bytes(), f"{where} in '{image}'"
    stored, rgb = decoded_image(content, where)
    special = stored.has_transparency_data or stored.mode.startswith("I")
    if special and rgb.tobytes() != ImageOps.exif_transpose(stored).convert("RGB").tobytes():
        return _png(rgb)
    plain = without_metadata(stored, content)
    same = plain == content or (plain is not None and decoded_image(plain, where)[1].tobytes() == rgb.tobytes())
    return plain if plain is not None and same else _png(rgb)


def decoded_image(content: bytes, where: str) -> tuple[PIL.Image.Image, PIL.Image.Image]:
    """The image of a file as Pillow opens it, and as [`rgb_image`] shows it.

    Raises:
        DataError: If it is no image, damaged, or does not say what it looks like.
    """
    from PIL import UnidentifiedImageError

    try:
        image = open_image(content)
        if check := {"PNG": check_png, "JPEG": check_jpeg, "MPO": check_jpeg}.get(str(image.format)):
            check(content)
        return image, rgb_image(image)  # decodes it all: `verify()` does not notice a truncated JPEG
    except DataError as error:
        raise DataError(f"{where} cannot be used: {error}") from error
    except UnidentifiedImageError as error:
        kind = "is empty" if not content else begins_like(content)
        raise DataError(f"{where} is no readable image file: {kind}.") from error
    except Exception as error:  # parsers of images raise nearly every type when a byte is wrong
        raise DataError(f"{where} is no readable image file: {reason_of(error)}") from error


def stored_pictures(images: datasets.Dataset, rows: Sequence[int], folder: str | Path) -> list[PIL.Image.Image | None]:
    """Images of some rows of the `images` config of a data set in RGB, `None` where a row has no pixels.

    `datasets` would open files of any format that Pillow knows; here they are opened by [`open_image`].
    """
    from datasets import Image

    chosen = images.select(rows).select_columns(["image_id", "image"]).cast_column("image", Image(decode=False))
    contents = ((row["image_id"], (row["image"] or {}).get("bytes")) for row in chosen)
    where = f" of '{folder}'"
    return [decoded_image(content, f"image {name!r}{where}")[1] if content else None for name, content in contents]


def _png(image: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def image_features(with_pixels: bool, width: int | None) -> datasets.Features:
    """Columns of the `images` config (`datasets.Features`)."""
    from datasets import Features, Image, List, Value

    columns = {"image_id": Value("string"), "concept": Value("string"), "categories": List(Value("string"))}
    if with_pixels:
        columns["image"] = Image()
    if width is not None:
        columns["image_embeds"] = List(Value("float32"), length=width)
    return Features(columns)
