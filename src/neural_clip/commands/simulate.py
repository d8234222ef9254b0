"""Write simulated twins of the corpora in their raw formats.

A corpus appears whole or not at all; one that is there with the same preset, seed, dials and calibration is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.options import read_options
from neural_clip.options import option
from neural_clip.prepared.known_corpora import CORPUS_OF
from neural_clip.simulation.presets import PRESETS, get_preset
from neural_clip.simulation.simulate import simulate


@dataclass
class SimulateOptions:
    """Options of `neural-clip simulate`; [`simulate`] explains them."""

    output_dir: Path = option(MISSING, "parent of the folders imagenet_eeg, things_meg and nsd", type=Path)
    preset: str = option("demo", "sizes and difficulty; full fills a disk", choices=tuple(PRESETS))
    seed: int = option(0, "same seed, same bytes", type=int)
    corpora: Sequence[str] = option(tuple(CORPUS_OF), "which of them", choices=tuple(CORPUS_OF), nargs="+")
    overwrite: bool = option(False, "replace simulated corpora that differ")


def main(argv: Sequence[str] | None = None) -> dict[str, Path]:
    """Run `neural-clip simulate`; returns the raw folder of each modality."""
    (options,) = read_options("simulate", __doc__, argv, SimulateOptions)
    settings = vars(options)
    return simulate(settings.pop("output_dir"), get_preset(settings.pop("preset")), **settings)
