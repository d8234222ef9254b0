"""Places of voxels in a prepared data set: stored, checked and given back in the order of the columns."""

import gzip
import json

import nibabel
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from neural_clip.commands.main import main
from neural_clip.errors import DataError
from neural_clip.prepared.doctor.inspect import inspect
from neural_clip.prepared.facts import verify_prepared
from neural_clip.prepared.places import PLACES_FILE, checked_set
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.writer import write_prepared
from toy_sets import toy_facts

N_VOXELS = {"sub-01": 5, "sub-02": 3}
PLACES = {who: np.random.default_rng(n).uniform(-60, 60, (n, 3)) for who, n in N_VOXELS.items()}


def write(folder, places=None, space="MNI152", extra_files=None):
    rng = np.random.default_rng(0)
    images = [{"image_id": f"i{i}", "image": rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)} for i in range(9)]
    rows = [
        {"subject": who, "image_id": f"i{i}", "split": ("train", "validation", "test")[i // 3],
         "fmri": rng.normal(size=n)}
        for who, n in N_VOXELS.items()
        for i in range(9)
    ]  # fmt: skip
    facts = toy_facts("fmri", places_space=space)
    return write_prepared(folder, facts, rows, images, places=places, extra_files=extra_files)


@pytest.mark.parametrize("space", ["MNI152", "fsaverage"])
def test_places_come_back_in_the_order_of_the_columns(tmp_path, space):
    data = PreparedSet.open(write(tmp_path / "set", PLACES, space))
    assert data.places_space == space
    for who, places in PLACES.items():
        found = data.voxel_places(who)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, places.astype(np.float32))
    card = (tmp_path / "set" / "README.md").read_text()
    assert f"- places of voxels: {space}, in mm (`places.safetensors`)" in card
    with pytest.raises(DataError, match=r"'subject' parameter.*'sub-01' and 'sub-02', but got 'sub-03'"):
        data.voxel_places("sub-03")


def test_sets_without_places_have_none(tmp_path):
    folder = write(tmp_path / "set", space=None)
    data = PreparedSet.open(folder)
    assert data.places_space is None and data.voxel_places("sub-01") is None and data.scanner_places("sub-01") is None
    assert not (folder / PLACES_FILE).exists()
    assert "places of voxels" not in (folder / "README.md").read_text()


def test_facts_of_older_sets_have_no_places(tmp_path):
    """Sets of format 2 that were written before have no such entry."""
    folder = write(tmp_path / "set", space=None)
    facts = json.loads((folder / "neural_clip.json").read_text())
    del facts["places_space"]
    (folder / "neural_clip.json").write_text(json.dumps(facts))
    data = PreparedSet.open(folder).verify()
    assert data.places_space is None and data.voxel_places("sub-02") is None


def test_a_subject_may_lack_places_and_the_doctor_says_so(tmp_path):
    data = PreparedSet.open(write(tmp_path / "set", {"sub-01": PLACES["sub-01"]}))
    assert data.voxel_places("sub-02") is None and data.voxel_places("sub-01").shape == (5, 3)
    (found,) = [finding for finding in data.facts.findings if finding["check"] == "places"]
    assert found["severity"] == "note" and "sub-02 are not known in MNI152" in found["message"]


def test_places_in_the_scanner_follow_from_the_mask(tmp_path):
    mask = np.zeros((2, 3, 2), np.uint8)
    mask[0, 1, 1] = mask[1, 0, 0] = mask[1, 2, 1] = 1
    affine = np.array([[0, -2.0, 0, 10], [1.5, 0, 0.1, -20], [0, 0, 3, 5], [0, 0, 0, 1]])
    content = nibabel.Nifti1Image(mask, affine).to_bytes()
    files = {"masks/sub-02.nii.gz": gzip.compress(content, mtime=0)}
    data = PreparedSet.open(write(tmp_path / "set", space=None, extra_files=files))
    expected = [affine @ [i, j, k, 1] for i in range(2) for j in range(3) for k in range(2) if mask[i, j, k]]
    np.testing.assert_allclose(data.scanner_places("sub-02"), np.array(expected)[:, :3], atol=1e-5)
    assert data.scanner_places("sub-01") is None


def test_a_mask_of_other_voxels_is_refused(tmp_path):
    content = gzip.compress(nibabel.Nifti1Image(np.ones((2, 2, 1), np.uint8), np.eye(4)).to_bytes(), mtime=0)
    data = PreparedSet.open(write(tmp_path / "set", space=None, extra_files={"masks/sub-01.nii.gz": content}))
    with pytest.raises(DataError, match=r"sub-01\.nii\.gz' holds 4 voxels, but the recordings have 5"):
        data.scanner_places("sub-01")


def changed(row=0, value=0.0):
    places = PLACES["sub-01"].copy()
    places[row] = value
    return places


BAD = {
    "rows": (
        {"sub-01": PLACES["sub-01"][:4]},
        r"sub-01 should hold .* \(5, 3\), .* but holds float64 of shape \(4, 3\)",
    ),
    "columns": ({"sub-01": PLACES["sub-01"][:, :2]}, r"float64 of shape \(5, 2\)"),
    "text": ({"sub-01": PLACES["sub-01"].astype(str)}, r"should hold places of voxels as numbers"),
    "nan": ({"sub-01": changed(2, np.nan)}, r"places of 1 of 5 voxels are not finite"),
    "infinite": ({"sub-01": changed(2, np.inf)}, r"places of 1 of 5 voxels are not finite"),
    "unknown": ({"sub-01": changed(3, 9999.0)}, r"1 of 5 voxels lie more than 250 mm from the origin, the farthest"),
    "one place": ({"sub-01": np.full((5, 3), 7.0)}, r"all 5 voxels lie in the same place"),
    "metres": ({"sub-01": PLACES["sub-01"] / 1000}, r"within 1 mm of the origin\. Places are in mm, not in m"),
    "stranger": ({"sub-03": PLACES["sub-01"]}, r"places of voxels of 'sub-03', of whom there are no voxels"),
    "none": ({}, r"'places_space' is 'MNI152', but 0 subjects have places"),
}


@pytest.mark.parametrize("case", BAD)
def test_places_that_cannot_be_are_named(case):
    places, message = BAD[case]
    with pytest.raises(DataError, match=message):
        checked_set(places, "MNI152", N_VOXELS, "'the set'")


def test_wrong_places_leave_nothing_behind(tmp_path):
    with pytest.raises(DataError, match=r"/set', sub-01: the places of 1 of 5 voxels are not finite"):
        write(tmp_path / "set", {"sub-01": changed(2, np.nan)})
    assert not (tmp_path / "set").exists()


def test_places_need_the_name_of_their_space_and_voxels(tmp_path):
    with pytest.raises(DataError, match="'places_space' is None, but 2 subjects have places"):
        checked_set(PLACES, None, N_VOXELS, "'the set'")
    with pytest.raises(DataError, match=r"'places_space' parameter\. Allowed values are 'MNI152' and 'fsaverage'"):
        write(tmp_path / "set", PLACES, "MNI305")
    with pytest.raises(DataError, match="'sub-01', of whom there are no voxels"):
        checked_set(PLACES, "MNI152", None, "'a set of EEG'")


def test_places_belong_to_the_fingerprint(tmp_path):
    prints = [verify_prepared(write(tmp_path / name, places, space))["fingerprint"] for name, places, space in (
        ("a", PLACES, "MNI152"), ("b", PLACES, "MNI152"), ("c", PLACES | {"sub-01": changed()}, "MNI152"),
        ("d", None, None),
    )]  # fmt: skip
    assert prints[0] == prints[1] and len(set(prints)) == 3


def test_places_that_were_changed_lost_or_added_are_noticed(tmp_path):
    folder = write(tmp_path / "set", PLACES)
    path, content = folder / PLACES_FILE, (folder / PLACES_FILE).read_bytes()
    opened = PreparedSet.open(folder)
    save_file(load_file(path) | {"sub-01": changed().astype(np.float32)}, path)  # as many bytes
    with pytest.raises(DataError, match=r"places\.safetensors' is not the file that was written"):
        PreparedSet.open(folder).voxel_places("sub-01")
    with pytest.raises(DataError, match=r"places\.safetensors' is not the file that was written"):
        PreparedSet.open(folder).verify()
    path.unlink()
    with pytest.raises(DataError, match=r"places\.safetensors' cannot be read: .*[Nn]o such file"):
        opened.voxel_places("sub-01")
    with pytest.raises(DataError, match=r"places\.safetensors' is missing"):
        PreparedSet.open(folder)
    other = write(tmp_path / "other", space=None)
    (other / PLACES_FILE).write_bytes(content)
    with pytest.raises(DataError, match=r"places\.safetensors' was added"):
        PreparedSet.open(other)


def test_the_doctor_names_places_that_cannot_be(tmp_path, capsys):
    folder = write(tmp_path / "set", PLACES)
    assert not [finding for finding in inspect(folder) if finding.check == "places"]
    save_file({"sub-01": changed(1, 9999.0).astype(np.float32)}, folder / PLACES_FILE)
    (found,) = [finding for finding in inspect(folder) if finding.check == "places"]
    assert found.severity == "error" and f"'{folder / PLACES_FILE}', sub-01: the places of 1 of 5" in found.message
    (folder / PLACES_FILE).write_bytes(b"no tensors")
    with pytest.raises(SystemExit):
        main(["doctor", str(folder)])
    assert "error: places" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["Talairach", 3, ["MNI152"]])
def test_a_damaged_space_is_named(tmp_path, value):
    folder = write(tmp_path / "set", PLACES)
    facts = json.loads((folder / "neural_clip.json").read_text())
    (folder / "neural_clip.json").write_text(json.dumps(facts | {"places_space": value}))
    with pytest.raises(DataError, match="'places_space' should be"):
        PreparedSet.open(folder)
