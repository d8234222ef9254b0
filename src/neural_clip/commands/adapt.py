"""Options of `neural-clip adapt`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from neural_clip.commands.data_option import open_data_option
from neural_clip.prepared.known_corpora import TRIAL_SECONDS
from neural_clip.training.adapt import BATCH_SIZE, EPOCHS, LEARNING_RATE, adapt


def main(argv: Sequence[str] | None = None) -> Path:
    """Run `neural-clip adapt`; returns the folder of the new checkpoint."""
    from datasets.utils.logging import disable_progress_bar

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", required=True, metavar="FOLDER", help="checkpoint to start from, left as it is"
    )
    parser.add_argument("--data", required=True, metavar="MODALITY=FOLDER", help="prepared data set of the new people")
    parser.add_argument("--subjects", nargs="+", metavar="SUBJECT", help="whom to fit (default: all not known yet)")
    parser.add_argument("--output-dir", required=True, metavar="FOLDER", help="folder of the new checkpoint")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"of which the best is kept (default: {EPOCHS})")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE, help=f"(default: {LEARNING_RATE})")
    parser.add_argument(
        "--batch-size", type=int, default=BATCH_SIZE, help=f"recordings a step (default: {BATCH_SIZE})"
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--train-fraction", type=float, default=1.0, metavar="F",
        help="share of each person's training recordings that is used, drawn at random (default: 1)",
    )  # fmt: skip
    amount.add_argument(
        "--minutes", type=float, metavar="M",
        help="the first training recordings of each person that fit into M minutes of trials; a random choice where "
        "the data set does not know the order of presentation",
    )  # fmt: skip
    parser.add_argument(
        "--seconds-per-trial", type=float, metavar="S",
        help=f"from one onset to the next (known for {', '.join(TRIAL_SECONDS)})",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint in the output folder")
    arguments = parser.parse_args(argv)
    disable_progress_bar()
    return adapt(
        arguments.checkpoint,
        open_data_option(arguments.data),
        arguments.output_dir,
        subjects=arguments.subjects,
        epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        batch_size=arguments.batch_size,
        train_fraction=arguments.train_fraction,
        minutes=arguments.minutes,
        seconds_per_trial=arguments.seconds_per_trial,
        seed=arguments.seed,
        overwrite=arguments.overwrite,
        command=shlex.join(["neural-clip", "adapt", *(sys.argv[1:] if argv is None else argv)]),
    )
