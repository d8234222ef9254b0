"""Recordings of one's own, file by file: one reader for each kind."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from neural_clip.corpora.custom_arrays import (
    column,
    existing,
    is_nifti,
    kept,
    numbers,
    read_array,
    read_table,
    read_volumes,
)
from neural_clip.corpora.custom_continuous import read_bids, read_continuous
from neural_clip.corpora.custom_epochs import read_epochs
from neural_clip.corpora.custom_manifest import Manifest, Recording
from neural_clip.corpora.custom_trials import Trials
from neural_clip.errors import DataError

# s; a header keeps the repetition time with 24 bits, which puts the start of the thousandth volume off by some 1e-5 s.
EDGE = 1e-4


def read_trials(entry: Recording, manifest: Manifest, root: Path) -> Trials:
    """Read what the rows of one file show.

    Raises:
        DataError: If a file is missing, damaged or does not hold what its entry says.
    """
    if entry.kind == "bids":
        return read_bids(entry, manifest.modality, root / entry.file)
    if entry.kind == "continuous":
        return read_continuous(entry, manifest.modality, root / entry.file, root)
    path = existing(root / entry.file, "recording")
    if entry.kind == "epochs":
        return read_epochs(entry, manifest.modality, path)
    if entry.kind == "series":
        return _series(entry, path, root)
    return _patterns(entry, manifest, path, root)


def _files(entry: Recording, path: Path, root: Path) -> list[Path]:
    """What the rows of an array depend on."""
    tables = [("table", entry.events), ("mask", entry.mask)]
    return [path, *(existing(root / name, what) for what, name in tables if name is not None)]


def _series(entry: Recording, path: Path, root: Path) -> Trials:
    """Rows of an fMRI run: averages of volumes some seconds after each onset."""
    table = root / str(entry.events)
    rows = read_table(table)
    chosen = np.flatnonzero(kept(rows, entry.keep, table))
    rows = [rows[i] for i in chosen]
    onsets = numbers(column(rows, "onset", table), "onset", table, chosen)
    names: list[str | int] = list(column(rows, entry.image_column, table))
    if entry.block_step is not None:
        durations = numbers(column(rows, "duration", table), "duration", table, chosen)
        onsets, names = _cut_blocks(onsets, durations, names, entry.block_step)
    return Trials(entry, names, partial(_load_series, entry, path, root, onsets), files=_files(entry, path, root))


def _load_series(entry: Recording, path: Path, root: Path, onsets: np.ndarray) -> np.ndarray:
    """Averages after each onset, `(n, n_voxels)`."""
    data, header_t_r = read_volumes(path, None if entry.mask is None else root / entry.mask, entry.data_key)
    t_r = _repetition_time(entry, header_t_r, path)
    return _averaged(_cleaned(data, entry), onsets, t_r, entry, path)


def _cut_blocks(onsets: np.ndarray, durations: np.ndarray, names: list, step: float) -> tuple[np.ndarray, list]:
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


def _averaged(data: np.ndarray, onsets: np.ndarray, t_r: float, entry: Recording, path: Path) -> np.ndarray:
    """Mean over the volumes that start in the window after each onset; `(n_events, n_voxels)`."""
    starts = np.arange(len(data)) * t_r
    averages = np.empty((len(onsets), data.shape[1]), dtype=np.float32)
    for i, onset in enumerate(onsets):
        first, last = onset + entry.window[0], onset + entry.window[1]
        inside = (starts >= first - EDGE) & (starts < last - EDGE)
        if not inside.any() or first < -EDGE or last > len(data) * t_r + EDGE:
            raise DataError(
                f"'{path}' lasts {len(data) * t_r:g} s in volumes of {t_r:g} s; the window of {first:g} to {last:g} s "
                f"after the onset at {onset:g} s is not covered."
            )
        averages[i] = data[inside].mean(axis=0)
    return averages


def _patterns(entry: Recording, manifest: Manifest, path: Path, root: Path) -> Trials:
    """Rows that are ready: one array row or NIfTI volume a trial."""
    ways = [entry.image_key, entry.events, entry.first_image]
    if sum(way is not None for way in ways) != 1:
        raise DataError(
            f"'{path}': give exactly one of 'image_key', 'events' and 'first_image' to tell what rows show."
        )
    rows: list[dict] = []
    if entry.events is not None:
        rows = read_table(root / entry.events)
        shown: list[str | int] = list(column(rows, entry.image_column, root / entry.events))
    elif entry.image_key is not None:
        shown = _image_index(entry, path)
    else:
        n_rows = len(_pattern_values(entry, manifest.modality, path, root))
        shown = [int(entry.first_image or 0) + row for row in range(n_rows)]
    if (entry.keep or entry.run_column) and not rows:
        raise DataError(f"'{path}': 'keep' and 'run_column' need a table of 'events'.")
    chosen = np.flatnonzero(kept(rows, entry.keep, entry.events)) if rows else np.arange(len(shown))
    runs = column(rows, entry.run_column, entry.events) if entry.run_column else [entry.run] * len(shown)
    facts = {} if manifest.modality == "fmri" else {"sfreq": manifest.sfreq, "tmin": manifest.tmin}
    load = partial(_load_patterns, entry, manifest.modality, path, root, len(shown), chosen)
    files = _files(entry, path, root)
    return Trials(entry, [shown[i] for i in chosen], load, [runs[i] for i in chosen], chosen, facts, files)


def _load_patterns(
    entry: Recording, modality: str, path: Path, root: Path, n_rows: int, chosen: np.ndarray
) -> np.ndarray:
    """Values of the chosen rows."""
    values = _pattern_values(entry, modality, path, root)
    if len(values) != n_rows:
        raise DataError(f"'{path}' holds {len(values)} patterns, but {n_rows} rows tell what they show.")
    return values[chosen]


def _image_index(entry: Recording, path: Path) -> list[str | int]:
    """Names, or positions counted from 0."""
    index = np.ravel(read_array(path, entry.image_key))
    if index.dtype.kind in "US":
        return [str(name) for name in index]
    if entry.index_base is None:
        raise DataError(
            f"'{path}': array {entry.image_key!r} holds numbers; say by 'index_base' if they begin at 0 or 1."
        )
    if not index.size or not np.array_equal(index, np.round(index)) or index.min() < entry.index_base:
        raise DataError(f"'{path}': array {entry.image_key!r} must hold whole numbers from {entry.index_base}.")
    return [int(number) - entry.index_base for number in index]


def _pattern_values(entry: Recording, modality: str, path: Path, root: Path) -> np.ndarray:
    if modality == "fmri":
        return read_volumes(path, None if entry.mask is None else root / entry.mask, entry.data_key)[0]
    if is_nifti(path) or entry.mask is not None:
        raise DataError(f"'{path}': NIfTI files and masks are for fMRI, but the modality is {modality!r}.")
    values = read_array(path, entry.data_key)
    if values.ndim != 3 or values.dtype.kind not in "biuf":
        raise DataError(
            f"'{path}' holds {values.dtype} {values.shape}; expected numbers (n_trials, n_chans, n_times)."
        )
    return values.astype(np.float32)
