"""Embed the images of a prepared data set: `neural-clip embed-images FOLDER`.

Every image is embedded once by a frozen CLIP vision tower; training reads the embeddings and needs neither the tower
nor the pixels. What is stored is the projected embedding (the image side of CLIP's shared space), not normalised.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neural_clip.corpora.image_rows import checked_embedding, image_features
from neural_clip.corpora.parquet import ParquetShards
from neural_clip.corpora.prepared import read_metadata, replaced_folder, save_metadata
from neural_clip.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import torch

TINY_CLIP = "neural_clip/tiny-clip"  # the tiny CLIP shipped in this package, made for the simulated images
DEFAULT_MODEL = "openai/clip-vit-large-patch14"  # the tower of the paper (arXiv 2411.09723): projected, 768-d
POOLING = "projected"
HUB_TIMEOUT = 5  # s; longer than any answer of a reachable Hub takes, short enough to wait for
SHARD_ROWS = 2000


def embed_images(
    folder: str | Path,
    model: str | None = None,
    *,
    revision: str | None = None,
    batch_size: int = 64,
    device: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Fill `image_embeds` of a prepared data set's `images` config and record the encoder.

    Args:
        folder (`str` or `Path`): Prepared data set; replaced as a whole when all images are embedded.
        model (`str`, *optional*): Name on the Hub, folder of a CLIP model, or `"neural_clip/tiny-clip"`. By default
            the shipped tiny CLIP for simulated sets and `openai/clip-vit-large-patch14` for others.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        batch_size (`int`, *optional*, defaults to 64): Images a forward pass.
        device (`str`, *optional*): For example `"cpu"` or `"cuda"`; by default CUDA where there is one.
        overwrite (`bool`, *optional*, defaults to `False`): Replace embeddings that are already there.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If the folder is no prepared data set, has embeddings already, has no pixels, or the model is
            neither on this machine nor to be had from the Hub.
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
    encoder = ImageEncoder(model or (TINY_CLIP if metadata["simulated"] else DEFAULT_MODEL), revision, device)
    with replaced_folder(folder, overwrite=True) as partial:
        shutil.copytree(folder, partial, copy_function=_link, dirs_exist_ok=True, ignore=_not_carried)
        with ParquetShards(partial, SHARD_ROWS) as shards:
            _embed_rows(folder, shards, encoder, batch_size)
        save_metadata(partial, metadata | {"image_encoder": encoder.description})
    return folder


class ImageEncoder:
    """A frozen CLIP vision tower with its image processor.

    Args:
        name (`str`): Name on the Hub, folder, or `"neural_clip/tiny-clip"`.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        device (`str`, *optional*): Where to run.

    Attributes:
        description (`dict`): `name`, `revision` (commit on the Hub, or SHA-256 of the weights of a folder),
            `pooling` and `projection_dim`.
    """

    def __init__(self, name: str, revision: str | None = None, device: str | None = None):
        source, local = _locate(name, revision)  # before the slow imports, so that a missing model is told at once
        import torch
        from transformers import AutoConfig, AutoImageProcessor, CLIPVisionModelWithProjection
        from transformers.utils import logging

        self.device = _device(device)
        options: dict[str, Any] = (
            {} if local else {"revision": revision, "local_files_only": _is_cached(name, revision)}
        )
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # a whole CLIP holds a text tower too; that it is left out is no news
        try:
            whole = AutoConfig.from_pretrained(source, **options)
            config = _vision_config(whole, name)
            loaded: Any = CLIPVisionModelWithProjection.from_pretrained(
                source, config=config, output_loading_info=True, dtype=torch.float32, **options
            )
            model, report = loaded
            self.processor = AutoImageProcessor.from_pretrained(source, **options)
        except DataError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise DataError(f"'{name}' cannot be loaded as a CLIP vision model: {error}") from error
        finally:
            logging.set_verbosity(verbosity)
        faults = [*report["missing_keys"], *report["mismatched_keys"]]
        if faults:
            raise DataError(f"'{name}' lacks weights of a CLIP vision tower: {', '.join(map(str, faults[:3]))} ...")
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.description = {
            "name": Path(name).resolve().name if local and name != TINY_CLIP else name,
            "revision": _weights_digest(Path(source)) if local else getattr(whole, "_commit_hash", None) or revision,
            "pooling": POOLING,
            "projection_dim": model.config.projection_dim,
        }

    def encode(self, images: list) -> np.ndarray:
        """Embed images (`PIL.Image`); returns float32 `(len(images), projection_dim)`, not normalised."""
        import torch

        with torch.inference_mode():
            pixel_values = self.processor(images=images, return_tensors="pt")["pixel_values"].to(self.device)
            return self.model(pixel_values=pixel_values).image_embeds.float().cpu().numpy()


def _vision_config(config: Any, name: str) -> Any:
    """Configuration of the vision tower with its projection, of a whole CLIP or of the tower alone."""
    if config.model_type == "clip":
        config.vision_config.projection_dim = config.projection_dim  # the tower's own may be left at its default
        return config.vision_config
    if config.model_type == "clip_vision_model":
        return config
    raise DataError(f"'{name}' is a model of type {config.model_type!r}; allowed are 'clip' and 'clip_vision_model'.")


def _device(device: str | None) -> torch.device:
    import torch

    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"Invalid value for the 'device' parameter: {name!r} cannot be used here: {reason}") from error


def _locate(name: str, revision: str | None) -> tuple[str, bool]:
    """Return what to load from, and whether it is a folder of this machine."""
    from neural_clip.simulation.images import TINY_CLIP_DIR

    path = TINY_CLIP_DIR if name == TINY_CLIP else Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise DataError(f"'{path}' is no model folder: it has no config.json.")
        if revision is not None:
            raise DataError(f"'revision' is for models of the Hub, but '{name}' is a folder.")
        return str(path), True
    if name == TINY_CLIP or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise DataError(f"There is no model folder '{path}'.")
    if not _is_cached(name, revision):
        _ask_hub(name, revision)
    return name, False


def _is_cached(name: str, revision: str | None) -> bool:
    """Whether the Hub's cache on this machine holds the model."""
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in files)


def _ask_hub(name: str, revision: str | None) -> None:
    """Raise within seconds unless the Hub is reachable and has the model."""
    from huggingface_hub import HfApi, constants

    advice = (
        f"Download it where there is a network (`hf download {name}`) and give its folder with --model, or copy it "
        "into the Hub cache of this machine; a data set may also bring ready-made embeddings "
        "(`neural-clip prepare custom`)."
    )
    if constants.HF_HUB_OFFLINE:
        raise DataError(f"The image encoder '{name}' is not on this machine and HF_HUB_OFFLINE is set. {advice}")
    try:
        HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT)
    except Exception as error:  # the HTTP client's own errors differ between versions; all mean "not to be had"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"The image encoder '{name}' is not on this machine and the Hub does not give it ({reason}). {advice}"
        ) from error


def _weights_digest(folder: Path) -> str:
    """`sha256:` of the weights in a model folder."""
    weights = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])
    if not weights:
        raise DataError(f"'{folder}' is no model folder: it has no weights (*.safetensors).")
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


def _link(source: str, target: str) -> str:
    """Share a file's bytes where the file system can, copy them where it cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _not_carried(folder: str, names: list[str]) -> list[str]:
    """What the embedded data set writes anew."""
    return [name for name in names if name in ("images", "README.md", "neural_clip.json") or name.startswith(".cache")]


def _embed_rows(folder: Path, shards: ParquetShards, encoder: ImageEncoder, batch_size: int) -> None:
    """Copy the image rows with their embeddings, batch by batch."""
    import pyarrow.parquet as pq
    from tqdm import tqdm

    files = sorted((folder / "images").glob("images-*.parquet"))
    total = sum(pq.read_metadata(path).num_rows for path in files)
    features = image_features(True, encoder.description["projection_dim"])
    with tqdm(total=total, desc=f"embedding images with {encoder.description['name']}", unit="image") as progress:
        for rows in _batches(files, batch_size):
            embeds = encoder.encode([_decoded(row) for row in rows])
            for row, vector in zip(rows, embeds, strict=True):
                row["image_embeds"] = checked_embedding(vector, f"image {row['image_id']!r}")
                shards.add("images/images", features, row)
            progress.update(len(rows))


def _batches(files: list[Path], batch_size: int) -> Iterator[list[dict]]:
    import pyarrow.parquet as pq

    columns = ["image_id", "concept", "categories", "image"]
    for path in files:
        with pq.ParquetFile(path) as file:
            if "image" not in file.schema_arrow.names:
                raise DataError(f"'{path}' has no pixels, only ready-made embeddings; there is nothing to embed.")
            for batch in file.iter_batches(batch_size, columns=columns):
                yield batch.to_pylist()


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
        help=f"name on the Hub, model folder, or {TINY_CLIP} (default for simulated sets; else {DEFAULT_MODEL})",
    )
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument("--batch-size", type=int, default=64, help="images a forward pass (default: %(default)s)")
    parser.add_argument("--device", help="for example cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--overwrite", action="store_true", help="replace embeddings that are already there")
    arguments = parser.parse_args(argv)
    folder = embed_images(
        arguments.folder,
        arguments.model,
        revision=arguments.revision,
        batch_size=arguments.batch_size,
        device=arguments.device,
        overwrite=arguments.overwrite,
    )
    encoder = read_metadata(folder)["image_encoder"]
    print(f"{folder}: embedded with {encoder['name']} ({encoder['projection_dim']}-d, {encoder['pooling']})")
    return folder
