"""Panels of retrieved images, as in the figures of arXiv 2411.09723: the query's image left, five hits right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.errors import DataError, parse_json
from neural_clip.files.privacy import found_place
from neural_clip.files.reading import reading
from neural_clip.files.whole import whole_file
from neural_clip.gallery.cells import CELL_INCHES, LABEL_WIDTH, PITCH, draw_cell, draw_frame, thumbnail
from neural_clip.gallery.neural_gallery import NeuralGallery
from neural_clip.prepared.image_rows import stored_pictures
from neural_clip.prepared.modalities import kind_of, title_of
from neural_clip.prepared.reader import PreparedSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes


ROWS_DECODING, ROWS_CONVERSION = 3, 2  # queries shown of each modality and of each ordered pair
# frame and caption of a hit; colours that stay apart for colour-blind readers, and a word beside them
SAME_IMAGE, SAME_CONCEPT, OTHER = ("#1a8a3c", "same image"), ("#f0a000", "same kind"), ("#c0392b", "")
NOT_COMPARABLE = ("#9a9a9a", "")
LEGEND = {"same kind": "same kind: concept or category", "": "neither"}
NO_PIXELS = "has no pixels"  # a data set of ready-made embeddings
GROUP_GAP = 0.12  # in cells, extra between groups


@dataclass
class Shown:
    """What can be shown of one modality.

    Args:
        images ([`NeuralGallery`]): The images of the split.
        columns (`np.ndarray` of shape `(n,)`): Image of each recording.
        subjects (`np.ndarray` of shape `(n,)`, str): Subject of each recording.
        pixels (`dict[int, np.ndarray]`): RGB arrays by position.
    """

    images: NeuralGallery
    columns: np.ndarray
    subjects: np.ndarray
    pixels: dict[int, np.ndarray]


@dataclass
class Row:
    """One query and its hits: positions in the galleries of source and target."""

    source: str
    target: str
    query: int
    title: str
    hits: list[int]
    captions: list[str]


def draw_panels(
    report: dict, folder: Path, data: Mapping[str, str | Path | PreparedSet]
) -> tuple[dict[str, str], str]:
    """Draw `pictures/decoding.png`, `encoding.png` and `conversion.png` beside a report.

    Args:
        report (`dict`): What `report.json` holds.
        folder (`Path`): Holds its `embeddings.npz`; pictures go to `folder/pictures`.
        data (`Mapping`): Data sets by modality, in place of those that the report names.

    Returns:
        `tuple` of `dict` from title to path relative to `folder`, and, where nothing could be drawn, a sentence
        that says why (empty otherwise).
    """
    with np.load(folder / "embeddings.npz", allow_pickle=False) as file:
        arrays = dict(file)
    galleries, images, missing = {}, {}, []
    for modality, named in report["data"].items():
        with reading(folder / "embeddings.npz"):
            galleries[modality] = _shown(arrays, modality)
        images[modality], reason = _images_of(data.get(modality), named, folder)
        if reason:
            missing.append(f"{title_of(modality)} ({reason})")
    if missing:
        where = " Say where the data sets lie: `data` of `write_report`, --data of `neural-clip report`."
        where *= not all(reason.endswith(f"{NO_PIXELS})") for reason in missing)
        return {}, f"No pictures: the images are not at hand for {', '.join(missing)}.{where}"
    simulated = " of SIMULATED recordings" if report["simulated"] else ""
    rule = "rows: queries evenly spaced from best to worst by their own 2-way score"
    tasks = {
        "decoding": (f"Decoding{simulated}: recording → images\n{rule}", _decoding_rows),
        "encoding": (f"Encoding{simulated}: image → images behind the nearest recordings\n{rule}", _encoding_rows),
        "conversion": (
            f"Conversion{simulated}: recording → images behind another modality's\n{rule}",
            _conversion_rows,
        ),
    }
    shown = {name: make_rows(arrays, galleries) for name, (_, make_rows) in tasks.items()}
    for rows in shown.values():  # all of them before a picture takes the place of an earlier one
        _load_pixels(rows, galleries, images, {name: part["folder"] for name, part in report["data"].items()})
    drawn = {}
    for name, rows in shown.items():
        if rows:
            title = tasks[name][0]
            drawn[title.splitlines()[0]] = f"pictures/{name}.png"
            _draw(rows, galleries, title, folder / "pictures" / f"{name}.png")
    return drawn, ""


def _shown(arrays: dict[str, np.ndarray], modality: str) -> Shown:
    """Images and recordings of one modality, without pixels."""
    vectors, ids, concepts = (arrays[f"{modality}_gallery_{name}"] for name in ("embeds", "ids", "concepts"))
    categories = [parse_json(str(text)) for text in arrays[f"{modality}_gallery_categories"]]
    columns = np.searchsorted(ids, arrays[f"{modality}_image_ids"])
    images = NeuralGallery.of_arrays("image", vectors, ids, concept=concepts, categories=categories)
    return Shown(images, columns, arrays[f"{modality}_subjects"], {})


def spaced_queries(scores: np.ndarray, images: np.ndarray, count: int) -> list[int]:
    """Queries at evenly spaced positions from best to worst, each of another image.

    Args:
        scores (`np.ndarray` of shape `(n,)`): Score of each query, higher is better.
        images (`np.ndarray` of shape `(n,)`): Image of each query.
        count (`int`): Queries wanted.

    Returns:
        `list[int]`: At most `count` positions: the middles of `count` equal parts of the order by score (ties in order
        of the data); an image that was shown already is passed over for the next one.
    """
    order = np.argsort(-scores, kind="stable")
    chosen: list[int] = []
    for part in range(count):
        start = int((part + 0.5) / count * len(order))
        seen = {images[query] for query in chosen}
        following = [int(query) for query in order[start:] if images[query] not in seen]
        chosen += following[:1]
    return chosen


def _decoding_rows(arrays: dict[str, np.ndarray], galleries: dict[str, Shown]) -> list[Row]:
    """Recording -> images."""
    rows = []
    for name, gallery in galleries.items():
        scores = arrays[f"{name}_decoding_scores"]
        for query in spaced_queries(scores, gallery.columns, ROWS_DECODING):
            hits = [int(hit) for hit in arrays[f"{name}_decoding_hits"][query] if hit >= 0]
            title = f"{title_of(name)}\n{gallery.subjects[query]}\n2-way {scores[query]:.2f}"
            rows.append(Row(name, name, int(gallery.columns[query]), title, hits, [""] * len(hits)))
    return rows


def _encoding_rows(arrays: dict[str, np.ndarray], galleries: dict[str, Shown]) -> list[Row]:
    """Image -> images behind the nearest recordings."""
    rows = []
    for name, gallery in galleries.items():
        scores = arrays[f"{name}_encoding_scores"]
        shown = np.unique(gallery.columns)  # queries are images that were shown
        for query in spaced_queries(scores, shown, ROWS_DECODING):
            title, found = f"image\nto {title_of(name)}\n2-way {scores[query]:.2f}", f"{name}_encoding_hits"
            rows.append(_recordings_row(name, name, int(shown[query]), title, arrays[found][query], gallery))
    return rows


def _conversion_rows(arrays: dict[str, np.ndarray], galleries: dict[str, Shown]) -> list[Row]:
    """Recording of one modality -> images behind the nearest recordings of another."""
    rows = []
    for name, source in galleries.items():
        for other in [other for other in galleries if kind_of(other) != kind_of(name)]:
            key = f"{name}_to_{other}"
            scores = arrays[f"{key}_scores"]
            for query in spaced_queries(scores, source.columns, ROWS_CONVERSION):
                title = f"{title_of(name)} {source.subjects[query]}\nto {title_of(other)}\n"
                title += f"2-way {scores[query]:.2f}"
                shown = int(source.columns[query])
                rows.append(_recordings_row(name, other, shown, title, arrays[f"{key}_hits"][query], galleries[other]))
    return rows


def _recordings_row(source: str, target: str, query: int, title: str, found: np.ndarray, gallery: Shown) -> Row:
    """Row whose hits are recordings of `gallery`: their images, captioned with the subject."""
    kept = [int(hit) for hit in found if hit >= 0]
    images, subjects = [int(gallery.columns[hit]) for hit in kept], [str(gallery.subjects[hit]) for hit in kept]
    return Row(source, target, query, title, images, subjects)


def _images_of(data: str | Path | PreparedSet | None, named: dict, beside: Path) -> tuple[Any, str]:
    """The `images` config of a data set that is given or named, and why it cannot be shown; empty where it can."""
    folder, place = named["folder"], found_place(named["folder"], beside)
    if data is None and not place.is_dir():
        return None, f"there is no folder {folder} here"
    try:
        found = PreparedSet.open(data or place)
        if found.facts.fingerprint != named["fingerprint"]:
            return None, f"{found.name} is not what was scored: it was prepared again since, or is another data set"
        images = found.stored_images
    except DataError as error:
        return None, str(error).rstrip(".")
    return images, "" if "image" in images.column_names else f"{folder} {NO_PIXELS}"


def _load_pixels(
    rows: list[Row], galleries: dict[str, Shown], stored: dict[str, Any], folders: Mapping[str, str]
) -> None:
    """Read the images that rows show; `folders` are what the data sets are called."""
    wanted: dict[str, set[int]] = {name: set() for name in galleries}
    for row in rows:
        wanted[row.source].add(row.query)
        wanted[row.target].update(row.hits)
    for name, positions in wanted.items():
        gallery = galleries[name]
        images = stored[name]
        index = {image_id: number for number, image_id in enumerate(images["image_id"][:])}
        for position in positions - gallery.pixels.keys():
            found = index.get(str(gallery.images.image_ids[position]))  # none: an image of another data set
            image = None if found is None else stored_pictures(images, [found], folders[name])[0]
            if image is not None:
                gallery.pixels[position] = thumbnail(image)


def match(source: NeuralGallery, query: int, target: NeuralGallery, hit: int, same_corpus: bool) -> tuple[str, str]:
    """Colour and word for a hit: the same image, the same concept or category, neither, or labels not comparable."""
    if same_corpus and query == hit:
        return SAME_IMAGE
    if not source.labels & target.labels:
        return NOT_COMPARABLE
    here = {str(source.concepts[query]), *source.categories[query]}
    there = {str(target.concepts[hit]), *target.categories[hit]}
    return SAME_CONCEPT if (here & there) - {""} else OTHER


def _draw(rows: list[Row], galleries: dict[str, Shown], title: str, path: Path) -> None:
    """Draw rows of a query and its hits, and write the picture aside before it takes its place."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_columns = 1 + max(len(row.hits) for row in rows)
    pairs = [(row.source, row.target) for row in rows]
    tops = np.cumsum([PITCH + (GROUP_GAP if pairs[n] != pairs[n - 1] else 0) for n in range(len(rows))])  # below heads
    width, height = LABEL_WIDTH + 1.1 * n_columns + 0.1, tops[-1] + 1.0  # in cells
    figure = Figure(figsize=(CELL_INCHES * width, CELL_INCHES * height), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.text(width / 2, 0.12, title, ha="center", va="top", fontsize=9.5)
    for column, head in enumerate(["query image", *(f"nearest {place}" for place in range(1, n_columns))]):
        axes.text(LABEL_WIDTH + 1.1 * column + 0.5, tops[0] - 0.62, head, ha="center", va="bottom", fontsize=7)
    for row, top in zip(rows, tops - 0.55, strict=True):
        _draw_row(axes, row, galleries, float(top))
    for column, (colour, word) in enumerate((SAME_IMAGE, SAME_CONCEPT, OTHER, NOT_COMPARABLE)):
        left = LABEL_WIDTH + (0.0, 1.3, 3.4, 4.5)[column]
        draw_frame(axes, left, height - 0.2, 0.12, colour)
        text = "labels of the two corpora differ" if colour == NOT_COMPARABLE[0] else LEGEND.get(word, word)
        axes.text(left + 0.2, height - 0.14, text, va="center", fontsize=7)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})  # no version: one report, one picture


def _draw_row(axes: Axes, row: Row, galleries: dict[str, Shown], top: float) -> None:
    """Label, query image and hits of one row."""
    source, target = galleries[row.source], galleries[row.target]
    axes.text(LABEL_WIDTH - 0.12, top + 0.5, row.title, ha="right", va="center", fontsize=7.5)
    draw_cell(axes, LABEL_WIDTH, top, source.pixels.get(row.query), "#222222", str(source.images.concepts[row.query]))
    for place, (hit, caption) in enumerate(zip(row.hits, row.captions, strict=True)):
        colour, word = match(source.images, row.query, target.images, hit, row.source == row.target)
        text = " · ".join(part for part in (caption, word) if part) or str(target.images.concepts[hit])
        draw_cell(axes, LABEL_WIDTH + 1.1 * (place + 1), top, target.pixels.get(hit), colour, text)
