"""How well recordings were converted, direction by direction and way by way, drawn from `report.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.errors import DataError, check_option
from neural_clip.evaluation.outputs import read_report
from neural_clip.gallery.cells import axes_of
from neural_clip.prepared.modalities import title_of
from neural_clip.report.tables import method_name, score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEYS = {"target": "normalised", "weaker": "normalised_by_weaker"}
DIVISORS = {"target": "decoding of the target", "weaker": "the weaker decoding of source and target"}
COLOURS, DARKEST = "cividis", 0.5  # a colour map for colour-blind readers; the value of its dark end
CELL_INCHES, LABEL_INCHES = (1.55, 0.5), 3.2


def plot_conversion(
    report: Mapping[str, Any] | str | Path, ax: Axes | None = None, *, by: str = "target", method: str | None = None
) -> Axes:
    """Draw the scores of `evaluate` for conversion: a row for each direction, a column for each way.

    A cell holds the 2-way score divided by that of decoding, and its 95 % interval, which carries the uncertainty of
    the numerator only. The last row is the mean of the directions.

    Args:
        report (`dict`, `str` or `Path`): What `report.json` holds, or the file, or its folder.
        ax (`matplotlib.axes.Axes`, *optional*): Drawn into; by default a new figure of `pyplot`.
        by (`str`, defaults to `"target"`): What scores are divided by: decoding of the `"target"`, or the `"weaker"`
            of source and target.
        method (`str`, *optional*): Name of the checkpoint; by default the first of the report.

    Returns:
        `matplotlib.axes.Axes`: What was drawn into.

    Raises:
        DataError: If the report cannot be read, or has no conversions by ways, or `ax` is no axes.
    """
    check_option("by", by, KEYS)
    if not isinstance(report, Mapping):
        report = read_report(report)
    directions, ways, values, intervals = _cells(report, KEYS[by], method)
    ax = axes_of(ax, _inches(values))
    highest = max(1.0, float(np.nanmax(values, initial=1.0)))
    drawn = ax.imshow(values, cmap=COLOURS, vmin=DARKEST, vmax=highest, aspect="auto")
    for row, column in np.ndindex(values.shape):
        value, interval = values[row, column], intervals[row][column]
        told = _told(float(value)) + ("\n[{:.3f}, {:.3f}]".format(*interval) if interval else "")
        bright = value > DARKEST + 0.55 * (highest - DARKEST) or np.isnan(value)
        ax.text(column, row, told, ha="center", va="center", fontsize=8, color="black" if bright else "white")
    ax.set_xticks(range(len(ways)), [f"via {way}" for way in ways], fontsize=8)
    ax.set_yticks(range(len(values)), [*directions, f"mean of {len(directions)}"], fontsize=8)
    ax.axhline(len(directions) - 0.5, color="white", linewidth=3)
    ax.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(drawn, ax=ax, label="divided 2-way score", shrink=0.8)
    simulated = ", SIMULATED recordings" if report["simulated"] else ""
    named = method_name(method or report["checkpoints"][0]["name"])
    title = f"Conversion by {named}{simulated}:\n2-way score divided by {DIVISORS[by]} [95 % interval]"
    ax.set_title(title, fontsize=9, pad=8, parse_math=False)
    return ax


def conversion_figure(report: Mapping[str, Any]) -> Figure:
    """What [`plot_conversion`] shows by default, as a figure that `pyplot` knows nothing of."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_inches(_cells(report, KEYS["target"], None)[2]), layout="constrained")
    plot_conversion(report, figure.subplots())
    return figure


def _inches(values: np.ndarray) -> tuple[float, float]:
    """Width and height of the picture of these cells."""
    return LABEL_INCHES + CELL_INCHES[0] * values.shape[1], 1.2 + CELL_INCHES[1] * len(values)


def conversion_text(report: Mapping[str, Any]) -> str:
    """What [`plot_conversion`] shows, in a sentence: the mean of each way, and the worst and the best direction."""
    directions, ways, values, _ = _cells(report, KEYS["target"], None)
    told = [
        f"via {way} {_told(mean)} (from {_told(own.min())} to {_told(own.max())})"
        for way, mean, own in zip(ways, values[-1], values[:-1].T, strict=True)
    ]
    return (
        f"Conversion by ways: 2-way scores divided by {DIVISORS['target']}, mean of {len(directions)} directions: "
        f"{'; '.join(told)}"
    )


def _told(value: float) -> str:
    """Three digits, or a dash."""
    return score(None if np.isnan(value) else value)


def has_ways(report: Mapping[str, Any]) -> bool:
    """Whether a report has conversions by ways; those of earlier versions have not."""
    return any(part.get("ways") for part in report["conversion"])


def _cells(
    report: Mapping[str, Any], key: str, method: str | None
) -> tuple[list[str], list[str], np.ndarray, list[list[Any]]]:
    """Directions, ways, scores `(n_directions + 1, n_ways)` with their mean last, and intervals or `None`."""
    if not has_ways(report):
        raise DataError(
            "The report has no conversions by ways: it is of one modality, or of an earlier version. Run "
            "`neural-clip evaluate` with data sets of two modalities."
        )
    known = list(dict.fromkeys(part["method"] for part in report["conversion"]))
    check_option("method", method or known[0], known)
    parts = [part for part in report["conversion"] if part["method"] == (method or known[0])]
    ways = list(dict.fromkeys(way["via"] for part in parts for way in part["ways"]))
    by_way = [{way["via"]: way for way in part["ways"]} for part in parts]
    rows = [[found.get(way, {}).get(key) for way in ways] for found in by_way]
    intervals = [[found.get(way, {}).get(f"{key}_interval") for way in ways] for found in by_way]
    values = np.array(rows, dtype=float)  # None becomes NaN
    divisor = {"normalised": "denominator_two_way", "normalised_by_weaker": "weaker_two_way"}[key]
    directions = [
        f"{title_of(part['source'])} \u2192 {title_of(part['target'])}\n"
        f"chance {score(0.5 / part[divisor] if part[divisor] else None)}, {part['n_recordings']} recordings"
        for part in parts
    ]
    return directions, ways, np.vstack([values, values.mean(axis=0)]), [*intervals, [None] * len(ways)]
