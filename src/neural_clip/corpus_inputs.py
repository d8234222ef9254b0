"""What recordings of several corpora look like, and the window in time that all of them have in common."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

import numpy as np

from .errors import check_value

SEPARATOR = "/"  # people of several corpora are named `corpus/sub-01`
ZERO_CROSSINGS = 8  # of the interpolating kernel, on either side
LEAST_WEIGHT = 1e-9  # of it: what is below is rounding


@dataclass(frozen=True)
class CorpusInputs:
    """What a recording of EEG or MEG looks like in one corpus.

    Args:
        n_chans (`int`): Sensors.
        n_times (`int`): Samples.
        sfreq (`float`): Sampling rate, in Hz.
        tmin (`float`): First sample, in seconds from image onset.
        ch_names (`tuple[str, ...]`, *optional*): Sensor names in the order of the rows of a recording.
    """

    n_chans: int
    n_times: int
    sfreq: float
    tmin: float
    ch_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("n_chans", "n_times"):
            value = getattr(self, name)
            whole = isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0
            check_value(name, value, whole, "a whole number above 0")
        for name in ("sfreq", "tmin"):
            value = getattr(self, name)
            number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
            check_value(name, value, number and (name == "tmin" or value > 0), "a number (of a rate, above 0)")
        if self.ch_names is not None and len(self.ch_names) != self.n_chans:
            raise ValueError(f"'ch_names' lists {len(self.ch_names)} sensors but 'n_chans' is {self.n_chans}.")

    @classmethod
    def of(cls, settings: Any) -> "CorpusInputs":
        """What a configuration holds, or the facts of a data set."""
        if not isinstance(settings, Mapping):
            settings = {entry.name: getattr(settings, entry.name) for entry in fields(cls)}
        known = [entry.name for entry in fields(cls)]
        fits = set(known[:-1]) <= set(settings) <= set(known)
        check_value("corpora", dict(settings), fits, f"{', '.join(known)} of each")
        names = settings.get("ch_names")
        return cls(**{**settings, "ch_names": None if names is None else tuple(names)})

    def as_dict(self) -> dict[str, Any]:
        """As a configuration holds it."""
        return asdict(self) | {"ch_names": None if self.ch_names is None else list(self.ch_names)}

    @property
    def last(self) -> float:
        """Time of the last sample, in s from image onset."""
        return self.tmin + (self.n_times - 1) / self.sfreq

    def covers(self, other: "CorpusInputs") -> bool:
        """Whether nothing of another window is missing, to a hundredth of its samples, at a rate as high or higher."""
        slack = 0.01 / other.sfreq
        inside = self.tmin <= other.tmin + slack and self.last >= other.last - slack
        return inside and self.sfreq >= other.sfreq


def corpus_of(subject: str) -> str:
    """The corpus in the name of a subject, `""` where there is none."""
    corpus, separator, _ = subject.partition(SEPARATOR)
    return corpus if separator else ""


def common_inputs(corpora: Mapping[str, CorpusInputs]) -> CorpusInputs:
    """What the shared network reads: the lowest rate, the window that all have, the channels of who has the most.

    Raises:
        ValueError: If no two samples lie in the windows of all.
    """
    sfreq, tmin = min(one.sfreq for one in corpora.values()), max(one.tmin for one in corpora.values())
    n_times = math.floor((min(one.last for one in corpora.values()) - tmin) * sfreq + 1e-6) + 1
    if n_times < 2:
        windows = "; ".join(f"{name} {one.tmin:g} to {one.last:g} s" for name, one in corpora.items())
        raise ValueError(f"The corpora have no window in common: {windows}. Prepare them with windows that overlap.")
    most = max(corpora.values(), key=lambda one: one.n_chans)
    return replace(most, sfreq=sfreq, tmin=tmin, n_times=n_times)


@lru_cache(maxsize=32)
def resampling(given: CorpusInputs, common: CorpusInputs) -> np.ndarray:
    """The linear map that brings recordings of a corpus to the window that it has in common with others.

    Each new sample is a weighted mean of the recording around its time, with the weights of a sinc under a Hann
    window of [`ZERO_CROSSINGS`] zero crossings on either side. It halves what lies at half of the new rate and leaves
    out what is above. Where the rates are equal and the samples lie at the same times, it is a crop.

    Args:
        given, common ([`CorpusInputs`]): The former covers the latter.

    Returns:
        `np.ndarray` of shape `(given.n_times, common.n_times)`, float64: Columns sum to 1.
    """
    times = given.tmin + np.arange(given.n_times) / given.sfreq
    wanted = common.tmin + np.arange(common.n_times) / common.sfreq
    distance = (wanted - times[:, None]) * common.sfreq  # in new samples
    window = np.where(np.abs(distance) < ZERO_CROSSINGS, np.cos(np.pi * distance / (2 * ZERO_CROSSINGS)) ** 2, 0.0)
    weights = np.sinc(distance) * window
    weights[np.abs(weights) < LEAST_WEIGHT] = 0.0
    return weights / weights.sum(axis=0)


def rows_of_channels(given: CorpusInputs, common: CorpusInputs) -> list[int]:
    """Where each channel of a corpus starts among those of the network: at its own name, others in what is left.

    With more channels than the network has, those that find no place have -1.
    """
    names, shared = given.ch_names or (), common.ch_names or ()
    rows = [shared.index(name) if name in shared else -1 for name in names] or [-1] * given.n_chans
    left = iter(sorted(set(range(common.n_chans)) - set(rows)))
    return [next(left, -1) if row < 0 else row for row in rows]


def check_corpora(corpora: Any, subjects: Sequence[str], common: CorpusInputs) -> dict[str, CorpusInputs] | None:
    """Inputs by corpus, or a `ValueError` unless each covers the common window and all subjects are of one of them."""
    if corpora is None:
        return None
    named = isinstance(corpora, Mapping) and len(corpora) > 0 and all(isinstance(name, str) for name in corpora)
    check_value("corpora", corpora, named, "inputs by the name of a corpus")
    found = {name: CorpusInputs.of(settings) for name, settings in corpora.items()}
    for name, given in found.items():
        if not given.covers(common):
            raise ValueError(
                f"The recordings of corpus {name!r} ({given.tmin:g} to {given.last:g} s at {given.sfreq:g} Hz) do not "
                f"cover what the network reads ({common.tmin:g} to {common.last:g} s at {common.sfreq:g} Hz)."
            )
    for subject in subjects:
        if corpus_of(subject) not in found:
            raise ValueError(
                f"Subject {subject!r} is of none of the corpora {list(found)}; people of several corpora are named as "
                f"{next(iter(found))}{SEPARATOR}sub-01."
            )
    return found
