"""Simulated fMRI: single-trial responses of the voxels of a region, in % signal change."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from neural_clip.simulation.calibration import NOISE_RMS, UNITS
from neural_clip.simulation.calibration import noise_scale as calibrated_scale
from neural_clip.simulation.latent_space import LATENT_GAIN, check_latents
from neural_clip.simulation.presets import N_LATENTS, FmriPreset, ThingsFmriPreset
from neural_clip.simulation.sensor_layout import check_subject, mix_maps, smooth_maps

_LENGTH = 0.12  # correlation length of tuning over the volume, as a fraction of its size: a few voxels
_N_NOISE_SOURCES = 30
_SMOOTH_SHARE = 0.4  # variance of the noise that neighbouring voxels share
_SESSION_OFFSET = 0.4  # offset of each voxel in a session and drift within it, in noise amplitudes
_MEAN_RESPONSE = 1.0  # % signal change to any image
_SATURATION_SLOPE = 1.5  # tanh(1.5 u): saturates within one standard deviation of its drive
_N_DRAWS = 4096  # tuning directions by which their moments are known to 2 %
_MAX_POWER = 200.0  # of the weights of latents: the second is then 1e-7 of the first
_WANDER_TRIALS = 40.0  # time scale of the noise amplitude


class VoxelModel:
    """fMRI of several subjects.

    Args:
        preset (`FmriPreset` or `ThingsFmriPreset`): Sizes and dials.
        seed (`int`): Decides masks and tuning.
        noise_scale (`float`, *optional*): Noise over signal amplitude; the calibrated one by default. It changes the
            noise; the signal keeps its physical size.

    Attributes:
        n_voxels (`tuple[int, ...]`): Voxels of each subject. Voxel order is the C order of `mask(subject)`.
        unit (`str`), scale (`float`): % signal change per unit of signal amplitude.
    """

    def __init__(self, preset: FmriPreset | ThingsFmriPreset, seed: int, noise_scale: float | None = None):
        self.preset, self.modality, self.dials = preset, "fmri", preset.dials
        calibrated = calibrated_scale("fmri", preset.noise_of)
        self.noise_scale = calibrated if noise_scale is None else float(noise_scale)
        self.unit, self.scale = UNITS["fmri"], NOISE_RMS["fmri"] / calibrated
        self.n_voxels = preset.n_voxels
        self._seed = [seed, 7921]

    def centres(self, subject: int) -> np.ndarray:
        """All voxel centres of the volume as fractions of its size, `(x * y * z, 3)`, C order."""
        axes = [(np.arange(n) + 0.5) / n for n in self.preset.grid_shapes[subject]]
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)

    @lru_cache(maxsize=16)  # noqa: B019 - a model lives as long as its masks are needed
    def mask(self, subject: int) -> np.ndarray:
        """Voxels of the region: one posterior blob in each hemisphere, of exactly `n_voxels[subject]` voxels.

        Returns:
            `np.ndarray` of shape `grid_shapes[subject]`, bool. Axes run to the right, to the front and up.
        """
        check_subject(subject, self.preset.n_subjects)
        centres = self.centres(subject)
        left, right = (np.linalg.norm(centres - (x, 0.3, 0.5), axis=1) for x in (0.33, 0.67))
        bumps = 0.05 * smooth_maps(centres, 1, 0.25, np.random.default_rng([*self._seed, 3, subject]))[:, 0]
        order = np.argsort(np.minimum(left, right) + bumps, kind="stable")
        mask = np.zeros(len(centres), bool)
        mask[order[: self.n_voxels[subject]]] = True
        return mask.reshape(self.preset.grid_shapes[subject])

    @lru_cache(maxsize=16)  # noqa: B019 - a model lives as long as its tuning is needed
    def _tuning(self, subject: int) -> dict[str, np.ndarray]:
        """Tuning of one subject: two `(24, n_voxels)` maps, kind (0 linear, 1 saturating, 2 energy), strength."""
        centres = self.centres(subject)[self.mask(subject).ravel()]
        shared, own = (
            smooth_maps(centres, 2 * N_LATENTS, _LENGTH, np.random.default_rng([*self._seed, 1, who]))
            for who in (0, 1 + subject)
        )
        gains = _gains(self.dials.tuning_dimension) if self.dials.tuning_dimension else LATENT_GAIN
        maps = mix_maps(shared, own, self.dials.subject_deviation).T * np.tile(gains, 2)[:, None]
        rng = np.random.default_rng([*self._seed, 2, subject])
        place = rng.uniform(size=len(centres))
        kind = np.where(place < self.dials.voxel_energy, 2, 0)
        kind[place >= 1 - self.dials.voxel_saturation] = 1
        strength = np.exp(0.5 * rng.standard_normal(len(centres)) - 0.25)  # voxels differ in signal quality
        pair = [part / np.linalg.norm(part, axis=0) for part in np.split(maps, 2)]
        return {"first": pair[0], "second": pair[1], "kind": kind, "strength": strength}

    def response(self, subject: int, z: np.ndarray) -> np.ndarray:
        """Response to images before the trial's gain.

        Args:
            subject (`int`): Counted from 0.
            z (`np.ndarray` of shape `(n, 24)`): Latents.

        Returns:
            `np.ndarray` of shape `(n, n_voxels)`, float64, in units of signal amplitude (about unit variance).
        """
        z, tuning = check_latents(z), self._tuning(subject)
        first = z @ tuning["first"]
        response = first.copy()
        saturating, energy = tuning["kind"] == 1, tuning["kind"] == 2
        response[:, saturating] = np.tanh(_SATURATION_SLOPE * first[:, saturating]) / 0.74  # unit variance for N(0, 1)
        modulus = np.hypot(first[:, energy], z @ tuning["second"][:, energy])
        response[:, energy] = (modulus - 1.253) / 0.655  # mean and standard deviation of a Rayleigh variable
        return response * tuning["strength"]

    def signal(
        self, subject: int, latents: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Responses to images, without noise.

        Args:
            subject (`int`): Counted from 0, in the order of `preset.subjects`.
            latents (`np.ndarray` of shape `(n, 24)`): Latents of the images shown.
            rng (`np.random.Generator`): Draws the nuisances.

        Returns:
            `tuple`: Signal `(n, n_voxels)` float32 in % signal change, and the nuisances `{"gain": (n,)}`.
        """
        gain = np.exp(self.dials.gain_jitter * rng.standard_normal(len(latents)))
        signal = (_MEAN_RESPONSE + self.scale * self.response(subject, latents)) * gain[:, None]
        return signal.astype(np.float32), {"gain": gain}

    @lru_cache(maxsize=16)  # noqa: B019 - a model lives as long as its maps are needed
    def noise_maps(self, subject: int) -> np.ndarray:
        """Maps of a subject's smooth noise, `(n_voxels, n_sources)`, total unit mean square."""
        centres = self.centres(subject)[self.mask(subject).ravel()]
        maps = smooth_maps(centres, _N_NOISE_SOURCES, _LENGTH, np.random.default_rng([*self._seed, 4, subject]))
        return maps / np.sqrt(_N_NOISE_SOURCES)

    def whiten(self, subject: int, patterns: np.ndarray) -> np.ndarray:
        """Multiply patterns by the inverse covariance of the noise of unit amplitude, offset and drift aside.

        Args:
            subject (`int`): Counted from 0.
            patterns (`np.ndarray` of shape `(n, n_voxels)`): Any patterns.

        Returns:
            `np.ndarray` of shape `(n, n_voxels)`: By Woodbury's identity, as the covariance is low-rank plus diagonal.
        """
        maps = self.noise_maps(subject) * np.sqrt(_SMOOTH_SHARE)
        own = 1 - _SMOOTH_SHARE
        inner = np.linalg.inv(np.eye(maps.shape[1]) * own + maps.T @ maps)
        return (patterns - patterns @ maps @ inner @ maps.T) / own

    def noise(self, subject: int, n_trials: int, rng: np.random.Generator) -> np.ndarray:
        """Noise of one session: smooth and voxel noise of wandering amplitude, an offset and a drift of each voxel.

        Args:
            subject (`int`): Counted from 0.
            n_trials (`int`): Trials of the session.
            rng (`np.random.Generator`): Draws the noise.

        Returns:
            `np.ndarray` of shape `(n_trials, n_voxels)`, float32, in % signal change.
        """
        check_subject(subject, self.preset.n_subjects)
        maps = self.noise_maps(subject).astype(np.float32)
        noise = np.sqrt(1 - _SMOOTH_SHARE) * rng.standard_normal((n_trials, len(maps)), dtype=np.float32)
        noise += np.sqrt(_SMOOTH_SHARE) * rng.standard_normal((n_trials, maps.shape[1]), dtype=np.float32) @ maps.T
        spread = self.dials.nonstationarity
        knots = np.arange(int(n_trials / _WANDER_TRIALS) + 2)
        logarithm = np.interp(np.arange(n_trials) / _WANDER_TRIALS, knots, rng.standard_normal(len(knots)))
        noise *= np.exp(spread * logarithm - spread**2)[:, None].astype(np.float32)
        offset, slope = rng.standard_normal((2, len(maps)), dtype=np.float32) * _SESSION_OFFSET
        noise += offset + np.linspace(-1, 1, n_trials, dtype=np.float32)[:, None] * slope
        return (noise * (self.noise_scale * self.scale)).astype(np.float32)


@lru_cache(maxsize=8)
def _gains(dimension: float) -> np.ndarray:
    """Weights of the latents, a power of those of the embedding, for which tuning has so many effective dimensions."""
    from scipy.optimize import brentq

    normal = np.random.default_rng(0).standard_normal((_N_DRAWS, N_LATENTS))

    def participation(power: float) -> float:
        directions = normal * LATENT_GAIN**power
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)  # as voxels' are, which evens them out
        moments = (directions**2).mean(axis=0)
        return moments.sum() ** 2 / (moments**2).sum()

    low, high = participation(_MAX_POWER), participation(0)
    if not low < dimension < high:  # 1 and 24, which are met within a few thousandths
        return LATENT_GAIN ** (_MAX_POWER if dimension <= low else 0)
    return LATENT_GAIN ** brentq(lambda power: participation(power) - dimension, 0, _MAX_POWER)
