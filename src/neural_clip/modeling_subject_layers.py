"""Alignment layers: one map a subject, and the average subject's."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from .configuration_neural_clip import AVERAGE_SUBJECT, SensorConfig


def check_subject_ids(subject_ids: torch.Tensor | None, batch_size: int, subjects: list[str]) -> torch.Tensor:
    """Return `subject_ids` if each row names one of `subjects` or the average subject, else raise a `ValueError`."""
    if subject_ids is None:
        raise ValueError(f"'subject_ids' is missing; give one index a recording into {subjects}.")
    if subject_ids.shape != (batch_size,):
        raise ValueError(f"'subject_ids' must have shape ({batch_size},), but got {tuple(subject_ids.shape)}.")
    if batch_size and (int(subject_ids.min()) < AVERAGE_SUBJECT or int(subject_ids.max()) >= len(subjects)):
        raise ValueError(
            f"'subject_ids' must lie between 0 and {len(subjects) - 1} (subjects {subjects}) or be {AVERAGE_SUBJECT} "
            f"(the average subject), but got {sorted(set(subject_ids.tolist()))}."
        )
    return subject_ids


def drop_subjects(subject_ids: torch.Tensor, probability: float) -> torch.Tensor:
    """Give each recording to the average subject with a probability; none are drawn where it is 0."""
    if probability == 0:
        return subject_ids
    dropped = torch.rand(subject_ids.shape, device=subject_ids.device) < probability
    return subject_ids.masked_fill(dropped, AVERAGE_SUBJECT)


def rows_by_subject(subject_ids: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """List `(subject, row indices)` for the subjects present: layers are applied once a subject, not once a row."""
    return [(int(subject), (subject_ids == subject).nonzero()[:, 0]) for subject in subject_ids.unique()]


def apply_by_subject(layer_of: Callable[[int, torch.Tensor], torch.Tensor], subject_ids: torch.Tensor) -> torch.Tensor:
    """Compute `layer_of(subject, rows)` for each subject present and return the results in the order of the batch."""
    groups = rows_by_subject(subject_ids)
    order = torch.cat([rows for _, rows in groups])
    return torch.cat([layer_of(subject, rows) for subject, rows in groups])[order.argsort()]


def mean_parameters(layers: nn.ModuleDict) -> dict[str, torch.Tensor]:
    """Mean weight and bias of layers of one shape."""
    named = [dict(layer.named_parameters()) for layer in layers.values()]
    return {name: torch.stack([parameters[name] for parameters in named]).mean(dim=0) for name in named[0]}


def parameters_of(layers: nn.ModuleDict, subject: int) -> dict[str, torch.Tensor]:
    """Weight and bias of the layer of one subject, or the mean of all for the average subject."""
    if subject == AVERAGE_SUBJECT:
        return mean_parameters(layers)
    return dict(list(layers.values())[subject].named_parameters())


def average_layer(layers: nn.ModuleDict) -> nn.Module:
    """A new layer that is the mean of layers of one shape: where a new subject starts."""
    layer = copy.deepcopy(next(iter(layers.values())))
    layer.load_state_dict(mean_parameters(layers))
    return layer


class SubjectConv(nn.Module):
    """The alignment layer a of each subject: a convolution over time that mixes that subject's sensors.

    Source: arXiv 2411.09723, section 2 (one layer per subject); kernel of 11 samples for MEG in the authors' code.
    Deviation: here the layers are registered, trained and saved.
    """

    def __init__(self, config: SensorConfig) -> None:
        super().__init__()
        size, count = config.alignment_kernel_size, config.num_networks
        self.padding = size // 2
        self.layers = nn.ModuleDict()  # in the order of `subject_ids`
        for name in config.subjects:
            layer = nn.Conv1d(config.n_chans, count * config.n_chans, size)  # a copy of the sensors for each network
            if config.alignment_init == "identity":
                nn.init.dirac_(layer.weight, groups=count)
                nn.init.zeros_(layer.get_parameter("bias"))
            self.layers[name] = layer

    def add_subject(self, name: str) -> None:
        """Append a layer that is the mean of the others."""
        self.layers[name] = average_layer(self.layers)

    def forward(
        self, values: torch.Tensor, subject_ids: torch.Tensor, filters: Sequence[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Mix sensors, each row by its own subject's layer.

        Args:
            values (`torch.FloatTensor` of shape `(batch_size, n_chans, n_times)`): Recordings.
            subject_ids (`torch.LongTensor` of shape `(batch_size,)`): Whose they are.
            filters (sequence of `torch.FloatTensor` of shape `(n_filters, n_chans)`, *optional*): Spatial filters
                of each network, applied to its part of the aligned sensors. Filters and layer are multiplied with one
                another before they meet the recordings: the same values, less work (`benchmarks/spatial_filters.py`).

        Returns:
            `torch.FloatTensor` of shape `(batch_size, num_networks * n_chans, n_times)`, or `(batch_size,
            num_networks * n_filters, n_times)` with filters.
        """

        def layer_of(subject: int, rows: torch.Tensor) -> torch.Tensor:
            weight, bias = parameters_of(self.layers, subject).values()
            if filters is not None:
                parts = zip(filters, weight.chunk(len(filters)), bias.chunk(len(filters)), strict=True)
                mixed = [(torch.tensordot(own, part, dims=1), own @ offset) for own, part, offset in parts]
                weight, bias = (torch.cat(tensors) for tensors in zip(*mixed, strict=True))
            return functional.conv1d(values[rows], weight, bias, padding=self.padding)

        return apply_by_subject(layer_of, subject_ids)


class SubjectLinear(nn.Module):
    """The alignment layer a of each subject where it is linear: a matrix of that subject's own.

    Source: arXiv 2411.09723, section 2 (fMRI); 1024 outputs in the authors' code. Deviation: sizes differ between
    subjects instead of being padded to the largest, and the layers are registered, trained and saved.

    Args:
        in_features (`dict[str, int]`): Values in a recording of each subject, in the order of `subject_ids`.
        out_features (`int`): Width of the output.
    """

    def __init__(self, in_features: dict[str, int], out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = list(in_features.values()), out_features
        self.layers = nn.ModuleDict({name: nn.Linear(size, out_features) for name, size in in_features.items()})

    def add_subject(self, name: str, in_features: int | None = None) -> None:
        """Append a layer: the mean of the others, or torch's own start where a size is given (fMRI)."""
        if in_features is None:
            self.layers[name] = average_layer(self.layers)
            self.in_features.append(self.in_features[0])
        else:
            self.layers[name] = nn.Linear(in_features, self.out_features)
            self.in_features.append(in_features)

    def forward(self, values: torch.Tensor, subject_ids: torch.Tensor) -> torch.Tensor:
        """Map `(batch_size, ...)` to `(batch_size, out_features)`; what follows a subject's own values is left out."""
        flat = values.flatten(1)

        def layer_of(subject: int, rows: torch.Tensor) -> torch.Tensor:
            return functional.linear(flat[rows, : self.in_features[subject]], **parameters_of(self.layers, subject))

        return apply_by_subject(layer_of, subject_ids)
