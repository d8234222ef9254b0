"""Batches of training: rows as the files hold them, one modality each, every recording once in a pass."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neural_clip.errors import DataError
from neural_clip.prepared import parquet
from neural_clip.prepared.reader import PreparedSet
from neural_clip.training.batches import JointDataset, ModalityBatchSampler, RecordingDataset, least_batches, named
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from neural_clip.training.splits import notes_on_streaming
from planted_data import READY, write_planted
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


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("n_rows", [7, 1])  # fewer than processes: some have no row, of the same widths
@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_processes_share_each_batch(ready_folders, modality, n_rows, stored):
    """In the order of the set, none more than one row more than another, read at once or when needed."""
    opened = [PreparedSet.open(ready_folders[name]) for name in ("eeg", "fmri")]
    joint = JointDataset([RecordingDataset.open(data, "train", ["sub-01", "sub-02"]) for data in opened])
    offset = int(joint.offsets[["eeg", "fmri"].index(modality)])
    rows = [offset + row for row in (90, 3, 81, 0, 7, 100, 2)[:n_rows]]
    whole = joint.__getitems__(sorted(rows))
    joint.stored, shares = stored, []
    for index in range(3):
        joint.share = (index, 3)
        shares.append(joint.__getitems__(rows))
        if stored:
            recordings = shares[-1].pop("recordings")
            assert recordings.modality == modality
            shares[-1][f"{modality}_values"] = recordings.read(slice(None))
    assert [len(share["image_ids"]) for share in shares] == ([3, 2, 2] if n_rows == 7 else [1, 0, 0])
    for name, expected in whole.items():
        width = expected.shape[1] if expected.ndim == 2 else None  # fMRI: that of the widest row of a share
        parts = [share[name] if width is None else _wide(share[name], width) for share in shares]
        assert torch.equal(torch.cat(parts), expected)


def _wide(values, width):
    return torch.nn.functional.pad(values, (0, width - values.shape[1]))


def batches_of_passes(sizes, batch_size, seed, passes, epoch):
    """Batches of each modality and their order, as they are where nothing asks for more of them."""
    rng, offset, batches = np.random.default_rng([seed, epoch]), 0, []
    for size, n_passes in zip(sizes, passes, strict=True):
        own = []
        for _ in range(n_passes):
            order = offset + rng.permutation(size)
            own += [order[i * batch_size : (i + 1) * batch_size].tolist() for i in range(max(size // batch_size, 1))]
        offset += size
        batches.append(own)
    together = [batch for own in batches for batch in own]
    return batches, [together[index] for index in rng.permutation(len(together))]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    batch_size=st.integers(1, 9),
    n_passes=st.integers(1, 3),
    epoch=st.integers(0, 2),
    min_batches=st.integers(0, 40),
)
def test_a_modality_with_few_batches_has_more_passes_and_the_others_stay(
    sizes, batch_size, n_passes, epoch, min_batches
):
    passes = [n_passes] * len(sizes)
    sampler = ModalityBatchSampler(sizes, batch_size, 3, passes, min_batches=min_batches)
    sampler.set_epoch(epoch)
    batches, offsets = list(sampler), np.cumsum([0, *sizes])
    expected, in_order = batches_of_passes(sizes, batch_size, 3, passes, epoch)
    assert sampler.counts == [max(len(own), min_batches) for own in expected]
    if sampler.counts == [len(own) for own in expected]:
        assert batches == in_order
    for number, own in enumerate(expected):
        low, high = offsets[number : number + 2]
        found = [batch for batch in batches if low <= batch[0] < high]
        assert len(found) == sampler.counts[number]
        if len(own) >= min_batches:
            assert sorted(found) == sorted(own)
        assert all(batch in found for batch in own)
        times = np.bincount(np.concatenate(found) - low, minlength=sizes[number])
        in_pass = max(sizes[number] // batch_size, 1)
        assert times.max() <= -(-len(found) // in_pass) and all(len(set(batch)) == len(batch) for batch in found)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    accumulated=st.integers(1, 3),
    epochs=st.integers(1, 5),
    min_steps=st.integers(1, 50),
)
def test_every_modality_has_its_steps(sizes, accumulated, epochs, min_steps):
    """Counted over whole runs, each step of which takes `accumulated` batches."""
    least = least_batches(min_steps, epochs, accumulated)
    batches = np.zeros(len(sizes))
    sampler = ModalityBatchSampler(sizes, 4, 3, min_batches=least)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for batch in sampler:
            batches[np.searchsorted(np.cumsum(sizes), batch[0], side="right")] += 1
    assert (batches / accumulated >= min_steps).all()
    assert least <= min_steps * accumulated / epochs + 1  # and no more than that, but for what an epoch rounds up


def test_further_passes_are_in_an_order_of_their_own():
    for epoch in (0, 1):
        sampler = ModalityBatchSampler([40, 40], 8, seed=0, min_batches=20)
        sampler.set_epoch(epoch)
        assert len({tuple(sorted(row % 40 for row in batch)) for batch in sampler}) == len(sampler) == 40


def test_no_steps_asked_for_no_batches_more():
    assert least_batches(0, 3, 2) == 0
    assert least_batches(300, 16, 1) == 19
    assert least_batches(300, 2.5, 1) == 150  # the half epoch may hold other modalities
    assert least_batches(300, 0.1, 1) == least_batches(300, -1, 1) == 300


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


def test_values_whose_sum_is_too_large_are_finite(ready_folders, tmp_path):
    folder = shutil.copytree(ready_folders["eeg"], tmp_path / "set")
    spoil(folder, "train", "sub-02", 5, 3e38)
    spoil(folder, "train", "sub-02", 6, 3e38)
    data = RecordingDataset.open(PreparedSet.open(folder), "train", ["sub-01", "sub-02"])
    assert (data.__getitems__([85, 86])["eeg_values"] == 3e38).any()


def test_many_recordings_are_named_in_part():
    text = named(["s"] * 12, [f"i{n}" for n in range(12)])
    assert text.startswith("s (image 'i0'), s (image 'i1')") and text.endswith("(image 'i7') and 4 more")


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """Sets with several row groups a file."""
    root = tmp_path_factory.mktemp("grouped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROW_GROUP_BYTES", 6000)
        return {name: str(write_planted(root / name, name, pixels=False, encoder=READY)) for name in ("eeg", "fmri")}


@pytest.mark.numerical
@pytest.mark.parametrize("shuffled", [0, 50])
def test_streamed_training_ends_with_the_same_weights(grouped, new_recipe, tmp_path, monkeypatch, shuffled):
    recipe = [str(new_recipe(tmp_path, grouped)), "--shuffle-buffer-size", str(shuffled), "--epochs", "1"]
    recipe += ["--closed-form", str(not shuffled).lower()]  # fitted on the recordings of both splits, once is enough
    expected = train(read_recipe([*recipe, "--output_dir", str(tmp_path / "mapped")]))
    monkeypatch.setattr(PreparedSet, "_of_subject", lambda *_: pytest.fail("recordings were written as Arrow"))
    found = train(read_recipe([*recipe, "--streaming", "--output_dir", str(tmp_path / "streamed")]))
    assert (found / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    records = [json.loads((folder / "training.json").read_text()) for folder in (found, expected)]
    scores = [[{key: entry[key] for key in entry if "two_way" in key} for entry in r["validation"]] for r in records]
    assert scores[0] == scores[1] and records[0]["recipe"]["streaming"] is True
    assert records[0].get("closed_form") == records[1].get("closed_form")
    assert shuffled or all("left_out" not in each for each in records[0]["closed_form"].values())


def test_what_was_shuffled_in_parts_does_not_go_on_otherwise(grouped, new_recipe, tmp_path):
    recipe = [str(new_recipe(tmp_path, grouped)), "--epochs", "1", "--max-steps", "1"]
    train(read_recipe([*recipe, "--shuffle-buffer-size", "50"]))
    with pytest.raises(DataError, match="'shuffle_buffer_size' was 50 and is 0"):
        train(read_recipe([*recipe, "--resume"]))


def test_processes_that_load_recordings_are_refused(grouped, new_recipe, tmp_path):
    recipe = [str(new_recipe(tmp_path, grouped)), "--streaming", "--dataloader_num_workers", "2"]
    with pytest.raises(DataError, match=r"'training.dataloader_num_workers'.*0 where recordings are streamed"):
        train(read_recipe(recipe))


def test_a_set_that_is_larger_than_the_memory_is_told_of(grouped):
    part = RecordingDataset.open(PreparedSet.open(grouped["eeg"], streaming=True), "train", ["sub-01", "sub-02"])
    assert notes_on_streaming([part], 0) == []
    part.part.recordings.files.most_bytes = part.part.recordings.files.n_bytes / 2
    (note,) = notes_on_streaming([part], 0)
    assert "are read again and again. `--shuffle-buffer-size" in note
    assert notes_on_streaming([part], 50) == []


def groups_of(sizes):
    return np.repeat(np.arange(len(sizes)), sizes)


def test_rows_are_shuffled_group_after_group():
    """Each once in a pass, and no batch from row groups that are not in memory together."""
    groups = [groups_of([7, 9, 4] * 12), groups_of([30])]
    sampler = ModalityBatchSampler([240, 30], 8, 3, [2, 1], 0, 40, groups)
    batches = list(sampler)
    first = [batch for batch in batches if batch[0] < 240]
    assert len(batches) == len(sampler) and len(first) == 60
    for one_pass in (first[:30], first[30:]):
        assert sorted(np.concatenate(one_pass).tolist()) == list(range(240))
        groups_in_turn = [groups[0][batch] for batch in one_pass]
        for start in range(0, 30, 6):
            assert (
                len(np.unique(np.concatenate(groups_in_turn[start : start + 6]))) <= 17
            )  # of 36: those of two buffers
    assert first[:30] != first[30:]
    others = [batch for batch in batches if batch[0] >= 240]
    assert len(np.unique(np.concatenate(others))) == 24  # fewer than are shuffled at a time
    again = ModalityBatchSampler([240, 30], 8, 3, [2, 1], 0, 40, groups)
    assert list(again) == batches
    again.set_epoch(1)
    assert list(again) != batches


def test_a_buffer_that_holds_all_changes_nothing():
    groups = [groups_of([10] * 4), groups_of([30])]
    plain = list(ModalityBatchSampler([40, 30], 8, 3))
    assert list(ModalityBatchSampler([40, 30], 8, 3, None, 0, 40, groups)) == plain


def test_row_groups_are_those_of_the_rows_that_are_kept(grouped):
    data = PreparedSet.open(grouped["eeg"])
    part = RecordingDataset.open(data, "train", ["sub-02", "sub-01"])
    every = part.groups
    assert len(every) == len(part) and (np.diff(every) >= 0).all()
    part.keep(np.array([150, 3, 80]))
    part.keep(np.array([0, 2]))
    assert part.groups.tolist() == every[[150, 80]].tolist()
