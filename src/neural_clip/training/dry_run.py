"""What a run would take: a few of its steps on its own data, of which nothing is kept or written."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from neural_clip.errors import DataError
from neural_clip.prepared.reader import PreparedSet
from neural_clip.training.across_processes import raised_by_all
from neural_clip.training.batches import BatchLoader
from neural_clip.training.recipe import Recipe
from neural_clip.training.room import (
    SMALLER_STEPS,
    ClosedFormRoom,
    Need,
    check_disks,
    closed_form_room,
    copies_of,
    memory_of,
    told_size,
)
from neural_clip.training.trainer import NeuralClipTrainer

N_STEPS = 3  # of each modality that are measured, after one that is not: the first allocates
N_GROUPS = 8  # row groups, spread over a modality, whose recordings stand for all of a run that does not stream


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


def estimate(
    trainer: NeuralClipTrainer, folder: Path, recipe: Recipe, data: Iterable[PreparedSet], n_trainings: int = 1
) -> list[str]:
    """Take a few steps of each modality and tell what the whole run takes.

    Args:
        trainer ([`NeuralClipTrainer`]): Of the run; its weights are trained for these steps, and its settings changed.
        folder (`Path`): Where the run would write.
        recipe ([`Recipe`]): Of the run.
        data (iterable of [`PreparedSet`]): Opened for streaming, whatever the recipe says.
        n_trainings (`int`): With cross-validation, the folds and the training on all.

    Returns:
        `list[str]`: Lines to be printed.

    Raises:
        DataError: If the disks have no room for what the run keeps and copies, or the machine has less memory than it
            takes, or a step cannot be taken.
    """
    n_steps, args = trainer.n_steps(), trainer.args
    shares = trainer.steps_of(n_steps)
    seconds = _measured(trainer, recipe.streaming)
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
    with raised_by_all(args.device):
        closed_form = ClosedFormRoom()
        if recipe.closed_form and (trainer.validation or n_trainings > 1):
            closed_form = closed_form_room(trainer, n_trainings)
            lines.append(f"closed form: {closed_form.told}")
        lines.append(f"memory: {memory_of(trainer, closed_form, recipe.streaming)}")
        kept, told = _kept(trainer, args, folder)
        copies = [] if recipe.streaming else copies_of(data)
        check_disks([kept, *copies])
        lines.append(f"disk: {told}")
        if copies:
            listed = " and ".join(f"{told_size(need.n_bytes)} for {need.what}" for need in copies)
            lines.append(f"copies: {listed}, which `--streaming` does not make")
    return lines


def _measured(trainer: NeuralClipTrainer, streaming: bool) -> list[float]:
    """Seconds of a step of each modality, loader and optimiser included.

    A run that does not stream finds its recordings in memory or memory-mapped; so they are read beforehand.
    """
    clock, accumulated, n_parts = _Clock(), trainer.args.gradient_accumulation_steps, len(trainer.recordings.parts)
    few = _few_batches(trainer, (1 + N_STEPS) * accumulated)
    batches: Any = _Batches(few if streaming else _of_few_groups(trainer, few))
    loader = BatchLoader(trainer.recordings, batches)
    trainer.get_train_dataloader = lambda: loader  # type: ignore[method-assign]
    trainer.args = copy.copy(trainer.args)
    for name in ("eval_strategy", "save_strategy", "logging_strategy"):
        setattr(trainer.args, name, type(getattr(trainer.args, name))("no"))
    trainer.args.max_steps, trainer.args.load_best_model_at_end = (1 + N_STEPS) * n_parts, False
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(clock)
    try:
        trainer.train()
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "allocate memory" in str(error):
            raise DataError(f"A step needs more memory than there is: {error} {SMALLER_STEPS}") from error
        raise
    return [float(np.mean(each[1:])) for each in np.reshape(clock.seconds, (n_parts, 1 + N_STEPS))]


def _few_batches(trainer: NeuralClipTrainer, n_each: int) -> list[list[int]]:
    """So many batches of each modality, one modality after the other."""
    found: dict[int, list[list[int]]] = {}
    for batch in trainer.batches():
        number = int(np.searchsorted(trainer.recordings.offsets, batch[0], side="right"))
        found.setdefault(number, []).append(batch)
    return [own[index % len(own)] for _, own in sorted(found.items()) for index in range(n_each)]


def _of_few_groups(trainer: NeuralClipTrainer, batches: list[list[int]]) -> list[list[int]]:
    """Batches as large, of recordings that lie in a few row groups, which are read now."""
    recordings, rng, pools = trainer.recordings, np.random.default_rng(0), []
    for part, offset in zip(recordings.parts, recordings.offsets, strict=False):
        groups = part.groups
        first = np.unique(groups, return_index=True)[1]
        chosen = first[np.linspace(0, len(first) - 1, min(N_GROUPS, len(first))).astype(int)]
        part.values(chosen.tolist())
        pools.append(offset + np.flatnonzero(np.isin(groups, groups[chosen])))
    found = []
    for batch in batches:
        pool = pools[int(np.searchsorted(recordings.offsets, batch[0], side="right")) - 1]
        found.append(rng.choice(pool, len(batch), replace=len(pool) < len(batch)).tolist())
    return found


def _told(seconds: float) -> str:
    """A time in words."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"


def _kept(trainer: NeuralClipTrainer, args: TrainingArguments, folder: Path) -> tuple[Need, str]:
    """What a run with these settings keeps on the disk, and the same in words."""
    n_states = 2 if args.save_total_limit == 1 and args.load_best_model_at_end else args.save_total_limit
    model = trainer.accelerator.unwrap_model(trainer.model)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    trained = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters() if tensor.requires_grad)
    optimizer: Any = trainer.optimizer
    n_moments = max(  # tensors as large as a weight that the optimiser keeps for it: two of Adam
        (sum(value.numel() for value in kept.values() if isinstance(value, torch.Tensor)) // max(weight.numel(), 1)
         for weight, kept in optimizer.state.items()),
        default=0,
    )  # fmt: skip
    state = weights + (0 if args.save_only_model else n_moments * trained)
    needed = weights + (n_states or 1) * state
    kept = f"{n_states} states" if n_states else "each state"
    sizes = f"{told_size(state)} a saved state, {told_size(weights)} the weights"
    need = Need(f"{kept} and the weights ({sizes})", folder, needed)
    free = told_size(shutil.disk_usage(need.folder).free)
    return need, f"{sizes}; {kept} and the weights are kept, {told_size(needed)}; {free} are free"
