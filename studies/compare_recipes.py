"""Compare recipes on the simulated twins or on real recordings: train with several seeds, score on the same queries.

    python studies/compare_recipes.py --twins realistic linear --recipes demo paper paper_code linear --seeds 0 1 2 3 4
    python studies/compare_recipes.py --twins faces --recipes base linear --seeds 0 1 2 3 4
    python studies/results_page.py    # docs/studies/results.md from studies/results/*.json

A recipe is a file of `configs/` by name, with changes behind plus signs:

    demo+frozen                   alignment layers that stay as they started
    demo+mse                      squared distance to the image embedding instead of the contrastive loss
    demo+uncropped                the samples before onset as well (MEG)
    demo+coarse                   no fine windows (EEG, MEG)
    demo+shallow                  no hidden layer behind the filters (EEG, MEG), no path around it (fMRI)
    demo+slow                     a learning rate of 2e-3, not 5e-3
    demo+still                    recordings do not move in time while training (EEG, MEG)
    demo+single                   one network for each modality, not several in parallel (MEG: with 96 filters)
    demo+eeg, demo+meg, demo+fmri only the recordings of that modality; scored there alone
    demo+alone                    a model for each person and modality, scored together as if they were one

The first recipe is the one that all others are compared with, so it is of all modalities and people. Each run is one
process with one thread, `--jobs` at a time, and one evaluation a seed scores all recipes once; the linear baselines,
which have no seed, are fitted beside the first. What is finished is kept: a run while recipe, seed, data and the code
of training (not its prose) are the same, an evaluation while its runs and the package are. `--finished` trains nothing
and scores what is there, so that recipes may have different seeds; the page names them, and what is missing. `--name`
keeps a comparison with another first recipe beside that of the twin. `--add` keeps the runs that the results already
tell of, so that recipes and seeds may come from several machines: the data must be the same, and a run that is there
as well must have the same weights, to the bit, as it has on processors of one kind. Choose on `--split validation`:
its scores stay in the output folder.

In the place of a twin may stand `digits`, `digits_mobilenet` or `faces`, prepared by `studies/real_recordings.py`.
A twin itself is drawn once (seed 0). The seeds are those of training: weights, order of recordings, dropout.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from collected import added, collect, conversions_of, results_file, write_results
from neural_clip import NeuralClipModel
from neural_clip.errors import DataError, run
from neural_clip.evaluation.run import COMPARED
from neural_clip.evaluation.tasks import decoding_rows
from neural_clip.files.whole import sha256_of
from neural_clip.gallery.embedding import embed_split
from neural_clip.prepared.reader import PreparedSet
from neural_clip.retrieval.scoring import compare_methods
from runs import NEURAL_CLIP, digest, once, source_states
from variants import (
    REAL,
    REPOSITORY,
    Person,
    data_folders,
    data_state,
    is_alone,
    is_whole,
    learnt_of,
    people_of,
    run_folder,
    training_key,
    training_words,
)


def train_one(
    recipe: str, person: Person, seed: int, twin: Path, source: str, arguments: argparse.Namespace
) -> dict | None:
    """Train one model of a recipe with one seed, or keep what is there."""
    words = training_words(recipe, seed, twin, arguments.epochs, person)
    key = training_key(words, data_state(twin), source)
    folder = run_folder(recipe, seed, twin, person)
    return once(folder, key, [NEURAL_CLIP, "train", *words], start=not arguments.finished)


def joined(records: Sequence[dict | None]) -> dict | None:
    """The runs of a recipe as one: times are sums; nothing where one of them is not finished."""
    if len(records) == 1:
        return records[0]
    finished = [record for record in records if record is not None]
    if len(finished) < len(records):
        return None
    found: dict = {"key": digest([record["key"] for record in finished])}
    found["command"] = f"{finished[0]['command']} (the first of {len(finished)}, one for each person and modality)"
    found["commit"] = ", ".join(sorted({str(record["commit"]) for record in finished}))
    return found | {name: round(sum(r[name] for r in finished), 1) for name in ("seconds", "cpu_seconds")}


def train_seed(seed: int, twin: Path, source: str, arguments: argparse.Namespace) -> dict[str, dict]:
    """Train every recipe with one seed; returns the records of those that are finished, whole models first."""
    wanted = [(recipe, person) for recipe in arguments.recipes for person in people_of(recipe, twin)]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        found = list(pool.map(lambda one: train_one(one[0], one[1], seed, twin, source, arguments), wanted))
    runs = {}
    for recipe in sorted(arguments.recipes, key=is_whole, reverse=True):
        record = joined([run for run, (name, _) in zip(found, wanted, strict=True) if name == recipe])
        if record is not None:
            runs[recipe] = record
    return runs


def evaluation_key(runs: dict[str, dict], split: str, baselines: bool, source: str, data: dict) -> str:
    """What decides an evaluation: the runs in their order, split, baselines, data and the whole package."""
    keys = [(name, record["key"]) for name, record in runs.items()]
    return digest({"runs": keys, "split": split, "baselines": baselines, "source": source, "data": data})


def evaluate_seed(
    runs: dict[str, dict], seed: int, twin: Path, source: str, split: str, baselines: bool, name: str | None = None
) -> tuple[dict, dict]:
    """Score all runs of a seed on the same queries; returns the run's record and the report.

    Models of people alone are scored anew each time: an evaluation knows one checkpoint for all queries.
    """
    together = {name: record for name, record in runs.items() if not is_alone(name)}
    folder = twin / "-".join([split, *([name] if name else []), str(seed)])
    command = [NEURAL_CLIP, "evaluate", "--output-dir", folder, "--split", split, "--no-controls", "--no-pictures"]
    command += [] if baselines else ["--baselines", "none"]
    command += ["--data", *[f"{m}={path}" for m, path in data_folders(twin).items()]]
    command += ["--checkpoint", *[f"{name}={run_folder(name, seed, twin)}" for name in together]]
    record = once(folder, evaluation_key(together, split, baselines, source, data_state(twin)), command)
    assert record is not None
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    for name in runs:
        if name not in together:
            add_alone(report, name, seed, twin)
    return record, report


def add_alone(report: dict, recipe: str, seed: int, twin: Path) -> None:
    """Add to a report what the models of single people make of their own recordings, scored all together.

    Queries, gallery and order are those of the first checkpoint, with which they are compared.
    """
    first, weights = report["checkpoints"][0], []
    for modality in learnt_of(recipe, twin):
        data = PreparedSet.open(data_folders(twin)[modality])
        model = NeuralClipModel.from_pretrained(str(run_folder(first["name"], seed, twin)))
        whole = embed_split(model, data.split(report["split"]))
        parts = []
        for person in dict.fromkeys(whole.subjects.tolist()):
            place = run_folder(recipe, seed, twin, (modality, person))
            weights += sorted(place.glob("model*.safetensors"))
            model = NeuralClipModel.from_pretrained(str(place))
            parts.append(embed_split(model, data.split(report["split"], [person])))
        assert np.concatenate([part.image_ids for part in parts]).tolist() == whole.image_ids.tolist()
        rows, theirs = decoding_rows(whole, np.concatenate([part.embeds for part in parts]), recipe, report["seed"])
        _, own = decoding_rows(whole, whole.embeds, first["name"], report["seed"])
        report["decoding"][modality]["rows"] += rows
        units, methods = whole.image_ids.tolist(), {first["name"]: own, recipe: theirs}
        report["comparisons"] += [
            {"task": "decoding", "modalities": [modality], **pair}
            for pair in compare_methods(methods, units, COMPARED, report["seed"])
        ]
    report["checkpoints"].append({"name": recipe, "sha256": sha256_of(weights)})


def make_data(name: str, twin: Path) -> None:
    """Simulate and prepare a twin where it is not there yet; real recordings must be.

    Raises:
        DataError: If they are not, or the twin could not be made.
    """
    if name in REAL:
        lacking = [str(folder) for folder in REAL[name].values() if not (folder / "neural_clip.json").is_file()]
        if lacking:
            raise DataError(f"There is no {lacking[0]}; `python studies/real_recordings.py` makes it.")
        return
    data = [NEURAL_CLIP, "demo", "--data-only", "--preset", name, "--output-dir", twin]
    if subprocess.run([str(word) for word in data]).returncode != 0:
        raise DataError(f"The data sets of the twin '{name}' could not be made.")


def compare(name: str, arguments: argparse.Namespace, sources: dict[str, str]) -> dict:
    """Data, runs and evaluations of one twin; returns what `studies/results/<twin>.json` holds."""
    twin = arguments.output_dir / name
    print(f"{time.strftime('%H:%M:%S')} {name}: {len(arguments.recipes)} recipes, seeds {arguments.seeds}, in {twin}")
    make_data(name, twin)
    results: dict = {"twin": name, "split": arguments.split, "recipes": arguments.recipes, "seeds": arguments.seeds}
    results |= {"command": shlex.join(["python", *sys.argv]), "name": arguments.name}
    results |= {"evaluations": [], "records": [], "comparisons": [], "conversions": []}
    for seed in arguments.seeds:
        runs = train_seed(seed, twin, sources["training"], arguments)
        if any(is_whole(recipe) for recipe in runs):
            baselines = not results["evaluations"] and not arguments.name and not arguments.add
            evaluation, report = evaluate_seed(
                runs, seed, twin, sources["package"], arguments.split, baselines, arguments.name
            )
            records, pairs = collect(report, evaluation, runs, seed)
            results["evaluations"].append({"seed": seed, **evaluation})
            results["records"] += records
            results["comparisons"] += pairs
            results["conversions"] += conversions_of(report, runs, seed)
    if not results["records"]:
        raise DataError(f"No run of all modalities and people in '{twin}' is finished.")
    return results


def main(argv: Sequence[str] | None = None) -> None:
    """Train, evaluate and collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--twins", nargs="+", default=["realistic", "linear"], help=f"presets of docs/twins.md, or {', '.join(REAL)}"
    )
    parser.add_argument("--recipes", nargs="+", default=["demo", "paper", "paper_code", "linear"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/recipes"), help="data, runs and reports")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (default: 1)")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--epochs", type=int, help="training epochs, instead of the recipes'")
    parser.add_argument("--finished", action="store_true", help="train nothing, score the runs that are finished")
    parser.add_argument("--results-dir", type=Path, default=Path("studies/results"), help="folder of <twin>.json")
    parser.add_argument("--add", action="store_true", help="keep the other recipes and seeds of the results so far")
    parser.add_argument("--name", help="write <twin>_<name>.json, without linear baselines: other pairs of recipes")
    arguments = parser.parse_args(argv)
    os.chdir(REPOSITORY)
    whole = [is_whole(recipe) for recipe in arguments.recipes]  # a misspelt one is not to fail after an hour
    if not whole[0]:
        raise DataError(
            "The first of '--recipes' is what the others are compared with and must learn all modalities and people, "
            f"but got '{arguments.recipes[0]}'."
        )
    sources = source_states()
    for name in arguments.twins:
        title = f"{name}_{arguments.name}" if arguments.name else name
        before = None
        if arguments.add:  # ends here, not after hours, where there is nothing to add to
            before = json.loads(results_file(title, arguments).read_text(encoding="utf-8"))
        results = compare(name, arguments, sources)
        file = write_results(added(before, results) if before else results, title, arguments)
        print(f"{name}: results in {file}, reports in {arguments.output_dir / name}")


if __name__ == "__main__":
    run(main)
