"""Memory and disk that a run needs, held against what there is."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.closed_form import decimation_of
from neural_clip.evaluation.baselines.closed_form_fit import MAX_WHITENED_SIZE
from neural_clip.evaluation.baselines.cost import NOTHING, Cost, costs_of
from neural_clip.files.memory import memory_held, memory_there
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.stored_rows import cache_name
from neural_clip.prepared.streamed_rows import StreamedRows
from neural_clip.training.closed_form import joined, within
from neural_clip.training.trainer import NeuralClipTrainer

MB, GB = 2**20, 2**30
# Matrices that are held at a time: whitening of voxels keeps two beside the one that is factored in place.
N_MATRICES, N_WHITENED = 1, 3
BESIDE = GB  # at most, for blocks of recordings and what is predicted of them


def told_size(n_bytes: float) -> str:
    """A size in words."""
    return f"{n_bytes / MB:.1f} MB" if n_bytes < GB else f"{n_bytes / GB:.1f} GB"


@dataclass(frozen=True)
class ClosedFormRoom:
    """What the closed forms of a run take, one data set after the other, in one process.

    Args:
        cost ([`Cost`]): Of all.
        n_bytes (`float`): Of the largest.
    """

    cost: Cost = NOTHING
    n_bytes: float = 0.0

    @property
    def told(self) -> str:
        """In words."""
        size, minutes = self.cost.size, self.cost.seconds / 60
        return (
            f"about {max(minutes, 1):.0f} min of one core, matrices of up to {size:,} x {size:,}, "
            f"{told_size(self.n_bytes)} of memory"
        )


def closed_form_room(trainer: NeuralClipTrainer, n_fits: int = 1) -> ClosedFormRoom:
    """What the closed forms of a run take on training and validation rows.

    Args:
        trainer ([`NeuralClipTrainer`]): Of the run.
        n_fits (`int`): With cross-validation, the folds and the fit on all.
    """
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    validation = {part.key: within(model, part).part for part in trainer.validation}
    found, most = NOTHING, 0.0
    for each in trainer.recordings.sets:
        part = within(model, each).part.from_onset()
        rows = joined(part, validation[each.key]) if each.key in validation else part
        rows = replace(rows, decimation=decimation_of(rows.facts))
        cost = costs_of(["closed form"], rows)["closed form"]
        found += Cost(n_fits * cost.ridges, n_fits * cost.seconds, cost.size)
        whitened = not MODALITIES[each.modality].sensors and cost.size <= MAX_WHITENED_SIZE
        beside = min(BESIDE, 3 * 4 * len(rows) * rows.values([0])[0].size)  # training, validation, and both once more
        most = max(most, (N_WHITENED if whitened else N_MATRICES) * 4 * cost.size**2 + beside)
    return ClosedFormRoom(found, most)


def memory_of(trainer: NeuralClipTrainer, closed_form: ClosedFormRoom, streaming: bool) -> str:
    """The memory that a run takes, by what this process has held so far.

    Args:
        trainer ([`NeuralClipTrainer`]): Of the run, after a few steps.
        closed_form ([`ClosedFormRoom`]): Beside the model, after training.
        streaming (`bool`): Whether the run keeps row groups in memory, as many as it may.

    Raises:
        DataError: If the machine, or the container, has less.
    """
    there, n_processes = memory_there(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    read = [each.part.recordings for each in trainer.recordings.sets]
    files = [rows.files for rows in read if isinstance(rows, StreamedRows)] if streaming else []
    kept = sum(max(min(each.n_bytes, each.share) - each.n_bytes_kept, 0) for each in files)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + kept
    at_end = n_processes * (memory_held() + kept) + closed_form.n_bytes
    training = f"{told_size(most)} of {'each' if n_processes > 1 else 'this'} process while it trains"
    if n_processes * most > there:
        raise DataError(
            f"The run needs {training}, and this machine has {told_size(there)} for {n_processes} of them. "
            f"{SMALLER_STEPS}"
        )
    if at_end > there:
        raise DataError(
            f"The run needs {told_size(at_end)} of memory when it fits the closed form ({closed_form.told}), but this "
            f"machine has {told_size(there)}. `--closed-form false` leaves it out."
        )
    told = f"{training}, {told_size(max(n_processes * most, at_end))} in all; {told_size(there)} are there"
    if (device := trainer.args.device).type == "cuda":
        used, whole = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        told += f"; {told_size(used)} of {told_size(whole)} of the GPU"
    return told


SMALLER_STEPS = (
    "`--mini-batch-size N` keeps the activations of N recordings of a batch at a time; fewer networks need less too."
)


@dataclass(frozen=True)
class Need:
    """Bytes that a run writes.

    Args:
        what (`str`): For messages.
        place (`Path`): Where; the nearest folder above it that there is tells the disk.
        n_bytes (`float`): How many.
    """

    what: str
    place: Path
    n_bytes: float

    @property
    def folder(self) -> Path:
        """What there is of the place."""
        return next(parent for parent in (self.place, *self.place.absolute().parents) if parent.is_dir())


def copies_of(data: Iterable[PreparedSet]) -> list[Need]:
    """What a run without streaming copies: from the Hub what is not here yet, and everything as Arrow."""
    from datasets import config

    cache, found = Path(config.HF_DATASETS_CACHE), []
    for opened in data:
        here = opened.folder
        lacking = {name: told for name, told in (opened.facts.files or {}).items() if not (here / name).is_file()}
        copied = cache.glob(f"parquet/{cache_name(opened.facts.fingerprint)}-*/**/parquet-*.arrow")
        size = opened.stored_bytes - sum(path.stat().st_size for path in copied)
        found += [
            Need(f"'{opened.name}' from the Hub", here, sum(told["bytes"] for told in lacking.values())),
            Need(f"the copy of '{opened.name}' as Arrow", cache, max(size, 0)),
        ]
    return [need for need in found if need.n_bytes]


def check_disks(needs: Iterable[Need]) -> None:
    """Raise a `DataError` where a disk has no room for what is written there."""
    by_disk: dict[int, list[Need]] = {}
    for need in needs:
        by_disk.setdefault(need.folder.stat().st_dev, []).append(need)
    for own in by_disk.values():
        needed, free = sum(need.n_bytes for need in own), shutil.disk_usage(own[0].folder).free
        if free < needed:
            listed = ", ".join(f"{told_size(need.n_bytes)} for {need.what}" for need in own)
            copies = any("Arrow" in need.what or "Hub" in need.what for need in own)
            raise DataError(
                f"The run needs {told_size(needed)} of disk ({listed}), but '{own[0].folder}' has {told_size(free)} "
                f"free.{' `--streaming` copies nothing.' if copies else ''}"
            )
