"""Where sensors are: what of a file's information is taken, and when it is not."""

import mne
import numpy as np
import pytest

from neural_clip.corpora.sensor_places import sensor_places

NAMES = ["Fz", "Cz", "Oz"]


def info_with_montage():
    info = mne.create_info(NAMES, 100.0, "eeg")
    return info.set_montage("standard_1020")


def test_places_are_those_of_the_montage_in_the_order_asked_for():
    info = info_with_montage()
    found = sensor_places(info, ["Oz", "Fz"])
    in_head = info.get_montage().get_positions()
    assert in_head["coord_frame"] == "head" == found["ch_positions_frame"]
    expected = [in_head["ch_pos"]["Oz"], in_head["ch_pos"]["Fz"]]
    np.testing.assert_allclose(found["ch_positions"], expected, rtol=0, atol=5.1e-5)
    assert found["ch_positions"][0][1] < 0 < found["ch_positions"][1][1]  # behind, before
    assert all(value == round(value, 4) for place in found["ch_positions"] for value in place)


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_missing_place_leaves_all_out(value):
    info = info_with_montage()
    info["chs"][1]["loc"][:3] = value
    assert sensor_places(info, NAMES) == {}
    assert len(sensor_places(info, ["Fz", "Oz"])["ch_positions"]) == 2


def test_frames_that_differ_or_have_no_name_leave_all_out():
    info = info_with_montage()
    info["chs"][0]["coord_frame"] = 1
    assert sensor_places(info, NAMES) == {}
    assert sensor_places(info, ["Fz"])["ch_positions_frame"] == "device"
    info["chs"][0]["coord_frame"] = 5  # that of the magnetic resonance image
    assert sensor_places(info, ["Fz"]) == {}
