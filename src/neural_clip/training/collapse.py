"""Whether a network says the same of every recording."""

from __future__ import annotations

import numpy as np

from neural_clip.preparation import SCALED_SPREAD
from neural_clip.prepared.reader import Split, padded
from neural_clip.retrieval.scores import nearest_rows

NEAR_CHANCE = 0.05  # from a 2-way accuracy of one half
BY_CHANCE = 1e-3  # probability of one nearest image for all, were they drawn at random
N_ROWS = 256  # recordings looked at for their spread


def collapse_of(embeds: np.ndarray, part: Split, two_way: float) -> str | None:
    """What is wrong where one image is nearest to all recordings and the score is that of guessing, else nothing.

    Args:
        embeds (`np.ndarray` of shape `(n, projection_dim)`): What the network makes of the recordings.
        part ([`Split`]): The recordings.
        two_way (`float`): Their 2-way accuracy.
    """
    n_images = len(part.gallery_ids)
    by_chance = float(n_images) ** (1 - len(embeds))  # of one nearest image for all
    if abs(two_way - 0.5) > NEAR_CHANCE or by_chance > BY_CHANCE:
        return None
    nearest = np.unique(nearest_rows(embeds, part.gallery_embeds))
    if len(nearest) > 1:
        return None
    return (
        f"the embeddings of {part.data.key} have collapsed: of {n_images} validation images "
        f"'{part.gallery_ids[nearest[0]]}' is the nearest one to each of {len(embeds)} recordings, and 2-way accuracy "
        f"is {two_way:.3f}, that of guessing. {spread_of(part)}"
    )


def spread_of(part: Split) -> str:
    """How far the values of a split spread, and what that means for a network."""
    values = padded(part.values(np.arange(min(len(part), N_ROWS)))).astype(np.float64)
    spread, facts = float(values.std()), part.facts
    unit = f" {facts.unit}" if facts.unit else ""
    found = (
        f"The values of '{part.data.name}' have a standard deviation of {spread:.2g}{unit} "
        f"(scaling: {facts.scaling.get('method', 'none')})"
    )
    if SCALED_SPREAD[0] <= spread <= SCALED_SPREAD[1]:
        return (
            f"{found}, which networks train on: the learning rate may be too high, or nothing links values to images."
        )
    return f"{found}, but networks need about 1: prepare the data set again with a scaling."
