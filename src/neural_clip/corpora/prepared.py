"""Prepared data sets: folders of Parquet files and a card that `datasets.load_dataset` reads.

```
<folder>/README.md          card; its YAML lists the configs `all` (default), one per subject, and `images`
         neural_clip.json   the same facts for programs
         data/sub-01/train-00000.parquet ...
         images/images-00000.parquet
```

A folder is written aside as `<folder>.partial` and renamed when it is complete and checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from neural_clip.corpora.card import SPLITS, write_card
from neural_clip.corpora.image_rows import write_images
from neural_clip.corpora.parquet import ParquetShards
from neural_clip.errors import DataError

METADATA_FILE = "neural_clip.json"
FORMAT_VERSION = 1
MODALITIES = ("eeg", "meg", "fmri")
SPLIT_UNITS = ("image", "run", "recording")
SUBJECT_PATTERN = re.compile(r"sub-[A-Za-z0-9]+")
REQUIRED_KEYS = (
    "corpus",
    "modality",
    "split_protocol",
    "split_unit",
    "licence",
    "redistribution",
    "citation",
    "source",
)
DEFAULTS: dict = {
    "format_version": FORMAT_VERSION, "corpus": None, "modality": None, "simulated": None, "subjects": None,
    "ch_names": None, "n_chans": None, "n_times": None, "sfreq": None, "tmin": None, "unit": None, "n_voxels": None,
    "roi": None, "split_protocol": None, "split_unit": None, "splits": None, "subject_splits": None,
    "scaling": {"method": "none", "fit_scope": "none"}, "preprocessing": {}, "category_level": False,
    "block_confounded": False, "average_repeats": False, "image_encoder": None, "licence": None,
    "redistribution": None, "citation": None, "source": None, "known_defects": [], "fingerprint": None,
}  # fmt: skip


def write_prepared(
    output_dir: str | Path,
    metadata: Mapping,
    recordings: Iterable[dict],
    images: Iterable[dict],
    *,
    overwrite: bool = False,
    shard_rows: int = 2000,
    extra_files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a prepared data set in one pass, whole or not at all.

    Args:
        output_dir (`str` or `Path`): Folder to make.
        metadata (`Mapping`): Facts of `neural_clip.json`; `subjects`, `n_voxels`, `splits`, `subject_splits` and
            `fingerprint` are filled in here.
        recordings (`Iterable[dict]`): Rows with `subject`, `image_id`, `split` (`"train"`, `"validation"` or
            `"test"`) and one float array under the modality's name, of shape `(n_chans, n_times)` for `eeg` and
            `meg` and `(n_voxels,)` for `fmri`; optional `session`, `run`, `trial`, `concept`, `categories`,
            `n_repeats`.
        images (`Iterable[dict]`): Rows with `image_id`, `concept`, `categories`, and at least one of `image`
            (`PIL.Image`, `np.uint8` array `(height, width[, 3])`, bytes of an image file, or its path) and
            `image_embeds` (`np.ndarray` of shape `(projection_dim,)`).
        overwrite (`bool`, *optional*, defaults to `False`): Replace an older prepared data set.
        shard_rows (`int`, *optional*, defaults to 2000): Most rows a Parquet file.
        extra_files (`Mapping[str, bytes]`, *optional*): Further files by their name in the folder.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If a value is not finite, a shape differs, an image is unknown or occurs twice, the splits
            overlap in images (or in runs, for category-level sets), a split is empty, or `output_dir` is taken.
    """
    metadata = _checked_metadata(metadata)
    with replaced_folder(output_dir, overwrite=overwrite) as folder:
        with ParquetShards(folder, shard_rows) as shards:
            image_ids, width = write_images(shards, images)
            _describe_embeddings(metadata, width)
            audit = _Audit(metadata, image_ids)
            features = None
            for row in recordings:
                checked = audit.check(row)
                features = features or _recording_features(metadata)
                shards.add(f"data/{checked['subject']}/{row['split']}", features, checked)
            audit.finish()
        for name, content in (extra_files or {}).items():
            (folder / name).write_bytes(content)
        save_metadata(folder, metadata)
    return Path(output_dir)


def read_metadata(folder: str | Path) -> dict:
    """Read `neural_clip.json` of a prepared data set.

    Raises:
        DataError: If `folder` is no prepared data set, or of a format version that this package does not know.
    """
    path = Path(folder) / METADATA_FILE
    if not path.is_file():
        raise DataError(
            f"'{folder}' is no prepared data set: it has no {METADATA_FILE}. Make one with `neural-clip prepare`."
        )
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is damaged: {error}. Prepare the data set again.") from error
    version = metadata.get("format_version") if isinstance(metadata, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(f"'{path}' has format_version {version}; this package reads {FORMAT_VERSION}.")
    return metadata


def save_metadata(folder: Path, metadata: dict) -> None:
    """Write `neural_clip.json` and the card after taking the fingerprint of the Parquet files in `folder`."""
    metadata["fingerprint"] = fingerprint(folder)
    text = json.dumps(metadata, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"
    (Path(folder) / METADATA_FILE).write_text(text, encoding="utf-8")
    write_card(folder, metadata)


def fingerprint(folder: str | Path) -> str:
    """SHA-256 over names and contents of the Parquet files below `folder`."""
    total = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*.parquet")):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
    return total.hexdigest()


def verify_prepared(folder: str | Path) -> dict:
    """Check that the Parquet files are those that were written, and return the metadata.

    Raises:
        DataError: If a file was changed, added or lost since.
    """
    metadata = read_metadata(folder)
    found = fingerprint(folder)
    if found != metadata["fingerprint"]:
        raise DataError(
            f"The Parquet files of '{folder}' are not those that were prepared: fingerprint {found[:12]} instead of "
            f"{metadata['fingerprint'][:12]}. A file was changed, added or lost; prepare the data set again."
        )
    return metadata


def validation_split(image_ids: Iterable[str], fraction: float, seed: int) -> set[str]:
    """Choose images for validation; repeats and other subjects' rows of an image follow it.

    Args:
        image_ids (`Iterable[str]`): Image of each row, in any order, repeats allowed.
        fraction (`float`): Share of the unique images, above 0 and below 1.
        seed (`int`): Seed of the choice, which depends on nothing else but the set of images.

    Returns:
        `set[str]`: At least one image, and at least one is left.

    Raises:
        DataError: If `fraction` is out of range or there are fewer than two images.
    """
    if not 0 < fraction < 1:
        raise DataError(
            f"Invalid value for the 'fraction' parameter. Allowed are values between 0 and 1, but got {fraction!r}."
        )
    unique = sorted(set(image_ids))
    if len(unique) < 2:
        raise DataError(f"A validation split needs at least 2 unique images, but got {len(unique)}.")
    count = min(max(round(fraction * len(unique)), 1), len(unique) - 1)
    chosen = np.random.default_rng(seed).permutation(len(unique))[:count]
    return {unique[i] for i in chosen}


@contextmanager
def replaced_folder(output_dir: str | Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to fill that takes `output_dir`'s place only if the block ends without an error."""
    output_dir = Path(output_dir).absolute()
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        if not overwrite:
            raise DataError(f"'{output_dir}' exists and is not empty. Choose another --output-dir or add --overwrite.")
        if not (output_dir / METADATA_FILE).is_file():
            raise DataError(f"'{output_dir}' is no prepared data set, so it is not overwritten. Remove it yourself.")
    partial = output_dir.with_name(output_dir.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
        _swap(partial, output_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _swap(partial: Path, output_dir: Path) -> None:
    """Put `partial` in the place of `output_dir`."""
    old = output_dir.with_name(output_dir.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if output_dir.exists():
        os.rename(output_dir, old)
    os.rename(partial, output_dir)
    shutil.rmtree(old, ignore_errors=True)


def _plain(value: object) -> object:
    """NumPy scalars and arrays, paths and sets as JSON knows them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"metadata of type {type(value).__name__} cannot be written as JSON")


def _checked_metadata(metadata: Mapping) -> dict:
    """Metadata with every key present."""
    missing = [key for key in REQUIRED_KEYS if not metadata.get(key)]
    if missing:
        raise DataError(f"The metadata of a prepared data set lacks {', '.join(repr(key) for key in missing)}.")
    allowed = {"modality": MODALITIES, "split_unit": SPLIT_UNITS, "redistribution": ("allowed", "forbidden")}
    for key, values in allowed.items():
        if metadata[key] not in values:
            names = ", ".join(repr(value) for value in values)
            raise DataError(
                f"Invalid value for {key!r}. Allowed values are {names}, but got {metadata[key]!r} instead."
            )
    if metadata.get("category_level") and metadata["split_unit"] == "image":
        raise DataError("A category-level data set cannot be split by image; use split_unit 'run' or 'recording'.")
    return {**json.loads(json.dumps(DEFAULTS)), **metadata}


class _Audit:
    """Checks each recording as it passes and counts what the metadata must tell."""

    def __init__(self, metadata: dict, image_ids: dict[str, dict]):
        self.metadata, self.image_ids, self.modality = metadata, image_ids, metadata["modality"]
        self.row = 0
        self.declared_subjects = metadata["subjects"]
        self.image_split: dict[str, str] = {}
        self.run_split: dict[tuple, str] = {}
        self.voxels: dict[str, int] = dict(metadata["n_voxels"] or {})
        self.rows: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.seen: dict[str, dict[str, set]] = {split: {"images": set(), "concepts": set()} for split in SPLITS}

    def check(self, row: dict) -> dict:
        """Return the row as it is stored, or raise a `DataError` that names it."""
        where = f"recording {self.row} (subject {row.get('subject')!r}, image {row.get('image_id')!r})"
        for key in ("subject", "image_id", "split", self.modality):
            if row.get(key) is None:
                raise DataError(f"{where} has no {key!r}.")
        subject, image_id, split = row["subject"], str(row["image_id"]), row["split"]
        if split not in SPLITS:
            raise DataError(
                f"{where}: allowed splits are 'train', 'validation' and 'test', but got {split!r} instead."
            )
        if not SUBJECT_PATTERN.fullmatch(subject):
            raise DataError(f"{where}: subjects are named like 'sub-01', but got {subject!r} instead.")
        if image_id not in self.image_ids:
            raise DataError(f"{where}: image {image_id!r} is not among the {len(self.image_ids)} images.")
        self._check_split(where, row, image_id, split)
        values = self._check_values(where, row[self.modality], subject)
        concept = str(row.get("concept") or self.image_ids[image_id]["concept"])
        categories = row.get("categories")
        categories = self.image_ids[image_id]["categories"] if categories is None else [str(c) for c in categories]
        self.rows[subject][split] += 1
        self.seen[split]["images"].add(image_id)
        self.seen[split]["concepts"].add(concept)
        self.row += 1
        return {
            "subject": subject, "session": str(row.get("session") or ""), "run": str(row.get("run") or ""),
            "trial": int(row.get("trial", self.row - 1)), "image_id": image_id, "concept": concept,
            "categories": categories, "n_repeats": int(row.get("n_repeats", 1)), self.modality: values,
        }  # fmt: skip

    def _check_split(self, where: str, row: dict, image_id: str, split: str) -> None:
        if not self.metadata["category_level"]:
            other = self.image_split.setdefault(image_id, split)
            if other != split:
                raise DataError(
                    f"{where} is in split {split!r}, but image {image_id!r} is in split {other!r} as well."
                )
        if self.metadata["split_unit"] != "image":
            key = (row["subject"], row.get("session") or "", row.get("run") or "")
            other = self.run_split.setdefault(key, split)
            if other != split:
                raise DataError(f"{where} is in split {split!r}, but its run {'/'.join(key)} is in {other!r} as well.")

    def _check_values(self, where: str, values: np.ndarray, subject: str) -> np.ndarray:
        values = np.asarray(values, dtype=np.float32)
        if self.modality == "fmri":
            expected: tuple = (self.voxels.setdefault(subject, values.size),)
        else:
            if self.metadata["n_chans"] is None and values.ndim == 2:
                self.metadata["n_chans"], self.metadata["n_times"] = map(int, values.shape)
            expected = (self.metadata["n_chans"], self.metadata["n_times"])
            names = self.metadata["ch_names"]
            if names is not None and len(names) != expected[0]:
                raise DataError(f"'ch_names' lists {len(names)} channels, but the recordings have {expected[0]}.")
        if values.shape != expected or values.size == 0:
            raise DataError(f"{where} has shape {values.shape}; expected {expected}.")
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            raise DataError(f"{where} holds {count} values that are not finite (NaN or infinite) of {values.size}.")
        return values

    def finish(self) -> None:
        """Check the whole and fill the metadata in."""
        if not self.row:
            raise DataError("There are no recordings to write.")
        subjects = sorted(self.rows)
        if self.declared_subjects is not None and sorted(self.declared_subjects) != subjects:
            raise DataError(
                f"Recordings were expected of subjects {sorted(self.declared_subjects)}, but got {subjects}."
            )
        for split in SPLITS:
            lacking = [subject for subject in subjects if not self.rows[subject].get(split)]
            # Whole runs or recordings cannot be cut up, so a subject with few of them may lack a split.
            allowed = self.metadata["split_unit"] != "image" and split != "train" and len(lacking) < len(subjects)
            if lacking and not allowed:
                raise DataError(f"Split {split!r} is empty for {', '.join(lacking)}; every subject needs all splits.")
        self.metadata["subjects"] = subjects
        self.metadata["n_voxels"] = {s: self.voxels[s] for s in subjects} if self.modality == "fmri" else None
        self.metadata["subject_splits"] = {
            s: {k: self.rows[s][k] for k in SPLITS if self.rows[s].get(k)} for s in subjects
        }
        self.metadata["splits"] = {
            split: {
                "rows": sum(self.rows[subject].get(split, 0) for subject in subjects),
                "images": len(self.seen[split]["images"]),
                "concepts": len(self.seen[split]["concepts"]),
            }
            for split in SPLITS
        }


def _describe_embeddings(metadata: dict, width: int | None) -> None:
    """Let the metadata tell the width, and insist that embeddings have a named maker."""
    if (width is None) != (metadata["image_encoder"] is None):
        raise DataError(
            f"'image_encoder' is {metadata['image_encoder']}, but the images have embeddings of width {width}."
        )
    if width is not None:
        metadata["image_encoder"] = {"name": None, "revision": None, "pooling": None} | metadata["image_encoder"]
        metadata["image_encoder"]["projection_dim"] = width


def _recording_features(metadata: dict):
    """Columns of a recording (`datasets.Features`)."""
    from datasets import Array2D, Features, List, Value

    columns = {name: Value("string") for name in ("subject", "session", "run")}
    columns |= {"trial": Value("int32"), "image_id": Value("string"), "concept": Value("string")}
    columns |= {"categories": List(Value("string")), "n_repeats": Value("int32")}
    if metadata["modality"] == "fmri":
        columns["fmri"] = List(Value("float32"))  # as long as the subject's region: no padding on disk
    else:
        columns[metadata["modality"]] = Array2D((metadata["n_chans"], metadata["n_times"]), "float32")
    return Features(columns)
