"""What the EEG and the MEG encoder share: subject alignment, a compact network, and those of braindecode."""

import copy
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_neural_clip import AVERAGE_SUBJECT, SensorConfig

SHORT_KERNEL = 11  # samples up to which a direct convolution is quicker than one by Fourier transform


@dataclass
class EncoderOutput(ModelOutput):
    """What an encoder returns.

    Args:
        pooler_output (`torch.FloatTensor` of shape `(batch_size, output_size)`): One vector a recording, before the
            projection into the shared space.
    """

    pooler_output: torch.Tensor | None = None


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


def shift_times(values: torch.Tensor, most: int) -> torch.Tensor:
    """Move each recording `(batch_size, n_chans, n_times)` by up to `most` samples either way, its ends repeated."""
    if most == 0:
        return values
    last = values.shape[2] - 1
    shifts = torch.randint(-most, most + 1, (len(values), 1), device=values.device)
    times = (torch.arange(last + 1, device=values.device) + shifts).clamp(0, last)  # (batch_size, n_times)
    return values.gather(2, times[:, None].expand_as(values))


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
    """A new layer that is the mean of layers of one shape: where somebody new starts."""
    layer = copy.deepcopy(next(iter(layers.values())))
    layer.load_state_dict(mean_parameters(layers))
    return layer


class SubjectConv(nn.Module):
    """The alignment layer a of each subject: a convolution over time that mixes that person's sensors.

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
    """The alignment layer a of each subject where it is linear: a matrix of that person's own.

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


class LinearNet(nn.Dropout):
    """No shared network: each subject's linear map goes straight into the projection.

    Source: Ciferri et al. 2026, arXiv 2606.19081 (subject-specific linear maps, trained contrastively), for fMRI.
    """

    def __init__(self, config: SensorConfig) -> None:
        super().__init__(config.dropout)
        self.output_size = config.hidden_size


def fast_length(length: int) -> int:
    """The least number from `length` on without prime factors above 7: of others Fourier transforms are slow."""
    while True:
        rest = length
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


def window_means(values: torch.Tensor, n_windows: int) -> torch.Tensor:
    """Mean of each window of time, `(batch_size, n, n_times)` to `(batch_size, n * n_windows)`.

    The windows are those of `torch.nn.functional.adaptive_avg_pool1d`, as one matrix product: several times quicker.
    """
    times = torch.eye(values.shape[-1], dtype=values.dtype, device=values.device)
    return (values @ functional.adaptive_avg_pool1d(times, n_windows)).flatten(1)


class TemporalFilter(nn.Module):
    """One filter over time per channel: `nn.Conv1d(n, n, kernel, padding=kernel // 2, groups=n, bias=False)`.

    Kernels above [`SHORT_KERNEL`] samples are computed by the fast Fourier transform: at 41 samples about twice as
    quick on two CPU cores as torch's depthwise convolution (`benchmarks/temporal_filter.py`).
    """

    def __init__(self, n_chans: int, kernel_size: int) -> None:
        super().__init__()
        bound = kernel_size**-0.5  # as `nn.Conv1d` starts a depthwise layer
        self.weight = nn.Parameter(torch.empty(n_chans, kernel_size).uniform_(-bound, bound))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Filter `(batch_size, n_chans, n_times)`; an even kernel returns one sample more."""
        (n_chans, kernel_size), n_times = self.weight.shape, values.shape[2]
        if kernel_size <= SHORT_KERNEL:
            weight = self.weight.to(values.dtype)
            return functional.conv1d(values, weight[:, None], padding=kernel_size // 2, groups=n_chans)
        length = fast_length(n_times + kernel_size - 1)
        spectrum = torch.fft.rfft(values.float(), length) * torch.fft.rfft(self.weight.float().flip(1), length)
        start = (kernel_size - 1) - kernel_size // 2
        stop = start + n_times + (kernel_size % 2 == 0)
        return torch.fft.irfft(spectrum, length)[..., start:stop].to(values.dtype)


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


class TemporalSpatialNet(nn.Module):
    """Learned spatial and temporal filters, pooled once as they are and once as log power.

    The linear branch keeps the sign of responses locked to onset; the power branch sees oscillations whose phase
    varies from trial to trial, which averaging or any linear map destroys.

    Source: the filter bank, squaring, pooling and logarithm are those of ShallowFBCSPNet (Schirrmeister et al. 2017,
    doi:10.1002/hbm.23730, section 2.4.3). Deviation: a linear branch beside the power branch, and the spatial
    filter comes first.
    """

    def __init__(self, config: SensorConfig) -> None:
        super().__init__()
        hidden, n_times = config.hidden_size, config.n_network_times
        self.spatial = nn.Conv1d(config.n_chans, hidden, 1, bias=False)
        self.temporal = TemporalFilter(hidden, min(config.temporal_kernel_size, n_times))
        self.n_windows, self.n_fine_windows = min(config.n_windows, n_times), min(config.n_fine_windows, n_times)
        self.norm = nn.BatchNorm1d(hidden)
        self.power_norm = nn.BatchNorm1d(hidden * self.n_windows)
        n_features = hidden * (2 * self.n_windows + self.n_fine_windows)
        layers: list[nn.Module] = [nn.Dropout(config.dropout)]
        if config.readout_size:
            readout = nn.Sequential(nn.Linear(n_features, config.readout_size), nn.GELU(), nn.Dropout(config.dropout))
            layers.append(SideBySide(readout))
        self.readout = nn.Sequential(*layers)
        self.output_size = n_features + config.readout_size

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map `(batch_size, n_chans, n_times)` to `(batch_size, output_size)`."""
        return self.pool(self.spatial(values))

    def pool(self, values: torch.Tensor) -> torch.Tensor:
        """Map what the spatial filters return, `(batch_size, hidden_size, n_times)`, as `forward` does."""
        filtered = self.norm(self.temporal(values))  # (batch_size, hidden_size, n_times)
        features = [window_means(filtered, self.n_windows)]
        power = window_means(filtered.square(), self.n_windows)
        # 1e-4 keeps the logarithm finite for a silent channel; power is near 1 after the batch norm.
        features.append(self.power_norm(torch.log(power + 1e-4)))
        if self.n_fine_windows:
            fine = window_means(filtered, self.n_fine_windows)
            # scaled so that all fine windows within a long one weigh as much as it does
            features.append(fine * (self.n_windows / self.n_fine_windows) ** 0.5)
        return self.readout(torch.cat(features, dim=1))


def braindecode_class(name: str) -> type[nn.Module]:
    """Find a network of braindecode by its name.

    Raises:
        ImportError: If braindecode is not installed, or cannot be loaded.
        ValueError: If it has no such network; the nearest name is suggested.
    """
    try:
        from braindecode import models
    except (ImportError, OSError) as error:  # OSError: a torchaudio that was built for another torch
        raise ImportError(
            f"The network {name!r} is one of braindecode, which cannot be loaded ({error}). Install it with "
            "`pip install 'neural_clip[braindecode]'`; its torchaudio must be built for the torch at hand."
        ) from error
    known = {
        key: item
        for key, item in vars(models).items()
        if isinstance(item, type) and issubclass(item, models.EEGModuleMixin) and item is not models.EEGModuleMixin
    }
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {nearest[0]!r}?" if nearest else f"Allowed values are {sorted(known)}."
        raise ValueError(f"Invalid value for the 'braindecode_model' parameter: {name!r}. {hint}")
    return known[name]


def channel_info(config: SensorConfig) -> list[dict] | None:
    """Names and places (m) of the sensors as `mne.Info["chs"]` holds them; `None` where the places are not known."""
    if config.ch_positions is None:
        return None
    try:
        import mne
    except ImportError as error:
        raise ImportError("Networks of braindecode need mne, which comes with it.") from error
    names = config.ch_names or [f"{index:03d}" for index in range(config.n_chans)]
    kind = "eeg" if config.model_type.endswith("eeg") else "mag"
    channels = mne.create_info(list(names), config.sfreq, kind)["chs"]
    for channel, place in zip(channels, config.ch_positions, strict=True):
        channel["loc"][:3] = place
    return channels


class BraindecodeNet(nn.Module):
    """A network of braindecode, whose classification head returns `hidden_size` features.

    Source: braindecode (Schirrmeister et al. 2017, doi:10.1002/hbm.23730), whose documentation names that of each
    network. Deviation: buffers that braindecode leaves out of a checkpoint are saved, because transformers does not
    compute them again when it loads one. None of them fetches anything but `REVE`, a table of places of electrodes.

    Raises:
        ImportError: If braindecode is not installed.
        ValueError: If it has no network of that name, or that network does not fit the recordings.
    """

    def __init__(self, config: SensorConfig) -> None:
        super().__init__()
        name = str(config.braindecode_model)
        network_class: Any = braindecode_class(name)
        shape: dict[str, Any] = {"n_chans": config.n_chans, "n_times": config.n_network_times}
        shape |= {"sfreq": config.sfreq / config.decimation}
        shape |= {"n_outputs": config.hidden_size, "chs_info": channel_info(config)}
        try:
            with torch.device("cpu"):  # not on the "meta" device: some networks compute while they are made
                self.network = network_class(**shape, **(config.braindecode_kwargs or {}))
                found = returned_shape(self.network, config)
        except Exception as error:  # each network refuses in its own way
            raise ValueError(
                f"braindecode's {name!r} cannot be made for {shape['n_chans']} sensors and {shape['n_times']} samples "
                f"at {shape['sfreq']} Hz with {config.braindecode_kwargs or {}}: {type(error).__name__}: {error}"
            ) from error
        if found != (2, config.hidden_size):
            raise ValueError(
                f"braindecode's {name!r} cannot be used: for 2 recordings it returns {found} instead of "
                f"(2, {config.hidden_size})."
            )
        for module in self.network.modules():
            module._non_persistent_buffers_set.clear()
        self.dropout = nn.Dropout(config.dropout)
        self.output_size = config.hidden_size

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map `(batch_size, n_chans, n_times)` to `(batch_size, output_size)`."""
        return self.dropout(self.network(values))


@torch.no_grad()
def returned_shape(network: nn.Module, config: SensorConfig) -> object:
    """Shape of what a network returns for two recordings, or the name of its type if that is no tensor."""
    output = network.eval()(torch.zeros(2, config.n_chans, config.n_network_times))
    network.train()
    return tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__


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
