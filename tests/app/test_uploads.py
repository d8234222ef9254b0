"""Uploaded files as recordings: the kinds that are taken, one recording of many, and what is refused."""

import mne
import nibabel
import numpy as np
import pytest

from neural_clip.app.uploads import one_of, read_recordings, read_region
from neural_clip.errors import DataError

RNG = np.random.default_rng(0)


def epochs_of(count=3):
    info = mne.create_info(["A", "B"], 100.0, "eeg")
    return mne.EpochsArray(1e-5 * RNG.standard_normal((count, 2, 20)), info, verbose="error")


def test_each_kind_of_file_is_read_and_one_recording_is_taken(tmp_path):
    values, volumes = RNG.standard_normal((3, 2, 20)).astype(np.float32), RNG.standard_normal((3, 4, 5, 6))
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", values=values)
    epochs = epochs_of()
    epochs.save(tmp_path / "a-epo.fif", verbose="error")
    nibabel.Nifti1Image(volumes.astype(np.float32), np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    for name in ("a.npy", "a.npz"):
        one, count = one_of(read_recordings(tmp_path / name), 2, 2)
        assert count == 3 and np.array_equal(one, values[1:2])
    one, count = one_of(read_recordings(tmp_path / "a-epo.fif"), 3, 2)
    assert count == 3 and len(one) == 1
    np.testing.assert_allclose(one.get_data(), epochs.get_data()[2:], rtol=1e-6)  # a file holds float32
    one, count = one_of(read_recordings(tmp_path / "a.nii.gz"), 5, 1)
    assert count == 6 and np.array_equal(one.get_fdata()[..., 0], volumes.astype(np.float32)[..., 4])


def test_a_single_recording_has_the_number_one(tmp_path):
    for shape, axes in (((2, 20), 2), ((7,), 1)):
        one, count = one_of(np.zeros(shape), 1, axes)
        assert count == 1 and one.shape == shape
    one, count = one_of(nibabel.Nifti1Image(np.zeros((3, 4, 5)), np.eye(4)), 1, 1)
    assert count == 1 and one.shape == (3, 4, 5)


@pytest.mark.parametrize("number", [0, 4, -1, 1.5, None, float("nan")])
def test_a_number_that_no_recording_has_is_refused(number):
    with pytest.raises(DataError, match=r"'recording' parameter\. Allowed is 1 to 3, the recordings that there are"):
        one_of(np.zeros((3, 2, 20)), number, 2)


def test_masks_are_images_or_arrays(tmp_path):
    mask = RNG.random((3, 4, 5)) > 0.5
    nibabel.Nifti1Image(mask.astype(np.uint8), np.diag([2.0, 2, 2, 1])).to_filename(tmp_path / "m.nii")
    np.save(tmp_path / "m.npy", mask)
    found = read_region(tmp_path / "m.nii")
    assert np.array_equal(found.get_fdata() > 0, mask) and np.array_equal(found.affine, np.diag([2.0, 2, 2, 1]))
    assert np.array_equal(read_region(tmp_path / "m.npy"), mask)
    with pytest.raises(DataError, match=r"'mask' parameter\. Allowed is a NIfTI file or an array, but got 'm\.fif'"):
        read_region(tmp_path / "m.fif")


WRONG = {
    "notes.txt": (b"text", "Allowed is a name that ends in .npy, .npz, .mat, .fif, .fif.gz, .nii, .nii.gz"),
    "a.edf": (b"0       ", "but got 'a.edf' instead"),
    "a.npy": (b"text", "a.npy' is no .npy file"),
    "empty.npy": (b"", "is empty: it has 0 bytes"),
    "a-epo.fif": (b"text", "it is no FIF file, or its header is damaged"),
    "a.nii.gz": (b"text", "not compressed, but its name says otherwise"),
    "a.mat": (b"text", "a.mat' cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named_with_what_is_allowed(name, tmp_path):
    content, told = WRONG[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_recordings(tmp_path / name)
    assert told in str(caught.value)


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    with pytest.raises(DataError, match="Python objects, which are not read"):
        read_recordings(tmp_path / "objects.npy")


def test_a_file_of_epochs_in_parts_and_one_without_epochs_are_refused(tmp_path):
    epochs_of(40).save(tmp_path / "long-epo.fif", split_size="2MB", verbose="error")
    large = mne.EpochsArray(np.zeros((60, 2, 6000)), mne.create_info(["A", "B"], 1000.0, "eeg"), verbose="error")
    large.save(tmp_path / "parts-epo.fif", split_size="2MB", verbose="error")
    assert len(read_recordings(tmp_path / "long-epo.fif")) == 40
    with pytest.raises(DataError, match="was saved in several parts; save the epochs that are asked about in one"):
        read_recordings(tmp_path / "parts-epo.fif")


@pytest.mark.parametrize("shape", [(0,), (0, 12), (3, 0)])
def test_an_array_without_values_is_named(shape, tmp_path):
    np.save(tmp_path / "empty.npy", np.zeros(shape))
    with pytest.raises(DataError, match="empty.npy' holds no recordings"):
        read_recordings(tmp_path / "empty.npy")
