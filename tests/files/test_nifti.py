"""NIfTI files: equal to nibabel's reading where they are whole, refused where they are damaged."""

import gzip

import nibabel
import numpy as np
import pytest

from neural_clip.errors import DataError
from neural_clip.files.nifti import check_same_place, open_nifti, read_affine, read_all, read_nifti

AFFINE = np.array([[2.0, 0, 0, -10], [0, 2.5, 0, 4], [0, 0, 3, 7], [0, 0, 0, 1]])


def written(
    path, kind=nibabel.Nifti1Image, dtype=np.int16, units=("mm", "sec"), scaled=False, order="<", shape=(3, 4, 2, 5)
):
    values = np.random.default_rng(0).integers(-300, 300, shape)
    header = kind.header_class(endianness=order)
    image = kind(values.astype(dtype), AFFINE, header)
    image.header.set_xyzt_units(*units)
    image.header.set_zooms((2, 2.5, 3, 1.6)[: len(shape)])
    if scaled:
        image.header.set_slope_inter(0.37, -2.5)
        image = kind(values * 0.37 - 2.5, AFFINE, image.header)
        image.set_data_dtype(dtype)
    image.to_filename(path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"dtype": np.float32}, {"dtype": np.float64}, {"dtype": np.uint8}, {"kind": nibabel.Nifti2Image},
        {"scaled": True}, {"order": ">"}, {"shape": (3, 4, 2)},
    ],
)  # fmt: skip
def test_whole_files_equal_nibabels(tmp_path, suffix, options):
    path = written(tmp_path / f"run{suffix}", **options)
    expected = nibabel.load(path)
    data, affine, t_r = read_nifti(path)
    assert data.dtype == np.float32 and data.shape == expected.shape
    np.testing.assert_array_equal(data, np.asarray(expected.dataobj, dtype=np.float32))
    np.testing.assert_array_equal(affine, expected.affine)
    assert t_r == (1.6 if len(expected.shape) == 4 else None)
    with open_nifti(path) as stream:
        raw = read_all(stream)
    np.testing.assert_array_equal(raw, np.asarray(expected.dataobj.get_unscaled()))
    np.testing.assert_array_equal(read_affine(path), expected.affine)


@pytest.mark.parametrize(("unit", "expected"), [("sec", 1.6), ("msec", 0.0016), ("unknown", None)])
def test_the_repetition_time_needs_its_unit(tmp_path, unit, expected):
    assert read_nifti(written(tmp_path / "run.nii", units=("mm", unit)))[2] == pytest.approx(expected)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_files_that_are_too_short_or_too_long_are_refused(tmp_path, suffix):
    path = written(tmp_path / f"run{suffix}")
    packed = path.read_bytes()
    whole = gzip.decompress(packed) if suffix == ".nii.gz" else packed
    pack = gzip.compress if suffix == ".nii.gz" else bytes
    damaged = [pack(whole[:-1]), pack(whole[:-2]), pack(whole + b"\1"), pack(whole + bytes(2)), pack(whole[:300])]
    damaged += [packed[:size] for size in range(0, len(packed), 7)]
    for content in damaged:
        path.write_bytes(content)
        for read in (lambda: read_nifti(path), lambda: open_and_read(path)):
            with pytest.raises(DataError, match=f"run{suffix}'"):
                read()


def open_and_read(path):
    with open_nifti(path) as stream:
        return read_all(stream)


def test_every_flipped_bit_of_a_compressed_file_is_noticed_or_changes_nothing(tmp_path):
    path = written(tmp_path / "run.nii.gz")
    expected, whole = read_nifti(path), path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = read_nifti(path)
        except DataError as error:
            assert "run.nii.gz'" in str(error)
            refused += 1
        else:
            assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    assert refused > 0.9 * len(whole)


def test_absent_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"There is no NIfTI file '.*run\.nii'"):
        read_nifti(tmp_path / "run.nii")


def pair_of_files(path):
    nibabel.Nifti1Pair(np.zeros((3, 4, 2), np.int16), AFFINE).to_filename(path.with_suffix(".img"))
    path.with_suffix(".hdr").rename(path)


def analyze(path):
    pair_of_files(path)
    content = bytearray(path.read_bytes())
    content[344:348] = bytes(4)
    path.write_bytes(content)


def renamed(suffix):
    return lambda path: written(path.with_name(f"other{suffix}")).rename(path)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("x.nii", pair_of_files, r"header of a pair of files \(\.hdr and \.img\)"),
        ("x.nii", analyze, "ANALYZE 7.5"),
        ("x.nii", renamed(".nii.gz"), "is compressed by gzip, but its name says otherwise"),
        ("x.nii.gz", renamed(".nii"), "is not compressed, but its name says otherwise"),
        ("x.nii", lambda path: path.touch(), "is empty"),
        ("x.nii", lambda path: path.mkdir(), "is a folder"),
    ],
)
@pytest.mark.parametrize("read", [read_nifti, read_affine])
def test_other_files_say_what_they_are(tmp_path, name, make, message, read):
    make(tmp_path / name)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / name)
    assert "damaged" not in str(caught.value)


def test_places_are_compared_where_both_files_tell(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((3, 4, 2), np.int16), None)
    image.to_filename(tmp_path / "nowhere.nii")
    assert read_affine(tmp_path / "nowhere.nii") is None
    moved = AFFINE.copy()
    moved[0, 3] += 2
    for other in (AFFINE, AFFINE + 1e-5, None):
        check_same_place(tmp_path / "betas.nii", AFFINE, tmp_path / "mask.nii", other)
    with pytest.raises(DataError, match=r"mask\.nii' lies elsewhere in space than .*betas\.nii'.*up to 2 mm apart"):
        check_same_place(tmp_path / "betas.nii", AFFINE, tmp_path / "mask.nii", moved)
