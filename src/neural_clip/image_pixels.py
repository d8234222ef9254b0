"""Image files opened by one list of formats, and images of every mode as 8-bit RGB by one rule."""

import io
import os
import warnings
from threading import Lock
from typing import Any

import numpy as np

from .errors import DataError

# Formats whose 16-bit files Pillow may open as 32-bit numbers; elsewhere nothing says which of those is white.
WIDE_FORMATS = ("PNG", "PPM")
WHITE = (255, 255, 255, 255)
# What collections of photographs hold. Pillow knows more, some by other programs: it gives EPS to Ghostscript.
IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # JPEG includes MPO
OPENING = Lock()  # filters of warnings are of the process: two threads that change them would leave them changed
MAX_PIXELS = 89_478_485  # where Pillow begins to warn; in RGB a quarter of a GiB


def open_image(content: bytes) -> Any:
    """The image of a file, by its header; its pixels are read when they are needed.

    Args:
        content (`bytes`): Content of a file of one of [`IMAGE_FORMATS`], whatever its name was.

    Returns:
        `PIL.Image.Image`: Of an animation, the first frame.

    Raises:
        DataError: If the image has more than [`MAX_PIXELS`] pixels.
        Exception: Whatever Pillow raises on a file that is damaged or of another format.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("Images need Pillow: pip install pillow.") from error

    with OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
        try:
            image = Image.open(io.BytesIO(content), formats=IMAGE_FORMATS)
        except Image.DecompressionBombError as error:
            raise DataError(f"An image of too many pixels; allowed are {MAX_PIXELS:,}.") from error
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"An image of {image.width} x {image.height} pixels; allowed are {MAX_PIXELS:,} in all.")
    return image


def rgb_image(image: Any) -> Any:
    """An image as a viewer shows it, in 8-bit RGB.

    It stands upright by the orientation of its EXIF data. What is transparent lies on white. Of 16 bits the upper 8
    count. Of an animation the frame counts at which the image stands, in a file the first. Other modes are converted
    as Pillow does.

    Args:
        image (`PIL.Image.Image` or `np.ndarray`): An image of any mode and size, or uint8 of shape `(height, width)`,
            `(height, width, 3)` or `(height, width, 4)`.

    Returns:
        `PIL.Image.Image`: An image of mode RGB.

    Raises:
        DataError: If an array has another type or shape, or an image holds 32-bit numbers (modes I and F), of which
            no file says which one is white.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("Images need Pillow: pip install pillow.") from error

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
            raise DataError(f"An array of {image.dtype} {image.shape}; expected uint8 (height, width[, 3 or 4]).")
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise DataError(f"A {type(image).__name__}; allowed are an image of Pillow and an array of uint8.")
    image.load()  # some files tell their orientation after their pixels
    kind = image.format  # copies do not know it
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in WIDE_FORMATS):
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DataError(
            f"An image of mode {image.mode} (32-bit numbers), which does not tell the number for white; save it with "
            "8 or 16 bits a channel."
        )
    if image.mode == "La":  # Pillow knows no way from here to RGB
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    return image.convert("RGB")


def rgb_images(images: Any) -> Any:
    """What an image processor takes, its images of Pillow by [`rgb_image`]; arrays and tensors stay as they are.

    Raises:
        DataError: If names of files or addresses are given.
    """
    if isinstance(images, str | bytes | os.PathLike):  # an image processor would open it, or get it from the net
        raise DataError(f"Images are given as images, but got {images!r}; open the file first, by `PIL.Image.open`.")
    if isinstance(images, list | tuple):
        return [rgb_images(image) for image in images]
    return rgb_image(images) if hasattr(images, "getexif") else images
