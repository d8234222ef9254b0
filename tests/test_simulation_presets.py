"""Sizes and dials of the simulated twins."""

import dataclasses

import pytest

from neural_clip.errors import DataError
from neural_clip.simulation.presets import PRESETS, Dials, EegPreset, FmriPreset, get_preset


def test_full_preset_has_the_counts_of_the_real_corpora():
    full = get_preset("full")
    assert (full.eeg.n_images, full.eeg.n_trials, full.eeg.n_chans) == (1996, 11965, 128)
    meg = full.meg
    assert (meg.n_exp_images, meg.n_test_images * meg.n_sessions) == (22248, 2400)
    assert meg.n_catch_per_session * meg.n_sessions == 2400
    assert meg.n_trials_per_session * meg.n_sessions == 27048
    assert (meg.n_chans, meg.n_runs, meg.sfreq) == (272, 10, 1200.0)
    fmri = full.fmri
    assert (fmri.n_images, fmri.n_trials, fmri.subjects) == (10000, 30000, (1, 2, 5, 7))
    assert fmri.n_trials == fmri.max_repeats * fmri.n_images


@pytest.mark.parametrize("name", PRESETS)
def test_masks_fit_into_volumes_and_every_image_fits_into_the_trials(name):
    fmri = get_preset(name).fmri
    for shape, n_voxels in zip(fmri.grid_shapes, fmri.n_voxels, strict=True):
        assert n_voxels < 0.5 * shape[0] * shape[1] * shape[2]
    assert fmri.n_images <= fmri.n_trials <= fmri.max_repeats * fmri.n_images


def test_demo_counts_are_those_of_the_documentation():
    demo = get_preset("demo")
    assert (demo.eeg.n_subjects, demo.eeg.n_images, demo.eeg.n_chans) == (6, 400, 32)
    assert (demo.meg.n_subjects, demo.meg.n_exp_images, demo.meg.n_test_images, demo.meg.n_chans) == (4, 480, 60, 64)
    assert demo.fmri.n_subjects == 4 and min(demo.fmri.n_voxels) >= 800 and max(demo.fmri.n_voxels) <= 1500


def test_unknown_preset_is_named():
    with pytest.raises(DataError, match="'tiny', 'demo' and 'full', but got 'huge'"):
        get_preset("huge")


@pytest.mark.parametrize(
    "dials",
    [{"gain_jitter": -0.1}, {"subject_deviation": 1.5}, {"evoked": float("nan")}, {"voxel_energy": 0.8}],
)
def test_impossible_dials_raise(dials):
    with pytest.raises(DataError, match="dial"):
        Dials(**dials)


def test_impossible_fmri_sizes_raise():
    with pytest.raises(DataError, match="lengths must be equal"):
        FmriPreset(n_voxels=(10, 20))
    with pytest.raises(DataError, match="at most 30000 trials"):
        dataclasses.replace(get_preset("full").fmri, n_sessions=41)


def test_presets_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EegPreset().n_chans = 3
