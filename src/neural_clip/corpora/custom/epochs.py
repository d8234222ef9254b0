"""Recordings of one's own as mne reads them: the channels to take, and files of `mne.Epochs`."""

from __future__ import annotations

import ast
import re
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
from neural_clip.errors import DataError, did_you_mean
from neural_clip.files.reading import begins_like, check_gzip, reading
from neural_clip.files.tables import column, kept
from neural_clip.preparation import CHANNEL_UNITS, facts_of_info
from neural_clip.prepared.modalities import MODALITIES

if TYPE_CHECKING:
    import mne


FIF_SUFFIXES = (".fif", ".fif.gz")
CHANNEL_TYPES = {name: kind.channel_types for name, kind in MODALITIES.items() if kind.sensors} | {
    name: (name,) for kind in MODALITIES.values() for name in kind.channel_types
}  # of mne, by what 'picks' call them
FIRST_TAG = struct.pack(">i", 100)  # the identity of the file
REF_ROLE, REF_FILE_NUM, REF_FILE_NAME = 115, 117, 118  # tags of FIF, with two values of the first
PREVIOUS_FILE, NEXT_FILE = 1, 2
FURTHER_PART = re.compile(r"[-_](epo|raw|meg|eeg)-\d+\.fif$|_split-0*(?!1_)[1-9]\d*_")  # as mne and BIDS name them
EDGE = 1e-6  # s; times are sums of rounded decimals
# Warnings of mne after which it goes on with something else than the file says.
REFUSED_WARNINGS = (
    "does not match the file size",  # an EDF or BDF file that was cut off
    "possibly corrupted",  # a FIF file that was cut off
    "filter_length",  # a recording too short for the filter
)


@contextmanager
def strict_mne(path: Path | str, what: str = "") -> Iterator[set[str]]:
    """Run mne; its errors, and warnings that mean another result than asked for, become a `DataError`.

    The set that is given holds, after the block, the names of channels that occur twice, which mne has renamed.
    """
    renamed: set[str] = set()
    with warnings.catch_warnings(record=True) as caught, reading(path, what):
        warnings.simplefilter("always")
        yield renamed
    for warning in caught:
        if repeated := re.search(r"not unique, found duplicates for: (\{.*\})\.", str(warning.message), re.DOTALL):
            renamed |= set(map(str, ast.literal_eval(repeated[1])))
        if any(text in str(warning.message) for text in REFUSED_WARNINGS):
            raise DataError(f"'{path}': {str(warning.message).strip()}")


def fif_parts(path: Path) -> list[Path]:
    """Files of a recording, which mne cuts up when it is large; each tag of a FIF file points forward and lies in it.

    mne does not check that: after one wrong byte it can read the same tags without end. It does not notice either
    that the first of the parts is not the first of the recording.

    Raises:
        DataError: If a tag does not, or a part is missing.
    """
    if path.suffix == ".gz":
        check_gzip(path)
    parts, following = [path], path if path.suffix == ".fif" else None
    while following is not None:
        part = following
        before, following = _neighbours(part)
        if part == path and (before or FURTHER_PART.search(part.name)):
            raise DataError(f"'{path}' is not the first part of its recording; name the first one.")
        if following is not None and following in parts:
            raise DataError(f"'{part}' names '{following}' as its next part, which came before it.")
        if following is not None and not following.is_file():
            raise DataError(
                f"'{path}' was saved in several parts, of which '{following}' is missing. Put all into one folder "
                "under the names that they were saved with."
            )
        parts += [] if following is None else [following]
    return parts


def _neighbours(part: Path) -> tuple[bool, Path | None]:
    """Whether there is a part before, and the path of the next, by the references in a FIF file."""
    size, position, following, role, roles = part.stat().st_size, 0, 0, 0, set()
    next_name = next_number = None
    with part.open("rb") as file:
        head = file.read(8)
        if not head.startswith(FIRST_TAG):
            raise DataError(
                f"'{part}' cannot be read: it is no FIF file, or its header is damaged: {begins_like(head)}."
            )
        while 0 <= following < size:
            position = following
            file.seek(position)
            kind, _, length, following = struct.unpack(">iIii", file.read(16).ljust(16, b"\xff"))
            end = position + 16 + length
            following = following or end  # 0: the next tag comes at once; below 0: there is none
            if length < 0 or end > size or 0 < following <= position:
                raise DataError(
                    f"'{part}' cannot be read: no tag at byte {position} of {size}. Is it damaged or truncated?"
                )
            if kind == REF_ROLE:
                role = int.from_bytes(file.read(4), "big")
                roles.add(role)
            elif kind == REF_FILE_NAME and role == NEXT_FILE:
                next_name = Path(file.read(length).decode("latin-1")).name
            elif kind == REF_FILE_NUM and role == NEXT_FILE:
                next_number = int.from_bytes(file.read(4), "big")
    if next_name is None and next_number is not None:  # files of the maker of the machine name no file
        next_name = _numbered(part, next_number)
    return PREVIOUS_FILE in roles, None if next_name is None else part.with_name(next_name)


def _numbered(part: Path, number: int) -> str:
    """Name of a further part, `x_raw-1.fif` after `x_raw.fif`."""
    stem, _, own = part.stem.rpartition("-")
    return f"{stem if stem and own.isdigit() else part.stem}-{number}{part.suffix}"


def read_epochs(entry: Recording, modality: str, path: Path) -> Trials:
    """Rows of an `mne.Epochs` file.

    Raises:
        DataError: If it is damaged, has no metadata or no epochs, or lacks channels or times.
    """
    epochs, renamed = open_epochs(path)
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
    ch_names = channels(epochs, renamed, entry, modality, path)
    sfreq, first, last = float(epochs.info["sfreq"]), float(epochs.times[0]), float(epochs.times[-1])
    begin, end = (first if entry.tmin is None else entry.tmin), (last if entry.tmax is None else entry.tmax)
    step = 1 / sfreq - EDGE  # bounds that lie between samples lack less than one
    if not (first - step < begin < last + step and first - step < end < last + step):
        raise DataError(
            f"'{path}' spans {first:g} to {last:g} s from onset; 'tmin' ({begin:g} s) and 'tmax' ({end:g} s) must lie "
            "within."
        )
    times = np.flatnonzero((epochs.times >= begin - EDGE) & (epochs.times <= end + EDGE))
    if not times.size:
        raise DataError(f"'{path}': the window of {begin:g} to {end:g} s holds no sample at {sfreq:g} Hz.")
    facts = {
        "ch_names": ch_names, "sfreq": sfreq, "tmin": float(epochs.times[times[0]]),
        "n_times": len(times),
    }  # fmt: skip
    return Trials(
        entry,
        [names[i] for i in chosen],
        partial(_load, path, len(rows), chosen, ch_names, times),
        [runs[i] for i in chosen],
        np.asarray(epochs.selection)[chosen],
        facts,
        fif_parts(path),
        places=sensor_places(epochs.info, ch_names),
        history=history_of(epochs, ch_names) | {"baseline": epochs.baseline and list(map(float, epochs.baseline))},
    )


def _load(path: Path, n_rows: int, chosen: np.ndarray, ch_names: list[str], times: np.ndarray) -> np.ndarray:
    """Values of the chosen epochs, channels and samples."""
    epochs, _ = open_epochs(path)
    with reading(path):
        data = epochs.get_data(picks=ch_names, verbose="error")
    if len(data) != n_rows:
        raise DataError(f"'{path}' holds {len(data)} epochs, but its metadata {n_rows} rows.")
    return data[np.ix_(chosen, np.arange(len(ch_names)), times)].astype(np.float32)


def open_epochs(path: Path) -> tuple[mne.Epochs, set[str]]:
    """Epochs of a file, not loaded, and the names of channels that occur twice.

    Raises:
        DataError: If the file is damaged, or holds no epochs.
    """
    import mne

    with strict_mne(path, " as mne.Epochs") as renamed:
        fif_parts(path)
        # projectors that are not applied yet stay so, as in continuous recordings
        epochs = mne.read_epochs(path, proj=False, preload=False, verbose="warning")
        epochs.get_channel_types()  # fails on types that there are not
    return epochs, renamed


def history_of(recording: mne.Epochs | mne.io.BaseRaw, ch_names: Sequence[str]) -> dict:
    """Unit, band, reference, projectors and spatial filters of some channels, as [`Trials`] keeps them."""
    kind = dict(zip(recording.ch_names, recording.get_channel_types(), strict=True))[ch_names[0]]
    return {"unit": CHANNEL_UNITS.get(kind), "rate": None, **facts_of_info(recording.info, ch_names)}


def channels(
    recording: mne.Epochs | mne.io.BaseRaw, renamed: set[str], entry: Recording, modality: str, path: Path
) -> list[str]:
    """Names of the channels to take, in order; `renamed` are those that occur twice in the file.

    Raises:
        DataError: If one is missing or marked bad or occurs twice, or their units differ.
    """
    kinds = dict(zip(recording.ch_names, recording.get_channel_types(), strict=True))
    wanted = entry.picks or [modality]
    if set(wanted) <= set(CHANNEL_TYPES):
        types = {kind for name in wanted for kind in CHANNEL_TYPES[name]}
        names = [name for name, kind in kinds.items() if kind in types]
    else:
        names = list(wanted)
        lacking = [name for name in names if name not in {*kinds, *renamed}]
        if lacking:
            near = did_you_mean(lacking[0], kinds)
            raise DataError(f"'{path}' has no channel {lacking[0]!r}; it has {', '.join(list(kinds)[:8])} ...{near}")
    if not names:
        raise DataError(f"'{path}' has no channel of type {wanted}; it has types {sorted(set(kinds.values()))}.")
    repeated = sorted({name for name in names if {name, name.rpartition("-")[0]} & renamed})
    if repeated:
        raise DataError(
            f"'{path}': the channel names are not unique: {', '.join(sorted(renamed))}. Leave them out by 'picks'."
        )
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
