"""Score checkpoints on the test splits of prepared data sets: decoding, encoding and conversion.

With several checkpoints the first is the one that the report is about: it must have an encoder for every data set, the
controls and pictures are its own, and the others are compared with it, query by query. Several data sets of one
modality (`--data eeg=A eeg=B`) are of different corpora, and each is scored by itself. `torchrun --nproc_per_node 2
--no-python neural-clip evaluate ...` embeds the recordings in two processes; `--num-proc 2` fits the baselines in two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.options import ClusterOptions, named_checkpoints, open_data_set, read_options, words_of
from neural_clip.evaluation.options import EvaluateOptions
from neural_clip.files.whole import only_writer
from neural_clip.options import option
from neural_clip.parallel import on_cluster


@dataclass
class Arguments:
    """What is scored, on what, and what is written."""

    checkpoint: Sequence[str] = option(
        MISSING,
        "folders or Hub names of NeuralClipModels, with names for the tables; others are compared with the first",
        nargs="+", metavar="[NAME=]PATH",
    )  # fmt: skip
    data: Sequence[str] = option(MISSING, "prepared data sets", nargs="+", metavar="MODALITY=FOLDER")
    output_dir: Path = option(MISSING, "folder for report.json, report.md and pictures", type=Path)
    pictures: bool = option(True, "draw panels of retrieved images, and of intervals")


def main(argv: Sequence[str] | None = None) -> dict:
    """Run `neural-clip evaluate`; returns the report."""
    given, options, where = read_options("evaluate", __doc__, argv, Arguments, EvaluateOptions, ClusterOptions)
    from neural_clip.evaluation.checkpoints import MOST_KEPT
    from neural_clip.evaluation.outputs import REPORT_FILE
    from neural_clip.evaluation.processes import rank_and_count
    from neural_clip.evaluation.run import evaluate_checkpoints
    from neural_clip.files.bars import only_our_bars
    from neural_clip.files.privacy import shared_command
    from neural_clip.prepared.several import in_report
    from neural_clip.report.tables import print_tables
    from neural_clip.report.write import write_report

    checkpoints = named_checkpoints(given.checkpoint)
    data = [open_data_set(argument, "--data", options.streaming, MOST_KEPT) for argument in given.data]
    only_our_bars()
    command = shared_command("neural-clip evaluate", words_of(argv))
    if rank_and_count()[0] > 0:  # the first process of a launcher writes and prints
        return evaluate_checkpoints(checkpoints, data, given.output_dir, options)
    with only_writer(given.output_dir / REPORT_FILE), on_cluster(where.cluster):
        report = evaluate_checkpoints(checkpoints, data, given.output_dir, options, command=command)
        path = write_report(given.output_dir, pictures=given.pictures, data=in_report(data))
    print_tables(report, path.parent)
    return report
