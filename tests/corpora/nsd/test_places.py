"""Places of NSD's voxels in MNI152, from transforms as NSD writes them."""

import nibabel
import numpy as np
import pytest

from neural_clip.commands.main import main
from neural_clip.corpora.nsd import build as nsd
from neural_clip.corpora.nsd.places import read_mni_places
from neural_clip.errors import DataError
from neural_clip.prepared.facts import verify_prepared
from neural_clip.prepared.reader import PreparedSet
from nsd_raw import GRIDS, region_path, transform_path, write_transform

# Of the 1 mm template of FSL, MNI152_T1_1mm.nii.gz: its first voxel is the rightmost, hindmost and lowest one.
TEMPLATE = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])


def expected(root, subject, coordinates):
    """Places of the region's voxels one by one: 1-based positions in the template's array, by its affine."""
    region = nibabel.load(region_path(root, subject)).get_fdata()
    inside = [index for index in np.ndindex(region.shape) if region[index] > 0]
    return np.array([(TEMPLATE @ [*(coordinates[index].astype(float) - 1), 1])[:3] for index in inside])


def test_places_are_positions_in_the_template_counted_from_1_from_right_to_left(own_raw_dir, tmp_path):
    written = {subject: write_transform(own_raw_dir, subject) for subject in GRIDS}
    folder = tmp_path / "out"
    main(["prepare", "nsd", "--raw-dir", str(own_raw_dir), "--output-dir", str(folder)])
    data = PreparedSet.open(folder)
    assert data.places_space == "MNI152"
    for subject, coordinates in written.items():
        places = data.voxel_places(f"sub-{subject:02d}")
        np.testing.assert_allclose(places, expected(own_raw_dir, subject, coordinates), atol=1e-4)


@pytest.mark.parametrize(
    ("coordinate", "place"),
    [((91, 127, 73), (0, 0, 0)), ((1, 1, 1), (90, -126, -72)), ((182, 218, 182), (-91, 91, 109))],
)
def test_known_points_of_the_template(tmp_path, coordinate, place):
    """The origin that nsdcode names, and two corners of the template."""
    volume = np.full((2, 1, 1, 3), 60, np.float32)
    volume[0, 0, 0] = coordinate
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "t.nii.gz")
    found, unknown = read_mni_places(tmp_path / "t.nii.gz", np.ones((2, 1, 1), bool))
    np.testing.assert_array_equal(found[0], place)
    assert unknown == 0


def test_stored_integers_with_a_slope_are_read(own_raw_dir):
    coordinates = write_transform(own_raw_dir, 5)
    path = transform_path(own_raw_dir, 5)
    image = nibabel.Nifti1Image(coordinates, np.eye(4))
    image.set_data_dtype(np.int16)
    nibabel.save(image, path)
    mask = nibabel.load(region_path(own_raw_dir, 5)).get_fdata() > 0
    np.testing.assert_allclose(read_mni_places(path, mask)[0], expected(own_raw_dir, 5, coordinates), atol=0.01)


def test_without_transforms_there_are_no_places(raw_dir, own_raw_dir, tmp_path):
    data = PreparedSet.open(nsd.prepare(raw_dir, tmp_path / "none"))
    assert data.places_space is None and data.voxel_places("sub-01") is None
    write_transform(own_raw_dir, 5)
    some = PreparedSet.open(nsd.prepare(own_raw_dir, tmp_path / "one"))
    assert some.voxel_places("sub-01") is None and some.voxel_places("sub-05").shape == (11, 3)
    assert not any("MNI152" in defect for defect in data.facts.known_defects)
    assert any("there is no MNI-to-func1pt8.nii.gz of sub-01, so" in defect for defect in some.facts.known_defects)
    assert some.facts.fingerprint != data.facts.fingerprint
    files = {name: told["sha256"] for name, told in data.facts.files.items()}
    assert {name: told["sha256"] for name, told in some.facts.files.items() if name in files} == files
    assert {*some.facts.files} - {*files} == {"places.safetensors"}


def test_voxels_of_unknown_place_leave_the_subject_without_places(own_raw_dir, tmp_path):
    coordinates = write_transform(own_raw_dir, 1)
    write_transform(own_raw_dir, 5)
    region = nibabel.load(region_path(own_raw_dir, 1)).get_fdata()
    outside = tuple(np.argwhere(region <= 0)[0])
    coordinates[outside] = 9999
    write_transform(own_raw_dir, 1, coordinates)
    data = PreparedSet.open(nsd.prepare(own_raw_dir, tmp_path / "outside"))
    assert data.voxel_places("sub-01") is not None, "a voxel that is not in the region needs no place"
    coordinates[tuple(np.argwhere(region > 0)[2])] = 9999
    write_transform(own_raw_dir, 1, coordinates)
    folder = nsd.prepare(own_raw_dir, tmp_path / "inside")
    data = PreparedSet.open(folder)
    assert data.voxel_places("sub-01") is None and data.voxel_places("sub-05") is not None
    assert any("places in MNI152 of 1 of 17 voxels of sub-01 are unknown" in d for d in data.facts.known_defects)
    verify_prepared(folder)


def damaged(root, **changes):
    """A transform of subject 5 in which one voxel of the region has other coordinates."""
    coordinates = write_transform(root, 5)
    region = nibabel.load(region_path(root, 5)).get_fdata()
    coordinates[tuple(np.argwhere(region > 0)[0])] = changes["value"]
    write_transform(root, 5, coordinates)


BAD = {
    "nan": (lambda root: damaged(root, value=np.nan), r"places of 1 of 11 voxels are not finite"),
    "far": (lambda root: damaged(root, value=600), r"places of 1 of 11 voxels lie more than 250 mm"),
    "one place": (lambda root: write_transform(root, 5, np.full((*GRIDS[5], 3), 60)), r"all 11 voxels lie in the"),
    "grid": (lambda root: write_transform(root, 5, np.ones((*GRIDS[1], 3))), r"should have shape \(3, 5, 4, 3\)"),
    "inverse": (lambda root: write_transform(root, 5, np.ones((9, 9, 9, 3))), r"or that of another transform\?"),
    "no components": (lambda root: write_transform(root, 5, np.ones(GRIDS[5])), r"but has \(3, 5, 4\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_transforms_that_cannot_be_are_named(own_raw_dir, tmp_path, case):
    change, message = BAD[case]
    change(own_raw_dir)
    with pytest.raises(DataError, match=message) as error:
        nsd.prepare(own_raw_dir, tmp_path / "out")
    assert "MNI-to-func1pt8.nii.gz'" in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b no gzip", None])
def test_damaged_transforms_are_named(own_raw_dir, tmp_path, content):
    write_transform(own_raw_dir, 5)
    path = transform_path(own_raw_dir, 5)
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    with pytest.raises(DataError, match=r"MNI-to-func1pt8\.nii\.gz'"):
        nsd.prepare(own_raw_dir, tmp_path / "out")
