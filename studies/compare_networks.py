"""Compare shared networks for EEG or MEG: train each alone on one simulated data set and rank by validation.

    python studies/compare_networks.py --data eeg=FOLDER meg=FOLDER

Everything but the network is `configs/demo.yaml`, its crop and decimation included, with one modality at a time, one
network (not several in parallel) and recordings that do not move in time; each network is trained with every learning
rate, and counts by the better one. Scores are 2-way accuracies of the validation split at the best epoch, of one seed:
they say what is worth a closer look, and nothing of the test split, which is never read. A run that takes more
processor time than `--limit` is stopped and recorded as such. Runs that stand in the results already, with the same
data set and seed, are kept. The table goes into docs/studies/encoders.md. The networks of braindecode need
`pip install 'neural_clip[braindecode]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata as package_metadata
from pathlib import Path
from typing import Any

import yaml

from neural_clip.errors import DataError, run
from neural_clip.files.whole import replace_marked, write_whole
from neural_clip.prepared.facts import Facts
from results_page import label

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPE = REPOSITORY / "configs" / "demo.yaml"
LEARNING_RATES = (5e-3, 1e-3)  # the recipe's, and a fifth of it for deeper networks
CPU_LIMIT = 360
PACKAGES = ("neural_clip", "torch", "transformers", "braindecode")


def of_braindecode(name: str, **kwargs: Any) -> dict:
    """Settings of a network of braindecode: 128 features, and no dropout beside its own."""
    settings = {"encoder_type": "braindecode", "braindecode_model": name, "hidden_size": 128, "dropout": 0.0}
    return settings | ({"braindecode_kwargs": kwargs} if kwargs else {})


# BrainModule: dilated convolutions with gated linear units; EEGConformer: convolution, patches and self-attention.
BRAINDECODE = {
    "ShallowFBCSPNet": of_braindecode("ShallowFBCSPNet"),
    "BrainModule": of_braindecode("BrainModule", hidden_dim=32, depth=5),  # of 320 and 10: time
    "Deep4Net": of_braindecode("Deep4Net"),
    "EEGNeX": of_braindecode("EEGNeX"),
    "EEGConformer": of_braindecode("EEGConformer"),
}
# The paper's networks at a width that takes at most about three times the time of `temporal_spatial`.
PAPER = {
    "eeg": {"spectrogram_cnn": {"encoder_type": "spectrogram_cnn", "hidden_size": 32, "stft_nperseg": 10}},
    "meg": {"temporal_cnn": {"encoder_type": "temporal_cnn", "hidden_size": 64}},
}


def candidates(modality: str) -> dict[str, dict]:
    """Settings of the encoder by the name of its network."""
    ours = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))["model"][modality]
    shared = {key: ours[key] for key in ("crop_tmin", "decimation") if key in ours} | {"alignment_kernel_size": 1}
    others = {name: shared | settings for name, settings in (PAPER[modality] | BRAINDECODE).items()}
    return {"temporal_spatial": ours | {"num_networks": 1, "time_shift": 0.0}} | others


def train_once(modality: str, folder: str, settings: dict, rate: float, seed: int, output: Path, limit: int) -> dict:
    """Train one network and say how well it validates; its checkpoint is removed."""
    words = [sys.executable, str(REPOSITORY / "train.py"), str(RECIPE), "--data", json.dumps({modality: folder})]
    words += [f"--model.{modality}", json.dumps(settings), "--learning_rate", str(rate), "--seed", str(seed)]
    words += ["--output-dir", str(output), "--overwrite", "--model.include_vision_tower", "false"]
    output.mkdir(parents=True, exist_ok=True)
    log = output.with_suffix(".log")
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            words, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit)),
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = round(usage.ru_utime + usage.ru_stime, 1)
    found: dict[str, Any] = {"cpu_seconds": seconds, "validation_two_way": None, "parameters": None}
    if process.returncode == 0:
        record = json.loads((output / "training.json").read_text(encoding="utf-8"))
        found |= {"validation_two_way": round(record["best_validation_two_way"], 4), "epochs": record["epochs"]}
        found |= {"parameters": count_parameters(output, modality)}
    elif seconds < limit - 1:
        raise DataError(f"The run of {settings} failed; its output stands in '{log}'.")
    shutil.rmtree(output)
    return found


def count_parameters(checkpoint: Path, modality: str) -> int:
    """Weights of the shared network, without alignment layers and projection."""
    from neural_clip import NeuralClipModel

    model: Any = NeuralClipModel.from_pretrained(checkpoint)
    return sum(parameter.numel() for parameter in model.encoders[modality].network.parameters())


def best_of(runs: Sequence[dict]) -> list[dict]:
    """The better learning rate of each network, the best network first; those that were stopped come last."""
    best: dict[tuple, dict] = {}
    for entry in sorted(runs, key=lambda entry: entry["validation_two_way"] or 0, reverse=True):
        best.setdefault((entry["modality"], entry["network"]), entry)
    return list(best.values())


def table(runs: Sequence[dict]) -> str:
    """What was found, as Markdown."""
    columns = ("recordings", "network", "validation 2-way", "learning rate", "tried", "CPU s", "parameters")
    rows = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for entry in sorted(best_of(runs), key=lambda entry: entry["modality"]):
        same = [run for run in runs if all(run[key] == entry[key] for key in ("modality", "network"))]
        score = entry["validation_two_way"]
        shown = ["stopped" if score is None else f"{score:.3f}", f"{entry['learning_rate']:g}"]
        shown.append(", ".join(f"{rate:g}" for rate in sorted({run["learning_rate"] for run in same}, reverse=True)))
        shown += [f"{entry['cpu_seconds']:.0f}", str(entry["parameters"] or "")]
        rows.append("| " + " | ".join([label(entry), entry["network"], *shown]) + " |")
    return "\n".join(rows)


def versions() -> dict[str, str]:
    """Versions of the packages that matter."""
    installed = {item.metadata["Name"].lower().replace("-", "_") for item in package_metadata.distributions()}
    return {name: package_metadata.version(name) for name in PACKAGES if name in installed}


def compare(data: dict[str, str], given: argparse.Namespace) -> None:
    """Train what is not in the results yet, and write them after each run."""
    results, seed = given.results, given.seed
    known: list[dict] = json.loads(results.read_text(encoding="utf-8"))["runs"] if results.is_file() else []
    about = "validation split of simulated recordings, best epoch, one seed; the better learning rate counts"
    keys = ("modality", "network", "settings", "learning_rate", "seed", "data")
    for rate in given.learning_rates:
        for modality, folder in data.items():
            facts = Facts.read(folder)
            for name, settings in candidates(modality).items():
                entry: dict[str, Any] = {"modality": modality, "network": name, "settings": settings}
                entry |= {"learning_rate": rate, "seed": seed, "data": facts.fingerprint}
                done = any(all(other[key] == entry[key] for key in keys) for other in known)
                if done or (given.networks and name not in given.networks):
                    continue
                output = given.output_dir / f"{modality}_{name}_{rate:g}_{seed}"
                entry |= train_once(modality, folder, settings, rate, seed, output, given.limit)
                known.append(entry | {"simulated": bool(facts.simulated), "versions": versions()})
                results.parent.mkdir(parents=True, exist_ok=True)
                write_whole(results, json.dumps({"about": about, "runs": known}, indent=2) + "\n")
                print(modality, name, f"{rate:g}", entry["validation_two_way"], entry["cpu_seconds"], flush=True)
    replace_marked(given.page, "networks", table(known))
    print(f"{table(known)}\nresults in {results}, table in {given.page}")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="MODALITY=FOLDER", help="eeg, meg or both")
    parser.add_argument("--networks", nargs="+", default=[], metavar="NAME", help="some only (default: all)")
    parser.add_argument("--learning-rates", nargs="+", type=float, default=LEARNING_RATES, metavar="RATE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=CPU_LIMIT, metavar="S", help=f"(default: {CPU_LIMIT} s of CPU)")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/networks"), help="logs and checkpoints")
    parser.add_argument("--results", type=Path, default=Path("studies/results/validation/networks.json"))
    parser.add_argument("--page", type=Path, default=REPOSITORY / "docs" / "studies" / "encoders.md")
    given = parser.parse_args(argv)
    data = dict(entry.partition("=")[::2] for entry in given.data)
    if not data or set(data) - set(PAPER) or not all(data.values()):
        raise DataError(f"'--data' takes eeg=FOLDER and meg=FOLDER, but got {given.data}.")
    unknown = set(given.networks) - {name for modality in data for name in candidates(modality)}
    if unknown:
        known = sorted({name for modality in data for name in candidates(modality)})
        raise DataError(f"'--networks' takes {', '.join(known)}, but got {sorted(unknown)}.")
    compare(data, given)


if __name__ == "__main__":
    run(main)
