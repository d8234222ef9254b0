"""Dials of the simulated voxels: what people share by place, and how many dimensions tuning has.

Weights are found from responses alone, by least squares on random latents; places from what the twin writes.
"""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from folder_contents import contents
from neural_clip.commands.main import main
from neural_clip.errors import DataError
from neural_clip.simulation.options import SimulateOptions
from neural_clip.simulation.presets import Dials, FmriPreset, get_preset
from neural_clip.simulation.voxel_model import VoxelModel

N_PEOPLE, GRID, N_VOXELS = 6, (14, 14, 14), 600


def dialled(**dials):
    """Linear voxels of people whose grids are alike, so that equal indices are equal places."""
    linear = get_preset("linear").fmri.dials
    sizes = {"subjects": tuple(range(1, N_PEOPLE + 1)), "grid_shapes": (GRID,) * N_PEOPLE}
    preset = FmriPreset(**sizes, n_voxels=(N_VOXELS,) * N_PEOPLE, dials=linear, noise_of="linear")
    whole = replace(get_preset("linear"), fmri=preset)
    return VoxelModel(SimulateOptions(**dials).dialled(whole).fmri, seed=5)


def weights(model):
    """True weights `(24, n_voxels)` of each person, and the place of each voxel, an index of the grid."""
    z = np.random.default_rng(1).standard_normal((40, 24))
    found = [np.linalg.lstsq(z, model.response(who, z), rcond=None)[0] for who in range(N_PEOPLE)]
    return found, [np.flatnonzero(model.mask(who).ravel()) for who in range(N_PEOPLE)]


def correlation_by_place(model):
    """Mean cosine of the weights of two people at the same place, over all pairs."""
    found, places = weights(model)
    cosines = []
    for one, two in combinations(range(N_PEOPLE), 2):
        _, first, second = np.intersect1d(places[one], places[two], return_indices=True)
        assert len(first) > 100
        a, b = found[one][:, first], found[two][:, second]
        cosines.append(np.mean([x @ y / np.sqrt((x @ x) * (y @ y)) for x, y in zip(a.T, b.T, strict=True)]))
    return float(np.mean(cosines))


def participation_ratio(model):
    """Of the second moments of the weights of all people, whatever their strength."""
    directions = np.concatenate([part / np.linalg.norm(part, axis=0) for part in weights(model)[0]], axis=1)
    spectrum = np.linalg.svd(directions, compute_uv=False) ** 2
    return float(spectrum.sum() ** 2 / (spectrum**2).sum())


@pytest.mark.parametrize(("share", "dimension"), [(0, None), (0.3, None), (0.7, None), (1, None), (0, 6), (0.7, 6)])
def test_people_share_as_much_of_the_map_as_asked(share, dimension):
    found = correlation_by_place(dialled(shared_tuning=share, tuning_dimension=dimension))
    assert found == pytest.approx(share, abs=0.07)


def test_without_the_dial_they_share_what_the_preset_says():
    assert correlation_by_place(dialled()) == pytest.approx(1 - 0.75**2, abs=0.07)


@pytest.mark.parametrize("dimension", [1, 2, 4, 12])
def test_tuning_has_as_many_dimensions_as_asked(dimension):
    found = participation_ratio(dialled(shared_tuning=0, tuning_dimension=dimension))
    assert found == pytest.approx(dimension, rel=0.12)


def test_by_default_tuning_has_about_twenty_dimensions():
    default, most = (participation_ratio(dialled(shared_tuning=0, tuning_dimension=n)) for n in (None, 24))
    assert default == pytest.approx(20, rel=0.12) and default < most <= 24


def test_dials_that_are_not_given_leave_the_twin_as_it_was():
    """Also what SIMULATED.json says of it, by which an older twin is known."""
    preset = get_preset("demo")
    assert SimulateOptions().dialled(preset) == preset
    assert "tuning_dimension" not in preset.fmri.dials.as_dict()


def test_the_command_writes_the_twin_that_was_asked_for(tmp_path, capsys):
    words = ["simulate", "--preset", "tiny", "--corpora", "fmri", "--output-dir", str(tmp_path)]
    dials = ["--shared-tuning", "0", "--tuning-dimension", "3.5"]
    main([*words, *dials])
    stamp = json.loads((tmp_path / "nsd" / "SIMULATED.json").read_text())
    assert stamp["dials"]["subject_deviation"] == 1 and stamp["dials"]["tuning_dimension"] == 3.5
    before = contents(tmp_path)
    main([*words, *dials])
    assert contents(tmp_path) == before and "kept" in capsys.readouterr().err
    with pytest.raises(DataError, match="dials differ"):
        main(words)
    assert contents(tmp_path) == before


WRONG = {
    "shared_tuning": [-0.1, 1.01, float("nan")],
    "tuning_dimension": [0.5, 25, float("nan")],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_impossible_dials_are_named(name, value):
    with pytest.raises(DataError, match=f"'{name}' parameter. Allowed"):
        SimulateOptions(**{name: value})
    if name == "tuning_dimension":
        with pytest.raises(DataError, match=f"'{name}' parameter. Allowed"):
            Dials(tuning_dimension=value)


def test_dials_of_voxels_need_voxels():
    with pytest.raises(DataError, match="'tuning_dimension' parameter is of fMRI, but simulated are eeg, meg"):
        SimulateOptions(corpora=["eeg", "meg"], tuning_dimension=3)
