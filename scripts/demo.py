"""The whole job on simulated recordings: raw files, data sets, training, evaluation, report.

    make demo            # or: python scripts/demo.py --output-dir outputs/demo

Each step is one of the commands that work on real corpora too; they are printed as they run. A finished simulation or
data set is kept when the demo is started again; training and evaluation are done anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from neural_clip.errors import DataError, run
from neural_clip.model_card import write_model_card

REPOSITORY = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
CORPORA = {"eeg": "imagenet_eeg", "meg": "things_meg", "fmri": "nsd"}
# accelerate asks for these unless they are given; the recipe and the machine decide the rest
ACCELERATE = ["launch", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no"]
ACCELERATE += ["--dynamo_backend", "no"]


def step(title: str, started: float, *commands: Sequence[str | Path]) -> None:
    """Announce and run commands side by side, or raise a `DataError` naming the first that failed."""
    print(f"\n[{time.monotonic() - started:5.0f} s] {title}", flush=True)
    processes = []
    for command in commands:
        words = [str(word) for word in command]
        print("  $ " + " ".join([Path(words[0]).name, *words[1:]]), flush=True)
        processes.append((words, subprocess.Popen(words, cwd=REPOSITORY)))
    failed = [words for words, process in processes if process.wait() != 0]
    if failed:
        raise DataError(f"The step '{title}' failed: {' '.join(failed[0])}")


def is_current(raw: Path, prepared: Path) -> bool:
    """Whether a prepared, embedded data set was made from this very simulation."""
    facts = prepared / "neural_clip.json"
    if not facts.is_file():
        return False
    metadata = json.loads(facts.read_text(encoding="utf-8"))
    stamp = json.loads((raw / "SIMULATED.json").read_text(encoding="utf-8"))
    return metadata["simulated"] == stamp and metadata["image_encoder"] is not None


def main(argv: Sequence[str] | None = None) -> None:
    """Run every step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/demo"), help="default: outputs/demo")
    parser.add_argument("--preset", default="demo", help="size of the simulated corpora: demo (default) or tiny")
    parser.add_argument("--seed", type=int, default=0, help="of simulation and training (default: 0)")
    parser.add_argument("--epochs", type=int, help="training epochs, instead of the recipe's")
    arguments = parser.parse_args(argv)
    output, started = arguments.output_dir.resolve(), time.monotonic()
    if output.is_relative_to(REPOSITORY):
        output = output.relative_to(REPOSITORY)  # every command runs in the repository; short paths read better
    raw, data = output / "raw", output / "data"
    neural_clip, python, seed = BIN / "neural-clip", sys.executable, str(arguments.seed)

    simulate = [neural_clip, "simulate", "--preset", arguments.preset, "--seed", seed, "--output-dir", raw]
    step(
        "simulate the raw files of the three corpora",
        started,
        [*simulate, "--corpora", "meg"],
        [*simulate, "--corpora", "eeg", "fmri"],
    )
    os.chdir(REPOSITORY)
    stale = {m: name for m, name in CORPORA.items() if not is_current(raw / name, data / name)}
    if stale:
        prepare = [
            [python, f"dataset_scripts/{name}.py", "--raw-dir", raw / name, "--output-dir", data / name, "--overwrite"]
            for name in stale.values()
        ]
        step("turn raw files into data sets", started, *prepare)
        step("embed the images", started, *[[neural_clip, "embed-images", data / name] for name in stale.values()])
    folders = {modality: data / name for modality, name in CORPORA.items()}
    overrides = [word for modality, folder in folders.items() for word in (f"--data.{modality}", folder)]
    overrides += ["--training.output_dir", output / "checkpoint", "--training.seed", seed]
    overrides += ["--overwrite", "true"]
    if arguments.epochs is not None:
        overrides += ["--training.num_train_epochs", str(arguments.epochs)]
    step("train", started, [BIN / "accelerate", *ACCELERATE, "train.py", "configs/demo.yaml", *overrides])
    evaluate = [neural_clip, "evaluate", "--checkpoint", output / "checkpoint", "--output-dir", output, "--data"]
    step("evaluate on the test splits", started, [*evaluate, *[f"{m}={folder}" for m, folder in folders.items()]])
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    card = write_model_card(output / "checkpoint", report)
    print(f"model card: {card}\ndone in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    run(main)
