"""What the image targets are worth: embed the images of a twin in several ways and train one recipe on each.

    python studies/compare_targets.py --twin realistic --recipe demo --seeds 0

Copies of the twin's data sets, those of `studies/compare_recipes.py`, are embedded anew with the options of
`neural-clip embed-images` below. Every target has its own space: single trials of the validation split are scored
among the same images, but by other similarities. The scores, which are for choosing, go to
`studies/results/validation/targets.json`, and their table to docs/studies/encoders.md. What is finished is kept while
recipe, seed, data and the package stay the same.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from collected import collect
from compare_recipes import evaluate_seed
from neural_clip.errors import DataError, run
from neural_clip.files.whole import replace_marked, write_whole
from neural_clip.report.tables import Table, as_markdown, percent, score, with_interval
from neural_clip.targets.embed_images import link_or_copy
from neural_clip.targets.tiny_clip import TINY_CLIP
from results_page import in_order, label, over_seeds
from runs import NEURAL_CLIP, digest, once, source_states
from variants import REPOSITORY, data_facts, data_folders, data_state, run_folder, training_key, training_words

SPLIT = "validation"
TARGETS = {
    "projected": ["--model", TINY_CLIP, "--pooling", "projected"],
    "cls": ["--model", TINY_CLIP, "--pooling", "cls"],
    "projected + cls": ["--model", TINY_CLIP, TINY_CLIP, "--pooling", "projected", "cls"],
    "projected, blur 0.02": ["--model", TINY_CLIP, "--blur", "0.02"],
    "projected, blur 0.05": ["--model", TINY_CLIP, "--blur", "0.05"],
}


def embed(target: str, twin: Path, place: Path, source: str) -> dict[str, str]:
    """Embed copies of a twin's data sets in one way, or keep those that are; returns the commands by modality."""
    commands = {}
    for modality, facts in data_facts(twin).items():
        folder, record = data_folders(place)[modality], place / "embedding" / modality
        command = [NEURAL_CLIP, "embed-images", folder, "--overwrite", *TARGETS[target]]
        key = digest({"data": facts.fingerprint, "options": TARGETS[target], "source": source})
        done = once(record, key, command, start=False)
        if done is None:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(data_folders(twin)[modality], folder, copy_function=link_or_copy)
            done = once(record, key, command)
        assert done is not None
        commands[modality] = done["command"]
    return commands


def one_unit(target: str, seed: int, place: Path, source: dict[str, str], arguments: argparse.Namespace) -> list[dict]:
    """Train on a target with a seed and score single trials in its space; a record for each modality."""
    words = training_words(arguments.recipe, seed, place, arguments.epochs)
    words += ["--model.include_vision_tower", "false"]  # no tower makes the concatenated and the blurred ones
    key = training_key(words, data_state(place), source["training"])
    trained = once(run_folder(arguments.recipe, seed, place), key, [NEURAL_CLIP, "train", *words])
    assert trained is not None
    runs = {arguments.recipe: trained}
    evaluation, report = evaluate_seed(runs, seed, place, source["package"], SPLIT, baselines=False)
    records, _ = collect(report, evaluation, runs, seed)
    encoders = {modality: facts.image_encoder for modality, facts in data_facts(place).items()}
    return [{"target": target, "image_encoder": encoders[record["modality"]], **record} for record in records]


def targets_table(records: Sequence[dict]) -> Table:
    """Scores of each target, for each modality."""
    head = ["recordings", "target", "width", "seeds", "2-way, mean over seeds [95 % t interval]"]
    head += ["2-way of one seed [95 %, images drawn]", "top-1 %", "images"]
    rows = []
    for modality in in_order(records, "modality"):
        for group in in_order(modality, "target"):
            first = group[0]
            cells = [label(first), first["target"], str(first["image_encoder"]["projection_dim"])]
            cells += [", ".join(str(record["seed"]) for record in group)]
            cells += [over_seeds([record["two_way"] for record in group])]
            cells += [f"seed {first['seed']}: {with_interval(first['two_way'], first['two_way_interval'])}"]
            cells += [percent(statistics.fmean(record["top1"] for record in group)), str(first["gallery_size"])]
            rows.append(cells)
        one = modality[0]
        chance = [score(one["chance_two_way"]), "", percent(one["chance_top1"]), str(one["gallery_size"])]
        rows.append([label(one), "chance", "", "", *chance])
    return head, rows


def section(results: dict) -> str:
    """Table and where it is from."""
    commits = ", ".join(sorted({str(record["commit"]) for record in results["records"]}))
    simulated = "simulated recordings" if results["simulated"] else "recordings"
    made = f"Single trials of the {results['split']} split, twin `{results['twin']}` ({simulated}), recipe "
    made += f"`{results['recipe']}`. Made by `{results['command']}` at commit {commits}."
    known = {record["target"] for record in results["records"]}
    if missing := [f"`{target}`" for target in TARGETS if target not in known]:
        made += f" Not run yet: {', '.join(missing)}."
    return f"{as_markdown(targets_table(results['records']))}\n\n{made}"


def main(argv: Sequence[str] | None = None) -> None:
    """Embed, train, score and collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--twin", default="realistic", help="preset of docs/twins.md (default: realistic)")
    parser.add_argument("--recipe", default="demo", help="file of configs/ by name (default: demo)")
    parser.add_argument("--targets", nargs="+", choices=tuple(TARGETS), default=list(TARGETS), metavar="NAME",
                        help=f"some of {', '.join(map(repr, TARGETS))} (default: all)")  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, help="training epochs, instead of the recipe's")
    parser.add_argument("--data-dir", type=Path, default=Path("outputs/recipes"), help="as of compare_recipes.py")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/targets"), help="data sets, runs and reports")
    parser.add_argument("--results", type=Path, default=Path("studies/results/validation/targets.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/studies/encoders.md"), help="page with the table")
    arguments = parser.parse_args(argv)
    os.chdir(REPOSITORY)
    twin = arguments.data_dir / arguments.twin
    lacking = [str(folder) for folder in data_folders(twin).values() if not folder.is_dir()]
    if lacking:
        raise DataError(f"There is no {lacking[0]}; `neural-clip demo --data-only --preset {arguments.twin} "
                        f"--output-dir {twin}` makes it.")  # fmt: skip
    source = source_states()
    results: dict = {"twin": arguments.twin, "recipe": arguments.recipe, "split": SPLIT, "seeds": arguments.seeds}
    results |= {"command": shlex.join(["python", *sys.argv]), "records": []}
    for target in arguments.targets:
        place = arguments.output_dir / arguments.twin / target.replace(" ", "")
        commands = embed(target, twin, place, source["package"])
        for seed in arguments.seeds:
            found = one_unit(target, seed, place, source, arguments)
            results["records"] += [record | {"embedding": commands[record["modality"]]} for record in found]
    results["simulated"] = all(record["simulated"] for record in results["records"])
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    write_whole(arguments.results, json.dumps(results, indent=1, allow_nan=False) + "\n")
    replace_marked(arguments.page, "targets", section(results))
    print(f"results in {arguments.results}, table in {arguments.page}")


if __name__ == "__main__":
    run(main)
