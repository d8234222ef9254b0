"""The expected image embedding, and where the bank of images comes from."""

import json
import math

import numpy as np
import pytest

from neural_clip.errors import DataError
from neural_clip.gallery.conversion import expected_images, training_images

pytestmark = pytest.mark.numerical


def test_expected_images_equal_a_loop():
    rng = np.random.default_rng(0)
    queries, bank = rng.standard_normal((5, 6)), 7 * rng.standard_normal((11, 6))
    units = [row / np.linalg.norm(row) for row in bank]
    for query, found in zip(queries, expected_images(queries, bank), strict=True):
        weights = [math.exp(math.exp(5) * (query @ unit / np.linalg.norm(query) - 1)) for unit in units]
        expected = sum(weight * unit for weight, unit in zip(weights, units, strict=True)) / sum(weights)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_training_images_of_a_checkpoint(world, tmp_path):
    data = world.data["eeg"]
    record = {"recipe": {"data": {"eeg": str(data.folder)}}, "data": {"eeg": {"fingerprint": data.facts.fingerprint}}}
    (tmp_path / "training.json").write_text(json.dumps(record))
    ((found, table),) = training_images(tmp_path)
    assert found.folder == data.folder and table.image_ids == [f"eeg{number:03d}" for number in range(10)]
    for change, message in (
        ({"recipe": {"data": {"eeg": "nowhere"}}}, r"'nowhere' that .* was trained on is not at hand\. Name a bank"),
        ({"data": {"eeg": {"fingerprint": "other"}}}, "is no longer the data set"),
        ({"data": {}}, "names no data set"),
    ):
        (tmp_path / "training.json").write_text(json.dumps(record | change))
        with pytest.raises(DataError, match=message):
            training_images(tmp_path)
    with pytest.raises(DataError, match="has no record of the images"):
        training_images(tmp_path / "absent")
