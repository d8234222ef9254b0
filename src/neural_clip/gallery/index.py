"""Approximate search of large galleries by FAISS: lists around centroids, of which a query looks through the nearest.

What is found there is compared exactly, so cosines equal those of an exact search, but some rows may be missed. The
share that is found was measured when the index was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from neural_clip.errors import DataError, check_value
from neural_clip.gallery.search import BLOCK_ROWS, nearest_by_cosine, ordered
from neural_clip.retrieval.tiles import Vectors, steps

INSTALL_FAISS = "An index needs FAISS: pip install 'neural_clip[gallery]'. Exact searches work without it."
PER_LIST = 64  # vectors that a centroid is fitted on; FAISS asks for 39 at least
ITERATIONS = 10  # of k-means, as FAISS has it
MEASURED = 256  # queries that recall is measured on
SPARE = 4  # times as many candidates as rows wanted: half a byte a number orders them roughly
ADD_ROWS = 16 * BLOCK_ROWS  # of the gallery in float32 at a time


@dataclass(frozen=True, eq=False)
class GalleryIndex:
    """An index of the rows of a gallery, made by [`NeuralGallery.with_index`].

    Args:
        lists (`faiss.IndexIVFScalarQuantizer`): All rows.
        searched (`int`): Lists that a query looks through.
        recall (`float`): Share of the `k` nearest rows that was found.
        k (`int`): Of how many rows; all others in a gallery that has no more.
        measured_on (`str`): Which queries.
    """

    lists: Any
    searched: int
    recall: float
    k: int
    measured_on: str

    def candidates(self, units: np.ndarray, count: int) -> np.ndarray:
        """About the nearest rows of queries `(n_queries, projection_dim)`, `(n_queries, count)`; -1 where none is."""
        import faiss

        asked = np.ascontiguousarray(units, dtype=np.float32)
        return self.lists.search(asked, count, params=faiss.SearchParametersIVF(nprobe=self.searched))[1]  # type: ignore[call-arg]

    def __repr__(self) -> str:
        return (
            f"GalleryIndex({self.searched} of {self.lists.nlist} lists searched, recall@{self.k} {self.recall:.3f} of "
            f"{self.measured_on})"
        )


def nearest_by_index(queries: Vectors, gallery: Vectors, k: int, index: GalleryIndex) -> tuple[np.ndarray, np.ndarray]:
    """As [`nearest_by_cosine`], of the rows that an index finds; queries for which it finds too few are exact."""
    rows, cosines = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
    units = queries.units(slice(None))
    found = index.candidates(units, min(SPARE * k + 16, len(gallery)))
    enough = (found >= 0).sum(axis=1) >= k
    rows[enough], cosines[enough], _ = ordered(units[enough], gallery, found[enough], k, None)
    if len(rest := np.flatnonzero(~enough)):
        rows[rest], cosines[rest] = nearest_by_cosine(Vectors(units[rest], "queries"), gallery, k)
    return rows, cosines


def make_index(gallery: Vectors, queries: np.ndarray | None, *, recall: float, k: int, seed: int) -> GalleryIndex:
    """Make an index that searches as few lists as reach a recall; see [`NeuralGallery.with_index`]."""
    check_value("recall", recall, 0 < recall <= 1, "a share above 0, at most 1")
    check_value("k", k, k >= 1, "1 and more")
    rng = np.random.default_rng(seed)
    own = queries is None
    try:
        asked = gallery if queries is None else Vectors(queries, "queries")
    except ValueError as error:
        raise DataError(str(error)) from error
    if asked.width != gallery.width:
        raise DataError(f"The queries have {asked.width} dimensions, but the gallery {gallery.width}.")
    chosen = np.sort(rng.choice(len(asked), min(MEASURED, len(asked)), replace=False))
    sample = Vectors(asked.units(chosen), "queries")
    lists = _filled(gallery, rng, seed)
    extra = int(own)  # each finds itself
    k = min(k, len(gallery) - extra)
    nearest = nearest_by_cosine(sample, gallery, k + extra)
    exact = _without(nearest, chosen)[:, -1:] if own else nearest[1][:, -1:]
    words = f"{len(chosen)} of its own vectors" if own else f"{len(chosen)} queries"

    def searching(count: int) -> GalleryIndex:
        """The index that looks through so many lists, with the share that it finds."""
        found = nearest_by_index(sample, gallery, k + extra, GalleryIndex(lists, count, 0.0, k, words))
        share = float(((_without(found, chosen) if own else found[1]) >= exact).mean()) if k else 1.0
        return GalleryIndex(lists, count, share, k, words)

    return _fewest(searching, recall, lists.nlist)


def _fewest(searching: Callable[[int], GalleryIndex], recall: float, n_lists: int) -> GalleryIndex:
    """Of indices by the lists that they search, the one of fewest that reaches a recall; of all where none does."""
    too_few, found = 0, searching(1)
    while found.recall < recall and found.searched < n_lists:
        too_few, found = found.searched, searching(min(2 * found.searched, n_lists))
    while found.recall >= recall and found.searched - too_few > 1:
        between = searching((too_few + found.searched) // 2)
        if between.recall >= recall:
            found = between
        else:
            too_few = between.searched
    return found


def _without(found: tuple[np.ndarray, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Cosines of what was found for rows of the gallery, without themselves, or the last where they are not found."""
    places, cosines = found
    kept = places != rows[:, None]
    kept[kept.all(axis=1), -1] = False
    return cosines[kept].reshape(len(cosines), -1)


def _filled(gallery: Vectors, rng: np.random.Generator, seed: int) -> Any:
    """Lists with all rows: about twice the square root of their number, fitted on some of them by one thread."""
    try:
        import faiss
    except ImportError as error:
        raise DataError(INSTALL_FAISS) from error
    n_lists = max(1, min(len(gallery), round(2 * len(gallery) ** 0.5)))
    lists = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(gallery.width), gallery.width, n_lists, faiss.ScalarQuantizer.QT_4bit,
        faiss.METRIC_INNER_PRODUCT,
    )  # fmt: skip
    lists.cp.seed, lists.cp.niter, lists.cp.spherical = seed, ITERATIONS, True
    lists.cp.min_points_per_centroid, lists.cp.max_points_per_centroid = 1, PER_LIST
    count = min(len(gallery), PER_LIST * n_lists)
    with _one_thread(faiss):  # sums in another order would give other centroids
        lists.train(gallery.units32(np.sort(rng.choice(len(gallery), count, replace=False))))
    for rows in steps(len(gallery), ADD_ROWS):
        lists.add(gallery.units32(rows))
    return lists


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    """Have FAISS use one thread."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
