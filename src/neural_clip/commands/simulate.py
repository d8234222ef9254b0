"""Options of `neural-clip simulate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from neural_clip.prepared.known_corpora import CORPUS_OF
from neural_clip.simulation.presets import PRESETS, get_preset
from neural_clip.simulation.simulate import simulate


def main(argv: Sequence[str] | None = None) -> dict[str, Path]:
    """Run `neural-clip simulate`.

    Args:
        argv (`Sequence[str]`, *optional*): Arguments without the program's name.

    Returns:
        `dict[str, Path]`: Raw folder of each modality.
    """
    parser = argparse.ArgumentParser(
        prog="neural-clip simulate", description="Write simulated twins of the corpora in their raw formats."
    )
    parser.add_argument("--preset", choices=PRESETS, default="demo", help="size (default: demo; full fills a disk)")
    parser.add_argument("--output-dir", required=True, help="parent of the folders imagenet_eeg, things_meg and nsd")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: 0)")
    parser.add_argument("--corpora", nargs="+", choices=list(CORPUS_OF), default=list(CORPUS_OF), help="default: all")
    parser.add_argument("--overwrite", action="store_true", help="replace simulated corpora that differ")
    args = parser.parse_args(argv)
    return simulate(args.output_dir, get_preset(args.preset), args.seed, args.corpora, args.overwrite)
