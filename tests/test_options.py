"""Options of `prepare`: one field each, checked on the way in, and light to import."""

import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, fields
from importlib import import_module

import pytest

from neural_clip.corpora.imagenet_eeg.options import ImageNetEegOptions
from neural_clip.corpora.things_meg.options import ThingsMegOptions
from neural_clip.errors import DataError
from neural_clip.options import Options, option

CORPORA = {
    "custom": "CustomOptions",
    "imagenet_eeg": "ImageNetEegOptions",
    "nsd": "NsdOptions",
    "things_meg": "ThingsMegOptions",
}


@dataclass(frozen=True, kw_only=True)
class Some(Options):
    """Options of nothing."""

    colour: str = option("red", "of all", choices=("red", "green", "blue"))
    shape: str | None = option(None, "default any", choices=("round", "square"))
    sizes: tuple = option((1, 2), "two numbers", type=int, nargs=2)


def test_choices_are_checked():
    assert Some().shape is None and Some(colour="blue", shape="round").colour == "blue"
    words = "'colour' parameter. Allowed values are 'red', 'green' and 'blue', but got 'black' instead"
    with pytest.raises(DataError, match=words):
        Some(colour="black")
    with pytest.raises(DataError, match="Allowed values are 'round' and 'square', but got 'flat' instead"):
        Some(shape="flat")
    with pytest.raises(DataError, match=r"'colour' parameter.*but got None"):
        Some(colour=None)


def test_options_are_plain_values():
    assert Some(sizes=[3, 4]).sizes == (3, 4)
    with pytest.raises(FrozenInstanceError):
        Some().colour = "blue"


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_option_has_help_and_is_documented(corpus):
    kind = getattr(import_module(f"neural_clip.corpora.{corpus}.options"), CORPORA[corpus])
    documented = kind.__doc__.partition("Args:")[2]
    assert kind() == kind()
    for item in fields(kind):
        assert item.metadata["help"], item.name
        assert f"{item.name} (`" in documented or f"{item.name}, " in documented or f", {item.name} (" in documented


@pytest.mark.parametrize("corpus", CORPORA)
def test_an_unknown_option_is_an_error(corpus, tmp_path):
    prepare = import_module(f"neural_clip.corpora.{corpus}").prepare
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        prepare(tmp_path, tmp_path / "out", colour="red")


def test_defaults_that_depend_on_others():
    assert ImageNetEegOptions().standardization == "none"
    assert ImageNetEegOptions(variant="raw").standardization == "train"
    assert ImageNetEegOptions(variant="raw", standardize="none").standardization == "none"
    assert ThingsMegOptions().recipe == "paper" and ThingsMegOptions(route="derivative").recipe == "published"
    assert ThingsMegOptions(preprocessing="published").recipe == "published"


def test_options_load_nothing_heavy():
    modules = [f"neural_clip.corpora.{corpus}.options" for corpus in CORPORA]
    code = f"import sys, {', '.join(modules)}\nprint(*(n for n in ('numpy', 'pandas', 'torch') if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
