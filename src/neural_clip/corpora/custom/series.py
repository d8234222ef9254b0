"""fMRI time series: volumes cut and averaged around events."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from neural_clip.corpora.custom.manifest import Recording
from neural_clip.corpora.custom.trials import Trials, files_of
from neural_clip.errors import DataError
from neural_clip.files.tables import column, kept, numbers, read_table, unit_of_onsets
from neural_clip.files.volumes import read_volumes

# s; a header keeps the repetition time with 24 bits, which puts the start of the thousandth volume off by some 1e-5 s.
EDGE = 1e-4


def read_series(entry: Recording, path: Path, root: Path) -> Trials:
    """Rows of an fMRI run: averages of volumes some seconds after each onset."""
    table = root / str(entry.events)
    rows = read_table(table)
    chosen = np.flatnonzero(kept(rows, entry.keep, table))
    rows = [rows[i] for i in chosen]
    onsets = numbers(column(rows, "onset", table), "onset", table, chosen)
    names: list[str | int] = list(column(rows, entry.image_column, table))
    if entry.block_step is not None:
        durations = numbers(column(rows, "duration", table), "duration", table, chosen)
        onsets, names = cut_blocks(onsets, durations, names, entry.block_step)
    load, files = partial(_load_series, entry, path, root, onsets), files_of(entry, path, root)
    windows = onsets[:, np.newaxis] + np.asarray(entry.window, dtype=np.float64)
    return Trials(entry, names, load, files=files, windows=windows, source=str(path))


def _load_series(entry: Recording, path: Path, root: Path, onsets: np.ndarray) -> np.ndarray:
    """Averages after each onset, `(n, n_voxels)`."""
    data, header_t_r = read_volumes(path, None if entry.mask is None else root / entry.mask, entry.data_key)
    t_r = _repetition_time(entry, header_t_r, path)
    return averaged(_cleaned(data, entry), onsets, t_r, entry, path)


def cut_blocks(onsets: np.ndarray, durations: np.ndarray, names: list, step: float) -> tuple[np.ndarray, list]:
    """Onsets every `step` s within each block."""
    counts = np.maximum(np.floor(durations / step + EDGE).astype(int), 1)
    cut = np.concatenate([onset + step * np.arange(count) for onset, count in zip(onsets, counts, strict=True)])
    return cut, [name for name, count in zip(names, counts, strict=True) for _ in range(count)]


def _repetition_time(entry: Recording, header: float | None, path: Path) -> float:
    if entry.t_r is None and header is None:
        raise DataError(f"'{path}' does not tell its repetition time; give 't_r' in s.")
    if entry.t_r is not None and header is not None and abs(entry.t_r - header) > 1e-3:
        raise DataError(f"'{path}' has a repetition time of {header} s in its header, but 't_r' is {entry.t_r} s.")
    return float(entry.t_r if header is None else header)  # type: ignore[arg-type]


def _cleaned(data: np.ndarray, entry: Recording) -> np.ndarray:
    """Detrended and standardised by this run alone."""
    if entry.detrend == "linear":
        import scipy.signal

        mean = data.mean(axis=0, dtype=np.float64)
        data = (scipy.signal.detrend(data.astype(np.float64), axis=0) + mean).astype(np.float32)
    if entry.standardise == "run":
        deviation = data.std(axis=0, dtype=np.float64)
        centred = data - data.mean(axis=0, dtype=np.float64)
        data = (centred / np.where(deviation > 0, deviation, 1)).astype(np.float32)  # constant voxels become 0
    return data


def averaged(data: np.ndarray, onsets: np.ndarray, t_r: float, entry: Recording, path: Path) -> np.ndarray:
    """Mean over the volumes that start in the window after each onset; `(n_events, n_voxels)`."""
    starts = np.arange(len(data)) * t_r
    averages = np.empty((len(onsets), data.shape[1]), dtype=np.float32)
    for i, onset in enumerate(onsets):
        first, last = onset + entry.window[0], onset + entry.window[1]
        inside = (starts >= first - EDGE) & (starts < last - EDGE)
        if not inside.any() or first < -EDGE or last > len(data) * t_r + EDGE:
            raise DataError(
                f"'{path}' lasts {len(data) * t_r:g} s in volumes of {t_r:g} s; the window of {first:g} to {last:g} s "
                f"after the onset at {onset:g} s is not covered. {unit_of_onsets(onsets, len(data) * t_r)}".rstrip()
            )
        averages[i] = data[inside].mean(axis=0)
    return averages
