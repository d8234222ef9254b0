"""What both routes of THINGS-MEG give: rows of one run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


class Reader(Protocol):
    """Where epochs come from: [`RawReader`] or [`DerivativeReader`]."""

    @property
    def ch_names(self) -> list[str]:
        """Gradiometers, without the malfunctioning one."""

    @property
    def places(self) -> dict:
        """Where they are in the first recording, from [`sensor_places`]."""

    @property
    def spatial_filters(self) -> list[str]:
        """Those of the first recording, from [`spatial_filters_of`]."""

    def files(self, trials: pd.DataFrame) -> list[Path]:
        """Files on which the epochs of some trials depend."""

    def epochs(self, trials: pd.DataFrame) -> Iterator[tuple[int, np.ndarray]]:
        """Row label and epoch `(n_chans, n_times)` float32 of each trial with a split."""
