"""The EEG encoder: f = g∘a, one alignment layer a per subject and a network g shared by all."""

from typing import Any, ClassVar

import torch
from torch import nn
from transformers.utils.generic import can_return_tuple

from .configuration_neural_clip import EegConfig
from .modeling_braindecode import BraindecodeNet
from .modeling_parallel import EncoderOutput
from .modeling_sensors import SensorPreTrainedModel
from .modeling_temporal_spatial import LinearNet, TemporalSpatialNet

# Widths (in units of hidden_size) and strides of the six 3x3 convolutions of the paper's code.
CNN_WIDTHS = (1, 1, 2, 2, 2, 2)
CNN_STRIDES = (1, 1, 2, 1, 2, 2)


def stft_magnitude(values: torch.Tensor, nperseg: int) -> torch.Tensor:
    """Magnitude of the short-time Fourier transform of each sensor.

    Args:
        values (`torch.Tensor` of shape `(batch_size, n_chans, n_times)`): Time series.
        nperseg (`int`): Samples of the Hann window; windows overlap by half.

    Returns:
        `torch.Tensor` of shape `(batch_size, n_chans, nperseg // 2 + 1, n_frames)`: In the unit of `values`.

    Source: the defaults of `scipy.signal.stft` (periodic Hann window, half overlap, half a window of zeros at both
    ends, zeros up to a whole number of windows, division by the sum of the window), which the authors' code calls
    with `nperseg=40`; 128 x 440 samples become 128 x 21 x 23.
    """
    batch_size, n_chans, n_times = values.shape
    hop = nperseg - nperseg // 2
    boundary = nperseg // 2
    remainder = (n_times + 2 * boundary - nperseg) % hop
    padding = (boundary, boundary + (hop - remainder if remainder else 0))
    padded = nn.functional.pad(values.reshape(batch_size * n_chans, n_times), padding)
    # Half precision has no Fourier transform on most processors.
    padded = padded.float() if values.dtype in (torch.float16, torch.bfloat16) else padded
    window = torch.hann_window(nperseg, periodic=True, dtype=padded.dtype, device=values.device)
    spectrum = torch.stft(padded, nperseg, hop, window=window, center=False, return_complex=True).abs()
    return (spectrum / window.sum()).to(values.dtype).reshape(batch_size, n_chans, *spectrum.shape[1:])


class SpectrogramCnn(nn.Module):
    """Six 3x3 convolutions on STFT magnitudes.

    Source: widths, strides and kernel of the authors' code (github.com/matteoferrante/neural_CLIP, commit c0c4ce6).
    Batch norm and ReLU after each convolution are ours where that table is silent.
    """

    def __init__(self, config: EegConfig) -> None:
        super().__init__()
        self.nperseg = config.stft_nperseg
        layers: list[nn.Module] = []
        n_in = config.n_chans
        for width, stride in zip(CNN_WIDTHS, CNN_STRIDES, strict=True):
            n_out = width * config.hidden_size
            layers += [nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
            n_in = n_out
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        n_frequencies, n_frames = self.nperseg // 2 + 1, self.count_frames(config.n_network_times)
        for stride in CNN_STRIDES:
            n_frequencies, n_frames = -(-n_frequencies // stride), -(-n_frames // stride)
        self.output_size = n_in * n_frequencies * n_frames

    def count_frames(self, n_times: int) -> int:
        """Number of windows that cover `n_times` samples."""
        hop = self.nperseg - self.nperseg // 2
        return -(-(n_times + 2 * (self.nperseg // 2) - self.nperseg) // hop) + 1

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map `(batch_size, n_chans, n_times)` to `(batch_size, output_size)`."""
        spectrogram = stft_magnitude(values, self.nperseg)  # (batch_size, n_chans, n_frequencies, n_frames)
        return self.dropout(self.layers(spectrogram).flatten(1))


class EegEncoder(SensorPreTrainedModel):
    """EEG recordings to one vector each.

    Args:
        config ([`EegConfig`]): Window, subjects and network.
    """

    config_class = EegConfig
    _auto_class: Any = "AutoModel"  # so that the code travels with what is saved
    base_model_prefix = "encoders.eeg"  # where this branch stands in a joint checkpoint
    main_input_name = "eeg_values"
    networks: ClassVar = {
        "braindecode": BraindecodeNet,
        "linear": LinearNet,
        "spectrogram_cnn": SpectrogramCnn,
        "temporal_spatial": TemporalSpatialNet,
    }

    @can_return_tuple
    def forward(
        self,
        eeg_values: torch.Tensor,
        subject_ids: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> EncoderOutput:
        """Encode a batch.

        Args:
            eeg_values (`torch.FloatTensor` of shape `(batch_size, n_chans, n_times)`): In the unit of the prepared
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
        return self.encode(eeg_values, subject_ids, output_hidden_states)


__all__ = ["EegEncoder", "SpectrogramCnn", "stft_magnitude"]
