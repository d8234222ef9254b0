"""Recordings of one's own as mne reads them: the channels to take, and files of `mne.Epochs`."""

from __future__ import annotations

import glob
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.corpora.custom.manifest import Recording
from neural_clip.corpora.custom.trials import Trials
from neural_clip.corpora.sensor_places import sensor_places
from neural_clip.errors import DataError
from neural_clip.files.reading import check_gzip, reading
from neural_clip.files.tables import column, kept
from neural_clip.preparation import CHANNEL_UNITS, facts_of_info

if TYPE_CHECKING:
    import mne


CHANNEL_TYPES = ("eeg", "meg", "mag", "grad")
EDGE = 1e-6  # s; times are sums of rounded decimals
# Warnings of mne after which it goes on with something else than the file says.
REFUSED_WARNINGS = (
    "not unique",  # it would rename duplicated channels
    "does not match the file size",  # an EDF or BDF file that was cut off
    "possibly corrupted",  # a FIF file that was cut off
    "filter_length",  # a recording too short for the filter
)


@contextmanager
def strict_mne(path: Path | str, what: str = "") -> Iterator[None]:
    """Run mne; its errors, and warnings that mean another result than asked for, become a `DataError`."""
    with warnings.catch_warnings(record=True) as caught, reading(path, what):
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if any(text in str(warning.message) for text in REFUSED_WARNINGS):
            raise DataError(f"'{path}': {str(warning.message).strip()}")


def check_fif(path: Path) -> None:
    """Check that each tag of a FIF file, and of the further files of that recording, points forward and lies in it.

    mne does not: after one wrong byte it can read the same tags for ever.

    Raises:
        DataError: If a tag does not.
    """
    if path.suffix == ".gz":
        check_gzip(path)
    for part in [path, *further_parts(path)] if path.suffix == ".fif" else []:
        size, position, following = part.stat().st_size, 0, 0
        with part.open("rb") as file:
            while 0 <= following < size:
                position = following
                file.seek(position)
                _, _, length, following = struct.unpack(">iIii", file.read(16).ljust(16, b"\xff"))
                end = position + 16 + length
                following = following or end  # 0: the next tag comes at once; below 0: there is none
                if length < 0 or end > size or 0 < following <= position:
                    raise DataError(
                        f"'{part}' cannot be read: no tag at byte {position} of {size}. Is it damaged or truncated?"
                    )


def read_epochs(entry: Recording, modality: str, path: Path) -> Trials:
    """Rows of an `mne.Epochs` file.

    Raises:
        DataError: If it is damaged, has no metadata or no epochs, or lacks channels or times.
    """
    epochs = _open(path)
    if epochs.metadata is None:
        raise DataError(
            f"'{path}' has no metadata, so nothing names the images. Set `epochs.metadata` and save again."
        )
    rows = [{str(key): str(value) for key, value in row.items()} for row in epochs.metadata.to_dict("records")]
    if not rows:
        raise DataError(f"'{path}' holds no epochs; were all of them rejected?")
    chosen = np.flatnonzero(kept(rows, entry.keep, path))
    names = column(rows, entry.image_column, path)
    runs = column(rows, entry.run_column, path) if entry.run_column else [entry.run] * len(rows)
    ch_names = channels(epochs, entry, modality, path)
    times = np.flatnonzero(
        (epochs.times >= (-np.inf if entry.tmin is None else entry.tmin) - EDGE)
        & (epochs.times <= (np.inf if entry.tmax is None else entry.tmax) + EDGE)
    )
    if not times.size:
        raise DataError(f"'{path}' spans {epochs.tmin} to {epochs.tmax} s; 'tmin' and 'tmax' leave no sample of it.")
    facts = {
        "ch_names": ch_names, "sfreq": float(epochs.info["sfreq"]), "tmin": float(epochs.times[times[0]]),
        "n_times": len(times),
    }  # fmt: skip
    return Trials(
        entry,
        [names[i] for i in chosen],
        partial(_load, path, len(rows), chosen, ch_names, times),
        [runs[i] for i in chosen],
        np.asarray(epochs.selection)[chosen],
        facts,
        [path, *further_parts(path)],
        places=sensor_places(epochs.info, ch_names),
        history=history_of(epochs, ch_names) | {"baseline": epochs.baseline and list(map(float, epochs.baseline))},
    )


def _load(path: Path, n_rows: int, chosen: np.ndarray, ch_names: list[str], times: np.ndarray) -> np.ndarray:
    """Values of the chosen epochs, channels and samples."""
    epochs = _open(path)
    with reading(path):
        data = epochs.get_data(picks=ch_names, verbose="error")
    if len(data) != n_rows:
        raise DataError(f"'{path}' holds {len(data)} epochs, but its metadata {n_rows} rows.")
    return data[np.ix_(chosen, np.arange(len(ch_names)), times)].astype(np.float32)


def _open(path: Path) -> mne.Epochs:
    import mne

    with strict_mne(path, " as mne.Epochs"):
        check_fif(path)
        # projectors that are not applied yet stay so, as in continuous recordings
        return mne.read_epochs(path, proj=False, preload=False, verbose="warning")


def history_of(recording: mne.Epochs | mne.io.BaseRaw, ch_names: Sequence[str]) -> dict:
    """Unit, band, reference, projectors and spatial filters of some channels, as [`Trials`] keeps them."""
    kind = dict(zip(recording.ch_names, recording.get_channel_types(), strict=True))[ch_names[0]]
    return {"unit": CHANNEL_UNITS.get(kind), "rate": None, **facts_of_info(recording.info, ch_names)}


def further_parts(path: Path) -> list[Path]:
    """Further files of one recording, which mne cuts up when it is large: `x-epo.fif`, `x-epo-1.fif`, ..."""
    return sorted(path.parent.glob(f"{glob.escape(path.stem)}-[0-9]*{path.suffix}"))


def channels(recording: mne.Epochs | mne.io.BaseRaw, entry: Recording, modality: str, path: Path) -> list[str]:
    """Names of the channels to take, in order.

    Raises:
        DataError: If one is missing or marked bad, or their units differ.
    """
    kinds = dict(zip(recording.ch_names, recording.get_channel_types(), strict=True))
    wanted = entry.picks or [modality]
    if set(wanted) <= set(CHANNEL_TYPES):
        types = {"mag", "grad"} if "meg" in wanted else set(wanted)
        names = [name for name, kind in kinds.items() if kind in types]
    else:
        names = list(wanted)
        lacking = [name for name in names if name not in kinds]
        if lacking:
            raise DataError(f"'{path}' has no channel {lacking[0]!r}; it has {', '.join(list(kinds)[:8])} ...")
    if not names:
        raise DataError(f"'{path}' has no channel of type {wanted}; it has types {sorted(set(kinds.values()))}.")
    found = {kinds[name] for name in names}
    if len(found) > 1:
        raise DataError(
            f"'{path}': channels of different units, {sorted(found)}; choose by 'picks', for example [mag]."
        )
    bads = [name for name in names if name in recording.info["bads"]]
    if bads:
        raise DataError(
            f"'{path}': channels marked bad: {', '.join(bads)}. Interpolate them or leave them out by 'picks'."
        )
    return names
