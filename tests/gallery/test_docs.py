"""Python blocks of docs/galleries.md run, in order, on planted data and a checkpoint with random weights."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from huggingface_hub import constants

from loopback_hub import LoopbackHub
from neural_clip.simulation.images import render, sample_specs
from paths import REPOSITORY
from planted_reports import make_report
from tutorial_blocks import blocks_of

BLOCKS = [text for language, _, text in blocks_of(REPOSITORY / "docs" / "galleries.md") if language == "python"]


@pytest.fixture
def names(world, tmp_path, monkeypatch):
    """What the page names: a checkpoint, pictures, recordings, a data set of two modalities, an evaluation, a Hub."""
    from PIL import Image

    for folder in ("outputs", "photos", "more_photos"):
        (tmp_path / folder).mkdir()
    (tmp_path / "outputs" / "checkpoint").symlink_to(world.checkpoint)
    pictures = [Image.fromarray(render(spec)) for spec in sample_specs(14, np.random.default_rng(3))]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / ("photos" if number < 7 else "more_photos") / f"{number}.png")
    for number, name in enumerate(("dog.jpg", "cat.jpg")):
        pictures[number].save(tmp_path / name)
    make_report(tmp_path / "planted").rename(tmp_path / "outputs" / "evaluation")
    monkeypatch.chdir(tmp_path)

    class Data:
        def split(self, name):
            return [world.data[modality].split(name) for modality in ("eeg", "fmri")]

    part = world.data["eeg"].split("test", ["sub-02"])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with LoopbackHub() as hub:
        hub.stand_in(monkeypatch)
        yield {
            "data": Data(), "epochs": part.recordings, "rows": part.recordings, "pictures": pictures,
            "recordings": list(np.asarray(part.values())), "checkpoint": str(world.checkpoint),
        }  # fmt: skip


def test_blocks_of_the_page_run_in_order(names):
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"docs/galleries.md, block {number}", "exec"), names)
    plt.close("all")
    assert len(BLOCKS) >= 3 and len(names["images"]) == 14
    assert set(names["some"].modalities) == {"fmri"}
