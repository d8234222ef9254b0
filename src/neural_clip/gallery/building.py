"""Rows of galleries, made from images, recordings and prepared data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.errors import DataError, is_hub_name
from neural_clip.gallery.columns import DTYPES, IMAGE, column_of, joined, table_of, vectors_of
from neural_clip.gallery.embedder import BATCH, Embedder
from neural_clip.gallery.embedding import SUBJECT_MEAN, aggregate
from neural_clip.gallery.fit import interpolation_of
from neural_clip.gallery.sharing import OWN_IMAGES, Terms, joined_terms, terms_of_data
from neural_clip.gallery.sources import images_in, opened, row_of
from neural_clip.prepared.facts import METADATA_FILE
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.prepared.splits import SPLITS
from neural_clip.retrieval.tiles import unit_vectors
from neural_clip.targets.identity import EncoderIdentity, identity_of, in_space_of

if TYPE_CHECKING:
    import datasets

    from neural_clip.prepared.image_table import ImageTable

# Embeddings of one picture by one encoder differ by rounding alone, those of different pictures by far more.
SAME_IMAGE_COSINE = 1 - 1e-5
BLOCK_RECORDINGS = 64 * BATCH  # of a split, in memory at a time


def rows_of_images(
    embedder: Embedder | None, tower: Any, source: Any, dtype: str
) -> tuple[datasets.Dataset, EncoderIdentity | None, Terms]:
    """Rows of a source of images, what embedded them (a model, or an image encoder alone), and terms of the source."""
    terms: Terms = {IMAGE: [OWN_IMAGES]}
    if isinstance(source, str | Path):
        if is_hub_name(source) or (Path(source) / METADATA_FILE).is_file():
            source = PreparedSet.open(source)
        elif not Path(source).exists():
            raise DataError(f"There is no folder or image '{source}'.")
    if isinstance(source, PreparedSet | Split):
        data = source.data if isinstance(source, Split) else source
        terms = terms_of_data(IMAGE, data.facts)
        if data.facts.image_encoder:
            return *_stored_images(embedder, tower, source, dtype), terms
        source = data.stored_images.select(_rows_shown(source)) if isinstance(source, Split) else data.stored_images
    embed: Callable = embedder.embed_images if embedder else tower.encode
    parts, sources = [], images_in(source)
    while some := list(islice(sources, BATCH)):
        kept = [row_of(one) for one in some]
        columns = {name: [row[name] for row in kept] for name in kept[0]}
        parts.append(table_of(embed([opened(one) for one in some]), dtype, **columns))
    return without_repeats(joined(parts)), embedder.encoder if embedder else encoder_of_tower(tower), terms


def encoder_of_tower(tower: Any) -> EncoderIdentity:
    """What an image encoder is, with its vectors of the probe images."""
    from neural_clip.targets.probes import space_of

    return EncoderIdentity.of_facts(tower.description, space_of(tower))


def _rows_shown(part: Split) -> np.ndarray:
    """Rows of the `images` config that a split shows."""
    return np.flatnonzero(np.isin(part.data.stored_images["image_id"][:], part.shown_ids))


def _stored_images(
    embedder: Embedder | None, tower: Any, source: PreparedSet | Split, dtype: str
) -> tuple[datasets.Dataset, EncoderIdentity | None]:
    """Embedded images of a prepared data set, once they are known to be of the model's or the encoder's space."""
    data = source.data if isinstance(source, Split) else source
    if embedder is not None:
        data = in_space_of(embedder.model.config, data, f"The model '{embedder.identity.name}'")
    else:
        encoder_of_tower(tower).require(identity_of(data.facts), "The image encoder", f"'{data.name}'")
    if isinstance(source, Split):
        return split_images(replace(source, data=data), dtype), identity_of(data.facts)
    return table_images(data, data.images, dtype), identity_of(data.facts)


def table_images(data: PreparedSet, table: ImageTable, dtype: str = DTYPES[0]) -> datasets.Dataset:
    """Rows of images of a prepared data set."""
    return table_of(
        table.embeds, dtype, modality=IMAGE, image_id=table.image_ids, concept=table.concepts,
        categories=table.categories, file=str(data.folder),
    )  # fmt: skip


def split_images(part: Split, dtype: str = DTYPES[0]) -> datasets.Dataset:
    """Rows of the images in which those of a split are looked for, each once."""
    return table_of(
        part.gallery_embeds, dtype, modality=IMAGE, image_id=part.gallery_ids, concept=part.gallery_concepts,
        categories=part.gallery_categories, file=str(part.data.folder),
    )  # fmt: skip


def split_recordings(
    part: Split, vectors: np.ndarray, dtype: str = DTYPES[0], layers: Sequence[str] | str = ""
) -> datasets.Dataset:
    """Rows of the recordings of a split, embedded as `vectors` through the alignment layers of these subjects."""
    concepts, categories = part.gallery_concepts, part.gallery_categories
    sessions = part.labels("session")["session"].tolist() if hasattr(part.recordings, "select_columns") else ""
    return table_of(
        vectors, dtype, modality=part.modality, image_id=part.image_ids,
        concept=[concepts[column] for column in part.columns],
        categories=[categories[column] for column in part.columns],
        subject=part.subjects, session=sessions, split=part.name, file=str(part.data.folder), layer=layers,
    )  # fmt: skip


def rows_of_recordings(
    embedder: Embedder, data: Any, subject: str | None, dtype: str, montage: str | None = None
) -> tuple[datasets.Dataset, EncoderIdentity | None, Terms, tuple[dict, ...]]:
    """Rows of the recordings of splits or data sets, embedded some thousand at a time, terms of the data sets, and
    which channels were interpolated.
    """
    parts, encoder, terms = [], embedder.encoder, []
    made: dict[str, dict] = {}
    for part in blocks_of(embedder, data):
        _, vectors, layers = embedder.embed_with_layers(part, subject, montage=montage)
        if found := interpolation_of(embedder.model.config, part.data, montage):
            made[part.data.name] = {"of": part.data.name, **found.as_dict()}
        encoder = encoder or encoder_of(part)
        terms.append(terms_of_data(part.modality, part.facts, part.subjects))
        parts.append(split_recordings(part, vectors, dtype, layers))
    if not parts:
        raise DataError("There are no recordings; a gallery needs at least one.")
    return joined(parts), encoder, joined_terms(terms), tuple(made.values())


def blocks_of(embedder: Embedder, data: Any) -> Iterator[Split]:
    """Some thousand recordings of splits or data sets at a time, with images in the space of a model."""
    for whole in _splits_of(data):
        whole = whole.named_for(embedder.known(whole.modality))
        in_space = in_space_of(embedder.model.config, whole.data, f"The model '{embedder.identity.name}'")
        whole = replace(whole, data=in_space)
        for start in range(0, len(whole), BLOCK_RECORDINGS):
            yield whole.at(np.arange(start, min(start + BLOCK_RECORDINGS, len(whole))))


def _splits_of(data: Any) -> Iterator[Split]:
    """Splits that are given, and all of those of data sets."""
    if isinstance(data, Split):
        yield data
    elif isinstance(data, str | Path | PreparedSet):
        whole = PreparedSet.open(data)
        yield from (whole.split(name) for name in SPLITS if whole.facts.splits.get(name, {}).get("rows"))
    elif isinstance(data, Sequence):
        for one in data:
            yield from _splits_of(one)
    else:
        raise DataError(
            f"A gallery of recordings is made of prepared data sets and their splits, not of {type(data).__name__}."
        )


def encoder_of(part: Split) -> EncoderIdentity | None:
    """What embedded the images of a split; `None` where its data set does not say."""
    return identity_of(part.facts) if part.facts.image_encoder else None


def without_repeats(rows: datasets.Dataset) -> datasets.Dataset:
    """Rows with each image once; a `DataError` where two images have one name. Recordings stay as they are."""
    names = np.array(column_of(rows, "image_id"))
    _, first, number = np.unique(names, return_index=True, return_inverse=True)
    if len(first) == len(names) or set(column_of(rows, "modality")) != {IMAGE}:
        return rows
    units = unit_vectors(vectors_of(rows))
    cosines = (units * units[first[number]]).sum(axis=1)
    tolerance = SAME_IMAGE_COSINE if rows.features["vector"].feature.dtype == "float32" else 1 - 1e-3
    if (cosines < tolerance).any():
        name = names[int(np.argmin(cosines))]
        raise DataError(f"Two images are called {str(name)!r}; in a gallery each image has a name of its own.")
    return rows.select(np.sort(first))


def mean_rows(rows: datasets.Dataset) -> datasets.Dataset:
    """The mean of the unit vectors of all recordings of one modality that answered to one image, of each image."""
    parts, kinds = [], np.array(column_of(rows, "modality"))
    for modality in np.unique(kinds):
        own = rows.select(np.flatnonzero(kinds == modality))
        behind = own.select_columns(["file", "image_id"]).with_format("arrow")[:].to_pylist()
        keys = np.array([f"{row['file']}\n{row['image_id']}" for row in behind])
        means, _, _ = aggregate(vectors_of(own), keys, keys, SUBJECT_MEAN)  # in the order of their keys
        first = own.select(np.unique(keys, return_index=True)[1])
        kept: dict[str, Any] = {
            name: column_of(first, name) for name in ("image_id", "concept", "categories", "split", "file")
        }
        parts.append(table_of(means.astype(np.float32), modality=str(modality), subject="all", layer="all", **kept))
    return joined(parts)
