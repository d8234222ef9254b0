"""Signals of ImageNetEEG: filters, window and scaling of its recordings, each half a second long.

Filters are Butterworth filters of order 2, run forwards and backwards so that phases are kept (the orders add up to
4), by `mne.filter` in double precision over the whole recording before the window is cut; MNE continues the recording
at its ends by odd reflection. Half a second is short for that: for about one period of the lowest frequency passed,
both ends are shaped by the continuation, not by the recording. In white noise cut out of a longer recording and
band-passed from 14 to 70 Hz, the error is a third of the signal 40 samples from an end and below 2 % from 60 samples
on; band-passed from 5 to 95 Hz, it is two thirds at 40 samples and a fifth still at 100. Of a 50 Hz line a notch
leaves less than 8 % of the amplitude 100 and more samples from both ends, but half of it 40 samples from an end;
narrower stop bands ring for longer and leave more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.errors import DataError, check_value

if TYPE_CHECKING:
    from neural_clip.corpora.imagenet_eeg.layout import Trials


SFREQ = 1000.0
"""Sampling rate of all files in Hz."""
FILTER_ORDER = 2
MICRO = 1e6
"""The raw file is in microvolts."""
NOTCH_HALF_WIDTH = 3.0
"""Half width of the stop band in Hz: 47 to 53 Hz are what an early script of the releasers takes out."""


@dataclass(frozen=True)
class Signals:
    """How the values of a prepared recording come from a trial, but for the scaling fitted on training trials.

    Args:
        window (`tuple[int, int]`): First sample and end (exclusive).
        band_pass (`tuple[float, float]`, *optional*): Edges of the pass band in Hz.
        notch (`float`, *optional*): Line frequency in Hz.
        released (`tuple[np.ndarray, np.ndarray]`, *optional*): What to subtract from and divide by each channel before
            the filters, both of shape `(n_chans, 1)`.
    """

    window: tuple[int, int]
    band_pass: tuple[float, float] | None = None
    notch: float | None = None
    released: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def filtered(self) -> bool:
        """Whether there is a filter."""
        return self.band_pass is not None or self.notch is not None

    @property
    def applied_scale(self) -> tuple[np.ndarray, np.ndarray] | None:
        """`released` as it acts on filtered values: a pass band takes the mean out."""
        if self.released is None or self.band_pass is None:
            return self.released
        mean, std = self.released
        return np.zeros_like(mean), std

    def check_length(self, data: Trials, trials: Sequence[int]) -> None:
        """Require that the window lies within all the trials.

        Raises:
            DataError: If it ends after one of them.
        """
        end = self.window[1]
        short = next((i for i in trials if data.length[i] < end), None)
        if short is not None:
            raise DataError(
                f"Trial {short} of '{data.path}' has {data.length[short]} samples, fewer than the end of the 'window' "
                f"parameter, {end}. Choose another window or drop such trials with the 'length_range' parameter."
            )

    def cut(self, data: Trials, i: int) -> np.ndarray:
        """Values of trial `i`, float64 of shape `(n_chans, window length)`.

        Raises:
            DataError: If a value is not finite.
        """
        first, end = self.window
        values = (data.eeg[i] if self.filtered else data.eeg[i][:, first:end]).double().numpy()
        if not np.isfinite(values).all():
            raise DataError(f"Trial {i} of '{data.path}' holds values that are not finite (NaN or infinite).")
        if self.released is not None:
            values = (values - self.released[0]) / self.released[1]
        if not self.filtered:
            return values
        if self.band_pass is not None:
            values = _filtered(values, *self.band_pass)
        if self.notch is not None:  # a pass band that begins above its end is a stop band
            values = _filtered(values, self.notch + NOTCH_HALF_WIDTH, self.notch - NOTCH_HALF_WIDTH)
        return values[:, first:end]


def _filtered(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Pass `low` to `high` Hz, or stop `high` to `low`, without shifting phases."""
    from mne.filter import filter_data

    design = {"order": FILTER_ORDER, "ftype": "butter", "output": "sos"}
    return filter_data(values, SFREQ, low, high, method="iir", iir_params=design, phase="zero", verbose="ERROR")


def check_filters(variant: str, band_pass: Sequence[float] | None, notch: float | None) -> None:
    """Refuse filters that cannot be made, and filters of what the releasers filtered already.

    Raises:
        DataError: If so.
    """
    if variant != "raw" and (band_pass is not None or notch is not None):
        raise DataError(
            f"Invalid value for the 'variant' parameter. The 'band_pass' and 'notch' parameters are for the raw file, "
            f"'raw', but got '{variant}', which the releasers filtered."
        )
    nyquist = SFREQ / 2
    fits = band_pass is None or (len(band_pass) == 2 and 0 < band_pass[0] < band_pass[1] < nyquist)
    check_value("band_pass", band_pass, fits, f"two frequencies in Hz, 0 < low < high < {nyquist:g}")
    low, high = NOTCH_HALF_WIDTH, nyquist - NOTCH_HALF_WIDTH
    fits = notch is None or low < notch < high
    check_value("notch", notch, fits, f"a frequency in Hz above {low:g} and below {high:g}")


def fit_scale(data: Trials, train: Sequence[int], signals: Signals) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over all samples of training trials.

    Returns:
        Two float64 arrays of shape `(n_chans, 1)`; the deviation of a constant channel is given as 1.
    """
    n = len(train) * (signals.window[1] - signals.window[0])
    mean = sum(signals.cut(data, i).sum(1, keepdims=True) for i in train) / n
    variance = sum(((signals.cut(data, i) - mean) ** 2).sum(1, keepdims=True) for i in train) / n
    return mean, np.where(variance > 0, np.sqrt(variance), 1.0)


def released_scale(data: Trials) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel as the raw file states them; their scope is not stated anywhere.

    Returns:
        Two float64 arrays of shape `(n_chans, 1)`, in the unit of the file (microvolts).

    Raises:
        DataError: If there are none, their shape is neither `(n_chans,)` nor `(n_chans, 1)`, a value is not finite,
            or a standard deviation is not above 0.
    """
    scale = {}
    for name, value in (("means", data.means), ("stddevs", data.stddevs)):
        if value is None:
            raise DataError(f"'{data.path}' has no entry '{name}', which the value 'released' of 'standardize' needs.")
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"'{name}' of '{data.path}' should be numbers: {error}.") from error
        if array.shape not in ((data.n_chans,), (data.n_chans, 1)):
            raise DataError(
                f"'{name}' of '{data.path}' has shape {array.shape}; allowed are ({data.n_chans},) and "
                f"({data.n_chans}, 1), one number a channel."
            )
        good = np.isfinite(array) & ((array > 0) | (name == "means"))
        if not good.all():
            channel = int(np.argmin(good.ravel()))
            raise DataError(
                f"'{name}' of '{data.path}' is {array.ravel()[channel]} for channel {channel}; allowed are finite "
                "numbers, above 0 for stddevs."
            )
        scale[name] = array.reshape(-1, 1)
    return scale["means"], scale["stddevs"]
