"""One subject's way through a model, as plain modules: to compile, to export, to adapt."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .corpus_inputs import CorpusInputs, resampling
from .modeling_parallel import mean_features


class Window(nn.Module):
    """Crop and average samples as configured."""

    def __init__(self, first_sample: int, decimation: int) -> None:
        super().__init__()
        self.first_sample, self.decimation = first_sample, decimation

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map `(batch_size, n_chans, n_times)` to `(batch_size, n_chans, n_network_times)`."""
        values = values[:, :, self.first_sample :]
        return functional.avg_pool1d(values, self.decimation) if self.decimation > 1 else values


class CommonWindow(nn.Module):
    """Bring recordings of one corpus to the window and the rate that several have in common."""

    matrix: torch.Tensor

    def __init__(self, given: CorpusInputs, common: CorpusInputs) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.from_numpy(resampling(given, common)).float(), persistent=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map `(batch_size, n_chans, given.n_times)` to `(batch_size, n_chans, common.n_times)`."""
        return values @ self.matrix.to(values.dtype)


class SubjectEncoder(nn.Module):
    """An encoder for one subject: no `subject_ids`, and nothing in `forward` that depends on values.

    Args:
        shape (`tuple[int, ...]`): Of one recording.
        window (`nn.Module`): What comes before the alignment layer.
        alignment (`nn.Module`): That subject's layer; multiplied with spatial filters where the network starts so.
        network (`nn.Module`): The shared network behind it.
    """

    def __init__(self, shape: tuple[int, ...], window: nn.Module, alignment: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.shape = shape
        self.window, self.alignment, self.network = window, alignment, network

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map `(batch_size, *shape)` to `(batch_size, output_size)`.

        Raises:
            ValueError: If a recording has another shape.
        """
        if tuple(values.shape[1:]) != self.shape:
            raise ValueError(
                f"Recordings must have shape (batch_size, {', '.join(map(str, self.shape))}), "
                f"but got {tuple(values.shape)}."
            )
        return self.network(self.alignment(self.window(values.to(next(self.parameters()).dtype))))


def blend(network: torch.Tensor, closed_form: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    """Join what a network and a closed form make of recordings.

    Args:
        network, closed_form (`torch.FloatTensor` of shape `(batch_size, projection_dim)`): Of any length.
        parts (`torch.FloatTensor` of shape `(batch_size, 2)` or `(1, 2)`): What each counts.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, projection_dim)`: Not normalised. Where the closed form counts
        nothing, what the network makes is left as it is.
    """
    units = functional.normalize(network, dim=-1), functional.normalize(closed_form, dim=-1)
    return torch.where(parts[:, 1:] == 0, network, parts[:, :1] * units[0] + parts[:, 1:] * units[1])


class SubjectClosedForm(nn.Module):
    """The closed form of one subject, blended with what the network makes of the same recordings.

    Args:
        window (`nn.Module`): Which samples are read.
        bias (`torch.Tensor` of shape `(projection_dim,)`): Added to the map; copied, as all others are.
        parts (`torch.Tensor` of shape `(2,)`): What network and closed form count.
        weight (`torch.Tensor` of shape `(projection_dim, n_features)`, *optional*): The map, where there is one.
        mixing (`torch.Tensor` of shape `(n_chans, n_chans)`, *optional*): What channels pass through first.
    """

    bias: torch.Tensor
    parts: torch.Tensor
    weight: torch.Tensor | None
    mixing: torch.Tensor | None

    def __init__(
        self, window: nn.Module, bias: torch.Tensor, parts: torch.Tensor, weight: torch.Tensor | None = None,
        mixing: torch.Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.window = window
        copied = {"weight": weight, "bias": bias, "parts": parts, "mixing": mixing}
        for name, tensor in copied.items():
            parameter = None if tensor is None else nn.Parameter(tensor.detach().clone(), requires_grad=False)
            self.register_parameter(name, parameter)

    def forward(self, network: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Map `(batch_size, projection_dim)` and the recordings behind it to embeddings of the same shape."""
        mapped = self.bias[None]
        if self.weight is not None:
            values = self.window(values.to(self.weight.dtype))
            values = values if self.mixing is None else self.mixing @ values
            mapped = functional.linear(values.flatten(1), self.weight, self.bias)
        return blend(network, mapped, self.parts[None])


class SubjectModel(nn.Module):
    """A model for one subject and one modality: what `get_eeg_features` and its like give for this subject.

    Args:
        encoder ([`SubjectEncoder`]): That subject's.
        projection (`nn.Module`): Into the space shared with images.
        closed_form ([`SubjectClosedForm`], *optional*): What is blended with the network.
    """

    def __init__(
        self, encoder: SubjectEncoder, projection: nn.Module, closed_form: SubjectClosedForm | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.projection, self.closed_form = encoder, projection, closed_form

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map recordings `(batch_size, ...)` to `(batch_size, projection_dim)`, not normalised."""
        features: Any = self.projection(self.encoder(values))
        network = mean_features(features if features.ndim == 3 else features[None])
        return network if self.closed_form is None else self.closed_form(network, values)
