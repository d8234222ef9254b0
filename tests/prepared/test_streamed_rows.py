"""Recordings read from Parquet files a row group at a time: those that are read otherwise, here and from the Hub."""

import shutil
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loopback_hub import LoopbackHub
from neural_clip.errors import DataError
from neural_clip.prepared import parquet
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.streamed_rows import ParquetFiles
from planted_data import READY, write_planted


@pytest.fixture(scope="module")
def grouped_folders(tmp_path_factory):
    """Sets with several row groups a file."""
    root = tmp_path_factory.mktemp("grouped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROW_GROUP_BYTES", 6000)
        return {
            modality: str(write_planted(root / modality, modality, pixels=False, encoder=READY))
            for modality in ("eeg", "fmri")
        }


def assert_same_values(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def assert_same_split(streamed, mapped):
    """Every way in which rows are asked for."""
    assert streamed.subjects.tolist() == mapped.subjects.tolist()
    assert streamed.image_ids.tolist() == mapped.image_ids.tolist()
    last = len(mapped) - 1
    for rows in ([5], [last, 0, 81, 5, 5, 30], slice(70, 95), slice(None), np.array([3, 2])):
        assert_same_values(streamed.values(rows), mapped.values(rows))
    some = np.array([90, 4, 33])
    assert_same_values(streamed.at(some).values([2, 0]), mapped.at(some).values([2, 0]))
    for (_, one), (_, other) in zip(streamed.blocks(64), mapped.blocks(64), strict=True):
        assert_same_values(one, other)


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_streamed_rows_are_those_that_are_mapped(grouped_folders, modality):
    opened = PreparedSet.open(grouped_folders[modality], streaming=True)
    streamed, mapped = opened.split("train"), PreparedSet.open(grouped_folders[modality]).split("train")
    assert len(np.unique(opened.row_groups("train", opened.facts.subjects))) > 10
    assert_same_split(streamed, mapped)
    assert_same_split(opened.split("train", ["sub-02", "sub-01"]), mapped.data.split("train", ["sub-02", "sub-01"]))
    assert streamed.labels("subject")["subject"].tolist() == mapped.subjects.tolist()
    assert_same_split(opened.moved_to(None).split("train"), mapped)


def test_images_are_read_without_a_copy(grouped_folders, tmp_path, monkeypatch):
    expected = PreparedSet.open(grouped_folders["eeg"]).images
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    found = PreparedSet.open(grouped_folders["eeg"], streaming=True).images
    assert found.sha256 == expected.sha256 and found.image_ids == expected.image_ids
    assert not (tmp_path / "cache").exists()
    copy = shutil.copytree(grouped_folders["eeg"], tmp_path / "copy")
    opened = PreparedSet.open(copy, streaming=True)
    path = next(copy.glob("images/*.parquet"))
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"images-.*parquet' cannot be streamed|images of .* are"):
        _ = opened.images


def test_images_of_other_columns_are_refused(grouped_folders, tmp_path):
    folder = Path(shutil.copytree(grouped_folders["eeg"], tmp_path / "copy"))
    path = next(folder.glob("images/*.parquet"))
    table = pq.read_table(path).replace_schema_metadata(None)
    numbers = table.set_column(table.column_names.index("concept"), "concept", pa.array(range(len(table))))
    for changed, told in ((numbers, "'concept' should be .* but is .*int64"), (table.drop(["concept"]), "no such")):
        opened = PreparedSet.open(grouped_folders["eeg"], streaming=True)
        opened.folder = folder  # as if it were changed after it was opened
        pq.write_table(changed, path)
        with pytest.raises(DataError, match=f"{path.name}': column {told}|{path.name}': column 'concept'.* {told}"):
            _ = opened.images


def test_row_groups_leave_the_memory_when_it_is_full(grouped_folders):
    streamed = PreparedSet.open(grouped_folders["eeg"], streaming=True).split("train")
    files = streamed.recordings.files
    every = streamed.values()
    kept = sum(table.nbytes for table in files.kept.values())
    assert len(files.kept) == len(files.groups)
    for most, left in ((kept / 3, kept / 3), (0, kept / 10)):  # the one at hand stays
        files.kept.clear()
        files.most_bytes = most
        np.testing.assert_array_equal(streamed.values(), every)
        np.testing.assert_array_equal(streamed.values([100, 3, 50]), every[[100, 3, 50]])
        assert 0 < sum(table.nbytes for table in files.kept.values()) <= left


def test_all_that_is_streamed_shares_what_may_be_kept(grouped_folders):
    """Several modalities, training and validation."""
    splits = [PreparedSet.open(grouped_folders[name], streaming=True).split("train") for name in ("eeg", "fmri")]
    files = [split.recordings.files for split in splits]
    most = max(each.n_bytes for each in files)
    for each in files:
        each.most_bytes = most
    for split in splits:
        split.values()
    kept = [sum(table.nbytes for table in each.kept.values()) for each in files]
    assert min(kept) > 0 and sum(kept) <= most < sum(each.n_bytes for each in files)
    assert sum(each.share for each in files) <= most


def test_row_groups_are_read_once_each_and_by_their_numbers(grouped_folders, monkeypatch):
    opened = PreparedSet.open(grouped_folders["eeg"], streaming=True)
    streamed, groups = opened.split("train"), opened.row_groups("train", opened.facts.subjects)
    streamed.values([0, int(np.flatnonzero(groups == 3)[0])])
    streamed.values([1, int(np.flatnonzero(groups == 3)[-1])])
    assert {key[0] for key in streamed.recordings.files.kept} == {0, 3}


def on_the_hub(hub, folder):
    """Let the Hub have the files of a set."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*.*")}
    return hub.add("dataset", "lab/set", private=False, files=files)


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_a_set_of_the_hub_is_read_in_parts_and_its_recordings_are_not_copied(
    grouped_folders, modality, monkeypatch, tmp_path
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with LoopbackHub() as hub:
        on_the_hub(hub, grouped_folders[modality])
        hub.stand_in(monkeypatch)
        opened = PreparedSet.open("lab/set", streaming=True)
        assert not list(opened.folder.glob("data/**/*.parquet"))
        whole = [path for method, path in hub.requests if method == "GET" and "/data/" in path]
        assert not whole
        assert_same_split(opened.split("train"), PreparedSet.open(grouped_folders[modality]).split("train"))
        assert {file.split("/")[0] for file, *_ in hub.ranges} == {"data"}


def test_a_file_of_the_hub_that_was_changed_is_refused(grouped_folders, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with LoopbackHub() as hub:
        files = on_the_hub(hub, grouped_folders["eeg"])["files"]
        name = next(name for name in files if name.startswith("data/sub-02/train"))
        files[name] = files["data/sub-01/train-00000.parquet"]
        hub.stand_in(monkeypatch)
        opened = PreparedSet.open("lab/set", streaming=True)
        opened.split("train", ["sub-01"])
        with pytest.raises(DataError, match=r"sub-02/train-00000.parquet' is not the file that was written"):
            opened.split("train")
        del files[name]
        from huggingface_hub import HfFileSystem

        HfFileSystem.clear_instance_cache()
        with pytest.raises(DataError, match=r"sub-02/train-00000.parquet' cannot be read"):
            PreparedSet.open("lab/set", streaming=True).split("train")


def test_files_that_were_read_keep_nothing_in_memory_by_themselves(tmp_path):
    numbers = np.random.default_rng(0).standard_normal((10, 3, 56 * 20_000)).astype(np.float32)
    paths = [str(tmp_path / f"{number}.parquet") for number in range(len(numbers))]
    for path, own in zip(paths, numbers, strict=True):
        column = pa.FixedSizeListArray.from_arrays(pa.array(own.ravel()), 20_000)
        pq.write_table(pa.table({"eeg": column}), path, row_group_size=56)
    before = pa.total_allocated_bytes()
    files = ParquetFiles(paths, most_bytes=1)
    for group in range(len(files.groups)):
        files.read(group, ["eeg"])
    deadline = time.monotonic() + 20
    while pa.total_allocated_bytes() - before > 2 * numbers[0, 0].nbytes and time.monotonic() < deadline:
        time.sleep(0.01)  # Arrow's own threads free what they decoded a little later
    assert pa.total_allocated_bytes() - before < 2 * numbers[0, 0].nbytes
