"""Pickles are read without running anything, whatever NumPy and torch wrote them by."""

import os
import pickle
import resource
import signal
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from neural_clip.errors import DataError
from neural_clip.files import pickled
from neural_clip.files.pickled import read_pickled, read_pickled_list

rng = np.random.default_rng(0)
CONTENT = {
    "values": rng.standard_normal((3, 4, 63, 25)), "half": rng.standard_normal((5, 2)).astype(np.float16),
    "columns": np.asfortranarray(rng.standard_normal((40, 300))), "big": np.arange(6, dtype=">i4"),
    "names": ["Fp1", "Fp2"], "text": np.tile(np.array(["a", "bow1"])[:, None], (1, 3)), "empty": np.empty((0, 3)),
    "objects": np.array(["one", "three"], dtype=object), "sfreq": 1000, "high": 0.01, "number": np.float64(2.5),
    "none": None, "truth": np.bool_(True),
}  # fmt: skip


def by_itself(protocol):
    return lambda path, content: path.write_bytes(pickle.dumps(content, protocol=protocol))


def by_numpy(path, content):
    with path.open("wb") as file:
        np.save(file, content, allow_pickle=True)


def by_torch(protocol):
    return lambda path, content: torch.save(content, path, pickle_protocol=protocol)


WRITERS = {
    **{f"pickle {n}": by_itself(n) for n in (2, 3, 4, 5)}, "npy": by_numpy, "torch 2": by_torch(2),
    "torch 5": by_torch(5),
}  # fmt: skip


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_arrays_and_plain_values_come_back(tmp_path, write):
    write(tmp_path / "file", CONTENT)
    found = read_pickled(tmp_path / "file")
    assert found.keys() == CONTENT.keys()
    for key, value in CONTENT.items():
        if isinstance(value, np.ndarray) and value.dtype != object:
            assert_array_equal(found[key], value)
            assert found[key].dtype == value.dtype and not found[key].flags.writeable
        else:
            assert found[key] == (value.tolist() if isinstance(value, np.ndarray | np.generic) else value)


def test_a_large_array_is_mapped_not_loaded(tmp_path):
    """A file with holes: it takes no disk, and reading it as a whole would take more memory than it may."""
    head, tail = pickle.dumps({"x": np.zeros(1)}, protocol=4), np.zeros(1).tobytes()
    size = 1 << 33
    assert head.count(b"C\x08" + tail) == 1
    begin, end = head.split(b"C\x08" + tail)
    begin = begin.replace(b"K\x01\x85", b"\x8a\x05" + (size // 8).to_bytes(5, "little") + b"\x85")
    begin = begin[:2] + begin[11:]  # without the frame, whose length would be another
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(begin + b"\x8e" + size.to_bytes(8, "little"))
        file.seek(size, os.SEEK_CUR)
        file.write(end)
    found = read_pickled(path)["x"]
    assert found.shape == (size // 8,) and not found[:: size // 80].any()


class Runs:
    def __reduce__(self):
        return os.mkdir, ("it_ran",)


def through_state():
    """A pickle that would give a function of NumPy another default."""
    return b"\x80\x04cnumpy.core.multiarray\n_reconstruct\n}\x8c\x0c__defaults__K\x01\x85sb."


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_what_could_run_code_is_named_and_not_run(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "file", {"values": np.zeros(3), "more": Runs()})
    with pytest.raises(
        DataError, match=r"file' is damaged or holds more than arrays.*'posix\.mkdir', which could run"
    ):
        read_pickled(tmp_path / "file")
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (through_state(), "the state of a function"),
        (pickle.dumps([1, 2]), "should hold a dict by names, but holds a list"),
        (pickle.dumps({1: 2}), "a dict whose keys are no names"),
        (pickle.dumps({"a": {"b": {"c": 1}}}), "a dict where a text or a number was expected"),
        (pickle.dumps({"a": [{"b": 1}]}), "a dict where a text or a number was expected"),
        (pickle.dumps({"a": [np.zeros(2)]}, protocol=4), "an? array where a text or a number was expected"),
        (pickle.dumps({"a": np.zeros(2, "f4,i4")}, protocol=4), "values of type 'V8'"),
        (pickle.dumps({"a": np.zeros(2, "M8[s]")}, protocol=4), "values of type 'M8'"),
        (pickle.dumps({"a": 1}) + b"more", "4 bytes follow its pickle"),
        (b"text", "is no pickle: it begins with b'text'"),
        (b"", "is empty"),
        (pickle.dumps({"a": np.zeros((2, 3))}, protocol=4).replace(b"K\x02K\x03", b"K\x02K\x04"), "have 64 bytes"),
    ],
)  # fmt: skip
def test_other_contents_are_named(tmp_path, content, said):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=rf"file'.*{said}"):
        read_pickled(tmp_path / "file")


def text(of):
    return b"X" + struct.pack("<I", len(of)) + of.encode()


def doubled(empty, two):
    """Opcodes of a value that holds the one before twice, 60 times over; it is the last of 61 in the memo."""
    steps = b"".join(two.replace(b"#", b"h" + bytes([n])) + b"\x940" for n in range(60))
    return empty + b"\x940" + steps + b"h\x3c"


def array(shape, kind, values):
    dtype = (
        b"cnumpy\ndtype\n" + text(kind) + b"\x85R(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    empty = b"cnumpy.core.multiarray\n_reconstruct\n)R"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + values + b"tb"


def under_a(value):
    return b"}" + text("a") + value + b"s."


LISTS, TUPLES = doubled(b"]", b"](##e"), doubled(b")", b"##\x86")
MANY = b"](" + b"N" * 100_000 + b"e\x940"  # a list, in the memo
HOSTILE = {
    "a type that has no end when it is printed": (under_a(b"cnumpy\ndtype\n" + LISTS + b"\x85R"), "values of type"),
    "a shape that has no end": (under_a(array(LISTS, "f8", b"C\x00")), "an array of shape"),
    "a key that has no end when it is hashed": (b"}" + TUPLES + b"K\x01s.", "keys are no names"),
    "many such keys": (b"}(" + TUPLES + b"K\x01u.", "keys are no names"),
    "a set of such values": (under_a(b"\x8f(" + TUPLES + b"\x90"), "sets or objects"),
    "a dict of such keys": (under_a(b"(" + TUPLES + b"K\x01d"), "sets or objects"),
    "sizes whose product is huge": (
        b"\x8b" + struct.pack("<i", 100_000) + b"\x01" * 100_000 + b"\x940"
        + under_a(array(b"(" + b"h\x00" * 20_000 + b"t", "f8", b"C\x00")), "cannot be read",
    ),
    "an array without values in places without end": (
        under_a(array(b"\x8a\x06" + (1 << 40).to_bytes(6, "little") + b"K\x00\x86", "f8", b"C\x00")), "no values",
    ),
    "a text that is copied often": (
        text("x" * 1_000_000) + b"\x940c_codecs\nencode\n\x940"
        + under_a(b"](" + (b"h\x01h\x00" + text("latin1") + b"\x86R") * 5_000 + b"e"), "again and again",
    ),
    "a list under many names": (
        MANY + b"}(" + b"".join(text(str(n)) + b"h\x00" for n in range(20_000)) + b"u.", "the same list",
    ),
    "a dict with a list under many names": (
        MANY + b"}(" + text("list") + b"h\x00u\x940}("
        + b"".join(text(str(n)) + b"h\x01" for n in range(20_000)) + b"u.",
        "the same list",
    ),
    "a list in many arrays": (
        MANY + b"}(" + b"".join(text(str(n)) + array(b"J\xa0\x86\x01\x00\x85", "O8", b"h\x00") for n in range(2_000))
        + b"u.", "the same list",
    ),
    "steps without end": (b"(" * 50_000_000, "more than 262,144"),
    "arguments without end": (
        b"cnumpy\nndarray\nB" + struct.pack("<I", 1 << 28) + bytes(1 << 28) + b"R.", "a memoryview",
    ),
    "an instance without what makes it one": (under_a(b"cnumpy\nndarray\n)\x81"), "sets or objects"),
    "a number without end": (under_a(b"\x8b" + struct.pack("<i", 100_000) + b"\x01" * 100_000), "a number of"),
    "a name without end, which clears the screen": (b"c\x1b[2J" + b"m" * 60_000 + b"\nname\n.", r"'\\x1b\[2Jm+\.\.\."),
}  # fmt: skip


@pytest.mark.parametrize(("content", "said"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_takes_neither_memory_nor_time(tmp_path, monkeypatch, content, said):
    """In a process that is ended after two minutes, and may have two GiB more than it has now."""
    (tmp_path / "file").write_bytes(b"\x80\x04" + content)
    monkeypatch.setattr(pickled, "MOST_READS", 1 << 18)  # the real number takes ten seconds
    if not (child := os.fork()):
        signal.alarm(120)
        more = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (2 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (more, more))
        try:
            with pytest.raises(DataError, match=rf"file'.*{said}") as raised:
                read_pickled(tmp_path / "file")
            os._exit(len(str(raised.value)) > 1000)
        except BaseException as error:
            print(repr(error)[:500])
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("twice", [False, True])
def test_a_zip_file_that_unpacks_to_more_than_it_is(tmp_path, twice):
    """Compressed members, and one member that is listed a thousand times."""
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", pickle.dumps({"a": 1}))
        file.writestr("a/more", bytes(1 << 20), None if twice else zipfile.ZIP_DEFLATED)
        if twice:
            file.filelist += [file.filelist[-1]] * 1000
    with pytest.raises(DataError, match=r"bomb\.pt'.*compresses nothing"):
        read_pickled(path)


def test_arrays_tensors_and_other_zip_files_are_named(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros((2, 3)))
    torch.save({"a": torch.zeros(3)}, tmp_path / "tensor.pt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("a.txt", "text")
    for name, said in (
        ("array.npy", r"an array of shape \(2, 3\)"),
        ("tensor.pt", "torch"),
        ("other.zip", "data.pkl"),
    ):
        with pytest.raises(DataError, match=rf"{name}'.*{said}"):
            read_pickled(tmp_path / name)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_truncation_is_named(tmp_path, write):
    write(tmp_path / "whole", {"values": np.zeros((3, 50)), "names": ["a", "b"]})
    content = (tmp_path / "whole").read_bytes()
    for end in range(1, len(content), 37):
        (tmp_path / "cut").write_bytes(content[:end])
        with pytest.raises(DataError, match="cut'"):
            read_pickled(tmp_path / "cut")


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_flipped_bytes_give_an_error_or_a_dict(tmp_path, write):
    write(tmp_path / "whole", {"values": np.arange(6.0).reshape(2, 3), "names": ["a", "b"], "n": np.float64(3)})
    content = (tmp_path / "whole").read_bytes()
    for place in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            assert isinstance(read_pickled(tmp_path / "damaged"), dict)
        except DataError as error:
            assert "damaged'" in str(error)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "values",
    [np.array(["voxel_id", 0, 1], dtype=object), np.arange(5), ["a", 2.5, None]],
    ids=["objects", "numbers", "list"],
)
def test_lists_within_files_come_back(protocol, values):
    content = pickle.dumps(values, protocol=protocol)
    assert read_pickled_list(content, "'x'") == (values.tolist() if isinstance(values, np.ndarray) else values)


def test_other_things_than_lists_within_files_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Runs:
        def __reduce__(self):
            return os.mkdir, ("it_ran",)

    whole = pickle.dumps([0, 1, 2], protocol=4)
    for content, words in (
        (pickle.dumps(Runs()), "could run code"), (pickle.dumps([Runs()]), "could run code"),
        (pickle.dumps({"a": 1}), "a dict where a list was expected"),
        (pickle.dumps(3), "an int where a list was expected"), (whole[:-3], "damaged"),
        (whole + b"x", "1 bytes follow"), (b"", "damaged"), (pickle.dumps([[1]]), "where a text or a number"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=f"^'x': its pickle .*{words}"):
            read_pickled_list(content, "'x'")
    assert not (tmp_path / "it_ran").exists()
