"""The fMRI encoder: f = g∘a, one linear alignment layer a per subject and a network g shared by all."""

import torch
from torch import nn
from transformers import PreTrainedModel

from .configuration_neural_clip import FmriConfig
from .modeling_sensors import EncoderOutput, apply_by_subject, check_subject_ids, rows_by_subject


class SubjectLinear(nn.Module):
    """The alignment layer a of each subject: a linear map from that person's own voxels.

    Source: arXiv 2411.09723, section 2; 1024 outputs in the authors' code. Deviation: voxel counts differ between
    subjects instead of being padded to the largest, and the layers are registered, trained and saved.
    """

    def __init__(self, config: FmriConfig) -> None:
        super().__init__()
        self.subjects = list(config.subjects)
        sizes = config.n_voxels or {}
        self.layers = nn.ModuleDict({name: nn.Linear(sizes[name], config.alignment_size) for name in self.subjects})

    def forward(self, values: torch.Tensor, subject_ids: torch.Tensor) -> torch.Tensor:
        """Map `(batch_size, max_n_voxels)` to `(batch_size, alignment_size)`, each row by its subject's layer."""

        def layer_of(subject: int, rows: torch.Tensor) -> torch.Tensor:
            layer = self.layers[self.subjects[subject]]
            return layer(values[rows, : layer.in_features])

        return apply_by_subject(layer_of, subject_ids)


class FmriEncoder(PreTrainedModel):
    """fMRI response patterns to one vector each.

    Args:
        config ([`FmriConfig`]): Subjects, their voxel counts and the network.
    """

    config_class = FmriConfig
    base_model_prefix = "encoder"
    main_input_name = "fmri_values"

    def __init__(self, config: FmriConfig) -> None:
        super().__init__(config)
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.alignment = SubjectLinear(config)
        layers: list[nn.Module] = [nn.Dropout(config.dropout)]
        n_in = config.alignment_size
        for _ in range(config.num_hidden_layers):
            layers += [nn.Linear(n_in, config.hidden_size), nn.ReLU(), nn.Dropout(config.dropout)]
            n_in = config.hidden_size
        self.network = nn.Sequential(*layers)
        self.output_size = n_in
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keep what each layer was constructed with, torch's own, as in the authors' code."""

    def check_voxels(self, values: torch.Tensor, subject_ids: torch.Tensor) -> None:
        """Raise a `ValueError` when a row is shorter than its subject's region or holds values beyond it."""
        if values.ndim != 2:
            raise ValueError(f"'fmri_values' must have shape (batch_size, n_voxels), but got {tuple(values.shape)}.")
        for subject, rows in rows_by_subject(subject_ids):
            name = self.config.subjects[subject]
            n_voxels = self.config.n_voxels[name]
            if values.shape[1] < n_voxels or bool(values[rows, n_voxels:].any()):
                raise ValueError(
                    f"'fmri_values' of subject {name!r} must hold {n_voxels} voxels (then zeros), "
                    f"but got rows of {values.shape[1]} values."
                )

    def forward(self, fmri_values: torch.Tensor, subject_ids: torch.Tensor | None = None) -> EncoderOutput:
        """Encode a batch.

        Args:
            fmri_values (`torch.FloatTensor` of shape `(batch_size, max_n_voxels)`): z-scored responses; rows of
                subjects with fewer voxels end in zeros.
            subject_ids (`torch.LongTensor` of shape `(batch_size,)`): Index of each recording's subject in
                `config.subjects`; subjects may be mixed.

        Returns:
            [`EncoderOutput`]

        Raises:
            ValueError: If a shape or a subject is not the configuration's.
        """
        subject_ids = check_subject_ids(subject_ids, len(fmri_values), self.config.subjects)
        self.check_voxels(fmri_values, subject_ids)
        aligned = self.alignment(self.input_dropout(fmri_values), subject_ids)
        return EncoderOutput(pooler_output=self.network(aligned), aligned_values=aligned)


__all__ = ["FmriEncoder", "SubjectLinear"]
