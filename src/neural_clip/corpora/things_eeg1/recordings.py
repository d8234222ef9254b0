"""Recordings of THINGS-EEG1: BrainVision files with 63 channels. Nothing of them is loaded before an epoch is cut."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.corpora.custom.epochs import strict_mne
from neural_clip.corpora.custom.opening import check_brainvision
from neural_clip.corpora.sensor_epochs import Signals
from neural_clip.corpora.things_eeg1.events import Events
from neural_clip.corpora.things_eeg1.facts import CorpusFacts
from neural_clip.corpora.things_eeg2.facts import ALL_CHANNELS
from neural_clip.errors import DataError
from neural_clip.files.reading import existing, reading
from neural_clip.preparation import Preparation, channel_differences

if TYPE_CHECKING:
    import mne

REFERENCE = "Cz"
ELECTRODE = re.compile(r"(Fp|AF|F|FT|FC|C|T|TP|CP|P|PO|O|I)(z|[1-9]|10)")  # of the 10-10 system
# From front to back as THINGS-EEG2 has them; other names follow in the order of the file.
ORDER = [*ALL_CHANNELS[: ALL_CHANNELS.index("F2")], "Fz", *ALL_CHANNELS[ALL_CHANNELS.index("F2") :]]
WINDOW = (-0.2, 1.0)  # s: what is cut of a recording; the baseline ends at onset
SPEC = {"n_times": 250, "sfreq": 250.0, "tmin": 0.0}
MARK = 4096  # samples that tell recordings apart
MARKER_SLACK, MARKED = 2, 0.95  # samples, and share of the events that must have a marker at the same distance


@dataclass(frozen=True)
class Recording:
    """The recording of a subject.

    Args:
        header (`Path`): The `.vhdr` file.
        events (`Events`): What was shown.
        files (`tuple[Path, ...]`): All files that were read.
        ch_names (`list[str]`): Channels in the order of rows.
        band (`tuple[float, float]`): High-pass and low-pass edge in Hz, as the header tells them.
        mark (`str`): Digest of the first samples, which no two recordings have in common.
    """

    header: Path
    events: Events
    files: tuple[Path, ...]
    ch_names: list[str]
    band: tuple[float, float]
    mark: str

    @property
    def subject(self) -> str:
        """`"sub-02"`."""
        return f"sub-{self.events.subject:02d}"


def find_recording(raw_dir: Path, events: Events, facts: CorpusFacts, *, markers: bool) -> Recording:
    """Find and check the recording of a subject.

    Args:
        raw_dir (`Path`): BIDS root.
        events (`Events`): Of the subject.
        facts (`CorpusFacts`): Of the corpus.
        markers (`bool`): Whether events must be where markers are.

    Raises:
        DataError: If a file is missing, not downloaded, truncated or damaged, or the recording has another rate, other
            channels, or markers at other times than the events.
    """
    stem = f"sub-{events.subject:02d}"
    files = [raw_dir / stem / "eeg" / f"{stem}_task-rsvp_eeg.{suffix}" for suffix in ("vhdr", "vmrk", "eeg")]
    for file in files:
        existing(file, "file of a recording", " Choose who is there by the 'subjects' parameter.")
    raw = opened(files[0])
    if abs(raw.info["sfreq"] - facts.sfreq) > 1e-6:
        raise DataError(f"'{files[0]}' has {raw.info['sfreq']:g} Hz; THINGS-EEG1 was at {facts.sfreq:g} Hz.")
    if events.samples[-1] >= raw.n_times:
        raise DataError(
            f"'{files[2]}' has {raw.n_times} samples, but '{events.table}' has an event at sample "
            f"{events.samples[-1]}. Is one of them truncated, or of another subject?"
        )
    before, after = (round(abs(edge) * facts.sfreq) for edge in WINDOW)
    if events.samples[0] < before or events.samples[-1] + after >= raw.n_times:
        early = events.samples[0] < before
        raise DataError(
            f"'{files[2]}' has {raw.n_times} samples, too few for an event at sample "
            f"{events.samples[0 if early else -1]} of '{events.table}', of which {before} samples before and {after} "
            "after are read. Is one of them truncated, or of another subject?"
        )
    if markers:
        _check_markers(files[1], events, raw)
    with reading(files[2]):
        first = raw.get_data(picks=[0], stop=min(MARK, raw.n_times), verbose="ERROR")
    band = (float(raw.info["highpass"] or 0), min(float(raw.info["lowpass"]), SPEC["sfreq"] / 2))
    mark = hashlib.sha256(first.tobytes()).hexdigest()
    return Recording(files[0], events, (*files, events.table), _ordered(files[0], raw.ch_names, facts), band, mark)


def opened(header: Path) -> mne.io.BaseRaw:
    """A recording of mne, not loaded; a `DataError` if it is damaged or truncated."""
    import mne

    check_brainvision(header)
    with strict_mne(header):
        return mne.io.read_raw_brainvision(header, preload=False, verbose="ERROR")


def _ordered(header: Path, found: Sequence[str], facts: CorpusFacts) -> list[str]:
    """Channels in the order of rows; a `DataError` unless they are as many electrodes as published."""
    strange = [name for name in found if not ELECTRODE.fullmatch(name) or name == REFERENCE]
    if len(found) != facts.n_chans or strange:
        raise DataError(
            f"'{header}' has {len(found)} channels" + (f", among them {strange[0]!r}" if strange else "") +
            f"; THINGS-EEG1 has {facts.n_chans} electrodes of the 10-10 system without {REFERENCE}, the reference."
        )  # fmt: skip
    return [*(name for name in ORDER if name in found), *(name for name in found if name not in ORDER)]


def _check_markers(path: Path, events: Events, raw: mne.io.BaseRaw) -> None:
    """Nearly all events must have a marker at the same distance, whatever the marker is called."""
    places = np.unique(np.round(raw.annotations.onset * raw.info["sfreq"]).astype(np.int64))
    after = np.clip(np.searchsorted(places, events.samples), 1, max(len(places) - 1, 1))
    share = 0.0
    if len(places) > 1:
        both = places[np.stack([after - 1, after])] - events.samples  # (2, n_events)
        lag = np.where(np.abs(both[0]) < np.abs(both[1]), both[0], both[1])
        share = float((np.abs(lag - np.median(lag)) <= MARKER_SLACK).mean())
    if share < MARKED:
        raise DataError(
            f"'{path}' has {len(places)} markers, and {share:.0%} of the events of '{events.table}' have one at the "
            "same distance. Is one of the files of another subject? If you know that they belong together, set the "
            "'markers' parameter to 'ignore'."
        )


def check_recordings(recordings: Sequence[Recording]) -> None:
    """Refuse recordings that do not belong together; a `DataError` tells which."""
    first = recordings[0]
    marks: dict[str, Path] = {}
    for one in recordings:
        if one.mark in marks:
            raise DataError(
                f"'{marks[one.mark]}' and '{one.header}' hold the same recording. One is of another subject."
            )
        marks[one.mark] = one.header
        if told := channel_differences(one.ch_names, first.ch_names):
            raise DataError(f"'{one.header}' has other channels than '{first.header}': {told}.")


def preparation(recordings: Sequence[Recording]) -> Preparation:
    """What epochs go through before they are scaled."""
    bands = [list(band) for band in sorted({one.band for one in recordings})]
    return Preparation(
        unit="V", bands=bands, baseline=[WINDOW[0], 0.0], rate="resampled", reference="as recorded", projectors=[],
        spatial_filters=[],
    )  # fmt: skip


@lru_cache(maxsize=1)
def signals_of(header: Path, ch_names: tuple[str, ...]) -> Signals:
    """What epochs are cut from."""
    raw = opened(header)
    picks = [raw.ch_names.index(name) for name in ch_names]
    return Signals(
        header.with_suffix(".eeg"), lambda first, end: raw.get_data(picks, first, end, verbose="ERROR"), raw.n_times,
        float(raw.info["sfreq"]), ch_names,
    )  # fmt: skip
