"""NSD builder, on small corpora written here by hand in the layout of the real files."""

import csv
import gzip
import json
import runpy
import sys
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from datasets import load_dataset
from scipy.io import loadmat, savemat

from neural_clip.corpora import nsd
from neural_clip.corpora.nsd_betas import read_mask, read_session
from neural_clip.corpora.nsd_design import SPLIT_COUNTS, _visible_area, read_design
from neural_clip.errors import DataError

SUBJECTS, N_SHARED, N_UNSHARED, N_SESSIONS, PER_SESSION = (1, 5), 3, 9, 2, 14
N_IMAGES, N_STIMULI = N_SHARED + N_UNSHARED, N_SHARED + 2 * N_UNSHARED
GRIDS = {1: (4, 3, 5), 5: (3, 5, 4)}
EXPERIMENT = "nsddata/experiments/nsd"


def build(root: Path) -> Path:
    """Write a corpus: two subjects, two sessions, NIfTI betas, masks, tables and stimuli."""
    rng = np.random.default_rng(1)
    ids = rng.permutation(N_STIMULI) + 1  # 1-based
    shared = np.sort(ids[:N_SHARED])
    lists = np.zeros((8, N_IMAGES))
    lists[:, :N_SHARED] = shared
    for own, subject in zip(np.split(ids[N_SHARED:], 2), SUBJECTS, strict=True):
        lists[subject - 1, N_SHARED:] = own
    order = rng.permutation(np.repeat(np.arange(1, N_IMAGES + 1), 3))
    folder = root / EXPERIMENT
    folder.mkdir(parents=True)
    savemat(
        folder / "nsd_expdesign.mat", {"masterordering": order[None], "subjectim": lists, "sharedix": shared[None]}
    )
    write_stim_info(folder / "nsd_stim_info_merged.csv", order, lists, shared)
    for subject in SUBJECTS:
        write_subject(root, subject, lists[subject - 1, order - 1].astype(int), order, rng)
    (root / "nsddata_stimuli/stimuli/nsd").mkdir(parents=True)
    with h5py.File(root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", "w") as file:
        pixels = np.broadcast_to(np.arange(N_STIMULI, dtype=np.uint8)[:, None, None, None], (N_STIMULI, 6, 6, 3))
        file.create_dataset("imgBrick", data=pixels)
    stamp = {
        "simulated": True, "n_sessions": N_SESSIONS, "trials_per_session": PER_SESSION,
        "n_voxels": {"sub-01": 17, "sub-05": 11},
    }  # fmt: skip
    (root / "SIMULATED.json").write_text(json.dumps(stamp))
    return root


def write_stim_info(path, order, lists, shared):
    """The stimulus table: 0-based nsdId, 1-based trials."""
    names = [f"subject{s}_rep{r}" for s in range(1, 9) for r in range(3)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "cocoId", "cocoSplit", "cropBox", "nsdId", "shared1000", *names])
        for i in range(N_STIMULI):
            trials = []
            for subject in range(1, 9):
                hits = np.flatnonzero(lists[subject - 1, order - 1] == i + 1) + 1 if subject in SUBJECTS else []
                trials += [*hits, 0, 0, 0][:3]
            split = "val2017" if i == 4 else "train2017"
            writer.writerow([i, 500 + i, split, (0, 0, 0.1, 0.1), i, i + 1 in shared, *trials])


def write_subject(root, subject, image_ids, order, rng):
    """Mask, betas and behaviour of one subject."""
    ppdata = root / f"nsddata/ppdata/subj{subject:02d}"
    shape, n_voxels = GRIDS[subject], {1: 17, 5: 11}[subject]
    mask = np.repeat([1, 0, -1], [n_voxels, 10, np.prod(shape) - n_voxels - 10])
    (ppdata / "func1pt8mm/roi").mkdir(parents=True)
    mask = rng.permutation(mask).reshape(shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), ppdata / "func1pt8mm/roi/nsdgeneral.nii.gz")
    for session in range(1, N_SESSIONS + 1):
        path = betas_path(root, subject, session)
        path.parent.mkdir(parents=True, exist_ok=True)
        betas = rng.integers(-900, 900, (*shape, PER_SESSION)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(betas, np.eye(4)), path)
    (ppdata / "behav").mkdir()
    with (ppdata / "behav/responses.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["SUBJECT", "SESSION", "RUN", "TRIAL", "73KID", "10KID", "RT"])
        for t in range(N_SESSIONS * PER_SESSION):
            row = t % PER_SESSION
            writer.writerow([subject, t // PER_SESSION + 1, row // 7 + 1, row % 7 + 1, image_ids[t], order[t], "NaN"])


def betas_path(root, subject, session, suffix=".nii.gz"):
    folder = root / f"nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm/betas_fithrf_GLMdenoise_RR"
    return folder / f"betas_session{session:02d}{suffix}"


def to_hdf5(root, subject, keep=False):
    """Write a subject's betas as MATLAB does: h5py sees the axes reversed."""
    for session in range(1, N_SESSIONS + 1):
        path = betas_path(root, subject, session)
        values = np.asanyarray(nibabel.load(path).dataobj)  # (X, Y, Z, trial)
        with h5py.File(betas_path(root, subject, session, ".hdf5"), "w") as file:
            file.create_dataset("betas", data=values.transpose(3, 2, 1, 0), chunks=(PER_SESSION, 1, 1, 1))
        if not keep:
            path.unlink()


@pytest.fixture(scope="module")
def raw_dir(tmp_path_factory):
    return build(tmp_path_factory.mktemp("nsd") / "raw")


@pytest.fixture
def own_raw_dir(tmp_path):
    return build(tmp_path / "raw")


def rows_of(folder, config="all"):
    """All rows as (split, row)."""
    return [
        (split, row)
        for split in ("train", "validation", "test")
        for row in load_dataset(str(folder), config, split=split).with_format("numpy")
    ]


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
    assert facts["scaling"] == {"method": "z-score per voxel and session", "fit_scope": "train"}
    assert any("COCO" in defect for defect in facts["known_defects"])
    first = next(iter(load_dataset(str(folder), "sub-05", split="test", streaming=True)))
    assert len(first["fmri"]) == 11


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
            "images": [{"id": 500 + i, "width": 100, "height": 100} for i in ids],
            "annotations": [{"image_id": 500 + i, "category_id": c, "bbox": box} for i, c, box in boxes],
            "categories": [{"id": c + 1, "name": name} for c, name in enumerate(("cat", "gone", "sofa"))],
        }
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
    with pytest.raises(DataError, match="instances_"):
        nsd.prepare(raw_dir, tmp_path / "out", annotations_dir=tmp_path)


def test_visible_area_by_hand():
    # 100 x 50 image, 10 % cut from the top, 20 % from the left
    assert _visible_area([0, 0, 100, 50], "(0.1, 0, 0.2, 0)", 100, 50) == pytest.approx(80 * 45)
    assert _visible_area([10, 10, 20, 10], "(0.1, 0, 0.2, 0)", 100, 50) == pytest.approx(10 * 10)
    assert _visible_area([0, 0, 20, 50], "(0.1, 0, 0.2, 0)", 100, 50) == 0


def truncate_nifti(root):
    path = betas_path(root, 5, 2)
    path.write_bytes(path.read_bytes()[:-60])


def shorten_nifti(root):
    path = betas_path(root, 5, 2)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-10]))


def empty_nifti(root):
    betas_path(root, 5, 2).write_bytes(b"")


def damage_nifti(root):
    content = bytearray(betas_path(root, 5, 2).read_bytes())
    content[len(content) // 2] ^= 255
    betas_path(root, 5, 2).write_bytes(content)


def truncate_hdf5(root):
    to_hdf5(root, 5)
    path = betas_path(root, 5, 2, ".hdf5")
    path.write_bytes(path.read_bytes()[:-500])


def unnamed_hdf5(root):
    to_hdf5(root, 5)
    with h5py.File(betas_path(root, 5, 2, ".hdf5"), "a") as file:
        file.move("betas", "data")


def scaled_betas(root):
    image = nibabel.load(betas_path(root, 5, 2))
    image.header.set_slope_inter(2, 0)
    raw = nibabel.Nifti1Image(np.asanyarray(image.dataobj), np.eye(4))
    raw.header.set_slope_inter(1, 0)
    content = bytearray(raw.to_bytes())
    content[112:116] = np.float32(2).tobytes()  # scl_slope
    betas_path(root, 5, 2).write_bytes(gzip.compress(bytes(content)))


def float_betas(root):
    values = np.asanyarray(nibabel.load(betas_path(root, 5, 2)).dataobj).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), betas_path(root, 5, 2))


def swapped_subject(root):
    for session in (1, 2):
        one, two = betas_path(root, 1, session), betas_path(root, 5, session)
        content = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(content)


def swapped_masks(root):
    one, two = (root / f"nsddata/ppdata/subj{s:02d}/func1pt8mm/roi/nsdgeneral.nii.gz" for s in SUBJECTS)
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


def swapped_behaviour(root):
    one, two = (root / f"nsddata/ppdata/subj{s:02d}/behav/responses.tsv" for s in SUBJECTS)
    one.write_bytes(two.read_bytes())


def edit_responses(root, row, column, value):
    path = root / "nsddata/ppdata/subj05/behav/responses.tsv"
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    lines[row + 1][lines[0].index(column)] = value
    path.write_text("\n".join("\t".join(line) for line in lines) + "\n")


def zero_based_responses(root):
    path = root / "nsddata/ppdata/subj05/behav/responses.tsv"
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    for line in lines[1:]:
        line[4] = str(int(line[4]) - 1)
    path.write_text("\n".join("\t".join(line) for line in lines) + "\n")


def wrong_session(root):
    edit_responses(root, 20, "SESSION", "1")


def short_responses(root):
    path = root / "nsddata/ppdata/subj05/behav/responses.tsv"
    path.write_text("\n".join(path.read_text().splitlines()[:20]))


def edit_design(root, **changes):
    path = root / EXPERIMENT / "nsd_expdesign.mat"
    tables = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    savemat(path, tables | {name: change(tables[name]) for name, change in changes.items()})


def zero_based_design(root):
    edit_design(root, masterordering=lambda x: x - 1)


def other_shared(root):
    edit_design(root, sharedix=lambda x: x + 1)


def other_order(root):
    edit_design(root, masterordering=lambda x: np.roll(x, 1))


def repeated_id(root):
    def twice(lists):
        lists[4, -1] = lists[4, -2]
        return lists

    edit_design(root, subjectim=twice)


def edit_stim_info(root, change):
    path = root / EXPERIMENT / "nsd_stim_info_merged.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def one_based_stim_info(root):
    def change(rows):
        for row in rows:
            row["nsdId"] = int(row["nsdId"]) + 1

    edit_stim_info(root, change)


def other_trial_in_stim_info(root):
    def change(rows):
        first, second = [row for row in rows if row["subject1_rep0"] not in ("0", "")][:2]
        first["subject1_rep0"], second["subject1_rep0"] = second["subject1_rep0"], first["subject1_rep0"]

    edit_stim_info(root, change)


def nothing_shared(root):
    def change(rows):
        for row in rows:
            row["shared1000"] = "False"

    edit_stim_info(root, change)


def empty_mask(root):
    path = root / "nsddata/ppdata/subj05/func1pt8mm/roi/nsdgeneral.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros(GRIDS[5], np.int16), np.eye(4)), path)


def lost_stimuli(root):
    path = root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    path.write_bytes(path.read_bytes()[:-700])


def few_stimuli(root):
    path = root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("imgBrick", data=np.zeros((5, 6, 6, 3), np.uint8))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_nifti, r"subj05.*betas_session02\.nii\.gz.*incomplete"),
        (shorten_nifti, r"betas_session02\.nii\.gz.*incomplete.*trial 14 of 14"),
        (empty_nifti, r"betas_session02\.nii\.gz"),
        (damage_nifti, r"betas_session02\.nii\.gz.*incomplete"),
        (truncate_hdf5, r"subj05.*betas_session02\.hdf5.*incomplete"),
        (unnamed_hdf5, r"betas_session02\.hdf5"),
        (scaled_betas, "slope 2"),
        (float_betas, "int16"),
        (swapped_subject, "same subject"),
        (swapped_masks, "subj01 should mark 17 voxels .* marks 11"),
        (empty_mask, "marks no voxel"),
        (swapped_behaviour, r"subj01.*responses\.tsv' contradicts .*expdesign.* trial 1 "),
        (zero_based_responses, "subj05.*contradicts .* trial 1 "),
        (wrong_session, "contradicts .* trial 21 "),
        (short_responses, "28 rows"),
        (zero_based_design, "masterordering should span 1 to 12, but spans 0 to 11"),
        (other_shared, "differ from sharedix"),
        (other_order, "disagree"),
        (repeated_id, "different ids"),
        (one_based_stim_info, "0-based"),
        (other_trial_in_stim_info, "disagree"),
        (nothing_shared, "shared1000"),
        (lost_stimuli, r"nsd_stimuli\.hdf5.*incomplete"),
        (few_stimuli, "imgBrick should be uint8"),
    ],
)
def test_damage_is_named(own_raw_dir, tmp_path, damage, message):
    damage(own_raw_dir)
    with pytest.raises(DataError, match=message):
        nsd.prepare(own_raw_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_absent_behaviour_is_said(own_raw_dir, tmp_path):
    (own_raw_dir / "nsddata/ppdata/subj05/behav/responses.tsv").unlink()
    with pytest.warns(UserWarning, match=r"responses\.tsv of subj05 is absent"):
        folder = nsd.prepare(own_raw_dir, tmp_path / "out")
    assert any(
        "responses.tsv" in defect for defect in json.loads((folder / "neural_clip.json").read_text())["known_defects"]
    )


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


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"session_zscore": "all"}, "'session_zscore'"),
        ({"betas_format": "mgh"}, "'betas_format'"),
        ({"subjects": ["sub-02"]}, "Allowed values are sub-01, sub-05"),
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
    script = Path(__file__).resolve().parents[1] / "dataset_scripts" / "nsd.py"
    arguments = ["--raw-dir", str(raw_dir), "--output-dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [str(script), *arguments, "--no-average-repeats", "--n-sessions", "2"])
    runpy.run_path(str(script), run_name="__main__")
    assert json.loads((tmp_path / "out" / "neural_clip.json").read_text())["average_repeats"] is False
    monkeypatch.setattr(sys, "argv", [str(script), "--raw-dir", str(tmp_path), "--output-dir", str(tmp_path / "o")])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 2 and "is it a copy of NSD" in capsys.readouterr().err
