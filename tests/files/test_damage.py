"""Files that claim or hold far more than they should are refused by name, before memory is filled with them."""

import gzip
import io
import itertools
import os
import struct
import zipfile
import zlib

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from forked import run_forked
from neural_clip.corpora.custom.edf import read_header
from neural_clip.errors import DataError
from neural_clip.files import reading
from neural_clip.files.arrays import read_array, read_names
from neural_clip.files.hdf5 import open_dataset
from neural_clip.files.nifti import open_nifti, read_affine, read_nifti
from neural_clip.files.reading import check_gzip, existing, read_json, read_yaml
from neural_clip.files.tables import read_table
from neural_clip.prepared.image_rows import image_bytes

ZEROS = bytes(1 << 24)
HUGE = 6  # times these zeros: 96 MiB
ALLOWED_MB = 64


@pytest.fixture(autouse=True)
def small_limit(monkeypatch):
    """Files may become 8 MiB, not 256, so that they are made in no time."""
    monkeypatch.setattr(reading, "MAX_UNPACKED", 1 << 23)


def refused(action, *args, match):
    """The message of a refusal that cost neither time nor memory."""
    found = run_forked(action, *args)
    assert isinstance(found.error, DataError), found
    assert found.megabytes < ALLOWED_MB and found.seconds < 10, found
    assert match in str(found.error)
    return str(found.error)


def packed_zeros(count=HUGE):
    """A gzip file of zeros, member after member."""
    return gzip.compress(ZEROS, 1) * count


def nifti(shape, version=nibabel.Nifti1Image):
    """Header of a NIfTI file of float64."""
    header = version.header_class()
    header.set_data_dtype(np.float64)
    header.set_data_shape(shape)
    header["vox_offset"] = 352 if version is nibabel.Nifti1Image else 544
    header["magic"] = b"n+1" if version is nibabel.Nifti1Image else b"n+2"
    return header.binaryblock.ljust(int(header["vox_offset"]), b"\0")


def read_stream(path):
    with open_nifti(path) as stream:
        stream.values(1)


@pytest.mark.parametrize("reader", [read_nifti, read_stream, read_affine])
def test_nifti_files_that_announce_more_than_they_hold(tmp_path, reader):
    for name, content in {
        "v1.nii": nifti((30000, 30000, 100)), "v2.nii": nifti((10**6, 10**6, 10**6), nibabel.Nifti2Image),
        "v1.nii.gz": gzip.compress(nifti((30000, 30000, 100))),
        "v2.nii.gz": gzip.compress(nifti((10**6, 10**6), nibabel.Nifti2Image)) + packed_zeros(4),
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(content)
        refused(reader, tmp_path / name, match=name)


def test_nifti_files_that_hold_more_than_they_announce(tmp_path):
    (tmp_path / "x.nii.gz").write_bytes(gzip.compress(nifti((2, 2, 2)) + bytes(64)) + packed_zeros())
    refused(read_nifti, tmp_path / "x.nii.gz", match="announces 416 bytes, but it has more")


def test_gzip_files_that_become_far_larger(tmp_path):
    (tmp_path / "x_epo.fif.gz").write_bytes(packed_zeros())
    refused(check_gzip, tmp_path / "x_epo.fif.gz", match="allowed are 100 times its size")


def test_what_is_compressed_a_hundred_times_is_read_where_it_is_small(tmp_path):
    with gzip.open(tmp_path / "mask.nii.gz", "wb") as file:
        file.write(nifti((100, 100, 100)) + bytes(8 * 100**3))
    assert (tmp_path / "mask.nii.gz").stat().st_size < 8 * 100**3 / 200
    assert read_nifti(tmp_path / "mask.nii.gz")[0].shape == (100, 100, 100)


def npy(shape):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(10**12,), (2**40, 2**40), (3,), (0,), (5,)])
def test_shapes_that_are_not_those_of_the_values(tmp_path, shape):
    (tmp_path / "x.npy").write_bytes(npy(shape) + np.arange(4.0).tobytes())
    refused(read_array, tmp_path / "x.npy", match="but its header announces")
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", npy(shape) + np.arange(4.0).tobytes())
    refused(read_array, tmp_path / "x.npz", match="but its header announces")


def test_archives_of_arrays_that_become_far_larger_or_hold_a_name_twice(tmp_path):
    size = HUGE * len(ZEROS)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("x.npy", npy((size // 8,)) + HUGE * ZEROS)
    refused(read_array, tmp_path / "x.npz", match="allowed are 100 times its size")
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("x.npy", npy((1,)) + bytes(8))
        file.writestr("x.npy", npy((1,)) + bytes(8))
    refused(read_array, tmp_path / "twice.npz", "x", match="two arrays of one name")


def mat(element):
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + element


def test_matlab_files_that_become_far_larger(tmp_path):
    packing = zlib.compressobj(1)
    body = b"".join(packing.compress(ZEROS) for _ in range(HUGE)) + packing.flush()
    path = tmp_path / "x.mat"
    path.write_bytes(mat(struct.pack("<II", 15, len(body)) + body))  # its tag says that it holds nothing
    refused(read_array, path, match="longer or shorter than it says")
    packing = zlib.compressobj(1)
    body = packing.compress(struct.pack("<II", 14, HUGE * len(ZEROS)))
    body += b"".join(packing.compress(ZEROS) for _ in range(HUGE)) + packing.flush()
    path.write_bytes(mat(struct.pack("<II", 15, len(body)) + body))
    refused(read_array, path, match="allowed are 100 times its size")


def test_lines_of_text_that_hold_nothing_are_not_counted(tmp_path):
    parts = struct.pack("<IIII", 6, 8, 4, 0) + struct.pack("<IIii", 5, 8, 2**31 - 1, 0)
    parts += struct.pack("<II", 1, 8) + b"names\0\0\0" + struct.pack("<II", 4, 0)
    (tmp_path / "x.mat").write_bytes(mat(struct.pack("<II", 14, len(parts)) + parts))
    found = run_forked(read_names, tmp_path / "x.mat")
    assert found.megabytes < ALLOWED_MB


def test_one_long_name_among_many_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.mat", "w") as file:
        file.create_dataset("names", data=["x" * 60_000, *"abcdefghij" * 200], dtype=h5py.string_dtype())
    refused(read_names, tmp_path / "x.mat", match="a text of 60,000 characters among 2,001 names")


def hdf5_bomb(path, kind):
    """HDF5 files that are small and would become large."""
    n_values = HUGE * len(ZEROS)
    with h5py.File(path, "w") as file:
        if kind == "few chunks":
            file.create_dataset("x", (10**6, 10**6), "f8", chunks=(1000, 100), compression="gzip")[0, 0] = 1.0
        elif kind == "packed":
            made = file.create_dataset("x", (n_values,), "u1", chunks=(len(ZEROS),), compression="gzip")
            for start in range(0, n_values, len(ZEROS)):
                made[start : start + len(ZEROS)] = 0
        elif kind == "one chunk":  # of more than the data set has room for
            made = file.create_dataset("x", (1 << 16,), "u1", chunks=(1 << 16,), compression="gzip")
            packing = zlib.compressobj(1)
            body = b"".join(packing.compress(ZEROS) for _ in range(HUGE)) + packing.flush()
            made.id.write_direct_chunk((0,), body)
        else:  # one text, meant a million times
            made = file.create_dataset("x", (20_000,), h5py.string_dtype())
            made[0] = "x" * 10_000
            file.flush()
            place = made.id.get_offset()
    if kind == "one text":
        content = bytearray(path.read_bytes())
        content[place : place + 16 * 20_000] = bytes(content[place : place + 16]) * 20_000
        path.write_bytes(content)


@pytest.mark.parametrize("kind", ["few chunks", "packed", "one chunk", "one text"])
def test_hdf5_files_that_become_far_larger(tmp_path, kind):
    hdf5_bomb(tmp_path / "x.mat", kind)
    refused(read_array, tmp_path / "x.mat", "x", match="x.mat")


def test_links_of_hdf5_lead_to_no_other_file(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(3.0)
    with h5py.File(tmp_path / "x.mat", "w") as file:
        file["x"] = h5py.ExternalLink("other.h5", "x")
        file["loop"] = h5py.SoftLink("/loop")
        file["y"] = np.arange(2.0)
    for name in ("x", "loop"):
        with pytest.raises(DataError, match=rf"x\.mat': there is no array '{name}'; it holds 'y'"):
            read_array(tmp_path / "x.mat", name)
        with pytest.raises(DataError, match=r"x\.mat"), open_dataset(tmp_path / "x.mat", name):
            pass
    np.testing.assert_array_equal(read_array(tmp_path / "x.mat"), np.arange(2.0))


def png_with(chunk):
    """A PNG file with one more chunk."""
    info = PngImagePlugin.PngInfo()
    buffer = io.BytesIO()
    info.add(*chunk)
    Image.new("RGB", (2, 2)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def png_header(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


PACKED = zlib.compress(bytes(100_000_000), 1)
IMAGES = {
    "far too many pixels": (png_header(60000, 60000), "too many pixels"),
    "too many pixels": (png_header(10000, 9000), "10000 x 9000 pixels; allowed are 89,478,485"),
    "a text that becomes far larger": (png_with((b"zTXt", b"x\0\0" + PACKED)), "is no readable image"),
    "Postscript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments\nshowpage\n", "is no readable image file",
    ),
    "a Windows metafile": (b"\xd7\xcd\xc6\x9a".ljust(80, b"\0"), "is no readable image file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", IMAGES)
def test_images_that_are_bombs_or_programs(tmp_path, kind):
    content, message = IMAGES[kind]
    (tmp_path / "x.png").write_bytes(content)
    refused(image_bytes, tmp_path / "x.png", f"image '{tmp_path}/x.png'", match=message)


def test_a_profile_that_becomes_far_larger_is_passed_over(tmp_path):
    (tmp_path / "x.png").write_bytes(png_with((b"iCCP", b"x\0\0" + PACKED)))
    found = run_forked(image_bytes, tmp_path / "x.png", "image 'x'")
    assert found.error is None and found.megabytes < ALLOWED_MB


def test_no_program_is_started_for_an_image(tmp_path, monkeypatch):
    """Pillow would start Ghostscript for this file, which here is a program that leaves a mark."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\n: > {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "x.png").write_bytes(IMAGES["Postscript"][0])
    with pytest.raises(DataError, match=r"image 'x' in '.*' is no readable image file"):
        image_bytes(tmp_path / "x.png", "image 'x'")
    assert not (tmp_path / "started").exists()


def test_headers_of_edf_and_gdf_that_announce_too_much(tmp_path):
    head = b"0".ljust(8) + b" " * 176 + b"512".ljust(8) + b" " * 44 + b"1".ljust(8) + b"1".ljust(8)
    for name, content, message in (
        ("x.gdf", b"GDF 1.25".ljust(252, b"\0") + struct.pack("<I", 2**32 - 1), "announces 4294967295 signals"),
        ("x.edf", head + b"9999", "announces 9999 signals"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(read_header, tmp_path / name, match=message)


def aliases(first, item):
    """Nine levels, each of which names the one before nine times."""
    levels = (f"{b}: &{b} " + item.format(",".join(["*" + a] * 9)) for a, b in itertools.pairwise("abcdefghi"))
    return "\n".join([f"a: &a {first}", *levels])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (aliases("[l]", "[{}]"), "has more than 200,000 values"),
        (aliases("{x: 1}", "{{<<: [{}]}}"), "has more than 200,000 values"),
        ("a: &a [*a]", "has more than 200,000 values"),
        ("[" * 100_000, "nested more than 50 deep, at line 1"),
        ("- " * 20_000, "nested more than 50 deep"),
        ("a: 1\nb: 2\na: 3\n", "holds the key 'a' twice"),
        ("a: " + "x" * (1 << 22), "it has 4,194,307 characters; allowed are 4,194,304"),
        ("!!python/object/apply:os.system ['x']", "could not determine a constructor"),
    ],
)  # fmt: skip
def test_yaml_that_would_not_end(tmp_path, content, message):
    (tmp_path / "x.yaml").write_text(content)
    refused(read_yaml, tmp_path / "x.yaml", "manifest", match=message)


def test_yaml_with_aliases_is_read(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}\n")
    assert read_yaml(tmp_path / "x.yaml") == {"a": {"x": 1}, "b": {"x": 1, "y": [{"x": 1}, {"x": 1}]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "50 deep"), ('{"a":' * 100_000, "50 deep"),
        ('{"a": 1, "a": 2}', "the key 'a' twice"), ("[NaN]", "NaN, which is no number"), ("[1e999]", "1e999"),
        ("[" + "9" * 5000 + "]", "4300 digits"), ("", "is empty"), ("{", "is no readable JSON file"),
        (r'["\ud800"]', "surrogates not allowed"), (r'{"\udfff": 1}', "surrogates not allowed"),
    ],
)  # fmt: skip
def test_json_that_is_none(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    assert "x.json" in refused(read_json, tmp_path / "x.json", match=message)


def test_json_with_a_character_in_two_halves_is_read(tmp_path):
    (tmp_path / "x.json").write_text(r'["\ud83e\udde0"]')
    assert read_json(tmp_path / "x.json") == ["\N{BRAIN}"]


def test_a_giant_field_of_a_table(tmp_path):
    (tmp_path / "x.tsv").write_text("onset\timage\n1.0\t" + "x" * 5_000_000 + "\n")
    refused(read_table, tmp_path / "x.tsv", match="field larger than field limit")


def test_pipes_and_devices_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("pipe", "device"):
        refused(existing, tmp_path / name, "recording", match="is a device or a pipe")
