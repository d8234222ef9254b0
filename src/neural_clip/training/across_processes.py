"""One batch over several processes: what each computes of its rows adds up to what one process computes of all.

The embeddings of all processes are gathered, each process computes the loss of the whole batch, and the gradients are
averaged after the last backward pass of a step. `DistributedDataParallel` would average them during that pass, in an
order that depends on which subjects a process has rows of, beside the exchanges of the batch norms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed import (
    ReduceOp,
    all_gather,
    all_gather_object,
    all_reduce,
    get_rank,
    get_world_size,
    is_available,
    is_initialized,
)
from torch.nn.modules.batchnorm import _BatchNorm

from neural_clip.errors import DataError


def number_of_processes() -> int:
    """Processes that train together."""
    return get_world_size() if is_available() and is_initialized() else 1


def row_counts(n_rows: int, device: torch.device) -> list[int]:
    """How many rows of a batch each process has."""
    if number_of_processes() == 1:
        return [n_rows]
    own = torch.tensor(n_rows, device=device)
    found = [torch.empty_like(own) for _ in range(number_of_processes())]
    all_gather(found, own)
    return [int(count) for count in torch.stack(found).tolist()]


def gathered(rows: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """The rows of all processes, `(sum(counts), ...)`, in the order of the processes.

    Every process must compute the same loss of them. Then the gradient of its own rows is known without another
    exchange; it is multiplied by the number of processes, since gradients of weights are averaged over them.

    Args:
        rows (`torch.Tensor` of shape `(n_rows, ...)`): Of this process.
        counts (`list[int]`): As [`row_counts`] tells them.
    """
    return rows if len(counts) == 1 else _Gathered.apply(rows, counts)


class _Gathered(torch.autograd.Function):
    """Gather rows; give each process the gradient of its own."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, counts: list[int]) -> torch.Tensor:
        ctx.counts = counts
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in counts]
        all_gather(found, padded)
        return torch.cat([part[:count] for part, count in zip(found, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[torch.Tensor, None]:
        (gradient,) = gradients
        return gradient.split(ctx.counts)[get_rank()] * len(ctx.counts), None


class _Summed(torch.autograd.Function):
    """The sum over processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.clone()
        all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> torch.Tensor:
        total = gradients[0].clone()
        all_reduce(total)
        return total


class SharedBatchNorm(_BatchNorm):
    """A batch norm whose mean and variance are those of the rows of all processes; a process may have none.

    `torch.nn.SyncBatchNorm` does the same on GPUs alone.
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Normalise `(n_rows, num_features, ...)`."""
        if not self.training:
            return super().forward(values)
        over = [axis for axis in range(values.ndim) if axis != 1]
        shape = [1, -1] + [1] * (values.ndim - 2)
        exact = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
        n_values = exact.new_tensor([values.numel() // values.shape[1]])
        totals = _Summed.apply(torch.cat([exact.sum(over), n_values]))
        count = totals[-1].detach()
        mean = totals[:-1] / count
        centred = exact - mean.view(shape)
        variance = _Summed.apply(centred.square().sum(over)) / count
        self._keep(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        scale = (variance + self.eps).rsqrt()
        if self.weight is None:
            return (centred * scale.view(shape)).to(values.dtype)
        normalised = centred * (scale * self.weight).view(shape) + self.bias.view(shape)
        return normalised.to(values.dtype)

    def _check_input_dim(self, values: torch.Tensor) -> None:
        """Any number of axes."""

    @torch.no_grad()
    def _keep(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Move the running statistics, as torch does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def share_batch_norms(model: nn.Module) -> None:
    """Put a [`SharedBatchNorm`] with the same tensors in place of each batch norm of a model."""
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, _BatchNorm) and not isinstance(norm, SharedBatchNorm):
                settings = (norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
                shared = SharedBatchNorm(*settings, device="meta")
                shared._parameters, shared._buffers = norm._parameters, norm._buffers
                setattr(parent, name, shared.train(norm.training))


@torch.no_grad()
def average_gradients(model: nn.Module) -> None:
    """Average the gradients of all processes; a weight that no process used keeps none, as in one process."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    used = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int32, device=weights[0].device)
    all_reduce(used, ReduceOp.MAX)
    waiting = []
    for weight, is_used in zip(weights, used.tolist(), strict=True):
        if is_used:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            waiting.append(all_reduce(weight.grad.div_(number_of_processes()), async_op=True))
    for exchange in waiting:
        exchange.wait()


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether it holds in any process."""
    if number_of_processes() == 1:
        return flag
    found = torch.tensor(int(flag), device=device)
    all_reduce(found, ReduceOp.MAX)
    return bool(found)


def shared_error(sentence: str) -> DataError:
    """An error that every process raises, and the first one tells."""
    error = DataError(sentence)
    error.told_elsewhere = number_of_processes() > 1 and get_rank() > 0
    return error


@contextmanager
def raised_by_all(device: torch.device) -> Iterator[None]:
    """Raise in every process what one of them raises within the block; the others would wait for it.

    All processes come to the end of the block, and exchange nothing within it after an error may have been raised.
    """
    found: Exception | None = None
    try:
        yield
    except Exception as error:
        if number_of_processes() == 1:
            raise
        found = error
    if not any_process(found is not None, device):
        return
    sentences: list[str | None] = [None] * number_of_processes()
    all_gather_object(sentences, None if found is None else str(found) or type(found).__name__)
    if found is not None and not isinstance(found, DataError):
        raise found  # a full disk is told as such, and a defect with its traceback
    raise shared_error(next(filter(None, sentences))) from found
