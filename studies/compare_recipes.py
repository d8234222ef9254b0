"""Compare recipes on the simulated twins or on real recordings: train with several seeds, score on the same queries.

    python studies/compare_recipes.py --twins realistic linear --recipes demo paper paper_code linear --seeds 0 1 2 3 4
    python studies/compare_recipes.py --twins faces --recipes real_faces base linear --seeds 0 1 2 3 4
    python studies/results_page.py                   # docs/results.md from results/*.json

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
import ast
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

import numpy as np

from neural_clip import NeuralClipModel
from neural_clip.errors import DataError, run
from neural_clip.evaluation.embedding import embed_split
from neural_clip.evaluation.run import COMPARED
from neural_clip.evaluation.tasks import decoding_rows
from neural_clip.files.whole import sha256_of, write_whole
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.reader import PreparedSet
from neural_clip.report.tables import known_ceiling
from neural_clip.retrieval.scoring import compare_methods
from neural_clip.training.recipe import read_recipe

REPOSITORY = Path(__file__).resolve().parents[1]
NEURAL_CLIP = Path(sys.executable).parent / "neural-clip"
CORPORA = {"eeg": "imagenet_eeg", "meg": "things_meg", "fmri": "nsd"}
# Real recordings (docs/real_recordings.md) that may stand in the place of a twin
REAL = {
    "digits": {"fmri": Path("outputs/real/digit69")},
    "digits_mobilenet": {"fmri": Path("outputs/real/digit69_mobilenet")},
    "faces": {"eeg": Path("outputs/real/n170"), "fmri": Path("outputs/real/haxby")},
}
ALONE = "alone"
SETTINGS = {
    "frozen": ["--model.freeze_alignment", "true"],
    "mse": ["--model.objective", "mse"],
    "uncropped": ["--model.meg.crop_tmin", "null"],
    "coarse": ["--model.eeg.n_fine_windows", "0", "--model.meg.n_fine_windows", "0"],
    "shallow": ["--model.eeg.readout_size", "0", "--model.meg.readout_size", "0", "--model.fmri.linear_path", "false"],
    "slow": ["--training.learning_rate", "2e-3"],
    "still": ["--model.eeg.time_shift", "0", "--model.meg.time_shift", "0"],
    "single": [word for name in CORPORA for word in (f"--model.{name}.num_networks", "1")]
    + ["--model.meg.hidden_size", "96"],  # twice as wide: one network is not to lose for having few filters
}
VARIANTS = (*SETTINGS, *CORPORA, ALONE)  # what may stand behind a plus sign
Person = tuple[str, str] | None  # modality and name of the only one that a model learns from; nothing for all
KEPT = ("top1", "top1_interval", "top5", "top5_interval", "two_way", "two_way_interval", "two_way_p", "chance_top1",
        "chance_top5", "chance_two_way", "gallery_size", "n_queries", "not_computed")  # fmt: skip
CONVERSION_KEPT = ("method", "source", "target", "two_way", "chance_two_way", "normalised", "normalised_interval",
                   "denominator_two_way", "n_queries", "gallery_size", "n_recordings")  # fmt: skip
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
PRINT_MODULES = """import sys, neural_clip.training.run
print(*(m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "neural_clip"), sep="\\n")"""


def digest(value: object) -> str:
    """SHA-256 of something that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def code_of(path: Path) -> str:
    """What a file does: of Python its syntax tree without docstrings and comments, of others the text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


def digest_files(paths: Iterable[Path]) -> str:
    """SHA-256 over names of files and what they do; prose in Python files changes nothing."""
    return digest({path.name: code_of(path) for path in sorted(paths)})


def source_states() -> dict[str, str]:
    """State of the code that trains (all that `neural_clip.training.run` imports), and of the whole package."""
    done = subprocess.run([sys.executable, "-c", PRINT_MODULES], capture_output=True, text=True, check=True)
    modules = [Path(line) for line in done.stdout.splitlines()]
    package = next(path for path in modules if path.name == "errors.py").parent
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
    """Prepared data sets of a twin, or of what stands in its place, by modality."""
    if twin.name in REAL:
        return REAL[twin.name]
    return {modality: twin / "data" / name for modality, name in CORPORA.items()}


def data_facts(twin: Path) -> dict[str, Facts]:
    """What each data set says of itself."""
    return {modality: Facts.read(folder) for modality, folder in data_folders(twin).items()}


def data_state(twin: Path) -> dict[str, dict]:
    """Fingerprint and image encoder of each data set."""
    keys = ("fingerprint", "image_encoder")
    return {modality: {key: getattr(facts, key) for key in keys} for modality, facts in data_facts(twin).items()}


def parsed(recipe: str) -> tuple[Path, list[str]]:
    """File and variants of a recipe.

    Raises:
        DataError: If there is no such recipe or variant.
    """
    name, *variants = recipe.split("+")
    path = Path("configs") / f"{name}.yaml"
    if not (REPOSITORY / path).is_file():
        known = sorted(file.stem for file in (REPOSITORY / "configs").glob("*.yaml"))
        raise DataError(f"Invalid value for the '--recipes' parameter. Allowed are {known}, but got '{name}' instead.")
    for variant in variants:
        if variant not in VARIANTS:
            raise DataError(f"'{recipe}' asks for the variant '{variant}'. Allowed are {sorted(VARIANTS)}.")
    return path, variants


def modalities_of(recipe: str) -> list[str]:
    """Modalities that a recipe is trained on: those behind its plus signs, or all."""
    _, variants = parsed(recipe)
    return [modality for modality in CORPORA if modality in variants] or list(CORPORA)


def learnt_of(recipe: str, twin: Path) -> list[str]:
    """Those of them that a twin, or what stands in its place, has recordings of."""
    return [modality for modality in modalities_of(recipe) if modality in data_folders(twin)]


def is_alone(recipe: str) -> bool:
    """Whether a recipe is trained anew for each person and modality."""
    return ALONE in parsed(recipe)[1]


def is_whole(recipe: str) -> bool:
    """Whether one model learns all modalities of all people, so that others can be compared with it."""
    return modalities_of(recipe) == list(CORPORA) and not is_alone(recipe)


def people_of(recipe: str, twin: Path) -> list[Person]:
    """Everybody who is given a model of their own, or one entry for all."""
    if not is_alone(recipe):
        return [None]
    facts = data_facts(twin)
    return [(modality, name) for modality in learnt_of(recipe, twin) for name in facts[modality].subjects]


def run_folder(recipe: str, seed: int, twin: Path, person: Person = None) -> Path:
    """Where a run lies."""
    folder = twin / "runs" / f"{recipe}-{seed}"
    return folder if person is None else folder / "-".join(person)


def training_words(recipe: str, seed: int, twin: Path, epochs: int | None = None, person: Person = None) -> list[str]:
    """Recipe and overrides of one run, as `neural-clip train` takes them."""
    path, variants = parsed(recipe)
    words = [str(path), "--training.seed", str(seed)]
    words += [word for variant in variants for word in SETTINGS.get(variant, [])]
    if epochs is not None:
        words += ["--training.num_train_epochs", str(epochs)]
    folders, learnt = data_folders(twin), learnt_of(recipe, twin)
    if person is not None:
        learnt = [person[0]]
        words += [f"--model.{person[0]}.subjects", json.dumps([person[1]])]
    words += ["--data", json.dumps({modality: str(folders[modality]) for modality in learnt})]
    return [*words, "--training.output_dir", str(run_folder(recipe, seed, twin, person)), "--overwrite", "true"]


def training_key(words: Sequence[str], data: dict, source: str) -> str:
    """What decides a run: recipe with overrides (seed among them), its data and code, but not where things lie."""
    recipe = read_recipe(words).as_dict()
    recipe["training"].pop("output_dir")
    learnt = {modality: data[modality] for modality in recipe["data"]}
    deciding = {section: recipe[section] for section in ("model", "training", "passes")}
    return digest({**deciding, "data": learnt, "source": source})


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
    command = [NEURAL_CLIP, "evaluate", "--output-dir", folder, "--split", split, "--no-audits", "--no-pictures"]
    command += [] if baselines else ["--no-baselines"]
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
        whole = embed_split(NeuralClipModel.from_pretrained(first["path"]), data.split(report["split"]))
        parts = []
        for person in dict.fromkeys(whole.subjects.tolist()):
            place = run_folder(recipe, seed, twin, (modality, person))
            weights += sorted(place.glob("*.safetensors"))
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


def share_of_way(value: float, chance: float, ceiling: float | None) -> float | None:
    """How far a score is on the way from chance to the score of the observer who knows the model."""
    return None if ceiling is None else (value - chance) / (ceiling - chance)


def conversions_of(report: dict, runs: dict[str, dict], seed: int) -> list[dict]:
    """How well each recipe finds recordings of one modality by those of another."""
    return [
        {"seed": seed, **{key: entry[key] for key in CONVERSION_KEPT}}
        for entry in report["conversion"]
        if entry["method"] in runs
    ]


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
    data = [sys.executable, "scripts/demo.py", "--data-only", "--preset", name, "--output-dir", twin]
    if subprocess.run([str(word) for word in data]).returncode != 0:
        raise DataError(f"The data sets of the twin '{name}' could not be made.")


def compare(name: str, arguments: argparse.Namespace, sources: dict[str, str]) -> dict:
    """Data, runs and evaluations of one twin; returns what `results/<twin>.json` holds."""
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


def identity(entry: dict) -> tuple:
    """What an entry of results is of: run, pair of methods or evaluation, and seed."""
    return tuple(entry.get(name) for name in ("method", "other", "key", "seed"))


def added(before: dict, now: dict) -> dict:
    """Earlier results with those of now behind them, in the order of seeds; a run that is in both stays as it was.

    Raises:
        DataError: If they are of other data or another first recipe, or if a run has other weights than before.
    """
    if before["recipes"][0] != now["recipes"][0]:
        raise DataError(
            f"The results so far compare with '{before['recipes'][0]}', so the first of '--recipes' must be that, "
            f"but got '{now['recipes'][0]}'."
        )
    data = [{record["modality"]: record["fingerprint"] for record in part["records"]} for part in (before, now)]
    if data[0] != data[1]:
        raise DataError(f"The results so far are of the data {data[0]}, so '--add' cannot keep them for {data[1]}.")
    known = {(record["method"], record["seed"]): record["weights_sha256"] for record in before["records"]}
    for record in now["records"]:
        weights = known.get((record["method"], record["seed"]), record["weights_sha256"])
        if record["weights_sha256"] != weights:
            raise DataError(
                f"'{record['method']}' with seed {record['seed']} has other weights ({record['weights_sha256']}) than "
                f"in the results so far ({weights}), so the two cannot stand side by side; leave '--add' out."
            )
    first = min(before["seeds"])  # where baselines stand, which have no seed
    results = dict(before)
    for name in ("evaluations", "records", "comparisons", "conversions"):
        there = {identity(entry) for entry in before[name]}
        entries = before[name] + [entry for entry in now[name] if identity(entry) not in there]
        results[name] = sorted(entries, key=lambda entry: first if entry["seed"] is None else entry["seed"])
    results["recipes"] = list(dict.fromkeys([*before["recipes"], *now["recipes"]]))
    results["seeds"] = sorted({*before["seeds"], *now["seeds"]})
    results["command"] = f"{before['command']}; {now['command']}"
    return results


def results_file(name: str, arguments: argparse.Namespace) -> Path:
    """Where results lie: of the test split in the repository, of another one in the output folder."""
    folder = arguments.results_dir if arguments.split == "test" else arguments.output_dir / arguments.split
    return folder / f"{name}.json"


def write_results(results: dict, name: str, arguments: argparse.Namespace) -> Path:
    """Write results whole; returns the file."""
    file = results_file(name, arguments)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(results, indent=1, allow_nan=False) + "\n")
    return file


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
    parser.add_argument("--results-dir", type=Path, default=Path("results"), help="of <twin>.json (default: results)")
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
