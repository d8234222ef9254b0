"""Compare single choices with one reference: objectives, augmentations, alignment layers, spatial attention.

    python studies/compare_choices.py --data eeg=FOLDER meg=FOLDER fmri=FOLDER --seeds 0 1

The reference is `configs/demo.yaml` with one network for each modality and recordings that do not move in time
(`demo+single+still` of `studies/compare_recipes.py`). Each choice of `studies/choices.py` changes one thing about it
and is trained by the package's own trainer, one modality at a time. Scores are those of single recordings of the
**validation** split, the mean over the last three epochs, so that no epoch is chosen by them; the test split is never
read. Results are written after each run, the page from them at the end; a run that stands in the results already, with
the same data, recipe, choices and code of training, is kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata as package_metadata
from pathlib import Path

import torch

from choices import CHOICES, EVERYWHERE, ChoiceTrainer
from neural_clip.commands.options import open_data_set
from neural_clip.errors import DataError, run
from neural_clip.files.whole import write_whole
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet
from neural_clip.training.batches import JointDataset, RecordingDataset
from neural_clip.training.model import build_model, model_config
from neural_clip.training.recipe import read_recipe
from runs import commit, digest, digest_files, source_states
from variants import REPOSITORY, SETTINGS

RECIPE = REPOSITORY / "configs" / "demo.yaml"
DEFINITIONS = Path(__file__).with_name("choices.py")
RESULTS = REPOSITORY / "studies" / "results" / "validation" / "choices.json"
LAST_EPOCHS = 3
PACKAGES = ("neural_clip", "torch", "transformers", "datasets", "numpy")
ABOUT = "validation split of simulated recordings, single trials, mean over the last three epochs"


def train_choice(name: str, modality: str, data: PreparedSet, seed: int, epochs: int | None) -> dict:
    """Train with one choice; returns scores, epochs and processor seconds."""
    choice = CHOICES[name]
    with tempfile.TemporaryDirectory() as scratch:
        data_set = json.dumps({modality: str(data.folder)})
        words = [str(RECIPE), "--data", data_set, "--seed", str(seed), "--output-dir", scratch]
        words += ["--save_strategy", "'no'", "--load_best_model_at_end", "false", "--disable_tqdm", "true"]
        words += ["--model.include_vision_tower", "false"] + (
            [] if epochs is None else ["--num_train_epochs", str(epochs), "--min_steps", "0"]
        )
        recipe = read_recipe(words + SETTINGS["single"] + SETTINGS["still"])
        settings = dict(choice.settings)
        recipe.model[modality] = {**recipe.model[modality], **settings.pop("MODALITY", {})}
        recipe.model |= settings
        started = time.process_time()
        config = model_config(recipe, {modality: data.facts})
        model = build_model(config, None, seed)
        if choice.change is not None:
            choice.change(model, modality)
        parts = {split: RecordingDataset(data.split(split), data.facts.subjects) for split in ("train", "validation")}
        trainer = ChoiceTrainer(
            choice, model=model, args=recipe.training_arguments, recordings=JointDataset([parts["train"]]),
            validation=[parts["validation"]],
        )  # fmt: skip
        trainer.train()
    shown = parts["validation"]
    sizes = {"n_queries": len(shown), "gallery_size": len(shown.part.gallery_ids)}
    history = [entry for entry in trainer.state.log_history if "eval_two_way" in entry]
    scores = {key: statistics.fmean(e[f"eval_{key}"] for e in history[-LAST_EPOCHS:]) for key in ("two_way", "top1")}
    return scores | sizes | {"epochs": len(history), "cpu_seconds": round(time.process_time() - started, 1)}


def table(records: Sequence[dict], modality: str) -> list[str]:
    """Choices of a modality as Markdown, beside what the recipe has with the same seeds."""
    lines = [
        "| choice | what it is | seeds | 2-way | minus the reference | top-1 % | minus | processor s |",
        "|---" * 8 + "|",
    ]
    own = [record for record in records if record["modality"] == modality]
    reference = {record["seed"]: record for record in own if record["choice"] == "demo"}
    for name, choice in CHOICES.items():
        found = [record for record in own if record["choice"] == name and record["seed"] in reference]
        if found:
            mean = {key: statistics.fmean(r[key] for r in found) for key in ("two_way", "top1", "cpu_seconds")}
            gains = ["", ""]
            if name != "demo":
                gains[0] = ", ".join(f"{r['two_way'] - reference[r['seed']]['two_way']:+.3f}" for r in found)
                gains[1] = ", ".join(f"{100 * (r['top1'] - reference[r['seed']]['top1']):+.1f}" for r in found)
            cells = [name, choice.about, ", ".join(str(r["seed"]) for r in found), f"{mean['two_way']:.3f}", gains[0]]
            cells += [f"{100 * mean['top1']:.1f}", gains[1], f"{mean['cpu_seconds']:.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


INTRODUCTION = """# Single choices, measured

This study is closed: it stays reproducible and is not extended. Every number is of **simulated** recordings, twin
`realistic` ([twins.md](../twins.md)). Each choice changes one thing about a reference: the recipe `demo` with one
network for each modality and recordings that do not move in time, trained one modality at a time. Scores are of the
**validation split**, single trials, mean over the last three epochs; the test split was not read. Differences are from
the reference with the same seed, one for each seed. How far the differences of two seeds lie apart shows how far one
of them can be trusted, least in MEG.

`python studies/compare_choices.py` writes the page from `studies/results/validation/choices.json`. No number is typed
by hand. `studies/choices.py` defines the choices that are not options of the package.
"""


def page(records: Sequence[dict]) -> str:
    """The page of all choices, as Markdown."""
    lines = [INTRODUCTION]
    for modality in EVERYWHERE:
        first = next((record for record in records if record["modality"] == modality), None)
        if first is not None:
            chance = f"chance .5 and {100 / first['gallery_size']:.1f} %"
            lines += [f"## {MODALITIES[modality].title}, simulated", ""]
            lines += [f"{first['n_queries']} recordings, {first['gallery_size']} images; {chance}.", ""]
            lines += [*table(records, modality), ""]
            run = {record["choice"] for record in records if record["modality"] == modality}
            lacking = [name for name, choice in CHOICES.items() if modality in choice.modalities and name not in run]
            lines += [f"Not run: {', '.join(lacking)}.", ""] if lacking else []
    commits = sorted({str(record["commit"]) for record in records})
    return "\n".join([*lines, f"Made at commit {', '.join(commits)}.", ""])


def known_records(results: Path) -> list[dict]:
    """What the results hold already."""
    return json.loads(results.read_text(encoding="utf-8"))["records"] if results.is_file() else []


def add_record(results: Path, entry: dict) -> None:
    """Put a record into the results, in place of one of the same choice, modality and seed."""
    same = ("choice", "modality", "seed")
    others = [record for record in known_records(results) if any(record[key] != entry[key] for key in same)]
    write_whole(results, json.dumps({"about": ABOUT, "records": [*others, entry]}, indent=1) + "\n")


def compare(data: dict[str, PreparedSet], given: argparse.Namespace) -> None:
    """Train what is not in the results yet; write them after each run, and the page."""
    facts = {modality: opened.facts for modality, opened in data.items()}
    given.results.parent.mkdir(parents=True, exist_ok=True)
    code = [source_states()["training"], digest_files([RECIPE, DEFINITIONS], REPOSITORY)]
    versions = {name: package_metadata.version(name) for name in PACKAGES}
    wanted = [
        (seed, name, modality)
        for seed in given.seeds
        for name in given.choices or CHOICES
        for modality in CHOICES[name].modalities
        if modality in data
    ]
    for seed, name, modality in wanted:
        key = digest([name, modality, seed, facts[modality].fingerprint, given.epochs, code])
        if any(record["key"] == key for record in known_records(given.results)):
            continue
        entry = {"choice": name, "modality": modality, "seed": seed, "key": key, "commit": commit()}
        entry |= {"simulated": bool(facts[modality].simulated), "versions": versions}
        entry |= train_choice(name, modality, data[modality], seed, given.epochs)
        add_record(given.results, entry)
        print(f"{time.strftime('%H:%M:%S')} {modality} {name}, seed {seed}: {entry['two_way']:.4f}", flush=True)
    write_whole(given.page, page(known_records(given.results)))
    print(f"results in {given.results}, page in {given.page}")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="MODALITY=FOLDER", help="eeg, meg, fmri")
    parser.add_argument("--choices", nargs="+", default=[], metavar="NAME", help="some only (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, help="training epochs, instead of the recipe's")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=REPOSITORY / "docs" / "studies" / "choices.md")
    given = parser.parse_args(argv)
    unknown = [name for name in given.choices if name not in CHOICES]
    if unknown:
        raise DataError(
            f"Invalid value for the '--choices' parameter. Allowed are {list(CHOICES)}, but got {unknown}."
        )
    torch.set_num_threads(1)  # as many as the other comparisons take, so that times can be compared
    compare({opened.facts.modality: opened for opened in map(open_data_set, given.data)}, given)


if __name__ == "__main__":
    run(main)
