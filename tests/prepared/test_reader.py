"""Reading of prepared data sets and making of batches."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neural_clip.errors import DataError
from neural_clip.prepared.reader import load_image_table, load_recordings, recording_array, resolve_folder
from neural_clip.prepared.writer import write_prepared
from neural_clip.training.batches import JointDataset, ModalityBatchSampler, RecordingDataset, pad_rows
from planted_data import ENCODER, write_planted

READY = ENCODER | {"pooling": "precomputed"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared")
    return {name: write_planted(root / name, name, pixels=False, encoder=READY) for name in ("eeg", "fmri")}


def test_batch_holds_what_the_files_hold(folders):
    """Every value of a batch against the rows as `datasets` gives them one by one."""
    for modality, folder in folders.items():
        data = RecordingDataset(folder, "validation", ["sub-02", "sub-01"])
        rows = [5, 0, len(data) - 1, 5]
        batch = data.__getitems__(rows)
        table = load_image_table(folder)
        for position, row in enumerate(rows):
            stored = data.recordings[row]
            values = np.asarray(stored[modality], dtype=np.float32)
            got = batch[f"{modality}_values"][position].numpy()
            assert np.array_equal(got if modality == "eeg" else got[: len(values)], values)
            if modality == "fmri":
                assert not got[len(values) :].any()
            assert ["sub-02", "sub-01"][batch["subject_ids"][position]] == stored["subject"]
            assert table.image_ids[batch["image_ids"][position]] == stored["image_id"]
            embedding = table.embeds[table.image_ids.index(stored["image_id"])]
            assert np.array_equal(batch["image_embeds"][position].numpy(), embedding)


def test_recording_array(folders):
    recordings = load_recordings(folders["eeg"], "test")
    values = recording_array(recordings, "eeg")
    assert values.shape == (len(recordings), 6, 10)
    assert np.array_equal(values[3], np.asarray(recordings[3]["eeg"], dtype=np.float32))
    recordings = load_recordings(folders["fmri"], "test")
    rows = recording_array(recordings, "fmri")
    assert len(rows) == len(recordings)
    assert {len(row) for row in rows} == {50, 57}
    assert np.array_equal(rows[-1], np.asarray(recordings[-1]["fmri"], dtype=np.float32))


def test_one_subject_alone(folders):
    assert set(load_recordings(folders["eeg"], "train", ["sub-02"])["subject"]) == {"sub-02"}


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=8))
def test_pad_rows_equals_a_loop(lengths):
    flat = np.arange(1, sum(lengths) + 1, dtype=np.float32)
    expected = np.zeros((len(lengths), max(lengths)), dtype=np.float32)
    start = 0
    for row, length in enumerate(lengths):
        for column in range(length):
            expected[row, column] = flat[start + column]
        start += length
    assert np.array_equal(pad_rows(flat, np.array(lengths)), expected)


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
    parts = [RecordingDataset(folders[name], "train", ["sub-01", "sub-02"]) for name in ("eeg", "fmri")]
    joint = JointDataset(parts)
    offset = len(parts[0])
    assert len(joint) == offset + len(parts[1])
    assert torch.equal(joint.__getitems__([offset + 4])["fmri_values"], parts[1].__getitems__([4])["fmri_values"])
    assert torch.equal(
        joint.__getitems__([offset - 1])["eeg_values"], parts[0].__getitems__([offset - 1])["eeg_values"]
    )


def test_bad_input_is_named(folders, tmp_path):
    with pytest.raises(DataError, match="no prepared data set"):
        load_recordings(tmp_path, "test")
    with pytest.raises(DataError, match="'split' parameter"):
        load_recordings(folders["eeg"], "valid")
    with pytest.raises(DataError, match=r"has no subject \['sub-07'\]"):
        load_recordings(folders["eeg"], "test", ["sub-07"])
    with pytest.raises(DataError, match="is no folder"):
        resolve_folder("some/where/else")
    with pytest.raises(DataError, match="nobody/nothing"):
        resolve_folder("nobody/nothing")


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
        load_image_table(folder)


def test_arrow_slices_keep_their_rows():
    """A slice of an Arrow column starts inside its buffers: the offset must not be lost."""
    from neural_clip.prepared.reader import column_arrays

    column = pa.chunked_array([pa.array([[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]], pa.list_(pa.float32()))]).slice(1, 2)
    flat, lengths = column_arrays(column, None)
    assert flat.tolist() == [3, 4, 5, 6]
    assert lengths.tolist() == [1, 3]
