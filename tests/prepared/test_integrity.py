"""Files of a prepared data set that are not those that were written: named when the set is opened or used."""

import hashlib
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from folder_contents import contents
from neural_clip.errors import DataError
from neural_clip.prepared.doctor.inspect import inspect
from neural_clip.prepared.facts import Facts, read_metadata, verify_prepared
from neural_clip.prepared.integrity import fingerprint
from neural_clip.prepared.reader import PreparedSet
from planted_data import older, write_planted
from toy_sets import write_toy_set

SMALL = {"train": 6, "validation": 5, "test": 5}
TRAIN, TEST = "data/sub-01/train-00000.parquet", "data/sub-01/test-00000.parquet"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small set of fMRI with a mask, whose bytes count for nothing here."""
    rng = np.random.default_rng(0)
    images = [{"image_id": f"im{i:02d}", "image": np.full((4, 4), 9 * i, np.uint8)} for i in range(20)]
    folder = tmp_path_factory.mktemp("written") / "set"
    write_toy_set(folder, images, rng.normal(size=(20, 4)), n_held_out=5)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "set")


def flip(path, place):
    """Change one bit of the byte at a place, the size stays."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def value_in(path):
    """The bytes of a value of a Parquet file, which stand in it as they are."""
    return np.float32(pq.read_table(path)["fmri"][2].as_py()[1]).tobytes()


def swap(folder, one, other):
    kept = (folder / one).read_bytes()
    (folder / one).write_bytes((folder / other).read_bytes())
    (folder / other).write_bytes(kept)


def replace_by(folder, name, how):
    (folder / name).unlink()
    how(folder / name)


# What is done to a set, the file that is named, and what is said of it.
SEEN_AT_ONCE = {
    "cut": (lambda f: (f / TEST).write_bytes((f / TEST).read_bytes()[:-7]), TEST, r"is not the file .* \d+ bytes"),
    "empty": (lambda f: (f / TEST).write_bytes(b""), TEST, "has 0 bytes instead of"),
    "footer": (lambda f: flip(f / TEST, -20), TEST, "has another footer"),
    "missing": (lambda f: (f / TRAIN).unlink(), TRAIN, "is missing"),
    "folder": (lambda f: replace_by(f, TRAIN, lambda path: path.mkdir()), TRAIN, "is a folder"),
    "dangling": (lambda f: replace_by(f, TRAIN, lambda path: path.symlink_to("no")), TRAIN, "is missing"),
    "loop": (lambda f: replace_by(f, TRAIN, lambda path: path.symlink_to(path.name)), TRAIN, "cannot be read"),
    "swapped": (lambda f: swap(f, TRAIN, TEST), TEST, "is not the file that was written"),
    "added rows": (lambda f: shutil.copy(f / TEST, f / "data/sub-01/test-00001.parquet"),
                   "data/sub-01/test-00001.parquet", "was added"),
    "added mask": (lambda f: ((f / "masks").mkdir(), (f / "masks/sub-01.nii.gz").write_bytes(b"x")),
                   "masks/sub-01.nii.gz", "was added"),
    "statistics": (lambda f: (f / "scaling.npz").write_bytes(b"other"), "scaling.npz", "5 bytes instead of 4"),
}  # fmt: skip
SEEN_WHEN_READ = {
    "rows": (
        lambda f: flip(f / TEST, (f / TEST).read_bytes().index(value_in(f / TEST))),
        TEST,
        "its content has another SHA-256",
    ),
    "other file": (lambda f: (f / "scaling.npz").write_bytes(b"kepT"), "scaling.npz", "another SHA-256"),
}


@pytest.mark.parametrize("case", [*SEEN_AT_ONCE, *SEEN_WHEN_READ])
def test_a_file_that_is_not_the_one_that_was_written_is_named(folder, case):
    spoil, name, said = (SEEN_AT_ONCE | SEEN_WHEN_READ)[case]
    PreparedSet.open(folder).verify()
    spoil(folder)
    if case in SEEN_AT_ONCE:
        with pytest.raises(DataError, match=rf"'{folder / name}' .*{said}"):
            PreparedSet.open(folder)
    else:
        PreparedSet.open(folder)  # sizes and footers are as they were
    for use in (verify_prepared, lambda folder: PreparedSet.open(folder).verify()):
        with pytest.raises(DataError, match=rf"'{folder / name}' .*{said}"):
            use(folder)
    if case not in ("folder", "dangling", "loop", "cut", "empty", "footer", "added mask"):  # which end the doctor too
        assert [f.message for f in inspect(folder) if f.check == "fingerprint" and str(folder / name) in f.message]


def test_what_is_no_file_of_the_set_does_not_matter(folder):
    (folder / "README.md").write_text("a better card")
    (folder / "notes.txt").write_text("mine")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.parquet").write_bytes(b"of a download")
    PreparedSet.open(folder).verify()


def test_the_list_of_files_belongs_to_the_fingerprint(folder):
    path = folder / "neural_clip.json"
    facts = json.loads(path.read_text())
    assert facts["fingerprint_version"] == 2
    lines = [f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n" for name in sorted(facts["files"])]
    assert facts["fingerprint"] == hashlib.sha256("".join(lines).encode()).hexdigest() == fingerprint(folder)
    assert {"scaling.npz", TRAIN} < set(facts["files"])
    (folder / "scaling.npz").write_bytes(b"kepT")
    facts["files"]["scaling.npz"]["sha256"] = hashlib.sha256(b"kepT").hexdigest()
    path.write_text(json.dumps(facts))
    with pytest.raises(DataError, match="not those that were prepared: fingerprint"):
        PreparedSet.open(folder).verify()


def test_older_sets_keep_their_fingerprint_and_their_rows_are_counted(folder):
    older(folder)
    before = contents(folder)
    assert Facts.read(folder).files is None and Facts.read(folder).fingerprint_version == 1
    (folder / "scaling.npz").write_bytes(b"other")
    PreparedSet.open(folder).verify()  # of Parquet files alone, as ever
    swap(folder, TRAIN, TEST)
    with pytest.raises(DataError, match=r"(train|test)-00000\.parquet' holds \d+ rows instead of \d+"):
        PreparedSet.open(folder)
    with pytest.raises(DataError, match="not those that were prepared"):
        verify_prepared(folder)
    swap(folder, TRAIN, TEST)
    for name, content, said in (
        (TEST, before[TEST][:-9], "test-00000.parquet' cannot be read: .*truncated"),
        (TEST, b"", "test-00000.parquet' is empty"),
        (TEST, before["images/images-00000.parquet"], r"test-00000\.parquet' holds 20 rows instead of 5"),
    ):
        (folder / name).write_bytes(content)
        with pytest.raises(DataError, match=said):
            PreparedSet.open(folder)


@pytest.mark.parametrize("name", ["../x.parquet", "/etc/passwd", "a/../../x"])
def test_the_list_names_files_of_the_set_alone(folder, name):
    facts = read_metadata(folder)
    facts["files"][name] = {"bytes": 0, "sha256": "0" * 64}
    (folder / "neural_clip.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"neural_clip\.json' is damaged: 'files' should be names below the folder"):
        PreparedSet.open(folder)


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_sizes_of_recordings_that_are_not_those_of_the_rows(tmp_path, modality):
    folder = write_planted(tmp_path / "set", modality, pixels=False, counts=SMALL)
    facts = read_metadata(folder)
    changed = {"n_times": 11} if modality == "eeg" else {"n_voxels": facts["n_voxels"] | {"sub-02": 12}}
    (folder / "neural_clip.json").write_text(json.dumps(facts | changed))
    said = r"column 'eeg' should be Array2D.*11.*but is Array2D.*10" if modality == "eeg" else "sub-02 has 12 voxels"
    with pytest.raises(DataError, match=said):
        PreparedSet.open(folder).split("test").values()


def test_a_set_that_was_written_again_is_not_taken_for_the_one_that_was_opened(tmp_path):
    folder = write_planted(tmp_path / "set", "eeg", counts=SMALL)
    opened = PreparedSet.open(folder).verify()
    shutil.rmtree(folder)
    write_planted(folder, "eeg", counts=SMALL | {"train": 7})
    with pytest.raises(DataError, match="set' was written again since it was opened"):
        opened.verify()
    PreparedSet.open(folder).verify()
