"""What no decoder of a simulated twin can beat: the score of an observer that knows the generative model.

The observer is told more than any decoder: the model and every map of the subject, the noise covariance, and of each
trial the response latency and gain, the phase of every induced oscillation, the noise amplitude, the artefacts and all
other trials. What is left is one unknown, which image was shown, in Gaussian noise of known covariance; the likelihood
ratio is the best test there is (Neyman and Pearson 1933), so its score bounds every decoder from above, usually not
tightly.

With `m_i` the whitened mean recording of image `i`, two images at distance `d = |m_i - m_j|` are told apart with
probability `Phi(d / 2)` (Green and Swets 1966); no noise needs to be simulated for it. For encoding, where two
recordings are assigned to two images, the distances of both trials add up: `Phi(sqrt(d_1^2 + d_2^2) / 2)`. Top-1 is
the maximum likelihood over the gallery, with simulated noise.

The sensors' noise is whitened over an endless stationary recording, its wandering amplitude held at the smallest value
during the response, and a broken sensor is taken as sound: three more advantages of the observer.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch

import numpy as np
from scipy import fft
from scipy.special import ndtr

from neural_clip.errors import DataError
from neural_clip.simulation import sensor_noise
from neural_clip.simulation.generative import SensorModel
from neural_clip.simulation.latent_space import check_latents
from neural_clip.simulation.presets import EegPreset, FmriPreset, MegPreset, ThingsEeg2Preset, ThingsFmriPreset
from neural_clip.simulation.voxel_model import VoxelModel

_KNOWS = {
    "sensors": "the model, the subject's maps, the noise covariance, all other trials, and of this trial the latency, "
    "gain, phases of induced oscillations, noise amplitude and artefacts; not the image",
    "voxels": "the model, the subject's tuning, the noise covariance, session offset and drift, all other trials, and "
    "of this trial the gain and the noise amplitude; not the image",
}
_MIN_TRIALS = 240  # a subject; top-1 is then within about .03, the 2-way score much closer
_PAD = 4  # recordings are this many times as long as the response when noise is whitened


def component_gram(model: SensorModel, subject: int) -> np.ndarray:
    """Inner products of all components of one subject after whitening the noise of unit amplitude.

    Args:
        model (`SensorModel`): The generator.
        subject (`int`): Counted from 0.

    Returns:
        `np.ndarray` of shape `(n_components, n_components)`: Entry `(p, q)` is the response `p` times the inverse
        noise covariance times the response `q`, for components of size 1.
    """
    sfreq = model.preset.sfreq
    n_times = round(model.response.duration * sfreq)
    n_fft = fft.next_fast_len(_PAD * n_times, real=True)
    courses = fft.rfft(model.time_courses(np.arange(n_times) / sfreq), n_fft)
    courses = np.concatenate([courses.real, courses.imag], axis=1)  # (n_components, 2 * n_frequencies)
    frequencies = fft.rfftfreq(n_fft, 1 / sfreq)
    noise_maps = model.noise_maps(subject).astype(np.float64)
    powers, axes = np.linalg.eigh(noise_maps @ noise_maps.T)
    rotated = axes.T @ model.maps(subject)  # (n_chans, n_components)
    count = np.full(len(frequencies), 2.0)  # positive and negative frequencies; zero and Nyquist stand alone
    count[0] = 1.0
    if n_fft % 2 == 0:
        count[-1] = 1.0
    density = sensor_noise.source_density(model.modality, frequencies)
    white = sensor_noise.white_density(model.modality)
    whitening = np.tile(count / (sfreq * n_fft / 2), 2)  # 1 / E|N_k|^2 at unit density, see sensor_noise.stationary
    quiet = np.tile(density == 0, 2)  # where all channels hold sensor noise only, one product does for all
    gram = (courses[:, quiet] * whitening[quiet] / white) @ courses[:, quiet].T * (rotated.T @ rotated)
    courses, whitening, density = courses[:, ~quiet], whitening[~quiet], np.tile(density, 2)[~quiet]
    for power, row in zip(np.maximum(powers, 0), rotated, strict=True):
        gram += (courses * (whitening / (power * density + white))) @ courses.T * np.outer(row, row)
    return gram


def _smallest_amplitude(model: SensorModel, n: int, rng: np.random.Generator) -> np.ndarray:
    """Noise amplitude of `n` trials: the smallest during each response."""
    step = model.response.duration / 8
    course = sensor_noise.amplitude(model.dials.nonstationarity, 40 * n, 1 / step, rng)  # a trial every 5 responses
    return course.reshape(n, 40)[:, :10].min(1)


@singledispatch
def whitened_means(
    model, subject: int, latents: np.ndarray, n_draws: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Mean recordings under every candidate image, in coordinates in which the noise is white with unit variance.

    Args:
        model (`SensorModel` or `VoxelModel`): The generator.
        subject (`int`): Counted from 0.
        latents (`np.ndarray` of shape `(n, 24)`): Candidate images.
        n_draws (`int`): Trials of each image; each has nuisances of its own, which the observer is told.
        rng (`np.random.Generator`): Draws the nuisances.

    Yields:
        `np.ndarray` of shape `(n, k)`: One trial, `n_draws` times one of each image in turn; row `j` is the mean of
        the trial had it shown image `j`. `k` is at most the number of components or images.

    Raises:
        DataError: If the model is of another type.
    """
    raise DataError(
        "Invalid type of the 'model' parameter. Allowed are SensorModel and VoxelModel, but got "
        f"{type(model).__name__}."
    )


@whitened_means.register
def _(model: SensorModel, subject: int, latents: np.ndarray, n_draws: int, rng: np.random.Generator):
    values, vectors = np.linalg.eigh(component_gram(model, subject))
    factor = vectors * np.sqrt(np.maximum(values, 0))  # gram = factor @ factor.T
    n = len(latents)
    for _ in range(n_draws):
        trials = model.nuisances(n, rng)
        size = trials["gain"] / (_positive(model.noise_scale) * _smallest_amplitude(model, n, rng))
        for i in range(n):
            phases = np.broadcast_to(trials["phases"][i], (n, trials["phases"].shape[1]))
            yield size[i] * (model.coefficients(latents, phases) @ factor)


@whitened_means.register
def _(model: VoxelModel, subject: int, latents: np.ndarray, n_draws: int, rng: np.random.Generator):
    response = model.response(subject, latents)
    response -= response.mean(0)
    values, vectors = np.linalg.eigh(model.whiten(subject, response) @ response.T)
    means = vectors * np.sqrt(np.maximum(values, 0))  # the same distances in at most n dimensions
    n, spread = len(latents), model.dials.nonstationarity
    for _ in range(n_draws):
        gain = np.exp(model.dials.gain_jitter * rng.standard_normal(n))
        amplitude = np.exp(spread * rng.standard_normal(n) - spread**2)
        for size in gain / (_positive(model.noise_scale) * amplitude):
            yield size * means


def _positive(noise_scale: float) -> float:
    """A noise scale to divide by; without noise all distances become huge."""
    return max(noise_scale, 1e-9)


def observer_scores(trials: Iterator[np.ndarray], n: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """Scores of the observer on one trial of each image.

    Args:
        trials (`Iterator[np.ndarray]`): From [`whitened_means`]; `n` of them are taken.
        n (`int`): Images.
        rng (`np.random.Generator`): Draws the noise, for top-1 only.

    Returns:
        `tuple[float, float, float]`: 2-way given a recording and two images, 2-way given an image and two recordings,
        and top-1 over the gallery (ties share the point), each the mean over trials.
    """
    squares, evidence = np.empty((2, n, n))
    for i in range(n):
        means = next(trials)
        difference = means - means[i]
        squares[i] = (difference**2).sum(1)
        evidence[i] = difference @ rng.standard_normal(means.shape[1]) - squares[i] / 2  # log likelihood ratio
    others = ~np.eye(n, dtype=bool)
    decoding = ndtr(np.sqrt(squares) / 2)[others].mean()
    encoding = ndtr(np.sqrt(squares + squares.T) / 2)[others].mean()
    best = evidence >= evidence.max(1, keepdims=True)
    return float(decoding), float(encoding), float((best.diagonal() / best.sum(1)).mean())


def compute(
    modality: str,
    model: SensorModel | VoxelModel,
    preset: EegPreset | MegPreset | FmriPreset | ThingsEeg2Preset | ThingsFmriPreset,
    test_latents: np.ndarray,
    seed: int,
) -> dict:
    """Ceiling of single-trial decoding on the test images of a simulated twin.

    Args:
        modality (`str`): `"eeg"`, `"meg"` or `"fmri"`; must be the model's.
        model (`SensorModel` or `VoxelModel`): The generator of the twin.
        preset (one of the presets of `TwinPreset`): The part that the model was made with.
        test_latents (`np.ndarray` of shape `(n, 24)`): Latents of the unique test images, at least 2.
        seed (`int`): Decides nuisances and, for top-1, noise.

    Returns:
        `dict`: `two_way`, `two_way_encoding`, `top1`, their `chance`, `gallery`, `per_subject` 2-way, `knows`, and
        `valid`, which is false when the dial `block_drift` hands decoders information the observer does not use.

    Raises:
        DataError: If model, modality and preset do not belong together, or fewer than 2 images are given.
    """
    latents = check_latents(test_latents)
    if modality != model.modality or preset != model.preset:
        raise DataError(
            f"Invalid value for the 'model' parameter. Allowed is the {modality} model of the given preset, but got a "
            f"{model.modality} model{' of another preset' if modality == model.modality else ''} instead."
        )
    if len(latents) < 2:
        raise DataError(f"Invalid number of test images. Allowed are 2 or more, but got {len(latents)} instead.")
    n_draws = -(-_MIN_TRIALS // len(latents))
    scores = np.empty((preset.n_subjects, n_draws, 3))
    for subject in range(preset.n_subjects):
        rng = np.random.default_rng([seed, 51, subject])
        trials = whitened_means(model, subject, latents, n_draws, np.random.default_rng([seed, 52, subject]))
        for draw in range(n_draws):
            scores[subject, draw] = observer_scores(trials, len(latents), rng)
    decoding, encoding, top1 = scores.mean((0, 1)).round(4).tolist()
    return {
        "two_way": decoding,
        "two_way_encoding": encoding,
        "top1": top1,
        "chance": {"two_way": 0.5, "two_way_encoding": 0.5, "top1": round(1 / len(latents), 6)},
        "gallery": len(latents),
        "per_subject": scores[:, :, 0].mean(1).round(4).tolist(),
        "aggregation": "single trial",
        "knows": _KNOWS["voxels" if modality == "fmri" else "sensors"],
        "valid": getattr(model.dials, "block_drift", 0.0) == 0.0,
    }
