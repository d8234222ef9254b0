"""One dialect: options made of dataclasses, old spellings, misspellings."""

import importlib
import inspect
import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path

import pytest

import neural_clip
from neural_clip.commands.doctor import DoctorOptions
from neural_clip.commands.options import OLD_SPELLINGS, named_checkpoints, open_data_set, read_options, todays_spelling
from neural_clip.commands.push import PushOptions
from neural_clip.commands.report import ReportOptions
from neural_clip.errors import DataError
from neural_clip.evaluation.options import EvaluateOptions
from neural_clip.options import option
from neural_clip.prepared.doctor.inspect import inspect as examine
from neural_clip.publishing.push import push
from neural_clip.report.write import write_report
from planted_data import write_planted


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
        (["--seed", "x"], "argument --seed: Allowed is a whole number in the digits 0 to 9, but got 'x' instead."),
        (["--seed", "1.5"], "argument --seed: Allowed is a whole number in the digits 0 to 9, but got '1.5' instead."),
        (["--rate", "fast"], "argument --rate: Allowed is a number in the digits 0 to 9, but got 'fast' instead."),
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


def kinds_with_numbers():
    """Dataclasses of options that have numbers, of all commands."""
    package = Path(neural_clip.__file__).parent
    paths = [*package.rglob("options.py"), *package.glob("commands/*.py")]
    modules = [".".join(path.relative_to(package.parent).with_suffix("").parts) for path in sorted(paths)]
    found = [value for name in modules for value in vars(importlib.import_module(name)).values()]
    kinds = {kind for kind in found if isinstance(kind, type) and is_dataclass(kind)}
    numbers = [kind for kind in kinds if any(item.metadata.get("type") in (int, float) for item in fields(kind))]
    return sorted(numbers, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", kinds_with_numbers(), ids=lambda kind: kind.__name__)
def test_numbers_of_every_command_have_the_digits_0_to_9(kind, capsys):
    """Python takes the first four for numbers."""
    must = [word for item in fields(kind) if item.default is MISSING for word in _given(item)]
    for item in fields(kind):
        if item.metadata.get("type") in (int, float):
            for text in ("٣", "１", "1_0", "nan", "²", "0x1", "1e400", "9" * 5000):
                words = [_flag(item), *[text] * (item.metadata["nargs"] if item.metadata.get("nargs") == 2 else 1)]
                with pytest.raises(SystemExit) as stop:
                    read_options("any", None, [*must, *words], kind)
                shown = capsys.readouterr().err
                assert stop.value.code == 2 and f"argument {_flag(item)}: Allowed is a" in shown, (item.name, text)
                assert f"in the digits 0 to 9, but got '{text}' instead" in shown


def _flag(item):
    return item.metadata.get("flag", f"--{item.name.replace('_', '-')}")


def _given(item):
    value = next(iter(item.metadata.get("choices", ["x"])))
    return [value] if item.metadata.get("positional") else [_flag(item), value]


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
        ("evaluate", ["--no-audits"], ["--no-controls"], "'--no-audits' is an old .* write '--no-controls'"),
        (
            "evaluate",
            ["--no-baselines"],
            ["--baselines=none"],
            "'--no-baselines' is an old .* write '--baselines=none'",
        ),
        ("evaluate", ["--no_audits"], ["--no-controls"], "'--no_audits' is an old .* write '--no-controls'"),
        ("push", ["--revision-message", "a b"], ["--message", "a b"], "write '--message'"),
        ("push", ["--revision-message=a_b"], ["--message=a_b"], "write '--message'"),
        ("prepare things_meg", ["--split", "large"], ["--split-protocol", "large"], "write '--split-protocol'"),
        ("prepare imagenet_eeg", ["--image-dir", "x"], ["--images-dir", "x"], "write '--images-dir'"),
        ("train", ["--overwrite", "true"], ["--overwrite"], "'--overwrite true' is an old .* write '--overwrite'"),
        ("train", ["--overwrite=True"], ["--overwrite"], "'--overwrite=True' is an old .* write '--overwrite'"),
        ("train", ["--resume", "true", "--seed", "1"], ["--resume", "--seed", "1"], "write '--resume'"),
        ("train", ["--push_to_hub", "true"], ["--push-to-hub"], "write '--push-to-hub'"),
        ("train", ["--resume", "false"], [], "'--resume false' is an old spelling; leave it out"),
        ("train", ["--output_dir", "a_b"], ["--output-dir", "a_b"], "'--output_dir' .* write '--output-dir'"),
        ("doctor", ["--num_proc", "2"], ["--num-proc", "2"], "write '--num-proc'"),
    ],
)
def test_old_spellings_work_and_say_so(command, old, today, told, capsys):
    assert todays_spelling(command, old) == today
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ") and line.endswith(".")
    assert re.search(told, line)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["base", "--training.learning_rate", "1e-3", "--model.eeg.hidden_size=64", "--data", "eeg=a_b"]),
        ("train", ["base", "--overwrite", "--resume", "--use-cpu", "true"]),
        ("doctor", ["--json", "true"]),  # a folder
        ("evaluate", ["--baselines", "none", "--split", "test", "--seed", "-1"]),
    ],
)
def test_todays_spelling_is_left_alone(command, words, capsys):
    assert todays_spelling(command, words) == words
    assert capsys.readouterr().err == ""


def test_old_spellings_name_options_that_exist():
    known = {name.replace("_", "-") for kind in (EvaluateOptions, PushOptions) for name in kind.__annotations__}
    for command in ("evaluate", "push"):
        for today in OLD_SPELLINGS[command].values():
            assert today.partition("=")[0].removeprefix("--").removeprefix("no-") in known


def test_options_have_the_defaults_of_the_functions():
    """What is no dataclass of its own is said twice: a command does what a call without arguments does."""
    for kind, function, names in (
        (DoctorOptions, examine, ["folder", "num_proc"]),
        (PushOptions, push, ["folder", "repo", "public", "scores", "message"]),
        (ReportOptions, write_report, ["path", "pictures", "data"]),
    ):
        given = [item for item in fields(kind) if item.name != "json"]
        parameters = inspect.signature(function).parameters
        for item, name in zip(given, names, strict=True):
            expected = parameters[name].default
            assert item.default == (MISSING if expected is inspect.Parameter.empty else expected), (function, name)


def test_checkpoints_have_names():
    assert named_checkpoints(["runs/a"]) == {"neural_clip": "runs/a"}
    assert named_checkpoints(["new=runs/a", "runs/b", "runs/lr=1e-3"]) == {
        "new": "runs/a", "b": "runs/b", "lr=1e-3": "runs/lr=1e-3"
    }  # fmt: skip
    for arguments, message in (
        (["runs/a", "neural_clip=runs/b"], "both called 'neural_clip'"),
        (["x/a", "runs/b", "other/b"], "both called 'b'"),
        (["=runs/a"], "got '=runs/a'"),
        (["a="], "got 'a='"),
    ):
        with pytest.raises(DataError, match=message):
            named_checkpoints(arguments)


def test_data_sets_are_given_with_their_modality(tmp_path):
    for argument in ("x", "egg=x", "=x"):
        with pytest.raises(DataError, match=f"Allowed is eeg=FOLDER, meg=FOLDER or fmri=FOLDER, but got '{argument}'"):
            open_data_set(argument)
    folder = write_planted(tmp_path / "eeg", "eeg", pixels=False)
    assert open_data_set(f"eeg={folder}").folder == folder
    with pytest.raises(DataError, match=f"'meg={folder}' says meg, but the data set holds eeg recordings"):
        open_data_set(f"meg={folder}")
