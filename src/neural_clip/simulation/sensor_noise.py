"""Noise of simulated sensors: 1/f with a resting rhythm, spatially smooth, non-stationary, with blinks and jumps.

Everything here is in units of the noise amplitude: the stationary part has unit mean square between 0 and 500 Hz.
"""

from __future__ import annotations

import numpy as np
from scipy import fft
from scipy.interpolate import CubicSpline

N_SOURCES = 64  # independent generators of background activity: enough to leave no direction of the signal quiet
_BANDWIDTH = 500.0  # Hz over which amplitudes are stated
_EXPONENT = 1.0  # power ~ 1 / f, the slope of background EEG and MEG between 1 and 40 Hz
_KNEE = 1.0  # Hz below which the spectrum is flat, as behind the high-pass of an amplifier
_TOP = 150.0  # Hz above which sensor noise is all there is
_ALPHA = (10.0, 1.5, 2.0)  # resting rhythm: centre and width in Hz, height over the 1/f background
_WHITE = {"eeg": 0.7, "meg": 1.0}  # sensor noise over smooth noise, root mean squares; sensors of MEG are quieter
_BLINK = {"eeg": 10.0, "meg": 5.0}  # height of a blink at the eyes: about 100 uV in EEG of 10 uV noise
_BLINK_S = 0.3  # duration of a blink
_JUMP = 12.0  # height of a jump of one sensor
_JUMP_DECAY_S = 0.4  # a jump decays within about this time, as behind an amplifier's high-pass
_WANDER_S = 10.0  # time scale of the noise amplitude


def _shape(frequencies: np.ndarray) -> np.ndarray:
    """Spectral density of background activity, arbitrary unit."""
    centre, width, height = _ALPHA
    background = (frequencies <= _TOP) / (1 + (frequencies / _KNEE) ** _EXPONENT)
    return background * (1 + height * np.exp(-(((frequencies - centre) / width) ** 2) / 2))


_GRID = np.arange(0.05, _BANDWIDTH, 0.1)
_POWER = float(_shape(_GRID).sum() * 0.1)


def _shares(modality: str) -> tuple[float, float]:
    """Variance of smooth and of sensor noise; their sum is 1."""
    white = _WHITE[modality] ** 2
    return 1 / (1 + white), white / (1 + white)


def source_density(modality: str, frequencies: np.ndarray) -> np.ndarray:
    """One-sided spectral density of the smooth noise, variance per Hz, at frequencies in Hz."""
    return _shares(modality)[0] * _shape(frequencies) / _POWER


def white_density(modality: str) -> float:
    """One-sided spectral density of the sensor noise, variance per Hz."""
    return _shares(modality)[1] / _BANDWIDTH


def stationary(modality: str, maps: np.ndarray, n_times: int, sfreq: float, rng: np.random.Generator) -> np.ndarray:
    """Stationary Gaussian noise.

    Args:
        modality (`str`): `"eeg"` or `"meg"`.
        maps (`np.ndarray` of shape `(n_chans, n_sources)`): Maps of the sources, total unit mean square.
        n_times (`int`): Samples.
        sfreq (`float`): Sampling rate in Hz; the densities do not depend on it.
        rng (`np.random.Generator`): Draws the noise.

    Returns:
        `np.ndarray` of shape `(n_chans, n_times)`, float32.
    """
    n_fft = fft.next_fast_len(max(n_times, 2), real=True)
    frequencies = fft.rfftfreq(n_fft, 1 / sfreq)
    frequencies = frequencies[frequencies <= _TOP]  # irfft takes the missing ones for zero
    # E|X|^2 = density * sfreq * n_fft / 2 makes the variance the integral of the density; half of it is real
    size = np.sqrt(source_density(modality, frequencies) * sfreq * n_fft / 4).astype(np.float32)
    sources = np.empty((maps.shape[1], n_times), np.float32)
    for source in sources:
        parts = rng.standard_normal((len(size), 2), dtype=np.float32)
        source[:] = fft.irfft(parts.view(np.complex64)[:, 0] * size, n_fft)[:n_times]
    noise = rng.standard_normal((len(maps), n_times), dtype=np.float32)
    noise *= np.float32(np.sqrt(white_density(modality) * sfreq / 2))
    noise += maps.astype(np.float32) @ sources
    return noise


def amplitude(spread: float, n_times: int, sfreq: float, rng: np.random.Generator) -> np.ndarray:
    """Noise amplitude over time: log-normal knots every 10 s, a spline between, unit mean square on average.

    Args:
        spread (`float`): Standard deviation of the logarithm at the knots (dial `nonstationarity`).
        n_times, sfreq, rng: As in `stationary`.

    Returns:
        `np.ndarray` of shape `(n_times,)`, float32, positive.
    """
    times = np.arange(n_times) / sfreq
    knots = np.arange(-1, int(times[-1] / _WANDER_S) + 3) if n_times else np.arange(-1, 3)
    logarithm = CubicSpline(knots * _WANDER_S, rng.standard_normal(len(knots)))(times)
    return np.exp(spread * logarithm - spread**2).astype(np.float32)


def add_artefacts(
    noise: np.ndarray, modality: str, positions: np.ndarray, rate: float, sfreq: float, rng: np.random.Generator
) -> None:
    """Add blinks (`rate` a minute) and sensor jumps (half as many) to noise, in place.

    Args:
        noise (`np.ndarray` of shape `(n_chans, n_times)`): Changed.
        modality (`str`): `"eeg"` or `"meg"`.
        positions (`np.ndarray` of shape `(n_chans, 3)`): Sensors in metres; y points to the eyes.
        rate (`float`): Blinks per minute (dial `artefact_rate`).
        sfreq (`float`): Sampling rate, in Hz.
        rng (`np.random.Generator`): Draws times, heights and sensors.
    """
    n_times = noise.shape[1]
    minutes = n_times / sfreq / 60
    height = np.linalg.norm(positions, axis=1).max()
    eyes = np.exp((positions[:, 1] - positions[:, 1].max()) / (0.35 * height) - np.abs(positions[:, 2]) / height)
    blink = _BLINK[modality] * np.hanning(max(3, round(_BLINK_S * sfreq)))
    for _ in range(rng.poisson(rate * minutes)):
        start, size = rng.integers(n_times), rng.uniform(0.6, 1.4)
        course = size * blink[: n_times - start]
        noise[:, start : start + len(course)] += np.outer(eyes, course).astype(np.float32)
    decay = np.exp(-np.arange(round(5 * _JUMP_DECAY_S * sfreq)) / (_JUMP_DECAY_S * sfreq))
    for _ in range(rng.poisson(rate / 2 * minutes)):
        start, size = rng.integers(n_times), rng.uniform(0.3, 1.0) * rng.choice((-1, 1))
        course = _JUMP * size * decay[: n_times - start]
        noise[rng.integers(len(noise)), start : start + len(course)] += course.astype(np.float32)
