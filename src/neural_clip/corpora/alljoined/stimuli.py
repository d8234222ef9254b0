"""The images of Alljoined-1.6M, which are those of THINGS-EEG2 under other names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neural_clip.corpora.alljoined.facts import PARTS, CorpusFacts
from neural_clip.errors import DataError
from neural_clip.files.pickled import read_pickled
from neural_clip.files.reading import existing
from neural_clip.prepared.splits import validation_split

PLACES = ("stimuli/images", "images", "stimuli")  # in the raw folder
PACKED = "stimuli.zip"
SHORT = {"training": "train", "test": "test"}  # what the table calls the parts


@dataclass(frozen=True)
class Image:
    """One image.

    Args:
        image_id (`str`): Stem of the file in THINGS, `"aardvark_01b"`, or `"alljoined-00000"` where nobody tells it.
        concept (`str`): `"aardvark"`, or `"concept-0000"`.
        split (`str`): `"train"`, `"validation"` or `"test"`.
        path (`Path`): The file.
    """

    image_id: str
    concept: str
    split: str
    path: Path


def read_images(
    raw_dir: Path, images_dir: Path | None, table: Path | None, facts: CorpusFacts, fraction: float, seed: int
) -> list[Image]:
    """All images by their id.

    Args:
        raw_dir (`Path`), images_dir (`Path`, *optional*): Where to look for them.
        table (`Path`, *optional*): `image_metadata.npy` of THINGS-EEG2.
        facts (`CorpusFacts`): Of the corpus.
        fraction (`float`), seed (`int`): Of the choice of validation concepts, which depends on nothing else.

    Raises:
        DataError: If there is no folder of images, or the table is not of these images.
    """
    usual = [images_dir] if images_dir else [raw_dir / place for place in PLACES]
    folder = next((place for place in usual if place.is_dir()), None)
    if folder is None:
        packed = f" Unpack '{raw_dir / PACKED}' first." if (raw_dir / PACKED).is_file() else ""
        raise DataError(
            f"'{usual[0]}' is no folder. Give the folder of the images, 00000.jpg and so on, with --images-dir; they "
            f"are in {PACKED} of Alljoined-1.6M.{packed}"
        )
    numbers = range(facts.n_training_images + facts.n_test_images)
    names = _names(table, facts) if table else [f"alljoined-{number:05d}" for number in numbers]
    concepts = [
        names[number].rpartition("_")[0] if table else f"concept-{facts.concept(number):04d}" for number in numbers
    ]
    groups = [f"{facts.concept(number):05d}" for number in numbers]
    held_out = validation_split(groups[: facts.n_training_images], fraction, seed)
    splits = [
        "test" if facts.part(number) == "test" else "validation" if groups[number] in held_out else "train"
        for number in numbers
    ]
    files = [folder / f"{number:05d}.jpg" for number in numbers]
    return [Image(*facts_of) for facts_of in zip(names, concepts, splits, files, strict=True)]


def _names(table: Path, facts: CorpusFacts) -> list[str]:
    """Stems of the files of THINGS, in the order of ids."""
    content = read_pickled(existing(table, "table of images"))
    names: list[str] = []
    for part in PARTS:
        key, expected = f"{SHORT[part]}_img_files", facts.n_test_images
        expected = facts.n_training_images if part == "training" else expected
        files = content.get(key)
        files = files if isinstance(files, list) else getattr(files, "tolist", list)()
        stems = [str(file).rpartition(".")[0] for file in files]
        if len(stems) != expected or not all(stem.rpartition("_")[0] for stem in stems):
            raise DataError(f"'{table}' lists {len(stems)} {key!r}; THINGS-EEG2 has {expected}. Is it its table?")
        names += stems
    concepts = [name.rpartition("_")[0] for name in names]
    groups = {(facts.concept(number), concept) for number, concept in enumerate(concepts)}
    if len(set(names)) < len(names) or len(groups) != len(set(concepts)) or len(groups) != max(groups)[0] + 1:
        raise DataError(
            f"'{table}' does not list {facts.images_per_concept} images of each training concept in a row and one of "
            "each test concept, as ids of Alljoined-1.6M do. Is it damaged or reordered?"
        )
    return names
