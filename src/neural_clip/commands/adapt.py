"""Fit an alignment layer for subjects whom a model has not seen, and change nothing else.

Everything that the checkpoint holds stays as it is, bit for bit. Of a data set's subjects those are fitted whom the
checkpoint does not know by name, so different subjects need different names.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.data_option import open_data_option
from neural_clip.commands.options import read_options
from neural_clip.options import option
from neural_clip.prepared.known_corpora import CORPORA


@dataclass
class AdaptOptions:
    """Options of `neural-clip adapt`; [`adapt`] explains them."""

    checkpoint: str = option(MISSING, "checkpoint to start from, left as it is", metavar="FOLDER")
    data: str = option(MISSING, "prepared data set of the new subjects", metavar="MODALITY=FOLDER")
    output_dir: Path = option(MISSING, "folder of the new checkpoint", type=Path)
    subjects: Sequence[str] | None = option(
        None, "such as sub-01 sub-02; default all not known yet", nargs="+", metavar="SUBJECT"
    )
    epochs: int = option(30, "of which the best by validation is kept", type=int)
    learning_rate: float = option(3e-3, "at the start; it falls as a cosine", type=float, metavar="RATE")
    batch_size: int = option(32, "recordings a step", type=int)
    train_fraction: float = option(
        1.0, "share of each subject's training recordings that is used, drawn at random", type=float,
        metavar="SHARE", apart="amount",
    )  # fmt: skip
    minutes: float | None = option(
        None, "the first training recordings of each subject that fit into so many minutes of trials; a random choice "
        "where the data set does not know the order of presentation", type=float, metavar="MINUTES", apart="amount",
    )  # fmt: skip
    seconds_per_trial: float | None = option(
        None, f"from one onset to the next, known for {', '.join(CORPORA)}", type=float, metavar="SECONDS"
    )
    seed: int = option(0, "of the order of batches and of what is drawn", type=int)
    overwrite: bool = option(False, "replace a checkpoint in the output folder")


def main(argv: Sequence[str] | None = None) -> Path:
    """Run `neural-clip adapt`; returns the folder of the new checkpoint."""
    (options,) = read_options("adapt", __doc__, argv, AdaptOptions)
    from datasets.utils.logging import disable_progress_bar

    from neural_clip.training.adapt import adapt

    disable_progress_bar()
    settings = vars(options)
    return adapt(
        settings.pop("checkpoint"),
        open_data_option(settings.pop("data")),
        settings.pop("output_dir"),
        **settings,
        command=shlex.join(["neural-clip", "adapt", *(sys.argv[1:] if argv is None else argv)]),
    )
