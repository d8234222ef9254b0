"""Every command that the pages and docstrings show: today's spelling, known options, values that are allowed."""

import ast
import re
import shlex

import pytest

from neural_clip.commands import main as cli
from neural_clip.commands.options import Parser, todays_spelling
from neural_clip.training.recipe import read_recipe
from paths import REPOSITORY

PAGES = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("model_cards/*.md")]
PROGRAMS = [*REPOSITORY.glob("src/**/*.py"), *REPOSITORY.glob("dataset_scripts/*.py"), REPOSITORY / "train.py"]
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(?<!`)`(neural-clip [a-z][^`{]*)`")
BEGINNING = re.compile(
    r"(?:neural-clip|python dataset_scripts/\w+\.py|(?:python|accelerate launch[^\n]*?) train\.py) "
)


def commands(text):
    """Command lines of a text, one line each, without comments and the brackets of `[--option VALUE ...]`."""
    text = re.sub(r"\[(--.*?)(?: \.\.\.)?\]", r"\1", text)
    lines = (line.strip().removeprefix("$ ") for line in text.replace("\\\n", " ").splitlines())
    return [shlex.join(shlex.split(line, comments=True)) for line in lines if BEGINNING.match(line)]


def shown():
    """Whole commands: those of code blocks, and lines of modules' docstrings."""
    found = [line for page in PAGES for block in BLOCK.findall(page.read_text("utf-8")) for line in commands(block)]
    told = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "" for path in PROGRAMS)
    return sorted({*found, *(line for text in told for line in commands(text))})


def mentioned():
    """Commands within sentences, which may lack arguments."""
    found = {span for path in PAGES + PROGRAMS for span in SPAN.findall(path.read_text("utf-8"))}
    return sorted(" ".join(span.split()) for span in found if span.split()[1] in cli.COMMANDS)


class ParsedError(Exception):
    """The options are read; what follows would be the work."""


def read(line, monkeypatch, *, whole=True):
    """Read the options of a command as it would be run here, and stop there."""
    monkeypatch.chdir(REPOSITORY)
    words = shlex.split(line.replace("prepare CORPUS", "prepare nsd"))
    if "--help" in words:
        return
    if "train.py" in words:
        words = ["train", *words[words.index("train.py") + 1 :]]
    elif words[0] == "python":
        words = ["prepare", words[1].removeprefix("dataset_scripts/").removesuffix(".py"), *words[2:]]
    else:
        words = words[1:]
    if words[0] == "train":
        if whole:
            read_recipe(todays_spelling("train", words[1:]))
        return
    parse = Parser.parse_args

    def stop(self, args=None, namespace=None):
        if whole:
            parse(self, args, namespace)
        unknown = [word for word in args if word.startswith("--") and word.partition("=")[0] not in self.known]
        assert not unknown, f"{line}: {unknown}"
        raise ParsedError

    monkeypatch.setattr(Parser, "parse_args", stop)
    if words not in (["prepare"], ["gallery"]):  # which list what they do
        with pytest.raises(ParsedError):
            cli.main(words)


@pytest.mark.parametrize("line", shown())
def test_shown_commands_can_be_typed(line, monkeypatch, capsys):
    read(line, monkeypatch)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("line", mentioned())
def test_mentioned_commands_have_these_options(line, monkeypatch, capsys):
    read(line, monkeypatch, whole=False)
    assert capsys.readouterr().err == ""


def test_commands_are_found():
    found = [*shown(), *mentioned()]
    assert {line.split()[1] for line in found} >= set(cli.COMMANDS) - {"demo"}
    assert {"neural-clip report outputs/compared", "neural-clip push outputs/meg --repo you/meg-model"} <= set(shown())
    assert commands("$ neural-clip train a \\\n    --resume   # b\nx neural-clip\nneural-clip\n") == [
        "neural-clip train a --resume"
    ]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("neural-clip evaluate --checkpoint a --data eeg=b --output_dir c", None),
        ("python train.py base --overwrite true", None),
        ("neural-clip doctor data --jsn", SystemExit),
        ("neural-clip embed-images", SystemExit),
        ("neural-clip evalute", ValueError),
    ],
)
def test_a_command_that_is_out_of_date_is_noticed(line, fault, monkeypatch, capsys):
    if fault:
        with pytest.raises(fault):
            read(line, monkeypatch)
    else:
        read(line, monkeypatch)
        assert "old spelling" in capsys.readouterr().err
