"""One rule for images of every mode, in a data set's preparation, its embedding and wherever else they are read."""

import contextlib
import io

import datasets
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from transformers import CLIPImageProcessor

from neural_clip.configuration_neural_clip import EegConfig, NeuralClipConfig
from neural_clip.errors import DataError
from neural_clip.image_pixels import rgb_image
from neural_clip.prepared.image_rows import image_bytes
from neural_clip.processing_neural_clip import NeuralClipProcessor
from neural_clip.targets.unique_images import decoded

SHADES = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.stack([SHADES, SHADES[::-1], SHADES.T], axis=2)
ORIENTATION = 0x0112


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def palette(**options):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 20, 0, 0, 255])
    image.putdata([0, 1])
    return saved(image, **options)


def layers(mode, *levels):
    return Image.merge(mode, [Image.new("L", (3, 2), level) for level in levels])


# Files of each mode, and the colour of their first pixel worked out by hand.
FILES = {
    "1": (saved(Image.new("1", (3, 2), 1)), (255, 255, 255)),
    "L": (saved(Image.new("L", (3, 2), 90)), (90, 90, 90)),
    "LA": (saved(layers("LA", 90, 51)), (222, 222, 222)),  # 0.2 * 90 + 0.8 * 255
    "P": (palette(), (200, 10, 20)),
    "P transparent": (palette(transparency=0), (255, 255, 255)),
    "P opaque there": (palette(transparency=1), (200, 10, 20)),
    "RGB": (saved(layers("RGB", 1, 2, 3)), (1, 2, 3)),
    "RGB transparent": (saved(layers("RGB", 1, 2, 3), transparency=(1, 2, 3)), (255, 255, 255)),
    "RGBA": (saved(layers("RGBA", 0, 100, 250, 102)), (153, 193, 253)),  # 0.4 of it on white
    "RGBA opaque": (saved(layers("RGBA", 0, 100, 250, 255)), (0, 100, 250)),
    "CMYK": (saved(layers("CMYK", 0, 255, 255, 0), "TIFF"), (255, 0, 0)),
    "I;16": (saved(Image.fromarray(np.full((2, 3), 0x8123, np.uint16))), (0x81, 0x81, 0x81)),
    "I;16 of TIFF": (saved(Image.fromarray(np.full((2, 3), 0x8123, np.uint16)), "TIFF"), (0x81, 0x81, 0x81)),
    "animated": (
        saved(Image.new("RGB", (2, 1), (9, 8, 7)), save_all=True, append_images=[Image.new("RGB", (2, 1))]),
        (9, 8, 7),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_file_looks_the_same_wherever_it_is_read(kind):
    content, colour = FILES[kind]
    image = Image.open(io.BytesIO(content))
    shown = rgb_image(image)
    assert shown.mode == "RGB"
    np.testing.assert_allclose(shown.getpixel((0, 0)), colour, atol=1)
    kept = image_bytes(content, "image 'x'")
    for other in (
        rgb_image(Image.open(io.BytesIO(content)).copy()) if image.mode != "I" else shown,  # as users hand it over
        decoded({"image_id": "x", "image": {"bytes": content}}, "set"),  # data sets that were prepared before
        decoded({"image_id": "x", "image": {"bytes": kept}}, "set"),
        Image.open(io.BytesIO(kept)).convert("RGB"),  # a plain reader of the prepared data set
        Image.open(io.BytesIO(image_bytes(Image.open(io.BytesIO(content)), "image 'x'"))),
    ):
        assert other.mode == "RGB" and other.tobytes() == shown.tobytes()


@pytest.fixture(scope="module")
def processor():
    config = NeuralClipConfig(eeg_config=EegConfig(n_chans=3, n_times=50, sfreq=100.0, subjects=["sub-01"]))
    return NeuralClipProcessor.from_config(config, CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16))


@pytest.mark.parametrize("kind", [*FILES, "turned"])
def test_the_processor_sees_what_embed_images_sees(processor, kind):
    """Whether a file, a row of `load_dataset` or the pixels of `embed-images` are given."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = saved(Image.fromarray(COLOURS[:9]), "JPEG", exif=exif) if kind == "turned" else FILES[kind][0]
    expected = processor(decoded({"image_id": "x", "image": {"bytes": content}}, "set"))["pixel_values"]
    row = datasets.Image().decode_example({"bytes": image_bytes(content, "image 'x'"), "path": None})
    for images in (Image.open(io.BytesIO(content)), [Image.open(io.BytesIO(content))], row):
        assert torch.equal(processor(images)["pixel_values"], expected)
    arrays = list(np.random.default_rng(0).integers(0, 255, (2, 20, 30, 3), dtype=np.uint8))
    plain = processor.image_processor(arrays, return_tensors="pt")["pixel_values"]
    assert torch.equal(processor(arrays)["pixel_values"], plain)


@pytest.mark.parametrize("kind", ["1", "L", "P", "P opaque there", "RGB", "RGBA opaque", "CMYK", "animated"])
def test_files_that_plain_readers_show_alike_keep_their_bytes(kind):
    content, _ = FILES[kind]
    if kind != "P opaque there":  # its other pixel is transparent
        assert image_bytes(content, "image 'x'") == content


def test_ordinary_jpeg_files_and_pixels_are_what_they_were():
    content = saved(Image.fromarray(COLOURS), "JPEG")
    assert image_bytes(content, "image 'x'") == content
    assert (
        rgb_image(Image.open(io.BytesIO(content))).tobytes()
        == Image.open(io.BytesIO(content)).convert("RGB").tobytes()
    )
    assert image_bytes(COLOURS, "image 'x'") == saved(Image.fromarray(COLOURS))


def test_a_jpeg_without_its_last_bytes_is_damaged_though_pillow_may_decode_it():
    decoded = 0
    for seed in range(200):
        content = saved(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)), "JPEG")
        for cut in (1, 2, 3):
            with contextlib.suppress(OSError):
                Image.open(io.BytesIO(content[:-cut])).load()
                decoded += 1
            with pytest.raises(DataError, match="damaged or truncated"):
                image_bytes(content[:-cut], "image 'x'")
        image_bytes(content + b"a film", "image 'x'")
    assert decoded  # without a word


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright(orientation):
    # How a camera that is held so stores the picture, by the EXIF standard.
    stored = {
        1: COLOURS, 2: COLOURS[:, ::-1], 3: COLOURS[::-1, ::-1], 4: COLOURS[::-1], 5: COLOURS.transpose(1, 0, 2),
        6: np.rot90(COLOURS), 7: np.rot90(COLOURS, 2).transpose(1, 0, 2), 8: np.rot90(COLOURS, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = saved(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    upright = rgb_image(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(np.asarray(upright), COLOURS)
    assert upright.getexif().get(ORIENTATION, 1) == 1 and rgb_image(upright).tobytes() == upright.tobytes()
    plain = rgb_image(Image.open(io.BytesIO(image_bytes(content, "image 'x'"))))
    np.testing.assert_array_equal(np.asarray(plain), COLOURS)
    assert decoded({"image_id": "x", "image": {"bytes": content}}, "set").tobytes() == upright.tobytes()
    held = Image.open(io.BytesIO(image_bytes(Image.open(io.BytesIO(content)), "image 'x'")))
    assert held.tobytes() == upright.tobytes()


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_16_bits_count_with_their_upper_8(dtype):
    wide = SHADES.astype(dtype)
    for values in (wide * 256, wide * 257):  # both ways to make 16 bits of 8
        shown = rgb_image(Image.fromarray(values))
        np.testing.assert_array_equal(np.asarray(shown), np.repeat(SHADES[:, :, None], 3, axis=2))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_16_bit_modes(mode):
    assert rgb_image(Image.new(mode, (1, 1), 0x4000)).getpixel((0, 0)) == (64, 64, 64)


def test_wide_graymaps_of_ppm():
    content = b"P5 2 1 65535\n" + np.array([0x1234, 0xFF00], ">u2").tobytes()
    assert Image.open(io.BytesIO(content)).mode in ("I", "I;16")
    assert np.asarray(rgb_image(Image.open(io.BytesIO(content))))[0, :, 0].tolist() == [0x12, 0xFF]


def test_lab_and_hsv_and_premultiplied_alpha():
    # A neutral grey of L* = 53.585 (136 of 255) is 128 in sRGB.
    assert np.ptp(rgb_image(layers("LAB", 137, 128, 128)).getpixel((0, 0))) <= 1
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (3, 2), (200, 100, 50)), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )  # fmt: skip
    np.testing.assert_allclose(rgb_image(lab).getpixel((0, 0)), (200, 100, 50), atol=3)
    assert rgb_image(layers("YCbCr", 76, 85, 255)).getpixel((0, 0)) == (254, 0, 0)
    assert rgb_image(layers("HSV", 0, 255, 255)).getpixel((0, 0)) == (255, 0, 0)
    assert rgb_image(layers("LA", 100, 0).convert("La")).getpixel((0, 0)) == (255, 255, 255)
    assert rgb_image(layers("RGBA", 9, 9, 9, 0).convert("RGBa")).getpixel((0, 0)) == (255, 255, 255)
    assert rgb_image(layers("PA", 0, 0)).getpixel((0, 0)) == (255, 255, 255)
    assert rgb_image(layers("RGBX", 1, 2, 3, 0)).getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_known_white_are_refused(mode):
    for content in (Image.new(mode, (2, 2), 200), saved(Image.new(mode, (2, 2), 200), "TIFF")):
        with pytest.raises(DataError, match=rf"image 'x' cannot be used: An image of mode {mode} .*8 or 16 bits"):
            image_bytes(content, "image 'x'")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((2, 2, 5), np.uint8), "expected uint8"),
        (np.zeros((2, 2), np.uint16), "An array of uint16"),
        (np.zeros((2, 2, 3)), "An array of float64"),
        ("x.png", "A str; allowed are"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(DataError, match=message):
        rgb_image(image)


@pytest.mark.parametrize("named", ["x.png", ["https://example.com/x.png"], b"x.png"])
def test_names_of_files_are_no_images(named):
    processor = NeuralClipProcessor(None, CLIPImageProcessor().to_dict())
    with pytest.raises(DataError, match=r"open the file first, by `PIL\.Image\.open`"):
        processor(images=named)


def test_files_that_are_no_images_say_what_they_are(tmp_path, monkeypatch):
    whole = saved(Image.fromarray(COLOURS), "JPEG")
    cases = {
        b"": "no readable image file: is empty", b"\x93NUMPY": "begins like an array of NumPy", b"hello": "b'hello'",
        whole[: len(whole) // 2]: "damaged or truncated",
        saved(Image.fromarray(COLOURS))[:-40]: "damaged or truncated",
    }  # fmt: skip
    for content, message in cases.items():
        with pytest.raises(DataError, match=message) as caught:
            image_bytes(content, "image 'x'")
        assert ("damaged" in str(caught.value)) == ("damaged" in message)
    monkeypatch.setattr("neural_clip.image_pixels.MAX_PIXELS", 10)
    with pytest.raises(DataError, match=r"An image of 16 x 16 pixels; allowed are 10 in all") as caught:
        image_bytes(whole, "image 'x'")
    assert "damaged" not in str(caught.value)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").touch()
    for name, message in {"absent": "There is no image", "folder": "is a folder", "empty": "is empty"}.items():
        with pytest.raises(DataError, match=f"{name}.png") as caught:
            image_bytes(tmp_path / f"{name}.png", "image 'x'")
        assert message in str(caught.value) and "damaged" not in str(caught.value)
