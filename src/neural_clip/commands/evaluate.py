"""Options of `neural-clip evaluate`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from neural_clip.commands.data_option import open_data_option
from neural_clip.evaluation.checkpoints import named_checkpoints
from neural_clip.evaluation.outputs import REPORT_FILE
from neural_clip.evaluation.protocols import PROTOCOLS
from neural_clip.evaluation.run import evaluate_checkpoints


def parser() -> argparse.ArgumentParser:
    """Arguments of `neural-clip evaluate`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", nargs="+", required=True, metavar="[NAME=]PATH",
        help="folders or Hub names of NeuralClipModels, with names for the tables; others are compared with the first",
    )  # fmt: skip
    parser.add_argument("--data", nargs="+", required=True, metavar="MODALITY=FOLDER", help="prepared data sets")
    parser.add_argument("--output-dir", required=True, help="folder for report.json, report.md and pictures")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default="strict", help="which scores the report puts first (default: strict)"
    )
    parser.add_argument("--no-baselines", action="store_true", help="leave the linear baselines out")
    parser.add_argument("--no-audits", action="store_true", help="leave the controls beside the scores out")
    parser.add_argument(
        "--understand", nargs="?", type=int, const=64, metavar="N",
        help="also show what was learned: similarity, time, sensor and voxel maps over N recordings (default: 64)",
    )  # fmt: skip
    parser.add_argument("--no-pictures", action="store_true", help="leave the panels of retrieved images out")
    parser.add_argument("--seed", type=int, default=0, help="of intervals and p-values (default: 0)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    return parser


def main(argv: Sequence[str] | None = None) -> dict:
    """Run `neural-clip evaluate`; returns the report."""
    from neural_clip.report.tables import print_tables
    from neural_clip.report.write import write_report

    arguments = parser().parse_args(argv)
    shown = shlex.join(["neural-clip", "evaluate", *(sys.argv[1:] if argv is None else argv)])
    report = evaluate_checkpoints(
        named_checkpoints(arguments.checkpoint),
        [open_data_option(argument) for argument in arguments.data],
        arguments.output_dir,
        split=arguments.split,
        baselines=not arguments.no_baselines,
        audits=not arguments.no_audits,
        understand=arguments.understand,
        protocol=arguments.protocol,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        device=arguments.device,
        command=shown,
    )
    path = write_report(Path(arguments.output_dir) / REPORT_FILE, pictures=not arguments.no_pictures)
    print_tables(report, path.parent)
    return report
