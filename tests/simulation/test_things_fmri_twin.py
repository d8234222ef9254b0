"""The simulated THINGS-fMRI: formats and design of the real one, same bytes for one seed, and the way to a report."""

import csv
import json
import pickle
from collections import Counter
from dataclasses import replace

import h5py
import nibabel
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from folder_contents import contents
from neural_clip.corpora.things_fmri import prepare
from neural_clip.corpora.things_fmri.facts import VISUAL
from neural_clip.prepared.facts import read_metadata
from neural_clip.simulation.presets import get_preset
from neural_clip.simulation.things_fmri_twin import ATLAS, write
from raw_to_score import scored

TINY = get_preset("tiny")
SIZES = TINY.things_fmri
PER_SESSION = SIZES.n_concepts + SIZES.n_test_images

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twin") / "things_fmri"
    write(folder, TINY, 3)
    return folder


def table(path, mark=","):
    """Rows of a table by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=mark))


def test_one_seed_gives_one_corpus(twin, tmp_path):
    write(tmp_path / "again", TINY, 3)
    write(tmp_path / "other", TINY, 4)
    first, again, other = contents(twin), contents(tmp_path / "again"), contents(tmp_path / "other")
    assert first == again
    unchanged = {name for name in first if first[name] == other.get(name)}
    assert not any(name.endswith((".h5", "betas.nii.gz", "StimulusMetadata.csv", ".json")) for name in unchanged)


def test_tables_have_the_form_and_the_design_of_the_real_ones(twin):
    for name, n_voxels in zip(("sub-01", "sub-02"), SIZES.n_voxels, strict=True):
        stimuli = table(twin / "betas_csv" / f"{name}_StimulusMetadata.csv")
        assert [row["trial_id"] for row in stimuli] == [str(n) for n in range(SIZES.n_sessions * PER_SESSION)]
        shown = Counter((row["trial_type"], row["stimulus"]) for row in stimuli)
        assert {kind: times for (kind, _), times in shown.items()} == {"train": 1, "test": SIZES.n_sessions}
        own = {row["stimulus"].rsplit("_", 1)[0] for row in stimuli if row["trial_type"] == "test"}
        trained = {row["stimulus"].rsplit("_", 1)[0] for row in stimuli if row["trial_type"] == "train"}
        assert own < trained and len(trained) == SIZES.n_concepts and len(own) == SIZES.n_test_images
        wrong = {row["stimulus"] for row in stimuli if row["concept"] != row["stimulus"].rsplit("_", 1)[0]}
        assert len(wrong) == 3 and all(("test", one) in shown for one in wrong)
        voxels = table(twin / "betas_csv" / f"{name}_VoxelMetadata.csv")
        assert len(voxels[0]) == 222 and [one for one in voxels[0] if "\n" in one] == [
            "glasser-p9-\n46v", "glasser-a9-\n46v",
        ]  # fmt: skip
        assert list(voxels[0])[13:42] == list(VISUAL) and len(ATLAS) == 180
        assert sum(any(row[region] == "1" for region in VISUAL) for row in voxels) == n_voxels < len(voxels)
        with h5py.File(twin / "betas_csv" / f"{name}_ResponseData.h5") as file:
            frame = file["ResponseData"]
            assert frame["block0_values"].shape == (len(voxels), len(stimuli)) and frame["block0_values"].dtype == "f8"
            assert pickle.loads(frame["block0_items"][0].tobytes()).tolist() == list(range(len(stimuli)))
            assert pickle.loads(frame["axis0"][0].tobytes())[0] == "voxel_id"
            assert_array_equal(frame["block1_values"][:, 0], np.arange(len(voxels)))
            assert 0.05 < frame["block0_values"][()].std() < 0.5


def test_volumes_hold_the_same_betas_and_the_catch_trials(twin):
    mask = np.asarray(nibabel.load(twin / "brainmasks" / "sub-02_space-T1w_brainmask.nii.gz").dataobj) > 0
    places = [[int(row[f"voxel_{axis}"]) for axis in "xyz"]
              for row in table(twin / "betas_csv" / "sub-02_VoxelMetadata.csv")]  # fmt: skip
    assert_array_equal(np.argwhere(mask), places)
    stimuli = iter(table(twin / "betas_csv" / "sub-02_StimulusMetadata.csv"))
    found, n_catch = [], Counter()
    for path in sorted((twin / "betas_vol" / "sub-02").rglob("*_betas.nii.gz")):
        data = np.asarray(nibabel.load(path).dataobj)[mask]
        conditions = table(path.with_name(path.name.replace("betas.nii.gz", "conditions.tsv")), "\t")
        assert data.shape[1] == len(conditions)
        for row, beta in zip(conditions, data.T, strict=True):
            if row["image_filename"].startswith("catch"):
                n_catch[path.parent.name] += 1
                continue
            trial = next(stimuli)
            assert row["image_filename"] == f"{trial['concept']}/{trial['stimulus']}"
            found.append(beta)
    assert n_catch == {f"ses-things{n + 1:02d}": SIZES.n_catch for n in range(SIZES.n_sessions)}
    with h5py.File(twin / "betas_csv" / "sub-02_ResponseData.h5") as file:
        assert_array_equal(file["ResponseData/block0_values"][()].T, found)


def test_noise_ceilings_are_those_of_the_betas(twin):
    stimuli = table(twin / "betas_csv" / "sub-01_StimulusMetadata.csv")
    voxels = table(twin / "betas_csv" / "sub-01_VoxelMetadata.csv")
    with h5py.File(twin / "betas_csv" / "sub-01_ResponseData.h5") as file:
        betas = file["ResponseData/block0_values"][()]
    names = sorted({row["stimulus"] for row in stimuli if row["trial_type"] == "test"})
    for number, row in enumerate(voxels[::20]):
        repeats = np.array([[betas[20 * number, n] for n, one in enumerate(stimuli) if one["stimulus"] == name]
                            for name in names])  # fmt: skip
        scaled = (repeats - repeats.mean(0)) / repeats.std(0)
        noise = np.mean([np.var(own, ddof=1) for own in scaled])
        signal = max(1 - noise, 0)
        single, mean = float(row["nc_singletrial"]), float(row["nc_testset"])
        assert_allclose(single, 100 * signal / (signal + noise), rtol=1e-9, atol=1e-9)
        q = single / (100 - single)
        assert_allclose(mean, 100 * SIZES.n_sessions * q / (1 + SIZES.n_sessions * q), rtol=1e-9, atol=1e-9)


def test_both_routes_read_the_twin(twin, tmp_path):
    facts = [read_metadata(prepare(twin, tmp_path / route, route=route)) for route in ("table", "volume")]
    assert facts[0]["fingerprint"] == facts[1]["fingerprint"]
    assert facts[0]["splits"]["test"] == {"rows": 2 * 4, "images": 4, "concepts": 4}
    assert facts[0]["splits"]["train"]["concepts"] + facts[0]["splits"]["validation"]["concepts"] == 16
    assert facts[0]["simulated"]["simulated"] is True and "SIMULATED" in facts[0]["source"]


def test_from_simulated_files_to_a_report(tmp_path):
    """Unseen concepts are decoded above chance by the protocol that is checked for them, beside the baseline."""
    larger = replace(SIZES, n_sessions=4, n_concepts=60, n_test_images=20, n_catch=4)
    write(tmp_path / "raw", replace(TINY, things_fmri=larger), 0)
    prepare = f"things_fmri --raw-dir {tmp_path}/raw --num-proc 2"
    scored(tmp_path, prepare, "fmri", baselines="ridge", batch_size=64, protocol="zero-shot-200")
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    rows = {row["method"]: row for row in report["decoding"]["fmri"]["rows"] if row["aggregation"] == "single trial"}
    for row in (rows["neural_clip"], rows["per-subject ridge"]):
        assert row["two_way_interval"][0] > 0.5 and row["gallery_size"] == 20
    exact = {entry["label"]: entry for entry in report["protocol"]["decoding"]["fmri"]}["exact image, top-1"]
    assert exact["chance"] == 1 / 20 and exact["interval"][0] <= exact["score"] <= exact["interval"][1]
    assert "simulated" in (tmp_path / "report" / "report.md").read_text()
