"""The processor: what it accepts, what it does to it, and what it refuses."""

import datasets
import mne
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from neural_clip import EegConfig, FmriConfig, MegConfig, NeuralClipConfig, NeuralClipProcessor
from neural_clip.corpora.sensor_scaling import scaling_facts
from neural_clip.preparation import Preparation, Statistics, facts_of_info
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
    preparations = {
        "eeg": Preparation(unit="V", bands=[[0.0, 50.0]], baseline=None, reference="as recorded", projectors=[]),
        "fmri": Preparation(unit="percent signal change"),
    }
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)
    return NeuralClipProcessor.from_config(config, images, preparations)


@pytest.mark.parametrize(
    ("modality", "wrong"),
    [
        ("eeg", [float("inf")]), ("eeg", {"sfreq": "100"}), ("eeg", {"n_times": -1}), ("eeg", {"n_chans": True}),
        ("eeg", {"ch_names": "Oz"}), ("eeg", {"tmin": None}), ("eeg", {"subjects": {}}), ("fmri", {"n_voxels": [4]}),
        ("eeg", {"subjects": [True]}), ("eeg", {"ch_names": ["Oz", 3, "Pz"]}), ("eeg", {"corpus": 1}),
        ("eeg", {"preparation": 3}), ("eeg", {"preparation": {"unit": 1}}), ("eeg", {"preparation": {"bands": [1]}}),
        ("eeg", {"preparation": {"baseline": [None, 0]}}), ("eeg", {"preparation": {"projectors": [2]}}),
        ("fmri", {"n_voxels": {"sub-01": 4}}), ("fmri", {"n_voxels": {"sub-01": "4", "sub-02": 6}}),
        ("fmri", {"subjects": [["sub-01"]]}),
    ],
)  # fmt: skip
def test_damaged_settings_are_told(processor, modality, wrong):
    (group,) = processor.recordings[modality]
    own = NeuralClipProcessor({modality: wrong if isinstance(wrong, list) else group | wrong})
    with pytest.raises(
        ValueError, match=rf"'processor_config\.json' of the checkpoint is damaged: '.*' of '{modality}' recordings"
    ):
        own(**{modality: np.zeros((1, 3, 50)) if modality == "eeg" else np.zeros((1, 4))}, subject="sub-01")


@pytest.mark.parametrize("wrong", [None, 3, True, "x"])
def test_recordings_that_are_no_settings_are_told(wrong):
    with pytest.raises(ValueError, match="'recordings' of 'eeg' should be a list of settings, but is"):
        NeuralClipProcessor({"eeg": wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        3, [1], "x", {"crop_size": 0}, {"crop_size": {"height": -1, "width": 16}}, {"size": {"shortest_edge": 10**9}},
        {"size": {"shortest_edge": 1.5}}, {"size": []}, {"image_mean": [None, 0, 0]}, {"image_std": 0},
        {"rescale_factor": float("nan")}, {"resample": 99},
    ],
)  # fmt: skip
def test_damaged_image_settings_are_told(processor, wrong):
    settings = processor.image_settings | wrong if isinstance(wrong, dict) else wrong
    with pytest.raises(
        ValueError, match=r"'processor_config\.json' of the checkpoint is damaged: no image can be prepared"
    ):
        NeuralClipProcessor(None, settings)(images=np.zeros((20, 20, 3), np.uint8))


def make_epochs(names=NAMES, sfreq=100.0, tmin=-0.2, n_times=80, n_epochs=4, seed=0):
    data = np.random.default_rng(seed).standard_normal((n_epochs, len(names), n_times)) * 1e-5
    return mne.EpochsArray(data, mne.create_info(list(names), sfreq, "eeg"), tmin=tmin, verbose="error"), data


@pytest.mark.parametrize("kind", ["array", "tensor", "list", "single"])
def test_arrays_of_every_kind(processor, kind):
    values = 1e-5 * np.random.default_rng(0).standard_normal((2, 3, 50)).astype(np.float32)
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
    times = np.arange(-0.5, 1.0, 1 / 400)
    wave = 1e-5 * np.sin(2 * np.pi * 5 * times)  # 5 Hz lives far below the new Nyquist frequency of 50 Hz
    epochs = mne.EpochsArray(
        np.tile(wave, (1, 3, 1)), mne.create_info(NAMES, 400.0, "eeg"), tmin=-0.5, verbose="error"
    )
    got = processor(eeg=epochs, subject="sub-01")["eeg_values"][0, 0].numpy()
    expected = 1e-5 * np.sin(2 * np.pi * 5 * (-0.1 + np.arange(50) / 100))
    assert np.abs(got - expected).max() < 0.03e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["Oz", "Pz"]}, r"lack 1 of the model's 3 channels: \['Cz'\]\. They have \['Oz', 'Pz'\]\. "),
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
        ({"eeg": ZEROS, "subject": "sub-01", "ch_names": ["Oz", "Cz", "Pz"]}, "its channel 2 is 'Cz' instead of 'Pz'"),
        ({"eeg": ZEROS, "subject": "sub-01", "ch_names": ["Oz", "Pz"]}, "it lacks 'Cz'"),
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


# What recordings went through, and what they must not have gone through.


def marked_bad(epochs):
    epochs.info["bads"] = ["Pz"]
    return epochs


def referenced(epochs):
    return epochs.set_eeg_reference(["Oz"], verbose="error")


def projected(epochs):
    return epochs.set_eeg_reference("average", projection=True, verbose="error").apply_proj(verbose="error")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (marked_bad, r"marked bad: \['Pz'\]. Ask for interpolation .* by 'montage'"),
        (referenced, "'reference' of the recordings is changed, but of the model's as recorded"),
        (projected, r"'projectors' of the recordings is \['Average EEG reference'\], but of the model's \[\]"),
        (lambda epochs: epochs.apply_baseline((None, 0), verbose="error"), r"baseline of \(.*\) s was subtracted"),
        (lambda epochs: epochs.filter(None, 20, verbose="error"), r"hold 0 to 20 Hz .* filtered to 0 to 50 Hz"),
        (lambda epochs: mne.io.RawArray(epochs.get_data()[0], epochs.info, verbose="error"), "cut them at the image"),
        (lambda epochs: epochs[:0], "no epochs; were all of them rejected"),
        (lambda epochs: epochs.set_channel_types({"Pz": "eog"}), "channels are of the types"),
    ],
)
def test_epochs_with_another_history_are_refused(processor, change, message):
    epochs, _ = make_epochs()
    processor(eeg=epochs, subject="sub-01")
    with pytest.raises(ValueError, match=message):
        processor(eeg=change(epochs), subject="sub-01")


def test_inactive_projectors_are_not_applied(processor):
    epochs, data = make_epochs()
    epochs.set_eeg_reference("average", projection=True, verbose="error")
    inputs = processor(eeg=epochs, subject="sub-01")
    np.testing.assert_allclose(inputs["eeg_values"].numpy(), data[:, :, 10:60], rtol=1e-6)


def test_the_average_of_epochs_is_one_recording(processor):
    epochs, data = make_epochs()
    inputs = processor(eeg=epochs.average(), subject="sub-01")
    np.testing.assert_allclose(inputs["eeg_values"].numpy(), data[None].mean(axis=1)[:, :, 10:60], rtol=1e-5)


@pytest.mark.parametrize("sfreq", [100.0, 300.0, 1000.0, 256.0])
@pytest.mark.parametrize("early", [0, 1])
def test_epochs_of_exactly_the_window_fit(processor, sfreq, early):
    """Windows as people write them: up to the last sample of the model, or up to just before it."""
    n_times = int(0.49 * sfreq) + 1 - early * (sfreq > 200)
    epochs, _ = make_epochs(sfreq=sfreq, tmin=-0.1, n_times=n_times)
    with epochs.info._unlock():
        epochs.info["lowpass"] = 50.0
    assert processor(eeg=epochs, subject="sub-01")["eeg_values"].shape == (4, 3, 50)


def test_a_checkpoint_of_before_says_what_it_lacks():
    config = NeuralClipConfig(eeg_config=EegConfig(n_chans=3, n_times=50, sfreq=100.0, tmin=-0.1, subjects=SUBJECTS))
    old = NeuralClipProcessor.from_config(config)
    epochs, data = make_epochs()
    with pytest.raises(ValueError, match=r"does not say what its recordings went through \(unit, band, baseline"):
        old(eeg=epochs, subject="sub-01")
    with pytest.raises(ValueError, match="does not say"):
        old(eeg=data[:, :, 10:60], subject="sub-01", unit="V")
    inputs = old(eeg=epochs, subject="sub-01", unit="prepared")
    np.testing.assert_allclose(inputs["eeg_values"].numpy(), data[:, :, 10:60], rtol=1e-6)
    assert old(eeg=data[:, :, 10:60], subject="sub-01")["eeg_values"].shape == (4, 3, 50)


def test_a_unit_beside_epochs_is_refused(processor):
    epochs, _ = make_epochs()
    with pytest.raises(ValueError, match="mne holds V, T and T/m"):
        processor(eeg=epochs, subject="sub-01", unit="uV")


@pytest.mark.parametrize(("unit", "factor"), [("V", 1), ("uV", 1e6), ("µV", 1e6), ("mV", 1e3)])
def test_arrays_in_stated_units(processor, unit, factor):
    values = 1e-5 * np.random.default_rng(0).standard_normal((2, 3, 50))
    inputs = processor(eeg=values * factor, subject="sub-01", unit=unit)
    np.testing.assert_allclose(inputs["eeg_values"], values, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eeg": 1e-5 * np.ones((1, 3, 50)), "unit": "furlong"}, "'furlong' and the model's in 'V'; known are"),
        ({"eeg": 1e-5 * np.ones((1, 3, 50)), "unit": "T"}, "in 'T', but the model's were in 'V': other sensors"),
        ({"eeg": 10 * np.random.default_rng(0).standard_normal((1, 3, 50))}, "vary by 9.5, but the model's are V"),
        ({"eeg": 10 * np.random.default_rng(0).standard_normal((1, 3, 50)), "unit": "V"}, "vary by .* another unit"),
        ({"eeg": np.ones((1, 3, 50)), "scaling": "fit"}, "scaling='fit' is for recordings as they were recorded"),
        ({"eeg": np.ones((1, 3, 50)), "scaling": "mine"}, "'scaling'"),
        (
            {"eeg": 1e-5 * np.ones((1, 3, 50)), "unit": "V", "scaling": "fit"},
            "is 'none': there is nothing to fit",
        ),
        ({"eeg": 1e-5 * np.ones((1, 3, 60)), "unit": "V"}, r"must have shape \(batch_size, 3, 50\).*need 'sfreq'"),
        ({"eeg": 1e-5 * np.ones((1, 2, 50)), "unit": "V", "tmin": -0.1}, r"\(batch_size, 3, n_times\), but got"),
        ({"eeg": np.ones((1, 3, 50)), "session": ["a", "b"]}, "'session' names 2 sessions, but there are 1"),
        ({"eeg": "recording.fif"}, "'eeg' is the path or name 'recording.fif'; read the file first"),
        ({"eeg": np.empty((0, 3, 50))}, "'eeg' is empty"),
        ({"eeg": []}, "'eeg' is empty"),
        ({"eeg": [["a"]]}, "'eeg' must be numbers of one shape"),
        ({"eeg": np.ones((1, 3, 50)), "subject": 2}, "'subject' is a name or a list of names, but got 2"),
        ({"eeg": np.ones((1, 3, 50)), "subject": [1]}, r"but got \[1\]; allowed are"),
        ({"images": [{"eeg": 1}]}, "Recordings are given by name: eeg="),
    ],
)
def test_a_sentence_for_what_cannot_be_used(processor, given, message):
    with pytest.raises(ValueError, match=message):
        processor(**({"subject": "sub-01"} | given))


PLAIN = 1e-5 * np.random.default_rng(0).standard_normal((2, 3, 50)).astype(np.float32)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eeg": np.ma.masked_array(PLAIN, PLAIN > 0)}, "of its values are masked"),
        ({"eeg": PLAIN + 1j}, "holds complex64 of shape"),
        ({"eeg": torch.from_numpy(PLAIN + 1j)}, "holds complex64 of shape"),
        ({"eeg": np.zeros((2, 3, 50), [("a", "f4")])}, "'eeg' must be numbers"),
        ({"eeg": PLAIN.astype(str)}, "'eeg' must be numbers"),
        ({"eeg": PLAIN.astype("M8[s]")}, "holds datetime64"),
        ({"eeg": 3.0}, r"holds float64 of shape \(\)"),
        ({"eeg": 0 * PLAIN, "unit": "V"}, "vary by 0, but the model's are V"),
        ({"eeg": PLAIN, "sfreq": "100"}, "'sfreq' is a positive number, but got '100'"),
        ({"eeg": PLAIN, "sfreq": 0, "unit": "V"}, "'sfreq' is a positive number, but got 0"),
        ({"eeg": PLAIN, "tmin": float("nan"), "unit": "V"}, "'tmin' is a number, but got nan"),
        ({"eeg": PLAIN, "session": 2}, "'session' is a name or a list of names, but got 2"),
        ({"eeg": PLAIN, "session": [1, 2]}, r"'session' is a name or a list of names, but got \[1, 2\]"),
        ({"eeg": PLAIN, "subject": b"sub-01"}, "'subject' is a name or a list of names, but got b'sub-01'"),
    ],
)
def test_values_and_names_of_another_kind(processor, given, message):
    with pytest.raises(ValueError, match=message):
        processor(**({"subject": "sub-01"} | given))


@pytest.mark.parametrize("how", ["read-only", "big-endian", "strided", "objects", "half", "gradient"])
def test_arrays_in_memory_of_every_kind(processor, how):
    given = {
        "read-only": np.frombuffer(PLAIN.tobytes(), np.float32).reshape(PLAIN.shape),
        "big-endian": PLAIN.astype(">f8"),
        "strided": np.asfortranarray(PLAIN), "objects": PLAIN.astype(object),
        "half": torch.from_numpy(PLAIN).bfloat16(), "gradient": torch.from_numpy(PLAIN).requires_grad_(),
    }[how]  # fmt: skip
    inputs = processor(eeg=given, subject=np.array(SUBJECTS))
    np.testing.assert_allclose(inputs["eeg_values"], PLAIN, rtol=1e-2 if how == "half" else 0)
    assert inputs["subject_ids"].tolist() == [0, 1]
    assert processor(eeg=given[:1], subject=np.array("sub-02"))["subject_ids"].tolist() == [1]


@pytest.mark.parametrize("how", ["tuple", "objects", "column", "data set", "pandas", "arrow"])
def test_voxels_of_subjects_in_every_holder(processor, how):
    rows = [np.arange(1, 5, dtype=np.float32), np.arange(1, 7, dtype=np.float32)]
    data = datasets.Dataset.from_dict(
        {"subject": SUBJECTS, "fmri": rows},
        features=datasets.Features(
            {"subject": datasets.Value("string"), "fmri": datasets.List(datasets.Value("float32"))}
        ),
    )
    if how in ("tuple", "objects", "column"):
        given = {"tuple": tuple(rows), "objects": np.array(rows, dtype=object), "column": data["fmri"]}[how]
        inputs = processor(fmri=given, subject=data["subject"])
    else:
        inputs = processor(fmri=data if how == "data set" else data.with_format(how), subject=np.array(SUBJECTS))
    np.testing.assert_array_equal(inputs["fmri_values"], [[1, 2, 3, 4, 0, 0], [1, 2, 3, 4, 5, 6]])


def continuous(tmin=-0.2, tmax=0.45, **settings):
    """Epochs of a recording that are not loaded yet; the second of three is rejected when they are."""
    values = 1e-5 * np.random.default_rng(0).standard_normal((3, 400))
    values[:, 150:200] *= 100
    raw = mne.io.RawArray(values, mne.create_info(NAMES, 100.0, "eeg"), verbose="error")
    events = np.array([[60, 0, 1], [170, 0, 1], [320, 0, 1]])
    epochs = mne.Epochs(raw, events, tmin=tmin, tmax=tmax, baseline=None, verbose="error", **settings)
    return epochs, values[:, 50:100], values[:, 310:360]


@pytest.mark.parametrize("settings", [{}, {"preload": True}, {"proj": "delayed"}])
def test_epochs_are_loaded_and_rejected_ones_left_out(processor, settings):
    epochs, *kept = continuous(reject={"eeg": 1e-3}, **settings)
    inputs = processor(eeg=epochs, subject="sub-01")
    np.testing.assert_allclose(inputs["eeg_values"], kept, rtol=1e-6)
    assert epochs.preload is settings.get("preload", False)  # the user's own stay as they were


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda epochs: epochs.standard_error(), "of the kind 'standard_error'"),
        (lambda epochs: epochs.apply_hilbert(verbose="error"), "holds complex128 of shape"),
        (lambda epochs: epochs.compute_psd(verbose="error"), "EpochsSpectrum: frequencies, not samples"),
        (lambda epochs: epochs.average().compute_tfr("morlet", freqs=[20.0, 25.0, 30.0], n_cycles=2), "AverageTFR"),
    ],
)
def test_what_mne_makes_of_epochs(processor, change, message):
    with pytest.raises(ValueError, match=message):
        processor(eeg=change(make_epochs()[0]), subject="sub-01")


def test_references_and_projectors_of_electrodes_do_not_concern_meg():
    config = NeuralClipConfig(
        meg_config=MegConfig(n_chans=2, n_times=10, sfreq=100.0, tmin=0.0, ch_names=["A", "B"], subjects=SUBJECTS)
    )
    preparation = Preparation(unit="T", baseline=None, reference="as recorded", projectors=[])
    own = NeuralClipProcessor.from_config(config, None, {"meg": preparation})
    values = 1e-13 * np.random.default_rng(0).standard_normal((2, 4, 30))
    info = mne.create_info(["A", "B", "E1", "E2"], 100.0, ["mag", "mag", "eeg", "eeg"])
    epochs = mne.EpochsArray(values, info, verbose="error")
    changed = [
        epochs.copy().set_eeg_reference("average", verbose="error"),
        epochs.copy().set_eeg_reference("average", projection=True, verbose="error").apply_proj(verbose="error"),
    ]
    for one in changed:
        np.testing.assert_allclose(own(meg=one, subject="sub-01")["meg_values"], values[:, :2, :10], rtol=1e-6)


def compensated(info):
    for channel in info["chs"]:
        channel["coil_type"] |= 3 << 16


def maxwell_filtered(info):
    with info._unlock():
        info["proc_history"] = [{"max_info": {"sss_info": {"job": 2}, "max_st": {}}}]


@pytest.mark.parametrize(
    ("change", "found"), [(compensated, "gradient compensation of grade 3"), (maxwell_filtered, "Maxwell filter")]
)
def test_spatial_filters_of_meg_are_compared(change, found):
    config = NeuralClipConfig(
        meg_config=MegConfig(n_chans=2, n_times=10, sfreq=100.0, tmin=0.0, ch_names=["A", "B"], subjects=SUBJECTS)
    )
    values = 1e-13 * np.random.default_rng(0).standard_normal((2, 2, 30))
    plain, changed = (
        mne.EpochsArray(values, mne.create_info(["A", "B"], 100.0, "mag"), verbose="error") for _ in "ab"
    )
    change(changed.info)
    assert facts_of_info(changed.info, ["A", "B"])["spatial_filters"] == [found]
    preparations = [
        Preparation(unit="T", baseline=None, spatial_filters=facts_of_info(one.info, ["A", "B"])["spatial_filters"])
        for one in (plain, changed)
    ]
    assert preparations[0].differences(preparations[1]) == [f"the spatial filters are {found} instead of none"]
    for preparation, own, other in zip(preparations, (plain, changed), (changed, plain), strict=True):
        processor = NeuralClipProcessor.from_config(config, None, {"meg": preparation})
        assert processor(meg=own, subject="sub-01")["meg_values"].shape == (2, 2, 10)
        with pytest.raises(ValueError, match=r"'spatial_filters' of the recordings is .*apply_gradient_compensation"):
            processor(meg=other, subject="sub-01")


def test_epochs_that_were_thinned_out_without_a_filter_are_refused(processor):
    resampled = Preparation(unit="V", bands=[[0.0, 500.0]], baseline=None, rate="resampled")
    own = NeuralClipProcessor({"eeg": processor.recordings["eeg"][0] | {"preparation": resampled.as_dict()}})
    epochs, _ = make_epochs(sfreq=1000.0, n_times=800)
    assert own(eeg=epochs, subject="sub-01")["eeg_values"].shape == (4, 3, 50)
    assert own(eeg=epochs.copy().resample(100, verbose="error"), subject="sub-01")["eeg_values"].shape == (4, 3, 50)
    with pytest.raises(ValueError, match="hold 0 to 500 Hz"):
        own(eeg=epochs.decimate(10, verbose="error"), subject="sub-01")


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (np.ones((2, 2, 2, 1, 3), np.float32), None, "3 axes, or 4 for several volumes"),
        (np.ones((2, 2, 2), np.complex64), None, "holds complex64"),
        (np.ones((2, 2, 2), np.float32), "mask.nii.gz", "'mask' is the path 'mask.nii.gz'; read the file first"),
    ],
)
def test_images_of_another_kind(processor, image, mask, message):
    inside = np.zeros((2, 2, 2))
    inside.flat[:4] = 1
    with pytest.raises(ValueError, match=message):
        processor(fmri=nibabel.Nifti1Image(image, np.eye(4)), mask=mask or inside, subject="sub-01")


def test_masks_of_every_kind(processor):
    volumes = np.random.default_rng(0).standard_normal((2, 2, 2, 3)).astype(np.float32)
    inside = np.arange(8).reshape(2, 2, 2) % 2 > 0
    kinds = [inside, inside.astype(float), np.where(inside, 1, np.nan), inside[..., None].astype(np.int16)]
    for mask in [*kinds, nibabel.Nifti1Image(kinds[-1], np.eye(4)), inside.tolist()]:
        inputs = processor(fmri=nibabel.Nifti1Image(volumes, np.eye(4)), mask=mask, subject="sub-01")
        np.testing.assert_array_equal(inputs["fmri_values"], volumes[inside].T)


def test_recordings_are_given_by_name(processor):
    epochs, values = make_epochs()
    for positional in ((epochs,), (None, values), (nibabel.Nifti1Image(np.ones((2, 2, 2)), np.eye(4)),)):
        with pytest.raises(ValueError, match="Recordings are given by name"):
            processor(*positional, subject="sub-01")


@pytest.mark.parametrize("how", ["data set", "slice", "columns", "row", "rows", "torch", "numpy"])
def test_what_datasets_gives(processor, how):
    values = 1e-5 * np.random.default_rng(0).standard_normal((4, 3, 50)).astype(np.float32)
    names = ["sub-02", "sub-01", "sub-01", "sub-02"]
    data = datasets.Dataset.from_dict(
        {"subject": names, "eeg": list(values), "image_id": list("abcd")},
        features=datasets.Features(
            {"subject": datasets.Value("string"), "eeg": datasets.Array2D((3, 50), "float32"),
             "image_id": datasets.Value("string")}
        ),
    )  # fmt: skip
    if how == "columns":
        inputs = processor(eeg=data["eeg"], subject=data["subject"])
    else:
        given = {
            "data set": data, "slice": data[:], "row": data[0], "rows": list(data), "torch": data.with_format("torch"),
            "numpy": data.with_format("numpy")[:],
        }[how]  # fmt: skip
        inputs = processor(eeg=given)
    count = 1 if how == "row" else 4
    np.testing.assert_array_equal(inputs["eeg_values"], values[:count])
    assert inputs["subject_ids"].tolist() == [1, 0, 0, 1][:count]


def test_a_sentence_for_other_data_sets(processor):
    data = datasets.Dataset.from_dict({"subject": ["sub-01"], "eeg": [[[1e-5] * 50] * 3]})
    with pytest.raises(ValueError, match=r"iterable data set; give some of its rows"):
        processor(eeg=data.to_iterable_dataset())
    with pytest.raises(ValueError, match=r"a data set of the splits \['train'\]; choose one"):
        processor(eeg=datasets.DatasetDict(train=data))
    with pytest.raises(ValueError, match="must have the columns 'eeg' and 'subject'"):
        processor(eeg=data.remove_columns("subject"))


def test_a_folder_without_settings_says_so(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"'processor_config.json' of the checkpoint is missing"):
        NeuralClipProcessor.from_pretrained(tmp_path)(eeg=ZEROS, subject="sub-01")


# Groups of subjects, and statistics.


def zscored(tmp_path=None):
    """A processor of two subjects with statistics, whose subjects have odd names."""
    names = ["sub/01 ä", "sub-02"]
    config = NeuralClipConfig(eeg_config=EegConfig(n_chans=3, n_times=50, sfreq=100.0, tmin=-0.1, subjects=names))
    arrays = {}
    for number, name in enumerate(names):
        arrays |= Statistics(name, "", np.full(3, number * 1e-5), np.full(3, (number + 1) * 1e-5)).arrays()
    preparation = Preparation(unit="V", scaling="z-score", scope="subject", baseline=None)
    return config, NeuralClipProcessor.from_config(config, None, {"eeg": preparation}, {"eeg": arrays})


def test_statistics_travel_with_the_processor(tmp_path):
    _, processor = zscored()
    processor.save_pretrained(tmp_path / "saved" / "part")
    assert (tmp_path / "saved" / "part" / "scaling.safetensors").is_file()
    loaded = [
        NeuralClipProcessor.from_pretrained(tmp_path / "saved" / "part"),
        NeuralClipProcessor.from_pretrained(tmp_path / "saved", subfolder="part"),
    ]
    values = 1e-5 * np.random.default_rng(0).standard_normal((2, 3, 50))
    expected = np.stack([values[0] / 1e-5, (values[1] - 1e-5) / 2e-5])
    for one in (processor, *loaded):
        inputs = one(eeg=values, subject=["sub/01 ä", "sub-02"], unit="V")
        np.testing.assert_allclose(inputs["eeg_values"], expected, rtol=1e-5, atol=1e-6)
    NeuralClipProcessor(processor.recordings).save_pretrained(tmp_path / "saved" / "part")
    assert not (tmp_path / "saved" / "part" / "scaling.safetensors").exists()


def test_statistics_are_found_beside_a_named_file_and_damage_is_told(tmp_path):
    _, processor = zscored()
    processor.save_pretrained(tmp_path)
    named = NeuralClipProcessor.from_pretrained(tmp_path / "processor_config.json")
    assert named.statistics_of("eeg").keys() == processor.statistics_of("eeg").keys()
    (tmp_path / "scaling.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"scaling.safetensors' is damaged: "):
        NeuralClipProcessor.from_pretrained(tmp_path)


def test_microvolts_are_no_z_scores():
    _, processor = zscored()
    values = np.random.default_rng(0).standard_normal((20, 3, 50))
    assert processor(eeg=2 * values, subject="sub-02")["eeg_values"].shape == (20, 3, 50)
    assert processor(eeg=10 * values[:1], subject="sub-02")["eeg_values"].shape == (1, 3, 50)  # may be an artefact
    released = Preparation(unit="z", scaling="unknown", obstacle="they were scaled before")
    other = NeuralClipProcessor({"eeg": processor.recordings["eeg"][0] | {"preparation": released.as_dict()}})
    for one in (processor, other):
        with pytest.raises(ValueError, match=r"vary by 9.* z-scores, for which 0.01 to 5 are plausible"):
            one(eeg=10 * values, subject="sub-02")


def test_a_model_of_whitened_rows_refuses_recordings_and_names_the_way_out():
    """`prepare` with `mvnn` keeps no matrix of a session; other obstacles have other ways out."""
    _, processor = zscored()
    recipe = scaling_facts("mvnn", Preparation(unit="V", baseline=[-0.2, 0.0]), "session")
    values = 1e-5 * np.random.default_rng(0).standard_normal((2, 3, 50))
    group = processor.recordings["eeg"][0]
    whitened = NeuralClipProcessor({"eeg": group | {"preparation": recipe["preparation"]}})
    with pytest.raises(ValueError, match=r"each session was whitened by a matrix of its own.*`--scaling train_std`"):
        whitened(eeg=values, subject="sub-02", unit="V")
    differing = Preparation(unit="V", obstacle="files of its data set differ in reference")
    other = NeuralClipProcessor({"eeg": group | {"preparation": differing.as_dict()}})
    with pytest.raises(ValueError, match=r"files of its data set differ in reference.*unit='prepared'\.$"):
        other(eeg=values, subject="sub-02", unit="V")


def test_the_average_subject_is_fitted_or_refused():
    _, processor = zscored()
    values = 1e-5 * (2 + np.random.default_rng(0).standard_normal((25, 3, 50)))
    with pytest.raises(ValueError, match=r"none for 'average'; there are those of .*scaling='fit'"):
        processor(eeg=values, subject="average", unit="V")
    found = processor(eeg=values, subject="average", unit="V", scaling="fit")["eeg_values"].numpy()
    np.testing.assert_allclose(found.mean(axis=(0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=(0, 2)), 1, atol=1e-5)
    with pytest.raises(ValueError, match="needs 20 recordings of a subject at least, but got 19 of 'average'"):
        processor(eeg=values[:19], subject="average", unit="V", scaling="fit")


def test_subjects_of_another_preparation_are_a_group_of_their_own():
    config, processor = zscored()
    config.eeg_config.subjects = [*config.eeg_config.subjects, "sub-03", "sub-04"]
    same = Preparation(unit="V", scaling="z-score", scope="subject", baseline=None)
    other = Preparation(unit="V", scaling="z-score", scope="subject", baseline=None, bands=[[1.0, 40.0]])
    arrays = Statistics("sub-03", "", np.zeros(3), np.ones(3)).arrays()
    processor.add_subjects(config.eeg_config, "eeg", ["sub-03"], same, arrays)
    assert [group["subjects"] for group in processor.recordings["eeg"]] == [["sub/01 ä", "sub-02", "sub-03"]]
    processor.add_subjects(config.eeg_config, "eeg", ["sub-04"], other, {})
    assert [group["subjects"] for group in processor.recordings["eeg"]][1:] == [["sub-04"]]
    values = np.random.default_rng(0).standard_normal((2, 3, 50))
    assert processor(eeg=values, subject=["sub-04"] * 2)["subject_ids"].tolist() == [3, 3]
    with pytest.raises(ValueError, match="go through different steps"):
        processor(eeg=values, subject=["sub-02", "sub-04"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scaling": "robust"}, "'scaling'"),
        ({"scaling": "z-score"}, "'scope'"),
        ({"scope": "subject"}, "'scope'"),
        ({"rate": "slower"}, "'rate'"),
        ({"scaling": "baseline z-score"}, "needs a 'baseline'"),
    ],
)
def test_impossible_preparations(settings, message):
    with pytest.raises(ValueError, match=message):
        Preparation(**settings)


def test_steps_of_a_later_version_are_not_skipped():
    with pytest.raises(ValueError, match=r"steps that this version does not know: \['clamp'\]"):
        Preparation.of(Preparation(unit="V").as_dict() | {"clamp": 20.0})


def test_statistics_that_were_left_behind_are_missed(tmp_path):
    _, processor = zscored()
    processor.save_pretrained(tmp_path)
    (tmp_path / "scaling.safetensors").unlink()
    with pytest.raises(ValueError, match=r"none at all: 'scaling.safetensors' is missing beside the processor"):
        NeuralClipProcessor.from_pretrained(tmp_path)(eeg=1e-5 * np.ones((1, 3, 50)), subject="sub-02", unit="V")


def test_what_two_preparations_do_differently():
    base = {"unit": "V", "baseline": [-0.1, 0.0], "bands": [[0.1, 40.0]]}
    fitted = Preparation(scaling="z-score", scope="subject", **base)
    assert fitted.differences(Preparation(scaling="z-score", scope="subject", **base | {"unit": "uV"})) == []
    assert fitted.differences(Preparation(scaling="z-score", scope="subject")) == []
    assert Preparation(**base).differences(Preparation(**base | {"unit": "uV"})) == ["the unit is uV instead of V"]
    assert Preparation(**base).differences(Preparation(**base | {"bands": [[0.1, 40.1], [1, 2]]})) == []
    assert Preparation(**base).differences(Preparation(**base | {"bands": [[1.0, 40.0]]}))
    assert Preparation(**base).differences(Preparation(**base | {"baseline": None}))
    assert len(fitted.differences(Preparation(**base))) == 2  # scaling and the unit of the rows
    assert fitted.differences(Preparation(scaling="unknown", **base))
    assert fitted.differences(Preparation(scaling="z-score", scope="session", **base)) == [
        "the scaling is fitted to each session instead of subject"
    ]
