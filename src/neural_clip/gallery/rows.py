"""Vectors of images or recordings in one space, what stands behind each, and the search among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from neural_clip.errors import DataError, check_option, check_value
from neural_clip.gallery.building import mean_rows, without_repeats
from neural_clip.gallery.columns import IMAGE, column_of, joined, masked, vectors_of
from neural_clip.gallery.confidence import NOT_DECODED, Confidences
from neural_clip.gallery.embedder import CheckpointIdentity, Embedder
from neural_clip.gallery.hits import Hits
from neural_clip.gallery.index import GalleryIndex, make_index, nearest_by_index
from neural_clip.gallery.options import HITS
from neural_clip.gallery.pictures import Pictures, Seen
from neural_clip.gallery.search import nearest_by_cosine
from neural_clip.gallery.sharing import Terms, joined_terms, terms_of_people
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.retrieval.calibration import shares_of
from neural_clip.retrieval.tiles import Vectors
from neural_clip.targets.identity import EncoderIdentity

if TYPE_CHECKING:
    import datasets

NEAREST_KEPT = 50  # vectors looked through for five different images: several recordings show the same one


@dataclass(frozen=True, eq=False)
class GalleryRows:
    """What a [`NeuralGallery`] holds, and the search among its vectors; the fields are told there."""

    rows: datasets.Dataset
    encoder: EncoderIdentity | None = None
    checkpoint: CheckpointIdentity | None = None
    embedder: Embedder | None = None
    places: tuple[Path, ...] = ()
    terms: Terms = field(default_factory=dict)
    index: GalleryIndex | None = None
    montage: tuple[dict, ...] = ()

    def for_model(self, model: Any, processor: Any = None) -> Self:
        """The same gallery, searched by queries that this model embeds.

        Raises:
            DataError: If the gallery lies in another space, or holds recordings of another checkpoint.
        """
        embedder = Embedder.of(model, processor)
        if self.encoder is not None and embedder.encoder is not None:
            self.encoder.require(embedder.encoder, "The gallery", f"the model '{embedder.identity.name}'")
        if self.checkpoint is not None:
            self.checkpoint.require(embedder.identity, "The gallery", "the model")
        return replace(self, embedder=embedder)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        kinds = ", ".join(MODALITIES[name].title if name in MODALITIES else name for name in self.modalities)
        searched = "" if self.index is None else f"; {self.index!r}"
        width, dtype = self.vectors.shape[1], self.vectors.dtype
        return f"NeuralGallery({len(self)} rows: {kinds}; {width} dimensions, {dtype}{searched})"

    @cached_property
    def vectors(self) -> np.ndarray:
        """`(n, projection_dim)`, in the type that they are kept in."""
        return vectors_of(self.rows)

    @cached_property
    def _searched(self) -> Vectors:
        return Vectors(self.vectors, "gallery")

    @cached_property
    def _shares(self) -> np.ndarray:
        """What each row counts where equal images count once."""
        return shares_of(self.vectors)

    @cached_property
    def _pictures(self) -> Pictures:
        return Pictures(list(self.places))

    @cached_property
    def _means(self) -> dict[str, Self]:
        """Mean recordings by modality, once they were asked for."""
        return {}

    @cached_property
    def modalities(self) -> list[str]:
        """`"image"`, or those of the recordings."""
        return sorted(set(column_of(self.rows, "modality")))

    @property
    def simulated(self) -> bool:
        """Whether rows come from simulated data sets, as their terms say."""
        return any(entry.get("simulated") for name in self.modalities for entry in self.terms.get(name) or ())

    @cached_property
    def image_ids(self) -> np.ndarray:
        """`(n,)`, str."""
        return np.array(column_of(self.rows, "image_id"))

    @cached_property
    def concepts(self) -> np.ndarray:
        """`(n,)`, str; may be empty."""
        return np.array(column_of(self.rows, "concept"))

    @cached_property
    def subjects(self) -> np.ndarray:
        """`(n,)`, str; empty for images."""
        return np.array(column_of(self.rows, "subject"))

    @cached_property
    def categories(self) -> list[list[str]]:
        """Of each row."""
        return column_of(self.rows, "categories")

    @cached_property
    def labels(self) -> set[str]:
        """All concepts and categories."""
        return {str(concept) for concept in self.concepts}.union(*self.categories) - {""}

    def filter(self, function: Callable[[dict], bool] | None = None, **columns: str | Sequence[str]) -> Self:
        """Some of the rows.

        Args:
            function (`Callable`, *optional*): Of a row without its vector and pixels; true for rows that stay.
            **columns: Texts that stay: `subject=["sub-01", "sub-02"]`, `modality="fmri"`, and likewise `image_id`,
                `concept`, `session`, `split`, `file` and `layer`.

        Raises:
            DataError: If no row is left, or the gallery does not have one of these texts.
        """
        mask = masked(self.rows, columns)
        if function is not None:
            mask &= [bool(function(row)) for row in self.rows.remove_columns(["vector", "pixels"]).with_format(None)]
            check_value("function", function, bool(mask.any()), "one that is true for a row")
        found = replace(self, rows=self.rows.select(np.flatnonzero(mask)), index=None)
        kinds = np.array(column_of(found.rows, "modality"))
        people = {modality: set(found.subjects[kinds == modality].tolist()) for modality in found.modalities}
        return replace(found, terms=terms_of_people(self.terms, people))

    def add(self, other: GalleryRows) -> Self:
        """The rows of both. An image that both have under one name counts once.

        Raises:
            DataError: If they hold images and recordings, lie in different spaces, have recordings of two
                checkpoints, vectors of two types, or one name for two images.
        """
        if (self.modalities == [IMAGE]) != (other.modalities == [IMAGE]):
            raise DataError(
                f"Images and recordings have galleries of their own: {self.modalities}, {other.modalities}."
            )
        if self.rows.features["vector"] != other.rows.features["vector"]:
            kinds = [f"{one.vectors.shape[1]} numbers of {one.vectors.dtype}" for one in (self, other)]
            raise DataError(f"The galleries have vectors of {kinds[0]} and of {kinds[1]}.")
        self._require(other, "the other gallery", same_checkpoint=True)
        terms = joined_terms([{name: one.terms.get(name) for name in one.modalities} for one in (self, other)])
        rows, places = without_repeats(joined([self.rows, other.rows])), self.places + other.places
        found = replace(self, rows=rows, places=places, terms=terms, index=None)
        found = replace(found, montage=(*self.montage, *(one for one in other.montage if one not in self.montage)))
        known: dict[str, Any] = {
            "encoder": self.encoder or other.encoder,
            "checkpoint": self.checkpoint or other.checkpoint,
        }
        if self.embedder is None or known == {"encoder": self.encoder, "checkpoint": self.checkpoint}:
            return replace(found, **known)
        return replace(found, **known).for_model(self.embedder)

    def _require(self, other: GalleryRows, where: str, *, same_checkpoint: bool) -> None:
        """Raise a `DataError` unless another gallery lies in this space."""
        if self.encoder is not None and other.encoder is not None:
            self.encoder.require(other.encoder, "The gallery", where)
        if same_checkpoint and self.checkpoint is not None and other.checkpoint is not None:
            self.checkpoint.require(other.checkpoint, "The gallery", where)

    def search(
        self, queries: np.ndarray | GalleryRows, k: int = 1, handicap: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows most alike to queries by cosine, best first, ties in order of the gallery.

        Args:
            queries (`np.ndarray` of shape `(n_queries, projection_dim)` or [`NeuralGallery`]): Vectors of this space,
                or another gallery, whose encoder is then compared with this one's.
            k (`int`): Rows wanted of each; no more than there are.
            handicap (`np.ndarray` of shape `(n,)`, *optional*): Subtracted from cosines for the order; infinite for
                rows that are left out.

        Returns:
            `tuple` of `np.ndarray` `(n_queries, k)`: Rows (int64) and cosines.

        Raises:
            DataError: If the two galleries lie in different spaces, or queries are no vectors of this width.
        """
        if isinstance(queries, GalleryRows):
            self._require(queries, "the queries", same_checkpoint=False)
            queries = queries.vectors
        try:
            asked = Vectors(queries, "queries")
        except ValueError as error:
            raise DataError(str(error)) from error
        if asked.width != self._searched.width:
            raise DataError(f"The queries have {asked.width} dimensions, but the gallery {self._searched.width}.")
        k = min(k, len(self))
        if self.index is not None and handicap is None:
            return nearest_by_index(asked, self._searched, k, self.index)
        return nearest_by_cosine(asked, self._searched, k, handicap)

    def with_index(
        self, queries: np.ndarray | GalleryRows | None = None, *, recall: float = 0.95, k: int = 10, seed: int = 0
    ) -> Self:
        """The same gallery with an approximate index, for searches of large galleries in milliseconds (needs FAISS).

        Vectors are gathered into lists around centroids (IVF), in half a byte a number, and a query looks through the
        lists that are nearest to it. What it finds there is compared exactly, so scores equal those of an exact
        search, but some rows may be missed: `gallery.index.recall` is the share that is found. Searches with CSLS or
        within one modality stay exact. `filter` and `add` drop the index, and it is not saved.

        Args:
            queries (`np.ndarray` or [`NeuralGallery`], *optional*): On which recall is measured: vectors like those
                that will be asked for. By default some of the gallery's own, without themselves; recordings lie
                farther from images than images from one another, so their recall may be lower.
            recall (`float`, defaults to 0.95): Share of the `k` exact nearest rows that is to be found. The fewest
                lists are searched that reach it.
            k (`int`, defaults to 10): Of how many rows; of all others where a gallery has no more.
            seed (`int`): Of the samples that lists are fitted and measured on.

        Raises:
            DataError: If FAISS is not installed, or the queries lie in another space.
        """
        if isinstance(queries, GalleryRows):
            self._require(queries, "the queries", same_checkpoint=False)
            queries = queries.vectors
        return replace(self, index=make_index(self._searched, queries, recall=recall, k=k, seed=seed))

    def nearest(self, queries: np.ndarray | GalleryRows, k: int = 1) -> np.ndarray:
        """The rows that [`search`] finds."""
        return self.search(queries, k)[0]

    def hits(self, queries: np.ndarray | GalleryRows, count: int = HITS) -> np.ndarray:
        """Nearest rows, the first of each image, `(n_queries, count)`; -1 where there are not so many."""
        rows = self.nearest(queries, NEAREST_KEPT)
        images = np.unique(self.image_ids[rows], return_inverse=True)[1].reshape(rows.shape)
        order = np.argsort(images, axis=1, kind="stable")
        alike = np.take_along_axis(images, order, axis=1)
        is_first = np.ones(images.shape, bool)
        np.put_along_axis(is_first, order[:, 1:], alike[:, 1:] != alike[:, :-1], axis=1)
        place = is_first.cumsum(axis=1) - 1
        query, column = np.nonzero(is_first & (place < count))
        hits = np.full((len(queries), count), -1)
        hits[query, place[query, column]] = rows[query, column]
        return hits

    def means_of(self, modality: str) -> Self:
        """The [`mean_recordings`] of a modality, which [`convert`] searches; computed once."""
        if modality not in self._means:
            self._means[modality] = self.filter(modality=modality).mean_recordings()
        return self._means[modality]

    def mean_recordings(self) -> Self:
        """The mean of the unit vectors of all recordings of one modality that answered to one image, of each image."""
        return replace(self, rows=mean_rows(self.rows), index=None)

    @property
    def _embedder(self) -> Embedder:
        if self.embedder is None:
            raise DataError(
                "The gallery knows no model that embeds queries; say which: gallery.for_model(CHECKPOINT)."
            )
        return self.embedder

    def _found(
        self, queries: np.ndarray, top_k: int, titles: list[str], modality: str | None = None,
        handicap: np.ndarray | None = None, asked: Sequence[Any] | None = None,
        confidences: Confidences | str = NOT_DECODED,
    ) -> Hits:  # fmt: skip
        """Search among the rows of a modality; all of them, best first, where more are wanted than there are."""
        size = len(self)
        if modality is not None:
            check_option("modality", modality, self.modalities)
            among = masked(self.rows, {"modality": modality})
            size, handicap = int(among.sum()), np.where(among, 0.0, np.inf)
        fits = isinstance(top_k, int | np.integer) and not isinstance(top_k, bool) and top_k >= 1
        check_value("top_k", top_k, fits, "a whole number, 1 and more")
        rows, cosines = self.search(queries, min(int(top_k), size), handicap)
        said = "seen" if isinstance(asked, Seen) else "query"
        return Hits(self.rows, rows, cosines, self._pictures, titles, asked, said, confidences)

    def check_kind(self, *, images: bool, verb: str) -> None:
        """Raise a `DataError` unless this gallery holds images, or recordings, as a verb needs them."""
        if (self.modalities == [IMAGE]) != images:
            kind = "images" if images else "recordings"
            held = "images" if self.modalities == [IMAGE] else f"recordings ({', '.join(self.modalities)})"
            raise DataError(f"A gallery of {held} cannot {verb}; that takes a gallery of {kind}.")
