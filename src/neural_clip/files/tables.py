"""Text tables, read so that every damage names its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.names import plain_name
from neural_clip.files.numbers import number
from neural_clip.files.reading import ABSENT_ADVICE, read_text

TRUTHS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}  # words of YAML


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
    try:
        reader = csv.reader(
            io.StringIO(read_text(path, "table", ABSENT_ADVICE), newline=""), delimiter=delimiter, strict=True
        )
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
    except csv.Error as error:
        raise DataError(f"'{path}' is damaged or no table: {error}") from error


def read_header(path: Path, delimiter: str) -> list[str]:
    """Names of the columns of a table, in quotes or not, as [`read_columns`] reads them.

    Raises:
        DataError: If the file is absent or no table.
    """
    try:
        return next(csv.reader(io.StringIO(read_text(path, "table"), newline=""), delimiter=delimiter), [])
    except csv.Error as error:
        raise DataError(f"'{path}' is damaged or no table: {error}") from error


def whole_number(path: Path, line: int, column: str, text: str) -> int:
    """A whole number of a cell; `1.0` counts as one."""
    try:
        value = number(text)
        if value == int(value):
            return int(value)
    except ValueError:
        pass
    raise DataError(f"'{path}': line {line} should have a whole number as {column}, but has {text!r}.")


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a `.tsv` or `.csv` file with a header.

    Raises:
        DataError: If the file is missing or is no table.
    """
    text = read_text(path, "table")
    delimiter = {".tsv": "\t", ".csv": ","}.get(path.suffix.lower())
    if delimiter is None:
        raise DataError(f"'{path}' has suffix {path.suffix!r}; allowed are '.tsv' and '.csv'.")
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        names = reader.fieldnames = [plain_name(name) for name in reader.fieldnames or []]
        rows = list(reader)
    except csv.Error as error:
        raise DataError(f"'{path}' is no table: {error}.") from error
    if not rows or any(None in row or None in row.values() for row in rows):
        raise DataError(f"'{path}' is no table: it is empty, or its rows differ in length.")
    if len(set(names)) < len(names):
        raise DataError(f"'{path}' has two columns of one name; its columns are {', '.join(map(repr, names))}.")
    return rows


def column(rows: list[dict], name: str, where: object) -> list[str]:
    """One column of a table, as [`plain_name`] writes its cells."""
    if name not in rows[0]:
        raise DataError(f"'{where}' has no column {name!r}; it has {', '.join(repr(key) for key in rows[0])}.")
    return [plain_name(str(row[name])) for row in rows]


def numbers(values: list[str], name: str, where: object, rows: np.ndarray) -> np.ndarray:
    """A column as finite numbers; `rows` are the values' rows in the table, for the message."""
    array = np.empty(len(values))
    for i, value in enumerate(values):
        try:
            array[i] = number(value)
        except ValueError as error:
            raise DataError(f"'{where}', column {name!r}, row {rows[i]}: {error}.") from error
    return array


def unit_of_onsets(onsets: np.ndarray, duration: float, sfreq: float | None = None) -> str:
    """What onsets that do not fit a recording may be counted in, as a sentence; empty where nothing else fits.

    Args:
        onsets (`np.ndarray` of shape `(n,)`): As the table has them.
        duration (`float`): Of the recording in s.
        sfreq (`float`, *optional*): Samples a second.
    """
    whole = onsets.size > 0 and bool((onsets == np.round(onsets)).all())
    for unit, per_second in (("samples", sfreq), ("ms", 1000.0)):
        if whole and per_second and per_second != 1 and duration < onsets.max() <= duration * per_second:
            rate = f" at {per_second:g} Hz" if unit == "samples" else ""
            return (
                f"'onset' is in s, but all onsets are whole numbers up to {onsets.max():g}, which would fit as "
                f"{unit}{rate}: divide them by {per_second:g}."
            )
    return ""


def kept(rows: list[dict], keep: dict, where: object) -> np.ndarray:
    """Which rows have one of the listed values in each column of `keep`; bool `(n,)`.

    A number stands for all ways to write it (`1`, `1.0`, `01`), what YAML reads as true or false for all words that it
    reads so, and text for itself.
    """
    chosen = np.ones(len(rows), dtype=bool)
    for name, values in keep.items():
        plain = [_plain(value) for value in (values if isinstance(values, list) else [values])]
        allowed, kinds = {(type(value), value) for value in plain}, {type(value) for value in plain}
        cells = column(rows, name, where)
        chosen &= np.array([any((kind, _read(kind, text)) in allowed for kind in kinds) for text in cells])
    if not chosen.any():
        raise DataError(f"'{where}': no row is left after 'keep' {keep}.")
    return chosen


def _plain(value: object) -> str | float | bool:
    """A value of `keep` as text, number or truth."""
    if isinstance(value, bool):
        return value
    return float(value) if isinstance(value, int | float) else plain_name(str(value))


def _read(kind: type, text: str) -> str | float | bool | None:
    """A cell as text, number or truth; nothing where it is no such thing."""
    if kind is bool:
        return TRUTHS.get(text.lower())
    try:
        return float(number(text)) if kind is float else text
    except ValueError:
        return None


def is_same_number(text: str, value: object) -> bool:
    """Whether a cell or label is the number that YAML gave, however it is written."""
    plain = _plain(value)
    return isinstance(plain, float) and _read(float, text) == plain
