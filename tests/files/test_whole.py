"""A file that cannot be written whole leaves the older one as it was."""

import hashlib
import os

import pytest

from neural_clip.files.whole import sha256_of, write_whole


def test_text_and_bytes_take_the_older_file_s_place(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, "µV\n")
    assert path.read_bytes() == b"\xc2\xb5V\n"
    write_whole(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01" and os.listdir(tmp_path) == ["a.txt"]


def test_a_failure_keeps_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_whole(path, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, "new")
    assert path.read_text() == "old"


def test_the_sum_is_that_of_the_contents_in_order_of_names(tmp_path):
    (tmp_path / "b").write_bytes(b"second" * 400_000)
    (tmp_path / "a").write_bytes(b"first")
    found = sha256_of([tmp_path / "b", tmp_path / "a"])
    assert found == hashlib.sha256(b"first" + b"second" * 400_000).hexdigest()
    assert sha256_of([]) is None
