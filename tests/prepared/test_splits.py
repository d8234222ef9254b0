"""Shares that leave nothing on one side are refused before a file is read."""

import math

import pytest

from neural_clip.corpora import nsd, things_meg
from neural_clip.corpora.nsd.options import NsdOptions
from neural_clip.corpora.things_meg.options import ThingsMegOptions
from neural_clip.errors import DataError
from neural_clip.prepared.splits import check_fraction, validation_split

BAD = [0, 1, 0.0, 1.0, -0.1, 1.5, math.nan, math.inf]


@pytest.mark.parametrize("share", BAD)
def test_a_share_leaves_something_on_both_sides(share):
    with pytest.raises(DataError, match=r"'x' parameter\. Allowed is a number between 0 and 1, but got"):
        check_fraction("x", share)
    with pytest.raises(DataError, match="'fraction'"):
        validation_split(["a", "b"], share, 0)
    for share in (1e-9, 0.5, 1 - 1e-9):
        assert len(validation_split(["a", "b"], share, 0)) == 1


@pytest.mark.parametrize("share", BAD)
@pytest.mark.parametrize(("corpus", "options"), [(nsd, NsdOptions), (things_meg, ThingsMegOptions)])
def test_corpora_refuse_shares_before_they_look_for_files(tmp_path, corpus, options, share):
    with pytest.raises(
        DataError, match=r"'validation_fraction' parameter\. Allowed is a (number between 0 and 1|finite)"
    ):
        corpus.prepare(tmp_path / "absent", tmp_path / "out", validation_fraction=share)
    with pytest.raises(DataError, match="'validation_fraction'"):
        options(validation_fraction=share)
