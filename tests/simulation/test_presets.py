"""Sizes and dials of the simulated twins."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfiltfilt

from neural_clip.errors import DataError
from neural_clip.simulation.generative import SensorModel
from neural_clip.simulation.presets import DEMO_SIZED, N_LATENTS, PRESETS, Dials, EegPreset, FmriPreset, get_preset
from neural_clip.simulation.sensor_layout import BROKEN_SENSOR
from neural_clip.simulation.voxel_model import VoxelModel
from paths import REPOSITORY
from tolerances import assert_same_outputs

pytestmark = pytest.mark.numerical

DOCUMENT = REPOSITORY / "docs" / "twins.md"
MODALITIES = ("eeg", "meg", "fmri")
# Dials that a modality's recordings do not depend on; the document shows them as a dash.
UNREAD = {
    "eeg": {"voxel_saturation", "voxel_energy", "tuning_dimension"},
    "meg": {"voxel_saturation", "voxel_energy", "tuning_dimension", "block_drift"},
    "fmri": {"evoked", "induced", "latency_jitter_s", "artefact_rate", "block_drift"},
}
OFF = {"block_drift", "tuning_dimension"}  # in all presets


def model_of(name, modality, noise_scale=None, seed=3, **dials):
    """The generator with a preset's dials at the size of `tiny`."""
    part = getattr(get_preset("tiny"), modality)
    own = getattr(get_preset(name), modality)
    part = dataclasses.replace(part, dials=dataclasses.replace(own.dials, **dials), noise_of=own.noise_of)
    return (VoxelModel if modality == "fmri" else SensorModel)(part, seed, noise_scale)


def documented_tables():
    """Tables of docs/twins.md as lists of rows, each a dict from column to cell."""
    tables, lines = [], []
    for line in [*DOCUMENT.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            lines.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
        elif lines:
            tables.append([dict(zip(lines[0], row, strict=True)) for row in lines[2:]])
            lines = []
    return tables


def test_full_preset_has_the_counts_of_the_real_corpora():
    full = get_preset("full")
    assert (full.eeg.n_images, full.eeg.n_trials, full.eeg.n_chans) == (1996, 11965, 128)
    meg = full.meg
    assert (meg.n_exp_images, meg.n_test_images * meg.n_sessions) == (22248, 2400)
    assert meg.n_catch_per_session * meg.n_sessions == 2400
    assert (meg.n_concepts + meg.n_test_images + meg.n_catch_per_session) * meg.n_sessions == 27048
    assert (meg.n_chans, meg.n_runs, meg.sfreq) == (272, 10, 1200.0)
    fmri = full.fmri
    assert (fmri.n_images, fmri.n_trials, fmri.subjects) == (10000, 30000, (1, 2, 5, 7))
    assert fmri.n_trials == fmri.max_repeats * fmri.n_images


@pytest.mark.parametrize("name", PRESETS)
def test_masks_fit_into_volumes_and_every_image_fits_into_the_trials(name):
    fmri = get_preset(name).fmri
    for shape, n_voxels in zip(fmri.grid_shapes, fmri.n_voxels, strict=True):
        assert n_voxels < 0.5 * shape[0] * shape[1] * shape[2]
    assert fmri.n_images <= fmri.n_trials <= fmri.max_repeats * fmri.n_images


def test_demo_counts_are_those_of_the_documentation():
    demo = get_preset("demo")
    assert (demo.eeg.n_subjects, demo.eeg.n_images, demo.eeg.n_chans) == (6, 400, 32)
    assert (demo.meg.n_subjects, demo.meg.n_exp_images, demo.meg.n_test_images, demo.meg.n_chans) == (4, 480, 60, 64)
    assert demo.fmri.n_subjects == 4 and min(demo.fmri.n_voxels) >= 800 and max(demo.fmri.n_voxels) <= 1500


def test_unknown_preset_is_named():
    with pytest.raises(DataError, match="'full', 'realistic' and 'linear', but got 'huge'"):
        get_preset("huge")


@pytest.mark.parametrize(
    "dials",
    [{"gain_jitter": -0.1}, {"subject_deviation": 1.5}, {"evoked": float("nan")}, {"voxel_energy": 0.8}],
)
def test_impossible_dials_raise(dials):
    with pytest.raises(DataError, match="|".join(f"'{name}'" for name in dials)):
        Dials(**dials)


def test_impossible_fmri_sizes_raise():
    with pytest.raises(DataError, match="lengths must be equal"):
        FmriPreset(n_voxels=(10, 20))
    with pytest.raises(DataError, match="at most 30000 trials"):
        dataclasses.replace(get_preset("full").fmri, n_sessions=41)


def test_presets_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EegPreset().n_chans = 3


@pytest.mark.parametrize("name", DEMO_SIZED)
def test_presets_of_the_demos_size_differ_from_it_in_dials_and_noise_alone(name):
    for modality in MODALITIES:
        part, demo = getattr(get_preset(name), modality), getattr(get_preset("demo"), modality)
        assert dataclasses.replace(part, dials=demo.dials, noise_of="demo") == demo
        assert part.noise_of == name


def test_dials_are_those_of_the_document():
    (table,) = [rows for rows in documented_tables() if "realistic MEG" in rows[0]]
    assert [row["dial"] for row in table] == [field.name for field in dataclasses.fields(Dials)]
    assert set(table[0]) == {"dial", *(f"{name} {m}" for name in DEMO_SIZED for m in ("EEG", "MEG", "fMRI"))}
    for row in table:
        for name in DEMO_SIZED:
            for modality, column in zip(MODALITIES, ("EEG", "MEG", "fMRI"), strict=True):
                cell, value = row[f"{name} {column}"], getattr(getattr(get_preset(name), modality).dials, row["dial"])
                assert (cell == "-") == (row["dial"] in UNREAD[modality])
                assert cell == "-" or float(cell) == value


def test_every_dial_of_the_realistic_twin_has_a_source_and_a_certainty():
    (table,) = [rows for rows in documented_tables() if "certainty" in rows[0]]
    assert {row["dial"] for row in table} == {field.name for field in dataclasses.fields(Dials)}
    assert all(row["source"] and row["certainty"] for row in table)


@pytest.mark.parametrize("modality", MODALITIES)
def test_documented_calibration_and_noise_agree_with_the_stored_ones(modality):
    from neural_clip.simulation.calibration import calibration

    (table,) = [rows for rows in documented_tables() if "noise scale" in rows[0]]
    rows = [row for row in table if row["modality"].lower() == modality]
    assert sorted(row["preset"] for row in rows) == sorted(DEMO_SIZED)
    for row in rows:
        stored = calibration()[row["preset"]][modality]
        assert float(row["noise scale"]) == stored["noise_scale"]
        assert float(row["ridge 2-way"]) == pytest.approx(stored["ridge_two_way"], abs=5e-4)


@pytest.mark.parametrize("modality", MODALITIES)
def test_dials_shown_as_a_dash_change_nothing(modality):
    z = np.random.default_rng(0).standard_normal((3, N_LATENTS))

    def record(**dials):
        model, rng = model_of("realistic", modality, **dials), np.random.default_rng(1)
        return model.signal(0, z, rng)[0], model.noise(0, 3000, rng)

    usual = record()
    for name in UNREAD[modality] - {"block_drift"}:  # added by a corpus writer, see below
        for before, after in zip(usual, record(**{name: 1 if name == "tuning_dimension" else 0.1}), strict=True):
            assert_same_outputs(after, before)


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_phenomenon_of_the_realistic_twin_is_on_and_shows(modality):
    z = np.random.default_rng(0).standard_normal((6, N_LATENTS))
    dials = getattr(get_preset("realistic"), modality).dials
    assert dials.block_drift == dials.tuning_dimension == 0

    def record(**changed):
        model, rng = model_of("realistic", modality, **changed), np.random.default_rng(1)
        signal = model.signal(1, z, rng)[0]
        return signal, model.noise(1, 40_000 if modality != "fmri" else 200, np.random.default_rng(2))

    usual = record()
    for name in {field.name for field in dataclasses.fields(Dials)} - UNREAD[modality] - OFF:
        assert getattr(dials, name) > 0
        off = record(**{name: 0.0})
        changes = [
            np.abs(after - before).max() / np.abs(before).max() for before, after in zip(usual, off, strict=True)
        ]
        assert max(changes) > 1e-3, name  # far more than another order of sums


@pytest.mark.parametrize("modality", MODALITIES)
def test_only_responses_of_the_linear_twin_are_on(modality):
    dials, realistic = (getattr(get_preset(name), modality).dials for name in ("linear", "realistic"))
    on = {field.name for field in dataclasses.fields(Dials) if getattr(dials, field.name) > 0}
    assert on == {"evoked", "subject_deviation"}
    assert dials.subject_deviation == realistic.subject_deviation  # the twins differ in nothing but linearity


LINEAR = {modality: model_of("linear", modality) for modality in MODALITIES}


@settings(max_examples=15, deadline=None)
@given(
    modality=st.sampled_from(MODALITIES),
    subject=st.integers(0, 1),
    numbers=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    seed=st.integers(0, 2**32 - 1),
)
def test_trials_of_the_linear_twin_without_noise_are_affine_in_the_latents(modality, subject, numbers, seed):
    rng = np.random.default_rng(seed)
    one, two = rng.standard_normal((2, N_LATENTS))
    a, b = numbers
    z = np.stack([0 * one, one, two, a * one + b * two])
    rest, first, second, mixed = LINEAR[modality].signal(subject, z, rng)[0].astype(np.float64)
    expected = rest + a * (first - rest) + b * (second - rest)
    np.testing.assert_allclose(mixed, expected, atol=1e-4 * np.abs([rest, first, second, mixed]).max())
    again = LINEAR[modality].signal(subject, z[3:], np.random.default_rng(0))[0]  # and the same in every trial
    np.testing.assert_allclose(again[0], mixed, atol=1e-5 * np.abs(mixed).max())


@pytest.mark.parametrize("modality", MODALITIES)
def test_trials_of_the_realistic_twin_are_not_affine_in_the_latents(modality):
    z = np.random.default_rng(0).standard_normal((1, N_LATENTS))
    model = model_of("realistic", modality, gain_jitter=0.0, latency_jitter_s=0.0)
    rest, up, down = (model.signal(0, k * z, np.random.default_rng(1))[0] for k in (0, 1, -1))
    assert np.abs(up + down - 2 * rest).mean() > 0.02 * np.abs(up - down).mean()


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_induced_power_of_the_realistic_twin_is_about_a_tenth_of_the_background(modality):
    """Of the power in the band that decoders see, while the response lasts, averaged over sensors and images."""
    band, stop, sfreq = {"eeg": ((14, 70), 0.5), "meg": ((8, 36), 0.7)}[modality] + (400.0,)
    steady = {"evoked": 0.0, "artefact_rate": 0.0, "nonstationarity": 0.0}
    part = getattr(get_preset("realistic"), modality)
    model = SensorModel(dataclasses.replace(part, dials=dataclasses.replace(part.dials, **steady)), 0)
    rng = np.random.default_rng(0)
    sound = [name != BROKEN_SENSOR for name in model.ch_names]
    sos = butter(4, band, "bandpass", fs=sfreq, output="sos")
    z = rng.standard_normal((60, N_LATENTS))
    induced = sosfiltfilt(sos, model.signal(0, z, rng, tmin=-0.5, n_times=800, sfreq=sfreq)[0][:, sound])
    induced = induced[..., round(0.6 * sfreq) : round((0.5 + stop) * sfreq)]
    background = sosfiltfilt(sos, model.noise(0, 40_000, rng, sfreq=sfreq)[sound])
    share = ((induced**2).mean((0, 2)) / (background**2).mean(1)).mean()
    assert 0.07 < share < 0.15
