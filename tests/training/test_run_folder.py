"""The folder of a run appears whole: killed at any step, nothing is lost and the next run ends as it would have."""

import json
import os
import re
import shutil
import signal
import traceback

import pytest

from damaged_files import damage
from folder_contents import contents
from neural_clip.errors import DataError
from neural_clip.files.record import record_files
from neural_clip.training.run_folder import RunFolder, check_place
from neural_clip.training.run_state import mark_finished, mark_unfinished
from paths import REPOSITORY
from planted_data import READY, write_planted
from small_disk import run_on_small_disk

STEPS = (10, 20, 30)


def write_state(folder, step, run):
    """A state as `Trainer` and `NeuralClipTrainer` write it, small."""
    state = folder / f"checkpoint-{step}"
    mark_unfinished(state)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (state / name).write_text(f"{name} of {run} after {step}")
    (state / "config.json").write_text('{"model_type": "neural_clip"}')
    (state / "trainer_state.json").write_text(json.dumps({"global_step": step, "best_global_step": 10}))
    mark_finished(state)


def run(output, name, steps=STEPS, *, resume=False, overwrite=False):
    """A run without its sums: it saves states from where it starts, and at the end a checkpoint."""
    folder = RunFolder(output)
    start = folder.start(resume=resume, overwrite=overwrite, needs_best=True)
    with folder.opened(start, replaces=resume or overwrite) as partial:
        reached = (
            int((partial / start.name / "trainer_state.json").read_text().split(":")[1].split(",")[0]) if start else 0
        )
        for step in steps:
            if step > reached:
                write_state(partial, step, name)
        for file in ("model.safetensors", "config.json"):
            (partial / file).write_text(f"{file} of {name}")
        record = {"run": name, "files": record_files(partial, ["model.safetensors", "config.json"])}
        (partial / "training.json").write_text(json.dumps(record))


def killed_at(moment, *functions):
    """Run functions in a process of its own that is killed before a file or folder is moved, made or removed."""
    child = os.fork()
    if child == 0:
        try:
            count = 0

            def dying(function):
                def call(*arguments, **named):
                    nonlocal count
                    count += 1
                    if count == moment:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return function(*arguments, **named)

                return call

            for name in ("rename", "replace", "mkdir", "unlink", "rmdir", "link"):
                setattr(os, name, dying(getattr(os, name)))
            for function in functions:
                function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


every_step = pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.slow)])


def old_run(output):
    run(output, "old")
    (output / "notes.txt").write_text("mine")
    (output / "figures").mkdir()
    (output / "figures" / "a.png").write_text("a picture")


@every_step
def test_overwriting_killed_at_every_step_loses_nothing(tmp_path, stride):
    """The old run stands, or lies where the next command finds it, until the new one stands whole."""
    expected, moment, killed = None, 1 - stride, True
    while killed:
        moment += stride
        output = tmp_path / str(moment) / "out"
        old_run(output)
        old = contents(output)
        killed = killed_at(moment, lambda: run(output, "new", overwrite=True))  # noqa: B023
        here = [contents(place) for place in (output, output.with_name("out.replaced")) if place.is_dir()]
        assert old in here or json.loads((output / "training.json").read_text())["run"] == "new"
        run(output, "new", overwrite=True)
        expected = expected or contents(output)
        assert contents(output) == expected and os.listdir(output.parent) == ["out"]
        shutil.rmtree(output.parent)
    assert moment > 30
    assert expected["notes.txt"] == b"mine" and expected["figures/a.png"] == b"a picture"
    assert json.loads(expected["training.json"])["run"] == "new"


@every_step
def test_going_on_killed_at_every_step_loses_nothing(tmp_path, stride):
    moment, killed = 1 - stride, True
    while killed:
        moment += stride
        output = tmp_path / str(moment) / "out"
        old_run(output)
        old = contents(output)
        killed = killed_at(moment, lambda: run(output, "old", (*STEPS, 40), resume=True))  # noqa: B023
        here = [contents(place) for place in (output, output.with_name("out.replaced")) if place.is_dir()]
        assert old in here or (output / "checkpoint-40").is_dir()
        run(output, "old", (*STEPS, 40), resume=True)
        found = contents(output)
        assert {name: found[name] for name in old if "checkpoint-" in name or name == "notes.txt"} == {
            name: content for name, content in old.items() if "checkpoint-" in name or name == "notes.txt"
        }
        assert "checkpoint-40/optimizer.pt" in found and os.listdir(output.parent) == ["out"]
        shutil.rmtree(output.parent)
    assert moment > 30


@pytest.mark.parametrize("place", ["out.partial", "out"])
def test_an_interrupted_run_stays_until_the_one_that_replaces_it_has_a_state(tmp_path, capsys, place):
    """Also one of an earlier version, which wrote into the output folder itself."""
    output = tmp_path / "out"
    for step in STEPS:
        write_state(tmp_path / place, step, "old")
    old = contents(tmp_path / place)
    with pytest.raises(
        DataError, match=rf"{place}' holds an (interrupted|earlier) run\. Pass `--resume` .* `--overwrite`"
    ):
        run(output, "new")
    with pytest.raises(KeyboardInterrupt):
        interrupted(output, "new", ())
    assert contents(tmp_path / "out.partial") == old and os.listdir(tmp_path) == ["out.partial"]
    with pytest.raises(KeyboardInterrupt):
        interrupted(output, "new", (10,))
    assert "1 finished part stays in " in capsys.readouterr().err
    assert b"of new after 10" in contents(tmp_path / "out.partial")["checkpoint-10/model.safetensors"]
    run(output, "new", resume=True)
    assert sorted(path.name for path in output.iterdir() if path.is_dir()) == [f"checkpoint-{step}" for step in STEPS]


def interrupted(output, name, steps):
    folder = RunFolder(output)
    with folder.opened(folder.start(resume=False, overwrite=True, needs_best=True), replaces=True) as partial:
        for step in steps:
            write_state(partial, step, name)
        mark_unfinished(partial / "checkpoint-99")
        raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["out.partial", "out", "out.interrupted"])
def test_an_interrupted_run_is_gone_on_with(tmp_path, place):
    output = tmp_path / "out"
    for step in (10, 20):
        write_state(tmp_path / place, step, "old")
    damage(tmp_path / place / "checkpoint-20" / "optimizer.pt", "cut")
    first = (tmp_path / place / "checkpoint-10" / "optimizer.pt").read_bytes()
    run(output, "new", resume=True)
    found = contents(output)
    assert found["checkpoint-10/optimizer.pt"] == first and b"of new after 20" in found["checkpoint-20/optimizer.pt"]
    assert os.listdir(tmp_path) == ["out"]


def test_what_is_passed_over_is_told_of(tmp_path):
    output = tmp_path / "out"
    run(output, "old")
    damage(output / "checkpoint-30" / "scheduler.pt", "flipped")
    folder = RunFolder(output)
    assert folder.start(resume=True, overwrite=False, needs_best=True) == output / "checkpoint-20"
    assert "checkpoint-30' cannot be resumed from: its scheduler.pt is not the file that" in folder.notes[0]
    damage(output / "checkpoint-10" / "model.safetensors", "flipped")  # the best
    with pytest.raises(
        DataError, match=r"checkpoint-20' cannot be resumed from: '.*/checkpoint-10' is the best so far"
    ):
        folder.start(resume=True, overwrite=False, needs_best=True)
    assert folder.start(resume=True, overwrite=False, needs_best=False) == output / "checkpoint-20"


def test_nothing_to_go_on_from(tmp_path):
    with pytest.raises(DataError, match="holds no checkpoint to resume from"):
        run(tmp_path / "out", "new", resume=True)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}])
@pytest.mark.parametrize("content", ["thesis.txt", "neural_clip.json", "checkpoint-5/pytorch_model.bin"])
def test_what_is_no_run_is_left_alone(tmp_path, content, options):
    (tmp_path / "out" / content).parent.mkdir(parents=True)
    (tmp_path / "out" / content).write_text("years of work")
    with pytest.raises(DataError, match=r"is no checkpoint, so it is not overwritten|to resume from|be resumed from"):
        run(tmp_path / "out", "new", **options)
    assert contents(tmp_path) == {f"out/{content}": b"years of work"}


def test_an_output_folder_inside_of_what_is_read_is_refused(tmp_path):
    (tmp_path / "set" / "data").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "set")
    for place in ("set", "set/data/out", "link/out"):
        with pytest.raises(DataError, match=r"lies in '.*set', which is read"):
            check_place(tmp_path / place, [tmp_path / "set"])
    with pytest.raises(DataError, match=r"' holds '.*set', which is read"):
        check_place(tmp_path, [tmp_path / "set"])
    check_place(tmp_path / "settled", [tmp_path / "set"])
    (tmp_path / "set" / "neural_clip.json").write_text("{}")
    with pytest.raises(DataError, match=r"lies in the data set '.*set'"):
        check_place(tmp_path / "set" / "out", [])
    with pytest.raises(DataError, match="is the root of the file system"):
        check_place("/", [])


def test_names_that_no_folder_can_have(tmp_path):
    with pytest.raises(DataError, match="cannot be written: file name too long"):
        RunFolder(tmp_path / ("x" * 250))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match=r"cannot be written|is no checkpoint"):
        run(tmp_path / "file" / "out", "new")
    with pytest.raises(DataError, match="is no checkpoint"):
        run(tmp_path / "file", "new", overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("files", [5, [1], "x", {}])
def test_a_damaged_record_of_what_is_replaced_costs_no_training(tmp_path, files):
    run(tmp_path / "out", "old")
    (tmp_path / "out" / "training.json").write_text(json.dumps({"files": files}))
    (tmp_path / "out" / "notes.txt").write_text("mine")
    run(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out" / "model.safetensors").read_text() == "model.safetensors of new"
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


# Runs a command over an older checkpoint with some bytes left on the disk, and once more when there is space again.
FILLS = """
import contextlib, io, json, os, shutil, sys
from pathlib import Path
from folder_contents import contents
from neural_clip.commands.main import main
from neural_clip.errors import run
from neural_clip.files.record import check_record

disk, older, *words = sys.argv[1:]
disk = Path(disk)

def end():
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            run(main, [*words, "--output-dir", str(disk / "out"), "--overwrite"])
            return 0, ""
        except SystemExit as stop:
            return stop.code, said.getvalue().rpartition("error: ")[2].strip()  # behind a bar of progress

shutil.copytree(older, disk / "out")
before, found = contents(disk / "out"), []
for left in (0, 60_000, 150_000, 400_000):
    space = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(max(space.f_bavail * space.f_bsize - left, 0)))
    code, said = end()
    (disk / "ballast").unlink()
    names = sorted(path.name for path in disk.iterdir())
    found.append({"left": left, "code": code, "said": said, "same": contents(disk / "out") == before, "names": names})
    shutil.rmtree(disk / "out.partial", ignore_errors=True)
code, _ = end()
found.append({"code": code, "whole": bool(check_record(disk / "out")), "new": contents(disk / "out") != before})
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "adapt"])
def test_a_full_disk_is_told_and_keeps_the_older_checkpoint(finished_run, tmp_path, monkeypatch, command):
    recipe, finished = finished_run
    if command == "train":
        words = ["train", recipe, "--seed", "9"]
    else:
        data = write_planted(tmp_path / "three", "eeg", n_subjects=3, pixels=False, encoder=READY)
        words = ["adapt", "--checkpoint", finished, "--data", f"eeg={data}", "--epochs", "2"]
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests"))
    done = run_on_small_disk(disk, "8m", FILLS, finished, *words)
    assert done.returncode == 0, done.stderr[-4000:]
    *full, again = json.loads(done.stdout.splitlines()[-1])
    assert again == {"code": 0, "whole": True, "new": True}
    ends = [each for each in full if each["code"] != 0]
    assert len(ends) >= 2, full
    for each in ends:
        assert each["code"] == 2 and each["same"], each
        told = r"cannot be written: no space is left on the device\. What was there before is unchanged\."
        assert re.fullmatch(rf"'{disk}/out[^']*' {told}", each["said"]), each
        assert set(each["names"]) <= {"out", "out.partial"}, each
