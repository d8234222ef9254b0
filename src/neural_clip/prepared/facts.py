"""What a prepared data set says of itself: `neural_clip.json`, its keys and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError
from neural_clip.prepared.modalities import MODALITIES

METADATA_FILE = "neural_clip.json"
FORMAT_VERSION = 1
SPLIT_UNITS = ("image", "run", "recording")
REQUIRED_KEYS = (
    "corpus",
    "modality",
    "split_protocol",
    "split_unit",
    "licence",
    "redistribution",
    "citation",
    "source",
)
DEFAULTS: dict = {
    "format_version": FORMAT_VERSION, "corpus": None, "modality": None, "simulated": None, "subjects": None,
    "ch_names": None, "ch_positions": None, "ch_positions_frame": None, "n_chans": None, "n_times": None,
    "sfreq": None, "tmin": None, "unit": None, "n_voxels": None, "roi": None, "split_protocol": None,
    "split_unit": None, "splits": None, "subject_splits": None,
    "scaling": {"method": "none", "fit_scope": "none"}, "preprocessing": {}, "category_level": False,
    "block_confounded": False, "presentation_order": False, "average_repeats": False, "image_encoder": None,
    "licence": None, "redistribution": None, "terms": None, "citation": None, "source": None, "known_defects": [],
    "declared": None, "partial": None, "findings": [], "fingerprint": None,
}  # fmt: skip


def read_metadata(folder: str | Path) -> dict:
    """Read `neural_clip.json` of a prepared data set.

    Raises:
        DataError: If `folder` is no prepared data set, or of a format version that this package does not know.
    """
    path = Path(folder) / METADATA_FILE
    if not path.is_file():
        raise DataError(
            f"'{folder}' is no prepared data set: it has no {METADATA_FILE}. Make one with `neural-clip prepare`."
        )
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is damaged: {error}. Prepare the data set again.") from error
    version = metadata.get("format_version") if isinstance(metadata, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(f"'{path}' has format_version {version}; this package reads {FORMAT_VERSION}.")
    return metadata


def fingerprint(folder: str | Path) -> str:
    """SHA-256 over names and contents of the Parquet files below `folder`."""
    total = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*.parquet")):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
    return total.hexdigest()


def verify_prepared(folder: str | Path) -> dict:
    """Check that the Parquet files are those that were written, and return the metadata.

    Raises:
        DataError: If a file was changed, added or lost since.
    """
    metadata = read_metadata(folder)
    found = fingerprint(folder)
    if found != metadata["fingerprint"]:
        raise DataError(
            f"The Parquet files of '{folder}' are not those that were prepared: fingerprint {found[:12]} instead of "
            f"{metadata['fingerprint'][:12]}. A file was changed, added or lost; prepare the data set again."
        )
    return metadata


def plain(value: object) -> object:
    """NumPy scalars and arrays, paths and sets as JSON knows them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"metadata of type {type(value).__name__} cannot be written as JSON")


def checked_metadata(metadata: Mapping) -> dict:
    """Metadata with every key present."""
    missing = [key for key in REQUIRED_KEYS if not metadata.get(key)]
    if missing:
        raise DataError(f"The metadata of a prepared data set lacks {', '.join(repr(key) for key in missing)}.")
    allowed = {"modality": MODALITIES, "split_unit": SPLIT_UNITS, "redistribution": ("allowed", "forbidden")}
    for key, values in allowed.items():
        if metadata[key] not in values:
            names = ", ".join(repr(value) for value in values)
            raise DataError(
                f"Invalid value for {key!r}. Allowed values are {names}, but got {metadata[key]!r} instead."
            )
    if metadata.get("category_level") and metadata["split_unit"] == "image":
        raise DataError("A category-level data set cannot be split by image; use split_unit 'run' or 'recording'.")
    return {**json.loads(json.dumps(DEFAULTS)), **metadata}
