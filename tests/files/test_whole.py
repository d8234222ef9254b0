"""A file that cannot be written whole leaves the older one as it was."""

import errno
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from neural_clip.errors import DataError
from neural_clip.files import whole
from neural_clip.files.whole import moved_aside, only_writer, sha256_of, whole_file, whole_folder, write_whole
from small_disk import run_on_small_disk


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
        raise OSError(errno.EIO, "Input/output error", "a.txt.partial")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(DataError, match=r"a\.txt' cannot be written: input/output error \('a\.txt\.partial'\)\. What"):
        write_whole(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_the_sum_is_that_of_the_contents_in_order_of_names(tmp_path):
    (tmp_path / "b").write_bytes(b"second" * 400_000)
    (tmp_path / "a").write_bytes(b"first")
    found = sha256_of([tmp_path / "b", tmp_path / "a"])
    assert found == hashlib.sha256(b"first" + b"second" * 400_000).hexdigest()
    assert sha256_of([]) is None


@pytest.fixture
def read_sizes(monkeypatch):
    """Sizes of the blocks that are read for digests; a file counts as settled at once."""
    read = []

    class Counted:
        def __init__(self):
            self.digest = hashlib.sha256()
            self.hexdigest = self.digest.hexdigest

        def update(self, block):
            read.append(len(block))
            self.digest.update(block)

    monkeypatch.setattr(whole, "hashlib", SimpleNamespace(sha256=Counted))
    monkeypatch.setattr(whole, "SETTLED_NS", 0)
    return read


def test_a_file_is_read_once_for_its_digest(tmp_path, read_sizes):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"12345")
    second.write_bytes(b"678")
    time.sleep(0.02)  # the clock of files is behind by some ms
    for paths, text in ([[first], b"12345"], [[second], b"678"], [[first, second], b"12345678"]):
        assert [sha256_of(paths) for _ in range(3)] == [hashlib.sha256(text).hexdigest()] * 3
    assert sum(read_sizes) == 5 + 3 + 8


def test_what_changed_is_read_again(tmp_path, read_sizes):
    """With the old size and time: the file in place, and another one that is moved there."""
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"12345")
    stat, seen = path.stat(), set()
    for change in (lambda: None, lambda: path.write_bytes(b"12346"), lambda: os.replace(other, path)):
        other.write_bytes(b"12347")
        time.sleep(0.02)
        change()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        time.sleep(0.02)
        seen.add(sha256_of([path]))
        assert sha256_of([path]) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(seen) == 3 and len(read_sizes) == 3
    path.unlink()
    with pytest.raises(FileNotFoundError):
        sha256_of([path])


def test_a_file_of_this_moment_is_read_each_time(tmp_path):
    """Its next change may have the times of the one before."""
    path = tmp_path / "a"
    for number in range(200):
        path.write_bytes(b"%5d" % number)
        assert sha256_of([path]) == hashlib.sha256(b"%5d" % number).hexdigest()


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


# Replaces `thing` in a second process, which is killed before its n-th rename.
KILLED = """
import os, signal, sys
from pathlib import Path
from neural_clip.files.whole import whole_folder

rename, count = os.rename, int(sys.argv[2])

def killed(*names):
    global count
    count -= 1
    if count < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(*names)

os.rename = killed
with whole_folder(sys.argv[1], holds="mark.json", what="thing", overwrite=True) as folder:
    (folder / "content").write_text("new")
    (folder / "mark.json").write_text("{}")
"""


def python(program, *words):
    return subprocess.Popen([sys.executable, "-c", program, *map(str, words)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("renames", "kept"), [(0, "old"), (1, None)])
def test_a_folder_that_a_killed_run_moved_aside_comes_back(tmp_path, capsys, renames, kept):
    path = tmp_path / "thing"
    fill(path, "old")
    assert python(KILLED, path, renames).wait() == -signal.SIGKILL
    assert moved_aside(path, "mark.json") == (tmp_path / "thing.replaced" if kept is None else None)
    assert kept is None or (path / "content").read_text() == kept
    with pytest.raises(DataError, match="not empty"):
        fill(path)
    assert (path / "content").read_text() == "old"
    assert ("was put back from" in capsys.readouterr().err) == (kept is None)
    fill(path, "newer", overwrite=True)
    assert (path / "content").read_text() == "newer" and names(tmp_path) == ["thing"]


def test_an_interruption_between_the_two_renames_leaves_the_older_folder(tmp_path, monkeypatch):
    path, rename = tmp_path / "thing", os.rename
    fill(path, "old")

    def interrupted(source, target):
        if str(source).endswith(".partial"):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill(path, overwrite=True)
    assert (path / "content").read_text() == "old" and names(tmp_path) == ["thing"]


def test_folders_of_the_user_with_the_older_name_are_left_alone(tmp_path):
    fill(tmp_path / "thing", "old")
    fill(tmp_path / "thing.old", "a copy by hand")
    fill(tmp_path / "thing", overwrite=True)
    assert (tmp_path / "thing.old" / "content").read_text() == "a copy by hand"


# Holds the lock of a folder, says so, and goes on until it is killed.
HOLDS = """
import sys, time
from neural_clip.files.whole import only_writer, whole_folder

how = {"file": only_writer, "folder": lambda path: whole_folder(path, holds="mark.json", what="thing")}[sys.argv[2]]
with how(sys.argv[1]):
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_one_process_at_a_time_writes_and_a_killed_one_blocks_no_other(tmp_path, kind):
    path = tmp_path / "thing"
    write = {"file": lambda: write_whole(path, "new"), "folder": lambda: fill(path)}[kind]
    other = python(HOLDS, path, kind)
    try:
        assert other.stdout.readline() == "holds\n"
        before = names(tmp_path)
        with pytest.raises(DataError, match=r"Another process is writing '.*thing'\. Wait until it has finished"):
            write()
        assert names(tmp_path) == before
    finally:
        other.kill()
        other.communicate()
    write()
    assert names(tmp_path) == ["thing"]


def test_a_lock_that_was_removed_before_it_was_had_is_none(tmp_path, monkeypatch):
    """Between the opening of a lock and its taking, the process that had it may have ended and removed it."""
    mark, flock, taken = tmp_path / ".set.writing", fcntl.flock, []

    def late(file, how):
        if not taken:
            mark.unlink()
        taken.append(how)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with only_writer(tmp_path / "set"):
        assert mark.exists() and len(taken) > 1
    assert names(tmp_path) == []


def test_what_holds_a_lock_may_ask_again_but_another_thread_may_not(tmp_path):
    path, found = tmp_path / "thing", []

    def other():
        with pytest.raises(DataError, match="Another process is writing"):
            fill(path, "of the other")
        found.append(names(tmp_path))

    with only_writer(path):
        fill(path, "mine")
        assert names(tmp_path) == [".thing.writing", "thing"]
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == [[".thing.writing", "thing"]] and names(tmp_path) == ["thing"]
    assert (path / "content").read_text() == "mine"


def test_nothing_is_left_of_a_place_that_was_not_written(tmp_path):
    with (
        pytest.raises(ValueError, match="no"),
        whole_folder(tmp_path / "a" / "thing", holds="mark.json", what="thing"),
    ):
        raise ValueError("no")
    assert names(tmp_path) == []


def test_a_link_to_a_folder_stays_and_the_folder_is_replaced(tmp_path):
    fill(tmp_path / "far" / "thing", "old")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "thing")
    fill(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "far" / "thing" / "content").read_text() == "new"
    assert names(tmp_path) == ["far", "link"] and names(tmp_path / "far") == ["thing"]


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("precious")
    for name, words in {
        "/": "'/' is the root of the file system",
        tmp_path / "dangling": "dangling' is a link to 'nowhere', which is not there",
        tmp_path / "loop": "loop' is a link to 'loop', which is not there",
        tmp_path / "file": "file' exists and is no thing",
        tmp_path / "file" / "thing": r"file/thing' cannot be written: .*(file exists|not a directory)",
        tmp_path / ("x" * 250): "cannot be written: file name too long",
        "/proc": "'/proc' is where a file system is mounted",
        "/proc/thing": r"'/proc/thing' cannot be written: no (file can be made in '/proc'|such file or directory)",
    }.items():
        with pytest.raises(DataError, match=words):
            fill(name, overwrite=True)
    assert names(tmp_path) == ["dangling", "file", "loop"] and (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Disk quota exceeded"),
     OSError(errno.EROFS, "Read-only file system")],
    ids=["full", "quota", "read-only"],
)  # fmt: skip
def test_what_the_system_refuses_while_a_folder_is_filled_names_the_folder(tmp_path, error):
    fill(tmp_path / "thing", "old")
    with (
        pytest.raises(DataError, match=r"thing' cannot be written: (no space|the disk quota|the file system)"),
        whole_folder(tmp_path / "thing", holds="mark.json", what="thing", overwrite=True),
    ):
        raise error
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
    assert f"1 finished part stays in '{tmp_path / 'thing.partial'}'" in capsys.readouterr().err
    assert names(tmp_path / "thing.partial") == ["1.part"]
    assert run(fail=False) == ["1.part"]
    assert names(tmp_path) == ["thing"] and capsys.readouterr().err == ""


# Writes a file or a folder that is larger than the disk, then says what came of it and what lies there.
FILLS = """
import os, sys
import numpy as np
from pathlib import Path
from neural_clip.errors import DataError
from neural_clip.files.whole import whole_file, whole_folder, write_whole

disk, way = Path(sys.argv[1]), sys.argv[2]
large = np.random.default_rng(0).bytes(2**20)

def folder(content):
    with whole_folder(disk / "thing", holds="mark.json", what="thing", overwrite=True) as partial:
        (partial / "mark.json").write_bytes(content)

def array(content):
    with whole_file(disk / "thing") as partial, partial.open("wb") as file:
        np.savez(file, content=np.frombuffer(content, np.uint8))

write = {"file": lambda content: write_whole(disk / "thing", content), "folder": folder, "array": array}[way]
write(b"old")
old = (disk / "thing" / "mark.json" if way == "folder" else disk / "thing").read_bytes()
if len(sys.argv) > 3:
    os.system(f"mount -o remount,ro {disk}")
try:
    write(large)
except DataError as error:
    print(error)
assert old == (disk / "thing" / "mark.json" if way == "folder" else disk / "thing").read_bytes()
print(os.listdir(disk))
"""


@pytest.mark.parametrize("way", ["file", "folder", "array"])
@pytest.mark.parametrize("reason", ["no space is left on the device", "the file system is read-only"])
def test_a_disk_that_takes_nothing_keeps_what_was_there(tmp_path, way, reason):
    done = run_on_small_disk(tmp_path, "256k", FILLS, way, *(["ro"] if "read-only" in reason else []))
    told = f"'{tmp_path}/thing' cannot be written: {reason}. What was there before is unchanged."
    assert done.stdout.splitlines() == [told, "['thing']"], done.stderr


@pytest.mark.parametrize("name", ["neural_clip.json", "SIMULATED.json"])
def test_nothing_is_written_into_a_data_set(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with (
        pytest.raises(DataError, match=rf"lies in the data set '.*' \({name}\)"),
        whole_folder(tmp_path / "a" / "b", holds="x", what="thing"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_root_is_no_place_to_write():
    with pytest.raises(DataError, match="is the root of the file system"), only_writer("/"):
        pass
