"""The columns of a gallery: a vector a row, and what stands behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from neural_clip.errors import DataError, check_option
from neural_clip.retrieval.tiles import Vectors, unit_vectors

if TYPE_CHECKING:
    import datasets

IMAGE = "image"  # the modality of images
DTYPES = ("float32", "float16")
VECTOR, PIXELS = "vector", "pixels"
LAYER = "layer"  # whose alignment layer embedded a recording: a subject, or the average of all
TEXTS = ("modality", "image_id", "concept", "subject", "session", "split", "file", LAYER)


def table_of(vectors: np.ndarray, dtype: str = DTYPES[0], **columns: Any) -> datasets.Dataset:
    """Rows of a gallery in memory.

    Args:
        vectors (`np.ndarray` of shape `(n, projection_dim)`): Of any length; kept so in float32, and as unit vectors
            in float16, whose numbers end at 65,504.
        dtype (`str`): `"float32"` or `"float16"`.
        **columns: Of `TEXTS`, a list or one text for all rows, `""` by default; `categories`, lists of texts; and
            `pixels`, the bytes of image files or `None`.

    Raises:
        DataError: If there are no rows, or vectors are not finite.
    """
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    check_option("dtype", dtype, DTYPES)
    try:
        Vectors(vectors, "vectors")  # non-empty, finite
    except ValueError as error:
        raise DataError(f"A gallery cannot be made of these vectors: {error}") from error
    count, width = vectors.shape
    kept = unit_vectors(vectors) if dtype == "float16" else vectors
    flat = pa.array(np.ascontiguousarray(kept, dtype=dtype).reshape(-1))
    arrays: dict[str, Any] = {VECTOR: pa.FixedSizeListArray.from_arrays(flat, width)}
    for name in TEXTS:
        given = columns.get(name, "")
        texts = [given] * count if isinstance(given, str) else [str(text or "") for text in given]
        arrays[name] = pa.array(texts, pa.string())
    labels = columns.get("categories") or [[]] * count
    arrays["categories"] = pa.array([list(names) for names in labels], pa.list_(pa.string()))
    arrays[PIXELS] = pa.array(columns.get(PIXELS) or [None] * count, pa.binary())
    return Dataset(InMemoryTable(pa.table(arrays)), fingerprint=uuid4().hex)


def joined(parts: Sequence[datasets.Dataset]) -> datasets.Dataset:
    """Rows of several tables, one after the other, in memory; vectors lie in one piece."""
    from datasets import Dataset, concatenate_datasets
    from datasets.table import InMemoryTable

    if len(parts) == 1:
        return parts[0]
    table = concatenate_datasets(list(parts)).with_format("arrow")[:]
    place, column = table.column_names.index(VECTOR), table[VECTOR].combine_chunks()
    return Dataset(InMemoryTable(table.set_column(place, VECTOR, column)), fingerprint=uuid4().hex)


def check_columns(rows: datasets.Dataset) -> None:
    """Raise a `DataError` unless a table has the columns of a gallery and rows."""
    from datasets import List, Value

    kind = rows.features.get(VECTOR)
    fits = isinstance(kind, List) and kind.length > 0 and getattr(kind.feature, "dtype", None) in DTYPES
    texts = all(rows.features.get(name) == Value("string") for name in TEXTS)
    if not fits or not texts or not {"categories", PIXELS} <= set(rows.column_names) or not len(rows):
        raise DataError(f"It has no rows of a gallery: {len(rows)} rows with the columns {rows.column_names}.")


def vectors_of(rows: datasets.Dataset) -> np.ndarray:
    """All vectors, `(n, projection_dim)`, in the type that they are kept in; those in one piece are not copied."""
    kind: Any = rows.features[VECTOR]
    column = rows.with_format("arrow").select_columns([VECTOR])[:][VECTOR]
    if column.num_chunks == 1 and not column.null_count:
        return column.chunk(0).flatten().to_numpy(zero_copy_only=True).reshape(len(rows), -1)
    found = np.empty((len(rows), kind.length), kind.feature.dtype)
    start = 0
    for chunk in column.chunks:
        if chunk.null_count:
            raise DataError(f"A gallery has {chunk.null_count} rows without a vector.")
        block = chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(chunk), -1)
        found[start : start + len(chunk)] = block
        start += len(chunk)
    return found


def column_of(rows: datasets.Dataset, name: str) -> list:
    """A column as Python knows it."""
    return rows.with_format("arrow").select_columns([name])[:][name].to_pylist()


def masked(rows: datasets.Dataset, wanted: Mapping[str, Any]) -> np.ndarray:
    """Which rows have one of the wanted texts in each of these columns, bool `(n,)`; a `DataError` if none has."""
    mask = np.ones(len(rows), bool)
    for name, values in wanted.items():
        check_option("filter", name, TEXTS)
        texts = [values] if isinstance(values, str) else [str(value) for value in values]
        found = np.array(column_of(rows, name))
        if absent := set(texts).difference(known := np.unique(found).tolist()):
            check_option(name, min(absent), known)
        mask &= np.isin(found, texts)
    if not mask.any():
        raise DataError(f"No row of the gallery has {dict(wanted)}.")
    return mask
