"""Prepared data sets: folders of Parquet files and a card that `datasets.load_dataset` reads.

```
<folder>/README.md          card; its YAML lists the configs `all` (default), one per subject, and `images`
         neural_clip.json   the same facts for programs
         data/sub-01/train-00000.parquet ...
         images/images-00000.parquet
```

A folder is written aside as `<folder>.partial` and renamed when it is complete and checked. Data sets made of parts
(`corpora/parts.py`) have the part's number in the names: `train-0002-00000.parquet`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from neural_clip.corpora.card import write_card
from neural_clip.corpora.image_rows import merge_images, write_images
from neural_clip.corpora.parts import FOLDERS, MARKS_DIR, Part, finished_parts, remove_marks, run_parts
from neural_clip.corpora.recording_rows import merge_recordings, write_recordings
from neural_clip.errors import DataError

METADATA_FILE = "neural_clip.json"
FORMAT_VERSION = 1
MODALITIES = ("eeg", "meg", "fmri")
SPLIT_UNITS = ("image", "run", "recording")
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
    "ch_names": None, "ch_positions": None, "ch_positions_frame": None, "n_chans": None, "n_times": None,
    "sfreq": None, "tmin": None, "unit": None, "n_voxels": None, "roi": None, "split_protocol": None,
    "split_unit": None, "splits": None, "subject_splits": None,
    "scaling": {"method": "none", "fit_scope": "none"}, "preprocessing": {}, "category_level": False,
    "block_confounded": False, "presentation_order": False, "average_repeats": False, "image_encoder": None,
    "licence": None, "redistribution": None, "terms": None, "citation": None, "source": None, "known_defects": [],
    "declared": None, "partial": None, "findings": [], "fingerprint": None,
}  # fmt: skip


def write_prepared(
    output_dir: str | Path,
    metadata: Mapping,
    recordings: Iterable[dict] | Sequence[Part],
    images: Iterable[dict] | Sequence[Part],
    *,
    overwrite: bool = False,
    shard_rows: int = 2000,
    extra_files: Mapping[str, bytes] | None = None,
    num_proc: int = 1,
) -> Path:
    """Write a prepared data set in one pass, whole or not at all.

    Args:
        output_dir (`str` or `Path`): Folder to make.
        metadata (`Mapping`): Facts of `neural_clip.json`; `subjects`, `n_voxels`, `splits`, `subject_splits`,
            `findings` and `fingerprint` are filled in here.
        recordings (iterable of `dict`, or sequence of [`Part`]): Rows with `subject`, `image_id`, `split` (`"train"`,
            `"validation"` or `"test"`) and one float array under the modality's name, of shape `(n_chans, n_times)`
            for `eeg` and `meg` and `(n_voxels,)` for `fmri`; optional `session`, `run`, `trial`, `concept`,
            `categories`, `n_repeats`. Parts can be written by several processes, and those that are finished when
            the work is interrupted stay in `<output_dir>.partial` for the next try.
        images (iterable of `dict`, or sequence of [`Part`]): Rows with `image_id`, `concept`, `categories`, and at
            least one of `image` (`PIL.Image`, `np.uint8` array `(height, width[, 3])`, bytes of an image file, or its
            path) and `image_embeds` (`np.ndarray` of shape `(projection_dim,)`).
        overwrite (`bool`, *optional*, defaults to `False`): Replace an older prepared data set.
        shard_rows (`int`, *optional*, defaults to 2000): Most rows a Parquet file.
        extra_files (`Mapping[str, bytes]`, *optional*): Further files by their name in the folder.
        num_proc (`int`, *optional*, defaults to 1): Processes that write parts at the same time.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If a value is not finite, a shape differs, an image is unknown or occurs twice, the splits
            overlap in images (or in runs, for category-level sets), a split is empty, the leak guard
            (`corpora/doctor.py`) finds an error, or `output_dir` is taken.
    """
    if num_proc < 1:
        raise DataError(f"Invalid value for the 'num_proc' parameter. Allowed are 1 and more, but got {num_proc}.")
    metadata = _checked_metadata(metadata)
    key = {"metadata": json.dumps(metadata, sort_keys=True, default=_plain), "shard_rows": shard_rows}
    with replaced_folder(output_dir, overwrite=overwrite, resumable=True) as folder:
        write = partial(write_images, shard_rows=shard_rows)
        known, width = merge_images(run_parts(folder, "images", images, write, key=key, num_proc=num_proc))
        _describe_embeddings(metadata, width)
        audited = partial(write_recordings, metadata=dict(metadata), images=known, shard_rows=shard_rows)
        key["images"] = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
        merge_recordings(metadata, run_parts(folder, "recordings", recordings, audited, key=key, num_proc=num_proc))
        metadata["findings"] = _examined(folder, metadata, num_proc)
        for name, content in (extra_files or {}).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        save_metadata(folder, metadata)
        remove_marks(folder)
    return Path(output_dir)


def _examined(folder: Path, metadata: dict, num_proc: int) -> list[dict]:
    """Findings of the leak guard; an error refuses the data set, a warning is shown."""
    from neural_clip.corpora.doctor import inspect

    findings = inspect(folder, metadata=metadata, num_proc=num_proc)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        listed = "; ".join(f"{finding.check}: {finding.message} ({finding.consequence})" for finding in errors)
        raise DataError(f"The data set is not written, because its scores would be wrong. {listed}")
    for finding in findings:
        if finding.severity == "warning":
            print(f"{finding.check}: {finding.message} {finding.consequence}", file=sys.stderr)
    return [asdict(finding) for finding in findings]


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
def replaced_folder(output_dir: str | Path, *, overwrite: bool, resumable: bool = False) -> Iterator[Path]:
    """Give a folder to fill that takes `output_dir`'s place only if the block ends without an error.

    With `resumable`, finished parts that an earlier run left in that folder are still there, and stay after an error.
    """
    output_dir = Path(output_dir).absolute()
    old = output_dir.with_name(output_dir.name + ".old")
    if not output_dir.exists() and (old / METADATA_FILE).is_file():
        os.rename(old, output_dir)  # a run was killed between the two steps of `_swap`
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        if not overwrite:
            raise DataError(f"'{output_dir}' exists and is not empty. Choose another --output-dir or add --overwrite.")
        if not (output_dir / METADATA_FILE).is_file():
            raise DataError(f"'{output_dir}' is no prepared data set, so it is not overwritten. Remove it yourself.")
    partial_dir = output_dir.with_name(output_dir.name + ".partial")
    if not (resumable and finished_parts(partial_dir)):
        shutil.rmtree(partial_dir, ignore_errors=True)  # of a run that was killed
    partial_dir.mkdir(parents=True, exist_ok=True)
    for path in partial_dir.iterdir():
        if path.is_file():  # metadata and extra files
            path.unlink()
        elif path.name not in (*FOLDERS.values(), MARKS_DIR):  # parts lie in these, extra files in others
            shutil.rmtree(path)
    try:
        yield partial_dir
        _swap(partial_dir, output_dir)
    finally:
        kept = finished_parts(partial_dir) if resumable else 0
        if kept:
            print(
                f"{kept} finished parts stay in '{partial_dir}'; the same command goes on from there.", file=sys.stderr
            )
        else:
            shutil.rmtree(partial_dir, ignore_errors=True)


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


def _describe_embeddings(metadata: dict, width: int | None) -> None:
    """Let the metadata tell the width, and insist that embeddings have a named maker."""
    if (width is None) != (metadata["image_encoder"] is None):
        raise DataError(
            f"'image_encoder' is {metadata['image_encoder']}, but the images have embeddings of width {width}."
        )
    if width is not None:
        metadata["image_encoder"] = {"name": None, "revision": None, "pooling": None} | metadata["image_encoder"]
        metadata["image_encoder"]["projection_dim"] = width
