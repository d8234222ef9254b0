"""Any network of braindecode behind the alignment layers."""

from itertools import chain
from typing import Any

import torch
from torch import nn

from .configuration_neural_clip import SensorConfig
from .errors import check_option
from .modalities import MODALITIES


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
    check_option("braindecode_model", name, sorted(known))
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
    kind = MODALITIES[config.model_type.rpartition("_")[2]].channel_types[0]
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
        self.config = config
        self.network = self.made()
        for module in self.network.modules():
            module._non_persistent_buffers_set.clear()
        self.dropout = nn.Dropout(config.dropout)
        self.output_size = config.hidden_size

    def reset_parameters(self) -> None:
        """Give what was not loaded the values of a new network."""
        start = dict(chain((network := self.made()).named_parameters(), network.named_buffers()))
        for name, tensor in chain(self.network.named_parameters(), self.network.named_buffers()):
            if not getattr(tensor, "_is_hf_initialized", False):
                tensor.data.copy_(start[name])

    def made(self) -> nn.Module:
        """A new network that fits the recordings."""
        config = self.config
        name = str(config.braindecode_model)
        network_class: Any = braindecode_class(name)
        shape: dict[str, Any] = {"n_chans": config.n_chans, "n_times": config.n_network_times}
        shape |= {"sfreq": config.sfreq / config.decimation}
        shape |= {"n_outputs": config.hidden_size, "chs_info": channel_info(config)}
        try:
            with torch.device("cpu"):  # not on the "meta" device: some networks compute while they are made
                network = network_class(**shape, **(config.braindecode_kwargs or {}))
                found = returned_shape(network, config)
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
        return network

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map `(batch_size, n_chans, n_times)` to `(batch_size, output_size)`."""
        return self.dropout(self.network(values))


@torch.no_grad()
def returned_shape(network: nn.Module, config: SensorConfig) -> object:
    """Shape of what a network returns for two recordings, or the name of its type if that is no tensor."""
    output = network.eval()(torch.zeros(2, config.n_chans, config.n_network_times))
    network.train()
    return tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
