"""Whether a recipe is ever behind ridge regression: the demo, and shares of its training images.

    python studies/compare_shares.py --data outputs/demo/data --shares 0.05 0.1 0.3 1 --seeds 0 1 2 3 4
    python studies/compare_shares.py --name digits --recipe base    # digits_mobilenet, faces: real recordings, whole
    python studies/compare_shares.py --name digits_folds --recipe base    # each digit is tested once, in ten folds

For each share a data set is written with so many of the training and of the validation images, drawn at random
(seed 0), and all recordings of these; the test split stays as it is. (`--cut train` leaves the validation split whole,
which favours the recipe: its closed form is fitted to both in the end.) The recipe is trained once for each share and
seed, and kept while recipe, data and code stay the same. Its single trials of the test split are compared with each
linear baseline of `neural-clip evaluate` on the same trials: for each seed, and for the mean over seeds of what each
trial contributes. Results go to `studies/results/shares_<name>.json`, and their table to docs/studies/ridge.md.
`--add` keeps what earlier results tell of other shares.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from collected import results_file, write_results
from neural_clip.errors import run
from neural_clip.files.whole import replace_marked
from neural_clip.prepared.facts import METADATA_FILE
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.prepared.writer import write_prepared
from neural_clip.report.tables import SCORES, Table, as_markdown
from neural_clip.targets.embed_images import link_or_copy
from results_page import in_order, label
from runs import NEURAL_CLIP, commit, once, source_states
from variants import FOLDS, REAL, REPOSITORY, data_folders, data_state, run_folder, training_key, training_words

MEAN = "mean"  # over seeds
CLOSED_FORM = "closed form"  # the only linear baseline that is no plain ridge regression
CHANCE = ("chance_two_way", "chance_top1", "gallery_size", "n_queries")


def kept(part: Split, share: float) -> Split:
    """The recordings of a share of a split's images, two at least."""
    drawn = np.random.default_rng(0).permutation(part.shown_ids)[: max(round(share * len(part.shown_ids)), 2)]
    return part.at(np.flatnonzero(np.isin(part.image_ids, drawn)))


def recordings(part: Split) -> Iterator[dict]:
    """Rows of a split as `write_prepared` takes them."""
    for row, values in zip(part.recordings, part.values(), strict=True):
        yield row | {part.modality: values, "split": part.name}


def write_share(whole: Path, folder: Path, share: float, cut: Sequence[str]) -> None:
    """Write a data set with a share of the images of some splits, unless it is there; without pictures."""
    if (folder / METADATA_FILE).is_file():
        return
    if share == 1:
        shutil.copytree(whole, folder, copy_function=link_or_copy)
        return
    data = PreparedSet.open(whole)
    parts = [kept(data.split(name), share if name in cut else 1) for name in ("train", "validation", "test")]
    table = data.images.of(sorted({name for part in parts for name in part.image_ids.tolist()}))
    columns = zip(table.image_ids, table.embeds, table.concepts, table.categories, strict=True)
    images = (
        {"image_id": image_id, "image_embeds": embeds, "concept": concept, "categories": categories}
        for image_id, embeds, concept, categories in columns
    )
    partial = {f"{part.name} rows": {"found": len(part), "declared": len(data.split(part.name))} for part in parts}
    found = dict.fromkeys(("files", "splits", "subject_splits", "fingerprint")) | {"findings": [], "partial": partial}
    facts = data.facts.as_dict() | found | {"places_space": None}
    write_prepared(folder, facts, (row for part in parts for row in recordings(part)), images, voxels=data.statistics)


def trained(seed: int, place: Path, source: str, arguments: argparse.Namespace) -> dict:
    """Train the recipe on the data sets of a share, or keep what is there."""
    words = training_words(arguments.recipe, seed, place, arguments.epochs)
    words += ["--model.include_vision_tower", "false"]
    key = training_key(words, data_state(place), source)
    done = once(run_folder(arguments.recipe, seed, place), key, [NEURAL_CLIP, "train", *words])
    assert done is not None
    return done


def scored(modality: str, place: Path, arguments: argparse.Namespace) -> tuple[dict, dict, dict, list]:
    """What the recipe and each linear baseline make of the test split of one place.

    Returns:
        `tuple`: What there is to know of the place; contributions of trials by seed, and by baseline; what intervals
            resample, one entry a trial.
    """
    from neural_clip.evaluation.baseline_rows import baseline_rows
    from neural_clip.evaluation.baselines.rows import BASELINES
    from neural_clip.evaluation.finished_parts import FinishedParts
    from neural_clip.evaluation.tasks import decoding_rows
    from neural_clip.gallery.embedding import embed_split
    from neural_clip.modeling_neural_clip import NeuralClipModel

    data = PreparedSet.open(data_folders(place)[modality])
    own, weights = {}, []
    for seed in arguments.seeds:
        folder = run_folder(arguments.recipe, seed, place)
        part = embed_split(NeuralClipModel.from_pretrained(folder), data.split("test"))
        (row, *_), own[seed] = decoding_rows(part, part.embeds, arguments.recipe, 0)
        chosen = json.loads((folder / "training.json").read_text(encoding="utf-8"))["closed_form"][modality]
        weights.append(chosen.get("weight_of_network", 1.0))
    splits = [data.split(name).loaded().from_onset() for name in ("train", "validation", "test")]
    _, theirs, _ = baseline_rows(part, splits, 0, list(dict(BASELINES)), FinishedParts())
    about = {"modality": modality, "simulated": bool(data.facts.simulated), "fingerprint": data.facts.fingerprint}
    about |= {"training_images": len(splits[0].shown_ids), "training_recordings": len(splits[0])}
    about |= {name: row[name] for name in ("chance_two_way", "chance_top1", "gallery_size", "n_queries")}
    about |= {"weights_of_network": weights}
    units = range(len(part.image_ids)) if part.category_level else part.image_ids.tolist()
    return about, own, theirs, [(place.name, unit) for unit in units]


def compared(modality: str, places: Sequence[Path], arguments: argparse.Namespace) -> list[dict]:
    """What each linear baseline and the recipe score on the test splits, and how far the recipe is ahead of each.

    Several places are folds: all their trials count together, each among the images of its own test split.
    """
    from neural_clip.retrieval.scoring import compare_methods

    abouts, owns, theirs, units = zip(*(scored(modality, place, arguments) for place in places), strict=True)
    about = {**abouts[0], "n_queries": sum(each["n_queries"] for each in abouts)}
    about |= {"weights_of_network": [each["weights_of_network"] for each in abouts]} if len(places) > 1 else {}
    alone = {name: about.pop(name) for name in ("weights_of_network", *CHANCE)}
    if len(places) > 1:
        about["fingerprint"] = [each["fingerprint"] for each in abouts]

    def joined(parts: Sequence[dict]) -> dict:
        return {name: np.concatenate([part[name] for part in parts]) for name in SCORES}

    own = {seed: joined([each[seed] for each in owns]) for seed in arguments.seeds}
    own[MEAN] = {name: np.mean([own[seed][name] for seed in arguments.seeds], axis=0) for name in SCORES}
    linear = {name: joined([each[name] for each in theirs]) for name in theirs[0]}
    drawn = [unit for place in units for unit in place]
    pairs = [
        {"seed": seed, **pair}
        for seed, one in own.items()
        for pair in compare_methods({arguments.recipe: one, **linear}, drawn, tuple(SCORES), 0)
    ]
    scores = {name: [float(own[seed][name].mean()) for seed in arguments.seeds] for name in SCORES}
    found = [about | {"method": arguments.recipe, **scores} | alone]
    for name, contributions in linear.items():
        ahead = [{key: pair[key] for key in ("seed", "score", "difference", "interval", "p")}
                 for pair in pairs if pair["other"] == name]  # fmt: skip
        made = {score: float(contributions[score].mean()) for score in SCORES}
        found.append(about | {"method": name, **made, "ahead": ahead})
    return found


def behind(record: dict, score: str) -> list[dict]:
    """Comparisons in which the recipe is behind a baseline with its interval below zero."""
    return [pair for pair in record["ahead"] if pair["score"] == score and pair["interval"][1] < 0]


def shares_table(records: Sequence[dict]) -> Table:
    """The recipe beside the best ridge and the closed form, for each share, modality and score."""
    head = ["recordings", "training images", "score", "recipe, mean over seeds", "best ridge", "its score"]
    head += ["difference [95 %, images drawn]", "closed form", "difference [95 %, images drawn]"]
    head += ["seeds behind any", "behind any in the mean"]
    lines = []
    for group in in_order(records, "share", "modality"):
        first, *baselines = group
        for score, title in SCORES.items():
            best = max((each for each in baselines if each["method"] != CLOSED_FORM), key=lambda record: record[score])
            (form,) = (record for record in baselines if record["method"] == CLOSED_FORM)
            cells = [label(first), f"{first['training_images']} ({first['share']:.0%})", title]
            cells += [f"{np.mean(first[score]):.3f}", best["method"], f"{best[score]:.3f}", ahead_of(best, score)]
            cells += [f"{form[score]:.3f}", ahead_of(form, score)]
            seeds = {pair["seed"] for record in baselines for pair in behind(record, score) if pair["seed"] != MEAN}
            cells += [f"{len(seeds)} of {len(first['seeds'])}"]
            in_mean = [record for record in baselines if any(pair["seed"] == MEAN for pair in behind(record, score))]
            cells += [f"{len(in_mean)} of {len(baselines)}"]
            lines.append(cells)
    return head, lines


def ahead_of(record: dict, score: str) -> str:
    """How far the mean over seeds is ahead of a baseline."""
    (pair,) = (pair for pair in record["ahead"] if pair["score"] == score and pair["seed"] == MEAN)
    low, high = pair["interval"]
    return f"{pair['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"


def section(results: dict) -> str:
    """Table and where it is from."""
    records = results["records"]
    chance = {label(record): f"{label(record)} {100 * record['chance_top1']:.1f} % of {record['gallery_size']} images"
              for record in records if "chance_top1" in record}  # fmt: skip
    cut = f"; cut: {', '.join(results['cut'])}" if any(record["share"] < 1 for record in records) else ""
    made = f"Single trials of the test split, recipe `{results['recipe']}`{cut}. Chance "
    made += f"is 0.5 in 2-way, in top-1 {', '.join(chance.values())}. Made by `{results['command']}` at commit "
    made += f"{', '.join(sorted({str(record['commit']) for record in records}))}."
    return f"{as_markdown(shares_table(records))}\n\n{made}"


def main(argv: Sequence[str] | None = None) -> None:
    """Cut, train, score and collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("outputs/demo/data"), help="folder of the demo's data sets")
    parser.add_argument(
        "--name",
        default="demo",
        help="of the results (default: demo), or of real recordings: " + ", ".join([*REAL, *FOLDS]),
    )
    parser.add_argument("--recipe", default="demo", help="file of configs/ by name (default: demo)")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.05, 0.1, 0.3, 1.0])
    parser.add_argument("--cut", nargs="+", choices=("train", "validation"), default=["train", "validation"],
                        help="splits of which a share is left (default: both)")  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of training")
    parser.add_argument("--epochs", type=int, help="training epochs, instead of the recipe's")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/shares"), help="data sets and runs")
    parser.add_argument("--results-dir", type=Path, default=Path("studies/results"), help="of shares_<name>.json")
    parser.add_argument("--page", type=Path, default=Path("docs/studies/ridge.md"), help="page with the table")
    parser.add_argument("--add", action="store_true", help="keep the other shares of the results so far")
    parser.set_defaults(split="test")  # the one that is scored
    arguments = parser.parse_args(argv)
    os.chdir(REPOSITORY)
    source, title = source_states()["training"], f"shares_{arguments.name}"
    results: dict = {"name": arguments.name, "recipe": arguments.recipe, "cut": arguments.cut}
    results |= {"command": shlex.join(["python", *sys.argv]), "records": []}
    if arguments.add:
        before = json.loads(results_file(title, arguments).read_text(encoding="utf-8"))
        results["command"] = f"{before['command']}; {results['command']}"
        results["records"] = [record for record in before["records"] if record["share"] not in arguments.shares]
    places = {share: [arguments.output_dir / arguments.name / f"{share:g}"] for share in arguments.shares}
    if arguments.name in REAL or arguments.name in FOLDS:  # whole, where they lie
        places = {1.0: [arguments.output_dir / name for name in FOLDS.get(arguments.name, [arguments.name])]}
    else:
        for share, (place,) in places.items():
            for folder in data_folders(place).values():
                write_share(arguments.data / folder.name, folder, share, arguments.cut)
    for seed in arguments.seeds:  # so that an interrupted study has all shares of the first seeds
        for place in (place for folds in places.values() for place in folds):
            trained(seed, place, source, arguments)
    for share, folds in places.items():
        about = {"share": share, "seeds": arguments.seeds, "commit": commit()}
        for modality in data_folders(folds[0]):
            results["records"] += [about | record for record in compared(modality, folds, arguments)]
        results["records"].sort(key=lambda record: record["share"])  # stable: within a share as they were scored
        write_results(results, title, arguments)
    replace_marked(arguments.page, results["name"], section(results))
    print(f"results in {results_file(title, arguments)}, table in {arguments.page}")


if __name__ == "__main__":
    run(main)
