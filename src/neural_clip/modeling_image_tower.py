"""The frozen CLIP image tower: loaded where a checkpoint leaves it out, and what is taken from its output."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, CLIPVisionModelWithProjection

from .image_tower_files import TINY_CLIP, tiny_clip_folder, weights_digest
from .modeling_pretrained import without_report


def load_tower(config: Any, dtype: torch.dtype) -> CLIPVisionModelWithProjection:
    """Load the image tower that a configuration names.

    Args:
        config ([`NeuralClipConfig`]): Its `vision_model_name` and `vision_revision` say which.
        dtype (`torch.dtype`): Of the weights.

    Returns:
        `CLIPVisionModelWithProjection`: Frozen.

    Raises:
        OSError: If it cannot be had from this machine or the Hub.
        ValueError: If the weights are others, or some are missing.
    """
    name, revision = str(config.vision_model_name), config.vision_revision or "main"
    source: Any = name
    options: dict[str, Any] = {"revision": revision}
    if name == TINY_CLIP:
        source, options = tiny_clip_of(revision), {}
    try:
        whole = AutoConfig.from_pretrained(source, **options)
        with without_report():  # a whole CLIP holds a text tower too
            loaded: Any = CLIPVisionModelWithProjection.from_pretrained(
                source,
                config=getattr(whole, "vision_config", whole),
                dtype=dtype,
                attn_implementation=config._attn_implementation,
                output_loading_info=True,
                **options,
            )
    except OSError as error:
        raise OSError(
            f"The image encoder {name!r} (revision {revision}) is not part of this checkpoint and cannot be "
            "had from this machine's Hub cache or the Hub. Download it there, or pass 'image_embeds'."
        ) from error
    return whole_tower(loaded, name, "image")


def whole_tower(loaded: Any, name: str, kind: str) -> Any:
    """The frozen tower of what `from_pretrained` gives with its loading info; a `ValueError` where weights lack."""
    tower, info = loaded
    if info["missing_keys"]:
        raise ValueError(f"{name!r} lacks weights of a CLIP {kind} tower: {sorted(info['missing_keys'])[:3]} ...")
    freeze(tower)
    return tower


def tiny_clip_of(revision: str) -> Path:
    """Folder of the tiny CLIP that ships with the package, if it is the one that made the targets."""
    folder = tiny_clip_folder()
    if folder is None:
        raise OSError(
            f"The image encoder {TINY_CLIP!r} is not part of this checkpoint: it ships with the package. "
            "Run `pip install neural_clip`, or pass 'image_embeds'."
        )
    if revision.startswith("sha256:") and weights_digest(folder) != revision:
        raise ValueError(
            f"The image encoder {TINY_CLIP!r} of this checkpoint has the weights {revision}, but that of the "
            f"installed package has {weights_digest(folder)}. Install the version of the package that made the "
            "checkpoint, or pass 'image_embeds'."
        )
    return folder


def pooled_image(output: Any, pooling: str) -> torch.Tensor:
    """Take the embeddings of images from what a CLIP vision tower returns.

    Args:
        output (`CLIPVisionModelOutput`): Of `CLIPVisionModelWithProjection`.
        pooling (`str`): `"projected"`, CLIP's image embedding; otherwise the class token behind the last layer, as
            it comes: no layer norm, no projection.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, projection_dim)`; the tower's `hidden_size` for the class token.
    """
    return output.image_embeds if pooling == "projected" else output.last_hidden_state[:, 0]


def freeze(module: nn.Module) -> None:
    """Put a module in evaluation for good: no gradients."""
    module.requires_grad_(False).eval()
