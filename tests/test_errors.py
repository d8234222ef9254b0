"""Errors of bad values: they name the parameter, what was found and what is allowed."""

import re

import pytest

from neural_clip.errors import DataError, check_option, check_value


def test_allowed_options_pass():
    check_option("split", "test", ("train", "test"))
    check_option("size", 2, {1: "one", 2: "two"})


@pytest.mark.parametrize(
    ("value", "allowed", "message"),
    [
        ("tset", ("train", "test"), "'split' parameter. Allowed values are 'train' and 'test', but got 'tset' "
         "instead. Did you mean 'test'?"),
        (None, ["pt"], "'split' parameter. Allowed is 'pt', but got None instead."),
        (4, (1, 2, 3), "'split' parameter. Allowed values are 1, 2 and 3, but got 4 instead."),
    ],
)  # fmt: skip
def test_another_option_is_refused(value, allowed, message):
    with pytest.raises(DataError, match=re.escape(f"Invalid value for the {message}") + "$"):
        check_option("split", value, allowed)


def test_a_value_that_does_not_fit_is_refused():
    check_value("n", 1, True, "1 and more")
    with pytest.raises(DataError, match=r"^Invalid value for the 'n' parameter\. Allowed is 1 and more, but got 0"):
        check_value("n", 0, False, "1 and more")
