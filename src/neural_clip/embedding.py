"""Embed the images of a prepared data set: `neural-clip embed-images FOLDER`.

Every image is embedded once by a frozen CLIP vision tower; training reads the embeddings and needs neither the tower
nor the pixels. What is stored is the projected embedding (the image side of CLIP's shared space), not normalised, or
the tower's class token, several of them side by side, or those of blurred images ([`TargetEncoder`]).

Finished batches lie in `<folder>.embeds-partial` until all are there, so that a run that was interrupted, even killed,
goes on where it stopped. The folder itself is replaced as a whole at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np

from neural_clip.corpora.image_rows import checked_embedding, image_features
from neural_clip.corpora.parquet import ParquetShards
from neural_clip.corpora.prepared import read_metadata, replaced_folder, save_metadata, verify_prepared
from neural_clip.errors import DataError
from neural_clip.image_encoder import POOLINGS, TINY_CLIP, TargetEncoder

DEFAULT_MODEL = "openai/clip-vit-large-patch14"  # the tower of the paper (arXiv 2411.09723): projected, 768-d
SHARD_ROWS = 2000
ROWS_READ = 64  # images held in memory while they are read


def embed_images(
    folder: str | Path,
    model: str | Sequence[str] | None = None,
    *,
    pooling: str | Sequence[str] = POOLINGS[0],
    revision: str | Sequence[str | None] | None = None,
    blur: float | None = None,
    batch_size: int = 64,
    device: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Fill `image_embeds` of a prepared data set's `images` config and record the encoder.

    Args:
        folder (`str` or `Path`): Prepared data set; replaced as a whole when all images are embedded.
        model (`str` or sequence of `str`, *optional*): Name on the Hub, folder of a CLIP model, or
            `"neural_clip/tiny-clip"`. By default the shipped tiny CLIP for simulated sets and
            `openai/clip-vit-large-patch14` for others. The embeddings of several are L2-normalised one by one and
            concatenated, so that cosines are the mean of theirs.
        pooling (`str` or sequence of `str`, *optional*, defaults to `"projected"`): `"projected"`, or `"cls"` for the
            class token of the last layer; one for all models or one for each.
        revision (`str` or sequence, *optional*): Branch, tag or commit on the Hub; one for all models or one for each.
        blur (`float`, *optional*): Blur the images with a Gaussian first, whose standard deviation is this share of
            the shorter side. A model takes such embeddings, and concatenated ones, as ready-made: it cannot embed
            further images by itself.
        batch_size (`int`, *optional*, defaults to 64): Images a forward pass. An interrupted run goes on only with the
            same one, because it decides the last digits.
        device (`str`, *optional*): For example `"cpu"` or `"cuda"`; by default CUDA where there is one.
        overwrite (`bool`, *optional*, defaults to `False`): Replace embeddings that are already there.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If the folder is no prepared data set, was changed since it was prepared, has embeddings already or
            no pixels, an option is not allowed, or the model is neither on this machine nor to be had from the Hub.
    """
    folder = Path(folder)
    metadata = read_metadata(folder)
    if metadata["image_encoder"] and not overwrite:
        raise DataError(
            f"The images of '{folder}' already have embeddings, made by {metadata['image_encoder']['name']!r} "
            f"(revision {metadata['image_encoder']['revision']}). Add --overwrite to replace them."
        )
    if metadata["category_level"]:
        raise DataError(f"'{folder}' is a category-level set: its targets are mean embeddings, there are no pixels.")
    if batch_size < 1:
        raise DataError(f"Invalid value for the 'batch_size' parameter. Allowed are 1 and more, but got {batch_size}.")
    models = _listed(model or (TINY_CLIP if metadata["simulated"] else DEFAULT_MODEL))
    encoder = TargetEncoder(models, _listed(pooling), _listed(revision), device, blur)
    fingerprint = verify_prepared(folder)["fingerprint"]
    files = _image_files(folder)
    rows = _unique_images(files)
    kept = _kept_folder(folder, encoder, fingerprint, batch_size)
    try:
        embeds = _embed_unique(files, rows, encoder, batch_size, kept)
        with replaced_folder(folder, overwrite=True) as partial:
            shutil.copytree(folder, partial, copy_function=link_or_copy, dirs_exist_ok=True, ignore=_not_carried)
            with ParquetShards(partial, SHARD_ROWS) as shards:
                features = image_features(True, encoder.description["projection_dim"])
                for row, unique in zip(_image_rows(files), rows, strict=True):
                    shards.add("images/images", features, row | {"image_embeds": embeds[unique]})
            save_metadata(partial, metadata | {"image_encoder": encoder.description})
    except BaseException:
        _leave(kept)
        raise
    shutil.rmtree(kept)
    return folder


def _listed(values: object) -> Sequence:
    """One value as a list of one."""
    return values if isinstance(values, (list, tuple)) else [values]


def link_or_copy(source: str, target: str) -> str:
    """Share a file's bytes where the file system can, copy them where it cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _not_carried(folder: str, names: list[str]) -> list[str]:
    """What the embedded data set writes anew."""
    return [name for name in names if name in ("images", "README.md", "neural_clip.json") or name.startswith(".cache")]


def _image_files(folder: Path) -> list[Path]:
    """Files of the `images` config, in the order of its rows."""
    import pyarrow.parquet as pq

    files = sorted((folder / "images").glob("images-*.parquet"))
    if not files:
        raise DataError(f"'{folder}' has no images.")
    for path in files:
        if "image" not in pq.read_schema(path).names:
            raise DataError(f"'{path}' has no pixels, only ready-made embeddings; there is nothing to embed.")
    return files


def _image_rows(files: list[Path]) -> Iterator[dict]:
    """Rows of the `images` config without embeddings."""
    import pyarrow.parquet as pq

    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_READ, columns=["image_id", "concept", "categories", "image"]):
                yield from batch.to_pylist()


def _unique_images(files: list[Path]) -> list[int]:
    """For each row the number of its image, counted without repetition; images with the same bytes are the same."""
    numbers: dict[bytes, int] = {}
    return [
        numbers.setdefault(hashlib.sha256((row["image"] or {}).get("bytes") or b"").digest(), len(numbers))
        for row in _image_rows(files)
    ]


def _kept_folder(folder: Path, encoder: TargetEncoder, fingerprint: str, batch_size: int) -> Path:
    """Folder of the batches embedded so far; emptied when they are of other images or would be other numbers."""
    path = folder.absolute().with_name(folder.absolute().name + ".embeds-partial")
    packages = {name: version(name) for name in ("torch", "transformers", "pillow", "numpy")}
    key = {"fingerprint": fingerprint, "image_encoder": encoder.description, "batch_size": batch_size,
           "device": encoder.device.type, "versions": packages}  # fmt: skip
    text = json.dumps(key, indent=2, sort_keys=True)
    key_file = path / "key.json"
    if key_file.is_file() and key_file.read_bytes() == text.encode():
        print(f"going on from the batches in '{path}'", file=sys.stderr)
        return path
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    key_file.write_bytes(text.encode())
    return path


def _leave(kept: Path) -> None:
    """Say what an interrupted run leaves, or leave nothing."""
    if count := len(list(kept.glob("*.npz"))):
        print(f"{count} embedded batches stay in '{kept}'; the same command goes on from there.", file=sys.stderr)
    else:
        shutil.rmtree(kept)


def _embed_unique(
    files: list[Path], rows: list[int], encoder: TargetEncoder, batch_size: int, kept: Path
) -> np.ndarray:
    """Embeddings `(n_unique_images, projection_dim)`, in batches of fixed images; those in `kept` stay."""
    from tqdm import tqdm

    total, width = max(rows) + 1, encoder.description["projection_dim"]
    embeds = np.empty((total, width), dtype=np.float32)
    firsts = _first_rows(files, rows)
    with tqdm(total=total, desc=f"embedding images with {encoder.description['name']}", unit="image") as progress:
        for start in range(0, total, batch_size):
            batch = list(islice(firsts, batch_size))
            path = kept / f"{start:09d}.npz"
            found = _kept_batch(path, (len(batch), width))
            embeds[start : start + batch_size] = _new_batch(path, batch, encoder) if found is None else found
            progress.update(len(batch))
    return embeds


def _first_rows(files: list[Path], rows: list[int]) -> Iterator[dict]:
    """The first row of each unique image."""
    new = 0
    for row, unique in zip(_image_rows(files), rows, strict=True):
        if unique == new:
            new += 1
            yield row


def _kept_batch(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """A batch of an earlier run, or nothing if there is none or its checksum (of the zip file) fails."""
    try:
        with np.load(path, allow_pickle=False) as file:
            embeds = file["embeds"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        return None
    return embeds if embeds.shape == shape and embeds.dtype == np.float32 else None


def _new_batch(path: Path, batch: list[dict], encoder: TargetEncoder) -> np.ndarray:
    """Embed a batch and keep it: written aside, then renamed."""
    embeds = encoder.encode([_decoded(row) for row in batch])
    embeds = np.stack(
        [checked_embedding(vector, f"image {row['image_id']!r}") for row, vector in zip(batch, embeds, strict=True)]
    )
    aside = path.with_suffix(".partial")
    with aside.open("wb") as file:
        np.savez(file, embeds=embeds)
    os.replace(aside, path)
    return embeds


def _decoded(row: dict):
    """The row's image in RGB."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    except (OSError, TypeError, SyntaxError, ValueError) as error:
        raise DataError(f"Image {row['image_id']!r} cannot be decoded: {error}.") from error


def main(argv: Sequence[str] | None = None) -> Path:
    """Run `neural-clip embed-images`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="prepared data set")
    parser.add_argument(
        "--model",
        nargs="+",
        help=f"name on the Hub, model folder, or {TINY_CLIP} (default for simulated sets; else {DEFAULT_MODEL}); "
        "several are normalised and concatenated",
    )
    parser.add_argument(
        "--pooling",
        nargs="+",
        default=POOLINGS[:1],
        choices=POOLINGS,
        help=f"CLIP's embedding or the class token of the last layer; one for all or each (default: {POOLINGS[0]})",
    )
    parser.add_argument(
        "--revision",
        nargs="+",
        default=[None],
        help="branch, tag or commit on the Hub; one for all or each, '' for none",
    )
    parser.add_argument(
        "--blur", type=float, metavar="SHARE", help="blur the images: sigma as a share of the shorter side, up to 1"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="images a forward pass (default: %(default)s)")
    parser.add_argument("--device", help="for example cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--overwrite", action="store_true", help="replace embeddings that are already there")
    arguments = parser.parse_args(argv)
    folder = embed_images(
        arguments.folder,
        arguments.model,
        pooling=arguments.pooling,
        revision=[name or None for name in arguments.revision],
        blur=arguments.blur,
        batch_size=arguments.batch_size,
        device=arguments.device,
        overwrite=arguments.overwrite,
    )
    encoder = read_metadata(folder)["image_encoder"]
    print(f"{folder}: embedded with {encoder['name']} ({encoder['projection_dim']}-d, {encoder['pooling']})")
    return folder
