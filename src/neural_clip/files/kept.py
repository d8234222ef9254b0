"""Finished pieces of embeddings that are made in pieces: they lie beside it until it is whole.

A run that was interrupted, even killed, goes on with the pieces that are missing.
"""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from neural_clip.files.whole import told, whole_file, write_whole

KEY_FILE = "key.json"
# Packages by whose versions numbers differ, be it in their last digits.
DECIDING = ("neural_clip", "torch", "transformers", "pillow", "numpy", "scipy")


@cache
def version_of(package: str) -> str | None:
    """Installed version, or nothing where the package is only on the path."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def deciding_versions() -> dict[str, str | None]:
    """Versions of the packages that decide what is in a finished piece, for its key."""
    return {name: version_of(name) for name in DECIDING}


@contextmanager
def kept_pieces(path: Path, key: Mapping, what: str) -> Iterator[Path]:
    """Give the folder of the pieces; it vanishes if the block ends without an error, and stays otherwise.

    Args:
        path (`Path`): The folder. Emptied where its pieces are of something else.
        key (`Mapping`): Everything that decides the pieces, as JSON; versions of packages are added.
        what (`str`): What the pieces are, for messages.

    Raises:
        DataError: If nothing can be written there; nothing is left then.
    """
    text = json.dumps({**key, "versions": deciding_versions()}, indent=2, sort_keys=True)
    key_file = path / KEY_FILE
    if key_file.is_file() and key_file.read_bytes() == text.encode():
        print(f"going on from the {what} in '{path}'", file=sys.stderr)
    else:
        shutil.rmtree(path, ignore_errors=True)
        with told(path, of_any_kind=True):
            path.mkdir()
    try:
        if not key_file.is_file():
            write_whole(key_file, text)
        yield path
    except BaseException:
        if count := len(list(path.glob("*.npz"))):
            print(f"{count} embedded {what} stay in '{path}'; the same command goes on from there.", file=sys.stderr)
        else:
            shutil.rmtree(path)
        raise
    shutil.rmtree(path)


def read_piece(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """A float32 array of an earlier run, or nothing if there is none or its checksum (of the zip file) fails."""
    try:
        with np.load(path, allow_pickle=False) as file:
            embeds = file["embeds"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        return None
    return embeds if embeds.shape == shape and embeds.dtype == np.float32 else None


def write_piece(path: Path, embeds: np.ndarray) -> None:
    """Keep an array: written aside, then renamed."""
    with whole_file(path) as aside, aside.open("wb") as file:
        np.savez(file, embeds=embeds)
