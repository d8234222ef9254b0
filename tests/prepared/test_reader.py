"""Reading of prepared data sets and making of batches."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neural_clip.errors import DataError
from neural_clip.prepared.reader import PreparedSet, padded
from neural_clip.prepared.writer import write_prepared
from neural_clip.training.batches import JointDataset, ModalityBatchSampler, RecordingDataset
from planted_data import ENCODER, write_planted

READY = ENCODER | {"pooling": "precomputed"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    return {name: write_planted(root / name, name, pixels=False, encoder=READY) for name in ("eeg", "fmri")}


def test_batch_holds_what_the_files_hold(folders):
    """Every value of a batch against the rows as `datasets` gives them one by one."""
    for modality, folder in folders.items():
        opened = PreparedSet.open(folder)
        data = RecordingDataset.open(opened, "validation", ["sub-02", "sub-01"])
        rows = [5, 0, len(data) - 1, 5]
        batch = data.__getitems__(rows)
        table = opened.images
        for position, row in enumerate(rows):
            stored = data.part.recordings[row]
            values = np.asarray(stored[modality], dtype=np.float32)
            got = batch[f"{modality}_values"][position].numpy()
            assert np.array_equal(got if modality == "eeg" else got[: len(values)], values)
            if modality == "fmri":
                assert not got[len(values) :].any()
            assert ["sub-02", "sub-01"][batch["subject_ids"][position]] == stored["subject"]
            assert table.image_ids[batch["image_ids"][position]] == stored["image_id"]
            embedding = table.embeds[table.image_ids.index(stored["image_id"])]
            assert np.array_equal(batch["image_embeds"][position].numpy(), embedding)


def test_values_are_those_of_the_files(folders):
    part = PreparedSet.open(folders["eeg"]).split("test")
    values = part.values()
    assert values.shape == (len(part), 6, 10) and values.dtype == np.float32
    assert np.array_equal(values[3], np.asarray(part.recordings[3]["eeg"], dtype=np.float32))
    part = PreparedSet.open(folders["fmri"]).split("test")
    rows = part.values()
    assert len(rows) == len(part)
    assert {len(row) for row in rows} == {50, 57}
    assert np.array_equal(rows[-1], np.asarray(part.recordings[-1]["fmri"], dtype=np.float32))


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_blocks_rows_and_memory_give_the_same_values(folders, modality):
    """Each way to the recordings against the rows as `datasets` gives them one by one."""
    part = PreparedSet.open(folders[modality]).split("validation", ["sub-02", "sub-01"])
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


def test_gallery_and_targets_are_the_images_behind_the_rows(folders):
    data = PreparedSet.open(folders["eeg"])
    part, table = data.split("test"), data.images
    assert part.gallery_ids.tolist() == sorted({row["image_id"] for row in part.recordings})
    for row in (0, 11, len(part) - 1):
        place = table.image_ids.index(part.image_ids[row])
        assert part.gallery_ids[part.columns[row]] == part.image_ids[row]
        assert np.array_equal(part.targets[row], table.embeds[place])
        assert np.array_equal(part.gallery_embeds[part.columns[row]], table.embeds[place])
        assert part.gallery_concepts[part.columns[row]] == table.concepts[place]
        assert part.gallery_categories[part.columns[row]] == table.categories[place]


def test_rows_that_do_not_match_raise(folders):
    part = PreparedSet.open(folders["eeg"]).split("test")
    with pytest.raises(DataError, match=r"rows that do not match.*'recordings': 96, 'subjects': 95, 'image_ids': 96"):
        replace(part, subjects=part.subjects[:-1])


def test_one_subject_alone(folders):
    part = PreparedSet.open(folders["eeg"]).split("train", ["sub-02"])
    assert set(part.subjects) == set(part.recordings["subject"]) == {"sub-02"}


def test_an_open_data_set_stays_the_same(folders):
    data = PreparedSet.open(folders["eeg"])
    assert PreparedSet.open(data) is data and data.images is data.images
    assert (data.name, data.folder) == (str(folders["eeg"]), folders["eeg"])


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


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=3), batch_size=st.integers(1, 9), epoch=st.integers(0, 3)
)
def test_batches_come_from_one_modality_and_never_repeat(sizes, batch_size, epoch):
    sampler = ModalityBatchSampler(sizes, batch_size, seed=3)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    offsets = np.cumsum([0, *sizes])
    rows = [row for batch in batches for row in batch]
    assert len(set(rows)) == len(rows)
    for batch in batches:
        parts = np.searchsorted(offsets, batch, side="right") - 1
        assert len(set(parts.tolist())) == 1
        assert len(batch) == min(batch_size, sizes[parts[0]])
    again = ModalityBatchSampler(sizes, batch_size, seed=3)
    again.set_epoch(epoch)
    assert list(again) == batches


def test_each_pass_goes_over_all_recordings_in_an_order_of_its_own():
    sampler = ModalityBatchSampler([40, 24], 8, seed=0, passes=[3, 1])
    batches = list(sampler)
    assert len(batches) == len(sampler) == 3 * 5 + 3
    rows = np.concatenate(batches)
    counts = np.bincount(rows, minlength=64)
    assert (counts[:40] == 3).all() and (counts[40:] == 1).all()
    groups = {tuple(sorted(batch)) for batch in batches}
    assert len(groups) == len(batches)  # the same batches three times over would make 8
    assert list(ModalityBatchSampler([40, 24], 8, seed=0, passes=[1, 1])) == list(ModalityBatchSampler([40, 24], 8, 0))


def test_order_changes_with_epoch_and_seed():
    def order(seed, epoch):
        sampler = ModalityBatchSampler([50, 50], 10, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_joint_data_set_finds_the_part(folders):
    opened = [PreparedSet.open(folders[name]) for name in ("eeg", "fmri")]
    parts = [RecordingDataset.open(data, "train", ["sub-01", "sub-02"]) for data in opened]
    joint = JointDataset(parts)
    offset = len(parts[0])
    assert len(joint) == offset + len(parts[1])
    assert torch.equal(joint.__getitems__([offset + 4])["fmri_values"], parts[1].__getitems__([4])["fmri_values"])
    assert torch.equal(
        joint.__getitems__([offset - 1])["eeg_values"], parts[0].__getitems__([offset - 1])["eeg_values"]
    )


def test_bad_input_is_named(folders, tmp_path):
    with pytest.raises(DataError, match="no prepared data set"):
        PreparedSet.open(tmp_path)
    with pytest.raises(DataError, match="'split' parameter"):
        PreparedSet.open(folders["eeg"]).split("valid")
    with pytest.raises(DataError, match=r"has no subject \['sub-07'\]"):
        PreparedSet.open(folders["eeg"]).split("test", ["sub-07"])
    with pytest.raises(DataError, match="is no folder"):
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
    flat, lengths = column_arrays(column, None)
    assert flat.tolist() == [3, 4, 5, 6]
    assert lengths.tolist() == [1, 3]
