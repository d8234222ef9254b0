"""The fMRI encoder: f = g∘a, one linear alignment layer a per subject and a network g shared by all."""

import copy
from typing import Any

import torch
from torch import nn
from transformers.utils.generic import can_return_tuple

from .configuration_neural_clip import AVERAGE_SUBJECT, FmriConfig
from .modeling_parallel import EncoderOutput, SideBySide, encoder_output, parallel_networks
from .modeling_pretrained import WholeModel
from .modeling_subject_branch import SubjectEncoder
from .modeling_subject_layers import SubjectLinear, check_subject_ids, rows_by_subject, subject_index


class MultilayerPerceptron(nn.Sequential):
    """The network g: hidden layers behind a dropout, with `linear_path` beside their own input."""

    def __init__(self, config: FmriConfig) -> None:
        layers: list[nn.Module] = []
        width = config.alignment_size
        for _ in range(config.num_hidden_layers):
            layers += [nn.Linear(width, config.hidden_size), nn.ReLU(), nn.Dropout(config.dropout)]
            width = config.hidden_size
        if config.linear_path and layers:
            layers = [SideBySide(nn.Sequential(*layers))]
            width += config.alignment_size
        super().__init__(nn.Dropout(config.dropout), *layers)
        self.output_size = width


class FmriEncoder(WholeModel):
    """fMRI response patterns to one vector each.

    Args:
        config ([`FmriConfig`]): Subjects, their voxel counts and the network.
    """

    config_class = FmriConfig
    _auto_class: Any = "AutoModel"  # so that the code travels with what is saved
    base_model_prefix = "encoders.fmri"  # where this branch stands in a joint checkpoint
    main_input_name = "fmri_values"

    def __init__(self, config: FmriConfig) -> None:
        super().__init__(config)
        self.input_dropout = nn.Dropout(config.input_dropout)
        sizes = config.n_voxels or {}
        width = config.num_networks * config.alignment_size  # a part for each network
        self.alignment = SubjectLinear({name: sizes[name] for name in config.subjects}, width)
        self.network: Any = parallel_networks(lambda: MultilayerPerceptron(config), config.num_networks)
        self.output_size = self.network.output_size
        self.post_init()

    def check_voxels(self, values: torch.Tensor, subject_ids: torch.Tensor) -> None:
        """Raise a `ValueError` when a row has no subject, is shorter than its region or holds values beyond it."""
        if values.ndim != 2:
            raise ValueError(f"'fmri_values' must have shape (batch_size, n_voxels), but got {tuple(values.shape)}.")
        for subject, rows in rows_by_subject(subject_ids):
            if subject == AVERAGE_SUBJECT:
                raise ValueError(
                    "'subject_ids' holds -1, but there is no average subject for fMRI: voxels of two subjects do not "
                    f"correspond. Give one index a recording into {self.config.subjects}."
                )
            name = self.config.subjects[subject]
            n_voxels = self.config.n_voxels[name]
            if values.shape[1] < n_voxels or bool(values[rows, n_voxels:].any()):
                raise ValueError(
                    f"'fmri_values' of subject {name!r} must hold {n_voxels} voxels (then zeros), "
                    f"but got rows of {values.shape[1]} values."
                )

    def align(self, values: torch.Tensor, subject_ids: torch.Tensor | None) -> torch.Tensor:
        """What the networks see of a batch, `(batch_size, num_networks * alignment_size)`."""
        subject_ids = check_subject_ids(subject_ids, len(values), self.config.subjects)
        self.check_voxels(values, subject_ids)
        return self.alignment(self.input_dropout(values.to(self.dtype)), subject_ids)

    def for_subject(self, name: str) -> SubjectEncoder:
        """This encoder for one of `config.subjects`, as a plain module with weights of its own, in `eval()` mode."""
        subject = subject_index(name, self.config.subjects, average=False)
        parts = copy.deepcopy([self.input_dropout, self.network])
        shape = (self.config.n_voxels[name],)
        return SubjectEncoder(shape, parts[0], self.alignment.folded(subject), parts[1]).eval()

    @can_return_tuple
    def forward(
        self,
        fmri_values: torch.Tensor,
        subject_ids: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> EncoderOutput:
        """Encode a batch.

        Args:
            fmri_values (`torch.FloatTensor` of shape `(batch_size, max_n_voxels)`): z-scored responses; rows of
                subjects with fewer voxels end in zeros.
            subject_ids (`torch.LongTensor` of shape `(batch_size,)`): Index of each recording's subject in
                `config.subjects`; subjects may be mixed.
            output_hidden_states (`bool`, *optional*): Whether `hidden_states` is returned.
            output_attentions (`bool`, *optional*): Taken as every model takes it; there is no attention to return.

        Returns:
            [`EncoderOutput`]

        Raises:
            ValueError: If a shape or a subject is not the configuration's.
        """
        aligned = self.align(fmri_values, subject_ids)
        return encoder_output(aligned, self.network(aligned), output_hidden_states, self.config)


__all__ = ["FmriEncoder"]
