"""Python blocks of docs/galleries.md run, in order, on planted data and a checkpoint with random weights."""

import matplotlib.pyplot as plt
import pytest

from loopback_hub import LoopbackHub
from neural_clip.simulation.images import render, sample_specs
from paths import REPOSITORY
from planted_reports import make_report
from tutorial_blocks import blocks_of

BLOCKS = [text for language, _, text in blocks_of(REPOSITORY / "docs" / "galleries.md") if language == "python"]


@pytest.fixture
def names(world, tmp_path, monkeypatch):
    """What the page names: a folder with a checkpoint, pictures and an evaluation; recordings; data; a Hub."""
    import numpy as np
    from PIL import Image

    for folder in ("outputs", "photos", "more_photos", "data"):
        (tmp_path / folder).mkdir()
    make_report(tmp_path).rename(tmp_path / "outputs" / "evaluation")
    (tmp_path / "data" / "things_eeg").symlink_to(world.folders["eeg"])
    (tmp_path / "outputs" / "checkpoint").symlink_to(world.checkpoint)
    pictures = [Image.fromarray(render(spec)) for spec in sample_specs(14, np.random.default_rng(3))]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / ("photos" if number < 12 else "more_photos") / f"{number}.png")
    for name in ("dog.jpg", "cat.jpg"):
        pictures[0].save(tmp_path / name)
    monkeypatch.chdir(tmp_path)

    class Data:
        def split(self, name):
            return [world.data[modality].split(name) for modality in ("eeg", "fmri")]

    epochs = world.data["eeg"].split("test", ["sub-02"]).recordings
    recordings = [np.array(row["eeg"], np.float32) for row in epochs]
    with LoopbackHub() as hub:
        hub.stand_in(monkeypatch)
        yield {"data": Data(), "epochs": epochs, "rows": epochs, "recordings": recordings, "pictures": pictures}


def test_blocks_of_the_page_run_in_order(names):
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"docs/galleries.md, block {number}", "exec"), names)
    plt.close("all")
    assert len(BLOCKS) >= 3 and len(names["images"]) == 14
    assert set(names["some"].modalities) == {"fmri"}
