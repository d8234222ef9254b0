"""Which image encoder made a set of embeddings, and whether two are the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from neural_clip.errors import DataError
from neural_clip.prepared.facts import Facts

POOLINGS = ("projected", "cls")  # what a CLIP tower gives by itself; the first is the default
# Fields of [`EncoderIdentity`] as the configuration of a model calls them.
CONFIG_KEYS = {
    "name": "vision_model_name", "revision": "vision_revision", "pooling": "image_pooling",
    "projection_dim": "projection_dim",
}  # fmt: skip


@dataclass(frozen=True)
class EncoderIdentity:
    """What tells one space of image embeddings from another: two are the same where all four values agree.

    Args:
        name (`str`, *optional*): Name on the Hub or of a folder.
        revision (`str`, *optional*): Commit on the Hub, or SHA-256 of the weights of a folder.
        pooling (`str`, *optional*): One of `POOLINGS`, or `"precomputed"` for any that a tower does not give.
        projection_dim (`int`): Width of the embeddings.
    """

    name: str | None
    revision: str | None
    pooling: str | None
    projection_dim: int

    @classmethod
    def of_facts(cls, encoder: Mapping) -> EncoderIdentity:
        """Read `image_encoder` of a prepared data set."""
        pooling = encoder["pooling"] if encoder["pooling"] in POOLINGS else "precomputed"
        return cls(encoder["name"], encoder["revision"], pooling, encoder["projection_dim"])

    @classmethod
    def of_config(cls, config: Any) -> EncoderIdentity | None:
        """Read a [`NeuralClipConfig`]; `None` where it names no encoder."""
        if getattr(config, CONFIG_KEYS["name"], None) is None:
            return None
        return cls(**{field: getattr(config, key) for field, key in CONFIG_KEYS.items()})

    def as_config(self) -> dict[str, Any]:
        """The settings of a [`NeuralClipConfig`] that [`of_config`] reads."""
        return {CONFIG_KEYS[field]: value for field, value in asdict(self).items()}

    def changed(self, **named: Any) -> EncoderIdentity:
        """This identity with other values where they are named; `None` names nothing."""
        return replace(self, **{field: value for field, value in named.items() if value is not None})

    def require(self, other: EncoderIdentity, by: str, where: str) -> None:
        """Raise unless another set of embeddings lies in this space.

        Args:
            other ([`EncoderIdentity`]): What was found.
            by, where (`str`): What expects this identity and what has the other, for the message.

        Raises:
            DataError: If the two differ.
        """
        wanted, found = asdict(self), asdict(other)
        different = [repr(field) for field, value in wanted.items() if value != found[field]]
        if different:
            raise DataError(
                f"{by} expects image embeddings of {wanted}, but those of {where} were made by {found}; they differ "
                f"in {' and '.join(different)}. Embed the images with the expected encoder (`neural-clip embed-images "
                "FOLDER --model NAME --pooling POOLING --overwrite`) or train anew."
            )


def common_image_encoder(facts: Mapping[str, Facts]) -> dict:
    """Return `image_encoder` of data sets that share one.

    Raises:
        DataError: If images have no embeddings, or they were made by different encoders.
    """
    encoders = {name: found.image_encoder for name, found in facts.items() if found.image_encoder}
    if lacking := [name for name in facts if name not in encoders]:
        raise DataError(f"The images of {lacking} have no embeddings; run `neural-clip embed-images FOLDER` first.")
    # data sets of before it was recorded, and ready-made embeddings, have no image processor
    processors = {json.dumps(encoder.get("image_processor"), sort_keys=True) for encoder in encoders.values()}
    distinct = {tuple(encoder[field] for field in CONFIG_KEYS) for encoder in encoders.values()}
    if len(distinct) > 1 or len(processors - {"null"}) > 1:
        raise DataError(f"The data sets were embedded by different image encoders: {encoders}. Embed them alike.")
    return next(iter(encoders.values()))
