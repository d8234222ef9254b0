"""Options of `prepare`: each is a field of a dataclass, with its default, help and allowed values.

A field's metadata are the words of its command line option (`help`, `choices`, `metavar`, `nargs`, `type`, and `flag`
where the option is called otherwise). Modules of options import nothing heavy, so that `--help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from neural_clip.errors import check_option


def option(default: Any, help: str, **words: Any) -> Any:
    """Field of a dataclass of options; `help` tells the default only where that is `None`."""
    return field(default=default, metadata={"help": help, **words})


@dataclass(frozen=True)
class Options:
    """Base of the options of a corpus; lists become tuples.

    Raises:
        DataError: If a value is none of the field's choices. `None` is allowed where it is the default.
    """

    def __post_init__(self) -> None:
        """Check the choices."""
        for item in fields(self):
            value, choices = getattr(self, item.name), item.metadata.get("choices")
            if isinstance(value, list):
                object.__setattr__(self, item.name, tuple(value))
            if choices and not (value is None and item.default is None):
                check_option(item.name, value, choices)
