"""A dry run: it takes a few steps, tells what the whole run takes, and leaves nothing behind."""

import re
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from safetensors.torch import load_file

from folder_contents import contents
from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.cost import Cost
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.stored_rows import cache_name
from neural_clip.training import dry_run, room
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from neural_clip.training.trainer import NeuralClipTrainer


def lines_of(capsys):
    printed = capsys.readouterr().out.splitlines()
    return dict(line.split(": ", 1) for line in printed if ": " in line)


@pytest.mark.numerical
def test_nothing_is_written_and_the_run_is_as_it_would_have_been(recipe_file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    recipe = [recipe_file, "--epochs", "1", "--min-steps", "15", "--gradient_accumulation_steps", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        train(read_recipe([*recipe, "--dry-run"]))
    assert contents(tmp_path) == before  # nothing is copied either
    told = lines_of(capsys)
    assert list(told) == ["dry run", "eeg", "fmri", "steps", "time", "memory", "disk", "copies"]
    for name in ("eeg", "fmri"):
        form = r"([\d,]+) recordings/s, (\S+) s for a step of 32 \(3 steps\)"
        speed, seconds = re.fullmatch(form, told[name]).groups()
        assert float(speed.replace(",", "")) * float(seconds) == pytest.approx(32, rel=0.2)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "copies")  # of this run alone
    output = train(read_recipe(recipe))
    state = max(output.glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
    steps = int(state.name.split("-")[1])
    assert told["steps"] == f"{steps} in all, about {steps // 2} of eeg and {steps // 2} of fmri"
    weights = sum(value.nbytes for value in load_file(output / "model.safetensors").values())
    kept = sum((state / name).stat().st_size for name in ("model.safetensors", "optimizer.pt"))
    found = re.match(r"([\d.]+) MB a saved state, ([\d.]+) MB the weights; 2 states and the weights", told["disk"])
    assert float(found[2]) == pytest.approx(weights / 2**20, abs=0.05)
    assert float(found[1]) == pytest.approx(kept / 2**20, abs=0.06)  # without what files add
    sizes = re.fullmatch(r"([\d.]+) MB for .*eeg' as Arrow and ([\d.]+) MB for .*fmri' as Arrow, .*", told["copies"])
    for folder, size in zip(read_recipe([recipe_file]).folders, sizes.groups(), strict=True):
        fingerprint = PreparedSet.open(folder[1]).facts.fingerprint
        cache = Path(datasets.config.HF_DATASETS_CACHE)
        copied = sum(path.stat().st_size for path in cache.glob(f"parquet/{cache_name(fingerprint)}-*/**/*.arrow"))
        assert float(size) == pytest.approx(copied / 2**20, rel=0.2, abs=0.06)


def test_the_time_is_that_of_all_steps(recipe_file, capsys, monkeypatch):
    """20 of half a second and 20 of a second."""
    monkeypatch.setattr(dry_run, "_measured", lambda *given: [0.5, 1.0])
    train(read_recipe([recipe_file, "--dry-run"]))
    told = lines_of(capsys)
    assert told["eeg"] == "32 recordings/s, 0.5 s for a step of 16 (3 steps)"
    assert told["time"] == "about 30 s, without scoring, saving and the closed form"
    assert [dry_run._told(seconds) for seconds in (59, 600, 9000)] == ["59 s", "10 minutes", "2.5 hours"]


def test_what_a_run_would_refuse_a_dry_run_does(recipe_file, finished_run, tmp_path):
    with pytest.raises(DataError, match="holds an earlier run"):
        train(read_recipe([finished_run[0], "--dry-run"]))
    with pytest.raises(DataError, match=r"'training' section cannot be used|learning_rate"):
        train(read_recipe([recipe_file, "--dry-run", "--learning_rate", "-1"]))


@pytest.mark.parametrize("size", ["1", "2"])
def test_parts_too_small_for_batch_norms_are_refused(recipe_file, tmp_path, size):
    with pytest.raises(DataError, match=r"'mini_batch_size'.* 3 and more for networks with batch norms, but got"):
        train(read_recipe([recipe_file, "--mini-batch-size", size]))
    assert not list(tmp_path.glob("out*"))


def test_a_full_disk_is_told_before_the_run(recipe_file, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda place: usage._replace(free=1000))
    monkeypatch.setattr(dry_run, "_measured", lambda *given: [0.5, 1.0])
    told = r"for 2 states and the weights \(.*but '.*' has 0\.0 MB free\. `--streaming` copies nothing\."
    with monkeypatch.context() as patch, pytest.raises(DataError, match=told):
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        train(read_recipe([recipe_file, "--dry-run"]))
    with pytest.raises(DataError, match=r"for 2 states and the weights \(.*free\.$"):
        train(read_recipe([recipe_file, "--dry-run", "--streaming"]))


def test_disks_are_filled_by_all_that_lies_on_them(tmp_path, monkeypatch):
    """Two needs on one disk, each of which would fit alone."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda place: usage._replace(free=100 * 2**20))
    needs = [
        room.Need("states", tmp_path / "a", 60 * 2**20),
        room.Need("the copy as Arrow", tmp_path / "b", 50 * 2**20),
    ]
    for alone in needs:
        room.check_disks([alone])
    told = rf"needs 110\.0 MB of disk \(60\.0 MB for states, 50\.0 MB for .*\), but '{tmp_path}' has 100\.0 MB free"
    with pytest.raises(DataError, match=told):
        room.check_disks(needs)


def test_a_machine_with_too_little_memory_is_told_with_what_would_help(recipe_file, monkeypatch):
    monkeypatch.setattr(dry_run, "_measured", lambda *given: [0.5, 1.0])
    monkeypatch.setattr(room, "memory_there", lambda: 2**20)
    with pytest.raises(DataError, match=r"of this process while it trains, and this machine has 1\.0 MB .*mini-batch"):
        train(read_recipe([recipe_file, "--dry-run"]))


def test_matrices_of_a_closed_form_count(recipe_file, capsys, monkeypatch):
    monkeypatch.setattr(dry_run, "_measured", lambda *given: [0.5, 1.0])
    found, closed_form_room = [], room.closed_form_room
    monkeypatch.setattr(dry_run, "closed_form_room", lambda *given: found.append(closed_form_room(*given)) or found[0])
    train(read_recipe([recipe_file, "--dry-run", "--closed-form", "true"]))
    told = lines_of(capsys)["closed form"]
    assert told.startswith("about 1 min of one core, matrices of up to 60 x 60, 0.2 MB of memory")
    rows, n_numbers = 208, 60  # EEG of two people for training and validation, which all are pooled, 6 x 10
    assert found[0].n_bytes == 4 * n_numbers**2 + 3 * 4 * rows * n_numbers  # more than fMRI takes
    assert found[0].cost.seconds > 0 and found[0].cost.ridges > 4
    there = room.memory_there()
    large = room.ClosedFormRoom(Cost(3, 600.0, 30_000), there)
    monkeypatch.setattr(dry_run, "closed_form_room", lambda *given: large)
    told = (
        r"when it fits the closed form \(about 10 min of one core, matrices of up to 30,000 x .*`--closed-form false`"
    )
    with pytest.raises(DataError, match=told):
        train(read_recipe([recipe_file, "--dry-run", "--closed-form", "true"]))
    train(read_recipe([recipe_file, "--dry-run", "--closed-form", "false"]))


def test_a_step_that_memory_has_no_room_for_is_told(recipe_file, monkeypatch):
    def full(*given, **named):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4398046511104 bytes.")

    monkeypatch.setattr(NeuralClipTrainer, "training_step", full)
    with pytest.raises(DataError, match=r"A step needs more memory than there is: .* `--mini-batch-size N` keeps"):
        train(read_recipe([recipe_file, "--dry-run"]))


def test_a_few_row_groups_stand_for_all(recipe_file, monkeypatch):
    """Eight of as many as there are, of every person; batches are as large as those of the run."""
    monkeypatch.setattr(RecordingDataset, "groups", property(lambda self: np.arange(len(self)) // 4))
    found = []
    monkeypatch.setattr(dry_run, "_Batches", lambda batches: found.extend(batches) or _end())
    with pytest.raises(_Ended):
        train(read_recipe([recipe_file, "--dry-run"]))
    assert len(found) == 8 and {len(batch) for batch in found} == {16}
    eeg = np.concatenate(found[:4])
    assert len(set((eeg // 4).tolist())) == 8 and all(len(set(batch)) == 16 for batch in found)


class _Ended(Exception):
    pass


def _end():
    raise _Ended
