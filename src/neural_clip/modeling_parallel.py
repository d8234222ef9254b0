"""Networks side by side, and what an encoder returns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.utils import ModelOutput


@dataclass
class EncoderOutput(ModelOutput):
    """What an encoder returns.

    Args:
        pooler_output (`torch.FloatTensor` of shape `(batch_size, output_size)`): One vector a recording, before the
            projection into the shared space.
        hidden_states (`tuple[torch.FloatTensor]`): With `output_hidden_states`, what the alignment layers give
            (multiplied with the spatial filters of `"temporal_spatial"`), then `pooler_output`.
        attentions (`None`): Encoders have no attention.
    """

    pooler_output: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def encoder_output(
    aligned: torch.Tensor, features: torch.Tensor, output_hidden_states: bool | None, config: Any
) -> EncoderOutput:
    """What an encoder returns, with its hidden states where the call, or else the configuration, asks for them."""
    wanted = config.output_hidden_states if output_hidden_states is None else output_hidden_states
    return EncoderOutput(pooler_output=features, hidden_states=(aligned, features) if wanted else None)


class SideBySide(nn.Module):
    """A network's input and its output, side by side: what a residual connection is before a linear projection."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map `(batch_size, n_in)` to `(batch_size, n_in + n_out)`."""
        return torch.cat([values, self.network(values)], dim=1)


class ParallelNetworks(nn.ModuleList):
    """Networks of one kind from different random starts, each behind its own part of the alignment layer.

    Each has a projection and a loss of its own; the embedding of a recording is the mean of theirs, which is nearer
    to the image than each of them is. Source: deep ensembles (Lakshminarayanan et al. 2017, arXiv:1612.01474,
    section 2.4). Deviation: all see the same batches at the same time.

    Args:
        make (`Callable[[], nn.Module]`): Makes one network, which has an `output_size`.
        count (`int`): How many.
    """

    def __init__(self, make: Callable[[], nn.Module], count: int) -> None:
        networks: list[Any] = [make() for _ in range(count)]
        super().__init__(networks)
        self.output_size = sum(network.output_size for network in networks)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map aligned values `(batch_size, count * n, ...)` to `(batch_size, output_size)`, outputs side by side."""
        parts = values.chunk(len(self), dim=1)
        return torch.cat([network(part) for network, part in zip(self, parts, strict=True)], dim=1)


class ParallelProjections(nn.ModuleList):
    """One linear projection for each of several networks whose outputs lie side by side.

    Args:
        in_features (`int`): Width of all outputs together.
        out_features (`int`): Width of the shared space.
        count (`int`): Networks.
    """

    def __init__(self, in_features: int, out_features: int, count: int) -> None:
        super().__init__([nn.Linear(in_features // count, out_features) for _ in range(count)])

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map `(batch_size, in_features)` to `(count, batch_size, out_features)`."""
        parts = values.chunk(len(self), dim=1)
        return torch.stack([layer(part) for layer, part in zip(self, parts, strict=True)])


def parallel_networks(make: Callable[[], nn.Module], count: int) -> nn.Module:
    """One network as it is, or several in parallel."""
    return make() if count == 1 else ParallelNetworks(make, count)


def mean_features(features: torch.Tensor) -> torch.Tensor:
    """Vectors of several networks `(num_networks, batch_size, projection_dim)` as one `(batch_size, projection_dim)`.

    The mean of unit vectors, so that no network counts for more because its vectors are longer; those of one network
    stay as they are.
    """
    return features[0] if len(features) == 1 else functional.normalize(features, dim=-1).mean(dim=0)
