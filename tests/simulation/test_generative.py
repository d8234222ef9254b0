"""The generative model: determinism, dials, spectra, latents."""

import hashlib
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from neural_clip.errors import DataError
from neural_clip.simulation import calibration, generative, latent_space, sensor_layout, sensor_noise
from neural_clip.simulation.generative import SensorModel, simulated_stamp
from neural_clip.simulation.presets import DEMO_SIZED, N_LATENTS, Dials, get_preset
from neural_clip.simulation.voxel_model import VoxelModel
from neural_clip.targets.tiny_clip import TINY_CLIP_DIR
from tolerances import assert_same_outputs

TINY = get_preset("tiny")
pytestmark = [pytest.mark.numerical, pytest.mark.filterwarnings("ignore:calibration.json has no")]


def sensors(modality, noise_scale=None, seed=3, **dials):
    part = getattr(TINY, modality)
    return SensorModel(replace(part, dials=replace(part.dials, **dials)), seed, noise_scale)


def voxels(noise_scale=None, seed=3, **dials):
    return VoxelModel(replace(TINY.fmri, dials=replace(TINY.fmri.dials, **dials)), seed, noise_scale)


def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(x).tobytes() for x in arrays)).hexdigest()


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_sensor_recordings_are_a_function_of_the_seeds(modality):
    z = np.random.default_rng(0).standard_normal((5, N_LATENTS))

    def record(model_seed, trial_seed):
        model, rng = sensors(modality, seed=model_seed), np.random.default_rng(trial_seed)
        return digest(model.signal(1, z, rng)[0], model.noise(1, 700, rng))

    assert record(3, 0) == record(3, 0)
    assert len({record(3, 0), record(4, 0), record(3, 1)}) == 3


def test_voxel_recordings_are_a_function_of_the_seeds():
    z = np.random.default_rng(0).standard_normal((5, N_LATENTS))

    def record(model_seed, trial_seed):
        model, rng = voxels(seed=model_seed), np.random.default_rng(trial_seed)
        return digest(model.mask(1), model.signal(1, z, rng)[0], model.noise(1, 7, rng))

    assert record(3, 0) == record(3, 0)
    assert len({record(3, 0), record(4, 0), record(3, 1)}) == 3


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_shapes_types_and_physical_size(modality):
    model, rng = sensors(modality), np.random.default_rng(0)
    signal, trials = model.signal(0, np.zeros((3, N_LATENTS)), rng, tmin=-0.1, n_times=400)
    noise = model.noise(0, 20000, rng)
    assert signal.shape == (3, 16, 400) and noise.shape == (16, 20000)
    assert signal.dtype == noise.dtype == np.float32
    assert trials["latency_s"].shape == trials["gain"].shape == (3,)
    low, high = {"eeg": (3.0, 30.0), "meg": (1e-13, 2e-12)}[modality]  # uV and T
    sound = noise[[name != sensor_layout.BROKEN_SENSOR for name in model.ch_names]]
    assert low < sound.std() < high
    onset = round(0.1 * model.preset.sfreq)
    assert np.abs(signal[:, :, : onset - 5]).max() == 0  # nothing before the image
    assert np.abs(signal).max() > 0


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_evoked_responses_survive_averaging_and_are_linear_in_the_latents(modality):
    model = sensors(modality, induced=0, latency_jitter_s=0, gain_jitter=0)
    z = np.random.default_rng(1).standard_normal((3, N_LATENTS))
    rng = np.random.default_rng(0)
    rest, first, second, both = model.signal(0, np.stack([0 * z[0], z[0], z[1], z[0] + z[1]]), rng)[0]
    np.testing.assert_allclose(first + second - rest, both, atol=1e-4 * np.abs(both).max())
    trials = model.signal(0, np.repeat(z[:1], 20, 0), rng)[0]
    np.testing.assert_allclose(trials.mean(0), first, atol=1e-5 * np.abs(first).max())


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_induced_responses_average_out_but_their_power_follows_the_image(modality):
    model = sensors(modality, evoked=0, latency_jitter_s=0, gain_jitter=0)
    rng = np.random.default_rng(0)
    n = 400
    direction = model._directions[0]
    weak, strong = (model.signal(0, np.repeat(s * direction[None], n, 0), rng)[0] for s in (-2.0, 2.0))
    for trials in (weak, strong):
        power, mean_power = (trials**2).mean(), (trials.mean(0) ** 2).mean()
        assert mean_power < 3 * power / n  # chance leaves 1 / n
    assert (strong**2).mean() > 1.2 * (weak**2).mean()


def test_latency_and_gain_dials():
    z = np.ones((200, N_LATENTS))
    still = sensors("eeg", induced=0, latency_jitter_s=0, gain_jitter=0).signal(0, z, np.random.default_rng(0))[0]
    assert_same_outputs(still, np.broadcast_to(still[0], still.shape))  # one response in every trial
    model = sensors("eeg", induced=0, latency_jitter_s=0.01, gain_jitter=0)
    moved, trials = model.signal(0, z, np.random.default_rng(0))
    assert 0.008 < trials["latency_s"].std() < 0.012
    lag = int(trials["latency_s"].argmax())
    shift = round(trials["latency_s"][lag] * 1000)
    assert shift > 0
    np.testing.assert_allclose(moved[lag][:, shift:], still[0][:, :-shift], atol=1e-4)  # later by that many samples
    model = sensors("eeg", induced=0, latency_jitter_s=0, gain_jitter=0.3)
    sizes = np.linalg.norm(model.signal(0, z, np.random.default_rng(0))[0], axis=(1, 2)) / np.linalg.norm(still[0])
    assert 0.25 < np.log(sizes).std() < 0.35


@pytest.mark.parametrize(("deviation", "alike"), [(0.0, 1.0), (1.0, 0.0), (0.6, 0.64)])
def test_subject_deviation_is_the_share_of_own_maps(deviation, alike):
    maps = [sensors("eeg", subject_deviation=deviation).maps(s).ravel() for s in (0, 1)]
    assert abs(np.corrcoef(*maps)[0, 1] - alike) < 0.1
    tuning = [voxels(subject_deviation=deviation)._tuning(0)["first"] for _ in range(2)]
    assert np.array_equal(*tuning)


def test_noise_spectrum_falls_as_one_over_f_above_1_hz_and_has_the_stated_density():
    model = sensors("eeg", noise_scale=1.0, nonstationarity=0, artefact_rate=0)
    sfreq, n = 500.0, 2**17
    noise = model.noise(0, n, np.random.default_rng(0), sfreq=sfreq) / model.scale
    frequencies = np.fft.rfftfreq(n, 1 / sfreq)
    density = (np.abs(np.fft.rfft(noise)) ** 2).mean(0) * 2 / (sfreq * n)
    own = (model.noise_maps(0).astype(float) ** 2).sum(1).mean()
    for low, high in ((2, 4), (20, 30), (60, 100)):
        band = (frequencies > low) & (frequencies < high)
        stated = own * sensor_noise.source_density("eeg", frequencies[band]) + sensor_noise.white_density("eeg")
        assert abs(density[band].mean() / stated.mean() - 1) < 0.1
    smooth = density - sensor_noise.white_density("eeg")
    bands = [(3, 6), (25, 45), (60, 100)]  # the resting rhythm lies between the first two
    centres = [np.sqrt(low * high) for low, high in bands]
    powers = [smooth[(frequencies > low) & (frequencies < high)].mean() for low, high in bands]
    slope = np.polyfit(np.log(centres), np.log(powers), 1)[0]
    assert -1.25 < slope < -0.75


def test_noise_has_the_same_density_at_any_sampling_rate():
    model = sensors("meg", noise_scale=1.0, nonstationarity=0, artefact_rate=0)
    sound = [i for i, name in enumerate(model.ch_names) if name != sensor_layout.BROKEN_SENSOR]
    powers = []
    for sfreq in (300.0, 1200.0):
        noise = model.noise(0, int(200 * sfreq), np.random.default_rng(0), sfreq=sfreq)[sound] / model.scale
        spectrum = (np.abs(np.fft.rfft(noise)) ** 2).mean(0) * 2 / (sfreq * noise.shape[1])
        frequencies = np.fft.rfftfreq(noise.shape[1], 1 / sfreq)
        powers.append(spectrum[(frequencies > 2) & (frequencies < 40)].mean())
    assert abs(powers[0] / powers[1] - 1) < 0.05


def test_noise_is_spatially_smooth():
    model = sensors("eeg", nonstationarity=0, artefact_rate=0)
    noise = model.noise(0, 20000, np.random.default_rng(0))
    correlation = np.corrcoef(noise)
    distance = np.linalg.norm(model.positions[:, None] - model.positions[None], axis=-1)
    near, far = (distance > 0) & (distance < 0.06), distance > 0.12
    assert near.any() and correlation[near].mean() > np.abs(correlation[far]).mean() + 0.1


def test_nonstationarity_dial_moves_the_noise_amplitude():
    def spread(dial):
        model = sensors("eeg", nonstationarity=dial, artefact_rate=0)
        noise = model.noise(0, 400_000, np.random.default_rng(0))
        return np.log(noise.reshape(16, 200, 2000).std((0, 2))).std()

    assert spread(0.0) < 0.08 < 0.3 < spread(0.5)


def test_artefact_dial_adds_frontal_blinks_and_jumps():
    quiet, loud = (
        sensors("eeg", artefact_rate=rate, nonstationarity=0).noise(0, 120_000, np.random.default_rng(0))
        for rate in (0.0, 30.0)
    )
    difference = loud - quiet  # the stationary part is drawn first
    assert np.abs(difference).max() > 5 * quiet.std()
    names = sensors("eeg").ch_names
    front, back = (np.abs(difference[names.index(name)]).mean() for name in ("Fp1", "C4"))
    assert front > 2 * back


def test_block_drift_is_off_by_default_and_shared_within_a_block():
    rng = np.random.default_rng(0)
    assert not sensors("eeg").block_drift(0, 4, 10, rng).any()
    drift = sensors("eeg", block_drift=1.0).block_drift(0, 50, 10, rng)
    assert np.ptp(drift, axis=2).max() == 0  # constant within a trial
    assert (drift.mean(0) ** 2).mean() > 2 * drift.var(0).mean()


def test_no_noise_at_scale_zero_and_signal_does_not_depend_on_it():
    model = sensors("eeg", noise_scale=0.0)
    assert not model.noise(0, 500, np.random.default_rng(0)).any()
    z = np.ones((2, N_LATENTS))
    pair = [sensors("eeg", noise_scale=s).signal(0, z, np.random.default_rng(0))[0] for s in (0.0, None)]
    assert_same_outputs(*pair)


def test_broken_meg_sensor_is_there_and_loud():
    model = sensors("meg")
    noise = model.noise(0, 5000, np.random.default_rng(0)).std(1)
    broken = model.ch_names.index("MRO11-1609")
    assert noise[broken] > 5 * np.delete(noise, broken).max()


def test_layouts():
    names, positions = sensor_layout.eeg_layout(128)
    assert len(set(names)) == 128 and names[:3] == ["Fp1", "Fp2", "F7"]
    assert positions[names.index("Oz")][1] < 0 < positions[names.index("Fp1")][1]  # y points forward
    assert positions[names.index("T7")][0] < 0 < positions[names.index("T8")][0]  # x points right
    names, positions = sensor_layout.meg_layout(272)
    assert len(set(names)) == 272 and "MRO11-1609" in names
    np.testing.assert_allclose(np.linalg.norm(positions, axis=1), 0.12)
    assert positions[names.index("MLT14-1609")][0] < 0 < positions[names.index("MRT14-1609")][0]
    assert positions[names.index("MZO01-1609")][1] < 0 < positions[names.index("MZF01-1609")][1]
    for layout in (sensor_layout.eeg_layout, sensor_layout.meg_layout):
        with pytest.raises(DataError, match="'n_chans'"):
            layout(1000)


def test_masks_hold_the_stated_number_of_voxels():
    model = VoxelModel(get_preset("demo").fmri, 0)
    for subject, n_voxels in enumerate(model.n_voxels):
        mask = model.mask(subject)
        assert mask.shape == model.preset.grid_shapes[subject] and mask.sum() == n_voxels
        assert np.argwhere(mask)[:, 1].mean() < 0.5 * mask.shape[1]  # posterior


def test_voxel_kinds_answer_as_they_should():
    z = np.random.default_rng(0).standard_normal((400, N_LATENTS))
    linear = voxels(voxel_saturation=0, voxel_energy=0)
    np.testing.assert_allclose(linear.response(0, z) + linear.response(0, -z), 0, atol=1e-9)
    np.testing.assert_allclose(linear.response(0, 3 * z), 3 * linear.response(0, z), atol=1e-9)
    saturating = voxels(voxel_saturation=1, voxel_energy=0).response(0, z)
    limit = voxels(voxel_saturation=1, voxel_energy=0).response(0, 100 * z)
    assert np.abs(limit).max(0).mean() < 2 * np.abs(saturating).mean(0).mean()
    energy = voxels(voxel_saturation=0, voxel_energy=1)
    np.testing.assert_allclose(energy.response(0, z), energy.response(0, -z), atol=1e-9)  # blind to the sign
    for model in (linear, energy, voxels(voxel_saturation=1, voxel_energy=0)):
        standardised = model.response(0, z) / model._tuning(0)["strength"]
        assert 0.7 < standardised.std(0).mean() < 1.3


def test_voxel_noise_has_the_covariance_that_whitening_inverts():
    model = voxels(noise_scale=1.0, nonstationarity=0)
    maps = model.noise_maps(0)
    covariance = 0.4 * maps @ maps.T + 0.6 * np.eye(len(maps))
    patterns = np.random.default_rng(0).standard_normal((3, len(maps)))
    np.testing.assert_allclose(model.whiten(0, patterns), patterns @ np.linalg.inv(covariance), atol=1e-8)
    rng = np.random.default_rng(0)
    noise = np.concatenate([model.noise(0, 2, rng) for _ in range(4000)]) / model.scale
    differences = noise[1::2] - noise[::2]  # free of the offset; the drift of a two-trial session is 2 slopes
    measured = np.cov(differences.T)
    expected = 2 * covariance + 4 * 0.4**2 * np.eye(len(maps))
    assert np.abs(measured - expected).max() < 0.25
    assert np.corrcoef(measured.ravel(), expected.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("bad", [np.zeros((2, 3)), np.zeros(N_LATENTS), np.full((1, N_LATENTS), np.nan)])
def test_bad_latents_raise(bad):
    with pytest.raises(DataError, match="'latents'"):
        sensors("eeg").signal(0, bad, np.random.default_rng(0))
    with pytest.raises(DataError, match="'latents'"):
        voxels().signal(0, bad, np.random.default_rng(0))


def test_unknown_subjects_and_modalities_raise():
    with pytest.raises(DataError, match="'subject'"):
        sensors("eeg").maps(2)
    with pytest.raises(DataError, match="'subject'"):
        voxels().mask(-1)
    with pytest.raises(DataError, match="'modality'"):
        calibration.noise_scale("ecog")


def test_principal_components_are_orthonormal_scores_have_unit_variance():
    rng = np.random.default_rng(0)
    embeds = rng.standard_normal((3000, 64)) @ rng.standard_normal((64, 64))
    basis = latent_space.basis_from_embeds(embeds)
    np.testing.assert_allclose(basis["components"] @ basis["components"].T, np.eye(N_LATENTS), atol=1e-9)
    scores = (embeds - basis["mean"]) @ basis["components"].T / basis["scale"]
    np.testing.assert_allclose(np.cov(scores.T), np.eye(N_LATENTS), atol=1e-8)
    assert (np.diff(basis["scale"]) <= 0).all()
    singular = np.linalg.svd(embeds - embeds.mean(0), compute_uv=False)[:N_LATENTS] / np.sqrt(2999)
    np.testing.assert_allclose(basis["scale"], singular)


@pytest.fixture(scope="module")
def tiny_clip():
    if not (TINY_CLIP_DIR / "model.safetensors").is_file():
        pytest.skip("the tiny CLIP is not there; make it with scripts/train_tiny_clip.py")
    return latent_space.tiny_clip_sha256()


def test_stored_basis_and_calibration_were_made_with_the_shipped_tiny_clip(tiny_clip):
    with np.load(latent_space.BASIS_FILE, allow_pickle=False) as stored:
        made_with = {str(stored["tiny_clip_sha256"])}
    stored = json.loads(calibration.CALIBRATION_FILE.read_text())
    assert set(stored) == set(DEMO_SIZED)
    assert all(set(of_preset) == {"eeg", "meg", "fmri"} for of_preset in stored.values())
    entries = [(name, entry) for name, of_preset in stored.items() for entry in of_preset.values()]
    made_with |= {entry["tiny_clip_sha256"] for _, entry in entries}
    if made_with != {tiny_clip}:
        warnings.warn("The tiny CLIP has changed: run scripts/calibrate_twins.py.", stacklevel=1)
    for name, entry in entries:
        assert entry["noise_scale"] > 0 and entry["preset"] == name
        assert abs(entry["ridge_two_way"] - entry["target"]) <= entry["tolerance"]


def test_latents_of_new_renderings_have_about_unit_variance(tiny_clip):
    from neural_clip.simulation.images import render, sample_specs

    specs = sample_specs(250, np.random.default_rng(9))
    embeds = latent_space.image_embeds([render(spec) for spec in specs])
    assert embeds.shape == (250, 64) and embeds.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeds, axis=1), 1, atol=1e-5)
    z = latent_space.latents(embeds)
    assert z.shape == (250, N_LATENTS) and 0.8 < z.std() < 1.2 and abs(z.mean()) < 0.1
    with pytest.raises(DataError, match="'embeds'"):
        latent_space.latents(embeds[:, :10])


def test_missing_tiny_clip_is_named(tmp_path):
    with pytest.raises(DataError, match=r"model\.safetensors"):
        latent_space.tiny_clip_sha256(tmp_path)


def test_stamp_says_simulated_and_is_json(monkeypatch):
    monkeypatch.setattr(generative, "tiny_clip_sha256", lambda: "0" * 64)
    stamp = json.loads(json.dumps(simulated_stamp(TINY, "meg", 4, {"two_way": 0.9}, n_files=3)))
    assert stamp["simulated"] is True and "SIMULATED" in stamp["note"]
    assert (stamp["preset"], stamp["seed"], stamp["n_files"]) == ("tiny", 4, 3)
    assert stamp["dials"]["subject_deviation"] == Dials().subject_deviation
    assert stamp["sizes"]["n_chans"] == TINY.meg.n_chans
    assert stamp["calibration"]["noise_scale"] == calibration.noise_scale("meg")
    assert "noise_of" not in stamp["sizes"]  # told by the calibration


@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
def test_each_preset_has_the_noise_that_was_calibrated_for_it(modality):
    scales = {}
    for name in DEMO_SIZED:
        part = getattr(get_preset(name), modality)
        model = (VoxelModel if modality == "fmri" else SensorModel)(part, 0)
        scales[name] = model.noise_scale
        assert model.noise_scale == json.loads(calibration.CALIBRATION_FILE.read_text())[name][modality]["noise_scale"]
        assert model.scale * model.noise_scale == pytest.approx(calibration.NOISE_RMS[modality])
        stamp = simulated_stamp(get_preset(name), modality, 0, {})
        assert (stamp["calibration"]["preset"], stamp["calibration"]["noise_scale"]) == (name, model.noise_scale)
    assert len(set(scales.values())) == 3
    tiny = getattr(get_preset("tiny"), modality)
    assert (VoxelModel if modality == "fmri" else SensorModel)(tiny, 0).noise_scale == scales["demo"]


def test_noise_of_an_uncalibrated_preset_warns():
    with pytest.warns(UserWarning, match="no 'eeg' of 'other'"):
        assert calibration.noise_scale("eeg", "other") > 0
