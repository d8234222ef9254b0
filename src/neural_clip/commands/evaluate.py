"""Score checkpoints on the test splits of prepared data sets: decoding, encoding and conversion.

With several checkpoints the first is the one that the report is about: it must have an encoder for every data set, the
controls and pictures are its own, and the others are compared with it, query by query.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.commands.options import option, read_options
from neural_clip.evaluation.protocols import PROTOCOLS


@dataclass
class EvaluateOptions:
    """Options of `neural-clip evaluate`; [`evaluate_checkpoints`] explains them."""

    checkpoint: Sequence[str] = option(
        "folders or Hub names of NeuralClipModels, with names for the tables; others are compared with the first",
        nargs="+", metavar="[NAME=]PATH",
    )  # fmt: skip
    data: Sequence[str] = option("prepared data sets", nargs="+", metavar="MODALITY=FOLDER")
    output_dir: Path = option("folder for report.json, report.md and pictures", type=Path, metavar="FOLDER")
    split: str = option("the recordings that are scored", "test", choices=("train", "validation", "test"))
    protocol: str = option("which scores the report puts first", "strict", choices=tuple(PROTOCOLS))
    baselines: bool = option("linear baselines beside the checkpoints", True)
    controls: bool = option("controls beside the scores", True)
    understand: int | None = option(
        "also show what was learned: similarity, time, sensor and voxel maps over N recordings, 64 unless N is given",
        None, nargs="?", type=int, const=64, metavar="N",
    )  # fmt: skip
    pictures: bool = option("panels of retrieved images, and of intervals", True)
    seed: int = option("of intervals and p-values", 0, type=int, metavar="N")
    batch_size: int = option("recordings a forward pass", 64, type=int, metavar="N")
    device: str = option("where the model computes, cpu or cuda", "cpu")


def main(argv: Sequence[str] | None = None) -> dict:
    """Run `neural-clip evaluate`; returns the report."""
    (options,) = read_options("evaluate", __doc__, argv, EvaluateOptions)
    from neural_clip.evaluation.checkpoints import named_checkpoints
    from neural_clip.evaluation.outputs import REPORT_FILE
    from neural_clip.evaluation.run import evaluate_checkpoints
    from neural_clip.prepared.reader import folder_of
    from neural_clip.report.tables import print_tables
    from neural_clip.report.write import write_report

    settings = vars(options)
    output_dir, pictures = settings.pop("output_dir"), settings.pop("pictures")
    report = evaluate_checkpoints(
        named_checkpoints(settings.pop("checkpoint")),
        [folder_of(argument) for argument in settings.pop("data")],
        output_dir,
        audits=settings.pop("controls"),
        **settings,
        command=shlex.join(["neural-clip", "evaluate", *(sys.argv[1:] if argv is None else argv)]),
    )
    path = write_report(output_dir / REPORT_FILE, pictures=pictures)
    print_tables(report, path.parent)
    return report
