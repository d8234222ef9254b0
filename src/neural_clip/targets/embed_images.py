"""Embed the images of a prepared data set, each once, by a frozen CLIP vision tower.

What is stored is the projected embedding (the image side of CLIP's shared space), not normalised, or the tower's class
token, several of them side by side, or those of blurred images ([`TargetEncoder`]).

Finished batches lie in `<folder>.embeds-partial` until all are there, so that a run that was interrupted, even killed,
goes on where it stopped. They are what several processes work on.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.kept import kept_pieces, read_piece, write_piece
from neural_clip.files.whole import link_or_copy, moved_aside, only_writer, place_of, restore, whole_folder
from neural_clip.parallel import n_processes, run_units
from neural_clip.prepared.facts import METADATA_FILE, Facts, verify_prepared
from neural_clip.prepared.image_rows import checked_embedding, image_features
from neural_clip.prepared.integrity import NOT_LISTED, READ, described, files_below
from neural_clip.prepared.parquet import ParquetShards
from neural_clip.prepared.writer import save_metadata
from neural_clip.targets.encoder import TargetEncoder
from neural_clip.targets.options import EmbedOptions
from neural_clip.targets.probes import space_of
from neural_clip.targets.tiny_clip import TINY_CLIP
from neural_clip.targets.unique_images import decoded, image_files, read_image_rows, rows_at, unique_images

DEFAULT_MODEL = "openai/clip-vit-large-patch14"  # the tower of the paper (arXiv 2411.09723): projected, 768-d
SHARD_ROWS = 2000


def embed_images(
    folder: str | Path,
    model: str | Sequence[str] | None = None,
    options: EmbedOptions | None = None,
    **changes: Any,
) -> Path:
    """Fill `image_embeds` of a prepared data set's `images` config and record the encoder and its [`TargetSpace`].

    Args:
        folder (`str` or `Path`): Prepared data set; replaced as a whole when all images are embedded.
        model (`str` or sequence of `str`, *optional*): Name on the Hub, folder of a CLIP model, or
            `"neural_clip/tiny-clip"`. By default the shipped tiny CLIP for simulated sets and
            `openai/clip-vit-large-patch14` for others. The embeddings of several are L2-normalised one by one and
            concatenated, so that cosines are the mean of theirs.
        options ([`EmbedOptions`], *optional*): How, and whether again.
        **changes: Options by name, in place of those of `options`.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If the folder is no prepared data set, was changed since it was prepared, has embeddings already or
            no pixels, an option is not allowed, or the model is neither on this machine nor to be had from the Hub.
    """
    folder, options = Path(folder), replace(options or EmbedOptions(), **changes)
    if not folder.is_dir() and not moved_aside(folder, METADATA_FILE):
        Facts.read(folder)  # says that there is no data set, before a lock is made
    with only_writer(place_of(folder)):
        restore(folder, METADATA_FILE)
        facts = _facts(folder, options)
        models = tuple(_listed(model or default_model(bool(facts.simulated))))
        revisions = tuple(name or None for name in _listed(options.revision))
        arguments = (models, tuple(_listed(options.pooling)), revisions, options.device, options.blur)
        encoder = TargetEncoder(*arguments)
        files = image_files(folder)
        rows = unique_images(files)
        key = {"fingerprint": facts.fingerprint, "image_encoder": encoder.description,
               "batch_size": options.batch_size, "device": encoder.device.type}  # fmt: skip
        place = folder.absolute().with_name(folder.absolute().name + ".embeds-partial")
        with kept_pieces(place, key, "batches") as kept:
            embeds = _embed_unique(files, rows, encoder, arguments, options, kept)
            _replace(folder, facts, files, [embeds[unique] for unique in rows], encoder)
    return folder


def default_model(simulated: bool) -> str:
    """The image encoder of simulated data sets, or of others, where none is named."""
    return TINY_CLIP if simulated else DEFAULT_MODEL


def _facts(folder: Path, options: EmbedOptions) -> Facts:
    """Facts of the data set, whose files are those that were written; a `DataError` if it cannot be embedded."""
    facts = Facts.read(folder)
    if facts.image_encoder and not options.overwrite:
        raise DataError(
            f"The images of '{folder}' already have embeddings, made by {facts.image_encoder['name']!r} "
            f"(revision {facts.image_encoder['revision']}). Add --overwrite to replace them."
        )
    if facts.category_level:
        raise DataError(f"'{folder}' is a category-level set: its targets are mean embeddings, there are no pixels.")
    verify_prepared(folder)
    return facts


def _replace(folder: Path, facts: Facts, images: list[Path], embeds: list[np.ndarray], encoder: TargetEncoder) -> None:
    """Write the data set anew with these embeddings, one a row of its image files, in place of the old one."""
    if Facts.of(verify_prepared(folder)) != facts:
        raise DataError(f"'{folder}' was changed while its images were embedded; nothing was written.")
    with whole_folder(folder, holds=METADATA_FILE, what="prepared data set", overwrite=True) as partial:
        shutil.copytree(folder, partial, copy_function=link_or_copy, dirs_exist_ok=True, ignore=_not_carried)
        carried = [name for name in facts.files or files_below(folder, READ) if not _is_written_anew(name)]
        files = {name: facts.files[name] for name in carried} if facts.files else described(folder, carried)
        with ParquetShards(partial, SHARD_ROWS) as shards:
            features = image_features(True, encoder.description["projection_dim"])
            for row, vector in zip(read_image_rows(images), embeds, strict=True):
                shards.add("images/images", features, row | {"image_embeds": vector})
        targets = {"space": space_of(encoder).as_dict()}
        files |= described(partial, files_below(partial, ["images/*"]))
        made = {"image_encoder": encoder.description, "targets": targets}
        save_metadata(partial, facts.as_dict() | made, dict(sorted(files.items())))


def _listed(values: object) -> list:
    """One value as a list of one."""
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _is_written_anew(name: str) -> bool:
    """Whether the embedded data set has a file of its own in place of this one, or none: the mean of embeddings."""
    return name.split("/")[0] in ("images", *NOT_LISTED, "embedding_mean.npz")


def _not_carried(folder: str, names: list[str]) -> list[str]:
    """What is not copied into the embedded data set."""
    return [name for name in names if _is_written_anew(name) or name.startswith(".cache")]


def _embed_unique(
    files: list[Path], rows: list[int], encoder: TargetEncoder, arguments: tuple, options: EmbedOptions, kept: Path
) -> np.ndarray:
    """Embeddings `(n_unique_images, projection_dim)`, in batches of fixed images; those in `kept` stay."""
    from tqdm import tqdm

    firsts = np.unique(rows, return_index=True)[1].tolist()  # the first row of each unique image
    batches = {f"images {start} to {start + len(some) - 1}": (kept / f"{start:09d}.npz", some)
               for start in range(0, len(firsts), options.batch_size)
               for some in [firsts[start : start + options.batch_size]]}  # fmt: skip
    width, found = encoder.description["projection_dim"], {}
    with tqdm(total=len(firsts), desc=f"embedding images with {encoder.description['name']}", unit="image") as bar:
        for name, (path, some) in batches.items():
            if (embeds := read_piece(path, (len(some), width))) is not None:
                found[name] = embeds
                bar.update(len(some))
        missing = {name: batch for name, batch in batches.items() if name not in found}
        here, description = n_processes(options.num_proc) == 1, json.dumps(encoder.description)
        opened = (lambda: encoder) if here else functools.partial(_opened, arguments, description)
        work = functools.partial(_embed_batch, files, opened)
        for name, embeds in run_units(work, missing, num_proc=options.num_proc):
            found[name] = embeds
            bar.update(len(embeds))
    return np.concatenate([found[name] for name in batches])


@functools.lru_cache(maxsize=1)  # once a process, not once a batch
def _opened(arguments: tuple, description: str) -> TargetEncoder:
    """The image encoder in another process, which must be the same one."""
    encoder = TargetEncoder(*arguments)
    if json.dumps(encoder.description) != description:
        raise DataError(
            f"Another process has another image encoder under the name {encoder.description['name']!r}: "
            f"{json.dumps(encoder.description)}, not {description}."
        )
    return encoder


def _embed_batch(files: list[Path], opened: Callable[[], TargetEncoder], batch: tuple[Path, list[int]]) -> np.ndarray:
    """Embed a batch of a data set and keep it."""
    encoder, (path, numbers) = opened(), batch
    rows = rows_at(files, numbers)
    embeds = encoder.encode([decoded(row, files[0].parents[1]) for row in rows])
    embeds = np.stack(
        [checked_embedding(vector, f"image {row['image_id']!r}") for row, vector in zip(rows, embeds, strict=True)]
    )
    write_piece(path, embeds)
    return embeds
