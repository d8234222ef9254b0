"""The kinds of recordings that this package knows: one table, which everything else reads."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Modality:
    """One kind of recording.

    Args:
        name (`str`): As in keys, columns and arguments.
        title (`str`): As texts write it.
        unit (`str`, *optional*): SI unit of what the sensors measure; `None` where corpora choose a scale.
        sensors (`bool`): Whether a recording is `(n_chans, n_times)`, alike for all subjects. Otherwise it is
            `(n_voxels,)`, and each subject has voxels of their own.
        channel_types (`tuple[str, ...]`): Of sensors: the types that mne gives their channels.
    """

    name: str
    title: str
    unit: str | None
    sensors: bool
    channel_types: tuple[str, ...] = ()

    @property
    def config_class(self) -> str:
        """Name of its class in `configuration_neural_clip.py`: `"EegConfig"` of `"eeg"`."""
        return f"{self.name.capitalize()}Config"

    @property
    def encoder_class(self) -> str:
        """Name of its class in `modeling_<name>.py`."""
        return f"{self.name.capitalize()}Encoder"


MODALITIES = {
    modality.name: modality
    for modality in (
        Modality("eeg", "EEG", "V", sensors=True, channel_types=("eeg",)),
        Modality("meg", "MEG", "T", sensors=True, channel_types=("mag", "grad")),
        Modality("fmri", "fMRI", None, sensors=False),
    )
}


__all__ = ["MODALITIES", "Modality"]
