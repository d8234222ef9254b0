"""The compact network of EEG and MEG: temporal filters, spatial filters, window means; and a linear map."""

import torch
from torch import nn
from torch.nn import functional

from .configuration_neural_clip import SensorConfig
from .modeling_parallel import SideBySide

SHORT_KERNEL = 11  # samples up to which a direct convolution is quicker than one by Fourier transform


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
    quick on two CPU cores as torch's depthwise convolution (`benchmarks/temporal_filter.py`). Exported programs hold
    the convolution.
    """

    def __init__(self, n_chans: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_chans, kernel_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the filters as `nn.Conv1d` starts a depthwise layer."""
        bound = self.weight.shape[1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Filter `(batch_size, n_chans, n_times)`; an even kernel returns one sample more."""
        (n_chans, kernel_size), n_times = self.weight.shape, values.shape[2]
        if kernel_size <= SHORT_KERNEL or torch.compiler.is_exporting():  # programs elsewhere may lack the transform
            weight = self.weight.to(values.dtype)
            return functional.conv1d(values, weight[:, None], padding=kernel_size // 2, groups=n_chans)
        length = fast_length(n_times + kernel_size - 1)
        spectrum = torch.fft.rfft(values.float(), length) * torch.fft.rfft(self.weight.float().flip(1), length)
        start = (kernel_size - 1) - kernel_size // 2
        stop = start + n_times + (kernel_size % 2 == 0)
        return torch.fft.irfft(spectrum, length)[..., start:stop].to(values.dtype)


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
