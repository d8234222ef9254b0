"""A file that cannot be written whole leaves the older one as it was."""

import hashlib
import os

import pytest

from neural_clip.errors import DataError
from neural_clip.files.whole import sha256_of, whole_file, whole_folder, write_whole


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


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_block_that_fails_leaves_the_older_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as partial:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.npz"]
    with whole_file(path) as partial:
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and names(tmp_path) == ["a.npz"]


def fill(path, content="new", **options):
    with whole_folder(path, holds="mark.json", what="thing", **options) as folder:
        (folder / "content").write_text(content)
        (folder / "mark.json").write_text("{}")


def test_a_folder_appears_whole_and_is_replaced_only_if_asked(tmp_path):
    path = tmp_path / "deep" / "thing"
    fill(path, "first")
    with pytest.raises(DataError, match=r"thing' is not empty\. Pass `--overwrite` to replace the thing"):
        fill(path)
    assert (path / "content").read_text() == "first"
    fill(path, overwrite=True)
    assert (path / "content").read_text() == "new" and names(path.parent) == ["thing"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("foreign", ["file", "folder"])
def test_what_is_no_such_folder_is_never_replaced(tmp_path, foreign, overwrite):
    path = tmp_path / "thesis"
    if foreign == "folder":
        path.mkdir()
    (path / "chapter" if foreign == "folder" else path).write_text("precious")
    with pytest.raises(DataError, match=r"thesis' exists and is no thing, so it is not overwritten"):
        fill(path, overwrite=overwrite)
    assert names(tmp_path) == ["thesis"]


def test_an_empty_folder_is_free(tmp_path):
    (tmp_path / "thing").mkdir()
    fill(tmp_path / "thing")
    assert names(tmp_path / "thing") == ["content", "mark.json"]


def test_a_failed_block_leaves_the_older_folder(tmp_path):
    fill(tmp_path / "thing", "old")
    (tmp_path / "thing.partial").mkdir()
    (tmp_path / "thing.partial" / "stale").write_text("of a killed run")
    with (
        pytest.raises(OSError, match="disk full"),
        whole_folder(tmp_path / "thing", holds="mark.json", what="thing", overwrite=True) as folder,
    ):
        assert names(folder) == []
        (folder / "mark.json").write_text("half")
        raise OSError("disk full")
    assert (tmp_path / "thing" / "content").read_text() == "old" and names(tmp_path) == ["thing"]


def test_a_folder_without_its_mark_does_not_appear(tmp_path):
    with (
        pytest.raises(RuntimeError, match=r"has no mark\.json"),
        whole_folder(tmp_path / "thing", holds="mark.json", what="thing"),
    ):
        pass
    assert names(tmp_path) == []


def test_a_folder_that_a_killed_run_moved_aside_comes_back(tmp_path):
    fill(tmp_path / "thing", "old")
    (tmp_path / "thing").rename(tmp_path / "thing.old")
    with pytest.raises(DataError, match="not empty"):
        fill(tmp_path / "thing")
    assert (tmp_path / "thing" / "content").read_text() == "old" and names(tmp_path) == ["thing"]


def test_parts_stay_after_an_error_and_are_there_again(tmp_path, capsys):
    def keep(folder):
        for path in folder.glob("*.half"):
            path.unlink()
        return len(list(folder.glob("*.part")))

    def run(fail):
        with whole_folder(tmp_path / "thing", holds="mark.json", what="thing", keep=keep) as folder:
            found = names(folder)
            (folder / "1.part").write_text("")
            (folder / "2.half").write_text("")
            if fail:
                raise OSError("disk full")
            (folder / "mark.json").write_text("{}")
        return found

    with pytest.raises(OSError, match="disk full"):
        run(fail=True)
    assert f"1 finished parts stay in '{tmp_path / 'thing.partial'}'" in capsys.readouterr().err
    assert names(tmp_path / "thing.partial") == ["1.part"]
    assert run(fail=False) == ["1.part"]
    assert names(tmp_path) == ["thing"] and capsys.readouterr().err == ""
