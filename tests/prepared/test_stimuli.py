"""Images of one database under one name in all corpora, and their lists in the record of a checkpoint."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neural_clip.errors import DataError
from neural_clip.prepared.stimuli import database_of, packed, shown_images, unpacked

THINGS = ("things_meg", "things_eeg2", "things_eeg1", "things_fmri", "alljoined")
WORDS = st.builds("_".join, st.lists(st.sampled_from(["a", "bat1", "ice-cream", "07", "01b"]), min_size=1, max_size=4))


def test_corpora_of_things_share_their_names_and_others_do_not():
    assert {database_of(name) for name in THINGS} == {"THINGS"}
    assert [database_of(name) for name in ("nsd", "alljoined1")] == ["NSD"] * 2
    assert [database_of(name) for name in ("imagenet_eeg", "custom")] == [None] * 2


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(WORDS, WORDS), st.dictionaries(WORDS, st.sampled_from(["01b", "13s", "14n"])))
def test_packed_images_are_the_same_when_they_are_unpacked(named, of_things):
    named |= {f"{concept}_{ending}": concept for concept, ending in of_things.items()}
    assert unpacked(packed(named)) == named


def test_names_of_things_are_short():
    named = {
        "aircraft_carrier_06s": "aircraft_carrier",
        "aircraft_carrier_01b": "aircraft_carrier",
        "bat1_02b": "bat1",
    }
    assert packed(named) == {"aircraft_carrier": "_01b _06s", "bat1": "_02b"}
    assert packed({"eeg001": ""}) == {"": "eeg001"}
    assert unpacked(packed({"nsd-00042": "", "nsd-00007": ""})) == {"nsd-00007": "", "nsd-00042": ""}


def test_a_record_tells_the_images_of_a_database():
    record = {"stimuli": [{"database": "THINGS", "corpus": "things_meg", "concepts": {"cat": "_01b"}}]}
    assert shown_images(record, "THINGS", "x") == [("things_meg", {"cat_01b": "cat"})]
    assert shown_images({"stimuli": []}, "THINGS", "x") == []
    before = {"data": {"meg": {"corpus": "things_meg"}, "fmri": {"corpus": "nsd"}}}
    assert shown_images(before, "THINGS", "x") is shown_images(before, "NSD", "x") is None
    assert shown_images({"data": {"fmri": {"corpus": "nsd"}}}, "THINGS", "x") == []
    before["stimuli"] = record["stimuli"]  # of a version that listed images of THINGS alone
    assert shown_images(before, "THINGS", "x") and shown_images(before, "NSD", "x") is None
    assert shown_images({}, "THINGS", "x") is None


@pytest.mark.parametrize("entries", [3, [3], [{}], [{"database": "THINGS", "corpus": "things_meg", "concepts": 3}]])
def test_a_damaged_list_is_refused(entries):
    with pytest.raises(DataError, match="record of 'x' is damaged"):
        shown_images({"stimuli": entries}, "THINGS", "x")
