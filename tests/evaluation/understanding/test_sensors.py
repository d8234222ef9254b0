"""Places of sensors."""

import numpy as np
import pytest

from neural_clip.evaluation.understanding.sensors import sensor_positions

pytestmark = pytest.mark.numerical


def test_positions_of_ctf_sensors_and_sites():
    names = ["MLF11", "MRF11", "MLO11", "MRO11", "MLT21", "MRT21", "MZC01", "MZF01"]
    found, sentence = sensor_positions([f"{name}-1609" for name in names])
    places = dict(zip(names, found.places, strict=True))
    assert "CTF-275" in sentence and np.linalg.norm(found.places, axis=1).max() < 0.0951
    assert all(places[f"ML{site}"][0] < 0 < places[f"MR{site}"][0] for site in ("F11", "O11", "T21"))
    assert places["MLF11"][1] > places["MLT21"][1] > places["MLO11"][1]
    backwards, _ = sensor_positions([f"{name}-2622" for name in names[::-1]])
    np.testing.assert_array_equal(backwards.places[::-1], found.places)
    found, sentence = sensor_positions(["FP1", "Fp2", "cz", "Pz", "O1", "O2", "T7", "T8"])
    xyz = np.array([channel["loc"][:3] for channel in found.places["chs"]])
    assert "10-05" in sentence and xyz[0, 0] < 0 < xyz[1, 0] and xyz[4, 1] < xyz[2, 1] < xyz[0, 1]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([f"EEG{n:03d}" for n in range(9)], "the names of the sensors (EEG000, EEG001, EEG002, ...)"),
        (["Fz", "Cz", "Pz"], "3 sensors are too few"),
        (["Fz", "Cz", "Pz", "O1", "O2", "T7", "T8", "C0"], "do not say where they lie"),
        (["MLC99"] * 8, "do not say where they lie"),
    ],
)
def test_unknown_positions_say_why(names, reason):
    found, sentence = sensor_positions(names)
    assert found is None and sentence.startswith("No topography") and reason in sentence
