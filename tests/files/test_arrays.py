"""Arrays and names from every container; what is none says what it is."""

import pickle
import re

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from neural_clip.errors import DataError
from neural_clip.files.arrays import read_array, read_names
from neural_clip.files.hdf5 import open_dataset

NAMES = ["cat", "bird", "K\u00e4fer"]
MATLAB_HEAD = b"MATLAB 7.3 MAT-file, made by a test".ljust(512, b"\0")


def npz(path, **arrays):
    np.savez(path, **arrays)


def matlab_73(path, names, kind):
    """Names as `save(file, '-v7.3')` lays them out: characters are uint16, cells refer to data sets."""
    with h5py.File(path, "w", userblock_size=512) as file:

        def chars(name, lines):
            codes = np.array([[ord(letter) for letter in line] for line in lines], np.uint16)
            made = file.create_dataset(name, data=codes.T)  # MATLAB counts dimensions from the other end
            made.attrs["MATLAB_class"] = np.bytes_("char")
            return made

        if kind == "char":
            width = max(map(len, names))
            chars("names", [name.ljust(width) for name in names])
        elif kind == "cellstr":
            references = [chars(f"#refs#/{i}", [name]).ref for i, name in enumerate(names)]
            cell = file.create_dataset("names", (1, len(names)), h5py.ref_dtype)
            cell[0] = references
            cell.attrs["MATLAB_class"] = np.bytes_("cell")
        else:
            made = file.create_dataset("names", data=np.zeros((1, 6), np.uint32))
            made.attrs["MATLAB_class"] = np.bytes_("string")
            made.attrs["MATLAB_object_decode"] = np.int32(3)
    with open(path, "r+b") as file:
        file.write(MATLAB_HEAD)


def hdf5(path, names, dtype):
    with h5py.File(path, "w") as file:
        file.create_dataset("names", data=names, dtype=dtype)


WRITERS = {
    "numpy str": ("n.npz", lambda path: npz(path, names=np.array(NAMES))),
    "numpy bytes": ("n.npz", lambda path: npz(path, names=np.array([name.encode() for name in NAMES]))),
    "numpy bytes alone": ("n.npy", lambda path: np.save(path, np.array([name.encode() for name in NAMES]))),
    "matlab char": ("n.mat", lambda path: savemat(path, {"names": np.array(NAMES)})),
    "matlab cellstr": ("n.mat", lambda path: savemat(path, {"names": np.array(NAMES, dtype=object)})),
    "matlab 7.3 char": ("n.mat", lambda path: matlab_73(path, NAMES, "char")),
    "matlab 7.3 cellstr": ("n.mat", lambda path: matlab_73(path, NAMES, "cellstr")),
    "hdf5 fixed": ("n.mat", lambda path: hdf5(path, np.array([name.encode() for name in NAMES]), None)),
    "hdf5 fixed utf-8": ("n.mat", lambda path: hdf5(path, [n.encode() for n in NAMES], h5py.string_dtype("utf-8", 8))),
    "hdf5 any length": ("n.mat", lambda path: hdf5(path, NAMES, h5py.string_dtype())),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITERS)
def test_names_are_the_same_whatever_holds_them(tmp_path, kind):
    name, write = WRITERS[kind]
    write(tmp_path / name)
    assert read_names(tmp_path / name, None if name == "n.npy" else "names") == NAMES


def test_names_are_composed_and_without_padding(tmp_path):
    np.save(tmp_path / "n.npy", np.array(["Ka\u0308fer", " cat ", "bird\0"]))
    assert read_names(tmp_path / "n.npy") == ["K\u00e4fer", "cat", "bird"]


def test_whole_numbers_are_names_without_a_point(tmp_path):
    savemat(tmp_path / "n.mat", {"labels": np.array([1.0, 10.0])})
    assert read_names(tmp_path / "n.mat", "labels") == ["1", "10"]


def test_matlab_strings_are_refused_with_advice(tmp_path):
    matlab_73(tmp_path / "n.mat", NAMES, "string")
    with pytest.raises(DataError, match=r"'names' is a string object of MATLAB.*cellstr"):
        read_array(tmp_path / "n.mat", "names")


def test_cells_of_numbers_are_refused(tmp_path):
    with h5py.File(tmp_path / "n.mat", "w") as file:
        number = file.create_dataset("#refs#/0", data=np.ones((1, 1)))
        number.attrs["MATLAB_class"] = np.bytes_("double")
        cell = file.create_dataset("names", (1, 1), h5py.ref_dtype)
        cell[0] = [number.ref]
        cell.attrs["MATLAB_class"] = np.bytes_("cell")
    with pytest.raises(DataError, match="cell array of other things than lines of text"):
        read_array(tmp_path / "n.mat", "names")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    np.save(tmp_path / "n.npy", np.array(["K\u00e4fer".encode("latin-1")]))
    with pytest.raises(DataError, match="not UTF-8"):
        read_array(tmp_path / "n.npy")


def newer_npy(path):
    np.save(path, np.ones(3))
    content = bytearray(path.read_bytes())
    content[6] = 9
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("x.npy", lambda path: np.save(path, np.array([{}]), allow_pickle=True), r"Python objects.*np\.asarray"),
        ("x.npz", lambda path: npz(path, a=np.array(["a", None], dtype=object)), "Python objects"),
        ("x.npy", lambda path: path.write_bytes(pickle.dumps([1])), r"no \.npy file: it begins like a pickle"),
        ("x.npy", newer_npy, r"version 9\.0 of the \.npy format"),
        (
            "x.npz",
            lambda path: np.save(path.open("wb"), np.ones(3)),
            r"no \.npz file: it begins like an array of NumPy",
        ),
        ("x.mat", lambda path: savemat(path, {"a": np.ones(3)}, format="4"), "may be of level 4"),
        ("x.mat", lambda path: path.write_bytes(b"\x89PNG" * 60), "begins like a PNG image"),
        ("x.npy", lambda path: path.mkdir(), "is a folder"),
        ("x.npy", lambda path: path.touch(), "is empty"),
        ("x.npy", lambda path: None, "There is no array file"),
    ],
)
def test_sound_files_of_another_kind_are_not_called_damaged(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(DataError, match=message) as caught:
        read_array(tmp_path / name)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.mat"])
def test_truncated_files_are_called_so(tmp_path, name):
    path, values = tmp_path / name, np.arange(5000.0)
    {".npy": np.save, ".npz": lambda p, v: np.savez(p, a=v), ".mat": lambda p, v: savemat(p, {"a": v})}[path.suffix](
        path, values
    )
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="Is it damaged or truncated"):
        read_array(path)


def newer_hdf5(path):
    hdf5(path, [1.0], None)
    content = bytearray(path.read_bytes())
    content[8] = 9
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: np.save(path.open("wb"), np.ones(3)), "no HDF5 file: it begins like an array of NumPy"),
        (newer_hdf5, r"newer version of HDF5 \(superblock 9\)"),
        (lambda path: hdf5(path, [1.0], None), "no data set 'betas'; it holds 'names'"),
        (lambda path: h5py.File(path, "w").create_group("betas").file.close(), "'betas' is a group"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.touch(), "is empty"),
        (lambda path: None, "does not exist"),
    ],
)
def test_hdf5_files_say_what_they_are(tmp_path, write, message):
    write(tmp_path / "x.hdf5")
    with pytest.raises(DataError, match=message) as caught, open_dataset(tmp_path / "x.hdf5", "betas"):
        pass
    assert "damaged" not in str(caught.value)


def test_a_truncated_hdf5_file_is_called_so(tmp_path):
    hdf5(tmp_path / "x.hdf5", np.arange(5000.0), None)
    (tmp_path / "x.hdf5").write_bytes((tmp_path / "x.hdf5").read_bytes()[:5000])
    with pytest.raises(DataError, match="damaged or truncated"), open_dataset(tmp_path / "x.hdf5", "names"):
        pass


def test_values_in_other_files_are_refused(tmp_path):
    hdf5(tmp_path / "part.mat", np.ones(3), None)
    with h5py.File(tmp_path / "x.mat", "w") as file:
        layout = h5py.VirtualLayout(shape=(3,), dtype="f8")
        layout[:] = h5py.VirtualSource(tmp_path / "part.mat", "names", shape=(3,))
        file.create_virtual_dataset("a", layout)
    with pytest.raises(DataError, match="lie in other files"):
        read_array(tmp_path / "x.mat", "a")


def test_empty_matrices_of_matlab_are_empty(tmp_path):
    """MATLAB 7.3 stores their sizes as values."""
    with h5py.File(tmp_path / "x.mat", "w") as file:
        for name, kind in (("a", "double"), ("names", "char")):
            file[name] = np.array([0, 3], np.uint64)
            file[name].attrs["MATLAB_class"] = np.bytes_(kind)
            file[name].attrs["MATLAB_empty"] = np.uint8(1)
    assert read_array(tmp_path / "x.mat", "a").shape == (0, 3)
    assert read_names(tmp_path / "x.mat", "names") == []


@pytest.mark.parametrize(("code", "known"), [(1, True), (32001, False), (32015, False), (307, False)])
def test_compression_that_only_a_plugin_can_undo_is_named(tmp_path, code, known):
    """Those that pandas offers are blosc, lzo and bzip2; what h5py brings along is read."""
    path = tmp_path / "x.mat"
    with h5py.File(path, "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((4,))
        settings.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (4,))
        made = h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple((4,)), settings)
        h5py.Dataset(made)[...] = np.arange(4.0)
    if known:
        np.testing.assert_array_equal(read_array(path, "x"), np.arange(4.0))
        return
    told = rf"'{re.escape(str(path))}': '/x' is compressed by filter {code} of HDF5.*without compression or with gzip"
    with pytest.raises(DataError, match=told):
        read_array(path, "x")
    with pytest.raises(DataError, match=told), open_dataset(path, "x"):
        pass
