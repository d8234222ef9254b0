"""From continuous MEG to epochs: filter, cut at the events, refer to the baseline, decimate. NumPy and SciPy only.

Two recipes. `PAPER` follows arXiv 2411.09723 (120 Hz, -0.5 to 1.0 s, baseline-corrected, centred and scaled); the
paper names no filter, so the anti-alias filter is ours. `PUBLISHED` is the published preprocessing of THINGS-MEG
(ViCCo-Group/THINGS-data, `MEG/step1_preprocessing.py`): 0.1 to 40 Hz, -0.1 to 1.3 s, baseline z-score, 200 Hz.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neural_clip.errors import DataError

FILTER_BLOCK = 16  # channels at a time: the transform of the filter is shared, memory stays bounded


@dataclass(frozen=True)
class MegPreprocessing:
    """What is done to a continuous recording.

    Args:
        name (`str`): `"paper"` or `"published"`.
        high_pass (`float`, *optional*): Lower edge of the pass band in Hz; `None` leaves slow drifts to the baseline.
        low_pass (`float`): Upper edge of the pass band in Hz.
        sfreq (`float`): Sampling rate of the epochs in Hz; divides that of the recording.
        tmin, tmax (`float`): First and last sample, in s from image onset, both inclusive.
    """

    name: str
    high_pass: float | None
    low_pass: float
    sfreq: float
    tmin: float
    tmax: float

    @property
    def n_times(self) -> int:
        """Samples of an epoch; both ends count, so 1.5 s at 120 Hz are 181 samples."""
        return round((self.tmax - self.tmin) * self.sfreq) + 1

    def decimation(self, raw_sfreq: float) -> int:
        """Samples of the recording for one sample of the epoch."""
        ratio = raw_sfreq / self.sfreq
        if ratio < 1 or abs(ratio - round(ratio)) > 1e-9:
            raise DataError(
                f"A recording at {raw_sfreq:g} Hz cannot be decimated to {self.sfreq:g} Hz by a whole factor."
            )
        return round(ratio)


# 48 Hz: with MNE's rule the transition is 12 Hz wide, so the stop band begins at 60 Hz, which is both the Nyquist
# frequency of 120 Hz data and the mains frequency of the recordings.
PAPER = MegPreprocessing("paper", high_pass=None, low_pass=48.0, sfreq=120.0, tmin=-0.5, tmax=1.0)
PUBLISHED = MegPreprocessing("published", high_pass=0.1, low_pass=40.0, sfreq=200.0, tmin=-0.1, tmax=1.3)
PREPROCESSINGS = {recipe.name: recipe for recipe in (PAPER, PUBLISHED)}


def filter_taps(recipe: MegPreprocessing, raw_sfreq: float) -> np.ndarray:
    """Zero-phase FIR filter of a recipe, as MNE's default design makes it (Hamming window, linear phase).

    Returns:
        `np.ndarray` of shape `(n_taps,)`, an odd number, float64; unit gain in the pass band.
    """
    from mne.filter import create_filter

    return create_filter(None, raw_sfreq, recipe.high_pass, recipe.low_pass, verbose="ERROR")


def filter_continuous(data: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Filter each channel without delay.

    The ends are continued by odd reflection, as `mne.filter.filter_data` does (`pad="reflect_limited"`); overlap-add
    in single precision is 5 times faster than MNE's double precision and differs by less than 1e-5 of the amplitude.

    Args:
        data (`np.ndarray` of shape `(n_chans, n_times)`): Any unit.
        taps (`np.ndarray` of shape `(n_taps,)`): Odd number of taps.

    Returns:
        `np.ndarray` of shape `(n_chans, n_times)`, float32: relative to the filtered mean of each channel, which is
        taken off first because single precision would drown 1e-13 T in the offsets of a CTF system (1e-9 T).
    """
    from scipy.signal import oaconvolve

    half = len(taps) // 2
    reach = min(half, data.shape[1] - 1)
    kernel = taps.astype(np.float32)[None]
    filtered = np.empty(data.shape, dtype=np.float32)
    for start in range(0, len(data), FILTER_BLOCK):
        block = data[start : start + FILTER_BLOCK]
        block = block - block.mean(axis=1, keepdims=True)
        # 1e-13 T squared is near the smallest single-precision number
        scale = np.abs(block).max(axis=1, keepdims=True)
        scale[scale == 0] = 1.0
        block = (block / scale).astype(np.float32)
        left = 2 * block[:, :1] - block[:, reach:0:-1]
        right = 2 * block[:, -1:] - block[:, -2 : -reach - 2 : -1]
        padded = np.pad(np.concatenate([left, block, right], axis=1), ((0, 0), (half - reach, half - reach)))
        filtered[start : start + FILTER_BLOCK] = oaconvolve(padded, kernel, mode="valid", axes=1) * scale
    return filtered


def cut_epochs(
    filtered: np.ndarray, samples: np.ndarray, recipe: MegPreprocessing, raw_sfreq: float, scaling: str
) -> np.ndarray:
    """Cut windows at the events, refer each to its own baseline, and decimate from the exact onset sample.

    Nothing is shared between epochs, so nothing can leak from test to training data. Cutting before decimating
    keeps onsets exact; resampling the recording first would move them by up to half a sample of the slower rate.

    Args:
        filtered (`np.ndarray` of shape `(n_chans, n_times)`): Filtered recording.
        samples (`np.ndarray` of shape `(n,)`): Image onsets, samples of the recording.
        recipe (`MegPreprocessing`): Window and rate.
        raw_sfreq (`float`): Sampling rate of the recording in Hz.
        scaling (`str`): `"baseline_zscore"` subtracts mean and divides by standard deviation of the samples from
            `tmin` to onset, by epoch and channel; other values only subtract the mean.

    Returns:
        `np.ndarray` of shape `(n, n_chans, recipe.n_times)`, float32.

    Raises:
        DataError: If a window leaves the recording (the event is named by its index and sample) or a baseline is flat.
    """
    step = recipe.decimation(raw_sfreq)
    before, after = round(-recipe.tmin * raw_sfreq), round(recipe.tmax * raw_sfreq)
    epochs = np.empty((len(samples), len(filtered), recipe.n_times), dtype=np.float32)
    for row, onset in enumerate(np.asarray(samples, dtype=int)):
        if onset - before < 0 or onset + after >= filtered.shape[1]:
            raise DataError(
                f"event {row} at sample {onset} needs samples {onset - before} to {onset + after}, but the recording "
                f"holds samples 0 to {filtered.shape[1] - 1}"
            )
        window = filtered[:, onset - before : onset + after + 1]
        baseline = window[:, : before + 1]  # onset included, as MNE's (None, 0)
        epoch = window[:, ::step] - baseline.mean(axis=1, keepdims=True)
        if scaling == "baseline_zscore":
            spread = baseline.std(axis=1, keepdims=True)
            if not (spread > 0).all():
                raise DataError(
                    f"event {row} at sample {onset}: channel {int(np.argmin(spread))} is flat before onset"
                )
            epoch = epoch / spread
        epochs[row] = epoch
    return epochs
