"""Which image encoder made a set of embeddings, and whether two are the same."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from neural_clip.errors import DataError
from neural_clip.files.places import command_line
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.reader import PreparedSet
from neural_clip.target_space import TargetSpace

POOLINGS = ("projected", "cls")  # what a CLIP tower gives by itself; the first is the default
# Fields of [`EncoderIdentity`] as the configuration of a model calls them.
CONFIG_KEYS = {
    "name": "vision_model_name", "revision": "vision_revision", "pooling": "image_pooling",
    "projection_dim": "projection_dim",
}  # fmt: skip
AGAIN = (
    "Embed the images with the expected encoder (`neural-clip embed-images FOLDER --model NAME --pooling POOLING "
    "--overwrite`) or train anew."
)
ONE_TABLE = (
    "Ready-made embeddings are known to be of one encoder where they come from one file, or files that share images: "
    "prepare both data sets with it."
)


@dataclass(frozen=True)
class EncoderIdentity:
    """What tells one space of image embeddings from another.

    Two are the same where the first four values agree and their vectors do not show otherwise.

    Args:
        name (`str`, *optional*): Name on the Hub or of a folder.
        revision (`str`, *optional*): Commit on the Hub, or SHA-256 of the weights of a folder.
        pooling (`str`, *optional*): One of `POOLINGS`, or `"precomputed"` for any that a tower does not give.
        projection_dim (`int`): Width of the embeddings.
        space ([`TargetSpace`], *optional*): Their vectors; `None` for older data sets and checkpoints.
    """

    name: str | None
    revision: str | None
    pooling: str | None
    projection_dim: int
    space: TargetSpace | None = field(default=None, compare=False)

    @classmethod
    def of_facts(cls, encoder: Mapping, space: TargetSpace | None = None) -> EncoderIdentity:
        """Read `image_encoder` of a prepared data set, with its `target_space`; a `DataError` if one lacks."""
        if absent := [key for key in CONFIG_KEYS if key not in encoder]:
            raise DataError(
                f"'image_encoder' of a prepared data set lacks {', '.join(map(repr, absent))}, so its "
                "neural_clip.json is damaged. Prepare the data set again."
            )
        pooling = encoder["pooling"] if encoder["pooling"] in POOLINGS else "precomputed"
        return cls(encoder["name"], encoder["revision"], pooling, encoder["projection_dim"], space)

    @classmethod
    def of_config(cls, config: Any) -> EncoderIdentity | None:
        """Read a [`NeuralClipConfig`]; `None` where it names no encoder."""
        if getattr(config, CONFIG_KEYS["name"], None) is None:
            return None
        named = {field: getattr(config, key) for field, key in CONFIG_KEYS.items()}
        return cls(**named, space=TargetSpace.of(getattr(config, "target_space", None)))

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> EncoderIdentity:
        """Read what [`as_config`] gives."""
        named = {field: settings[key] for field, key in CONFIG_KEYS.items()}
        return cls(**named, space=TargetSpace.of(settings.get("target_space")))

    @property
    def named(self) -> dict[str, Any]:
        """All but the vectors."""
        return {field: getattr(self, field) for field in CONFIG_KEYS}

    def as_config(self) -> dict[str, Any]:
        """The settings of a [`NeuralClipConfig`] that [`of_config`] reads."""
        named = {CONFIG_KEYS[field]: value for field, value in self.named.items()}
        return named | {"target_space": self.space.as_dict() if self.space else None}

    def changed(self, **named: Any) -> EncoderIdentity:
        """This identity with other values where they are named; `None` names nothing."""
        return replace(self, **{field: value for field, value in named.items() if value is not None})

    def require(self, other: EncoderIdentity, by: str, where: str, *, means: bool = True) -> None:
        """Raise unless another set of embeddings lies in this space; warn where names alone tell.

        Args:
            other ([`EncoderIdentity`]): What was found.
            by, where (`str`): What expects this identity and what has the other, for the message.
            means (`bool`): Whether the same mean must have been subtracted.

        Raises:
            DataError: If the two differ.
        """
        self.require_name(other, by, where)
        same_vectors(self, other, by, where, means=means)

    def require_name(self, other: EncoderIdentity, by: str, where: str) -> None:
        """Raise a `DataError` unless all but the vectors agree."""
        different = [repr(field) for field, value in self.named.items() if value != other.named[field]]
        if different:
            raise DataError(
                f"{by} expects image embeddings of {self.named}, but those of {where} were made by {other.named}; "
                f"they differ in {' and '.join(different)}. {AGAIN}"
            )


def same_vectors(one: EncoderIdentity, other: EncoderIdentity, by: str, where: str, *, means: bool) -> None:
    """Raise a `DataError` where two encoders of one name have other vectors; warn where that cannot be told."""
    found = one.space.differences(other.space) if one.space and other.space else None
    if found is None:
        warnings.warn(
            f"{by} and {where} name the same image encoder, {one.name!r}. Whether it made the same vectors cannot be "
            "told: one of them was made before vectors were kept, or has ready-made embeddings.",
            stacklevel=3,
        )
    elif found:
        hint = AGAIN if one.space and one.space.sample is None else ONE_TABLE
        raise DataError(
            f"{by} and {where} name the same image encoder, {one.name!r}, but its vectors are others: "
            f"{'; '.join(found)}. {hint}"
        )
    if means and one.space and other.space and not one.space.same_mean(other.space):
        raise DataError(
            f"{by} and {where} have image embeddings of {one.name!r} from which other means were subtracted. Prepare "
            "both with `centre: none`, or with the same training images."
        )


def identity_of(facts: Facts) -> EncoderIdentity:
    """What embedded the images of a data set that has embeddings."""
    return EncoderIdentity.of_facts(facts.image_encoder or {}, facts.target_space)


def common_image_encoder(facts: Mapping[str, Facts], *, means: bool = True) -> dict:
    """Return `image_encoder` of data sets that share one; they go by their folders, which messages name.

    Raises:
        DataError: If images have no embeddings, or they were made by different encoders; with `means`, also if other
            means were subtracted from them.
    """
    encoders = {name: found.image_encoder for name, found in facts.items() if found.image_encoder}
    if lacking := [name for name in facts if name not in encoders]:
        commands = " and ".join(command_line("neural-clip", "embed-images", name) for name in lacking)
        raise DataError(f"The images of {lacking} have no embeddings; run {commands} first.")
    # older data sets and ready-made embeddings have no image processor
    processors = {json.dumps(encoder.get("image_processor"), sort_keys=True) for encoder in encoders.values()}
    identities = {name: identity_of(found) for name, found in facts.items()}
    distinct = {tuple(encoder[field] for field in CONFIG_KEYS) for encoder in encoders.values()}
    if len(distinct) > 1 or len(processors - {"null"}) > 1:
        raise DataError(f"The data sets were embedded by different image encoders: {encoders}. Embed them alike.")
    for one, other in combinations(identities, 2):
        same_vectors(identities[one], identities[other], f"'{one}'", f"'{other}'", means=means)
    return next(iter(encoders.values()))


def common_identity(facts: Mapping[str, Facts]) -> EncoderIdentity:
    """What embedded the images of data sets that share it, with the vectors of the first that has them."""
    spaces = [space for found in facts.values() if (space := found.target_space)]
    return EncoderIdentity.of_facts(common_image_encoder(facts), next(iter(spaces), None))


def in_space_of(config: Any, data: PreparedSet, by: str) -> PreparedSet:
    """A data set with its image embeddings in the space of a model, minus the mean that was subtracted there.

    Args:
        config ([`NeuralClipConfig`]): Of the model; one that names no encoder leaves the data set as it is.
        data ([`PreparedSet`]): With or without embeddings.
        by (`str`): What the model is called in messages.

    Raises:
        DataError: If another encoder made the embeddings.
    """
    expected = EncoderIdentity.of_config(config)
    if expected is None or data.facts.image_encoder is None:
        return data
    expected.require(identity_of(data.facts), by, f"'{data.name}'", means=False)
    return data.moved_to(expected.space)
