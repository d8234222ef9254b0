"""Files that visitors upload: which kinds are taken, and what is refused before they are opened as any other file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neural_clip.corpora.custom.edf import EDF_SUFFIXES
from neural_clip.corpora.custom.epochs import FIF_SUFFIXES, fif_parts
from neural_clip.errors import DataError, check_value
from neural_clip.files.arrays import ARRAY_SUFFIXES
from neural_clip.files.nifti import NIFTI_SUFFIXES, is_nifti
from neural_clip.files.reading import existing
from neural_clip.gallery.embedder import Embedder
from neural_clip.queries.opening import open_recordings
from neural_clip.queries.options import RecordingOptions
from neural_clip.queries.recorded import RecordingFile

SUFFIXES = (*ARRAY_SUFFIXES, *FIF_SUFFIXES, *EDF_SUFFIXES, *NIFTI_SUFFIXES)  # files that name no others


def open_upload(path: Path, mask: Path | None, embedder: Embedder, **said: Any) -> RecordingFile:
    """Recordings of one file, as [`open_recordings`] opens it.

    Args:
        path (`Path`): Where the file was put, under the name that the visitor gave it.
        mask (`Path`, *optional*): Of an fMRI image.
        embedder ([`Embedder`]): Whose checkpoint says what recordings must become.
        **said: `modality`, `subject`, `session`, `unit`, `montage` and `ch_names`; empty ones are as not said.

    Raises:
        DataError: If the file is of another kind, damaged, or in several parts, or the mask does not belong to it.
    """
    name = path.name.lower()
    check_value("file", path.name, name.endswith(SUFFIXES), f"a name that ends in {', '.join(SUFFIXES)}")
    if mask is not None:
        fits = is_nifti(mask) or mask.name.lower().endswith(ARRAY_SUFFIXES)
        check_value("mask", mask.name, fits, "a NIfTI file or an array")
        if not is_nifti(path):
            raise DataError(f"A mask belongs to a NIfTI image, but '{path}' is none.")
    if name.endswith(FIF_SUFFIXES) and len(fif_parts(existing(path, "FIF file"))) > 1:
        raise DataError(f"'{path}' was saved in several parts; save what is asked about in one file.")
    told: dict[str, Any] = {name: value or None for name, value in said.items()}
    return open_recordings(path, embedder, RecordingOptions(mask=mask, **told))
