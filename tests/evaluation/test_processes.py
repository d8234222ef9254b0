"""Several processes of a launcher: the report of one, written and printed once; what goes wrong is told once."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from checkpoints_of_galleries import save_checkpoint
from folder_contents import contents
from neural_clip.errors import DataError
from neural_clip.evaluation.processes import joined, rank_and_count
from neural_clip.prepared.reader import PreparedSet
from planted_data import write_planted

TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # as torchrun gives to each of several


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint and two data sets; the batches of 4 are not dealt out evenly."""
    root = tmp_path_factory.mktemp("processes")
    counts = {"train": 14, "validation": 6, "test": 9}
    sets = {name: write_planted(root / name, name, counts=counts) for name in ("eeg", "fmri")}
    save_checkpoint(root / "checkpoint", {name: PreparedSet.open(folder) for name, folder in sets.items()})
    return root


def evaluated(root, launcher, out, *words, program=("-m", "neural_clip")):
    """`evaluate` in processes of its own, which are killed with it after two minutes."""
    command = ["evaluate", "--checkpoint", "checkpoint", "--data", "eeg=eeg", "fmri=fmri", "--output-dir", out]
    command += ["--batch-size", "4", "--baselines", "none", "--no-controls", *words]
    return subprocess.run(
        [sys.executable, *launcher, *program, *command], cwd=root, env=os.environ | ONE_THREAD,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_write_and_print_what_one_does(place):
    one, two = evaluated(place, [], "one"), evaluated(place, TORCHRUN, "two")
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    assert one.stdout.replace("one", "two") == two.stdout and two.stdout.count("report") == one.stdout.count("report")
    first, second = (json.loads((place / name / "report.json").read_text()) for name in ("one", "two"))
    for report in (first, second):
        for name in ("command", "sha256"):  # the command names the folder
            report.pop(name)
    assert first == second
    first, second = contents(place / "one"), contents(place / "two")
    assert first.keys() == second.keys()
    assert {key: first[key] for key in first if "embeddings" in key} == {
        key: second[key] for key in second if "embeddings" in key
    }


WATCHED = """
import os, signal, sys
from neural_clip.evaluation import processes
from neural_clip.prepared.reader import PreparedSet
embed_split, verify = processes.embed_split, PreparedSet.verify
rank, killed_at = os.environ.get("RANK"), sys.argv[1]
def embedded(model, part, **options):
    if rank == "1" and part.modality == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)
    print(f"<{rank} embeds {part.modality}>", file=sys.stderr)
    return embed_split(model, part, **options)
def verified(data):
    print(f"<verified by {rank}>", file=sys.stderr)
    return verify(data)
processes.embed_split, PreparedSet.verify = embedded, verified
from neural_clip.commands.main import main
main(sys.argv[2:])
"""


@pytest.mark.slow
def test_embeddings_that_several_processes_have_finished_survive_a_kill(place):
    (place / "watched.py").write_text(WATCHED)
    killed = evaluated(place, [*TORCHRUN, "watched.py", "fmri"], "kept", program=[])
    assert killed.returncode != 0 and "<1 embeds fmri>" not in killed.stderr
    assert len(list((place / "kept" / "unfinished").glob("eeg-embeddings-*.safetensors"))) == 1
    done = evaluated(place, [*TORCHRUN, "watched.py", "none"], "kept", program=[])
    assert done.returncode == 0, done.stderr
    assert "embeds eeg" not in done.stderr
    assert done.stderr.count("<0 embeds fmri>") == done.stderr.count("<1 embeds fmri>") == 1
    assert done.stderr.count("<verified by 0>") == 2 and "<verified by 1>" not in done.stderr
    assert not (place / "kept" / "unfinished").exists()
    whole = evaluated(place, [], "whole")
    assert whole.returncode == 0, whole.stderr
    first, second = (json.loads((place / name / "report.json").read_text()) for name in ("whole", "kept"))
    assert first["decoding"] == second["decoding"] and first["conversion"] == second["conversion"]


@pytest.mark.slow
def test_what_goes_wrong_is_told_and_ends_all_processes(place, tmp_path):
    shutil.copytree(place, tmp_path / "place")
    weights = tmp_path / "place" / "checkpoint" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = evaluated(tmp_path / "place", TORCHRUN, "out")
    assert done.returncode != 0 and "error: " in done.stderr and "model.safetensors" in done.stderr
    assert not (tmp_path / "place" / "out" / "report.json").exists()


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, (0, 1)),
        ({"WORLD_SIZE": "1", "RANK": "0"}, (0, 1)),
        ({"WORLD_SIZE": "4", "RANK": "3"}, (3, 4)),
        ({"WORLD_SIZE": "4"}, (0, 1)),
        ({"WORLD_SIZE": "2", "RANK": "x"}, (0, 1)),
    ],
)
def test_which_process_this_is(environment, found, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rank_and_count() == found


def test_processes_that_do_not_find_each_other_are_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(DataError, match=r"WORLD_SIZE=2 asks for several.*do not find each other.*torchrun"), joined():
        pass
