"""Betas of THINGS-fMRI: of the table that pandas wrote as HDF5, or of the volumes of each run.

pandas (format "fixed") keeps columns of one type together: `block0_values` holds the betas, (voxel, trial), and
another block the column `voxel_id`. Labels of columns are a pickle where they are no text; no more of it is read than
lists of numbers consist of. Betas are read in pieces, of the voxels and trials that are wanted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.hdf5 import check_storage, dataset_of, open_dataset, open_hdf5, read_slab, stored
from neural_clip.files.nifti import open_nifti
from neural_clip.files.pickled import read_pickled_list

BLOCK = re.compile(r"block\d+_values")
VOXEL_ID = "voxel_id"


@dataclass(frozen=True)
class TableBetas:
    """Betas in `ResponseData.h5`.

    Args:
        path (`Path`): The file.
        name (`str`): Of the data set, `(voxel, column)`.
        first (`int`): Column of the first trial.
        n_voxels, n_trials (`int`): How many there are.
    """

    path: Path
    name: str
    first: int
    n_voxels: int
    n_trials: int

    @classmethod
    def open(cls, path: Path, n_voxels: int, n_trials: int) -> TableBetas:
        """Find the betas, and compare labels and sizes with what the tables of voxels and trials say.

        Raises:
            DataError: If the file is damaged, incomplete or in another format, holds Python objects, or has other
                voxels or trials, or in another order.
        """
        with open_hdf5(path) as file:
            group = _frame(path, file)
            blocks = {name: dataset_of(path, group, name) for name in group if BLOCK.fullmatch(name)}
            labels = {name: _labels(path, group, name) for name in blocks}
            holds = {label: (name, place) for name in blocks for place, label in enumerate(labels[name])}
            if VOXEL_ID not in holds or 0 not in holds:
                raise DataError(
                    f"'{path}' should have a column {VOXEL_ID!r} and columns 0 to {n_trials - 1}, but its "
                    f"{len(holds)} columns are {', '.join(map(repr, [*holds][:3]))} ..."
                )
            name, first = holds[0]
            betas = blocks[name]
            _check_values(path, betas, labels[name])
            ids = stored(path, blocks[holds[VOXEL_ID][0]])[:, holds[VOXEL_ID][1]]
            found = [label for label in labels[name] if label != VOXEL_ID]
            if found != list(range(n_trials)) or len(holds) != n_trials + 1:
                raise DataError(
                    f"'{path}' has {len(found)} trials{'' if len(found) != n_trials else ' in another order'}; the "
                    f"table of trials lists {n_trials}, from 0 on. Do they belong to the same subject?"
                )
            if labels[name][first : first + n_trials] != found:
                raise DataError(
                    f"'{path}' has the column {VOXEL_ID!r} in the middle of the trials; allowed is before or after "
                    "them, so that trials lie side by side."
                )
            if not np.array_equal(ids, np.arange(n_voxels)):
                raise DataError(
                    f"'{path}' has {len(ids)} voxels, the table of voxels lists {n_voxels}, from 0 on, and the two "
                    "are not the same. Do they belong to the same subject?"
                )
            return cls(path, betas.name, first, n_voxels, n_trials)

    def read(self, rows: np.ndarray, first: int, last: int) -> np.ndarray:
        """Betas `(last - first, n_rows)`, float32, of voxels and of trials from `first` on.

        Raises:
            DataError: If the file is damaged, or a value is not finite.
        """
        out = np.empty((last - first, len(rows)), np.float32)
        with open_dataset(self.path, self.name) as betas:
            for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
                voxels = (int(rows[run[0]]), int(rows[run[-1]]) + 1)
                out[:, run] = read_slab(betas, voxels, (self.first + first, self.first + last)).T
        _check_finite(f"'{self.path}'", out)
        return out


def _frame(path: Path, file: Any) -> Any:
    """The group of the table."""
    import h5py

    groups = [group for group in file.values() if isinstance(group, h5py.Group)]
    kinds = [_text(group.attrs.get("pandas_type", "")) for group in groups]
    if "frame_table" in kinds:
        raise DataError(
            f"'{path}' is in the format 'table' of pandas, which cannot hold as many columns as there are trials. "
            "Read is the format 'fixed', as published: save it anew by "
            "`frame.to_hdf(path, key='ResponseData')`."
        )
    frames = [group for group, kind in zip(groups, kinds, strict=True) if kind == "frame"]
    if len(frames) != 1:
        raise DataError(
            f"'{path}' should hold one table that pandas wrote (`to_hdf`), but holds {len(frames)}: it has "
            f"{', '.join(map(repr, file)) or 'nothing'}."
        )
    return frames[0]


def _text(value: object) -> str:
    """An attribute as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _labels(path: Path, group: Any, block: str) -> list:
    """Labels of the columns of a block: whole numbers where they are some, else text."""
    name = block.replace("_values", "_items")
    items = dataset_of(path, group, name)
    if items.dtype.kind == "O":  # one pickle of PyTables, as bytes
        value = items[0] if items.shape == (1,) else None
        if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
            raise DataError(f"'{path}': the labels '{name}' are of type {items.dtype}, which pandas does not write.")
        found = read_pickled_list(value.tobytes(), f"'{path}', labels '{name}'")
    else:
        found = [_text(value) if isinstance(value, bytes) else value for value in stored(path, items).ravel().tolist()]
    return [int(label) if str(label).isdecimal() else label for label in found]


def _check_values(path: Path, betas: Any, labels: Sequence) -> None:
    """Require real numbers for each label, all of which lie in the file."""
    if betas.dtype.kind == "O":
        raise DataError(
            f"'{path}': '{betas.name}' holds Python objects, which are not read because that could run code. Save "
            "numbers."
        )
    if betas.dtype.kind != "f" or betas.ndim != 2 or betas.shape[1] != len(labels):
        raise DataError(
            f"'{path}': '{betas.name}' should hold floating-point numbers (voxel, {len(labels)}), but holds "
            f"{betas.dtype} of shape {betas.shape}."
        )
    check_storage(path, betas)


def _check_finite(where: str, values: np.ndarray) -> None:
    """Refuse NaN and infinite numbers."""
    if bad := int((~np.isfinite(values)).any(axis=0).sum()):
        raise DataError(f"{where} holds values that are not finite (NaN or infinite) in {bad} voxels.")


@dataclass(frozen=True)
class VolumeBetas:
    """Betas in the NIfTI files of the runs.

    Args:
        runs (`Mapping[int, dict]`): By session and run the file, the places of volumes to keep, and how many it holds.
        brain (`np.ndarray` of shape `(X, Y, Z)`, bool): Mask of the brain.
    """

    runs: Mapping[int, dict]
    brain: np.ndarray

    def files(self, session: int) -> list[Path]:
        """Files of a session."""
        return [path for path, _, _ in self.runs[session].values()]

    def read(self, rows: np.ndarray, session: int) -> np.ndarray:
        """Betas `(n_trials, n_rows)`, float32, of a session, without catch trials.

        Raises:
            DataError: If a file is absent, damaged or of another shape, or a value is not finite.
        """
        # places in the file, which is in Fortran order, of the voxels in C order
        places = np.arange(self.brain.size).reshape(self.brain.shape, order="F")[self.brain][rows]
        read = [_read_run(path, places, self.brain.shape, *kept) for path, *kept in self.runs[session].values()]
        return np.concatenate(read)


def _read_run(path: Path, places: np.ndarray, shape: tuple, kept: Sequence[int], n_volumes: int) -> np.ndarray:
    """Some voxels of some volumes of a file."""
    out, wanted = np.empty((n_volumes, len(places)), np.float32), (*shape, n_volumes)
    with open_nifti(path) as stream:
        if tuple(stream.shape) != wanted:
            raise DataError(
                f"'{path}' should have shape {wanted}, by the brain mask and its list of images, but has "
                f"{tuple(stream.shape)}. Do they belong together?"
            )
        slope, shift = (float(value) if value is not None else None for value in stream.scaling)
        for number in range(n_volumes):
            volume = stream.values(int(np.prod(shape)))[places]
            out[number] = volume * (slope or 1.0) + (shift or 0.0) if stream.scaled else volume
    _check_finite(f"'{path}'", out[kept])
    return out[kept]
