"""What was preprocessed of Alljoined-1.6M: pickles of all trials of a person, and the table that tells their images.

The files are called `.npy`, but are pickles by themselves. Only `experiment_metadata.parquet` (and its copy with
categories) tells which trials were dropped; `stim_order.parquet` lists those too, so that its rows are not the trials.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from neural_clip.corpora.alljoined.facts import CHANNELS, LABELS, CorpusFacts
from neural_clip.corpora.alljoined.recordings import SPEC
from neural_clip.corpora.alljoined.stimuli import Image
from neural_clip.errors import DataError
from neural_clip.files.pickled import PICKLE, read_pickled
from neural_clip.files.reading import existing, head_of, reading
from neural_clip.preparation import channel_differences
from neural_clip.prepared.units import check_unit

PLACES = ("preprocessed_eeg", "preprocessed-eeg", "preprocessed_data", "")  # of the subjects' folders
FILES = {"training": "preprocessed_eeg_training_flat.npy", "test": "preprocessed_eeg_test_flat.npy"}
TABLES = ("experiment_metadata.parquet", "experiment_metadata_categories.parquet")
ORDER = "stim_order.parquet"
COLUMNS = ("subject", "session", "block_id", "partition", "image_path", "dropped")
INDEX = "__index_level_0__"  # where pandas keeps the former rows of a table whose rows were moved
UNIT_CHECKED = 20  # trials of each file, for their unit


@dataclass(frozen=True)
class FlatFile:
    """The trials of a part of a subject.

    Args:
        path, table (`Path`): Values, and the table of images.
        subject (`int`), part (`str`): Of which they are.
        sessions, blocks, ids (`numpy.ndarray` of shape `(n_trials,)`): Of each trial.
        mark (`str`): Digest of the first trial, which no two files have in common.
    """

    path: Path
    table: Path
    subject: int
    part: str
    sessions: np.ndarray
    blocks: np.ndarray
    ids: np.ndarray
    mark: str


def find_flat(raw_dir: Path, subject: int, facts: CorpusFacts, images: Sequence[Image]) -> list[FlatFile]:
    """Find and check the two files of a subject.

    Raises:
        DataError: If a file is missing, damaged, of another subject or part, or the table does not list as many trials
            as there are.
    """
    places = [raw_dir / place / f"sub-{subject:02d}" for place in PLACES]
    folder = next((place for place in places if place.is_dir()), places[0])
    table = next((folder / name for name in TABLES if (folder / name).is_file()), folder / TABLES[0])
    if not table.is_file() and (folder / ORDER).is_file():
        raise DataError(
            f"'{folder}' has no {TABLES[0]}. {ORDER} does not do: it lacks the column 'dropped', so its rows are not "
            "the trials that were kept."
        )
    existing(table, "table of trials", " Choose who is there by the 'subjects' parameter.")
    columns = _in_order(table, _columns(table), subject, facts)
    copy = folder / TABLES[1]
    if copy != table and copy.is_file():  # the first table tells no categories, but this one does
        _check_copy(copy, facts, images)
    return [_flat(folder / FILES[part], table, columns, subject, part, facts, images) for part in FILES]


def _check_copy(table: Path, facts: CorpusFacts, images: Sequence[Image]) -> None:
    """Require the categories of the copy of a table to be those of the images."""
    columns = _columns(table, ("partition", "image_path"))
    for part, label in LABELS.items():
        rows = {name: column[columns["partition"] == label] for name, column in columns.items()}
        _check_concepts(table, rows, _ids(table, rows, part, facts), facts, images)


def _columns(table: Path, needed: Sequence[str] = COLUMNS) -> dict[str, np.ndarray]:
    """Columns of a table that are used, and the former rows where it has them."""
    import pyarrow.parquet as pq

    with reading(table):
        names = pq.read_schema(table).names
        if absent := [name for name in needed if name not in names]:
            raise DataError(f"'{table}' has no column {absent[0]!r}; it has {', '.join(map(repr, names))}.")
        wanted = [*needed, *(name for name in (INDEX, "category_name", "category_num") if name in names)]
        read = pq.read_table(table, columns=wanted)
        found = {name: np.array(read[name].to_pylist()) for name in wanted}
    for name, kinds in {"subject": "iu", "session": "iu", "block_id": "iu", "dropped": "b", "partition": "U",
                        "image_path": "U"}.items():  # fmt: skip
        if name in found and found[name].dtype.kind not in kinds:
            raise DataError(f"'{table}': the column {name!r} holds values of type {found[name].dtype}.")
    return found


def _in_order(table: Path, columns: dict[str, np.ndarray], subject: int, facts: CorpusFacts) -> dict[str, np.ndarray]:
    """Rows in the order of recording: one row of one subject was recorded before its place."""
    own, row, place = facts.moved or (0, 0, 0)
    if subject != own:
        return columns
    if len(columns["session"]) <= row:
        raise DataError(f"'{table}' has {len(columns['session'])} rows; that of sub-{own:02d} has more than {row}.")
    if INDEX in columns and columns[INDEX][place] == row:
        return columns  # it was moved before the table was saved
    order = np.insert(np.delete(np.arange(len(columns["session"])), row), place, row)
    return {name: values[order] for name, values in columns.items()}


def _flat(
    path: Path, table: Path, columns: dict[str, np.ndarray], subject: int, part: str, facts: CorpusFacts,
    images: Sequence[Image],
) -> FlatFile:  # fmt: skip
    """Values and rows of the table that belong together."""
    values = opened_flat(existing(path, "preprocessed file", " It is part of Alljoined-1.6M (preprocessed_eeg)."))
    if others := set(columns["subject"].tolist()) - {subject}:
        raise DataError(f"'{table}' is of subject {min(others)}, but lies among the files of sub-{subject:02d}.")
    kept = (columns["partition"] == LABELS[part]) & ~columns["dropped"]
    rows = {name: column[kept] for name, column in columns.items()}
    if len(values) != kept.sum():
        raise DataError(
            f"'{path}' holds {len(values)} trials, but '{table}' lists {kept.sum()} of {LABELS[part]!r} that were not "
            "dropped. Is one of them of another version or subject, or are the two .npy files exchanged?"
        )
    if (np.diff(rows["session"]) < 0).any():
        raise DataError(f"'{table}' does not list the sessions in order, so its rows cannot be the trials.")
    ids = _ids(table, rows, part, facts)
    _check_concepts(table, rows, ids, facts, images)
    some = np.asarray(values[:: max(len(values) // UNIT_CHECKED, 1)], dtype=np.float64)
    if np.isfinite(some).all():  # others are named with their trial, when rows are made
        check_unit(some, "z", f"'{path}'", CHANNELS, " Get the file again.")
    mark = hashlib.sha256(np.ascontiguousarray(values[0]).tobytes()).hexdigest()
    return FlatFile(path, table, subject, part, rows["session"], rows["block_id"], ids, mark)


def _ids(table: Path, rows: dict[str, np.ndarray], part: str, facts: CorpusFacts) -> np.ndarray:
    """Ids of the images of some rows, all of which must be of a part."""
    ids = np.array([_image_number(table, image_path) for image_path in rows["image_path"].tolist()], dtype=np.int64)
    wrong = [number for number in np.unique(ids).tolist() if facts.part(number) != part]
    if wrong:
        raise DataError(f"'{table}' lists image {wrong[0]} as {LABELS[part]!r}, which it is not.")
    return ids


def _image_number(table: Path, image_path: str) -> int:
    """Id of `.../00012.jpg`."""
    digits = image_path[-9:-4]
    if len(digits) != 5 or not digits.isdecimal():
        raise DataError(f"'{table}' names the image {image_path[:100]!r}; allowed are names like '00012.jpg'.")
    return int(digits)


def _check_concepts(
    table: Path, rows: dict[str, np.ndarray], ids: np.ndarray, facts: CorpusFacts, images: Sequence[Image]
) -> None:
    """Ten ids in a row are one concept, and the names of concepts are those of the table of images."""
    by_table = rows.get("category_num", rows.get("category_name"))
    if by_table is None or not len(ids):
        return
    pairs = set(zip((facts.concept(number) for number in ids.tolist()), by_table.tolist(), strict=True))
    if len(pairs) != len({concept for concept, _ in pairs}):
        raise DataError(
            f"'{table}' gives images of one concept several categories; expected are {facts.images_per_concept} "
            "images of each concept in a row. The ids of this copy mean something else."
        )
    named = images[ids[0]].image_id.rpartition("_")[0]
    if "category_name" in rows and named:
        for number, name in dict(zip(ids.tolist(), rows["category_name"].tolist(), strict=True)).items():
            if _plain(images[number].concept) != _plain(name):
                raise DataError(
                    f"'{table}' calls image {number} {name!r}, but the table of images {images[number].concept!r}. "
                    "The ids do not count the images of THINGS-EEG2; leave out the 'image_metadata' parameter."
                )


def _plain(name: str) -> str:
    """Letters of a concept's name, for comparison only."""
    return "".join(letter for letter in name.lower() if letter.isalpha())


@lru_cache(maxsize=2)
def opened_flat(path: Path) -> np.ndarray:
    """Values of a file `(n_trials, n_chans, n_times)`, mapped.

    Raises:
        DataError: If it is damaged, or has other channels or times.
    """
    if not head_of(path).startswith(PICKLE):
        raise DataError(f"'{path}' is no file of Alljoined-1.6M, which are pickles by themselves. Was it saved again?")
    content = read_pickled(path)
    absent = [name for name in ("preprocessed_eeg_data", "ch_names", "times") if name not in content]
    if absent:
        raise DataError(f"'{path}' has no entry {absent[0]!r}; it has {sorted(content)}.")
    values, names = content["preprocessed_eeg_data"], content["ch_names"]
    if told := channel_differences(list(names) if isinstance(names, list) else np.ravel(names).tolist(), CHANNELS):
        raise DataError(f"'{path}' has other channels than Alljoined-1.6M, or in another order: {told}.")
    shape = (len(CHANNELS), SPEC["n_times"])
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or values.shape[1:] != shape or not len(values):
        found = (values.dtype, values.shape) if isinstance(values, np.ndarray) else type(values).__name__
        raise DataError(f"'{path}' should hold numbers of shape (trials, {shape[0]}, {shape[1]}), but holds {found}.")
    times = content["times"]
    expected = SPEC["tmin"] + np.arange(shape[1]) / SPEC["sfreq"]
    if not isinstance(times, np.ndarray) or times.shape != expected.shape or times.dtype.kind != "f" or (
        not (np.abs(times - expected) < 0.25 / SPEC["sfreq"]).all()
    ):  # fmt: skip
        raise DataError(f"'{path}': 'times' should go from 0 to {expected[-1]:g} s in {shape[1]} steps.")
    return values
