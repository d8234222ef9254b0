"""Exact search by cosine, block by block: in float32, and in float64 where that could change the order."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np

from neural_clip.retrieval.tiles import ROUNDING, Vectors, steps

BLOCK_ROWS = 2048  # of a gallery, widened to float32 at a time: 6 MB at 768 dimensions
BLOCK_QUERIES = 1024
SPARE = 16  # rows kept beyond those wanted, because float32 may order the last of them otherwise
DIGITS = 9  # as in `nearest_rows` of retrieval/scores.py: equal vectors tie whatever their place


def nearest_by_cosine(
    queries: Vectors, gallery: Vectors, k: int, handicap: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a gallery most alike to each query, and their cosines. No float32 copy of the gallery is made.

    The result is that of `nearest_rows` in `retrieval/scores.py`: cosines in float64, rounded to nine digits, ties in
    order of the gallery. Rows that float32 puts too near to the last one wanted are computed in float64.

    Args:
        queries, gallery ([`Vectors`]): Of any length and float type, of one width.
        k (`int`): Rows wanted of each query, at most those that have no infinite handicap.
        handicap (`np.ndarray` of shape `(n_gallery,)`, *optional*): Subtracted from the cosines with each row for the
            order; infinite for rows that are left out.

    Returns:
        `tuple` of `np.ndarray` `(n_queries, k)`: Rows (int64), best first, and cosines (float64).
    """
    found = [
        _nearest(queries.units(rows), queries.units32(rows), gallery, k, handicap)
        for rows in steps(len(queries), BLOCK_QUERIES)
    ]
    return np.concatenate([rows for rows, _ in found]), np.concatenate([cosines for _, cosines in found])


def _nearest(
    units: np.ndarray, units32: np.ndarray, gallery: Vectors, k: int, handicap: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """As [`nearest_by_cosine`] for queries that are searched together."""
    last, candidates = _screened(units32, gallery, min(k + SPARE, len(gallery)), handicap)
    rows, cosines, values = ordered(units, gallery, candidates, k, handicap)
    margin = (gallery.width + 32) * ROUNDING  # bound of the rounding of a sum of so many products
    undecided = np.flatnonzero((last >= values[:, -1] - margin) & (candidates.shape[1] < len(gallery)))
    if len(undecided):
        rows[undecided], cosines[undecided] = _exhaustive(units[undecided], gallery, k, handicap)
    return rows, cosines


def _screened(
    units: np.ndarray, gallery: Vectors, k: int, handicap: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The value of the last of the best `k` rows of each query in float32, and these rows; -1 where there are fewer.

    Of a block only values above a query's last one so far are looked at: after a few blocks hardly any are.
    """
    import torch

    _without_warning()
    wanted = torch.from_numpy(np.ascontiguousarray(units))
    best, rows = torch.full((len(units), k), -torch.inf), torch.full((len(units), k), -1)
    widened, products = torch.empty(BLOCK_ROWS, gallery.width), torch.empty(len(units), BLOCK_ROWS)
    for block in steps(len(gallery), BLOCK_ROWS):
        size = block.stop - block.start
        values = products[:, :size]  # (n_queries, block)
        torch.mm(wanted, widened[:size].copy_(torch.from_numpy(gallery.array[block])).T, out=values)
        values *= torch.from_numpy(gallery.scale[block].astype(np.float32))
        if handicap is not None:
            values -= torch.from_numpy(handicap[block].astype(np.float32))
        above = np.flatnonzero((values > best.amin(dim=1, keepdim=True)).numpy())  # NumPy's is six times as fast
        if len(above):
            query, column = map(torch.from_numpy, divmod(above, size))
            counts = torch.bincount(query, minlength=len(units))
            place = torch.arange(len(query)) - (counts.cumsum(0) - counts)[query]  # among those of its query
            found = torch.full((len(units), int(counts.max())), -torch.inf)
            names = torch.full(found.shape, -1)
            found[query, place], names[query, place] = values[query, column], column + block.start
            best, kept = torch.cat([best, found], dim=1).topk(k, dim=1, sorted=False)
            rows = torch.cat([rows, names], dim=1).gather(1, kept)
    return best.amin(dim=1).numpy(), rows.numpy()


@cache
def _without_warning() -> None:
    """Let torch warn unseen, as it does once, of arrays that are not writable: threads share filters of warnings."""
    import torch

    array = np.zeros(1)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        torch.from_numpy(array)


def ordered(
    units: np.ndarray, gallery: Vectors, candidates: np.ndarray, k: int, handicap: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first `k` of the candidates of each query: rows, cosines, and what they are ordered by."""
    shape = (len(candidates), k)
    rows, cosines, values = np.empty(shape, np.int64), np.empty(shape), np.empty(shape)
    for query, found in enumerate(np.sort(candidates, axis=1)):
        found = found[found >= 0]
        exact = np.round(gallery.units(found) @ units[query], DIGITS)
        value = exact if handicap is None else exact - handicap[found]
        order = np.argsort(-value, kind="stable")[:k]
        rows[query], cosines[query], values[query] = found[order], exact[order], value[order]
    return rows, cosines, values


def _exhaustive(
    units: np.ndarray, gallery: Vectors, k: int, handicap: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """All rows in float64, block by block."""
    n_queries = len(units)
    rows, cosines, values = np.empty((n_queries, 0), np.int64), np.empty((n_queries, 0)), np.empty((n_queries, 0))
    for block in steps(len(gallery), BLOCK_ROWS):
        exact = np.round(units @ gallery.units(block).T, DIGITS)
        own = exact if handicap is None else exact - handicap[block]
        places = np.broadcast_to(np.arange(block.start, block.stop), exact.shape)
        joined = [np.concatenate(pair, axis=1) for pair in ((rows, places), (cosines, exact), (values, own))]
        order = np.argsort(-joined[2], axis=1, kind="stable")[:, :k]
        rows, cosines, values = (np.take_along_axis(part, order, axis=1) for part in joined)
    return rows, cosines


def local_scaling(queries: Vectors, gallery: Vectors, k: int) -> np.ndarray:
    """Half of what CSLS subtracts from a row of a gallery: its mean cosine with the `k` queries most alike to it.

    CSLS(x, y) = 2 cos(x, y) - r(x) - r(y), with r(y) the mean cosine of y with its k nearest queries. The order of
    rows for one query x is that of cos(x, y) - r(y) / 2.

    Returns:
        `np.ndarray` of shape `(n_gallery,)`: r(y) / 2.

    Source: Lample et al. 2018, "Word translation without parallel data", arXiv:1710.04087, section 2.3.
    """
    found = np.empty(len(gallery))
    units = queries.units(slice(None))
    for block in steps(len(gallery), BLOCK_ROWS):
        cosines = np.round(gallery.units(block) @ units.T, DIGITS)  # (block, n_queries)
        found[block] = np.partition(cosines, len(units) - k, axis=1)[:, -k:].mean(axis=1) / 2
    return found
