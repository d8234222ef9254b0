"""Options of `neural-clip embed-images`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from neural_clip.prepared.facts import Facts
from neural_clip.targets.embed_images import DEFAULT_MODEL, embed_images
from neural_clip.targets.identity import POOLINGS
from neural_clip.targets.tiny_clip import TINY_CLIP


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
    encoder = Facts.read(folder).image_encoder or {}
    print(f"{folder}: embedded with {encoder['name']} ({encoder['projection_dim']}-d, {encoder['pooling']})")
    return folder
