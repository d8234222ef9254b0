"""One pass over the Parquet files of a prepared data set: labels, hashes and moments, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.reading import existing
from neural_clip.parallel import run_units
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.moments import RowMoments, block_moments
from neural_clip.prepared.parquet import open_parquet, read_batches, read_columns
from neural_clip.prepared.splits import SPLITS

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


BATCH_BYTES = 16 * 2**20  # of values held at a time by a process
PROCESS_BYTES = 64 * 2**20  # starting a process takes as long as scanning about this much
TEXTS = ("subject", "session", "run", "image_id", "concept")


@dataclass
class RecordingScan:
    """What one file of recordings holds.

    Args:
        file (`str`): Name below the data set's folder.
        subject (`str`): Subject by the file's place.
        split (`str`): Split by the file's name.
        labels (`pa.Table`): `subject`, `session`, `run`, `image_id`, `concept`, `category` (the first), `trial`,
            `n_repeats` and `hash` (of the row's values) of each row.
        shapes (`Counter`): How many rows have each shape.
        not_finite (`list[tuple[str, int]]`): Image and number of values that are not finite, by row.
        moments (`RowMoments`, *optional*): Of the finite rows that have the shape of the first.
    """

    file: str
    subject: str
    split: str
    labels: pa.Table
    shapes: Counter = field(default_factory=Counter)
    not_finite: list[tuple[str, int]] = field(default_factory=list)
    moments: RowMoments | None = None


@dataclass
class ImageScan:
    """What one file of images holds; hashes are 0 where there is nothing to hash.

    Args:
        file (`str`): Name below the data set's folder.
        image_ids (`list[str]`): Ids.
        pixels (`np.ndarray` of shape `(n_images,)`): uint64 hashes of the image files.
        embeds (`np.ndarray` of shape `(n_images,)`): uint64 hashes of the embeddings.
        widths (`Counter`): How many embeddings have each width.
        not_finite (`list[str]`): Images whose embedding holds values that are not finite.
        zeros (`list[str]`): Images whose embedding is all zeros.
        n_directions (`int`): Embeddings that have a direction.
        directions (`np.ndarray`, *optional*): Sum of their unit vectors, float64.
    """

    file: str
    image_ids: list[str]
    pixels: np.ndarray
    embeds: np.ndarray
    widths: Counter = field(default_factory=Counter)
    not_finite: list[str] = field(default_factory=list)
    zeros: list[str] = field(default_factory=list)
    n_directions: int = 0
    directions: np.ndarray | None = None


@dataclass
class Scan:
    """What a folder holds, file by file in the order of their names."""

    recordings: list[RecordingScan]
    images: list[ImageScan]


def scan_folder(folder: Path, modality: str, num_proc: int = 1) -> Scan:
    """Read every Parquet file of a prepared data set once.

    Args:
        folder (`Path`): The data set.
        modality (`str`): Column of the values.
        num_proc (`int`, *optional*, defaults to 1): Files read at the same time.

    Raises:
        DataError: If there are no recordings or no images, a file is damaged or lies where `load_dataset` would not
            find it, or a column is missing.
    """
    from tqdm import tqdm

    paths = [existing(path, "Parquet file") for path in sorted(folder.rglob("*.parquet"))]
    sizes = {str(path): path.stat().st_size for path in paths}
    num_proc = num_proc if sum(sizes.values()) >= PROCESS_BYTES else 1
    found: dict = {}
    with tqdm(total=sum(sizes.values()), unit="B", unit_scale=True, desc="checking", disable=None) as bar:
        for name, scan in run_units(
            partial(_scan_file, folder, modality), {str(p): p for p in paths}, num_proc=num_proc
        ):
            found[name] = scan
            bar.update(sizes[name])
    scans = [found[name] for name in sizes]
    recordings = [scan for scan in scans if isinstance(scan, RecordingScan)]
    whole = Scan(recordings, [scan for scan in scans if isinstance(scan, ImageScan)])
    for kind, parts in (("recordings", whole.recordings), ("images", whole.images)):
        if not parts:
            raise DataError(f"'{folder}' has no {kind}. Prepare the data set again.")
    return whole


def _scan_file(folder: Path, modality: str, path: Path) -> RecordingScan | ImageScan:
    """Scan one file, whichever kind it is."""
    name = path.relative_to(folder).as_posix()
    parts = name.split("/")
    if len(parts) == 2 and parts[0] == "images" and parts[1].startswith("images-"):
        return _scan_images(path, name)
    split = parts[-1].partition("-")[0]
    if len(parts) != 3 or parts[0] != "data" or split not in SPLITS or "-" not in parts[-1]:
        raise DataError(
            f"'{path}' is neither data/<subject>/<split>-*.parquet, of the splits {', '.join(SPLITS)}, nor "
            "images/images-*.parquet, so `load_dataset` would not find it. Remove it or prepare the data set again."
        )
    return _scan_recordings(path, RecordingScan(name, parts[1], split, None), modality)


@contextmanager
def _opened(path: Path, columns: tuple[str, ...]) -> Iterator[pq.ParquetFile]:
    """A Parquet file that has these columns; what is wrong with it becomes a `DataError` that names it."""
    try:
        with open_parquet(path, memory_map=True) as file:
            missing = [column for column in columns if column not in file.schema_arrow.names]
            if missing:
                raise DataError(f"'{path}' lacks the columns {', '.join(missing)}. Prepare the data set again.")
            yield file
    except DataError:
        raise
    except Exception as damage:  # Arrow raises nearly every type where a column is not of its type
        raise DataError(f"'{path}' is damaged: {str(damage).rstrip('.')}. Prepare the data set again.") from damage


def _batch_rows(file: pq.ParquetFile) -> int:
    """Rows that hold about `BATCH_BYTES`."""
    row_bytes = [
        file.metadata.row_group(i).total_byte_size / max(file.metadata.row_group(i).num_rows, 1)
        for i in range(file.metadata.num_row_groups)
    ]
    return max(int(BATCH_BYTES / max([1.0, *row_bytes])), 1)


def _scan_recordings(path: Path, scan: RecordingScan, modality: str) -> RecordingScan:
    """Fill a scan of recordings in."""
    import pyarrow as pa

    with _opened(path, (*TEXTS, "trial", "categories", "n_repeats", modality)) as file:
        table = read_columns(file, [*TEXTS, "trial", "categories", "n_repeats"])
        table.validate(full=True)  # texts too: Arrow does not look at their bytes before somebody asks for them
        repeats = _whole_numbers(table["n_repeats"], path)
        hashes = np.zeros(len(table), dtype=np.uint64)
        row, shape = 0, None
        for batch in read_batches(file, _batch_rows(file), [modality]):
            for values, rows in _blocks(batch.column(0), row, scan.shapes):
                shape = shape or values.shape[1:]
                if len(shape) != (2 if MODALITIES[modality].sensors else 1):
                    raise DataError(f"'{path}' holds rows of shape {shape}, which no {modality} recording has.")
                hashes[rows] = _hashes(values)
                if values.shape[1:] == shape:
                    _add_values(scan, values, rows, repeats, table)
            row += len(batch)
        columns = {name: table[name].cast(pa.string()).fill_null("") for name in TEXTS}
        columns["category"] = _first_of_each(table["categories"])
        columns |= {"trial": pa.array(_whole_numbers(table["trial"], path)), "n_repeats": pa.array(repeats)}
    scan.labels = pa.table(columns | {"hash": pa.array(hashes)})
    return scan


def _whole_numbers(column: pa.ChunkedArray, path: Path) -> np.ndarray:
    """A column of integers, without gaps."""
    if column.null_count:
        raise DataError(f"'{path}' has {column.null_count} rows without a trial or repeat count.")
    return column.to_numpy().astype(np.int64)


def _first_of_each(lists: pa.ChunkedArray) -> pa.Array:
    """First text of each list, empty where there is none."""
    import pyarrow as pa

    array = lists.combine_chunks()
    lengths = _lengths(array)
    texts = pa.concat_arrays([array.flatten(), pa.array([""], type=array.type.value_type)])
    starts = np.cumsum(lengths) - lengths
    return texts.take(pa.array(np.where(lengths > 0, starts, len(texts) - 1))).cast(pa.string()).fill_null("")


def _blocks(column: pa.Array, row: int, shapes: Counter) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Values of rows of the same shape, without a copy where all agree, and which rows of the file they are."""
    import pyarrow as pa

    array = getattr(column, "storage", column)  # Array2D is an extension type once `datasets` is imported
    outer = _lengths(array)
    array = array.flatten()
    is_matrix = pa.types.is_nested(array.type)
    inner = _lengths(array) if is_matrix else None
    flat = (array.flatten() if is_matrix else array).to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    rows = row + np.arange(len(outer))
    if not len(outer):
        return
    if (outer == outer[0]).all() and (inner is None or (inner.size and (inner == inner[0]).all())):
        shape = (int(outer[0]),) if inner is None else (int(outer[0]), int(inner[0]))
        shapes[shape] += len(outer)
        yield flat.reshape(len(outer), *shape), rows
        return
    start = chan = 0
    for i, n_chans in enumerate(outer.tolist()):
        lengths = [n_chans] if inner is None else inner[chan : chan + n_chans].tolist()
        size, chan = sum(lengths), chan + n_chans
        shape = (n_chans,) if inner is None else (n_chans, lengths[0] if len(set(lengths)) == 1 else -1)
        shapes[shape] += 1
        if size and shape[-1] > 0:
            yield flat[start : start + size].reshape(1, *shape), rows[i : i + 1]
        start += size


def _lengths(lists: pa.Array) -> np.ndarray:
    """Length of each list, 0 where there is none."""
    import pyarrow.compute as pc

    return np.asarray(pc.list_value_length(lists).fill_null(0))


def _hashes(values: np.ndarray) -> np.ndarray:
    """64-bit hash of the bytes of each row."""
    from xxhash import xxh3_64_intdigest

    return np.array([xxh3_64_intdigest(row.data) for row in values.reshape(len(values), -1)], dtype=np.uint64)


def _add_values(
    scan: RecordingScan, values: np.ndarray, rows: np.ndarray, repeats: np.ndarray, table: pa.Table
) -> None:
    """Add the moments of finite rows, and list the others."""
    with np.errstate(all="ignore"):
        sums = values.reshape(len(values), -1).sum(axis=1)  # NaN and infinities survive a sum
        good = np.isfinite(sums)
        for i in np.flatnonzero(~good):
            n_bad = int((~np.isfinite(values[i])).sum())
            scan.not_finite.append((str(table["image_id"][int(rows[i])].as_py()), n_bad or values[i].size))
        part = block_moments(values if good.all() else values[good], repeats[rows][good])
    if part is not None:
        scan.moments = part if scan.moments is None else scan.moments.merged(part)


def _scan_images(path: Path, name: str) -> ImageScan:
    """Scan a file of the `images` config."""
    with _opened(path, ("image_id",)) as file:
        n_images = file.metadata.num_rows
        scan = ImageScan(name, [], np.zeros(n_images, np.uint64), np.zeros(n_images, np.uint64))
        present = file.schema_arrow.names
        columns = [column for column in ("image_id", "image", "image_embeds") if column in present]
        for batch in read_batches(file, _batch_rows(file), columns):
            rows = len(scan.image_ids) + np.arange(len(batch))
            scan.image_ids += [str(image_id) for image_id in batch["image_id"].to_pylist()]
            if "image" in columns:
                scan.pixels[rows] = _pixel_hashes(batch["image"])
            if "image_embeds" in columns:
                for values, embed_rows in _blocks(batch["image_embeds"], int(rows[0]), scan.widths):
                    _add_embeds(scan, values, embed_rows)
    return scan


def _pixel_hashes(images: pa.Array) -> np.ndarray:
    """64-bit hash of each image file; 0 where there is none."""
    from xxhash import xxh3_64_intdigest

    contents = getattr(images, "storage", images).field("bytes")
    buffers = (content.as_buffer() if content.is_valid else None for content in contents)
    return np.array([0 if buffer is None else xxh3_64_intdigest(buffer) for buffer in buffers], dtype=np.uint64)


def _add_embeds(scan: ImageScan, values: np.ndarray, rows: np.ndarray) -> None:
    """Hash embeddings and add their directions up."""
    scan.embeds[rows] = _hashes(values)
    finite = np.isfinite(values).all(axis=1)
    wide = np.where(finite[:, np.newaxis], values, 0).astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    scan.not_finite += [scan.image_ids[row] for row in rows[~finite]]
    scan.zeros += [scan.image_ids[row] for row in rows[finite & (lengths == 0)]]
    usable = lengths > 0
    directions = (wide[usable] / lengths[usable, np.newaxis]).sum(axis=0)
    if scan.directions is None or scan.directions.size == directions.size:
        scan.directions = directions if scan.directions is None else scan.directions + directions
        scan.n_directions += int(usable.sum())
