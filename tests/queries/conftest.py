"""Raw files, the data sets prepared from them, and a checkpoint of these."""

import pytest

from recorded_lab import make_lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """Made once."""
    return make_lab(tmp_path_factory.mktemp("lab"))
