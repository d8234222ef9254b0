"""What other people's tuning, carried over by the places of voxels, is worth to a new fMRI person with few images.

    python studies/compare_priors.py --data outputs/demo/data/nsd --people sub-07 --images 10 25 50 100 400

Each person is left out of a training of all others and then added by `neural-clip adapt --images N`, without a prior
and with `--prior places`. Beside them stand ridge regression and the closed form alone, on the same images. Scores are
those of single recordings of that person among all images of the split. A training is done once for each person left
out, and kept; so is, with `--add`, what earlier results tell of a person, images and seed. Results go to
`studies/results/priors_<name>.json` after each of these, and their table to docs/new_subjects.md. Choose on `--split
validation`: its scores stay in the output folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from collected import results_file, write_results
from compare_people import only, recipe_words, score, scores_of
from neural_clip.errors import run
from neural_clip.files.whole import replace_marked
from neural_clip.prepared.reader import PreparedSet
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.recipe import read_recipe
from runs import commit
from variants import REPOSITORY

SHOWN = ("two_way", "top1")


def trained(data: PreparedSet, person: str, arguments: argparse.Namespace) -> Path:
    """A checkpoint of everybody else."""
    from neural_clip.training.run import train

    others = [name for name in data.facts.subjects if name != person]
    checkpoint = arguments.output_dir / arguments.name / person
    words = recipe_words(arguments.recipe, 0, {"fmri": data.folder}, checkpoint, arguments.epochs)
    if (checkpoint / "training.json").is_file():
        return checkpoint
    return train(read_recipe([*words, *only("fmri", others)]))


def alone(data: PreparedSet, person: str, n_images: int, seed: int, split: str) -> list[dict]:
    """Ridge regression and the closed form on the images that `adapt` takes."""
    from neural_clip.evaluation.baselines.closed_form import closed_form
    from neural_clip.evaluation.baselines.linear import per_subject_ridge
    from neural_clip.training.new_subjects import choose_recordings
    from neural_clip.training.options import AdaptOptions

    train, validation = (RecordingDataset(data.split(name, [person]), [person]) for name in ("train", "validation"))
    choose_recordings(train, validation, AdaptOptions(images=n_images, seed=seed))
    scored = data.split(split, [person])
    records = []
    for how, method in (("ridge", per_subject_ridge), ("closed form", closed_form)):
        embeds, _ = method(train.part.loaded(), validation.part.loaded(), scored.loaded())
        records.append({"how": how, **scores_of(embeds, data, split, person)})
    return records


def added(checkpoint: Path, data: PreparedSet, person: str, n_images: int, seed: int, split: str) -> list[dict]:
    """What `adapt` makes of so many images, without and with a prior."""
    from neural_clip.modeling_neural_clip import NeuralClipModel
    from neural_clip.training.adapt import adapt

    records = []
    for how, prior, known in (("adapted", "none", None), ("adapted with a prior", "places", data)):
        output = adapt(checkpoint, data, checkpoint.parent / "adapted", known=known, prior=prior, subjects=[person],
                       images=n_images, seed=seed, overwrite=True)  # fmt: skip
        found = score(NeuralClipModel.from_pretrained(output), data, split, person)
        (entry,) = json.loads((output / "training.json").read_text(encoding="utf-8"))["adaptations"]
        closed = entry["closed_form"].get(person, {})
        found |= {"weight_of_network": closed.get("weight_of_network"), "prior": closed.get("prior")}
        records.append({"how": how, **found})
    return records


def table(records: Sequence[dict]) -> str:
    """Means over people and seeds, in percent."""
    ways = list(dict.fromkeys(record["how"] for record in records))
    lines = ["| images | " + " | ".join(ways) + " | weight of the prior | left out |", "|---" * (len(ways) + 3) + "|"]
    for n_images in sorted({record["images"] for record in records}):
        rows = [record for record in records if record["images"] == n_images]
        cells = []
        for how in ways:
            means = [100 * np.mean([row[name] for row in rows if row["how"] == how]) for name in SHOWN]
            cells.append(" / ".join(f"{mean:.1f}" for mean in means))
        weights = [row["prior"]["weight"] for row in rows if row.get("prior")]
        people = ", ".join(dict.fromkeys(row["person"] for row in rows))
        lines.append(f"| {n_images} | {' | '.join(cells)} | {np.mean(weights):.2f} | {people} |")
    return "\n".join(lines)


def section(results: dict) -> str:
    """Table and where it is from."""
    records = results["records"]
    seeds = ", ".join(dict.fromkeys(str(record["seed"]) for record in records))
    made = f"2-way / top-1 in %, single trials of the {results['split']} split, "
    made += f"{'simulated recordings' if results['simulated'] else 'recordings'}, recipe `{results['recipe']}`. Means "
    made += f"over those who were left out, one at a time, and seeds of the images ({seeds}). "
    made += f"Chance is 50 / {100 * records[0]['chance_top1']:.1f} ({records[0]['gallery_size']} images). "
    return f"{table(records)}\n\n{made}Made by `{results['command']}` at commit {results['commit']}."


def main(argv: Sequence[str] | None = None) -> None:
    """Train, adapt, score and collect."""
    from datasets.utils.logging import disable_progress_bar

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared fMRI of three people or more, with places")
    parser.add_argument("--name", default="demo", help="of the results (default: demo)")
    parser.add_argument("--recipe", default="demo", help="file of configs/ by name (default: demo)")
    parser.add_argument("--people", nargs="+", help="whom to leave out, each in turn (default: everybody)")
    parser.add_argument("--images", nargs="+", type=int, default=[10, 25, 50, 100, 400])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of the images that are drawn")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/priors"))
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--epochs", type=int, help="training epochs, instead of the recipe's")
    parser.add_argument("--results-dir", type=Path, default=Path("studies/results"), help="of priors_<name>.json")
    parser.add_argument("--add", action="store_true", help="keep the earlier results and do what they lack")
    parser.add_argument("--page", type=Path, default=Path("docs/new_subjects.md"), help="page with the table")
    arguments = parser.parse_args(argv)
    os.chdir(REPOSITORY)
    disable_progress_bar()
    data = PreparedSet.open(arguments.data)
    results: dict = {"name": arguments.name, "recipe": arguments.recipe, "split": arguments.split}
    results |= {"fingerprint": data.facts.fingerprint, "simulated": bool(data.facts.simulated), "commit": commit()}
    results |= {"command": shlex.join(["python", *sys.argv]), "records": []}
    title = f"priors_{arguments.name}"
    if arguments.add:
        before = json.loads(results_file(title, arguments).read_text(encoding="utf-8"))
        results |= {"records": before["records"], "command": f"{before['command']}; {results['command']}"}
    done = {(record["person"], record["images"], record["seed"]) for record in results["records"]}
    for person in arguments.people or data.facts.subjects:
        checkpoint = trained(data, person, arguments)
        for n_images, seed in product(arguments.images, arguments.seeds):
            if (person, n_images, seed) in done:
                continue
            made = alone(data, person, n_images, seed, arguments.split)
            made += added(checkpoint, data, person, n_images, seed, arguments.split)
            results["records"] += [{"person": person, "images": n_images, "seed": seed, **record} for record in made]
            write_results(results, title, arguments)
            scores = ", ".join(f"{record['how']} {record['two_way']:.3f}" for record in made)
            print(f"{person}, {n_images} images, seed {seed}: 2-way of {scores}", flush=True)
        print(table(results["records"]), flush=True)
    if arguments.split == "test":
        replace_marked(arguments.page, title, section(results))
    print(f"results in {results_file(title, arguments)}")


if __name__ == "__main__":
    run(main)
