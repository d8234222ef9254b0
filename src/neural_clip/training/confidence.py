"""A temperature that makes cosines probabilities, fitted on recordings that the model has not learnt from.

It is fitted on what lies in `validation_predictions.safetensors`: predictions of validation recordings from before the
closed form was fitted on these too, or of training recordings that cross-validation held out. The gallery holds each
image of these recordings once. One temperature is fitted for all subjects of a modality together, because validation
images are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from neural_clip.evaluation.validation_predictions import ValidationPredictions
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.retrieval.calibration import DIGITS, cross_entropy_at, fit_temperature
from neural_clip.retrieval.tiles import unit_vectors

# With fewer, one image more or less that is found moves the share of right ones by more than ten points.
MIN_IMAGES = 10
MAX_COSINES = 2**23  # 64 MB; recordings beyond are left out evenly, a single number does not need them


def fit_confidence(predictions: ValidationPredictions, image_embeds: np.ndarray) -> dict[str, Any]:
    """Fit the temperature of a modality.

    Args:
        predictions ([`ValidationPredictions`]): Of recordings that the model had not learnt from.
        image_embeds (`np.ndarray` of shape `(n_images, projection_dim)`): Of all images of their data set.

    Returns:
        `dict`: For the record: `temperature`; `n_recordings`, `n_images`, `subjects` and `split` that it was fitted
        on; `cross_entropy` in nats: by chance (`guessing`), at temperature 1 (`before`) and at the fitted one
        (`after`). Or `left_out` with the reason.
    """
    shown, recordings = np.unique(predictions.image_rows, return_inverse=True)
    gallery, numbers = np.unique(image_embeds[shown], axis=0, return_inverse=True)
    fitted_on = {"n_images": len(gallery), "subjects": list(predictions.subjects), "split": predictions.split}
    if len(gallery) < MIN_IMAGES:
        why = f"{len(gallery)} images are too few to fit a temperature on; {MIN_IMAGES} are needed."
        return {"left_out": why, **fitted_on}
    true = numbers.ravel()[recordings.ravel()]
    n_rows = min(max(MAX_COSINES // len(gallery), MIN_IMAGES), len(true))
    rows = np.linspace(0, len(true) - 1, n_rows).round().astype(np.int64)
    cosines = np.round(unit_vectors(predictions.embeds[rows]) @ unit_vectors(gallery).T, DIGITS)
    temperature = fit_temperature(cosines, true[rows])
    entropies = {
        name: cross_entropy_at(cosines, true[rows], t) for name, t in (("before", 1.0), ("after", temperature))
    }
    return {
        "temperature": temperature, "n_recordings": n_rows, **fitted_on,
        "cross_entropy": {"guessing": float(np.log(len(gallery))), **entropies},
    }  # fmt: skip


def keep_temperature(model: NeuralClipModel, modality: str, found: dict[str, Any], names: Sequence[str]) -> None:
    """Write a temperature that was found into the configuration of a model, for these subjects (or the average)."""
    if "temperature" in found:
        config = getattr(model.config, f"{modality}_config")
        config.confidence_temperature = {
            **(config.confidence_temperature or {}), **dict.fromkeys(names, found["temperature"])
        }  # fmt: skip
