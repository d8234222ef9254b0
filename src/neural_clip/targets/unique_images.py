"""Images of a prepared data set, each read once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.files.reading import reading
from neural_clip.prepared.image_rows import decoded_image
from neural_clip.prepared.parquet import open_parquet, read_batches

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


def read_image_rows(files: list[Path], first: int = 0) -> Iterator[dict]:
    """Rows of the `images` config without embeddings, from the first of those that are wanted."""
    columns = ["image_id", "concept", "categories", "image"]
    for path in files:
        with reading(path), open_parquet(path) as file:
            groups = [*range(file.num_row_groups)]
            while groups and first >= (n_rows := file.metadata.row_group(groups[0]).num_rows):
                first -= n_rows
                groups.pop(0)
            for batch in read_batches(file, ROWS_READ, columns, groups) if groups else ():
                yield from batch.to_pylist()[first:]
                first = max(first - len(batch), 0)


def unique_images(files: list[Path]) -> list[int]:
    """For each row the number of its image, counted without repetition; images with the same bytes are the same."""
    numbers: dict[bytes, int] = {}
    return [
        numbers.setdefault(hashlib.sha256((row["image"] or {}).get("bytes") or b"").digest(), len(numbers))
        for row in read_image_rows(files)
    ]


def rows_at(files: list[Path], numbers: Sequence[int]) -> list[dict]:
    """Rows of these numbers, which increase."""
    rows, wanted = enumerate(read_image_rows(files, numbers[0]), numbers[0]), set(numbers)
    return list(islice((row for number, row in rows if number in wanted), len(wanted)))


def decoded(row: dict, folder: str | Path):
    """The row's image in RGB, by [`rgb_image`], of a data set."""
    content = (row["image"] or {}).get("bytes") or b""
    return decoded_image(content, f"image {row['image_id']!r} of '{folder}'")[1]
