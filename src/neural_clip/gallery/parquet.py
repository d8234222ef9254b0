"""Embedded recordings of a prepared data set as one Parquet file, for other tools."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neural_clip.errors import DataError
from neural_clip.files.privacy import shared_place
from neural_clip.files.whole import check_apart, whole_file
from neural_clip.gallery.building import embedded_parts
from neural_clip.gallery.columns import PIXELS
from neural_clip.gallery.embedder import Embedder
from neural_clip.gallery.options import EmbedRecordingsOptions
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.reader import PreparedSet

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_KEY, FORMAT_VERSION = b"neural_clip", 1  # of the file's own metadata
PRIVATE = "Embeddings of recordings of people may tell about them; share them by the terms of their data set."
NOBODY = "SIMULATED recordings; nobody was recorded."


def write_embeddings(
    checkpoint: Any, data: str | Path | PreparedSet, path: str | Path, options: EmbedRecordingsOptions | None = None
) -> Path:
    """Embed all recordings of a data set, all splits, and write the vectors with what stands behind each.

    Args:
        checkpoint: A model, or the folder or Hub name of a checkpoint.
        data (`str`, `Path` or [`PreparedSet`]): Of one modality that the model has.
        path (`str` or `Path`): The Parquet file, which appears whole or not at all.
        options ([`EmbedRecordingsOptions`], *optional*): Of the vectors and the file.

    Returns:
        `Path`: The file. Its columns are those of a gallery without `pixels`; its metadata hold, under `neural_clip`,
        JSON of the checkpoint (name and SHA-256 of its weights), the image encoder, the data set and its terms.

    Raises:
        DataError: If the data set does not fit the model, or a file is there without `overwrite`.
    """
    import pyarrow.parquet as pq

    options, path = options or EmbedRecordingsOptions(), Path(path)
    if path.suffix != ".parquet":
        raise DataError(f"'{path}' has suffix {path.suffix!r}; allowed is '.parquet'.")
    opened = PreparedSet.open(data)
    check_apart(path, [opened.folder])
    with whole_file(path) as partial:
        if path.exists() and not (options.overwrite and path.is_file()):
            raise DataError(f"'{path}' exists. Pass `--overwrite` to replace the file, or choose another name.")
        embedder, writer = Embedder.of(checkpoint), None
        try:
            for _, rows in embedded_parts(embedder, opened, options.subject, options.dtype):
                table = _shared(rows.remove_columns(PIXELS).with_format("arrow")[:], path.absolute().parent)
                table = table.replace_schema_metadata({METADATA_KEY: _described(embedder, opened.facts)})
                writer = writer or pq.ParquetWriter(partial, table.schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise DataError(f"'{opened.name}' has no recordings.")
    print(NOBODY if opened.facts.simulated else PRIVATE, file=sys.stderr)
    return path


def _shared(table: pa.Table, folder: Path) -> pa.Table:
    """Rows whose `file` does not tell where things lie on this machine."""
    import pyarrow as pa

    places = table["file"].to_pylist()
    shared = {place: shared_place(place, folder) for place in set(places)}
    return table.set_column(
        table.column_names.index("file"), "file", pa.array([shared[place] for place in places], pa.string())
    )


def _described(embedder: Embedder, facts: Facts) -> str:
    """What made the vectors and what they are of, as JSON."""
    content = {
        "format_version": FORMAT_VERSION,
        "checkpoint": {"name": embedder.identity.name, "sha256": embedder.identity.sha256},
        "image_encoder": embedder.encoder.named if embedder.encoder else None,
        "data_set": {
            "corpus": facts.corpus, "modality": facts.modality, "fingerprint": facts.fingerprint,
            "licence": facts.licence, "redistribution": facts.redistribution, "terms": facts.terms,
        },
        "simulated": bool(facts.simulated),
        "private": NOBODY if facts.simulated else PRIVATE,
    }  # fmt: skip
    return json.dumps(content)
