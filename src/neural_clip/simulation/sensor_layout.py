"""Names and positions of simulated sensors, and smooth maps over positions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from neural_clip.errors import check_value

# The order in which the ImageNetEEG maintainers name the first channels of their cap (their issue 4).
_EEG_FIRST = [
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "FC5", "FC1", "FC2", "FC6", "T7", "C3",
    "Cz", "C4", "T8", "TP9", "CP5", "CP1", "CP2", "CP6", "TP10", "P7", "P3", "Pz", "P4",
    "P8", "PO9", "O1", "Oz", "O2", "PO10", "AF7", "AF3", "AF4", "AF8", "F5", "F1", "F2",
]  # fmt: skip
# Old names of T7/T8/P7/P8, ear and mastoid references and low-lying points that caps do not use.
_EEG_EXCLUDED = ("T3", "T4", "T5", "T6", "A1", "A2", "M1", "M2")
# Sensors of a CTF MEG 275, as ranges of their two-digit numbers for each region of a hemisphere and the midline.
_CTF_HALF = {
    "C": "11-17 21-25 31-32 41-42 51-55 61-63",
    "F": "11-14 21-25 31-35 41-46 51-56 61-67",
    "O": "11-14 21-24 31-34 41-44 51-53",
    "P": "11-12 21-23 31-35 41-45 51-57",
    "T": "11-16 21-27 31-37 41-47 51-57",
}
_CTF_MIDLINE = {"C": "01-04", "F": "01-03", "O": "01-03", "P": "01-01"}
# THINGS-MEG holds 272 of the 275; which three are absent is not documented, these are assumed.
_CTF_ABSENT = ("MLF25", "MRF43", "MRO13")
_CTF_SUFFIX = "-1609"
BROKEN_SENSOR = "MRO11" + _CTF_SUFFIX
"""Sensor that malfunctions in THINGS-MEG; every simulated system has it too."""
_MEG_RADIUS = 0.12  # metres from the head centre to a sensor of a whole-head system
_MEG_RIM = np.deg2rad(115.0)  # angle from the vertex at which the helmet ends


def _expand(ranges: str) -> list[str]:
    """`"11-13 21-21"` to `["11", "12", "13", "21"]`."""
    bounds = [part.split("-") for part in ranges.split()]
    return [f"{number:02d}" for first, last in bounds for number in range(int(first), int(last) + 1)]


def _spread(positions: np.ndarray, n_chans: int, first: int) -> np.ndarray:
    """Indices of `n_chans` positions spread evenly (farthest point sampling), in ascending order."""
    chosen = [first]
    distance = np.linalg.norm(positions - positions[first], axis=1)
    while len(chosen) < n_chans:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(positions - positions[chosen[-1]], axis=1))
    return np.sort(chosen)


@lru_cache(maxsize=8)
def eeg_layout(n_chans: int) -> tuple[list[str], np.ndarray]:
    """EEG electrodes of the extended 10-05 system.

    Args:
        n_chans (`int`): Electrodes; the first 39 follow the ImageNetEEG maintainers' list, the others are spread.

    Returns:
        `tuple`: Names and positions `(n_chans, 3)` in metres, x right, y front, z up.

    Raises:
        DataError: If the montage has fewer electrodes.
    """
    montage = _montage()
    names = [name for name in montage if name not in _EEG_EXCLUDED and not name.endswith("h")]  # no 10-05 half steps
    check_value("n_chans", n_chans, 1 <= n_chans <= len(names), f"1 to {len(names)}")
    first = _EEG_FIRST[:n_chans]
    others = [name for name in names if name not in first][: len(names) - len(first)]
    if n_chans > len(first):
        positions = np.array([montage[name] for name in others])
        names = first + [others[i] for i in _spread(positions, n_chans - len(first), 0)]
    else:
        names = first
    return names, np.array([montage[name] for name in names])


def eeg_positions(ch_names: Sequence[str]) -> np.ndarray:
    """Positions of named electrodes of the extended 10-05 system, `(n_chans, 3)` in metres, x right, y front, z up."""
    montage = _montage()
    return np.array([montage[name] for name in ch_names])


@lru_cache(maxsize=1)
def _montage() -> dict[str, np.ndarray]:
    """Positions of all electrodes of the extended 10-05 system, by name."""
    from mne.channels import get_builtin_montages, make_standard_montage

    new, old = "colin27_1005", "standard_1005"  # MNE 1.13 renamed it
    return make_standard_montage(new if new in get_builtin_montages() else old).get_positions()["ch_pos"]


@lru_cache(maxsize=8)
def meg_layout(n_chans: int) -> tuple[list[str], np.ndarray]:
    """Sensors of a CTF whole-head system, among them the malfunctioning `MRO11`.

    Args:
        n_chans (`int`): Sensors, at most 272; fewer are an even subset.

    Returns:
        `tuple`: Names such as `"MLC11-1609"` and positions `(n_chans, 3)` in metres on a sphere, x right, y front,
        z up. The flat layout of MNE is bent onto the sphere, so neighbours are right and distances approximate.

    Raises:
        DataError: If more than 272 sensors are asked for.
    """
    from mne.channels import read_layout

    stems = [f"M{side}{region}{n}" for side in "LR" for region, part in _CTF_HALF.items() for n in _expand(part)]
    stems += [f"MZ{region}{n}" for region, part in _CTF_MIDLINE.items() for n in _expand(part)]
    stems = sorted(stem for stem in stems if stem not in _CTF_ABSENT)
    check_value("n_chans", n_chans, 1 <= n_chans <= len(stems), f"1 to {len(stems)}")
    layout = read_layout("CTF275")
    flat = {name.split("-")[0]: box[:2] + box[2:] / 2 for name, box in zip(layout.names, layout.pos, strict=True)}
    planar = np.array([flat[stem] for stem in stems])
    planar -= (planar.max(0) + planar.min(0)) / 2
    radius = np.linalg.norm(planar, axis=1)
    polar, azimuth = radius / radius.max() * _MEG_RIM, np.arctan2(planar[:, 1], planar[:, 0])
    across = np.sin(polar)
    sphere = np.stack([across * np.cos(azimuth), across * np.sin(azimuth), np.cos(polar)], 1) * _MEG_RADIUS
    names = [stem + _CTF_SUFFIX for stem in stems]
    chosen = _spread(sphere, n_chans, names.index(BROKEN_SENSOR))
    return [names[i] for i in chosen], sphere[chosen]


def smooth_maps(positions: np.ndarray, n_maps: int, length: float, rng: np.random.Generator) -> np.ndarray:
    """Draw smooth random functions of space, each with unit mean square over the positions.

    Args:
        positions (`np.ndarray` of shape `(n, 3)`): Where to evaluate.
        n_maps (`int`): Number of functions.
        length (`float`): Correlation length, in the unit of the positions.
        rng (`np.random.Generator`): One seed gives one set of functions, whatever the positions.

    Returns:
        `np.ndarray` of shape `(n, n_maps)`, float64.

    Source: random Fourier features of a Gaussian process with squared-exponential covariance (Rahimi and Recht 2007).
    """
    n_features = 256  # the covariance is met within 1 / sqrt(256)
    frequencies = rng.standard_normal((3, n_features)) / length
    phases = rng.uniform(0, 2 * np.pi, n_features)
    weights = rng.standard_normal((n_features, n_maps))
    maps = np.cos(positions @ frequencies + phases) @ weights
    return maps / np.sqrt((maps**2).mean(0) + 1e-12)


def mix_maps(shared: np.ndarray, own: np.ndarray, deviation: float) -> np.ndarray:
    """One subject's maps: sqrt(1 - deviation^2) of the shared ones and deviation of the subject's own."""
    return np.sqrt(1 - deviation**2) * shared + deviation * own


def check_subject(subject: int, n_subjects: int) -> None:
    """Raise `DataError` unless the subject, counted from 0, exists."""
    check_value("subject", subject, 0 <= subject < n_subjects, f"0 to {n_subjects - 1}")
