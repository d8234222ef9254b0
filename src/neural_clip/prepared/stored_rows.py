"""Rows of a prepared data set on disk: Parquet files opened by `datasets`, and what is wrong with them in words."""

from __future__ import annotations

import errno
import glob
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neural_clip.errors import DataError
from neural_clip.files.reading import existing, reading, reason_of
from neural_clip.prepared.facts import METADATA_FILE, Facts
from neural_clip.prepared.integrity import DATA_ADVICE, check_files
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.parquet import open_parquet, read_batches

if TYPE_CHECKING:
    import datasets

ROWS_READ = 64  # at once, when a damaged file is looked for
TAKES_NO_FILES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def check_stored(folder: Path, facts: Facts, recordings: bool = True) -> None:
    """Compare the files of a data set with its facts, without reading their rows.

    Args:
        folder (`Path`): The data set.
        facts ([`Facts`]): What it says of itself.
        recordings (`bool`): Whether the recordings are there too.

    Raises:
        DataError: If a fact is absent without which no rows can be read, a file has another size or footer than was
            written, is missing or was added. Of older sets, which do not list their files, rows are counted.
    """
    kind = ("n_chans", "n_times", "sfreq", "tmin") if MODALITIES[facts.modality].sensors else ("n_voxels",)
    needed = ("subjects", "splits", "subject_splits", "fingerprint", *kind)
    if lacking := [repr(name) for name in needed if getattr(facts, name) is None]:
        raise DataError(f"'{folder / METADATA_FILE}' is damaged: it lacks {', '.join(lacking)}. {DATA_ADVICE}")
    if facts.files is not None:
        files = {name: told for name, told in facts.files.items() if recordings or not name.startswith("data/")}
        check_files(folder, files, contents=False)
        return
    if not recordings:
        raise DataError(f"'{folder / METADATA_FILE}' lists no files, so that they cannot be streamed. {DATA_ADVICE}")
    for subject, counts in facts.subject_splits.items():
        for split, count in counts.items():
            paths = files_of(folder, f"data/{subject}/{split}-*.parquet")
            check_rows(paths, sum(map(_n_rows, paths)), count)


def check_rows(paths: list[Path], found: int, stated: int) -> None:
    """Raise a `DataError` unless Parquet files hold as many rows as the facts say."""
    if found != stated:
        raise DataError(f"{_named(paths)} {_hold(paths)} {found} rows instead of {stated}. {DATA_ADVICE}")


def _n_rows(path: Path) -> int:
    """Rows of a Parquet file, by its footer."""
    import pyarrow.parquet as pq

    existing(path, "Parquet file")
    with reading(path):
        return pq.read_metadata(path).num_rows


def files_of(folder: Path, pattern: str) -> list[Path]:
    """Parquet files below a data set, sorted; a `DataError` if there is none."""
    if paths := sorted(folder.glob(pattern)):
        return paths
    raise DataError(f"'{folder}' has no files '{pattern}'. {DATA_ADVICE}")


def cache_name(fingerprint: str) -> str:
    """What copies in the cache of `datasets` begin with; another name than that of copies made without checksums."""
    return f"checked-{fingerprint}"


def open_rows(
    folder: Path, patterns: Mapping[str, str], fingerprint: str, columns: Mapping[str, Any]
) -> datasets.DatasetDict:
    """Open Parquet files memory-mapped.

    They are named one by one, in their order: `load_dataset` of a folder called `set[1]` would read that called
    `set1`.

    Args:
        folder (`Path`): The data set.
        patterns (`Mapping[str, str]`): Files below it, by split.
        fingerprint (`str`): Keeps apart in the cache what was prepared again with the same times of writing.
        columns (`Mapping`): What columns there must be, as features of `datasets`.

    Raises:
        DataError: If a file is missing or damaged, or has other columns.
    """
    from datasets import load_dataset
    from pyarrow.dataset import ParquetFragmentScanOptions

    checked = ParquetFragmentScanOptions(page_checksum_verification=True)
    files = {split: files_of(folder, pattern) for split, pattern in patterns.items()}
    named = {split: [glob.escape(str(path.absolute())) for path in paths] for split, paths in files.items()}
    try:
        found = load_dataset("parquet", cache_name(fingerprint), data_files=named, fragment_scan_options=checked)
    except Exception as error:  # of `datasets`, of Arrow, and of the system
        every = [path for paths in files.values() for path in paths]
        _name_damaged(every, columns)
        check_cache_takes_files(error)
        raise DataError(f"{_named(every)} cannot be read: {reason_of(error.__cause__ or error)}") from error  # type: ignore[arg-type]
    for split, paths in files.items():
        check_columns(paths, found[split].features, columns)
        _check_text(found[split], paths)
    return found


def check_columns(paths: list[Path], found: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
    """Raise a `DataError` if files lack a column or hold one of another type, as features of `datasets`."""
    for name, feature in columns.items():
        if (other := found.get(name)) != feature:
            stated = "no such column" if other is None else str(other)
            raise DataError(f"{_named(paths)}: column {name!r} should be {feature}, but is {stated}. {DATA_ADVICE}")


def _check_text(rows: datasets.Dataset, paths: list[Path]) -> None:
    """Raise a `DataError` if a text is not UTF-8: Arrow does not look before somebody asks for it."""
    import pyarrow as pa

    for column in rows.data.itercolumns():
        kind = column.type.value_type if pa.types.is_list(column.type) else column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as error:
                raise DataError(f"{_named(paths)} {_hold(paths)} text that is not UTF-8. {DATA_ADVICE}") from error


def check_cache_takes_files(error: BaseException | None) -> None:
    """Raise a `DataError` where `datasets` failed because the folder of its cache takes no files."""
    from datasets import config

    while error is not None:
        place = str(getattr(error, "filename", None) or config.HF_DATASETS_CACHE)
        if isinstance(error, OSError) and error.errno in TAKES_NO_FILES:
            raise DataError(
                f"The cache of `datasets` takes no files ('{place}': {str(error.strerror).lower()}). Name a folder "
                "that does by the variable HF_HOME or HF_DATASETS_CACHE."
            ) from error
        error = error.__cause__ or error.__context__


def _name_damaged(paths: Iterable[Path], columns: Mapping[str, Any]) -> None:
    """Raise a `DataError` that names the first file that cannot be read or lacks a column; none if all are sound."""
    for path in paths:
        existing(path, "Parquet file")
        with reading(path), open_parquet(path) as file:
            for name in columns:
                if name not in file.schema_arrow.names:
                    raise DataError(f"'{path}' has no column {name!r}. {DATA_ADVICE}")
            for _ in read_batches(file, ROWS_READ, file.schema_arrow.names):
                pass


def _named(paths: list[Path]) -> str:
    """The files, for a message."""
    return f"'{paths[0]}'" + (f" and {len(paths) - 1} more files" if len(paths) > 1 else "")


def _hold(paths: list[Path]) -> str:
    return "hold" if len(paths) > 1 else "holds"
