"""One subject's way through a model, as plain modules: to compile, to export, to adapt."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

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


class SubjectModel(nn.Module):
    """A model for one subject and one modality: what `get_eeg_features` and its like give for this subject.

    Args:
        encoder ([`SubjectEncoder`]): That subject's.
        projection (`nn.Module`): Into the space shared with images.
    """

    def __init__(self, encoder: SubjectEncoder, projection: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projection = encoder, projection

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map recordings `(batch_size, ...)` to `(batch_size, projection_dim)`, not normalised."""
        features: Any = self.projection(self.encoder(values))
        return mean_features(features if features.ndim == 3 else features[None])
