"""The known generative model of the simulated twins: recordings as arrays, in physical units.

A recording is signal plus noise. The signal is a function of the latents of the image (see `latent_space`) and of
random nuisances of the trial, all of which `signal` hands back, so that `ceiling` can tell what is decodable at best.
Sensors (EEG, MEG): evoked responses are linear in the latents with fixed phase; induced responses are oscillations
with random phase whose log amplitude is linear in the latents. Voxels: linear, saturating and energy-like responses.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np

from neural_clip.simulation import sensor_noise
from neural_clip.simulation.calibration import NOISE_RMS, UNITS, calibration
from neural_clip.simulation.calibration import noise_scale as calibrated_scale
from neural_clip.simulation.latent_space import LATENT_GAIN, check_latents, tiny_clip_sha256
from neural_clip.simulation.presets import N_LATENTS, EegPreset, MegPreset, ThingsEeg2Preset, TwinPreset
from neural_clip.simulation.sensor_layout import (
    BROKEN_SENSOR,
    check_subject,
    eeg_layout,
    eeg_positions,
    meg_layout,
    mix_maps,
    smooth_maps,
)


@dataclass(frozen=True)
class _Response:
    """Time courses of one modality: ranges from which components are drawn; frequencies in Hz, times in s."""

    evoked: tuple[tuple[tuple[float, float], tuple[float, float], tuple[float, float], float], ...]
    """One entry a component of each latent: ranges of frequency, peak time and width, and amplitude."""
    induced: tuple[tuple[float, float], tuple[float, float], tuple[float, float], float]
    """Ranges of frequency, peak time and width of an oscillation's envelope, and amplitude."""
    n_induced: int
    duration: float
    """Time after which the response has died out."""


# EEG: phase-locked content both slow (2-9 Hz, the classical evoked potential) and fast (15-30 Hz, which survives the
# 14-70 Hz band-pass of the ImageNetEEG files); induced power in the beta and gamma range; images last 0.5 s.
# MEG: slow and alpha-to-beta evoked fields up to 0.9 s; induced alpha, beta and low gamma below the 40 Hz low-pass.
_RESPONSES = {
    "eeg": _Response(
        evoked=(((2, 9), (0.10, 0.34), (0.04, 0.08), 1.0), ((15, 30), (0.08, 0.38), (0.03, 0.06), 0.6)),
        induced=((18, 62), (0.15, 0.36), (0.06, 0.10), 1.1),
        n_induced=16, duration=0.55,
    ),
    "meg": _Response(
        evoked=(((1.5, 9), (0.09, 0.55), (0.04, 0.11), 1.0), ((9, 24), (0.08, 0.50), (0.04, 0.08), 0.6)),
        induced=((8, 36), (0.20, 0.65), (0.10, 0.18), 1.6),
        n_induced=16, duration=1.0,
    ),
}  # fmt: skip
# Correlation length of signal maps over sensors, metres; background activity has more, and more local, generators.
_LENGTHS = {"eeg": 0.06, "meg": 0.06}
_NOISE_LENGTHS = {"eeg": 0.04, "meg": 0.03}
_CHUNK = 64  # trials whose responses are computed in one product
_INDUCED_SLOPE = 0.7  # log amplitude of an oscillation per unit of its latent direction: 6 dB a standard deviation


class SensorModel:
    """EEG or MEG of several subjects.

    Args:
        preset (`EegPreset`, `MegPreset` or `ThingsEeg2Preset`): Sizes and dials.
        seed (`int`): Decides time courses and maps, hence what subjects share. Trials take generators of their own.
        noise_scale (`float`, *optional*): Noise over signal amplitude; the calibrated one by default. It changes the
            noise; the signal keeps its physical size, so 0 gives recordings without noise.

    Attributes:
        ch_names (`list[str]`), positions (`np.ndarray` of shape `(n_chans, 3)`, metres, x right, y front, z up),
        unit (`"uV"` or `"T"`), scale (`float`): Physical units per unit of signal amplitude.
    """

    def __init__(self, preset: EegPreset | MegPreset | ThingsEeg2Preset, seed: int, noise_scale: float | None = None):
        self.preset, self.modality, self.dials = preset, preset.modality, preset.dials
        calibrated = calibrated_scale(self.modality, preset.noise_of)
        self.noise_scale = calibrated if noise_scale is None else float(noise_scale)
        self.unit, self.scale = UNITS[self.modality], NOISE_RMS[self.modality] / calibrated
        self.response = _RESPONSES[self.modality]
        if isinstance(preset, ThingsEeg2Preset):
            self.ch_names, self.positions = list(preset.ch_names), eeg_positions(preset.ch_names)
        else:
            layout = eeg_layout if self.modality == "eeg" else meg_layout
            self.ch_names, self.positions = layout(preset.n_chans)
        self._seed = [seed, 7919 + ["eeg", "meg"].index(self.modality)]
        self._draw_time_courses(np.random.default_rng([*self._seed, 0]))

    def _draw_time_courses(self, rng: np.random.Generator) -> None:
        """Frequencies, peaks, widths, phases and amplitudes of all components, evoked first."""
        rows = [  # the last evoked component is the mean response, the same for every image
            (*(rng.uniform(*bounds) for bounds in kind[:3]), rng.uniform(0, 2 * np.pi), kind[3])
            for _ in range(N_LATENTS + 1)
            for kind in self.response.evoked
        ]
        kind = self.response.induced
        for _ in range(self.response.n_induced):
            row = tuple(rng.uniform(*bounds) for bounds in kind[:3])
            rows += [(*row, 0.0, kind[3]), (*row, np.pi / 2, kind[3])]  # the sine is a quarter period late
        self._components = np.array(rows)
        directions = rng.standard_normal((self.response.n_induced, N_LATENTS)) * LATENT_GAIN
        self._directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)

    @property
    def n_evoked(self) -> int:
        """Evoked components, the mean response among them; the induced ones follow."""
        return (N_LATENTS + 1) * len(self.response.evoked)

    def time_courses(self, times: np.ndarray) -> np.ndarray:
        """Gabor functions of all components, zero outside the response.

        Args:
            times (`np.ndarray` of shape `(n_times,)`): Seconds from image onset.

        Returns:
            `np.ndarray` of shape `(n_components, n_times)`, float64.
        """
        frequency, peak, width, phase, amplitude = self._components.T[:, :, None]
        courses = np.exp(-(((times - peak) / width) ** 2) / 2) * np.cos(2 * np.pi * frequency * (times - peak) - phase)
        # 20 ms pass before the first cortical response; the flank is 20 ms wide
        gate = np.clip((times - 0.02) / 0.02, 0, 1) * np.clip((self.response.duration - times) / 0.02, 0, 1)
        courses = amplitude * courses * gate
        return np.where(np.abs(courses) < 1e-9, 0.0, courses)  # subnormal numbers would slow products tenfold

    @lru_cache(maxsize=16)  # noqa: B019 - a model lives as long as its maps are needed
    def maps(self, subject: int) -> np.ndarray:
        """Sensor maps of one subject, `(n_chans, n_components)`; cosine and sine of an oscillation share theirs."""
        check_subject(subject, self.preset.n_subjects)
        n_evoked, n_induced, length = self.n_evoked, self.response.n_induced, _LENGTHS[self.modality]
        draw = [
            smooth_maps(self.positions, n_evoked + n_induced, length, np.random.default_rng([*self._seed, 1, who]))
            for who in (0, 1 + subject)
        ]
        maps = mix_maps(draw[0], draw[1], self.dials.subject_deviation)
        return np.concatenate([maps[:, :n_evoked], np.repeat(maps[:, n_evoked:], 2, axis=1)], axis=1)

    def coefficients(self, z: np.ndarray, phases: np.ndarray) -> np.ndarray:
        """Size of every component, before the trial's gain.

        Args:
            z (`np.ndarray` of shape `(n, 24)`): Latents.
            phases (`np.ndarray` of shape `(n, n_induced)`): Phase of each oscillation in each trial, radians.

        Returns:
            `np.ndarray` of shape `(n, n_components)`, float64.
        """
        z = check_latents(z)
        driven = np.concatenate([z * LATENT_GAIN, np.ones((len(z), 1))], axis=1)
        evoked = self.dials.evoked * np.repeat(driven, len(self.response.evoked), axis=1)
        power = np.exp(_INDUCED_SLOPE * np.clip(z @ self._directions.T, -3, 3) - _INDUCED_SLOPE**2)  # unit mean square
        induced = self.dials.induced * np.stack([power * np.cos(phases), power * np.sin(phases)], axis=2)
        return np.concatenate([evoked, induced.reshape(len(z), -1)], axis=1)

    def nuisances(self, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw what varies over trials without telling of the image.

        Returns:
            `dict`: `latency_s` `(n,)`, `gain` `(n,)` with median 1, `phases` `(n, n_induced)` in radians.
        """
        latency = self.dials.latency_jitter_s * np.clip(rng.standard_normal(n), -3, 3)
        gain = np.exp(self.dials.gain_jitter * rng.standard_normal(n))
        return {"latency_s": latency, "gain": gain, "phases": rng.uniform(0, 2 * np.pi, (n, self.response.n_induced))}

    def signal(
        self,
        subject: int,
        latents: np.ndarray,
        rng: np.random.Generator,
        tmin: float = 0.0,
        n_times: int | None = None,
        sfreq: float | None = None,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Responses to images, without noise.

        Args:
            subject (`int`): Counted from 0, in the order of `preset.subjects`.
            latents (`np.ndarray` of shape `(n, 24)`): Latents of the images shown.
            rng (`np.random.Generator`): Draws the nuisances.
            tmin (`float`, defaults to 0): First sample, in seconds from image onset.
            n_times (`int`, *optional*): Samples; up to the end of the response by default.
            sfreq (`float`, *optional*): Sampling rate in Hz; the preset's by default.

        Returns:
            `tuple`: Signal `(n, n_chans, n_times)` float32 in `self.unit`, and the nuisances (see `nuisances`), the
            latency rounded to whole samples, as it was used.
        """
        sfreq = sfreq or self.preset.sfreq
        n_times = n_times or round((self.response.duration - tmin) * sfreq)
        trials = self.nuisances(len(latents), rng)
        sizes = self.coefficients(latents, trials["phases"]) * trials["gain"][:, None] * self.scale
        lags = np.round(trials["latency_s"] * sfreq).astype(int)
        trials["latency_s"] = lags / sfreq
        reach = int(np.abs(lags).max(initial=0))
        courses = self.time_courses(tmin + (np.arange(-reach, n_times + reach)) / sfreq).astype(np.float32)
        maps = self.maps(subject).astype(np.float32)
        signal = np.empty((len(lags), self.preset.n_chans, n_times), np.float32)
        for start in range(0, len(lags), _CHUNK):
            mixing = maps * sizes[start : start + _CHUNK, None, :].astype(np.float32)  # (chunk, n_chans, n_components)
            wide = mixing.reshape(-1, maps.shape[1]) @ courses  # (chunk * n_chans, n_times + 2 * reach)
            for own, lag, response in zip(signal[start:], lags[start:], np.split(wide, len(mixing)), strict=False):
                own[:] = response[:, reach - lag : reach - lag + n_times]
        return signal, trials

    def noise(self, subject: int, n_times: int, rng: np.random.Generator, sfreq: float | None = None) -> np.ndarray:
        """Continuous noise of one run: coloured, spatially smooth, non-stationary, with artefacts.

        Args:
            subject (`int`): Counted from 0.
            n_times (`int`): Samples.
            rng (`np.random.Generator`): Draws the noise.
            sfreq (`float`, *optional*): Sampling rate in Hz; the preset's by default. It leaves the density as it is.

        Returns:
            `np.ndarray` of shape `(n_chans, n_times)`, float32, in `self.unit`.
        """
        sfreq = sfreq or self.preset.sfreq
        amplitude = np.float32(self.noise_scale * self.scale)
        noise = sensor_noise.stationary(self.modality, self.noise_maps(subject), n_times, sfreq, rng)
        noise *= sensor_noise.amplitude(self.dials.nonstationarity, n_times, sfreq, rng)
        sensor_noise.add_artefacts(noise, self.modality, self.positions, self.dials.artefact_rate, sfreq, rng)
        if BROKEN_SENSOR in self.ch_names:
            broken = noise[self.ch_names.index(BROKEN_SENSOR)]
            broken += 20 * rng.standard_normal(n_times, dtype=np.float32)  # far beyond all others
        noise *= amplitude
        return noise

    @lru_cache(maxsize=16)  # noqa: B019 - a model lives as long as its maps are needed
    def noise_maps(self, subject: int) -> np.ndarray:
        """Spatial maps of a subject's noise sources, `(n_chans, n_sources)` float32, total unit mean square."""
        check_subject(subject, self.preset.n_subjects)
        rng = np.random.default_rng([*self._seed, 2, subject])
        maps = smooth_maps(self.positions, sensor_noise.N_SOURCES, _NOISE_LENGTHS[self.modality], rng)
        return (maps / np.sqrt(sensor_noise.N_SOURCES)).astype(np.float32)

    def block_drift(self, subject: int, n_trials: int, n_times: int, rng: np.random.Generator) -> np.ndarray:
        """What the trials of one class block share: an offset and a drift over its trials (dial `block_drift`).

        Args:
            subject (`int`): Counted from 0.
            n_trials (`int`): Trials in the block, in order of presentation.
            n_times (`int`): Samples of a trial.
            rng (`np.random.Generator`): Draws the block.

        Returns:
            `np.ndarray` of shape `(n_trials, n_chans, n_times)`, float32, in `self.unit`; zeros when the dial is 0.
        """
        drift = np.zeros((n_trials, self.preset.n_chans, n_times), np.float32)
        if self.dials.block_drift > 0:
            offset, slope = (self.noise_maps(subject) @ rng.standard_normal((sensor_noise.N_SOURCES, 2))).T
            course = offset + 0.5 * np.linspace(-1, 1, n_trials)[:, None] * slope  # (n_trials, n_chans)
            drift += (self.dials.block_drift * self.noise_scale * self.scale * course)[:, :, None].astype(np.float32)
        return drift


def simulated_stamp(preset: TwinPreset, name: str, seed: int, ceiling: dict, **extra) -> dict:
    """Content of `SIMULATED.json`, the file that keeps a twin from posing as real data.

    Args:
        preset (`TwinPreset`): All corpora.
        name (`str`): Of the part that is written, as `TwinPreset` calls it.
        seed (`int`): Seed of the simulation.
        ceiling (`dict`): From [`ceiling.compute`].
        extra: Further entries, such as counts.

    Returns:
        `dict`: JSON-serialisable; no date, so that one seed gives one file.
    """
    part = getattr(preset, name)
    modality = part.modality
    sizes = {key: value for key, value in asdict(part).items() if key not in ("dials", "modality", "noise_of")}
    others = preset.other_counts(name)
    return {
        "simulated": True,
        "note": "SIMULATED DATA written by neural_clip.simulation from a known model; no person was recorded.",
        "modality": modality,
        "preset": preset.name,
        "seed": seed,
        "sizes": sizes,
        "dials": part.dials.as_dict(),
        "calibration": {
            **calibration().get(part.noise_of, {}).get(modality, {}),
            "noise_scale": calibrated_scale(modality, part.noise_of),
        },
        "tiny_clip_sha256": tiny_clip_sha256(),
        "ceiling": ceiling,
        **({"other_counts": others} if others else {}),
        **extra,
    }
