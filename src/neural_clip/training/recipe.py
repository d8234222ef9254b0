"""Recipes: one YAML file a training run, each value open to an override on the command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from neural_clip.errors import DataError
from neural_clip.prepared.modalities import MODALITIES

if TYPE_CHECKING:
    from transformers import TrainingArguments


SECTIONS = ("data", "model", "training")
EXPONENT = re.compile(r"[+-]?[0-9]+[eE][+-]?[0-9]+")
USAGE = """usage: train RECIPE.yaml [--SECTION.KEY VALUE ...] [--resume true] [--overwrite true]

RECIPE.yaml holds three sections:
  data      prepared data set of each modality: eeg, meg, fmri (any subset)
  model     settings of NeuralClipConfig; those of an encoder under eeg, meg, fmri
  training  settings of transformers.TrainingArguments (output_dir, num_train_epochs, ...)
and `passes` (how often an epoch goes over the recordings of a modality: once, unless {eeg: 4} or the like says
otherwise), `resume` (go on from the last checkpoint) and `overwrite` (replace an earlier run).

examples:
  accelerate launch train.py configs/demo.yaml
  accelerate launch train.py configs/demo.yaml --training.learning_rate 1e-3 --model.eeg.hidden_size 64
  python train.py configs/demo.yaml --data '{fmri: outputs/demo/data/nsd}' --training.output_dir outputs/fmri
A key without section is one of `training`: `--num_train_epochs 5`, `--push_to_hub true`."""
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
    "report_to": "none",
    "hub_private_repo": True,  # nothing becomes public by accident
    "hub_strategy": "end",
}


@dataclass
class Recipe:
    """What to train on, what to build and how.

    Args:
        data (`dict[str, str]`): Prepared data set (folder or Hub name) by modality.
        model (`dict`): Settings of [`NeuralClipConfig`]; those of an encoder under `eeg`, `meg` and `fmri`. What the
            data decide (channels, samples, subjects, voxels, image encoder) is filled in from them.
        training (`dict`): Settings of `transformers.TrainingArguments`.
        passes (`dict[str, int]`): How often an epoch goes over the recordings of a modality; once for those not named.
            Modalities differ in how long they take to learn; an epoch of the run is the same for all.
        resume (`bool`): Go on from the last checkpoint in `training.output_dir`.
        overwrite (`bool`): Replace an earlier run there.
    """

    data: dict[str, str] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    passes: dict[str, int] = field(default_factory=dict)
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.data:
            raise DataError(
                "The recipe's 'data' section is empty; give the prepared data set of 'eeg', 'meg' or 'fmri'."
            )
        check_keys("data", self.data, MODALITIES)
        check_keys("passes", self.passes, MODALITIES)
        for name, count in self.passes.items():
            if not isinstance(count, int) or count < 1:
                raise DataError(f"The recipe's 'passes.{name}' must be a whole number above 0, but is {count!r}.")
        if "output_dir" not in self.training:
            raise DataError("The recipe lacks 'training.output_dir', the folder for checkpoints.")
        self._arguments: TrainingArguments | None = None

    @property
    def training_arguments(self) -> TrainingArguments:
        """The `training` section on top of [`TRAINING_DEFAULTS`]."""
        if self._arguments is None:
            from transformers import TrainingArguments

            check_keys("training", self.training, [item.name for item in fields(TrainingArguments)])
            try:
                self._arguments = TrainingArguments(**{**TRAINING_DEFAULTS, **self.training})
            except (TypeError, ValueError) as error:
                raise DataError(f"The recipe's 'training' section cannot be used: {error}") from error
        return self._arguments

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as it was after overrides."""
        return asdict(self)


def check_keys(section: str, given: dict, known: Collection[str]) -> None:
    """Raise a `DataError` for the first unknown key, naming the nearest known one."""
    for key in given:
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else f" Known keys are {sorted(known)[:40]}."
            raise DataError(f"Unknown key {key!r} in the recipe's {section!r} section.{hint}")


def read_recipe(argv: Sequence[str]) -> Recipe:
    """Read `RECIPE.yaml [--section.key value ...]`.

    Raises:
        DataError: If the file or an override cannot be used.
        SystemExit: After printing the usage, for `--help`.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0 if argv else 2)
    path = Path(argv[0])
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DataError(f"'{path}' is no valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"'{path}' must hold the sections {SECTIONS}, but holds {type(content).__name__}.")
    content = with_exponents(content)
    for dotted, value in parse_overrides(argv[1:]):
        override(content, dotted, value)
    check_keys("top-level", content, [item.name for item in fields(Recipe)])
    return Recipe(**{key: value for key, value in content.items() if value is not None})


def parse_overrides(arguments: Sequence[str]) -> list[tuple[list[str], Any]]:
    """Turn `--a.b value` and `--a.b=value` into key paths and YAML values."""
    pairs, rest = [], list(arguments)
    while rest:
        name = rest.pop(0)
        if not name.startswith("--"):
            raise DataError(f"Unexpected argument {name!r}; overrides look like `--training.seed 1`.")
        name, equals, text = name[2:].partition("=")
        if not equals:
            if not rest:
                raise DataError(f"The override '--{name}' has no value.")
            text = rest.pop(0)
        dotted = name.replace("-", "_").split(".")
        if len(dotted) == 1 and dotted[0] not in (*SECTIONS, "passes", "resume", "overwrite"):
            dotted = ["training", *dotted]
        pairs.append((dotted, with_exponents(yaml.safe_load(text))))
    return pairs


def with_exponents(value: Any) -> Any:
    """Read `1e-3` as a number wherever it stands: YAML 1.1 takes it for text, as it has no point."""
    if isinstance(value, dict):
        return {key: with_exponents(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_exponents(item) for item in value]
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def override(content: dict, dotted: list[str], value: Any) -> None:
    """Set one value of a nested dictionary."""
    for key in dotted[:-1]:
        if content.get(key) is None:
            content[key] = {}
        content = content[key]
        if not isinstance(content, dict):
            raise DataError(f"The override '--{'.'.join(dotted)}' goes into {key!r}, which is a single value.")
    content[dotted[-1]] = value
