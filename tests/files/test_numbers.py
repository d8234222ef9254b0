"""Numbers in text: digits 0 to 9, one meaning wherever they stand."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neural_clip.errors import DataError
from neural_clip.files.numbers import is_count, number, whole
from neural_clip.files.reading import parse_yaml

NONE = [
    "٣",
    "１５",
    "²",
    "Ⅷ",
    "1_000",
    "0x10",
    "0b1",
    "1:30",
    "nan",
    "inf",
    "-inf",
    "1e",
    "e3",
    ".",
    "",
    "1,5",
    "1 0",
    "５",
]


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30))
def test_numbers_that_python_and_json_write_are_read_back(value):
    for text in (repr(value), json.dumps(value), f" {value!r} "):
        assert number(text) == value == number(text.encode())
        assert parse_yaml(text, "x") == value


@given(st.floats(1e-9, 1e9))
def test_exponents_need_no_point(value):
    text = f"{value:.0e}"
    assert number(text) == parse_yaml(text, "x") == float(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e3", 1000), ("2E+2", 200), ("010", 10), ("008", 8), ("+5", 5), ("-0", 0), ("9007199254740993", 2**53 + 1)],
)
def test_whole_numbers(text, value):
    assert whole(text) == number(text) == parse_yaml(text, "x") == value
    assert type(number(text)) is type(parse_yaml(text, "x")) is int


@pytest.mark.parametrize("text", ["1.0", ".5", "5.", "1e-3", "1.0e3", "1e300"])
def test_numbers_that_are_not_written_as_whole_ones(text):
    assert number(text) == parse_yaml(text, "x") == float(text) and type(number(text)) is float
    with pytest.raises(ValueError, match="no whole number"):
        whole(text)


def test_zero_has_one_sign():
    assert math.copysign(1, number("-0.0")) == math.copysign(1, parse_yaml("-0.0", "x")) == 1


@pytest.mark.parametrize("text", NONE)
def test_what_python_or_yaml_1_1_take_for_numbers_is_none(text):
    with pytest.raises(ValueError, match="no finite number in the digits 0 to 9"):
        number(text)
    assert not isinstance(parse_yaml(text, "x"), int | float)
    assert not is_count(text)


def test_what_is_too_large_is_no_number():
    with pytest.raises(ValueError, match="too large"):
        number("1e400")
    with pytest.raises(DataError, match=r"^x: .*'1e400'.* too large"):
        parse_yaml("a: 1e400", "x")


def test_text_in_quotes_stays_text():
    assert parse_yaml("['1e3', \"010\", sub-1e3, 1.2.3, .nan]", "x")[:4] == ["1e3", "010", "sub-1e3", "1.2.3"]
