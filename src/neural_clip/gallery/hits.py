"""What a search found: ranked rows of a gallery for each query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from neural_clip.gallery.confidence import NOT_DECODED, Confidences
from neural_clip.gallery.pictures import Pictures

if TYPE_CHECKING:
    import datasets
    from matplotlib.axes import Axes
    from PIL.Image import Image

SHOWN = ("image_id", "concept", "subject", "session", "modality", "split", "file")


@dataclass(frozen=True, eq=False)
class Hit:
    """One row of a gallery that was found.

    Args:
        rank (`int`): From 1, the best.
        score (`float`): Cosine with the query.
        row (`int`): Place in the gallery.
        behind (`Mapping`): What stands behind the row: `image_id`, `concept`, `subject`, `session`, `modality` ...
        pictures ([`Pictures`]): Where its picture is found.
        query (`int`): Which query found it.
        confidences ([`Confidences`] or `str`): Probabilities of hits, or why there are none.
    """

    rank: int
    score: float
    row: int
    behind: Mapping[str, Any]
    pictures: Pictures
    query: int = 0
    confidences: Confidences | str = NOT_DECODED

    def __getattr__(self, name: str) -> str:
        """`image_id`, `concept`, `subject`, `session`, `modality`, `split` and `file`, as `behind` has them."""
        if name in SHOWN:
            return str(self.behind[name])
        raise AttributeError(f"A hit has no {name!r}.")

    @cached_property
    def _picture(self) -> tuple[Any, str]:
        return self.pictures.of(self.behind)

    @property
    def image(self) -> Image | None:
        """The image, or the one that was shown; `None` where it is not at hand, and `why_no_image` says why."""
        return self._picture[0]

    @property
    def why_no_image(self) -> str:
        """One sentence; empty where there is an image."""
        return self._picture[1]

    @property
    def confidence(self) -> float | None:
        """Probability that this is the image that was seen, if the gallery holds it.

        It is the share of this image in the softmax over all images of the gallery. The temperature comes from the
        checkpoint; `None` where it has none, and where no image is decoded. `why_no_confidence` then says why.
        """
        return None if isinstance(self.confidences, str) else self.confidences.of(self.query, self.score)

    @property
    def why_no_confidence(self) -> str:
        """One sentence; empty where there is a confidence."""
        return self.confidences if isinstance(self.confidences, str) else self.confidences.why_not(self.query)

    def as_dict(self) -> dict[str, Any]:
        """Rank, score, confidence, row and what stands behind it, without the picture."""
        found = {"rank": self.rank, "score": self.score, "confidence": self.confidence, "row": self.row}
        return found | {name: str(self.behind[name]) for name in SHOWN}

    def __repr__(self) -> str:
        return f"Hit(rank={self.rank}, score={self.score:.3f}, image_id={self.image_id!r}, modality={self.modality!r})"


class Ranked(Sequence[Hit]):
    """The hits of one query, best first; `image`, `score`, `confidence` and the like are those of the best."""

    def __init__(self, hits: list[Hit]) -> None:
        self._hits = hits

    def __len__(self) -> int:
        return len(self._hits)

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> list[Hit]: ...
    def __getitem__(self, place: int | slice) -> Hit | list[Hit]:
        return self._hits[place]

    def __getattr__(self, name: str) -> Any:
        if name in (*SHOWN, "image", "why_no_image", "score", "confidence", "why_no_confidence", "row"):
            return getattr(self._hits[0], name)
        raise AttributeError(f"The hits of a query have no {name!r}.")

    def __repr__(self) -> str:
        return f"Ranked({self._hits!r})"


class Hits(Sequence[Ranked]):
    """The hits of each query.

    Args:
        table (`datasets.Dataset`): Of the gallery that was searched.
        rows, scores (`np.ndarray` of shape `(n_queries, n_hits)`): Places in it, best first, and cosines; `top_k` of
            each query, or all rows that are searched, where there are fewer.
        pictures ([`Pictures`]): Where pictures are found.
        titles (`list[str]`): What each query is called.
        asked (`Sequence`, *optional*): Pictures of queries: images that are asked for, or were seen.
        asked_as (`str`): What their captions say.
        confidences ([`Confidences`] or `str`): Probabilities of hits, or why there are none.
    """

    def __init__(
        self, table: datasets.Dataset, rows: np.ndarray, scores: np.ndarray, pictures: Pictures, titles: list[str],
        asked: Sequence[Any] | None = None, asked_as: str = "query", confidences: Confidences | str = NOT_DECODED,
    ) -> None:  # fmt: skip
        self.rows, self.scores, self.titles = rows, scores, titles
        self.asked, self.asked_as = asked, asked_as
        unique, places = np.unique(rows, return_inverse=True)
        behind = table.select(unique).remove_columns("vector").with_format(None)[:]
        kept = [dict(zip(behind, values, strict=True)) for values in zip(*behind.values(), strict=True)]
        self._ranked = [
            Ranked([
                Hit(rank + 1, float(score), int(row), kept[place], pictures, query, confidences)
                for rank, (row, score, place) in enumerate(zip(*found, strict=True))
            ])
            for query, found in enumerate(zip(rows, scores, places.reshape(rows.shape), strict=True))
        ]  # fmt: skip

    def __len__(self) -> int:
        return len(self._ranked)

    @overload
    def __getitem__(self, query: int) -> Ranked: ...
    @overload
    def __getitem__(self, query: slice) -> list[Ranked]: ...
    def __getitem__(self, query: int | slice) -> Ranked | list[Ranked]:
        return self._ranked[query]

    def __iter__(self) -> Iterator[Ranked]:
        return iter(self._ranked)

    def as_dicts(self) -> list[list[dict[str, Any]]]:
        """Plain dicts, a list of them for each query; JSON takes them."""
        return [[hit.as_dict() for hit in ranked] for ranked in self]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the hits, a row for each query, best first: the pictures with their scores.

        The image that is asked for stands left, or the one that was seen, where the queries are a split or a gallery.

        Args:
            ax (`matplotlib.axes.Axes`, *optional*): Drawn into; by default a new figure of `pyplot`.

        Returns:
            `matplotlib.axes.Axes`: What was drawn into; `hits.plot().figure.savefig("hits.png")` writes a file.

        Raises:
            DataError: If `ax` is anything else, such as the name of a file.
        """
        from neural_clip.gallery.cells import draw_hits

        return draw_hits(self, ax)

    def __repr__(self) -> str:
        return f"Hits({len(self)} queries, {self.rows.shape[1]} hits each)"
