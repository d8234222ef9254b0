"""Alignment layers: one map a subject, and the average subject's."""

import copy
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import torch
from torch import nn
from torch.nn import functional

from .configuration_neural_clip import AVERAGE_NAME, AVERAGE_SUBJECT, SensorConfig
from .corpus_inputs import CorpusInputs, corpus_of, resampling, rows_of_channels
from .errors import check_option


def check_subject_ids(
    subject_ids: torch.Tensor | None, batch_size: int, subjects: list[str], least: int = AVERAGE_SUBJECT
) -> torch.Tensor:
    """Return `subject_ids` if each row names one of `subjects` or the average subject, else raise a `ValueError`."""
    if subject_ids is None:
        raise ValueError(f"'subject_ids' is missing; give one index a recording into {subjects}.")
    dtype = getattr(subject_ids, "dtype", type(subject_ids))
    if not isinstance(subject_ids, torch.Tensor) or dtype == torch.bool or dtype.is_floating_point or dtype.is_complex:
        raise ValueError(f"'subject_ids' must be a tensor of whole numbers (torch.long), but got {dtype}.")
    if subject_ids.shape != (batch_size,):
        raise ValueError(f"'subject_ids' must have shape ({batch_size},), but got {tuple(subject_ids.shape)}.")
    found = sorted(set(subject_ids.tolist()))
    if found and (found[0] < least or found[-1] >= len(subjects)):
        average = f" or be {AVERAGE_SUBJECT} (the average subject)" if least == AVERAGE_SUBJECT else ""
        raise ValueError(
            f"'subject_ids' must lie between 0 and {len(subjects) - 1} (subjects {subjects}){average}, but got "
            f"{found}."
        )
    return subject_ids


def common_values(values: torch.Tensor, subject_ids: torch.Tensor, config: Any, name: str) -> torch.Tensor:
    """Recordings of people of several corpora in the window and at the rate that these have in common.

    Args:
        values (`torch.FloatTensor` of shape `(batch_size, max_n_chans, max_n_times)`): Where a recording has fewer
            channels or samples than others, zeros follow.
        subject_ids (`torch.LongTensor` of shape `(batch_size,)`): Whose they are.
        config ([`SensorConfig`]): With `corpora`; without them recordings stay as they are.
        name (`str`): Of the recordings, for messages.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, max_n_chans, config.n_times)`: Zeros follow the channels.
    """
    if config.corpora is None:
        return values
    inputs = [CorpusInputs.of(settings) for settings in config.corpora.values()]
    numbers = {corpus: number for number, corpus in enumerate(config.corpora)}
    corpus_ids = [numbers[corpus_of(config.subjects[subject])] for subject in subject_ids.tolist()]

    def of_corpus(number: int, rows: torch.Tensor) -> torch.Tensor:
        given, own = inputs[number], values[rows]
        whole = own.shape[1] >= given.n_chans and own.shape[2] >= given.n_times
        if not whole or bool(own[:, given.n_chans :].any() or own[:, :, given.n_times :].any()):
            raise ValueError(
                f"'{name}' of corpus {list(numbers)[number]!r} must hold {given.n_chans} sensors and {given.n_times} "
                f"samples (then zeros), but got recordings of shape {tuple(own.shape[1:])}."
            )
        matrix = torch.from_numpy(resampling(given, config.inputs)).to(values)
        return own[:, :, : given.n_times] @ matrix

    return apply_by_subject(of_corpus, torch.tensor(corpus_ids, dtype=torch.long, device=subject_ids.device))


def subject_index(name: str, subjects: list[str], average: bool) -> int:
    """Entry of `subject_ids` for a name, else a `ValueError`; `average` says whether there is an average subject."""
    if average and name == AVERAGE_NAME:
        return AVERAGE_SUBJECT
    check_option("name", name, [*subjects, AVERAGE_NAME] if average else subjects)
    return subjects.index(name)


def drop_subjects(subject_ids: torch.Tensor, probability: float) -> torch.Tensor:
    """Give each recording to the average subject with a probability; none are drawn where it is 0."""
    if probability == 0:
        return subject_ids
    dropped = torch.rand(subject_ids.shape, device=subject_ids.device) < probability
    return subject_ids.masked_fill(dropped, AVERAGE_SUBJECT)


def rows_by_subject(subject_ids: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """List `(subject, row indices)` for the subjects present: layers are applied once a subject, not once a row."""
    rows: dict[int, list[int]] = {}
    for row, subject in enumerate(subject_ids.tolist()):  # on the host: one transfer a batch
        rows.setdefault(subject, []).append(row)
    rows = rows or {0: []}  # a batch of no recordings has a width too
    return [
        (subject, torch.tensor(rows[subject], dtype=torch.long, device=subject_ids.device)) for subject in sorted(rows)
    ]


def apply_by_subject(layer_of: Callable[[int, torch.Tensor], torch.Tensor], subject_ids: torch.Tensor) -> torch.Tensor:
    """Compute `layer_of(subject, rows)` for each subject present and return the results in the order of the batch."""
    groups = rows_by_subject(subject_ids)
    if len(subject_ids) == 0:
        with torch.no_grad():  # no layer learns from a batch without recordings
            return layer_of(*groups[0])
    order = torch.cat([rows for _, rows in groups])
    return torch.cat([layer_of(subject, rows) for subject, rows in groups])[order.argsort()]


class SubjectLayers(nn.ModuleDict):
    """One layer a subject, in the order of `subject_ids`, by a name that may be any string.

    A tensor is saved under the name of its subject. Where torch cannot take that as part of a tensor's name (it holds
    a dot, is empty, or is what a module has already, such as `keys`), it is quoted: `sub.01` is saved as `%sub%2E01`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._key_of: dict[str, str] = {}

    def __setitem__(self, name: str, layer: nn.Module) -> None:
        if name not in self._key_of:
            key = (
                name
                if is_plain(name, self)
                else "%" + quote(name, safe="", errors="surrogatepass").replace(".", "%2E")
            )
            while key in self._modules:  # a subject whose name is the quoted name of another
                key += "%"
            self._key_of[name] = key
        super().__setitem__(self._key_of[name], layer)

    def __getitem__(self, name: str) -> Any:
        return self._modules[self._key_of[name]]

    def __contains__(self, name: object) -> bool:
        return name in self._key_of


def is_plain(name: str, layers: SubjectLayers) -> bool:
    """Whether torch takes the name of a subject as part of the name of a tensor, and a file can hold it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name != "" and "." not in name and not hasattr(layers, name)


def mean_parameters(layers: SubjectLayers) -> dict[str, torch.Tensor]:
    """Mean weight and bias of layers of one shape."""
    named = [dict(layer.named_parameters()) for layer in layers.values()]
    if not named:
        raise ValueError("The model has no subject yet, so there is no average subject either.")
    return {name: torch.stack([parameters[name] for parameters in named]).mean(dim=0) for name in named[0]}


def parameters_of(layers: SubjectLayers, subject: int) -> dict[str, torch.Tensor]:
    """Weight and bias of the layer of one subject, or the mean of all for the average subject."""
    if subject == AVERAGE_SUBJECT:
        return mean_parameters(layers)
    return dict(list(layers.values())[subject].named_parameters())


def average_layer(layers: SubjectLayers) -> Any:
    """A new layer that is the mean of layers of one shape: where a new subject starts."""
    layer = copy.deepcopy(next(iter(layers.values())))
    layer.load_state_dict(mean_parameters(layers))
    return layer


def with_weights(layer: Any, weight: torch.Tensor, bias: torch.Tensor) -> Any:
    """Give a layer copies of weights, on their device and in their dtype."""
    layer.weight, layer.bias = (nn.Parameter(tensor.detach().clone()) for tensor in (weight, bias))
    return layer


class AlignmentConv(nn.Conv1d):
    """One subject's convolution over time, with a copy of the sensors for each of several networks."""

    is_identity = False

    def __init__(self, config: SensorConfig, given: CorpusInputs | None = None) -> None:
        size, n_chans = config.alignment_kernel_size, config.n_chans
        n_given = n_chans if given is None else given.n_chans
        super().__init__(n_given, config.num_networks * n_chans, size, padding=size // 2)
        self.rows = None if given is None else rows_of_channels(given, config.inputs)
        self.n_networks = config.num_networks
        self.is_identity = config.alignment_init == "identity"
        if self.is_identity:
            self.become_identity()

    def reset_parameters(self) -> None:
        """Start as torch's convolution does, or as a copy of the input."""
        super().reset_parameters()
        if self.is_identity:
            self.become_identity()

    def become_identity(self) -> None:
        """Start as a copy of the input; of a corpus among others, each channel at its place in the network."""
        nn.init.zeros_(self.get_parameter("bias"))
        if self.rows is None:
            nn.init.dirac_(self.weight, groups=self.out_channels // self.in_channels)
            return
        with torch.no_grad():
            placed = [(row, channel) for channel, row in enumerate(self.rows) if row >= 0]
            self.weight.zero_()
            for part in self.weight.chunk(self.n_networks):
                for row, channel in placed:
                    part[row, channel, self.kernel_size[0] // 2] = 1.0


class SubjectConv(nn.Module):
    """The alignment layer a of each subject: a convolution over time that mixes that subject's sensors.

    Source: arXiv 2411.09723, section 2 (one layer per subject); kernel of 11 samples for MEG in the authors' code.
    Deviation: here the layers are registered, trained and saved.
    """

    def __init__(self, config: SensorConfig) -> None:
        super().__init__()
        self.padding = config.alignment_kernel_size // 2
        self.layers = SubjectLayers()
        for name in config.subjects:
            self.layers[name] = AlignmentConv(config, None if config.corpora is None else config.inputs_of(name))

    def add_subject(self, name: str) -> None:
        """Append a layer that is the mean of the others."""
        self.layers[name] = average_layer(self.layers)

    def forward(
        self, values: torch.Tensor, subject_ids: torch.Tensor, filters: Sequence[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Mix sensors, each row by its own subject's layer.

        Args:
            values (`torch.FloatTensor` of shape `(batch_size, n_chans, n_times)`): Recordings; what follows a
                subject's own channels is left out.
            subject_ids (`torch.LongTensor` of shape `(batch_size,)`): Whose they are.
            filters (sequence of `torch.FloatTensor` of shape `(n_filters, n_chans)`, *optional*): Spatial filters
                of each network, applied to its part of the aligned sensors. Filters and layer are multiplied with one
                another before they meet the recordings: the same values, less work (`benchmarks/spatial_filters.py`).

        Returns:
            `torch.FloatTensor` of shape `(batch_size, num_networks * n_chans, n_times)`, or `(batch_size,
            num_networks * n_filters, n_times)` with filters.
        """
        layers = list(self.layers.values())

        def layer_of(subject: int, rows: torch.Tensor) -> torch.Tensor:
            if filters is None and subject != AVERAGE_SUBJECT:
                return layers[subject](values[rows, : layers[subject].in_channels])
            weight, bias = self.weights_of(subject, filters)  # fused, so no layer is called as a module
            return functional.conv1d(values[rows, : weight.shape[1]], weight, bias, padding=self.padding)

        return apply_by_subject(layer_of, subject_ids)

    def weights_of(
        self, subject: int, filters: Sequence[torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of one subject's convolution, multiplied with the spatial filters where there are any."""
        weight, bias = parameters_of(self.layers, subject).values()
        if filters is None:
            return weight, bias
        parts = zip(filters, weight.chunk(len(filters)), bias.chunk(len(filters)), strict=True)
        mixed = [(torch.tensordot(own, part, dims=1), own @ offset) for own, part, offset in parts]
        return torch.cat([part for part, _ in mixed]), torch.cat([offset for _, offset in mixed])

    @torch.no_grad()
    def folded(self, subject: int, filters: Sequence[torch.Tensor] | None = None) -> nn.Conv1d:
        """One convolution with weights of its own that does what this layer does for one subject."""
        weight, bias = self.weights_of(subject, filters)
        return with_weights(
            nn.Conv1d(weight.shape[1], weight.shape[0], weight.shape[2], padding=self.padding, device="meta"),
            weight,
            bias,
        )


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
        self.layers = SubjectLayers()
        for name, size in in_features.items():
            self.layers[name] = nn.Linear(size, out_features)

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
        flat, layers = values.flatten(1), list(self.layers.values())

        def layer_of(subject: int, rows: torch.Tensor) -> torch.Tensor:
            own = flat[rows, : self.in_features[subject]]
            if subject == AVERAGE_SUBJECT:  # fused, so no layer is called as a module
                return functional.linear(own, **mean_parameters(self.layers))
            return layers[subject](own)

        return apply_by_subject(layer_of, subject_ids)

    @torch.no_grad()
    def folded(self, subject: int) -> nn.Linear:
        """One linear layer with weights of its own that does what this one does for one subject."""
        weight, bias = parameters_of(self.layers, subject).values()
        return with_weights(nn.Linear(weight.shape[1], weight.shape[0], device="meta"), weight, bias)
