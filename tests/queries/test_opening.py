"""Epochs, images and arrays: the same vectors as from Python, by blocks; anything else is refused."""

import mne
import numpy as np
import pytest

from neural_clip.errors import DataError
from neural_clip.gallery.embedder import Embedder
from neural_clip.queries.opening import open_recordings
from neural_clip.queries.options import RecordingOptions
from neural_clip.queries.recorded import BLOCK


@pytest.fixture(scope="module")
def embedder(lab):
    return Embedder.of(lab.checkpoint)


def vectors(embedder, path, **said):
    return open_recordings(path, embedder, RecordingOptions(**{"subject": "sub-01"} | said)).embedded(embedder)[0]


def saved_epochs(lab, path, count=600):
    raw = mne.io.read_raw_edf(lab.root / "rec.edf", preload=True, verbose="error").filter(None, 30, verbose="error")
    samples = 100 + 9 * np.arange(count)
    events = np.column_stack([samples, np.zeros_like(samples), 1 + np.arange(count) % 2])
    epochs = mne.Epochs(raw, events, {"face": 1, "house": 2}, -0.2, 0.5, baseline=None, preload=True, verbose="error")
    epochs.save(path, verbose="error")
    return mne.read_epochs(path, verbose="error")


def test_epochs_are_loaded_some_at_a_time(lab, embedder, tmp_path):
    epochs = saved_epochs(lab, tmp_path / "a-epo.fif")
    file = open_recordings(tmp_path / "a-epo.fif", embedder, RecordingOptions(subject="sub-01"))
    assert file.modality == "eeg" and file.names[:2] == ["1 (face)", "2 (house)"]
    assert [len(block) for block in file.blocks()] == [BLOCK, BLOCK, 600 - 2 * BLOCK]
    assert np.array_equal(file.embedded(embedder)[0], embedder.embed_recordings(epochs, "sub-01", "eeg")[1])
    with pytest.raises(DataError, match=r"of which --keep is not used. Used are --modality, --montage, --scaling"):
        vectors(embedder, tmp_path / "a-epo.fif", keep=("a=b",))
    with pytest.raises(DataError, match="Allowed values are"):
        vectors(embedder, tmp_path / "a-epo.fif", subject="sub-03")


def test_arrays_of_every_file_and_unit(lab, embedder, tmp_path):
    part = lab.data["eeg"].split("train")
    values = part.values()
    np.save(tmp_path / "rows.npy", values)
    np.savez(tmp_path / "rows.npz", recordings=values, names=part.image_ids)
    expected = embedder.embed_split(part)
    np.testing.assert_allclose(vectors(embedder, tmp_path / "rows.npy"), expected, atol=1e-6)
    np.testing.assert_allclose(vectors(embedder, tmp_path / "rows.npz", key="recordings"), expected, atol=1e-6)
    np.save(tmp_path / "one.npy", values[0])
    np.testing.assert_allclose(vectors(embedder, tmp_path / "one.npy"), expected[:1], atol=1e-5)
    voxels = np.stack(lab.data["fmri"].split("test").values())
    np.save(tmp_path / "voxels.npy", voxels)
    found = vectors(embedder, tmp_path / "voxels.npy")
    np.testing.assert_allclose(found, embedder.embed_split(lab.data["fmri"].split("test")), atol=1e-6)
    raw = 1e6 * mne.io.read_raw_edf(lab.root / "rec.edf", preload=True, verbose="error").get_data()
    windows = np.stack([raw[:, start : start + 140] for start in range(0, 5000, 100)])
    np.save(tmp_path / "microvolts.npy", windows)
    as_recorded = {"unit": "uV", "sfreq": 200.0, "tmin": -0.2}
    of_python = embedder.embed_recordings(windows, "sub-01", "eeg", **as_recorded)[1]
    assert np.array_equal(vectors(embedder, tmp_path / "microvolts.npy", modality="eeg", **as_recorded), of_python)
    fitted = vectors(embedder, tmp_path / "microvolts.npy", modality="eeg", scaling="fit", **as_recorded)
    assert not np.allclose(fitted, of_python)
    for name, said, message in (
        ("rows.npz", {}, "no array was chosen; it holds 'names', 'recordings'"),
        ("rows.npy", {"unit": "T"}, "the model's were in 'V': other sensors"),
        ("microvolts.npy", {}, "could be none of them by their shape. Say which by 'modality'"),
        ("rows.npy", {"mask": lab.root / "mask.nii.gz"}, "holds an array, of which --mask is not used"),
    ):
        with pytest.raises(DataError, match=message):
            vectors(embedder, tmp_path / name, **said)
    np.save(tmp_path / "nan.npy", np.where(np.arange(len(values))[:, None, None] == 1, np.nan, values))
    with pytest.raises(
        DataError, match=r"nan\.npy': The EEG recordings cannot be embedded: Recording 1 .* not finite"
    ):
        vectors(embedder, tmp_path / "nan.npy", modality="eeg")
    np.save(tmp_path / "none.npy", values[:0])
    with pytest.raises(DataError, match="holds no recordings"):
        vectors(embedder, tmp_path / "none.npy", modality="eeg")


def test_images_are_read_some_volumes_at_a_time(lab, embedder, tmp_path):
    import nibabel

    image, mask = (nibabel.load(lab.root / name) for name in ("betas.nii.gz", "mask.nii.gz"))
    many = nibabel.Nifti1Image(np.tile(np.asarray(image.dataobj), 30), image.affine)
    options = RecordingOptions(subject="sub-01", mask=lab.root / "mask.nii.gz")
    for name in ("many.nii.gz", "many.nii"):
        nibabel.save(many, tmp_path / name)
        file = open_recordings(tmp_path / name, embedder, options)
        assert [block.shape[3] for block in file.blocks()] == [BLOCK, BLOCK, 600 - 2 * BLOCK]
        whole = embedder.embed_recordings(many, "sub-01", "fmri", mask=mask)[1]
        assert np.array_equal(file.embedded(embedder)[0], whole)
    cut = (tmp_path / "many.nii.gz").read_bytes()[:-400]
    (tmp_path / "cut.nii.gz").write_bytes(cut)
    with pytest.raises(DataError, match=r"cut\.nii\.gz' cannot be read"):
        vectors(embedder, tmp_path / "cut.nii.gz", mask=lab.root / "mask.nii.gz")
    nibabel.save(nibabel.Nifti1Image(1 - np.asarray(mask.dataobj), mask.affine), tmp_path / "other.nii")
    with pytest.raises(DataError, match=r"must hold 12 voxels|marks other voxels|must hold"):
        vectors(embedder, tmp_path / "many.nii", mask=tmp_path / "other.nii")
