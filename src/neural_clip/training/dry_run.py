"""What a run would take: a few of its steps on its own data, of which nothing is kept or written."""

from __future__ import annotations

import copy
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from neural_clip.errors import DataError
from neural_clip.training.batches import BatchLoader
from neural_clip.training.trainer import NeuralClipTrainer

N_STEPS = 3  # of each modality that are measured, after one that is not: the first allocates
MB, GB = 2**20, 2**30


class _Batches:
    """Batches in an order that is the same in each epoch."""

    def __init__(self, batches: list[list[int]]) -> None:
        self.batches = batches

    def set_epoch(self, epoch: int) -> None:
        """Nothing changes."""

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


class _Clock(TrainerCallback):
    """When each step began and ended."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.began = 0.0

    def on_train_begin(self, args: Any, *_: object, **kwargs: object) -> None:
        """The first batch is about to be read."""
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, *_: object, **kwargs: object) -> None:
        """A step is done, on a GPU too."""
        if args.device.type == "cuda":
            torch.cuda.synchronize(args.device)
        now = time.perf_counter()
        self.seconds.append(now - self.began)
        self.began = now


def estimate(trainer: NeuralClipTrainer, folder: Path, n_trainings: int = 1) -> list[str]:
    """Take a few steps of each modality and tell what the whole run takes.

    Args:
        trainer ([`NeuralClipTrainer`]): Of the run; its weights are trained for these steps, and its settings changed.
        folder (`Path`): Where the run would write.
        n_trainings (`int`): With cross-validation, the folds and the training on all.

    Returns:
        `list[str]`: Lines to be printed.

    Raises:
        DataError: If the disk has no room for what the run keeps, or a step cannot be taken.
    """
    n_steps, args = trainer.n_steps(), trainer.args
    shares = trainer.steps_of(n_steps)
    n_states = 2 if args.save_total_limit == 1 and args.load_best_model_at_end else args.save_total_limit
    seconds = _measured(trainer)
    lines, whole = [], 0.0
    for part, taken in zip(trainer.recordings.parts, seconds, strict=True):
        size = min(trainer.batches().batch_size, len(part)) * args.gradient_accumulation_steps
        name = part.modality
        whole += shares[name] * taken * n_trainings
        lines.append(f"{name}: {size / taken:,.0f} recordings/s, {taken:.3g} s for a step of {size} ({N_STEPS} steps)")
    folds = f"in each of {n_trainings} trainings" if n_trainings > 1 else "in all"
    shared = " and ".join(f"{count:,} of {name}" for name, count in shares.items())
    lines.append(f"steps: {n_steps:,} {folds}, about {shared}")
    lines.append(f"time: about {_told(whole)}, without scoring, saving and the closed form")
    lines.append(f"memory: {_memory(args.device)}")
    return [*lines, _disk(trainer, folder, n_states)]


def _measured(trainer: NeuralClipTrainer) -> list[float]:
    """Seconds of a step of each modality, loader and optimiser included."""
    clock, accumulated, n_parts = _Clock(), trainer.args.gradient_accumulation_steps, len(trainer.recordings.parts)
    batches: Any = _Batches(_few_batches(trainer, (1 + N_STEPS) * accumulated))
    loader = BatchLoader(trainer.recordings, batches, num_workers=trainer.args.dataloader_num_workers)
    trainer.get_train_dataloader = lambda: loader  # type: ignore[method-assign]
    trainer.args = copy.copy(trainer.args)
    for name in ("eval_strategy", "save_strategy", "logging_strategy"):
        setattr(trainer.args, name, type(getattr(trainer.args, name))("no"))
    trainer.args.max_steps, trainer.args.load_best_model_at_end = (1 + N_STEPS) * n_parts, False
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(clock)
    trainer.train()
    return [float(np.mean(each[1:])) for each in np.reshape(clock.seconds, (n_parts, 1 + N_STEPS))]


def _few_batches(trainer: NeuralClipTrainer, n_each: int) -> list[list[int]]:
    """So many batches of each modality, one modality after the other."""
    found: dict[int, list[list[int]]] = {}
    for batch in trainer.batches():
        number = int(np.searchsorted(trainer.recordings.offsets, batch[0], side="right"))
        found.setdefault(number, []).append(batch)
    return [own[index % len(own)] for _, own in sorted(found.items()) for index in range(n_each)]


def _told(seconds: float) -> str:
    """A time in words."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"


def _size(n_bytes: float) -> str:
    """A size in words."""
    return f"{n_bytes / MB:.1f} MB" if n_bytes < GB else f"{n_bytes / GB:.1f} GB"


def _memory(device: torch.device) -> str:
    """The most that this process has held so far."""
    told = f"{_size(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)} of this process at most"
    if device.type == "cuda":
        most, whole = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        told += f", {_size(most)} of {_size(whole)} of the GPU"
    return told


def _disk(trainer: NeuralClipTrainer, folder: Path, n_states: int | None) -> str:
    """What the run keeps on the disk, and what is free."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    trained = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters() if tensor.requires_grad)
    optimizer: Any = trainer.optimizer
    n_moments = max(  # tensors as large as a weight that the optimiser keeps for it: two of Adam
        (sum(value.numel() for value in kept.values() if isinstance(value, torch.Tensor)) // max(weight.numel(), 1)
         for weight, kept in optimizer.state.items()),
        default=0,
    )  # fmt: skip
    state = weights + (0 if trainer.args.save_only_model else n_moments * trained)
    needed = weights + (n_states or 1) * state
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    kept = f"{n_states} states" if n_states else "each state"
    told = f"{_size(state)} a saved state, {_size(weights)} the weights"
    if free < needed:
        raise DataError(
            f"The run keeps {kept} and the weights, {_size(needed)} in all ({told}), but '{place}' has "
            f"{_size(free)} free."
        )
    return f"disk: {told}; {kept} and the weights are kept, {_size(needed)}; {_size(free)} are free"
