"""Image files without what they tell beside the picture: places, dates, names, cameras, comments, hidden pictures."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import PIL.Image

ORIENTATION = 0x0112  # tag of EXIF that says which side is up
# Segments of JPEG before the picture that say how it is shown; others of APP0 to APP15, and COM, tell more.
JPEG_SEGMENTS = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
# What ends the coded pixels of a scan: a marker that is neither a stuffed byte nor a restart.
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS = {
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"bKGD", b"hIST",
    b"pHYs", b"sPLT", b"cICP", b"acTL", b"fcTL", b"fdAT",
}  # fmt: skip
# Tags of TIFF that say where and how the pixels are stored.
TIFF_TAGS = {
    *range(254, 260), 262, 266, 273, ORIENTATION, *range(277, 285), 290, 291, 292, 296, 301, 317, 318, 319, 320,
    *range(322, 326), 338, 339, 340, 341, 347, *range(529, 533), 34675,
}  # fmt: skip
# What Pillow tells of the other formats that says how pixels are shown.
SHOWN = {"background", "bmp", "compression", "dpi", "duration", "extension", "icc_profile", "loop", "scale",
         "timestamp", "transparency", "version"}  # fmt: skip
PPM_COMMENT = re.compile(rb"P\d\s+(?:\d+\s+){0,2}#")


def without_metadata(image: PIL.Image.Image, content: bytes) -> bytes | None:
    """The file of an image without all that does not say what its pixels look like.

    Args:
        image (`PIL.Image.Image`): The image as Pillow opened it, its pixels loaded.
        content (`bytes`): The file.

    Returns:
        `bytes`: The file as it is where it holds nothing else, JPEG and PNG without what they hold else; `None` where
            the pixels must be saved anew.
    """
    if image.format in ("JPEG", "MPO"):
        return _plain_jpeg(content, image.getexif().get(ORIENTATION, 1))
    if image.format == "PNG":
        return None if image.getexif().get(ORIENTATION, 1) != 1 else _plain_png(content)
    if image.format == "TIFF":
        plain = set(getattr(image, "tag_v2", ())) <= TIFF_TAGS
    elif image.format == "PPM":
        plain = not PPM_COMMENT.match(content)
    else:
        plain = set(image.info) <= SHOWN
    return content if plain else None


def check_png(content: bytes) -> None:
    """Compare the checksums of a PNG file; Pillow looks only at those before the pixels, and at no end.

    Raises:
        ValueError: If a chunk was changed, or the file ends before its last one.
    """
    place, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        end = place + 8 + int.from_bytes(content[place : place + 4], "big")
        kind, stated = content[place + 4 : place + 8], content[end : end + 4]
        if len(stated) < 4 or zlib.crc32(content[place + 4 : end]).to_bytes(4, "big") != stated:
            raise ValueError(f"the chunk at its byte {place} is not what its checksum says, or ends too early")
        place = end + 4


def check_jpeg(content: bytes) -> None:
    """Follow a JPEG file to the end of its picture; Pillow decodes some files that lack their last byte.

    Raises:
        ValueError: If the file ends before its picture.
    """
    place = 2
    while found := JPEG_MARKER.search(content, place):
        if content[found.end() - 1] == 0xD9:
            return
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
    raise ValueError("the picture has no end")


def _plain_jpeg(content: bytes, orientation: int) -> bytes | None:
    """A JPEG file with its first picture alone, and of EXIF the orientation; `None` if it cannot be followed."""
    parts, place, scan = [content[:2]], 2, False
    while found := JPEG_MARKER.search(content, place):
        begin, marker, segment = found.start(), content[found.end() - 1], content[found.end() + 2 :][:12]
        if scan:
            parts.append(content[place:begin])
        scan = marker == 0xDA
        if marker == 0xD9:  # the end; what follows is another picture, a film or anything else
            return b"".join([*parts, b"\xff\xd9"])
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
        tells = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not tells or segment.startswith(JPEG_SEGMENTS.get(marker, b"\0none")):
            parts.append(content[begin:place])
        elif segment.startswith(b"Exif\0") and orientation != 1:
            parts.append(_orientation(orientation))
            orientation = 1
    return None


def _orientation(orientation: int) -> bytes:
    """A segment of JPEG with an EXIF that says which side is up, and nothing else."""
    from PIL import Image

    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    block = exif.tobytes()
    return b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block


def _plain_png(content: bytes) -> bytes:
    """A PNG file with the chunks of its pixels alone."""
    parts, place, kind = [PNG_SIGNATURE], len(PNG_SIGNATURE), b""
    while kind != b"IEND" and place + 8 <= len(content):
        kind, begin = content[place + 4 : place + 8], place
        place += 12 + int.from_bytes(content[place : place + 4], "big")
        parts.append(content[begin:place] if kind in PNG_CHUNKS else b"")
    return b"".join(parts)
