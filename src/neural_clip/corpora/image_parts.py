"""The images of a corpus: whether all can be used, and as parts that are written on their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from neural_clip.errors import DataError
from neural_clip.prepared.parts import Part

Image = TypeVar("Image")
IMAGES_A_PART = 1000
"""At most about 0.5 GB of pixels, some minutes of work."""


def check_images(paths: Iterable[Path], check: Callable[[Path], object]) -> None:
    """Raise one `DataError` that counts the images which `check` refuses, because they are missing or no files."""
    problems = []
    for path in paths:
        try:
            check(path)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(f"{len(problems)} of the images cannot be used; first: {problems[0]}")


def image_parts(
    images: Sequence[Image],
    rows: Callable[[Sequence[Image]], Iterable[dict]],
    files: Callable[[Sequence[Image]], Iterable[Path]],
) -> list[Part]:
    """Parts of images, in their order.

    Args:
        images (`Sequence`): What tells of an image, whatever that is.
        rows (`Callable`): Gives the rows of some of the images; must be picklable.
        files (`Callable`): Gives the raw files on which the rows of some of the images depend.
    """
    chunks = [images[first : first + IMAGES_A_PART] for first in range(0, len(images), IMAGES_A_PART)]
    return [
        Part(f"images-{number:04d}", partial(rows, chunk), tuple(files(chunk)), len(chunk))
        for number, chunk in enumerate(chunks)
    ]
