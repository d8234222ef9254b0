"""What is plausible in a unit, and what is refused."""

import numpy as np
import pytest

from neural_clip.errors import DataError
from neural_clip.prepared.units import check_unit, plausible_spread


def eeg(scale, n_chans=4):
    return scale * np.random.default_rng(0).standard_normal((5, n_chans, 200))


def check(values, unit, names=("A", "B", "C", "D")):
    check_unit(values, unit, "'x.fif'", names, " Say so by 'unit'.")


@pytest.mark.parametrize(
    ("unit", "scale"),
    [
        ("V", 1e-5), ("mV", 1e-2), ("uV", 10.0), ("\u00b5V", 10.0), ("\u03bcV", 10.0), ("nV", 1e4), ("T", 1e-13),
        ("pT", 0.1), ("fT", 100.0), ("z", 1.0), ("z (V before scaling)", 1.0), ("percent signal change", 2.0),
    ],
)  # fmt: skip
def test_each_unit_has_its_own_range(unit, scale):
    check(eeg(scale), unit)
    low, high = plausible_spread(unit)
    for wrong in (low / 2, high * 2):
        with pytest.raises(
            DataError, match=r"^'x\.fif': the unit is .*, but a median channel's .* '[ABCD]', is .*'unit'"
        ):
            check(eeg(wrong), unit)


def test_a_unit_without_advice_asks_one_question():
    with pytest.raises(DataError, match=r"Do the values have another unit\? Say"):
        check_unit(eeg(1e-5), "uV", "'x.fif'", None, " Say so.")


@pytest.mark.parametrize("unit", [None, "", "counts of the amplifier", "zebra"])
def test_other_units_are_not_checked(unit):
    assert plausible_spread(unit) is None
    check(eeg(1e9), unit)


def test_a_few_broken_channels_and_one_sample_do_not_count():
    values = eeg(1e-5)
    values[:, 0] *= 1e9
    check(values, "V")
    check(np.ones((5, 4, 1)), "V")


def test_voxels_vary_over_trials():
    betas = np.random.default_rng(0).standard_normal((50, 30))
    check(betas, "percent signal change", None)
    check(betas[:1] * 1e9, "percent signal change", None)
    with pytest.raises(DataError, match=r"a median voxel's standard deviation over trials is .* multiplied by 300"):
        check(betas / 300, "percent signal change", None)
    betas[:, :16] = 1.5
    with pytest.raises(DataError, match=r"half of the voxels or more do not vary over trials\. Does the mask mark"):
        check(betas, "percent signal change", None)


def test_channels_that_are_still_are_called_so():
    with pytest.raises(DataError, match=r"half of the channels or more do not vary over time\.$"):
        check(0 * eeg(1e-5), "V")
