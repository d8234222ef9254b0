"""Places of voxels of one's own recordings, from files and from masks in MNI152."""

import nibabel
import numpy as np
import pytest

from custom_raw import patterns, prepared, rng, series_manifest, write_manifest
from neural_clip.corpora.custom.manifest import read_manifest
from neural_clip.corpora.custom.recordings import raw_files
from neural_clip.errors import DataError
from neural_clip.prepared.facts import verify_prepared
from neural_clip.prepared.reader import PreparedSet
from neural_clip.workflow.sources import open_sources

AFFINE = np.array([[-2.0, 0, 0, 40], [0, 2, 0, -90], [0, 0, 2, -10], [0, 0, 0, 1]])


def two_people(folder, **places):
    """Patterns of two people without masks, 5 voxels each."""
    manifest, arrays = patterns(folder)
    np.savez(folder / "q.npz", betas=arrays["betas"][::-1] - 1, shown=arrays["shown"])
    first = manifest["recordings"][0]
    manifest["recordings"] = [first, first | {"subject": "sub-02", "file": "q.npz"}]
    return manifest | {"places": places}


def in_volume(folder, affine=AFFINE):
    """The manifest of runs with a mask, whose runs and mask lie elsewhere."""
    manifest, _, mask = series_manifest(folder)
    for path in [*folder.glob("run*.nii.gz"), folder / "mask.nii.gz"]:
        image = nibabel.load(path)
        moved = nibabel.Nifti1Image(np.asanyarray(image.dataobj), affine, image.header)
        moved.set_sform(affine, code=4)
        moved.set_qform(affine, code=4)
        nibabel.save(moved, path)
    return manifest, mask


def of_mask(mask, affine=AFFINE):
    """Places voxel by voxel."""
    return np.array([(affine @ [*index, 1])[:3] for index in np.ndindex(mask.shape) if mask[index]])


@pytest.mark.parametrize("space", ["MNI152", "fsaverage"])
def test_arrays_of_places(tmp_path, space):
    places = {n: rng(n).uniform(-70, 70, (5, 3)) for n in (1, 2)}
    np.save(tmp_path / "one.npy", places[1])
    np.savez(tmp_path / "two.npz", mm=places[2])
    files = {"sub-01": "one.npy", "sub-02": "two.npz"}
    data = PreparedSet.open(prepared(tmp_path, two_people(tmp_path, space=space, files=files)))
    assert data.places_space == space
    for n in (1, 2):
        np.testing.assert_array_equal(data.voxel_places(f"sub-0{n}"), places[n].astype(np.float32))
    verify_prepared(tmp_path / "set")


def test_masks_in_mni152_give_the_places(tmp_path):
    manifest, mask = in_volume(tmp_path)
    data = PreparedSet.open(prepared(tmp_path, manifest | {"places": {"space": "MNI152"}}))
    np.testing.assert_allclose(data.voxel_places("sub-01"), of_mask(mask), atol=1e-4)


def test_volumes_of_places_are_read_within_the_mask(tmp_path):
    manifest, mask = in_volume(tmp_path)
    volume = rng(3).uniform(-70, 70, (*mask.shape, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, AFFINE), tmp_path / "mm.nii.gz")
    places = {"space": "fsaverage", "files": {"sub-01": "mm.nii.gz"}}
    data = PreparedSet.open(prepared(tmp_path, manifest | {"places": places}))
    expected = [volume[index] for index in np.ndindex(mask.shape) if mask[index]]
    np.testing.assert_array_equal(data.voxel_places("sub-01"), expected)


def test_who_is_not_named_has_no_places(tmp_path):
    np.save(tmp_path / "one.npy", rng(1).uniform(-70, 70, (5, 3)))
    manifest = two_people(tmp_path, space="MNI152", files={"sub-01": "one.npy"})
    data = PreparedSet.open(prepared(tmp_path, manifest))
    assert data.voxel_places("sub-01") is not None and data.voxel_places("sub-02") is None
    other = PreparedSet.open(prepared(tmp_path, manifest, subjects=["sub-02"], overwrite=True))
    assert other.places_space is None and other.voxel_places("sub-02") is None


def test_files_of_places_belong_to_what_a_data_set_is_made_from(tmp_path):
    np.save(tmp_path / "one.npy", rng(1).uniform(-70, 70, (5, 3)))
    path = write_manifest(tmp_path, two_people(tmp_path, space="MNI152", files={"sub-01": "one.npy"}))
    assert raw_files(read_manifest(path), tmp_path)["one.npy"] == [tmp_path / "one.npy"]
    (source,) = open_sources([path], tmp_path / "out")
    assert tmp_path / "one.npy" in source.inputs
    before = source.made_from()
    np.save(tmp_path / "one.npy", np.zeros((50, 3)))
    after = source.made_from()
    assert {name for name in after if after[name] != before[name]} == {"'one.npy' (fmri)"}


def of_file(places, name="one.npy"):
    def change(folder):
        (np.save if name.endswith(".npy") else np.savez)(folder / name, places)
        return two_people(folder, space="MNI152", files={"sub-01": name})

    return change


def bare_mask(folder):
    """A mask that is an array, which has no affine."""
    manifest, _, mask = series_manifest(folder)
    np.save(folder / "mask.npy", mask)
    manifest["defaults"]["mask"] = "mask.npy"
    return manifest | {"places": {"space": "MNI152"}}


def placeless_mask(folder):
    """A mask whose header tells no place; nibabel would make one up."""
    manifest, _, mask = series_manifest(folder)
    image = nibabel.Nifti1Image(mask.astype(np.uint8), None)
    nibabel.save(image, folder / "mask.nii.gz")
    for path in folder.glob("run*.nii.gz"):
        run = nibabel.load(path)
        plain = nibabel.Nifti1Image(np.asanyarray(run.dataobj), None)
        plain.header.set_zooms(run.header.get_zooms())
        plain.header.set_xyzt_units("mm", "sec")
        nibabel.save(plain, path)
    return manifest | {"places": {"space": "MNI152"}}


def volume(shape=(3, 4, 2, 3), affine=AFFINE, value=None):
    def change(folder):
        manifest, _ = in_volume(folder)
        values = rng(3).uniform(-70, 70, shape).astype(np.float32)
        if value is not None:
            values[...] = value
        nibabel.save(nibabel.Nifti1Image(values, affine), folder / "mm.nii.gz")
        return manifest | {"places": {"space": "MNI152", "files": {"sub-01": "mm.nii.gz"}}}

    return change


def volume_without_mask(folder):
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 2, 2, 3), np.float32), AFFINE), folder / "mm.nii.gz")
    return two_people(folder, space="MNI152", files={"sub-01": "mm.nii.gz"})


GOOD = rng(1).uniform(-70, 70, (5, 3))
BAD = {
    "rows": (of_file(GOOD[:4]), r"one\.npy' should hold places .* \(5, 3\).*\(4, 3\)"),
    "columns": (of_file(GOOD.T), r"one\.npy' should hold places .* \(5, 3\).*\(3, 5\)"),
    "text": (of_file(GOOD.astype(str)), r"one\.npy' should hold places of voxels as numbers"),
    "nan": (of_file(np.where(GOOD[2, 1] == GOOD, np.nan, GOOD)), r"one\.npy': the places of 1 of 5 .* not finite"),
    "far": (of_file(GOOD + np.array([0, 0, 9999])), r"one\.npy': the places of 5 of 5 voxels lie more than 250 mm"),
    "equal": (of_file(np.full((5, 3), 20.0)), r"one\.npy': all 5 voxels lie in the same place"),
    "metres": (of_file(GOOD / 1000), r"one\.npy': all 5 voxels lie within 1 mm of the origin"),
    "absent": (lambda f: two_people(f, space="MNI152", files={"sub-01": "no.npy"}), r"no array file .*no\.npy'"),
    "array mask": (bare_mask, r"mask\.npy' does not tell where its voxels lie"),
    "no affine": (placeless_mask, r"mask\.nii\.gz' does not tell where its voxels lie"),
    "grid": (volume((4, 3, 2, 3)), r"mm\.nii\.gz' should have shape \(3, 4, 2, 3\).*but has \(4, 3, 2, 3\)"),
    "elsewhere": (volume(affine=np.eye(4)), r"lies elsewhere in space than '.*mm\.nii\.gz'"),
    "unknown": (volume(value=9999), r"mm\.nii\.gz': the places of \d+ of \d+ voxels lie more than 250 mm"),
    "no mask": (volume_without_mask, r"mm\.nii\.gz' is a volume of places, but .* sub-01 have no 'mask'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_files_of_places_that_cannot_be_are_named(tmp_path, case):
    change, message = BAD[case]
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, change(tmp_path))
    assert not (tmp_path / "set").exists()


NO_MASK = {"space": "MNI152"}
WRONG = {
    "space": ({"space": "Talairach", "files": {"sub-01": "a.npy"}}, r"'space'\. Allowed .* 'MNI152', 'fsaverage'"),
    "no space": ({"files": {"sub-01": "a.npy"}}, r"'places' lacks 'space'"),
    "key": ({"space": "MNI152", "file": {"sub-01": "a.npy"}}, r"unknown key 'file'.*files"),
    "stranger": ({"space": "MNI152", "files": {"sub-1": "a.npy"}}, r"'places' names 'sub-1', but .* of sub-01"),
    "no name": ({"space": "MNI152", "files": {"sub-01": 3}}, r"'places' of sub-01 must be the name of a file"),
    "nobody": ({"space": "MNI152", "files": {}}, r"'files' of 'places' is empty"),
    "surface": ({"space": "fsaverage"}, r"'places' in fsaverage need 'files'"),
    "no mask": (NO_MASK, r"those of the masks, but 'p\.npz' has no 'mask'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_sections_that_cannot_be_are_named(tmp_path, case):
    places, message = WRONG[case]
    with pytest.raises(DataError, match=message):
        read_manifest(write_manifest(tmp_path, two_people(tmp_path, **places)))


def test_eeg_has_no_places_of_voxels(tmp_path):
    manifest, _ = patterns(tmp_path, "eeg", places={"space": "MNI152"})
    with pytest.raises(DataError, match="'places' are those of voxels, but the modality is 'eeg'"):
        read_manifest(write_manifest(tmp_path, manifest))
