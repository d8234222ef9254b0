"""What `studies/compare_choices.py` compares: objectives, augmentations, alignment layers and spatial attention.

What is not an option of the package is defined here, because it did not earn its place there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from neural_clip.losses import clip_loss, positive_mask, regression_loss
from neural_clip.modeling_subject_layers import rows_by_subject
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.training.trainer import NeuralClipTrainer, validation_scores

SENSORS = tuple(name for name, modality in MODALITIES.items() if modality.sensors)
EVERYWHERE = tuple(MODALITIES)


# Objectives: of L2-normalised embeddings (batch_size, projection_dim), image ids (batch_size,) and the log scale.


def targets_of(image_ids: torch.Tensor) -> torch.Tensor:
    """Uniform over the recordings of the same image, `(batch_size, batch_size)`; rows sum to 1."""
    positives = positive_mask(image_ids, len(image_ids), image_ids.device).float()
    return positives / positives.sum(dim=1, keepdim=True)


def both_ways(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in both directions, their mean in nats; row i of `targets` is what recording i answers to."""
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets.T)) / 2


def soft_targets(output: Any, image_ids: torch.Tensor, scale: torch.Tensor, weight: float) -> torch.Tensor:
    """InfoNCE whose targets are in part the softmax of image-image similarity at temperature 0.1.

    Source: the idea is that of Gao et al. 2024 (SoftCLIP, arXiv:2303.17561); weight and temperature are ours.
    """
    alike = torch.softmax(output.image_embeds @ output.image_embeds.T / 0.1, dim=1)
    targets = (1 - weight) * targets_of(image_ids) + weight * alike
    logits = scale.exp() * output.neural_embeds @ output.image_embeds.T
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2


def sigmoid_loss(output: Any, image_ids: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """SigLIP: each pair is a yes-or-no question, with bias -10 (Zhai et al. 2023, arXiv:2303.15343, algorithm 1)."""
    logits = scale.exp() * output.neural_embeds @ output.image_embeds.T - 10
    signs = 2 * positive_mask(image_ids, len(image_ids), image_ids.device).float() - 1
    return -functional.logsigmoid(signs * logits).sum() / len(logits)


def with_regression(output: Any, image_ids: torch.Tensor, scale: torch.Tensor, weight: float) -> torch.Tensor:
    """InfoNCE plus a multiple of the squared distance."""
    contrast = clip_loss(output.neural_embeds, output.image_embeds, scale, image_ids)
    return contrast + weight * regression_loss(output.neural_embeds, output.image_embeds)


# Augmentations of a training batch.


def noisy(values: torch.Tensor) -> torch.Tensor:
    """Gaussian noise of half the standard deviation of the batch; the padding of voxels stays zero."""
    return values + 0.5 * values.std() * torch.randn_like(values) * (values != 0)


def without_channels(values: torch.Tensor) -> torch.Tensor:
    """A tenth of the sensors or voxels of each recording set to zero."""
    keep = torch.rand(values.shape[:2], device=values.device) >= 0.1
    return values * keep.reshape(*keep.shape, *[1] * (values.ndim - 2))


def partners(subject_ids: torch.Tensor) -> torch.Tensor:
    """For each recording another one of the same person at random, `(batch_size,)`; alone it is its own."""
    order = torch.arange(len(subject_ids), device=subject_ids.device)
    for _, rows in rows_by_subject(subject_ids):
        order[rows] = rows[torch.randperm(len(rows), device=rows.device)]
    return order


# Networks.


class SpatialAttention(nn.Module):
    """Spatial filters behind sums of sensors with weights that depend on where they are: one map for each sum.

    The weights are the softmax over sensors of a learned function of their place, a Fourier series in two dimensions.
    Source: Defossez et al. 2023, doi:10.1038/s42256-023-00714-5, section "Spatial attention" (K = 32 frequencies a
    side); without its dropout of a region.
    """

    def __init__(self, places: torch.Tensor, filters: nn.Conv1d, n_frequencies: int = 32) -> None:
        super().__init__()
        self.filters = filters
        flat = azimuthal(places)
        flat = (flat - flat.min(0).values) / (flat.max(0).values - flat.min(0).values)  # 0 to 1
        steps = 2 * math.pi * torch.arange(n_frequencies)
        angles = (flat[:, :1, None] * steps[:, None] + flat[:, 1:, None] * steps[None, :]).flatten(1)
        self.series: torch.Tensor
        self.register_buffer("series", torch.cat([angles.cos(), angles.sin()], dim=1))  # (n_chans, 2 K^2)
        self.maps = nn.Parameter(torch.randn(len(places), self.series.shape[1]) / n_frequencies)

    @property
    def weight(self) -> torch.Tensor:
        """Filters of sensors that sums and filters of sums make together, `(n_filters, n_chans, 1)`."""
        return torch.tensordot(self.filters.weight[:, :, 0], torch.softmax(self.maps @ self.series.T, dim=1), 1)[
            ..., None
        ]


def azimuthal(places: torch.Tensor) -> torch.Tensor:
    """Places `(n, 3)` m on a plane `(n, 2)`: distance from the vertex along the sphere, angle kept."""
    centred = places - places.mean(0)
    around = torch.atan2(centred[:, 1], centred[:, 0])
    down = torch.acos((centred[:, 2] / centred.norm(dim=1)).clamp(-1, 1))
    return torch.stack([down * around.cos(), down * around.sin()], dim=1)


def attend(model: Any, modality: str) -> None:
    """Put spatial attention, with as many sums as there are sensors, in front of the spatial filters."""
    encoder = model.encoders[modality]
    encoder.network.spatial = SpatialAttention(torch.tensor(encoder.config.ch_positions), encoder.network.spatial)


@dataclass(frozen=True)
class Choice:
    """One change of the recipe.

    Args:
        about (`str`): What it is, for the page.
        modalities (`tuple[str, ...]`): Where it can be made.
        settings (`dict`): Overrides of the recipe's model section; `MODALITY` stands for the encoder's.
        loss, augment, change, mixes, alignment_decay: Objective, augmentation, change of a model that is made, whether
            recordings are mixed (BiMixCo), weight decay of the alignment layers.
    """

    about: str
    modalities: tuple[str, ...] = EVERYWHERE
    settings: dict[str, Any] = field(default_factory=dict)
    loss: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    augment: Callable[[torch.Tensor], torch.Tensor] | None = None
    change: Callable[[Any, str], None] | None = None
    mixes: bool = False
    alignment_decay: float | None = None


CHOICES = {
    "demo": Choice("the reference: symmetric InfoNCE, repeats as positives, learned temperature"),
    "one direction": Choice("recordings to images only", settings={"contrastive_direction": "neural_to_image"}),
    "temperature 0.1": Choice(
        "fixed, not learned", settings={"logit_scale_init_value": math.log(10), "learn_logit_scale": False}
    ),
    "soft targets": Choice(
        "a fifth of the target from image-image similarity",
        loss=partial(soft_targets, weight=0.2),
    ),
    "SigLIP": Choice(
        "pairwise sigmoid, scale starts at 10", settings={"logit_scale_init_value": math.log(10)}, loss=sigmoid_loss
    ),
    "squared distance": Choice("instead of the contrastive loss", settings={"objective": "mse"}),
    "InfoNCE + squared distance": Choice("the sum", loss=partial(with_regression, weight=1.0)),
    "BiMixCo": Choice("recordings of a subject mixed, Beta(0.15, 0.15)", mixes=True),
    "noise": Choice("Gaussian, half a standard deviation", augment=noisy),
    "channels dropped": Choice("a tenth of sensors or voxels", augment=without_channels),
    "shift by 10 samples": Choice("in time, either way: 10 ms", ("eeg",), {"MODALITY": {"time_shift": 0.01}}),
    "shift by 25 samples": Choice("25 ms", ("eeg",), {"MODALITY": {"time_shift": 0.025}}),
    "shift by a sample": Choice("in time, either way: 8 ms", ("meg",), {"MODALITY": {"time_shift": 0.008}}),
    "shift by 3 samples": Choice("25 ms", ("meg",), {"MODALITY": {"time_shift": 0.025}}),
    "four networks": Choice("in parallel; the embedding is their mean", settings={"MODALITY": {"num_networks": 4}}),
    "alignment decay 0": Choice("no weight decay of the alignment layers (0.1)", alignment_decay=0.0),
    "alignment decay 1": Choice("ten times the weight decay of the alignment layers", alignment_decay=1.0),
    "frozen alignment": Choice("alignment layers stay as they start", settings={"freeze_alignment": True}),
    "random start": Choice(
        "alignment layers start at random (identity)", SENSORS, {"MODALITY": {"alignment_init": "random"}}
    ),
    "subject dropout": Choice(
        "a tenth of recordings through the average layer", SENSORS, {"MODALITY": {"subject_dropout": 0.1}}
    ),
    "no linear path": Choice(
        "projection sees the hidden layer alone, not its input beside it",
        ("fmri",),
        {"MODALITY": {"linear_path": False}},
    ),
    "no hidden layer": Choice("a linear model", ("fmri",), {"MODALITY": {"num_hidden_layers": 0}}),
    "two hidden layers": Choice("one behind the other", ("fmri",), {"MODALITY": {"num_hidden_layers": 2}}),
    "hidden layer of 1,024": Choice("four times as wide", ("fmri",), {"MODALITY": {"hidden_size": 1024}}),
    "spatial attention": Choice("over sensor positions, before the spatial filters", ("meg",), change=attend),
}


class ChoiceTrainer(NeuralClipTrainer):
    """The package's trainer with one choice, and with top-1 beside 2-way in validation."""

    def __init__(self, choice: Choice, model: Any, **kwargs: Any) -> None:
        self.choice, self.own_model = choice, model
        super().__init__(model=model, **kwargs)

    def compute_loss(self, model: nn.Module, inputs: dict, *arguments: Any, **kwargs: Any) -> Any:
        """The loss of the choice."""
        (key,) = (name for name in inputs if name.endswith("_values"))
        ids, subjects = inputs["image_ids"], inputs["subject_ids"]
        if self.choice.augment is not None:
            inputs = inputs | {key: self.choice.augment(inputs[key])}
        if self.choice.mixes:
            share = torch.distributions.Beta(0.15, 0.15).sample((len(ids),)).to(ids.device)
            other = partners(subjects)
            own = share.reshape(-1, *[1] * (inputs[key].ndim - 1))
            inputs = inputs | {key: own * inputs[key] + (1 - own) * inputs[key][other]}
        output = model(**inputs)
        scale = self.own_model.logit_scale
        if self.choice.mixes:
            targets = targets_of(ids)
            targets = share[:, None] * targets + (1 - share[:, None]) * targets[other]
            return both_ways(output.logits_per_neural, targets)
        return output.loss if self.choice.loss is None else self.choice.loss(output, ids, scale)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Give the alignment layers a weight decay of their own."""
        optimizer = super().create_optimizer(model)
        if self.choice.alignment_decay is not None:
            named = self.own_model.named_parameters()
            alignment = {id(weight) for name, weight in named if ".alignment." in name}
            for group in list(optimizer.param_groups):
                own = [weight for weight in group["params"] if id(weight) in alignment]
                group["params"] = [weight for weight in group["params"] if id(weight) not in alignment]
                if own and group["weight_decay"]:
                    optimizer.add_param_group(group | {"params": own, "weight_decay": self.choice.alignment_decay})
                else:
                    group["params"] += own
        return optimizer

    def evaluate(self, *arguments: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """2-way and top-1 of the validation split."""
        model = self.own_model
        model.eval()
        (part,) = self.validation
        found = validation_scores(model, part)
        model.train()
        metrics = {f"{metric_key_prefix}_{key}": float(found[key]) for key in ("two_way", "top1")}
        self.log(metrics)
        return metrics
