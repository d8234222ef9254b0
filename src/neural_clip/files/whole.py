"""Files that are never half there, and the sum they are known by."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from neural_clip.errors import DataError

__all__ = ["replace_marked", "sha256_of", "write_whole"]


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file aside as `<path>.partial`, then rename it; text becomes UTF-8."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(partial, path)


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
