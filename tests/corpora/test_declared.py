"""Declared facts against what was found, and names from tables that must stay in their folder."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neural_clip.corpora.declared import check_facts, path_inside
from neural_clip.errors import DataError


def test_all_differences_are_listed_and_accepted_only_on_request():
    declared, found = {"trials": 10, "images": 5, "subjects": 2}, {"trials": 9, "images": 5}
    with pytest.raises(DataError, match=r"'raw' is not .*trials: 9 instead of 10; subjects: None instead of 2.*allow"):
        check_facts("raw", declared, found, allow_partial=False)
    assert check_facts("raw", declared, found, allow_partial=True) == {
        "trials": {"found": 9, "declared": 10}, "subjects": {"found": None, "declared": 2},
    }  # fmt: skip
    assert check_facts("raw", declared, declared | {"more": 1}, allow_partial=False) is None
    assert check_facts("raw", declared, declared, allow_partial=True) is None


@pytest.mark.parametrize("name", ["", "/etc/passwd", "//etc/passwd", "../x", "a/../../x", "a\\..\\x", "a\0b", ".."])
def test_names_that_leave_the_folder_are_refused(name):
    with pytest.raises(DataError, match=r"'t.csv' names the file .* not a path inside '/raw'"):
        path_inside(Path("/raw"), name, "t.csv")


@given(st.lists(st.text(alphabet="abc._-/", min_size=1, max_size=6), min_size=1, max_size=4).map("/".join))
def test_accepted_names_stay_inside(name):
    import os.path

    try:
        path = path_inside(Path("/raw/images"), name, "t.csv")
    except DataError:
        return
    assert os.path.normpath(path).startswith("/raw/images/")


def test_links_to_downloads_are_followed(tmp_path):
    (tmp_path / "store").write_text("x")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jpg").symlink_to(tmp_path / "store")
    assert path_inside(tmp_path / "raw", "a.jpg", "t.csv").read_text() == "x"
