"""The simulated NSD: layout of the real one, known signal inside, same bytes for one seed."""

import csv
import json

import h5py
import nibabel
import numpy as np
import pytest
from datasets import load_dataset
from scipy.io import loadmat

from folder_contents import contents
from neural_clip.corpora.nsd import build as nsd
from neural_clip.corpora.nsd.betas import read_session
from neural_clip.prepared.reader import PreparedSet
from neural_clip.simulation import nsd_twin
from neural_clip.simulation.presets import get_preset

PRESET = get_preset("tiny")
TWIN = nsd_twin
SIZES = PRESET.fmri
BETAS = "nsddata_betas/ppdata/subj{:02d}/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session{:02d}.{}"


@pytest.fixture(scope="module")
def prepared(raw_dir, tmp_path_factory):
    return nsd.prepare(raw_dir, tmp_path_factory.mktemp("twin") / "out", average_repeats=False, session_zscore="none")


def test_one_seed_gives_the_same_bytes(raw_dir, tmp_path):
    nsd_twin.write(tmp_path / "other place", PRESET, seed=3)
    assert contents(raw_dir) == contents(tmp_path / "other place")
    nsd_twin.write(tmp_path / "other seed", PRESET, seed=4)
    changed = contents(tmp_path / "other seed")
    same = [name for name, digest in contents(raw_dir).items() if changed[name] == digest]
    assert same == []


def test_design_has_the_shape_of_the_real_one(raw_dir):
    tables = loadmat(raw_dir / "nsddata/experiments/nsd/nsd_expdesign.mat")
    order, lists, shared = (tables[name] for name in ("masterordering", "subjectim", "sharedix"))
    assert order.shape == (1, 3 * SIZES.n_images) and lists.shape == (8, SIZES.n_images)
    assert shared.shape == (1, SIZES.n_shared) and np.array_equal(lists[:, : SIZES.n_shared], np.tile(shared, (8, 1)))
    assert (np.bincount(order.ravel().astype(int))[1:] == 3).all()
    recorded = order.ravel()[: SIZES.n_trials]
    assert len(set(recorded)) == SIZES.n_images, "every image should occur in the recorded part"
    own = lists[:2, SIZES.n_shared :]
    assert own.min() == 1 or shared.min() == 1
    assert len(set(own.ravel()) | set(shared.ravel())) == 2 * SIZES.n_unshared + SIZES.n_shared


def test_runs_share_out_750_trials_as_nsd_does():
    assert nsd_twin._run_lengths(750) == [63, 62] * 6
    assert sum(nsd_twin._run_lengths(41)) == 41


def test_volumes_and_masks(raw_dir):
    for subject, number in enumerate(SIZES.subjects):
        image = nibabel.load(raw_dir / BETAS.format(number, 1, "nii.gz"))
        assert image.shape == (*SIZES.grid_shapes[subject], SIZES.trials_per_session)
        assert image.get_data_dtype() == np.int16 and image.dataobj.slope == 1 and image.dataobj.inter == 0
        mask = nibabel.load(raw_dir / f"nsddata/ppdata/subj{number:02d}/func1pt8mm/roi/nsdgeneral.nii.gz").get_fdata()
        assert set(np.unique(mask)) == {-1, 0, 1} and (mask > 0).sum() == SIZES.n_voxels[subject]
        values = np.asanyarray(image.dataobj)
        assert np.abs(values[mask == 0]).max() > 0, "voxels beside the region should hold noise, so wrong masks show"
        assert not values[mask < 0].any()
    with h5py.File(raw_dir / BETAS.format(1, 1, "hdf5")) as file:
        expected = np.asanyarray(nibabel.load(raw_dir / BETAS.format(1, 1, "nii.gz")).dataobj)
        np.testing.assert_array_equal(file["betas"][:], expected.T)  # (trial, Z, Y, X)
        assert file["betas"].chunks == (SIZES.trials_per_session, 1, 1, 1)


def test_prepared_rows_are_the_model_s_values(raw_dir, prepared):
    """The written noise and signal come back, rounded to 1/300 %, at the right trial and voxel."""
    from neural_clip.simulation.latent_space import image_embeds, latents
    from neural_clip.simulation.voxel_model import VoxelModel

    model = VoxelModel(SIZES, 3)
    with h5py.File(raw_dir / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5") as file:
        z = latents(image_embeds(file["imgBrick"][:]))
    rows = [row for split in ("train", "validation", "test") for row in load_dataset(str(prepared), split=split)]
    assert len(rows) == 2 * SIZES.n_trials
    for subject, number in enumerate(SIZES.subjects):
        trials = sorted((r for r in rows if r["subject"] == f"sub-{number:02d}"), key=lambda row: row["trial"])
        shown = [int(row["image_id"][4:]) for row in trials]
        values = np.array([row["fmri"] for row in trials])
        for session in range(SIZES.n_sessions):
            here = slice(session * SIZES.trials_per_session, (session + 1) * SIZES.trials_per_session)
            rng = np.random.default_rng([3, 2, subject, session])
            signal, _ = model.signal(subject, z[shown[here]], rng)
            noise = model.noise(subject, len(signal), rng)
            np.testing.assert_allclose(values[here], signal + noise, atol=0.5 / 300 + 1e-3)
        clean = model.response(subject, z[shown])
        matched = [
            np.corrcoef(a, b)[0, 1] for a, b in zip(values - values.mean(0), clean - clean.mean(0), strict=True)
        ]
        assert np.mean(matched) / (np.std(matched) / np.sqrt(len(matched))) > 3


def test_all_tables_agree(raw_dir, prepared):
    """`prepare` cross-checks design, stimulus table and behaviour; here the same by hand."""
    with (raw_dir / "nsddata/experiments/nsd/nsd_stim_info_merged.csv").open() as file:
        info = list(csv.DictReader(file))
    with (raw_dir / "nsddata/ppdata/subj02/behav/responses.tsv").open() as file:
        behaviour = list(csv.DictReader(file, delimiter="\t"))
    assert len(behaviour) == SIZES.n_trials and len(info) == SIZES.n_shared + 2 * SIZES.n_unshared
    for t, row in enumerate(behaviour):
        stimulus = info[int(row["73KID"]) - 1]
        assert str(t + 1) in [stimulus[f"subject2_rep{r}"] for r in range(3)]
        assert int(row["ISOLD"]) == (stimulus["subject2_rep0"] != str(t + 1))
    assert sum(row["shared1000"] == "True" for row in info) == SIZES.n_shared


def test_prepared_set(raw_dir, tmp_path):
    folder = nsd.prepare(raw_dir, tmp_path / "out")
    facts = json.loads((folder / "neural_clip.json").read_text())
    stamp = json.loads((raw_dir / "SIMULATED.json").read_text())
    assert facts["simulated"] == stamp and stamp["simulated"] is True and stamp["ceiling"]
    assert facts["splits"]["test"]["images"] == SIZES.n_shared
    assert facts["splits"]["test"]["rows"] == 2 * SIZES.n_shared
    images = load_dataset(str(folder), "images", split="images")
    assert len(images) == SIZES.n_shared + 2 * SIZES.n_unshared
    assert {len(row["categories"]) for row in images} == {1}, "objects outside the crop should not be listed"
    assert all(row["concept"] == row["categories"][0] for row in images)
    first = next(iter(load_dataset(str(folder), "sub-02", split="train", streaming=True)))
    assert len(first["fmri"]) == SIZES.n_voxels[1]


def test_hdf5_of_the_first_subject_reads_the_same(raw_dir):
    from neural_clip.corpora.nsd.betas import read_mask

    mask = read_mask(raw_dir / "nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz")
    for session in range(1, SIZES.n_sessions + 1):
        both = [
            read_session(raw_dir / BETAS.format(1, session, suffix), mask, SIZES.trials_per_session)
            for suffix in ("nii.gz", "hdf5")
        ]
        np.testing.assert_array_equal(*both)


def test_transforms_place_voxels_where_the_tuning_is_shared(raw_dir, prepared):
    """MNI152 in mm is the fraction of the volume, times one number in all directions: distances keep their ratios."""
    data = PreparedSet.open(prepared)
    assert data.places_space == "MNI152"
    fractions, places = [], []
    for subject, number in enumerate(SIZES.subjects):
        image = nibabel.load(raw_dir / f"nsddata/ppdata/subj{number:02d}/transforms/MNI-to-func1pt8.nii.gz")
        assert image.shape == (*SIZES.grid_shapes[subject], 3) and image.get_data_dtype() == np.float32
        region = nibabel.load(raw_dir / f"nsddata/ppdata/subj{number:02d}/func1pt8mm/roi/nsdgeneral.nii.gz")
        values, region = image.get_fdata(), region.get_fdata()
        assert (values[region < 0] == 9999).all() and (values[region >= 0] < 183).all()
        inside = np.argwhere(region > 0)
        fractions.append((inside + 0.5) / region.shape)
        places.append(data.voxel_places(f"sub-{number:02d}"))
        assert (np.sign(places[-1][:, 0]) == np.sign(fractions[-1][:, 0] - 0.5)).all(), "x runs to the right"
    x, y = np.concatenate(fractions), np.concatenate(places)
    slope, corner = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0][[0, 3]]
    np.testing.assert_allclose(y, x * slope[0] + corner, atol=1e-3)
    assert y[:, 1].mean() < -40, "the region is posterior"
