"""Embed the images of a prepared data set with a frozen CLIP vision tower.

Training reads the embeddings and needs neither the tower nor the pixels. A run that was interrupted goes on where it
stopped; the folder itself is replaced as a whole at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.commands.options import option, read_options
from neural_clip.targets.identity import POOLINGS


@dataclass
class EmbedOptions:
    """Options of `neural-clip embed-images`; [`embed_images`] explains them."""

    folder: Path = option("prepared data set", type=Path, positional=True)
    model: Sequence[str] | None = option(
        "names on the Hub or model folders, by default neural_clip/tiny-clip for simulated data sets and "
        "openai/clip-vit-large-patch14 for others; several are normalised and concatenated", None, nargs="+",
    )  # fmt: skip
    pooling: Sequence[str] = option(
        "CLIP's embedding or the class token of the last layer; one for all models or each", POOLINGS[:1],
        choices=POOLINGS, nargs="+",
    )  # fmt: skip
    revision: Sequence[str] = option(
        "branch, tag or commit on the Hub, '' for none; one for all models or each", ("",), nargs="+"
    )
    blur: float | None = option(
        "blur the images: sigma as a share of the shorter side, up to 1", None, type=float, metavar="SHARE"
    )
    batch_size: int = option("images a forward pass", 64, type=int, metavar="N")
    device: str | None = option("where the tower computes, cuda by default where there is one, else cpu", None)
    overwrite: bool = option("replace embeddings that are already there", False)


def main(argv: Sequence[str] | None = None) -> Path:
    """Run `neural-clip embed-images`."""
    (options,) = read_options("embed-images", __doc__, argv, EmbedOptions)
    from neural_clip.prepared.facts import read_metadata
    from neural_clip.targets.embed_images import embed_images

    settings = vars(options)
    settings["revision"] = [name or None for name in settings["revision"]]
    folder = embed_images(settings.pop("folder"), settings.pop("model"), **settings)
    encoder = read_metadata(folder)["image_encoder"]
    print(f"{folder}: embedded with {encoder['name']} ({encoder['projection_dim']}-d, {encoder['pooling']})")
    return folder
