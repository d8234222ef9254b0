"""Whether the files of a prepared data set are those that were written.

`neural_clip.json` lists them under `files`, with size and SHA-256, and of Parquet files the number of rows and the
SHA-256 of the footer, which says where each column of each row group begins. Sizes and footers are compared whenever a
set is opened; the contents, which takes as long as reading them, by [`verify_prepared`]. Older sets list nothing: the
rows of their Parquet files are counted when they are opened, and their fingerprint covers the Parquet files alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from neural_clip.errors import DataError
from neural_clip.files.reading import reading
from neural_clip.files.whole import sha256_of

FINGERPRINT_VERSION = 2  # of all files; 1: of the Parquet files
NOT_LISTED = ("README.md", "neural_clip.json")  # a card may be improved by hand; the facts hold the list
READ = ("**/*.parquet", "masks/**/*", "*.safetensors")  # an added file of these would be taken for one of the set
DATA_ADVICE = "Copy the data set again, or prepare it again."


def files_below(folder: Path, patterns: Iterable[str] = ("**/*",)) -> list[str]:
    """Names of the files of a data set; hidden and unfinished ones are none of it."""
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file() or path.is_symlink()}
    names = {path.relative_to(folder).as_posix() for path in found} - set(NOT_LISTED)
    return sorted(name for name in names if not f"/{name}".count("/.") and not name.endswith(".partial"))


def described(folder: Path, names: Iterable[str] | None = None) -> dict[str, dict]:
    """What `neural_clip.json` says of the files of a data set, by name; of all files by default."""
    return {name: _described(folder / name) for name in (files_below(folder) if names is None else sorted(names))}


def _described(path: Path) -> dict:
    """Size and sums of a file."""
    import pyarrow.parquet as pq

    told = {"bytes": path.stat().st_size, "sha256": sha256_of([path])}
    if path.suffix != ".parquet":
        return told
    with reading(path):
        return told | {"rows": pq.read_metadata(path).num_rows, "footer_sha256": _footer_of(path)}


def _footer_of(path: Path) -> str:
    """SHA-256 of the footer of a Parquet file."""
    with path.open("rb") as file:
        return footer_sha256(file)


def footer_sha256(file: Any) -> str:
    """SHA-256 of the footer of an opened Parquet file, with its length and signature in the last 8 bytes."""
    size = file.seek(0, 2)
    file.seek(max(size - 8, 0))
    length = int.from_bytes(file.read(4), "little")
    file.seek(max(size - 8 - length, 0))
    return hashlib.sha256(file.read()).hexdigest()


def fingerprint_of(files: Mapping[str, Mapping]) -> str:
    """SHA-256 over names and sums of the files of a data set."""
    lines = (f"{name} {files[name]['sha256']}\n" for name in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def fingerprint(folder: str | Path, version: int = FINGERPRINT_VERSION) -> str:
    """Fingerprint of a data set as its files are now; version 1 is that of its Parquet files alone."""
    folder = Path(folder)
    if version == 1:
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")]
    else:
        names = files_below(folder)
    return fingerprint_of({name: {"sha256": sha256_of([folder / name])} for name in names})


def differences(folder: Path, files: Mapping[str, Mapping], *, contents: bool) -> Iterator[str]:
    """What is changed, missing or added, a sentence a file.

    Args:
        folder (`Path`): The data set.
        files (`Mapping`): What its `neural_clip.json` says of its files.
        contents (`bool`): Read the files whole; otherwise their sizes and footers are compared.
    """
    for name, told in files.items():
        path = folder / name
        try:
            found = _difference(path, told, contents)
        except OSError as error:
            found = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        if found:
            yield f"'{path}' {found}."
    for name in files_below(folder, READ):
        if name not in files:
            yield f"'{folder / name}' was added to the data set."


def check_files(folder: Path, files: Mapping[str, Mapping], *, contents: bool) -> None:
    """Raise a `DataError` on the first of the [`differences`]."""
    for sentence in differences(folder, files, contents=contents):
        raise DataError(f"{sentence} {DATA_ADVICE}")


def _difference(path: Path, told: Mapping, contents: bool) -> str | None:
    """How a file differs from what was written."""
    if path.is_dir():
        return "is a folder"
    if (size := path.stat().st_size) != told["bytes"]:
        return f"is not the file that was written: it has {size} bytes instead of {told['bytes']}"
    if "footer_sha256" in told and _footer_of(path) != told["footer_sha256"]:
        return "is not the file that was written: it has another footer"
    if contents and sha256_of([path]) != told["sha256"]:
        return "is not the file that was written: its content has another SHA-256"
    return None
