"""Images that the package draws itself, by which image encoders of one name are told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.target_space import TargetSpace

if TYPE_CHECKING:
    from PIL.Image import Image

N_PROBES = 8
SIZE = 256  # pixels; towers see 224 to 336
CELLS = (128, 64, 32, 16)  # pixels of a cell of the colour grids: structure at several scales


def probe_images() -> list[Image]:
    """Pictures `(SIZE, SIZE)` in RGB of integer arithmetic alone, so that they are the same on every machine.

    Each is the mean of four grids of colours at different scales; every other one is seen through a disc, stripes or
    a ramp.
    """
    from PIL import Image

    y, x = np.mgrid[:SIZE, :SIZE]
    masks = [
        (x - SIZE // 2) ** 2 + (y - SIZE // 2) ** 2 < SIZE * SIZE // 9,  # a disc
        (x + y) // 24 % 2 == 0,  # stripes
        x // 16 * 16 > y,  # steps
        (x // 40 + y // 40) % 2 == 0,  # a chessboard
    ]
    pictures = []
    for number in range(N_PROBES):
        channels = []
        for channel in range(3):
            first = 64 * number + 16 * channel
            grids = [_noise(x // cell, y // cell, first + scale) for scale, cell in enumerate(CELLS)]
            values = np.sum(grids, axis=0) // len(CELLS)
            if number % 2:
                values = np.where(masks[number // 2], values, (64 * channel + 32 * number) % 256)
            channels.append(values.astype(np.uint8))
        pictures.append(Image.fromarray(np.stack(channels, axis=-1)))
    return pictures


def _noise(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """A number from 0 to 255 for each cell: the hash SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    state = ((x << 32) + (y << 16)).astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (state ^ (state >> np.uint64(31))) & np.uint64(255)


def space_of(encoder: Any) -> TargetSpace:
    """The space of an encoder, an [`ImageEncoder`] or a [`TargetEncoder`], by its vectors of the probe images."""
    vectors = encoder.encode(probe_images())
    return TargetSpace(probes=vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
