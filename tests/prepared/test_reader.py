"""Reading of prepared data sets."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.features.features import Array2DExtensionType
from hypothesis import given, settings
from hypothesis import strategies as st

from neural_clip.errors import DataError
from neural_clip.preparation import Preparation, Statistics
from neural_clip.prepared.doctor.inspect import inspect
from neural_clip.prepared.reader import PreparedSet, padded
from neural_clip.prepared.writer import write_prepared
from planted_data import READY, older, write_planted
from toy_sets import toy_facts


def test_values_are_those_of_the_files(ready_folders):
    part = PreparedSet.open(ready_folders["eeg"]).split("test")
    values = part.values()
    assert values.shape == (len(part), 6, 10) and values.dtype == np.float32
    assert np.array_equal(values[3], np.asarray(part.recordings[3]["eeg"], dtype=np.float32))
    part = PreparedSet.open(ready_folders["fmri"]).split("test")
    rows = part.values()
    assert len(rows) == len(part)
    assert {len(row) for row in rows} == {50, 57}
    assert np.array_equal(rows[-1], np.asarray(part.recordings[-1]["fmri"], dtype=np.float32))


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_blocks_rows_and_memory_give_the_same_values(ready_folders, modality):
    """Each way to the recordings against the rows as `datasets` gives them one by one."""
    part = PreparedSet.open(ready_folders[modality]).split("validation", ["sub-02", "sub-01"])
    expected = [np.asarray(row[modality], dtype=np.float32) for row in part.recordings]
    assert part.subjects.tolist() == [row["subject"] for row in part.recordings]
    assert part.image_ids.tolist() == [row["image_id"] for row in part.recordings]
    blocks = list(part.blocks(7))
    assert [rows.stop - rows.start for rows, _ in blocks] == [7] * (len(part) // 7) + [len(part) % 7]
    picked = np.array([40, 3, 3, 0])
    for split in (part, part.loaded()):
        found = [value for _, values in split.blocks(7) for value in values]
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
        assert all(np.array_equal(a, expected[row]) for a, row in zip(split.values(picked), picked, strict=True))
        few = split.at(picked)
        assert few.subjects.tolist() == part.subjects[picked].tolist() and len(few) == 4
        assert all(np.array_equal(a, expected[row]) for a, row in zip(few.values(), picked, strict=True))
        own = split.rows_of("sub-01")
        assert np.array_equal(split.of_subject("sub-01"), np.stack([expected[row] for row in own]))


def test_gallery_and_targets_are_the_images_behind_the_rows(ready_folders):
    data = PreparedSet.open(ready_folders["eeg"])
    part, table = data.split("test"), data.images
    assert part.gallery_ids.tolist() == sorted({row["image_id"] for row in part.recordings})
    for row in (0, 11, len(part) - 1):
        place = table.image_ids.index(part.image_ids[row])
        assert part.gallery_ids[part.columns[row]] == part.image_ids[row]
        assert np.array_equal(part.targets[row], table.embeds[place])
        assert np.array_equal(part.gallery_embeds[part.columns[row]], table.embeds[place])
        assert part.gallery_concepts[part.columns[row]] == table.concepts[place]
        assert part.gallery_categories[part.columns[row]] == table.categories[place]


def test_rows_that_do_not_match_raise(ready_folders):
    part = PreparedSet.open(ready_folders["eeg"]).split("test")
    with pytest.raises(DataError, match=r"rows that do not match.*'recordings': 96, 'subjects': 95, 'image_ids': 96"):
        replace(part, subjects=part.subjects[:-1])


@pytest.mark.parametrize("streaming", [False, True])
def test_labels_are_read_without_the_recordings(ready_folders, streaming, monkeypatch):
    opened = PreparedSet.open(ready_folders["eeg"])
    expected = {name: opened.split(name) for name in ("train", "validation", "test")}
    for method in ("_of_subject", "_streamed"):
        monkeypatch.setattr(PreparedSet, method, lambda *arguments: pytest.fail("recordings were opened"))
    data = PreparedSet.open(ready_folders["eeg"], streaming).of_corpus()
    for name, part in expected.items():
        assert data.distinct(name).tolist() == part.shown_ids.tolist()
        assert data.distinct(name, "concept").tolist() == sorted(set(part.labels("concept")["concept"]))
        own = part.image_ids[part.subjects == "sub-02"]
        assert data.distinct(name, subjects=[data.facts.subjects[1]]).tolist() == sorted(set(own))
    with pytest.raises(DataError, match=r"damaged: some have no 'colour'"):
        data.distinct("test", "colour")
    with pytest.raises(DataError, match=r"'split' parameter"):
        data.distinct("tests")
    with pytest.raises(DataError, match=r"has no subject \['nobody'\]"):
        data.distinct("test", subjects=["nobody"])


def test_labels_of_rows_that_were_changed_are_refused(tmp_path):
    folder = write_planted(tmp_path / "eeg", "eeg", pixels=False, encoder=READY)
    path = folder / "data" / "sub-01" / "test-00000.parquet"
    table, data = pq.read_table(path), PreparedSet.open(folder)
    for number, told in ((table.num_rows - 1, "rows instead of"), (None, "cannot be read")):
        if number is None:
            path.write_bytes(path.read_bytes()[:-9])
        else:
            pq.write_table(table[:number], path)
        with pytest.raises(DataError, match=f"sub-01/test-00000.parquet' .*{told}"):
            data.distinct("test", subjects=["sub-01"])


def test_one_subject_alone(ready_folders):
    part = PreparedSet.open(ready_folders["eeg"]).split("train", ["sub-02"])
    assert set(part.subjects) == set(part.recordings["subject"]) == {"sub-02"}


def test_an_open_data_set_stays_the_same(ready_folders):
    data = PreparedSet.open(ready_folders["eeg"])
    assert PreparedSet.open(data) is data and data.images is data.images
    assert (data.name, data.folder) == (str(ready_folders["eeg"]), Path(ready_folders["eeg"]))


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=8))
def test_padding_equals_a_loop(lengths):
    flat = np.arange(1, sum(lengths) + 1, dtype=np.float32)
    expected = np.zeros((len(lengths), max(lengths)), dtype=np.float32)
    start = 0
    for row, length in enumerate(lengths):
        for column in range(length):
            expected[row, column] = flat[start + column]
        start += length
    assert np.array_equal(padded(np.split(flat, np.cumsum(lengths)[:-1])), expected)


def test_bad_input_is_named(ready_folders, tmp_path):
    with pytest.raises(DataError, match="no prepared data set"):
        PreparedSet.open(tmp_path)
    with pytest.raises(DataError, match="'split' parameter"):
        PreparedSet.open(ready_folders["eeg"]).split("valid")
    with pytest.raises(DataError, match=r"has no subject \['sub-07'\]"):
        PreparedSet.open(ready_folders["eeg"]).split("test", ["sub-07"])
    with pytest.raises(DataError, match="There is no folder"):
        PreparedSet.open("some/where/else")
    with pytest.raises(DataError, match="nobody/nothing"):
        PreparedSet.open("nobody/nothing")


def test_images_without_embeddings(tmp_path):
    metadata = {"corpus": "none", "modality": "fmri", "split_protocol": "none", "split_unit": "image"}
    metadata |= {"licence": "none", "redistribution": "allowed", "citation": "none", "source": "none"}
    images = [{"image_id": name, "image": np.full((4, 4, 3), i, np.uint8)} for i, name in enumerate("abc")]
    rows = [
        {"subject": "sub-01", "image_id": name, "split": split, "fmri": np.float32([i, 1, -i])}
        for i, (name, split) in enumerate(zip("abc", ("train", "validation", "test"), strict=True))
    ]
    folder = write_prepared(tmp_path / "bare", metadata, rows, images)
    with pytest.raises(DataError, match="run `neural-clip embed-images"):
        _ = PreparedSet.open(folder).images


def test_arrow_slices_keep_their_rows():
    """A slice of an Arrow column starts inside its buffers: the offset must not be lost."""
    from neural_clip.prepared.reader import column_arrays

    column = pa.chunked_array([pa.array([[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]], pa.list_(pa.float32()))]).slice(1, 2)
    (flat,), lengths = column_arrays(column, None)
    assert flat.tolist() == [3, 4, 5, 6]
    assert lengths.tolist() == [1, 3]


@pytest.mark.parametrize("extension", [False, True])
@pytest.mark.parametrize("shape", [None, (2, 3)])
def test_columns_of_several_chunks_are_read_one_by_one(shape, extension):
    """Combined, they could have more numbers than the offsets of a list can count; sliced chunks begin elsewhere."""
    from neural_clip.prepared.reader import column_arrays

    rows = np.arange(30, dtype=np.float32).reshape(5, *(shape or (6,)))
    kind = pa.list_(pa.float32()) if shape is None else pa.list_(pa.list_(pa.float32()))
    chunks = [pa.array(part.tolist(), kind) for part in (rows[:2], rows[2:2], rows[2:])]
    if extension and shape:
        kind = Array2DExtensionType(shape, "float32")
        chunks = [pa.ExtensionArray.from_storage(kind, chunk.cast(kind.storage_type)) for chunk in chunks]
    parts, lengths = column_arrays(pa.chunked_array(chunks).slice(1), shape)
    np.testing.assert_array_equal(np.concatenate(parts), rows[1:].ravel())
    assert lengths.tolist() == [6] * 4 and {part.dtype for part in parts} == {np.dtype(np.float32)}
    assert all(not part.flags.writeable for part in parts) and max(map(len, parts)) == 18  # none was combined
    empty, none = column_arrays(pa.chunked_array([], kind), shape)
    assert sum(map(len, empty)) == len(none) == 0


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_a_batch_is_memory_of_its_own(ready_folders, modality, streaming):
    """Whoever writes into one changes neither recordings in memory nor the mapped files."""
    part = PreparedSet.open(ready_folders[modality], streaming=streaming).split("test")
    changed = replace(part, change=lambda values, subjects: values) if modality == "eeg" else part
    for split in (part, changed, part.loaded(), part.from_onset(), part.at(np.array([90, 2, 3, 40, 1, 0]))):
        for rows in ([5, 0, 3, 5], [2], slice(1, 4), []):
            expected = padded(split.values(rows))
            batch = split.batch(rows)
            assert batch.dtype == np.float32 and batch.flags.writeable and batch.flags.c_contiguous
            np.testing.assert_array_equal(batch, expected)
            batch[:] = np.nan
            np.testing.assert_array_equal(padded(split.values(rows)), expected)


def test_rows_prepared_again_with_the_same_times_are_not_those_of_the_cache(tmp_path):
    found = []
    for seed in (1, 2):
        write_planted(tmp_path / str(seed), "eeg", seed=seed, pixels=False, encoder=READY)
        (tmp_path / str(seed)).rename(tmp_path / "set")
        for path in (tmp_path / "set").rglob("*.parquet"):
            os.utime(path, (0, 0))
        found.append(PreparedSet.open(tmp_path / "set").split("test").values())
        (tmp_path / "set").rename(tmp_path / f"kept {seed}")
    assert found[0].shape == found[1].shape and not np.array_equal(*found)


def write_with_statistics(folder, scale=2.0):
    """A toy set of 12 images whose rows were scaled by statistics of the training rows."""
    images = [{"image_id": f"im{i:02d}", "image": np.full((4, 4), 20 * i, np.uint8)} for i in range(12)]
    rows = [
        {"subject": "sub-01", "image_id": image["image_id"], "fmri": np.random.default_rng(i).normal(size=5),
         "split": "train" if i < 8 else ("validation" if i < 10 else "test")}
        for i, image in enumerate(images)
    ]  # fmt: skip
    statistics = Statistics("sub-01", "", np.arange(5), np.full(5, scale))
    preparation = Preparation(unit="percent signal change", scaling="z-score", scope="subject").as_dict()
    facts = toy_facts("fmri", preparation=preparation, scaling={"method": "z-score", "fit_scope": "train"})
    return write_prepared(folder, facts, [statistics, *rows], images)


def test_statistics_that_were_changed_or_lost_are_noticed(tmp_path):
    folder = write_with_statistics(tmp_path / "set")
    data = PreparedSet.open(folder)
    assert data.statistics["sub-01/mean"].tolist() == [0, 1, 2, 3, 4]
    assert data.preparation == Preparation(unit="percent signal change", scaling="z-score", scope="subject")
    assert not [finding for finding in inspect(folder) if finding.severity == "error"]
    (folder / "scaling.safetensors").write_bytes(
        (write_with_statistics(tmp_path / "other", 3.0) / "scaling.safetensors").read_bytes()
    )
    with pytest.raises(DataError, match=r"scaling.safetensors' is not the file that was written"):
        _ = PreparedSet.open(folder).statistics
    assert [finding.message for finding in inspect(folder) if finding.severity == "error"] == [
        f"'{folder}/scaling.safetensors' is not the file that was written: its content has another SHA-256."
    ]
    (folder / "scaling.safetensors").unlink()
    with pytest.raises(DataError, match=r"scaling.safetensors' is missing"):
        PreparedSet.open(folder)
    assert [finding.message for finding in inspect(folder) if finding.severity == "error"] == [
        f"'{folder}/scaling.safetensors' is missing."
    ]
    older(folder)
    with pytest.raises(DataError, match=r"lacks 'scaling.safetensors'"):
        _ = PreparedSet.open(folder).statistics
    assert [finding.message for finding in inspect(folder) if finding.severity == "error"] == [
        "'scaling.safetensors' is missing."
    ]
