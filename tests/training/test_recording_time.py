"""What recordings cost in minutes, and which of them are the first to be collected."""

from pathlib import Path

import datasets
import numpy as np
import pytest

from neural_clip.errors import DataError
from neural_clip.prepared.known_corpora import CORPORA
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.recording_time import first_minutes, minutes_of, trial_seconds
from planted_data import facts_of

PEOPLE = ["sub-01", "sub-02"]


def table(in_order, corpus="nsd", seed=0):
    """Forty recordings of two people, their rows shuffled; every third is an average of two."""
    rng = np.random.default_rng(seed)
    rows = [
        {"session": f"ses-0{1 + n // 10}", "run": f"run-0{1 + n % 10 // 5}", "trial": n % 5,
         "n_repeats": 1 + int(n % 3 == 0)}
        for n in range(20)
    ]  # fmt: skip
    order = rng.permutation(40)
    subjects = np.repeat(PEOPLE, 20)[order]
    columns = datasets.Dataset.from_list([rows[n % 20] for n in order])
    data = PreparedSet("-", Path("-"), facts_of("eeg", presentation_order=in_order, corpus=corpus))
    return RecordingDataset(Split(data, "train", columns, subjects, np.full(40, "image")), PEOPLE)


def test_published_lengths():
    def seconds(corpus, given=None):
        return trial_seconds(facts_of("eeg", corpus=corpus), given)

    assert seconds("imagenet_eeg") * 2000 == pytest.approx(1400)  # s for everything, as published
    assert seconds("things_meg") == 1.5 and seconds("nsd") == 4.0
    assert seconds("mine") is None
    assert seconds("mine", 2.5) == 2.5 and seconds("nsd", 5.0) == 5.0
    assert seconds("things_eeg2") == pytest.approx(0.31)  # five images a second, and pauses
    assert seconds("things_eeg1") == pytest.approx(0.14)  # ten images a second, and pauses
    names = {"imagenet_eeg", "things_meg", "nsd", "things_eeg2", "things_fmri", "things_eeg1", "alljoined"}
    assert set(CORPORA) == names


@pytest.mark.parametrize("minutes", [0.2, 0.5, 1.0, 5.0])
def test_chronological_where_the_order_is_known(minutes):
    recordings = table(True)
    kept = first_minutes(recordings, minutes, 4.0, seed=0)
    assert (np.diff(kept) > 0).all()
    for subject in (0, 1):  # walked through by hand, trial by trial
        times = {}
        for row in np.flatnonzero(recordings.subject_ids == subject):
            entry = recordings.part.recordings[int(row)]
            times[entry["session"], entry["run"], entry["trial"]] = (row, entry["n_repeats"])
        spent, expected = 0.0, []
        for _, (row, repeats) in sorted(times.items()):
            spent += 4.0 * repeats
            if spent > 60 * minutes:
                break
            expected.append(row)
        assert sorted(expected) == kept[recordings.subject_ids[kept] == subject].tolist()


def test_a_random_choice_where_it_is_not():
    recordings = table(False)
    kept = first_minutes(recordings, 0.7, 4.0, seed=0)
    assert first_minutes(recordings, 0.7, 4.0, seed=0).tolist() == kept.tolist()
    assert first_minutes(recordings, 0.7, 4.0, seed=1).tolist() != kept.tolist()
    assert first_minutes(table(True), 0.7, 4.0, seed=0).tolist() != kept.tolist()
    repeats = np.array(recordings.part.recordings["n_repeats"][:])
    for subject in (0, 1):
        own = kept[recordings.subject_ids[kept] == subject]
        assert 42 - 8 < 4 * repeats[own].sum() <= 42  # no room for one more


def test_minutes_are_those_of_the_trials_behind_the_rows():
    recordings = table(True)
    minutes = minutes_of(recordings, 4.0)
    assert minutes == {name: pytest.approx((20 + 7) * 4 / 60) for name in PEOPLE}  # 7 of 20 are averages of two
    recordings.subject_ids = np.ones(40, dtype=int)
    assert list(minutes_of(recordings, 4.0)) == ["sub-02"]
    everything = first_minutes(table(True), minutes["sub-01"], 4.0, seed=0)
    assert everything.tolist() == list(range(40))


def test_what_cannot_be_had():
    with pytest.raises(DataError, match=r"Two recordings of 'sub-01' at least must fit, which take 0.2 minutes"):
        first_minutes(table(True), 0.19, 4.0, seed=0)
    with pytest.raises(DataError, match=r"a trial of 'mine' lasts is not known .*--seconds-per-trial"):
        first_minutes(table(True, "mine"), 1.0, None, seed=0)
