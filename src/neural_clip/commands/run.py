"""Go from your own recordings, or from prepared data sets, to a page of scores in one go.

SOURCE is a manifest (see `neural-clip prepare custom`) or a prepared data set. Several manifests hold one modality
each; prepared data sets of one modality are of different corpora. The steps are those of the other commands: prepare,
embed-images, doctor, train, evaluate with baselines, report. The same command, given again, goes on where a run was
interrupted: what is whole is kept, training goes on from its last state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.options import ClusterOptions, read_options, words_of
from neural_clip.files.places import place_line
from neural_clip.options import option
from neural_clip.parallel import on_cluster
from neural_clip.workflow.options import RunOptions


@dataclass
class Places:
    """What is read and where it goes."""

    sources: Sequence[str] = option(
        MISSING, "manifests, or prepared data sets", positional=True, nargs="+", metavar="SOURCE"
    )
    output_dir: Path = option(MISSING, "folder for data, checkpoint and evaluation", type=Path)


def main(argv: Sequence[str] | None = None) -> Path:
    """Run `neural-clip run`; returns the folder of everything."""
    given, options, where = read_options("run", __doc__, argv, Places, RunOptions, ClusterOptions)
    from neural_clip.evaluation.outputs import read_report
    from neural_clip.files.bars import only_our_bars
    from neural_clip.files.privacy import shared_command
    from neural_clip.report.tables import print_tables
    from neural_clip.workflow.run import run_workflow

    only_our_bars()
    command = shared_command("neural-clip run", words_of(argv))
    with on_cluster(where.cluster):
        folder = run_workflow(given.sources, given.output_dir, options, command=command)
    print_tables(read_report(folder / "evaluation"), folder / "evaluation")
    for path in sorted((folder / "data").glob("*/neural_clip.json")):
        print(place_line("data", path.parent))
    return folder
