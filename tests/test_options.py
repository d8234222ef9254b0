"""Options of functions: one field each, checked on the way in, and light to import."""

import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass, fields

import numpy as np
import pytest

from neural_clip.corpora.imagenet_eeg.options import ImageNetEegOptions
from neural_clip.corpora.things_meg.options import ThingsMegOptions
from neural_clip.errors import DataError
from neural_clip.options import Options, option

# where the options of a function are made, and the function
FUNCTIONS = {
    "corpora.custom.options.CustomOptions": "corpora.custom.build.prepare",
    "corpora.imagenet_eeg.options.ImageNetEegOptions": "corpora.imagenet_eeg.build.prepare",
    "corpora.nsd.options.NsdOptions": "corpora.nsd.build.prepare",
    "corpora.things_eeg2.options.ThingsEeg2Options": "corpora.things_eeg2.build.prepare",
    "corpora.things_eeg1.options.ThingsEeg1Options": "corpora.things_eeg1.build.prepare",
    "corpora.alljoined.options.AlljoinedOptions": "corpora.alljoined.build.prepare",
    "corpora.things_fmri.options.ThingsFmriOptions": "corpora.things_fmri.build.prepare",
    "corpora.things_meg.options.ThingsMegOptions": "corpora.things_meg.build.prepare",
    "evaluation.options.EvaluateOptions": "evaluation.run.evaluate_checkpoints",
    "simulation.options.SimulateOptions": "simulation.simulate.simulate",
    "targets.options.EmbedOptions": "targets.embed_images.embed_images",
    "training.options.AdaptOptions": "training.adapt.adapt",
}


def named(path):
    """What a dotted path below the package names."""
    return pkgutil.resolve_name(f"neural_clip.{path}")


@dataclass(frozen=True, kw_only=True)
class Some(Options):
    """Options of nothing."""

    colour: str = option("red", "of all", choices=("red", "green", "blue"))
    shape: str | None = option(None, "default any", choices=("round", "square"))
    sizes: tuple = option((1, 2), "two numbers", type=int, nargs=2)
    count: int = option(1, "how many", type=int, least=1)
    rate: float = option(0.5, "a second", type=float)
    most: int | None = option(None, "no bound", type=int, least=2)
    marks: str | Sequence[str] = option("x", "one for all or each", choices=("x", "y"), nargs="+")


def test_choices_are_checked():
    assert Some().shape is None and Some(colour="blue", shape="round").colour == "blue"
    words = "'colour' parameter. Allowed values are 'red', 'green' and 'blue', but got 'black' instead"
    with pytest.raises(DataError, match=words):
        Some(colour="black")
    with pytest.raises(DataError, match="Allowed values are 'round' and 'square', but got 'flat' instead"):
        Some(shape="flat")
    with pytest.raises(DataError, match=r"'colour' parameter.*but got None"):
        Some(colour=None)
    with pytest.raises(DataError, match=r"'colour' parameter.*but got \('red',\)"):
        Some(colour=["red"])


def test_each_of_several_choices_is_checked():
    assert Some(marks=["x", "y"]).marks == ("x", "y") and Some(marks="x").marks == "x"
    with pytest.raises(DataError, match=r"'marks' parameter. Allowed values are 'x' and 'y', but got 'z' instead"):
        Some(marks=["x", "z"])


def test_least_values_are_checked():
    assert Some(count=1).most is None and Some(most=2).most == 2
    with pytest.raises(DataError, match=r"'count' parameter. Allowed is 1 and more, but got 0 instead"):
        Some(count=0)
    with pytest.raises(DataError, match=r"'most' parameter. Allowed is 2 and more, but got 1 instead"):
        Some(most=1)


@pytest.mark.parametrize("value", ["1", 1.0, True, float("nan"), 2**32, -(2**32), 10**400])
def test_whole_numbers_are_checked(value):
    with pytest.raises(DataError, match=r"'count' parameter. Allowed is a whole number up to 4,294,967,295, but got"):
        Some(count=value)
    with pytest.raises(DataError, match="'sizes' parameter"):
        Some(sizes=(1, value))
    assert Some(count=np.int64(3)).count == 3 and Some(count=2**32 - 1)


@pytest.mark.parametrize("value", ["1", True, float("nan"), float("inf"), None])
def test_numbers_are_finite(value):
    with pytest.raises(DataError, match=r"'rate' parameter. Allowed is a finite number, but got"):
        Some(rate=value)
    assert Some(rate=1).rate == Some(rate=np.float32(1)).rate == 1


@pytest.mark.parametrize("path", FUNCTIONS)
def test_seeds_and_counts_are_never_negative(path):
    for name in {"seed", "batch_size", "num_proc", "n_sessions"} & {item.name for item in fields(named(path))}:
        with pytest.raises(DataError, match=f"'{name}' parameter"):
            named(path)(**{name: -1})


def test_options_are_plain_values():
    assert Some(sizes=[3, 4]).sizes == (3, 4)
    with pytest.raises(FrozenInstanceError):
        Some().colour = "blue"


@pytest.mark.parametrize("path", FUNCTIONS)
def test_every_option_has_help_and_what_is_documented_exists(path):
    kind = named(path)
    assert kind() == kind() and all(item.metadata["help"] for item in fields(kind))
    documented = re.findall(r"^ {8}(\w+(?:, \w+)*) \(`", kind.__doc__.partition("Args:")[2], flags=re.M)
    assert {name for names in documented for name in names.split(", ")} <= {item.name for item in fields(kind)}


@pytest.mark.parametrize(("path", "function"), FUNCTIONS.items())
def test_functions_take_options_by_name_too(path, function):
    """And state none of them a second time."""
    parameters = inspect.signature(named(function)).parameters
    own = {item.name for item in fields(named(path))}
    assert parameters["options"].default is None and parameters["changes"].kind is inspect.Parameter.VAR_KEYWORD
    assert own and not own & set(parameters)
    required = [name for name, found in parameters.items() if found.default is inspect.Parameter.empty]
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        named(function)(*("x" for _ in required[:-1]), colour="red")
    for options in (None, named(path)()):
        with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
            named(function)(*("x" for _ in required[:-1]), options=options, colour="red")


def test_defaults_that_depend_on_others():
    assert ImageNetEegOptions().standardization == "none"
    assert ImageNetEegOptions(variant="raw").standardization == "train"
    assert ImageNetEegOptions(variant="raw", standardize="none").standardization == "none"
    assert ThingsMegOptions().recipe == "paper" and ThingsMegOptions(route="derivative").recipe == "published"
    assert ThingsMegOptions(preprocessing="published").recipe == "published"


def test_options_load_nothing_heavy():
    modules = [f"neural_clip.{path.rpartition('.')[0]}" for path in FUNCTIONS]
    code = f"import sys, {', '.join(modules)}\nprint(*{{'pandas', 'scipy', 'torch'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
