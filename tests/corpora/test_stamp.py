"""The mark of a simulated corpus."""

import json

import pytest

from neural_clip.corpora.stamp import STAMP_FILE, read_stamp, stamped
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


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, None),
        (int, 0),
        (int, True),
        (int, 2.0),
        (int, "2"),
        (float, 0.5),
        (float, float("inf")),
        (list, {}),
        (dict, []),
    ],
)
def test_an_entry_of_another_kind_is_named(tmp_path, kind, value):
    for good in {int: [1], float: [1, 1200.0], list: [[]], dict: [{}]}[kind]:
        assert stamped(tmp_path, {"n": good}, "n", kind) == good
    assert stamped(tmp_path, {"n": 0}, "n", int, least=0) == 0
    for entries in ({}, {"n": value}):
        with pytest.raises(DataError, match=r"SIMULATED\.json' is damaged: it should have .* as 'n', but has "):
            stamped(tmp_path, entries, "n", kind)


def test_absent_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_stamp(tmp_path / "nowhere")
