"""Data sets of one evaluation lie in one space."""

import pytest

from neural_clip.errors import DataError
from neural_clip.evaluation.checkpoints import check_data
from planted_data import ENCODER, write_planted


@pytest.mark.parametrize("key", ["name", "revision", "pooling"])
def test_data_sets_of_different_encoders_are_refused(tmp_path, key):
    counts = {"train": 4, "validation": 2, "test": 2}
    options = {"n_subjects": 1, "repeats": 1, "counts": counts, "pixels": False}
    meg, eeg = (write_planted(tmp_path / name, name, **options) for name in ("meg", "eeg"))
    assert check_data([meg, eeg]) == {"eeg": str(eeg), "meg": str(meg)}  # in the order of the modalities
    other = write_planted(tmp_path / "other", "fmri", encoder=ENCODER | {key: "another"}, **options)
    with pytest.raises(DataError, match=f"different image encoders.*{meg}.*planted.*{other}.*'{key}': 'another'"):
        check_data([meg, other])
    with pytest.raises(DataError, match=f"'{meg}' and '{meg}' both hold meg"):
        check_data([meg, meg])
