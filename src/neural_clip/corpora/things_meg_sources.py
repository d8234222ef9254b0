"""The two places of THINGS-MEG epochs: CTF recordings, and the published `-epo.fif` derivative.

Both deliver epochs subject after subject with one run or block in memory, and turn whatever MNE raises about a damaged
file into a `DataError` that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.corpora.meg_preprocessing import (
    PUBLISHED,
    MegPreprocessing,
    cut_epochs,
    filter_continuous,
    filter_taps,
)
from neural_clip.corpora.things_meg_files import (
    BROKEN_SENSOR,
    MEG_NAME,
    N_CHANS,
    SUBJECTS,
    Run,
    attribute_trials,
    check_downloaded,
    check_recording,
)
from neural_clip.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DROPOUTS", "DerivativeSource", "RawSource", "Source"]

CATCH_CODE = 999999  # in the derivative: events without a THINGS number
EPOCHS_AT_ONCE = 256  # of the derivative: 156 MB in double precision for 271 x 281
# (subject, session, run): start in s of 0.2 s of lost signal, which the published script fills with the median.
DROPOUTS = {(1, 11, 5): 13.4, (2, 10, 3): 59.8}
DROPOUT_S = 0.2


class Source:
    """Where epochs come from.

    Attributes:
        ch_names (`list[str]`): Gradiometers, without the malfunctioning one; known after `check`.
    """

    ch_names: list[str]

    def check(self) -> None:
        """Find out what is wrong with the files before hours of work.

        Raises:
            DataError: If a file is missing, not downloaded, truncated, or has other channels or events than expected.
        """
        raise NotImplementedError

    def epochs(self, trials: pd.DataFrame) -> Iterator[tuple[int, np.ndarray]]:
        """Epochs of all trials with a split.

        Args:
            trials (`pandas.DataFrame`): From [`run_trials`] or [`attribute_trials`], with the column `split`.

        Yields:
            `tuple`: Row label of the trial, and its epoch `(n_chans, n_times)` float32.
        """
        raise NotImplementedError


class RawSource(Source):
    """CTF recordings.

    Args:
        runs (`list[Run]`): What to read.
        recipe (`MegPreprocessing`): What to do to it.
        scaling (`str`): As in [`cut_epochs`].
        sfreq (`float`): Rate that every recording must have, in Hz.
        simulated (`dict`, *optional*): Stamp of a simulated corpus, which states its own channel count.
    """

    def __init__(
        self, runs: list[Run], recipe: MegPreprocessing, scaling: str, sfreq: float, simulated: dict | None = None
    ):
        self.runs, self.recipe, self.scaling, self.sfreq = runs, recipe, scaling, sfreq
        self.simulated = simulated is not None
        self.n_chans = _channel_count(simulated)

    def check(self) -> None:
        """See [`Source.check`]."""
        for run in self.runs:
            facts = check_recording(run.recording)
            if facts["sfreq"] != self.sfreq:
                raise DataError(f"'{run.recording}' has {facts['sfreq']:g} Hz; expected {self.sfreq:g} Hz.")
        self.ch_names = meg_names(open_recording(self.runs[0].recording).ch_names)
        if len(self.ch_names) != self.n_chans:
            raise DataError(
                f"'{self.runs[0].recording}' has {len(self.ch_names)} usable MEG channels (names like MLC11-1609, "
                f"without {BROKEN_SENSOR}); expected {self.n_chans}."
            )

    def epochs(self, trials: pd.DataFrame) -> Iterator[tuple[int, np.ndarray]]:
        """See [`Source.epochs`]."""
        from tqdm import tqdm

        taps = filter_taps(self.recipe, self.sfreq)
        groups = dict(list(trials[trials.split != ""].groupby(["subject", "session", "run"])))
        for run in tqdm(self.runs, desc="THINGS-MEG", unit="run"):
            table = groups.get((run.subject, run.session, run.run))
            if table is None:
                continue
            filtered = filter_continuous(self._read(run), taps)
            try:
                epochs = cut_epochs(filtered, table["sample"].to_numpy(), self.recipe, self.sfreq, self.scaling)
            except DataError as error:
                raise DataError(f"'{run.recording}' with '{run.events.name}': {error}.") from error
            yield from zip(table.index, epochs, strict=True)

    def _read(self, run: Run) -> np.ndarray:
        """MEG channels of a run, `(n_chans, n_times)` float64 in T, signal dropouts filled."""
        raw = open_recording(run.recording)
        names = meg_names(raw.ch_names)
        if names != self.ch_names:
            missing, extra = sorted(set(self.ch_names) - set(names)), sorted(set(names) - set(self.ch_names))
            raise DataError(
                f"'{run.recording}' has other MEG channels than '{self.runs[0].recording}': missing {missing}, "
                f"extra {extra}" + ("." if missing or extra else ", their order differs.")
            )
        try:
            data = raw.get_data(picks=names, verbose="ERROR")
        except Exception as error:
            raise _unreadable(run.recording, error) from error
        start = None if self.simulated else DROPOUTS.get((run.subject, run.session, run.run))
        if start is not None:
            lost = slice(round(start * self.sfreq), round((start + DROPOUT_S) * self.sfreq))
            data[:, lost] = np.median(data, axis=1, keepdims=True)
        return data


class DerivativeSource(Source):
    """Published epochs: `preprocessed_P{k}-epo.fif` and its further parts, with the sourcedata tables.

    Args:
        raw_dir (`Path`): BIDS root.
        subjects, sessions (`Sequence[int]`, *optional*): Numbers to read, all by default.
        simulated (`dict`, *optional*): Stamp of a simulated corpus, which states its own counts.
    """

    def __init__(
        self, raw_dir: Path, subjects: Sequence[int] | None, sessions: Sequence[int] | None, simulated: dict | None
    ):
        import pandas as pd

        self.folder = raw_dir / "derivatives" / "preprocessed"
        self.n_chans = _channel_count(simulated)
        wanted = subjects or (simulated["sizes"]["subjects"] if simulated else SUBJECTS)
        self.tables = {subject: attribute_trials(raw_dir, subject) for subject in wanted}
        tables = []
        for subject, table in self.tables.items():
            present = sorted(set(table.session.tolist()))
            absent = sorted(set(sessions or []) - set(present))
            if absent:
                raise DataError(f"sub-BIGMEG{subject} has no sessions {absent}; it has {present}.")
            tables.append(table[table.session.isin(sessions)] if sessions else table)
        self.trials = pd.concat(tables, ignore_index=True)

    def check(self) -> None:
        """See [`Source.check`]."""
        for subject in self.tables:
            self._open(subject)

    def epochs(self, trials: pd.DataFrame) -> Iterator[tuple[int, np.ndarray]]:
        """See [`Source.epochs`]."""
        from tqdm import tqdm

        for subject in self.tables:
            epochs = self._open(subject)
            picks = [epochs.ch_names.index(name) for name in self.ch_names]
            own = trials[(trials.subject == subject) & (trials.split != "")]
            for start in tqdm(range(0, len(own), EPOCHS_AT_ONCE), desc=f"THINGS-MEG epochs of P{subject}"):
                part = own.iloc[start : start + EPOCHS_AT_ONCE]
                try:
                    values = epochs[part.trial.to_numpy()].get_data(picks=picks, copy=False, verbose="ERROR")
                except Exception as error:
                    raise _unreadable(self._path(subject), error) from error
                yield from zip(part.index, values.astype(np.float32), strict=True)

    def _path(self, subject: int) -> Path:
        return self.folder / f"preprocessed_P{subject}-epo.fif"

    def _open(self, subject: int):
        """Epochs of a subject, not loaded, checked against the table."""
        import mne

        path = self._path(subject)
        for part in [path, *sorted(self.folder.glob(f"preprocessed_P{subject}-epo-*.fif"))]:
            check_downloaded(part)
        try:
            epochs = mne.read_epochs(path, proj=False, preload=False, verbose="ERROR")
        except Exception as error:  # MNE raises all kinds for damaged files and missing parts
            raise _unreadable(path, error) from error
        self._check_grid(path, epochs)
        _check_codes(path, epochs.events[:, 2], self.tables[subject].value.to_numpy())
        return epochs

    def _check_grid(self, path: Path, epochs) -> None:
        """Channels, rate and window."""
        names = meg_names(epochs.ch_names)
        if len(names) != self.n_chans:
            raise DataError(f"'{path}' has {len(names)} usable MEG channels; expected {self.n_chans}.")
        if names != getattr(self, "ch_names", names):
            raise DataError(f"'{path}' has other MEG channels, or in another order, than the first subject's file.")
        self.ch_names = names
        grid = (epochs.info["sfreq"], round(float(epochs.tmin), 6), len(epochs.times))
        if grid != (PUBLISHED.sfreq, PUBLISHED.tmin, PUBLISHED.n_times):
            raise DataError(
                f"'{path}' has {grid[2]} samples at {grid[0]:g} Hz from {grid[1]} s; expected {PUBLISHED.n_times} at "
                f"{PUBLISHED.sfreq:g} Hz from {PUBLISHED.tmin} s."
            )


def _check_codes(path: Path, codes: np.ndarray, numbers: np.ndarray) -> None:
    """Event codes of the epochs must be the THINGS numbers of the table, row by row: the two are joined by order."""
    if len(codes) != len(numbers):
        raise DataError(f"'{path}' holds {len(codes)} epochs, but its table of attributes has {len(numbers)} rows.")
    wrong = np.flatnonzero(np.where(numbers < 0, CATCH_CODE, numbers) != codes)
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"'{path}' and its table of attributes disagree in {len(wrong)} of {len(numbers)} rows; first in row "
            f"{row + 1}: event code {codes[row]}, THINGS image number {numbers[row]}. The table was reordered or "
            "belongs to another version."
        )


def open_recording(path: Path):
    """Open a CTF recording without loading it.

    Args:
        path (`Path`): Folder ending in `.ds`.

    Returns:
        `mne.io.Raw`: The recording.

    Raises:
        DataError: If it is incomplete or MNE cannot read it.
    """
    import mne

    check_recording(path)
    try:
        return mne.io.read_raw_ctf(path, preload=False, verbose="ERROR")
    except Exception as error:  # MNE raises all kinds for damaged files
        raise _unreadable(path, error) from error


def meg_names(ch_names: Sequence[str]) -> list[str]:
    """Gradiometers by name, without the malfunctioning one, in the order of the file."""
    return [name for name in ch_names if MEG_NAME.fullmatch(name) and name != BROKEN_SENSOR]


def _channel_count(simulated: dict | None) -> int:
    """Gradiometers without the malfunctioning one."""
    return simulated["sizes"]["n_chans"] - 1 if simulated else N_CHANS


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"'{path}' cannot be read by MNE ({type(error).__name__}: {error}). The file may be damaged.")
