"""Reading files strictly: what is damaged says so."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neural_clip.errors import DataError

CHUNK = 1 << 24  # bytes that are read at once where only a checksum is wanted


@contextmanager
def reading(path: Path | str, what: str = "") -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into a `DataError` that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # parsers of binary files raise nearly every type when a byte is wrong
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise DataError(f"'{path}' cannot be read{what}: {reason}. Is it damaged or truncated?") from error


def check_gzip(path: Path) -> None:
    """Read a `.gz` file to its end, because only there the checksum is compared."""
    with gzip.open(path) as packed:
        while packed.read(CHUNK):
            pass


def existing(path: Path, what: str) -> Path:
    """The path, if there is such a file."""
    if not path.is_file():
        raise DataError(f"There is no {what} '{path}'.")
    return path
