"""What the EEG and the MEG encoder share: subject alignment, a compact network, and those of braindecode."""

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from .configuration_neural_clip import SensorConfig
from .modeling_braindecode import BraindecodeNet
from .modeling_parallel import EncoderOutput, ParallelNetworks, ParallelProjections, SideBySide, parallel_networks
from .modeling_subject_layers import SubjectConv, SubjectLinear, check_subject_ids, drop_subjects
from .modeling_temporal_spatial import LinearNet, TemporalFilter, TemporalSpatialNet


def shift_times(values: torch.Tensor, most: int) -> torch.Tensor:
    """Move each recording `(batch_size, n_chans, n_times)` by up to `most` samples either way, its ends repeated."""
    if most == 0:
        return values
    last = values.shape[2] - 1
    shifts = torch.randint(-most, most + 1, (len(values), 1), device=values.device)
    times = (torch.arange(last + 1, device=values.device) + shifts).clamp(0, last)  # (batch_size, n_times)
    return values.gather(2, times[:, None].expand_as(values))


class SensorPreTrainedModel(PreTrainedModel):
    """Input checks common to [`EegEncoder`] and [`MegEncoder`]."""

    config_class = SensorConfig
    base_model_prefix = "encoder"
    networks: ClassVar[dict[str, type[nn.Module]]]  # by `encoder_type`

    def __init__(self, config: SensorConfig) -> None:
        super().__init__(config)
        self.alignment: nn.Module
        if config.encoder_type == "linear":
            size = config.n_chans * config.n_network_times
            width = config.num_networks * config.hidden_size
            self.alignment = SubjectLinear(dict.fromkeys(config.subjects, size), width)
        else:
            self.alignment = SubjectConv(config)
        network_class = self.networks[config.encoder_type]
        self.network: Any = parallel_networks(lambda: network_class(config), config.num_networks)
        self.output_size = self.network.output_size
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keep what each layer was constructed with; transformers would redraw it."""

    def window(self, values: torch.Tensor, subject_ids: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Check a batch and shift, crop and average samples as configured; what the alignment layers are given."""
        expected = (self.config.n_chans, self.config.n_times)
        if values.ndim != 3 or tuple(values.shape[1:]) != expected:
            raise ValueError(
                f"'{self.main_input_name}' must have shape (batch_size, {expected[0]}, {expected[1]}) "
                f"(sensors, samples), but got {tuple(values.shape)}."
            )
        subject_ids = check_subject_ids(subject_ids, len(values), self.config.subjects)
        if self.training:
            values = shift_times(values, round(self.config.time_shift * self.config.sfreq))
            subject_ids = drop_subjects(subject_ids, self.config.subject_dropout)
        values = values[:, :, self.config.first_sample :]
        if self.config.decimation > 1:
            values = functional.avg_pool1d(values, self.config.decimation)  # (batch_size, n_chans, n_network_times)
        return values, subject_ids

    def align(self, values: torch.Tensor, subject_ids: torch.Tensor | None) -> torch.Tensor:
        """What the networks see of a batch.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, num_networks * n_chans, n_network_times)`; `(batch_size,
            num_networks * hidden_size)` where `encoder_type` is `"linear"`.
        """
        return self.alignment(*self.window(values, subject_ids))

    def encode(self, values: torch.Tensor, subject_ids: torch.Tensor | None) -> EncoderOutput:
        """Alignment layers and networks; where these start with spatial filters, aligned values are not computed."""
        if self.config.encoder_type != "temporal_spatial":
            return EncoderOutput(pooler_output=self.network(self.align(values, subject_ids)))
        networks: list[Any] = list(self.network) if isinstance(self.network, ParallelNetworks) else [self.network]
        filters = [network.spatial.weight[:, :, 0] for network in networks]
        filtered = self.alignment(*self.window(values, subject_ids), filters)
        parts = zip(networks, filtered.chunk(len(networks), dim=1), strict=True)
        return EncoderOutput(pooler_output=torch.cat([network.pool(part) for network, part in parts], dim=1))


# Code that was shipped with checkpoints imports all of these from here.
__all__ = [
    "BraindecodeNet",
    "EncoderOutput",
    "LinearNet",
    "ParallelNetworks",
    "ParallelProjections",
    "SensorPreTrainedModel",
    "SideBySide",
    "SubjectConv",
    "SubjectLinear",
    "TemporalFilter",
    "TemporalSpatialNet",
]
