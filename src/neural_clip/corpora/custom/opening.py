"""Continuous EEG and MEG recordings, opened strictly: files that mne reads, alone or in a BIDS data set."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neural_clip.corpora.custom.edf import EDF_SUFFIXES, channels_to_read
from neural_clip.corpora.custom.epochs import fif_parts, strict_mne
from neural_clip.corpora.custom.manifest import Recording
from neural_clip.errors import DataError, did_you_mean
from neural_clip.files.reading import HEAD, checked_files, existing, reading

if TYPE_CHECKING:
    import mne
    import mne_bids

Opener = Callable[[], "tuple[mne.io.BaseRaw, set[str]]"]  # a recording, and channel names that occur twice in it
TEXTS = (".txt", ".csv")
BIDS_COLUMNS = {"events": ("onset", "duration"), "channels": ("name", "type")}  # without which mne-bids stumbles
SAMPLE_BYTES = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}  # of BrainVision's binary formats


def open_raw(path: Path, entry: Recording) -> tuple[mne.io.BaseRaw, set[str]]:
    """The recording, not loaded yet, and the names of channels that occur twice in it."""
    import mne

    with strict_mne(path, " by mne.io.read_raw") as renamed:
        raw = mne.io.read_raw(path, preload=False, verbose="warning", **_checked_file(path, entry))
        raw.get_channel_types()  # fails on types that there are not
    return raw, renamed


def _checked_file(path: Path, entry: Recording) -> dict:
    """Check what mne does not, and give options for its reader."""
    if path.is_file():
        existing(path, "recording")
    fif_parts(path)
    suffix = path.suffix.lower()
    options: dict[str, Any] = {}
    if suffix == ".ds":
        if lacking := [ending for ending in (".res4", ".meg4") if not any(path.glob(f"*{ending}"))]:
            raise DataError(f"'{path}' cannot be read: the CTF recording is incomplete, it has no {lacking[0]} file.")
        # A system clock that stands still does not end a CTF recording: heads may have been localised in between.
        options = {"system_clock": "ignore"}
    elif suffix in EDF_SUFFIXES and (names := channels_to_read(path, entry.picks)):
        options = {"include": names}
    elif suffix == ".vhdr":
        check_brainvision(path)
    elif suffix in TEXTS:  # mne takes these for optical recordings
        raise DataError(f"'{path}' is text; a recording of EEG or MEG is a file that mne reads, such as FIF or EDF.")
    return options


def check_brainvision(header: Path) -> None:
    """What mne takes from the header in silence: names that occur twice, and a data file that was cut off."""
    text = existing(header, "recording").read_text(encoding="latin-1")
    if not re.match(r"\W*Brain ?Vision", text[:HEAD], re.IGNORECASE):
        raise DataError(f"'{header}' is no header of BrainVision: it begins with {text[:20]!r}.")
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[] \t").casefold(), {})
        elif not line.startswith(";"):
            key, _, value = line.partition("=")
            section[key.strip()] = value.strip()
    facts = sections.get("common infos", {}) | sections.get("binary infos", {})
    names = [value.split(",")[0] for value in sections.get("channel infos", {}).values() if value]
    if facts.get("NumberOfChannels") != str(len(names)):
        raise DataError(
            f"'{header}' announces {facts.get('NumberOfChannels')} channels, but names {len(names)}. Is it damaged?"
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:  # mne cannot read these at all
        raise DataError(f"'{header}': the channel names are not unique: {', '.join(repeated)}. Rename them in it.")
    width = SAMPLE_BYTES.get(facts.get("BinaryFormat", ""))
    data = header.with_name(facts.get("DataFile", "").replace("$b", header.stem))
    if width is None or not data.is_file():
        return  # text files, and what mne itself refuses
    frames, rest = divmod(data.stat().st_size, width * max(len(names), 1))
    stated = int(facts.get("DataPoints", frames))
    if rest or stated != frames:
        raise DataError(
            f"'{data}' holds {frames} samples and {rest} bytes, but should hold {stated} by its header '{header}'. "
            "Is it truncated?"
        )


def _bids_path(entry: Recording, modality: str, root: Path) -> mne_bids.BIDSPath:
    """Where the recording lies."""
    try:
        import mne_bids
    except ImportError as error:
        raise DataError(
            "Recordings of kind 'bids' need mne-bids, which is not installed: pip install \"neural_clip[bids]\"."
        ) from error
    datatype = entry.datatype or modality
    with reading(root):
        return mne_bids.BIDSPath(
            root=root, subject=entry.bids_subject or entry.subject.removeprefix("sub-"),
            session=entry.bids_session or entry.session.removeprefix("ses-") or None, task=entry.task,
            run=entry.bids_run or entry.run.removeprefix("run-") or None, datatype=datatype, suffix=datatype,
        )  # fmt: skip


def open_bids(entry: Recording, modality: str, root: Path) -> tuple[mne.io.BaseRaw, set[str]]:
    """The recording with the types and the bad channels of its `channels.tsv`."""
    path = _bids_path(entry, modality, root)
    import mne_bids

    with strict_mne(path.basename, f" in the BIDS data set '{root}'") as renamed:
        options = _checked_file(path.fpath, entry) or None
        raw = mne_bids.read_raw_bids(path, extra_params=options, verbose="warning")
    return raw, renamed


def files_beside(path: Path) -> list[Path]:
    """All files of a recording, which can be a folder (CTF), or several files of one name (BrainVision).

    Raises:
        DataError: If there is no such recording, or one is a pipe.
    """
    if not path.exists():
        raise DataError(f"There is no recording '{path}'.")
    return checked_files(
        path.rglob("*") if path.is_dir() else path.parent.glob(glob.escape(path.stem) + ".*"), "recording"
    )


def bids_tables(entry: Recording, modality: str, root: Path, *, needs_events: bool = True) -> tuple[Path, list[Path]]:
    """Name of a recording of the BIDS data set at `root`, and its `events.tsv` and `channels.tsv` where it has them.

    Raises:
        DataError: If mne-bids is not installed, or there is no such recording, or no `events.tsv` where that is
            needed, or a table lacks a column of BIDS.
    """
    if not root.is_dir():
        raise DataError(f"There is no BIDS data set '{root}'.")
    path = _bids_path(entry, modality, root)
    checked_files([*root.glob("*"), *Path(path.directory).glob("*")], "recording")
    with reading(path.basename):
        table, sidecar = (
            path.find_matching_sidecar(suffix=suffix, extension=".tsv", on_error="ignore")
            for suffix in ("events", "channels")
        )
        there = Path(path.fpath).exists()
    if not there or (table is None and needs_events):
        raise _no_recording(path, root)
    tables = [Path(found) for found in (table, sidecar) if found is not None]
    for found in tables:
        _check_header(found)
    return Path(path.basename), tables


def _check_header(table: Path) -> None:
    """Ask for the columns of BIDS: mne-bids passes over a `channels.tsv` without them, and its bad channels."""
    line = re.split(rb"[\r\n]", existing(table, "table").read_bytes().replace(b"\0", b""), maxsplit=1)[0]
    names = [re.sub(rb"^\W+|\W+$", b"", cell).decode("ascii", "replace") for cell in line.split(b"\t")]  # no BOM
    for name in BIDS_COLUMNS[table.stem.rpartition("_")[2]]:
        if name not in names:
            raise DataError(
                f"'{table}' has no column {name!r}, which BIDS asks for; it has {', '.join(map(repr, names))}. "
                "Tabs separate columns."
            )


def _no_recording(path: mne_bids.BIDSPath, root: Path) -> DataError:
    """Which entity of a name the data set does not have; or that it lacks the recording, or the events of it."""
    import mne_bids

    for name in ("subject", "session", "task", "run", "datatype"):
        value = path.datatype if name == "datatype" else path.entities[name]
        known = mne_bids.get_datatypes(root) if name == "datatype" else mne_bids.get_entity_vals(root, name)
        if value is not None and value not in known:
            has = f"it has {', '.join(map(repr, known))}" if known else "it has none"
            return DataError(f"The BIDS data set '{root}' has no {name} '{value}'; {has}.{did_you_mean(value, known)}")
    lacking = "events.tsv of" if Path(path.fpath).exists() else "recording"
    return DataError(f"The BIDS data set '{root}' has no {lacking} '{path.basename}'.")
