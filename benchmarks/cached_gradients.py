"""Peak memory and seconds of a step whose batch is embedded at once, or in parts with cached gradients.

    python benchmarks/cached_gradients.py                            # EEG by `base`, batches of 256 to 8,192
    python benchmarks/cached_gradients.py --modality fmri --sizes 256 2048
    python benchmarks/cached_gradients.py --parts 0                  # what it takes without parts

Each batch is measured in a process of its own. Recordings are noise in a prepared data set on the disk, of 128
channels x 440 samples (EEG), 271 x 201 (MEG) or 15,000 voxels (fMRI), as the three corpora have them. Peak memory is
what the process holds (RssAnon, looked at every 20 ms) above what it held before the steps, weights and gradients
included; pages of memory-mapped files do not count. Needs Linux, and 2 bytes a number on the disk, twice.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from closed_form import Peak

SHAPES = {"eeg": (128, 440), "meg": (271, 201), "fmri": (15_000,)}
WIDTH = 768  # of the embeddings


def write_data(folder: Path, modality: str, n_rows: int) -> None:
    """A prepared data set of noise, half as many images as recordings."""
    from neural_clip.prepared.writer import write_prepared

    rng, shape = np.random.default_rng(0), SHAPES[modality]
    embeds = rng.standard_normal((n_rows // 2 + 2, WIDTH)).astype(np.float32)
    named = {"concept": "", "categories": []}
    images = [{"image_id": f"{n:06d}", "image_embeds": row, **named} for n, row in enumerate(embeds)]
    pool = rng.standard_normal((64, *shape)).astype(np.float32)

    def recordings() -> Iterator[dict]:
        for number in range(n_rows + 2):
            learnt = number < n_rows
            split, image = "train" if learnt else "test", number % (n_rows // 2) if learnt else number - n_rows // 2
            values = np.roll(pool[number % len(pool)], number)
            yield {"subject": "sub-01", "image_id": f"{image:06d}", "split": split, modality: values}

    stated = dict.fromkeys(("corpus", "split_protocol", "licence", "citation", "source"), "made for a benchmark")
    metadata: dict[str, object] = {**stated, "modality": modality, "split_unit": "image", "redistribution": "allowed",
                "image_encoder": {"name": "none", "revision": "0", "pooling": "precomputed"}}  # fmt: skip
    if modality != "fmri":
        metadata |= {"sfreq": 250.0, "tmin": 0.0, "ch_names": [f"C{i}" for i in range(shape[0])]}
    write_prepared(folder, metadata, recordings(), images)


def measured(folder: str, modality: str, size: int, parts: int, n_steps: int, recipe: str) -> dict[str, float]:
    """Seconds of the last step, and peak memory of all."""
    import torch

    from neural_clip.prepared.reader import PreparedSet
    from neural_clip.training.batch_loss import batch_loss
    from neural_clip.training.batches import JointDataset, RecordingDataset
    from neural_clip.training.model import build_model, model_config
    from neural_clip.training.recipe import read_recipe

    data = PreparedSet.open(folder)
    told = read_recipe([recipe, "--data", f"{modality}={folder}", "--output-dir", "nowhere"])
    model = build_model(model_config(told, {modality: data.facts}, None), None, 0).train()
    joint = JointDataset([RecordingDataset.open(data, "train", ["sub-01"])])
    joint.stored = bool(parts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with Peak() as peak:
        for _ in range(n_steps):
            began = time.perf_counter()
            batch = joint.__getitems__(np.random.default_rng(1).permutation(len(joint))[:size].tolist())
            loss = batch_loss(model, batch, parts) if parts else model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return {"loss": float(loss.detach()), "seconds": time.perf_counter() - began, "gigabytes": peak.gigabytes}


def main() -> None:
    """Print a line of JSON for each batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modality", choices=SHAPES, default="eeg")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024, 8192], help="recordings a batch")
    parser.add_argument("--parts", type=int, default=256, help="recordings a part; 0 for the batch at once")
    parser.add_argument("--steps", type=int, default=2, help="steps, the last of which is timed")
    parser.add_argument("--recipe", default="base")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder, "data"), args.modality, max(args.sizes))
        for size in args.sizes:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                given = (str(Path(folder, "data")), args.modality, size, args.parts, args.steps, args.recipe)
                print(json.dumps({"batch": size, "part": args.parts} | pool.apply(measured, given)), flush=True)


if __name__ == "__main__":
    main()
