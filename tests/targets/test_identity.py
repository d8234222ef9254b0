"""Spaces of image embeddings are told apart, and configurations keep which one it was."""

import pytest

from neural_clip import NeuralClipConfig
from neural_clip.errors import DataError
from neural_clip.targets.identity import EncoderIdentity


def test_encoders_are_told_apart():
    facts = {"name": "a/clip", "revision": "1", "pooling": "projected", "projection_dim": 8}
    clip = EncoderIdentity(**facts)
    clip.require(EncoderIdentity.of_facts(facts | {"image_processor": {}}), "the model", "the data")
    for key, other in (("name", "b/clip"), ("revision", "2"), ("pooling", "cls"), ("projection_dim", 9)):
        for found in (EncoderIdentity.of_facts(facts | {key: other}), clip.changed(**{key: other})):
            with pytest.raises(DataError) as caught:
                clip.require(found, "the model", "the data")
            for part in ("the model", "the data", f"differ in '{key}'.", repr(facts[key]), repr(other)):
                assert part in str(caught.value)
    with pytest.raises(DataError, match="differ in 'revision'"):  # one that is not stated is no wildcard
        EncoderIdentity.of_facts(facts | {"revision": None}).require(clip, "the model", "the data")
    assert clip.changed(name="a/clip", revision=None) == clip
    ready_made = EncoderIdentity.of_facts(facts | {"pooling": "mean of patches"})
    assert ready_made == EncoderIdentity(**facts | {"pooling": "precomputed"})


def test_configurations_keep_the_encoder():
    clip = EncoderIdentity("a/clip", None, "cls", 8)
    assert clip.as_config() == {
        "vision_model_name": "a/clip", "vision_revision": None, "image_pooling": "cls", "projection_dim": 8,
        "target_space": None,
    }  # fmt: skip
    assert EncoderIdentity.of_config(NeuralClipConfig(**clip.as_config())) == clip
    assert EncoderIdentity.of_config(NeuralClipConfig(projection_dim=8)) is None
