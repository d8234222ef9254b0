"""Recordings of a prepared data set spoiled where they lie."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from neural_clip.prepared.facts import METADATA_FILE, Facts
from neural_clip.prepared.integrity import described, fingerprint_of


def spoil(folder: str | Path, split: str, subject: str, row: int, value: float) -> None:
    """Put a value into one recording, as if it had been prepared so: the metadata list the file as it is then."""
    facts = Facts.read(folder)
    modality = facts.modality
    (path,) = Path(folder, "data", subject).glob(f"{split}-*.parquet")
    table = pq.read_table(path)
    column = table.column(modality).combine_chunks()
    storage = getattr(column, "storage", column)
    rows = storage.to_pylist()
    one = rows[row]
    while isinstance(one[0], list):
        one = one[0]
    one[1] = value
    spoiled = pa.array(rows, type=storage.type)
    if storage is not column:
        spoiled = pa.ExtensionArray.from_storage(column.type, spoiled)
    index = table.schema.get_field_index(modality)
    pq.write_table(table.set_column(index, table.schema.field(index), spoiled), path)
    files = described(Path(folder))
    stated = facts.as_dict() | {"files": files, "fingerprint": fingerprint_of(files)}
    Path(folder, METADATA_FILE).write_text(json.dumps(stated))
