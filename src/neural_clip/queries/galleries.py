"""Galleries as a shell names them: folders of images, prepared data sets, saved galleries."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from neural_clip.errors import DataError
from neural_clip.files.places import place_line
from neural_clip.files.whole import check_apart, check_free, only_writer, place_of
from neural_clip.gallery.columns import IMAGE, column_of
from neural_clip.gallery.embedder import Embedder
from neural_clip.gallery.neural_gallery import NeuralGallery
from neural_clip.gallery.opening import opened_place
from neural_clip.gallery.options import BuildOptions
from neural_clip.gallery.parquet import NOBODY, PRIVATE
from neural_clip.gallery.stored import GALLERY_FILE
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.prepared.splits import SPLITS


def open_gallery(
    places: Sequence[str], embedder: Embedder, *, recordings: bool, split: str | None = None,
    pictures: Path | None = None, montage: str | None = None,
) -> NeuralGallery:  # fmt: skip
    """Open what is searched, for the queries of a model.

    Args:
        places (`Sequence[str]`): Saved galleries and prepared data sets; where images are searched, also folders of
            images. Their rows are searched together.
        embedder ([`Embedder`]): Embeds what is not embedded yet, and the queries.
        recordings (`bool`): Take the recordings of prepared data sets, not their images.
        split (`str`, *optional*): Of prepared data sets and galleries of recordings.
        pictures (`Path`, *optional*): Where the images of saved galleries lie by now.
        montage (`str`, *optional*): `"interpolate"` makes the model's channels that prepared data sets lack.

    Raises:
        DataError: If one is none of these, belongs to another model, or the two hold images and recordings.
    """
    parts = [_opened(place, embedder, recordings, split, pictures, montage) for place in places]
    return reduce(NeuralGallery.add, parts)


def _opened(
    place: str, embedder: Embedder, recordings: bool, split: str | None, pictures: Path | None, montage: str | None
) -> NeuralGallery:
    """One of them."""
    found = opened_place(place, embedder, pictures)
    if isinstance(found, NeuralGallery):
        return found if split is None else found.filter(split=split)
    if found is not None:
        data = found if split is None else found.split(split)
        if recordings:
            return NeuralGallery.from_recordings(embedder, data, montage=montage)
        return NeuralGallery.from_images(embedder, data)
    if recordings or split is not None:
        wanted = "recordings" if recordings else f"a {split} split"
        there = "There is no" if not Path(place).exists() else "It is no"
        raise DataError(
            f"'{place}' cannot be searched for {wanted}. {there} gallery or prepared data set of that name."
        )
    return NeuralGallery.from_images(embedder, place)


def build_gallery(sources: Sequence[str], checkpoint: str, folder: Path, options: BuildOptions) -> Path:
    """Embed images or recordings and save them.

    Args:
        sources (`Sequence[str]`): Folders of images or prepared data sets; for recordings prepared data sets.
        checkpoint (`str`): Folder or Hub name.
        folder (`Path`): Where the gallery goes; it appears whole or not at all.
        options ([`BuildOptions`]): What is embedded, and how it is kept.

    Raises:
        DataError: If a source holds nothing or does not fit the model, or the folder is taken.
    """
    for name in ("subjects", "montage"):
        if getattr(options, name) and not options.recordings:
            raise DataError(f"--{name} is for recordings: give --recordings too.")
    place = place_of(folder)
    # in the folder of a checkpoint a gallery may lie
    held = [checkpoint] if place in Path(os.path.realpath(checkpoint)).parents else []
    check_apart(folder, [source for source in (*sources, *held) if Path(source).exists()])
    with only_writer(place):
        check_free(place, holds=GALLERY_FILE, what="gallery", overwrite=options.overwrite)
        embedder = Embedder.of(checkpoint)
        if options.recordings:
            parts = [part for source in sources for part in _splits(embedder, source, options)]
            found = NeuralGallery.from_recordings(embedder, parts, dtype=options.dtype, montage=options.montage)
            print(NOBODY if all(part.facts.simulated for part in parts) else PRIVATE, file=sys.stderr)
            for one in found.montage:
                print(f"'{one['of']}': {one['said']}", file=sys.stderr)
        else:
            found = reduce(
                NeuralGallery.add,
                (NeuralGallery.from_images(embedder, _images(source, options), dtype=options.dtype)
                 for source in sources),
            )  # fmt: skip
        return found.save_to_disk(folder, overwrite=options.overwrite)


def _splits(embedder: Embedder, source: str, options: BuildOptions) -> Iterator[Split]:
    """Splits of a prepared data set that were asked for, with people called as the model calls them."""
    data = PreparedSet.open(source)
    data = data.named_for(embedder.known(data.facts.modality))
    for name in SPLITS if options.split is None else (options.split,):
        counts = data.facts.subject_splits
        people = [who for who in options.subjects or data.facts.subjects if counts.get(who, {}).get(name)]
        if unknown := sorted(set(options.subjects or ()) - set(data.facts.subjects)):
            raise DataError(f"'{source}' has no subject {unknown}; it has {data.facts.subjects}.")
        if people:
            yield data.split(name, people)


def _images(source: str, options: BuildOptions) -> Any:
    """A folder of images, a prepared data set or a split of it."""
    if options.split is None:
        return source
    found = opened_place(source)
    if not isinstance(found, PreparedSet):
        raise DataError(f"'{source}' is no prepared data set, so it has no {options.split} split.")
    return found.split(options.split)


def facts_of_gallery(place: str | Path) -> dict[str, Any]:
    """What a gallery, saved or on the Hub, holds and what made it, once its files are those that were written.

    Raises:
        DataError: If it is no gallery, or a file of it is damaged or missing.
    """
    gallery = NeuralGallery.from_pretrained(place)
    rows = Counter(column_of(gallery.rows, "modality"))
    return {
        "gallery": str(place),
        "rows": dict(rows),
        "images": len(set(gallery.image_ids.tolist())),
        "subjects": dict(sorted(Counter(name for name in gallery.subjects.tolist() if name).items())),
        "vectors": {"dtype": str(gallery.vectors.dtype), "projection_dim": gallery.vectors.shape[1]},
        "encoder": gallery.encoder.named if gallery.encoder else None,
        "checkpoint": vars(gallery.checkpoint) if gallery.checkpoint else None,
        **({"montage": list(gallery.montage)} if gallery.montage else {}),
        "files": "as they were written: each has the SHA-256 that gallery.json lists",
    }


def in_lines(facts: dict[str, Any]) -> str:
    """What [`facts_of_gallery`] gives, a line each."""
    titles = {IMAGE: "images"} | {name: f"{modality.title} recordings" for name, modality in MODALITIES.items()}
    encoder, checkpoint, vectors = facts["encoder"], facts["checkpoint"], facts["vectors"]
    lines = {
        "rows": ", ".join(f"{count:,} {titles.get(name, name)}" for name, count in facts["rows"].items()),
        "images": f"{facts['images']:,}",
        "subjects": ", ".join(f"{name} ({count:,})" for name, count in facts["subjects"].items()) or "none",
        "vectors": f"{vectors['projection_dim']} numbers of {vectors['dtype']}",
        "encoder": "not known" if encoder is None
        else f"{encoder['name']} ({encoder['pooling']}, {encoder['revision']})",
        "checkpoint": "none: images are of the encoder alone" if checkpoint is None
        else f"{checkpoint['name']} (weights {checkpoint['sha256'][:12]})",
        **{f"montage of {one['of']}": one["said"] for one in facts.get("montage", ())},
        "files": facts["files"],
        "gallery": facts["gallery"],
    }  # fmt: skip
    return "\n".join(place_line(name, text) for name, text in lines.items())
