"""The whole job on simulated recordings: raw files, data sets, training, evaluation, report.

Two models are trained side by side: one joint model, and the same with alignment layers that stay as they started, as
in the code behind arXiv 2411.09723, so that the tables show what the layers of each subject are worth.

Each step is one of the commands that work on real corpora too; they are printed as they run. A finished simulation or
data set is kept when the demo is started again; training and evaluation are done anew.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.commands.interruption import end_with_parent
from neural_clip.commands.options import read_options
from neural_clip.errors import DataError
from neural_clip.files.places import place_line
from neural_clip.files.reading import read_json
from neural_clip.files.record import check_takes_files
from neural_clip.files.whole import only_writer
from neural_clip.options import Options, option
from neural_clip.prepared.facts import METADATA_FILE, Facts
from neural_clip.prepared.known_corpora import CORPUS_OF
from neural_clip.simulation.presets import PRESETS
from neural_clip.targets.tiny_clip import TINY_CLIP
from neural_clip.workflow.steps import Step, run_steps

# accelerate asks for these unless they are given; the recipe and the machine decide the rest. Two models share two
# cores; sums do not depend on the machine.
TRAIN = ["accelerate", "launch", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no"]
TRAIN += ["--dynamo_backend", "no", "--num_cpu_threads_per_process", "1", "-m", "neural_clip.commands.main", "train"]
# what stands behind the commands that are printed, wherever they are installed; accelerate leaves it to what it starts
# to say that it was interrupted
PROGRAMS = {
    "neural-clip": ["-m", "neural_clip.commands.main"],
    "accelerate": [
        "-c",
        "try:\n from accelerate.commands.accelerate_cli import main\n main()\n"
        "except KeyboardInterrupt:\n raise SystemExit(130)",
    ],
}
GRACE = 5.0  # s, within which what was interrupted with this process has ended, or is interrupted by it


@dataclass(frozen=True)
class DemoOptions(Options):
    """Options of `neural-clip demo`."""

    output_dir: Path = option(Path("outputs/demo"), "folder of everything", type=Path)
    preset: str = option("demo", "sizes and difficulty of the simulated corpora", choices=PRESETS)
    seed: int = option(0, "of simulation and training", type=int, least=0)
    epochs: int | None = option(
        None, "of training, and no more steps than these; default: as the recipe", type=int, least=1
    )
    model: str = option(TINY_CLIP, "image encoder, a name on the Hub or a model folder", metavar="NAME")
    data_only: bool = option(False, "stop once the data sets are there")


def side_by_side(*commands: Sequence[object]) -> None:
    """Show and run commands side by side, or raise a `DataError` naming the first that failed."""
    processes = []
    for command in commands:
        name, *words = [str(word) for word in command]
        shown = shlex.join([name, *words])
        print(f"  $ {shown}", flush=True)
        program = [sys.executable, *PROGRAMS[name], *words]
        processes.append((shown, subprocess.Popen(program, preexec_fn=end_with_parent)))
    try:
        failed = [shown for shown, process in processes if process.wait() != 0]
    except KeyboardInterrupt:
        for _, process in processes:
            end_interrupted(process)
        raise
    if failed:
        raise DataError(f"This command failed: {failed[0]}")


def end_interrupted(process: subprocess.Popen) -> None:
    """Wait for a process that Ctrl-C reached too, or interrupt it where the signal was sent to this process alone."""
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()


def is_current(raw: Path, prepared: Path, model: str) -> bool:
    """Whether a prepared data set was made from this very simulation and embedded by this encoder."""
    if not (prepared / METADATA_FILE).is_file():
        return False
    facts = Facts.read(prepared)
    stamp = read_json(raw / "SIMULATED.json")
    encoder = facts.image_encoder or {}
    same_encoder = (encoder.get("name"), encoder.get("pooling")) == (model, "projected")
    return facts.simulated == stamp and same_encoder


def simulate(options: DemoOptions, raw: Path) -> None:
    """Simulate the raw corpora; what is there already is kept."""
    words: list[object] = ["neural-clip", "simulate", "--preset", options.preset, "--seed", options.seed]
    words += ["--output-dir", raw, "--corpora"]
    side_by_side([*words, "meg"], [*words, "eeg", "fmri"])


def train(options: DemoOptions, output: Path, data_sets: list[str]) -> None:
    """Train one joint model and one with frozen alignment layers."""
    words = [*TRAIN, "demo", "--overwrite", *data_sets, "--seed", str(options.seed)]
    if options.epochs is not None:
        words += ["--epochs", str(options.epochs), "--min-steps", "0"]
    if options.model != TINY_CLIP:
        words += ["--model.include_vision_tower", "false"]  # a large tower would make the checkpoint large
    frozen: list[object] = [*words, "--model.freeze_alignment", "true", "--model.include_vision_tower", "false"]
    frozen += ["--closed-form", "false"]  # a map of each subject's own would stand in for the layers
    frozen += ["--output-dir", output / "frozen_alignment"]
    side_by_side([*words, "--output-dir", output / "checkpoint"], frozen)


def evaluate(output: Path, data_sets: list[str]) -> None:
    """Score both on the test splits; the model card tells the scores."""
    from neural_clip.publishing.model_card import write_model_card

    words: list[object] = ["neural-clip", "evaluate", "--checkpoint", output / "checkpoint"]
    words += [f"frozen alignment={output / 'frozen_alignment'}", "--output-dir", output]
    side_by_side([*words, *data_sets])
    report = read_json(output / "report.json")
    print(place_line("model card", write_model_card(output / "checkpoint", report)))


def demo_steps(options: DemoOptions) -> list[Step]:
    """The steps that were asked for."""
    output, raw, data = options.output_dir, options.output_dir / "raw", options.output_dir / "data"
    corpora = {corpus.name: corpus for corpus in CORPUS_OF.values()}
    data_sets = ["--data", *[f"{corpus.modality}={data / name}" for name, corpus in corpora.items()]]

    def stale() -> list[str]:
        return [name for name in corpora if not is_current(raw / name, data / name, options.model)]

    def prepare(name: str) -> list[object]:
        places = ["--raw-dir", raw / name, "--output-dir", data / name]
        return ["neural-clip", "prepare", name, *places, "--overwrite"]

    def embed(name: str) -> list[object]:
        return ["neural-clip", "embed-images", data / name, "--model", options.model]

    steps = [
        Step("simulate the raw files of the three corpora", lambda: simulate(options, raw)),
        Step("turn raw files into data sets", lambda: side_by_side(*map(prepare, stale())), lambda: not stale()),
        Step("embed the images", lambda: side_by_side(*map(embed, stale())), lambda: not stale()),
        Step("train", lambda: train(options, output, data_sets)),
        Step("evaluate on the test splits", lambda: evaluate(output, data_sets)),
    ]
    return steps[:3] if options.data_only else steps


def main(argv: Sequence[str] | None = None) -> None:
    """Run every step."""
    (options,) = read_options("demo", __doc__, argv, DemoOptions)
    check_takes_files(options.output_dir)
    started = time.monotonic()
    with only_writer(options.output_dir / "raw"):  # each step has locks of its own
        run_steps(demo_steps(options), "Simulation and data sets that are whole stay; the same command goes on.")
    print(f"done in {time.monotonic() - started:.0f} s", file=sys.stderr)
    for corpus in CORPUS_OF.values():
        print(place_line("data", options.output_dir / "data" / corpus.name))
