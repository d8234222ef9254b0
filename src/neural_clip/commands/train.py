"""Options of `neural-clip train` and `train.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train


def main(argv: Sequence[str] | None = None) -> None:
    """Read a recipe with its overrides and train."""
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()  # opening a prepared data set is quick; the bar that matters is the training's
    train(read_recipe(sys.argv[1:] if argv is None else list(argv)))
