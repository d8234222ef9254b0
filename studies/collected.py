"""What is collected of evaluations: records with where they come from, added to earlier ones, written whole."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.files.whole import write_whole
from neural_clip.report.tables import known_ceiling

KEPT = ("top1", "top1_interval", "top5", "top5_interval", "two_way", "two_way_interval", "two_way_p", "chance_top1",
        "chance_top5", "chance_two_way", "gallery_size", "n_queries", "not_computed")  # fmt: skip
CONVERSION_KEPT = ("method", "source", "target", "two_way", "chance_two_way", "normalised", "normalised_interval",
                   "denominator_two_way", "n_queries", "gallery_size", "n_recordings")  # fmt: skip


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
            if row["aggregation"] != "single trial" or "part_of" in row:
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
    rows = [row for part in report["decoding"].values() for row in part["rows"]]
    left_out = {row["method"] for row in rows if "part_of" in row}  # parts of a blend
    pairs = [
        {"seed": seed, **part}
        for part in report["comparisons"]
        if part["task"] == "decoding" and part["other"] not in left_out
    ]
    return records, pairs


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
