"""Galleries on disk: a folder of Arrow files and `gallery.json`, which says what they are and seals them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.privacy import shared_place
from neural_clip.files.reading import read_json, reading
from neural_clip.files.record import sealed
from neural_clip.files.whole import check_apart, sha256_of, whole_folder, write_whole
from neural_clip.gallery.columns import check_columns, column_of, vectors_of
from neural_clip.gallery.embedder import CheckpointIdentity
from neural_clip.targets.identity import EncoderIdentity

if TYPE_CHECKING:
    import datasets

GALLERY_FILE, FORMAT_VERSION = "gallery.json", 1
ADVICE = "Copy the whole folder again, or build the gallery anew."


def write_gallery(
    folder: str | Path, rows: datasets.Dataset, encoder: EncoderIdentity | None, checkpoint: CheckpointIdentity | None,
    *, overwrite: bool,
) -> Path:  # fmt: skip
    """Write a gallery whole or not at all; see [`NeuralGallery.save_to_disk`]."""
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    folder = Path(folder)
    check_apart(folder, {place for place in column_of(rows.select_columns(["file"]), "file") if place})
    with whole_folder(folder, holds=GALLERY_FILE, what="gallery", overwrite=overwrite) as partial:
        places = column_of(rows, "file")
        shared = {place: shared_place(place, folder.absolute()) if place else "" for place in set(places)}
        table = rows.with_format("arrow")[:]
        moved = pa.array([shared[place] for place in places], pa.string())
        table = table.set_column(table.column_names.index("file"), "file", moved)
        digest = hashlib.sha256(np.ascontiguousarray(vectors_of(rows)).data).hexdigest()[
            :16
        ]  # one gallery, the same bytes
        Dataset(InMemoryTable(table), fingerprint=digest).save_to_disk(partial)
        files = {path.name: sha256_of([path]) for path in sorted(partial.iterdir())}
        content = {
            "format_version": FORMAT_VERSION,
            "rows": len(rows),
            "encoder": None if encoder is None else encoder.as_config(),
            "checkpoint": None if checkpoint is None else asdict(checkpoint),
            "files": files,
        }
        write_whole(partial / GALLERY_FILE, json.dumps(sealed(content), indent=2) + "\n")
    return folder


def read_gallery(
    folder: str | Path,
) -> tuple[datasets.Dataset, EncoderIdentity | None, CheckpointIdentity | None]:
    """Rows, encoder and checkpoint of a gallery on disk, memory-mapped.

    Raises:
        DataError: If there is none, or a file is damaged, missing or not the one that was written.
    """
    from datasets import load_from_disk

    folder = Path(folder)
    if not (folder / GALLERY_FILE).is_file():
        raise DataError(f"'{folder}' is no gallery: it has no {GALLERY_FILE}. `NeuralGallery.save_to_disk` makes one.")
    with reading(folder, " as a gallery"):
        content = _checked(folder)
        rows: Any = load_from_disk(folder)
        check_columns(rows)
        encoder = None if content["encoder"] is None else EncoderIdentity.of_settings(content["encoder"])
        checkpoint = None if content["checkpoint"] is None else CheckpointIdentity(**content["checkpoint"])
    if len(rows) != content["rows"]:
        raise DataError(f"'{folder}' has {len(rows)} rows, but {content['rows']} were written. {ADVICE}")
    return rows, encoder, checkpoint


def _checked(folder: Path) -> Mapping[str, Any]:
    """What `gallery.json` says, once the files beside it are known to be those that were written."""
    path = folder / GALLERY_FILE
    content = read_json(path, "gallery")
    if not isinstance(content, dict) or content != sealed(content):
        raise DataError(f"'{path}' was changed since it was written, or is damaged: its digest differs. {ADVICE}")
    if content.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"'{path}' has format_version {content.get('format_version')!r}; this package reads {FORMAT_VERSION}."
        )
    for name, digest in content["files"].items():
        if "/" in name or not (folder / name).is_file():
            raise DataError(f"'{folder / name}' is missing, which {GALLERY_FILE} lists. {ADVICE}")
        if sha256_of([folder / name]) != digest:
            raise DataError(f"'{folder / name}' is not the file that was written: its SHA-256 differs. {ADVICE}")
    return content
