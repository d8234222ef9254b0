"""A checkpoint with its processor, and data sets whose images the tiny CLIP embedded."""

from types import SimpleNamespace

import pytest

from checkpoints_of_galleries import save_checkpoint
from neural_clip import NeuralGallery
from neural_clip.prepared.reader import PreparedSet
from neural_clip.targets.embed_images import embed_images
from neural_clip.targets.tiny_clip import TINY_CLIP
from planted_data import write_planted

COUNTS = {"train": 10, "validation": 4, "test": 12}


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Folders of three data sets by modality, and of a checkpoint of all three with random weights."""
    root = tmp_path_factory.mktemp("galleries")
    folders = {m: write_planted(root / m, m, counts=COUNTS, seed=i) for i, m in enumerate(("eeg", "meg", "fmri"))}
    for folder in folders.values():
        embed_images(folder, TINY_CLIP, overwrite=True)
    data = {modality: PreparedSet.open(folder) for modality, folder in folders.items()}
    checkpoint = save_checkpoint(root / "checkpoint", data)
    return SimpleNamespace(root=root, folders=folders, data=data, checkpoint=checkpoint)


@pytest.fixture(scope="session")
def images(world):
    """The images of the EEG data set."""
    return NeuralGallery.from_images(world.checkpoint, world.folders["eeg"])


@pytest.fixture(scope="session")
def signals(world):
    """Test recordings of EEG and fMRI."""
    parts = [world.data[modality].split("test") for modality in ("eeg", "fmri")]
    return NeuralGallery.from_recordings(world.checkpoint, parts)
