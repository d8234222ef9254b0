"""The calibrated noise level of the simulated twins and the physical units that follow from it."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path

from neural_clip.errors import check_option
from neural_clip.files.reading import read_json

CALIBRATION_FILE = Path(__file__).parent / "calibration.json"
# Used before the first calibration only; noise amplitude over signal amplitude.
_UNCALIBRATED = {"eeg": 4.0, "meg": 8.0, "fmri": 1.5}
# Root mean square of the noise in real recordings, which fixes the physical unit: EEG and MEG broadband, single-trial
# fMRI betas in % signal change. The orders of magnitude, not the digits, are meant.
NOISE_RMS = {"eeg": 10.0, "meg": 4e-13, "fmri": 1.5}
UNITS = {"eeg": "uV", "meg": "T", "fmri": "% signal change"}


@lru_cache(maxsize=1)
def calibration() -> dict:
    """Content of `calibration.json`: preset, then modality; or nothing."""
    return read_json(CALIBRATION_FILE) if CALIBRATION_FILE.is_file() else {}


def noise_scale(modality: str, preset: str = "demo") -> float:
    """Calibrated noise amplitude over signal amplitude.

    Args:
        modality (`str`): `"eeg"`, `"meg"` or `"fmri"`.
        preset (`str`, *optional*, defaults to `"demo"`): Preset that was calibrated, see `presets.DEMO_SIZED`.

    Returns:
        `float`: From `calibration.json`, which `scripts/calibrate_twins.py` writes.

    Raises:
        DataError: If the modality is unknown.
    """
    check_option("modality", modality, _UNCALIBRATED)
    stored = calibration().get(preset, {})
    if modality not in stored:
        warnings.warn(
            f"{CALIBRATION_FILE.name} has no '{modality}' of '{preset}': the noise is not calibrated.", stacklevel=2
        )
    return float(stored.get(modality, {}).get("noise_scale", _UNCALIBRATED[modality]))
