"""The picture of conversions shows the numbers of `report.json`, and the page holds it with a text."""

import copy
import html
import re

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from neural_clip import plot_conversion
from neural_clip.errors import DataError
from neural_clip.evaluation.outputs import read_report
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.report.conversion import conversion_text
from neural_clip.report.text import markdown


@pytest.fixture
def report(output_dir):
    """What the report of two modalities holds."""
    return read_report(output_dir)


@pytest.mark.parametrize(("by", "key", "divisor"), [
    ("target", "normalised", "denominator_two_way"), ("weaker", "normalised_by_weaker", "weaker_two_way"),
])  # fmt: skip
def test_cells_are_the_numbers_of_the_report(report, by, key, divisor):
    axes = plot_conversion(report, Figure().subplots(), by=by)
    told = {(text.get_position()): text.get_text() for text in axes.texts}
    parts = report["conversion"]
    assert len(parts) == 2 and len(told) == 3 * 3
    for row, part in enumerate(parts):
        name = f"{MODALITIES[part['source']].title} → {MODALITIES[part['target']].title}"
        chance = f"chance {0.5 / part[divisor]:.3f}, {part['n_recordings']} recordings"
        assert axes.get_yticklabels()[row].get_text() == f"{name}\n{chance}"
        for column, way in enumerate(part["ways"]):
            low, high = way[f"{key}_interval"]
            assert told[column, row] == f"{way[key]:.3f}\n[{low:.3f}, {high:.3f}]"
    for column, way in enumerate(("recordings", "mean recordings", "images")):
        assert axes.get_xticklabels()[column].get_text() == f"via {way}"
        assert told[column, 2] == f"{np.mean([part['ways'][column][key] for part in parts]):.3f}"
    assert "SIMULATED recordings" in axes.get_title()
    drawn = axes.images[0].get_array()
    assert drawn[0, 0] == parts[0]["ways"][0][key] and axes.images[0].get_cmap().name == "cividis"


def test_the_page_shows_it_with_a_text(output_dir, report):
    assert (output_dir / "pictures" / "conversion_ways.png").stat().st_size > 10_000
    text = conversion_text(report)
    mean = np.mean([part["ways"][1]["normalised"] for part in report["conversion"]])
    assert "mean of 2 directions: via recordings" in text and f"via mean recordings {mean:.3f} (from" in text
    page = (output_dir / "report.html").read_text()
    section = page.partition("Conversion by three ways</h2>")[2].partition("<h2>")[0]
    assert re.search(rf'src="data:image/png;base64,[^"]+" alt="{re.escape(html.escape(text))}"', section)
    assert page.count(html.escape(text)) == 1  # and not among the other pictures again


def test_ready_axes_and_a_file_are_taken(output_dir):
    pyplot.close("all")
    axes = plot_conversion(output_dir)
    assert pyplot.get_fignums() and axes.figure.axes[1].get_ylabel() == "divided 2-way score"
    pyplot.close("all")
    plot_conversion(output_dir / "report.json", Figure().subplots())
    assert not pyplot.get_fignums()


def test_a_direction_that_was_never_decoded_has_a_dash(report):
    changed = copy.deepcopy(report)
    for way in changed["conversion"][0]["ways"]:
        way |= {"normalised": None, "normalised_interval": None}
    changed["conversion"][0]["denominator_two_way"] = 0.0
    axes = plot_conversion(changed, Figure().subplots())
    told = {text.get_position(): text.get_text() for text in axes.texts}
    assert told[0, 0] == "-" and told[0, 2] == "-" and told[0, 1] != "-"
    assert "via recordings - (from" in conversion_text(changed)


def test_what_cannot_be_drawn_is_told(report, tmp_path):
    with pytest.raises(DataError, match="'by' parameter"):
        plot_conversion(report, by="source")
    with pytest.raises(DataError, match=r"'ax' parameter\. Allowed is axes of matplotlib"):
        plot_conversion(report, "conversion.png")
    with pytest.raises(DataError, match="'method' parameter"):
        plot_conversion(report, method="mine")
    before = copy.deepcopy(report)
    for part in before["conversion"]:
        del part["ways"]
    for without in (before, report | {"conversion": []}):
        with pytest.raises(DataError, match="no conversions by ways"):
            plot_conversion(without)
        assert "conversion_ways" not in markdown(without, {})
    with pytest.raises(DataError, match="report"):
        plot_conversion(tmp_path)
