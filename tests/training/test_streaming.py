"""Training that streams: the weights of a training that does not."""

import json

import numpy as np
import pytest

from neural_clip.errors import DataError
from neural_clip.prepared import parquet
from neural_clip.prepared.reader import PreparedSet
from neural_clip.training.batches import ModalityBatchSampler, RecordingDataset
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from neural_clip.training.splits import notes_on_streaming
from planted_data import READY, write_planted


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
    expected = train(read_recipe([*recipe, "--output_dir", str(tmp_path / "mapped")]))
    monkeypatch.setattr(PreparedSet, "_of_subject", lambda *_: pytest.fail("recordings were written as Arrow"))
    found = train(read_recipe([*recipe, "--streaming", "--output_dir", str(tmp_path / "streamed")]))
    assert (found / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    records = [json.loads((folder / "training.json").read_text()) for folder in (found, expected)]
    scores = [[{key: entry[key] for key in entry if "two_way" in key} for entry in r["validation"]] for r in records]
    assert scores[0] == scores[1] and records[0]["recipe"]["streaming"] is True


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
