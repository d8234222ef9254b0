"""Score checkpoints on the test splits of prepared data sets: decoding, encoding and conversion.

With several checkpoints the first is the one that the report is about: it must have an encoder for every data set, the
controls and pictures are its own, and the others are compared with it, query by query.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.data_option import open_data_option
from neural_clip.commands.options import read_options
from neural_clip.evaluation.protocols import PROTOCOLS
from neural_clip.options import option


@dataclass
class EvaluateOptions:
    """Options of `neural-clip evaluate`; [`evaluate_checkpoints`] explains them."""

    checkpoint: Sequence[str] = option(
        MISSING,
        "folders or Hub names of NeuralClipModels, with names for the tables; others are compared with the first",
        nargs="+", metavar="[NAME=]PATH",
    )  # fmt: skip
    data: Sequence[str] = option(MISSING, "prepared data sets", nargs="+", metavar="MODALITY=FOLDER")
    output_dir: Path = option(MISSING, "folder for report.json, report.md and pictures", type=Path)
    split: str = option("test", "the recordings that are scored", choices=("train", "validation", "test"))
    protocol: str = option("strict", "which scores the report puts first", choices=tuple(PROTOCOLS))
    baselines: bool = option(True, "linear baselines beside the checkpoints")
    controls: bool = option(True, "controls beside the scores")
    understand: int | None = option(
        None, "also show what was learned: similarity, time, sensor and voxel maps over N recordings, 64 unless given",
        nargs="?", type=int, const=64,
    )  # fmt: skip
    pictures: bool = option(True, "panels of retrieved images, and of intervals")
    seed: int = option(0, "of intervals and p-values", type=int)
    batch_size: int = option(64, "recordings a forward pass", type=int)
    device: str = option("cpu", "where the model computes, cpu or cuda")


def main(argv: Sequence[str] | None = None) -> dict:
    """Run `neural-clip evaluate`; returns the report."""
    (options,) = read_options("evaluate", __doc__, argv, EvaluateOptions)
    from neural_clip.evaluation.checkpoints import named_checkpoints
    from neural_clip.evaluation.outputs import REPORT_FILE
    from neural_clip.evaluation.run import evaluate_checkpoints
    from neural_clip.report.tables import print_tables
    from neural_clip.report.write import write_report

    settings = vars(options)
    output_dir, pictures = settings.pop("output_dir"), settings.pop("pictures")
    report = evaluate_checkpoints(
        named_checkpoints(settings.pop("checkpoint")),
        [open_data_option(argument) for argument in settings.pop("data")],
        output_dir,
        **settings,
        command=shlex.join(["neural-clip", "evaluate", *(sys.argv[1:] if argv is None else argv)]),
    )
    path = write_report(output_dir / REPORT_FILE, pictures=pictures)
    print_tables(report, path.parent)
    return report
