"""The mark that keeps a simulated raw corpus from being taken for a real one."""

from __future__ import annotations

from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.files.reading import read_json

STAMP_FILE = "SIMULATED.json"


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
