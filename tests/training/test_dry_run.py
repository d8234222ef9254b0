"""A dry run: it takes a few steps, tells what the whole run takes, and leaves nothing behind."""

import re
import shutil

import pytest
from safetensors.torch import load_file

from folder_contents import contents
from neural_clip.errors import DataError
from neural_clip.training import dry_run
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train


def lines_of(capsys):
    printed = capsys.readouterr().out.splitlines()
    return dict(line.split(": ", 1) for line in printed if ": " in line)


@pytest.mark.numerical
def test_nothing_is_written_and_the_run_is_as_it_would_have_been(recipe_file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    recipe = [recipe_file, "--epochs", "1", "--min-steps", "15", "--gradient_accumulation_steps", "2"]
    train(read_recipe([*recipe, "--dry-run"]))
    assert contents(tmp_path) == before
    told = lines_of(capsys)
    assert list(told) == ["dry run", "eeg", "fmri", "steps", "time", "memory", "disk"]
    for name in ("eeg", "fmri"):
        form = r"([\d,]+) recordings/s, (\S+) s for a step of 32 \(3 steps\)"
        speed, seconds = re.fullmatch(form, told[name]).groups()
        assert float(speed.replace(",", "")) * float(seconds) == pytest.approx(32, rel=0.2)
    output = train(read_recipe(recipe))
    state = max(output.glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
    steps = int(state.name.split("-")[1])
    assert told["steps"] == f"{steps} in all, about {steps // 2} of eeg and {steps // 2} of fmri"
    weights = sum(value.nbytes for value in load_file(output / "model.safetensors").values())
    kept = sum((state / name).stat().st_size for name in ("model.safetensors", "optimizer.pt"))
    found = re.match(r"([\d.]+) MB a saved state, ([\d.]+) MB the weights; 2 states and the weights", told["disk"])
    assert float(found[2]) == pytest.approx(weights / 2**20, abs=0.05)
    assert float(found[1]) == pytest.approx(kept / 2**20, abs=0.06)  # without what files add


def test_the_time_is_that_of_all_steps(recipe_file, capsys, monkeypatch):
    """20 of half a second and 20 of a second."""
    monkeypatch.setattr(dry_run, "_measured", lambda trainer: [0.5, 1.0])
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
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda place: usage._replace(free=1000))
    monkeypatch.setattr(dry_run, "_measured", lambda trainer: [0.5, 1.0])
    with pytest.raises(DataError, match=rf"keeps 2 states and the weights, .* but '{tmp_path}' has 0\.0 MB free"):
        train(read_recipe([recipe_file, "--dry-run"]))
