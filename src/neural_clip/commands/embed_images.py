"""Embed the images of a prepared data set with a frozen CLIP vision tower.

Training reads the embeddings and needs neither the tower nor the pixels. A run that was interrupted goes on where it
stopped; the folder itself is replaced as a whole at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.options import ClusterOptions, read_options
from neural_clip.files.places import place_line
from neural_clip.options import option
from neural_clip.parallel import on_cluster
from neural_clip.targets.options import EmbedOptions


@dataclass
class Arguments:
    """Which images, and by which models."""

    folder: Path = option(MISSING, "prepared data set", type=Path, positional=True)
    model: Sequence[str] | None = option(
        None, "names on the Hub or model folders; default neural_clip/tiny-clip for simulated data sets and "
        "openai/clip-vit-large-patch14 for others; several are normalised and concatenated", nargs="+",
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> Path:
    """Run `neural-clip embed-images`."""
    given, options, where = read_options("embed-images", __doc__, argv, Arguments, EmbedOptions, ClusterOptions)
    from neural_clip.files.bars import only_our_bars
    from neural_clip.prepared.facts import Facts
    from neural_clip.targets.embed_images import embed_images

    only_our_bars()
    with on_cluster(where.cluster):
        folder = embed_images(given.folder, given.model, options)
    encoder = Facts.read(folder).image_encoder or {}
    print(f"embedded with {encoder['name']} ({encoder['projection_dim']}-d, {encoder['pooling']})", file=sys.stderr)
    print(place_line("data", folder))
    return folder
