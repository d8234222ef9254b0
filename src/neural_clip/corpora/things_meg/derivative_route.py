"""The derivative route of THINGS-MEG: the published epochs `preprocessed_P{k}-epo.fif`, and what both routes share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.corpora.sensor_places import sensor_places
from neural_clip.corpora.things_meg.facts import CorpusFacts
from neural_clip.corpora.things_meg.layout import attribute_path, attribute_trials, check_downloaded, is_downloaded
from neural_clip.corpora.things_meg.preprocessing import PUBLISHED
from neural_clip.corpora.things_meg.raw_route import meg_names, unreadable
from neural_clip.errors import DataError
from neural_clip.preparation import spatial_filters_of
from neural_clip.prepared.units import check_unit

if TYPE_CHECKING:
    import pandas as pd


CATCH_CODE = 999999  # in the derivative: events without a THINGS number
EPOCHS_AT_ONCE = 256  # of the derivative: 156 MB in double precision for 271 x 281


@dataclass(frozen=True)
class DerivativeReader:
    """Published epochs with the sourcedata tables; can be sent to another process.

    Args:
        raw_dir (`Path`): BIDS root.
        ch_names (`list[str]`): Gradiometers to deliver, in this order.
        places (`dict`): Where they are in the first recording, from [`sensor_places`].
        spatial_filters (`list[str]`): Those of the first recording, from [`spatial_filters_of`].
    """

    raw_dir: Path
    ch_names: list[str]
    places: dict
    spatial_filters: list[str]

    def files(self, trials: pd.DataFrame) -> list[Path]:
        """Files on which the epochs of some trials depend."""
        subjects = sorted(set(trials.subject.tolist()))
        return [path for k in subjects for path in (*epoch_files(self.raw_dir, k), attribute_path(self.raw_dir, k))]

    def epochs(self, trials: pd.DataFrame) -> Iterator[tuple[int, np.ndarray]]:
        """Epochs of all trials with a split, one block in memory.

        Args:
            trials (`pandas.DataFrame`): From [`attribute_trials`], with the column `split`.

        Yields:
            `tuple`: Row label of the trial, and its epoch `(n_chans, n_times)` float32.

        Raises:
            DataError: If a file is damaged or contradicts the trials.
        """
        for subject, own in trials[trials.split != ""].groupby("subject"):
            path = epoch_files(self.raw_dir, int(subject))[0]
            epochs = _open(path)
            picks = [epochs.ch_names.index(name) for name in self.ch_names]
            for start in range(0, len(own), EPOCHS_AT_ONCE):
                part = own.iloc[start : start + EPOCHS_AT_ONCE]
                numbers = part.trial.to_numpy()
                _check_codes(path, epochs.events[numbers, 2], part.value.to_numpy())
                try:
                    values = epochs[numbers].get_data(picks=picks, copy=False, verbose="ERROR")
                except Exception as error:
                    raise unreadable(path, error) from error
                if len(values) != len(part):
                    raise DataError(f"'{path}' gave {len(values)} of {len(part)} epochs. The file may be damaged.")
                check_unit(values, "z", f"'{path}'", self.ch_names, " Download the published epochs again.")
                yield from zip(part.index, values.astype(np.float32), strict=True)


def derivative_trials(
    raw_dir: Path, subjects: Sequence[int], sessions: Sequence[int], facts: CorpusFacts, *, allow_partial: bool
) -> tuple[pd.DataFrame, list[Path]]:
    """Trials of the chosen subjects and sessions by their tables.

    Args:
        raw_dir (`Path`): BIDS root.
        subjects, sessions (`Sequence[int]`): Numbers to read.
        facts (`CorpusFacts`): How many sessions a table must tell of.
        allow_partial (`bool`): Leave out subjects whose table or epochs are not downloaded.

    Returns:
        `tuple[pandas.DataFrame, list[Path]]`: As from [`run_trials`], and the files for want of which others were
        left out.
    """
    import pandas as pd

    tables, lacking = [], []
    for subject in subjects:
        needed = [attribute_path(raw_dir, subject), *epoch_files(raw_dir, subject)]
        missing = next((path for path in needed if not path.is_dir() and not is_downloaded(path)), None)
        if allow_partial and missing:
            lacking.append(missing)
            continue
        table = attribute_trials(raw_dir, subject)
        present = sorted(set(table.session.tolist()))
        absent = sorted(set(sessions) - set(present))
        if absent or set(present) - set(range(1, facts.n_sessions + 1)):
            raise DataError(
                f"'{needed[0]}' tells of sessions {present}; expected 1 to {facts.n_sessions}, and {list(sessions)} "
                "were asked for."
            )
        tables.append(table[table.session.isin(sessions)])
    if not tables:
        raise DataError(f"None of the subjects {list(subjects)} is downloaded, first '{lacking[0]}'.")
    return pd.concat(tables, ignore_index=True), lacking


def open_derivative(raw_dir: Path, subjects: Sequence[int], facts: CorpusFacts) -> DerivativeReader:
    """Find out what is wrong with the epochs before hours of work, and give their reader.

    Args:
        raw_dir (`Path`): BIDS root.
        subjects (`Sequence[int]`): Numbers to read.
        facts (`CorpusFacts`): Count of channels.

    Raises:
        DataError: If a file or part is missing, not downloaded or truncated, or codes contradict the table.
    """
    names: list[str] = []
    places: dict = {}
    filters: list[str] = []
    for subject in subjects:
        files = epoch_files(raw_dir, subject)
        for path in files:
            check_downloaded(path)
        epochs = _open(files[0])
        found = meg_names(epochs.ch_names)
        _check_grid(files[0], epochs, found, names or found, facts)
        numbers = attribute_trials(raw_dir, subject).value.to_numpy()
        if len(epochs.events) != len(numbers):
            raise DataError(
                f"'{files[0]}' holds {len(epochs.events)} epochs, but its table of attributes has {len(numbers)} rows."
            )
        _check_codes(files[0], epochs.events[:, 2], numbers)
        if not names:
            places = sensor_places(epochs.info, found)
            filters = spatial_filters_of(epochs.info, found)
        names = found
    return DerivativeReader(raw_dir, names, places, filters)


def epoch_files(raw_dir: Path, subject: int) -> list[Path]:
    """Epochs of a subject: the first file and its further parts."""
    folder = raw_dir / "derivatives" / "preprocessed"
    return [
        folder / f"preprocessed_P{subject}-epo.fif", *sorted(folder.glob(f"preprocessed_P{subject}-epo-*.fif"))
    ]  # fmt: skip


def _open(path: Path):
    """Epochs of a subject, not loaded."""
    import warnings

    import mne

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # MNE only warns where parts are missing or truncated
            warnings.simplefilter("ignore", DeprecationWarning)
            return mne.read_epochs(path, proj=False, preload=False, verbose="ERROR")
    except Exception as error:  # MNE raises all kinds for damaged files and missing parts
        raise unreadable(path, error) from error


def _check_grid(path: Path, epochs, names: list[str], expected: list[str], facts: CorpusFacts) -> None:
    """Channels, rate and window."""
    if len(names) != facts.n_chans:
        raise DataError(f"'{path}' has {len(names)} usable MEG channels; expected {facts.n_chans}.")
    if names != expected:
        raise DataError(f"'{path}' has other MEG channels, or in another order, than the first subject's file.")
    grid = (epochs.info["sfreq"], round(float(epochs.tmin), 6), len(epochs.times))
    if grid != (PUBLISHED.sfreq, PUBLISHED.tmin, PUBLISHED.n_times):
        raise DataError(
            f"'{path}' has {grid[2]} samples at {grid[0]:g} Hz from {grid[1]} s; expected {PUBLISHED.n_times} at "
            f"{PUBLISHED.sfreq:g} Hz from {PUBLISHED.tmin} s."
        )


def _check_codes(path: Path, codes: np.ndarray, numbers: np.ndarray) -> None:
    """Event codes of the epochs must be the THINGS numbers of the table, row by row: the two are joined by order."""
    wrong = np.flatnonzero(np.where(numbers < 0, CATCH_CODE, numbers) != codes)
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"'{path}' and its table of attributes disagree in {len(wrong)} of {len(numbers)} rows; first in row "
            f"{row + 1}: event code {codes[row]}, THINGS image number {numbers[row]}. The table was reordered or "
            "belongs to another version or subject."
        )
