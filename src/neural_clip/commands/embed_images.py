"""Embed the images of a prepared data set with a frozen CLIP vision tower.

Training reads the embeddings and needs neither the tower nor the pixels. A run that was interrupted goes on where it
stopped; the folder itself is replaced as a whole at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.options import read_options
from neural_clip.options import option
from neural_clip.targets.identity import POOLINGS


@dataclass
class EmbedOptions:
    """Options of `neural-clip embed-images`; [`embed_images`] explains them."""

    folder: Path = option(MISSING, "prepared data set", type=Path, positional=True)
    model: Sequence[str] | None = option(
        None, "names on the Hub or model folders; default neural_clip/tiny-clip for simulated data sets and "
        "openai/clip-vit-large-patch14 for others; several are normalised and concatenated", nargs="+",
    )  # fmt: skip
    pooling: Sequence[str] = option(
        POOLINGS[:1], "CLIP's embedding or the class token of the last layer; one for all models or each",
        choices=POOLINGS, nargs="+",
    )  # fmt: skip
    revision: Sequence[str] = option(
        ("",), "branch, tag or commit on the Hub, '' for none; one for all models or each", nargs="+"
    )
    blur: float | None = option(
        None, "blur the images: sigma as a share of the shorter side, up to 1", type=float, metavar="SHARE"
    )
    batch_size: int = option(64, "images a forward pass", type=int)
    device: str | None = option(None, "where the tower computes; default cuda where there is one, else cpu")
    overwrite: bool = option(False, "replace embeddings that are already there")


def main(argv: Sequence[str] | None = None) -> Path:
    """Run `neural-clip embed-images`."""
    (options,) = read_options("embed-images", __doc__, argv, EmbedOptions)
    from neural_clip.prepared.facts import Facts
    from neural_clip.targets.embed_images import embed_images

    settings = vars(options)
    settings["revision"] = [name or None for name in settings["revision"]]
    folder = embed_images(settings.pop("folder"), settings.pop("model"), **settings)
    encoder = Facts.read(folder).image_encoder or {}
    print(f"{folder}: embedded with {encoder['name']} ({encoder['projection_dim']}-d, {encoder['pooling']})")
    return folder
