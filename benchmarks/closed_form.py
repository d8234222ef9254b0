"""Choosing and refitting the closed form: processor seconds and peak memory for given numbers of rows and features.

    python benchmarks/closed_form.py --shape 271 201 --rows 2000 --subjects 2   # THINGS-MEG from onset, fewer rows
    python benchmarks/closed_form.py --shape 6000 --rows 9000 --subjects 1      # voxels, more rows than features
    python benchmarks/closed_form.py --shape 18000 --rows 30000 --one-way       # what one way of fitting costs

`--one-way` fits the last of the ways alone, the one with the largest matrices. It tells what the way costs with its
first strength, and with each further one.

The data are made here and lie on disk as a prepared data set: noise with a planted linear signal. One in ten rows more
are for validation. Peak memory counts what the process itself holds (RssAnon, looked at every 20 ms) above what it
held before; pages of memory-mapped files, which the system takes back when it needs them, do not count. Needs Linux,
and on disk 4 bytes a number and as much again for the copy that `datasets` maps into memory.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from neural_clip.prepared.reader import Split

WIDTH, POOL = 768, 512  # of the embeddings; recordings of noise that are mixed


class Peak:
    """The largest RssAnon of this process while it is entered, less that before, and the processor seconds."""

    def __enter__(self) -> Peak:
        self.before = self.largest = self.now()
        self.running = True
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        self.began = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.process_time() - self.began
        self.running = False
        self.thread.join()

    @staticmethod
    def now() -> int:
        """RssAnon in kB."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])

    def _watch(self) -> None:
        while self.running:
            self.largest = max(self.largest, self.now())
            time.sleep(0.02)

    @property
    def gigabytes(self) -> float:
        """Above what was held before."""
        return (self.largest - self.before) / 1e6


def write_data(folder: Path, shape: list[int], n_rows: int, n_subjects: int) -> Path:
    """A prepared data set of noise with a planted signal."""
    from neural_clip.prepared.writer import write_prepared

    rng = np.random.default_rng(0)
    modality = "fmri" if len(shape) == 1 else "meg"
    counts = {"train": n_rows, "validation": max(n_rows // 10, 2), "test": 2}
    embeds = rng.standard_normal((sum(counts.values()), WIDTH)).astype(np.float32)
    splits = np.repeat(list(counts), list(counts.values()))
    named = {"concept": "", "categories": []}
    images = [{"image_id": f"{n:06d}", "image_embeds": row, **named} for n, row in enumerate(embeds)]
    pool = rng.standard_normal((POOL, *shape)).astype(np.float32)
    maps = rng.standard_normal((8, int(np.prod(shape)))).astype(np.float32) / 4

    def recordings() -> Iterator[dict]:
        for subject in range(n_subjects):
            for number, split in enumerate(splits):
                one, other = rng.integers(POOL, size=2)
                values = pool[one] + np.roll(pool[other], rng.integers(1000))
                values += (embeds[number, :8] @ maps).reshape(shape)
                yield {"subject": f"sub-{subject + 1:02d}", "image_id": images[number]["image_id"], "split": split,
                       modality: values}  # fmt: skip

    stated = dict.fromkeys(("corpus", "split_protocol", "licence", "citation", "source"), "made for a benchmark")
    metadata: dict[str, object] = {**stated, "modality": modality, "split_unit": "image", "redistribution": "allowed",
                "image_encoder": {"name": "none", "revision": "0", "pooling": "precomputed"}}  # fmt: skip
    if modality == "meg":
        metadata |= {"sfreq": 200.0, "tmin": 0.0, "ch_names": [f"C{i}" for i in range(shape[0])]}
    return write_prepared(folder / "data", metadata, recordings(), images)


def everything(train: Split, validation: Split) -> dict:
    """Choose way and strength, and fold the choice into a map."""
    from neural_clip.evaluation.baselines.closed_form import choose, ready
    from neural_clip.evaluation.baselines.closed_form_fit import fit_of

    with Peak() as peak:
        train, validation = ready(train), ready(validation)
        choice, transform = choose(train, validation)
    found = {"way": choice.fit.way.name, "relative_alpha": choice.relative_alpha}
    found |= {"choose_s": round(peak.seconds, 1), "choose_gb": round(peak.gigabytes, 2)}
    with Peak() as peak:
        fit_of(choice.fit.way, train).folded("sub-01", choice.relative_alpha, transform)
    return found | {"refit_s": round(peak.seconds, 1), "refit_gb": round(peak.gigabytes, 2)}


def one_way(train: Split, validation: Split) -> dict:
    """The last way with two strengths, and the map of the second."""
    from neural_clip.evaluation.baselines.closed_form import ready, undoing
    from neural_clip.evaluation.baselines.closed_form_fit import fits

    found: dict = {}
    with Peak() as first:
        train, validation = ready(train), ready(validation)
        *_, fit = fits(train)
        fit.deviations(validation, [1.0])
    with Peak() as second:
        fit.deviations(validation, [0.1])
    with Peak() as map_of:
        fit.folded("sub-01", 0.1, undoing(train.data.images.of(train.shown_ids).embeds))
    for name, peak in (("first_strength", first), ("further_strength", second), ("map", map_of)):
        found[f"{name}_s"] = round(peak.seconds, 1)
    largest = max(peak.largest for peak in (first, second, map_of))
    return {"way": fit.way.name} | found | {"gb": round((largest - first.before) / 1e6, 2)}


def main() -> None:
    """Print one line of JSON."""
    import scipy.linalg  # noqa: F401  before memory is measured
    from threadpoolctl import threadpool_limits

    from neural_clip.prepared.reader import PreparedSet

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs="+", required=True, help="n_chans n_times, or n_voxels")
    parser.add_argument("--rows", type=int, required=True, help="training rows of a subject")
    parser.add_argument("--subjects", type=int, default=1)
    parser.add_argument("--one-way", action="store_true", help="fit one way with two strengths, choose nothing")
    parser.add_argument("--folder", help="where the data are made; a temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        data = PreparedSet.open(write_data(Path(folder), arguments.shape, arguments.rows, arguments.subjects))
        found: dict = {"shape": arguments.shape, "rows": arguments.rows, "subjects": arguments.subjects}
        with threadpool_limits(1, "blas"):
            train, validation = (data.split(name) for name in ("train", "validation"))
            len(train.values([0])), len(validation.values([0]))  # the copy that is mapped is there
            found |= one_way(train, validation) if arguments.one_way else everything(train, validation)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
