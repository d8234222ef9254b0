"""A small NSD, to read and to damage."""

import shutil

import pytest

from nsd_raw import build


@pytest.fixture(scope="session")
def raw_dir(tmp_path_factory):
    return build(tmp_path_factory.mktemp("nsd") / "raw")


@pytest.fixture
def own_raw_dir(raw_dir, tmp_path):
    return shutil.copytree(raw_dir, tmp_path / "raw")
