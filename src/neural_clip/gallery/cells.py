"""Pictures in squares with a frame and a caption: what panels of retrieved images are drawn of."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.errors import check_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELL_INCHES = 1.1
LABEL_WIDTH, PITCH = 1.0, 1.25  # in cells: of row titles, from row to row
MAX_CAPTION = 21
EVERYBODY = "all"  # the subject of a mean of recordings
WORDNET_ID = re.compile(r"\bn\d{8} ")  # before a concept of ImageNet; the word is what tells it apart
THUMBNAIL = 192  # pixels; more than a cell has
QUERY, FOUND = "#222222", "#9a9a9a"
MAX_ROWS = 50  # of one picture


def thumbnail(image: Any) -> np.ndarray:
    """Pixels of an image at the size of a cell."""
    image = image.copy()
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(image)


def draw_cell(axes: Axes, left: float, top: float, pixels: np.ndarray | None, colour: str, caption: str) -> None:
    """One image in a unit square, with a frame and a caption; images that are not square keep their shape."""
    if pixels is None:
        axes.text(left + 0.5, top + 0.5, "no pixels", ha="center", va="center", fontsize=7)
    else:
        height, width = (size / max(pixels.shape[:2]) for size in pixels.shape[:2])
        x, y = left + (1 - width) / 2, top + (1 - height) / 2
        axes.imshow(pixels, extent=(x, x + width, y + height, y), interpolation="antialiased")
    draw_frame(axes, left, top, 1.0, colour)
    caption = WORDNET_ID.sub("", caption).replace("_", " ")
    text = caption if len(caption) <= MAX_CAPTION else caption[: MAX_CAPTION - 1] + "…"
    axes.text(left + 0.5, top + 1.05, text, ha="center", va="top", fontsize=6, parse_math=False)


def draw_frame(axes: Axes, left: float, top: float, size: float, colour: str) -> None:
    """Square frame."""
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle((left, top), size, size, fill=False, edgecolor=colour, linewidth=3.0 if size == 1 else 2.0)
    )


def axes_of(ax: Axes | None, figsize: tuple[float, float]) -> Axes:
    """Those that are given, or of a new figure of `pyplot`; a `DataError` for what is neither, such as a file."""
    from matplotlib import axes, pyplot

    if ax is None:
        return pyplot.subplots(figsize=figsize, layout="constrained")[1]
    allowed = "axes of matplotlib, whose picture `.figure.savefig(FILE)` of what is returned writes"
    check_value("ax", ax, isinstance(ax, axes.Axes), allowed)
    return ax


def draw_hits(hits: Any, ax: Axes | None) -> Axes:
    """Draw [`Hits`]: a row for each of the first 50 queries; see [`Hits.plot`]."""
    shown = hits[:MAX_ROWS]
    first = 1 if hits.asked is not None else 0  # images that are asked for, or were seen, stand left
    width = LABEL_WIDTH + 1.1 * (first + len(shown[0])) + 0.1
    height = PITCH * len(shown) + 0.1
    ax = axes_of(ax, (CELL_INCHES * width, CELL_INCHES * height))
    ax.axis("off")
    for number, ranked in enumerate(shown):
        top = PITCH * number + 0.05
        ax.text(LABEL_WIDTH - 0.12, top + 0.5, hits.titles[number], ha="right", va="center", fontsize=7.5,
                parse_math=False)  # fmt: skip
        if hits.asked is not None:
            asked = hits.asked[number]
            draw_cell(ax, LABEL_WIDTH, top, None if asked is None else thumbnail(asked), QUERY, hits.asked_as)
        for place, hit in enumerate(ranked):
            person = "" if hit.subject == EVERYBODY else hit.subject
            caption = f"{hit.score:.2f} {person or hit.concept or hit.image_id}"
            pixels = None if hit.image is None else thumbnail(hit.image)
            draw_cell(ax, LABEL_WIDTH + 1.1 * (first + place), top, pixels, FOUND, caption)
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    return ax
