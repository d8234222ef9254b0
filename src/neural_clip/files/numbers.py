"""Numbers in text: of options, YAML files, tables and headers.

Python itself reads `1_5` as 15 and digits of any script, YAML 1.1 reads `010` as 8 and `1:30` as 90. Here a number is
what YAML 1.2 and JSON call one, in the digits 0 to 9; anything else is none.
"""

from __future__ import annotations

import math
import re

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
WHOLE = re.compile(r"[+-]?[0-9]+")
EXACT = 2**53  # whole numbers up to here are floats too, each its own


def number(text: str | bytes) -> int | float:
    """The number that a text is; spaces around it do not count.

    Returns:
        `int` or `float`: Whole where it is written without a point and has no fraction, such as `12` and `1e3`.

    Raises:
        ValueError: If it is none, or too large for one.
    """
    plain = (text if isinstance(text, str) else text.decode("latin-1")).strip(" ")
    if not NUMBER.fullmatch(plain):
        raise ValueError(f"{plain!r} is no finite number in the digits 0 to 9")
    if WHOLE.fullmatch(plain):
        return int(plain)
    value = float(plain) + 0.0  # -0.0 becomes 0.0
    if math.isinf(value):
        raise ValueError(f"{plain!r} is no finite number: it is too large")
    return int(value) if "." not in plain and value.is_integer() and abs(value) <= EXACT else value


def whole(text: str | bytes) -> int:
    """The whole number that a text is.

    Raises:
        ValueError: If it is none.
    """
    value = number(text)
    if isinstance(value, float):
        raise ValueError(f"{text!r} is no whole number")
    return value


def is_count(text: str) -> bool:
    """Whether a text is digits and nothing else."""
    return text.isascii() and text.isdecimal()
