"""Prepared data sets: folders of Parquet files and a card that `datasets.load_dataset` reads.

```
<folder>/README.md          card; its YAML lists the configs `all` (default), one per subject, and `images`
         neural_clip.json   the same facts for programs
         data/sub-01/train-00000.parquet ...
         images/images-00000.parquet
         scaling.safetensors  mean and deviation by which recordings were scaled, where training rows gave them, and
                              the indices of voxels within a mask
         places.safetensors   where voxels lie in a space that people share, where it is known
```

A folder is written aside as `<folder>.partial` and renamed when it is complete and checked. Data sets made of parts
(`prepared/parts.py`) have the part's number in the names: `train-0002-00000.parquet`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from neural_clip.errors import DataError, check_value
from neural_clip.files.whole import check_apart, check_free, moved_aside, place_of, sha256_of, whole_folder
from neural_clip.preparation import STATISTICS_FILE, Statistics
from neural_clip.prepared.card import write_card
from neural_clip.prepared.facts import METADATA_FILE, checked_metadata, plain
from neural_clip.prepared.image_rows import merge_images, write_images
from neural_clip.prepared.image_table import ImageTable
from neural_clip.prepared.integrity import FINGERPRINT_VERSION, described, fingerprint_of
from neural_clip.prepared.parquet import open_parquet, read_columns
from neural_clip.prepared.parts import Part, keep_parts, remove_marks, run_parts
from neural_clip.prepared.places import PLACES_FILE, checked_set
from neural_clip.prepared.recording_rows import merge_recordings, write_recordings


def write_prepared(
    output_dir: str | Path,
    metadata: Mapping,
    recordings: Iterable[dict | Statistics] | Sequence[Part],
    images: Iterable[dict] | Sequence[Part],
    *,
    overwrite: bool = False,
    shard_rows: int = 2000,
    extra_files: Mapping[str, bytes] | None = None,
    voxels: Mapping[str, np.ndarray] | None = None,
    places: Mapping[str, np.ndarray] | None = None,
    num_proc: int = 1,
    made_from: str | Path | None = None,
) -> Path:
    """Write a prepared data set in one pass, completely or not at all.

    Args:
        output_dir (`str` or `Path`): Folder to make.
        metadata (`Mapping`): Facts of `neural_clip.json`; `subjects`, `n_voxels`, `splits`, `subject_splits`,
            `findings` and `fingerprint` are filled in here.
        recordings (iterable of `dict`, or sequence of [`Part`]): Rows with `subject`, `image_id`, `split` (`"train"`,
            `"validation"` or `"test"`) and one float array under the modality's name, of shape `(n_chans, n_times)`
            for `eeg` and `meg` and `(n_voxels,)` for `fmri`; optional `session`, `run`, `trial`, `concept`,
            `categories`, `n_repeats`. [`Statistics`] of the scaling may stand between rows. Parts can be written by
            several processes, and those that are finished when the work is interrupted stay in
            `<output_dir>.partial` for the next try.
        images (iterable of `dict`, or sequence of [`Part`]): Rows with `image_id`, `concept`, `categories`, and at
            least one of `image` (`PIL.Image`, `np.uint8` array `(height, width[, 3 or 4])`, bytes of an image file,
            or its path) and `image_embeds` (`np.ndarray` of shape `(projection_dim,)`).
        overwrite (`bool`, *optional*, defaults to `False`): Replace an older prepared data set.
        shard_rows (`int`, *optional*, defaults to 2000): Most rows a Parquet file.
        extra_files (`Mapping[str, bytes]`, *optional*): Further files by their name in the folder.
        voxels (`Mapping[str, np.ndarray]`, *optional*): Places of each subject's voxels, of `places_of_voxels`; they
            stand beside the statistics.
        places (`Mapping[str, np.ndarray]`, *optional*): Where the voxels of subjects lie in the space that the fact
            `places_space` names: `(n_voxels, 3)` in mm, in the order of the recordings' columns.
        num_proc (`int`, *optional*, defaults to 1): Processes that write parts at the same time.
        made_from (`str` or `Path`, *optional*): File or folder that the rows come from, for messages.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If a value is not finite, a shape differs, an image is unknown or occurs twice, the splits
            overlap in images (or in runs, for category-level sets), a split is empty, places of voxels cannot be,
            the doctor (`prepared/doctor`) finds an error, or `output_dir` is taken.
    """
    check_value("num_proc", num_proc, num_proc >= 1, "1 and more")
    metadata = checked_metadata(metadata)
    key = {"metadata": json.dumps(metadata, sort_keys=True, default=plain), "shard_rows": shard_rows}
    whole = partial(whole_folder, output_dir, holds=METADATA_FILE, what="prepared data set")
    with whole(overwrite=overwrite, keep=keep_parts) as folder:
        write = partial(write_images, shard_rows=shard_rows)
        known, width = merge_images(run_parts(folder, "images", images, write, key=key, num_proc=num_proc))
        _describe_embeddings(metadata, width)
        audited = partial(write_recordings, metadata=dict(metadata), images=known, shard_rows=shard_rows)
        key["images"] = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
        written = run_parts(folder, "recordings", recordings, audited, key=key, num_proc=num_proc)
        if statistics := merge_recordings(metadata, written) | dict(voxels or {}):
            (folder / STATISTICS_FILE).write_bytes(save(statistics))
            metadata["scaling"]["statistics"] = sha256_of([folder / STATISTICS_FILE])
        space, n_voxels = metadata["places_space"], metadata["n_voxels"]
        if located := checked_set(places or {}, space, n_voxels, f"'{output_dir}'"):
            (folder / PLACES_FILE).write_bytes(save(located))
        metadata["findings"] = _examined(folder, metadata, num_proc, f"of '{made_from}' " if made_from else "")
        for name, content in (extra_files or {}).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        save_metadata(folder, metadata)
        remove_marks(folder)
    return Path(output_dir)


def check_output(output_dir: str | Path, inputs: Iterable[str | Path], overwrite: bool) -> None:
    """Raise a `DataError`, before hours are spent, where a data set must not be written: among what it is made from,
    or where something else lies.
    """
    check_apart(output_dir, inputs)
    place = place_of(output_dir)
    if not moved_aside(place, METADATA_FILE):
        check_free(place, holds=METADATA_FILE, what="prepared data set", overwrite=overwrite)


def _examined(folder: Path, metadata: dict, num_proc: int, of: str) -> list[dict]:
    """Findings of the doctor; an error refuses the data set, a warning is shown."""
    from neural_clip.prepared.doctor.inspect import inspect

    findings = inspect(folder, metadata=metadata, num_proc=num_proc)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        listed = "; ".join(f"{finding.check}: {finding.message} ({finding.consequence})" for finding in errors)
        raise DataError(f"The data set {of}is not written, because its scores would be wrong. {listed}")
    for finding in findings:
        if finding.severity == "warning":
            print(f"{finding.check}: {finding.message} {finding.consequence}", file=sys.stderr)
    return [asdict(finding) for finding in findings]


def save_metadata(folder: Path, metadata: dict, files: dict[str, dict] | None = None) -> None:
    """Write `neural_clip.json` and the card.

    Args:
        folder (`Path`): The data set.
        metadata (`dict`): Its facts; those of its files are filled in here.
        files (`dict`, *optional*): What [`described`] says of them; of all files by default.
    """
    metadata["files"] = described(folder) if files is None else files
    metadata |= {"fingerprint": fingerprint_of(metadata["files"]), "fingerprint_version": FINGERPRINT_VERSION}
    if metadata["image_encoder"]:
        written = {"images": len((images := _written_images(folder)).image_ids), "sha256": images.sha256}
        metadata["targets"] = {"space": None} | (metadata.get("targets") or {}) | written
    text = json.dumps(metadata, indent=2, ensure_ascii=False, allow_nan=False, default=plain) + "\n"
    (Path(folder) / METADATA_FILE).write_text(text, encoding="utf-8")
    write_card(folder, metadata)


def _written_images(folder: Path) -> ImageTable:
    """The image table as it lies in the files."""
    import pyarrow as pa

    files = sorted((Path(folder) / "images").glob("images-*.parquet"))
    return ImageTable.of_columns(
        pa.concat_tables([read_columns(open_parquet(path), ImageTable.COLUMNS) for path in files])
    )


def _describe_embeddings(metadata: dict, width: int | None) -> None:
    """Let the metadata tell the width, and insist that embeddings have a named maker."""
    if (width is None) != (metadata["image_encoder"] is None):
        raise DataError(
            f"'image_encoder' is {metadata['image_encoder']}, but the images have embeddings of width {width}."
        )
    if width is not None:
        metadata["image_encoder"] = {"name": None, "revision": None, "pooling": None} | metadata["image_encoder"]
        metadata["image_encoder"]["projection_dim"] = width
