"""The rows of one file: what each shows is known before any signal is loaded; signals are checked as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neural_clip.corpora.custom.manifest import Manifest, Recording
from neural_clip.errors import DataError
from neural_clip.files.reading import existing
from neural_clip.preparation import Preparation
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.units import check_unit


@dataclass
class Trials:
    """The rows of one file.

    Args:
        entry (`Recording`): Its entry in the manifest.
        shown (`list[str | int]`): What each row shows: a name, or the position of an image.
        load (`Callable`): Returns float32 `(n, n_chans, n_times)` or `(n, n_voxels)`; can be called in another
            process.
        runs (`list[str]`): Run of each row.
        numbers (`np.ndarray` of shape `(n,)`): Index of each row in the source.
        facts (`dict`): `ch_names`, `sfreq`, `tmin` and `n_times` of EEG and MEG, as far as they are known.
        files (`list[Path]`): What the rows depend on.
        dropped (`int`): Rows left out because of segments marked bad.
        places (`dict`): Where the sensors are, from [`sensor_places`].
        windows (`np.ndarray` of shape `(n, 2)`): First and last moment of each row in `source`, in s; empty where the
            file does not tell.
        source (`str`): The recording that windows were cut from.
        history (`dict`): `unit`, `band`, `baseline`, `rate`, `reference`, `projectors` and `spatial_filters` of what
            mne reads, as in [`Preparation`].
    """

    entry: Recording
    shown: list[str | int]
    load: Callable[[], np.ndarray]
    runs: list[str] = field(default_factory=list)
    numbers: np.ndarray = field(default_factory=lambda: np.array([], int))
    facts: dict = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    dropped: int = 0
    places: dict = field(default_factory=dict)
    history: dict = field(default_factory=dict)
    windows: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    source: str = ""

    def __post_init__(self) -> None:
        if not self.runs:
            self.runs = [self.entry.run] * len(self.shown)
        if not self.numbers.size:
            self.numbers = np.arange(len(self.shown))

    @property
    def name(self) -> str:
        """What messages call the recording: its file, or its own name where that is the root of a BIDS data set."""
        return self.source if self.entry.kind == "bids" else self.entry.file

    def values(self, unit: str | None) -> np.ndarray:
        """Load the signals and check them.

        Args:
            unit (`str`, *optional*): What the manifest says they are in, checked for plausibility.

        Raises:
            DataError: If there are more or fewer than the rows, or values are not finite, or in another unit.
        """
        values = self.load()
        if len(values) != len(self.shown):
            raise DataError(f"'{self.name}' gave {len(values)} recordings for {len(self.shown)} rows.")
        bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        if bad.size:
            raise DataError(
                f"'{self.name}': {bad.size} rows hold values that are not finite, the first is row {bad[0]}."
            )
        check_unit(
            values, unit, f"'{self.name}'", self.facts.get("ch_names"),
            " Say so by 'unit', for example 'uV' or 'z', if they are meant so.",
        )  # fmt: skip
        return values


def unit_of(manifest: Manifest, trials: Sequence[Trials]) -> str | None:
    """The unit of the recordings: the manifest's, that of the channels, or V and T for EEG and MEG."""
    return manifest.unit or trials[0].history.get("unit") or MODALITIES[manifest.modality].unit


def preparation_of(manifest: Manifest, trials: Sequence[Trials]) -> Preparation:
    """What the rows went through; facts in which files differ cannot be repeated."""
    scalings = {"train": "z-score", "none": "none", "unknown": "unknown"}
    facts: dict = {"unit": unit_of(manifest, trials), "scaling": scalings[manifest.scaling]}
    facts["scope"] = "subject" if manifest.scaling == "train" else None
    if manifest.scaling == "unknown":
        facts["obstacle"] = "they were scaled before they were prepared, by statistics that nobody stated"
    if any(entry.detrend != "none" or entry.standardise != "none" for entry in manifest.recordings):
        facts["obstacle"] = "responses are averages of time series that were detrended or standardised run by run"
    histories = [trial.history for trial in trials]
    if not histories[0]:
        return Preparation(**facts)
    bands = [list(history["band"]) for history in histories]
    facts["bands"] = [band for i, band in enumerate(bands) if band not in bands[:i]]
    for key in ("baseline", "rate", "reference", "projectors", "spatial_filters"):
        facts[key] = histories[0][key]
        if any(history[key] != facts[key] for history in histories):
            found = [history[key] for history in histories]
            facts["obstacle"] = f"files of its data set differ in {key}: {found[:5]}"
    return Preparation(**facts)


def files_of(entry: Recording, path: Path, root: Path) -> list[Path]:
    """What the rows of an array depend on."""
    tables = [("table", entry.events), ("mask", entry.mask)]
    return [path, *(existing(root / name, what) for what, name in tables if name is not None)]
