"""How near this package is to what the machine can do: one table of ratios, and one file of JSON.

    python benchmarks/run.py                  # `make bench`: widths of the corpora, some minutes, 3 GB of disk
    python benchmarks/run.py --preset toy     # small widths, seconds: shows that everything runs, and nothing of speed
    python benchmarks/run.py --only steps metric

Every ratio is of two works of one run that take turns; of each the fastest round counts, in seconds of the processor,
one thread. So other programs on the machine disturb little. Data and signal are simulated (`synthetic.py`), and so is
what is measured of them: nothing here is a score. The file goes to `benchmarks/results/`, with date, versions and the
model of the processor.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import io
import itertools
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from closed_form import Peak
from image_retrieval import embeddings
from nsd_betas import brain_and_mask, floor_gzip, volumes, write_nifti
from synthetic import PLANS, Plan, write_data, write_untrained
from threadpoolctl import threadpool_limits
from training_steps import Case, fastest, plain_loop, step_against_product, trainer_loop

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("neural_clip", "torch", "transformers", "datasets", "numpy")
GROWTH = (1, 4, 16)


@dataclass(frozen=True)
class Preset:
    """How large everything is.

    Args:
        plans (`dict[str, Plan]`): Simulated set of each modality.
        batch_size (`int`): Of training and evaluation.
        rounds (`int`): That are counted.
        product (`int`): Rows and columns of the matrices whose product gives the peak of the machine.
        gallery (`int`): Queries and images of the metric.
        trials (`int`): Volumes of the NIfTI file that is read.
    """

    plans: dict[str, Plan]
    batch_size: int
    rounds: int
    product: int
    gallery: int
    trials: int


REAL = {
    "eeg": PLANS["imagenet_eeg"].of_size(6, 200),
    "meg": PLANS["things_meg"].of_size(4, 300),
    "fmri": PLANS["nsd"].of_size(8, 120),
}
TOY = {
    "eeg": replace(PLANS["imagenet_eeg"].of_size(2, 24), shape=(8, 120)),
    "meg": replace(PLANS["things_meg"].of_size(2, 24), shape=(10, 141)),
    "fmri": replace(PLANS["nsd"].of_size(2, 24), shape=(60, 80)),
}
PRESETS = {"real": Preset(REAL, 256, 5, 2048, 10_000, 50), "toy": Preset(TOY, 16, 1, 128, 200, 2)}


@dataclass(frozen=True)
class Ratio:
    """One line of the table: processor seconds (or MB) of two works, and the first over the second.

    Args:
        name, modality (`str`): What is compared.
        ours, other (`float`): What the two take.
        target (`str`): What the ratio should be.
        note (`str`): What else was measured.
    """

    name: str
    modality: str
    ours: float
    other: float
    target: str
    note: str = ""

    @property
    def ratio(self) -> float:
        """The first over the second."""
        return self.ours / self.other


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own, whose memory no other work has touched."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(work, *arguments).result()  # an error where the system has ended the process


def steps(preset: Preset, folders: dict[str, str]) -> Iterator[Ratio]:
    """A step against the product of matrices, against its bound, and with the memory of the C library's defaults."""
    for modality, folder in folders.items():
        found = apart(_step, folder, preset)
        at_peak, rate = found["operations"], f"{found['gigaflops']:.0f} GFLOP/s"
        target = {"fmri": ">= 0.5", "meg": ">= 0.6", "eeg": ">= 0.5"}[modality]
        yield Ratio("share of the peak of a matrix product", modality, at_peak, found["step"], target, rate)
        bound, note = at_peak + found["traffic"], f"{found['traffic']:.3f} s of it memory"
        yield Ratio("share of the bound", modality, bound, found["step"], "", note)
        yield Ratio("step with memory handed back over step", modality, found["handed back"], found["step"], "")


def _step(folder: str, preset: Preset) -> dict[str, float]:
    return step_against_product(Case(folder, preset.batch_size), preset.rounds, preset.product)


def loops(preset: Preset, folders: dict[str, str]) -> Iterator[Ratio]:
    """The loop of training against a bare step, and the loop of public code against it."""
    for modality, folder in folders.items():
        best: dict[str, float] = {}
        for _, loop in itertools.product(range(2), (trainer_loop, plain_loop)):
            for name, took in apart(_loop, loop, folder, preset).items():
                best[name] = min(best.get(name, took), took)
        yield Ratio("loop of training over bare step", modality, best["loop"], best["step"], "<= 1.05")
        yield Ratio("plain loop over ours", modality, best["plain"], best["loop"], ">= 2")


def _loop(loop: Callable[[Case, int], dict[str, float]], folder: str, preset: Preset) -> dict[str, float]:
    return loop(Case(folder, preset.batch_size), preset.rounds)


def by_modality(
    work: Callable[[str, Preset], dict[str, float]], name: str, target: str, preset: Preset, folders: dict[str, str]
) -> Iterator[Ratio]:
    """The first of two works that `work` measures against the second, for each modality."""
    for modality, folder in folders.items():
        ours, other = apart(work, folder, preset).values()
        yield Ratio(name, modality, ours, other, target)


def _loader(folder: str, preset: Preset) -> dict[str, float]:
    """An epoch of batches, and reading the same numbers from Arrow in their order."""
    from neural_clip.training.batches import BatchLoader, JointDataset, ModalityBatchSampler

    case = Case(folder, preset.batch_size)
    batches = ModalityBatchSampler([len(case.recordings)], preset.batch_size, 0)
    loader = BatchLoader(JointDataset([case.recordings]), batches)
    rows: Any = case.recordings.part.recordings
    column = rows.select_columns([case.modality]).with_format("arrow")

    def scan() -> None:
        """Copy every number once."""
        for start in range(0, len(column), preset.batch_size):
            values = column[start : start + preset.batch_size][case.modality].combine_chunks()
            while hasattr(values, "flatten") and values.type.num_fields:
                values = values.flatten()
            np.array(values.to_numpy(zero_copy_only=False), np.float32, copy=True)

    return fastest({"loader": lambda: [len(batch) for batch in loader], "scan": scan}, preset.rounds)


def _evaluation(folder: str, preset: Preset) -> dict[str, float]:
    """`neural-clip evaluate --baselines none --no-controls` of a split, and the bare forward passes of its tensors."""
    from neural_clip.evaluation.run import evaluate_checkpoints

    case = Case(folder, preset.batch_size)
    model, part, size = case.model().eval(), case.recordings.part, preset.batch_size
    inputs = [case.recordings.__getitems__(list(range(start, min(start + size, len(part)))))
              for start in range(0, len(part), size)]  # fmt: skip

    @torch.no_grad()
    def forward() -> None:
        """Every batch once."""
        for batch in inputs:
            model.features(case.modality, batch[f"{case.modality}_values"], batch["subject_ids"])

    def evaluate() -> None:
        """Load, check, read, embed, score with intervals and p-values, and write."""
        with contextlib.redirect_stderr(io.StringIO()):
            evaluate_checkpoints(
                {"untrained": checkpoint}, [folder], output_dir / "scores", split=part.name, baselines="none",
                controls=False, batch_size=size,
            )  # fmt: skip

    with tempfile.TemporaryDirectory() as place:
        output_dir = Path(place)
        checkpoint = write_untrained([f"{case.modality}={folder}"], output_dir / "untrained")
        return fastest({"evaluation": evaluate, "forward": forward}, preset.rounds)


def metric(preset: Preset, folders: dict[str, str]) -> Iterator[Ratio]:
    """All scores of all pairs against the bare product; `image_retrieval.py` tells more."""
    found = apart(_metric, preset)
    name = f"metric over product, {preset.gallery:,} x {preset.gallery:,}"
    yield Ratio(name, "", found["metric"], found["product"], "<= 1.5")


def _metric(preset: Preset) -> dict[str, float]:
    from neural_clip.retrieval.scores import score_queries

    predictions, references = embeddings(preset.gallery, preset.gallery)
    return fastest(
        {"metric": lambda: score_queries(predictions, references), "product": lambda: predictions @ references.T},
        preset.rounds,
    )


def readers(preset: Preset, folders: dict[str, str]) -> Iterator[Ratio]:
    """The reader of NSD's betas against decompressing the file; `nsd_betas.py` and `corpora.py` tell more."""
    found = apart(_readers, preset)
    name = f"reader over gzip, {preset.trials} volumes"
    yield Ratio(name, "fmri", found["reader"], found["gzip"], "<= 1.2")


def _readers(preset: Preset) -> dict[str, float]:
    from neural_clip.corpora.nsd.betas import read_session

    brain, mask = brain_and_mask()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "betas_session01.nii.gz"
        write_nifti(path, itertools.islice(volumes(brain), preset.trials), (*brain.shape, preset.trials))
        works: dict[str, Callable[[], object]] = {
            "reader": lambda: read_session(path, mask, preset.trials), "gzip": lambda: floor_gzip(path, mask),
        }  # fmt: skip
        return fastest(works, preset.rounds)


def memory(preset: Preset, folders: dict[str, str]) -> Iterator[Ratio]:
    """Peak memory of a process that reads and embeds 4 and 16 times the rows, against that of once."""
    modality = "meg"
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for times in GROWTH:
            plan = replace(preset.plans[modality], n_subjects=1)
            plan = plan.of_size(1, times * plan.n_rows)
            data = write_data("benchmark", plan, Path(folder) / f"x{times}")
            apart(_memory, str(data), preset)  # the copy that is mapped is there
            peaks.append(apart(_memory, str(data), preset))
    for times, peak in zip(GROWTH[1:], peaks[1:], strict=True):
        yield Ratio(f"peak memory at {times}x the rows over 1x", modality, peak, peaks[0], "<= 1.1", "MB")


def _memory(folder: str, preset: Preset) -> float:
    from neural_clip.gallery.embedding import embed_split
    from neural_clip.training.batches import BatchLoader, JointDataset, ModalityBatchSampler

    case = Case(folder, preset.batch_size)
    model = case.model().eval()
    with Peak() as peak:
        batches = ModalityBatchSampler([len(case.recordings)], preset.batch_size, 0)
        for _ in BatchLoader(JointDataset([case.recordings]), batches):
            pass
        embed_split(model, case.recordings.part, batch_size=preset.batch_size)
    return peak.largest / 1e3


SECTIONS: dict[str, Callable[[Preset, dict[str, str]], Iterator[Ratio]]] = {
    "steps": steps, "loops": loops,
    "loader": partial(by_modality, _loader, "loader over Arrow scan", "<= 2"),
    "evaluation": partial(by_modality, _evaluation, "evaluation over forward", "<= 1.2"),
    "metric": metric, "readers": readers, "memory": memory,
}  # fmt: skip
NEED_DATA = {"steps", "loops", "loader", "evaluation"}


def machine() -> dict[str, Any]:
    """What was measured on, without names of host or user."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    capability = torch.backends.cpu.get_cpu_capability()
    return {"processor": models[0] if models else platform.machine(), "kernels": capability, "cores": os.cpu_count(),
            "system": platform.system(), "python": platform.python_version()}  # fmt: skip


def versions() -> dict[str, str]:
    """Of the packages that were measured."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def write_found(found: dict[str, Any], output: Path) -> None:
    """Write what was measured as JSON, and tell where."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"written: {output}", file=sys.stderr)


def table(ratios: list[Ratio]) -> str:
    """The lines of the table, as Markdown."""
    lines = ["| ratio | modality | measured | target | of these seconds | also |", "|---|---|---|---|---|---|"]
    for each in ratios:
        seconds = f"{each.ours:.3f} / {each.other:.3f}"
        lines.append(f"| {each.name} | {each.modality} | {each.ratio:.2f} | {each.target} | {seconds} | {each.note} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Measure, print the table and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="real")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="parts of the table")
    parser.add_argument("--output", type=Path, help="file of JSON; by default in benchmarks/results, none for toy")
    given = parser.parse_args(argv)
    preset, began, ratios = PRESETS[given.preset], time.time(), []
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        datasets.config.HF_DATASETS_CACHE = Path(folder) / "cache"
        plans = preset.plans.items() if set(given.only) & NEED_DATA else ()
        folders = {name: str(write_data("benchmark", plan, Path(folder) / name)) for name, plan in plans}
        for section in given.only:
            for ratio in SECTIONS[section](preset, folders):
                ratios.append(ratio)
                print(f"{ratio.name}, {ratio.modality}: {ratio.ratio:.2f} ({ratio.target})", file=sys.stderr)
    print(table(ratios))
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    content = {"date": date, "preset": given.preset, "machine": machine(), "versions": versions(),
               "minutes": round((time.time() - began) / 60, 1), "load": round(os.getloadavg()[0], 1),
               "ratios": [asdict(each) | {"ratio": each.ratio} for each in ratios]}  # fmt: skip
    output = given.output or (RESULTS / f"{date}.json" if given.preset == "real" else None)
    if output:
        write_found(content, output)


if __name__ == "__main__":
    main()
