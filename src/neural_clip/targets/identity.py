"""Which image encoder made a set of embeddings, and whether two are the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from neural_clip.errors import DataError
from neural_clip.prepared.facts import Facts

POOLINGS = ("projected", "cls")  # what a CLIP tower gives by itself; the first is the default
ENCODER_KEYS = ("name", "revision", "pooling", "projection_dim")  # what tells one space of embeddings from another
# The same in the configuration of a model.
CONFIG_KEYS = {
    "name": "vision_model_name", "revision": "vision_revision", "pooling": "image_pooling",
    "projection_dim": "projection_dim",
}  # fmt: skip


def check_same_encoder(expected: Mapping, expected_by: str, found: Mapping, found_in: str) -> None:
    """Raise unless two descriptions of an image encoder mean the same space.

    Args:
        expected, found (`Mapping`): Descriptions with `name`, `revision`, `pooling` and `projection_dim`.
        expected_by, found_in (`str`): Where each stands, for the message.

    Raises:
        DataError: If they differ in a key that `expected` has.
    """
    different = [key for key in ENCODER_KEYS if key in expected and expected[key] != found.get(key)]
    if different:
        wanted, got = ({key: side.get(key) for key in ENCODER_KEYS if key in side} for side in (expected, found))
        raise DataError(
            f"{expected_by} expects image embeddings of {wanted}, but those of {found_in} were made by {got}; they "
            f"differ in {' and '.join(repr(key) for key in different)}. Embed the images with the expected encoder "
            "(`neural-clip embed-images FOLDER --model NAME --pooling POOLING --overwrite`) or train anew."
        )


def configured_encoder(encoder: Mapping) -> dict:
    """The description of an image encoder as a model's configuration keeps it.

    Args:
        encoder (`Mapping`): `image_encoder` of a prepared data set.

    Returns:
        `dict`: `name`, `revision`, `projection_dim` and `pooling`, which is `"precomputed"` for any other than
            those that a CLIP tower gives by itself.
    """
    pooling = encoder["pooling"] if encoder["pooling"] in POOLINGS else "precomputed"
    return {key: encoder[key] for key in ENCODER_KEYS} | {"pooling": pooling}


def model_encoder(config: Any) -> dict | None:
    """The image encoder that a model's configuration expects, `None` where it names none.

    Args:
        config ([`NeuralClipConfig`]): `vision_model_name`, `vision_revision`, `image_pooling` and `projection_dim`.
    """
    if getattr(config, CONFIG_KEYS["name"], None) is None:
        return None
    return {name: getattr(config, key) for name, key in CONFIG_KEYS.items()}


def common_image_encoder(facts: dict[str, Facts]) -> dict:
    """Return the image encoder that all data sets share, or raise a `DataError`."""
    encoders = {modality: found.image_encoder for modality, found in facts.items() if found.image_encoder}
    if lacking := [modality for modality in facts if modality not in encoders]:
        raise DataError(f"The images of {lacking} have no embeddings; run `neural-clip embed-images FOLDER` first.")
    distinct = {tuple(encoder[key] for key in ENCODER_KEYS) for encoder in encoders.values()}
    processors = {json.dumps(encoder.get("image_processor"), sort_keys=True) for encoder in encoders.values()}
    if len(distinct) > 1 or len(processors - {"null"}) > 1:  # ready-made embeddings have none
        raise DataError(f"The data sets were embedded by different image encoders: {encoders}. Embed them alike.")
    return next(iter(encoders.values()))
