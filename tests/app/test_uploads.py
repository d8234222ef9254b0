"""Uploaded files as recordings: the kinds that are taken, one recording of many, and what is refused."""

import mne
import nibabel
import numpy as np
import pytest

from edf_files import write_edf
from neural_clip.app.uploads import open_upload
from neural_clip.errors import DataError
from neural_clip.gallery.embedder import Embedder
from neural_clip.queries.opening import open_recordings
from neural_clip.queries.options import RecordingOptions
from neural_clip.sample import CHECKPOINT

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def embedder():
    return Embedder.of(CHECKPOINT)


@pytest.fixture(scope="module")
def opened(embedder):
    """Opens a file as the page does."""
    return lambda path, mask=None, **said: open_upload(path, mask, embedder, **said)


def epochs_of(count=3):
    info = mne.create_info(["A", "B"], 100.0, "eeg")
    return mne.EpochsArray(1e-5 * RNG.standard_normal((count, 2, 20)), info, verbose="error")


def test_each_kind_of_file_is_read_and_one_recording_is_taken(tmp_path, opened, embedder):
    shape = (3, 32, 440)
    values, volumes = RNG.standard_normal(shape).astype(np.float32), RNG.standard_normal((3, 4, 5, 6))
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", values=values)
    epochs = epochs_of()
    epochs.save(tmp_path / "a-epo.fif", verbose="error")
    nibabel.Nifti1Image(volumes.astype(np.float32), np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    for name in ("a.npy", "a.npz"):
        file = opened(tmp_path / name, modality="eeg", session="", unit="")
        assert len(file.names) == 3 and file.said == {} and np.array_equal(file.one(2), values[1:2])
    file = opened(tmp_path / "a-epo.fif", modality="eeg")
    assert len(file.names) == 3 and len(file.one(3)) == 1
    np.testing.assert_allclose(file.one(3).get_data(), epochs.get_data()[2:], rtol=1e-6)  # a file holds float32
    file = opened(tmp_path / "a.nii.gz")
    assert len(file.names) == 6 and file.modality == "fmri"
    assert np.array_equal(file.one(5).get_fdata()[..., 0], volumes.astype(np.float32)[..., 4])
    same = open_recordings(tmp_path / "a.nii.gz", embedder, RecordingOptions())
    assert np.array_equal(same.read(4, 5).get_fdata(), file.one(5).get_fdata())


def test_a_single_recording_has_the_number_one(tmp_path, opened):
    for name, values in (("eeg", np.zeros((32, 440))), ("fmri", np.zeros(7))):
        np.save(tmp_path / f"{name}.npy", values)
        file = opened(tmp_path / f"{name}.npy", modality=name)
        assert len(file.names) == 1 and file.one(1).shape == values.shape
    nibabel.Nifti1Image(np.zeros((3, 4, 5)), np.eye(4)).to_filename(tmp_path / "a.nii")
    file = opened(tmp_path / "a.nii")
    assert len(file.names) == 1 and file.one(1).shape == (3, 4, 5)


def test_a_continuous_recording_is_opened_as_at_the_shell(tmp_path, opened, embedder):
    """It has the model's channels in no order, and annotations that say when images appeared."""
    names = embedder.processor.groups("eeg")[0]["ch_names"]
    raw = mne.io.RawArray(
        1e-5 * RNG.standard_normal((32, 4000)), mne.create_info(names, 1000.0, "eeg"), verbose="error"
    )
    raw.set_annotations(mne.Annotations([1.0, 2.5], [0.0, 0.0], ["image", "image"]))
    raw.save(tmp_path / "rec_raw.fif", verbose="error")
    file = opened(tmp_path / "rec_raw.fif", modality="eeg", subject="sub-01")
    same = open_recordings(tmp_path / "rec_raw.fif", embedder, RecordingOptions(modality="eeg", subject="sub-01"))
    assert file.names == same.names == ["1 (1.000 s, image)", "2 (2.500 s, image)"]
    np.testing.assert_array_equal(file.one(2).get_data(), same.read(1, 2).get_data())


@pytest.mark.parametrize("number", [0, 4, -1, 1.5, None, float("nan")])
def test_a_number_that_no_recording_has_is_refused(number, tmp_path, opened):
    np.save(tmp_path / "a.npy", np.zeros((3, 2, 20)))
    with pytest.raises(DataError, match=r"'recording' parameter\. Allowed is 1 to 3, the recordings that there are"):
        opened(tmp_path / "a.npy", modality="eeg").one(number)


def test_masks_are_images_or_arrays(tmp_path, opened):
    mask = RNG.random((3, 4, 5)) > 0.5
    nibabel.Nifti1Image(np.zeros((3, 4, 5)), np.eye(4)).to_filename(tmp_path / "a.nii")
    nibabel.Nifti1Image(mask.astype(np.uint8), np.diag([2.0, 2, 2, 1])).to_filename(tmp_path / "m.nii")
    np.save(tmp_path / "m.npy", mask)
    found = opened(tmp_path / "a.nii", tmp_path / "m.nii").said["mask"]
    assert np.array_equal(found.get_fdata() > 0, mask) and np.array_equal(found.affine, np.diag([2.0, 2, 2, 1]))
    assert np.array_equal(opened(tmp_path / "a.nii", tmp_path / "m.npy").said["mask"], mask)
    with pytest.raises(DataError, match=r"'mask' parameter\. Allowed is a NIfTI file or an array, but got 'm\.fif'"):
        opened(tmp_path / "a.nii", tmp_path / "m.fif")
    with pytest.raises(DataError, match=r"A mask belongs to a NIfTI image, but '.*m\.npy' is none"):
        opened(tmp_path / "m.npy", tmp_path / "m.nii")


WRONG = {
    "notes.txt": (b"text", "ends in .npy, .npz, .mat, .fif, .fif.gz, .edf, .bdf, .gdf, .nii, .nii.gz"),
    "a.vhdr": (b"DataFile=/etc/passwd", "but got 'a.vhdr' instead"),  # it names other files
    "a.edf": (b"0       ", "a.edf"),
    "a.npy": (b"text", "a.npy' is no .npy file"),
    "empty.npy": (b"", "is empty: it has 0 bytes"),
    "a-epo.fif": (b"text", "it is no FIF file, or its header is damaged"),
    "a.nii.gz": (b"text", "not compressed, but its name says otherwise"),
    "a.mat": (b"text", "a.mat' cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named_with_what_is_allowed(name, tmp_path, opened):
    content, told = WRONG[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        opened(tmp_path / name, modality=None if "nii" in name else "eeg", subject="sub-01")
    assert told in str(caught.value)


def test_an_edf_file_without_events_is_told_so(tmp_path, opened, embedder):
    names = embedder.processor.groups("eeg")[0]["ch_names"]
    write_edf(tmp_path / "a.edf", [(name, np.zeros(2000, int)) for name in names], 10)
    with pytest.raises(DataError, match="does not tell when images appeared"):
        opened(tmp_path / "a.edf", subject="sub-01")


def test_pickles_are_not_opened(tmp_path, opened):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    with pytest.raises(DataError, match="Python objects, which are not read"):
        opened(tmp_path / "objects.npy", modality="eeg")


def test_a_file_of_epochs_in_parts_is_refused(tmp_path, opened):
    epochs_of(40).save(tmp_path / "long-epo.fif", split_size="2MB", verbose="error")
    large = mne.EpochsArray(np.zeros((60, 2, 6000)), mne.create_info(["A", "B"], 1000.0, "eeg"), verbose="error")
    large.save(tmp_path / "parts-epo.fif", split_size="2MB", verbose="error")
    assert len(opened(tmp_path / "long-epo.fif", modality="eeg").names) == 40
    with pytest.raises(DataError, match="was saved in several parts; save what is asked about in one file"):
        opened(tmp_path / "parts-epo.fif", modality="eeg")


@pytest.mark.parametrize("shape", [(0,), (0, 12), (3, 0)])
def test_an_array_without_values_is_named(shape, tmp_path, opened):
    np.save(tmp_path / "none.npy", np.zeros(shape))
    with pytest.raises(DataError, match=r"none\.npy' holds no recordings: its array has the shape"):
        opened(tmp_path / "none.npy", modality="fmri")
