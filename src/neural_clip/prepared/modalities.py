"""The kinds of recordings, for those who work with prepared data sets; the table is `neural_clip/modalities.py`."""

from neural_clip.modalities import MODALITIES, Modality

__all__ = ["MODALITIES", "Modality", "kind_of", "title_of"]


def kind_of(key: str) -> str:
    """The modality of a data set by what reports call it: `"eeg"` of `"eeg"` and of `"eeg.things_eeg2"`."""
    return key.partition(".")[0]


def title_of(key: str) -> str:
    """The same for texts: `"EEG"`, and `"EEG things_eeg2"`."""
    modality, _, corpus = key.partition(".")
    return f"{MODALITIES[modality].title} {corpus}".rstrip()
