"""Every block of the tutorials runs, in order, in an empty folder, and ends in the pictures and pages it promises."""

import re

import pytest
from PIL import Image

from paths import REPOSITORY
from tutorial_blocks import blocks_of, run_block

FOLDER = REPOSITORY / "docs" / "tutorials"
MADE = {  # what is there at the end
    "eeg_in_bids": ("hits.png", "mine/evaluation/report.html", "mine/checkpoint/model.safetensors"),
    "meg_epochs": ("hits.png", "scores/report.html", "model/model.safetensors"),
    "betas": ("hits.png", "mine/evaluation/report.html", "mine/checkpoint/model.safetensors"),
    "checkpoint_to_pictures": ("nearest.png", "decoded.png", "gallery"),
    "new_people": ("scores/average/report.html", "scores/adapted/report.html", "adapted/model.safetensors"),
    "scale": ("scores/report.html", "model/model.safetensors"),
}


def test_every_tutorial_is_run():
    assert {page.stem for page in FOLDER.glob("*.md")} == {"README", *MADE}


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_blocks_of_a_tutorial_run_in_order(tmp_path, name):
    printed = "".join(run_block(*block, tmp_path) for block in blocks_of(FOLDER / f"{name}.md"))
    assert [path for path in MADE[name] if not (tmp_path / path).exists()] == []
    for path in MADE[name]:
        if path.endswith(".png"):
            assert Image.open(tmp_path / path).size > (60, 60)
    pairs = re.findall(r"^SIMULATED  seen: (\S+) +found: (\S+)", printed, re.MULTILINE)
    if "hits.png" in MADE[name]:  # guessing finds one of 138 pictures
        assert len(pairs) == 6 and sum(found == seen for seen, found in pairs) >= 2, printed
    if name == "new_people":
        right, count = map(int, re.search(r"right one first: (\d+) of (\d+)", printed).groups())
        assert count == 42 and right > 4, printed


@pytest.mark.parametrize("page", [*FOLDER.glob("*.md"), REPOSITORY / "README.md"], ids=lambda page: page.stem)
def test_newcomers_are_sent_to_the_default_recipe(page):
    for language, _, text in blocks_of(page):
        recipes = re.findall(r"\btrain (\w+)|--recipe (\S+)", text) if language == "bash" else []
        assert {name for pair in recipes for name in pair if name} <= {"base"}
    assert "`paper`" not in page.read_text("utf-8")
