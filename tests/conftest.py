"""Planted data sets that tests of several packages read; whoever changes one copies it first."""

import pytest

from planted_data import READY, write_planted


@pytest.fixture(scope="session")
def ready_folders(tmp_path_factory):
    """A planted data set for each modality, with ready-made embeddings and without images."""
    root = tmp_path_factory.mktemp("ready")
    return {m: str(write_planted(root / m, m, pixels=False, encoder=READY)) for m in ("eeg", "meg", "fmri")}
