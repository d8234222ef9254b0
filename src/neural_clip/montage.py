"""Channels of a model that a recording lacks or has marked bad, made of the channels around them by their places.

EEG goes by spherical splines (Perrin et al. 1989, doi:10.1016/0013-4694(89)90180-6), MEG by field mapping, a minimum
norm estimate of what other coils would have measured (Ossadtchi et al. 2004). Both are those of
`mne.Evoked.interpolate_bads`: it maps unit vectors, one a channel, to the columns of a matrix of weights.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .errors import check_option

INTERPOLATE = "interpolate"
MONTAGES = (INTERPOLATE,)
HINT = "Ask for interpolation from the channels around them by 'montage' (interpolate)."
STANDARD = "standard_1005"  # places of 343 names of the 10-20, 10-10 and 10-5 systems, those of 1958 among them
NEWER_NAME = "colin27_1005"
# Centre of the sphere that mne fits to STANDARD, in m of the head frame; MEG takes it too.
CENTRE = (0.0, 0.015, 0.041)
LEAST = 4  # channels with a place; fewer do not tell a sphere
LEAST_WEIGHT = 0.1  # sum of the weights of a channel without their signs; about 1 and more where mapping works
RENAMED = {"t3": "t7", "t4": "t8", "t5": "p7", "t6": "p8"}  # names of 1958 by those of today (AES 1991)
LABEL = re.compile(r"[A-H]\d{1,2}")  # of BioSemi's caps of 128 and more
HEAD = 4  # FIFFV_COORD_HEAD
TYPES = {"eeg": ("eeg",), "meg": ("mag", "grad")}
METHODS = {"eeg": "spherical splines", "meg": "field mapping"}
SYSTEMS = ("ctf275", "ctf151", "neuromag")  # of MEG, whose coils mne knows by name
SHOWN = 8  # names in a sentence


@dataclass(frozen=True)
class Sensor:
    """One channel.

    Args:
        name, kind (`str`): Name, and type of mne.
        loc (`tuple[float, ...]`, *optional*): Place in m and, of MEG, orientation as `mne.Info` holds it: 12 numbers.
        coil_type (`int`): Of MEG, mne's number.
        own (`bool`): Whether the place is that of the recording, not of [`STANDARD`].
    """

    name: str
    kind: str
    loc: tuple[float, ...] | None
    coil_type: int = 0
    own: bool = True


@dataclass(frozen=True)
class Montage:
    """The channels of a recording that may take part.

    Args:
        modality (`str`): `"eeg"` or `"meg"`.
        sensors (`tuple[Sensor, ...]`): In the order of the recording, bad ones included.
        bads (`frozenset[str]`): Names of the bad ones.
        dev_head (`tuple[float, ...]`, *optional*): Of MEG: the 16 numbers of `info["dev_head_t"]`.
        coils (`bool`): Of MEG: whether the coils are known.
    """

    modality: str
    sensors: tuple[Sensor, ...]
    bads: frozenset[str] = frozenset()
    dev_head: tuple[float, ...] | None = None
    coils: bool = False

    @classmethod
    def of_info(cls, info: Any, modality: str) -> "Montage":
        """Of an `mne.Info`."""
        check_modality(modality)
        places = standard_places() if modality == "eeg" else {}
        sensors = []
        for channel, kind in zip(info["chs"], info.get_channel_types(), strict=True):
            if kind not in TYPES[modality]:
                continue
            name, loc = channel["ch_name"], tuple(map(float, channel["loc"][:12]))
            own = is_place(loc[:3]) and (modality == "meg" or int(channel["coord_frame"]) == HEAD)
            place = loc if own else places.get(name.casefold())
            sensors.append(Sensor(name, kind, place, int(channel["coil_type"]), own))
        head = info["dev_head_t"]
        dev_head = None if head is None else tuple(np.asarray(head["trans"], float).ravel().tolist())
        return cls(modality, tuple(sensors), frozenset(info["bads"]), dev_head, coils=True)

    @classmethod
    def of_names(
        cls, ch_names: Sequence[str], modality: str, places: Sequence[Sequence[float]] | None = None
    ) -> "Montage":
        """Of the names of channels and, of EEG, their places in m of the head frame where they are known."""
        check_modality(modality)
        ch_names = [str(name) for name in ch_names]
        if repeated := sorted({name for name in ch_names if ch_names.count(name) > 1}):
            raise ValueError(f"'ch_names' names {some(repeated)} more than once; each channel has a name of its own.")
        standard = standard_places() if modality == "eeg" else {}
        sensors, known = [], dict(zip(ch_names, places or (), strict=bool(places)))
        for name in ch_names:
            own = padded(known[name]) if name in known and modality == "eeg" else None
            found = standard.get(name.casefold()) if own is None else own
            sensors.append(Sensor(name, TYPES[modality][0], found, own=own is not None))
        return cls(modality, tuple(sensors))


@dataclass(frozen=True, eq=False)
class Interpolation:
    """How the channels of a model are made of those of a recording.

    Args:
        modality (`str`): `"eeg"` or `"meg"`.
        ch_names (`tuple[str, ...]`): Of the model.
        kinds (`frozenset[str]`): Types of mne that these have.
        recorded (`tuple[str, ...]`): Channels of the recording that the weights belong to.
        interpolated (`tuple[str, ...]`): Channels of the model that are made of `sources`; the others keep their own
            values.
        sources (`tuple[str, ...]`): Good channels with a place.
        left_out (`tuple[str, ...]`): Good channels of the recording that are not used.
        places (`dict[str, int]`): How many places are of the recording, of the checkpoint, and of standard tables.
        weights (`np.ndarray` of shape `(n_chans, n_recorded)`): float64, fixed for a montage.
    """

    modality: str
    ch_names: tuple[str, ...]
    kinds: frozenset[str]
    recorded: tuple[str, ...]
    interpolated: tuple[str, ...]
    sources: tuple[str, ...]
    left_out: tuple[str, ...]
    places: dict[str, int]
    weights: np.ndarray

    def applied(self, values: np.ndarray) -> np.ndarray:
        """Recordings `(..., n_recorded, n_times)` as `(..., n_chans, n_times)`, of the same type."""
        return (self.weights @ values).astype(values.dtype, copy=False)

    def as_dict(self) -> dict[str, Any]:
        """As reports and JSON hold it."""
        return {
            "modality": self.modality, "method": METHODS[self.modality], "n_chans": len(self.ch_names),
            "n_interpolated": len(self.interpolated), "interpolated": list(self.interpolated),
            "n_from": len(self.sources), "from": list(self.sources), "left_out": list(self.left_out),
            "places": self.places, "said": self.said,
        }  # fmt: skip

    @property
    def said(self) -> str:
        """What was done, in one sentence."""
        left = f"; not used: {some(self.left_out)}" if self.left_out else ""
        if not self.interpolated:
            return f"No channel was interpolated: the recording has all {len(self.ch_names)} of the model's{left}."
        places = " and ".join(f"{count} {whose}" for whose, count in self.places.items() if count)
        return (
            f"Interpolated by {METHODS[self.modality]}: {len(self.interpolated)} of the model's {len(self.ch_names)} "
            f"{self.modality.upper()} channels ({some(self.interpolated)}) from {len(self.sources)} recorded ones "
            f"({some(self.sources)}); places: {places}{left}."
        )


def check_modality(modality: str) -> None:
    """Raise unless channels of a modality can be interpolated."""
    if modality not in TYPES:
        raise ValueError(f"'montage' is for EEG and MEG channels, but these are {modality!r} recordings.")


def is_place(place: Sequence[float]) -> bool:
    """Whether this is a place; mne has NaN or zeros where it knows none."""
    return bool(np.isfinite(place).all() and np.any(place))


def padded(place: Sequence[float]) -> tuple[float, ...] | None:
    """A place as `mne.Info` holds it, `None` where there is none."""
    return (*map(float, place), *[0.0] * 9) if is_place(place) else None


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many follow."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def mne_of(purpose: str) -> Any:
    """The package mne."""
    try:
        import mne
    except ImportError as error:
        raise ValueError(f"{purpose} needs mne: pip install mne.") from error
    return mne


def standard_names() -> list[str]:
    """Names of [`STANDARD`] as they are written there."""
    return list(standard_montage().ch_names)


def standard_montage() -> Any:
    """The `mne.channels.DigMontage` called [`STANDARD`], which mne 1.13 calls otherwise."""
    channels = mne_of("Interpolation of channels").channels
    known = channels.get_builtin_montages()
    return channels.make_standard_montage(NEWER_NAME if NEWER_NAME in known else STANDARD)


@lru_cache(maxsize=1)
def standard_places() -> dict[str, tuple[float, ...] | None]:
    """Places of the names of [`STANDARD`] in the head frame, by their names in small letters."""
    mne = mne_of("Interpolation of channels")
    montage = standard_montage()
    info = mne.create_info(montage.ch_names, 1.0, "eeg", verbose="error")
    info.set_montage(montage, verbose="error")
    return {channel["ch_name"].casefold(): padded(channel["loc"][:3]) for channel in info["chs"]}


@lru_cache(maxsize=1)
def known_coils() -> dict[str, dict[str, Sensor]]:
    """Of the MEG systems that mne knows, sensors by the key of their names; none before mne 1.12."""
    mne = mne_of("Interpolation of channels")
    if not hasattr(mne.channels, "read_meg_canonical_info"):
        return {}
    infos = {system: mne.channels.read_meg_canonical_info(system) for system in SYSTEMS}
    return {
        system: {meg_key(sensor.name): sensor for sensor in Montage.of_info(info, "meg").sensors}
        for system, info in infos.items()
    }


def meg_key(name: str) -> str:
    """Name of a MEG channel without the number of the machine: `"MLC11"` of `"MLC11-1609"`."""
    return name.partition("-")[0].replace(" ", "").casefold()


def eeg_key(name: str) -> str:
    """Name of an EEG channel in small letters, and as it is called since 1991: `"t7"` of `"T3"`."""
    return RENAMED.get(name.casefold(), name.casefold())


def labels_of_caps(montage: Montage, ch_names: Sequence[str]) -> bool:
    """Whether names of a recording are labels of a cap (BioSemi), where C3 is another place than in the 10-05 system.

    Raises:
        ValueError: If such channels have no places of their own.
    """
    if montage.modality != "eeg":
        return False
    labels = [sensor for sensor in montage.sensors if LABEL.fullmatch(sensor.name)]
    known, own = standard_places(), {name.casefold() for name in ch_names}
    foreign = [one.name for one in labels if one.name.casefold() not in known and one.name.casefold() not in own]
    if foreign and not all(sensor.own for sensor in labels):
        raise ValueError(
            f"Channels are called {some(foreign)}, as on caps of BioSemi, where A1 or C3 is another place than in the "
            "10-05 system. Give the recording with its places (`set_montage`)."
        )
    return bool(foreign)


@lru_cache(maxsize=32)
def interpolation(
    montage: Montage, ch_names: tuple[str, ...], places: tuple[tuple[float, ...], ...] | None = None
) -> Interpolation:
    """Find how the channels of a model are made of those of a recording; computed once for each montage.

    Args:
        montage ([`Montage`]): Of the recording.
        ch_names (`tuple[str, ...]`): Of the model.
        places (`tuple[tuple[float, ...], ...]`, *optional*): Of the model's EEG channels, in m of the head frame.

    Returns:
        [`Interpolation`]: Channels that the recording has by name, or at the same standard place, keep their values.

    Raises:
        ValueError: If too few channels have a place, or the place of a channel that is lacking is not known.
    """
    key: Callable[[str], str] = eeg_key if montage.modality == "eeg" else meg_key
    good = [sensor for sensor in montage.sensors if sensor.name not in montage.bads]
    kept = {} if labels_of_caps(montage, ch_names) else own_channels(good, ch_names, key)
    lacking = [name for name in ch_names if name not in kept]
    sources = [sensor for sensor in good if sensor.loc is not None] if lacking else []
    targets, told = targets_of(montage, lacking, dict(zip(ch_names, places or (), strict=False)), key)
    sources = sources if targets else []
    if targets:
        check_sources(montage, sources)
    used = list(dict.fromkeys([*sources, *kept.values()]))
    weights = np.zeros((len(ch_names), len(used)))
    for row, name in enumerate(ch_names):
        if name in kept:
            weights[row, used.index(kept[name])] = 1.0
    if targets:
        rows = [ch_names.index(name) for name in targets]
        weights[rows, : len(sources)] = mapped(tuple(sources), tuple(targets.values()), montage)
    weights.setflags(write=False)
    whose = [
        *("the recording's" if one.own else f"of {STANDARD}" for one in sources),
        *(told[name] for name in targets),
    ]
    return Interpolation(
        montage.modality, ch_names, frozenset(one.kind for one in (*kept.values(), *targets.values())),
        tuple(one.name for one in used), tuple(targets), tuple(one.name for one in sources),
        tuple(one.name for one in good if one not in used), {name: whose.count(name) for name in sorted(set(whose))},
        weights,
    )  # fmt: skip


def own_channels(good: Sequence[Sensor], ch_names: Sequence[str], key: Callable[[str], str]) -> dict[str, Sensor]:
    """Good channels of the recording by the names of the model's that they are."""
    exact = {sensor.name: sensor for sensor in good}
    near: dict[str, list[Sensor]] = {}
    for sensor in good:
        near.setdefault(key(sensor.name), []).append(sensor)
    found = {}
    for name in ch_names:
        alike = near.get(key(name), [])
        if name in exact or len(alike) == 1:
            found[name] = exact.get(name) or alike[0]
    return found


def targets_of(
    montage: Montage, lacking: Sequence[str], places: dict[str, tuple[float, ...]], key: Callable[[str], str]
) -> tuple[dict[str, Sensor], dict[str, str]]:
    """Sensors of the channels that are lacking, by name, and whose places these are."""
    bad = {key(sensor.name): sensor for sensor in montage.sensors if sensor.name in montage.bads}
    known: dict[str, Sensor] = {}
    if montage.modality == "eeg":
        known = {name: Sensor(name, "eeg", loc, own=False) for name, loc in standard_places().items()}
    elif lacking and montage.coils and not all(key(name) in bad for name in lacking):
        counts = {system: sum(key(name) in coils for name in lacking) for system, coils in known_coils().items()}
        known = known_coils()[max(counts, key=lambda system: counts[system])] if counts else {}
    found, told, unknown = {}, {}, []
    for name in lacking:
        own, stored = bad.get(key(name)), padded(places[name]) if name in places else None
        if own is not None and own.own and own.loc is not None:
            found[name], told[name] = own, "the recording's"
        elif stored is not None and montage.modality == "eeg":
            found[name], told[name] = Sensor(name, "eeg", stored), "the checkpoint's"
        elif key(name) in known:
            table = STANDARD if montage.modality == "eeg" else "mne's tables of MEG systems"
            found[name], told[name] = known[key(name)], f"of {table}"
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(why_unknown(montage, unknown))
    return found, told


def why_unknown(montage: Montage, unknown: Sequence[str]) -> str:
    """Why channels cannot be interpolated."""
    if montage.modality == "eeg":
        return (
            f"{len(unknown)} channels of the model cannot be interpolated, because nobody knows where they are: "
            f"{some(unknown)}. They are no names of {STANDARD}, and the checkpoint holds no places."
        )
    if not montage.coils:
        return (
            f"{len(unknown)} MEG channels of the model cannot be interpolated: {some(unknown)}. Field mapping needs "
            "the coils (place, orientation, type) that mne.Info holds; arrays and prepared data sets do not keep "
            "them. Give the recording itself."
        )
    return (
        f"{len(unknown)} MEG channels of the model cannot be interpolated, because their coils are not known: "
        f"{some(unknown)}. Known are those that the recording marks as bad and, from mne 1.12 on, those of "
        f"{', '.join(SYSTEMS)}."
    )


def check_sources(montage: Montage, sources: Sequence[Sensor]) -> None:
    """Raise unless there is enough to interpolate from."""
    if len(sources) < LEAST:
        names = some([sensor.name for sensor in montage.sensors]) or "none"
        raise ValueError(
            f"Interpolation needs {LEAST} good channels with a known place, but the recording has {len(sources)}; its "
            f"{montage.modality.upper()} channels are {names}. Places are the recording's own, or those of the names "
            f"in {STANDARD}."
        )
    if montage.modality == "meg" and montage.dev_head is None:
        raise ValueError("Field mapping needs to know where the head was: info['dev_head_t'] is missing.")


def mapped(sources: tuple[Sensor, ...], targets: tuple[Sensor, ...], montage: Montage) -> np.ndarray:
    """Weights `(n_targets, n_sources)` by which mne interpolates."""
    mne = mne_of("Interpolation of channels")
    sensors = [*sources, *targets]
    names = [f"{number}" for number in range(len(sensors))]
    info = mne.create_info(names, 1.0, [sensor.kind for sensor in sensors], verbose="error")
    for channel, sensor in zip(info["chs"], sensors, strict=True):
        channel["loc"][:] = sensor.loc
        if montage.modality == "meg":
            channel["coil_type"] = sensor.coil_type & 0xFFFF  # the upper bits are the grade of compensation
    if montage.dev_head is not None:
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", np.reshape(montage.dev_head, (4, 4)))
    info["bads"] = names[len(sources) :]
    units = np.vstack([np.eye(len(sources)), np.zeros((len(targets), len(sources)))])
    evoked = mne.EvokedArray(units, info, verbose="error")
    evoked.interpolate_bads(origin=CENTRE, mode="fast", verbose="error")  # "accurate" differs in the ninth digit
    weights = evoked.data[len(sources) :]
    if np.abs(weights).sum(axis=1).min() < LEAST_WEIGHT:
        raise ValueError(
            "Field mapping finds nothing of the channels that are lacking: the head of info['dev_head_t'] is not "
            "inside the helmet, or all coils around these channels are lacking too."
        )
    return weights


def check_montage(montage: str | None) -> None:
    """Raise unless a montage is one of those allowed."""
    check_option("montage", montage, [None, *MONTAGES])


__all__ = ["Interpolation", "Montage", "interpolation"]
