"""Channels that are lacking, made of those around them: against slow computations, and what is refused."""

import mne
import numpy as np
import pytest

from neural_clip import EegConfig, FmriConfig, MegConfig, NeuralClipConfig, NeuralClipProcessor
from neural_clip.montage import CENTRE, Interpolation, Montage, interpolation, standard_montage
from neural_clip.preparation import Preparation

NAMES = ["Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "C3", "Cz", "C4", "P7", "P3", "Pz", "P4", "P8", "O1", "O2", "T7"]
EIGHT = ["Fp1", "Fp2", "C3", "C4", "P7", "P8", "O1", "O2"]
SHIFT = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0.045], [0, 0, 0, 1.0]])  # m; the head lies below the helmet


def places(names):
    """Of the standard montage, from the centre of the head."""
    info = mne.create_info(list(names), 1.0, "eeg", verbose="error")
    info.set_montage(standard_montage(), verbose="error")
    return np.array([channel["loc"][:3] for channel in info["chs"]]) - CENTRE


def splines(found, wanted):
    """Weights by the equations of Perrin et al. 1989, one pair of electrodes at a time; m = 4, lambda = 1e-5."""

    def legendre(degree, x):
        before, now = 1.0, x
        for n in range(1, degree):
            before, now = now, ((2 * n + 1) * x * now - n * before) / (n + 1)
        return now

    def g(one, other):
        x = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        terms = ((2 * n + 1) / (n * (n + 1)) ** 4 * legendre(n, x) for n in range(1, 51))
        return sum(terms) / (4 * np.pi)

    n = len(found)
    system = np.ones((n + 1, n + 1))
    system[n, n] = 0
    system[:n, :n] = [
        [g(one, other) + 1e-5 * (i == j) for j, other in enumerate(found)] for i, one in enumerate(found)
    ]
    rows = np.array([[*(g(place, other) for other in found), 1.0] for place in wanted])
    return (rows @ np.linalg.inv(system))[:, :n]


def eeg(names=NAMES, seed=0, placed=False, n_epochs=3):
    data = np.random.default_rng(seed).standard_normal((n_epochs, len(names), 50)) * 1e-5
    info = mne.create_info(list(names), 100.0, "eeg", verbose="error")
    epochs = mne.EpochsArray(data, info, tmin=0.0, verbose="error")
    if placed:
        epochs.set_montage(standard_montage(), verbose="error")
    return epochs


def made_by(**settings):
    config = NeuralClipConfig(eeg_config=EegConfig(n_times=50, sfreq=100.0, subjects=["sub-01"], **settings))
    raw = Preparation(unit="V", bands=[[0.0, 50.0]], baseline=None, reference="as recorded", projectors=[])
    return NeuralClipProcessor.from_config(config, None, {"eeg": raw})


@pytest.fixture(scope="module")
def processor():
    return made_by(n_chans=len(NAMES), ch_names=NAMES)


def rows(processor, recordings, **said):
    return processor(eeg=recordings, subject="sub-01", **{"montage": "interpolate"} | said)["eeg_values"].numpy()


class TestSplines:
    def test_eight_electrodes_give_what_the_equations_give_and_keep_their_own_values(self, processor):
        epochs = eeg(EIGHT)
        data = epochs.get_data()
        found = rows(processor, epochs)
        lacking = [name for name in NAMES if name not in EIGHT]
        for name in EIGHT:
            np.testing.assert_array_equal(found[:, NAMES.index(name)], data[:, EIGHT.index(name)].astype(np.float32))
        expected = splines(places(EIGHT), places(lacking)) @ data
        np.testing.assert_allclose(found[:, [NAMES.index(name) for name in lacking]], expected, rtol=1e-4, atol=1e-10)
        made = processor.interpolation("eeg", epochs)
        assert made.interpolated == tuple(lacking) and made.sources == tuple(EIGHT) and made.weights.shape == (18, 8)
        assert made is processor.interpolation("eeg", epochs)  # computed once
        assert "10 of the model's 18 EEG channels (F7, F3" in made.said and "from 8 recorded ones" in made.said
        assert made.as_dict()["n_interpolated"] == 10 and made.as_dict()["places"] == {"of standard_1005": 18}

    def test_bad_channels_are_those_of_mne(self, processor):
        epochs = eeg(placed=True)
        epochs.info["bads"] = ["Cz", "O2"]
        found = rows(processor, epochs)
        by_mne = epochs.copy().interpolate_bads(origin=CENTRE, verbose="error").get_data()
        np.testing.assert_allclose(found, by_mne, rtol=1e-5, atol=1e-12)
        made = processor.interpolation("eeg", epochs)
        assert made.interpolated == ("Cz", "O2") and len(made.sources) == 16 and made.left_out == ()

    def test_places_of_the_recording_go_before_those_of_the_table(self, processor):
        epochs = eeg(placed=True)
        for channel in epochs.info["chs"]:
            channel["loc"][:3] += np.random.default_rng(channel["scanno"]).normal(size=3) * 0.01
        epochs.info["bads"] = ["Cz"]
        expected = epochs.copy().interpolate_bads(origin=CENTRE, verbose="error").get_data()[:, NAMES.index("Cz")]
        found = rows(processor, epochs)[:, NAMES.index("Cz")]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-12)
        assert processor.interpolation("eeg", epochs).places == {"the recording's": 18}
        assert abs(found - rows(processor, _without_places(epochs))[:, NAMES.index("Cz")]).max() > 1e-7

    def test_more_channels_another_order_and_other_spellings_keep_all_values(self, processor):
        written = ["FPZ", *[name.upper() for name in NAMES[::-1]], "nose"]
        written[written.index("T7")] = "T3"  # of 1958
        epochs = eeg(written)
        with pytest.raises(ValueError, match=r"lack 6 of the model's 18 channels.*'montage'"):
            rows(processor, epochs, montage=None)
        np.testing.assert_array_equal(rows(processor, epochs), epochs.get_data()[:, 18:0:-1].astype(np.float32))
        made = processor.interpolation("eeg", epochs)
        assert made.interpolated == () and made.left_out == ("FPZ", "nose")
        assert "No channel was interpolated" in made.said and "not used: FPZ, nose" in made.said

    def test_names_of_1958_keep_their_values_where_the_recording_has_places(self, processor):
        written = ["T3" if name == "T7" else name for name in NAMES]
        epochs = eeg(written, placed=True)
        np.testing.assert_array_equal(rows(processor, epochs), epochs.get_data().astype(np.float32))
        assert processor.interpolation("eeg", epochs).interpolated == ()

    def test_labels_of_caps_are_no_names_of_the_10_05_system(self, processor):
        labels = [f"{letter}{number}" for letter in "ABC" for number in range(1, 7)]
        epochs = eeg(labels)
        with pytest.raises(ValueError, match=r"Channels are called A3, A4, .* as on caps of BioSemi"):
            rows(processor, epochs)
        whole = eeg(placed=True)
        expected = splines(places(NAMES), places(NAMES)) @ whole.get_data()
        whole.rename_channels(dict(zip(NAMES, labels, strict=True)))
        np.testing.assert_allclose(rows(processor, whole), expected, rtol=1e-4, atol=1e-10)
        assert processor.interpolation("eeg", whole).interpolated == tuple(NAMES)

    def test_none_in_common_is_interpolated_whole(self, processor):
        others = ["AF3", "AF4", "FC5", "FC6", "CP1", "CP2", "PO3", "PO4"]
        epochs = eeg(others)
        expected = splines(places(others), places(NAMES)) @ epochs.get_data()
        np.testing.assert_allclose(rows(processor, epochs), expected, rtol=1e-4, atol=1e-10)

    def test_arrays_are_told_by_their_names(self, processor):
        epochs = eeg(EIGHT)
        expected = rows(processor, epochs)
        values = epochs.get_data()
        told = {"ch_names": EIGHT, "unit": "uV"}
        np.testing.assert_allclose(rows(processor, values * 1e6, **told), expected, rtol=1e-5)
        np.testing.assert_allclose(rows(processor, values, ch_names=EIGHT), expected, rtol=1e-4)  # as prepared
        np.testing.assert_allclose(rows(processor, values[0], ch_names=EIGHT), expected[:1], rtol=1e-4)
        turned = rows(processor, values[:, ::-1] * 1e6, ch_names=EIGHT[::-1], unit="uV")
        np.testing.assert_allclose(turned, expected, rtol=1e-4)

    def test_names_of_no_table_go_by_the_places_of_the_checkpoint(self, tmp_path):
        names = [f"A{number}" for number in range(1, 19)]
        cap = (places(NAMES) + CENTRE).tolist()
        made_by(n_chans=18, ch_names=names, ch_positions=cap).save_pretrained(tmp_path)
        processor = NeuralClipProcessor.from_pretrained(tmp_path)
        epochs = eeg(EIGHT)
        expected = splines(places(EIGHT), places(NAMES)) @ epochs.get_data()
        np.testing.assert_allclose(rows(processor, epochs), expected, rtol=1e-4, atol=1e-10)
        assert processor.interpolation("eeg", epochs).places == {"of standard_1005": 8, "the checkpoint's": 18}

    @pytest.mark.parametrize(
        ("names", "said", "message"),
        [
            (EIGHT, {"montage": None}, r"lack 10 of the model's 18 channels: \['F7'.* by 'montage' \(interpolate\)"),
            (EIGHT, {"montage": "nearest"}, "Invalid value for the 'montage' parameter. Allowed values are None and"),
            (EIGHT[:3], {}, "needs 4 good channels with a known place, but the recording has 3"),
            (["EEG 001", "EEG 002", "EEG 003", "EEG 004"], {}, "the recording has 0; its EEG channels are EEG 001"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_done_is_told(self, processor, names, said, message):
        with pytest.raises(ValueError, match=message):
            rows(processor, eeg(names), **said)

    def test_an_array_needs_names_and_as_many_channels(self, processor):
        with pytest.raises(ValueError, match="give their names by 'ch_names'"):
            rows(processor, np.zeros((2, 8, 50)))
        with pytest.raises(ValueError, match="'ch_names' names Fp1 more than once"):
            rows(processor, np.zeros((2, 9, 50)), ch_names=["Fp1", *EIGHT])
        with pytest.raises(ValueError, match=r"'ch_names' names 8 channels, but got \(2, 9, 50\)"):
            rows(processor, np.zeros((2, 9, 50)), ch_names=EIGHT)

    def test_models_that_do_not_say_where_their_channels_are(self):
        named = made_by(n_chans=4, ch_names=list("ABCD"))
        with pytest.raises(ValueError, match="nobody knows where they are: A, B, C, D"):
            rows(named, eeg(EIGHT))
        with pytest.raises(ValueError, match="does not say what the model's are called"):
            rows(made_by(n_chans=4), eeg(EIGHT))

    def test_damaged_places_are_told(self, processor):
        (group,) = processor.recordings["eeg"]
        for wrong in ("x", [[0.0, 0.0]] * 18, [[0.0, 0.0, "0"]] * 18, [[0.0, 0.0, 0.1]] * 3):
            own = NeuralClipProcessor({"eeg": group | {"ch_positions": wrong}})
            with pytest.raises(ValueError, match=r"'processor_config\.json' of the checkpoint is damaged"):
                rows(own, eeg(EIGHT))


def _without_places(epochs):
    copied = epochs.copy()
    for channel in copied.info["chs"]:
        channel["loc"][:] = np.nan
    return copied


def meg(every=12, seed=0):
    """Some sensors of a CTF helmet of 275."""
    info = mne.channels.read_meg_canonical_info("ctf275")
    info = mne.pick_info(info, np.arange(0, len(info["ch_names"]), every))
    for channel in info["chs"]:
        channel["ch_name"] = channel["ch_name"].replace("-2908", "-1609")
    info._update_redundant()
    info._check_consistency()
    info["dev_head_t"] = mne.transforms.Transform("meg", "head", SHIFT)
    data = np.random.default_rng(seed).standard_normal((2, len(info["ch_names"]), 50)) * 1e-13
    return mne.EpochsArray(data, info, tmin=0.0, verbose="error")


@pytest.mark.skipif(
    not hasattr(mne.channels, "read_meg_canonical_info"), reason="mne knows these sensors from 1.12 on"
)
class TestFieldMapping:
    @pytest.fixture(scope="class")
    def processor(self):
        names = meg().ch_names
        config = MegConfig(n_chans=len(names), n_times=50, sfreq=1000.0, tmin=0.0, ch_names=names, subjects=["sub-01"])
        raw = Preparation(unit="T", bands=[[0.0, 500.0]], baseline=None, spatial_filters=[])
        config = NeuralClipConfig(meg_config=config, fmri_config=FmriConfig(subjects=["a"], n_voxels={"a": 2}))
        return NeuralClipProcessor.from_config(config, None, {"meg": raw})

    def rows(self, processor, recordings, **said):
        said = {"subject": "sub-01", "montage": "interpolate", "unit": "prepared"} | said
        return processor(meg=recordings, **said)["meg_values"].numpy()

    def test_bad_and_lacking_sensors_are_those_of_mne(self, processor):
        epochs = meg()
        bads = epochs.ch_names[4:6]
        epochs.info["bads"] = bads
        expected = epochs.copy().interpolate_bads(origin=CENTRE, verbose="error").get_data()
        found = self.rows(processor, epochs)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-18)
        lacking = self.rows(processor, epochs.copy().drop_channels(bads))  # by mne's table of CTF systems
        np.testing.assert_allclose(lacking, expected, rtol=1e-4, atol=1e-18)
        made = processor.interpolation("meg", epochs)
        assert made.interpolated == tuple(bads) and made.as_dict()["method"] == "field mapping"
        with pytest.raises(ValueError, match=r"marked bad.*'montage'"):
            self.rows(processor, epochs, montage=None)

    def test_what_is_not_known_of_coils_is_told(self, processor):
        epochs = meg()
        fewer = epochs.copy().drop_channels(epochs.ch_names[:1])
        with pytest.raises(ValueError, match=r"Field mapping needs the coils .* Give the recording itself"):
            self.rows(processor, fewer.get_data(), ch_names=fewer.ch_names)
        fewer.info["dev_head_t"] = None
        with pytest.raises(ValueError, match=r"info\['dev_head_t'\] is missing"):
            self.rows(processor, fewer)
        fewer.info["dev_head_t"] = mne.transforms.Transform("meg", "head", np.eye(4))
        with pytest.raises(ValueError, match="is not inside the helmet"):
            self.rows(processor, fewer)
        own = Montage.of_info(epochs.info, "meg")
        with pytest.raises(ValueError, match="their coils are not known: MEG 9999"):
            interpolation(own, (*epochs.ch_names, "MEG 9999"))

    def test_other_modalities_have_no_montage(self, processor):
        with pytest.raises(ValueError, match="'montage' is for EEG and MEG channels, but these are 'fmri'"):
            processor(fmri=np.zeros((1, 2)), subject="a", montage="interpolate")


def test_weights_apply_to_any_leading_axes():
    made = interpolation(Montage.of_names(EIGHT, "eeg"), tuple(NAMES))
    assert isinstance(made, Interpolation) and not made.weights.flags.writeable
    values = np.random.default_rng(1).normal(size=(2, 3, 8, 5)).astype(np.float32)
    assert made.applied(values).dtype == np.float32 and made.applied(values).shape == (2, 3, 18, 5)
    np.testing.assert_allclose(made.weights.sum(axis=1), 1.0, atol=1e-9)  # a constant potential stays one
