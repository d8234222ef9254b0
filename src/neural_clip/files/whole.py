"""Files and folders that are never half there, and the sum they are known by."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from neural_clip.errors import DataError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give `<path>.partial` to write; it becomes `path` if the block ends without an error, and vanishes otherwise."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(
    path: str | Path, *, holds: str, what: str, overwrite: bool = False, keep: Callable[[Path], int] | None = None
) -> Iterator[Path]:
    """Give `<path>.partial` to fill; it becomes `path` if the block ends without an error, and vanishes otherwise.

    Args:
        path (`str` or `Path`): The folder; an empty one may be there.
        holds (`str`): Name of a file that every such folder holds; a folder without it is never overwritten.
        what (`str`): What such a folder is, for messages.
        overwrite (`bool`, *optional*, defaults to `False`): Replace an older such folder.
        keep (`Callable`, *optional*): Removes all but finished parts of the partial folder and tells how many there
            are. Parts of an earlier run are then there to go on from, and parts stay after an error.

    Raises:
        DataError: If `path` is taken.
    """
    path = Path(path).absolute()
    partial, old = (path.with_name(path.name + suffix) for suffix in (".partial", ".old"))
    if not path.exists() and (old / holds).is_file():
        os.rename(old, path)  # a run was killed between the two renames below
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        if not (path / holds).is_file():
            raise DataError(f"'{path}' exists and is no {what}, so it is not overwritten; choose another name.")
        if not overwrite:
            raise DataError(f"'{path}' is not empty. Pass `--overwrite` to replace the {what}, or choose another.")
    if not (keep and keep(partial)):
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        if not (partial / holds).is_file():
            raise RuntimeError(f"'{partial}' was to become a {what}, but has no {holds}.")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            os.rename(path, old)
        os.rename(partial, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        if kept := keep(partial) if keep else 0:
            print(f"{kept} finished parts stay in '{partial}'; the same command goes on from there.", file=sys.stderr)
        else:
            shutil.rmtree(partial, ignore_errors=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file by [`whole_file`]; text becomes UTF-8."""
    with whole_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256_of(paths: Iterable[Path]) -> str | None:
    """SHA-256 over the contents of files in order of their names, of one file that of `sha256sum`; `None` of none."""
    files, digest = sorted(paths), hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    return digest.hexdigest() if files else None


def replace_marked(path: Path, name: str, content: str) -> None:
    """Put text between `<!-- results: name -->` and `<!-- end -->`."""
    text = path.read_text(encoding="utf-8")
    begin = f"<!-- results: {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?<!-- end -->", re.DOTALL)
    if not pattern.search(text):
        raise DataError(f"'{path}' has no place marked {begin} ... <!-- end -->.")
    write_whole(path, pattern.sub(lambda _: f"{begin}\n\n{content}\n\n<!-- end -->", text))
