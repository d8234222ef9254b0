"""The frozen CLIP text tower beside the image tower that made the targets: loaded where text is asked for."""

from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, CLIPTextModelWithProjection

from .image_tower_files import TINY_CLIP
from .modeling_image_tower import tiny_clip_of, whole_tower
from .modeling_pretrained import without_report


def text_source(config: Any) -> tuple[Any, dict[str, Any]]:
    """Where the image encoder of a configuration lies, which may have a text tower, and how it is loaded.

    Raises:
        ValueError: If the targets do not lie in the space that images and text of a CLIP share.
        OSError: If the tiny CLIP is asked for where the package is not installed.
    """
    if config.vision_model_name is None or config.image_pooling != "projected":
        raise ValueError(
            f"Text needs targets in the space that CLIP's images and text share, but this model learnt those of "
            f"{config.vision_model_name!r} with the pooling {config.image_pooling!r}."
        )
    name, revision = str(config.vision_model_name), config.vision_revision or "main"
    return (tiny_clip_of(revision), {}) if name == TINY_CLIP else (name, {"revision": revision})


def load_text_tower(config: Any, dtype: torch.dtype) -> tuple[CLIPTextModelWithProjection, Any]:
    """Load the text tower and the tokenizer of the CLIP that a configuration names.

    Args:
        config ([`NeuralClipConfig`]): Its `vision_model_name` and `vision_revision` say which.
        dtype (`torch.dtype`): Of the weights.

    Returns:
        `tuple` of `CLIPTextModelWithProjection`, frozen, and its tokenizer.

    Raises:
        OSError: If it cannot be had from this machine or the Hub.
        ValueError: If it has no text tower, or weights are missing.
    """
    source, options = text_source(config)
    name = config.vision_model_name
    try:
        whole = AutoConfig.from_pretrained(source, **options)
        if getattr(whole, "text_config", None) is None:
            raise ValueError(f"The image encoder {name!r} has no text tower.")
        whole.text_config.projection_dim = whole.projection_dim  # the tower's own may be left at its default
        with without_report():  # a whole CLIP holds an image tower too
            loaded: Any = CLIPTextModelWithProjection.from_pretrained(
                source, config=whole.text_config, dtype=dtype, output_loading_info=True, **options
            )
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except OSError as error:
        raise OSError(
            f"The text tower of {name!r} (revision {config.vision_revision}) cannot be had from this machine's Hub "
            "cache or the Hub. Download it there."
        ) from error
    return whole_tower(loaded, name, "text"), tokenizer
