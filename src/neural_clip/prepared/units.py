"""How much recordings of a unit vary: one table, for raw values and for prepared ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neural_clip.errors import DataError
from neural_clip.preparation import RAW_SPREAD, UNITS

# Least and largest deviation of the median channel. Z-scores vary by 1, a little less or more when averaged or scaled
# by a baseline.
PLAUSIBLE_SPREAD = RAW_SPREAD | {"z": (0.1, 10.0)}
LIKELIER = {
    "V": ": are they in microvolt (multiply by 1e-6) or in counts of the amplifier?",
    "T": ": are they in femtotesla (multiply by 1e-15) or in counts of the amplifier?",
    "z": ": were they not standardised?",
    "percent signal change": ": are they fractions (multiply by 100) or multiplied by 300, as NSD stores them?",
}


def plausible_spread(unit: str | None) -> tuple[float, float] | None:
    """Least and largest plausible deviation in a unit, `None` for one that the table does not know."""
    base, factor = UNITS.get(str(unit), (str(unit), 1.0))
    base = "z" if base.startswith("z ") else base
    if base not in PLAUSIBLE_SPREAD:
        return None
    low, high = PLAUSIBLE_SPREAD[base]
    return low / factor, high / factor


def check_unit(values: np.ndarray, unit: str | None, where: str, ch_names: Sequence[str] | None, way_out: str) -> None:
    """Refuse recordings whose values no head gives in their unit.

    Args:
        values (`np.ndarray` of shape `(n, n_chans, n_times)` or `(n, n_voxels)`): Recordings of one file. Deviations
            are over time, of the median row; of voxels over rows.
        unit (`str`, *optional*): What they are said to be in; one that the table does not know is not checked.
        where (`str`): The file, for the message.
        ch_names (sequence of `str`, *optional*): Names of the channels, for the message.
        way_out (`str`): What can be done, for the message.

    Raises:
        DataError: If the deviation of the median channel or voxel is not plausible, which a few broken ones do not
            move.
    """
    plausible = plausible_spread(unit)
    if plausible is None or not values.size or values.shape[-1 if values.ndim == 3 else 0] < 2:
        return
    over_time = values.ndim == 3
    spread = np.median(values.std(axis=2, dtype=np.float64), axis=0) if over_time else values.std(axis=0, dtype=float)
    (low, high), middle = plausible, float(np.median(spread))
    if middle == 0:
        what, over = ("channels", "time") if over_time else ("voxels", "trials")
        hint = "" if over_time else " Does the mask mark voxels without signal, or is it that of another recording?"
        raise DataError(f"{where}: half of the {what} or more do not vary over {over}.{hint}")
    if not low <= middle <= high:
        kind = "channel's standard deviation over time" if over_time else "voxel's standard deviation over trials"
        nearest = int(np.argmin(np.abs(spread - middle)))
        named = "" if ch_names is None else f", for example that of {ch_names[nearest]!r},"
        raise DataError(
            f"{where}: the unit is {unit}, but a median {kind}{named} is {middle:.3g} {unit}; plausible are {low:g} "
            f"to {high:g}. Do the values have another unit{LIKELIER.get(str(unit), '?')}{way_out}"
        )
