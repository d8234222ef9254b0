"""Scores with their intervals, drawn: what decodes better than what, and whether a control is off chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neural_clip.files.whole import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# colours that stay apart for colour-blind readers; a marker shape goes with each
STYLES = {
    "ours": ("#0072b2", "D"), "part": ("#56b4e9", "d"),
    "baseline": ("#e69f00", "o"), "control": ("#666666", "s"), "paper": ("#cc79a7", "x"),
    "ceiling": ("#000000", "|"),
}  # fmt: skip
LINE_INCHES, WIDTH_INCHES, NARROW_INCHES = 0.28, 8.0, 3.4
Line = tuple[str, float, Sequence[float] | None, str]


def draw_intervals(
    groups: Sequence[tuple[str, Sequence[Line]]], title: str, chance: float, path: Path, width: float = WIDTH_INCHES
) -> None:
    """Draw a line a score: point, 95 % interval, and a dashed line at chance.

    Args:
        groups (sequence of `tuple`): Heading, which may be empty, and lines `(label, score, interval or None,
            kind)`; the kind is a key of `STYLES`.
        title (`str`): Above the picture; says what is simulated.
        chance (`float`): Chance level of all of them.
        path (`Path`): PNG file, written aside and renamed.
        width (`float`, defaults to 8): Inches.
    """
    from matplotlib.figure import Figure

    n_lines = sum(len(lines) + 1 for _, lines in groups)
    figure = Figure(figsize=(width, 1.0 + LINE_INCHES * n_lines))
    axes = figure.subplots()
    place, ticks, labels = 0.0, [], []
    for heading, lines in groups:
        if heading:
            ticks.append(place)
            labels.append(heading)
            place -= 1
        for label, score, interval, kind in lines:
            colour, marker = STYLES[kind]
            if interval:
                axes.plot(interval, [place, place], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot([score], [place], marker, color=colour, markersize=5)
            ticks.append(place)
            labels.append(label)
            place -= 1
    axes.axvline(chance, color="black", linestyle="--", linewidth=0.8)
    axes.annotate("chance", (chance, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8)
    axes.set_yticks(ticks, labels, fontsize=8)
    for tick, text in zip(axes.get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if text in {heading for heading, _ in groups} else "normal")
    axes.set_ylim(place + 0.4, 0.8)
    axes.set_xlabel("2-way score, 95 % interval")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_title(title, fontsize=10, pad=16)
    write_picture(figure, path, bbox_inches="tight")


def write_picture(figure: Figure, path: Path, **how: Any) -> None:
    """Write a figure as PNG, aside before it takes its place; without the version of what drew it."""
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=150, metadata={"Software": None}, **how)
