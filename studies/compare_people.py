"""What a new person's recordings are worth: somebody is left out of training and then added with few or many of them.

    python studies/compare_people.py --twin realistic --recipe demo --seeds 0 1 2 3 4
    python studies/people_page.py                    # docs/studies/new_people.md, its picture

For each modality and seed the last person of the data set is

* left out of training and added by `neural-clip adapt` with a share of the training recordings, or read as the average
  subject (EEG, MEG), which takes none;
* trained with everybody, as the upper line;
* given a quarter of the training recordings, once in training with everybody and once alone, in as many steps;
* read by ridge regression, fitted to the same recordings that adapting takes and to nobody else's.

Every model is of one modality, and its scores are that person's single trials among all images of the split. The data
are those of `studies/compare_recipes.py`, in the same folder. A modality and seed that is finished is kept while
recipe, data and the package stay the same. Choose on `--split validation`: its scores stay in the output folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata as package_metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from collected import write_results
from neural_clip.errors import DataError, run
from neural_clip.files.whole import write_whole
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet
from neural_clip.training.batches import JointDataset, RecordingDataset
from neural_clip.training.recipe import Recipe, read_recipe
from neural_clip.training.recording_time import minutes_of, trial_seconds
from runs import commit, digest, source_states
from variants import REPOSITORY, data_folders, training_key, training_words

if TYPE_CHECKING:
    from neural_clip.modeling_neural_clip import NeuralClipModel

SHARES = (0.1, 0.25, 0.5, 1.0)
QUARTER = 0.25
KEPT = ("two_way", "two_way_interval", "two_way_p", "top1", "top1_interval", "chance_two_way", "chance_top1",
        "gallery_size", "n_queries")  # fmt: skip
PACKAGES = ("neural_clip", "torch", "transformers", "datasets", "numpy")


def recipe_words(recipe: str, seed: int, data: dict[str, Path], output_dir: Path, epochs: int | None) -> list[str]:
    """Recipe and overrides of a training on some of the data sets."""
    words = [*training_words(recipe, seed, Path(), epochs), "--training.output_dir", str(output_dir)]
    words += ["--data", json.dumps({modality: str(folder) for modality, folder in data.items()})]
    return [*words, "--model.include_vision_tower", "false", "--training.disable_tqdm", "true"]


def only(modality: str, subjects: Sequence[str]) -> list[str]:
    """Overrides that leave a model some of the people."""
    return [f"--model.{modality}.subjects", json.dumps(list(subjects))]


def scores_of(embeds: np.ndarray, data: PreparedSet, split: str, person: str) -> dict:
    """Scores of embeddings of one person's single trials among all images of the split."""
    from neural_clip.retrieval.scoring import score_record

    trials = data.split(split)
    gallery = np.unique(trials.image_rows)  # in the order of the data set's images
    image_ids = np.array(data.images.image_ids)[gallery]
    own = data.split(split, [person]).image_ids
    record, _ = score_record(embeds, data.images.embeds[gallery], own, image_ids, seed=0)
    return {key: record[key] for key in KEPT if key in record}


def score(model: NeuralClipModel, data: PreparedSet, split: str, person: str, average: bool = False) -> dict:
    """Scores of what a model makes of one person's single trials, as that person or as the average subject."""
    from neural_clip.training.trainer import neural_embeds

    recordings = RecordingDataset(data.split(split, [person]), [person])
    known = getattr(model.config, f"{data.facts.modality}_config").subjects
    recordings.subject_ids[:] = -1 if average else known.index(person)
    return scores_of(neural_embeds(model.eval(), recordings), data, split, person)


def amount(data: PreparedSet, person: str, share: float, seed: int) -> dict:
    """Recordings, and minutes of trials, of the share of a person's that `neural-clip adapt` takes."""
    from neural_clip.training.new_subjects import fraction_rows

    recordings = RecordingDataset(data.split("train", [person]), [person])
    recordings.keep(fraction_rows(recordings.subject_ids, share, seed))
    per_trial = trial_seconds(data.facts)
    return {
        "share": share,
        "recordings": len(recordings),
        "minutes": None if per_trial is None else minutes_of(recordings, per_trial)[person],
    }


def train_quarter(recipe: Recipe, subjects: Sequence[str], person: str, seed: int, steps: int | None) -> tuple:
    """Train on some people, of whom one has a quarter of the training recordings; in so many steps, if given.

    Returns:
        `tuple` of the best model by validation and the number of steps.
    """
    from neural_clip.training.model import build_model, model_config
    from neural_clip.training.new_subjects import fraction_rows
    from neural_clip.training.trainer import NeuralClipTrainer

    ((modality, folder),) = recipe.data.items()
    data = PreparedSet.open(str(folder))
    if steps is not None:
        epochs = float(recipe.training_arguments.num_train_epochs)
        every = max(int(steps / epochs), 1)  # as often as with everybody
        steps_of = {"max_steps": steps, "eval_strategy": "steps", "eval_steps": every}
        steps_of |= {"save_strategy": "steps", "save_steps": every}
        recipe = replace(recipe, training=recipe.training | steps_of, overwrite=True)
    config = model_config(recipe, {modality: data.facts})
    train, validation = (RecordingDataset.open(data, split, subjects) for split in ("train", "validation"))
    own = np.flatnonzero(train.subject_ids == list(subjects).index(person))
    left = np.setdiff1d(own, own[fraction_rows(train.subject_ids[own], QUARTER, seed)])  # adapting takes the others
    train.keep(np.setdiff1d(np.arange(len(train)), left))
    shutil.rmtree(str(recipe.training["output_dir"]), ignore_errors=True)
    trainer = NeuralClipTrainer(
        model=build_model(config, None, seed),
        args=recipe.training_arguments,
        recordings=JointDataset([train]),
        validation=[validation],
        passes=recipe.passes,
        min_steps=recipe.min_steps,
    )
    trainer.train()
    return trainer.model, trainer.state.max_steps


def left_out(words: list[str], data: PreparedSet, runs: Path, person: str, seed: int, split: str) -> list:
    """Train without somebody, then add that person; a record for each share, and for the average subject."""
    from neural_clip.modeling_neural_clip import NeuralClipModel
    from neural_clip.training.adapt import adapt
    from neural_clip.training.run import train

    modality = data.facts.modality
    others = [name for name in data.facts.subjects if name != person]
    out = ["--training.output_dir", str(runs / "without")]
    checkpoint = train(read_recipe([*words, *only(modality, others), *out]))
    records = []
    if MODALITIES[modality].sensors:
        scores = score(NeuralClipModel.from_pretrained(checkpoint), data, split, person, average=True)
        records.append({"how": "average subject", "share": 0.0, "recordings": 0, "minutes": 0.0, **scores})
    for share in SHARES:
        adapted = adapt(checkpoint, data, runs / f"adapted-{share:g}", subjects=[person], train_fraction=share,
                        seed=seed, overwrite=True)  # fmt: skip
        scores = score(NeuralClipModel.from_pretrained(adapted), data, split, person)
        records.append({"how": "adapted", **amount(data, person, share, seed), **scores})
    return records


def quarters(words: list[str], data: PreparedSet, runs: Path, person: str, seed: int, split: str) -> list:
    """Train on a quarter of somebody's recordings, with everybody and alone."""
    recipe = read_recipe([*words, "--training.output_dir", str(runs / "quarter")])
    joint, steps = train_quarter(recipe, data.facts.subjects, person, seed, None)
    of_one = read_recipe([*words, *only(data.facts.modality, [person]),
                          "--training.output_dir", str(runs / "alone")])  # fmt: skip
    alone, _ = train_quarter(of_one, [person], person, seed, steps)
    facts = amount(data, person, QUARTER, seed)
    return [
        {"how": how, **facts, **score(model, data, split, person)}
        for how, model in (("a quarter, with everybody", joint), ("a quarter, alone", alone))
    ]


def everybody(words: list[str], data: PreparedSet, runs: Path, person: str, seed: int, split: str) -> list:
    """Train with everybody."""
    from neural_clip.modeling_neural_clip import NeuralClipModel
    from neural_clip.training.run import train

    checkpoint = train(read_recipe([*words, "--training.output_dir", str(runs / "everybody")]))
    scores = score(NeuralClipModel.from_pretrained(checkpoint), data, split, person)
    return [{"how": "everybody", **amount(data, person, 1.0, seed), **scores}]


def ridge_alone(data: PreparedSet, person: str, seed: int, split: str) -> list:
    """Fit ridge regression to each share of somebody's recordings from image onset on; a record for each."""
    from neural_clip.evaluation.baselines.linear import per_subject_ridge
    from neural_clip.training.new_subjects import fraction_rows

    parts = (data.split(name, [person]).loaded().from_onset() for name in ("train", "validation", split))
    train, validation, test = parts
    records = []
    for share in SHARES:
        rows = fraction_rows(np.zeros(len(train.subjects)), share, seed)
        embeds, _ = per_subject_ridge(train.at(rows), validation, test)
        scores = scores_of(embeds, data, split, person)
        records.append({"how": "ridge alone", **amount(data, person, share, seed), **scores})
    return records


def one_unit(modality: str, seed: int, twin: Path, source: dict[str, str], arguments: argparse.Namespace) -> list:
    """All records of a modality and seed, or those that are there."""
    folder = data_folders(twin)[modality]
    data = PreparedSet.open(folder)
    person = data.facts.subjects[-1]
    runs = twin / "people" / f"{arguments.recipe}-{modality}-{seed}"
    words = recipe_words(arguments.recipe, seed, {modality: folder}, runs, arguments.epochs)
    file = runs / f"{arguments.split}.json"
    facts = {name: getattr(data.facts, name) for name in ("fingerprint", "image_encoder")}
    key = digest({"run": training_key(words, {modality: facts}, source["package"]), "shares": SHARES})
    about = {"modality": modality, "person": person, "seed": seed, "recipe": arguments.recipe, "commit": commit()}
    about |= {"fingerprint": data.facts.fingerprint, "simulated": bool(data.facts.simulated)}
    about |= {"versions": {name: package_metadata.version(name) for name in PACKAGES}}
    ridge = [{**about, **record} for record in ridge_alone(data, person, seed, arguments.split)]
    if file.is_file() and (found := json.loads(file.read_text(encoding="utf-8")))["key"] == key:
        print(f"{time.strftime('%H:%M:%S')} kept     {file}", flush=True)
        return found["records"] + ridge
    records = []
    for part in (left_out, everybody, quarters):
        started = time.monotonic()
        made = part(words, data, runs, person, seed, arguments.split)
        seconds = round(time.monotonic() - started, 1)
        records += [{**about, **record, "seconds_of_part": seconds} for record in made]
        print(f"{time.strftime('%H:%M:%S')} {modality} seed {seed}: {part.__name__} in {seconds:.0f} s", flush=True)
    write_whole(file, json.dumps({"key": key, "records": records}, indent=1) + "\n")
    return records + ridge


def main(argv: Sequence[str] | None = None) -> None:
    """Train, adapt, score and collect."""
    from datasets.utils.logging import disable_progress_bar

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--twin", default="realistic", help="preset of docs/twins.md (default: realistic)")
    parser.add_argument("--recipe", default="demo", help="file of configs/ by name (default: demo)")
    parser.add_argument("--modalities", nargs="+", choices=tuple(MODALITIES), default=list(MODALITIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/recipes"), help="as of compare_recipes.py")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--epochs", type=int, help="training epochs, instead of the recipe's")
    parser.add_argument("--results-dir", type=Path, default=Path("studies/results"), help="of people_<twin>.json")
    arguments = parser.parse_args(argv)
    os.chdir(REPOSITORY)
    disable_progress_bar()
    twin = arguments.output_dir / arguments.twin
    lacking = [str(data_folders(twin)[name]) for name in arguments.modalities if not data_folders(twin)[name].is_dir()]
    if lacking:
        raise DataError(f"There is no {lacking[0]}; `neural-clip demo --data-only --preset {arguments.twin} "
                        f"--output-dir {twin}` makes it.")  # fmt: skip
    source = source_states()
    results: dict = {"twin": arguments.twin, "recipe": arguments.recipe, "split": arguments.split}
    results |= {"seeds": arguments.seeds, "command": shlex.join(["python", *sys.argv]), "records": []}
    for seed in arguments.seeds:
        for modality in arguments.modalities:
            results["records"] += one_unit(modality, seed, twin, source, arguments)
    results["simulated"] = all(record["simulated"] for record in results["records"])
    print(f"results in {write_results(results, f'people_{arguments.twin}', arguments)}")


if __name__ == "__main__":
    run(main)
