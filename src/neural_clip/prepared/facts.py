"""What a prepared data set says of itself: `neural_clip.json`, its keys and its fingerprint."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from neural_clip.errors import DataError, check_option
from neural_clip.files.privacy import shared_value
from neural_clip.files.reading import read_json
from neural_clip.files.whole import moved_aside
from neural_clip.prepared.fact_checks import REDISTRIBUTION, SPLIT_UNITS, check_facts
from neural_clip.prepared.integrity import check_files, fingerprint, fingerprint_of
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.places import SPACES
from neural_clip.target_space import TargetSpace

METADATA_FILE = "neural_clip.json"
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)  # 1 lacks `preparation`, `targets` and the statistics
# What whoever prepares a data set says of it in words of their own; the card shows it.
TEXTS = ("pretty_name", "licence", "terms", "citation", "source", "roi", "preprocessing", "known_defects",
         "image_encoder")  # fmt: skip
_FILLED_IN: Any = None  # facts that `write_prepared` finds by itself, and those that only one kind of recording has


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What `neural_clip.json` says of a prepared data set; absent facts have the defaults below.

    Args:
        corpus (`str`): Name of the corpus.
        modality (`str`): `"eeg"`, `"meg"` or `"fmri"`.
        simulated (`dict`, *optional*): Preset, seed and ceiling of a simulation; `None` for recordings of subjects.
        subjects (`list[str]`): All subjects in the data set.
        ch_names, ch_positions, ch_positions_frame, n_chans, n_times, sfreq, tmin: Of EEG and MEG: names of channels,
            their places in m and the frame of these, counts, sampling rate in Hz, first sample in s from onset.
        unit (`str`, *optional*): Of the recordings.
        n_voxels (`dict[str, int]`): Of fMRI: voxels of each subject.
        roi: Of fMRI: the region that the voxels come from.
        places_space (`str`, *optional*): Of fMRI: the space of the places of voxels, `"MNI152"` or `"fsaverage"`;
            `None` where no common space is known.
        splits, subject_splits (`dict`): Rows, images and concepts of each split; rows of each subject and split.
        preparation (`dict`, *optional*): What rows went through, as [`Preparation`] holds it; `None` in format 1.
        category_level (`bool`): Whether "images" are categories.
        image_encoder (`dict`, *optional*): What embedded the images.
        targets (`dict`, *optional*): Of their embeddings: `images`, how many; `sha256`, see [`ImageTable.sha256`];
            `space`, as [`TargetSpace`] holds it. `None` in format 1 and without embeddings.
        fingerprint, fingerprint_version (`str`, `int`): See [`fingerprint`].
        files (`dict`, *optional*): Size and sums of each file, see `prepared/integrity.py`; `None` for older sets.
        extra (`dict`): Further facts of one corpus, for the card.

    The others say how rows were split, scaled and prepared, what is allowed, and what the `doctor` found.
    """

    format_version: int = FORMAT_VERSION
    corpus: str
    modality: str
    simulated: dict | None = None
    subjects: list[str] = _FILLED_IN
    ch_names: list[str] = _FILLED_IN
    ch_positions: list | None = None
    ch_positions_frame: str | None = None
    n_chans: int = _FILLED_IN
    n_times: int = _FILLED_IN
    sfreq: float = _FILLED_IN
    tmin: float = _FILLED_IN
    unit: str | None = None
    n_voxels: dict[str, int] = _FILLED_IN
    roi: Any = None
    places_space: str | None = None
    split_protocol: str
    split_unit: str
    splits: dict[str, dict[str, int]] = _FILLED_IN
    subject_splits: dict[str, dict[str, int]] = _FILLED_IN
    scaling: dict = field(default_factory=lambda: {"method": "none", "fit_scope": "none"})
    preprocessing: dict = field(default_factory=dict)
    preparation: dict | None = None
    category_level: bool = False
    block_confounded: bool = False
    presentation_order: bool = False
    average_repeats: bool = False
    image_encoder: dict | None = None
    targets: dict | None = None
    licence: str
    redistribution: str
    terms: str | None = None
    citation: str
    source: str
    known_defects: list[str] = field(default_factory=list)
    declared: dict | None = None
    partial: dict | None = None
    findings: list[dict] = field(default_factory=list)
    fingerprint: str = _FILLED_IN
    fingerprint_version: int = 1
    files: dict[str, dict] | None = None
    extra: dict = field(default_factory=dict)

    @classmethod
    def of(cls, metadata: Mapping) -> Facts:
        """Facts of what `neural_clip.json` holds or will hold.

        Raises:
            DataError: If one of those that every data set has is absent.
        """
        missing = [key for key in REQUIRED_KEYS if not metadata.get(key)]
        if missing:
            raise DataError(f"The metadata of a prepared data set lacks {', '.join(repr(key) for key in missing)}.")
        named = {entry.name for entry in fields(cls)} - {"extra"}
        extra = {key: value for key, value in metadata.items() if key not in named}
        return cls(**{key: value for key, value in metadata.items() if key in named}, extra=extra)

    @classmethod
    def read(cls, folder: str | Path) -> Facts:
        """Facts of the prepared data set in a folder; a `DataError` if there is none (see [`read_metadata`])."""
        metadata = read_metadata(folder)
        try:
            return cls.of(metadata)
        except DataError as error:
            raise DataError(f"'{Path(folder) / METADATA_FILE}' is damaged: {error}") from error

    @property
    def samples_before_onset(self) -> int:
        """Samples of a recording with t < 0."""
        return max(math.ceil(-self.tmin * self.sfreq - 1e-6), 0)  # 0.1 * 200 may be 20.000000000000004

    @property
    def target_space(self) -> TargetSpace | None:
        """Of the image embeddings; `None` where it is not known, a `DataError` where it is damaged."""
        try:
            return TargetSpace.of((self.targets or {}).get("space"))
        except ValueError as error:
            raise DataError(f"'targets' in '{METADATA_FILE}' is damaged: {error}") from error

    def stated_terms(self, subjects: Sequence[str]) -> dict[str, Any]:
        """What is said of this data set where something was made of it: `trained_on`, and the terms of a gallery."""
        stated = {name: getattr(self, name) for name in ("corpus", "redistribution", "licence", "terms")}
        return stated | {"subjects": list(subjects), "simulated": bool(self.simulated)}

    def as_dict(self) -> dict:
        """As `neural_clip.json` holds them, in its order."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "extra"} | self.extra


REQUIRED_KEYS = tuple(entry.name for entry in fields(Facts) if entry.default is MISSING is entry.default_factory)


def read_metadata(folder: str | Path) -> dict:
    """Read `neural_clip.json` of a prepared data set; what stands there has the types of [`Facts`] and is in range.

    Raises:
        DataError: If `folder` is no prepared data set, its file is damaged, or of a format version that this package
            does not know.
    """
    path = Path(folder) / METADATA_FILE
    if not os.path.lexists(path) and not Path(folder).is_file():
        if old := moved_aside(folder, METADATA_FILE):
            raise DataError(
                f"'{folder}' is not there: a run was interrupted while it replaced the data set. The older one lies "
                f"whole in '{old}'. Rename it, or run the command again that was interrupted."
            )
        raise DataError(
            f"'{folder}' is no prepared data set: it has no {METADATA_FILE}. Make one with `neural-clip prepare`."
        )
    metadata = read_json(path)
    version = metadata.get("format_version") if isinstance(metadata, dict) else None
    if version not in READABLE_VERSIONS:
        known = " and ".join(map(str, READABLE_VERSIONS))
        raise DataError(f"'{path}' has format_version {version}; this package reads {known}.")
    check_facts(metadata, _HINTS, _MAY_BE_NULL, path)
    return metadata


_HINTS = {name: hint for name, hint in get_type_hints(Facts).items() if name != "extra"}
_MAY_BE_NULL = [entry.name for entry in fields(Facts) if entry.default is None] + ["shared_windows", *REQUIRED_KEYS]


def verify_prepared(folder: str | Path) -> dict:
    """Check that the files are those that were written, by reading them whole, and return the metadata.

    Raises:
        DataError: If a file was changed, added or lost since. It is named unless the set is an older one, whose
            metadata do not list its files.
    """
    metadata = read_metadata(folder)
    files, stated = metadata.get("files"), str(metadata.get("fingerprint"))
    if files is not None:
        check_files(Path(folder), files, contents=True)
    found = fingerprint(folder, 1) if files is None else fingerprint_of(files)
    if found != stated:
        raise DataError(
            f"The files of '{folder}' are not those that were prepared: fingerprint {found[:12]} instead of "
            f"{stated[:12]}. A file was changed, added or lost; prepare the data set again."
        )
    return metadata


def plain(value: object) -> object:
    """NumPy scalars and arrays, paths and sets as JSON knows them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"metadata of type {type(value).__name__} cannot be written as JSON")


def checked_metadata(metadata: Mapping) -> dict:
    """Metadata with every key present, whose texts hold no secret and no absolute path."""
    metadata = {**metadata} | {key: shared_value(metadata[key]) for key in TEXTS if metadata.get(key)}
    facts = Facts.of(metadata)
    allowed = {"modality": MODALITIES, "split_unit": SPLIT_UNITS, "redistribution": REDISTRIBUTION}
    for key, values in allowed.items():
        check_option(key, metadata[key], values)
    if facts.places_space is not None:
        check_option("places_space", facts.places_space, SPACES)
    if facts.category_level and facts.split_unit == "image":
        raise DataError("A category-level data set cannot be split by image; use split_unit 'run' or another.")
    return facts.as_dict()
