"""Exact search of a gallery against the bare float32 product: seconds, ratio, and memory.

    OMP_NUM_THREADS=1 python benchmarks/gallery_search.py  # 100 queries, 1,000,000 x 768 in float16, one thread
    python benchmarks/gallery_search.py --rows 100000

The gallery is searched as `NeuralGallery.search` does, top 5. The bare product multiplies the same queries with the
same vectors widened to float32, in pieces of 100,000 rows that are made before the clock starts. Both use all threads
of torch. One run each, after a first one that is not counted; seconds of the clock, and of the processor, which other
programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch

from neural_clip.gallery.search import nearest_by_cosine
from neural_clip.retrieval.tiles import Vectors

WIDTH, TOP_K, PIECE = 768, 5, 100_000


def vectors(n_rows: int) -> np.ndarray:
    """Unit vectors without structure in float16, made piece by piece."""
    rng, found = np.random.default_rng(0), np.empty((n_rows, WIDTH), np.float16)
    for start in range(0, n_rows, 10_000):
        block = rng.standard_normal((min(10_000, n_rows - start), WIDTH), dtype=np.float32)
        found[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return found


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
    arguments = parser.parse_args()
    stored = vectors(arguments.rows)
    queries = np.random.default_rng(1).standard_normal((arguments.queries, WIDTH), dtype=np.float32)
    gallery, asked = Vectors(stored, "gallery"), Vectors(queries, "queries")
    bare_product(queries, stored[:PIECE])
    bare = bare_product(queries, stored)
    nearest_by_cosine(asked, Vectors(stored[:PIECE], "gallery"), TOP_K)
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, clocks()
    nearest_by_cosine(asked, gallery, TOP_K)
    took, after = clocks() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{arguments.queries} queries, {arguments.rows:,} x {WIDTH} in float16 ({stored.nbytes / 1e9:.2f} GB), "
          f"threads: {torch.get_num_threads()}")  # fmt: skip
    for name, product, search in zip(("clock", "processor"), bare, took, strict=True):
        print(
            f"{name}: bare float32 product {product:.2f} s, exact search {search:.2f} s, ratio {search / product:.2f}"
        )
    print(f"memory at most {after / 1e6:.2f} GB, {max(after - before, 0) / 1e3:.0f} MB of it since the search began")


if __name__ == "__main__":
    main()
