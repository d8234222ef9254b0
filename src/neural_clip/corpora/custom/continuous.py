"""Epochs cut out of continuous EEG and MEG recordings: files that mne reads, alone or in a BIDS data set."""

from __future__ import annotations

import glob
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.corpora.custom.edf import EDF_SUFFIXES, channels_to_read
from neural_clip.corpora.custom.epochs import EDGE, channels, fif_parts, history_of, strict_mne
from neural_clip.corpora.custom.manifest import Recording
from neural_clip.corpora.custom.trials import Trials
from neural_clip.corpora.sensor_places import sensor_places
from neural_clip.errors import DataError, did_you_mean
from neural_clip.files.reading import HEAD, check_no_pipe, existing, reading
from neural_clip.files.tables import column, kept, numbers, read_table, unit_of_onsets
from neural_clip.preparation import resampled

if TYPE_CHECKING:
    import mne
    import mne_bids


Opener = Callable[[], "tuple[mne.io.BaseRaw, set[str]]"]  # a recording, and channel names that occur twice in it
STOPS = re.compile(
    r"New Segment/?.*|((BAD|EDGE)[ _])?boundary|BAD_ACQ_SKIP", re.IGNORECASE
)  # BrainVision; EEGLAB; mne
SAMPLE_BYTES = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}  # of BrainVision's binary formats


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
    if not path.exists():
        raise DataError(f"There is no recording '{path}'.")
    table = root / str(entry.events)
    # A recording can be a folder (CTF), or several files of one name (BrainVision).
    beside = path.rglob("*") if path.is_dir() else path.parent.glob(glob.escape(path.stem) + ".*")
    files = [table, *_files(beside)]
    return _trials(entry, modality, path, table, partial(_open_raw, path, entry), files)


def read_bids(entry: Recording, modality: str, root: Path) -> Trials:
    """Rows of a recording of the BIDS data set at `root`, with the onsets of its `events.tsv`.

    Raises:
        DataError: As [`read_continuous`], and if mne-bids is not installed or finds no such recording.
    """
    if not root.is_dir():
        raise DataError(f"There is no BIDS data set '{root}'.")
    path = _bids_path(entry, modality, root)
    _files([*root.glob("*"), *Path(path.directory).glob("*")])
    with reading(path.basename):
        table = path.find_matching_sidecar(suffix="events", extension=".tsv", on_error="ignore")
        sidecar = path.find_matching_sidecar(suffix="channels", extension=".tsv", on_error="ignore")
    if table is None:
        raise _no_recording(path, root)
    files = [Path(table), *([] if sidecar is None else [Path(sidecar)])]
    return _trials(entry, modality, Path(path.basename), files[0], partial(_open_bids, entry, modality, root), files)


def _no_recording(path: mne_bids.BIDSPath, root: Path) -> DataError:
    """Which entity of a name the data set does not have; or that the recording lacks its events."""
    import mne_bids

    for name in ("subject", "session", "task", "run", "datatype"):
        value = path.datatype if name == "datatype" else path.entities[name]
        known = mne_bids.get_datatypes(root) if name == "datatype" else mne_bids.get_entity_vals(root, name)
        if value is not None and value not in known:
            has = f"it has {', '.join(map(repr, known))}" if known else "it has none"
            return DataError(f"The BIDS data set '{root}' has no {name} '{value}'; {has}.{did_you_mean(value, known)}")
    return DataError(f"The BIDS data set '{root}' has no events.tsv of '{path.basename}'.")


def _files(paths: Iterable[Path]) -> list[Path]:
    """Those that are files; a `DataError` where one is a pipe, at which mne would wait."""
    there = [path for path in paths if path.exists()]
    for path in there:
        check_no_pipe(path, "recording")
    return [path for path in there if path.is_file()]


def _open_raw(path: Path, entry: Recording) -> tuple[mne.io.BaseRaw, set[str]]:
    """The recording, not loaded yet, and the names of channels that occur twice in it."""
    import mne

    with strict_mne(path, " by mne.io.read_raw") as renamed:
        raw = mne.io.read_raw(path, preload=False, verbose="warning", **_checked_file(path, entry))
        raw.get_channel_types()  # fails on types that there are not
    return raw, renamed


def _checked_file(path: Path, entry: Recording) -> dict:
    """Check what mne does not, and give options for its reader."""
    if path.is_file():
        existing(path, "recording")
    fif_parts(path)
    suffix = path.suffix.lower()
    options: dict[str, Any] = {}
    if suffix == ".ds":
        if lacking := [ending for ending in (".res4", ".meg4") if not any(path.glob(f"*{ending}"))]:
            raise DataError(f"'{path}' cannot be read: the CTF recording is incomplete, it has no {lacking[0]} file.")
        # A system clock that stands still does not end a CTF recording: heads may have been localised in between.
        options = {"system_clock": "ignore"}
    elif suffix in EDF_SUFFIXES and (names := channels_to_read(path, entry.picks)):
        options = {"include": names}
    elif suffix == ".vhdr":
        _check_brainvision(path)
    return options


def _check_brainvision(header: Path) -> None:
    """What mne takes from the header in silence: names that occur twice, and a data file that was cut off."""
    text = existing(header, "recording").read_text(encoding="latin-1")
    if not re.match(r"\W*Brain ?Vision", text[:HEAD], re.IGNORECASE):
        raise DataError(f"'{header}' is no header of BrainVision: it begins with {text[:20]!r}.")
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[] \t").casefold(), {})
        elif not line.startswith(";"):
            key, _, value = line.partition("=")
            section[key.strip()] = value.strip()
    facts = sections.get("common infos", {}) | sections.get("binary infos", {})
    names = [value.split(",")[0] for value in sections.get("channel infos", {}).values() if value]
    if facts.get("NumberOfChannels") != str(len(names)):
        raise DataError(
            f"'{header}' announces {facts.get('NumberOfChannels')} channels, but names {len(names)}. Is it damaged?"
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:  # mne cannot read these at all
        raise DataError(f"'{header}': the channel names are not unique: {', '.join(repeated)}. Rename them in it.")
    width = SAMPLE_BYTES.get(facts.get("BinaryFormat", ""))
    data = header.with_name(facts.get("DataFile", "").replace("$b", header.stem))
    if width is None or not data.is_file():
        return  # text files, and what mne itself refuses
    frames, rest = divmod(data.stat().st_size, width * max(len(names), 1))
    stated = int(facts.get("DataPoints", frames))
    if rest or stated != frames:
        raise DataError(
            f"'{data}' holds {frames} samples and {rest} bytes, but should hold {stated} by its header '{header}'. "
            "Is it truncated?"
        )


def _bids_path(entry: Recording, modality: str, root: Path) -> mne_bids.BIDSPath:
    """Where the recording lies."""
    try:
        import mne_bids
    except ImportError as error:
        raise DataError(
            "Recordings of kind 'bids' need mne-bids, which is not installed: pip install \"neural_clip[bids]\"."
        ) from error
    datatype = entry.datatype or modality
    with reading(root):
        return mne_bids.BIDSPath(
            root=root, subject=entry.bids_subject or entry.subject.removeprefix("sub-"),
            session=entry.bids_session or entry.session.removeprefix("ses-") or None, task=entry.task,
            run=entry.bids_run or entry.run.removeprefix("run-") or None, datatype=datatype, suffix=datatype,
        )  # fmt: skip


def _open_bids(entry: Recording, modality: str, root: Path) -> tuple[mne.io.BaseRaw, set[str]]:
    """The recording with the types and the bad channels of its `channels.tsv`."""
    path = _bids_path(entry, modality, root)
    import mne_bids

    with strict_mne(path.basename, f" in the BIDS data set '{root}'") as renamed:
        options = _checked_file(path.fpath, entry) or None
        raw = mne_bids.read_raw_bids(path, extra_params=options, verbose="warning")
    return raw, renamed


def _trials(entry: Recording, modality: str, path: Path, table: Path, opener: Opener, files: list[Path]) -> Trials:
    """Rows of a continuous recording."""
    raw, renamed = opener()
    rows = read_table(table)
    chosen = np.flatnonzero(kept(rows, entry.keep, table))
    onsets = numbers([column(rows, "onset", table)[i] for i in chosen], "onset", table, chosen)
    names = column(rows, entry.image_column, table)
    runs = column(rows, entry.run_column, table) if entry.run_column else [entry.run] * len(rows)
    sfreq = float(raw.info["sfreq"])
    window = _window(entry, sfreq, path)
    _check_filters(entry, sfreq, path)
    samples = np.floor(onsets * sfreq + 0.5).astype(int)
    _check_covered(raw, samples, onsets, chosen, window, path, table)
    good = _outside_bad_segments(raw, samples, window, entry, path)
    dropped = len(chosen) - int(good.sum())
    chosen, samples = chosen[good], samples[good]
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
    raw: mne.io.BaseRaw, samples: np.ndarray, onsets: np.ndarray, rows: np.ndarray, window: Window, path: Path,
    table: Path,
) -> None:  # fmt: skip
    """Every window lies in the recording, and no two events at one moment."""
    sfreq = raw.info["sfreq"]
    outside = np.flatnonzero((samples + window.first < 0) | (samples + window.last >= raw.n_times))
    if outside.size:
        i = outside[0]
        raise DataError(
            f"'{path}' lasts {raw.n_times / sfreq:g} s, but the windows of {outside.size} of {len(samples)} events "
            f"reach beyond its ends; the first is row {rows[i]} of '{table}', at {onsets[i]:g} s with a window of "
            f"{window.first / sfreq:g} to {window.last / sfreq:g} s. "
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
    raw: mne.io.BaseRaw, samples: np.ndarray, window: Window, entry: Recording, path: Path
) -> np.ndarray:
    """Which events' windows overlap no segment marked bad and no moment at which recording stopped; bool `(n,)`."""
    good = np.ones(len(samples), dtype=bool)
    if any(text.upper().startswith("BAD") for text in raw.annotations.description):
        with strict_mne(path):
            marked = np.isnan(raw.get_data(picks=[0], reject_by_annotation="NaN", verbose="error")[0])
        total = np.concatenate([[0], np.cumsum(marked)])
        good = total[samples + window.last + 1] == total[samples + window.first]
    start = raw.first_time if raw.annotations.orig_time is not None else 0.0
    for text, onset in zip(raw.annotations.description, raw.annotations.onset, strict=True):
        if STOPS.fullmatch(text):  # the sample here is the first after a pause of unknown length
            stop = round((onset - start) * raw.info["sfreq"])
            good &= (samples + window.first >= stop) | (samples + window.last < stop)
    if not good.any():
        raise DataError(f"'{path}': the windows of all {len(good)} events overlap segments marked bad, or pauses.")
    if entry.bad_segments == "refuse" and not good.all():
        raise DataError(
            f"'{path}': the windows of {int((~good).sum())} of {len(good)} events overlap segments marked bad, or "
            f"pauses, the first at {samples[~good][0] / raw.info['sfreq']:g} s. Leave them out by "
            "'bad_segments: drop'."
        )
    return good


def _load(
    opener: Opener, path: Path, entry: Recording, ch_names: list[str], samples: np.ndarray,
    window: Window,
) -> np.ndarray:  # fmt: skip
    """Filter the whole recording, then cut, subtract the baseline, decimate; float32 `(n, n_chans, n_times)`."""
    raw, _ = opener()
    everything = np.arange(len(ch_names))  # all that was picked, of whatever type
    with strict_mne(path):
        raw.pick(ch_names, verbose="error")
        if _notches(entry) or entry.high_pass is not None or entry.low_pass is not None:
            raw.load_data(verbose="error")
        if _notches(entry):
            raw.notch_filter(_notches(entry), picks=everything, verbose="warning")
        if entry.high_pass is not None or entry.low_pass is not None:
            raw.filter(entry.high_pass, entry.low_pass, picks=everything, verbose="warning")
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
