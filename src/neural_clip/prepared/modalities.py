"""The kinds of recordings that this package knows."""

from __future__ import annotations

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
    """

    name: str
    title: str
    unit: str | None
    sensors: bool


MODALITIES = {
    modality.name: modality
    for modality in (
        Modality("eeg", "EEG", "V", sensors=True),
        Modality("meg", "MEG", "T", sensors=True),
        Modality("fmri", "fMRI", None, sensors=False),
    )
}


def kind_of(key: str) -> str:
    """The modality of a data set by what reports call it: `"eeg"` of `"eeg"` and of `"eeg.things_eeg2"`."""
    return key.partition(".")[0]


def title_of(key: str) -> str:
    """The same for texts: `"EEG"`, and `"EEG things_eeg2"`."""
    modality, _, corpus = key.partition(".")
    return f"{MODALITIES[modality].title} {corpus}".rstrip()
