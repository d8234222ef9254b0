"""A section of a manifest, checked against the dataclass that describes it."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import TypeVar

from neural_clip.errors import DataError, did_you_mean

Section = TypeVar("Section")


def built(content: object, kind: type[Section], where: str, choices: Mapping[str, Sequence]) -> Section:
    """Make the dataclass `kind` of a mapping.

    Raises:
        DataError: As [`checked`] does.
    """
    return kind(**checked(content, kind, where, choices))


def checked(content: object, kind: type, where: str, choices: Mapping[str, Sequence]) -> dict:
    """Keys and values of a mapping that are fields of the dataclass `kind`.

    Args:
        content (`object`): What YAML gave.
        kind (`type`): A dataclass.
        where (`str`): The place in the manifest, for the message.
        choices (`Mapping[str, Sequence]`): Allowed values of the keys that have a list of them.

    Raises:
        DataError: If `content` is no mapping, a key is unknown or missing, or a value is not allowed.
    """
    if not isinstance(content, dict):
        raise DataError(f"{where} must be a mapping of keys to values, but is {type(content).__name__}.")
    hints = typing.get_type_hints(kind)
    for key, value in content.items():
        if key not in hints:
            near = did_you_mean(str(key), hints) or f" Known keys are {sorted(hints)}."
            raise DataError(f"{where}: unknown key {key!r}.{near}")
        _check_value(key, value, hints[key], where, choices.get(key))
    required = [
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if lacking := [name for name in required if name not in content]:
        raise DataError(f"{where} lacks {', '.join(map(repr, lacking))}.")
    for name in required:
        if isinstance(content[name], str) and not content[name].strip():
            raise DataError(f"{where}: {name!r} is empty.")
    return dict(content)


def check_interval(value: Sequence | None, key: str, where: str, *, open_ends: bool = False) -> None:
    """Check `[first, last]` in s, `first` before `last`; with `open_ends`, null stands for the end of the window."""
    if value is None:
        return
    ends = [end for end in value if end is not None] if open_ends else list(value)
    good = len(value) == 2 and all(_fits(end, float) for end in ends)
    if not good or (len(ends) == 2 and not (ends[0] < ends[1] or (open_ends and ends[0] == ends[1]))):
        null = ", or null for an end of the window" if open_ends else ""
        raise DataError(f"{where}: {key!r} is [first, last] in s{null}, but got {value}.")


def check_unique(names: Sequence | None, key: str, where: str) -> None:
    """Check that names are text and none is listed twice."""
    for name in names or []:
        if not isinstance(name, str):
            raise DataError(f"{where}: {key!r} lists names, but got {name!r}; write it in quotes.")
    repeated = sorted({name for name in names or [] if list(names or []).count(name) > 1})
    if repeated:
        raise DataError(f"{where}: {key!r} lists {repeated[0]!r} twice.")


def check_plain(value: object, where: str) -> None:
    """Check that a value is what a data card and JSON can hold: text and numbers, in lists and under names."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise DataError(f"{where} has the name {name!r}; write it in quotes.")
            check_plain(item, f"{where}, {name!r}")
    elif isinstance(value, list):
        for item in value:
            check_plain(item, where)
    elif not isinstance(value, str | int | float | None) or value in (math.inf, -math.inf) or value != value:
        raise DataError(f"{where} holds {value!r}; allowed are text and finite numbers, in lists and under names.")


def _check_value(key: str, value: object, hint: object, where: str, choices: Sequence | None) -> None:
    if choices and value is not None and value not in choices:
        names = ", ".join(repr(choice) for choice in choices)
        raise DataError(f"{where}: Invalid value for {key!r}. Allowed values are {names}, but got {value!r} instead.")
    if not _fits(value, hint):
        quotes = " Write names that look like numbers in quotes." if isinstance(value, int) else ""
        raise DataError(f"{where}: {key!r} must be {_type_name(hint)}, but got {value!r}.{quotes}")
    if isinstance(value, str) and "\0" in value:
        raise DataError(f"{where}: {key!r} holds a zero byte: {value!r}.")


def _allowed_types(hint: object) -> tuple:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _fits(value: object, hint: object) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return False
    for kind in _allowed_types(hint):
        if dataclasses.is_dataclass(kind):
            return True  # checked as a section of its own
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return True
        if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
            return True
    return False


def _type_name(hint: object) -> str:
    names = {
        "str": "text", "float": "a number", "int": "a whole number", "dict": "a mapping",
        "list": "a list", "bool": "true or false",
    }  # fmt: skip
    kinds = [kind for kind in _allowed_types(hint) if kind is not type(None)]
    return " or ".join(names.get(kind.__name__, kind.__name__) for kind in kinds)
