"""Batches of training: rows as the files hold them, one modality each, every recording once in a pass."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neural_clip.errors import DataError
from neural_clip.prepared.reader import PreparedSet
from neural_clip.training.batches import JointDataset, ModalityBatchSampler, RecordingDataset, named
from spoiled_rows import spoil


def test_batch_holds_what_the_files_hold(ready_folders):
    """Every value of a batch against the rows as `datasets` gives them one by one."""
    for modality, folder in ready_folders.items():
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


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    batch_size=st.integers(1, 9),
    n_processes=st.integers(1, 4),
    epoch=st.integers(0, 2),
)
def test_processes_share_the_batches_of_one(sizes, batch_size, n_processes, epoch):
    """In turn and each as many, short batches of small modalities included; what is left over is left out."""

    def batches(*process):
        sampler = ModalityBatchSampler(sizes, batch_size, 3, None, *process)
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler)
        return list(sampler)

    alone = batches()
    dealt = [batches(n_processes, index) for index in range(n_processes)]
    assert {len(part) for part in dealt} == {len(alone) // n_processes}
    together = [batch for step in zip(*dealt, strict=True) for batch in step]
    assert together == alone[: len(alone) // n_processes * n_processes]


def test_order_changes_with_epoch_and_seed():
    def order(seed, epoch):
        sampler = ModalityBatchSampler([50, 50], 10, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def test_joint_data_set_finds_the_part(ready_folders):
    opened = [PreparedSet.open(ready_folders[name]) for name in ("eeg", "fmri")]
    parts = [RecordingDataset.open(data, "train", ["sub-01", "sub-02"]) for data in opened]
    joint = JointDataset(parts)
    offset = len(parts[0])
    assert len(joint) == offset + len(parts[1])
    assert torch.equal(joint.__getitems__([offset + 4])["fmri_values"], parts[1].__getitems__([4])["fmri_values"])
    assert torch.equal(
        joint.__getitems__([offset - 1])["eeg_values"], parts[0].__getitems__([offset - 1])["eeg_values"]
    )


@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_found_in_its_row(ready_folders, tmp_path, modality, value):
    folder = shutil.copytree(ready_folders[modality], tmp_path / "set")
    spoil(folder, "train", "sub-02", 5, value)
    data = RecordingDataset.open(PreparedSet.open(folder), "train", ["sub-01", "sub-02"])
    data.__getitems__(list(range(80)))  # the other person's
    told = rf"in the train split of '.*/set' hold NaN or infinity: row 5 of sub-02 \(image '{modality}002'\)\."
    with pytest.raises(DataError, match=f"Recordings {told}"):
        data.__getitems__([85, 3])
    data.keep(np.arange(70, 90))
    with pytest.raises(DataError, match=f"Recordings {told}"):
        data.__getitems__([15])


def test_an_embedding_that_is_not_finite_is_found(ready_folders):
    data = RecordingDataset.open(PreparedSet.open(ready_folders["eeg"]), "train", ["sub-01", "sub-02"])
    data.part.data.images.embeds[2, 0] = np.nan
    with pytest.raises(DataError, match=r"Image embeddings in .* row 4 of sub-01 \(image 'eeg002'\), row 5 of sub-01"):
        data.__getitems__(list(range(16)))


def test_many_recordings_are_named_in_part():
    text = named(["s"] * 12, [f"i{n}" for n in range(12)])
    assert text.startswith("s (image 'i0'), s (image 'i1')") and text.endswith("(image 'i7') and 4 more")
