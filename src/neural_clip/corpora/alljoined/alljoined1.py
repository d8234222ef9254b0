"""Alljoined1: Parquet files of epochs of eight people who saw 960 images of NSD, as `Alljoined/05_125` has them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.corpora.alljoined.facts import CorpusFacts
from neural_clip.errors import DataError
from neural_clip.files.hdf5 import open_dataset
from neural_clip.files.reading import existing, reading
from neural_clip.prepared.units import check_unit

N_CHANS, N_TIMES, SFREQ, TMIN = 64, 334, 512.0, -0.05
_CHANNELS = (
    "Fp1 AF7 AF3 F1 F3 F5 F7 FT7 FC5 FC3 FC1 C1 C3 C5 T7 TP7 CP5 CP3 CP1 P1 P3 P5 P7 P9 PO7 PO3 O1 Iz Oz POz Pz CPz "
    "Fpz Fp2 AF8 AF4 AFz Fz F2 F4 F6 F8 FT8 FC6 FC4 FC2 FCz Cz C2 C4 C6 T8 TP8 CP6 CP4 CP2 P2 P4 P6 P8 P10 PO8 PO4 O2"
)
CHANNELS = _CHANNELS.split()
"""The order of BioSemi's cap of 64. The files name no channels."""
PLACES = ("data", "")  # of the files in the raw folder
SHARD = re.compile(r"(train|test)-(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?\.parquet")
NUMBERS = ("subject_id", "session", "block", "trial", "73k_id", "coco_id")
BATCH = 64  # epochs at a time: 11 MB
STIMULI = "nsd_stimuli.hdf5"


@dataclass(frozen=True)
class Shards:
    """The files of both splits, and what each row is.

    Args:
        paths (`tuple[Path, ...]`): The files.
        numbers (`dict[str, numpy.ndarray]`): Columns of `NUMBERS`, `file` (place in `paths`) and `row` of the file.
        test (`numpy.ndarray`): Whether a row is of a test file.
    """

    paths: tuple[Path, ...]
    numbers: dict[str, np.ndarray]
    test: np.ndarray

    @classmethod
    def read(cls, raw_dir: Path, subjects: Sequence[int]) -> Shards:
        """Find all files and read all columns but the epochs; `subjects` are all that there are.

        Raises:
            DataError: If files are missing or damaged, lack columns, have rows of other subjects, or show an image in
                both splits.
        """
        folders = [raw_dir / place for place in PLACES]
        folder = next((place for place in folders if any(place.glob("*.parquet"))), folders[0])
        found = [told for path in sorted(folder.glob("*.parquet")) if (told := SHARD.fullmatch(path.name))]
        for split in ("train", "test"):
            own = [told for told in found if told[1] == split]
            places, totals = (sorted(int(told[place]) for told in own) for place in (2, 3))
            if not own or len(set(totals)) > 1 or places != list(range(totals[0])):
                of = f", of {' and '.join(map(str, sorted(set(totals))))}, with the numbers {places}" if own else ""
                raise DataError(
                    f"'{folder}' has {len(own)} files of the {split} split{of}; allowed are the numbers from 0 on, "
                    "each once, of one total. Get all files of huggingface.co/datasets/Alljoined/05_125, called "
                    "train-00000-of-... and so on."
                )
        paths = tuple(folder / told[0] for told in found)
        columns = [_numbers(path) for path in paths]
        sizes = [len(one["session"]) for one in columns]
        numbers = {name: np.concatenate([one[name] for one in columns]) for name in NUMBERS}
        numbers |= {"file": np.repeat(np.arange(len(paths)), sizes), "row": np.concatenate([*map(np.arange, sizes)])}
        test = np.repeat([told[1] == "test" for told in found], sizes)
        shards = cls(paths, numbers, test)
        shards._check(folder, subjects)
        return shards

    def _check(self, folder: Path, subjects: Sequence[int]) -> None:
        """An image has one id of each kind, is of one split, and no trial is there twice."""
        ids = self.numbers["73k_id"]
        if others := set(self.numbers["subject_id"].tolist()) - set(subjects):
            raise DataError(f"'{folder}' has rows of subject {min(others)}; Alljoined1 has {list(subjects)}.")
        if (ids < 0).any():
            raise DataError(f"'{folder}' has the image {ids.min()} as '73k_id'; allowed are numbers from 0 on.")
        if common := set(ids[self.test].tolist()) & set(ids[~self.test].tolist()):
            raise DataError(
                f"'{folder}' has {len(common)} images in train and test files both, such as 73k_id {min(common)}."
            )
        pairs = set(zip(ids.tolist(), self.numbers["coco_id"].tolist(), strict=True))
        if not len(pairs) == len(set(ids.tolist())) == len({coco for _, coco in pairs}):
            raise DataError(f"'{folder}' gives an image several ids: '73k_id' and 'coco_id' contradict each other.")
        trials = np.stack([self.numbers[name] for name in ("subject_id", "session", "block", "trial")], axis=1)
        if len(np.unique(trials, axis=0)) < len(trials):
            raise DataError(f"'{folder}' has a trial twice: subject, session, block and trial are not unique.")

    def of(self, subject: int) -> np.ndarray:
        """Places of the rows of a subject, in the order of the files."""
        return np.flatnonzero(self.numbers["subject_id"] == subject)

    def trials(self, places: np.ndarray) -> np.ndarray:
        """Number of each of some rows in order of presentation."""
        order = np.lexsort([self.numbers[name][places] for name in ("trial", "block", "session")])
        ranks = np.empty(len(places), dtype=int)
        ranks[order] = np.arange(len(places))
        return ranks

    def epochs(self, places: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Row and epoch `(64, 334)`, in V, of some rows, in the order of the files.

        Raises:
            DataError: If a file is damaged, or holds epochs of another shape or unit, or values that are not finite.
        """
        for number in np.unique(self.numbers["file"][places]).tolist():
            own = places[self.numbers["file"][places] == number]
            wanted = dict(zip(self.numbers["row"][own].tolist(), own.tolist(), strict=True))
            checked = False
            for first, values in _batches(self.paths[number], wanted):
                rows = [row for row in range(first, first + len(values)) if row in wanted]
                chosen = values[[row - first for row in rows]]
                if not np.isfinite(chosen).all():
                    raise DataError(f"'{self.paths[number]}' holds values that are not finite (NaN or infinite).")
                if rows and not checked:
                    centred = chosen - chosen.mean(axis=2, keepdims=True)
                    check_unit(centred, "V", f"'{self.paths[number]}'", CHANNELS, " Get the file again.")
                    checked = True
                for row, epoch in zip(rows, chosen, strict=True):
                    yield wanted[row], epoch


def _numbers(path: Path) -> dict[str, np.ndarray]:
    """Whole numbers of all rows of a file."""
    import pyarrow.parquet as pq

    existing(path, "Parquet file")
    with reading(path):
        names = pq.read_schema(path).names
        if absent := [name for name in ("EEG", *NUMBERS) if name not in names]:
            raise DataError(f"'{path}' has no column {absent[0]!r}; it has {', '.join(map(repr, names))}.")
        table = pq.read_table(path, columns=list(NUMBERS))
        found = {name: table[name].to_numpy() for name in NUMBERS}
    for name, values in found.items():
        if values.dtype.kind not in "iu":
            raise DataError(f"'{path}': the column {name!r} should hold whole numbers, but has {values.dtype}.")
    return {name: values.astype(np.int64) for name, values in found.items()}


def _batches(path: Path, wanted: dict[int, int]) -> Iterator[tuple[int, np.ndarray]]:
    """First row and epochs `(n, 64, 334)` of the groups of rows in which wanted ones are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reading(path), pq.ParquetFile(path) as file:
        first = 0
        for group in range(file.num_row_groups):
            n_rows = file.metadata.row_group(group).num_rows
            if any(row in wanted for row in range(first, first + n_rows)):
                start = first
                for batch in file.iter_batches(BATCH, row_groups=[group], columns=["EEG"]):
                    column = batch.column(0)
                    column = column.storage if isinstance(column, pa.ExtensionArray) else column
                    yield start, _stacked(path, column)
                    start += len(column)
            first += n_rows


def _stacked(path: Path, column: Any) -> np.ndarray:
    """Epochs of lists of lists of pyarrow."""
    import pyarrow as pa

    sizes = []
    for _ in range(2):
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)) or column.null_count:
            raise DataError(f"'{path}': the column 'EEG' should hold lists of lists of numbers.")
        sizes.append(set(column.value_lengths().to_pylist()))
        column = column.flatten()
    if sizes != [{N_CHANS}, {N_TIMES}] or not pa.types.is_floating(column.type) or column.null_count:
        raise DataError(
            f"'{path}': an epoch should be {N_CHANS} channels of {N_TIMES} numbers, but there are {sizes[0]} of "
            f"{sizes[1]}."
        )
    return column.to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, N_CHANS, N_TIMES)


def stimuli_file(raw_dir: Path, images_dir: Path | None, ids: Sequence[int]) -> Path:
    """`nsd_stimuli.hdf5`, which must hold these images.

    Raises:
        DataError: If it is absent, or holds something else.
    """
    place = images_dir or raw_dir
    path = place / STIMULI if place.is_dir() else place
    existing(path, "file of images", f" Alljoined1 shows images of NSD: give {STIMULI} of NSD with --images-dir.")
    with open_dataset(path, "imgBrick") as bricks:
        if bricks.ndim != 4 or bricks.shape[3] != 3 or bricks.dtype != np.uint8 or bricks.shape[0] <= max(ids):
            raise DataError(
                f"'{path}': imgBrick should be uint8 images of three colours, more than {max(ids)} of them, but is "
                f"{bricks.dtype} of shape {bricks.shape}."
            )
    return path


def counts(shards: Shards, subject: int) -> dict[str, int]:
    """What a subject saw."""
    places = shards.of(subject)
    ids, test = shards.numbers["73k_id"][places], shards.test[places]
    return {"images": len(np.unique(ids)), "test images": len(np.unique(ids[test]))}


def declared(facts: CorpusFacts) -> dict[str, int]:
    """What a subject must have seen."""
    return {"images": facts.first_images, "test images": facts.first_test_images}
