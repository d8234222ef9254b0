"""Confidence against what happened: how often first hits are right, by the probability that was given for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neural_clip.report.intervals import write_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# colours that stay apart for colour-blind readers; a marker shape goes with each
STYLES = (("#0072b2", "D"), ("#e69f00", "o"), ("#009e73", "s"), ("#cc79a7", "^"), ("#56b4e9", "v"), ("#000000", "P"))
INCHES = 3.6
LARGEST = 120.0  # area of the marker of the bin that holds most queries, in square points


def draw_reliability(axes: Axes, records: Sequence[dict], title: str) -> None:
    """Draw the bins of each method: mean confidence, share of right first hits, and a marker as large as the bin.

    Args:
        axes (`matplotlib.axes.Axes`): Drawn into.
        records (sequence of `dict`): What [`calibration.calibration_record`] gives, with `method`.
        title (`str`): Above the picture; says what is simulated.
    """
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=0.8, label="as often as stated")
    for number, record in enumerate(records):
        colour, marker = STYLES[number % len(STYLES)]
        confidence, right, counts = ([part[name] for part in record["bins"]]
                                     for name in ("confidence", "right", "n_queries"))  # fmt: skip
        line = {"color": colour, "marker": marker, "markersize": 3, "linewidth": 0.7, "label": record["method"]}
        axes.plot(confidence, right, **line)
        areas = [max(LARGEST * count / max(counts), 6.0) for count in counts]
        axes.scatter(confidence, right, s=areas, color=colour, marker=marker, clip_on=False, zorder=3)
    axes.legend(fontsize=7, loc="upper left")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("confidence in the first hit", fontsize=8)
    axes.set_ylabel("share that is right", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=9)


def write_reliability(records: Sequence[dict], title: str, path: Path) -> None:
    """Draw a modality into a PNG file, written aside and renamed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(INCHES, INCHES))
    draw_reliability(figure.subplots(), records, title)
    write_picture(figure, path, bbox_inches="tight")
