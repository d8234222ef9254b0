"""What recordings went through before the model saw them, and the same steps for recordings as they were recorded.

A prepared data set states its [`Preparation`] and holds the [`Statistics`] of its scaling; a checkpoint keeps both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from numbers import Real
from typing import Any
from urllib.parse import quote

import numpy as np

UNKNOWN = "unknown"
STATISTICS_FILE = "scaling.safetensors"
VOXELS = "voxels"  # places of a subject's voxels in the volume, `(n_voxels, 3)`, beside the statistics
SCALINGS = ("none", "z-score", "rms", "baseline z-score", UNKNOWN)
FITTED = ("z-score", "rms")  # by statistics that are stored
SCOPES = ("subject", "session")
# Fewer trials tell a mean to no better than a quarter of a deviation.
MIN_FIT_TRIALS = 20
# SI and stated units by the names that people write: factor to the base unit. NSD stores 300 times its betas.
UNITS = {
    "V": ("V", 1.0), "mV": ("V", 1e-3), "uV": ("V", 1e-6), "µV": ("V", 1e-6), "μV": ("V", 1e-6), "nV": ("V", 1e-9),
    "T": ("T", 1.0), "nT": ("T", 1e-9), "pT": ("T", 1e-12), "fT": ("T", 1e-15),
    "T/m": ("T/m", 1.0), "T/cm": ("T/m", 1e2), "fT/cm": ("T/m", 1e-13),
    "M": ("M", 1.0), "mM": ("M", 1e-3), "uM": ("M", 1e-6), "µM": ("M", 1e-6), "μM": ("M", 1e-6),
    "percent signal change": ("percent signal change", 1.0),
    "percent signal change x 300": ("percent signal change", 1 / 300),
}  # fmt: skip
CHANNEL_UNITS = {
    "eeg": "V", "seeg": "V", "ecog": "V", "dbs": "V", "mag": "T", "ref_meg": "T", "grad": "T/m",
    "hbo": "M", "hbr": "M",
}  # fmt: skip
# How much a recording varies over its samples or voxels once it is scaled; µV for V is a million times as much.
SCALED_SPREAD = (0.01, 100.0)
# The same of as many rows as statistics can be fitted on, which vary by 1 in all; EEG in µV varies by 5 and more.
SCALED_MANY = 5.0
# The same of values that are not scaled, by unit: the deviation of the median channel, far beyond what heads give.
# EEG is about 1e-5 V, MEG 1e-13 to 1e-12 T and 1e-12 to 1e-11 T/m, betas a few percent.
RAW_SPREAD = {"V": (1e-9, 1e-2), "T": (1e-17, 1e-9), "T/m": (1e-16, 1e-7), "percent signal change": (1e-2, 100.0)}
# Two rates or times are the same when they differ by less than this share of a sample: files store rounded values.
SAMPLE_TOLERANCE = 0.01
BAND_TOLERANCE = 0.01  # of a frequency, and 0.01 Hz: FIF files keep 24 bits
# What a step is, for messages; values stand in the braces.
STEPS = {
    "unit": "the unit is {}", "scaling": "the scaling is {}", "scope": "the scaling is fitted to each {}",
    "bands": "the pass band is {}", "baseline": "the baseline is {}", "reference": "the reference is {}",
    "projectors": "the projectors are {}", "spatial_filters": "the spatial filters are {}",
}  # fmt: skip
WAY_OUT = (
    "Prepare from raw files, and train, with a scaling that other recordings can be given too, such as "
    "`--scaling train_std` of `neural-clip prepare` for things_eeg2, things_eeg1 and alljoined."
)
EDGE = 1e-6  # s; times are sums of rounded decimals
EXAMPLES = 5
MEG_KINDS = (1, 301)  # of sensors and reference sensors in `mne.Info`


def _are_pairs(values: Any) -> bool:
    """Whether this is a list of pairs of numbers."""
    return isinstance(values, list | tuple) and all(
        isinstance(pair, list | tuple) and len(pair) == 2
        and all(isinstance(edge, Real) and not isinstance(edge, bool) for edge in pair)
        for pair in values
    )  # fmt: skip


def _are_names(values: Any) -> bool:
    """Whether this is a list of names, or says that they are unknown."""
    return values == UNKNOWN or (isinstance(values, list | tuple) and all(isinstance(name, str) for name in values))


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What the rows of a prepared data set went through.

    Args:
        unit (`str`, *optional*): Of the recordings before scaling; `None` where nobody said.
        scaling (`str`): `"none"`; `"z-score"`, each channel or voxel minus a mean, by a deviation; `"rms"`, by a root
            mean square; `"baseline z-score"`, each epoch and channel by its own samples of the baseline; `"unknown"`,
            scaled by others.
        scope (`str`, *optional*): Whose training rows the statistics of `"z-score"` and `"rms"` are of: `"subject"` or
            `"session"`.
        bands (`list[list[float]]`, *optional*): Pass bands that occur, high-pass and low-pass edge in Hz as
            `mne.Info` states them; `None` where unknown. Notch filters are not in it: `mne.Info` does not keep them.
        baseline (`list[float]`, *optional*): First and last time in s whose mean is subtracted, both included; `None`
            for none, `"unknown"` where nobody said.
        rate (`str`, *optional*): `"decimated"`, every n-th sample of filtered epochs from onset on, or `"resampled"`,
            by a polyphase filter; `None` for the files' own rate.
        reference (`str`): `"as recorded"`, `"changed"` (`mne.Info` says so) or `"unknown"`.
        projectors (`list[str]` or `"unknown"`): Projectors that were applied.
        spatial_filters (`list[str]` or `"unknown"`): Gradient compensation and Maxwell filter of MEG, see
            [`spatial_filters_of`].
        obstacle (`str`, *optional*): Why nobody can do the same to other recordings.
    """

    unit: str | None = None
    scaling: str = "none"
    scope: str | None = None
    bands: list | None = None
    baseline: list | str | None = UNKNOWN
    rate: str | None = None
    reference: str = UNKNOWN
    projectors: list | str = UNKNOWN
    spatial_filters: list | str = UNKNOWN
    obstacle: str | None = None

    def __post_init__(self) -> None:
        allowed = {"scaling": SCALINGS, "rate": (None, "decimated", "resampled")}
        allowed["scope"] = SCOPES if self.scaling in FITTED else (None,)
        for key, values in allowed.items():
            if getattr(self, key) not in values:
                raise ValueError(
                    f"Invalid value for {key!r} of a preparation: {getattr(self, key)!r}, not in {values}."
                )
        for key, fits, expected in (
            ("unit", isinstance(self.unit, str | None), "a text or None"),
            ("bands", self.bands is None or _are_pairs(self.bands), "a list with two numbers a band, or None"),
            ("baseline", self.baseline in (None, UNKNOWN) or _are_pairs([self.baseline]), "two times in s, or None"),
            ("reference", isinstance(self.reference, str), "a text"),
            ("projectors", _are_names(self.projectors), "a list of names"),
            ("spatial_filters", _are_names(self.spatial_filters), "a list of names"),
            ("obstacle", isinstance(self.obstacle, str | None), "a text or None"),
        ):
            if not fits:
                raise ValueError(
                    f"Invalid value for {key!r} of a preparation: {getattr(self, key)!r:.80}; it should be {expected}."
                )
        if self.scaling == "baseline z-score" and not isinstance(self.baseline, list | tuple):
            raise ValueError(f"A 'baseline z-score' needs a 'baseline' in s, but it is {self.baseline!r}.")

    @classmethod
    def of(cls, content: Mapping | None) -> "Preparation | None":
        """What JSON holds; `None` for older data sets and checkpoints, which did not record it.

        Raises:
            ValueError: If it holds a step that this version does not know, and so cannot repeat.
        """
        if content is None:
            return None
        if unknown := sorted(set(content) - {entry.name for entry in fields(cls)}):
            raise ValueError(
                f"The recordings went through steps that this version does not know: {unknown}. Update it."
            )
        return cls(**content)

    def as_dict(self) -> dict:
        """As JSON holds it."""
        return asdict(self)

    @property
    def said_of_others(self) -> str:
        """Why a model of these rows takes no recordings as they were recorded, for people; empty where it does."""
        if self.obstacle is None:
            return ""
        why = f"A model of these rows takes no recordings as they were recorded: {self.obstacle}."
        return f"{why} {WAY_OUT}" if self.scaling == UNKNOWN else why

    @property
    def prepared_unit(self) -> str | None:
        """Unit of the rows."""
        return self.unit if self.scaling == "none" else "z"

    def differences(self, other: "Preparation") -> list[str]:
        """What the other one does instead, in words; facts that one of the two does not know are passed over.

        >>> one = Preparation(scaling="z-score", scope="session")
        >>> Preparation(scaling="z-score", scope="subject").differences(one)
        ['the scaling is fitted to each session instead of subject']
        """
        mine, theirs = ({entry.name: getattr(one, entry.name) for entry in fields(one)} for one in (self, other))
        for content, one in ((mine, self), (theirs, other)):
            content["unit"] = one.prepared_unit  # of the rows: a z-score takes the unit out
        known = [key for key in STEPS if key != "scope" or self.scaling == other.scaling]
        known = [key for key in known if key == "scaling" or UNKNOWN not in (mine[key], theirs[key])]
        known = [key for key in known if key not in ("unit", "bands") or None not in (mine[key], theirs[key])]
        same = {"bands": _same_bands, "baseline": _same_times}
        return [
            f"{STEPS[key].format(_shown(key, theirs[key]))} instead of {_shown(key, mine[key])}"
            for key in known
            if mine[key] != theirs[key] and not (key in same and same[key](mine[key], theirs[key]))
        ]


def check_keeps_places(preparation: Preparation | None, whose: str) -> None:
    """Raise a `ValueError` where channels may have been mixed by their scaling, so that none can be interpolated.

    Args:
        preparation ([`Preparation`], *optional*): What they went through; `None` where nobody knows.
        whose (`str`): For the message.
    """
    if preparation is not None and preparation.scaling != UNKNOWN:
        return
    why = (preparation and preparation.obstacle) or "nobody stated how they were scaled"
    raise ValueError(
        f"Channels of {whose} cannot be interpolated: {why}. Where channels were whitened together, none of them "
        f"holds the potential of its own place. {WAY_OUT}"
    )


def _shown(key: str, value: Any) -> str:
    """Value of a step, for messages."""
    if not value:
        return "none"
    if key in ("bands", "baseline"):
        pairs, unit = (value, "Hz") if key == "bands" else ([value], "s")
        return " and ".join(f"{low:g} to {high:g} {unit}" for low, high in pairs)
    return ", ".join(value) if isinstance(value, list | tuple) else str(value)


def _same_band(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether both edges are the same frequency."""
    return all(abs(a - b) <= BAND_TOLERANCE * max(a, b) + 0.01 for a, b in zip(one, other, strict=True))


def _same_bands(some: Sequence, others: Sequence) -> bool:
    """Whether two lists have a band in common."""
    return any(_same_band(one, other) for one in some for other in others)


def _same_times(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    """Whether two intervals are the same to a thousandth of a second."""
    return None not in (one, other) and all(abs(a - b) < 1e-3 for a, b in zip(one, other, strict=True))  # type: ignore


@dataclass(frozen=True)
class Statistics:
    """Mean and deviation by which recordings of a subject, or of one session, are scaled.

    Args:
        subject (`str`): Whose.
        session (`str`): `""` for all of a subject's.
        mean, std (`np.ndarray` of shape `(n_chans,)` or `(n_voxels,)`): In the unit before scaling; of `"rms"`, 0 and
            the root mean square. A deviation of infinity makes a channel or voxel 0.
    """

    subject: str
    session: str
    mean: np.ndarray
    std: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """By the names of their tensors, float64."""
        return {
            tensor_name(self.subject, self.session, name): np.ascontiguousarray(np.ravel(values), dtype=np.float64)
            for name, values in (("mean", self.mean), ("std", self.std))
        }


def tensor_name(subject: str, session: str, name: str) -> str:
    """`sub-01/mean` or `sub-01/ses-02/mean`; names of subjects and sessions may be any text."""
    return "/".join(quote(part, safe="") for part in (subject, session, name) if part)


def places_of_voxels(subject: str, mask: np.ndarray) -> dict[str, np.ndarray]:
    """By the name of their tensor, indices of the voxels within a mask, in C order, int16 `(n_voxels, 3)`."""
    places = np.ascontiguousarray(np.argwhere(mask), dtype=np.int16)  # safetensors stores the bytes as they lie
    return {tensor_name(subject, "", VOXELS): places}


def scaled(values: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """`(values - mean) / std` by channel or voxel, float32.

    Args:
        values (`np.ndarray` of shape `(..., n_chans, n_times)` or `(..., n_voxels)`): Recordings.
        mean, std (`np.ndarray`): Shaped to be broadcast.
    """
    return ((values - mean) / std).astype(np.float32)


@dataclass
class Recorded:
    """Recordings of EEG or MEG as they were recorded, with what is known of them.

    Args:
        values (`np.ndarray` of shape `(n, n_chans, n_times)`): float64.
        unit (`str`): Of the values.
        sfreq, tmin (`float`): Hz; s from image onset.
        band (`tuple[float, float]`, *optional*), baseline, reference, projectors, spatial_filters: As in
            [`Preparation`].
    """

    values: np.ndarray
    unit: str
    sfreq: float
    tmin: float
    band: tuple[float, float] | None = None
    baseline: Any = UNKNOWN
    reference: str = UNKNOWN
    projectors: list | str = field(default=UNKNOWN)
    spatial_filters: list | str = field(default=UNKNOWN)

    @property
    def last(self) -> float:
        """Time of the last sample in s."""
        return self.tmin + (self.values.shape[-1] - 1) / self.sfreq


def channel_differences(found: Sequence[str], expected: Sequence[str]) -> str:
    """In which channels one list differs from another, or from which position on their order; empty where they agree.

    >>> channel_differences(["Fz", "POz"], ["Fz", "Pz"])
    "it lacks 'Pz' and has 'POz' besides"
    """
    lacking, more = ([name for name in a if name not in b] for a, b in ((expected, found), (found, expected)))
    told = [f"lacks {_few(lacking)}"] * bool(lacking) + [f"has {_few(more)} besides"] * bool(more)
    if told:
        return f"it {' and '.join(told)}"
    pairs = enumerate(zip(found, expected, strict=False), 1)
    place = next((f"its channel {n} is {a!r} instead of {b!r}" for n, (a, b) in pairs if a != b), "")
    return place or ("" if len(found) == len(expected) else f"it has {len(found)} channels instead of {len(expected)}")


def _few(names: Sequence[str], most: int = 5) -> str:
    """The first names of a list, and how many follow."""
    shown = ", ".join(map(repr, names[:most]))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def spatial_filters_of(info: Any, ch_names: Sequence[str]) -> list[str]:
    """What was done to MEG channels by their neighbours: grades of gradient compensation above 0, Maxwell filter."""
    kept = [channel for channel in info["chs"] if channel["ch_name"] in set(ch_names)]
    meg = [channel for channel in kept if int(channel["kind"]) in MEG_KINDS]
    grades = {int(channel["coil_type"]) >> 16 for channel in meg}  # beside the type, in the upper bits
    maxwell = any((record.get("max_info") or {}).get("sss_info") for record in info["proc_history"] or ())
    found = [f"gradient compensation of grade {grade}" for grade in sorted(grades - {0})]
    return found + (["Maxwell filter"] if maxwell and meg else [])


def facts_of_info(info: Any, ch_names: Sequence[str]) -> dict:
    """What an `mne.Info` tells of some channels, under the names of [`Recorded`].

    A reference is a matter of electrodes: it changes nothing of MEG that was recorded beside EEG. `mne.Info` tells
    that it was changed, and not to what.
    """
    chosen = set(ch_names)
    projectors = sorted(
        str(projector["desc"])
        for projector in info["projs"]
        if projector["active"] and chosen & set(projector["data"]["col_names"])
    )
    meg = all(int(channel["kind"]) in MEG_KINDS for channel in info["chs"] if channel["ch_name"] in chosen)
    return {
        "band": (float(info["highpass"] or 0), float(info["lowpass"] or info["sfreq"] / 2)),
        "reference": "changed" if int(info["custom_ref_applied"]) and not meg else "as recorded",
        "projectors": projectors,
        "spatial_filters": spatial_filters_of(info, ch_names),
    }


def to_unit(unit: str, wanted: str | None) -> float:
    """Factor from one unit to another.

    Raises:
        ValueError: If one is unknown, or they measure different things.
    """
    if unit == wanted:
        return 1.0
    if wanted is None:
        raise ValueError(f"The recordings are in {unit!r}, but nobody said which unit the model's were in.")
    for name in (unit, wanted):
        if name not in UNITS:
            raise ValueError(f"The recordings are in {unit!r} and the model's in {wanted!r}; known are {list(UNITS)}.")
    (base, factor), (other, divisor) = UNITS[unit], UNITS[wanted]
    if base != other:
        raise ValueError(f"The recordings are in {unit!r}, but the model's were in {wanted!r}: other sensors.")
    return factor / divisor


def prepared_sensors(recorded: Recorded, spec: Mapping, preparation: Preparation) -> np.ndarray:
    """Epochs in the unit, window and rate of the rows, referred to their baseline, not scaled by statistics yet.

    Args:
        recorded ([`Recorded`]): Epochs that hold the window, at the rate of the rows or a higher one.
        spec (`Mapping`): `n_times`, `sfreq` and `tmin` of the rows.
        preparation ([`Preparation`]): What the rows went through.

    Returns:
        `np.ndarray` of shape `(n, n_chans, n_times)`, float64.

    Raises:
        ValueError: If the epochs cannot be brought there, or went through something else.
    """
    if recorded.sfreq < spec["sfreq"] * (1 - SAMPLE_TOLERANCE / spec["n_times"]):
        raise ValueError(
            f"The recordings have {recorded.sfreq:g} Hz; the model needs {spec['sfreq']:g} Hz, and a higher rate "
            "cannot be invented."
        )
    _check_history(recorded, spec, preparation)
    values = recorded.values * to_unit(recorded.unit, preparation.unit)
    if isinstance(preparation.baseline, list | tuple):
        values = _referred(values, recorded, preparation)
    return _windowed(values, recorded, spec, preparation.rate)


def _check_history(recorded: Recorded, spec: Mapping, preparation: Preparation) -> None:
    """Compare band, baseline, reference, projectors and spatial filters."""
    if preparation.bands is not None and recorded.band is not None:
        nyquist = spec["sfreq"] / 2  # what lies above is taken out with the rate
        bands = [(high, min(low, nyquist)) for high, low in preparation.bands]
        high, low = recorded.band
        resampled = recorded.sfreq > spec["sfreq"] * 1.001 and preparation.rate != "decimated"
        stated_bands = bands if preparation.rate == "resampled" else [*preparation.bands, *bands]
        if not _same_bands([(high, min(low, nyquist) if resampled else low)], stated_bands):
            stated = " or ".join(f"{edges[0]:g} to {edges[1]:g} Hz" for edges in preparation.bands)
            raise ValueError(
                f"The recordings hold {high:g} to {low:g} Hz (info['highpass'], info['lowpass']), but the model's "
                f"were filtered to {stated}. Filter the continuous recording alike (raw.filter) before cutting epochs."
            )
    if preparation.baseline is None and recorded.baseline not in (None, UNKNOWN):
        raise ValueError(
            f"A baseline of {recorded.baseline} s was subtracted from the recordings, but none from the model's. Cut "
            "the epochs with baseline=None."
        )
    hints = {
        "reference": "raw.set_eeg_reference", "projectors": "mne.Epochs(..., proj=False), apply_proj or del_proj",
        "spatial_filters": "raw.apply_gradient_compensation or mne.preprocessing.maxwell_filter",
    }  # fmt: skip
    for name, hint in hints.items():
        found, wanted = getattr(recorded, name), getattr(preparation, name)
        if UNKNOWN not in (found, wanted) and found != wanted:
            raise ValueError(f"'{name}' of the recordings is {found}, but of the model's {wanted} (see {hint}).")


def _referred(values: np.ndarray, recorded: Recorded, preparation: Preparation) -> np.ndarray:
    """Minus the mean of the baseline, over its deviation where the scaling asks for it."""
    begin, end = map(float, preparation.baseline)  # type: ignore[arg-type]
    times = recorded.tmin + np.arange(values.shape[-1]) / recorded.sfreq
    inside = (times >= begin - EDGE) & (times <= end + EDGE)
    slack = 1 / recorded.sfreq
    if not inside.any() or times[0] > begin + slack or times[-1] < end - slack:
        done = isinstance(recorded.baseline, list | tuple) and _same_times(recorded.baseline, [begin, end])
        if done and preparation.scaling != "baseline z-score":
            return values  # subtracted before the epochs were cropped
        raise ValueError(
            f"The model's recordings are referred to a baseline of {begin:g} to {end:g} s, but these span "
            f"{times[0]:.3f} to {times[-1]:.3f} s."
        )
    baseline = values[..., inside]
    values = values - baseline.mean(axis=-1, keepdims=True)
    if preparation.scaling != "baseline z-score":
        return values
    spread = baseline.std(axis=-1, keepdims=True)
    if not (spread > 0).all():
        row, channel = (int(i) for i in np.argwhere(spread[..., 0] <= 0)[0])
        raise ValueError(f"Recording {row}: channel {channel} is flat in the baseline of {begin:g} to {end:g} s.")
    return values / spread


def _windowed(values: np.ndarray, recorded: Recorded, spec: Mapping, rate: str | None) -> np.ndarray:
    """Cut the window and lower the rate."""
    n_times, wanted, tmin, found = spec["n_times"], float(spec["sfreq"]), spec["tmin"], recorded.sfreq
    ratio = 1.0 if abs(found - wanted) * n_times <= SAMPLE_TOLERANCE * wanted else found / wanted
    start = round((tmin - recorded.tmin) * found)
    stop = start + round((n_times - 1) * ratio) + 1
    half = 0.5 / wanted + EDGE  # the nearest sample is near enough
    missing = max(stop - values.shape[-1], 0)
    if max(-start, 0) / found > half or missing / found > half:
        last = tmin + (n_times - 1) / wanted
        raise ValueError(
            f"The recordings span {recorded.tmin:.3f} to {recorded.last:.3f} s; the model needs {tmin:.3f} to "
            f"{last:.3f} s."
        )
    if start < 0 or missing:
        values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(max(-start, 0), missing)], mode="edge")
        start, stop = max(start, 0), stop + max(-start, 0)
    values = values[..., start:stop]
    if ratio == 1:
        return values
    whole = abs(ratio - round(ratio)) * n_times <= SAMPLE_TOLERANCE * ratio
    if whole and rate == "decimated":
        return values[..., :: round(ratio)]
    return resampled(values, found, wanted)[..., :n_times]


def resampled(values: np.ndarray, sfreq: float, wanted: float) -> np.ndarray:
    """Lower the rate along the last axis by a polyphase filter, which takes out what lies above the new half rate.

    The first sample stays where it is; the ends are continued along a line through both of them.

    Raises:
        ValueError: If SciPy is not installed, or the rates are in no ratio of whole numbers below 10,000.
    """
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise ValueError("Recordings of a higher rate than the model's need SciPy: pip install scipy.") from error
    ratio = Fraction(wanted / sfreq).limit_denominator(10_000)
    if not ratio or abs(float(ratio) * sfreq / wanted - 1) > 1e-6:
        raise ValueError(f"{sfreq:g} Hz cannot be brought to {wanted:g} Hz in whole steps; resample by yourself.")
    return resample_poly(values, ratio.numerator, ratio.denominator, axis=-1, padtype="line")


def scale_rows(
    rows: Sequence[np.ndarray] | np.ndarray, preparation: Preparation, owners: Sequence[tuple[str, str]],
    statistics: Mapping[str, np.ndarray], *, fit: bool,
) -> list[np.ndarray]:  # fmt: skip
    """Scale recordings by the statistics of their subjects and sessions, or by their own.

    Args:
        rows (sequence of `np.ndarray` of shape `(n_chans, n_times)` or `(n_voxels,)`): In the unit of `preparation`.
        preparation ([`Preparation`]): Of the rows of the data set.
        owners (sequence of `tuple[str, str]`): Subject and session (`""` where not stated) of each row.
        statistics (`Mapping[str, np.ndarray]`): By [`tensor_name`].
        fit (`bool`): Take mean and deviation of the rows themselves, by owner.

    Raises:
        ValueError: If there are no statistics for an owner, too few rows to fit them on, or values vary so much or so
            little that they must be in another unit.
    """
    if preparation.scaling not in FITTED:
        if fit:
            raise ValueError(
                f"The scaling of the model's recordings is {preparation.scaling!r}: there is nothing to fit."
            )
        if preparation.scaling == "none":
            _check_spread(rows, *RAW_SPREAD.get(str(preparation.unit), (0.0, np.inf)), preparation)
        return [np.asarray(row, dtype=np.float32) for row in rows]
    if preparation.scope == "subject":
        owners = [(subject, "") for subject, _ in owners]
    found = _fitted(rows, preparation, owners) if fit else _stored(preparation, owners, statistics)
    shape = (-1, *(1,) * (np.ndim(rows[0]) - 1))
    values = [
        scaled(row, *(part.reshape(shape) for part in found[owner])) for row, owner in zip(rows, owners, strict=True)
    ]
    _check_spread(values, *SCALED_SPREAD, preparation)
    return values


def _stored(
    preparation: Preparation, owners: Iterable[tuple[str, str]], statistics: Mapping[str, np.ndarray]
) -> dict[tuple[str, str], tuple[np.ndarray, ...]]:
    """Mean and deviation of each owner."""
    found = {}
    for subject, session in dict.fromkeys(owners):
        names = [tensor_name(subject, session, name) for name in ("mean", "std")]
        if not all(name in statistics for name in names):
            known = sorted({name.rsplit("/", 1)[0] for name in statistics if not name.endswith(f"/{VOXELS}")})
            whom = f"session {session!r} of {subject!r}" if session else f"{subject!r}"
            if preparation.scope == "session" and not session:
                whom += " without a 'session'"
            lacking = f"there are those of {known[:EXAMPLES]}{' ...' if len(known) > EXAMPLES else ''}"
            lacking = (
                lacking if known else f"there are none at all: '{STATISTICS_FILE}' is missing beside the processor"
            )
            raise ValueError(
                f"The model's recordings are scaled by statistics of each {preparation.scope}, and there are none for "
                f"{whom}; {lacking}. "
                f"scaling='fit' takes them from the recordings that are given, {MIN_FIT_TRIALS} at least."
            )
        found[subject, session] = tuple(statistics[name] for name in names)
    return found


def _fitted(
    rows: Sequence[np.ndarray] | np.ndarray, preparation: Preparation, owners: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], tuple[np.ndarray, ...]]:
    """Mean and deviation of the rows of each owner."""
    found: dict[tuple[str, str], tuple[np.ndarray, ...]] = {}
    for owner in dict.fromkeys(owners):
        own = np.stack([row for row, other in zip(rows, owners, strict=True) if other == owner]).astype(np.float64)
        if len(own) < MIN_FIT_TRIALS:
            raise ValueError(
                f"scaling='fit' needs {MIN_FIT_TRIALS} recordings of a {preparation.scope} at least, but got "
                f"{len(own)} of {' '.join(owner).strip()!r}."
            )
        axes = (0, *range(2, own.ndim))
        mean, std = own.mean(axis=axes), own.std(axis=axes)
        if preparation.scaling == "rms":
            mean, std = np.zeros_like(mean), np.sqrt(np.square(own).mean(axis=axes))
        found[owner] = (mean, np.where(std > 0, std, 1.0))
    return found


def check_prepared_spread(rows: Sequence[np.ndarray] | np.ndarray, preparation: Preparation) -> None:
    """Raise a `ValueError` where rows that should be prepared vary as recordings of another unit do."""
    limits = RAW_SPREAD.get(str(preparation.unit), (0.0, np.inf)) if preparation.scaling == "none" else SCALED_SPREAD
    if (preparation.scaling in FITTED or preparation.unit == "z") and len(rows) >= MIN_FIT_TRIALS:
        limits = (limits[0], SCALED_MANY)
    _check_spread(rows, *limits, preparation, " If they are as recorded, say so by 'unit', for example unit='V'.")


def _check_spread(
    rows: Sequence[np.ndarray] | np.ndarray, low: float, high: float, preparation: Preparation, hint: str = ""
) -> None:
    """The median over recordings (and channels) of the deviation over samples (or voxels) must be plausible."""
    spread = (
        float(np.median([np.median(np.std(row, axis=-1, dtype=np.float64)) for row in rows])) if len(rows) else 0.0
    )
    plausible = low <= spread <= high or (not spread and (hint or np.shape(rows[0])[-1] == 1))
    if np.isfinite(spread) and not plausible:
        unit = "z-scores" if preparation.scaling != "none" else str(preparation.unit)
        raise ValueError(
            f"The recordings vary by {spread:.2g}, but the model's are {unit}, for which {low:g} to {high:g} are "
            f"plausible. Are they in another unit or scaled otherwise?{hint}"
        )
