"""`--data MODALITY=FOLDER`, as several commands take it."""

from __future__ import annotations

from neural_clip.errors import DataError, check_value
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet


def open_data_option(argument: str) -> PreparedSet:
    """The data set of a `MODALITY=FOLDER` argument; a `DataError` unless it holds recordings of that modality."""
    modality, separator, folder = argument.partition("=")
    fits = bool(separator) and modality in MODALITIES
    check_value("--data", argument, fits, "eeg=FOLDER, meg=FOLDER or fmri=FOLDER")
    data = PreparedSet.open(folder)
    if data.facts.modality != modality:
        raise DataError(f"'{argument}' says {modality}, but the data set holds {data.facts.modality} recordings.")
    return data
