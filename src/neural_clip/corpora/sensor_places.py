"""Where the sensors of EEG and MEG are, as far as a recording's file says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mne


# By MNE's number (FIFFV_COORD_DEVICE and FIFFV_COORD_HEAD): that of the MEG helmet, and that of the head.
FRAMES = {1: "device", 4: "head"}
DECIMALS = 4  # 0.1 mm


def sensor_places(info: mne.Info, ch_names: Sequence[str]) -> dict:
    """Read the places of some sensors.

    Args:
        info (`mne.Info`): Of a recording with these sensors.
        ch_names (`list[str]`): Their names, in the order of the rows of a recording.

    Returns:
        `dict`: For `neural_clip.json`: `ch_positions`, x, y and z in metres of each sensor, and
        `ch_positions_frame`, `"head"` or `"device"`. Empty where a place is missing (MNE then holds NaN or zeros),
        or the sensors have no such frame in common.
    """
    by_name = {channel["ch_name"]: channel for channel in info["chs"]}
    chosen = [by_name[name] for name in ch_names]
    frames = {FRAMES.get(int(channel["coord_frame"])) for channel in chosen}
    places = np.array([channel["loc"][:3] for channel in chosen], dtype=float)
    frame = frames.pop() if len(frames) == 1 else None
    if frame is None or not np.isfinite(places).all() or not places.any(axis=1).all():
        return {}
    return {"ch_positions": places.round(DECIMALS).tolist(), "ch_positions_frame": frame}
