"""Rows of linear baselines in a decoding table, on the same recordings and gallery as the model."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.errors import DataError, ReadError
from neural_clip.evaluation.baselines.cost import LONG, costs_of, told
from neural_clip.evaluation.baselines.rows import BASELINES
from neural_clip.evaluation.finished_parts import FinishedParts
from neural_clip.gallery.embedding import SINGLE_TRIAL, EmbeddedSplit
from neural_clip.prepared.reader import Split

if TYPE_CHECKING:
    from neural_clip.evaluation.tasks import Contributions

MAX_LOADED = 2**26  # numbers of a split that is read once: 0.25 GB


def small(split: Split) -> Split:
    """A split whose recordings are read once, where they need little memory."""
    facts = split.facts
    size = max(facts.n_voxels.values()) if facts.n_voxels else facts.n_chans * facts.n_times
    return split.loaded() if len(split) * size <= MAX_LOADED else split


def content_of(part: Split) -> dict[str, Any]:
    """What decides the numbers of the split that is scored, as the key of finished parts has it."""
    scored = hashlib.sha256("\n".join([*part.subjects, *part.image_ids]).encode()).hexdigest()
    return {"fingerprint": part.facts.fingerprint, "targets": part.data.images.sha256, "scored": scored,
            "split": part.name}  # fmt: skip


def parts_of(kept: FinishedParts, part: Split, left_out: Collection[str]) -> FinishedParts:
    """Where is kept what is fitted for a split that is scored."""
    return kept.of(**content_of(part), **({"left_out": left_out} if left_out else {}))


def baseline_rows(
    data: EmbeddedSplit, splits: Sequence[Split], seed: int, names: Sequence[str], parts: FinishedParts,
    said: bool = True,
) -> tuple[list[dict], dict[str, Contributions], dict[str, Mapping[str, np.ndarray]]]:  # fmt: skip
    """Scores of linear baselines on the same recordings and gallery, contributions of single trials, and predictions.

    One that cannot be computed says why. `predictions` of each is read from its part each time that it is asked for.
    `said` is whether to say what they cost and how long each took.
    """
    from tqdm import tqdm

    from neural_clip.evaluation.tasks import decoding_rows

    rows: list[dict] = []
    contributions: dict[str, Contributions] = {}
    made: dict[str, Mapping[str, np.ndarray]] = {}
    wanted = [name for name, _ in BASELINES if name in names]
    costs = costs_of(wanted, *splits[:2])
    long = said and sum(cost.seconds for cost in costs.values()) > LONG
    if long:
        print(told(data.data.key, list(costs.values())), file=sys.stderr)
    with tqdm(
        total=sum(cost.ridges for cost in costs.values()), desc=f"{data.data.key} baselines", unit="ridge",
        file=sys.stderr, disable=not long,
    ) as progress:  # fmt: skip
        for name in wanted:
            began, end = now(), progress.n + costs[name].ridges
            own = replace(parts, tick=partial(_tick, progress, end))
            with of_baseline(parts, name).alone("predictions"):
                try:
                    made[name], chosen = predicted(name, splits, own)
                except ReadError:
                    raise
                except DataError as error:
                    rows.append({"method": name, "aggregation": SINGLE_TRIAL, "not_computed": str(error)})
                    continue
                finally:
                    progress.update(end - progress.n)
            scored, contributions[name] = decoding_rows(data, made[name]["predictions"], name, seed)
            rows += [{**row, "fit": chosen} for row in scored]
            if said:
                print(f"{data.data.key}: {name} in {since(began)}", file=sys.stderr)
    return rows, contributions, made


def _tick(progress: Any, end: int) -> None:
    """Count a ridge, unless a baseline has as many as were counted for it: it shares the others with earlier ones."""
    progress.update(min(end - progress.n, 1))


def of_baseline(parts: FinishedParts, name: str) -> FinishedParts:
    """Where the predictions of a baseline are kept."""
    return parts.of(baseline=name)


def predicted(name: str, splits: Sequence[Split], parts: FinishedParts) -> tuple[Mapping[str, np.ndarray], dict]:
    """`predictions` of a baseline and what was chosen, from their part where they are finished."""
    fit = dict(BASELINES)[name]

    def compute() -> dict[str, np.ndarray]:
        predictions, chosen = fit(*splits, parts=parts)
        return {"predictions": predictions, "chosen": np.frombuffer(json.dumps(chosen).encode(), dtype=np.uint8)}

    found = of_baseline(parts, name).arrays("predictions", compute)
    return found, json.loads(found["chosen"].tobytes())


def now() -> tuple[float, float]:
    """Seconds of the clock and of the processor, from any time on."""
    return time.monotonic(), time.process_time()


def since(began: tuple[float, float]) -> str:
    """How long something took, in words."""
    clock, processor = now()
    return f"{clock - began[0]:.1f} s, {processor - began[1]:.1f} s of the processor"
