"""What the EEG and the MEG encoder share: subject alignment, a compact network, and those of braindecode."""

import copy
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from .configuration_neural_clip import AVERAGE_SUBJECT, SensorConfig
from .modeling_braindecode import BraindecodeNet
from .modeling_parallel import (
    EncoderOutput,
    ParallelNetworks,
    ParallelProjections,
    SideBySide,
    encoder_output,
    parallel_networks,
)
from .modeling_pretrained import WholeModel
from .modeling_subject_branch import CommonWindow, SubjectEncoder, Window
from .modeling_subject_layers import (
    SubjectConv,
    SubjectLinear,
    check_subject_ids,
    common_values,
    drop_subjects,
    subject_index,
)
from .modeling_temporal_spatial import LinearNet, TemporalFilter, TemporalSpatialNet


def shift_times(values: torch.Tensor, most: int) -> torch.Tensor:
    """Move each recording `(batch_size, n_chans, n_times)` by up to `most` samples either way, its ends repeated."""
    if most == 0:
        return values
    last = values.shape[2] - 1
    shifts = torch.randint(-most, most + 1, (len(values), 1), device=values.device)
    times = (torch.arange(last + 1, device=values.device) + shifts).clamp(0, last)  # (batch_size, n_times)
    return values.gather(2, times[:, None].expand_as(values))


class SensorPreTrainedModel(WholeModel):
    """Input checks common to [`EegEncoder`] and [`MegEncoder`]."""

    config_class = SensorConfig
    networks: ClassVar[dict[str, type[nn.Module]]]  # by `encoder_type`

    def __init__(self, config: SensorConfig) -> None:
        super().__init__(config)
        self.alignment: Any
        if config.encoder_type == "linear":
            sizes = {name: config.inputs_of(name).n_chans * config.n_network_times for name in config.subjects}
            self.alignment = SubjectLinear(sizes, config.num_networks * config.hidden_size)
        else:
            self.alignment = SubjectConv(config)
        network_class = self.networks[config.encoder_type]
        self.network: Any = parallel_networks(lambda: network_class(config), config.num_networks)
        self.output_size = self.network.output_size
        self.post_init()

    def window(self, values: torch.Tensor, subject_ids: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Check a batch and shift, crop and average samples as configured; what the alignment layers are given."""
        several, expected = self.config.corpora is not None, (self.config.n_chans, self.config.n_times)
        if values.ndim != 3 or (tuple(values.shape[1:]) != expected and not several):
            shape = "n_chans, n_times" if several else f"{expected[0]}, {expected[1]}"
            raise ValueError(
                f"'{self.main_input_name}' must have shape (batch_size, {shape}) "
                f"(sensors, samples), but got {tuple(values.shape)}."
            )
        least = 0 if several else AVERAGE_SUBJECT
        subject_ids = check_subject_ids(subject_ids, len(values), self.config.subjects, least)
        values = common_values(values.to(self.dtype), subject_ids, self.config, self.main_input_name)
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

    def encode(
        self, values: torch.Tensor, subject_ids: torch.Tensor | None, output_hidden_states: bool | None
    ) -> EncoderOutput:
        """Alignment layers and networks; where these start with spatial filters, aligned values are not computed."""
        filters = self.spatial_filters()
        if filters is None:
            aligned = self.align(values, subject_ids)
            features = self.network(aligned)
        else:
            aligned = self.alignment(*self.window(values, subject_ids), filters)
            parts = zip(self.each_network(), aligned.chunk(len(filters), dim=1), strict=True)
            features = torch.cat([network.pool(part) for network, part in parts], dim=1)
        return encoder_output(aligned, features, output_hidden_states, self.config)

    def each_network(self) -> list[Any]:
        """The networks that lie in parallel, or the only one."""
        return list(self.network) if isinstance(self.network, ParallelNetworks) else [self.network]

    def spatial_filters(self) -> list[torch.Tensor] | None:
        """Filters of each network that the alignment layers are multiplied with, `None` where networks have none."""
        if self.config.encoder_type != "temporal_spatial":
            return None
        return [network.spatial.weight[:, :, 0] for network in self.each_network()]

    def for_subject(self, name: str) -> SubjectEncoder:
        """This encoder for one subject, as a plain module with weights of its own.

        Args:
            name (`str`): One of `config.subjects`, or `"average"` for the mean of all.

        Returns:
            [`SubjectEncoder`] in `eval()` mode. Neither `time_shift` nor `subject_dropout` is part of it.
        """
        subject = subject_index(name, self.config.subjects, average=self.config.corpora is None)
        config, alignment, network = self.config, self.alignment, copy.deepcopy(self.network)
        if isinstance(alignment, SubjectLinear):
            folded: nn.Module = nn.Sequential(nn.Flatten(1), alignment.folded(subject))
        else:
            folded = alignment.folded(subject, self.spatial_filters())
        if config.encoder_type == "temporal_spatial":  # the filters are part of the alignment layer now
            for part in network if isinstance(network, ParallelNetworks) else [network]:
                part.spatial = nn.Identity()
        window: nn.Module = Window(config.first_sample, config.decimation)
        given = config.inputs_of(name)
        if config.corpora is not None:
            window = nn.Sequential(CommonWindow(given, config.inputs), window)
        return SubjectEncoder((given.n_chans, given.n_times), window, folded, network).eval()


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
