"""Epochs cut out of continuous EEG and MEG recordings: files that mne reads, alone or in a BIDS data set."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.corpora.custom.epochs import EDGE, channels, history_of, strict_mne
from neural_clip.corpora.custom.manifest import Recording
from neural_clip.corpora.custom.opening import Opener, bids_tables, files_beside, open_bids, open_raw
from neural_clip.corpora.custom.trials import Trials
from neural_clip.corpora.sensor_places import sensor_places
from neural_clip.errors import DataError
from neural_clip.files.reading import reading
from neural_clip.files.tables import column, kept, numbers, read_table, unit_of_onsets
from neural_clip.preparation import resampled

if TYPE_CHECKING:
    import mne

STOPS = re.compile(
    r"New Segment/?.*|((BAD|EDGE)[ _])?boundary|BAD_ACQ_SKIP", re.IGNORECASE
)  # BrainVision; EEGLAB; mne


@dataclass(frozen=True)
class Window:
    """Samples of an epoch, counted from the sample of the onset at the recording's rate.

    Args:
        first, last (`int`): Of the whole window, both included.
        kept (`np.ndarray`): Those that are stored; all that are resampled.
        sfreq (`float`): Rate of what is stored in Hz.
        n_times (`int`): Samples that are stored.
        baseline (`tuple[int, int]`, *optional*): First and last whose mean is subtracted.
    """

    first: int
    last: int
    kept: np.ndarray
    sfreq: float
    n_times: int
    baseline: tuple[int, int] | None


def read_continuous(entry: Recording, modality: str, path: Path, root: Path) -> Trials:
    """Rows of a file that `mne.io.read_raw` reads, with a table of onsets.

    Raises:
        DataError: If a file is damaged, the table does not fit the recording, or a filter cannot be had.
    """
    table = root / str(entry.events)
    files = [table, *files_beside(path)]
    return _trials(entry, modality, path, table, partial(open_raw, path, entry), files)


def read_bids(entry: Recording, modality: str, root: Path) -> Trials:
    """Rows of a recording of the BIDS data set at `root`, with the onsets of its `events.tsv`.

    Raises:
        DataError: As [`read_continuous`], and if mne-bids is not installed or finds no such recording.
    """
    path, files = bids_tables(entry, modality, root)
    return _trials(entry, modality, path, files[0], partial(open_bids, entry, modality, root), files)


def _trials(entry: Recording, modality: str, path: Path, table: Path, opener: Opener, files: list[Path]) -> Trials:
    """Rows of a continuous recording."""
    raw, renamed = opener()
    rows = read_table(table)
    names = column(rows, entry.image_column, table)
    runs = column(rows, entry.run_column, table) if entry.run_column else [entry.run] * len(rows)
    sfreq = float(raw.info["sfreq"])
    window = _window(entry, sfreq, path)
    _check_filters(entry, sfreq, path)
    chosen, samples, dropped = onset_samples(raw, rows, entry, (window.first, window.last), path, table)
    ch_names = channels(raw, renamed, entry, modality, path)
    facts = {
        "ch_names": ch_names, "sfreq": window.sfreq, "tmin": float(window.kept[0] / sfreq), "n_times": window.n_times,
    }  # fmt: skip
    history = history_of(raw, ch_names)
    high, low = history["band"]
    low = low if entry.resample is None else min(low, window.sfreq / 2)  # its filter takes out what lies above
    history["band"] = (max(high, entry.high_pass or 0.0), min(low, entry.low_pass or low))
    if window.sfreq < sfreq:
        history["rate"] = "resampled" if entry.resample else "decimated"
    history["baseline"] = window.baseline and [sample / sfreq for sample in window.baseline]
    return Trials(
        entry,
        [names[i] for i in chosen],
        partial(_load, opener, path, entry, ch_names, samples, window),
        [runs[i] for i in chosen],
        chosen,
        facts,
        sorted({*files, *(Path(name) for name in raw.filenames if name is not None)}),
        dropped,
        sensor_places(raw.info, ch_names),
        history,
        (samples[:, np.newaxis] + [window.first, window.last + 1]) / sfreq,
        str(path),
    )


def onset_samples(
    raw: mne.io.BaseRaw, rows: list[dict[str, str]], entry: Recording, reach: tuple[int, int], path: Path,
    table: Path | str,
) -> tuple[np.ndarray, np.ndarray, int]:  # fmt: skip
    """Where the images of a table appear in a recording.

    Args:
        raw (`mne.io.BaseRaw`): The recording.
        rows (`list[dict[str, str]]`): Of the table, with `onset` in s from the first sample on.
        entry ([`Recording`]): Its `keep` and `bad_segments`.
        reach (`tuple[int, int]`): First and last sample of a window, from onset, both included.
        path, table (`Path`): What the two are called in messages.

    Returns:
        `tuple`: Rows of the table and samples of the recording, int `(n,)`; how many others were left out because of
        segments marked bad.

    Raises:
        DataError: If a window reaches beyond the recording or into a segment marked bad, or two events coincide.
    """
    chosen = np.flatnonzero(kept(rows, entry.keep, table))
    onsets = numbers([column(rows, "onset", table)[i] for i in chosen], "onset", table, chosen)
    samples = np.floor(onsets * raw.info["sfreq"] + 0.5).astype(int)
    _check_covered(raw, samples, onsets, chosen, reach, path, table)
    good = _outside_bad_segments(raw, samples, reach, entry, path)
    return chosen[good], samples[good], len(chosen) - int(good.sum())


def _window(entry: Recording, sfreq: float, path: Path) -> Window:
    """Samples from onset; every one that lies in `[tmin, tmax]`."""
    factor = _factor(entry, sfreq, path)
    tmin, tmax = float(entry.tmin or 0), float(entry.tmax or 0)
    first, last = _inside(tmin, tmax, sfreq)
    steps = _inside(tmin, tmax, sfreq / factor)
    kept_samples = factor * np.arange(steps[0], steps[1] + 1)
    if not kept_samples.size:
        raise DataError(f"'{path}': the window of {tmin:g} to {tmax:g} s holds no sample at {sfreq / factor:g} Hz.")
    rate, n_times = sfreq / factor, len(kept_samples)
    if entry.resample is not None:
        rate = entry.resample
        n_times = math.floor((last - first) / sfreq * rate + EDGE) + 1
        last = first + round((n_times - 1) * sfreq / rate)
        kept_samples = np.arange(first, last + 1)
    if entry.baseline is None:
        return Window(first, last, kept_samples, rate, n_times, None)
    begin = tmin if entry.baseline[0] is None else float(entry.baseline[0])
    end = tmax if entry.baseline[1] is None else float(entry.baseline[1])
    baseline = _inside(begin, end, sfreq)
    if baseline[0] > baseline[1] or begin < tmin - EDGE or end > tmax + EDGE:
        raise DataError(
            f"'{path}': the baseline of {begin:g} to {end:g} s must lie in the window of {tmin:g} to {tmax:g} s and "
            "hold a sample."
        )
    return Window(first, last, kept_samples, rate, n_times, baseline)


def _inside(begin: float, end: float, sfreq: float) -> tuple[int, int]:
    """First and last sample within `[begin, end]` s."""
    return math.ceil((begin - EDGE) * sfreq), math.floor((end + EDGE) * sfreq)


def _factor(entry: Recording, sfreq: float, path: Path) -> int:
    """Every how-many-th sample is kept."""
    if entry.resample is not None and entry.resample > sfreq:
        raise DataError(f"'{path}' has {sfreq:g} Hz; 'resample' can only lower that, but got {entry.resample:g} Hz.")
    if entry.decimate_to is None:
        return 1
    factor = round(sfreq / entry.decimate_to)
    if factor < 1 or abs(factor * entry.decimate_to - sfreq) > 1e-6 * sfreq:
        near = sorted({sfreq / max(math.floor(sfreq / entry.decimate_to) + i, 1) for i in (0, 1)})
        raise DataError(
            f"'{path}' has {sfreq:g} samples a second, of which 'decimate_to' can keep every second, third and so on: "
            f"{' or '.join(f'{rate:g}' for rate in near)} Hz, but got {entry.decimate_to:g} Hz."
        )
    stop_band = math.inf if entry.low_pass is None else entry.low_pass + max(0.25 * entry.low_pass, 2.0)  # mne's own
    if factor > 1 and stop_band > entry.decimate_to / 2:
        found = "there is none" if entry.low_pass is None else f"{entry.low_pass:g} Hz reaches up to {stop_band:g} Hz"
        raise DataError(
            f"'{path}': at {entry.decimate_to:g} Hz, whatever lies above {entry.decimate_to / 2:g} Hz comes back as "
            f"false slow waves. 'low_pass' must end below that, but {found}."
        )
    return factor


def _notches(entry: Recording) -> list[float]:
    """Frequencies in Hz."""
    if entry.notch is None:
        return []
    return [float(hertz) for hertz in (entry.notch if isinstance(entry.notch, list) else [entry.notch])]


def _check_filters(entry: Recording, sfreq: float, path: Path) -> None:
    """Frequencies that this recording can have."""
    for key, hertz in [("high_pass", entry.high_pass), ("low_pass", entry.low_pass)] + [
        ("notch", notch) for notch in _notches(entry)
    ]:
        if hertz is not None and hertz >= sfreq / 2:
            raise DataError(
                f"'{path}' has {sfreq:g} samples a second, so {key!r} must lie below {sfreq / 2:g} Hz, but got "
                f"{hertz:g} Hz."
            )
    if entry.high_pass is not None and entry.low_pass is not None and entry.high_pass >= entry.low_pass:
        raise DataError(
            f"'{path}': 'high_pass' ({entry.high_pass:g} Hz) must lie below 'low_pass' ({entry.low_pass:g})."
        )


def _check_covered(
    raw: mne.io.BaseRaw, samples: np.ndarray, onsets: np.ndarray, rows: np.ndarray, reach: tuple[int, int], path: Path,
    table: Path | str,
) -> None:  # fmt: skip
    """Every window lies in the recording, and no two events at one moment."""
    sfreq, (first, last) = raw.info["sfreq"], reach
    outside = np.flatnonzero((samples + first < 0) | (samples + last >= raw.n_times))
    if outside.size:
        i = outside[0]
        raise DataError(
            f"'{path}' lasts {raw.n_times / sfreq:g} s, but the windows of {outside.size} of {len(samples)} events "
            f"reach beyond its ends; the first is row {rows[i]} of '{table}', at {onsets[i]:g} s with a window of "
            f"{first / sfreq:g} to {last / sfreq:g} s. "
            + (unit_of_onsets(onsets, raw.n_times / sfreq, sfreq) or "Is 'onset' in s from the first sample on?")
        )
    order = np.argsort(samples, kind="stable")
    same = np.flatnonzero(np.diff(samples[order]) == 0)
    if same.size:
        one, other = rows[order[same[0]]], rows[order[same[0] + 1]]
        raise DataError(
            f"'{table}': rows {one} and {other} are events at the same moment of '{path}'. Choose rows by 'keep'."
        )


def _outside_bad_segments(
    raw: mne.io.BaseRaw, samples: np.ndarray, reach: tuple[int, int], entry: Recording, path: Path
) -> np.ndarray:
    """Which events' windows overlap no segment marked bad and no moment at which recording stopped; bool `(n,)`."""
    good, (first, last) = np.ones(len(samples), dtype=bool), reach
    if any(text.upper().startswith("BAD") for text in raw.annotations.description):
        with strict_mne(path):
            marked = np.isnan(raw.get_data(picks=[0], reject_by_annotation="NaN", verbose="error")[0])
        total = np.concatenate([[0], np.cumsum(marked)])
        good = total[samples + last + 1] == total[samples + first]
    start = raw.first_time if raw.annotations.orig_time is not None else 0.0
    for text, onset in zip(raw.annotations.description, raw.annotations.onset, strict=True):
        if STOPS.fullmatch(text):  # the sample here is the first after a pause of unknown length
            stop = round((onset - start) * raw.info["sfreq"])
            good &= (samples + first >= stop) | (samples + last < stop)
    if not good.any():
        raise DataError(f"'{path}': the windows of all {len(good)} events overlap segments marked bad, or pauses.")
    if entry.bad_segments == "refuse" and not good.all():
        raise DataError(
            f"'{path}': the windows of {int((~good).sum())} of {len(good)} events overlap segments marked bad, or "
            f"pauses, the first at {samples[~good][0] / raw.info['sfreq']:g} s. Leave them out by "
            "'bad_segments: drop'."
        )
    return good


def filtered(raw: mne.io.BaseRaw, entry: Recording, ch_names: list[str], path: Path) -> mne.io.BaseRaw:
    """Some channels of a recording, with the notch and band of its entry, for which it is loaded whole."""
    everything = np.arange(len(ch_names))  # all that was picked, of whatever type
    with strict_mne(path):
        raw.pick(ch_names, verbose="error")
        if _notches(entry) or entry.high_pass is not None or entry.low_pass is not None:
            raw.load_data(verbose="error")
        if _notches(entry):
            raw.notch_filter(_notches(entry), picks=everything, verbose="warning")
        if entry.high_pass is not None or entry.low_pass is not None:
            raw.filter(entry.high_pass, entry.low_pass, picks=everything, verbose="warning")
    return raw


def _load(
    opener: Opener, path: Path, entry: Recording, ch_names: list[str], samples: np.ndarray,
    window: Window,
) -> np.ndarray:  # fmt: skip
    """Filter the whole recording, then cut, subtract the baseline, decimate; float32 `(n, n_chans, n_times)`."""
    raw = filtered(opener()[0], entry, ch_names, path)
    values = np.empty((len(samples), len(ch_names), window.n_times), dtype=np.float32)
    for i, sample in enumerate(samples):
        with reading(path):
            start, stop = int(sample) + window.first, int(sample) + window.last + 1
            epoch = raw.get_data(picks=ch_names, start=start, stop=stop)  # (n_chans, window at the full rate)
        if window.baseline is not None:
            begin, end = window.baseline
            epoch = epoch - epoch[:, begin - window.first : end - window.first + 1].mean(axis=1, keepdims=True)
        if epoch.shape[1] > 1 and not np.ptp(epoch, axis=1).any():
            raise DataError(f"'{path}': every channel stands still in the epoch at {sample / raw.info['sfreq']:g} s.")
        epoch = epoch[:, window.kept - window.first]
        if entry.resample is not None:
            epoch = resampled(epoch, raw.info["sfreq"], window.sfreq)[:, : window.n_times]
        values[i] = epoch
    return values
