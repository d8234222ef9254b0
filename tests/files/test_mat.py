"""MAT-files: equal to scipy's reader where they are whole, refused where they are damaged."""

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from neural_clip.errors import DataError
from neural_clip.files.arrays import read_array
from neural_clip.files.mat import read_mat

NUMBERS = {
    f"of_{np.dtype(code).name}": np.arange(-3, 3).astype(code).reshape(2, 3)
    for code in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
}
SHAPES = {
    "scalar": np.array(2.5), "line": np.arange(5.0), "empty": np.zeros((0, 3)), "wide": np.arange(40.0)[None],
    "cube": np.arange(24.0).reshape(2, 3, 4), "four": np.arange(16, dtype=np.int16).reshape(2, 2, 2, 2),
    "logical": np.array([[True, False, True]]), "column_major": np.asfortranarray(np.arange(6.0).reshape(3, 2)),
}  # fmt: skip
TEXTS = {"word": "hello", "accents": "h\u00e9t\u00e9", "lines": np.array(["ab", "cd"]), "nothing": ""}
CELLS = {"names": np.array(["a", "long", ""], dtype=object), "column": np.array([["x"], ["yz"]], dtype=object)}
UNREAD = {
    "struct": ({"a": 1.0}, "a structure"),
    "complex": (np.array([[1 + 2j]]), "complex"),
    "cells": (np.array([1.0, "x"], dtype=object), "a cell array of other things"),
    "nested": (np.array([np.array(["x"], dtype=object), 0], dtype=object), "a cell array of other things"),
}


def saved(path, arrays, compressed=False):
    savemat(path, arrays, do_compression=compressed)
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_whole_files_equal_scipys(tmp_path, compressed):
    arrays = NUMBERS | SHAPES | TEXTS | CELLS | {name: value for name, (value, _) in UNREAD.items()}
    path = saved(tmp_path / "m.mat", arrays, compressed)
    theirs = loadmat(path)
    everything = read_mat(path)
    assert set(everything) == set(NUMBERS | SHAPES | TEXTS | CELLS)
    for name in NUMBERS | SHAPES | TEXTS:
        (ours,) = read_mat(path, [name]).values()
        assert (ours.dtype, ours.shape) == (theirs[name].dtype, theirs[name].shape), name
        np.testing.assert_array_equal(ours, theirs[name])
        np.testing.assert_array_equal(ours, everything[name])
    for name in CELLS:
        expected = [str(cell[0]) if len(cell) else "" for cell in theirs[name].ravel()]
        assert everything[name].tolist() == expected and everything[name].dtype.kind == "U"
    for name, (_, words) in UNREAD.items():
        with pytest.raises(DataError, match=f"m.mat': '{name}' is {words}"):
            read_mat(path, [name])


def test_narrow_numbers_of_a_wide_class(tmp_path):
    """MATLAB stores doubles that are whole numbers as bytes; scipy's reader keeps them so, and so does ours."""
    path = saved(tmp_path / "m.mat", {"pixels": np.array([[1, 2, 255]], np.uint8)})
    content = path.read_bytes()
    place = content.index(struct.pack("<IIII", 6, 8, 9, 0)) + 8
    path.write_bytes(content[:place] + b"\x06" + content[place + 1 :])
    (ours,) = read_mat(path).values()
    assert ours.dtype == np.uint8 == loadmat(path)["pixels"].dtype and ours.tolist() == [[1, 2, 255]]


def test_big_endian_files_are_read(tmp_path):
    def element(kind, data):
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    values = np.arange(6.0).reshape(2, 3)
    parts = [
        element(6, struct.pack(">II", 6, 0)), element(5, struct.pack(">ii", 2, 3)), element(1, b"x"),
        element(9, values.astype(">f8").tobytes(order="F")),
    ]  # fmt: skip
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    path = tmp_path / "m.mat"
    path.write_bytes(header + element(14, b"".join(parts)))
    (ours,) = read_mat(path).values()
    np.testing.assert_array_equal(ours, loadmat(path)["x"])
    np.testing.assert_array_equal(ours, values)


def test_wrong_names_say_which_there_are(tmp_path):
    path = saved(tmp_path / "m.mat", {"b": np.ones(2), "a": np.ones(3), "s": {"x": 1.0}})
    words = r"m\.mat': there is no array 'c'; it holds 'a', 'b', 's'\."
    for read in (lambda: read_mat(path, ["a", "c"]), lambda: read_array(path, "c")):
        with pytest.raises(DataError, match=words):
            read()
    with pytest.raises(DataError, match="no array was chosen; it holds 'a', 'b'"):
        read_array(path)
    assert read_array(path, "a").tolist() == [[1, 1, 1]]
    with pytest.raises(DataError, match="There is no MAT-file"):
        read_mat(tmp_path / "other.mat")


def test_level_4_is_refused(tmp_path):
    savemat(tmp_path / "four.mat", {"a": np.ones(3)}, format="4")
    with pytest.raises(DataError, match=r"four\.mat' cannot be read: no MAT-file of level 5"):
        read_mat(tmp_path / "four.mat")


REMARK = 116  # bytes of text at the beginning, which nobody reads


def damaged_files(content):
    """Every one-bit change, every byte as zero, as 255 and one more, and every truncation; but for the remark."""
    for place, old in enumerate(content[REMARK:], REMARK):
        for new in {old ^ 1 << bit for bit in range(8)} | {0, 255, (old + 1) % 256} - {old}:
            yield content[:place] + bytes([new]) + content[place + 1 :]
    for size in range(len(content)):
        yield content[:size]


SMALL = {
    "doubles": {"x": np.arange(6.0).reshape(2, 3)},
    "bytes": {"x": np.arange(12, dtype=np.uint8).reshape(3, 4), "text": "no"},
    "long": {"x": np.arange(4, dtype=np.int64)[None], "long_name_of_another": np.float32([[1, 2]])},
    "text": {"x": "word"},
    "cells": {"x": np.array(["a", "bcd"], dtype=object)},
    "cube": {"x": np.arange(8, dtype=np.int16).reshape(2, 2, 2), "s": {"y": 1.0}},
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("content", SMALL)
def test_damaged_files_are_refused_or_give_the_same_shape(tmp_path, monkeypatch, content, compressed):
    path = saved(tmp_path / "m.mat", SMALL[content], compressed)
    whole = path.read_bytes()
    (expected,) = read_mat(path, ["x"]).values()
    refused = changed = 0
    for damaged in damaged_files(whole):
        monkeypatch.setattr(Path, "read_bytes", lambda _, damaged=damaged: damaged)  # thousands of files take minutes
        try:
            (found,) = read_mat(path, ["x"]).values()
        except DataError as error:
            assert "m.mat'" in str(error)
            refused += 1
            continue
        assert (found.shape, found.dtype.kind) == (expected.shape, expected.dtype.kind)
        changed += not np.array_equal(found, expected)
    assert refused > 500 and (changed == 0 if compressed else changed > 0)  # what is compressed has a checksum


def test_damage_that_ends_the_process_in_other_readers(tmp_path):
    """A wrong type code, by which scipy's reader looks up a converter that is not there."""
    path = saved(tmp_path / "m.mat", {"x": np.arange(9.0)[None]})
    content = bytearray(path.read_bytes())
    place = content.index(struct.pack("<II", 9, 72))
    for code in {*range(256)} - {9}:
        content[place] = code
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"m\.mat' cannot be read"):
            read_array(path, "x")


def test_level_7_3_is_read_as_hdf5_and_lost_chunks_are_noticed(tmp_path):
    path = tmp_path / "m.mat"
    values = np.arange(6000.0).reshape(60, 100)
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("x", data=values.T, chunks=(50, 30), compression="gzip")
        file["small"] = np.arange(3)
    content = bytearray(path.read_bytes())
    content[:128] = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_array(path, "x"), values)
    assert read_array(path, "small").tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="there is no array 'y'; it holds 'small', 'x'"):
        read_array(path, "y")
    with h5py.File(path, "a") as file:
        del file["x"]
        lacking = file.create_dataset("x", values.T.shape, "f8", chunks=(50, 30))
        lacking[:50] = values.T[:50]
    with pytest.raises(DataError, match=r"m\.mat' is incomplete"):
        read_array(path, "x")
