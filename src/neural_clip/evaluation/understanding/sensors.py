"""Where sensors lie on the head, for topographies drawn by mne."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage


MIN_SENSORS = 8  # with fewer, a topography is mostly interpolation
HEAD_RADIUS = 0.095  # m, mne's own default of a head
CTF_LAYOUT = "CTF-275.lout"  # the flat layout of the whole CTF helmet that comes with mne
# mne 1.14 renames the template positions of the 10-05 system; older releases know the second name only
MONTAGES = ("colin27_1005", "standard_1005")


@dataclass(frozen=True)
class SensorPositions:
    """Where sensors lie.

    Args:
        source (`str`): Where the positions come from.
        places (`mne.Info` or `np.ndarray` of shape `(n_chans, 2)`): Positions in space, which mne projects; or seen
            from above in m, nose up, on a head that is a circle of 0.095 m around 0.
    """

    source: str
    places: Any


def sensor_positions(ch_names: list[str]) -> tuple[SensorPositions | None, str]:
    """Find the positions of sensors by their names.

    Args:
        ch_names (`list[str]`): CTF gradiometers (`MLC11`, `MLC11-1609`) or sites of the 10-05 system (`Fz`, `TP9`).

    Returns:
        `tuple` of [`SensorPositions`], or `None`, and a sentence on where the positions come from, or why there
            are none.
    """
    if len(ch_names) < MIN_SENSORS:
        return None, f"No topography: {len(ch_names)} sensors are too few to interpolate between ({MIN_SENSORS})."
    found = _ctf_positions(ch_names) or _montage_positions(ch_names)
    if found is None:
        shown = ", ".join(ch_names[:3])
        return None, f"No topography: the names of the sensors ({shown}, ...) do not say where they lie on the head."
    return found, f"Sensor positions: {found.source}."


def _ctf_positions(ch_names: list[str]) -> SensorPositions | None:
    """Positions of CTF gradiometers, if all names are theirs; the suffix is the number of the system."""
    import mne

    short = [re.sub(r"-\d+$", "", name) for name in ch_names]
    if not all(re.fullmatch(r"M[LRZ][CFOPT]\d\d", name) for name in short):
        return None
    layout = mne.channels.read_layout(CTF_LAYOUT)
    xy = layout.pos[:, :2] + layout.pos[:, 2:4] / 2
    known = dict(zip((re.sub(r"-\d+$", "", name) for name in layout.names), xy, strict=True))
    if not set(short) <= set(known):
        return None
    centre = (xy.min(axis=0) + xy.max(axis=0)) / 2
    scale = HEAD_RADIUS / np.linalg.norm(xy - centre, axis=1).max()  # the helmet's rim on the head's circle
    return SensorPositions("flat layout CTF-275 of mne", (np.array([known[name] for name in short]) - centre) * scale)


def _montage_positions(ch_names: list[str]) -> SensorPositions | None:
    """Positions of the 10-05 system on a template head, if all names are its sites."""
    import mne

    name = next(name for name in MONTAGES if name in mne.channels.get_builtin_montages())
    montage = mne.channels.make_standard_montage(name, head_size=HEAD_RADIUS)
    if not {name.lower() for name in ch_names} <= {site.lower() for site in montage.ch_names}:
        return None
    info = mne.create_info(ch_names, sfreq=1.0, ch_types="eeg")
    info.set_montage(montage, match_case=False)
    return SensorPositions("10-05 system on mne's template head", info)


def draw_topography(axes: Axes, values: np.ndarray, positions: SensorPositions, limit: float) -> AxesImage:
    """Draw values `(n_chans,)` on a head seen from above, colours from `-limit` to `limit`; returns the image."""
    import mne

    flat = isinstance(positions.places, np.ndarray)
    image, _ = mne.viz.plot_topomap(
        values,
        positions.places,
        axes=axes,
        show=False,
        cmap="RdBu_r",
        vlim=(-limit, limit),
        sphere=(0.0, 0.0, 0.0, HEAD_RADIUS) if flat else None,
        extrapolate="local" if flat else "head",
        contours=0,
        sensors=True,
    )
    return image
