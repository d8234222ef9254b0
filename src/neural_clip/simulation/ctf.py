"""Writer of CTF `.ds` folders, the raw format of THINGS-MEG.

A recording `<name>.ds` holds `<name>.res4` (header), `<name>.meg4` (samples), `<name>.hc` (head coils) and some small
text files. All numbers are big-endian. Layout and gains were taken from a real 1200 Hz recording of the same system
type (MNE's `testdata_ctf_short_discontinuous.ds`) and from what `mne.io.read_raw_ctf` reads;
`tests/simulation/test_ctf.py` compares both.

Physical value = stored int32 / (proper gain * Q gain). Axial gradiometers of positive proper gain have coil normals
that point into the head, those of negative gain outwards; readers turn them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError, check_option, check_value
from neural_clip.files.whole import whole_folder

HEADER_BYTES = 1844  # fixed part of the .res4 file; the run description begins here
MAX_COILS = 8
MAX_BALANCING = 50  # reference channels in one compensation record
MAX_MEG4_BYTES = 2**31 - 1  # a longer recording goes on in <name>.1_meg4, which this writer does not need
MEG4_MAGIC = b"MEG41CP\x00"
RES4_MAGIC = b"MEG42RS\x00"
BALANCE_TYPE = int.from_bytes(b"G1BR", "big")  # first-order synthetic gradient
# kind -> (sensor type index, |proper gain| in counts per T or V, Q gain, coils, turns, coil area in cm^2); typical
# values of the real header. Stimulus and clock channels have none but the Q gain.
_KINDS = {
    "ref_mag": (0, 1.18e8, 2.0**20, 1, 1, 2.01),
    "ref_grad": (1, 6.54e9, 2.0**20, 2, 1, 9.35),
    "meg": (5, 2.90e9, 2.0**20, 2, 2, 2.54),
    "stim": (11, 1.0, 1.0, 0, 0, 0.0),
    "clock": (17, 1.0, 12000.0, 0, 0, 0.0),
    "adc": (18, 1.0, 107374182.4, 0, 0, 0.0),
}
MEG_KINDS = ("meg", "ref_mag", "ref_grad")
BASELINE_M = 0.05  # distance of the two coils of an axial gradiometer (CTF: 5 cm)
DEWAR_TO_HEAD_M = (0.0, 0.0, -0.27)  # head origin in dewar coordinates, the "standard" position in real .hc files
_HEADER = np.dtype(
    {
        "names": [
            "head", "time", "date", "n_times", "n_chans", "sfreq", "duration", "n_trials", "pre_trigger", "run_name",
            "run_title", "instruments", "subject", "operator", "description_bytes",
        ],
        "formats": [
            "S8", "S255", "S255", ">i4", ">i2", ">f8", ">f8", ">i2", ">i4", "S32", "S256", "S32", "S32", "S32", ">i4",
        ],
        "offsets": [0, 778, 1033, 1288, 1292, 1296, 1304, 1312, 1316, 1360, 1392, 1648, 1712, 1744, 1836],
        "itemsize": HEADER_BYTES,
    }
)  # fmt: skip
_COIL = np.dtype(
    [
        ("position", ">f8", 3), ("d0", ">f8"), ("normal", ">f8", 3), ("d1", ">f8"), ("turns", ">i2"), ("d2", ">i4"),
        ("d3", ">i2"), ("area", ">f8"),
    ]
)  # fmt: skip
_CHANNEL = np.dtype(
    [
        ("type_index", ">i2"), ("run", ">i2"), ("coil_type", ">i4"), ("proper_gain", ">f8"), ("q_gain", ">f8"),
        ("io_gain", ">f8"), ("io_offset", ">f8"), ("n_coils", ">i2"), ("grad_order", ">i2"), ("d0", ">i4"),
        ("coils", _COIL, MAX_COILS), ("head_coils", _COIL, MAX_COILS),
    ]
)  # fmt: skip
_BALANCE = np.dtype(
    [
        ("sensor", "S32"), ("type", ">i4"), ("d0", ">i4"), ("n_refs", ">i2"), ("refs", "S31", MAX_BALANCING),
        ("values", ">f8", MAX_BALANCING),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class CtfChannel:
    """One channel of a CTF recording.

    Args:
        name (`str`): Up to 15 characters, such as `"MLC11-1609"`, `"UPPT001"` or `"SCLK01-177"`.
        kind (`str`): `"meg"`, `"ref_mag"`, `"ref_grad"` (data in T), `"stim"` (integers), `"adc"` (V), `"clock"` (s).
        position (`tuple[float, float, float]`, *optional*): Inner coil in m, head axes (x right, y front, z up) of a
            head in its standard place. Needed for the kinds in T.
        normal (`tuple[float, float, float]`, *optional*): Unit vector pointing out of the head.
    """

    name: str
    kind: str
    position: tuple[float, float, float] | None = None
    normal: tuple[float, float, float] | None = None

    def __post_init__(self):
        check_option("kind", self.kind, _KINDS)
        if not 0 < len(self.name) <= 15:
            raise DataError(f"CTF channel names have 1 to 15 characters, but got '{self.name}'.")
        if self.kind in MEG_KINDS and (self.position is None or self.normal is None):
            raise DataError(f"Channel '{self.name}' of kind '{self.kind}' needs a position and a normal.")


@dataclass(frozen=True)
class HeadCoils:
    """Where the head was, by its three localisation coils.

    Args:
        nasion, ear (`float`): Distance of the coil from the head origin, in m.
        shift (`tuple[float, float, float]`): Head origin minus its standard place, in m, dewar axes.
    """

    nasion: float = 0.10
    ear: float = 0.077
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)


def quantisation_step(channel: CtfChannel) -> float:
    """Smallest difference that the format can store on a channel, in T, V or s."""
    return abs(1.0 / (_proper_gain(channel) * _KINDS[channel.kind][2]))


def write_ds(
    path: str | Path,
    data: np.ndarray,
    channels: Sequence[CtfChannel],
    sfreq: float,
    *,
    trial_samples: int,
    coils: HeadCoils | None = None,
    date: str = "13-Jun-2019",
    time: str = "12:00",
    subject: str = "",
) -> Path:
    """Write a continuous recording.

    Samples are stored in blocks ("trials") of equal length, channel by channel inside a block; the last block is
    filled up with zeros, where the system clock stands still, so that readers cut it off.

    Args:
        path (`str` or `Path`): Folder to make; its name ends in `.ds`.
        data (`np.ndarray` of shape `(n_chans, n_times)`): In T, V, s or trigger codes, by the kind of the channel.
        channels (`Sequence[CtfChannel]`): One for each row.
        sfreq (`float`): Sampling rate in Hz.
        trial_samples (`int`): Length of a block, in samples.
        coils (`HeadCoils`, *optional*): Head position; the standard one if not given.
        date, time (`str`): Of the recording, `"13-Jun-2019"` and `"12:00"`; fixed, so that equal data are equal bytes.
        subject (`str`): Subject name in the header.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If shapes disagree, a value is not finite or exceeds the range of the format, or `path` exists.
    """
    path, data = Path(path), np.asarray(data)
    _check(path, data, channels, trial_samples)
    n_trials = -(-data.shape[1] // trial_samples)
    stem = path.name[: -len(".ds")]
    with whole_folder(path, holds=f"{stem}.meg4", what="CTF recording") as partial:
        (partial / f"{stem}.res4").write_bytes(_res4(channels, sfreq, trial_samples, n_trials, date, time, subject))
        (partial / f"{stem}.hc").write_text(_head_coils(coils or HeadCoils()), encoding="ascii")
        (partial / "BadChannels").write_text("")
        (partial / "bad.segments").write_text("")
        (partial / "ClassFile.cls").write_text(_class_file(path.name))
        _write_meg4(partial / f"{stem}.meg4", data, channels, trial_samples)
    return path


def _check(path: Path, data: np.ndarray, channels: Sequence[CtfChannel], trial_samples: int) -> None:
    """Raise a `DataError` for input that cannot be written."""
    if not path.name.endswith(".ds") or path.exists():
        raise DataError(f"'{path}' must be a new folder whose name ends in '.ds'.")
    if data.ndim != 2 or len(channels) != data.shape[0] or data.shape[1] == 0:
        raise DataError(
            f"'data' of shape {data.shape} does not fit {len(channels)} channels; expected (n_chans, n_times)."
        )
    check_value("trial_samples", trial_samples, trial_samples >= 1, "1 and more")
    names = [channel.name for channel in channels]
    if len(set(names)) != len(names):
        raise DataError("Channel names must differ, but some occur twice.")
    n_trials = -(-data.shape[1] // trial_samples)
    if n_trials > np.iinfo(np.int16).max or 4 * n_trials * trial_samples * len(channels) > MAX_MEG4_BYTES:
        raise DataError(
            f"A recording of {data.shape[1]} samples of {len(channels)} channels is too long for one .meg4 file."
        )


def _proper_gain(channel: CtfChannel) -> float:
    """Counts per T or V; real gradiometers have both signs, here the left ones positive."""
    gain = _KINDS[channel.kind][1]
    if channel.kind in ("ref_mag", "ref_grad") or (channel.kind == "meg" and not channel.name.startswith("ML")):
        return -gain
    return gain


def _write_meg4(path: Path, data: np.ndarray, channels: Sequence[CtfChannel], trial_samples: int) -> None:
    """Samples as int32, block after block."""
    factors = np.array([_proper_gain(channel) * _KINDS[channel.kind][2] for channel in channels])[:, None]
    with path.open("wb") as file:
        file.write(MEG4_MAGIC)
        for start in range(0, data.shape[1], trial_samples):
            part = data[:, start : start + trial_samples]
            counts = np.rint(part * factors)  # float64: int32 needs 31 bits
            if not np.abs(counts).max() < 2**31:  # also true for NaN
                row = int(np.argmax(~(np.abs(counts).max(axis=1) < 2**31)))
                raise DataError(f"Channel '{channels[row].name}' holds values beyond the range of the format, or NaN.")
            block = np.zeros((len(channels), trial_samples), dtype=">i4")
            block[:, : part.shape[1]] = counts
            file.write(block.tobytes())


def _res4(
    channels: Sequence[CtfChannel], sfreq: float, trial_samples: int, n_trials: int, date: str, time: str, subject: str
) -> bytes:
    """Header file."""
    header = np.zeros((), dtype=_HEADER)
    header["head"], header["time"], header["date"], header["subject"] = RES4_MAGIC, time, date, subject
    header["n_times"], header["n_chans"], header["n_trials"] = trial_samples, len(channels), n_trials
    header["sfreq"], header["duration"] = sfreq, trial_samples * n_trials / sfreq
    header["run_title"], header["description_bytes"] = "simulated by neural_clip", 1
    description, no_filters = b"\x00", b"\x00\x00"
    names = np.array([channel.name for channel in channels], dtype="S32").tobytes()
    records = np.zeros(len(channels), dtype=_CHANNEL)
    for record, channel in zip(records, channels, strict=True):
        _fill_channel(record, channel)
    return header.tobytes() + description + no_filters + names + records.tobytes() + _balance(channels)


def _fill_channel(record: np.void, channel: CtfChannel) -> None:
    """Gains, and coils in cm and dewar axes."""
    type_index, _, q_gain, n_coils, turns, area = _KINDS[channel.kind]
    gain = _proper_gain(channel)
    record["type_index"], record["proper_gain"], record["q_gain"] = type_index, gain, q_gain
    record["io_gain"], record["n_coils"] = 1.0, n_coils
    if channel.kind not in MEG_KINDS:
        return
    outward = _to_dewar(np.array(channel.normal, dtype=float))
    outward /= np.linalg.norm(outward)
    inner = _to_dewar(np.array(channel.position, dtype=float)) + DEWAR_TO_HEAD_M
    for coil in range(n_coils):
        sign = (-1.0 if gain > 0 else 1.0) * (1 if coil == 0 else -1)  # the outer coil is wound the other way
        record["coils"]["position"][coil] = 100 * (inner + coil * BASELINE_M * outward)
        record["coils"]["normal"][coil] = sign * outward
        record["coils"]["turns"][coil], record["coils"]["area"][coil] = turns, area


def _to_dewar(vector: np.ndarray) -> np.ndarray:
    """Turn head axes (x right, y front, z up) into dewar axes, whose x and y lie 45 degrees off the nose."""
    right, front, up = vector
    return np.array([front + right, front - right, np.sqrt(2) * up]) / np.sqrt(2)


def _balance(channels: Sequence[CtfChannel]) -> bytes:
    """Compensation coefficients: zero, the simulated reference channels carry noise of their own."""
    refs = [channel.name for channel in channels if channel.kind in ("ref_mag", "ref_grad")][:MAX_BALANCING]
    sensors = [channel.name for channel in channels if channel.kind == "meg"] if refs else []
    records = np.zeros(len(sensors), dtype=_BALANCE)
    for record, sensor in zip(records, sensors, strict=True):
        record["sensor"], record["type"], record["n_refs"] = sensor, BALANCE_TYPE, len(refs)
        record["refs"][: len(refs)] = refs
    return np.array(len(sensors), dtype=">i2").tobytes() + records.tobytes()


def _head_coils(coils: HeadCoils) -> str:
    """Text of the `.hc` file: standard and measured coils in dewar axes, measured ones in head axes."""
    directions = {"nasion": (0.0, 1.0, 0.0), "left ear": (-1.0, 0.0, 0.0), "right ear": (1.0, 0.0, 0.0)}
    origin = np.add(DEWAR_TO_HEAD_M, coils.shift)
    blocks = []
    for label, frame in (("standard", "dewar"), ("measured", "dewar"), ("measured", "head")):
        for name, direction in directions.items():
            distance = 0.08 if label == "standard" else coils.nasion if name == "nasion" else coils.ear
            place = distance * np.array(direction)
            if frame == "head":
                point = np.array([place[1], -place[0], place[2]])  # CTF head axes: x front, y left, z up
            else:
                point = _to_dewar(place) + (DEWAR_TO_HEAD_M if label == "standard" else origin)
            lines = [f"{label} {name} coil position relative to {frame} (cm):"]
            lines += [f"\t{axis} = {100 * value + 0.0:.6g}" for axis, value in zip("xyz", point, strict=True)]
            blocks.append("\n".join(lines) + "\n")
    return "".join(blocks)


def _class_file(name: str) -> str:
    """Text of `ClassFile.cls`: no block is bad."""
    return (
        f"PATH OF DATASET:\n{name}\n\n\nNUMBER OF CLASSES:\n1\n\n\nCLASSGROUPID:\n3\nNAME:\nBAD\nCOMMENT:\n\nCOLOR:\n"
        "Red\nEDITABLE:\nYes\nCLASSID:\n1\nNUMBER OF TRIALS:\n0\nLIST OF TRIALS:\nTRIAL NUMBER\n\n\n"
    )
