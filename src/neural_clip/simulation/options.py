"""Options of [`simulate`] and of `neural-clip simulate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neural_clip.options import Options, option
from neural_clip.prepared.known_corpora import CORPUS_OF


@dataclass(frozen=True, kw_only=True)
class SimulateOptions(Options):
    """Options of [`simulate`]; the help of a field says what it does."""

    seed: int = option(0, "same seed, same bytes", type=int, least=0)
    corpora: Sequence[str] = option(tuple(CORPUS_OF), "which of them", choices=tuple(CORPUS_OF), nargs="+")
    overwrite: bool = option(False, "replace simulated corpora that differ")
