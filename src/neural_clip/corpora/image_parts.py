"""The images of a corpus as parts that are written on their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from neural_clip.prepared.parts import Part

Image = TypeVar("Image")
IMAGES_A_PART = 1000
"""At most about 0.5 GB of pixels, some minutes of work."""


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
