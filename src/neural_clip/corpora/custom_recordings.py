"""Recordings of one's own, file by file: what each row shows is known before any signal is loaded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

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
from neural_clip.corpora.custom_manifest import Manifest, Recording
from neural_clip.errors import DataError

if TYPE_CHECKING:
    import mne

CHANNEL_TYPES = ("eeg", "meg", "mag", "grad")
UNITS = {"eeg": "V", "meg": "T"}
EDGE = 1e-6  # s; times are sums of rounded decimals
# What mne's readers raise on damaged files.
FIF_ERRORS = (
    OSError, ValueError, EOFError, struct.error, KeyError, TypeError, IndexError, RuntimeError, AssertionError,
    AttributeError,
)  # fmt: skip


@dataclass
class Trials:
    """The rows of one file.

    Args:
        entry (`Recording`): Its entry in the manifest.
        shown (`list[str | int]`): What each row shows: a name, or the position of an image.
        load (`Callable`): Returns float32 `(n, n_chans, n_times)` or `(n, n_voxels)`.
        runs (`list[str]`): Run of each row.
        numbers (`np.ndarray` of shape `(n,)`): Index of each row in the source.
        facts (`dict`): `ch_names`, `sfreq` and `tmin` of EEG and MEG.
    """

    entry: Recording
    shown: list[str | int]
    load: Callable[[], np.ndarray]
    runs: list[str] = field(default_factory=list)
    numbers: np.ndarray = field(default_factory=lambda: np.array([], int))
    facts: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.runs:
            self.runs = [self.entry.run] * len(self.shown)
        if not self.numbers.size:
            self.numbers = np.arange(len(self.shown))


def read_trials(entry: Recording, manifest: Manifest, root: Path) -> Trials:
    """Read what the rows of one file show.

    Raises:
        DataError: If a file is missing, damaged or does not hold what its entry says.
    """
    path = existing(root / entry.file, "recording")
    if entry.kind == "epochs":
        return _epochs(entry, manifest, path)
    if entry.kind == "series":
        return _series(entry, path, root)
    return _patterns(entry, manifest, path, root)


def _epochs(entry: Recording, manifest: Manifest, path: Path) -> Trials:
    """Rows of an `mne.Epochs` file."""
    epochs = _open_epochs(path)
    if epochs.metadata is None:
        raise DataError(
            f"'{path}' has no metadata, so nothing names the images. Set `epochs.metadata` and save again."
        )
    rows = [{str(key): str(value) for key, value in row.items()} for row in epochs.metadata.to_dict("records")]
    chosen = np.flatnonzero(kept(rows, entry.keep, path))
    names = column(rows, entry.image_column, path)
    runs = column(rows, entry.run_column, path) if entry.run_column else [entry.run] * len(rows)
    ch_names = _channels(epochs, entry, manifest.modality, path)
    times = np.flatnonzero(
        (epochs.times >= (-np.inf if entry.tmin is None else entry.tmin) - EDGE)
        & (epochs.times <= (np.inf if entry.tmax is None else entry.tmax) + EDGE)
    )
    if not times.size:
        raise DataError(f"'{path}' spans {epochs.tmin} to {epochs.tmax} s; 'tmin' and 'tmax' leave no sample of it.")

    def load() -> np.ndarray:
        import mne

        loaded = _open_epochs(path)
        picks = mne.pick_channels(loaded.ch_names, ch_names, ordered=True)
        try:
            data = loaded.get_data(verbose="error")
        except FIF_ERRORS as error:
            raise DataError(f"'{path}' cannot be read: {error}. Is it damaged or truncated?") from error
        if len(data) != len(rows):
            raise DataError(f"'{path}' holds {len(data)} epochs, but its metadata {len(rows)} rows.")
        return data[np.ix_(chosen, picks, times)].astype(np.float32)

    return Trials(
        entry,
        [names[i] for i in chosen],
        load,
        [runs[i] for i in chosen],
        np.asarray(epochs.selection)[chosen],
        {"ch_names": ch_names, "sfreq": float(epochs.info["sfreq"]), "tmin": float(epochs.times[times[0]])},
    )


def _open_epochs(path: Path) -> mne.Epochs:
    import mne

    try:
        return mne.read_epochs(path, preload=False, verbose="error")
    except FIF_ERRORS as error:
        raise DataError(f"'{path}' cannot be read as mne.Epochs: {error}. Is it damaged or truncated?") from error


def _channels(epochs: mne.Epochs, entry: Recording, modality: str, path: Path) -> list[str]:
    """Names of the channels to take, in order."""
    kinds = dict(zip(epochs.ch_names, epochs.get_channel_types(), strict=True))
    wanted = entry.picks or [modality]
    if set(wanted) <= set(CHANNEL_TYPES):
        types = {"mag", "grad"} if "meg" in wanted else set(wanted)
        names = [name for name, kind in kinds.items() if kind in types]
    else:
        names = [str(name) for name in wanted]
        lacking = [name for name in names if name not in kinds]
        if lacking:
            raise DataError(f"'{path}' has no channel {lacking[0]!r}; it has {', '.join(list(kinds)[:8])} ...")
    if not names:
        raise DataError(f"'{path}' has no channel of type {wanted}; it has types {sorted(set(kinds.values()))}.")
    found = {kinds[name] for name in names}
    if len(found) > 1:
        raise DataError(
            f"'{path}': channels of different units, {sorted(found)}; choose by 'picks', for example [mag]."
        )
    bads = [name for name in names if name in epochs.info["bads"]]
    if bads:
        raise DataError(
            f"'{path}': channels marked bad: {', '.join(bads)}. Interpolate them or leave them out by 'picks'."
        )
    return names


def _series(entry: Recording, path: Path, root: Path) -> Trials:
    """Rows of an fMRI run: averages of volumes some seconds after each onset."""
    if entry.events is None:
        raise DataError(f"'{path}': recordings of kind 'series' need 'events', a table of onsets.")
    table = root / entry.events
    rows = read_table(table)
    rows = [row for row, keep in zip(rows, kept(rows, entry.keep, table), strict=True) if keep]
    onsets = numbers(column(rows, "onset", table), "onset", table)
    names: list[str | int] = list(column(rows, entry.image_column, table))
    if entry.block_step is not None:
        durations = numbers(column(rows, "duration", table), "duration", table)
        onsets, names = _cut_blocks(onsets, durations, names, entry.block_step)

    def load() -> np.ndarray:
        data, header_t_r = read_volumes(path, None if entry.mask is None else root / entry.mask, entry.data_key)
        t_r = _repetition_time(entry, header_t_r, path)
        return _averaged(_cleaned(data, entry), onsets, t_r, entry, path)

    return Trials(entry, names, load)


def _cut_blocks(onsets: np.ndarray, durations: np.ndarray, names: list, step: float) -> tuple[np.ndarray, list]:
    """Onsets every `step` s within each block."""
    if step <= 0:
        raise DataError(f"Invalid value for 'block_step'. Allowed are numbers above 0, but got {step}.")
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

        data = scipy.signal.detrend(data, axis=0).astype(np.float32) + data.mean(axis=0)
    if entry.standardise == "run":
        deviation = data.std(axis=0)
        data = (data - data.mean(axis=0)) / np.where(deviation > 0, deviation, 1)  # constant voxels become 0
    return data


def _averaged(data: np.ndarray, onsets: np.ndarray, t_r: float, entry: Recording, path: Path) -> np.ndarray:
    """Mean over the volumes that start in the window after each onset; `(n_events, n_voxels)`."""
    starts = np.arange(len(data)) * t_r
    averages = np.empty((len(onsets), data.shape[1]), dtype=np.float32)
    for i, onset in enumerate(onsets):
        first, last = onset + entry.window[0], onset + entry.window[1]
        inside = (starts >= first - EDGE) & (starts < last - EDGE)
        if not inside.any() or last > len(data) * t_r + EDGE:
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
        n_rows = len(_pattern_values(entry, manifest, path, root))
        shown = [int(entry.first_image or 0) + row for row in range(n_rows)]
    if (entry.keep or entry.run_column) and not rows:
        raise DataError(f"'{path}': 'keep' and 'run_column' need a table of 'events'.")
    chosen = np.flatnonzero(kept(rows, entry.keep, entry.events)) if rows else np.arange(len(shown))
    runs = column(rows, entry.run_column, entry.events) if entry.run_column else [entry.run] * len(shown)

    def load() -> np.ndarray:
        values = _pattern_values(entry, manifest, path, root)
        if len(values) != len(shown):
            raise DataError(f"'{path}' holds {len(values)} patterns, but {len(shown)} rows tell what they show.")
        return values[chosen]

    facts = {} if manifest.modality == "fmri" else {"sfreq": manifest.sfreq, "tmin": manifest.tmin}
    return Trials(entry, [shown[i] for i in chosen], load, [runs[i] for i in chosen], chosen, facts)


def _image_index(entry: Recording, path: Path) -> list[str | int]:
    """Names, or positions counted from 0."""
    index = np.ravel(read_array(path, entry.image_key))
    if index.dtype.kind in "US":
        return [str(name) for name in index]
    if entry.index_base is None:
        raise DataError(
            f"'{path}': array {entry.image_key!r} holds numbers; say by 'index_base' if they begin at 0 or 1."
        )
    if not np.array_equal(index, np.round(index)) or index.min() < entry.index_base:
        raise DataError(f"'{path}': array {entry.image_key!r} must hold whole numbers from {entry.index_base}.")
    return [int(number) - entry.index_base for number in index]


def _pattern_values(entry: Recording, manifest: Manifest, path: Path, root: Path) -> np.ndarray:
    if manifest.modality == "fmri":
        return read_volumes(path, None if entry.mask is None else root / entry.mask, entry.data_key)[0]
    if is_nifti(path) or entry.mask is not None:
        raise DataError(f"'{path}': NIfTI files and masks are for fMRI, but the modality is {manifest.modality!r}.")
    values = read_array(path, entry.data_key)
    if values.ndim != 3 or values.dtype.kind not in "biuf":
        raise DataError(
            f"'{path}' holds {values.dtype} {values.shape}; expected numbers (n_trials, n_chans, n_times)."
        )
    return values.astype(np.float32)
