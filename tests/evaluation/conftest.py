"""Planted data sets that the tests of evaluation share."""

import pytest

from planted_data import write_planted


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Three planted data sets."""
    root = tmp_path_factory.mktemp("planted")
    noise = {"eeg": 8.0, "meg": 8.0, "fmri": 6.0}
    return {m: write_planted(root / m, m, noise=noise[m], seed=i) for i, m in enumerate(noise)}
