"""The mark that keeps a simulated raw corpus from being taken for a real one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from neural_clip.errors import DataError
from neural_clip.files.reading import read_json

STAMP_FILE = "SIMULATED.json"
T = TypeVar("T", int, float, list, dict)


def read_stamp(raw_dir: Path) -> dict | None:
    """Content of the `SIMULATED.json` of a simulated raw corpus, `None` for a real one.

    Raises:
        DataError: If the folder does not exist, or the mark is damaged.
    """
    if not raw_dir.is_dir():
        raise DataError(f"Raw folder '{raw_dir}' does not exist.")
    path = raw_dir / STAMP_FILE
    if not path.is_file():
        return None
    stamp = read_json(path, "mark of a simulated corpus")
    if not isinstance(stamp, dict):
        raise DataError(f"'{path}' should hold a JSON object, but holds {type(stamp).__name__}.")
    return stamp


def stamped(raw_dir: Path, entries: Mapping, key: str, kind: type[T], least: int = 1) -> T:
    """An entry of the mark of a simulated corpus, or of a part of it.

    Raises:
        DataError: If it is absent or of another type, or is a number below `least`.
    """
    value: Any = entries.get(key)
    kinds = (int, float) if kind is float else (kind,)
    if type(value) not in kinds or (isinstance(value, int | float) and not least <= value < math.inf):
        wanted = {int: f"a whole number from {least} on", float: f"a number from {least} on", dict: "an object",
                  list: "a list"}  # fmt: skip
        raise DataError(
            f"'{raw_dir / STAMP_FILE}' is damaged: it should have {wanted[kind]} as {key!r}, but has {value!r}. "
            "Simulate the corpus again."
        )
    return value
