"""The three splits, and the choice of a validation split."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from neural_clip.errors import DataError, check_value

SPLITS = ("train", "validation", "test")


def check_fraction(parameter: str, value: float) -> None:
    """Raise a `DataError` unless a share leaves something on both sides."""
    check_value(parameter, value, 0 < value < 1, "a number between 0 and 1")


def validation_split(image_ids: Iterable[str], fraction: float, seed: int) -> set[str]:
    """Choose images for validation; repeats and other subjects' rows of an image follow it.

    Args:
        image_ids (`Iterable[str]`): Image of each row, in any order, repeats allowed.
        fraction (`float`): Share of the unique images, above 0 and below 1.
        seed (`int`): Seed of the choice, which depends on nothing else but the set of images.

    Returns:
        `set[str]`: At least one image, and at least one is left.

    Raises:
        DataError: If `fraction` is out of range or there are fewer than two images.
    """
    check_fraction("fraction", fraction)
    unique = sorted(set(image_ids))
    if len(unique) < 2:
        raise DataError(f"A validation split needs at least 2 unique images, but got {len(unique)}.")
    count = min(max(round(fraction * len(unique)), 1), len(unique) - 1)
    chosen = np.random.default_rng(seed).permutation(len(unique))[:count]
    return {unique[i] for i in chosen}
