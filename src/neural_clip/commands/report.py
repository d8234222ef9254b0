"""Turn report.json into report.md, report.html and pictures, and print the tables.

Every number is read from report.json; nothing is computed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.options import open_data_set, read_options
from neural_clip.options import option


@dataclass
class ReportOptions:
    """Options of `neural-clip report`."""

    report: str = option(MISSING, "report.json that `neural-clip evaluate` wrote, or its folder", positional=True)
    pictures: bool = option(True, "panels of retrieved images, and of intervals")
    data: Sequence[str] | None = option(
        None, "data sets whose images are shown, where the report does not find them by itself", nargs="+",
        metavar="MODALITY=FOLDER",
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> Path:
    """Run `neural-clip report`."""
    (options,) = read_options("report", __doc__, argv, ReportOptions)
    from neural_clip.evaluation.outputs import read_report
    from neural_clip.files.bars import only_our_bars
    from neural_clip.prepared.several import in_report
    from neural_clip.report.tables import print_tables
    from neural_clip.report.write import write_report

    if options.pictures:  # nothing else reads rows, and to keep libraries quiet they are imported
        only_our_bars()
    data = in_report(map(open_data_set, options.data or ()))
    path = write_report(options.report, pictures=options.pictures, data=data)
    print_tables(read_report(path.parent), path.parent)
    return path
