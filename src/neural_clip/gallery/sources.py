"""Images from where users have them: folders, lists, columns of data sets, prepared data sets."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from neural_clip.errors import DataError
from neural_clip.files.reading import existing
from neural_clip.gallery.columns import IMAGE
from neural_clip.image_pixels import rgb_image
from neural_clip.prepared.image_rows import decoded_image, image_bytes

NO_IMAGES = "a gallery needs at least one image"


class Source(NamedTuple):
    """One image, or where it lies."""

    image_id: str
    image: Any  # a path, or an image or bytes in memory
    concept: str = ""


def images_in(source: Any) -> Iterator[Source]:
    """Go over the images of a folder, a list of files or images, or a data set with a column of images.

    Raises:
        DataError: If there is none, or the source is of another kind.
    """
    if hasattr(source, "column_names"):
        return _of_data_set(source)
    if isinstance(source, str | Path):
        place = Path(source)
        return _of_folder(place) if place.is_dir() else _of_list([existing(place, "image")])
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return _of_list(source)
    return _of_list([source])


def _of_folder(folder: Path) -> Iterator[Source]:
    """All files of a folder and those below it, named by their path in it; hidden ones are left out.

    A pipe, or a link to a file that is gone, is one of them: reading it says so.
    """
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir())
    shown = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not shown:
        raise DataError(f"'{folder}' has no files; {NO_IMAGES}.")
    return (Source(path.relative_to(folder).as_posix(), path) for path in shown)


def _of_list(images: Sequence[Any]) -> Iterator[Source]:
    """Files go by their name, or their path from the folder that holds all where two share it; images by number."""
    if not len(images):
        raise DataError(f"The list is empty; {NO_IMAGES}.")
    paths = [Path(image).absolute() for image in images if isinstance(image, str | Path)]
    names = Counter(path.name for path in paths)
    above = os.path.commonpath([path.parent for path in paths] or [Path()])
    for number, image in enumerate(images):
        if isinstance(image, str | Path):
            name = Path(image).name
            place = Path(os.path.relpath(Path(image).absolute(), above)).as_posix()
            yield Source(name if names[name] == 1 else place, Path(image))
        else:
            yield Source(f"{number:06d}", image)


def _of_data_set(rows: Any) -> Iterator[Source]:
    """The column of images of a `datasets.Dataset`."""
    from datasets import Dataset, Image

    if not isinstance(rows, Dataset):
        raise DataError(f"A {type(rows).__name__} is no table of images; choose a split of it that is held on disk.")
    columns = [name for name, kind in rows.features.items() if isinstance(kind, Image)]
    if len(columns) != 1:
        raise DataError(f"A data set for a gallery has one column of images, but this has {columns or 'none'}.")
    if not len(rows):
        raise DataError(f"The data set has no rows; {NO_IMAGES}.")
    kept = [columns[0], *(name for name in ("image_id", "concept") if name in rows.column_names)]
    rows = rows.select_columns(kept).cast_column(columns[0], Image(decode=False))
    for number, row in enumerate(rows):
        stored = row[columns[0]] or {}
        image = stored.get("bytes") or Path(str(stored.get("path") or ""))
        yield Source(str(row.get("image_id", f"{number:06d}")), image, str(row.get("concept") or ""))


def opened(source: Source) -> Any:
    """An image in RGB.

    Raises:
        DataError: If the file is absent or no image, naming it.
    """
    if isinstance(source.image, Path):
        return decoded_image(existing(source.image, "image").read_bytes(), f"'{source.image}'")[1]
    if isinstance(source.image, bytes):
        return decoded_image(source.image, f"image {source.image_id!r}")[1]
    try:
        return rgb_image(source.image)
    except DataError as error:
        raise DataError(f"Image {source.image_id!r} cannot be used: {error}") from error


def row_of(source: Source) -> dict[str, Any]:
    """What a gallery keeps of an image beside its vector: where its file lies, or the image itself."""
    at_hand = isinstance(source.image, Path)
    return {
        "modality": IMAGE,
        "image_id": source.image_id,
        "concept": source.concept,
        "file": str(source.image) if at_hand else "",
        "pixels": None if at_hand else image_bytes(source.image, f"image {source.image_id!r}"),
    }
