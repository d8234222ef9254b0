"""The kinds of recordings, for those who work with prepared data sets; the table is `neural_clip/modalities.py`."""

from neural_clip.modalities import MODALITIES, Modality

__all__ = ["MODALITIES", "Modality"]
