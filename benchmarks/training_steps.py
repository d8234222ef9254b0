"""A training step, the loop around it, and a loop as public code writes it, each timed in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from neural_clip import NeuralClipModel
from neural_clip.losses import clip_loss
from neural_clip.prepared.reader import PreparedSet
from neural_clip.training.batches import JointDataset, RecordingDataset
from neural_clip.training.freed_memory import freed_memory_kept
from neural_clip.training.model import build_model, model_config
from neural_clip.training.recipe import find_recipe, read_recipe
from neural_clip.training.trainer import NeuralClipTrainer

# How often a step passes over memory as large as the weights, beside its products: norm of the gradient 1, clipping 2,
# AdamW 7 (reads weight, gradient and two moments, writes all but the gradient).
PASSES = 10
SETTINGS: dict[str, Any] = {"lr": 1e-4, "weight_decay": 0.1}


@dataclass
class Case:
    """A prepared set, the untrained model of the recipe `base` for it, and how many recordings make a batch."""

    folder: str
    batch_size: int

    def __post_init__(self) -> None:
        self.data = PreparedSet.open(self.folder)
        self.modality = self.data.facts.modality
        recipe = read_recipe([str(find_recipe("base")), f"--data.{self.modality}", self.folder])
        self.config = model_config(recipe, {self.modality: self.data.facts})
        subjects = getattr(self.config, f"{self.modality}_config").subjects
        self.recordings = RecordingDataset.open(self.data, "train", subjects)

    def model(self) -> NeuralClipModel:
        """The model, ready to train."""
        return build_model(self.config, None, 0).train()

    def batch(self) -> dict[str, torch.Tensor]:
        """One batch of recordings of all subjects."""
        rows = torch.randperm(len(self.recordings), generator=torch.Generator().manual_seed(0))[: self.batch_size]
        return self.recordings.__getitems__(rows.tolist())


def step(
    model: nn.Module, batch: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer, forward: Any = None
) -> None:
    """One step, optimiser included, as `Trainer` takes it; `forward` is the model itself by default."""
    (forward or model)(**batch).loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    model.zero_grad()


def fused(model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that training takes by default."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True, **SETTINGS)


def fastest(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least processor seconds of each of several works that take turns; a first round is not counted."""
    best = dict.fromkeys(works, float("inf"))
    for number in range(rounds + 1):
        for name, work in works.items():
            began = time.process_time()
            work()
            took = time.process_time() - began
            best[name] = min(best[name], took) if number else best[name]
    return best


def step_against_product(case: Case, rounds: int, size: int) -> dict[str, float]:
    """Seconds of a step, and of its operations and memory traffic at the rates of a product and of a copy.

    The bound is operations and traffic one after the other: nothing that updates the weights can begin before the norm
    of all gradients is known. Weights that the caches of the processor hold are not bound by memory.
    """
    from torch.utils.flop_counter import FlopCounterMode

    model, batch = case.model(), case.batch()
    optimizer = fused(model)
    with FlopCounterMode(display=False) as counter:
        step(model, batch, optimizer)
    left, right, product = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    source, copied = torch.ones(16 * size * size), torch.ones(16 * size * size)
    works: dict[str, Callable[[], object]] = {
        "step": lambda: step(model, batch, optimizer),
        "product": lambda: torch.mm(left, right, out=product),
        "copy": lambda: copied.copy_(source),
    }
    handed_back = fastest({"step": works["step"]}, rounds)["step"]
    with freed_memory_kept():
        found = fastest(works, rounds)
    n_weights = sum(p.numel() for p in model.parameters() if p.requires_grad)
    operations = counter.get_total_flops() * found["product"] / (2 * size**3)
    traffic = PASSES * n_weights * found["copy"] / (2 * source.numel())
    rate = 2 * size**3 / found["product"]
    return {"step": found["step"], "handed back": handed_back, "operations": operations, "traffic": traffic,
            "gigaflops": rate / 1e9}  # fmt: skip


class Turns:
    """Measures a `Trainer` from within: after each of its steps, a bare step of another model takes its turn."""

    def __init__(self, case: Case) -> None:
        self.model, self.batch = case.model(), case.batch()
        self.optimizer = fused(self.model)
        self.took: dict[str, list[float]] = {"loop": [], "step": []}
        self.mark = 0.0  # end of the last turn

    def on_step_end(self) -> None:
        """Note the time since the last turn, and take one."""
        now = time.process_time()
        self.took["loop"].append(now - self.mark)
        step(self.model, self.batch, self.optimizer)
        self.took["step"].append(time.process_time() - now)
        self.mark = time.process_time()


def trainer_loop(case: Case, rounds: int) -> dict[str, float]:
    """Seconds of a step in the loop of training, batches read, and of a bare one."""
    from transformers import PrinterCallback, TrainerCallback, TrainingArguments

    turns = Turns(case)

    class Watch(TrainerCallback):
        """Hands the turn over."""

        def on_train_begin(self, *_: object, **__: object) -> None:
            """Start the clock."""
            turns.mark = time.process_time()

        def on_step_end(self, *_: object, **__: object) -> None:
            """Stop the clock."""
            turns.on_step_end()

    arguments = TrainingArguments(
        output_dir=str(Path(case.folder) / "run"), max_steps=rounds + 1, per_device_train_batch_size=case.batch_size,
        save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, remove_unused_columns=False,
        learning_rate=SETTINGS["lr"], weight_decay=SETTINGS["weight_decay"], logging_steps=50,
    )  # fmt: skip
    trainer = NeuralClipTrainer(
        model=case.model(), args=arguments, recordings=JointDataset([case.recordings]), validation=[],
        callbacks=[Watch()],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)  # the table stands alone on standard output
    trainer.train()
    return {name: min(times[1:]) for name, times in turns.took.items()}


class PlainRows(torch.utils.data.Dataset):
    """Recordings one by one, voxels filled up to the largest subject's."""

    def __init__(self, case: Case) -> None:
        self.recordings, self.modality = case.recordings, case.modality
        self.rows = case.recordings.part.recordings.with_format("numpy")  # type: ignore[union-attr]
        self.most = max((case.data.facts.n_voxels or {"": 0}).values())

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int, torch.Tensor, int]:
        values = torch.tensor(self.rows[row][self.modality], dtype=torch.float32)
        if self.most:
            values = functional.pad(values, (0, self.most - len(values)))
        image = int(self.recordings.part.image_rows[row])
        embeds = torch.tensor(self.recordings.part.data.images.embeds[image])
        return values, int(self.recordings.subject_ids[row]), embeds, image


def plain_loss(model: NeuralClipModel, modality: str, batch: list[torch.Tensor]) -> torch.Tensor:
    """The loss of our model by the plain way: alignment layers by masks, then the networks one after the other."""
    values, subjects, image_embeds, image_ids = batch
    encoder: Any = model.encoders[modality]
    if modality != "fmri":
        values, subjects = encoder.window(values, subjects)
    layers, aligned = list(encoder.alignment.layers.values()), None
    for subject in subjects.unique().tolist():
        mask = subjects == subject
        own = values[mask]
        part = layers[subject](own[:, : layers[subject].in_features] if modality == "fmri" else own)
        aligned = part.new_zeros(len(values), *part.shape[1:]) if aligned is None else aligned
        aligned[mask] = part
    assert aligned is not None
    features = functional.normalize(model.project(modality, encoder.network(aligned)), dim=-1)
    targets = functional.normalize(image_embeds, dim=-1)
    return torch.stack([clip_loss(part, targets, model.logit_scale, image_ids) for part in features]).mean()


def plain_loop(case: Case, rounds: int) -> dict[str, float]:
    """Seconds of a step of a loop as public code writes it: a `DataLoader` of single rows, masks, plain AdamW."""
    model = case.model()
    optimizer = torch.optim.AdamW(model.parameters(), **SETTINGS)
    loader = torch.utils.data.DataLoader(PlainRows(case), batch_size=case.batch_size, shuffle=True, drop_last=True)

    def batches() -> Iterator[list[torch.Tensor]]:
        while True:
            yield from loader

    took, mark = [], time.process_time()
    for _, batch in zip(range(rounds + 1), batches(), strict=False):
        optimizer.zero_grad()
        plain_loss(model, case.modality, batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        now = time.process_time()
        took.append(now - mark)
        mark = now
    return {"plain": min(took[1:])}
