"""Tables: which rows are kept, and what onsets may be counted in."""

from pathlib import Path

import numpy as np
import pytest

from neural_clip.errors import DataError
from neural_clip.files.tables import is_same_number, kept, numbers, read_columns, unit_of_onsets, whole_number

CELLS = ["1", "1.0", "01", "1e0", "2", "one", "True", "yes", "NO", "", "nan"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1], ["1", "1.0", "01", "1e0"]),
        ([1.0], ["1", "1.0", "01", "1e0"]),
        (1, ["1", "1.0", "01", "1e0"]),
        (["1"], ["1"]),  # in quotes: the text
        ([True], ["True", "yes"]),  # as YAML reads `yes`
        ([False], ["NO"]),
        ([True, 1], ["1", "1.0", "01", "1e0", "True", "yes"]),
        (["one", 2], ["2", "one"]),
        ([float("nan"), "one"], ["one"]),
    ],
)
def test_a_number_stands_for_all_ways_to_write_it_and_text_for_itself(values, expected):
    chosen = kept([{"x": cell} for cell in CELLS], {"x": values}, "t.csv")
    assert [cell for cell, keep in zip(CELLS, chosen, strict=True) if keep] == expected


@pytest.mark.parametrize(
    ("text", "value", "same"),
    [("1.0", 1, True), ("1", 1.0, True), ("1", 1, True), ("1", "1.0", False), ("one", 1, False), ("1", True, False)],
)
def test_labels_of_arrays_are_numbers_of_the_manifest(text, value, same):
    assert is_same_number(text, value) == same


@pytest.mark.parametrize("text", ["1_5", "١٥", "１５", "15\u2007", "one", ""])
def test_numbers_of_tables_have_the_digits_0_to_9_and_no_underscore(text):
    """Python takes the first four for 15; in a table `1_5` is a name."""
    with pytest.raises(
        DataError, match=r"'t.csv', column 'onset', row 3: .* is no finite number in the digits 0 to 9"
    ):
        numbers([text], "onset", "t.csv", np.array([3]))
    with pytest.raises(DataError, match=r"'t.csv': line 4 should have a whole number as x, but has "):
        whole_number(Path("t.csv"), 4, "x", text)
    assert not is_same_number(text, 15)
    assert numbers([" 1.5e1"], "onset", "t.csv", np.array([3])) == whole_number(Path("t.csv"), 4, "x", "15.0") == 15


def test_a_table_that_is_not_there_is_named_for_every_corpus(tmp_path):
    with pytest.raises(DataError, match=r"participants\.tsv' does not exist\. Is the copy complete\?$"):
        next(read_columns(tmp_path / "participants.tsv", ["participant_id"], "\t"))


def test_no_row_left_is_an_error():
    with pytest.raises(DataError, match=r"'t.csv': no row is left after 'keep' \{'x': \[3\]\}"):
        kept([{"x": cell} for cell in CELLS], {"x": [3]}, "t.csv")


@pytest.mark.parametrize(
    ("onsets", "duration", "sfreq", "expected"),
    [
        ([100, 20000], 100, 250.0, "samples at 250 Hz: divide them by 250"),
        ([100, 90000], 100, 250.0, "ms: divide them by 1000"),
        ([100, 90000], 100, None, "ms: divide them by 1000"),
        ([100, 200000], 100, 250.0, ""),  # nor does that fit
        ([10, 90], 100, 250.0, ""),  # fits as it is
        ([100.5, 20000], 100, 250.0, ""),  # no whole numbers
        ([], 100, 250.0, ""),
    ],
)
def test_whole_onsets_beyond_the_recording_are_recognised(onsets, duration, sfreq, expected):
    told = unit_of_onsets(np.array(onsets, dtype=float), duration, sfreq)
    assert told.endswith(expected + ".") if expected else told == ""
