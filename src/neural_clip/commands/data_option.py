"""`--data MODALITY=FOLDER`, as several commands take it."""

from __future__ import annotations

from neural_clip.errors import DataError
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet


def open_data_option(argument: str) -> PreparedSet:
    """The data set of a `MODALITY=FOLDER` argument; a `DataError` unless it holds recordings of that modality."""
    modality, separator, folder = argument.partition("=")
    if not separator or modality not in MODALITIES:
        raise DataError(
            f"Invalid value for the '--data' parameter. Allowed are eeg=FOLDER, meg=FOLDER and fmri=FOLDER, "
            f"but got '{argument}' instead."
        )
    data = PreparedSet.open(folder)
    if data.facts.modality != modality:
        raise DataError(f"'{argument}' says {modality}, but the data set holds {data.facts.modality} recordings.")
    return data
