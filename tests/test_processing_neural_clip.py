"""The processor: what it accepts, what it does to it, and what it refuses."""

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from neural_clip import EegConfig, FmriConfig, MegConfig, NeuralClipConfig, NeuralClipProcessor
from tolerances import assert_same_outputs

pytestmark = pytest.mark.numerical

NAMES = ["Oz", "Pz", "Cz"]
SUBJECTS = ["sub-01", "sub-02"]


@pytest.fixture(scope="module")
def processor():
    config = NeuralClipConfig(
        eeg_config=EegConfig(n_chans=3, n_times=50, sfreq=100.0, tmin=-0.1, ch_names=NAMES, subjects=SUBJECTS),
        meg_config=MegConfig(n_chans=2, n_times=10, sfreq=100.0, tmin=0.0, subjects=SUBJECTS),
        fmri_config=FmriConfig(subjects=SUBJECTS, n_voxels={"sub-01": 4, "sub-02": 6}),
    )
    return NeuralClipProcessor.from_config(config, CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16))


def make_epochs(names, sfreq=100.0, tmin=-0.2, n_times=80, n_epochs=4, seed=0):
    mne = pytest.importorskip("mne")
    data = np.random.default_rng(seed).standard_normal((n_epochs, len(names), n_times))
    return mne.EpochsArray(data, mne.create_info(list(names), sfreq, "eeg"), tmin=tmin, verbose="error"), data


@pytest.mark.parametrize("kind", ["array", "tensor", "list", "single"])
def test_arrays_of_every_kind(processor, kind):
    values = np.random.default_rng(0).standard_normal((2, 3, 50)).astype(np.float32)
    given = {"array": values, "tensor": torch.from_numpy(values), "list": list(values), "single": values[0]}[kind]
    inputs = processor(eeg=given, subject="sub-02")
    expected = values[:1] if kind == "single" else values
    assert torch.equal(inputs["eeg_values"], torch.from_numpy(expected))
    assert inputs["subject_ids"].tolist() == [1] * len(expected)
    assert inputs["eeg_values"].dtype == torch.float32


def test_epochs_are_picked_ordered_and_cut(processor):
    epochs, data = make_epochs(["Cz", "Fz", "Oz", "Pz"])
    inputs = processor(eeg=epochs, subject="sub-01")
    # tmin -0.1 s lies 10 samples into a window that begins at -0.2 s
    np.testing.assert_allclose(inputs["eeg_values"].numpy(), data[:, [2, 3, 0], 10:60], rtol=1e-6)


def test_epochs_at_a_higher_rate_are_resampled(processor):
    mne = pytest.importorskip("mne")
    times = np.arange(-0.5, 1.0, 1 / 400)
    wave = np.sin(2 * np.pi * 5 * times)  # 5 Hz lives far below the new Nyquist frequency of 50 Hz
    epochs = mne.EpochsArray(
        np.tile(wave, (1, 3, 1)), mne.create_info(NAMES, 400.0, "eeg"), tmin=-0.5, verbose="error"
    )
    got = processor(eeg=epochs, subject="sub-01")["eeg_values"][0, 0].numpy()
    expected = np.sin(2 * np.pi * 5 * (-0.1 + np.arange(50) / 100))
    assert np.abs(got - expected).max() < 0.03


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["Oz", "Pz"]}, r"lack 1 of the model's 3 channels: \['Cz'\]"),
        ({"sfreq": 50.0, "n_times": 80}, "a higher rate cannot be invented"),
        ({"tmin": 0.0}, "the model needs -0.100 to 0.390 s"),
        ({"n_times": 40}, "the model needs -0.100 to 0.390 s"),
    ],
)
def test_epochs_that_do_not_fit(processor, change, message):
    epochs, _ = make_epochs(**({"names": NAMES} | change))
    with pytest.raises(ValueError, match=message):
        processor(eeg=epochs, subject="sub-01")


def test_fmri_rows_of_mixed_subjects_are_padded(processor):
    rows = [np.ones(4, np.float32), np.full(6, 2, np.float32)]
    inputs = processor(fmri=rows, subject=["sub-01", "sub-02"])
    assert inputs["fmri_values"].tolist() == [[1, 1, 1, 1, 0, 0], [2] * 6]
    assert inputs["subject_ids"].tolist() == [0, 1]


def test_fmri_image_is_read_in_c_order_of_the_mask(processor):
    mask = np.zeros((2, 2, 2), np.int16)
    mask[0, 1, 0] = mask[1, 0, 1] = mask[1, 1, 0] = mask[0, 0, 1] = 1
    mask[0, 0, 0] = -1  # outside: only values above 0 count
    volume = np.arange(16, dtype=np.float32).reshape(2, 2, 2, 2)
    inputs = processor(
        fmri=nibabel.Nifti1Image(volume, np.eye(4)), mask=nibabel.Nifti1Image(mask, np.eye(4)), subject="sub-01"
    )
    expected = [[volume[tuple(voxel)][t] for voxel in np.argwhere(mask > 0)] for t in range(2)]
    assert inputs["fmri_values"].tolist() == expected


def test_rows_of_a_data_set(processor):
    rows = [{"subject": "sub-02", "fmri": [1.0] * 6, "image_id": "a"}, {"subject": "sub-01", "fmri": [1.0] * 4}]
    assert processor(fmri=rows)["subject_ids"].tolist() == [1, 0]
    assert processor(fmri=rows[0])["fmri_values"].shape == (1, 6)
    batch = {"subject": ["sub-02", "sub-01"], "fmri": [[1.0] * 6, [1.0] * 4]}
    assert processor(fmri=batch)["subject_ids"].tolist() == [1, 0]


def test_images_go_through_the_clip_processor(processor, tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    expected = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)(image, return_tensors="pt")["pixel_values"]
    processor.save_pretrained(tmp_path)
    loaded = NeuralClipProcessor.from_pretrained(tmp_path)
    assert_same_outputs(loaded(images=image)["pixel_values"], expected)
    assert loaded.recordings == processor.recordings


ZEROS = np.zeros((1, 3, 50), np.float32)
NOT_FINITE = ZEROS.copy()
NOT_FINITE[0, 1, 7] = np.nan


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"eeg": ZEROS, "subject": "sub-09"}, r"'subject' parameter. Allowed values are \['sub-01', 'sub-02'\]"),
        ({"eeg": ZEROS}, "'subject' is missing"),
        ({"eeg": ZEROS, "subject": ["sub-01", "sub-02"]}, "names 2 subjects, but there are 1"),
        ({"eeg": NOT_FINITE, "subject": "sub-01"}, "Recording 0 in 'eeg' holds 1 values that are not finite"),
        ({"eeg": ZEROS, "subject": "sub-01", "ch_names": ["Oz", "Cz", "Pz"]}, "differs from position 1 on"),
        ({"eeg": ZEROS, "subject": "sub-01", "ch_names": ["Oz", "Pz"]}, "differs from position 2 on"),
        ({"eeg": ZEROS, "subject": "sub-01", "sfreq": 250.0}, "'sfreq' must be 100.0 Hz"),
        ({"eeg": ZEROS, "subject": "sub-01", "tmin": 0.0}, "'tmin' must be -0.1 s"),
        ({"eeg": ZEROS[:, :, :49], "subject": "sub-01"}, r"must have shape \(batch_size, 3, 50\)"),
        ({"fmri": np.zeros(5), "subject": "sub-01"}, "must hold 4 voxels, but holds 5"),
        ({"fmri": np.full(4, np.inf), "subject": "sub-01"}, "4 values that are not finite"),
        ({"fmri": nibabel.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4)), "subject": "sub-01"}, "needs 'mask'"),
        ({"fmri": [{"fmri": [0.0] * 4}]}, "must have the columns 'fmri' and 'subject'"),
        ({"fmri": {"subject": "sub-01", "fmri": [0.0] * 4}, "subject": "sub-02"}, "but the rows are of"),
        ({"eeg": ZEROS, "fmri": np.zeros(4), "subject": "sub-01"}, "exactly one of"),
        ({}, "exactly one of"),
        ({"eeg": ZEROS, "subject": "sub-01", "return_tensors": "np"}, "'return_tensors'"),
    ],
)
def test_bad_input_is_named(processor, inputs, message):
    with pytest.raises(ValueError, match=message):
        processor(**inputs)


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_average_subject_is_minus_one(processor, modality):
    values = {"eeg": ZEROS, "meg": np.zeros((1, 2, 10), np.float32)}[modality]
    assert processor(**{modality: values}, subject="average")["subject_ids"].tolist() == [-1] * len(values)
    rows = [{"subject": "sub-77", modality: row.tolist()} for row in values]
    assert processor(**{modality: rows}, subject="average")["subject_ids"].tolist() == [-1] * len(values)
    mixed = processor(**{modality: np.concatenate([values[:1]] * 2)}, subject=["sub-02", "average"])
    assert mixed["subject_ids"].tolist() == [1, -1]


def test_fmri_has_no_average_subject(processor):
    with pytest.raises(ValueError, match=r"voxels of two subjects do not correspond.*`neural-clip adapt` fits"):
        processor(fmri=np.zeros(4), subject="average")
    with pytest.raises(ValueError, match=r"got \['sub-09'\].* has not seen: `neural-clip adapt`"):
        processor(fmri=np.zeros(4), subject="sub-09")


def test_an_unknown_subject_is_told_both_ways(processor):
    with pytest.raises(ValueError, match=r"got \['sub-09'\].*'average' takes the mean .*`neural-clip adapt` fits"):
        processor(eeg=ZEROS, subject="sub-09")


def test_masks_that_do_not_fit(processor):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4))
    with pytest.raises(ValueError, match="'mask' has shape"):
        processor(fmri=image, mask=np.ones((2, 2, 3)), subject="sub-01")
    with pytest.raises(ValueError, match="different spaces"):
        processor(fmri=image, mask=nibabel.Nifti1Image(np.ones((2, 2, 2), np.int16), 2 * np.eye(4)), subject="sub-01")


def test_modality_or_images_that_the_model_does_not_take():
    config = NeuralClipConfig(eeg_config=EegConfig(n_chans=3, n_times=50, subjects=SUBJECTS))
    processor = NeuralClipProcessor.from_config(config)
    with pytest.raises(ValueError, match="takes no 'meg' recordings"):
        processor(meg=ZEROS, subject="sub-01")
    with pytest.raises(ValueError, match="ready-made embeddings"):
        processor(images=Image.new("RGB", (4, 4)))
    assert processor.model_input_names == ["eeg_values", "subject_ids"]
