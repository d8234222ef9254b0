"""Images of a prepared data set, each read once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.files.reading import reading
from neural_clip.prepared.image_rows import decoded_image

ROWS_READ = 64  # images held in memory while they are read


def image_files(folder: Path) -> list[Path]:
    """Files of the `images` config, in the order of its rows."""
    import pyarrow.parquet as pq

    files = sorted((folder / "images").glob("images-*.parquet"))
    if not files:
        raise DataError(f"'{folder}' has no images.")
    for path in files:
        if "image" not in pq.read_schema(path).names:
            raise DataError(f"'{path}' has no pixels, only ready-made embeddings; there is nothing to embed.")
    return files


def read_image_rows(files: list[Path]) -> Iterator[dict]:
    """Rows of the `images` config without embeddings."""
    import pyarrow.parquet as pq

    for path in files:
        with reading(path), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_READ, columns=["image_id", "concept", "categories", "image"]):
                yield from batch.to_pylist()


def unique_images(files: list[Path]) -> list[int]:
    """For each row the number of its image, counted without repetition; images with the same bytes are the same."""
    numbers: dict[bytes, int] = {}
    return [
        numbers.setdefault(hashlib.sha256((row["image"] or {}).get("bytes") or b"").digest(), len(numbers))
        for row in read_image_rows(files)
    ]


def first_rows(files: list[Path], rows: list[int]) -> Iterator[dict]:
    """The first row of each unique image."""
    new = 0
    for row, unique in zip(read_image_rows(files), rows, strict=True):
        if unique == new:
            new += 1
            yield row


def decoded(row: dict, folder: str | Path):
    """The row's image in RGB, by [`rgb_image`], of a data set."""
    content = (row["image"] or {}).get("bytes") or b""
    return decoded_image(content, f"image {row['image_id']!r} of '{folder}'")[1]
