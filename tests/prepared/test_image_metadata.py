"""Files of images tell nothing but their picture once they are in a data set."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from neural_clip.errors import DataError
from neural_clip.image_pixels import rgb_image
from neural_clip.prepared.image_rows import image_bytes

PERSON = "Zqphotographer"
PIXELS = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
XMP = f"<x:xmpmeta>{PERSON}</x:xmpmeta>".encode()


def exif(orientation=6):
    found = Image.Exif()
    found[0x013B], found[0x0112] = PERSON, orientation
    found.get_ifd(ExifTags.IFD.GPSInfo)[29] = PERSON
    return found


def texts():
    found = PngImagePlugin.PngInfo()
    found.add_text("Author", PERSON)
    found.add_itxt("XML:com.adobe.xmp", PERSON)
    return found


def saved(kind, trailer=b"", **options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format=kind, **options)
    return buffer.getvalue() + trailer


FILES = {
    "JPEG with EXIF, places and a comment": lambda: saved("JPEG", exif=exif(), comment=PERSON, xmp=XMP),
    "upright JPEG": lambda: saved("JPEG", exif=exif(1), icc_profile=b"profile"),
    "progressive JPEG": lambda: saved("JPEG", exif=exif(3), progressive=True, restart_marker_rows=1),
    "JPEG with a film behind it": lambda: saved("JPEG", trailer=b"film" + PERSON.encode()),
    "several pictures in one JPEG": lambda: saved("MPO", save_all=True, append_images=[], comment=PERSON),
    "PNG with texts": lambda: saved("PNG", pnginfo=texts(), icc_profile=b"profile"),
    "PNG with EXIF": lambda: saved("PNG", exif=exif()),
    "PNG with something behind it": lambda: saved("PNG", trailer=PERSON.encode()),
    "WebP": lambda: saved("WEBP", exif=exif(1), xmp=XMP),
    "TIFF": lambda: saved("TIFF", exif=exif()),
    "GIF": lambda: saved("GIF", comment=PERSON),
    "PPM": lambda: saved("PPM").replace(b"P6\n", b"P6\n# " + PERSON.encode() + b"\n", 1),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_a_file_tells_beside_its_picture_is_not_stored(tmp_path, kind):
    content = FILES[kind]()
    assert PERSON.encode() in content or kind.startswith("up") or kind.startswith("several")
    (tmp_path / "picture").write_bytes(content)
    stored = image_bytes(tmp_path / "picture", "image 'x'")
    assert PERSON.encode() not in stored and b"GPS" not in stored and len(stored) < 10 * len(content)
    before, after = (rgb_image(Image.open(io.BytesIO(found))) for found in (content, stored))
    assert before.tobytes() == after.tobytes() and before.size == after.size


def test_photographs_are_not_coded_again():
    for kind in ("JPEG with EXIF, places and a comment", "upright JPEG", "progressive JPEG"):
        stored = image_bytes(FILES[kind](), "image 'x'")
        assert stored[:2] == b"\xff\xd8" and len(stored) < len(FILES[kind]())
    assert Image.open(io.BytesIO(image_bytes(FILES["upright JPEG"](), "x"))).info["icc_profile"] == b"profile"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "PPM", "BMP"])
def test_files_that_tell_nothing_more_keep_their_bytes(kind):
    assert image_bytes(saved(kind), "image 'x'") == saved(kind)


@pytest.mark.parametrize("texts", [None, texts()], ids=["plain", "with texts"])
def test_no_changed_byte_of_a_png_is_taken(texts):
    """Pillow compares no checksum after the pixels begin, and misses a lost end."""
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[:2, :3]).save(buffer, format="PNG", pnginfo=texts)
    content = buffer.getvalue()
    assert image_bytes(content, "image 'x'") and image_bytes(content + b"behind", "image 'x'")
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        for damaged in (bytes(changed), content[:place]):
            with pytest.raises(DataError, match=r"^image 'x' (is no readable image file|cannot be used)"):
                image_bytes(damaged, "image 'x'")
