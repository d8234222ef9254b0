"""Write simulated twins of the corpora in their raw formats.

A corpus appears whole or not at all; one that is there with the same preset, seed, dials and calibration is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.options import read_options
from neural_clip.files.places import place_line
from neural_clip.options import option
from neural_clip.simulation.options import SimulateOptions
from neural_clip.simulation.presets import PRESETS, get_preset
from neural_clip.simulation.simulate import simulate


@dataclass
class Arguments:
    """Where to, and how large."""

    output_dir: Path = option(MISSING, "parent of the folders of the corpora, such as imagenet_eeg", type=Path)
    preset: str = option("demo", "sizes and difficulty; full fills a disk", choices=PRESETS)


def main(argv: Sequence[str] | None = None) -> dict[str, Path]:
    """Run `neural-clip simulate`; returns the raw folder of each corpus."""
    given, options = read_options("simulate", __doc__, argv, Arguments, SimulateOptions)
    folders = simulate(given.output_dir, get_preset(given.preset), options)
    for folder in folders.values():
        print(place_line("raw files", folder))
    return folders
