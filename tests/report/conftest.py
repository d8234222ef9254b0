"""A report that the tests of its text, tables and pictures read."""

import pytest

from neural_clip.report.write import write_report
from planted_reports import make_report


@pytest.fixture(scope="session")
def output_dir(tmp_path_factory):
    """A written evaluation of two simulated modalities, with pictures."""
    folder = make_report(tmp_path_factory.mktemp("report"))
    write_report(folder / "report.json")
    return folder
