"""Recordings of Alljoined-1.6M: a folder for each block with one EDF file, whose annotations tell what was shown."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.corpora.alljoined.facts import CHANNELS, LABELS, CorpusFacts
from neural_clip.corpora.custom.edf import channels_to_read, read_header
from neural_clip.corpora.custom.epochs import strict_mne
from neural_clip.corpora.sensor_epochs import Signals
from neural_clip.errors import DataError
from neural_clip.files.reading import existing, reading
from neural_clip.preparation import Preparation

if TYPE_CHECKING:
    import mne

PLACES = ("raw_eeg", "")  # of the subjects' folders in the raw folder
WINDOW = (-0.2, 1.0)  # s: what is cut of a recording; the baseline ends at onset
SPEC = {"n_times": 250, "sfreq": 250.0, "tmin": 0.0}
SOA = (0.15, 0.25)  # s: from one onset to the next it is 0.2 s
SHOWN = re.compile(r"(stim_test|stim_train),(\d{1,6}),-?\d+,-?\d+")
NAMED = re.compile(r"Subject (\d+), Session (\d+), Block (\d+)\D")
OTHER_NAMES = {8: (19,)}  # numbers in the names of the files of a subject, besides the subject's own
MARK = 2048  # samples that tell recordings apart
PREPARATION = Preparation(
    unit="V", baseline=[WINDOW[0], 0.0], rate="resampled", reference="as recorded", projectors=[], spatial_filters=[]
)


@dataclass(frozen=True)
class Block:
    """The recording of a block.

    Args:
        path (`Path`): The file.
        subject, session, number (`int`): Of which it is.
        samples, ids (`numpy.ndarray` of shape `(n_events,)`): Onsets in samples, and images.
        inside (`numpy.ndarray` of shape `(n_events,)`): Whether the epoch of an event was recorded whole.
        mark (`str`): Digest of the first samples, which no two recordings have in common.
    """

    path: Path
    subject: int
    session: int
    number: int
    samples: np.ndarray
    ids: np.ndarray
    inside: np.ndarray
    mark: str


def find_session(raw_dir: Path, subject: int, session: int, facts: CorpusFacts) -> tuple[list[Block], list[str]]:
    """The blocks of a session that are there, and the names of folders that are ignored.

    Raises:
        DataError: If there is no such session, or a file is damaged, truncated, of another place, or shows images of
            the other part.
    """
    places = [raw_dir / place / f"sub-{subject:02d}" for place in PLACES]
    person = next((place for place in places if place.is_dir()), places[0])
    folder = person / f"session_{session:02d}"
    if not folder.is_dir():
        if next(raw_dir.glob("sub-*/ses-*/eeg/*_task-images_*"), None):
            raise DataError(
                f"'{raw_dir}' is the copy of Alljoined-1.6M in BIDS (nm000134). Its tables of events list no training "
                "images, so nothing can be trained on it; get the files of huggingface.co/datasets/Alljoined/"
                "Alljoined-1.6M."
            )
        raise DataError(f"'{folder}' is no folder. Choose what is there by the 'subjects' and 'sessions' parameters.")
    ignored = [path.name for path in sorted(person.glob("session_[0-9][0-9]?*")) if path.is_dir()]
    blocks = []
    for number in range(1, facts.test_blocks + facts.train_blocks + 1):
        files = sorted((folder / f"block_{number:02d}").glob("*.edf"))
        if len(files) > 1:
            raise DataError(f"'{files[0].parent}' has {len(files)} EDF files; a block has one. Which is it?")
        blocks += [_block(path, subject, session, number, facts) for path in files]
    return blocks, ignored


def _block(path: Path, subject: int, session: int, number: int, facts: CorpusFacts) -> Block:
    """A block, whose name and events must be those of its place."""
    existing(path, "recording")
    if told := NAMED.search(path.name):
        own = (subject, *OTHER_NAMES.get(subject, ()))
        if int(told[1]) not in own or (int(told[2]), int(told[3])) != (session, number):
            raise DataError(
                f"'{path}' is of subject {told[1]}, session {told[2]}, block {told[3]} by its name, but lies among "
                f"the files of subject {subject}, session {session}, block {number}."
            )
    raw = opened(path, facts)
    samples, ids = _events(path, raw, "test" if number <= facts.test_blocks else "training", facts)
    with reading(path):
        first = raw.get_data(picks=[0], stop=min(MARK, raw.n_times), verbose="ERROR")
    before, after = (round(abs(edge) * facts.sfreq) for edge in WINDOW)
    inside = (samples >= before) & (samples + after < raw.n_times)
    mark = hashlib.sha256(first.tobytes()).hexdigest()
    return Block(path, subject, session, number, samples, ids, inside, mark)


def opened(path: Path, facts: CorpusFacts) -> mne.io.BaseRaw:
    """The electrodes of an EDF file in the order of `CHANNELS`, not loaded; a `DataError` if some are not there."""
    import mne

    labels = read_header(path).labels
    names = {"Afz" if name == "AFz" and name not in labels else name: name for name in CHANNELS}  # as Emotiv writes it
    if absent := [name for name in names if name not in labels]:
        raise DataError(
            f"'{path}' lacks {len(absent)} of the {len(CHANNELS)} electrodes of Alljoined-1.6M, such as {absent[0]!r};"
            f" it has {len(labels)} channels."
        )
    channels_to_read(path, list(names))
    with strict_mne(path):
        raw = mne.io.read_raw_edf(path, include=list(names), preload=False, verbose="ERROR")
        raw.rename_channels(names, verbose="ERROR")
        raw.reorder_channels(CHANNELS)
    if abs(raw.info["sfreq"] - facts.sfreq) > 1e-6:
        raise DataError(f"'{path}' has {raw.info['sfreq']:g} Hz; Alljoined-1.6M was at {facts.sfreq:g} Hz.")
    return raw


def _events(path: Path, raw: mne.io.BaseRaw, part: str, facts: CorpusFacts) -> tuple[np.ndarray, np.ndarray]:
    """Onsets and images of the annotations of a block, in order of time."""
    found, sfreq = [], float(raw.info["sfreq"])
    for onset, text in zip(raw.annotations.onset, map(str, raw.annotations.description), strict=True):
        if told := SHOWN.fullmatch(text):
            found.append((round(onset * sfreq), told[1], int(told[2])))
        elif text.startswith("stim_"):
            raise DataError(f"'{path}' has the annotation {text!r}; allowed are those like 'stim_test,16540,-1,1'.")
    if not found:
        raise DataError(f"'{path}' has no annotations of images ({LABELS[part]}). Were they left out of this copy?")
    wrong = next((event for event in found if event[1] != LABELS[part] or facts.part(event[2]) != part), None)
    if wrong is not None:
        raise DataError(
            f"'{path}' shows image {wrong[2]} as {wrong[1]} in a block of the {part} part. Were blocks exchanged?"
        )
    samples = np.array([event[0] for event in found], dtype=np.int64)
    steps = np.diff(samples) / sfreq
    if (steps <= 0).any() or (steps.size and not SOA[0] <= np.median(steps) <= SOA[1]):
        raise DataError(
            f"'{path}': images follow each other every {np.median(steps):g} s, or are not in order of time; in "
            "Alljoined-1.6M it is 0.2 s."
        )
    return samples, np.array([event[2] for event in found], dtype=np.int64)


def check_marks(blocks: Sequence[Block], marks: dict[str, Path]) -> None:
    """Refuse a file that holds the recording of another one."""
    for block in blocks:
        if block.mark in marks:
            raise DataError(
                f"'{marks[block.mark]}' and '{block.path}' hold the same recording. One of them is of another "
                "subject, session or block."
            )
        marks[block.mark] = block.path


def signals_of(block: Block, facts: CorpusFacts) -> Signals:
    """A block, loaded: about 20 MB."""
    raw = opened(block.path, facts)
    with reading(block.path):
        values = raw.get_data(verbose="ERROR")
    return Signals(block.path, lambda first, end: values[:, first:end], raw.n_times, facts.sfreq, CHANNELS)
