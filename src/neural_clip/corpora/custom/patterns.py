"""Tables of patterns: one row a trial, as they are."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from neural_clip.corpora.custom.manifest import Manifest, Recording
from neural_clip.corpora.custom.trials import Trials, files_of
from neural_clip.errors import DataError
from neural_clip.files.arrays import read_array
from neural_clip.files.names import plain_name
from neural_clip.files.nifti import is_nifti
from neural_clip.files.tables import column, kept, read_table
from neural_clip.files.volumes import read_volumes
from neural_clip.prepared.modalities import MODALITIES


def read_patterns(entry: Recording, manifest: Manifest, path: Path, root: Path) -> Trials:
    """Rows that are ready: one array row or NIfTI volume a trial."""
    ways = [entry.image_key, entry.events, entry.first_image]
    if sum(way is not None for way in ways) != 1:
        raise DataError(
            f"'{path}': give exactly one of 'image_key', 'events' and 'first_image' to tell what rows show."
        )
    rows: list[dict] = []
    if entry.events is not None:
        rows = read_table(root / entry.events)
        shown: list[str | int] = list(column(rows, entry.image_column, root / entry.events))
    elif entry.image_key is not None:
        shown = _image_index(entry, path)
    else:
        n_rows = len(_pattern_values(entry, manifest.modality, path, root))
        shown = [int(entry.first_image or 0) + row for row in range(n_rows)]
    if (entry.keep or entry.run_column) and not rows:
        raise DataError(f"'{path}': 'keep' and 'run_column' need a table of 'events'.")
    chosen = np.flatnonzero(kept(rows, entry.keep, entry.events)) if rows else np.arange(len(shown))
    runs = column(rows, entry.run_column, entry.events) if entry.run_column else [entry.run] * len(shown)
    facts = {"sfreq": manifest.sfreq, "tmin": manifest.tmin} if MODALITIES[manifest.modality].sensors else {}
    load = partial(_load_patterns, entry, manifest.modality, path, root, len(shown), chosen)
    files = files_of(entry, path, root)
    return Trials(entry, [shown[i] for i in chosen], load, [runs[i] for i in chosen], chosen, facts, files)


def _load_patterns(
    entry: Recording, modality: str, path: Path, root: Path, n_rows: int, chosen: np.ndarray
) -> np.ndarray:
    """Values of the chosen rows."""
    values = _pattern_values(entry, modality, path, root)
    if len(values) != n_rows:
        raise DataError(f"'{path}' holds {len(values)} patterns, but {n_rows} rows tell what they show.")
    return values[chosen]


def _image_index(entry: Recording, path: Path) -> list[str | int]:
    """Names, or positions counted from 0."""
    index = np.ravel(read_array(path, entry.image_key))
    if index.dtype.kind == "U":
        return [plain_name(name) for name in index.tolist()]
    if entry.index_base is None:
        raise DataError(
            f"'{path}': array {entry.image_key!r} holds numbers; say by 'index_base' if they begin at 0 or 1."
        )
    whole = index.dtype.kind in "iuf" and index.size and np.isfinite(index).all() and (index == np.round(index)).all()
    if not whole or index.min() < entry.index_base:
        raise DataError(f"'{path}': array {entry.image_key!r} must hold whole numbers from {entry.index_base}.")
    return [int(number) - entry.index_base for number in index]


def _pattern_values(entry: Recording, modality: str, path: Path, root: Path) -> np.ndarray:
    if not MODALITIES[modality].sensors:
        return read_volumes(path, None if entry.mask is None else root / entry.mask, entry.data_key)[0]
    if is_nifti(path) or entry.mask is not None:
        raise DataError(f"'{path}': NIfTI files and masks are for fMRI, but the modality is {modality!r}.")
    values = read_array(path, entry.data_key)
    if values.ndim != 3 or values.dtype.kind not in "biuf":
        raise DataError(
            f"'{path}' holds {values.dtype} {values.shape}; expected numbers (n_trials, n_chans, n_times)."
        )
    return values.astype(np.float32)
