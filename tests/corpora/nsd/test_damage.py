"""Damaged copies of a small NSD: a named error or the same rows, never another data set."""

import csv
import gzip
import hashlib
import json
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from folder_contents import contents
from neural_clip.corpora.nsd import build as nsd
from neural_clip.corpora.nsd.betas import read_mask, read_session
from neural_clip.corpora.nsd.categories import coco_categories
from neural_clip.corpora.nsd.design import read_design, read_stim_info
from neural_clip.corpora.nsd.rows import image_rows
from neural_clip.errors import DataError
from neural_clip.files.hdf5 import check_storage, open_dataset
from neural_clip.files.mat import read_matrices
from neural_clip.preparation import Statistics
from nsd_raw import EXPERIMENT, GRIDS, SUBJECTS, betas_path, region_path, responses_path, to_hdf5

STIM_INFO = f"{EXPERIMENT}/nsd_stim_info_merged.csv"
DESIGN = f"{EXPERIMENT}/nsd_expdesign.mat"
STIMULI = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"


@pytest.fixture(scope="module")
def complete(raw_dir, tmp_path_factory):
    """A data set that was prepared before the damage."""
    return nsd.prepare(raw_dir, tmp_path_factory.mktemp("complete") / "out")


def check_stim_rows(root, line, column, value):
    """Put a cell into a line of the stimulus table, counted from 1."""

    def change(rows):
        rows[line - 2][column] = value

    edit_stim_info(root, change)


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
    one, two = (region_path(root, s) for s in SUBJECTS)
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


def swapped_behaviour(root):
    one, two = (responses_path(root, s) for s in SUBJECTS)
    one.write_bytes(two.read_bytes())


def edit_responses(root, row, column, value):
    path = responses_path(root, 5)
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    lines[row + 1][lines[0].index(column)] = value
    path.write_text("\n".join("\t".join(line) for line in lines) + "\n")


def zero_based_responses(root):
    path = responses_path(root, 5)
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    for line in lines[1:]:
        line[4] = str(int(line[4]) - 1)
    path.write_text("\n".join("\t".join(line) for line in lines) + "\n")


def wrong_session(root):
    edit_responses(root, 20, "SESSION", "1")


def short_responses(root):
    path = responses_path(root, 5)
    path.write_text("\n".join(path.read_text().splitlines()[:20]))


def edit_design(root, **changes):
    path = root / DESIGN
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
    path = root / STIM_INFO
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
    path = region_path(root, 5)
    nibabel.save(nibabel.Nifti1Image(np.zeros(GRIDS[5], np.int16), np.eye(4)), path)


def lost_stimuli(root):
    path = root / STIMULI
    path.write_bytes(path.read_bytes()[:-700])


def few_stimuli(root):
    path = root / STIMULI
    with h5py.File(path, "w") as file:
        file.create_dataset("imgBrick", data=np.zeros((5, 6, 6, 3), np.uint8))


def lost_chunk(root):
    """A chunk that was never written: HDF5 itself would give zeros."""
    to_hdf5(root, 5)
    path = betas_path(root, 5, 2, ".hdf5")
    with h5py.File(path) as file:
        values = file["betas"][:]
    x, y, z = np.argwhere(read_mask(region_path(root, 5)))[0]
    with h5py.File(path, "w") as file:
        betas = file.create_dataset("betas", values.shape, "<i2", chunks=(len(values), 1, 1, 1))
        for place in np.ndindex(values.shape[1:]):
            if place != (z, y, x):
                betas[(slice(None), *place)] = values[(slice(None), *place)]


def big_endian_hdf5(root):
    to_hdf5(root, 5)
    path = betas_path(root, 5, 2, ".hdf5")
    with h5py.File(path) as file:
        values = file["betas"][:]
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", data=values.astype(">i2"), chunks=(len(values), 1, 1, 1))


def longer_nifti(root):
    path = betas_path(root, 5, 2)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"\0"))


def garbage_after_nifti(root):
    path = betas_path(root, 5, 2)
    path.write_bytes(path.read_bytes() + b"garbage")


def lost_session(root):
    betas_path(root, 5, 1).unlink()


def lost_responses(root):
    responses_path(root, 5).unlink()


def lost_design(root):
    (root / DESIGN).unlink()


def lost_stim_info(root):
    (root / STIM_INFO).unlink()


def lost_mask(root):
    region_path(root, 5).unlink()


def mask_of_another_kind(root):
    """The last byte of what says that the file is NIfTI."""
    content = bytearray(gzip.decompress(region_path(root, 5).read_bytes()))
    content[347] = 16
    region_path(root, 5).write_bytes(gzip.compress(bytes(content)))


def nan_response(root):
    edit_responses(root, 3, "73KID", "NaN")


def wordy_response(root):
    edit_responses(root, 3, "RUN", "two")


def run_goes_back(root):
    edit_responses(root, 9, "RUN", "1")


def shuffled_responses(root):
    path = responses_path(root, 5)
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *np.random.default_rng(0).permutation(lines)]) + "\n")


def narrow_responses(root):
    path = responses_path(root, 5)
    lines = path.read_text().splitlines()
    lines[5] = "\t".join(lines[5].split("\t")[:3])
    path.write_text("\n".join(lines) + "\n")


def binary_responses(root):
    responses_path(root, 5).write_bytes(b"SUBJECT\tSESSION\xff\n")


def shuffled_stim_info(root):
    edit_stim_info(root, lambda rows: rows.reverse())


def short_stim_info(root):
    edit_stim_info(root, lambda rows: rows.__delitem__(slice(8, None)))


def nan_in_stim_info(root):
    check_stim_rows(root, 4, "subject1_rep0", "nan")


def word_in_stim_info(root):
    check_stim_rows(root, 4, "cocoId", "many")


def crop_in_stim_info(root):
    check_stim_rows(root, 4, "cropBox", "(0, 0, 0.1)")


def whole_crop_in_stim_info(root):
    check_stim_rows(root, 4, "cropBox", "(0.5, 0.5, 0, 0)")


def split_in_stim_info(root):
    check_stim_rows(root, 4, "cocoSplit", "../../secrets")


def shared_in_stim_info(root):
    check_stim_rows(root, 4, "shared1000", "perhaps")


def trial_beyond_the_end(root):
    check_stim_rows(root, 4, "subject5_rep2", "37")


def trial_before_the_start(root):
    check_stim_rows(root, 4, "subject5_rep2", "-1")


def trial_named_twice(root):
    def change(rows):
        used = next(row for row in rows if row["subject1_rep0"] != "0")
        used["subject1_rep2"] = used["subject1_rep1"]

    edit_stim_info(root, change)


def trial_not_named(root):
    def change(rows):
        first = next(row for row in rows if row["subject5_rep0"] == "1")
        first["subject5_rep0"] = "0"

    edit_stim_info(root, change)


def fraction_in_design(root):
    edit_design(root, masterordering=lambda x: x + 0.25)


def not_a_number_in_design(root):
    edit_design(root, subjectim=lambda x: np.where(x == x.max(), np.nan, x))


def damaged_stamp(root):
    stamp = json.loads((root / "SIMULATED.json").read_text())
    (root / "SIMULATED.json").write_text(json.dumps(stamp | {"n_voxels": {"sub-01": 17}}))


def few_planned_trials(root):
    edit_design(root, masterordering=lambda x: x[:, :20])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_nifti, r"subj05.*betas_session02\.nii\.gz.*incomplete"),
        (shorten_nifti, r"betas_session02\.nii\.gz.*trial 14 of 14.*incomplete"),
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
        (short_responses, "28 rows or more"),
        (zero_based_design, "masterordering should span 1 to 12, but spans 0 to 11"),
        (other_shared, "differ from sharedix"),
        (other_order, "disagree"),
        (repeated_id, "different ids"),
        (one_based_stim_info, "0-based"),
        (other_trial_in_stim_info, "disagree"),
        (nothing_shared, "shared1000"),
        (lost_stimuli, r"nsd_stimuli\.hdf5.*incomplete"),
        (few_stimuli, "imgBrick should be uint8"),
        (lost_chunk, "should have 60 different chunks, but 59 are listed"),
        (big_endian_hdf5, "little-endian int16"),
        (longer_nifti, "longer than its header says"),
        (garbage_after_nifti, r"betas_session02\.nii\.gz.*damaged"),
        (lost_session, "sub-05 lacks the betas of session 1; .*--allow-partial"),
        (lost_responses, r"subj05.*responses\.tsv' does not exist.*--allow-partial"),
        (lost_design, r"expdesign\.mat' does not exist"),
        (lost_stim_info, r"stim_info_merged\.csv' does not exist"),
        (lost_mask, r"nsdgeneral\.nii\.gz' does not exist"),
        (mask_of_another_kind, r"subj05.*nsdgeneral\.nii\.gz' cannot be read"),
        (nan_response, "line 5 should have a whole number as 73KID, but has 'NaN'"),
        (wordy_response, "line 5 should have a whole number as RUN, but has 'two'"),
        (run_goes_back, "of run 1 after run 2"),
        (shuffled_responses, "contradicts"),
        (narrow_responses, "line 6 has 3 cells, the header 7"),
        (binary_responses, "damaged or no table"),
        (shuffled_stim_info, "line 2 should have nsdId 0"),
        (short_stim_info, "shared1000 differ|disagree"),
        (nan_in_stim_info, "line 4 should have a whole number as subject1_rep0, but has 'nan'"),
        (word_in_stim_info, "line 4 should have a whole number as cocoId"),
        (crop_in_stim_info, "line 4 should have a cropBox of four fractions"),
        (whole_crop_in_stim_info, "line 4 should have a cropBox"),
        (split_in_stim_info, "line 4 should have cocoSplit train2017 or val2017"),
        (shared_in_stim_info, "line 4 should have shared1000"),
        (trial_beyond_the_end, "image 2 names trial 37 of subject 5"),
        (trial_before_the_start, "image 2 names trial -1 of subject 5"),
        (trial_named_twice, "disagree"),
        (trial_not_named, "trial 1 of subject 5 shows image -1 or"),
        (fraction_in_design, "damaged.*whole numbers"),
        (not_a_number_in_design, "damaged.*whole numbers"),
        (few_planned_trials, "plans 20 trials"),
        (damaged_stamp, "SIMULATED.json' is damaged: it should have a whole number from 1 on as 'sub-05'"),
    ],
)
def test_damage_is_named_and_changes_nothing(own_raw_dir, complete, tmp_path, damage, message):
    damage(own_raw_dir)
    with pytest.raises(DataError, match=message):
        nsd.prepare(own_raw_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    before = contents(complete)
    with pytest.raises(DataError, match=message):
        nsd.prepare(own_raw_dir, complete, overwrite=True)
    assert contents(complete) == before


def digest(raw_dir, **parameters):
    """Hash of all rows that would be written."""
    found = []

    def collect(output_dir, metadata, recordings, images, **options):
        total = hashlib.sha256()
        for part in [*images, *recordings]:
            for row in part.rows():
                for key, value in (row.arrays() if isinstance(row, Statistics) else row).items():
                    total.update(value.tobytes() if isinstance(value, np.ndarray) else f"{key} {value}".encode())
        found.append(total.hexdigest())
        return output_dir

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nsd, "write_prepared", collect)
        nsd.prepare(raw_dir, raw_dir.with_name("unused"), **parameters)
    return found[0]


FILES = [
    betas_path(Path(), 5, 2), region_path(Path(), 5), responses_path(Path(), 5), DESIGN, STIM_INFO, STIMULI,
    betas_path(Path(), 5, 2, ".hdf5"),
]  # fmt: skip


@pytest.mark.parametrize("name", [str(path) for path in FILES])
def test_cut_files_are_refused_or_give_the_same(own_raw_dir, name):
    if name.endswith(".hdf5") and "betas" in name:
        to_hdf5(own_raw_dir, 5)
    path = own_raw_dir / name
    expected, content = digest(own_raw_dir), path.read_bytes()
    lengths = {0, 1, len(content) // 2, len(content) - 1, len(content) - 9}
    lengths |= set(np.random.default_rng(0).integers(0, len(content), 12).tolist())
    refused = 0
    for length in sorted(lengths):
        path.write_bytes(content[:length])
        try:
            assert digest(own_raw_dir) == expected, f"cut at {length}"
        except DataError as error:
            refused += 1
            assert str(error)
    assert refused >= len(lengths) // 2  # what follows the needed rows of responses.tsv may be cut


def refused_or_same(path, read, flips, pack=bytes, unpack=bytes):
    """Write flipped copies of a file, and require of each an error or what the whole file gives; count both."""
    content = unpack(path.read_bytes())
    expected = read(path)
    counts = {"refused": 0, "same": 0}
    copy = path.with_name("copy_" + path.name)
    for place, value in flips(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= value
        copy.write_bytes(pack(bytes(damaged)))
        try:
            found = read(copy)
        except DataError:
            counts["refused"] += 1
            continue
        counts["same"] += 1
        same = len(found) == len(expected) and all(map(np.array_equal, found, expected))
        assert same, f"{value} at {place} of {path.name} gives other values"
    return counts


def random_flips(count, places=None):
    """Seeded flips of one bit or several of a byte, anywhere or at given places."""

    def flips(size):
        rng = np.random.default_rng(size)
        at = rng.integers(0, size, count) if places is None else rng.choice(places, count)
        values = np.where(rng.random(count) < 0.5, 1 << rng.integers(0, 8, count), rng.integers(1, 256, count))
        return [(int(place), int(value)) for place, value in zip(at, values, strict=True)]

    return flips


def whole_header(size):
    """Every byte of a NIfTI header, flipped in three ways."""
    rng = np.random.default_rng(size)
    return [(place, int(value)) for place in range(352) for value in rng.integers(1, 256, 3)]


def test_flips_in_gzip_are_noticed(own_raw_dir):
    mask = read_mask(region_path(own_raw_dir, 5))
    every = lambda size: [(place, 1 << place % 8) for place in range(size)]  # noqa: E731
    counts = refused_or_same(betas_path(own_raw_dir, 5, 2), lambda path: read_session(path, mask, 14), every)
    assert counts["refused"] > 100 and counts["same"] < 60  # the gzip header has a name and a date in it
    assert refused_or_same(region_path(own_raw_dir, 5), lambda path: [read_mask(path)], every)["refused"] > 50


def test_flips_in_nifti_headers_are_noticed(own_raw_dir):
    mask = read_mask(region_path(own_raw_dir, 5))
    pack = {"pack": gzip.compress, "unpack": gzip.decompress}
    betas = betas_path(own_raw_dir, 5, 2)
    counts = refused_or_same(betas, lambda path: read_session(path, mask, 14), whole_header, **pack)
    assert counts["refused"] > 40 and counts["same"] > 200
    counts = refused_or_same(region_path(own_raw_dir, 5), lambda path: [read_mask(path)], whole_header, **pack)
    assert counts["refused"] > 40 and counts["same"] > 200


def outside_chunks(path, name):
    """Bytes of an HDF5 file that are no values: superblock, headers, index of the chunks."""
    outside = np.ones(path.stat().st_size, bool)
    with h5py.File(path) as file:
        file[name].id.chunk_iter(
            lambda chunk: outside.__setitem__(slice(chunk.byte_offset, chunk.byte_offset + chunk.size), False)
        )
    return np.flatnonzero(outside)


def test_flips_in_hdf5_betas_are_noticed(own_raw_dir):
    """Outside of the values: HDF5 keeps no checksum of those."""
    to_hdf5(own_raw_dir, 5)
    mask, path = read_mask(region_path(own_raw_dir, 5)), betas_path(own_raw_dir, 5, 2, ".hdf5")
    flips = random_flips(600, outside_chunks(path, "betas"))
    counts = refused_or_same(path, lambda path: read_session(path, mask, 14), flips)
    assert min(counts.values()) > 50


def test_chunks_that_share_a_place_are_refused(own_raw_dir):
    """The address of one voxel's values is overwritten with that of another's."""
    to_hdf5(own_raw_dir, 5)
    path = betas_path(own_raw_dir, 5, 2, ".hdf5")
    places = []
    with h5py.File(path) as file:
        file["betas"].id.chunk_iter(lambda chunk: places.append(chunk.byte_offset))
    content = path.read_bytes()
    old, new = (place.to_bytes(8, "little") for place in (places[3], places[40]))
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    with pytest.raises(DataError, match="overlap or lie beyond the end"):
        read_session(path, read_mask(region_path(own_raw_dir, 5)), 14)


def test_flips_in_compressed_stimuli_are_noticed(own_raw_dir):
    path = own_raw_dir / STIMULI
    with h5py.File(path) as file:
        pixels = file["imgBrick"][:] + np.arange(6, dtype=np.uint8)[:, None]
    with h5py.File(path, "w") as file:
        file.create_dataset("imgBrick", data=pixels, chunks=(1, 6, 6, 3), compression="gzip")

    def read(path):
        with open_dataset(path, "imgBrick") as bricks:
            if bricks.shape != pixels.shape or bricks.dtype != np.uint8:
                raise DataError("shape and type are checked where the corpus is opened")
            check_storage(path, bricks)
        return [row["image"] for row in image_rows([(i, []) for i in range(len(pixels))], path)]

    np.testing.assert_array_equal(read(path), pixels)
    index = refused_or_same(path, read, random_flips(300, outside_chunks(path, "imgBrick")))
    assert min(index.values()) > 30
    assert refused_or_same(path, read, random_flips(200))["refused"] > 20


def test_flips_in_the_design_are_noticed(own_raw_dir):
    path = own_raw_dir / DESIGN
    expected, content = digest(own_raw_dir), path.read_bytes()
    refused = 0
    for place, value in random_flips(150)(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= value
        path.write_bytes(bytes(damaged))
        try:
            assert digest(own_raw_dir) == expected
        except DataError:
            refused += 1
    assert refused > 60


def test_matrices_equal_scipys(tmp_path):
    rng = np.random.default_rng(0)
    matrices = {
        "small": np.array([[3.0]]), "long_name_of_a_matrix": rng.integers(-9, 9, (3, 5)), "empty": np.zeros((0, 2)),
        "b": rng.integers(0, 200, (2, 3, 4)).astype(np.uint8), "wide": rng.standard_normal((1, 40)),
        "half": rng.standard_normal((4, 2)).astype(np.float32), "u": rng.integers(0, 9, 3).astype(np.uint16),
    }  # fmt: skip
    for compressed in (False, True):
        path = tmp_path / "numbers.mat"
        savemat(path, matrices | {"text": "not wanted"}, do_compression=compressed)
        theirs, ours = loadmat(path), read_matrices(path, list(matrices))
        for name in matrices:
            assert ours[name].shape == theirs[name].shape
            np.testing.assert_array_equal(ours[name], theirs[name])
        with pytest.raises(ValueError, match="no numeric matrix called 'text'"):
            read_matrices(path, ["text"])


def test_damaged_design_never_ends_the_process(tmp_path):
    """A wrong type code, which makes other readers of these files crash."""
    path = tmp_path / "numbers.mat"
    savemat(path, {"masterordering": np.arange(9.0)[None]})
    content = bytearray(path.read_bytes())
    place = content.index(b"masterordering") + 16
    assert content[place] == 9  # double
    content[place] = 25
    path.write_bytes(content)
    with pytest.raises(ValueError, match="one part of real numbers"):
        read_matrices(path, ["masterordering"])


@pytest.mark.parametrize(
    "content",
    [
        "{}", "[]", "{", '{"annotations": 1}', '{"images": [{"id": 1, "width": null}], "annotations": []}',
        '{"annotations": [{"image_id": 500, "category_id": 1, "bbox": [1, 2]}]}', "[" * 100000,
    ],
)  # fmt: skip
def test_damaged_annotations_are_named(own_raw_dir, tmp_path, content):
    (tmp_path / "instances_train2017.json").write_text(content)
    with pytest.raises(DataError, match=r"instances_train2017\.json"):
        coco_categories(tmp_path, read_stim_info(own_raw_dir, [1], official=False), [0])


def test_unused_subjects_may_be_anything(own_raw_dir):
    """The list of a subject who is not prepared has no say."""

    def other(lists):
        lists[2, -1] = 77
        return lists

    expected = digest(own_raw_dir)
    edit_design(own_raw_dir, subjectim=other)
    assert digest(own_raw_dir) == expected
    read_design(own_raw_dir, [1, 5], official=False)
    with pytest.raises(DataError, match="subject 3 should hold different ids"):
        read_design(own_raw_dir, [3], official=False)


def test_a_region_that_lies_elsewhere_is_refused(own_raw_dir, tmp_path):
    path = region_path(own_raw_dir, 5)
    region = nibabel.load(path)
    affine = region.affine.copy()
    affine[0] *= -1  # left and right exchanged: the same shape and the same number of voxels
    nibabel.Nifti1Image(np.asarray(region.dataobj), affine).to_filename(path)
    betas = betas_path(own_raw_dir, 5, 1)
    image = nibabel.load(betas)
    nibabel.Nifti1Image(np.asarray(image.dataobj), region.affine).to_filename(betas)
    with pytest.raises(DataError, match=r"mask '.*nsdgeneral\.nii\.gz' lies elsewhere in space than '.*session01"):
        nsd.prepare(own_raw_dir, tmp_path / "out")


def test_betas_in_another_unit_are_refused(own_raw_dir, tmp_path):
    path = betas_path(own_raw_dir, 5, 1)
    image = nibabel.load(path)
    values = (np.asarray(image.dataobj) / 300).astype(np.int16)  # percent, where 300 times as much is expected
    nibabel.Nifti1Image(values, image.affine).to_filename(path)
    with pytest.raises(DataError, match=r"session01\.nii\.gz': the unit is percent signal change, but .* plausible"):
        nsd.prepare(own_raw_dir, tmp_path / "out")
