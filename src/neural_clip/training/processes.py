"""The processes of one training: joined as the launcher asked, or refused.

`torchrun` starts processes that find each other on GPUs and on CPUs. Other launchers may start several that do not,
each of which would train a model of its own into the same folder, or start one where several were asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from neural_clip.errors import DataError
from neural_clip.files.numbers import is_count

if TYPE_CHECKING:
    from transformers import TrainingArguments

# How many processes were started together: torchrun; Slurm; Open MPI, MPICH and Intel MPI, MVAPICH.
COUNTS = ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
RANKS = ("RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
PLUGINS = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")  # `accelerate launch`
NOT_COMPILED = ("no", "")  # `accelerate launch` always names a compiler


def processes_asked() -> tuple[str, int]:
    """How many processes a launcher asked for, and the environment variable that says so; `("", 1)` without one."""
    counts = [(name, os.environ.get(name, "")) for name in COUNTS]
    asked = max(((name, int(text)) for name, text in counts if is_count(text)), key=lambda it: it[1], default=("", 1))
    if asked[1] < 2 and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        return "MASTER_ADDR", 2  # `accelerate launch --cpu --num_processes N` tells one process no more than that
    return asked


def once_a_machine(check: Callable[[], object], arguments: TrainingArguments) -> None:
    """Run a check in the first process of each machine; what it raises there is raised in every process.

    Args:
        check (`Callable`): Reads files that the processes of a machine share, and raises errors.
        arguments (`TrainingArguments`): Of this process.
    """
    from neural_clip.training.across_processes import raised_by_all

    with raised_by_all(arguments.device):
        if arguments.local_process_index == 0:
            check()


def check_launch(use_cpu: bool) -> None:
    """Raise a `DataError` where the processes of a launcher could not train together.

    Args:
        use_cpu (`bool`): Whether the run is to compute on CPUs.
    """
    import torch

    variable, count = processes_asked()
    meet = "MASTER_ADDR" in os.environ and any(name in os.environ for name in RANKS)
    if count > 1 and not meet:
        raise _alone(variable, count)
    local_rank, n_gpus = os.environ.get("LOCAL_RANK", "0"), torch.cuda.device_count()
    if is_count(local_rank) and not use_cpu and 0 < n_gpus <= int(local_rank):
        raise DataError(
            f"Process {local_rank} of this machine has no GPU: it has {n_gpus}. Start as many processes as there are "
            "GPUs, or train on the CPU with `--use-cpu true`."
        )
    plugins = [name for name in PLUGINS if os.environ.get(name, "").lower() in ("true", "1")]
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "").lower() not in NOT_COMPILED:
        plugins.append("ACCELERATE_DYNAMO_BACKEND")
    if plugins:
        raise DataError(
            f"'{plugins[0]}' is {os.environ[plugins[0]]!r} (set by `accelerate launch` or its configuration), but "
            "training neither shards nor compiles the model. Allowed are plain processes."
        )


def join_on_cpus(settings: Mapping[str, Any]) -> None:
    """Join the processes of a launcher on CPUs, for as long as `ddp_timeout` says.

    `TrainingArguments` would join them for half an hour and ask no setting. It takes those that are joined as they
    are.

    Args:
        settings (`Mapping`): Of `TrainingArguments`: `ddp_timeout` (s) and `ddp_backend`.
    """
    from accelerate import PartialState

    PartialState(
        cpu=True, backend=settings.get("ddp_backend"), timeout=timedelta(seconds=settings["ddp_timeout"])
    )  # fmt: skip


def check_joined(arguments: TrainingArguments) -> None:
    """Raise a `DataError` where fewer processes train together than were asked for, or one has several GPUs.

    Args:
        arguments (`TrainingArguments`): Made in this process, which joins it to the others.
    """
    variable, count = processes_asked()
    if arguments.world_size < count:
        raise _alone(variable, count)
    if arguments.n_gpu > 1:
        raise DataError(
            f"One process sees {arguments.n_gpu} GPUs, over which each batch would be cut. Start a process for each "
            f"with `torchrun --nproc_per_node {arguments.n_gpu} train.py RECIPE`, or choose one with "
            "`CUDA_VISIBLE_DEVICES=0`."
        )


def leave_group() -> None:
    """Leave the group of the processes that have trained together; does nothing where there is none.

    Its threads would otherwise run until Python ends, and can abort a process there that has done all of its work.
    """
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_one_process(what: str) -> None:
    """Raise a `DataError` where a launcher started several processes, or several GPUs are seen, for what one does."""
    import torch

    variable, count = processes_asked()
    if count > 1:
        raise DataError(f"{what} runs in one process. {_stated(variable)} asks for several. {_alternative(variable)}")
    if (n_gpus := torch.cuda.device_count()) > 1:
        raise DataError(f"{what} uses one GPU, but sees {n_gpus}. Choose one with `CUDA_VISIBLE_DEVICES=0`.")


def _alone(variable: str, count: int) -> DataError:
    """The error of a process that does not find the others."""
    number = "N" if variable == "MASTER_ADDR" else count
    return DataError(
        f"{_stated(variable)} asks for several processes, but this one would train alone. Start them with `torchrun "
        f"--nproc_per_node {number} train.py RECIPE`, which also works on CPUs. {_alternative(variable)}"
    )


def _stated(variable: str) -> str:
    """What the launcher set."""
    return f"The environment variable {variable}={os.environ[variable]}"


def _alternative(variable: str) -> str:
    """How to go on with one process."""
    return f"For one process, unset {variable} or use no launcher."
