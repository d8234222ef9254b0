"""Epochs of EEG and MEG, cut out of recordings that stay on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.reading import reading
from neural_clip.preparation import Preparation, Recorded, prepared_sensors
from neural_clip.prepared.units import check_unit

BATCH = 128  # epochs at a time


@dataclass(frozen=True)
class Signals:
    """A recording that is opened and not loaded.

    Args:
        path (`Path`): The file, for messages.
        cut (`Callable`): Gives `(n_chans, end - first)` values in V of the samples from `first` to before `end`.
        n_times (`int`): Samples of the recording.
        sfreq (`float`): Their rate in Hz.
        ch_names (`Sequence[str]`): Channels, in the order of the values.
    """

    path: Path
    cut: Callable[[int, int], np.ndarray]
    n_times: int
    sfreq: float
    ch_names: Sequence[str]


def cut_epochs(
    signals: Signals, onsets: np.ndarray, window: tuple[float, float], spec: Mapping, preparation: Preparation
) -> Iterator[np.ndarray]:
    """Epochs of some onsets.

    Args:
        signals (`Signals`): The recording.
        onsets (`np.ndarray` of shape `(n,)`): Its samples at which images appear, in order of time.
        window (`tuple[float, float]`): What is cut, in s from onset: it holds baseline and rows.
        spec (`Mapping`): `n_times`, `sfreq` and `tmin` of the rows.
        preparation (`Preparation`): What rows go through before they are scaled.

    Yields:
        `np.ndarray` of shape `(n_chans, n_times)`: float64, in V, minus the mean of the baseline.

    Raises:
        DataError: If the file is damaged, an epoch is not within it, or values are not finite or in another unit.
    """
    before, after = (round(abs(edge) * signals.sfreq) for edge in window)
    for start in range(0, len(onsets), BATCH):
        some = onsets[start : start + BATCH]
        if some[0] < before or some[-1] + after >= signals.n_times:
            raise DataError(
                f"'{signals.path}' has {signals.n_times} samples, too few for an event at sample "
                f"{some[0] if some[0] < before else some[-1]}. Do its events belong to another file?"
            )
        with reading(signals.path):
            values = np.stack([signals.cut(onset - before, onset + after + 1) for onset in some.tolist()])
        if not np.isfinite(values).all():
            raise DataError(f"'{signals.path}' holds values that are not finite (NaN or infinite).")
        if start == 0:
            centred = values - values.mean(axis=2, keepdims=True)
            check_unit(centred, "V", f"'{signals.path}'", signals.ch_names, " Get the file again.")
        recorded = Recorded(values, "V", signals.sfreq, -before / signals.sfreq)
        yield from prepared_sensors(recorded, spec, preparation)
