"""Image encoders: the shipped one, and blurring."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from neural_clip.errors import DataError
from neural_clip.targets.encoder import ImageEncoder, TargetEncoder
from neural_clip.targets.tiny_clip import TINY_CLIP

pytestmark = pytest.mark.numerical


def test_shipped_tiny_clip_embeds_simulated_images():
    from neural_clip.simulation.images import render, sample_specs
    from neural_clip.targets.tiny_clip import TINY_CLIP_DIR

    if not (TINY_CLIP_DIR / "model.safetensors").is_file():
        pytest.skip("the tiny CLIP has not been trained yet")
    encoder = ImageEncoder(TINY_CLIP, device="cpu")
    specs = sample_specs(4, np.random.default_rng(0))
    vectors = encoder.encode([Image.fromarray(render(spec)) for spec in specs])
    assert vectors.shape == (4, 64) == (4, encoder.description["projection_dim"])
    assert np.isfinite(vectors).all()


def test_blur_is_gaussian_with_the_stated_deviation(monkeypatch, clip):
    """A line becomes a profile whose standard deviation, in pixels, is the share times the shorter side."""
    picture = np.zeros((200, 101, 3), np.uint8)
    picture[100] = 255
    seen = []
    monkeypatch.setattr(ImageEncoder, "encode", lambda self, images: seen.extend(images))
    TargetEncoder([str(clip)], device="cpu", blur=0.05).encode([Image.fromarray(picture)])
    profile = np.asarray(seen[0])[:, 50, 0].astype(float)
    deviation = np.sqrt((profile * (np.arange(200) - 100) ** 2).sum() / profile.sum())
    assert deviation == pytest.approx(0.05 * 101, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": {"shortest_edge": 10**9}}, r"'size' should be edges from 1 to 4096 pixels, but is \[1000000000\]"),
        ({"crop_size": {"height": "x", "width": 64}}, "'crop_size' should be edges"),
        ({"image_std": [0, 1, 1]}, "pixels become NaN or infinite"), ({"rescale_factor": {}}, "unsupported operand"),
        ({"size": [1]}, "list index"), ({"crop_size": {"height": 32, "width": 16}}, "pictures of 32 x 16 pixels"),
    ],
)  # fmt: skip
def test_settings_that_prepare_no_picture_are_told(clip, tmp_path, change, message):
    folder = shutil.copytree(clip, tmp_path / "clip")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=f"'{folder}' cannot be loaded as a CLIP vision model: .*{message}"):
        ImageEncoder(str(folder), device="cpu")
