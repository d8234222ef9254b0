"""Compare recipes on the simulated twins: train each with several seeds and score all on the same queries.

    python scripts/compare_recipes.py --twins realistic linear --recipes demo paper paper_code linear --seeds 0 1 2 3 4
    python scripts/results_page.py                   # docs/results.md from results/*.json

A recipe is a file of `configs/` by name; `demo+frozen` is the same with alignment layers that stay as they started.
The first recipe is the one that all others are compared with. Each run is one process with one thread, `--jobs` at a
time, and one evaluation a seed scores all recipes once; the linear baselines, which have no seed, are fitted beside
the first. What is finished is kept: a run while recipe, seed, data and the code of training are the same, an
evaluation while its runs and the package are. `--finished` trains nothing and scores what is there; the page then
names what is missing. Choose on `--split validation`: its scores stay in the output folder.

The twin itself is drawn once (seed 0). The seeds are those of training: weights, order of recordings, dropout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from neural_clip.errors import DataError, run
from neural_clip.recipes import read_recipe
from neural_clip.report_tables import known_ceiling
from neural_clip.whole_files import write_whole

REPOSITORY = Path(__file__).resolve().parents[1]
NEURAL_CLIP = Path(sys.executable).parent / "neural-clip"
CORPORA = {"eeg": "imagenet_eeg", "meg": "things_meg", "fmri": "nsd"}
VARIANTS = {"frozen": ["--model.freeze_alignment", "true"]}  # what may stand behind a plus sign
KEPT = ("top1", "top1_interval", "top5", "top5_interval", "two_way", "two_way_interval", "two_way_p", "chance_top1",
        "chance_top5", "chance_two_way", "gallery_size", "n_queries", "not_computed")  # fmt: skip
PRINT_MODULES = """import sys, neural_clip.training
print(*(m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "neural_clip"), sep="\\n")"""


def digest(value: object) -> str:
    """SHA-256 of something that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_files(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents of files."""
    return digest({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)})


def source_states() -> dict[str, str]:
    """State of the code that trains (all that `neural_clip.training` imports), and of the whole package."""
    done = subprocess.run([sys.executable, "-c", PRINT_MODULES], capture_output=True, text=True, check=True)
    modules = [Path(line) for line in done.stdout.splitlines()]
    package = next(path for path in modules if path.name == "training.py").parent
    return {"training": digest_files(modules), "package": digest_files(package.rglob("*.py"))}


def commit() -> str | None:
    """Commit of the repository, marked where tracked files differ from it; nothing outside a repository."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"], capture_output=True, text=True
    )
    return described.stdout.strip() or None


def once(folder: Path, key: str, command: Sequence[object], start: bool = True) -> dict | None:
    """Run a command whose outputs lie in a folder, unless they are there already.

    Returns:
        `dict`: Key, command, commit and seconds of the run; `None` where it is not finished and may not start.

    Raises:
        DataError: If the command fails; its output stands in `log.txt`.
    """
    record_file = folder / "run.json"
    if record_file.is_file():
        record = json.loads(record_file.read_text(encoding="utf-8"))
        if record["key"] == key:
            print(f"{time.strftime('%H:%M:%S')} kept     {folder}", flush=True)
            return record
    if not start:
        return None
    record_file.unlink(missing_ok=True)  # from here on the folder is not what it says
    folder.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    print(f"{time.strftime('%H:%M:%S')} started  {folder} (output in {folder / 'log.txt'})", flush=True)
    started, state = time.monotonic(), commit()
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            words, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    shown = shlex.join([Path(words[0]).name, *words[1:]])
    if process.returncode != 0:
        raise DataError(f"'{shown}' failed; its output stands in '{folder / 'log.txt'}'.")
    seconds = time.monotonic() - started
    record = {"key": key, "command": shown, "commit": state, "seconds": round(seconds, 1)}
    record["cpu_seconds"] = round(usage.ru_utime + usage.ru_stime, 1)
    write_whole(record_file, json.dumps(record, indent=2) + "\n")
    print(f"{time.strftime('%H:%M:%S')} finished {folder} in {seconds:.0f} s", flush=True)
    return record


def data_folders(twin: Path) -> dict[str, Path]:
    """Prepared data sets of a twin by modality."""
    return {modality: twin / "data" / name for modality, name in CORPORA.items()}


def data_state(twin: Path) -> dict:
    """Fingerprint and image encoder of each data set."""
    facts = {m: json.loads((f / "neural_clip.json").read_text("utf-8")) for m, f in data_folders(twin).items()}
    return {m: {key: fact[key] for key in ("fingerprint", "image_encoder")} for m, fact in facts.items()}


def training_words(recipe: str, seed: int, twin: Path, epochs: int | None = None) -> list[str]:
    """Recipe and overrides of one run, as `neural-clip train` takes them.

    Raises:
        DataError: If there is no such recipe or variant.
    """
    name, *variants = recipe.split("+")
    path = Path("configs") / f"{name}.yaml"
    if not (REPOSITORY / path).is_file():
        known = sorted(file.stem for file in (REPOSITORY / "configs").glob("*.yaml"))
        raise DataError(f"Invalid value for the '--recipes' parameter. Allowed are {known}, but got '{name}' instead.")
    words = [str(path), "--training.seed", str(seed)]
    for variant in variants:
        if variant not in VARIANTS:
            raise DataError(f"'{recipe}' asks for the variant '{variant}'. Allowed are {sorted(VARIANTS)}.")
        words += VARIANTS[variant]
    if epochs is not None:
        words += ["--training.num_train_epochs", str(epochs)]
    words += [word for m, folder in data_folders(twin).items() for word in (f"--data.{m}", str(folder))]
    return [*words, "--training.output_dir", str(twin / "runs" / f"{recipe}-{seed}"), "--overwrite", "true"]


def training_key(words: Sequence[str], data: dict, source: str) -> str:
    """What decides a run: recipe with overrides (seed among them), data and code, but not where things lie."""
    recipe = read_recipe(words).as_dict()
    recipe["training"].pop("output_dir")
    return digest({"model": recipe["model"], "training": recipe["training"], "data": data, "source": source})


def train_one(recipe: str, seed: int, twin: Path, source: str, arguments: argparse.Namespace) -> dict | None:
    """Train one recipe with one seed, or keep what is there."""
    words = training_words(recipe, seed, twin, arguments.epochs)
    key = training_key(words, data_state(twin), source)
    return once(Path(words[words.index("--training.output_dir") + 1]), key, [NEURAL_CLIP, "train", *words],
                start=not arguments.finished)  # fmt: skip


def evaluation_key(runs: dict[str, dict], split: str, baselines: bool, source: str, data: dict) -> str:
    """What decides an evaluation: the runs in their order, split, baselines, data and the whole package."""
    keys = [(name, record["key"]) for name, record in runs.items()]
    return digest({"runs": keys, "split": split, "baselines": baselines, "source": source, "data": data})


def evaluate_seed(
    runs: dict[str, dict], seed: int, twin: Path, source: str, split: str, baselines: bool
) -> tuple[dict, dict]:
    """Score all runs of a seed on the same queries; returns the run's record and the report."""
    folder = twin / f"{split}-{seed}"
    command = [NEURAL_CLIP, "evaluate", "--output-dir", folder, "--split", split, "--no-audits", "--no-pictures"]
    command += [] if baselines else ["--no-baselines"]
    command += ["--data", *[f"{m}={path}" for m, path in data_folders(twin).items()]]
    command += ["--checkpoint", *[f"{name}={twin / 'runs' / f'{name}-{seed}'}" for name in runs]]
    record = once(folder, evaluation_key(runs, split, baselines, source, data_state(twin)), command)
    assert record is not None
    return record, json.loads((folder / "report.json").read_text(encoding="utf-8"))


def share_of_way(value: float, chance: float, ceiling: float | None) -> float | None:
    """How far a score is on the way from chance to the score of the observer who knows the model."""
    return None if ceiling is None else (value - chance) / (ceiling - chance)


def collect(report: dict, evaluation: dict, runs: dict[str, dict], seed: int) -> tuple[list[dict], list[dict]]:
    """Records of one evaluation (single trials; one for each method and modality), and its paired differences."""
    records = []
    weights = {part["name"]: part["sha256"] for part in report["checkpoints"]}
    for modality, part in report["decoding"].items():
        # the simulation's observer looked at the test split
        ceiling = part["ceiling"] if report["split"] == "test" else None
        for row in part["rows"]:
            if row["aggregation"] != "single trial":
                continue
            trained = runs.get(row["method"])
            record = {"modality": modality, "method": row["method"], "kind": "recipe" if trained else "baseline"}
            record |= {"seed": seed if trained else None, **{key: row[key] for key in KEPT if key in row}}
            for name in ("two_way", "top1") if "not_computed" not in row else ():
                known = known_ceiling(ceiling, name)
                record[f"ceiling_{name}"] = known
                record[f"share_of_way_{name}"] = share_of_way(row[name], row[f"chance_{name}"], known)
            made = trained or evaluation
            record |= {
                "commit": made["commit"],
                "command": made["command"],
                "weights_sha256": weights.get(row["method"]),
            }
            record |= {f"training_{key}": trained[key] if trained else None for key in ("seconds", "cpu_seconds")}
            facts = report["data"][modality]
            record |= {"fingerprint": facts["fingerprint"], "simulated": modality in report["simulated_modalities"]}
            records.append(record | {"versions": report["versions"]})
    pairs = [{"seed": seed, **part} for part in report["comparisons"] if part["task"] == "decoding"]
    return records, pairs


def compare(name: str, arguments: argparse.Namespace, sources: dict[str, str]) -> dict:
    """Data, runs and evaluations of one twin; returns what `results/<twin>.json` holds."""
    twin = arguments.output_dir / name
    print(f"{time.strftime('%H:%M:%S')} {name}: {len(arguments.recipes)} recipes, seeds {arguments.seeds}, in {twin}")
    data = [sys.executable, "scripts/demo.py", "--data-only", "--preset", name, "--output-dir", twin]
    if subprocess.run([str(word) for word in data]).returncode != 0:
        raise DataError(f"The data sets of the twin '{name}' could not be made.")
    results: dict = {"twin": name, "split": arguments.split, "recipes": arguments.recipes, "seeds": arguments.seeds}
    results |= {"command": shlex.join(["python", *sys.argv]), "evaluations": [], "records": [], "comparisons": []}
    for seed in arguments.seeds:
        with ThreadPoolExecutor(arguments.jobs) as pool:
            found = pool.map(
                lambda r, s=seed: train_one(r, s, twin, sources["training"], arguments), arguments.recipes
            )
            finished = dict(zip(arguments.recipes, found, strict=True))
        runs = {recipe: record for recipe, record in finished.items() if record is not None}
        if runs:
            first = not results["evaluations"]
            evaluation, report = evaluate_seed(runs, seed, twin, sources["package"], arguments.split, first)
            records, pairs = collect(report, evaluation, runs, seed)
            results["evaluations"].append({"seed": seed, **evaluation})
            results["records"] += records
            results["comparisons"] += pairs
    if not results["records"]:
        raise DataError(f"No run in '{twin}' is finished.")
    return results


def main(argv: Sequence[str] | None = None) -> None:
    """Train, evaluate and collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--twins", nargs="+", default=["realistic", "linear"], help="presets of docs/twins.md")
    parser.add_argument("--recipes", nargs="+", default=["demo", "paper", "paper_code", "linear"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/recipes"), help="data, runs and reports")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (default: 1)")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--epochs", type=int, help="training epochs, instead of the recipes'")
    parser.add_argument("--finished", action="store_true", help="train nothing, score the runs that are finished")
    parser.add_argument("--results-dir", type=Path, default=Path("results"), help="of <twin>.json (default: results)")
    arguments = parser.parse_args(argv)
    os.chdir(REPOSITORY)
    for recipe in arguments.recipes:
        training_words(recipe, 0, Path())  # a misspelt one is not to fail after an hour
    sources = source_states()
    for name in arguments.twins:
        results = compare(name, arguments, sources)
        folder = arguments.results_dir if arguments.split == "test" else arguments.output_dir / arguments.split
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{name}.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
        print(f"{name}: results in {folder / f'{name}.json'}, reports in {arguments.output_dir / name}")


if __name__ == "__main__":
    run(main)
