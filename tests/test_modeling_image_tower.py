"""The image tower that a checkpoint leaves out."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from neural_clip import NeuralClipModel, NeuralClipProcessor
from neural_clip.image_tower_files import tiny_clip_folder
from neural_clip.targets.encoder import ImageEncoder
from neural_clip.targets.tiny_clip import TINY_CLIP, TINY_CLIP_DIR
from second_process import python
from small_models import TOWER, small_config

pytestmark = pytest.mark.numerical


@pytest.fixture(scope="module")
def encoder():
    return ImageEncoder(TINY_CLIP)


def model_of(description):
    return NeuralClipModel(
        small_config(projection_dim=64, vision_model_name=TINY_CLIP, vision_revision=description["revision"])
    ).eval()


def test_the_shipped_tiny_clip_embeds_images_as_it_made_the_targets(encoder, tmp_path):
    images = [Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 80, 3), dtype=np.uint8))]
    model_of(encoder.description).save_pretrained(tmp_path)
    model = NeuralClipModel.from_pretrained(tmp_path)
    pixels = NeuralClipProcessor.from_config(model.config, encoder.processor)(images=images)["pixel_values"]
    features = model.get_image_features(pixels)
    assert np.array_equal(features.numpy(), encoder.encode(images)) and not features.requires_grad
    assert not [name for name, _ in model.named_parameters() if "vision" in name]  # never trained or saved
    half = model.half().get_image_features(pixels)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), features, rtol=0.05, atol=0.05)


def test_another_tiny_clip_is_refused(encoder):
    model = model_of(encoder.description | {"revision": "sha256:0"})
    with pytest.raises(ValueError, match="has the weights sha256:0, but that of the installed package has sha256:"):
        model.get_image_features(torch.zeros(1, 3, 64, 64))


@pytest.mark.slow
def test_where_the_package_is_not_installed_there_is_a_sentence(encoder, tmp_path):
    model_of(encoder.description).save_pretrained(tmp_path)
    code = (
        "import sys\nsys.modules['neural_clip'] = None\nimport torch\nfrom transformers import AutoModel\n"
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "try:\n    model.get_image_features(torch.zeros(1, 3, 64, 64))\nexcept OSError as error:\n    print(error)\n"
    )
    result = python("-c", code, tmp_path)
    assert "'neural_clip/tiny-clip' is not part of this checkpoint: it ships with the package." in result.stdout


def test_the_folder_is_the_packages():
    assert tiny_clip_folder() == TINY_CLIP_DIR


def test_towers_that_lack_weights_or_hold_half_precision(tmp_path):
    tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**TOWER)).eval().half()
    tower.save_pretrained(tmp_path)
    model = NeuralClipModel(small_config(vision_model_name=str(tmp_path))).eval()
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = tower.float()(pixels).image_embeds
    assert torch.equal(model.get_image_features(pixels), expected)
    weights = {name: value for name, value in tower.state_dict().items() if "layers.0.mlp" not in name}
    tower.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match="lacks weights of a CLIP image tower"):
        NeuralClipModel(model.config).get_image_features(pixels)
