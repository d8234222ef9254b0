"""Recordings of THINGS-EEG2 and their epochs: the parts of sessions as `.npy` files, or as runs of BIDS.

Nothing of a recording is loaded before an epoch is cut: signals are mapped, and mne reads segments of BDF files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.corpora.custom.edf import read_header
from neural_clip.corpora.sensor_epochs import Signals, cut_epochs
from neural_clip.corpora.things_eeg2.facts import (
    ALL_CHANNELS,
    PARTS,
    POSTERIOR,
    RAW_ORDER,
    TARGET,
    CorpusFacts,
    check_channels,
)
from neural_clip.corpora.things_eeg2.stimuli import Image
from neural_clip.errors import DataError
from neural_clip.files.pickled import read_pickled
from neural_clip.files.reading import existing, reading
from neural_clip.files.tables import read_columns, whole_number
from neural_clip.preparation import Preparation

SOURCE = "the raw EEG data at osf.io/3jk45"
PLACES = ("", "raw_data", "Raw_data", "raw_eeg")  # where the subjects' folders may lie in the raw folder
TMIN, TMAX = -0.2, 1.0  # s: what is cut of a recording; the baseline ends at onset
BAND = [0.01, 100.0]  # Hz, of the amplifier
MARK = 4096  # samples that tell recordings apart
COLUMNS = ("sample", "trial_type", "tot_img_number", "category_name")


@dataclass(frozen=True)
class Recipe:
    """What becomes of an epoch.

    Args:
        name (`str`): For the metadata.
        ch_names (`list[str]`): Channels, in order.
        tmin (`float`), n_times (`int`), sfreq (`float`): First sample in s from onset, samples, Hz.
        rate (`str`): As in [`Preparation`].
    """

    name: str
    ch_names: list[str]
    tmin: float
    n_times: int
    sfreq: float
    rate: str

    @property
    def preparation(self) -> Preparation:
        """What epochs went through before they are scaled."""
        return Preparation(
            unit="V", bands=[BAND], baseline=[TMIN, 0.0], rate=self.rate, reference="as recorded", projectors=[],
            spatial_filters=[],
        )  # fmt: skip


# 250 Hz keep all that the amplifier passes; 100 Hz do not, so a filter goes before them.
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("nice", ALL_CHANNELS, 0.0, 250, 250.0, "decimated"),
        Recipe("official", POSTERIOR, TMIN, 100, 100.0, "resampled"),
    )
}


@dataclass(frozen=True)
class Recording:
    """One file of a recording.

    Args:
        path (`Path`): The file.
        subject, session (`int`): Numbers.
        part (`str`): `"training"` or `"test"`.
        run (`str`): Name of the file among those of the session.
        samples, codes (`numpy.ndarray` of shape `(n_events,)`): Onsets in samples of the file, and what was shown.
        files (`tuple[Path, ...]`): All files that were read.
        mark (`str`): Digest of the first samples, which no two recordings have in common.
    """

    path: Path
    subject: int
    session: int
    part: str
    run: str
    samples: np.ndarray
    codes: np.ndarray
    files: tuple[Path, ...]
    mark: str

    def __post_init__(self) -> None:
        if len(self.samples) > 1 and (np.diff(self.samples) <= 0).any():
            raise DataError(f"The events of '{self.files[-1]}' are not in order of time. Is it damaged?")


def raw_recordings(raw_dir: Path, subject: int, session: int, facts: CorpusFacts) -> list[Recording]:
    """The two `.npy` files of a session.

    Raises:
        DataError: If one is missing, damaged, has other channels, or another rate.
    """
    folder = f"sub-{subject:02d}/ses-{session:02d}"
    places = [raw_dir / place / folder for place in PLACES]
    found = next((place for place in places if place.is_dir()), places[0])
    recordings = []
    for part in PARTS:
        path = existing(
            found / f"raw_eeg_{part}.npy", "recording",
            f" It is part of {SOURCE}; choose what is there by the 'subjects' and 'sessions' parameters.",
        )  # fmt: skip
        signals = opened_raw(path, facts)
        samples, codes = _stim_events(path, signals[-1])
        mark = hashlib.sha256(np.ascontiguousarray(signals[0, :MARK]).tobytes()).hexdigest()
        recordings.append(Recording(path, subject, session, part, part, samples, codes, (path,), mark))
    return recordings


def opened_raw(path: Path, facts: CorpusFacts) -> np.ndarray:
    """Signals of a `.npy` file, float64 `(64, n_times)`, mapped: V of 63 channels, and the codes of events.

    Raises:
        DataError: If the file is damaged, or has other channels, or another rate.
    """
    content = read_pickled(path)
    absent = [key for key in ("raw_eeg_data", "ch_names", "sfreq") if key not in content]
    if absent:
        raise DataError(
            f"'{path}' has no entry {absent[0]!r}; is it a raw recording of THINGS-EEG2? It has {sorted(content)}."
        )
    signals, names, sfreq = content["raw_eeg_data"], content["ch_names"], content["sfreq"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"'{path}': 'ch_names' should be a list of names.")
    if not isinstance(signals, np.ndarray) or signals.ndim != 2 or signals.dtype.kind != "f":
        raise DataError(f"'{path}': 'raw_eeg_data' should be numbers of channels and samples.")
    if len(signals) != len(names) or not names or names[-1] != "stim":
        raise DataError(
            f"'{path}' has {len(signals)} rows for {len(names)} channels, the last of them "
            f"{(names or ['nothing'])[-1]!r}; THINGS-EEG2 has {len(RAW_ORDER)} channels and then 'stim'."
        )
    check_channels(path, names[:-1], RAW_ORDER)
    if not isinstance(sfreq, int | float) or sfreq != facts.sfreq:
        raise DataError(f"'{path}' was recorded at {str(sfreq)[:40]} Hz; THINGS-EEG2 was at {facts.sfreq:g} Hz.")
    return signals


def _stim_events(path: Path, stim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples and codes of the impulses of the row 'stim', each one sample long."""
    samples = np.flatnonzero(stim)
    codes = stim[samples]
    if len(wrong := codes[~np.isfinite(codes) | (codes != np.round(codes)) | (codes < 0)]):
        raise DataError(f"'{path}': the row 'stim' holds {wrong[0]:g}, which is no code.")
    if (np.diff(samples) == 1).any():
        first = samples[np.flatnonzero(np.diff(samples) == 1)[0]]
        raise DataError(f"'{path}': the row 'stim' has two codes at samples {first} and {first + 1}. Is it damaged?")
    return samples, codes.astype(np.int64)


def bids_recordings(
    raw_dir: Path, subject: int, session: int, facts: CorpusFacts, images: dict[str, list[Image]]
) -> list[Recording]:
    """The runs of a session in BIDS: several of the training part, one of the test part.

    Raises:
        DataError: If a file is missing, not downloaded, truncated or damaged, has other channels or another rate, or
            its events are no images of that part.
    """
    stem = f"sub-{subject:02d}_ses-{session:02d}"
    folder = raw_dir / f"sub-{subject:02d}" / f"ses-{session:02d}" / "eeg"
    runs = [("training", f"task-train_run-{run:02d}") for run in range(1, facts.n_train_runs + 1)]
    recordings = []
    for part, run in [*runs, ("test", "task-test")]:
        path, table = (folder / f"{stem}_{run}_{kind}" for kind in ("eeg.bdf", "events.tsv"))
        for file in (path, table):
            existing(file, "file of a run", " Choose what is there by the 'subjects' and 'sessions' parameters.")
        raw = opened_bdf(path)
        if abs(raw.info["sfreq"] - facts.sfreq) > 1e-6:
            raise DataError(f"'{path}' has {raw.info['sfreq']:g} Hz; THINGS-EEG2 was at {facts.sfreq:g} Hz.")
        samples, codes = _table_events(table, images[part])
        with reading(path):
            first = raw.get_data(picks=[0], stop=min(MARK, raw.n_times), verbose="ERROR")
        mark = hashlib.sha256(first.tobytes()).hexdigest()
        recordings.append(Recording(path, subject, session, part, run, samples, codes, (path, table), mark))
    return recordings


def opened_bdf(path: Path) -> Any:
    """A BDF file as an object of mne with the channels of THINGS-EEG2, not loaded; a `DataError` if it has others."""
    import mne

    header = read_header(path)
    if header.width != 3:
        raise DataError(f"'{path}' is no BDF file, but EDF or GDF; its name says BDF.")
    with reading(path):
        raw = mne.io.read_raw_bdf(path, preload=False, verbose="ERROR")
        names = [name for name in raw.ch_names if name in set(RAW_ORDER) | {"Fz"}]
        check_channels(path, names, RAW_ORDER)
        return raw.pick(names)


def _table_events(table: Path, images: Sequence[Image]) -> tuple[np.ndarray, np.ndarray]:
    """Samples and codes of a table of events, whose concepts must be those of the images."""
    events = []
    for line, (sample, kind, code, concept) in read_columns(table, COLUMNS, "\t"):
        if kind not in ("image", "target"):
            raise DataError(f"'{table}': line {line} is a {kind!r}; allowed are 'image' and 'target'.")
        number = TARGET if kind == "target" else whole_number(table, line, "tot_img_number", code)
        if kind == "image" and not 1 <= number <= len(images):
            raise DataError(f"'{table}': line {line} shows image {number}; this part has 1 to {len(images)}.")
        if kind == "image" and concept != images[number - 1].numbered:
            raise DataError(
                f"'{table}': line {line} shows image {number} of {concept!r}, which is of "
                f"{images[number - 1].numbered!r}. Is it the table of another part, or are the images of another copy?"
            )
        events.append((whole_number(table, line, "sample", sample), number))
    samples, codes = np.array(events, dtype=np.int64).reshape(-1, 2).T
    return samples, codes


@lru_cache(maxsize=2)
def _signals(path: Path, facts: CorpusFacts) -> tuple[Callable[[int, int], np.ndarray], int]:
    """What cuts a stretch of all channels, in V and the raw order, out of a file, and how many samples it has."""
    if path.suffix == ".bdf":
        raw = opened_bdf(path)
        return lambda first, end: raw.get_data(start=first, stop=end, verbose="ERROR"), raw.n_times
    signals = opened_raw(path, facts)
    return lambda first, end: signals[:-1, first:end], signals.shape[1]


def forget_signals() -> None:
    """Let go of what was opened."""
    _signals.cache_clear()


def epochs(recording: Recording, events: np.ndarray, recipe: Recipe, facts: CorpusFacts) -> Iterator[np.ndarray]:
    """Epochs of some events.

    Args:
        recording (`Recording`): The file.
        events (`np.ndarray` of shape `(n,)`): Indices into its events.
        recipe (`Recipe`): Channels, window and rate.
        facts (`CorpusFacts`): Rate of the recording.

    Yields:
        `np.ndarray` of shape `(n_chans, n_times)`: float64, in V, minus the mean of the baseline.

    Raises:
        DataError: If the file is damaged, an epoch is not within it, or values are not finite or in another unit.
    """
    cut, n_times = _signals(recording.path, facts)
    chosen = [RAW_ORDER.index(name) for name in recipe.ch_names]
    signals = Signals(
        recording.path, lambda first, end: cut(first, end)[chosen], n_times, facts.sfreq, recipe.ch_names
    )
    spec = {"n_times": recipe.n_times, "sfreq": recipe.sfreq, "tmin": recipe.tmin}
    yield from cut_epochs(signals, recording.samples[events], (TMIN, TMAX), spec, recipe.preparation)
