"""Rows on disk that cannot be those of the set: sets without a list of files, whose Parquet files are damaged."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neural_clip.errors import DataError
from neural_clip.prepared.doctor.inspect import inspect
from neural_clip.prepared.reader import PreparedSet
from planted_data import older, write_planted
from small_disk import run_on_small_disk

SMALL = {"train": 6, "validation": 5, "test": 5}
TEST, IMAGES = "data/sub-02/test-00000.parquet", "images/images-00000.parquet"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Of each kind a set of two subjects, as earlier versions wrote it, without digests of the embeddings."""
    root, found = tmp_path_factory.mktemp("written"), {}
    for modality in ("eeg", "fmri"):
        found[modality] = older(write_planted(root / modality, modality, pixels=False, counts=SMALL, repeats=1))
        text = (root / modality / "neural_clip.json").read_text()
        (root / modality / "neural_clip.json").write_text(text.replace('"format_version": 2', '"format_version": 1'))
    return found


def column(table, name, values, type_=None):
    """The table with other values in a column."""
    return table.set_column(
        table.column_names.index(name), name, pa.array(values, type_ or table.schema.field(name).type)
    )


def with_vector(table, row, vector):
    return column(table, "image_embeds", [vector if i == row else v for i, v in
                                          enumerate(table["image_embeds"].to_pylist())])  # fmt: skip


def with_bytes(table, name):
    """The table with a text that begins with a byte which begins no character of UTF-8."""
    rows = [text.encode() for text in table[name].to_pylist()]
    return column(table, name, pa.array([b"\xe6" + rows[0], *rows[1:]], pa.binary()).view(pa.string()))


# What is done to a file, in which set, and what is said of it.
SPOILT = {
    "another subject's rows": ("eeg", TEST, lambda t: column(t, "subject", ["sub-01"] * len(t)),
                               "lie in the folder of another subject"),
    "rows without an image": ("eeg", TEST, lambda t: column(t, "image_id", [None] * len(t)), "some have no image"),
    "images that are not there": ("eeg", TEST, lambda t: column(t, "image_id", ["no such image"] * len(t)),
                                  "1 images are not among the 16 images, such as 'no such image'"),
    "no column of values": ("eeg", TEST, lambda t: t.drop_columns(["eeg"]), "column 'eeg' should be"),
    "no column of images": ("fmri", TEST, lambda t: t.drop_columns(["image_id"]), "column 'image_id' should be"),
    "numbers for names": ("fmri", TEST, lambda t: column(t, "image_id", range(len(t)), pa.int64()),
                          "column 'image_id' should be Value"),
    "texts for values": ("fmri", TEST, lambda t: column(t, "fmri", ["x"] * len(t), pa.string()),
                         "column 'fmri' should be|cannot be read"),
    "rows without values": ("fmri", TEST, lambda t: column(t, "fmri", [None] * len(t)), "5 rows without values"),
    "bytes for names": ("fmri", TEST, lambda t: with_bytes(t, "image_id"), f"{TEST}' holds text that is not UTF-8"),
    "bytes for concepts": ("eeg", IMAGES, lambda t: with_bytes(t, "concept"), f"{IMAGES}' holds text that is not UTF"),
    "fewer voxels": ("fmri", TEST, lambda t: column(t, "fmri", [v[:-1] for v in t["fmri"].to_pylist()]),
                     "sub-02 has 57 voxels, but a test row has 56"),
    "no rows": ("fmri", TEST, lambda t: t.slice(0, 0), f"{TEST}' holds 0 rows instead of 5"),
    "images twice": ("eeg", IMAGES, lambda t: column(t, "image_id", [*t["image_id"].to_pylist()[:-1], "eeg000"]),
                     "Image 'eeg000' occurs twice"),
    "an image without a name": ("eeg", IMAGES, lambda t: column(t, "image_id", [None, *t["image_id"].to_pylist()[1:]]),
                                "1 of 16 rows have no 'image_id'"),
    "NaN in an embedding": ("eeg", IMAGES, lambda t: with_vector(t, 3, [np.nan] * 16),
                            "1 embeddings are not finite or all zeros, such as that of image 'eeg003'"),
    "an embedding of zeros": ("eeg", IMAGES, lambda t: with_vector(t, 3, [0.0] * 16), "that of image 'eeg003'"),
    "an image without an embedding": ("eeg", IMAGES, lambda t: with_vector(t, 3, None), "have no 'image_embeds'"),
    "numbers for embeddings": ("eeg", IMAGES, lambda t: column(t, "image_embeds", range(len(t)), pa.int64()),
                               "Column 'image_embeds' holds int64, no vectors of one width"),
    "no images": ("eeg", IMAGES, lambda t: t.slice(0, 0), "0 of 0 rows have no|holds no rows|cannot be read"),
    "no labels of images": ("eeg", IMAGES, lambda t: t.drop_columns(["concept"]), "'concept' should be"),
}  # fmt: skip


def read(folder):
    """Read all that training and scoring read."""
    data = PreparedSet.open(folder)
    for name in SMALL:
        part = data.split(name)
        part.values()
        assert len(part.targets) == len(part)


@pytest.mark.parametrize("case", SPOILT)
def test_rows_that_cannot_be_those_of_the_set_are_told(written, tmp_path, case):
    modality, name, spoil, said = SPOILT[case]
    folder = shutil.copytree(written[modality], tmp_path / "set")
    read(folder)
    try:
        pq.write_table(spoil(pq.read_table(folder / name)), folder / name)
    except pa.ArrowNotImplementedError as error:
        pytest.skip(f"This pyarrow cannot write it: {error}")
    with pytest.raises(DataError, match=said) as error:
        read(folder)
    assert str(folder) in str(error.value)
    try:
        assert any(finding.severity == "error" for finding in inspect(folder))
    except DataError as error:  # what cannot be examined at all
        assert str(folder) in str(error)


def test_files_of_another_kind_or_none_are_named(written, tmp_path):
    for number, (name, change, said) in enumerate((
        (TEST, lambda path: path.write_bytes(b"PAR1" + bytes(400)), rf"{TEST}' cannot be read"),
        (TEST, lambda path: path.unlink(), r"has no files 'data/sub-02/test-\*\.parquet'"),
        (TEST, lambda path: (path.unlink(), path.mkdir()), rf"Parquet file '.*{TEST}': it is a folder"),
        (TEST, lambda path: (path.unlink(), path.symlink_to("no")), rf"no Parquet file '.*{TEST}'"),
        (IMAGES, lambda path: path.unlink(), r"has no files 'images/images-\*\.parquet'"),
        (IMAGES, lambda path: path.write_bytes(path.read_bytes()[:-60]), rf"{IMAGES}' cannot be read"),
        (IMAGES, lambda path: (path.unlink(), path.mkdir()), rf"Parquet file '.*{IMAGES}': it is a folder"),
    )):  # fmt: skip
        folder = shutil.copytree(written["fmri"], tmp_path / str(number))
        change(folder / name)
        with pytest.raises(DataError, match=said):
            read(folder)
        with pytest.raises(DataError, match=str(folder)):
            inspect(folder)
            PreparedSet.open(folder)


READS = """
import os, sys

disk, folder = sys.argv[1:]
os.environ["HF_HOME"] = disk
if folder[0] != "!":
    os.system(f"mount -o remount,ro {disk}")
from neural_clip.errors import DataError
from neural_clip.prepared.reader import PreparedSet

try:
    PreparedSet.open(folder.lstrip("!")).split("test")
    print("read")
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("mark", ["", pytest.param("!", marks=pytest.mark.slow)])
def test_a_cache_that_takes_no_files_is_named_with_the_variables_that_move_it(tmp_path, ready_folders, mark):
    """Not taken for a damaged data set; with `!` the same disk can be written."""
    done = run_on_small_disk(tmp_path, "16m", READS, mark + ready_folders["fmri"])
    told = (
        f"The cache of `datasets` takes no files ('{tmp_path}/datasets': read-only file system). Name a folder that "
    )
    told += "does by the variable HF_HOME or HF_DATASETS_CACHE."
    assert done.stdout.splitlines() == [told if not mark else "read"], done.stderr
