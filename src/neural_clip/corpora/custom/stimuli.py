"""The images or image embeddings that recordings of one's own refer to."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from neural_clip.corpora.custom.manifest import Embeddings, Images, Manifest
from neural_clip.errors import DataError
from neural_clip.files.arrays import read_array, read_names
from neural_clip.files.names import plain_name
from neural_clip.files.tables import is_same_number
from neural_clip.target_space import TargetSpace, sample_of

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


@dataclass
class Stimuli:
    """Image rows of the data set, and how recordings find them.

    Args:
        rows (`dict[str, dict]`): By image id, in order.
        facts (`dict`): What the metadata must tell of them.
        space ([`TargetSpace`], *optional*): Of ready-made embeddings.
    """

    rows: dict[str, dict]
    facts: dict = field(default_factory=dict)
    space: TargetSpace | None = None

    def __post_init__(self) -> None:
        self.order = list(self.rows)
        stems = {image_id: str(PurePosixPath(image_id).with_suffix("")) for image_id in self.rows}
        self.stems = _unambiguous((stem, image_id) for image_id, stem in stems.items())
        folded = [(name.casefold(), image_id) for image_id, stem in stems.items() for name in (image_id, stem)]
        self.folded = _unambiguous(folded)

    def centre(self, train_ids: set[str]) -> np.ndarray:
        """Subtract the mean embedding of the images in `train_ids` from all, and return it."""
        vectors = [self.rows[image_id]["image_embeds"] for image_id in sorted(train_ids)]
        mean = np.stack(vectors).astype(np.float64).mean(axis=0)
        for row in self.rows.values():
            row["image_embeds"] = (row["image_embeds"] - mean).astype(np.float32)
        self.facts["image_encoder"]["subtracted"] = "the mean over the training images"
        self.space = replace(self.space or TargetSpace(), mean=mean.astype(np.float32))
        return mean

    def find(self, shown: str | int, where: str) -> str:
        """Image id of a position from 0, or of a name; without its suffix, or in another case, if one image fits."""
        if isinstance(shown, int):
            if not 0 <= shown < len(self.order):
                raise DataError(
                    f"{where} shows image number {shown} (from 0), but there are {len(self.order)} images."
                )
            return self.order[shown]
        found = shown if shown in self.rows else self.stems.get(shown) or self.folded.get(shown.casefold())
        if found is None:
            near = difflib.get_close_matches(shown, self.order, n=1, cutoff=0)
            raise DataError(
                f"{where} shows {shown!r}, which is none of the {len(self.order)} images; the nearest is {near[0]!r}. "
                "Rows that show no image are left out by 'keep'."
            )
        return found


def read_stimuli(manifest: Manifest, root: Path) -> Stimuli:
    """Read images and embeddings of a manifest; in a category-level set, the categories' mean embeddings.

    Raises:
        DataError: If a file is missing or damaged, ids are repeated, or images and embeddings do not match.
    """
    rows = _image_rows(manifest.images, root) if manifest.images else {}
    if manifest.embeddings is None:
        return Stimuli(rows)
    embedded = _embedding_rows(manifest.embeddings, root, list(rows))
    space = TargetSpace(sample=sample_of(list(embedded), [row["image_embeds"] for row in embedded.values()]))
    encoder = {key: getattr(manifest.embeddings, key) for key in ("name", "revision", "pooling")}
    if manifest.category_level:
        categories, counts = _category_rows(embedded | _merged(rows, embedded))
        return Stimuli(categories, {"image_encoder": encoder, "category_images": counts}, space)
    return Stimuli(_merged(rows, embedded) if rows else embedded, {"image_encoder": encoder}, space)


def _unambiguous(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Image id by spelling, of the spellings that stand for one image alone."""
    meant: dict[str, set[str]] = {}
    for spelling, image_id in pairs:
        meant.setdefault(spelling, set()).add(image_id)
    return {spelling: ids.pop() for spelling, ids in meant.items() if len(ids) == 1}


def _merged(rows: dict[str, dict], embedded: dict[str, dict]) -> dict[str, dict]:
    """Image rows with their embeddings."""
    lacking = [image_id for image_id in rows if image_id not in embedded]
    if lacking:
        raise DataError(f"'embeddings' lacks {len(lacking)} of {len(rows)} images, for example {lacking[0]!r}.")
    return {
        image_id: row
        | {
            "image_embeds": embedded[image_id]["image_embeds"],
            "concept": row["concept"] or embedded[image_id]["concept"],
        }
        for image_id, row in rows.items()
    }


def _category_rows(rows: dict[str, dict]) -> tuple[dict[str, dict], dict[str, int]]:
    """One row a category: the mean of the embeddings of its images, and how many they are."""
    groups: dict[str, list[np.ndarray]] = {}
    for image_id, row in rows.items():
        if not row["concept"]:
            raise DataError(f"The category of image {image_id!r} is unknown; set 'concept' under 'embeddings'.")
        groups.setdefault(row["concept"], []).append(row["image_embeds"])
    means = {
        f"category:{name}": {
            "image_embeds": np.mean(vectors, axis=0, dtype=np.float64).astype(np.float32),
            "concept": name,
            "categories": [name],
        }
        for name, vectors in sorted(groups.items())
    }
    return means, {name: len(vectors) for name, vectors in sorted(groups.items())}


def _row(concept: str, **columns: object) -> dict:
    return columns | {"concept": concept, "categories": [concept] if concept else []}


def _folder_concept(image_id: str, entry: Images | Embeddings) -> str:
    if entry.concept != "folder":
        return ""
    name = PurePosixPath(image_id).parent.name
    return _named(name, entry.concept_names)


def _named(label: str, names: Mapping) -> str:
    """What `concept_names` calls a label; a number of the manifest stands for all ways to write it, as in `keep`."""
    for known, name in names.items():
        if label == plain_name(str(known)) or is_same_number(label, known):
            return str(name)
    return label


def image_files(folder: Path) -> list[Path]:
    """Image files below a folder, sorted; a `DataError` if there is none."""
    if not folder.is_dir():
        raise DataError(f"There is no image folder '{folder}'.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    files = [path for path in files if not path.name.startswith(".")]  # ._name.jpg of macOS is no image
    if not files:
        raise DataError(f"The image folder '{folder}' holds no image; known suffixes are {', '.join(IMAGE_SUFFIXES)}.")
    return files


def _image_rows(entry: Images, root: Path) -> dict[str, dict]:
    if entry.folder is not None:
        folder = root / entry.folder
        files = image_files(folder)
        names = [plain_name(path.relative_to(folder).as_posix()) for path in files]
        _check_unique(names, f"'{folder}'", "images")
        return {name: _row(_folder_concept(name, entry), image=path) for name, path in zip(names, files, strict=True)}
    path = root / str(entry.file)
    pixels = _pixels(entry, path)
    names = _names(path, entry.ids_key, len(pixels))
    concepts = _array_concepts(entry, path, len(pixels))
    return {name: _row(concept, image=image) for name, concept, image in zip(names, concepts, pixels, strict=True)}


def _pixels(entry: Images, path: Path) -> np.ndarray:
    """uint8 images `(n, height, width[, 3])`."""
    arrays = [read_array(path, key) for key in entry.keys or [None]]
    if entry.shape is not None:
        size = int(np.prod(entry.shape))
        for array in arrays:
            if array.ndim != 2 or array.shape[1] != size:
                raise DataError(
                    f"'{path}': images of shape {entry.shape} have {size} values, but the array is {array.shape}."
                )
        order = "F" if entry.order == "F" else "C"
        arrays = [np.stack([row.reshape(entry.shape, order=order) for row in array]) for array in arrays]
    if len({array.shape[1:] for array in arrays}) > 1:
        raise DataError(f"'{path}': the arrays {entry.keys} hold images of different sizes.")
    pixels = np.concatenate(arrays)
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise DataError(f"'{path}' holds {pixels.dtype} {pixels.shape}; expected uint8 (n, height, width[, 3]).")
    return pixels


def _array_concepts(entry: Images, path: Path, count: int) -> list[str]:
    if entry.concept_keys is None:
        return [""] * count
    labels = [label for key in entry.concept_keys for label in read_names(path, key)]
    if len(labels) != count:
        raise DataError(f"'{path}': {len(labels)} labels in {entry.concept_keys} for {count} images.")
    return [_named(label, entry.concept_names) for label in labels]


def _names(path: Path, ids_key: str | None, count: int) -> list[str]:
    if ids_key is None:
        return [f"image-{i:05d}" for i in range(count)]
    names = read_names(path, ids_key)
    if len(names) != count:
        raise DataError(f"'{path}': {len(names)} ids in {ids_key!r} for {count} rows.")
    _check_unique(names, f"'{path}'", f"ids in {ids_key!r}")
    return names


def _check_unique(names: list[str], where: str, what: str) -> None:
    """Check that no two names are the same, however their accents were written."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{where}: {what} are repeated, for example {repeated[0]!r}.")
    if "" in names:
        raise DataError(f"{where}: {what} must not be empty, but that of row {names.index('')} is.")


def _embedding_rows(entry: Embeddings, root: Path, image_ids: list[str]) -> dict[str, dict]:
    path = root / entry.file
    vectors = read_array(path, entry.vectors_key)
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise DataError(
            f"'{path}': {entry.vectors_key!r} is {vectors.dtype} {vectors.shape}; expected floats (n, projection_dim)."
        )
    if entry.ids_key is None and image_ids and len(image_ids) != len(vectors):
        raise DataError(f"'{path}' holds {len(vectors)} embeddings for {len(image_ids)} images, and no ids.")
    names = image_ids if entry.ids_key is None and image_ids else _names(path, entry.ids_key, len(vectors))
    return {
        name: _row(_folder_concept(name, entry), image_embeds=vector)
        for name, vector in zip(names, vectors, strict=True)
    }
