"""Pictures of what was learned: similarity of spaces, maps of samples, sensors and voxels, and the shared space."""

from __future__ import annotations

import csv
import io
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.evaluation.understanding.sensors import SensorPositions, draw_topography
from neural_clip.evaluation.understanding.voxels import SLICES, cut_planes
from neural_clip.files.whole import write_whole
from neural_clip.markup import cell
from neural_clip.prepared.modalities import MODALITIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


DPI = 150
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
CHARACTERS_PER_INCH = 14  # of a note
# Okabe and Ito's colours, which stay apart for colour-blind readers; https://jfly.uni-koeln.de/color/
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY, BAND, OUTSIDE = "#9a9a9a", "#d5d5d5", "#efefef"
# Of further modalities the last ones.
COLOURS = defaultdict(lambda: PURPLE, {"image": GREY, "eeg": ORANGE, "meg": BLUE, "fmri": GREEN})
MARKERS = defaultdict(lambda: "v", {"image": "o", "eeg": "^", "meg": "s", "fmri": "D"})
KINDS = (ORANGE, SKY, GREEN, BLUE, RED, PURPLE)  # of the categories shown by name
PAIR_COLOURS = (BLUE, ORANGE, GREEN)
STYLE: Any = {
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def write_csv(path: Path, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
    """Write columns of one length; floats with six significant digits, texts as [`cell`] has them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([f"{value:.6g}" if isinstance(value, float | np.floating) else cell(value) for value in row])
    write_whole(path, text.getvalue().encode())


def new_figure(width: float, height: float, title: str, note: str = "") -> Figure:
    """White figure of so many inches that needs no display, a title above and a note below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    if note:
        figure.supxlabel(textwrap.fill(note, int(CHARACTERS_PER_INCH * width)), fontsize=8)
    return figure


def save_figure(figure: Figure, stem: Path) -> None:
    """Write `<stem>.png` and `<stem>.svg`, the same bytes for the same picture."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "neural_clip"}):
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=ending, metadata=metadata)
            write_whole(stem.with_name(f"{stem.name}.{ending}"), buffer.getvalue())
            figure.set_layout_engine("none")  # everything has its place by now


def styled() -> Any:
    """Context in which pictures are drawn."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def draw_similarity(records: list[dict], title: str, stem: Path) -> None:
    """Draw Spearman correlations of spaces: a row each, its interval, and a point for each subject.

    Args:
        records (`list[dict]`): `label`, `group` (position of its colour), `spearman`, `interval`, `p`, `subjects` and
            `noise_ceiling`, which is drawn where it has `lower` and `upper`.
        title (`str`): Over the picture.
        stem (`Path`): Path without ending.
    """
    with styled():
        note = (
            "Diamond: mean over subjects; bar: 95 % interval, images resampled; small points: subjects. Grey: noise "
            "ceiling, what the true space could reach: subjects against the mean of the others (left), of all (right)."
        )
        missing = {record["noise_ceiling"].get("not_computed") for record in records} - {None}
        note = " ".join([note, *(f"No ceiling: {reason}" for reason in sorted(missing))])
        figure = new_figure(7.5, 1.5 + 0.42 * len(records), title, note)
        axes = figure.subplots()
        for row, record in enumerate(records):
            colour = PAIR_COLOURS[record["group"] % len(PAIR_COLOURS)]
            scores = [subject["spearman"] for subject in record["subjects"] if subject["spearman"] is not None]
            axes.plot(scores, [row + 0.22] * len(scores), "o", color=colour, markersize=3.5, alpha=0.6, mew=0)
            ceiling = record["noise_ceiling"]
            if "lower" in ceiling:
                width = ceiling["upper"] - ceiling["lower"]
                axes.barh(row, width, left=ceiling["lower"], height=0.7, color=BAND, edgecolor=GREY, linewidth=0.5)
            if record["spearman"] is None:
                axes.text(0, row, " not defined: all distances of one space are equal", va="center", fontsize=8)
                continue
            low, high = record["interval"]
            axes.plot([low, high], [row, row], "-", color=colour, linewidth=2)
            axes.plot(record["spearman"], row, "D", color=colour, markersize=6)
            text = f"{record['spearman']:.2f}, p {format_p(record['p'])}"
            axes.text(1.02, row, text, va="center", fontsize=8, transform=axes.get_yaxis_transform())
        axes.axvline(0, color=BLACK, linewidth=0.8)
        axes.set_yticks(range(len(records)), [record["label"] for record in records])
        axes.set_ylim(len(records) - 0.4, -0.6)
        axes.set_xlabel("Spearman correlation of dissimilarities")
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        save_figure(figure, stem)


def format_p(value: float) -> str:
    """P-value with three digits; the smallest that shuffling can give is a bound."""
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def draw_time_course(edges: np.ndarray, curves: list[dict], texts: tuple[str, str], stem: Path) -> None:
    """Draw what each score loses without each window of time, with 95 % intervals.

    Args:
        edges (`np.ndarray` of shape `(n_windows + 1,)`): Ends of the windows, s from image onset.
        curves (`list[dict]`): `label`, `intact` and arrays `(n_windows,)` `mean`, `low` and `high`.
        texts (`tuple[str, str]`): Title, and what is drawn.
        stem (`Path`): Path without ending.
    """
    with styled():
        figure = new_figure(7.5, 1.4 + 1.9 * len(curves), *texts)
        rows = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
        for axes, curve, colour in zip(rows, curves, (BLUE, RED), strict=False):
            low, high = (np.append(curve[end], curve[end][-1]) for end in ("low", "high"))
            axes.fill_between(1000 * edges, low, high, step="post", color=colour, alpha=0.25, linewidth=0)
            axes.stairs(curve["mean"], 1000 * edges, baseline=None, color=colour, linewidth=1.6)
            axes.axhline(0, color=BLACK, linewidth=0.8)
            if edges[0] < 0 < edges[-1]:
                axes.axvline(0, color=BLACK, linewidth=0.8, linestyle=":")
                axes.annotate("onset", (0, 1), xycoords=("data", "axes fraction"), xytext=(3, -2),
                              textcoords="offset points", va="top", fontsize=8)  # fmt: skip
            axes.set_ylabel(f"drop of the\n{curve['label']}")
            axes.set_title(f"nothing occluded: {curve['intact']:.3f}", loc="right")
        rows[-1].set_xlabel("occluded window, ms from image onset")
        save_figure(figure, stem)


def draw_sensors(
    names: list[str],
    whole: np.ndarray,
    by_window: np.ndarray,
    spans: list[str],
    positions: SensorPositions | None,
    texts: tuple[str, str],
    stem: Path,
) -> None:
    """Draw what the score loses without each sensor: topographies, or bars and a heat map where positions are unknown.

    Args:
        names (`list[str]`): Sensors.
        whole (`np.ndarray` of shape `(n_chans,)`): Drop without the sensor.
        by_window (`np.ndarray` of shape `(n_windows, n_chans)`): Drop without the sensor in a window of time.
        spans (`list[str]`): The windows, in words.
        positions ([`SensorPositions`], *optional*): Where the sensors lie.
        texts (`tuple[str, str]`): Title, and what is drawn and why.
        stem (`Path`): Path without ending.
    """
    with styled():
        if positions is None:
            figure = _sensor_bars(names, whole, by_window, spans, texts)
        else:
            figure = _topographies(whole, by_window, spans, positions, texts)
        save_figure(figure, stem)


def scale_of(values: np.ndarray) -> tuple[float, str]:
    """Factor that brings the largest absolute value to 1 to 1000, and the unit to write beside: 10⁻³ and so on."""
    largest = float(np.abs(values).max())
    power = 0 if largest == 0 else min(0, int(3 * np.floor(np.log10(largest) / 3)))
    unit = f" / 10⁻{str(-power).translate(SUPERSCRIPTS)}" if power else ""
    return 10.0**-power, unit


def _topographies(
    whole: np.ndarray, by_window: np.ndarray, spans: list[str], positions: SensorPositions, texts: tuple[str, str]
) -> Figure:
    """One large head for the whole time, small ones for the windows."""
    figure = new_figure(9.0, 5.6, *texts)
    n_columns = -(-len(spans) // 2)
    halves: Any = figure.subfigures(1, 2, width_ratios=[1.0, 0.55 * n_columns])
    large, small = halves
    axes = large.subplots()
    factor, unit = scale_of(whole)
    image = draw_topography(axes, factor * whole, positions, factor * np.abs(whole).max())
    axes.set_title("without the sensor,\nall samples")
    _colour_bar(large, image, axes, f"drop of the cosine margin{unit}")
    factor, unit = scale_of(by_window)
    grid = small.subplots(2, n_columns, squeeze=False).ravel()
    for axes, values, span in zip(grid, by_window, spans, strict=False):
        image = draw_topography(axes, factor * values, positions, factor * np.abs(by_window).max())
        axes.set_title(span)
    for axes in grid[len(spans) :]:
        axes.axis("off")
    _colour_bar(small, image, grid, f"drop without the sensor in this window{unit}")
    return figure


def _sensor_bars(
    names: list[str], whole: np.ndarray, by_window: np.ndarray, spans: list[str], texts: tuple[str, str]
) -> Figure:
    """Bars for the whole time beside a heat map of sensors and windows, sensors from top to bottom."""
    figure = new_figure(9.0, max(4.5, 2.0 + min(0.16 * len(names), 9.0)), *texts)
    bars, heat = figure.subplots(1, 2, sharey=True, width_ratios=[1.0, 1.3])
    rows = np.arange(len(names))
    factor, unit = scale_of(whole)
    bars.barh(rows, factor * whole, color=BLUE, height=0.8)
    bars.axvline(0, color=BLACK, linewidth=0.8)
    shown = rows[:: max(1, -(-len(names) // 64))]
    bars.set_yticks(shown, [names[row] for row in shown], fontsize=6 if len(names) > 24 else 8)
    bars.set_ylim(len(names) - 0.5, -0.5)
    bars.set_xlabel(f"drop of the cosine margin{unit}")
    bars.set_title("without the sensor, all samples")
    factor, unit = scale_of(by_window)
    limit = factor * np.abs(by_window).max()
    image = heat.imshow(factor * by_window.T, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit)
    heat.set_xticks(range(len(spans)), [span.replace(" ms", "") for span in spans], rotation=30, ha="right")
    heat.set_xlabel("occluded window, ms from image onset")
    heat.set_title("without the sensor in a window")
    heat.tick_params(axis="y", length=0, labelleft=False)
    _colour_bar(figure, image, heat, f"drop{unit}")
    return figure


def _colour_bar(figure: Any, image: Any, axes: Any, label: str) -> None:
    """Horizontal bar below the axes it belongs to, with at most five round numbers."""
    from matplotlib.ticker import MaxNLocator

    bar = figure.colorbar(image, ax=axes, orientation="horizontal", shrink=0.7, pad=0.04, aspect=30)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.locator = MaxNLocator(4, symmetric=True)
    bar.update_ticks()


def draw_slices(
    volume: np.ndarray, inside: np.ndarray, affine: np.ndarray, texts: tuple[str, str], stem: Path
) -> None:
    """Draw slices of a volume in three planes, cropped to the region, all planes at one scale.

    Args:
        volume (`np.ndarray` of shape `(x, y, z)`): Values; only those inside are shown.
        inside (`np.ndarray` of shape `(x, y, z)`, bool): The region.
        affine (`np.ndarray` of shape `(4, 4)`): From voxels to mm.
        texts (`tuple[str, str]`): Title, and what is drawn.
        stem (`Path`): Path without ending.
    """
    import matplotlib

    planes = cut_planes(volume, inside, affine)
    limit = np.quantile(np.abs(volume[inside]), 0.99)  # a few voxels would leave the rest without colour
    factor, unit = scale_of(limit)
    widths, heights = np.array([plane.extent for plane in planes]).T  # mm
    scale = min(8.8 / (SLICES * widths.max()), 2.0 / heights.max())  # inches a mm
    style = {"vmin": -factor * limit, "vmax": factor * limit, "origin": "lower", "interpolation": "nearest"}
    with styled():
        figure = new_figure(9.0, 1.6 + scale * heights.sum() + 0.3 * len(planes), *texts)
        grid = figure.subplots(len(planes), SLICES, height_ratios=heights, squeeze=False)
        for axes in grid.ravel():
            axes.axis("off")
        for row, plane in zip(grid, planes, strict=True):
            for axes, place, shown in zip(row, plane.places, plane.slices, strict=False):
                image = axes.imshow(
                    factor * shown,
                    cmap=matplotlib.colormaps["RdBu_r"].with_extremes(bad=OUTSIDE),
                    extent=(-plane.extent[0] / 2, plane.extent[0] / 2, 0, plane.extent[1]),
                    **style,
                )
                axes.set_xlim(-widths.max() / 2, widths.max() / 2)
                axes.set_title(f"{plane.axis} = {place:.0f} mm".replace("-", "−"), fontsize=8)
            _sides(row[0], plane.sides)
        bar = figure.colorbar(image, ax=list(grid.ravel()), orientation="horizontal", shrink=0.5, aspect=35,
                              extend="both")  # fmt: skip
        bar.set_label(f"what the voxel adds to the cosine margin{unit}", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        save_figure(figure, stem)


def _sides(axes: Axes, sides: str) -> None:
    """Letters at the left, right, lower and upper edge of a slice."""
    from matplotlib.patheffects import withStroke

    places = (("left", "center", 0.02, 0.5), ("right", "center", 0.98, 0.5),
              ("center", "bottom", 0.5, 0.02), ("center", "top", 0.5, 0.98))  # fmt: skip
    outline = [withStroke(linewidth=2, foreground="white")]
    for text, (ha, va, x, y) in zip(sides, places, strict=True):
        axes.text(x, y, text, transform=axes.transAxes, ha=ha, va=va, fontsize=8, path_effects=outline)


def draw_sorted_voxels(values: np.ndarray, texts: tuple[str, str], stem: Path) -> None:
    """Draw the distribution of voxels' values where their places are unknown."""
    with styled():
        figure = new_figure(6.5, 3.6, *texts)
        axes = figure.subplots()
        factor, unit = scale_of(values)
        axes.plot(np.arange(1, len(values) + 1), factor * np.sort(values)[::-1], color=GREEN, linewidth=1.6)
        axes.axhline(0, color=BLACK, linewidth=0.8)
        axes.set_xlabel("voxels, from most to least")
        axes.set_ylabel(f"adds to the\ncosine margin{unit}")
        save_figure(figure, stem)


def draw_latent_space(points: dict[str, np.ndarray], kinds: list[str], shares: np.ndarray, labels: dict[str, str],
                      title: str, stem: Path) -> None:  # fmt: skip
    """Draw images and recordings in one plane, coloured by modality and by category.

    Args:
        points (`dict[str, np.ndarray]`): Columns `modality`, `kind` (category shown, or `"other"`), `pc1`, `pc2`.
        kinds (`list[str]`): Categories with a colour of their own, at most six.
        shares (`np.ndarray` of shape `(2,)`): Of the images' variance, along each axis.
        labels (`dict[str, str]`): Text for each modality.
        title (`str`): Over the picture.
        stem (`Path`): Path without ending.
    """
    from matplotlib.lines import Line2D

    with styled():
        figure = new_figure(10.0, 5.8, title)
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        order = [name for name in ("image", *MODALITIES) if name in labels]
        colours = dict(zip(kinds, KINDS, strict=False)) | {"other": "#cfcfcf"}
        for name in order:
            rows = points["modality"] == name
            filled = {"s": 16 if name == "image" else 20, "linewidths": 0.0, "alpha": 0.75}
            left.scatter(points["pc1"][rows], points["pc2"][rows], color=COLOURS[name], marker=MARKERS[name],
                         label=labels[name], **filled)  # fmt: skip
            for kind in ("other", *kinds):
                chosen = rows & (points["kind"] == kind)
                right.scatter(points["pc1"][chosen], points["pc2"][chosen], color=colours[kind], marker=MARKERS[name],
                              **filled | {"zorder": 1 if kind == "other" else 2})  # fmt: skip
        for axes, head in ((left, "by modality"), (right, "by category (shape: modality)")):
            axes.set_title(head)
            axes.set_xlabel(f"first component ({100 * shares[0]:.0f} % of the images' variance)")
            axes.set_aspect("equal")
        left.set_ylabel(f"second component ({100 * shares[1]:.0f} %)")
        style = {"fontsize": 8, "frameon": False}
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2, **style)
        shown = [kind for kind in (*kinds, "other") if (points["kind"] == kind).any()]
        dots = [Line2D([], [], marker="o", linestyle="", color=colours[kind], markersize=5) for kind in shown]
        figure.legend(dots, [kind.replace("_", " ") for kind in shown], loc="outside lower right", ncols=4, **style)
        save_figure(figure, stem)
