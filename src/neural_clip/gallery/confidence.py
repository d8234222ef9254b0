"""How likely a hit is the right one: cosines as probabilities, by the temperature in the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from neural_clip.prepared.modalities import MODALITIES
from neural_clip.retrieval.calibration import log_totals, probabilities
from neural_clip.retrieval.tiles import Vectors

NOT_DECODED = "Confidence is calibrated for decoding alone: for recordings that look for images."
NOT_CSLS = "Confidence is calibrated for the order by cosine; 'csls' changes it."
NO_MODEL = "The model that embedded the recordings is not at hand, and it holds the temperature."
NO_LAYER = "The gallery does not say through whose alignment layer its recordings went; embed them anew."


@dataclass(frozen=True, eq=False)
class Temperatures:
    """What the cosines of each query are multiplied by.

    Args:
        values (`np.ndarray` of shape `(n_queries,)`): NaN where there is none.
        reasons (`list[str]`): Why there is none; empty where there is one.
    """

    values: np.ndarray
    reasons: list[str]

    @classmethod
    def none(cls, n_queries: int, reason: str) -> Temperatures:
        """For queries that have no confidence."""
        return cls(np.full(n_queries, np.nan), [reason] * n_queries)

    @classmethod
    def of(cls, config: Any, modalities: Sequence[str], layers: Sequence[str]) -> Temperatures:
        """Those of recordings.

        Args:
            config ([`NeuralClipConfig`]): Of the checkpoint that embedded them.
            modalities (sequence of `str`): Of each recording.
            layers (sequence of `str`): Whose alignment layer embedded each; `"average"` for the mean of all, empty
                where that is not recorded.
        """
        known = {name: temperatures_of(config, name) for name in set(modalities)}
        found = [known[name].get(layer) for name, layer in zip(modalities, layers, strict=True)]
        reasons = [
            "" if value is not None else why_none(name, layer)
            for value, name, layer in zip(found, modalities, layers, strict=True)
        ]
        return cls(np.array([np.nan if value is None else value for value in found], dtype=float), reasons)


def temperatures_of(config: Any, modality: str) -> Mapping[str, float]:
    """Temperatures of a modality by subject; none for a checkpoint that has none."""
    return getattr(getattr(config, f"{modality}_config", None), "confidence_temperature", None) or {}


def why_none(modality: str, layer: str) -> str:
    """Why recordings that a layer embedded have no confidence."""
    if not layer:
        return NO_LAYER
    return (
        f"The checkpoint has no temperature for the {MODALITIES[modality].title} of {layer!r}: an earlier version "
        "made it, or it was trained with too few validation images, or without recordings of this subject among them."
    )


@dataclass(frozen=True, eq=False)
class Confidences:
    """Probabilities of hits, computed when they are asked for: a search needs none of them.

    Args:
        queries (`np.ndarray` of shape `(n_queries, projection_dim)`): What is looked for.
        images ([`Vectors`]): What is searched.
        shares (`Callable`): Gives what each of them counts, so that equal rows are one image.
        temperatures ([`Temperatures`]): Of each query.
    """

    queries: np.ndarray
    images: Vectors
    shares: Callable[[], np.ndarray]
    temperatures: Temperatures

    def of(self, query: int, score: float) -> float | None:
        """Probability of an image by its cosine with a query; `None` where the query has no temperature."""
        temperature = self.temperatures.values[query]
        if np.isnan(temperature):
            return None
        return float(probabilities(score, temperature, self._totals[query]))

    def why_not(self, query: int) -> str:
        """Why the hits of a query have no probability; empty where they have."""
        return self.temperatures.reasons[query]

    @cached_property
    def _totals(self) -> np.ndarray:
        """Logarithm of the sum over all images, of queries that have a temperature."""
        found = np.full(len(self.queries), np.nan)
        rows = np.flatnonzero(~np.isnan(self.temperatures.values))
        asked = Vectors(self.queries[rows], "queries")
        found[rows] = log_totals(asked, self.images, self.temperatures.values[rows], self.shares())
        return found
