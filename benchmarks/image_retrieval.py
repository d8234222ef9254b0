"""The metric's all-pairs scores against the bare similarity product: seconds, ratio, and peak memory.

    OMP_NUM_THREADS=1 python benchmarks/image_retrieval.py    # 10,000 x 10,000 x 768, float32, one thread
    python benchmarks/image_retrieval.py --million            # all threads; and a gallery of 1,000,000 images
    python benchmarks/image_retrieval.py --evaluate           # `evaluate.load(...)` against `retrieval_scores`

The bare product is `predictions @ references.T` of the same float32 arrays by the same threads. Product and scores
take turns in one process; the fastest of each is compared, in seconds of the clock, and in those of the processor (all
threads), which other programs on the machine disturb less but which do not show processors that wait. `reused` is the
product into memory that is already there: without the time the system needs to hand out 400 MB. Memory is the peak of
a process that does nothing else, above what it held when the inputs were in place.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from neural_clip.retrieval import scores
from neural_clip.retrieval.task import RetrievalTask
from neural_clip.retrieval.tiles import Limits, Screen, pair_cosines

WIDTH, N_CLASSES = 768, 1000
FOLDER = Path(__file__).resolve().parents[1] / "metrics" / "image_retrieval"
MEGABYTE = 2**20


def embeddings(n_queries: int, n_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Images without structure, and queries that resemble theirs a little; image i belongs to query i."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((n_images, WIDTH), dtype=np.float32)
    return images[:n_queries] * np.float32(0.1) + rng.standard_normal((n_queries, WIDTH), dtype=np.float32), images


def seconds(work) -> np.ndarray:
    """Seconds of the clock, and of the processor."""
    begin = np.array([time.perf_counter(), time.process_time()])
    work()
    return np.array([time.perf_counter(), time.process_time()]) - begin


def speed(n: int, rounds: int) -> None:
    """Print the fastest of several rounds of everything."""
    predictions, references = embeddings(n, n)
    classes = [row % N_CLASSES for row in range(n)]
    product = np.empty((n, n), np.float32)
    task = RetrievalTask(predictions, references, classes=classes)
    truth = pair_cosines(task.queries, task.gallery, np.arange(n), task.true_columns)

    def limits(centred: bool = False) -> Limits:
        return Limits(truth, centred)

    def count(by_query, by_image=None) -> None:
        Screen(task.queries, task.gallery, task.true_columns).count(by_query, by_image)

    works = {
        "bare product": lambda: predictions @ references.T,
        "bare product, reused": lambda: np.matmul(predictions, references.T, out=product),
        "product in tiles": lambda: count([]),
        "+ queries to images": lambda: count([limits()]),
        "+ images to queries": lambda: count([limits()], limits()),
        "+ Pearson": lambda: count([limits(), limits(True)], limits()),
        "class preparation": lambda: scores._classes(task),
        "30 pools of 300": lambda: scores._sampled_pools(task, 0),
        "score_queries": lambda: scores.score_queries(predictions, references),
        "retrieval_scores": lambda: scores.retrieval_scores(predictions, references),
        f"retrieval_scores, {N_CLASSES} classes": lambda: scores.retrieval_scores(
            predictions, references, classes=classes
        ),
    }
    best = {name: np.full(2, np.inf) for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            best[name] = np.minimum(best[name], seconds(work))
    bare, reused = best["bare product"], best["bare product, reused"]
    threads = max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
    print(f"{n:,} x {n:,} x {WIDTH}, float32, threads: {threads}; ratios to the bare product, to the reused one")
    print(f"{'':<32}   clock                     processor")
    for name, value in best.items():
        columns = zip(value, value / bare, value / reused, strict=True)
        print(f"{name:<32}" + "   ".join(f"{took:7.2f} s {ratio:6.2f} {other:6.2f}" for took, ratio, other in columns))


def peak(n_queries: int, n_images: int) -> None:
    """Print seconds and MB of scores in this process, beyond the inputs, as JSON."""
    predictions, references = embeddings(n_queries, n_images)
    ids = np.arange(n_images)
    scores.score_queries(predictions[:100], references[:100])  # what libraries load on first use
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # sets the peak back to what is held now: making the inputs took more
    before, begin = _peak_kilobytes(), time.perf_counter()
    scores.score_queries(predictions, references, ids[:n_queries], ids)
    print(json.dumps([time.perf_counter() - begin, (_peak_kilobytes() - before) / 1024, references.nbytes / MEGABYTE]))


def through_evaluate(n: int, rounds: int) -> None:
    """Print what `evaluate` adds to the scores: given in one piece, and in batches of 256 that pass through a file."""
    import evaluate

    predictions, references = embeddings(n, n)
    inputs: dict[str, Any] = {
        "predictions": predictions,
        "references": references,
        "reference_ids": [f"i{row}" for row in range(n)],
    }
    with tempfile.TemporaryDirectory() as cache:
        metric = evaluate.load(str(FOLDER), cache_dir=cache)

        def streamed() -> None:
            for start in range(0, n, 256):
                metric.add_batch(**{name: value[start : start + 256] for name, value in inputs.items()})
            metric.compute()

        works = {
            "retrieval_scores": lambda: scores.retrieval_scores(**inputs),
            "compute": lambda: metric.compute(**inputs),
            "add_batch, compute": streamed,
        }
        best = {name: np.full(2, np.inf) for name in works}
        for _ in range(rounds):
            for name, work in works.items():
                best[name] = np.minimum(best[name], seconds(work))
    print(f"{n:,} x {n:,} x {WIDTH}, float32; ratios to retrieval_scores")
    print(f"{'':<32}   clock              processor")
    for name, value in best.items():
        columns = zip(value, value / best["retrieval_scores"], strict=True)
        print(f"{name:<32}" + "   ".join(f"{took:7.2f} s {ratio:6.2f}" for took, ratio in columns))


def _peak_kilobytes() -> int:
    """Largest memory of this process so far."""
    with open("/proc/self/status") as file:
        lines = [line for line in file if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) if lines else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory(n_queries: int, n_images: int) -> None:
    """Print what a process of its own needs."""
    order = [sys.executable, __file__, "--peak", str(n_queries), str(n_images)]
    took, more, size = json.loads(subprocess.run(order, capture_output=True, text=True, check=True).stdout)
    print(
        f"{n_queries:,} queries, {n_images:,} images ({size:,.0f} MB): {took:.1f} s, {more:.0f} MB beyond the inputs"
    )


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="queries and images (default: 10,000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--million", action="store_true", help="also a gallery of a million images: 3 GB")
    parser.add_argument("--evaluate", action="store_true", help="what `evaluate` adds, and nothing else")
    parser.add_argument("--peak", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        peak(*arguments.peak)
        return
    if arguments.evaluate:
        through_evaluate(arguments.n, arguments.rounds)
        return
    memory(arguments.n, arguments.n)
    if arguments.million:
        memory(1_000, 1_000_000)
    speed(arguments.n, arguments.rounds)


if __name__ == "__main__":
    main()
