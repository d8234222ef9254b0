"""The probe images are the same everywhere, and an encoder's vectors of them tell it from others of its name."""

import hashlib
import json

import numpy as np
import pytest

from neural_clip.target_space import TargetSpace
from neural_clip.targets.encoder import ImageEncoder, TargetEncoder
from neural_clip.targets.probes import N_PROBES, SIZE, probe_images, space_of
from neural_clip.targets.tiny_clip import TINY_CLIP
from paths import REPOSITORY

pytestmark = pytest.mark.numerical

PIXELS = "623ef44295d2f4ebfe42a792560ced56d37127c3243fabbd9398061886e7cda9"


def test_the_pictures_never_change():
    pictures = probe_images()
    assert [(picture.size, picture.mode) for picture in pictures] == [((SIZE, SIZE), "RGB")] * N_PROBES
    assert hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).hexdigest() == PIXELS


def test_they_differ_from_one_another_at_several_scales():
    pixels = np.stack([np.array(picture, dtype=float) for picture in probe_images()])
    for cell in (16, 32, 64, 128):
        means = pixels.reshape(N_PROBES, SIZE // cell, cell, SIZE // cell, cell, 3).mean(axis=(2, 4))
        assert means.std(axis=(1, 2)).mean(axis=1).min() > 5
    flat = pixels.reshape(N_PROBES, -1)
    assert (np.corrcoef(flat) - np.eye(N_PROBES)).max() < 0.5


@pytest.mark.parametrize("pooling", ["projected", "cls"])
def test_vectors_of_the_tiny_clip_are_those_of_other_machines(pooling):
    """The file was written by a processor with AVX-512; `make test-numerical` comes here without."""
    kept = TargetSpace.of(json.loads((REPOSITORY / "tests/data/tiny_clip_probes.json").read_text())[pooling])
    encoder = ImageEncoder(TINY_CLIP, device="cpu", pooling=pooling)
    space = space_of(encoder)
    assert space.probes.shape == kept.probes.shape and space.differences(kept) == []
    one_by_one = np.concatenate([encoder.encode([picture]) for picture in probe_images()])
    assert TargetSpace(one_by_one).differences(kept) == []


def test_other_weights_poolings_blurs_and_processors_have_other_vectors(clip, namesake):
    spaces = {
        "weights": space_of(ImageEncoder(str(namesake), device="cpu")),
        "pooling": space_of(TargetEncoder([str(clip)], ["cls"], device="cpu")),
        "blur": space_of(TargetEncoder([str(clip)], device="cpu", blur=0.1)),
        "two": space_of(TargetEncoder([str(clip), str(namesake)], device="cpu")),
    }
    encoder = ImageEncoder(str(clip), device="cpu")
    own = space_of(encoder)
    assert own.differences(space_of(TargetEncoder([str(clip)], device="cpu"))) == []
    encoder.processor.do_normalize = False
    spaces["processor"] = space_of(encoder)
    for name, space in spaces.items():
        assert own.differences(space), name
