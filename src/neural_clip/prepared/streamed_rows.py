"""Recordings read from Parquet files a row group at a time, on this machine or on the Hub; nothing is written.

[`StreamedRows`] stands where a `Dataset` of `datasets` does, which would copy the files of the Hub and write them a
second time as Arrow. The row groups used last are kept in memory.
"""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

import numpy as np

from neural_clip.errors import DataError, ReadError
from neural_clip.files.memory import memory_there
from neural_clip.files.reading import reason_of
from neural_clip.prepared.integrity import DATA_ADVICE, footer_sha256
from neural_clip.prepared.parquet import open_parquet, read_columns

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

KEPT_SHARE = 0.25  # of the memory of this machine or container, for the row groups that all its processes keep
LABELS = ("subject", "image_id")
_OPEN: WeakSet[ParquetFiles] = WeakSet()  # they share what may be kept, by their sizes


class ParquetFiles:
    """Parquet files and their row groups.

    Args:
        paths (sequence of `str`): In the order of the rows.
        open_file (`Callable`, *optional*): Opens one of them to be read; by default as a file of this machine.
        told (`Mapping`, *optional*): What `neural_clip.json` says of each path: `bytes` and `footer_sha256`.
        most_bytes (`int`, *optional*): That are kept in memory; by default a quarter of what this machine has.

    Raises:
        DataError: If a file cannot be read or is not the one that was written, by its size and footer.
    """

    def __init__(
        self,
        paths: Sequence[str],
        open_file: Callable[[str], Any] | None = None,
        told: Mapping[str, Mapping] | None = None,
        most_bytes: int | None = None,
    ) -> None:
        import pyarrow as pa

        self.paths, open_file = list(paths), open_file or pa.OSFile
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        there = KEPT_SHARE * memory_there() / processes
        self.most_bytes = there if most_bytes is None else min(most_bytes, there)
        self.files: list[pq.ParquetFile] = []
        for path in self.paths:
            with _streaming(path):
                source = open_file(path)
                _check_footer(source, path, (told or {}).get(path, {}))
                # read ahead, each file would keep a row group in memory until it is closed
                self.files.append(open_parquet(source, pre_buffer=False))
        self._count()

    def _count(self) -> None:
        """Number the row groups of all files; none is in memory yet."""
        counts = [[file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] for file in self.files]
        self.groups = [(file, number) for file, own in enumerate(counts) for number in range(len(own))]
        self.n_rows = np.array([count for own in counts for count in own], dtype=np.int64)
        self.starts = np.cumsum([0, *self.n_rows])
        self.kept: OrderedDict[tuple, pa.Table] = OrderedDict()
        _OPEN.add(self)

    def followed_by(self, others: ParquetFiles) -> ParquetFiles:
        """These files and then others, as one; what either kept in memory is let go, since it is kept once more."""
        found = copy.copy(self)
        found.paths, found.files = [*self.paths, *others.paths], [*self.files, *others.files]
        found._count()
        self.kept.clear()
        others.kept.clear()
        return found

    @property
    def share(self) -> float:
        """What of `most_bytes`, which all that are open keep together, these keep."""
        return self.most_bytes * self.n_bytes / max(sum(each.n_bytes for each in _OPEN), 1)

    @cached_property
    def n_bytes(self) -> int:
        """What all row groups take in memory."""
        return sum(self.files[file].metadata.row_group(number).total_byte_size for file, number in self.groups)

    @property
    def n_bytes_kept(self) -> int:
        """What is in memory now."""
        return sum(table.nbytes for table in self.kept.values())

    @property
    def group_of_row(self) -> np.ndarray:
        """Number of the row group of each row, `(n_rows,)` int."""
        return np.repeat(np.arange(len(self.n_rows)), self.n_rows)

    def read(self, group: int, columns: Sequence[str]) -> pa.Table:
        """Columns of a row group, from memory where they are kept."""
        key = (group, *columns)
        if key not in self.kept:
            file, number = self.groups[group]
            with _streaming(self.paths[file]):
                self.kept[key] = read_columns(self.files[file], columns, number)
            while len(self.kept) > 1 and self.n_bytes_kept > self.share:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]

    def column(self, columns: Sequence[str]) -> pa.Table:
        """Small columns of all rows."""
        import pyarrow as pa

        found = []
        for path, file in zip(self.paths, self.files, strict=True):
            with _streaming(path):
                found.append(read_columns(file, columns))
                found[-1].validate(full=True)  # whether texts are UTF-8: Arrow does not look before somebody asks
        with _streaming(self.paths[0]):  # whether all have the same columns
            return pa.concat_tables(found)


@dataclass(frozen=True)
class StreamedRows:
    """Some rows and columns of Parquet files, as much like a `Dataset` of `datasets` as a split needs.

    Args:
        files ([`ParquetFiles`]): Where they are.
        rows (`np.ndarray` of shape `(n,)`, int): Which.
        columns (`tuple[str, ...]`): Which.
    """

    files: ParquetFiles
    rows: np.ndarray
    columns: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, files: ParquetFiles) -> StreamedRows:
        """All of them."""
        return cls(files, np.arange(int(files.n_rows.sum())), tuple(files.files[0].schema_arrow.names))

    @property
    def features(self) -> datasets.Features:
        """Types of the columns, as `datasets` has them."""
        from datasets import Features

        found = Features.from_arrow_schema(self.files.files[0].schema_arrow)
        return Features({name: found[name] for name in self.columns})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: Any) -> pa.Table:
        import pyarrow as pa

        rows = self.rows[which]
        groups = np.searchsorted(self.files.starts, rows, side="right") - 1
        if set(self.columns) <= set(LABELS) and len(rows) == self.files.starts[-1]:
            return self.files.column(self.columns).take(rows)
        parts, places = [], []
        for group in np.unique(groups):
            place = np.flatnonzero(groups == group)
            places.append(place)
            own = rows[place] - self.files.starts[group]
            table = self.files.read(int(group), self.columns)
            one_after_another = bool((np.diff(own) == 1).all())
            parts.append(table.slice(int(own[0]), len(own)) if one_after_another else table.take(own))
        if not parts:
            return self.files.read(0, self.columns)[:0]
        order, found = np.concatenate(places), pa.concat_tables(parts)
        return found if bool((np.diff(order) == 1).all()) else found.take(np.argsort(order))

    def select_columns(self, columns: Sequence[str]) -> Self:
        """The same rows with fewer columns."""
        return replace(self, columns=tuple(columns))

    def with_format(self, kind: str) -> Self:
        """Rows are always given as Arrow."""
        return self

    def select(self, rows: np.ndarray) -> Self:
        """Some of the rows."""
        return replace(self, rows=self.rows[rows])

    def followed_by(self, others: StreamedRows) -> Self:
        """These rows and then others, of other files."""
        rows = np.concatenate([self.rows, others.rows + self.files.starts[-1]])
        return replace(self, files=self.files.followed_by(others.files), rows=rows)

    def to_pandas(self) -> pd.DataFrame:
        """All as a table of pandas."""
        return self[:].to_pandas()


def hub_files(name: str, revision: str) -> tuple[Callable[[str], Any], str]:
    """What opens a file of the Hub, and where those of a data set lie at a commit."""
    from huggingface_hub import HfFileSystem, constants

    return HfFileSystem(endpoint=constants.ENDPOINT).open, f"datasets/{name}@{revision}"


@contextmanager
def _streaming(path: str) -> Iterator[None]:
    """Turn errors of the file system and of Arrow into one that names the file."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise ReadError(f"'{path}' cannot be read: {reason_of(error)}") from error


def _check_footer(source: Any, path: str, told: Mapping) -> None:
    """Raise a `DataError` where a file is not the one that was written, by its size and footer."""
    if "footer_sha256" not in told:
        return
    size = source.seek(0, 2)
    if size != told["bytes"] or footer_sha256(source) != told["footer_sha256"]:
        raise DataError(f"'{path}' is not the file that was written: it has another size or footer. {DATA_ADVICE}")
    source.seek(0)
