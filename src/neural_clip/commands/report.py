"""Options of `neural-clip report`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from neural_clip.report.tables import print_tables
from neural_clip.report.write import read_report, write_report


def main(argv: Sequence[str] | None = None) -> Path:
    """Run `neural-clip report`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", help="report.json that `neural-clip evaluate` wrote, or its folder")
    parser.add_argument("--no-pictures", action="store_true", help="leave the panels of retrieved images out")
    arguments = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    path = write_report(arguments.report, pictures=not arguments.no_pictures)
    print_tables(read_report(path.parent), path.parent)
    return path
