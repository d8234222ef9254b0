"""The mark of a simulated corpus."""

import json

import pytest

from neural_clip.corpora.stamp import STAMP_FILE, read_stamp
from neural_clip.errors import DataError


def test_real_and_simulated_folders(tmp_path):
    assert read_stamp(tmp_path) is None
    (tmp_path / STAMP_FILE).write_text(json.dumps({"simulated": True}))
    assert read_stamp(tmp_path) == {"simulated": True}


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is no readable mark of a simulated corpus"), ("[1]", "holds list")]
)
def test_damaged_mark_is_named(tmp_path, content, message):
    (tmp_path / STAMP_FILE).write_text(content)
    with pytest.raises(DataError, match=message):
        read_stamp(tmp_path)


def test_absent_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_stamp(tmp_path / "nowhere")
