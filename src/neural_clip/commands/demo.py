"""The whole job on simulated recordings: raw files, data sets, training, evaluation, report.

Two models are trained side by side: one joint model, and the same with alignment layers that stay as they started, as
in the code behind arXiv 2411.09723, so that the tables show what the layers of each subject are worth.

    make demo            # or: neural-clip demo --output-dir outputs/demo

Each step is one of the commands that work on real corpora too; they are printed as they run. A finished simulation or
data set is kept when the demo is started again; training and evaluation are done anew.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from neural_clip.errors import DataError, run
from neural_clip.prepared.facts import METADATA_FILE, Facts
from neural_clip.publishing.model_card import write_model_card
from neural_clip.targets.tiny_clip import TINY_CLIP

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "demo.yaml"
BIN = Path(sys.executable).parent
NEURAL_CLIP = BIN / "neural-clip"
CORPORA = {"eeg": "imagenet_eeg", "meg": "things_meg", "fmri": "nsd"}
# accelerate asks for these unless they are given; the recipe and the machine decide the rest
ACCELERATE = ["launch", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no"]
ACCELERATE += ["--dynamo_backend", "no"]
ACCELERATE += ["--num_cpu_threads_per_process", "1"]  # two models share two cores; sums do not depend on the machine


def step(title: str, started: float, *commands: Sequence[object]) -> None:
    """Announce and run commands side by side, or raise a `DataError` naming the first that failed."""
    print(f"\n[{time.monotonic() - started:5.0f} s] {title}", flush=True)
    processes = []
    for command in commands:
        words = [str(word) for word in command]
        print("  $ " + " ".join([Path(words[0]).name, *words[1:]]), flush=True)
        processes.append((words, subprocess.Popen(words)))
    failed = [words for words, process in processes if process.wait() != 0]
    if failed:
        raise DataError(f"The step '{title}' failed: {' '.join(failed[0])}")


def is_current(raw: Path, prepared: Path, vision_model: str) -> bool:
    """Whether a prepared data set was made from this very simulation and embedded by this encoder."""
    if not (prepared / METADATA_FILE).is_file():
        return False
    facts = Facts.read(prepared)
    stamp = json.loads((raw / "SIMULATED.json").read_text(encoding="utf-8"))
    encoder = facts.image_encoder or {}
    same_encoder = (encoder.get("name"), encoder.get("pooling")) == (vision_model, "projected")
    return facts.simulated == stamp and same_encoder


def make_data(arguments: argparse.Namespace, raw: Path, data: Path, started: float) -> None:
    """Simulate the raw corpora, turn them into data sets and embed their images; what is current is kept."""
    simulate = [NEURAL_CLIP, "simulate", "--preset", arguments.preset, "--seed", str(arguments.seed)]
    simulate += ["--output-dir", raw, "--corpora"]
    step("simulate the raw files of the three corpora", started, [*simulate, "meg"], [*simulate, "eeg", "fmri"])
    stale = [name for name in CORPORA.values() if not is_current(raw / name, data / name, arguments.vision_model)]
    if stale:
        prepare = [
            [NEURAL_CLIP, "prepare", name, "--raw-dir", raw / name, "--output-dir", data / name] for name in stale
        ]
        step("turn raw files into data sets", started, *[[*command, "--overwrite"] for command in prepare])
        embed = [[NEURAL_CLIP, "embed-images", data / name, "--model", arguments.vision_model] for name in stale]
        step("embed the images", started, *embed)


def train_and_evaluate(arguments: argparse.Namespace, output: Path, data: Path, started: float) -> None:
    """Train one joint model and one with frozen alignment layers, and score both on the test splits."""
    folders = {modality: data / name for modality, name in CORPORA.items()}
    train = [
        BIN / "accelerate",
        *ACCELERATE,
        "-m",
        "neural_clip.commands.main",
        "train",
        RECIPE,
        "--overwrite",
        "true",
    ]
    train += [word for modality, folder in folders.items() for word in (f"--data.{modality}", folder)]
    train += ["--training.seed", str(arguments.seed)]
    if arguments.epochs is not None:
        train += ["--training.num_train_epochs", str(arguments.epochs)]
    if arguments.vision_model != TINY_CLIP:
        train += ["--model.include_vision_tower", "false"]  # a large tower would make the checkpoint large
    frozen = [*train, "--model.freeze_alignment", "true", "--model.include_vision_tower", "false"]
    frozen += ["--training.output_dir", output / "frozen_alignment"]
    step("train", started, [*train, "--training.output_dir", output / "checkpoint"], frozen)
    evaluate = [NEURAL_CLIP, "evaluate", "--checkpoint", output / "checkpoint"]
    evaluate += [f"frozen alignment={output / 'frozen_alignment'}", "--output-dir", output, "--data"]
    step("evaluate on the test splits", started, [*evaluate, *[f"{m}={folder}" for m, folder in folders.items()]])


def main(argv: Sequence[str] | None = None) -> None:
    """Run every step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/demo"), help="default: outputs/demo")
    parser.add_argument(
        "--preset",
        default="demo",
        help="simulated corpora: demo (default), tiny, or realistic and linear of docs/twins.md",
    )
    parser.add_argument("--seed", type=int, default=0, help="of simulation and training (default: 0)")
    parser.add_argument("--epochs", type=int, help="training epochs, instead of the recipe's")
    parser.add_argument(
        "--vision-model", default=TINY_CLIP, help=f"image encoder, {TINY_CLIP} (default) or a CLIP of the Hub"
    )
    parser.add_argument("--data-only", action="store_true", help="stop once the data sets are there")
    arguments = parser.parse_args(argv)
    output, started = arguments.output_dir, time.monotonic()
    make_data(arguments, output / "raw", output / "data", started)
    if arguments.data_only:
        return
    train_and_evaluate(arguments, output, output / "data", started)
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    card = write_model_card(output / "checkpoint", report)
    print(f"model card: {card}\ndone in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    run(main)
