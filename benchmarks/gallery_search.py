"""Exact search of a gallery against the bare float32 product, and search by an index: seconds, recall, and memory.

    OMP_NUM_THREADS=1 python benchmarks/gallery_search.py  # 100 queries, 1,000,000 x 768 in float16, one thread
    OMP_NUM_THREADS=1 python benchmarks/gallery_search.py --index  # and with an index; ten minutes of one processor

The gallery is searched as `NeuralGallery.search` does, top 5. The bare product multiplies the same queries with the
same vectors widened to float32, in pieces of 100,000 rows that are made before the clock starts. Both use all threads
of torch. The two take turns, three times after a first one that is not counted, and the fastest of each counts;
seconds of the clock, and of the processor, which other programs on the machine disturb less.

`--index` also makes an index as `NeuralGallery.with_index` does, with its defaults, and searches it with one query at
a time. Vectors are simulated: those of images lie otherwise, so `gallery.index.recall` of your own gallery counts.
Without `--index` they have no structure, which an exact search does not ask for. With it they lie around one centre
for each 50 of them, in 64 directions, with noise in all others. Queries are further vectors of the same kind.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch

from neural_clip.gallery.index import make_index, nearest_by_index
from neural_clip.gallery.search import nearest_by_cosine
from neural_clip.retrieval.tiles import Vectors

WIDTH, TOP_K, PIECE, TURNS = 768, 5, 100_000, 3
DIRECTIONS, PER_CENTRE, SPREAD, NOISE = 64, 50, 0.7, 0.3  # of vectors with structure


def vectors(n_rows: int, centres: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Unit vectors in float16, around centres or without structure, made piece by piece."""
    rng, found = np.random.default_rng(seed), np.empty((n_rows, WIDTH), np.float16)
    basis = np.random.default_rng(7).standard_normal((DIRECTIONS, WIDTH), dtype=np.float32) / DIRECTIONS**0.5
    for start in range(0, n_rows, 10_000):
        size = min(10_000, n_rows - start)
        block = rng.standard_normal((size, WIDTH), dtype=np.float32)
        if centres is not None:
            own = SPREAD * rng.standard_normal((size, DIRECTIONS), dtype=np.float32)
            block = NOISE * block + (centres[rng.integers(len(centres), size=size)] + own) @ basis
        found[start : start + size] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return found


def resident() -> float:
    """Memory of this process now, in GB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e9


def search_by_index(asked: Vectors, gallery: Vectors) -> None:
    """Print how long an index takes to make and to search, and how much it finds."""
    before, begin = resident(), clocks()
    index = make_index(gallery, None, recall=0.95, k=10, seed=0)
    took, held = clocks() - begin, resident() - before
    print(f"index: {index!r}; made in {took[0]:.0f} s ({took[1]:.0f} s of the processor), {held:.2f} GB")
    singles = [asked.units(slice(number, number + 1)) for number in range(len(asked))]
    begin = clocks()
    found = [nearest_by_index(Vectors(one, "queries"), gallery, TOP_K, index)[0][0] for one in singles]
    took = 1e3 * (clocks() - begin) / len(singles)
    exact, _ = nearest_by_cosine(asked, gallery, TOP_K)
    share = np.mean([len(set(ours) & set(theirs)) / TOP_K for ours, theirs in zip(found, exact, strict=True)])
    print(f"index: {took[0]:.1f} ms a query ({took[1]:.1f} ms of the processor), recall@{TOP_K} {share:.3f}")


def clocks() -> np.ndarray:
    """Seconds of the clock, and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def bare_product(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Seconds of the product of all pairs alone."""
    wanted, took = torch.from_numpy(queries), np.zeros(2)
    for start in range(0, len(gallery), PIECE):
        piece = torch.from_numpy(gallery[start : start + PIECE]).float()
        begin = clocks()
        _ = wanted @ piece.T
        took += clocks() - begin
    return took


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--index", action="store_true", help="also search by an index")
    arguments = parser.parse_args()
    n_centres = max(1, arguments.rows // PER_CENTRE)
    centres = np.random.default_rng(3).standard_normal((n_centres, DIRECTIONS), dtype=np.float32)
    stored = vectors(arguments.rows, centres if arguments.index else None)
    queries = vectors(arguments.queries, centres if arguments.index else None, seed=1).astype(np.float32)
    gallery, asked = Vectors(stored, "gallery"), Vectors(queries, "queries")
    bare_product(queries, stored[:PIECE])
    nearest_by_cosine(asked, Vectors(stored[:PIECE], "gallery"), TOP_K)
    before, turns = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(TURNS):
        product, begin = bare_product(queries, stored), clocks()
        nearest_by_cosine(asked, gallery, TOP_K)
        turns.append((product, clocks() - begin))
    (bare, took), after = np.min(turns, axis=0), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{arguments.queries} queries, {arguments.rows:,} x {WIDTH} in float16 ({stored.nbytes / 1e9:.2f} GB), "
          f"threads: {torch.get_num_threads()}")  # fmt: skip
    for name, product, search in zip(("clock", "processor"), bare, took, strict=True):
        print(
            f"{name}: bare float32 product {product:.2f} s, exact search {search:.2f} s, ratio {search / product:.2f}"
        )
    print(f"memory at most {after / 1e6:.2f} GB, {max(after - before, 0) / 1e3:.0f} MB of it since the search began")
    if arguments.index:
        search_by_index(asked, gallery)


if __name__ == "__main__":
    main()
