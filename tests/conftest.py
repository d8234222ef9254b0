"""Planted data sets that tests of several packages read; whoever changes one copies it first."""

import os

import pytest

from neural_clip.training.processes import COUNTS, RANKS
from planted_data import READY, write_planted

for _name in (*COUNTS, *RANKS, "MASTER_ADDR"):
    os.environ.pop(_name, None)  # of a launcher that runs the tests, such as a job of a cluster


@pytest.fixture(scope="session")
def ready_folders(tmp_path_factory):
    """A planted data set for each modality, with ready-made embeddings and without images."""
    root = tmp_path_factory.mktemp("ready")
    return {m: str(write_planted(root / m, m, pixels=False, encoder=READY)) for m in ("eeg", "meg", "fmri")}


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Three planted data sets."""
    root = tmp_path_factory.mktemp("planted")
    noise = {"eeg": 8.0, "meg": 8.0, "fmri": 6.0}
    return {m: write_planted(root / m, m, noise=noise[m], seed=i) for i, m in enumerate(noise)}
