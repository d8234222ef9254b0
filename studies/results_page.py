"""Write docs/studies/results.md from the results of `studies/compare_recipes.py`: recipes and baselines on the twins.

python studies/results_page.py
python studies/results_page.py --results-dir outputs/recipes/validation --page outputs/recipes/validation.md
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from neural_clip.errors import DataError, run
from neural_clip.files.whole import write_whole
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.report.tables import SCORES, as_markdown, p_value, percent, score, with_interval

REPOSITORY = Path(__file__).resolve().parents[1]
Table = tuple[list[str], list[list[str]]]


def over_seeds(values: Sequence[float], form: str = ".3f") -> str:
    """Mean and its 95 % t interval, mean ± t(n - 1) s / sqrt(n); one value has none, and says so."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:{form}} (one seed)"
    from scipy.stats import sem, t

    half = t.ppf(0.975, len(values) - 1) * sem(values)
    return f"{mean:{form}} [{mean - half:{form}}, {mean + half:{form}}]"


def mean_of(records: Sequence[dict], key: str) -> float | None:
    """Mean over records; nothing where a score has no meaning, as top-5 among two categories."""
    if key.endswith("top5") and records[0]["gallery_size"] <= 5:
        return None
    values = [record[key] for record in records if record.get(key) is not None]
    return statistics.fmean(values) if len(values) == len(records) else None


def label(record: dict) -> str:
    """Modality, marked where the recordings are simulated."""
    return MODALITIES[record["modality"]].title + (" simulated" if record["simulated"] else "")


def seeds_of(records: Sequence[dict]) -> str:
    """How many seeds stand behind a row, and which."""
    return f"{len(records)} ({', '.join(str(record['seed']) for record in records)})"


def in_order(records: Sequence[dict], *keys: str) -> list[list[dict]]:
    """Records in groups of equal keys, in order of their first appearance."""
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        groups.setdefault(tuple(str(record[key]) for key in keys), []).append(record)
    return list(groups.values())


def scores_table(results: dict) -> Table:
    """Recipes and baselines of a twin, for each modality."""
    head = ["recordings", "method", "seeds", "top-1 %", "top-5 %", "2-way, mean over seeds [95 % t interval]"]
    head += ["2-way of one seed [95 %, images drawn]", "way to ceiling, 2-way %", "way to ceiling, top-1 %"]
    head += ["training s (processor, first seed)"]
    rows = []
    for modality in in_order(results["records"], "modality"):
        for group in in_order(modality, "method"):
            first = group[0]
            cells = [label(first), first["method"]]
            if "not_computed" in first:
                rows.append([*cells, "-", "-", "-", "not computed", "-", "-", "-", "-"])
                continue
            values = [record["two_way"] for record in group]
            fixed = first["kind"] == "baseline"
            cells.append("none" if fixed else seeds_of(group))
            cells += [percent(mean_of(group, key)) for key in ("top1", "top5")]
            cells.append(f"{score(first['two_way'])} (has no seed)" if fixed else over_seeds(values))
            drawn = with_interval(first["two_way"], first["two_way_interval"])
            cells.append(drawn if fixed else f"seed {first['seed']}: {drawn}")
            for key in ("share_of_way_two_way", "share_of_way_top1"):
                has_ceiling = first[key] is not None
                cells.append(percent(statistics.fmean(record[key] for record in group) if has_ceiling else None))
            rows.append([*cells, "-" if fixed else f"{first['training_cpu_seconds']:.0f}"])
        one = modality[0]
        chance = [percent(one["chance_top1"]), percent(mean_of([one], "chance_top5")), score(one["chance_two_way"])]
        rows.append([label(one), "chance", "", *chance, "", "", "", ""])
        ceiling = [percent(one.get("ceiling_top1")), "", score(one.get("ceiling_two_way"))]
        if one["simulated"]:
            rows.append([label(one), "known-model ceiling", "", *ceiling, "", "", "", ""])
    return head, rows


def differences_table(results: dict) -> Table:
    """The first recipe minus every other method, on the same queries: both scores in one row."""
    head = ["recordings", "difference", "seeds"]
    for name in SCORES.values():
        head += [f"{name}, mean over seeds [95 % t interval]", f"{name} of one seed [95 %, images drawn]", "p"]
    simulated = {record["modality"]: record["simulated"] for record in results["records"]}
    rows = []
    for pairs in in_order(results["comparisons"], "modalities", "method", "other"):
        by_score = {name: [pair for pair in pairs if pair["score"] == name] for name in SCORES}
        first, (modality,) = pairs[0], pairs[0]["modalities"]
        cells = [label({"modality": modality, "simulated": simulated[modality]})]
        cells += [f"{first['method']} - {first['other']}", seeds_of(by_score[first["score"]])]
        for group in by_score.values():
            one, (low, high) = group[0], group[0]["interval"]
            cells.append(over_seeds([pair["difference"] for pair in group], "+.3f"))
            cells.append(f"seed {one['seed']}: {one['difference']:+.3f} [{low:+.3f}, {high:+.3f}]")
            cells.append(p_value(one["p"]))
        rows.append(cells)
    return head, rows


def conversions_table(results: dict) -> Table:
    """Each recipe's conversion between modalities, as a share of its own decoding of the target."""
    head = ["conversion", "recipe", "seeds", "2-way", "decoding of the target, 2-way"]
    head += ["normalised, mean over seeds [95 % t interval]", "normalised of one seed [95 %, images drawn]"]
    simulated = results["records"][0]["simulated"]
    rows = []
    for group in in_order(results["conversions"], "source", "target", "method"):
        first = group[0]
        means = [statistics.fmean(entry[key] for entry in group) for key in ("two_way", "denominator_two_way")]
        target = label({"modality": first["target"], "simulated": simulated})
        cells = [f"{MODALITIES[first['source']].title} to {target}", first["method"], seeds_of(group)]
        cells += [*map(score, means), over_seeds([entry["normalised"] for entry in group])]
        drawn = with_interval(first["normalised"], first["normalised_interval"])
        rows.append([*cells, f"seed {first['seed']}: {drawn}"])
    return head, rows


def missing(results: dict) -> list[str]:
    """Recipes whose runs were asked for and are not all in the tables, with the seeds that lack."""
    there = {(record["method"], record["seed"]) for record in results["records"]}
    lacking = {
        recipe: [str(seed) for seed in results["seeds"] if (recipe, seed) not in there]
        for recipe in results["recipes"]
    }
    return [f"{recipe} with seed {', '.join(seeds)}" for recipe, seeds in lacking.items() if seeds]


def section(results: dict) -> str:
    """Everything the page says of one twin."""
    facts = {record["modality"]: record for record in results["records"] if record["kind"] == "recipe"}
    galleries = "; ".join(
        f"{label(r)} {r['n_queries']} queries, gallery of {r['gallery_size']}" for r in facts.values()
    )
    commits = sorted({str(record["commit"]) for record in results["records"]})
    versions = ", ".join(f"{name} {version}" for name, version in results["records"][0]["versions"].items())
    prints = "; ".join(f"{name} `{record['fingerprint'][:12]}`" for name, record in facts.items())
    name = f": {results['name']}" if results.get("name") else ""
    simulated = all(record["simulated"] for record in results["records"])
    title = f"Twin `{results['twin']}` (simulated)" if simulated else f"Real recordings `{results['twin']}`"
    lines = [f"## {title}{name}", ""]
    if lacking := missing(results):
        lines += [f"**Incomplete.** Not in these tables: {'; '.join(lacking)}.", ""]
    lines += [f"Split: {results['split']}, single trials. {galleries}.", "", as_markdown(scores_table(results)), ""]
    lines += [
        "Paired differences on the same recordings and gallery:",
        "",
        as_markdown(differences_table(results)),
        "",
    ]
    if results.get("conversions"):
        lines += ["Conversion (2-way; chance .5):", "", as_markdown(conversions_table(results)), ""]
    lines += [f"Made by `{results['command']}` at commit {', '.join(commits)}; {versions}; data {prints}."]
    return "\n".join(lines)


HEAD = """# Recipes compared

This study is closed: it stays reproducible and is not extended. The numbers of the twins are of **simulated**
recordings ([twins.md](../twins.md)) and say nothing about how well real recordings can be decoded. The small real
recordings are those of [real_recordings.md](real_recordings.md). They have no ceiling, and `faces` is a decision
between two categories, where top-1 and 2-way are the same. `python studies/results_page.py` writes the page from
`studies/results/*.json`, which `studies/compare_recipes.py` writes. No number is typed by hand.
Ridge rows are those of version 0.1 and weaker than today's ([README.md](README.md)).

- *t interval*: over seeds of training (weights, order, dropout) on the same twin and test split. It is about repeated
  training, not about other images or subjects. With one seed there is none.
- *images drawn*: bootstrap over the test images, for the first seed alone. It is about other images, not about other
  seeds. The same holds for intervals and p of the paired differences of one seed. They are not corrected for the
  number of comparisons.
- *Way to ceiling*: (score - chance) / (ceiling - chance). The ceiling is the observer of [twins.md](../twins.md),
  which knows the model. It is loose on `realistic`.
- *Normalised* conversion: 2-way of recordings of one modality that retrieve recordings of another, divided by the
  2-way of decoding the target by the same model ([evaluation.md](../evaluation.md)).
- *Training s*: processor seconds of one thread for all that a recipe trains: the whole process with start and
  validation, the same in the lines of each modality, of the first seed alone. Machines differed in speed by a factor
  of two, so read times roughly. The same command gave the same weights on them, to the bit. Processors of another
  kind add in another order and train other weights that score alike
  ([CONTRIBUTING.md](../../CONTRIBUTING.md#what-is-equal-to-the-bit)).
- *Recipes* are those of `configs/` at the commits that are named, joint models of all modalities and subjects: before
  `base` and `demo` had `min_steps`, and while `real_digits` and `real_faces` were there. A plus sign adds a change:
  - `+frozen`: alignment layers stay as they started (the initialisation of the recipe: in `demo` the identity for EEG
    and MEG, which is no alignment at all, and random for fMRI, which cannot do without).
  - `+mse`: squared distance instead of the contrastive loss.
  - `+eeg`, `+meg`, `+fmri`: trained on that modality only; `+eeg+meg` and the like on those two.
  - `+alone`: a model for each subject and modality, trained on the recordings of that subject only. All are scored
    together, on the queries of all subjects.
  - `+uncropped`: also sees the samples before onset (MEG; EEG has none).
  - `+coarse`: no fine windows. `+shallow`: no hidden layer behind the filters (EEG, MEG) and no linear path (fMRI).
    Both where the recipe has them: `demo` has neither windows nor layer in MEG, so there both differ from it by the
    random start alone.
  - `+single`: one network for each modality instead of several in parallel (in MEG of 96 filters, not 48).
  - `+still`: recordings do not move in time during training (EEG, MEG).

  [encoders.md](encoders.md) says how recipes were chosen, on validation data alone.
- *Baselines* are linear ([evaluation.md](../evaluation.md)) and fitted once, on samples from image onset on. Each
  model keeps its best epoch (by the mean over the modalities that it learns), and each baseline its penalty, by
  validation scores. Only the evaluation reads the test split."""


def publish(results_dir: Path, page: Path) -> None:
    """Write the page from all results of recipes; those of other studies lie beside them."""
    every = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results_dir.glob("*.json"))]
    found = [results for results in every if "recipes" in results]
    if not found:
        raise DataError(f"'{results_dir}' holds no results; make them first.")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, "\n\n".join([HEAD, *[section(results) for results in found]]) + "\n")
    print(f"page: {page}")


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results-dir", type=Path, default=REPOSITORY / "studies" / "results")
    parser.add_argument("--page", type=Path, default=REPOSITORY / "docs" / "studies" / "results.md")
    arguments = parser.parse_args(argv)
    publish(arguments.results_dir, arguments.page)


if __name__ == "__main__":
    run(main)
