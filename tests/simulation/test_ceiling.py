"""The known-model ceiling: bounds every decoder, and is right where the answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from neural_clip.errors import DataError
from neural_clip.simulation import ceiling, sensor_noise
from neural_clip.simulation.generative import SensorModel
from neural_clip.simulation.presets import N_LATENTS, get_preset
from neural_clip.simulation.voxel_model import VoxelModel

TINY = get_preset("tiny")
Z = np.random.default_rng(7).standard_normal((12, N_LATENTS))
pytestmark = pytest.mark.filterwarnings("ignore:calibration.json has no")


def make(modality, noise_scale=None, **dials):
    part = getattr(TINY, modality)
    part = replace(part, dials=replace(part.dials, **dials))
    return (VoxelModel if modality == "fmri" else SensorModel)(part, 3, noise_scale)


def compute(model, z=Z, seed=0):
    return ceiling.compute(model.modality, model, model.preset, z, seed)


@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
def test_no_noise_gives_one_and_more_noise_gives_less(modality):
    scores = [compute(make(modality, scale)) for scale in (0.0, 20.0, 100.0, 1e6)]
    assert scores[0]["two_way"] == scores[0]["top1"] == scores[0]["two_way_encoding"] == 1.0
    values = [score["two_way"] for score in scores]
    assert values == sorted(values, reverse=True) and values[1] > values[2] > values[3]
    assert abs(values[3] - 0.5) < 0.01
    assert all(score["two_way_encoding"] >= score["two_way"] for score in scores)
    assert compute(make(modality, 20.0)) == scores[1]  # deterministic


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_no_signal_gives_chance(modality):
    score = compute(make(modality, evoked=0, induced=0))
    assert score["two_way"] == score["two_way_encoding"] == 0.5
    assert score["top1"] == pytest.approx(1 / 12, abs=1e-4)


def test_identical_images_give_chance():
    for modality in ("eeg", "fmri"):
        score = compute(make(modality), np.repeat(Z[:1], 4, 0))
        assert score["two_way"] == 0.5 and score["top1"] == pytest.approx(0.25, abs=1e-4)


def test_block_drift_makes_the_ceiling_invalid():
    assert compute(make("eeg"))["valid"] and compute(make("fmri"))["valid"]
    assert not compute(make("eeg", block_drift=0.5))["valid"]


def test_component_gram_equals_inverse_covariance_in_the_time_domain():
    """Dense oracle: the noise covariance over all channels and samples of one stretch, inverted outright."""
    part = replace(TINY.eeg, n_chans=3, sfreq=160.0)
    model = SensorModel(part, 3)
    gram = ceiling.component_gram(model, 0)
    n_times = round(model.response.duration * part.sfreq)
    n = ceiling._PAD * n_times
    n_fft = ceiling.fft.next_fast_len(n, real=True)
    frequencies = np.fft.rfftfreq(n_fft, 1 / part.sfreq)
    density = sensor_noise.source_density("eeg", frequencies)
    autocovariance = np.fft.irfft(density * part.sfreq / 2, n_fft)  # power spectrum per sample to lagged products
    lags = (np.arange(n_fft)[:, None] - np.arange(n_fft)[None]) % n_fft
    maps = model.noise_maps(0).astype(float)
    covariance = np.kron(maps @ maps.T, autocovariance[lags])
    covariance += np.eye(len(covariance)) * sensor_noise.white_density("eeg") * part.sfreq / 2
    courses = np.zeros((len(gram), n_fft))
    courses[:, :n_times] = model.time_courses(np.arange(n_times) / part.sfreq)
    patterns = np.einsum("cp,pt->pct", model.maps(0), courses).reshape(len(gram), -1)
    expected = patterns @ np.linalg.solve(covariance, patterns.T)
    np.testing.assert_allclose(gram, expected, atol=1e-6 * np.abs(expected).max())


def test_simulated_noise_has_the_covariance_the_observer_assumes():
    """Matched filtering of simulated noise: its variance must be what the whitened distance says."""
    part = replace(TINY.eeg, n_chans=3, sfreq=200.0)
    part = replace(part, dials=replace(part.dials, nonstationarity=0, artefact_rate=0))
    model = SensorModel(part, 3, noise_scale=1.0)
    n_times = round(model.response.duration * part.sfreq)
    n_fft = ceiling.fft.next_fast_len(ceiling._PAD * n_times, real=True)
    rng = np.random.default_rng(0)
    noise = model.noise(0, 1500 * n_fft, rng).reshape(3, 1500, n_fft).transpose(1, 0, 2) / model.scale
    course = np.zeros(n_fft)
    course[:n_times] = model.time_courses(np.arange(n_times) / part.sfreq)[0]
    pattern = np.outer(model.maps(0)[:, 0], course).ravel()
    spectrum = np.fft.rfft(pattern.reshape(3, -1))
    frequencies = np.fft.rfftfreq(n_fft, 1 / part.sfreq)
    maps = model.noise_maps(0).astype(float)
    whitened = np.empty_like(spectrum)
    for k, density in enumerate(sensor_noise.source_density("eeg", frequencies)):
        inverse = np.linalg.inv(density * maps @ maps.T + sensor_noise.white_density("eeg") * np.eye(3))
        whitened[:, k] = inverse @ spectrum[:, k] / (part.sfreq / 2)
    template = np.fft.irfft(whitened, n_fft).ravel()
    outputs = noise.reshape(len(noise), -1) @ template
    assert outputs.var() == pytest.approx(ceiling.component_gram(model, 0)[0, 0], rel=0.12)


def test_two_way_of_two_images_is_the_textbook_value():
    model = make("fmri", 8.0, gain_jitter=0, nonstationarity=0)
    response = model.response(0, Z[:2])
    difference = response[0] - response[1]
    distance = np.sqrt(difference @ model.whiten(0, difference[None])[0]) / 8.0
    assert 0.2 < distance < 6
    means = next(ceiling.whitened_means(model, 0, Z[:2], 1, np.random.default_rng(0)))
    assert np.linalg.norm(means[0] - means[1]) == pytest.approx(distance)
    scores = ceiling.observer_scores(ceiling.whitened_means(model, 0, Z[:2], 1, np.random.default_rng(0)), 2,
                                     np.random.default_rng(0))  # fmt: skip
    assert scores[0] == pytest.approx(norm.cdf(distance / 2))
    assert scores[1] == pytest.approx(norm.cdf(distance / np.sqrt(2)))


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_even_a_decoder_that_knows_the_evoked_response_stays_below(modality):
    """The best template matcher without the nuisances, on simulated trials, against the ceiling."""
    scale = {"eeg": 6.0, "fmri": 12.0}[modality]
    model = make(modality, scale, artefact_rate=0)
    rng = np.random.default_rng(0)
    n_draws, hits = 40, []
    if modality == "fmri":
        templates = model.response(0, Z) * model.scale
        filters = model.whiten(0, templates)
        for _ in range(n_draws):
            trials = model.signal(0, Z, rng)[0] + model.noise(0, len(Z), rng)
            trials -= trials.mean(0)
            hits.append(pairs_won(trials @ filters.T, filters, templates - templates.mean(0)))
    else:
        quiet = make(modality, 0.0, induced=0, gain_jitter=0, latency_jitter_s=0)
        templates = quiet.signal(0, Z, rng)[0].reshape(len(Z), -1)
        for _ in range(n_draws):
            signal = model.signal(0, Z, rng)[0]
            noise = model.noise(0, signal.shape[2] * len(Z), rng).reshape(signal.shape[1], len(Z), -1)
            trials = (signal + noise.transpose(1, 0, 2)).reshape(len(Z), -1)
            hits.append(pairs_won(trials @ templates.T, templates, templates))
    bound = ceiling.compute(modality, model, model.preset, Z, 0)["per_subject"][0]
    assert 0.55 < np.mean(hits) < bound


def pairs_won(scores, filters, templates):
    """2-way of matched filters, each candidate's score less half its energy."""
    scores = scores - (filters * templates).sum(1) / 2
    own = scores.diagonal()[:, None]
    return ((own > scores).sum() + 0.5 * (own == scores).sum() - 0.5 * len(scores)) / (len(scores) * (len(scores) - 1))


@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
@pytest.mark.parametrize("name", ["realistic", "linear"])
def test_ceilings_of_the_other_twins_are_valid(name, modality):
    part = getattr(get_preset(name), modality)
    part = replace(getattr(TINY, modality), dials=part.dials, noise_of=part.noise_of)
    score = compute((VoxelModel if modality == "fmri" else SensorModel)(part, 3))
    assert score["valid"] and score["chance"]["two_way"] == 0.5
    assert 0.6 < score["two_way"] <= score["two_way_encoding"] <= 1.0


def test_a_linear_map_that_knows_the_model_reaches_the_ceiling_of_the_linear_twin():
    """Whitened matched filters are linear, and there is nothing else to know."""
    dials = get_preset("linear").fmri.dials
    model = VoxelModel(replace(TINY.fmri, dials=dials), 3, 10.0)
    rng = np.random.default_rng(0)
    templates = model.response(0, Z) * model.scale
    filters = model.whiten(0, templates)
    hits = []
    for _ in range(150):
        trials = model.signal(0, Z, rng)[0] + model.noise(0, len(Z), rng)
        trials -= trials.mean(0)
        hits.append(pairs_won(trials @ filters.T, filters, templates - templates.mean(0)))
    bound = compute(model)["per_subject"][0]
    assert 0.6 < bound < 0.95
    assert np.mean(hits) == pytest.approx(bound, abs=0.025)  # its standard error is .007


def test_mismatched_model_and_too_few_images_raise():
    model = make("eeg")
    with pytest.raises(DataError, match="'model'"):
        ceiling.compute("meg", model, TINY.meg, Z, 0)
    with pytest.raises(DataError, match="of another preset"):
        ceiling.compute("eeg", model, get_preset("demo").eeg, Z, 0)
    with pytest.raises(DataError, match="2 or more, but got 1"):
        compute(model, Z[:1])
    with pytest.raises(DataError, match="SensorModel and VoxelModel, but got dict"):
        next(ceiling.whitened_means({}, 0, Z, 1, np.random.default_rng(0)))
