"""The record of a checkpoint, `training.json`, and whether the files beside it are those that it was written for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from neural_clip.errors import DataError, parse_json
from neural_clip.files.reading import read_json, read_text
from neural_clip.files.whole import DATA_FILES, place_of, sha256_of
from neural_clip.terms import check_trained_on

RECORD_FILE = "training.json"
GALLERY_FILE, GALLERY_VERSION = "gallery.json", 1  # what a saved gallery says of itself, and its format
# What loading a checkpoint would read if it were there.
LOADED = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "config.json", "adapter_config.json",
          "processor_config.json", "preprocessor_config.json")  # fmt: skip
# A part of a checkpoint that stays on the machine where it was made: a record lists it by itself, and a checkpoint is
# whole without it.
PREDICTIONS_FILE = "validation_predictions.safetensors"
LOCAL_FILES = (PREDICTIONS_FILE,)
CHECKPOINT_ADVICE = "Take all files of the checkpoint from where they were written together, or train it again."
GALLERY_ADVICE = "Copy the whole folder again, or build the gallery anew."


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


# Entries of `gallery.json`: what they may be, also in words. Earlier versions wrote none of the last two.
GALLERY_ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "files": (_are_texts, "the SHA-256 of each file by its name"),
    "rows": (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    "encoder": (lambda value: value is None or isinstance(value, dict), "what an image encoder is known by, or null"),
    "checkpoint": (lambda value: value is None or (_are_texts(value) and {*value} == {"name", "sha256"}),
                   "'name' and 'sha256' of a checkpoint, or null"),
    "terms": (lambda value: isinstance(value, dict), "terms by modality"),
    "montage": (lambda value: isinstance(value, list) and all(
        isinstance(one, dict) and isinstance(one.get("of"), str) and isinstance(one.get("said"), str) for one in value
    ), "a list of what was interpolated, with 'of' and 'said'"),
}  # fmt: skip
GALLERY_OPTIONAL = ("terms", "montage")


def record_files(folder: str | Path, names: Iterable[str]) -> dict[str, str | None]:
    """The entry `files` of a record: the SHA-256 of files of a folder, by their name."""
    return {name: sha256_of([Path(folder, name)]) for name in sorted(names)}


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Content of a JSON file with its own digest, `sha256`: that of all else that it holds, however it is laid out."""
    content = json.loads(json.dumps({name: value for name, value in content.items() if name != "sha256"}))
    text = json.dumps(content, sort_keys=True)
    return content | {"sha256": hashlib.sha256(text.encode()).hexdigest()}


def check_gallery_files(folder: str | Path) -> Mapping[str, Any]:
    """What `gallery.json` of a folder says, once the files beside it are known to be those that were written.

    Raises:
        DataError: If it is damaged, or a file is missing or changed.
    """
    path = Path(folder, GALLERY_FILE)
    content = read_json(path, "gallery")
    if not isinstance(content, dict) or content != sealed(content):
        raise DataError(
            f"'{path}' was changed since it was written, or is damaged: its digest differs. {GALLERY_ADVICE}"
        )
    if (version := content.get("format_version")) != GALLERY_VERSION:
        raise DataError(f"'{path}' has format_version {version!r}; this package reads {GALLERY_VERSION}.")
    _check_gallery_entries(content, path)
    for name, digest in content["files"].items():
        found = Path(folder, name)
        if "/" in name or not found.is_file():
            raise DataError(f"'{found}' is missing, which {GALLERY_FILE} lists. {GALLERY_ADVICE}")
        if sha256_of([found]) != digest:
            raise DataError(f"'{found}' is not the file that was written: its SHA-256 differs. {GALLERY_ADVICE}")
    return content


def _check_gallery_entries(content: Mapping[str, Any], path: Path) -> None:
    """Raise a `DataError` where an entry of `gallery.json` is absent or of another type; a seal keeps nobody out."""
    for name, (fits, allowed) in GALLERY_ENTRIES.items():
        if not (fits(content[name]) if name in content else name in GALLERY_OPTIONAL):
            found = f"is {content[name]!r:.80}" if name in content else "is missing"
            raise DataError(f"'{path}' is damaged: '{name}' {found}; allowed is {allowed}. {GALLERY_ADVICE}")
    try:
        for entries in content.get("terms", {}).values():
            check_trained_on(entries)
    except ValueError as error:
        raise DataError(f"'{path}' is damaged: its 'terms' are none ({error}). {GALLERY_ADVICE}") from error


def read_record(folder: str | Path) -> dict[str, Any] | None:
    """The record of a checkpoint folder; `None` where there is none.

    Raises:
        DataError: If it is damaged.
    """
    path = Path(folder, RECORD_FILE)
    if not path.is_file():
        return None
    text = read_text(path, "record of a checkpoint")
    try:
        record = parse_json(text, finite=False)
    except ValueError as error:
        raise DataError(f"'{path}' is damaged: it is no JSON ({error}). {CHECKPOINT_ADVICE}") from error
    for name in ("files", "local_files"):
        files = record.get(name, {}) if isinstance(record, dict) else None
        if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
            raise DataError(f"'{path}' is damaged: it is no record with a list of '{name}'. {CHECKPOINT_ADVICE}")
    files = record.get("files", {})
    if "sha256" in record and record != sealed(record):
        raise DataError(f"'{path}' was changed since it was written: its digest differs. {CHECKPOINT_ADVICE}")
    if foreign := [name for name in files if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name]:
        raise DataError(f"'{path}' is damaged: its 'files' name {foreign[0]!r}, which is no file beside it.")
    return record


def check_record(folder: str | Path) -> dict[str, Any] | None:
    """The record of a checkpoint folder, compared with the files beside it; `None` where there is none.

    A record of before the files were listed passes. Files that loading does not read may lie there too.

    Raises:
        DataError: If the record is damaged, or a file is missing, changed or was added that loading would read.
    """
    folder, record = Path(folder), read_record(folder)
    files = (record or {}).get("files")
    if not files:
        return record
    for name, digest in files.items():
        if not (folder / name).is_file():
            raise DataError(f"'{folder / name}' is missing, which {RECORD_FILE} lists. {CHECKPOINT_ADVICE}")
        _check_digest(folder / name, digest)
    for name in LOCAL_FILES:
        check_local_file(folder, name, record)
    for name in sorted(path.name for path in folder.iterdir()):
        if name not in (*files, *LOCAL_FILES) and any(fnmatch(name, pattern) for pattern in LOADED):
            raise _added(folder / name)
    return record


def check_local_file(folder: str | Path, name: str, record: dict[str, Any] | None = None) -> bool:
    """Whether a checkpoint folder holds one of `LOCAL_FILES`, compared with the record.

    Args:
        folder (`str` or `Path`): Of the checkpoint.
        name (`str`): Of the file.
        record (`dict`, *optional*): Of the folder, where it was read already.

    Raises:
        DataError: If the record is damaged, or the file was changed or added.
    """
    path = Path(folder, name)
    if not path.is_file():
        return False
    listed = (record or read_record(folder) or {}).get("local_files", {})
    if name not in listed:
        raise _added(path)
    _check_digest(path, listed[name])
    return True


def _check_digest(path: Path, digest: str) -> None:
    """Raise a `DataError` where a file is not the one that was written."""
    if sha256_of([path]) != digest:
        raise DataError(
            f"'{path}' is not the file that {RECORD_FILE} was written for: its SHA-256 differs. {CHECKPOINT_ADVICE}"
        )


def _added(path: Path) -> DataError:
    """What is wrong with a file that no record lists."""
    return DataError(f"'{path}' was added to a checkpoint whose {RECORD_FILE} does not list it. {CHECKPOINT_ADVICE}")


def check_takes_files(path: str | Path) -> None:
    """Raise a `DataError` where further files may not lie: a file, a data set or what lies in it, a checkpoint.

    A folder in that of a checkpoint may be written to.
    """
    place = place_of(path)
    if place.exists() and not place.is_dir():
        raise DataError(f"'{path}' is a file; name a folder.")
    if found := next((name for name in DATA_FILES if (place / name).is_file()), None):
        raise DataError(f"'{path}' is a data set ({found}). Choose a folder outside it.")
    if (place / RECORD_FILE).is_file() or ((place / "config.json").is_file() and any(place.glob("*.safetensors"))):
        raise DataError(f"'{path}' is a checkpoint. Choose another folder, such as '{Path(path, 'report')}'.")
