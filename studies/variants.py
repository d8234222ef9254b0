"""Recipes with changes behind plus signs: what they learn, from which data, and how they are trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.known_corpora import CORPUS_OF
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.training.recipe import read_recipe
from runs import digest

REPOSITORY = Path(__file__).resolve().parents[1]
# Real recordings (docs/studies/real_recordings.md) that may stand in the place of a twin
REAL = {
    "digits": {"fmri": Path("outputs/real/digit69")},
    "digits_mobilenet": {"fmri": Path("outputs/real/digit69_mobilenet")},
    "faces": {"eeg": Path("outputs/real/n170"), "fmri": Path("outputs/real/haxby")},
}
# Real recordings in folds, each of which tests on other images
N_FOLDS = 10
FOLDS = {f"{name}_folds": [f"{name}_fold{fold}" for fold in range(N_FOLDS)] for name in ("digits", "digits_mobilenet")}
ALONE = "alone"
SETTINGS = {
    "frozen": ["--model.freeze_alignment", "true"],
    "mse": ["--model.objective", "mse"],
    "uncropped": ["--model.meg.crop_tmin", "null"],
    "coarse": ["--model.eeg.n_fine_windows", "0", "--model.meg.n_fine_windows", "0"],
    "shallow": ["--model.eeg.readout_size", "0", "--model.meg.readout_size", "0", "--model.fmri.linear_path", "false"],
    "slow": ["--training.learning_rate", "2e-3"],
    "still": ["--model.eeg.time_shift", "0", "--model.meg.time_shift", "0"],
    "single": [word for name in MODALITIES for word in (f"--model.{name}.num_networks", "1")]
    + ["--model.meg.hidden_size", "96"],  # twice as wide: one network is not to lose for having few filters
}
VARIANTS = (*SETTINGS, *MODALITIES, ALONE)  # what may stand behind a plus sign
Person = tuple[str, str] | None  # modality and name of the only one that a model learns from; nothing for all


def data_folders(twin: Path) -> dict[str, Path]:
    """Prepared data sets of a twin, or of what stands in its place, by modality."""
    if twin.name in REAL:
        return REAL[twin.name]
    if any(twin.name in folds for folds in FOLDS.values()):
        return {"fmri": Path("outputs/real") / twin.name.replace("digits", "digit69")}
    return {modality: twin / "data" / corpus.name for modality, corpus in CORPUS_OF.items()}


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
    return [modality for modality in MODALITIES if modality in variants] or list(MODALITIES)


def learnt_of(recipe: str, twin: Path) -> list[str]:
    """Those of them that a twin, or what stands in its place, has recordings of."""
    return [modality for modality in modalities_of(recipe) if modality in data_folders(twin)]


def is_alone(recipe: str) -> bool:
    """Whether a recipe is trained anew for each person and modality."""
    return ALONE in parsed(recipe)[1]


def is_whole(recipe: str) -> bool:
    """Whether one model learns all modalities of all people, so that others can be compared with it."""
    return modalities_of(recipe) == list(MODALITIES) and not is_alone(recipe)


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
        words += ["--training.num_train_epochs", str(epochs), "--min_steps", "0"]  # so many and no more
    folders, learnt = data_folders(twin), learnt_of(recipe, twin)
    if person is not None:
        learnt = [person[0]]
        words += [f"--model.{person[0]}.subjects", json.dumps([person[1]])]
    words += ["--data", json.dumps({modality: str(folders[modality]) for modality in learnt})]
    return [*words, "--training.output_dir", str(run_folder(recipe, seed, twin, person)), "--overwrite"]


def training_key(words: Sequence[str], data: dict, source: str) -> str:
    """What decides a run: recipe with overrides (seed among them), its data and code, but not where things lie."""
    recipe = read_recipe(words).as_dict()
    recipe["training"].pop("output_dir")
    learnt = {modality: data[modality] for modality in recipe["data"]}
    deciding = {section: recipe[section] for section in ("model", "training", "passes", "min_steps")}
    return digest({**deciding, "data": learnt, "source": source})
