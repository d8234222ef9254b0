"""A small CLIP, as models of the Hub are."""

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A whole CLIP, as models of the Hub are: vision and text tower, image processor."""
    return save_clip(tmp_path_factory.mktemp("clip"), 0)


@pytest.fixture(scope="module")
def namesake(tmp_path_factory, clip):
    """A CLIP of the same name and widths whose weights were drawn anew."""
    return save_clip(tmp_path_factory.mktemp("namesake") / clip.name, 1)


def save_clip(folder, seed):
    torch.manual_seed(seed)
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        vision_config=CLIPVisionConfig(**vision, image_size=16, patch_size=8).to_dict(),
        text_config=CLIPTextConfig(**vision, vocab_size=20, max_position_embeddings=8).to_dict(),
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder
