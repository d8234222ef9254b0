"""Galleries on disk: a folder of Arrow files and `gallery.json`, which says what they are and seals them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.privacy import shared_place
from neural_clip.files.reading import reading
from neural_clip.files.record import GALLERY_ADVICE, GALLERY_FILE, GALLERY_VERSION, check_gallery_files, sealed
from neural_clip.files.whole import check_apart, sha256_of, whole_folder, write_whole
from neural_clip.gallery.card import card_text
from neural_clip.gallery.columns import LAYER, check_columns, column_of, vectors_of
from neural_clip.gallery.embedder import CheckpointIdentity
from neural_clip.gallery.sharing import Terms
from neural_clip.targets.identity import EncoderIdentity

if TYPE_CHECKING:
    import datasets


def write_gallery(
    folder: str | Path, rows: datasets.Dataset, encoder: EncoderIdentity | None, checkpoint: CheckpointIdentity | None,
    terms: Terms, *, overwrite: bool, montage: tuple[dict, ...] = (),
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
        digest = hashlib.sha256(np.ascontiguousarray(vectors_of(rows)).data).hexdigest()[:16]  # for the same bytes
        Dataset(InMemoryTable(table), fingerprint=digest).save_to_disk(partial)
        files = {path.name: sha256_of([path]) for path in sorted(partial.iterdir())}
        content: dict[str, Any] = {
            "format_version": GALLERY_VERSION,
            "rows": len(rows),
            "encoder": None if encoder is None else encoder.as_config(),
            "checkpoint": None if checkpoint is None else asdict(checkpoint),
            "terms": terms,
            "files": files,
        }
        if montage:
            content["montage"] = [one | {"of": shared_place(one["of"], folder.absolute())} for one in montage]
        write_whole(partial / "README.md", card_text(rows, encoder, checkpoint, terms))
        write_whole(partial / GALLERY_FILE, json.dumps(sealed(content), indent=2) + "\n")
    return folder


def is_gallery(folder: str | Path) -> bool:
    """Whether a folder is a saved gallery."""
    return (Path(folder) / GALLERY_FILE).is_file()


def read_gallery(
    folder: str | Path,
) -> tuple[datasets.Dataset, EncoderIdentity | None, CheckpointIdentity | None, Terms, tuple[dict, ...]]:
    """Rows, encoder, checkpoint, terms and interpolated channels of a gallery on disk, memory-mapped.

    Raises:
        DataError: If there is none, a file is damaged, missing or not the one that was written, or it names pictures
            elsewhere on this machine.
    """
    from datasets import load_from_disk

    folder = Path(folder)
    if not is_gallery(folder):
        if not folder.exists():
            raise DataError(f"There is no gallery '{folder}'.")
        raise DataError(
            f"'{folder}' is no gallery: it has no {GALLERY_FILE}. `neural-clip gallery build` makes one, and so does "
            "`NeuralGallery.save_to_disk`."
        )
    with reading(folder, " as a gallery"):
        content = check_gallery_files(folder)
        rows: Any = load_from_disk(folder)
        if LAYER not in rows.column_names:  # an earlier version wrote it
            rows = rows.add_column(LAYER, [""] * len(rows))
        check_columns(rows)
        encoder = None if content["encoder"] is None else EncoderIdentity.of_settings(content["encoder"])
        checkpoint = None if content["checkpoint"] is None else CheckpointIdentity(**content["checkpoint"])
    for place in rows.unique("file"):
        if Path(place).is_absolute() or ".." in Path(place).parts[1:]:
            raise DataError(
                f"'{folder}' names the picture '{place}', which does not lie beside it: a saved gallery names none of "
                f"other places. {GALLERY_ADVICE}"
            )
    if len(rows) != content["rows"]:
        raise DataError(f"'{folder}' has {len(rows)} rows, but {content['rows']} were written. {GALLERY_ADVICE}")
    return rows, encoder, checkpoint, content.get("terms", {}), tuple(content.get("montage", ()))
