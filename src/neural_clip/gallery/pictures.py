"""The picture behind a row of a gallery, where it is at hand, and why it is not where it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from neural_clip.errors import DataError
from neural_clip.prepared.facts import METADATA_FILE
from neural_clip.prepared.image_rows import decoded_image, stored_pictures
from neural_clip.prepared.reader import PreparedSet


class Pictures:
    """Finds the pictures of a gallery.

    Args:
        places (`list[Path]`): Folders in which files are looked for whose path is relative, or no longer right.
    """

    def __init__(self, places: list[Path]) -> None:
        self.places = places
        self._sets: dict[Path, Any] = {}
        self._opening = Lock()  # threads that want pictures of one data set open it once

    def of(self, row: Mapping[str, Any]) -> tuple[Any, str]:
        """The picture behind a row (`PIL.Image`, or `None`), and a sentence on why there is none."""
        name, place = f"image {row['image_id']!r}", str(row["file"])
        try:
            if row["pixels"]:
                return decoded_image(row["pixels"], name)[1], ""
            for path in self._candidates(place, str(row["image_id"])):
                if (path / METADATA_FILE).is_file():
                    return self._stored(path, str(row["image_id"]))
                if path.is_file():
                    return decoded_image(path.read_bytes(), f"'{path}'")[1], ""
        except (DataError, OSError) as error:
            return None, f"The picture of {name} cannot be shown: {error}"
        if not place:
            return None, f"The gallery does not know where the picture of {name} lies."
        return None, f"The picture of {name} is not at hand: there is no '{place}'. Name its folder by 'pictures'."

    def _candidates(self, place: str, image_id: str) -> list[Path]:
        """Where the picture may lie; a relative path is looked for beside the gallery first."""
        found = [Path(place)] if place and Path(place).is_absolute() else []
        for folder in self.places:
            found += [*([folder / place, folder / Path(place).name] if place else []), folder / image_id, folder]
        return [*found, *([Path(place)] if place else [])]

    def _stored(self, folder: Path, image_id: str) -> tuple[Any, str]:
        """The picture of a prepared data set."""
        with self._opening:
            if folder not in self._sets:
                images = PreparedSet.open(folder).stored_images
                self._sets[folder] = images, {name: row for row, name in enumerate(images["image_id"][:])}
        images, rows = self._sets[folder]
        if image_id not in rows:
            return None, f"'{folder}' has no image {image_id!r}."
        if "image" not in images.column_names:
            return None, f"'{folder}' has no pixels, only embeddings."
        picture = stored_pictures(images, [rows[image_id]], folder)[0]
        return picture, "" if picture is not None else f"'{folder}' has no pixels of image {image_id!r}."


class Seen(Sequence[Any]):
    """The images behind recordings (`PIL.Image`, or `None` where one is not at hand), read when they are looked at.

    Args:
        rows (`Sequence`): Of each recording, `image_id` and `file`; also `pixels` where there are some.
        places (`list[Path]`): As for [`Pictures`].
    """

    def __init__(self, rows: Any, places: list[Path]) -> None:
        self._rows, self._pictures = rows, Pictures(places)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: Any) -> Any:
        return self._pictures.of({"pixels": None} | dict(self._rows[number]))[0]
