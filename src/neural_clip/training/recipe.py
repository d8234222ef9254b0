"""Recipes: one YAML file a training run, each value open to an override on the command line."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neural_clip.errors import DataError, check_value, did_you_mean
from neural_clip.files.reading import parse_yaml, read_yaml, told_where
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.training.processes import check_joined, check_launch, join_on_cpus
from neural_clip.training.settings import check_settings

if TYPE_CHECKING:
    from transformers import TrainingArguments


SECTIONS = ("data", "model", "training")
MAX_NAME = 255  # bytes, of file systems
MAX_FOLDS = 100
MAX_PASSES = 10_000  # over the recordings of a modality in an epoch
MAX_AT_ONCE = 2**31 - 1  # recordings
MAX_MIN_STEPS = 100_000  # twice what `base` takes on THINGS-MEG; an epoch's batches are made at once
DEFAULT = "base"  # the recipe where none is named
RECIPES = Path(__file__).parent / "recipes"
STRATEGIES = ("eval_strategy", "save_strategy", "logging_strategy")
SWITCHES = ("closed_form", "resume", "overwrite", "push_to_hub", "dry_run", "streaming")
# Words of the other commands for settings of `training`.
SAME_AS = {"epochs": "num_train_epochs", "batch_size": "per_device_train_batch_size"}
# Beside the sections.
SETTINGS = ("closed_form", "folds", "min_steps", "mini_batch_size", "passes", "resume", "overwrite",
            "dry_run", "streaming", "shuffle_buffer_size")  # fmt: skip
OPTIONS = ("data", "output-dir", "resume", "overwrite", "push-to-hub", "seed", "epochs", "min-steps", "batch-size",
           "mini-batch-size", "closed-form", "folds", "dry-run", "streaming",
           "shuffle-buffer-size")  # fmt: skip
USAGE = """usage: {program} [RECIPE] [--data MODALITY=FOLDER ...] [--output-dir FOLDER] [--SECTION.KEY VALUE ...] ...

Train a model as a recipe says: by `base`, on the data sets of `--data`, unless another recipe is named.

RECIPE is a YAML file, or the name of one that comes with the package:
{recipes}
It holds three sections:
  data      prepared data set of each modality: eeg, meg, fmri (any subset); a list for several corpora of one
  model     settings of NeuralClipConfig; those of an encoder under eeg, meg, fmri
  training  settings of transformers.TrainingArguments (output_dir, num_train_epochs, ...)
and `passes` (how often an epoch goes over the recordings of a modality: once, unless {{eeg: 4}} or the like says
otherwise), `min_steps` (optimiser steps that each modality has in all, or more: an epoch goes more often over a small
data set), `mini_batch_size` (recordings of a batch whose activations are kept at a time), `closed_form` (put one
beside the network), `folds` (of cross-validation, where there is no validation split), `streaming`,
`shuffle_buffer_size`, `resume`, `overwrite` and `dry_run`. Every value can be overridden.

options:
  -h, --help                      show this help message and exit
  --data MODALITY=FOLDER ...      prepared data sets, instead of all those of the recipe
  --data.MODALITY FOLDER          the same of one modality, beside the others of the recipe
  --output-dir FOLDER             folder of the checkpoints
  --closed-form true|false        put a closed form beside the trained network
  --folds N                       cross-validate in N folds where there is no validation split; 0: do not
  --resume                        go on from the last checkpoint in the output folder
  --overwrite                     replace an earlier run in the output folder
  --dry-run                       check all, measure a few steps, tell what the run takes, and write nothing
  --push-to-hub                   send the checkpoint to the Hub, private unless the recipe says otherwise
  --seed N                        of initial weights and the order of batches
  --epochs N                      training.num_train_epochs
  --min-steps N                   minimum of optimiser steps of each modality in the whole run; 0: none
  --batch-size N                  training.per_device_train_batch_size
  --mini-batch-size N             embed each batch in parts of N recordings, in the memory of one part; 0: in one
  --streaming                     read recordings from their Parquet files, here or on the Hub, without copies of them
  --shuffle-buffer-size N         shuffle N recordings at a time, row group after row group; 0: all at once
  --SECTION.KEY VALUE             any value of the recipe, as YAML
  --KEY VALUE                     any value of its `training` section, such as --max-steps 60 or --bf16 true

examples:
  neural-clip train --data fmri=data/mine --output-dir outputs/mine
  neural-clip train demo --overwrite
  accelerate launch train.py configs/base.yaml --data meg=data/things_meg --output-dir outputs/meg
  python train.py base --data.eeg data/mine --training.learning_rate 1e-3 --model.eeg.hidden_size 64"""
NOTHING = (
    "Give data sets by `--data MODALITY=FOLDER ...`, or a recipe. (`neural-clip train --help` explains both and lists "
    "the recipes.)"
)
# What a run of this package needs, unless the recipe says otherwise.
TRAINING_DEFAULTS: dict[str, Any] = {
    "remove_unused_columns": False,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,  # beside the best one
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_two_way",
    "greater_is_better": True,
    "logging_strategy": "epoch",
    "logging_nan_inf_filter": False,  # `Trainer` would wait for a GPU in each step; NaN ends the run anyway
    "report_to": "none",
    "hub_private_repo": True,  # nothing becomes public by accident
    "hub_strategy": "end",
}


@dataclass
class Recipe:
    """What to train on, what to build and how.

    Args:
        data (`dict[str, str or Path]`): Prepared data set (folder or Hub name) by modality, or a list of them: several
            corpora of one modality share its network.
        model (`dict`): Settings of [`NeuralClipConfig`]; those of an encoder under `eeg`, `meg` and `fmri`. What the
            data decide (channels, samples, subjects, voxels, image encoder) is filled in from them.
        training (`dict`): Settings of `transformers.TrainingArguments`.
        passes (`dict[str, int]`): How often an epoch goes over the recordings of a modality; once for those not named.
            Modalities differ in how long they take to learn; an epoch of the run is the same for all.
        closed_form (`bool`): Put a closed form beside the trained network, as far as the validation split says that it
            helps.
        folds (`int`): Where no data set has validation recordings, cross-validate over images in so many folds (over
            runs of categories, over subjects where no test subject is trained on; see `training/folds.py`); 0 for not.
        min_steps (`int`): Optimiser steps that each modality has in the whole run, or more: where its passes give
            fewer, an epoch goes over its recordings more often. `training.max_steps` is followed as it is.
        mini_batch_size (`int`): Recordings of a process whose activations are kept at a time: a batch is embedded in
            such parts, twice (GradCache, see `training/batch_loss.py`). 0 for the whole batch at once.
        resume (`bool`): Go on from the last checkpoint in `training.output_dir`.
        overwrite (`bool`): Replace an earlier run there.
        streaming (`bool`): Read recordings from their Parquet files a row group at a time, those of a data set of the
            Hub from there, in the order that they have without it.
        shuffle_buffer_size (`int`): Recordings of a modality that are shuffled at a time, row group after row group
            (see `training/batches.py`); 0 for all. For data sets that are larger than the memory, and streamed.
        dry_run (`bool`): Check everything, take a few steps, tell what the run would take, and write nothing.
    """

    data: dict[str, str | list[str]] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)
    closed_form: bool = False
    folds: int = 0
    min_steps: int = 0
    mini_batch_size: int = 0
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False
    streaming: bool = False
    shuffle_buffer_size: int = 0

    def __post_init__(self) -> None:
        for name in (*SECTIONS, "passes"):
            allowed = "MODALITY=FOLDER, such as eeg=data/mine" if name == "data" else "keys with values"
            check_value(name, getattr(self, name), isinstance(getattr(self, name), dict), allowed)
            check_finite(name, getattr(self, name))
        self.data, self.training = as_yaml_has(self.data), as_yaml_has(self.training)
        for name in ("closed_form", "resume", "overwrite", "dry_run", "streaming"):
            check_value(name, getattr(self, name), isinstance(getattr(self, name), bool), "true or false")
        for name in STRATEGIES:  # YAML 1.1 takes `no` for false
            if self.training.get(name) is False:
                self.training[name] = "no"
        if not self.data:
            *others, last = map(repr, MODALITIES)
            raise DataError(
                f"The recipe's 'data' section is empty; give the prepared data set of {', '.join(others)} or {last}, "
                "as by `--data eeg=FOLDER`."
            )
        check_keys("data", self.data, MODALITIES)
        check_keys("passes", self.passes, MODALITIES)
        if "output_dir" not in self.training:
            raise DataError("The recipe lacks 'training.output_dir', the folder for checkpoints.")
        for name, given in self.data.items():
            check_value(f"data.{name}", given, given != [], "a folder, or a list of folders")
        places = [(f"data.{name}", folder) for name, folder in self.folders]
        for name, folder in [*places, ("training.output_dir", self.training["output_dir"])]:
            named = isinstance(folder, str) and folder != "" and "\0" not in folder
            fits = named and all(len(os.fsencode(part)) <= MAX_NAME for part in Path(folder).parts)
            check_value(name, folder, fits, f"the name of a folder, of {MAX_NAME} bytes at most")
        for name in MODALITIES:
            settings = self.model.get(name)
            check_value(f"model.{name}", settings, isinstance(settings, dict | None), "keys with values")
            if "closed_form" in (settings or {}):
                raise DataError(f"'model.{name}.closed_form' is made by training; '--closed-form true' asks for one.")
            if "confidence_temperature" in (settings or {}):
                raise DataError(
                    f"'model.{name}.confidence_temperature' is fitted by training, on recordings that the model has "
                    "not learnt from; leave it out."
                )
            if "corpora" in (settings or {}):
                raise DataError(f"'model.{name}.corpora' is what several data sets say of themselves; leave it out.")
            if "trained_on" in (settings or {}):
                raise DataError(f"'model.{name}.trained_on' is what the data sets say of their terms; leave it out.")
        for name in ("vision_config", *(f"{modality}_config" for modality in MODALITIES)):
            if name in self.model:
                raise DataError(
                    f"'model.{name}' is made from the data sets; give settings of an encoder under its name."
                )
        whole = isinstance(self.folds, int) and not isinstance(self.folds, bool)
        check_value(
            "folds", self.folds, whole and (self.folds == 0 or 2 <= self.folds <= MAX_FOLDS), f"0, or 2 to {MAX_FOLDS}"
        )
        for name, count in self.passes.items():
            whole = isinstance(count, int) and not isinstance(count, bool) and 0 < count <= MAX_PASSES
            check_value(f"passes.{name}", count, whole, f"a whole number from 1 to {MAX_PASSES:,}")
        whole = type(self.min_steps) is int and 0 <= self.min_steps <= MAX_MIN_STEPS
        check_value("min_steps", self.min_steps, whole, f"a whole number from 0 to {MAX_MIN_STEPS:,}")
        for name in ("mini_batch_size", "shuffle_buffer_size"):
            whole = type(size := getattr(self, name)) is int and 0 <= size <= MAX_AT_ONCE
            check_value(name, size, whole, f"a whole number from 0 to {MAX_AT_ONCE:,}")
        self._arguments: TrainingArguments | None = None
        self.place: Path | None = None  # the file that it was read from

    @property
    def folders(self) -> list[tuple[str, str]]:
        """Modality and folder of each data set."""
        listed = {name: given if isinstance(given, list) else [given] for name, given in self.data.items()}
        return [(name, folder) for name, folders in listed.items() for folder in folders]

    @property
    def training_arguments(self) -> TrainingArguments:
        """The `training` section on top of [`TRAINING_DEFAULTS`]."""
        if self._arguments is None:
            import torch
            from accelerate.utils import parse_flag_from_env
            from transformers import TrainingArguments

            from neural_clip.evaluation.processes import PATIENCE

            check_keys("training", self.training, [item.name for item in fields(TrainingArguments)])
            check_settings(self.training)
            # said outright, since processes that share no GPU are joined on CPUs only where that is asked for
            settings = {**TRAINING_DEFAULTS, "use_cpu": not torch.accelerator.is_available(), **self.training}
            # the first process fits the closed form, which takes hours on large data sets, while the others wait
            settings.setdefault("ddp_timeout", int(PATIENCE.total_seconds()))
            check_launch(bool(settings["use_cpu"]))
            try:
                if settings["use_cpu"] or parse_flag_from_env("ACCELERATE_USE_CPU"):
                    join_on_cpus(settings)
                self._arguments = TrainingArguments(**settings)
            except Exception as error:  # a wrong value comes to light wherever it is first used
                raise DataError(f"The recipe's 'training' section cannot be used: {error}") from error
            check_joined(self._arguments)
        return self._arguments

    def told_where(self) -> AbstractContextManager[None]:
        """Have errors that name no data set name the file of the recipe."""
        return told_where(
            self.place, "recipe", [*(folder for _, folder in self.folders), str(self.training["output_dir"])]
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as it was after overrides."""
        return asdict(self)


def as_yaml_has(section: dict[str, Any]) -> dict[str, Any]:
    """A section with text in place of paths and of choices that transformers has names for."""
    plain = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in section.items()}
    return {name: value.value if isinstance(value, Enum) else value for name, value in plain.items()}


def check_finite(name: str, value: Any) -> None:
    """Raise a `DataError` where a value, or one inside of it, is NaN or infinite."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            check_finite(f"{name}.{key}", item)
    check_value(name, value, not isinstance(value, float) or math.isfinite(value), "a finite number")


def check_keys(section: str, given: dict, known: Collection[str]) -> None:
    """Raise a `DataError` for the first unknown key, naming the nearest known one."""
    for key in given:
        if key not in known:
            hint = did_you_mean(str(key), known) or f" Known keys are {sorted(known)[:40]}."
            raise DataError(f"Unknown key {key!r} in the recipe's {section!r} section.{hint}")


def usage() -> str:
    """How a training is started, with the recipes that come with the package."""
    about = {path.stem: path.read_text(encoding="utf-8").split("\n")[0].lstrip("# ") for path in shipped_recipes()}
    program = Path(sys.argv[0]).name
    return USAGE.format(program=program, recipes="\n".join(f"  {name:<12} {text}" for name, text in about.items()))


def shipped_recipes() -> list[Path]:
    """Recipes that come with the package."""
    return sorted(RECIPES.glob("*.yaml"))


def find_recipe(given: str) -> Path:
    """The recipe of that path, or else that name among those of the package.

    Raises:
        DataError: If there is neither, or it is a folder.
    """
    if Path(given).is_file():
        return Path(given)
    shipped = {path.stem: path for path in shipped_recipes()}
    if given.removesuffix(".yaml") in shipped:
        return shipped[given.removesuffix(".yaml")]
    if Path(given).is_dir():
        raise DataError(f"'{given}' is a folder; a recipe is a YAML file, or one of {', '.join(shipped)}.")
    raise DataError(
        f"'{given}' is no file, and no recipe of this package, which are {', '.join(shipped)}."
        f"{did_you_mean(Path(given).stem, shipped)}"
    )


def read_recipe(argv: Sequence[str]) -> Recipe:
    """Read `[RECIPE] [--section.key value ...]`.

    Without a recipe it is [`DEFAULT`], on the data sets that the arguments name and no others.

    Raises:
        DataError: If there is no such recipe, or the file or an override cannot be used, or nothing is given.
        SystemExit: With code 0, after printing the usage for `--help`.
    """
    if {"-h", "--help"} & set(argv):
        print(usage())
        raise SystemExit(0)
    if not argv:
        raise DataError(NOTHING)
    named = not argv[0].startswith("-")
    path = find_recipe(argv[0]) if named else RECIPES / f"{DEFAULT}.yaml"
    content = read_yaml(path, "recipe")
    if not isinstance(content, dict):
        raise DataError(f"'{path}' must hold the sections {SECTIONS}, but holds {type(content).__name__}.")
    if not named:
        content["data"] = {}  # not the folders that the file has as examples
    overrides = parse_overrides(argv[named:])
    with told_where(path if named else None, "recipe"):
        for dotted, value in overrides:
            override(content, dotted, value)
        check_keys("top-level", content, [item.name for item in fields(Recipe)])
        recipe = Recipe(**{key: value for key, value in content.items() if value is not None})
    recipe.place = path if named else None
    return recipe


def parse_overrides(arguments: Sequence[str]) -> list[tuple[list[str], Any]]:
    """Turn `--a.b value`, `--a.b=value`, `--data MODALITY=FOLDER ...` and switches into key paths and YAML values."""
    pairs: list[tuple[list[str], Any]] = []
    rest = list(arguments)
    while rest:
        given = rest.pop(0)
        if not given.startswith("--"):
            raise DataError(
                f"Unexpected argument {given!r}; a recipe comes first, and overrides look like `--training.seed 1`."
            )
        name, equals, text = given[2:].partition("=")
        dotted = name.replace("-", "_").split(".")
        is_switch = len(dotted) == 1 and dotted[0] in SWITCHES
        if is_switch and not equals and not (rest and rest[0].lower() in ("true", "false")):
            text = "true"
        elif not equals:
            if not rest or rest[0].startswith("--"):
                raise DataError(f"The override '--{name}' has no value.{did_you_mean(name, OPTIONS)}")
            text = rest.pop(0)
        if len(dotted) == 1 and dotted[0] not in (*SECTIONS, *SETTINGS):
            dotted = ["training", SAME_AS.get(dotted[0], dotted[0])]
        if dotted == ["data"] and "=" in text and not text.lstrip().startswith("{"):
            folders = [text]
            while rest and not rest[0].startswith("--"):
                folders.append(rest.pop(0))
            pairs.append((dotted, _data_sets(folders)))
        else:
            pairs.append((dotted, parse_yaml(text, f"The value of the override '--{name}' is no valid YAML")))
    return pairs


def _data_sets(arguments: Sequence[str]) -> dict[str, str | list[str]]:
    """Folders by modality of `MODALITY=FOLDER` arguments; a list where a modality has several."""
    found: dict[str, list[str]] = {}
    for argument in arguments:
        modality, equals, folder = argument.partition("=")
        if not equals or not folder or modality not in MODALITIES or folder in found.get(modality, []):
            *others, last = (f"{name}=FOLDER" for name in MODALITIES)
            raise DataError(
                f"Invalid value for '--data'. Allowed are {', '.join(others)} and {last}, each folder once, but got "
                f"'{argument}' instead.{did_you_mean(modality, MODALITIES)}"
            )
        found.setdefault(modality, []).append(folder)
    return {modality: folders if len(folders) > 1 else folders[0] for modality, folders in found.items()}


def override(content: dict, dotted: list[str], value: Any) -> None:
    """Set one value of a nested dictionary."""
    for key in dotted[:-1]:
        if content.get(key) is None:
            content[key] = {}
        content = content[key]
        if not isinstance(content, dict):
            raise DataError(f"The override '--{'.'.join(dotted)}' goes into {key!r}, which is a single value.")
    content[dotted[-1]] = value
