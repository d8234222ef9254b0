"""`neural-clip gallery build` and `neural-clip gallery info`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.options import read_options
from neural_clip.files.places import place_line
from neural_clip.gallery.options import BuildOptions
from neural_clip.options import option

ABOUT_BUILD = """Embed images or recordings and save them as a gallery, which is searched without embedding them again.

Images are those of folders or prepared data sets, recordings those of prepared data sets. Pictures are not copied. A
gallery of recordings holds embeddings of recordings of people: share it by the terms of their data set.
"""
ABOUT_INFO = """Tell what a saved gallery holds and what made it, once its files are those that were written."""


@dataclass
class BuildArguments:
    """What is embedded, by what, and where it goes."""

    sources: Sequence[str] = option(
        MISSING, "folders of images, or prepared data sets", positional=True, nargs="+", metavar="SOURCE"
    )
    checkpoint: str = option(MISSING, "folder or Hub name of a NeuralClipModel", metavar="PATH")
    output_dir: Path = option(MISSING, "folder of the gallery", type=Path)


@dataclass
class InfoArguments:
    """Which gallery, and how it is told."""

    folder: str = option(MISSING, "saved gallery, or its name on the Hub", positional=True, metavar="GALLERY")
    json: bool = option(False, "print JSON, and nothing else, to stdout")


def main(action: str, argv: Sequence[str] | None = None) -> object:
    """Run `neural-clip gallery build` or `info`; returns the folder, or what is told of it."""
    return build(argv) if action == "build" else info(argv)


def build(argv: Sequence[str] | None) -> Path:
    """Embed and save."""
    given, options = read_options("gallery build", ABOUT_BUILD, argv, BuildArguments, BuildOptions)
    from neural_clip.files.bars import only_our_bars
    from neural_clip.queries.galleries import build_gallery

    only_our_bars()
    folder = build_gallery(given.sources, given.checkpoint, given.output_dir, options)
    print(place_line("gallery", folder))
    return folder


def info(argv: Sequence[str] | None) -> dict:
    """Tell what is there."""
    (given,) = read_options("gallery info", ABOUT_INFO, argv, InfoArguments)
    from neural_clip.queries.galleries import facts_of_gallery, in_lines

    facts = facts_of_gallery(given.folder)
    print(json.dumps(facts, indent=2, ensure_ascii=False) if given.json else in_lines(facts))
    return facts
