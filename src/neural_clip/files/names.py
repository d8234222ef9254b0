"""Names of images, concepts and channels: one way to write each, whatever file they come from."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

MAX_TEXT = 1 << 28  # bytes of an array of names; each takes the room of the longest


def plain_name(name: str) -> str:
    """A name with composed letters (Unicode NFC), without spaces and zero bytes at its ends.

    File systems and tables write `é` as one letter or as two, and MATLAB fills the rows of a matrix of characters up
    with spaces.
    """
    return unicodedata.normalize("NFC", name).strip(" \t\r\n\0\ufeff")


def text_array(names: Sequence[str]) -> np.ndarray:
    """Names as an array of `str`, `(n,)`.

    Raises:
        ValueError: If a long one among many would fill the memory.
    """
    longest = max(map(len, names), default=0)
    if 4 * longest * len(names) > MAX_TEXT:
        raise ValueError(f"a text of {longest:,} characters among {len(names):,} names")
    return np.array(names, dtype=str)
