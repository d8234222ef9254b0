"""Where the fMRI layer of a new subject starts: a closed form from that subject's recordings and the frozen model.

Voxels of two subjects do not correspond, so no layer can be borrowed; what the shared network makes of aligned
vectors can. Ridge regression goes from the new subject's voxels to the aligned vectors from which the network comes
near the embeddings of the images that were seen. It needs no recordings of the subjects whom the model knows.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.ridge import MAX_SIZE, RELATIVE_ALPHAS, CholeskyRidge, Rows, one_thread
from neural_clip.evaluation.baselines.whitening import mean_of, row_blocks
from neural_clip.modeling_neural_clip import NeuralClipModel, mean_features
from neural_clip.prepared.reader import Split
from neural_clip.retrieval.tiles import unit_vectors
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.trainer import validation_two_way

N_DRAWS = 2000  # patterns of noise for each known subject
DRAWN_ALPHA = 1e-3  # relative ridge strength between outputs and aligned vectors, of which there are plenty


@torch.no_grad()
def wanted_vectors(model: NeuralClipModel, known: Sequence[str], image_embeds: np.ndarray, seed: int) -> np.ndarray:
    """Aligned vectors from which the frozen network comes near image embeddings, as far as a linear map can tell.

    White noise, a stand-in for z-scored voxels, passes through the layers of known subjects and the network; ridge
    regression from the outputs, at unit length, back to the aligned vectors is the inverse that is applied to the
    embeddings.

    Args:
        model ([`NeuralClipModel`]): In `eval()` mode.
        known (sequence of `str`): Subjects whose layers are drawn through.
        image_embeds (`np.ndarray` of shape `(n, projection_dim)`): Of any length.
        seed (`int`): Of the noise.

    Returns:
        `np.ndarray` of shape `(n, num_networks * alignment_size)`.
    """
    encoder: Any = model.encoders["fmri"]
    generator = torch.Generator().manual_seed(seed)
    layers = [encoder.alignment.layers[name] for name in known]
    aligned = torch.cat([layer(torch.randn(N_DRAWS, layer.in_features, generator=generator)) for layer in layers])
    outputs = mean_features(model.project("fmri", encoder.network(aligned))).numpy()
    inputs, wanted = unit_vectors(outputs).astype(np.float64), aligned.numpy()
    mean = inputs.mean(axis=0)
    inputs -= mean
    penalty = DRAWN_ALPHA * (inputs**2).sum() / len(inputs)  # relative to the mean eigenvalue, as everywhere
    gram = inputs.T @ inputs + penalty * np.eye(inputs.shape[1])
    inverse = np.linalg.solve(gram, inputs.T @ (wanted - wanted.mean(axis=0)))
    return (unit_vectors(image_embeds) - mean) @ inverse + wanted.mean(axis=0)


def of_subject(recordings: RecordingDataset, subject: int) -> RecordingDataset:
    """Recordings of one subject, by the index of `subject_ids`; those given stay as they are."""
    own = copy.copy(recordings)
    own.keep(np.flatnonzero(recordings.subject_ids == subject))
    return own


@one_thread
def start_by_ridge(
    model: NeuralClipModel,
    name: str,
    known: Sequence[str],
    train: RecordingDataset,
    validation: RecordingDataset,
    seed: int,
) -> None:
    """Set the fMRI layer of a new subject by ridge regression, its strength chosen by validation 2-way accuracy.

    Recordings are read by blocks, and one matrix of float32 with as many rows as there are recordings, or voxels where
    these are fewer, is held beside them. Of more than [`MAX_SIZE`] recordings with more voxels, so many are fitted.

    Args:
        model ([`NeuralClipModel`]): In `eval()` mode; the layer of `name` is there already and is overwritten.
        name (`str`): Whose layer.
        known (sequence of `str`): Subjects whose layers have been trained.
        train, validation ([`RecordingDataset`]): That subject's and perhaps others'.
        seed (`int`): See [`wanted_vectors`].

    Raises:
        DataError: If that subject's validation recordings show one image.
    """
    subject = train.subjects.index(name)
    train, validation = of_subject(train, subject), of_subject(validation, subject)
    if len(validation.part.shown_ids) < 2:
        raise DataError(
            f"The validation recordings of {name!r} in '{validation.part.data.name}' show one image, but what the "
            "layer of a new subject starts from is chosen by telling two or more apart. Leave this subject out by "
            "'--subjects', or prepare more validation recordings."
        )
    rows, encoder = _rows_fitted(train.part), cast(Any, model.encoders["fmri"])
    wanted = wanted_vectors(model, known, train.labels(rows.tolist())["image_embeds"].numpy(), seed)
    mean = mean_of(train.part, rows)
    blocks = [rows[block] for block in row_blocks(train.part, rows)]
    ridge = CholeskyRidge(Rows(lambda which: train.values(which.tolist()).numpy() - mean, blocks), wanted)
    layer, strengths, scores = encoder.alignment.layers[name], RELATIVE_ALPHAS[::-1], list[float]()
    for alpha in strengths:
        try:
            weights = ridge.weights(alpha)
        except DataError:
            if not scores:
                raise
            break  # too weak for float32, as all that follow
        set_layer(layer, weights, wanted.mean(axis=0) - mean @ weights)
        scores.append(validation_two_way(model, validation))
    weights = ridge.weights(strengths[int(np.argmax(scores))])  # the stronger ridge wins a tie
    set_layer(layer, weights, wanted.mean(axis=0) - mean @ weights)


def _rows_fitted(part: Split) -> np.ndarray:
    """All rows, or as many as a matrix may have, spread evenly, where voxels are more than that too."""
    if len(part) <= MAX_SIZE or part.values([0])[0].size <= MAX_SIZE:
        return np.arange(len(part))
    return np.linspace(0, len(part) - 1, MAX_SIZE).astype(int)


@torch.no_grad()
def set_layer(layer: nn.Linear, weights: np.ndarray, intercept: np.ndarray) -> None:
    """Copy weights `(n_in, n_out)` and intercept `(n_out,)` into a linear layer."""
    layer.weight.copy_(torch.from_numpy(weights.T))
    layer.bias.copy_(torch.from_numpy(intercept))
