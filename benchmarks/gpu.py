"""Training and embedding on a GPU: trials a second, share of the peak, and how much of the time the GPU is busy.

    python benchmarks/gpu.py                                  # all three modalities, batches of 256; a few minutes
    python benchmarks/gpu.py --modalities meg --batch-size 2048

For each modality a step of training (recipe `base`, optimiser included) and the forward pass of evaluation, each in
float32, TF32 and bfloat16, and in bfloat16 compiled by `torch.compile`. The batch lies on the GPU before the clock
starts, so reading files is not part of it (`run.py` has that). The peak is the product of two matrices of 8,192 rows
and columns in the same precision, in the same run. Busy is the share of the clock in which a kernel ran. Recordings
are simulated (`synthetic.py`); nothing here is a score.

The file goes to `benchmarks/results/gpu-DATE.json`. Without a GPU it says so and ends with code 2.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from run import PRESETS, RESULTS, versions, write_found
from synthetic import write_data
from torch import nn
from training_steps import Case, fused, step

NO_GPU = 2  # exit status
PRODUCT = {"cuda": 8192, "cpu": 256}  # rows and columns of the matrices that give the peak
KINDS = ("train", "embed")


@dataclass(frozen=True)
class Precision:
    """How numbers are multiplied.

    Args:
        float32 (`str`): For `torch.set_float32_matmul_precision`.
        dtype (`torch.dtype`, *optional*): Of automatic mixed precision.
        compiled (`bool`): Whether the model goes through `torch.compile`.
    """

    float32: str
    dtype: torch.dtype | None = None
    compiled: bool = False

    def autocast(self, device: str) -> Any:
        """The context that a forward pass is computed in."""
        return nullcontext() if self.dtype is None else torch.autocast(device, self.dtype)


PRECISIONS = {
    "float32": Precision("highest"),
    "tf32": Precision("high"),
    "bf16": Precision("high", torch.bfloat16),
    "bf16 compiled": Precision("high", torch.bfloat16, compiled=True),
}


def synchronize(device: str) -> None:
    """Wait until everything that was asked for is done."""
    if device != "cpu":
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], device: str, rounds: int) -> float:
    """Least seconds of the clock; two runs before are not counted."""
    best = float("inf")
    for number in range(rounds + 2):
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        best = min(best, time.perf_counter() - began) if number >= 2 else best
    return best


def product_rate(device: str, precision: Precision, rounds: int) -> float:
    """Operations a second of a product of matrices."""
    size = PRODUCT[device]
    left, right = torch.randn(2, size, size, device=device, dtype=precision.dtype or torch.float32)
    return 2 * size**3 / seconds_of(lambda: left @ right, device, rounds)


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of what intervals cover together; kernels of several streams overlap."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return total


def busy_share(work: Callable[[], object], device: str, repeats: int = 5) -> float | None:
    """Share of the clock in which a kernel ran, from the first to the last; `None` on the CPU."""
    if device == "cpu":
        return None
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for _ in range(repeats):
            work()
        synchronize(device)
    kernels = [(event.time_range.start, event.time_range.end) for event in found.events() or []
               if event.device_type == DeviceType.CUDA]  # fmt: skip
    return busy_of(kernels)


def busy_of(kernels: list[tuple[float, float]]) -> float | None:
    """What kernels cover of the time between the first and the last."""
    if not kernels:
        return None
    return covered(kernels) / (max(end for _, end in kernels) - min(start for start, _ in kernels))


def work_of(case: Case, model: nn.Module, kind: str, precision: Precision, device: str) -> Callable[[], object]:
    """One step of training, or one forward pass."""
    batch = {name: value.to(device) for name, value in case.batch().items()}
    called: Any = torch.compile(model) if precision.compiled else model
    if kind == "train":
        optimizer = fused(model)

        def forward(**inputs: torch.Tensor) -> Any:
            """In mixed precision, as `Trainer` does; the backward pass follows it."""
            with precision.autocast(device):
                return called(**inputs)

        return lambda: step(model, batch, optimizer, forward)
    values = {name: batch[name] for name in (f"{case.modality}_values", "subject_ids")}

    @torch.no_grad()
    def embed() -> object:
        """As evaluation does, without images."""
        with precision.autocast(device):
            return called(**values)

    return embed


def operations_of(work: Callable[[], object]) -> int:
    """Floating-point operations of products and convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def measure(case: Case, kind: str, name: str, device: str, rounds: int) -> dict[str, Any]:
    """One line: what was measured of one kind of work in one precision."""
    torch._dynamo.reset()
    precision = PRECISIONS[name]
    torch.set_float32_matmul_precision(precision.float32)
    model = case.model().train(kind == "train").to(device)
    plain = Precision(precision.float32, precision.dtype)
    operations = operations_of(work_of(case, model, kind, plain, device))
    work = work_of(case, model, kind, precision, device)
    seconds = seconds_of(work, device, rounds)
    peak = product_rate(device, precision, rounds)
    return {
        "modality": case.modality, "work": kind, "precision": name, "batch": case.batch_size, "seconds": seconds,
        "trials_per_second": case.batch_size / seconds, "share_of_peak": operations / seconds / peak,
        "peak_teraflops": peak / 1e12, "busy": busy_share(work, device),
    }  # fmt: skip


def line_of(found: dict[str, Any]) -> str:
    """A line of the table."""
    busy = "" if found["busy"] is None else f"{found['busy']:.2f}"
    return (
        f"| {found['modality']} | {found['work']} | {found['precision']} | {found['trials_per_second']:,.0f} | "
        f"{found['share_of_peak']:.3f} | {busy} |"
    )


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the file; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modalities", nargs="+", choices=("eeg", "meg", "fmri"), default=["eeg", "meg", "fmri"])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path, help="file of JSON; by default in benchmarks/results")
    given = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print(f"There is no GPU that torch {torch.__version__} can use, so nothing was measured.", file=sys.stderr)
        return NO_GPU
    lines, date = [], datetime.datetime.now(datetime.UTC).date().isoformat()
    print("| modality | work | precision | trials a second | share of peak | busy |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for modality in given.modalities:
            plan = PRESETS["real"].plans[modality]
            plan = plan.of_size(plan.n_subjects, max(plan.n_rows, 2 * given.batch_size // plan.n_subjects))
            case = Case(str(write_data("benchmark", plan, Path(folder) / modality)), given.batch_size)
            for kind in KINDS:
                for name in PRECISIONS:
                    lines.append(measure(case, kind, name, "cuda", given.rounds))
                    print(line_of(lines[-1]), flush=True)
    content = {"date": date, "gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "versions": versions(),
               "lines": lines}  # fmt: skip
    write_found(content, given.output or RESULTS / f"gpu-{date}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
