"""What a place holds that is searched or asked about: a saved gallery, a prepared data set, or something else."""

from __future__ import annotations

from pathlib import Path

from neural_clip.errors import DataError, is_hub_name
from neural_clip.files.fetched import folder_of
from neural_clip.gallery.embedder import Embedder
from neural_clip.gallery.neural_gallery import NeuralGallery
from neural_clip.gallery.stored import is_gallery
from neural_clip.prepared.facts import METADATA_FILE
from neural_clip.prepared.reader import PreparedSet


def opened_place(
    place: str | Path, embedder: Embedder | None = None, pictures: str | Path | None = None
) -> NeuralGallery | PreparedSet | None:
    """Open a saved gallery or a prepared data set, in a folder or on the Hub; `None` for whatever else there is.

    Args:
        place (`str` or `Path`): The folder, or `ORG/NAME` on the Hub.
        embedder ([`Embedder`], *optional*): For whose queries a gallery is opened.
        pictures (`str` or `Path`, *optional*): Where the images of a gallery lie by now.

    Raises:
        DataError: If it is damaged or belongs to another model, or the Hub does not give it.
    """
    on_hub = is_hub_name(place)
    folder = folder_of(place, "gallery or prepared data set") if on_hub else Path(place)
    if is_gallery(folder):
        return NeuralGallery.load_from_disk(folder, embedder, pictures=pictures)
    if (folder / METADATA_FILE).is_file():
        return PreparedSet.open(place)
    if on_hub:
        raise DataError(f"'{place}' on the Hub is neither a gallery nor a prepared data set.")
    return None
