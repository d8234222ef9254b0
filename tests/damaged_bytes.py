"""Bytes with one bit turned."""

from collections.abc import Iterable, Iterator

import numpy as np


def flipped_bits(content: bytes, positions: Iterable[int], rng: np.random.Generator) -> Iterator[bytes]:
    """The content once for each position, with one bit of the byte there turned."""
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        yield bytes(damaged)
