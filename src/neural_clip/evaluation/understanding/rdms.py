"""Dissimilarities of images (RDMs) of the spaces of one modality, drawn beside one another and written."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.evaluation.embedding import EmbeddedSplit
from neural_clip.evaluation.understanding.pictures import new_figure, save_figure, styled, write_csv
from neural_clip.evaluation.understanding.recordings import Analysis, display_name
from neural_clip.evaluation.understanding.rsa import DISTANCE, SPACES

SHOWN = ("images", "encoder", "recordings")  # from left to right
MAX_NAMES = 30  # of kinds beside the maps; more would overlap
MAX_LETTERS = 20  # of a name
ORDER = (
    "by category (its most frequent one in this split where an image has several, its concept where it has none), "
    "categories by name; inside by concept and image id"
)


def write_dissimilarities(
    spaces: list[dict[str, np.ndarray]],
    members: list[np.ndarray],
    kept: np.ndarray,
    part: EmbeddedSplit,
    run: Analysis,
) -> dict:
    """Picture and table of the distances between images in each space, means over subjects.

    Args:
        spaces (`list[dict[str, np.ndarray]]`): For each subject, the distances `(n_s, n_s)` of each of `SPACES`.
        members (`list[np.ndarray]`): For each subject, which of the kept images its rows are, `(n_s,)`.
        kept (`np.ndarray` of shape `(n_images,)`): Positions in the gallery.
        part ([`EmbeddedSplit`]): Of the modality.
        run ([`Analysis`]): Where to write.

    Returns:
        `dict`: `order` of the images in words, and the number of `kinds`.
    """
    kinds = main_kinds(part, kept)
    order = sorted(range(len(kept)), key=lambda row: (kinds[row], part.gallery_concepts[kept[row]], kept[row]))
    kinds = [kinds[row] for row in order]
    means = {name: mean_distances([s[name] for s in spaces], members, len(kept))[np.ix_(order, order)]
             for name in SHOWN}  # fmt: skip
    title = f"Which images are alike? {display_name(part)}, {run.split} split"
    stem = run.stem(title, f"{part.modality}_rdms")
    first, second = np.triu_indices(len(kept), 1)
    ids, simulated = part.gallery_ids[kept[order]], bool(part.facts.simulated)
    columns: dict[str, Any] = {"first": ids[first], "second": ids[second]}
    columns |= {"first_kind": [kinds[row] for row in first], "second_kind": [kinds[row] for row in second]}
    columns |= {"simulated": [simulated] * len(first)} | {name: means[name][first, second] for name in SHOWN}
    write_csv(stem.with_suffix(".csv"), columns)
    note = (
        f"{DISTANCE}, means over {len(spaces)} subjects; colours: ranks, since the distances of the spaces differ in "
        f"range. {len(kept)} images ordered {ORDER} ({len(set(kinds))} kinds)."
    )
    draw_dissimilarities({SPACES[name]: values for name, values in means.items()}, kinds, (title, note), stem)
    return {"order": ORDER, "kinds": len(set(kinds))}


def main_kinds(part: EmbeddedSplit, kept: np.ndarray) -> list[str]:
    """Category of each kept image, `n_images` `str`: that of most kept images, ties by name; else its concept."""
    own = [set(part.gallery_categories[row]) - {""} or {part.gallery_concepts[row]} for row in kept]
    counts = Counter(kind for kinds in own for kind in kinds)
    return [min(kinds, key=lambda kind: (-counts[kind], kind)) for kinds in own]


def mean_distances(distances: list[np.ndarray], members: list[np.ndarray], n_images: int) -> np.ndarray:
    """Mean over the subjects who saw both images, `(n_images, n_images)`; NaN where nobody did and on the diagonal."""
    sums, counts = np.zeros((n_images, n_images)), np.zeros((n_images, n_images))
    for matrix, member in zip(distances, members, strict=True):
        sums[np.ix_(member, member)] += matrix
        counts[np.ix_(member, member)] += 1
    np.fill_diagonal(counts, 0)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def rank_shares(distances: np.ndarray) -> np.ndarray:
    """Ranks of the distances from 0 (nearest) to 1 (farthest), ties at their mean; NaN stays NaN."""
    from scipy.stats import rankdata

    ranks = rankdata(distances, axis=None, nan_policy="omit").reshape(distances.shape)
    low, high = np.nanmin(ranks), np.nanmax(ranks)
    return (ranks - low) / max(high - low, 1)


def draw_dissimilarities(maps: dict[str, np.ndarray], kinds: list[str], texts: tuple[str, str], stem: Path) -> None:
    """Draw distances as heat maps.

    Args:
        maps (`dict[str, np.ndarray]`): Distances `(n_images, n_images)` of each space, NaN where there is none.
        kinds (`list[str]`): Category of each image, those of one category beside one another.
        texts (`tuple[str, str]`): Title, and what is drawn.
        stem (`Path`): Path without ending.
    """
    import matplotlib

    with styled():
        figure = new_figure(3.2 * len(maps) + 0.6, 4.4, *texts)
        grid = figure.subplots(1, len(maps), squeeze=False)[0]
        colours = matplotlib.colormaps["viridis"].with_extremes(bad="white")
        for axes, (name, distances) in zip(grid, maps.items(), strict=True):
            image = axes.imshow(rank_shares(distances), cmap=colours, vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(f"{name}\ndistances {np.nanmin(distances):.2f} to {np.nanmax(distances):.2f}")
            axes.set_xticks([])
            axes.set_yticks([])
        _name_kinds(grid[0], kinds)
        bar = figure.colorbar(image, ax=list(grid), shrink=0.8, aspect=25, pad=0.01)
        bar.set_label("rank: 0 most alike, 1 least alike", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        save_figure(figure, stem)


def _name_kinds(axes: Any, kinds: list[str]) -> None:
    """Names of kinds at the middle of their images, as many as do not overlap, and ticks where kinds change."""
    sizes = [(kind, len(list(images))) for kind, images in groupby(kinds)]
    ends = np.cumsum([size for _, size in sizes])
    shown: list[tuple[float, str]] = []
    for (kind, size), end in zip(sizes, ends, strict=True):
        middle = float(end - (size + 1) / 2)
        if not shown or middle - shown[-1][0] >= len(kinds) / MAX_NAMES:
            name = kind.replace("_", " ")
            shown.append((middle, name if len(name) <= MAX_LETTERS else f"{name[: MAX_LETTERS - 1]}…"))
    axes.set_yticks([middle for middle, _ in shown], [name for _, name in shown], fontsize=6)
    axes.set_yticks(ends[:-1] - 0.5, minor=True)
    axes.tick_params(axis="y", which="major", length=0)
    axes.tick_params(axis="y", which="minor", length=3, width=0.5)
