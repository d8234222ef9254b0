"""What a search found, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import math
import os
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from neural_clip.errors import DataError, check_option
from neural_clip.files.bars import only_our_bars
from neural_clip.files.places import place_line
from neural_clip.files.whole import check_apart, whole_file
from neural_clip.gallery.cells import CELL_INCHES, MAX_ROWS
from neural_clip.gallery.hits import Hits
from neural_clip.queries.options import AnswerOptions, SearchOptions
from neural_clip.report.tables import as_text

FORMATS = (".png", ".pdf", ".svg")
TITLE_WIDTH, TITLE_INCHES = 12, 0.17  # characters to an inch of the picture, and inches a line
SCORES = ("score", "confidence")
SURE = "confidence: the probability that this is the image that was seen, if it is among these images"
NAMED = ("image_id", "concept", "subject", "session")  # columns, where there is something in them
LEARNT = "; the checkpoint learnt from SIMULATED recordings"


@dataclass(frozen=True, eq=False)
class Answer:
    """What was asked, and the hits of each query.

    Args:
        verb (`str`): `"decode"`, `"encode"`, `"convert"` or `"search"`.
        asked (`str`): What the queries are, in words: `"40 SIMULATED EEG recordings"`.
        among (`str`): What was searched, in words.
        n_rows, n_images (`int`): Rows that were searched, and different images among them.
        names (`list[str]`): Of the queries.
        shown (`list[str]`): The image that each answered to; empty where that is not known.
        hits ([`Hits`]): Found by the gallery.
        by_image (`bool`): Whether each image is there once, so that a chance of `top_k` hits can be told.
        simulated (`bool`): Whether recordings that take part are simulated, or those that the model learnt from.
        checkpoint (`dict`): Name and SHA-256.
        montage (`tuple[dict]`): Of what channels were interpolated in, which and from which; see [`Interpolation`].
    """

    verb: str
    asked: str
    among: str
    n_rows: int
    n_images: int
    names: list[str]
    shown: list[str]
    hits: Hits
    by_image: bool
    simulated: bool
    checkpoint: dict[str, str]
    montage: tuple[dict, ...] = ()

    @property
    def chance(self) -> dict[str, float]:
        """Chance that a given image is behind the first hit, and behind one of all hits."""
        found = {"top1": 1 / self.n_images}
        k = self.hits.rows.shape[1]
        return found | ({f"top{k}": min(k / self.n_images, 1.0)} if self.by_image and k > 1 else {})

    @property
    def said(self) -> str:
        """The line above the table: what was searched for what, and what chance is."""
        told = [f"{'first' if name == 'top1' else f'among the first {name[3:]}'} in {100 * value:.3g} %"
                for name, value in self.chance.items()]  # fmt: skip
        return (
            f"{self.verb}: {self.asked} among {self.among}; by chance a given image is {' and '.join(told)}"
            f"{LEARNT if self.simulated and 'SIMULATED' not in self.asked + self.among else ''}"
        )

    @cached_property
    def _rows(self) -> list[list[dict[str, Any]]]:
        return self.hits.as_dicts()

    @property
    def text(self) -> str:
        """The table, with `said` above it, and below it why decodings have no confidence."""
        rows = [row for found in self._rows for row in found]
        scores = [name for name in SCORES if any(row[name] is not None for row in rows)]
        columns = [name for name in NAMED if any(row[name] for row in rows)]
        columns += ["modality"] * (len({row["modality"] for row in rows}) > 1)
        seen = ["shown"] if any(self.shown) else []
        table = [
            [query, *([shown] if seen else []), str(row["rank"]), *(_cell(row[name]) for name in (*scores, *columns))]
            for query, shown, found in zip(self.names, self.shown, self._rows, strict=True)
            for row in found
        ]
        said = "\n".join([self.said, *(f"'{one['of']}': {one['said']}" for one in self.montage)])
        found = f"{said}\n\n{as_text((['query', *seen, 'rank', *scores, *columns], table))}"
        return "\n\n".join([found, *self.sure]) if self.verb == "decode" else found

    @property
    def sure(self) -> list[str]:
        """What confidence means, and why queries have none, each reason once."""
        lacking = Counter(ranked.why_no_confidence for ranked in self.hits)
        told = [SURE] * (lacking.pop("", 0) > 0)
        return told + [f"{n} of {len(self.hits)} without confidence: {reason}" for reason, n in lacking.items()]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        queries = zip(self.names, self.shown, self._rows, strict=True)
        return {
            "verb": self.verb, "said": self.said, "simulated": self.simulated, "checkpoint": self.checkpoint,
            "searched": {"rows": self.n_rows, "images": self.n_images}, "chance": self.chance,
            **({"montage": list(self.montage)} if self.montage else {}),
            "queries": [
                {"query": name, "shown": shown or None, "why_no_confidence": ranked.why_no_confidence or None,
                 "hits": found}
                for (name, shown, found), ranked in zip(queries, self.hits, strict=True)
            ],
        }  # fmt: skip

    def draw(self, path: Path) -> Path:
        """Draw the hits of the first 50 queries into a file, whole or not at all."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(facecolor="white")
        FigureCanvasAgg(figure)
        self.hits.titles = ["\n".join(textwrap.wrap(name, 15)) for name in self.names]
        axes = self.hits.plot(figure.add_axes((0, 0, 1, 1)))
        width, height = (CELL_INCHES * max(limits) for limits in (axes.get_xlim(), axes.get_ylim()))
        lines = textwrap.wrap(self.said, max(int(TITLE_WIDTH * width), 20))
        above = TITLE_INCHES * (len(lines) + 1)
        figure.set_size_inches(width, height + above)
        axes.set_position((0, 0, 1, height / (height + above)))
        figure.text(0.5, 1 - 0.5 * TITLE_INCHES / (height + above), "\n".join(lines), ha="center", va="top",
                    fontsize=8, parse_math=False)  # fmt: skip
        lacking = [ranked.why_no_image for ranked in self.hits[:MAX_ROWS] if ranked.why_no_image]
        if lacking:
            print(f"{len(lacking)} first hits are drawn without a picture. {lacking[0]}", file=sys.stderr)
        if len(self.hits) > MAX_ROWS:
            print(f"the first {MAX_ROWS} of {len(self.hits)} queries are drawn", file=sys.stderr)
        metadata = {".png": {"Software": None}, ".svg": {"Date": None}}.get(path.suffix, {"CreationDate": None})
        with whole_file(path) as partial:
            figure.savefig(partial, format=path.suffix[1:], dpi=150, metadata=metadata)
        return path


def _cell(value: Any) -> str:
    """A cell of the table."""
    if isinstance(value, float):
        return f"{value:.3f}" if math.isfinite(value) else ""
    return "" if value is None else str(value)


def answered(
    find: Callable[[], Answer], options: AnswerOptions, inputs: Sequence[str | Path], search: SearchOptions
) -> Answer:
    """Find and show an answer, once its picture can be written; `inputs` are read beside what the options name."""
    beside = [getattr(search, name, None) for name in ("pictures", "bank")]
    check_figure(options.figure, [*inputs, *options.gallery, *filter(None, beside)])
    only_our_bars()
    answer = find()
    show_answer(answer, as_json=options.json, figure=options.figure)
    return answer


def check_figure(path: Path | None, inputs: Sequence[str | Path]) -> None:
    """Raise a `DataError` where a picture would be of an unknown kind, or be written over or into what is read."""
    if path is None:
        return
    check_option("figure", path.suffix, FORMATS)
    if path.is_dir():
        raise DataError(f"'{path}' is a folder; name a file for the picture.")
    check_apart(path, [place for place in inputs if Path(place).exists()])
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not os.access(there, os.W_OK):
        raise DataError(f"'{path}' cannot be written: no file can be made in '{there}'.")


def show_answer(answer: Answer, *, as_json: bool, figure: Path | None) -> None:
    """Print an answer, as a table or as JSON, and draw it where a file is named; the last line says where."""
    content = answer.as_dict()
    if figure is not None:
        content["figure"] = str(answer.draw(figure))
    print(json.dumps(content, indent=2, ensure_ascii=False) if as_json else answer.text)
    if figure is not None:
        print(f"\n{place_line('figure', figure)}", file=sys.stderr if as_json else sys.stdout)
