"""The twin that a test module is about."""

import pytest


@pytest.fixture(scope="module")
def raw_dir(request, tmp_path_factory):
    """Raw files of `TWIN` of the module, at the size of its `PRESET`."""
    folder = tmp_path_factory.mktemp("twin") / "raw"
    request.module.TWIN.write(folder, request.module.PRESET, seed=3)
    return folder
