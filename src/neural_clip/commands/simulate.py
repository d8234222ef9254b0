"""Write simulated twins of the corpora in their raw formats.

A corpus appears whole or not at all; one that is there with the same preset, seed, dials and calibration is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.commands.options import option, read_options
from neural_clip.simulation.presets import PRESETS, get_preset
from neural_clip.simulation.simulate import CORPORA, simulate


@dataclass
class SimulateOptions:
    """Options of `neural-clip simulate`; [`simulate`] explains them."""

    output_dir: Path = option("parent of the folders imagenet_eeg, things_meg and nsd", type=Path, metavar="FOLDER")
    preset: str = option("sizes and difficulty; full fills a disk", "demo", choices=tuple(PRESETS))
    seed: int = option("same seed, same bytes", 0, type=int, metavar="N")
    corpora: Sequence[str] = option("which of them", tuple(CORPORA), choices=tuple(CORPORA), nargs="+")
    overwrite: bool = option("replace simulated corpora that differ", False)


def main(argv: Sequence[str] | None = None) -> dict[str, Path]:
    """Run `neural-clip simulate`; returns the raw folder of each modality."""
    (options,) = read_options("simulate", __doc__, argv, SimulateOptions)
    settings = vars(options)
    return simulate(settings.pop("output_dir"), get_preset(settings.pop("preset")), **settings)
