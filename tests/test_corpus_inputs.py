"""What recordings of several corpora look like, and the linear map to the window that they have in common."""

import math

import numpy as np
import pytest

from neural_clip.corpus_inputs import (
    ZERO_CROSSINGS,
    CorpusInputs,
    check_corpora,
    common_inputs,
    corpus_of,
    resampling,
    rows_of_channels,
)

FIRST = CorpusInputs(6, 60, 200.0, -0.1, ("Fz", "Cz", "Pz", "Oz", "O1", "O2"))
SECOND = CorpusInputs(4, 25, 100.0, 0.0, ("Pz", "P3", "P4", "Oz"))


def test_the_window_in_common_has_the_lowest_rate_and_what_all_have():
    common = common_inputs({"first": FIRST, "second": SECOND})
    assert (common.n_chans, common.ch_names) == (6, FIRST.ch_names)
    assert (common.sfreq, common.tmin, common.n_times) == (100.0, 0.0, 20)  # 0 to 0.195 s, of which 0.19 is reached
    assert FIRST.covers(common) and SECOND.covers(common)
    assert common_inputs({"one": FIRST, "same": FIRST}) == FIRST
    late = CorpusInputs(4, 10, 100.0, 0.5)
    with pytest.raises(ValueError, match=r"no window in common: first -0.1 to 0.195 s; late 0.5 to 0.59 s"):
        common_inputs({"first": FIRST, "late": late})


def slow_resampling(given, common):
    """Each weight by itself."""
    found = [[0.0] * common.n_times for _ in range(given.n_times)]
    for row in range(given.n_times):
        for column in range(common.n_times):
            x = (common.tmin + column / common.sfreq - given.tmin - row / given.sfreq) * common.sfreq
            if abs(x) < ZERO_CROSSINGS:
                sinc = 1.0 if abs(x) < 1e-12 else math.sin(math.pi * x) / (math.pi * x)
                found[row][column] = sinc * (0.5 + 0.5 * math.cos(math.pi * x / ZERO_CROSSINGS))
    total = np.sum(found, axis=0)
    return np.array(found) / total


@pytest.mark.parametrize("sfreq", [200.0, 250.0, 1000.0])
def test_resampling_is_a_windowed_sinc(sfreq):
    given = CorpusInputs(2, round(0.5 * sfreq), sfreq, -0.11)
    common = CorpusInputs(2, 30, 100.0, 0.02)
    found = resampling(given, common)
    assert found.shape == (given.n_times, 30)
    np.testing.assert_allclose(found, slow_resampling(given, common), atol=1e-8)
    np.testing.assert_allclose(found.sum(axis=0), 1)


def test_resampling_keeps_slow_waves_and_takes_out_fast_ones():
    given, common = CorpusInputs(1, 1000, 1000.0, -0.2), CorpusInputs(1, 50, 100.0, 0.0)
    matrix = resampling(given, common)
    times, wanted = given.tmin + np.arange(1000) / 1000, common.tmin + np.arange(50) / 100
    for frequency in (3.0, 20.0, 35.0):
        found = np.sin(2 * np.pi * frequency * times + 1) @ matrix
        np.testing.assert_allclose(found, np.sin(2 * np.pi * frequency * wanted + 1), atol=0.02)
    for frequency in (65.0, 80.0, 300.0):  # would be folded to 35, 20 and 0 Hz
        assert np.abs(np.sin(2 * np.pi * frequency * times + 1) @ matrix).max() < 0.02


def test_resampling_to_the_same_rate_is_a_crop():
    given, common = CorpusInputs(1, 60, 120.0, -0.1), CorpusInputs(1, 30, 120.0, 0.0)
    values = np.random.default_rng(0).standard_normal((4, 60))
    assert np.array_equal(values @ resampling(given, common), values[:, 12:42])
    assert np.array_equal(resampling(given, given), np.eye(60))


def test_channels_start_at_their_names_and_others_in_what_is_left():
    assert rows_of_channels(SECOND, FIRST) == [2, 0, 1, 3]  # Pz and Oz at their own places
    assert rows_of_channels(FIRST, FIRST) == [0, 1, 2, 3, 4, 5]
    assert rows_of_channels(CorpusInputs(3, 5, 1.0, 0.0), FIRST) == [0, 1, 2]
    assert rows_of_channels(CorpusInputs(3, 5, 1.0, 0.0), CorpusInputs(2, 5, 1.0, 0.0)) == [0, 1, -1]


def test_the_corpus_stands_in_the_name_of_a_subject():
    assert [corpus_of(name) for name in ("first/sub-01", "sub-01", "a/b/c")] == ["first", "", "a"]


@pytest.mark.parametrize(
    ("corpora", "subjects", "message"),
    [
        ({}, [], "'corpora'"),
        ([FIRST.as_dict()], [], "'corpora'"),
        ({"first": FIRST.as_dict() | {"n_chans": 0}}, [], "'n_chans'"),
        ({"first": FIRST.as_dict() | {"n_times": True}}, [], "'n_times'"),
        ({"first": FIRST.as_dict() | {"sfreq": math.inf}}, [], "'sfreq'"),
        ({"first": FIRST.as_dict() | {"tmin": None}}, [], "'tmin'"),
        ({"first": FIRST.as_dict() | {"ch_names": ["Cz"]}}, [], "'ch_names' lists 1"),
        ({"first": FIRST.as_dict() | {"rate": 3}}, [], "n_chans, n_times, sfreq, tmin, ch_names of each"),
        ({"first": {"n_chans": 3}}, [], "n_chans, n_times, sfreq, tmin, ch_names of each"),
        ({"first": FIRST.as_dict()}, ["second/sub-01"], "of none of the corpora"),
        ({"first": FIRST.as_dict()}, ["sub-01"], "named as first/sub-01"),
        ({"first": FIRST.as_dict() | {"tmin": 0.1}}, [], "do not cover"),
        ({"first": FIRST.as_dict() | {"sfreq": 50.0}}, [], "do not cover"),
    ],
)
def test_damaged_corpora_are_refused(corpora, subjects, message):
    common = common_inputs({"first": FIRST, "second": SECOND})
    with pytest.raises(ValueError, match=message):
        check_corpora(corpora, subjects, common)
