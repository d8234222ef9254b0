"""A folder of a prepared data set that takes another's place only when it is whole."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.prepared.facts import METADATA_FILE
from neural_clip.prepared.parts import FOLDERS, MARKS_DIR, finished_parts


@contextmanager
def replaced_folder(output_dir: str | Path, *, overwrite: bool, resumable: bool = False) -> Iterator[Path]:
    """Give a folder to fill that takes `output_dir`'s place only if the block ends without an error.

    With `resumable`, finished parts that an earlier run left in that folder are still there, and stay after an error.
    """
    output_dir = Path(output_dir).absolute()
    old = output_dir.with_name(output_dir.name + ".old")
    if not output_dir.exists() and (old / METADATA_FILE).is_file():
        os.rename(old, output_dir)  # a run was killed between the two steps of `_swap`
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        if not overwrite:
            raise DataError(f"'{output_dir}' exists and is not empty. Choose another --output-dir or add --overwrite.")
        if not (output_dir / METADATA_FILE).is_file():
            raise DataError(f"'{output_dir}' is no prepared data set, so it is not overwritten. Remove it yourself.")
    partial_dir = output_dir.with_name(output_dir.name + ".partial")
    if not (resumable and finished_parts(partial_dir)):
        shutil.rmtree(partial_dir, ignore_errors=True)  # of a run that was killed
    partial_dir.mkdir(parents=True, exist_ok=True)
    for path in partial_dir.iterdir():
        if path.is_file():  # metadata and extra files
            path.unlink()
        elif path.name not in (*FOLDERS.values(), MARKS_DIR):  # parts lie in these, extra files in others
            shutil.rmtree(path)
    try:
        yield partial_dir
        _swap(partial_dir, output_dir)
    finally:
        kept = finished_parts(partial_dir) if resumable else 0
        if kept:
            print(
                f"{kept} finished parts stay in '{partial_dir}'; the same command goes on from there.", file=sys.stderr
            )
        else:
            shutil.rmtree(partial_dir, ignore_errors=True)


def _swap(partial: Path, output_dir: Path) -> None:
    """Put `partial` in the place of `output_dir`."""
    old = output_dir.with_name(output_dir.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if output_dir.exists():
        os.rename(output_dir, old)
    os.rename(partial, output_dir)
    shutil.rmtree(old, ignore_errors=True)
