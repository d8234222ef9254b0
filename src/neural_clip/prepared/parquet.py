"""Rows to Parquet files that `datasets` reads with their types, in bounded memory, and back.

Pages are written with checksums, and compared with them wherever they are read. Checksums cover what pages hold, not
how many rows they say they hold: rows are counted against the footer, whose digest `neural_clip.json` has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq


MAX_FILE_BYTES = 200 * 2**20  # the Hub's viewer and resumable uploads like files of a few hundred MB at most
ROW_GROUP_BYTES = 16 * 2**20  # bounds the memory of a writer, and of a reader that streams


def open_parquet(source: Any, **options: Any) -> pq.ParquetFile:
    """Open a Parquet file whose pages are compared with their checksums; older files have none.

    Args:
        source: A path or an open file.
        **options: As for `pyarrow.parquet.ParquetFile`.
    """
    import pyarrow.parquet as pq

    return pq.ParquetFile(source, page_checksum_verification=True, **options)


def read_columns(file: pq.ParquetFile, columns: Sequence[str], group: int | None = None) -> pa.Table:
    """Columns of a row group, or of all of them.

    Raises:
        OSError: If a page cannot be read or is not what its checksum says.
        ValueError: If there are fewer or more rows than the footer tells.
    """
    if group is None:
        table, told = file.read(columns=list(columns), use_threads=False), file.metadata.num_rows
    else:
        table, told = file.read_row_group(group, columns=list(columns)), file.metadata.row_group(group).num_rows
    _check_count(table.num_rows, told)
    return table


def read_batches(
    file: pq.ParquetFile, batch_rows: int, columns: Sequence[str], groups: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of these columns of all row groups, or of some; raises as [`read_columns`], after the last one."""
    groups = range(file.num_row_groups) if groups is None else groups
    found = 0
    for batch in file.iter_batches(batch_rows, row_groups=list(groups), columns=list(columns), use_threads=False):
        found += batch.num_rows
        yield batch
    _check_count(found, sum(file.metadata.row_group(group).num_rows for group in groups))


def _check_count(found: int, told: int) -> None:
    if found != told:
        raise ValueError(f"its pages hold {found} rows, its footer tells {told}")


class ParquetShards:
    """Streams rows into `<folder>/<stem>-00000.parquet` and further shards (stems ending in a split name).

    Args:
        folder (`Path`): Root of the data set.
        shard_rows (`int`): Most rows a file.
    """

    def __init__(self, folder: Path, shard_rows: int):
        self.folder, self.shard_rows = Path(folder), shard_rows
        self.streams: dict[str, _Stream] = {}

    def __enter__(self) -> ParquetShards:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for stream in self.streams.values():
            stream.close(flush=kind is None)

    def add(self, stem: str, features: datasets.Features, row: dict) -> None:
        """Append one row with the columns of `features`."""
        if stem not in self.streams:
            (self.folder / stem).parent.mkdir(parents=True, exist_ok=True)
            self.streams[stem] = _Stream(self.folder, stem, features, self.shard_rows)
        self.streams[stem].add(row)


class _Stream:
    """One sequence of shards."""

    def __init__(self, folder: Path, stem: str, features: datasets.Features, shard_rows: int):
        self.folder, self.stem, self.features, self.shard_rows = folder, stem, features, shard_rows
        self.rows: list[dict] = []
        self.pending_bytes = self.file_rows = self.file_bytes = self.shard = 0
        self.writer: Any = None

    def add(self, row: dict) -> None:
        self.rows.append(row)
        self.pending_bytes += _row_bytes(row)
        if self.pending_bytes >= ROW_GROUP_BYTES or self.file_rows + len(self.rows) >= self.shard_rows:
            self.flush()

    def flush(self) -> None:
        """Write the pending rows as one row group, and end the file when it is full."""
        import pyarrow.parquet as pq

        if self.rows:
            if self.writer is None:
                path = self.folder / f"{self.stem}-{self.shard:05d}.parquet"
                texts = [name for name, type_ in self.features.items() if getattr(type_, "dtype", "") == "string"]
                self.writer = pq.ParquetWriter(
                    path, self.features.arrow_schema, use_dictionary=texts, write_page_checksum=True
                )
            self.writer.write_table(_table(self.rows, self.features), row_group_size=len(self.rows))
            self.file_rows += len(self.rows)
            self.file_bytes += self.pending_bytes
            self.rows, self.pending_bytes = [], 0
        if self.writer is not None and (self.file_rows >= self.shard_rows or self.file_bytes >= MAX_FILE_BYTES):
            self._end_file()

    def close(self, flush: bool) -> None:
        if flush:
            self.flush()
        self._end_file()

    def _end_file(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
            self.shard += 1
            self.file_rows = self.file_bytes = 0


def _row_bytes(row: dict) -> int:
    """About the bytes a row takes."""
    size = 200  # names and numbers
    for value in row.values():
        if isinstance(value, np.ndarray):
            size += value.nbytes
        elif isinstance(value, dict):
            size += len(value["bytes"])
    return size


def _table(rows: list[dict], features: datasets.Features) -> pa.Table:
    import pyarrow as pa

    schema = features.arrow_schema
    columns = [_column([row[field.name] for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _column(values: list, type_: pa.DataType) -> pa.Array:
    """Arrow array of one column; arrays take the fast way without Python lists."""
    import pyarrow as pa

    if not isinstance(values[0], np.ndarray):
        return pa.array(values, type=type_)
    flat = pa.array(np.concatenate([value.ravel() for value in values]))
    if isinstance(type_, pa.ExtensionType):  # Array2D, stored as lists of lists
        n_rows, (height, width) = len(values), values[0].shape
        inner = pa.ListArray.from_arrays(np.arange(n_rows * height + 1, dtype=np.int32) * width, flat)
        outer = pa.ListArray.from_arrays(np.arange(n_rows + 1, dtype=np.int32) * height, inner)
        return pa.ExtensionArray.from_storage(type_, outer.cast(type_.storage_type))
    if pa.types.is_fixed_size_list(type_):
        return pa.FixedSizeListArray.from_arrays(flat, type_.list_size)
    offsets = np.cumsum([0] + [value.size for value in values]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, flat)
