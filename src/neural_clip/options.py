"""Options of a function and of its command, written once: a field each, with default, help and allowed values.

A function takes its options as one object, or by name: `prepare(raw_dir, output_dir, options=None, **changes)`. A
field's metadata are the words of its command line option (`help`, `choices`, `metavar`, `nargs`, `type`, `flag`
where the option is called otherwise) and `least`, the smallest number that is allowed. The help says what an option
does; the docstring of the dataclass adds what is too long for it. Modules of options import nothing heavy, so that
`--help` answers at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from .errors import check_option, check_value

MOST = 2**32 - 1  # of whole numbers: the largest seed of NumPy's old generator, which transformers sets
KINDS: dict[Any, tuple[Any, float, str]] = {
    int: (Integral, MOST + 1, f"a whole number up to {MOST:,}"), float: (Real, math.inf, "a finite number"),
}  # fmt: skip


def option(default: Any, help: str, **words: Any) -> Any:
    """Field of a dataclass of options; `help` tells the default only where that is `None`."""
    return field(default=default, metadata={"help": help, **words})


@dataclass(frozen=True)
class Options:
    """Base of the options of a function; lists become tuples.

    Raises:
        DataError: If a value, or one of several, is no number where the field has numbers, none of its choices, or
            below its least. `None` is allowed where it is the default.
    """

    def __post_init__(self) -> None:
        """Check numbers, choices and least values."""
        for item in fields(self):
            value: Any
            value, choices, least = getattr(self, item.name), item.metadata.get("choices"), item.metadata.get("least")
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, item.name, value)
            if value is None and item.default is None:
                continue
            if (kind := item.metadata.get("type")) in KINDS:
                numbers, most, allowed = KINDS[kind]
                for one in value if isinstance(value, tuple) else (value,):
                    fits = isinstance(one, numbers) and not isinstance(one, bool) and -most < one < most
                    check_value(item.name, one, fits, allowed)
            if least is not None:
                for one in value if isinstance(value, tuple) else (value,):
                    check_value(item.name, one, one >= least, f"{least} and more")
            if choices:
                for one in value if "nargs" in item.metadata and isinstance(value, tuple) else (value,):
                    check_option(item.name, one, choices)

    @property
    def places(self) -> list[str | Path]:
        """Files and folders that are named."""
        values = ((item.metadata.get("type"), getattr(self, item.name)) for item in fields(self))
        return [value for kind, value in values if kind is Path and value]


def option_of(kind: Any, name: str) -> Any:
    """The same field as another dataclass of options has."""
    return next(field(default=item.default, metadata=item.metadata) for item in fields(kind) if item.name == name)
