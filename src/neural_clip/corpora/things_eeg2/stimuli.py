"""The images of THINGS-EEG2: what codes stand for, and where the files lie."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.corpora.declared import path_inside
from neural_clip.corpora.things_eeg2.facts import PARTS, SHORT, CorpusFacts
from neural_clip.errors import DataError
from neural_clip.files.pickled import read_pickled
from neural_clip.files.reading import existing

METADATA = "image_metadata.npy"
PLACES = ("image_set", "stimuli")  # where images may lie in the raw folder; the second is that of BIDS
FOLDERS = {"training": ("training_images", "train_images"), "test": ("test_images",)}
CONCEPT = re.compile(r"(\d{5})_(.+)")
SOURCE = "part of THINGS-EEG2 at osf.io/3jk45 (image set)"


@dataclass(frozen=True)
class Image:
    """One image.

    Args:
        image_id (`str`): Stem of its file, `"aircraft_carrier_06s"`: the same in all corpora of THINGS.
        concept (`str`): `"aircraft_carrier"`.
        path (`Path`): The file.
        numbered (`str`): Concept with its number among the concepts of the part, `"00001_aircraft_carrier"`.
    """

    image_id: str
    concept: str
    path: Path
    numbered: str


@dataclass(frozen=True)
class Stimuli:
    """All images.

    Args:
        training, test (`list[Image]`): In the order of their codes, which count from 1.
        table (`Path`): The file that tells it.
    """

    training: list[Image]
    test: list[Image]
    table: Path

    @classmethod
    def read(cls, raw_dir: Path, images_dir: Path | None, facts: CorpusFacts) -> Stimuli:
        """Read `image_metadata.npy` and find the folders of images.

        Raises:
            DataError: If a file or folder is missing, or the table is damaged, contradicts itself or the published
                counts, or names a file outside of the folder.
        """
        usual = [raw_dir / name for name in PLACES]
        folder = images_dir or next((place for place in usual if place.is_dir()), usual[0])
        if not folder.is_dir():
            raise DataError(
                f"'{folder}' is no folder. Give the folder of the unpacked images (training_images, test_images) with "
                f"--images-dir; they are {SOURCE}."
            )
        places = [place / METADATA for place in (folder, folder.parent, raw_dir)]
        table = existing(
            next((place for place in places if place.is_file()), places[0]), "table of images",
            f" It tells which image each code stands for, and is part of {SOURCE}.",
        )  # fmt: skip
        content = read_pickled(table)
        images = {part: _images(table, content, part, _folder_of(folder, part), facts) for part in PARTS}
        _check_apart(table, images)
        return cls(images["training"], images["test"], table)

    def of(self, part: str) -> list[Image]:
        """Images of a part."""
        return self.test if part == "test" else self.training


def _folder_of(folder: Path, part: str) -> Path:
    """Folder of the images of a part."""
    names = FOLDERS[part]
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    packed = f" Unpack '{names[0]}.zip' first." if (folder / f"{names[0]}.zip").is_file() else ""
    raise DataError(f"'{folder}' has no folder {' or '.join(map(repr, names))}, which is {SOURCE}.{packed}")


def _images(table: Path, content: dict, part: str, folder: Path, facts: CorpusFacts) -> list[Image]:
    """Images of a part; the lists of the table must agree with each other."""
    names = [f"{SHORT[part]}_img_{kind}" for kind in ("concepts", "files", "concepts_THINGS")]
    numbered, files, of_things = (_texts(table, content, name) for name in names)
    expected = facts.n_images(part)
    for name, found in zip(names, (numbered, files, of_things), strict=True):
        if len(found) != expected:
            raise DataError(f"'{table}' lists {len(found)} {name!r}; THINGS-EEG2 has {expected}.")
    images, a_concept = [], facts.n_exemplars(part)
    for row, (text, file, other) in enumerate(zip(numbered, files, of_things, strict=True)):
        number, concept = _concept(table, text)
        stem = file.rpartition(".")[0]
        told = {concept, _concept(table, other)[1], stem.rpartition("_")[0]}
        if len(told) > 1 or number != row // a_concept + 1:
            raise DataError(
                f"'{table}' contradicts itself: its {part} image {row + 1} is {file!r} of {text!r} and of {other!r}, "
                f"where one of concept {row // a_concept + 1} should be. Is it damaged or reordered?"
            )
        images.append(Image(stem, concept, path_inside(folder, f"{text}/{file}", table), text))
    return images


def _texts(table: Path, content: dict, name: str) -> list[str]:
    """A list of texts of the table."""
    found = content.get(name)
    texts = found if isinstance(found, list) else getattr(found, "tolist", list)()
    if name not in content or not all(isinstance(text, str) for text in texts):
        raise DataError(f"'{table}' should have a list of texts under {name!r}; it has {sorted(content)}.")
    return texts


def _concept(table: Path, text: str) -> tuple[int, str]:
    """Number and name of `"00001_aircraft_carrier"`."""
    if not (parts := CONCEPT.fullmatch(text)):
        raise DataError(f"'{table}' names the concept {text!r}; allowed are names like '00001_aircraft_carrier'.")
    return int(parts[1]), parts[2]


def _check_apart(table: Path, images: Mapping[str, Sequence[Image]]) -> None:
    """Require that no image occurs twice, and no concept in both parts."""
    ids = [image.image_id for part in images.values() for image in part]
    concepts = [{image.concept for image in part} for part in images.values()]
    if len(set(ids)) < len(ids):
        twice = next(image_id for i, image_id in enumerate(ids) if image_id in ids[:i])
        raise DataError(f"'{table}' lists the image {twice!r} twice.")
    if common := sorted(concepts[0] & concepts[1]):
        raise DataError(
            f"'{table}' has {len(common)} concepts among training and test images both, such as {common[0]!r}; in "
            "THINGS-EEG2 they are different."
        )
