"""One dialect: options made of dataclasses, old spellings, misspellings."""

import inspect
import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import pytest

from neural_clip.commands.adapt import AdaptOptions
from neural_clip.commands.doctor import DoctorOptions
from neural_clip.commands.embed_images import EmbedOptions
from neural_clip.commands.evaluate import EvaluateOptions
from neural_clip.commands.options import OLD_SPELLINGS, read_options, todays_spelling
from neural_clip.commands.push import PushOptions
from neural_clip.commands.report import ReportOptions
from neural_clip.commands.simulate import SimulateOptions
from neural_clip.options import option


@dataclass
class Everything:
    folder: Path = option(MISSING, "100 % of it", type=Path, positional=True)
    repo: str = option(MISSING, "must be given")
    seed: int = option(3, "of all", type=int)
    rate: float | None = option(None, "per step", type=float, apart="amount")
    share: float = option(0.5, "of it", type=float, apart="amount")
    window: Sequence[int] = option((1, 2), "samples", type=int, nargs=2, metavar=("FIRST", "END"))
    kinds: Sequence[str] = option(("a", "b"), "which", choices=("a", "b", "gamma"), nargs="+")
    overwrite: bool = option(False, "replace")
    pictures: bool = option(True, "draw")
    renamed: str | None = option(None, "has another name", flag="--other-name")


def read(*words, command="any"):
    return read_options(command, "About.", ["here", "--repo", "a/b", *words], Everything)[0]


def test_defaults_are_those_of_the_dataclass():
    assert read() == Everything(Path("here"), "a/b")


def test_values_are_converted():
    words = ["--seed", "5", "--rate", "1e-3", "--window", "4", "9", "--kinds", "gamma", "a", "--overwrite"]
    found = read(*words, "--no-pictures", "--other-name", "x")
    assert found == Everything(
        Path("here"), "a/b", 5, 1e-3, 0.5, [4, 9], ["gamma", "a"], overwrite=True, pictures=False, renamed="x"
    )
    assert type(found.seed) is int and type(found.rate) is float


def test_two_dashes_end_the_options():
    (found,) = read_options("any", None, ["--repo", "r", "--kinds", "a", "--", "--no_folder"], Everything)
    assert (found.folder, found.kinds) == (Path("--no_folder"), ["a"])
    assert todays_spelling("train", ["--", "--output_dir"]) == ["--", "--output_dir"]


def test_several_dataclasses_share_a_command_line():
    @dataclass
    class More:
        subjects: Sequence[str] | None = option(None, "who", nargs="+")

    words = ["x", "--subjects", "s1", "s2", "--repo", "r", "--seed=1"]
    first, second = read_options("any", None, words, Everything, More)
    assert (first.seed, second.subjects) == (1, ["s1", "s2"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--overwrit"], "There is no option '--overwrit'. Did you mean '--overwrite'?"),
        (["--seeed=1"], "There is no option '--seeed'. Did you mean '--seed'?"),
        (["--over"], "There is no option '--over'"),  # no abbreviations
        (["--seed", "x"], "argument --seed: Allowed is a whole number, but got 'x' instead."),
        (["--seed", "1.5"], "argument --seed: Allowed is a whole number, but got '1.5' instead."),
        (["--rate", "fast"], "argument --rate: Allowed is a number, but got 'fast' instead."),
        (["--kinds", "gama"], "argument --kinds: invalid choice: 'gama'. Allowed values are 'a', 'b' and 'gamma'. "
         "Did you mean 'gamma'?"),
        (["--rate", "1", "--share", "1"], "argument --share: not allowed with argument --rate"),
        (["--overwrite", "true"], "unrecognized arguments: true"),
        (["--window", "1"], "argument --window: expected 2 arguments"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_that_names_the_option(words, told, capsys):
    with pytest.raises(SystemExit) as stop:
        read(*words)
    shown = capsys.readouterr()
    assert stop.value.code == 2 and shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ") and told in line


def test_what_must_be_given_is_named(capsys):
    with pytest.raises(SystemExit) as stop:
        read_options("any", None, [], Everything)
    assert stop.value.code == 2
    assert "required: folder, --repo" in capsys.readouterr().err


def test_help_shows_defaults(capsys):
    with pytest.raises(SystemExit) as stop:
        read("--help", "--unknown")
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "About." in shown and "100 % of it" in shown
    for told in ("of all (default: 3)", "samples (default: 1 2)", "which (default: a b)", "of it (default: 0.5)"):
        assert told in shown
    assert shown.count("(default: ") == 4  # neither of switches nor of what is not given


@pytest.mark.parametrize(
    ("command", "old", "today", "told"),
    [
        ("evaluate", ["--no-audits"], ["--no-controls"], "'--no-audits' is an old spelling .* write '--no-controls'"),
        ("evaluate", ["--no_audits"], ["--no-controls"], "'--no_audits' is an old spelling .* write '--no-controls'"),
        ("push", ["--revision-message", "a b"], ["--message", "a b"], "write '--message'"),
        ("push", ["--revision-message=a_b"], ["--message=a_b"], "write '--message'"),
        ("prepare things_meg", ["--split", "large"], ["--split-protocol", "large"], "write '--split-protocol'"),
        ("prepare imagenet_eeg", ["--image-dir", "x"], ["--images-dir", "x"], "write '--images-dir'"),
        ("train", ["--overwrite", "true"], ["--overwrite"], "'--overwrite true' is an old .* write '--overwrite'"),
        ("train", ["--overwrite=True"], ["--overwrite"], "'--overwrite=True' is an old .* write '--overwrite'"),
        ("train", ["--resume", "true", "--seed", "1"], ["--resume", "--seed", "1"], "write '--resume'"),
        ("train", ["--push_to_hub", "true"], ["--push-to-hub"], "write '--push-to-hub'"),
        ("train", ["--resume", "false"], [], "'--resume false' is an old spelling .* leave it out"),
        ("train", ["--output_dir", "a_b"], ["--output-dir", "a_b"], "'--output_dir' .* write '--output-dir'"),
        ("doctor", ["--num_proc", "2"], ["--num-proc", "2"], "write '--num-proc'"),
    ],
)
def test_old_spellings_work_and_say_so(command, old, today, told, capsys):
    assert todays_spelling(command, old) == today
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ") and line.endswith(".") and "version 0.3" in line
    assert re.search(told, line)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["base", "--training.learning_rate", "1e-3", "--model.eeg.hidden_size=64", "--data", "eeg=a_b"]),
        ("train", ["base", "--overwrite", "--resume", "--use-cpu", "true"]),
        ("doctor", ["--json", "true"]),  # a folder
        ("evaluate", ["--no-baselines", "--split", "test", "--seed", "-1"]),
    ],
)
def test_todays_spelling_is_left_alone(command, words, capsys):
    assert todays_spelling(command, words) == words
    assert capsys.readouterr().err == ""


def test_old_spellings_name_options_that_exist():
    known = {name.replace("_", "-") for kind in (EvaluateOptions, PushOptions) for name in kind.__annotations__}
    for command in ("evaluate", "push"):
        for today in OLD_SPELLINGS[command].values():
            assert today.removeprefix("--").removeprefix("no-") in known


def _signatures():
    from neural_clip.evaluation.run import evaluate_checkpoints
    from neural_clip.prepared.doctor.inspect import inspect as examine
    from neural_clip.publishing.push import push
    from neural_clip.report.write import write_report
    from neural_clip.simulation.simulate import simulate
    from neural_clip.targets.embed_images import embed_images
    from neural_clip.training.adapt import adapt

    return [
        (AdaptOptions, adapt, {"data": "folder"}),
        (DoctorOptions, examine, {"json": None}),
        (EmbedOptions, embed_images, {}),
        (EvaluateOptions, evaluate_checkpoints, {"checkpoint": "checkpoints", "pictures": None}),
        (PushOptions, push, {}),
        (ReportOptions, write_report, {"report": "path"}),
        (SimulateOptions, simulate, {}),
    ]


def test_options_have_the_defaults_of_the_functions():
    """A command does what a call without arguments does."""
    for kind, function, renamed in _signatures():
        parameters = inspect.signature(function).parameters
        for item in fields(kind):
            name = renamed.get(item.name, item.name)
            if name is None or (kind, name) in ((SimulateOptions, "preset"),):
                continue
            assert name in parameters, (function, name)
            expected, found = parameters[name].default, item.default
            if (kind, name) in ((EmbedOptions, "pooling"), (EmbedOptions, "revision")):
                (found,) = found  # one for all
                found = found or None
            assert found == (MISSING if expected is inspect.Parameter.empty else expected), (function, name)
