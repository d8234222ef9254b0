"""Cells of NSD's text tables, read so that every damage names its line."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from neural_clip.errors import DataError

__all__ = ["read_columns", "whole_number"]


def read_columns(path: Path, columns: Sequence[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Wanted cells of a table with a header line.

    Args:
        path (`Path`): UTF-8 text.
        columns (`Sequence[str]`): Names of the wanted columns.
        delimiter (`str`): What separates cells.

    Yields:
        `tuple[int, list[str]]`: Line of the file, counted from 1, and the cells in the order of `columns`.

    Raises:
        DataError: If the file is absent or no such table, or a line has more or fewer cells than the header.
    """
    if not path.is_file():
        raise DataError(f"'{path}' does not exist. See https://naturalscenesdataset.org for access to NSD.")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(reader, [])
            absent = [name for name in columns if name not in header]
            if absent:
                raise DataError(f"'{path}' should have the columns {', '.join(columns)}, but lacks {absent[0]}.")
            places = [header.index(name) for name in columns]
            for cells in filter(None, reader):  # empty lines
                if len(cells) != len(header):
                    raise DataError(
                        f"'{path}': line {reader.line_num} has {len(cells)} cells, the header {len(header)}. The copy "
                        "may be incomplete."
                    )
                yield reader.line_num, [cells[place] for place in places]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{path}' is damaged or no table: {error}") from error


def whole_number(path: Path, line: int, column: str, text: str) -> int:
    """A whole number of a cell; `1.0` counts as one."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value.is_integer():  # NaN and infinities are none either
        raise DataError(f"'{path}': line {line} should have a whole number as {column}, but has {text!r}.")
    return int(value)
