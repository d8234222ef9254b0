"""The one dialect of options: a parser made of dataclasses, old spellings, and the nearest of what was misspelt.

A field is an option: its name in kebab-case, its default, and as metadata `help` and whatever else
`ArgumentParser.add_argument` takes. Besides these, `flag` gives the option another name, `positional` takes the name
away, and of the options with the same `apart` one may be given. A `bool` is a switch without a value, `--no-x` where
it is on by default. A field without a default must be given.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from neural_clip.errors import DataError, check_value, did_you_mean
from neural_clip.files import numbers
from neural_clip.options import option
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet

# What is written otherwise by now, by command; the old spellings still work. Besides these, underscores in long
# options became dashes (`--output_dir`); dotted names of settings in a recipe keep theirs.
OLD_SPELLINGS: dict[str, dict[str, str]] = {
    **{key: {"--pictures": "--images-dir"} for key in ("decode", "encode", "convert", "search")},
    "demo": {"--vision-model": "--model"},
    "evaluate": {"--no-audits": "--no-controls", "--no-baselines": "--baselines=none"},
    "prepare imagenet_eeg": {"--image-dir": "--images-dir"},
    "prepare things_meg": {"--split": "--split-protocol"},
    "push": {"--revision-message": "--message"},
    "train": {
        f"--{switch} {value}": f"--{switch}" if value == "true" else ""
        for switch in ("overwrite", "resume", "push-to-hub")
        for value in ("true", "false")
    },
}
FIRST_NAME = "neural_clip"  # of the first checkpoint, unless it is given another
TYPED: dict[str, str] = {}  # of the command that was read last: its options as they are typed, by their Python names
PYTHON_NAME = re.compile(  # of an argument, in a message
    r"'(\w+)'(?=(?:(?:,| and) '\w+')* parameters?\b| is missing)|(?<=\bby )'(\w+)'|(?<=\bneeds )'(\w+)'"
)
OWN_WORDS = ("help", "flag", "positional", "apart", "least")  # metadata that argparse does not know
NUMBERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    int: (numbers.whole, "a whole number"), float: (numbers.number, "a number"),
}  # fmt: skip


@dataclass
class ClusterOptions:
    """Where the units of the work are done; see [`on_cluster`]."""

    cluster: str | None = option(
        None, "address of a Dask scheduler, such as tcp://host:8786; its workers do the work (docs/scale.md)",
        metavar="ADDRESS",
    )  # fmt: skip


def read_options(command: str, about: str | None, argv: Sequence[str] | None, *kinds: Any) -> tuple[Any, ...]:
    """Read the arguments of a command.

    Args:
        command (`str`): Its name, as [`OLD_SPELLINGS`] has it.
        about (`str`): What it does, for `--help`.
        argv (`Sequence[str]`, *optional*): Arguments without the program's name; `sys.argv[1:]` by default.
        *kinds (`type`): Dataclasses; their fields are the options.

    Returns:
        `tuple`: An object of each of `kinds`.

    Raises:
        SystemExit: After the help (code 0), or a line on stderr that says what is wrong (code 2).
    """
    parser = Parser(
        description=inspect.cleandoc(about or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    groups: dict[str, Any] = {}
    TYPED.clear()
    for item in (item for kind in kinds for item in fields(kind)):
        apart = item.metadata.get("apart", "")
        if apart and apart not in groups:
            groups[apart] = parser.add_mutually_exclusive_group()
        names = _add(groups.get(apart, parser), item)
        parser.known += names
        if names:
            TYPED[item.name] = names[0]
    found = vars(parser.parse_args(todays_spelling(command, words_of(argv))))
    return tuple(kind(**{item.name: found[item.name] for item in fields(kind)}) for kind in kinds)


def as_typed(message: str) -> str:
    """A message of Python with the options of the command that was read last as they are typed: `'--top-k'`."""

    def typed(found: re.Match) -> str:
        name = next(filter(None, found.groups()))
        return f"'{TYPED.get(name, name)}'"

    return re.sub(r"('--[\w-]+' parameter) \(--[\w-]+\)", r"\1", PYTHON_NAME.sub(typed, message))


def words_of(argv: Sequence[str] | None) -> Sequence[str]:
    """Arguments without the program's name: those given, or of this process."""
    return sys.argv[1:] if argv is None else argv


class Parser(argparse.ArgumentParser):
    """A parser that answers mistakes in one line and names the nearest option."""

    known: tuple[str, ...] = ("-h", "--help")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, but look at the names first: a misspelt one is not told as a missing one."""
        words: list[str] = list(takewhile(lambda word: word != "--", args))
        for name in (word.partition("=")[0] for word in words if not {"-h", "--help"} & set(words)):
            if name.startswith("--") and name not in self.known:
                self.error(f"There is no option '{name}'.{did_you_mean(name, self.known)}")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Leave with code 2 and one line."""
        self.exit(2, f"error: {message} ('{self.prog} --help' explains the options.)\n")


def todays_spelling(command: str, argv: Sequence[str]) -> list[str]:
    """Arguments in today's spelling, with a line on stderr for each old one."""
    renamed, rest = OLD_SPELLINGS.get(command, {}), list(argv)
    words: list[str] = []
    while rest:
        word = rest.pop(0)
        if word == "--":  # what follows are no options
            return [*words, word, *rest]
        name, equals, value = word.partition("=")
        if not name.startswith("--") or "." in name:
            words.append(word)
            continue
        dashed = name.replace("_", "-")
        with_value = f"{dashed} {(value if equals else rest[0] if rest else '').lower()}"
        if with_value in renamed:
            today, word = renamed[with_value], word if equals else f"{word} {rest.pop(0)}"
            words += [today] if today else []
            advice = f"write '{today}'" if today else "leave it out"
        else:
            today = renamed.get(dashed, dashed)
            words.append(today + equals + value)
            word, advice = name, f"write '{today}'"
        if today != word:
            print(f"warning: '{word}' is an old spelling; {advice}.", file=sys.stderr)
    return words


def named_checkpoints(arguments: Sequence[str]) -> dict[str, str]:
    """Names and places of `[NAME=]PATH` arguments.

    Without a name, the first is called `neural_clip` and others as their folder.

    Raises:
        DataError: If two have one name, or a name or place is empty.
    """
    found: dict[str, str] = {}
    for number, argument in enumerate(arguments):
        name, separator, path = argument.partition("=")
        if not separator or "/" in name:  # a path that has an equals sign in it
            name, path = FIRST_NAME if number == 0 else Path(argument).name, argument
        check_value("--checkpoint", argument, bool(name.strip() and path), "[NAME=]PATH")
        if name in found:
            raise DataError(f"'{found[name]}' and '{path}' are both called '{name}'; name them as NAME=PATH.")
        found[name] = path
    return found


def open_data_set(
    argument: str, parameter: str = "--data", streaming: bool = False, most_kept: int | None = None
) -> PreparedSet:
    """The data set of a `MODALITY=FOLDER` argument; a `DataError` unless it holds recordings of that modality."""
    modality, separator, folder = argument.partition("=")
    fits = bool(separator) and modality in MODALITIES
    *others, last = (f"{name}=FOLDER" for name in MODALITIES)
    check_value(parameter, argument, fits, f"{', '.join(others)} or {last}")
    data = PreparedSet.open(folder, streaming, most_kept)
    if data.facts.modality != modality:
        raise DataError(f"'{argument}' says {modality}, but the data set holds {data.facts.modality} recordings.")
    return data


def _add(parser: Any, item: Field) -> tuple[str, ...]:
    """Add the option of a field; returns its names."""
    words = {key: value for key, value in item.metadata.items() if key not in OWN_WORDS}
    name = item.metadata.get("flag", f"--{item.name.replace('_', '-')}")
    if isinstance(item.default, bool):
        words["action"] = argparse.BooleanOptionalAction if item.default else "store_true"
    elif choices := words.pop("choices", None):
        words = {"metavar": "{" + ",".join(choices) + "}"} | words | {"type": _one_of(choices)}
    elif words.get("type") in NUMBERS:
        words["type"] = _number(words["type"])
    elif words.get("type") is Path:
        words["type"] = _path
    if not words.get("action") and (metavar := _metavar(item)):
        words.setdefault("metavar", metavar)
    if item.metadata.get("positional"):
        action = parser.add_argument(item.name, **words)
    elif item.default is MISSING:
        action = parser.add_argument(name, dest=item.name, required=True, **words)
    else:
        action = parser.add_argument(name, dest=item.name, default=item.default, **words)
    action.help = item.metadata["help"].replace("%", "%%") + _shown(item.default)
    return tuple(action.option_strings)


def _metavar(item: Field) -> str | None:
    """What stands for a number, a file or a folder; other values are called as their option."""
    kind: Any = item.metadata.get("type")
    if kind is Path and not item.metadata.get("positional"):
        return "FILE" if item.name.endswith("_file") else "FOLDER"
    return {int: "N", float: "X"}.get(kind)


def _shown(default: Any) -> str:
    """How the help tells a default; switches and what is not given by default have none."""
    if default is MISSING or default is None or isinstance(default, bool):
        return ""
    text = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f" (default: {text})" if text else ""


def _one_of(choices: Sequence[str]) -> Callable[[str], str]:
    def choice(text: str) -> str:
        if text not in choices:
            *first, last = (f"'{known}'" for known in choices)
            allowed = f"{', '.join(first)} and {last}" if first else last
            raise argparse.ArgumentTypeError(
                f"invalid choice: '{text}'. Allowed values are {allowed}.{did_you_mean(text, choices)}"
            )
        return text

    return choice


def _path(text: str) -> Path:
    if not text:  # `Path` would take the current folder, as for a shell variable that is not set
        raise argparse.ArgumentTypeError("Allowed is the name of a file or folder, but got '' instead.")
    return Path(text)


def _number(kind: Callable[[Any], Any]) -> Callable[[str], Any]:
    read, allowed = NUMBERS[kind]

    def value(text: str) -> Any:
        try:
            return kind(read(text))
        except (ValueError, OverflowError) as error:
            words = f"Allowed is {allowed} in the digits 0 to 9, but got '{text}' instead."
            raise argparse.ArgumentTypeError(words) from error

    return value
