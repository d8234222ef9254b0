"""Maps of recordings to image embeddings, and how much they count: the closed form as a checkpoint has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from neural_clip.closed_form_settings import ClosedFormSettings
from neural_clip.corpus_inputs import corpus_of
from neural_clip.evaluation.baselines.closed_form import decimation_of, scores_of
from neural_clip.evaluation.baselines.closed_form_fit import Fit
from neural_clip.evaluation.baselines.whitening import row_blocks, stacked
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import Split
from neural_clip.retrieval.tiles import unit_vectors
from neural_clip.training.batches import RecordingDataset

HALF_CHANGES_NOTHING = 1e-4  # 2-way, top-1 and nats of cross-entropy, up to which half of the bits change nothing


@dataclass(frozen=True)
class Blend:
    """How much network and closed form count.

    Args:
        weight (`float`): w, of the network: 1 leaves the closed form out.
        network_spread, closed_form_spread (`float`): Root mean square of the cosines to the validation images, each
            row less its mean.
    """

    weight: float
    network_spread: float
    closed_form_spread: float

    @property
    def parts(self) -> tuple[float, float]:
        """Factors of the two unit vectors."""
        return self.weight / self.network_spread, (1 - self.weight) / self.closed_form_spread

    def __call__(self, network: np.ndarray, closed_form: np.ndarray) -> np.ndarray:
        """Blend two embeddings of the same rows, `(n_rows, projection_dim)` of any length."""
        first, second = self.parts
        return first * unit_vectors(network) + second * unit_vectors(closed_form)


NETWORK_ALONE = Blend(1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Maps:
    """A fit as maps of recordings, scaled so that the largest weight is 1: only directions of predictions count.

    Args:
        fit ([`Fit`]): What they come from.
        weights, offsets (`dict[str, np.ndarray]`): `(n_features, width)` and `(width,)` by subject; pooled subjects
            share the former.
        mixing (`dict[str, np.ndarray]`): Spatial whitening by subject, `(n_chans, n_chans)`, before the weights;
            empty where there is none.
    """

    fit: Fit
    weights: dict[str, np.ndarray]
    offsets: dict[str, np.ndarray]
    mixing: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, fit: Fit, relative_alpha: float, transform: np.ndarray) -> Maps:
        """Fold scaling, whitening over time, ridge and what undoes the targets' covariance into one map a subject."""
        weights: dict[str, np.ndarray] = {}
        offsets: dict[str, np.ndarray] = {}
        for name in fit.inputs:
            folded, offset = fit.folded(name, relative_alpha, transform)
            largest = max(float(np.abs(folded).max()), np.finfo(np.float32).tiny)
            if fit.way.pooled and weights:
                weights[name] = next(iter(weights.values()))
            else:
                weights[name] = np.asarray(folded / largest, dtype=np.float32)
            offsets[name] = np.asarray(offset / largest, dtype=np.float32)
        fit.forget()
        mixing = {name: found.spatial for name, found in fit.inputs.items() if hasattr(found, "spatial")}
        return cls(fit, weights, offsets, mixing)

    def apart(self) -> Maps:
        """The same with weights of each subject's own, on recordings as they are."""

        def own(name: str, weights: np.ndarray) -> np.ndarray:
            if name not in self.mixing:
                return weights.copy()
            by_chan = weights.reshape(len(self.mixing[name]), -1, weights.shape[1])  # (n_chans, n_times, width)
            return np.einsum("ck,cto->kto", self.mixing[name], by_chan).reshape(weights.shape)

        return replace(self, weights={name: own(name, each) for name, each in self.weights.items()}, mixing={})

    @property
    def corpus(self) -> str:
        """Of its subjects, in a model of several."""
        return corpus_of(next(iter(self.offsets)))

    @property
    def n_numbers(self) -> int:
        """Weights that are stored."""
        return sum(each.size for each in {id(weights): weights for weights in self.weights.values()}.values())

    def megabytes(self, dtype: str) -> float:
        """What these take in a file."""
        return round(self.n_numbers * np.dtype(dtype).itemsize / 1e6, 3)

    def predictions(self, split: Split, *dtypes: str) -> np.ndarray:
        """What the maps make of recordings, read once, with weights in each type: `(n_dtypes, n_rows, width)`."""
        found = np.empty((len(dtypes), len(split), next(iter(self.offsets.values())).size))
        for name in sorted(set(split.subjects.tolist())):
            rows = split.rows_of(name)
            weights = [self.weights[name].astype(dtype).astype(np.float32) for dtype in dtypes]
            for block in row_blocks(split, rows):
                recordings = stacked(split, rows[block])
                recordings = self.mixing[name] @ recordings if name in self.mixing else recordings
                recordings = recordings.reshape(len(recordings), -1)
                for place, each in zip(found, weights, strict=True):
                    place[rows[block]] = recordings @ each + self.offsets[name]
        return found

    def smallest_dtype(self, split: Split, blend: Blend, network: np.ndarray) -> str:
        """`"float16"` where the scores of a split stay as they are, otherwise `"float32"`."""
        full, half = (scores_of(blend(network, made), split) for made in self.predictions(split, "float32", "float16"))
        return "float16" if all(abs(full[name] - half[name]) <= HALF_CHANGES_NOTHING for name in full) else "float32"


CarryOver = Callable[[Maps, Split], Maps]  # maps of known people, as a new person has them


def settings_of(train: RecordingDataset, **changes: Any) -> ClosedFormSettings:
    """Settings of a closed form that reads what `decimated` leaves of recordings from onset."""
    facts = train.part.facts
    first = facts.samples_before_onset if MODALITIES[facts.modality].sensors else 0
    return ClosedFormSettings(**{"first_sample": first, "decimation": decimation_of(facts), **changes})


@torch.no_grad()
def fill(model: NeuralClipModel, train: RecordingDataset, maps: Maps, blend: Blend, dtype: str) -> None:
    """Put maps of all subjects into a model."""
    pooled, subjects = maps.fit.way.pooled, list(train.subjects)
    settings = settings_of(train, own=[] if pooled else subjects, shared=pooled, mixed=bool(maps.mixing), dtype=dtype)
    model.set_closed_form(train.modality, settings.as_dict())
    closed: Any = model.closed_forms[train.modality]
    _copy(maps, blend, closed.layers, closed if pooled else None, dtype)


@torch.no_grad()
def fill_corpora(model: NeuralClipModel, made: Sequence[tuple[RecordingDataset, Maps, Blend]], dtype: str) -> None:
    """Put maps of the subjects of several corpora into a model.

    Subjects who are pooled have a map of their corpus together. Where some corpus is whitened, the channels of others
    that are pooled are mixed by the identity.
    """
    train, corpora = made[0][0], [maps.corpus for _, maps, _ in made if maps.fit.way.pooled]
    own = [name for _, maps, _ in made if not maps.fit.way.pooled for name in maps.offsets]
    mixed = any(maps.mixing for _, maps, _ in made)
    settings = settings_of(train, own=own, mixed=mixed, dtype=dtype, corpora=corpora)
    model.set_closed_form(train.modality, settings.as_dict())
    closed: Any = model.closed_forms[train.modality]
    for _, maps, blend in made:
        _copy(maps, blend, closed.layers, closed.shared[maps.corpus] if maps.fit.way.pooled else None, dtype)


def _copy(maps: Maps, blend: Blend, layers: Any, shared: Any, dtype: str) -> None:
    """Copy maps into the layers of their subjects, or into the one that these share."""
    for name, offset in maps.offsets.items():
        layer = layers[name]
        copy_map(layer if shared is None else shared, maps.weights[name], dtype)
        layer.bias.copy_(torch.from_numpy(offset))
        layer.parts.copy_(torch.tensor(blend.parts))
        if maps.mixing:
            layer.mixing.copy_(torch.from_numpy(maps.mixing[name]))


@torch.no_grad()
def fill_beside(model: NeuralClipModel, train: RecordingDataset, maps: Maps, blend: Blend, dtype: str) -> None:
    """Put maps of subjects' own ([`Maps.apart`]) beside those of others."""
    if train.modality not in model.closed_forms:
        model.set_closed_form(train.modality, settings_of(train, own=[], dtype=dtype).as_dict())
    closed: Any = model.closed_forms[train.modality]
    for name, weights in maps.weights.items():
        layer = closed.give_map(name, dtype)
        copy_map(layer, weights, dtype)
        layer.bias.copy_(torch.from_numpy(maps.offsets[name]))
        layer.parts.copy_(torch.tensor(blend.parts))


def copy_map(module: Any, weights: np.ndarray, dtype: str) -> None:
    """Copy `(n_features, width)` into a map, as it is kept on disk."""
    module.weight.copy_(torch.from_numpy(np.ascontiguousarray(weights.T).astype(dtype)))
