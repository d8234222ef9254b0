"""The event tables of THINGS-EEG1, and what all of them say together of the images.

Version 1.2.0 tells onsets in s and, in the column `sample`, in samples; earlier versions tell them in ms alone. Which
it is is decided by the columns and checked by the interval between images, which is 0.1 s in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neural_clip.corpora.things_eeg1.facts import SOA, CorpusFacts
from neural_clip.errors import DataError
from neural_clip.files.numbers import number
from neural_clip.files.reading import existing
from neural_clip.files.tables import read_columns, read_header, whole_number

COLUMNS = ("onset", "sequencenumber", "stim")
OPTIONAL = ("sample", "isteststim", "object", "stimname")  # 0, "-1" or nothing where a table lacks them
UNKNOWN_OBJECT = "-1"  # of test images


@dataclass(frozen=True)
class Events:
    """What a subject saw.

    Args:
        subject (`int`): Number.
        table (`Path`): The file.
        samples (`numpy.ndarray` of shape `(n_events,)`): Onsets in samples of the recording.
        sequences (`numpy.ndarray` of shape `(n_events,)`): Number of the sequence of images.
        image_ids (`list[str]`): Stem of the image's file, `"aardvark_01b"`: the same in all corpora of THINGS.
        files (`dict[str, str]`): File of each of them, `"aardvark/aardvark_01b.jpg"`.
        test (`numpy.ndarray` of shape `(n_events,)`): Whether a test image was shown.
    """

    subject: int
    table: Path
    samples: np.ndarray
    sequences: np.ndarray
    image_ids: list[str]
    files: dict[str, str]
    test: np.ndarray

    @property
    def test_images(self) -> set[str]:
        """Test images that were shown."""
        return {self.image_ids[event] for event in np.flatnonzero(self.test)}

    @property
    def training_images(self) -> set[str]:
        """Other images that were shown."""
        return {self.image_ids[event] for event in np.flatnonzero(~self.test)}

    def counts(self, facts: CorpusFacts) -> dict[str, int]:
        """The counts of [`CorpusFacts.shown`]."""
        found = []
        for part, repeats in ((~self.test, 1), (self.test, facts.test_repeats)):
            _, times = np.unique([self.image_ids[event] for event in np.flatnonzero(part)], return_counts=True)
            found += [len(times), int((times == repeats).sum())]
        return dict(zip(facts.shown(self.subject), found, strict=True))


def concept_of(image_id: str) -> str:
    """`coat_rack_13s` is of concept `coat_rack`."""
    return image_id.rpartition("_")[0]


def read_events(raw_dir: Path, subject: int, facts: CorpusFacts) -> Events:
    """Events of a subject.

    Raises:
        DataError: If the table is missing, damaged or contradicts itself, its onsets are in an unknown unit, or images
            do not follow each other as published.
    """
    stem = f"sub-{subject:02d}"
    table = existing(
        raw_dir / stem / "eeg" / f"{stem}_task-rsvp_events.tsv", "table of events",
        " Choose who is there by the 'subjects' parameter.",
    )  # fmt: skip
    header = read_header(table, "\t")
    names = [*COLUMNS, *(name for name in OPTIONAL if name in header)]
    samples, sequences, image_ids, files, test = [], [], [], {}, []
    for line, cells in read_columns(table, names, "\t"):
        row = dict(zip(names, cells, strict=True))
        image_id, file = _image(table, line, row)
        image_ids.append(image_id)
        files[image_id] = file
        samples.append(_sample(table, line, row, facts.sfreq))
        sequences.append(whole_number(table, line, "sequencenumber", row["sequencenumber"]))
        if (flag := row.get("isteststim", "0")) not in ("0", "1"):
            raise DataError(f"'{table}': line {line} has {flag!r} as isteststim; allowed are 0 and 1.")
        test.append(flag == "1")
    if not samples:
        raise DataError(f"'{table}' lists no events.")
    events = Events(
        subject, table, np.array(samples, dtype=np.int64), np.array(sequences, dtype=np.int64), image_ids, files,
        np.array(test),
    )  # fmt: skip
    _check_times(events, facts.sfreq)
    return events


def _image(table: Path, line: int, row: dict[str, str]) -> tuple[str, str]:
    r"""Image and file of `stimuli\aardvark\aardvark_01b.jpg`; all columns must name the same."""
    parts = row["stim"].replace("\\", "/").split("/")
    folder, file = (parts[1], parts[2]) if len(parts) == 3 else ("", "")
    image_id = file.rpartition(".")[0]
    concept = concept_of(image_id)
    if parts[0] != "stimuli" or not concept or folder in (".", "..") or "\0" in file:
        raise DataError(
            rf"'{table}': line {line} shows {row['stim']!r}; allowed are paths like 'stimuli\\bow1\\bow1_01b.jpg'."
        )
    told = {"object": row.get("object", UNKNOWN_OBJECT), "stimname": row.get("stimname", file)}
    fits = told["object"] in (concept, UNKNOWN_OBJECT) and told["stimname"] == file
    if folder != concept or not fits:
        raise DataError(
            f"'{table}': line {line} contradicts itself: its image is {row['stim']!r}, its object {told['object']!r}, "
            f"its stimname {told['stimname']!r}."
        )
    return image_id, f"{folder}/{file}"


def _sample(table: Path, line: int, row: dict[str, str], sfreq: float) -> int:
    """Onset in samples of the recording."""
    try:
        onset = number(row["onset"])
    except ValueError as error:
        raise DataError(f"'{table}': line {line}: the onset is no number: {error}.") from error
    if "sample" in row:
        sample = whole_number(table, line, "sample", row["sample"])
        if abs(onset * sfreq - sample) > 1:
            raise DataError(
                f"'{table}': line {line} tells the onset {row['onset']} s and the sample {sample}, which is another "
                f"time at {sfreq:g} Hz. Is the table of two versions?"
            )
        return sample
    if onset != round(onset):
        raise DataError(
            f"'{table}' has no column 'sample', so it should be of version 1.1 or earlier, with onsets in ms; but "
            f"line {line} has the onset {row['onset']}. Get the tables of version 1.2.0 of ds003825."
        )
    return round(onset * sfreq / 1000)


def _check_times(events: Events, sfreq: float) -> None:
    """Images must follow each other as published, and test images have sequences of their own."""
    steps = np.diff(events.samples)
    if len(wrong := np.flatnonzero(steps <= 0)):
        raise DataError(f"The events of '{events.table}' are not in order of time, from row {wrong[0] + 2} on.")
    within = steps[np.diff(events.sequences) == 0] / sfreq
    middle = float(np.median(within)) if within.size else 0.0
    if not SOA[0] <= middle <= SOA[1]:
        raise DataError(
            f"'{events.table}': images follow each other every {middle:g} s within sequences; in THINGS-EEG1 it is "
            f"{SOA[0]:g} to {SOA[1]:g} s. Are onsets in another unit (ms in versions before 1.2.0), or is it another "
            "corpus?"
        )
    mixed = set(events.sequences[events.test].tolist()) & set(events.sequences[~events.test].tolist())
    if mixed:
        raise DataError(f"'{events.table}': sequence {min(mixed)} shows training and test images both.")


def check_people(people: Sequence[Events]) -> None:
    """Refuse tables that do not belong together.

    Raises:
        DataError: If two people have the same table or other test images, or one saw a test image in training.
    """
    known: dict[bytes, Events] = {}
    tested = next((one for one in people if one.test.any()), None)
    if tested is None:
        raise DataError(f"None of sub-{', sub-'.join(f'{one.subject:02d}' for one in people)} saw the test images.")
    for one in people:
        before = known.setdefault(one.samples.tobytes(), one)
        if before is not one:
            raise DataError(
                f"'{before.table}' and '{one.table}' list the same onsets. One of them is of another subject."
            )
        if one.test.any() and (other := one.test_images ^ tested.test_images):
            raise DataError(
                f"'{one.table}' and '{tested.table}' have different test images, such as {min(other)!r}; in "
                "THINGS-EEG1 they are the same for everybody."
            )
        if common := one.training_images & tested.test_images:
            raise DataError(f"'{one.table}' shows the test image {min(common)!r} among training images.")
