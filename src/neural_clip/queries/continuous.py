"""Continuous EEG and MEG, filtered and cut at image onsets as the recordings that a checkpoint was trained on."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.corpora.custom.continuous import STOPS, filtered, onset_samples
from neural_clip.corpora.custom.edf import EDF_SUFFIXES
from neural_clip.corpora.custom.epochs import strict_mne
from neural_clip.corpora.custom.manifest import Recording
from neural_clip.corpora.custom.opening import bids_tables, files_beside, open_bids, open_raw
from neural_clip.errors import DataError, did_you_mean
from neural_clip.files.numbers import number
from neural_clip.files.reading import reading
from neural_clip.files.tables import read_table
from neural_clip.gallery.embedder import Embedder
from neural_clip.montage import HINT, standard_names
from neural_clip.preparation import BAND_TOLERANCE, EDGE, Preparation
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.queries.bids import BidsPlace
from neural_clip.queries.options import RecordingOptions
from neural_clip.queries.recorded import (
    RecordingFile,
    check_repeated,
    interpolation_of_file,
    numbered,
    said_of,
    sensors_of,
)

if TYPE_CHECKING:
    import mne

ALL_EEG = (*EDF_SUFFIXES, ".vhdr")  # formats whose channels mne takes for EEG
LABELS = ("trial_type", "value")  # columns that tell what an event was


def open_continuous(
    path: Path, embedder: Embedder, options: RecordingOptions, bids: BidsPlace | None = None
) -> RecordingFile:
    """Open a continuous recording; its windows are read some at a time, after a filter from memory.

    Args:
        path (`Path`): What `mne.io.read_raw` reads, or the root of a BIDS data set.
        embedder ([`Embedder`]): Whose checkpoint says channels, band, baseline and window.
        options ([`RecordingOptions`]): Where the images appear, and whose recording it is.
        bids ([`BidsPlace`], *optional*): Which recording of a BIDS data set.

    Raises:
        DataError: If it is damaged, lacks channels, has no events, or a window reaches beyond its ends.
    """
    modality = _modality(path, embedder, options, bids)
    subject = options.subject if bids is None else options.subject or f"sub-{bids.subject}"
    spec = _expected(embedder, modality, subject)
    entry = Recording(
        str(path), "continuous", "" if bids is None else f"sub-{bids.subject}", picks=_wanted(spec, options),
        keep=_kept(options.keep), notch=list(options.notch or []) or None,
        bad_segments=options.bad_segments or "refuse",
    )  # fmt: skip
    raw, renamed, table = _opened(path, entry, modality, options, bids)
    check_repeated(path, renamed, embedder, modality)
    made = interpolation_of_file(path, embedder, modality, options, subject, raw)
    ch_names = _channels(raw, spec, modality, path) if made is None else _all_of(raw, modality)
    preparation = None if options.unit else Preparation.of(spec.get("preparation"))
    high, low = lacking_filters(preparation, spec, raw.info)
    sfreq, (first, last) = float(raw.info["sfreq"]), reach_of(spec, preparation, float(raw.info["sfreq"]))
    rows, where = (read_table(table), table) if table else _events_within(raw, path)
    chosen, samples, dropped = onset_samples(raw, rows, entry, (first, last), path, where)
    _tell(high, low, dropped)
    raw = filtered(raw, replace(entry, high_pass=high, low_pass=low), ch_names, path)

    def read(start: int, stop: int) -> mne.EpochsArray:
        return _epochs(raw, ch_names, samples[start:stop], first, last, path)

    labels = [_label(rows[row], sample / sfreq) for row, sample in zip(chosen, samples, strict=True)]
    return RecordingFile(str(path), modality, subject, numbered(labels), read, said_of(options), made)


def lacking_filters(preparation: Preparation | None, spec: dict, info: Any) -> tuple[float | None, float | None]:
    """Edges in Hz of the high-pass and low-pass that bring a recording to a band of the training recordings.

    `None` where nothing is lacking, or the band is not known. What lies above half the model's rate goes with the
    rate, unless that is lowered by leaving samples out.
    """
    if preparation is None or not preparation.bands:
        return None, None
    found_high, found_low = float(info["highpass"] or 0), float(info["lowpass"] or info["sfreq"] / 2)
    nyquist = math.inf if preparation.rate == "decimated" else spec["sfreq"] / 2
    edges = []
    for high, low in preparation.bands:
        lacks_high = high - found_high > BAND_TOLERANCE * high + 0.01
        lacks_low = found_low - low > BAND_TOLERANCE * found_low + 0.01 and low < nyquist * (1 - BAND_TOLERANCE)
        edges.append((high if lacks_high else None, low if lacks_low else None))
    return min(edges, key=lambda pair: sum(edge is not None for edge in pair))


def reach_of(spec: dict, preparation: Preparation | None, sfreq: float) -> tuple[int, int]:
    """First and last sample, from onset, of the window and the baseline of the training recordings."""
    first = round(spec["tmin"] * sfreq)
    last = first + round((spec["n_times"] - 1) * sfreq / spec["sfreq"])
    if preparation is not None and isinstance(preparation.baseline, list | tuple):
        begin, end = map(float, preparation.baseline)
        return min(first, math.ceil((begin - EDGE) * sfreq)), max(last, math.floor((end + EDGE) * sfreq))
    return first, last


def _modality(path: Path, embedder: Embedder, options: RecordingOptions, bids: BidsPlace | None) -> str:
    """Of the recording, by the model, the format, the name in BIDS or the channels."""
    asked = options.modality or (bids.datatype if bids else None)
    if asked is None and path.suffix.lower() in ALL_EEG and "eeg" in embedder.modalities:
        asked = "eeg"
    known = [name for name in embedder.modalities if MODALITIES[name].sensors]
    if asked is None and len(known) == 1:
        asked = known[0]
    if asked is None and bids is not None:
        raise DataError(f"Say by --modality which recording of the BIDS data set '{bids.root}' is meant: {known}.")
    raw = None if asked or not known else open_raw(path, Recording(str(path), "continuous", ""))[0]
    return sensors_of(path, raw, embedder, asked)


def _expected(embedder: Embedder, modality: str, subject: str | None) -> dict:
    """Settings of the group of the subject, once recordings as they were recorded are known to be taken."""
    from neural_clip.processing_neural_clip import group_of, is_of_corpus, subject_names

    groups = embedder.processor.groups(modality)
    try:
        known = [name for group in groups for name in group["subjects"]]
        return group_of(groups, subject_names(subject, 1, known, modality, any(map(is_of_corpus, groups))))
    except ValueError as error:
        raise DataError(str(error)) from error


def _opened(
    path: Path, entry: Recording, modality: str, options: RecordingOptions, bids: BidsPlace | None
) -> tuple[mne.io.BaseRaw, set[str], Path | None]:
    """The recording, channel names that occur twice, and the table of its events, if there is one."""
    if bids is None:
        files_beside(path)
        return *open_raw(path, entry), options.events
    entry = replace(entry, bids_session=bids.session, bids_run=bids.run, task=bids.task)
    _, tables = bids_tables(entry, modality, bids.root, needs_events=options.events is None)
    own = next((table for table in tables if table.name.endswith("_events.tsv")), None)
    return *open_bids(entry, modality, bids.root), options.events or own


def _channels(raw: mne.io.BaseRaw, spec: dict, modality: str, path: Path) -> list[str]:
    """The model's channels; a `DataError` where the recording lacks some."""
    if spec["ch_names"] is None:
        return _all_of(raw, modality)
    names = list(spec["ch_names"])
    if lacking := [name for name in names if name not in raw.ch_names]:
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        raise DataError(
            f"'{path}' lacks {len(lacking)} of the model's {len(names)} channels: "
            f"{', '.join(map(repr, lacking[:5]))}{more}; it has {', '.join(raw.ch_names[:5])} ..."
            f"{did_you_mean(lacking[0], raw.ch_names)} {HINT}"
        )
    return names


def _all_of(raw: mne.io.BaseRaw, modality: str) -> list[str]:
    """All channels of a modality."""
    kinds = MODALITIES[modality].channel_types
    return [name for name, kind in zip(raw.ch_names, raw.get_channel_types(), strict=True) if kind in kinds]


def _wanted(spec: dict, options: RecordingOptions) -> list[str] | None:
    """Channels that may be used, so that others of a file may have other rates."""
    if options.montage is None or spec["ch_names"] is None:
        return spec["ch_names"]
    names = [*spec["ch_names"], *standard_names()]
    return [*dict.fromkeys([*names, *map(str.upper, names), *map(str.lower, names)])]


def _kept(words: Iterable[str] | None) -> dict[str, list]:
    """`COLUMN=VALUE` words as `keep` of a manifest."""
    found: dict[str, list] = {}
    for word in words or ():
        name, separator, value = word.partition("=")
        if not separator or not name or not value:
            raise DataError(f"Invalid value for the '--keep' parameter. Allowed is COLUMN=VALUE, but got {word!r}.")
        try:
            found.setdefault(name, []).append(number(value))
        except ValueError:
            found.setdefault(name, []).append(value)
    return found


def _events_within(raw: mne.io.BaseRaw, path: Path) -> tuple[list[dict[str, str]], str]:
    """Events of the annotations, or else of the trigger channel, and what they are called in messages."""
    import mne

    start = raw.first_time if raw.annotations.orig_time is not None else 0.0
    marked = [
        {"onset": f"{onset - start:.9f}", "trial_type": str(text)}
        for text, onset in zip(raw.annotations.description, raw.annotations.onset, strict=True)
        if not text.upper().startswith(("BAD", "EDGE")) and not STOPS.fullmatch(text)
    ]
    if marked:
        return marked, f"annotations of {path}"
    if "stim" in raw.get_channel_types():
        with strict_mne(path):
            events = mne.find_events(raw, shortest_event=1, verbose="error")
        seconds = (events[:, 0] - raw.first_samp) / raw.info["sfreq"]
        if len(events):
            rows = zip(seconds, events[:, 2], strict=True)
            return [{"onset": f"{onset:.9f}", "value": str(code)} for onset, code in rows], f"triggers of {path}"
    raise DataError(
        f"'{path}' does not tell when images appeared: it has no annotations and no triggers. Give a table with a "
        "column 'onset' in s by --events."
    )


def _tell(high: float | None, low: float | None, dropped: int) -> None:
    """Say on stderr what was done to the recording that nobody asked for in so many words."""
    edges = [f"{edge:g} Hz {name}" for edge, name in ((high, "high-pass"), (low, "low-pass")) if edge is not None]
    if edges:
        print(f"filtered as the training recordings: {' and '.join(edges)}", file=sys.stderr)
    if dropped:
        print(f"left out {dropped} events in segments marked bad", file=sys.stderr)


def _label(row: dict[str, str], onset: float) -> str:
    """When an event was, and what."""
    kinds = [row[name] for name in LABELS if row.get(name, "n/a") not in ("", "n/a")][:1]
    return ", ".join([f"{onset:.3f} s", *kinds])


def _epochs(
    raw: mne.io.BaseRaw, ch_names: list[str], samples: np.ndarray, first: int, last: int, path: Path
) -> mne.EpochsArray:
    """Windows of a recording at its own rate; neither baseline nor projectors are applied."""
    import mne

    with reading(path):
        windows = [
            raw.get_data(picks=ch_names, start=int(sample) + first, stop=int(sample) + last + 1) for sample in samples
        ]
    info = mne.pick_info(raw.info, [raw.ch_names.index(name) for name in ch_names])
    events = np.column_stack([samples, np.zeros_like(samples), np.ones_like(samples)])
    with strict_mne(path):
        return mne.EpochsArray(
            np.stack(windows), info, events, first / info["sfreq"], baseline=None, proj=False, verbose="error"
        )
