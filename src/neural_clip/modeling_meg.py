"""The MEG encoder: f = g∘a, one alignment layer a per subject and a network g shared by all."""

from typing import Any, ClassVar

import torch
from torch import nn
from transformers.utils.generic import can_return_tuple

from .configuration_neural_clip import MegConfig
from .modeling_braindecode import BraindecodeNet
from .modeling_parallel import EncoderOutput
from .modeling_sensors import SensorPreTrainedModel
from .modeling_temporal_spatial import LinearNet, TemporalSpatialNet

# Kernels (samples), strides and widths (in units of hidden_size) of the six convolutions of the paper's code.
CNN_KERNELS = (11, 7, 5, 3, 3, 3)
CNN_STRIDES = (3, 2, 2, 2, 2, 2)
CNN_WIDTHS = (1, 1, 2, 2, 2, 2)


class TemporalCnn(nn.Module):
    """Six convolutions over time.

    Source: kernels, strides and widths of the authors' code (github.com/matteoferrante/neural_CLIP, commit c0c4ce6).
    Half a kernel of zeros at both ends, batch norm and ReLU are ours where that table is silent.
    """

    def __init__(self, config: MegConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        n_in, n_times = config.n_chans, config.n_network_times
        for kernel, stride, width in zip(CNN_KERNELS, CNN_STRIDES, CNN_WIDTHS, strict=True):
            n_out = width * config.hidden_size
            layers += [nn.Conv1d(n_in, n_out, kernel, stride, padding=kernel // 2, bias=False)]
            layers += [nn.BatchNorm1d(n_out), nn.ReLU()]
            n_in, n_times = n_out, -(-n_times // stride)
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        self.output_size = n_in * n_times

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map `(batch_size, n_chans, n_times)` to `(batch_size, output_size)`."""
        return self.dropout(self.layers(values).flatten(1))


class MegEncoder(SensorPreTrainedModel):
    """MEG recordings to one vector each.

    Args:
        config ([`MegConfig`]): Window, subjects and network.
    """

    config_class = MegConfig
    _auto_class: Any = "AutoModel"  # so that the code travels with what is saved
    base_model_prefix = "encoders.meg"  # where this branch stands in a joint checkpoint
    main_input_name = "meg_values"
    networks: ClassVar[dict[str, type[nn.Module]]] = {
        "braindecode": BraindecodeNet,
        "linear": LinearNet,
        "temporal_cnn": TemporalCnn,
        "temporal_spatial": TemporalSpatialNet,
    }

    @can_return_tuple
    def forward(
        self,
        meg_values: torch.Tensor,
        subject_ids: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> EncoderOutput:
        """Encode a batch.

        Args:
            meg_values (`torch.FloatTensor` of shape `(batch_size, n_chans, n_times)`): In the unit of the prepared
                data set the model was trained on.
            subject_ids (`torch.LongTensor` of shape `(batch_size,)`): Index of each recording's subject in
                `config.subjects`; subjects may be mixed. -1 is the average subject, the mean of all layers.
            output_hidden_states (`bool`, *optional*): Whether `hidden_states` is returned.
            output_attentions (`bool`, *optional*): Taken as every model takes it; there is no attention to return.

        Returns:
            [`EncoderOutput`]

        Raises:
            ValueError: If a shape or a subject is not the configuration's.
        """
        return self.encode(meg_values, subject_ids, output_hidden_states)


__all__ = ["MegEncoder", "TemporalCnn"]
