"""Published model cards say what their JSON says."""

import json
import re

import pytest

from neural_clip.prepared.modalities import MODALITIES
from neural_clip.publishing.model_card import model_card
from paths import REPOSITORY

CARDS = sorted((REPOSITORY / "model_cards").glob("*.md"))


def test_there_is_a_card_of_the_demo():
    assert "demo" in {path.stem for path in CARDS}


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_card_is_made_from_its_json(path):
    source = json.loads(path.with_suffix(".json").read_text())
    text = path.read_text()
    assert text == model_card(source["name"], source["training"], source["report"])
    for modality, table in source["report"]["decoding"].items():  # read back, number by number
        (row,) = table["rows"]
        line = next(line for line in text.splitlines() if line.startswith(f"| {MODALITIES[modality].title} |"))
        numbers = [float(number) for number in re.findall(r"\d+\.\d+", line)]
        low, high = row["two_way_interval"]
        expected = [row["two_way"], low, high, row["chance_two_way"], row["top1"], row["top5"]]
        assert numbers == pytest.approx(expected, abs=5e-5)
        assert modality not in source["training"]["simulated"] or line.endswith("| simulated |")


def test_a_card_says_that_alignment_layers_were_not_trained():
    source = json.loads(CARDS[0].with_suffix(".json").read_text())
    said = "alignment layers were left as they were initialised"
    assert said not in model_card("x", source["training"])
    source["training"]["recipe"]["model"]["freeze_alignment"] = True
    assert said in model_card("x", source["training"])
