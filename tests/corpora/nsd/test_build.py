"""NSD builder, on small corpora written here by hand in the layout of the real files."""

import gzip
import json
import pickle
import runpy
import sys

import h5py
import nibabel
import numpy as np
import pytest
from datasets import load_dataset
from scipy.io import loadmat, savemat

from neural_clip.corpora.nsd import build as nsd
from neural_clip.corpora.nsd import plan as nsd_plan
from neural_clip.corpora.nsd.betas import read_mask, read_session
from neural_clip.corpora.nsd.categories import visible_area
from neural_clip.corpora.nsd.design import SPLIT_COUNTS, read_design, read_stim_info
from neural_clip.corpora.nsd.options import NsdOptions
from neural_clip.errors import DataError
from neural_clip.files.mat import read_matrices
from neural_clip.preparation import Statistics
from nsd_raw import (
    EXPERIMENT,
    N_IMAGES,
    N_SESSIONS,
    N_SHARED,
    N_STIMULI,
    PER_SESSION,
    SUBJECTS,
    betas_path,
    region_path,
    responses_path,
    to_hdf5,
)
from paths import REPOSITORY
from prepared_rows import rows_of


def truth(raw_dir, subject):
    """What each trial showed and measured, read in another way: nsd-id, shared, betas (n_trials, n_voxels)."""
    tables = loadmat(raw_dir / EXPERIMENT / "nsd_expdesign.mat")
    order = tables["masterordering"].ravel()[: N_SESSIONS * PER_SESSION].astype(int)
    ids = [f"nsd-{int(tables['subjectim'][subject - 1, position - 1]) - 1:05d}" for position in order]
    mask = nibabel.load(raw_dir / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm/roi/nsdgeneral.nii.gz").get_fdata() > 0
    betas = [nibabel.load(betas_path(raw_dir, subject, s)).get_fdata()[mask].T / 300 for s in range(1, N_SESSIONS + 1)]
    return ids, order <= N_SHARED, np.concatenate(betas)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_single_trials_equal_the_files(raw_dir, tmp_path, subject):
    folder = nsd.prepare(raw_dir, tmp_path / "out", average_repeats=False, session_zscore="none")
    ids, shared, betas = truth(raw_dir, subject)
    rows = [(split, row) for split, row in rows_of(folder) if row["subject"] == f"sub-{subject:02d}"]
    assert sorted(int(row["trial"]) for _, row in rows) == list(range(28))
    for split, row in rows:
        trial = int(row["trial"])
        assert row["image_id"] == ids[trial] and (split == "test") == shared[trial] and row["n_repeats"] == 1
        assert row["session"] == f"ses-{trial // 14 + 1:02d}" and row["run"] == f"run-{trial % 14 // 7 + 1:02d}"
        np.testing.assert_allclose(row["fmri"], betas[trial], rtol=1e-6)


def test_averages_of_session_zscores_match_an_oracle(raw_dir, tmp_path):
    folder = nsd.prepare(raw_dir, tmp_path / "out")
    everything = rows_of(folder)
    validation = {row["image_id"] for split, row in everything if split == "validation"}
    for subject in SUBJECTS:
        ids, shared, betas = truth(raw_dir, subject)
        expected = {}
        for first in (0, PER_SESSION):
            here = range(first, first + PER_SESSION)
            train = betas[[t for t in here if not shared[t] and ids[t] not in validation]]
            for t in here:
                expected.setdefault(ids[t], []).append((betas[t] - train.mean(0)) / train.std(0))
        rows = {row["image_id"]: row for _, row in everything if row["subject"] == f"sub-{subject:02d}"}
        assert rows.keys() == expected.keys()
        for image_id, presentations in expected.items():
            np.testing.assert_allclose(rows[image_id]["fmri"], np.mean(presentations, 0), atol=1e-5)
            assert rows[image_id]["n_repeats"] == len(presentations)


def test_splits_are_disjoint_over_subjects(raw_dir, tmp_path):
    folder = nsd.prepare(raw_dir, tmp_path / "out")
    images = {
        split: {row["image_id"] for s, row in rows_of(folder) if s == split} for split in ("train", "validation")
    }
    tests = [{row["image_id"] for split, row in rows_of(folder, f"sub-{s:02d}") if split == "test"} for s in SUBJECTS]
    assert tests[0] == tests[1] and len(tests[0]) == N_SHARED
    assert not images["train"] & images["validation"] and not (images["train"] | images["validation"]) & tests[0]


def test_both_formats_give_the_same(own_raw_dir, tmp_path):
    for subject in SUBJECTS:
        to_hdf5(own_raw_dir, subject, keep=True)
        mask = read_mask(own_raw_dir / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm/roi/nsdgeneral.nii.gz")
        nifti = read_session(betas_path(own_raw_dir, subject, 1), mask, PER_SESSION)
        hdf5 = read_session(betas_path(own_raw_dir, subject, 1, ".hdf5"), mask, PER_SESSION)
        np.testing.assert_array_equal(nifti, hdf5)
        # the order of `betas[:, mask.T]`, which other readers of the HDF5 file produce, is another one
        with h5py.File(betas_path(own_raw_dir, subject, 1, ".hdf5")) as file:
            assert not np.array_equal(file["betas"][:][:, mask.T] / np.float32(300), hdf5)
    folders = [nsd.prepare(own_raw_dir, tmp_path / name, betas_format=name) for name in ("nifti", "hdf5", "auto")]
    prints = [json.loads((folder / "neural_clip.json").read_text())["fingerprint"] for folder in folders]
    assert len(set(prints)) == 1


def test_big_endian_and_padded_headers_are_read(tmp_path):
    """NIfTI edge cases: other byte order, data that begins behind an extension."""
    values = np.random.default_rng(0).integers(-9, 9, (3, 4, 2, 5)).astype(">i2")
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"neural_clip"))
    path = tmp_path / "betas_session01.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4), header), path)
    mask = np.random.default_rng(1).random((3, 4, 2)) > 0.5
    expected = values[mask].T.astype(np.float32) / 300
    np.testing.assert_allclose(read_session(path, mask, 5), expected, rtol=1e-6)


def test_mask_of_a_real_scan(real_data):
    path = real_data / "haxby_fmri" / "mvpa2" / "data" / "mask.nii.gz"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    mask = read_mask(path)
    np.testing.assert_array_equal(mask, nibabel.load(path).get_fdata() > 0)


def test_betas_of_a_real_scan(real_data):
    folder = real_data / "haxby_fmri" / "mvpa2" / "data"
    if not (folder / "bold.nii.gz").is_file():
        pytest.skip(f"{folder} is absent")
    image, mask = nibabel.load(folder / "bold.nii.gz"), read_mask(folder / "mask.nii.gz")
    if mask.shape != image.shape[:3]:
        mask = mask.reshape(image.shape[:3])
    if image.get_data_dtype() != np.int16:
        with pytest.raises(DataError, match="int16"):
            read_session(folder / "bold.nii.gz", mask, image.shape[3])
        return
    betas = read_session(folder / "bold.nii.gz", mask, image.shape[3])
    np.testing.assert_allclose(betas[7], image.get_fdata()[mask][:, 7] / 300, rtol=1e-6)


def test_images_and_metadata(raw_dir, tmp_path):
    folder = nsd.prepare(raw_dir, tmp_path / "out", subjects=["sub-05"])
    images = load_dataset(str(folder), "images", split="images")
    assert len(images) == N_IMAGES
    for row in images:
        assert np.asarray(row["image"])[0, 0, 0] == int(row["image_id"][4:])  # pixel value = 0-based id
    facts = json.loads((folder / "neural_clip.json").read_text())
    assert facts["redistribution"] == "forbidden" and "no redistribution" in facts["licence"]
    assert facts["n_voxels"] == {"sub-05": 11} and facts["roi"] == "nsdgeneral"
    assert facts["scaling"] | {"statistics": ""} == {
        "method": "z-score per voxel and session", "fit_scope": "train", "statistics": "",
    }  # fmt: skip
    assert (facts["preparation"]["scaling"], facts["preparation"]["scope"]) == ("z-score", "session")
    assert facts["preparation"]["unit"] == "percent signal change"
    assert any("COCO" in defect for defect in facts["known_defects"])
    first = next(iter(load_dataset(str(folder), "sub-05", split="test", streaming=True)))
    assert len(first["fmri"]) == 11


def test_masks_tell_where_the_voxels_lie(raw_dir, tmp_path):
    folder = nsd.prepare(raw_dir, tmp_path / "out", subjects=["sub-05"])
    region = nibabel.load(raw_dir / "nsddata/ppdata/subj05/func1pt8mm/roi/nsdgeneral.nii.gz")
    mask = nibabel.load(folder / "masks" / "sub-05.nii.gz")
    np.testing.assert_array_equal(mask.get_fdata(), region.get_fdata() > 0)
    np.testing.assert_array_equal(mask.affine, region.affine)


def test_matrices_written_by_matlab_itself(real_data):
    path = real_data / "digit69_fmri" / "digit69_28x28.mat"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    expected = loadmat(path)
    for name, matrix in read_matrices(path, ["fmriTest", "labelTrn", "stimTrn"]).items():
        np.testing.assert_array_equal(matrix, expected[name])


def test_statistics_ignore_test_and_validation(own_raw_dir, tmp_path):
    """Changing the responses to shared images changes no training row."""
    before = rows_of(nsd.prepare(own_raw_dir, tmp_path / "before"))
    _, shared, _ = truth(own_raw_dir, 1)
    for session in (1, 2):
        path = betas_path(own_raw_dir, 1, session)
        values = np.asanyarray(nibabel.load(path).dataobj).copy()
        values[..., shared[(session - 1) * PER_SESSION : session * PER_SESSION]] = 3000
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    after = rows_of(nsd.prepare(own_raw_dir, tmp_path / "after"))
    for (split, old), (_, new) in zip(before, after, strict=True):
        same = np.array_equal(old["fmri"], new["fmri"])
        assert same == (split != "test" or old["subject"] != "sub-01")


def annotations(folder, without=None):
    """COCO instance files; image i has an object in the crop and one that was cut away."""
    folder.mkdir()
    for split, ids in (("train2017", [i for i in range(N_STIMULI) if i != 4]), ("val2017", [4])):
        ids = [i for i in ids if i != without]
        boxes = [(i, 1, [30, 30, 20, 20]) for i in ids] + [(i, 2, [0, 0, 10, 100]) for i in ids]
        boxes += [(i, 3, [20, 20, 60, 60]) for i in ids if i % 2]
        content = {
            "licenses": [{"id": 1, "name": "a licence", "url": "https://example.org"}],
            "images": [{"id": 500 + i, "width": 100, "height": 100} for i in ids],
            "annotations": [
                {"segmentation": {"counts": [3], "size": [1, 1]}, "image_id": 500 + i, "category_id": c, "bbox": box}
                for i, c, box in boxes
            ],
            "categories": [{"id": c + 1, "name": name} for c, name in enumerate(("cat", "gone", "sofa"))],
        }
        content = dict(reversed(content.items())) if split == "val2017" else content
        (folder / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


def test_categories_are_those_inside_the_crop(raw_dir, tmp_path):
    folder = nsd.prepare(raw_dir, tmp_path / "out", annotations_dir=annotations(tmp_path / "coco"))
    rows = rows_of(folder)
    assert rows
    for _, row in rows:
        odd = int(row["image_id"][4:]) % 2
        assert list(row["categories"]) == (["sofa", "cat"] if odd else ["cat"])
        assert row["concept"] == ("sofa" if odd else "cat")


def test_unknown_coco_images_are_named(raw_dir, tmp_path):
    shown = int(truth(raw_dir, 1)[0][0][4:])
    with pytest.raises(DataError, match=f"does not know COCO image {500 + shown}"):
        nsd.prepare(raw_dir, tmp_path / "out", annotations_dir=annotations(tmp_path / "coco", without=shown))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="instances_"):
        nsd.prepare(raw_dir, tmp_path / "out", annotations_dir=tmp_path / "empty")


def test_visible_area_by_hand():
    # 100 x 50 image, 10 % cut from the top, 20 % from the left
    assert visible_area((0, 0, 100, 50), (0.1, 0, 0.2, 0), 100, 50) == pytest.approx(80 * 45)
    assert visible_area((10, 10, 20, 10), (0.1, 0, 0.2, 0), 100, 50) == pytest.approx(10 * 10)
    assert visible_area((0, 0, 20, 50), (0.1, 0, 0.2, 0), 100, 50) == 0


def facts_of(folder):
    return json.loads((folder / "neural_clip.json").read_text())


def test_absent_behaviour_makes_a_set_partial(own_raw_dir, tmp_path):
    responses_path(own_raw_dir, 5).unlink()
    folder = nsd.prepare(own_raw_dir, tmp_path / "out", allow_partial=True, average_repeats=False)
    facts = facts_of(folder)
    assert facts["partial"] == {"sub-05 responses.tsv": {"found": "absent", "declared": "present"}}
    assert any("responses.tsv of sub-05" in defect for defect in facts["known_defects"])
    assert {row["run"] for _, row in rows_of(folder, "sub-05")} == {""}
    assert {row["run"] for _, row in rows_of(folder, "sub-01")} == {"run-01", "run-02"}


@pytest.mark.parametrize("averaged", [False, True])
def test_partial_copies_keep_trial_numbers(raw_dir, own_raw_dir, tmp_path, averaged):
    """Session 1 of a subject is missing; what is left equals those rows of the full set."""
    betas_path(own_raw_dir, 1, 1).unlink()
    folder = nsd.prepare(own_raw_dir, tmp_path / "part", allow_partial=True, average_repeats=averaged)
    ids, shared, _ = truth(raw_dir, 1)
    here = range(PER_SESSION, 2 * PER_SESSION)
    rows = [row for _, row in rows_of(folder, "sub-01")]
    facts = facts_of(folder)
    assert facts["partial"]["sub-01 sessions"] == {"found": 1, "declared": 2}
    assert facts["partial"]["sub-01 trials of shared images"]["found"] == int(shared[PER_SESSION:].sum())
    assert not any(name.startswith("sub-05") for name in facts["partial"])
    assert facts["preprocessing"]["sessions"] == {"sub-01": "2", "sub-05": "1-2"}
    if averaged:
        counts = {row["image_id"]: int(row["n_repeats"]) for row in rows}
        assert counts == {name: ids[PER_SESSION:].count(name) for name in ids[PER_SESSION:]}
        assert all(int(row["trial"]) == ids.index(row["image_id"], PER_SESSION) for row in rows)
        return
    assert sorted(int(row["trial"]) for row in rows) == list(here)
    full = nsd.prepare(raw_dir, tmp_path / "full", average_repeats=False)
    whole = {(row["subject"], int(row["trial"])): (split, row) for split, row in rows_of(full)}
    for split, row in rows_of(folder):
        expected_split, expected = whole[row["subject"], int(row["trial"])]
        assert split == expected_split and row["image_id"] == expected["image_id"]
        np.testing.assert_array_equal(row["fmri"], expected["fmri"])


def test_partial_needs_a_session(own_raw_dir, tmp_path):
    for session in (1, 2):
        betas_path(own_raw_dir, 5, session).unlink()
    with pytest.raises(DataError, match="sub-05 lacks the betas of session 1"):
        nsd.prepare(own_raw_dir, tmp_path / "out", allow_partial=True)


def write_region(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return path


def regions(root, name="prf-visualrois"):
    """A file of numbered regions for each subject; the voxels of each."""
    found = {}
    for subject in SUBJECTS:
        shape = read_mask(region_path(root, subject)).shape
        found[subject] = np.random.default_rng(subject).integers(-1, 5, shape).astype(np.int16)
        write_region(region_path(root, subject, name), found[subject])
    return found


@pytest.mark.parametrize(
    ("roi", "values", "wanted"),
    [("prf-visualrois", None, (1, 2, 3, 4)), ("prf-visualrois", [2, 4], (2, 4)), ("PATH", [1], (1,))],
)
def test_other_regions(own_raw_dir, tmp_path, roi, values, wanted):
    numbered = regions(own_raw_dir)
    if roi == "PATH":
        roi = str(region_path(own_raw_dir, 1, "prf-visualrois")).replace("subj01", "{subject}")
    options = {"roi": roi, "roi_values": values, "session_zscore": "none", "average_repeats": False}
    folder = nsd.prepare(own_raw_dir, tmp_path / "out", **options)
    facts = facts_of(folder)
    assert facts["roi"].startswith("prf-visualrois") and facts["roi_values"] == values
    for subject in SUBJECTS:
        marked = np.isin(numbered[subject], wanted)
        assert facts["n_voxels"][f"sub-{subject:02d}"] == marked.sum() > 0
        for session in (1, 2):
            betas = nibabel.load(betas_path(own_raw_dir, subject, session)).get_fdata()[marked].T / 300
            for _, row in rows_of(folder, f"sub-{subject:02d}"):
                if row["session"] == f"ses-{session:02d}":
                    np.testing.assert_allclose(row["fmri"], betas[int(row["trial"]) % PER_SESSION], rtol=1e-6)


@pytest.mark.parametrize(
    ("roi", "values", "message"),
    [
        ("prf-visualrois", [2, 7], "'roi_values'.* holds 1, 2, 3, 4, but got 7 instead"),
        ("prf-visualrois", [0], "'roi_values' parameter. Allowed is numbers of regions"),
        ("prf-visualrois", [], "'roi_values'"),
        ("Kastner2015", None, r"Kastner2015\.nii\.gz' does not exist"),
        ("../secrets", None, "'roi' parameter. Allowed is a name"),
        ("/rois/V1.nii.gz", None, "'roi' parameter. A file holds the region of one subject"),
        ("float", None, "holds float32, scaled by|should be 3-D"),
    ],
)
def test_wrong_regions_are_named(own_raw_dir, tmp_path, roi, values, message):
    regions(own_raw_dir)
    write_region(region_path(own_raw_dir, 1, "float"), np.zeros((2, 2, 2, 2), np.float32))
    with pytest.raises(DataError, match=message):
        nsd.prepare(own_raw_dir, tmp_path / "out", roi=roi, roi_values=values)
    assert not (tmp_path / "out").exists()


def test_one_file_serves_one_subject(own_raw_dir, tmp_path):
    path = write_region(tmp_path / "V1.nii", regions(own_raw_dir)[5])
    folder = nsd.prepare(own_raw_dir, tmp_path / "out", roi=str(path), subjects=["sub-05"])
    assert facts_of(folder)["roi"] == "V1.nii"
    with pytest.raises(DataError, match="same subject"):
        nsd.prepare(own_raw_dir, tmp_path / "other", roi=str(path), subjects=["sub-01"])


def test_scaled_region_files_are_refused(tmp_path):
    values = np.arange(8, dtype=np.int16).reshape(2, 2, 2)
    image = nibabel.Nifti1Image(values, np.eye(4))
    content = bytearray(image.to_bytes())
    content[112:116] = np.float32(-1).tobytes()  # scl_slope
    (tmp_path / "V1.nii").write_bytes(content)
    with pytest.raises(DataError, match="plain numbers"):
        read_mask(tmp_path / "V1.nii")


def test_region_files_hold_finite_values(tmp_path):
    values = np.array([0, 1, np.nan, 2, 0, 0, 0, 1], dtype=np.float32).reshape(2, 2, 2)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "V1.nii")
    with pytest.raises(DataError, match=r"V1\.nii' holds NaN or infinite values"):
        read_mask(tmp_path / "V1.nii")


@pytest.mark.slow
def test_processes_write_the_same(raw_dir, tmp_path):
    alone = nsd.prepare(raw_dir, tmp_path / "alone", average_repeats=False)
    together = nsd.prepare(raw_dir, tmp_path / "together", average_repeats=False, num_proc=2)
    assert facts_of(alone)["fingerprint"] == facts_of(together)["fingerprint"]


def parts_of(raw_dir, monkeypatch, **parameters):
    """The parts that `prepare` hands to the writer, as (images, recordings)."""
    handed = []
    monkeypatch.setattr(
        nsd, "write_prepared",
        lambda output_dir, metadata, recordings, images, **options: handed.append((images, recordings)),
    )  # fmt: skip
    nsd.prepare(raw_dir, "unused", **parameters)
    return handed[0]


def test_parts_are_picklable_and_name_their_files(raw_dir, monkeypatch):
    monkeypatch.setattr("neural_clip.corpora.image_parts.IMAGES_A_PART", 8)
    images, recordings = parts_of(raw_dir, monkeypatch, average_repeats=False)
    assert [part.n_rows for part in images] == [8, 8, 5]
    assert [part.name for part in recordings] == ["sub-01_ses-01", "sub-01_ses-02", "sub-05_ses-01", "sub-05_ses-02"]
    whole = parts_of(raw_dir, monkeypatch)[1]
    assert [part.name for part in whole] == ["sub-01", "sub-05"]
    for part in [*images, *recordings, *whole]:
        again = pickle.loads(pickle.dumps(part.rows))
        assert pickle.dumps(again) == pickle.dumps(part.rows)  # else finished parts would not be known again
        rows, others = list(part.rows()), list(again())
        sessions = sum(isinstance(row, Statistics) for row in rows)
        assert sessions == part.name.count("ses-") + 2 * (part in whole)
        assert len(rows) - sessions == part.n_rows
        assert all(map(str.__eq__, map(str, rows), map(str, others)))
    tables = {"nsdgeneral.nii.gz", "nsd_expdesign.mat", "nsd_stim_info_merged.csv", "responses.tsv"}
    assert {path.name for path in recordings[1].files} == tables | {"betas_session02.nii.gz"}
    assert {path.name for path in whole[0].files} == tables | {"betas_session01.nii.gz", "betas_session02.nii.gz"}
    assert {path.name for path in images[0].files} == {"nsd_stimuli.hdf5", "nsd_stim_info_merged.csv"}


def test_card_tells_the_terms(raw_dir, tmp_path):
    folder = nsd.prepare(raw_dir, tmp_path / "out", average_repeats=False)
    facts, card = facts_of(folder), (folder / "README.md").read_text()
    assert facts["pretty_name"] == "NSD, 2 sessions, single trials, prepared for neural_clip"
    assert facts["pretty_name"] in card and facts["terms"] in card and facts["licence"] in card
    assert facts["partial"] is None and facts["declared"]["sessions"] == 2
    shared = truth(raw_dir, 1)[1]
    assert facts["declared"]["trials of shared images"] == int(shared.sum())
    averaged = facts_of(nsd.prepare(raw_dir, tmp_path / "averaged", n_sessions=1))
    assert averaged["pretty_name"] == "NSD, 1 sessions, repeats averaged, prepared for neural_clip"


def test_several_gzip_members_are_read(own_raw_dir):
    path, mask = betas_path(own_raw_dir, 5, 1), read_mask(region_path(own_raw_dir, 5))
    expected = read_session(path, mask, PER_SESSION)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]) + bytes(70))
    np.testing.assert_array_equal(read_session(path, mask, PER_SESSION), expected)
    path.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:])[:-4])
    with pytest.raises(DataError, match="end early"):
        read_session(path, mask, PER_SESSION)


@pytest.mark.parametrize("chunks", [(PER_SESSION, 1, 1, 1), (5, 2, 3, 2), None])
def test_hdf5_layouts_give_the_same(own_raw_dir, chunks):
    path, mask = betas_path(own_raw_dir, 5, 1), read_mask(region_path(own_raw_dir, 5))
    values = np.asanyarray(nibabel.load(path).dataobj).transpose(3, 2, 1, 0)
    other = path.with_name("other.hdf5")
    with h5py.File(other, "w") as file:
        file.create_dataset("betas", data=values, chunks=chunks, compression="gzip" if chunks else None)
    np.testing.assert_array_equal(read_session(other, mask, PER_SESSION), read_session(path, mask, PER_SESSION))


def test_sessions_must_be_asked_for(own_raw_dir, tmp_path):
    (own_raw_dir / "SIMULATED.json").unlink()
    with pytest.raises(DataError, match=r"37 sessions are asked for and 2 are in .*--n-sessions"):
        nsd.prepare(own_raw_dir, tmp_path / "out")
    with pytest.raises(DataError, match="subj01 should mark 15724 voxels"):
        nsd.prepare(own_raw_dir, tmp_path / "out", n_sessions=2)


def test_fewer_sessions(raw_dir, tmp_path):
    folder = nsd.prepare(raw_dir, tmp_path / "out", n_sessions=1, average_repeats=False)
    assert len(rows_of(folder)) == 2 * PER_SESSION
    with pytest.raises(DataError, match="lacks the betas of session 3"):
        nsd.prepare(raw_dir, tmp_path / "more", n_sessions=3)


def test_official_design_must_have_the_published_counts(tmp_path):
    """30,000 trials in another order keep all sizes but not the counts after 30 and 37 sessions."""
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(1, 10001), 3))
    lists = np.concatenate([np.tile(np.arange(1, 1001), (8, 1)), 1000 + np.arange(1, 72001).reshape(8, 9000)], axis=1)
    (tmp_path / EXPERIMENT).mkdir(parents=True)
    path = tmp_path / EXPERIMENT / "nsd_expdesign.mat"
    savemat(path, {"masterordering": order[None], "subjectim": lists, "sharedix": np.arange(1, 1001)[None]})
    assert read_design(tmp_path, [1], official=False).order.size == 30000
    with pytest.raises(DataError, match=f"after 30 sessions.*{SPLIT_COUNTS[30][0]}"):
        read_design(tmp_path, [1], official=True)
    savemat(path, {"masterordering": order[None, :750], "subjectim": lists, "sharedix": np.arange(1, 1001)[None]})
    with pytest.raises(DataError, match="30000"):
        read_design(tmp_path, [1], official=True)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match="damaged"):
        read_design(tmp_path, [1], official=True)


def official_order():
    """An order of 30,000 trials with the published counts after 30, 37 and 40 sessions."""
    rng = np.random.default_rng(0)
    blocks = [[], [], []]
    for first, n_images, trials, images in (
        (1000, 9000, (20312, 24980), (8302, 8859)),
        (0, 1000, (2188, 2770), (907, 982)),
    ):
        ids = first + np.arange(n_images)
        left = np.full(n_images, 3)
        for block, (until, seen) in enumerate(zip((*trials, 3 * n_images), (*images, n_images), strict=True)):
            new = [i for i in range(seen) if left[i] == 3]
            left[new] -= 1
            spare = np.repeat(np.arange(seen), left[:seen])
            n_more = until - (3 * n_images - left.sum())
            more = rng.permutation(spare)[:n_more]
            np.subtract.at(left, more, 1)
            blocks[block] += [*ids[new], *ids[more]]
    return np.concatenate([rng.permutation(block) for block in blocks]) + 1


def test_official_design_gives_the_published_counts(tmp_path):
    lists = np.concatenate([np.tile(np.arange(1, 1001), (8, 1)), 1000 + np.arange(1, 72001).reshape(8, 9000)], axis=1)
    (tmp_path / EXPERIMENT).mkdir(parents=True)
    tables = {"masterordering": official_order()[None], "subjectim": lists, "sharedix": np.arange(1, 1001)[None]}
    savemat(tmp_path / EXPERIMENT / "nsd_expdesign.mat", tables, do_compression=True)
    design = read_design(tmp_path, range(1, 9), official=True)
    for n_sessions, counts in ((30, (20312, 2188, 8302, 907)), (37, (24980, 2770, 8859, 982))):
        n_trials = n_sessions * 750
        splits = nsd_plan._splits(design, 7, n_trials, NsdOptions())
        ids = design.nsd_ids(7, n_trials)
        test = splits == 2
        assert (n_trials - test.sum(), test.sum()) == counts[:2]
        assert (np.unique(ids[~test]).size, np.unique(ids[test]).size) == counts[2:]
        assert np.unique(ids[splits == 1]).size == round(0.1 * counts[2])
        assert not set(ids[splits == 1]) & set(ids[splits == 0])


def test_declared_voxels_and_grid(raw_dir, monkeypatch):
    """Without a mark of simulation the published numbers hold; those of voxels for nsdgeneral alone."""
    path = region_path(raw_dir, 1)
    monkeypatch.setattr(nsd_plan, "NSDGENERAL_VOXELS", {1: 17})
    monkeypatch.setattr(nsd_plan, "GRIDS", {1: (4, 3, 5)})
    assert nsd_plan._mask(raw_dir, path, 1, NsdOptions(), None).sum() == 17
    monkeypatch.setattr(nsd_plan, "NSDGENERAL_VOXELS", {1: 18})
    with pytest.raises(DataError, match="should mark 18 voxels"):
        nsd_plan._mask(raw_dir, path, 1, NsdOptions(), None)
    assert nsd_plan._mask(raw_dir, path, 1, NsdOptions(roi="streams"), None).sum() == 17
    monkeypatch.setattr(nsd_plan, "GRIDS", {1: (4, 3, 6)})
    with pytest.raises(DataError, match=r"should have shape \(4, 3, 6\)"):
        nsd_plan._mask(raw_dir, path, 1, NsdOptions(roi="streams"), None)


def test_official_stimulus_table_is_whole(raw_dir):
    with pytest.raises(DataError, match="should have 73000 images, but has 21"):
        read_stim_info(raw_dir, [1], official=True)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"session_zscore": "all"}, "'session_zscore'"),
        ({"betas_format": "mgh"}, "'betas_format'"),
        ({"subjects": ["sub-02"]}, "Allowed values are 'sub-01' and 'sub-05'"),
        ({"n_sessions": 0}, "'n_sessions'"),
        ({"validation_fraction": 1.5}, "fraction"),
    ],
)
def test_wrong_parameters_are_named(raw_dir, tmp_path, parameters, message):
    with pytest.raises(DataError, match=message):
        nsd.prepare(raw_dir, tmp_path / "out", **parameters)


def test_constant_voxels_become_zero(own_raw_dir, tmp_path):
    mask = read_mask(own_raw_dir / "nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz")
    for session in (1, 2):
        path = betas_path(own_raw_dir, 1, session)
        values = np.asanyarray(nibabel.load(path).dataobj).copy()
        values[tuple(np.argwhere(mask)[3])] = 5
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    with pytest.warns(UserWarning, match="1 voxels"):
        folder = nsd.prepare(own_raw_dir, tmp_path / "out")
    assert all(row["fmri"][3] == 0 for _, row in rows_of(folder, "sub-01"))


def test_program_reports_in_one_line(raw_dir, tmp_path, capsys, monkeypatch):
    script = REPOSITORY / "dataset_scripts" / "nsd.py"
    arguments = ["--raw-dir", str(raw_dir), "--output-dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [str(script), *arguments, "--no-average-repeats", "--n-sessions", "2"])
    runpy.run_path(str(script), run_name="__main__")
    assert json.loads((tmp_path / "out" / "neural_clip.json").read_text())["average_repeats"] is False
    monkeypatch.setattr(
        sys, "argv", [str(script), "--raw-dir", str(tmp_path / "out"), "--output-dir", str(tmp_path / "o")]
    )
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 2 and "is it a copy of NSD" in capsys.readouterr().err
