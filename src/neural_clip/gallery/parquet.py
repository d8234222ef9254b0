"""Embedded recordings of a prepared data set as one Parquet file, for other tools."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neural_clip.errors import DataError
from neural_clip.files.kept import kept_pieces, read_piece, write_piece
from neural_clip.files.privacy import shared_place
from neural_clip.files.whole import check_apart, only_writer, whole_file
from neural_clip.gallery.building import blocks_of, split_recordings
from neural_clip.gallery.columns import PIXELS
from neural_clip.gallery.embedder import Embedder, layers_of_split
from neural_clip.gallery.options import EmbedRecordingsOptions
from neural_clip.parallel import n_processes, run_units
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.reader import PreparedSet, Split

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from neural_clip.montage import Interpolation

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
    opened = PreparedSet.open(data, options.streaming)
    check_apart(path, [opened.folder])
    with only_writer(path):
        if path.exists() and not (options.overwrite and path.is_file()):
            raise DataError(f"'{path}' exists. Pass `--overwrite` to replace the file, or choose another name.")
        embedder = Embedder.of(checkpoint)
        made = embedder.interpolation(opened, options.montage)
        described = {METADATA_KEY: _described(embedder, opened.facts, made)}
        key = {
            "fingerprint": opened.facts.fingerprint, "checkpoint": embedder.identity.sha256,
            "config": embedder.model.config.to_json_string(), "subject": options.subject,
            "device": embedder.model.device.type, **({} if made is None else {"montage": made.as_dict()}),
        }  # fmt: skip
        place, what = path.with_name(path.name + ".blocks-partial"), "blocks of recordings"
        with kept_pieces(place, key, what) as kept, whole_file(path) as aside, ExitStack() as held:
            writer = None
            for part, vectors in _embedded_blocks(checkpoint, embedder, opened, options, kept):
                layers = layers_of_split(part, options.subject)
                rows = split_recordings(part, vectors, options.dtype, layers).remove_columns(PIXELS)
                table = _shared(rows.with_format("arrow")[:], path.absolute().parent)
                table = table.replace_schema_metadata(described)
                writer = writer or held.enter_context(pq.ParquetWriter(aside, table.schema, write_page_checksum=True))
                writer.write_table(table)
            if writer is None:
                raise DataError(f"'{opened.name}' has no recordings.")
    print(NOBODY if opened.facts.simulated else PRIVATE, file=sys.stderr)
    if made is not None:
        print(made.said, file=sys.stderr)
    return path


def _embedded_blocks(
    checkpoint: Any, embedder: Embedder, data: PreparedSet, options: EmbedRecordingsOptions, kept: Path
) -> Iterator[tuple[Split, np.ndarray]]:
    """Blocks of recordings in their order, and their vectors; those in `kept` stay."""
    from tqdm import tqdm

    width, blocks = embedder.model.config.projection_dim, list(blocks_of(embedder, data))
    paths = [kept / f"{number:06d}.npz" for number in range(len(blocks))]
    missing = {
        f"block {number} of {len(blocks)} of the recordings": (number, path)
        for number, (path, part) in enumerate(zip(paths, blocks, strict=True))
        if read_piece(path, (len(part), width)) is None
    }
    here = n_processes(options.num_proc) == 1
    opened = (lambda: (embedder, blocks)) if here else partial(
        _opened, checkpoint if isinstance(checkpoint, str | Path) else embedder, embedder.identity.sha256,
        data.name if data.streaming else str(data.folder), data.facts.fingerprint, data.streaming,
    )  # fmt: skip
    work = partial(_embed_block, opened, options.subject, options.montage, here)
    with tqdm(total=len(missing), desc="embedding recordings", unit="block", disable=here) as bar:
        for _ in run_units(work, missing, num_proc=options.num_proc):
            bar.update()
    for path, part in zip(paths, blocks, strict=True):
        vectors = read_piece(path, (len(part), width))
        if vectors is None:
            raise DataError(f"'{path}' was written by another process, but is not there as this one sees it.")
        yield part, vectors


@lru_cache(maxsize=1)  # once a process, not once a block
def _opened(
    checkpoint: Any, sha256: str, folder: str, fingerprint: str, streaming: bool = False
) -> tuple[Embedder, list[Split]]:
    """Model and blocks in another process, which must be the same ones."""
    embedder, data = Embedder.of(checkpoint), PreparedSet.open(folder, streaming)
    if (embedder.identity.sha256, data.facts.fingerprint) != (sha256, fingerprint):
        raise DataError(f"Another process finds another checkpoint '{checkpoint}', or another data set '{folder}'.")
    return embedder, list(blocks_of(embedder, data))


def _embed_block(
    opened: Callable, subject: str | None, montage: str | None, progress: bool, unit: tuple[int, Path]
) -> None:
    """Embed a block of recordings and keep the vectors."""
    (embedder, blocks), (number, path) = opened(), unit
    write_piece(path, embedder.embed_split(blocks[number], subject, montage=montage, progress=progress))


def _shared(table: pa.Table, folder: Path) -> pa.Table:
    """Rows whose `file` does not tell where things lie on this machine."""
    import pyarrow as pa

    places = table["file"].to_pylist()
    shared = {place: shared_place(place, folder) for place in set(places)}
    return table.set_column(
        table.column_names.index("file"), "file", pa.array([shared[place] for place in places], pa.string())
    )


def _described(embedder: Embedder, facts: Facts, made: Interpolation | None) -> str:
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
        **({} if made is None else {"montage": made.as_dict()}),
        "private": NOBODY if facts.simulated else PRIVATE,
    }  # fmt: skip
    return json.dumps(content)
