"""The raw route of THINGS-MEG: CTF recordings, checked and cut into epochs.

MNE reads them; whatever it raises about a damaged file becomes a `DataError` that names the file. The header has no
checksum, so it is compared with those of the other runs. Events are compared with the trigger channel, because that
is the only trace of the experiment within a recording.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.corpora.sensor_places import sensor_places
from neural_clip.corpora.things_meg.facts import BROKEN_SENSOR, CorpusFacts
from neural_clip.corpora.things_meg.layout import Run, check_downloaded, recording_files
from neural_clip.corpora.things_meg.preprocessing import MegPreprocessing, cut_epochs, filter_continuous, filter_taps
from neural_clip.errors import DataError
from neural_clip.files.reading import checked_files
from neural_clip.preparation import spatial_filters_of
from neural_clip.prepared.units import check_unit

if TYPE_CHECKING:
    import pandas as pd


MEG_NAME = re.compile(r"M[LRZ][CFOPT]\d\d-1609")  # channels.tsv calls these OTHER, so names decide
TRIGGER_CHANNEL, TRIGGER_CODE = "UPPT001", 64  # one a trial
CLOCK_CHANNEL = "SCLK01-177"  # stands still behind the last sample; MNE cuts the recording there
MEG4_HEADER_BYTES = 8
DROPOUT_S = 0.2  # length of both losses of signal
# The runs of a session must have the same gains. Between sessions the system may have been calibrated: the 273 sensors
# of a real system of this type differ by -6 to +10 % from their median, so one sensor should not change by more.
GAIN_RATIO = 1.25
# Triggers precede the optical sensor by the delay of the projector; other readers of this corpus report about 0.15 s
# against the times of the stimulus computer. Onsets are 1.25 to 1.70 s apart at random, so events of another run leave
# the tolerance within a few trials; some trials may be late, for instance by dropped frames.
MAX_LAG_S = 0.3
LAG_TOLERANCE_S = 0.05
MAX_LATE_TRIALS = 0.05
Channel = tuple[str, float, int, int]  # name, T or V of a count, kind and unit as MNE numbers them


@dataclass(frozen=True)
class RawReader:
    """Epochs of CTF recordings; can be sent to another process.

    Args:
        runs (`tuple[Run, ...]`): What can be read.
        recipe (`MegPreprocessing`): What to do to it.
        scaling (`str`): As in [`cut_epochs`].
        facts (`CorpusFacts`): Rate and dropouts.
        ch_names (`list[str]`): Gradiometers to deliver, in this order.
        places (`dict`): Where they are in the first recording, from [`sensor_places`].
        spatial_filters (`list[str]`): Those of the first recording, from [`spatial_filters_of`].
        channels (`Mapping`): Channels of the first run of each (subject, session); all its runs must have the same.
        compare_triggers (`bool`): Compare the triggers of each recording with its events.
    """

    runs: tuple[Run, ...]
    recipe: MegPreprocessing
    scaling: str
    facts: CorpusFacts
    ch_names: list[str]
    places: dict
    spatial_filters: list[str]
    channels: Mapping[tuple[int, int], list[Channel]]
    compare_triggers: bool = True

    def files(self, trials: pd.DataFrame) -> list[Path]:
        """Files on which the epochs of some trials depend."""
        wanted = set(trials[["subject", "session", "run"]].itertuples(index=False, name=None))
        runs = [run for run in self.runs if (run.subject, run.session, run.run) in wanted]
        return [path for run in runs for path in (*recording_files(run.recording), run.events)]

    def epochs(self, trials: pd.DataFrame) -> Iterator[tuple[int, np.ndarray]]:
        """Epochs of all trials with a split, one run in memory.

        Args:
            trials (`pandas.DataFrame`): From [`run_trials`], all trials of each run, with the column `split`.

        Yields:
            `tuple`: Row label of the trial, and its epoch `(n_chans, n_times)` float32.

        Raises:
            DataError: If a recording is damaged, differs from the other runs of its session, or its triggers
                contradict the events.
        """
        taps = filter_taps(self.recipe, self.facts.sfreq)
        groups = dict(list(trials.groupby(["subject", "session", "run"])))
        for run in self.runs:
            table = groups.get((run.subject, run.session, run.run))
            if table is not None and (table.split != "").any():
                used = table[table.split != ""]
                yield from zip(used.index, self._cut(run, table, used, taps), strict=True)

    def _cut(self, run: Run, table: pd.DataFrame, used: pd.DataFrame, taps: np.ndarray) -> np.ndarray:
        """Epochs of a run, `(n, n_chans, n_times)` float32."""
        data, triggers = self._read(run)
        if self.compare_triggers:
            check_triggers(run, triggers, table["sample"].to_numpy(), self.facts.sfreq)
        try:
            filtered = filter_continuous(data, taps)
            return cut_epochs(filtered, used["sample"].to_numpy(), self.recipe, self.facts.sfreq, self.scaling)
        except DataError as error:
            raise DataError(f"'{run.recording}' with '{run.events.name}': {error}.") from error

    def _read(self, run: Run) -> tuple[np.ndarray, np.ndarray]:
        """MEG channels of a run, `(n_chans, n_times)` float64 in T, dropouts filled; and the samples of triggers."""
        raw = open_recording(run.recording)
        reference = self.channels[run.subject, run.session]
        channels = _channels(raw)
        if channels != reference:
            names, others = [channel[0] for channel in channels], [channel[0] for channel in reference]
            differ = [one[0] for one, other in zip(channels, reference, strict=False) if one != other]
            raise DataError(
                f"'{run.recording}' has other channels than the first run of its session: missing "
                f"{sorted(set(others) - set(names))}, extra {sorted(set(names) - set(others))}, {len(differ)} with "
                f"another name, gain, kind or place, first {differ[:1]}. A header is damaged, or the recording is of "
                "another session."
            )
        try:
            data = raw.get_data(picks=[*self.ch_names, TRIGGER_CHANNEL], verbose="ERROR")
        except Exception as error:
            raise unreadable(run.recording, error) from error
        data, triggers = data[:-1], trigger_samples(data[-1])
        check_unit(
            data[np.newaxis, :, ::10], "T", f"'{run.recording}'", self.ch_names, " Download the recording again."
        )
        start = self.facts.dropouts.get((run.subject, run.session, run.run))
        if start is not None:
            sfreq = self.facts.sfreq
            lost = slice(round(start * sfreq), round((start + DROPOUT_S) * sfreq))
            data[:, lost] = np.median(data, axis=1, keepdims=True)
        return data, triggers


def open_raw(runs: Sequence[Run], recipe: MegPreprocessing, scaling: str, facts: CorpusFacts) -> RawReader:
    """Find out what is wrong with the recordings before hours of work, and give the reader of their epochs.

    Args:
        runs (`Sequence[Run]`): What to read.
        recipe (`MegPreprocessing`): What to do to it.
        scaling (`str`): As in [`cut_epochs`].
        facts (`CorpusFacts`): Rate and count of channels.

    Raises:
        DataError: If a file is missing, not downloaded, truncated, or has another rate or other channels.
    """
    for run in runs:
        found = check_recording(run.recording)
        if found["sfreq"] != facts.sfreq:
            raise DataError(f"'{run.recording}' has {found['sfreq']:g} Hz; expected {facts.sfreq:g} Hz.")
    channels: dict[tuple[int, int], list[Channel]] = {}
    names: list[str] = []
    places: dict = {}
    filters: list[str] = []
    for run in runs:
        if (run.subject, run.session) not in channels:
            raw = open_recording(run.recording)
            found_channels = _channels(raw)
            if not channels:
                names = meg_names(raw.ch_names)
                places = sensor_places(raw.info, names)
                filters = spatial_filters_of(raw.info, names)
            _check_channels(run.recording, found_channels, next(iter(channels.values()), found_channels), facts)
            channels[run.subject, run.session] = found_channels
    return RawReader(tuple(runs), recipe, scaling, facts, names, places, filters, channels)


def _check_channels(path: Path, channels: list[Channel], first: list[Channel], facts: CorpusFacts) -> None:
    """Gradiometers, clock and triggers are there, and agree with the first recording of all."""
    own, others = ({c[0]: c for c in found if MEG_NAME.fullmatch(c[0])} for found in (channels, first))
    names = meg_names(list(own))
    if len(names) != facts.n_chans:
        raise DataError(f"'{path}' has {len(names)} usable MEG channels (without {BROKEN_SENSOR}); expected "
                        f"{facts.n_chans}.")  # fmt: skip
    if list(own) != list(others):
        missing, extra = sorted(set(others) - set(own)), sorted(set(own) - set(others))
        raise DataError(
            f"'{path}' has other MEG channels than the first recording: missing {missing}, extra {extra}"
            + ("." if missing or extra else ", their order differs.")
        )
    for name, (_, gain, *kinds) in own.items():
        _, usual, *usual_kinds = others[name]
        if kinds != usual_kinds or not 1 / GAIN_RATIO < gain / usual < GAIN_RATIO:
            raise DataError(
                f"'{path}': channel {name} has the gain {gain:.4g}, kind and unit {kinds}; in the first recording "
                f"{usual:.4g} and {usual_kinds}. A header is damaged."
            )
    present = [channel[0] for channel in channels]
    for needed in (CLOCK_CHANNEL, TRIGGER_CHANNEL):
        if present.count(needed) != 1:
            raise DataError(f"'{path}' has {present.count(needed)} channels '{needed}'; expected one.")


def check_recording(path: Path) -> dict:
    """Check that a `.ds` folder is complete and return header facts.

    Returns:
        `dict`: `sfreq` (Hz), `n_times` (samples of all blocks), `n_chans`.

    Raises:
        DataError: If a file is missing, a git-annex pointer, no CTF file, or truncated; names the file and both sizes.
    """
    if not path.is_dir():
        check_downloaded(path)
        raise DataError(f"'{path}' is a file; expected the folder of a CTF recording.")
    checked_files(path.rglob("*"), "file of a recording")
    header_file, *data_files = recording_files(path)
    for file in (header_file, *data_files):
        check_downloaded(file)
    coils = header_file.with_suffix(".hc")
    if coils.exists() or coils.is_symlink():
        check_downloaded(coils)
    with header_file.open("rb") as stream:
        header = stream.read(1844)  # the fixed part, see simulation/ctf.py
    if len(header) < 1844 or not header.startswith(b"MEG4"):
        raise DataError(
            f"'{header_file}' is no CTF header: it begins with {header[:8]!r} and has {len(header)} of 1844 bytes."
        )
    n_times, n_chans = struct.unpack_from(">ih", header, 1288)
    (sfreq,) = struct.unpack_from(">d", header, 1296)
    (n_blocks,) = struct.unpack_from(">h", header, 1312)
    if min(n_times, n_chans, n_blocks) < 1:
        raise DataError(
            f"'{header_file}' is damaged: it announces {n_blocks} blocks of {n_times} samples of {n_chans} channels."
        )
    expected = MEG4_HEADER_BYTES * len(data_files) + 4 * n_times * n_chans * n_blocks
    found = sum(file.stat().st_size for file in data_files)
    if found != expected:
        state = "truncated" if found < expected else "too long"
        further = f" with {len(data_files) - 1} further parts" if len(data_files) > 1 else ""
        raise DataError(
            f"'{data_files[0]}'{further} is {state}: {found} bytes, expected {expected} by its header. Download it "
            "again."
        )
    return {"sfreq": sfreq, "n_times": n_times * n_blocks, "n_chans": n_chans}


def open_recording(path: Path):
    """Open a CTF recording without loading it.

    Args:
        path (`Path`): Folder ending in `.ds`.

    Returns:
        `mne.io.Raw`: The recording.

    Raises:
        DataError: If it is incomplete or MNE cannot read it.
    """
    import warnings

    import mne

    check_recording(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MNE and NumPy about odd headers, which are compared afterwards
            return mne.io.read_raw_ctf(path, preload=False, verbose="ERROR")
    except Exception as error:  # MNE raises all kinds for damaged files
        raise unreadable(path, error) from error


def _channels(raw) -> list[Channel]:
    """Name, gain, kind and unit of all channels, in the order of the file."""
    return [(c["ch_name"], float(c["cal"] * c["range"]), int(c["kind"]), int(c["unit"])) for c in raw.info["chs"]]


def meg_names(ch_names: Sequence[str]) -> list[str]:
    """Gradiometers by name, without the malfunctioning one, in the order of the file."""
    return [name for name in ch_names if MEG_NAME.fullmatch(name) and name != BROKEN_SENSOR]


def trigger_samples(codes: np.ndarray) -> np.ndarray:
    """Samples at which the trigger channel rises to the code of a trial, as `mne.find_events` finds them.

    Args:
        codes (`np.ndarray` of shape `(n_times,)`): Values of the channel.

    Returns:
        `np.ndarray`: Sample numbers.
    """
    codes = np.rint(codes)
    before = np.concatenate([[0.0], codes[:-1]])
    return np.flatnonzero((codes == TRIGGER_CODE) & (codes > before))


def check_triggers(run: Run, triggers: np.ndarray, samples: np.ndarray, sfreq: float) -> None:
    """Compare the triggers of a recording with its events.

    Args:
        run (`Run`): For the message.
        triggers (`np.ndarray`): Samples of the triggers.
        samples (`np.ndarray`): Samples of the onsets, in order.
        sfreq (`float`): Rate in Hz.

    Raises:
        DataError: If there are more or fewer triggers than events, or their lag is too long or varies too much.
    """
    name = f"'{run.recording}' and '{run.events.name}' do not belong together"
    hint = (
        "Should the triggers be wrong and the events right, leave them out by the 'triggers' parameter (--triggers)."
    )
    if len(triggers) != len(samples):
        raise DataError(f"{name}: {len(triggers)} triggers, but {len(samples)} events. {hint}")
    lags = (np.asarray(samples) - triggers) / sfreq
    typical = float(np.median(lags))
    late = int((np.abs(lags - typical) > LAG_TOLERANCE_S).sum())
    if abs(typical) > MAX_LAG_S or late > MAX_LATE_TRIALS * len(lags):
        raise DataError(
            f"{name}: onsets follow the triggers by {typical:.3f} s (median; allowed {MAX_LAG_S} s), and {late} of "
            f"{len(lags)} by {LAG_TOLERANCE_S} s more or less than that (allowed {MAX_LATE_TRIALS:.0%}). {hint}"
        )


def unreadable(path: Path, error: Exception) -> DataError:
    """Error that names a file which MNE cannot read."""
    return DataError(f"'{path}' cannot be read by MNE ({type(error).__name__}: {error}). The file may be damaged.")
