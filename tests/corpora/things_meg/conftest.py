"""Small copies of the simulated THINGS-MEG."""

import shutil

import pytest

from neural_clip.simulation.things_meg_twin import write


@pytest.fixture(scope="module")
def mini_twin(request, tmp_path_factory):
    """A twin as small as the test module wants it."""
    folder = tmp_path_factory.mktemp("mini") / "things_meg"
    write(folder, request.module.MINI, 3)
    return folder


@pytest.fixture
def mini(mini_twin, tmp_path):
    """A copy of it to damage."""
    return shutil.copytree(mini_twin, tmp_path / "raw")
