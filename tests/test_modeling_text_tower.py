"""Text in the space of the targets, by the tower beside the image tower that made them."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPModel

from neural_clip import NeuralClipModel
from neural_clip.target_space import TargetSpace
from neural_clip.targets.encoder import ImageEncoder
from neural_clip.targets.tiny_clip import TINY_CLIP, TINY_CLIP_DIR
from small_models import small_config

pytestmark = pytest.mark.numerical


def model_of(**changes):
    named = {"vision_model_name": TINY_CLIP, "projection_dim": 64} | changes
    return NeuralClipModel(small_config(**named)).eval()


def test_text_is_embedded_as_clip_itself_does(tmp_path):
    clip, tokenizer = CLIPModel.from_pretrained(TINY_CLIP_DIR).float(), AutoTokenizer.from_pretrained(TINY_CLIP_DIR)
    tokens = tokenizer(["a striped circle", "a large red square on blue"], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = clip.get_text_features(**tokens).pooler_output
    model = model_of()
    found = model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not found.requires_grad and not [name for name, _ in model.named_parameters() if "text" in name]
    assert model.tokenizer("a circle")["input_ids"] == tokenizer("a circle")["input_ids"]
    model.save_pretrained(tmp_path)
    assert (tmp_path / "modeling_text_tower.py").is_file()  # travels with the weights


def test_the_mean_of_the_targets_is_subtracted():
    image = Image.fromarray(np.zeros((64, 64, 3), np.uint8))
    mean = ImageEncoder(TINY_CLIP, device="cpu").encode([image])[0]
    tokens = torch.tensor([[3, 10, 4]])
    centred = model_of(target_space=TargetSpace(mean=mean).as_dict())
    found = model_of().get_text_features(tokens) - centred.get_text_features(tokens)
    np.testing.assert_allclose(found[0].numpy(), mean, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_pooling": "cls"}, "but this model learnt those of 'neural_clip/tiny-clip' with the pooling 'cls'"),
        ({"vision_model_name": None}, "Text needs targets in the space that CLIP's images and text share"),
        ({"vision_revision": "sha256:0"}, "has the weights sha256:0"),
    ],
)
def test_a_model_without_a_text_tower_says_so(changes, message):
    with pytest.raises(ValueError, match=message):
        model_of(**changes).get_text_features(torch.tensor([[3, 4]]))


def test_a_tower_that_cannot_be_had_is_named():
    with pytest.raises(OSError, match=r"The text tower of 'you/clip' .* cannot be had"):
        model_of(vision_model_name="you/clip").get_text_features(torch.tensor([[3, 4]]))
