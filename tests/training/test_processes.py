"""Several processes: they train one model, or the run is refused; a resumed run ends with the same weights."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from safetensors.torch import load_file

from neural_clip.errors import DataError
from neural_clip.files.record import RECORD_FILE
from neural_clip.training.adapt import adapt
from neural_clip.training.processes import (
    check_joined,
    check_launch,
    check_one_process,
    once_a_machine,
    processes_asked,
)
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from neural_clip.training.run_state import is_finished, mark_finished, mark_unfinished
from paths import REPOSITORY
from planted_data import READY, write_planted
from second_process import python
from spoiled_rows import spoil

LAUNCHERS = {1: ["train.py"], 2: ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "train.py"]}
EACH_STEP = ["--save-strategy", "steps", "--save-steps", "1", "--save-total-limit", "99"]
EACH_STEP += ["--load-best-model-at-end", "false"]


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, ("", 1)),
        ({"WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}, ("WORLD_SIZE", 1)),  # torchrun with one process
        ({"SLURM_NTASKS": "4", "WORLD_SIZE": "8", "MASTER_ADDR": "node1"}, ("WORLD_SIZE", 8)),
        ({"SLURM_NTASKS": "4"}, ("SLURM_NTASKS", 4)),
        ({"OMPI_COMM_WORLD_SIZE": "2", "SLURM_NTASKS": "1"}, ("OMPI_COMM_WORLD_SIZE", 2)),
        ({"MASTER_ADDR": "127.0.0.1"}, ("MASTER_ADDR", 2)),
    ],
)
def test_what_a_launcher_asked_for(environment, found, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes_asked() == found


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}, "MASTER_ADDR=127.0.0.1"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, "WORLD_SIZE=2"),  # nobody has a rank: all would wait
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, "SLURM_NTASKS=2"),
        ({"SLURM_NTASKS": "2", "MASTER_ADDR": "127.0.0.1", "RANK": "0"}, "SLURM_NTASKS=2"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE=2"),
        ({"PMI_SIZE": "3", "PMI_RANK": "0"}, "PMI_SIZE=3"),
    ],
)
def test_a_process_that_would_train_alone_is_refused(environment, named, recipe_file, tmp_path, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match=rf"{named} asks for several processes.*torchrun --nproc_per_node"):
        train(read_recipe([recipe_file]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("environment", [{"WORLD_SIZE": "2", "RANK": "0"}, {"SLURM_NTASKS": "2"}])
def test_adapting_takes_one_process(environment, ready_folders, tmp_path, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match=r"`neural-clip adapt` runs in one process\. The environment variable"):
        adapt(tmp_path, ready_folders["eeg"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_gpus_are_not_shared_nor_taken_unasked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DataError, match=r"One process sees 2 GPUs.*CUDA_VISIBLE_DEVICES=0"):
        check_joined(SimpleNamespace(world_size=1, n_gpu=2))
    with pytest.raises(DataError, match="adapt uses one GPU, but sees 2"):
        check_one_process("adapt")
    for name, value in {"WORLD_SIZE": "3", "LOCAL_RANK": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match="Process 2 of this machine has no GPU: it has 2"):
        check_launch(use_cpu=False)
    check_launch(use_cpu=True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_launch(use_cpu=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ACCELERATE_USE_FSDP", "true"), ("ACCELERATE_USE_DEEPSPEED", "true"), ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")],
)
def test_plugins_of_accelerate_are_refused(name, value, recipe_file, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(DataError, match=f"'{name}' is '{value}'"):
        train(read_recipe([recipe_file]))


def start(n_processes, *arguments):
    """Start the real program; one thread a process, as everywhere in the tests, so that sums have one order."""
    command = [sys.executable, *LAUNCHERS[n_processes], *arguments]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(n_processes, *arguments):
    done = python(*LAUNCHERS[n_processes], *arguments, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("process", [0, 1])
def test_the_first_process_of_a_machine_reads_for_all(process):
    calls = []
    once_a_machine(lambda: calls.append(process), SimpleNamespace(local_process_index=process, device=None))
    assert calls == [0] * (process == 0)


JOINED = """
import torch, torch.distributed as processes
from neural_clip.training.recipe import Recipe
training = {{"output_dir": "out", "use_cpu": True, "report_to": "none", **{settings}}}
Recipe(data={{"eeg": "there"}}, training=training).training_arguments
group = processes.distributed_c10d._get_default_group()
print(int(group._get_backend(torch.device("cpu")).options._timeout.total_seconds()))
"""


@pytest.mark.parametrize(("settings", "seconds"), [({}, 30 * 24 * 3600), ({"ddp_timeout": 77}, 77)])
def test_processes_on_cpus_wait_a_month_or_as_long_as_the_recipe_says(settings, seconds, monkeypatch):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    for name, value in {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": 1, "RANK": 0}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("LOCAL_RANK", "0")  # as torchrun starts one process
    done = python("-c", JOINED.format(settings=settings))
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == seconds


SLOW_CLOSED_FORM = """
import datetime, time
from torch.distributed import distributed_c10d
distributed_c10d.default_pg_timeout = datetime.timedelta(seconds=5)  # in place of half an hour
from neural_clip.training import run
from neural_clip.commands.train import main
add_closed_forms = run.add_closed_forms
def slow(*arguments):
    time.sleep(12)
    return add_closed_forms(*arguments)
run.add_closed_forms = slow
main()
assert not distributed_c10d.is_initialized()  # threads of the group may abort a process as Python ends
"""


@pytest.mark.slow
def test_the_others_wait_for_a_closed_form_that_takes_longer_than_half_an_hour(recipe_file, tmp_path):
    program = tmp_path / "slow.py"
    program.write_text(SLOW_CLOSED_FORM)
    words = [program, recipe_file, "--closed-form", "true", "--epochs", "1"]
    done = python(*LAUNCHERS[2][:-1], *words, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "closed_form" in json.loads((tmp_path / "out" / RECORD_FILE).read_text())


@pytest.mark.slow
def test_what_one_process_finds_is_told_by_both(recipe_file, tmp_path):
    recipe = yaml.safe_load(Path(recipe_file).read_text())
    copy = shutil.copytree(recipe["data"]["eeg"], tmp_path / "eeg")
    path = next(copy.glob("**/train*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    done = python(*LAUNCHERS[2], recipe_file, "--data.eeg", copy, "--output-dir", tmp_path / "out", cwd=REPOSITORY)
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0 and not (tmp_path / "out").exists()
    assert told and all("its content has another SHA-256" in line and str(path) in line for line in told)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "value", "more", "told"),
    [
        ("train", "nan", [], "Recordings in the train split of '{}' hold NaN or infinity: row 5 of sub-01"),
        ("train", "nan", ["--mini-batch-size", "4"], "Recordings in the train split of '{}' hold NaN or infinity"),
        ("validation", "nan", [], "Recordings in the validation split of '{}' hold NaN or infinity: row 5 of sub-01"),
        ("train", "3e38", [], "Training diverged: "),
        ("train", "1", ["--learning-rate", "1e30"], "Training diverged: loss or gradient of step"),
    ],
)
def test_what_one_process_meets_on_its_way_ends_both_with_one_message(recipe_file, tmp_path, split, value, more, told):
    recipe = yaml.safe_load(Path(recipe_file).read_text())
    copy = shutil.copytree(recipe["data"]["eeg"], tmp_path / "eeg")
    spoil(copy, split, "sub-01", 5, float(value))
    given = ["--data", f"eeg={copy}", "--output-dir", tmp_path / "out", *more]
    done = python(*LAUNCHERS[2], recipe_file, *given, cwd=REPOSITORY)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0 and line.startswith(f"error: {told.format(copy)}")
    if "--learning-rate" in more:  # the recordings of both processes, 16 each
        assert "and 24 more." in line
    assert "closed by peer" not in done.stderr and not list(tmp_path.glob("out*"))


@pytest.mark.slow
def test_accelerate_that_starts_one_of_two_processes_is_refused(recipe_file, tmp_path):
    launcher = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "train.py"]
    result = python(*launcher, recipe_file, cwd=REPOSITORY)
    assert result.returncode != 0
    line, *_ = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "MASTER_ADDR" in line and "`torchrun --nproc_per_node N train.py RECIPE`" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.numerical
@pytest.mark.parametrize("n_processes", [1, 2])
def test_killed_in_an_epoch_and_resumed_ends_with_the_same_weights(recipe_file, tmp_path, n_processes):
    """The programs themselves: one is interrupted from outside, wherever it is by then, and started again."""
    recipe = yaml.safe_load(Path(recipe_file).read_text())
    del recipe["training"]["use_cpu"]  # the form that the docstring of train.py prints says nothing of CPUs
    Path(recipe_file).write_text(yaml.safe_dump(recipe))
    whole, part = tmp_path / "whole", tmp_path / "part"
    run(n_processes, recipe_file, *EACH_STEP, "--output-dir", whole)
    last = max(int(path.name.split("-")[1]) for path in whole.glob("checkpoint-*"))
    assert last == 2 * (20 // n_processes)  # 10 batches of EEG and 10 of fMRI an epoch

    running = start(n_processes, recipe_file, *EACH_STEP, "--output-dir", str(part))
    partial = part.with_name("part.partial")
    while not is_finished(partial / "checkpoint-4"):
        assert running.poll() is None, running.communicate()[0][-3000:]
        time.sleep(0.01)
    os.kill(running.pid if n_processes == 1 else children(running.pid)[0], signal.SIGKILL)
    running.communicate(timeout=300)
    reached = max(int(path.name.split("-")[1]) for path in partial.glob("checkpoint-*"))
    assert running.returncode != 0 and 4 <= reached < last
    run(n_processes, recipe_file, *EACH_STEP, "--output-dir", part, "--resume")
    for name in ("model.safetensors", f"checkpoint-{last}/model.safetensors"):
        assert (part / name).read_bytes() == (whole / name).read_bytes()
    assert not partial.exists()


def children(pid):
    """Processes that one has started, the oldest first."""
    found = [path.parent for path in Path("/proc").glob("[0-9]*/stat") if f" {pid} " in stat_of(path)]
    return sorted(int(path.name) for path in found)


def stat_of(path):
    """State and parent of a process; nothing of one that has ended meanwhile."""
    try:
        state, parent = path.read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return ""
    return f"{state} {parent} "


STILL = ["--model.eeg.dropout", "0", "--model.fmri.dropout", "0", "--optim", "sgd", "--learning-rate", "0.3"]


@pytest.mark.slow
@pytest.mark.numerical
def test_two_processes_are_one_with_batches_of_twice_the_size(recipe_file, tmp_path):
    """Two of 24 rows and one of 48, on two modalities of unequal length, one of them shorter than a batch."""
    recipe = yaml.safe_load(Path(recipe_file).read_text())
    few = {"n_subjects": 1, "repeats": 1, "counts": {"train": 25, "validation": 6, "test": 6}}
    recipe["data"]["fmri"] = str(write_planted(tmp_path / "few", "fmri", pixels=False, encoder=READY, **few))
    Path(recipe_file).write_text(yaml.safe_dump(recipe))
    still = [recipe_file, *STILL, "--min-steps", "9", "--epochs", "1"]
    for name, more in {"two": [], "streamed": ["--streaming"]}.items():
        run(2, *still, *more, "--batch-size", "24", "--output-dir", tmp_path / name)
    two, streamed = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "streamed"))
    assert all(torch.equal(streamed[name], value) for name, value in two.items())
    one = train(read_recipe([*still, "--batch_size", "48", "--output_dir", str(tmp_path / "one")]))
    assert_same_run(tmp_path / "two", one)
    other = train(read_recipe([*still, "--batch_size", "24", "--output_dir", str(tmp_path / "other")]))
    weights = [load_file(folder / "model.safetensors") for folder in (one, other)]
    assert max((weights[1][name] - value).abs().max() for name, value in weights[0].items()) > 1e-3


def assert_same_run(found, expected):
    """Weights, and losses of each epoch."""
    weights = [load_file(folder / "model.safetensors") for folder in (found, expected)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[1].items():
        assert (weights[0][name] - value).abs().max() < 1e-4, name
    steps, scores = zip(*(steps_and_scores(folder) for folder in (found, expected)), strict=True)
    assert steps[0] == steps[1] and scores[0] == pytest.approx(scores[1], abs=1e-3)


def steps_and_scores(folder):
    record = json.loads((folder / "training.json").read_text())
    return record["steps"], [entry["eval_two_way"] for entry in record["validation"]]


@pytest.mark.slow
@pytest.mark.numerical
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_two_processes_told_to_end_save_and_one_goes_on(recipe_file, tmp_path):
    """Slurm sends SIGTERM, and `torchrun` hands it on; the run ends as one that nothing interrupted."""
    never = ["--save-strategy", "no", "--eval-strategy", "no", "--load-best-model-at-end", "false"]
    still = [recipe_file, *STILL, *never, "--max-steps", "300", "--learning-rate", "0.05"]
    logged = ["--logging-strategy", "steps", "--logging-steps", "1"]
    part, whole = tmp_path / "part", tmp_path / "whole"
    running = start(2, *still, *logged, "--batch-size", "8", "--output-dir", str(part))
    while "'loss'" not in (line := running.stdout.readline()):
        assert line, "it ended"
    running.send_signal(signal.SIGTERM)
    told = running.communicate(timeout=300)[0]
    (state,) = part.with_name("part.partial").glob("checkpoint-*")
    step = int(state.name.split("-")[1])
    assert running.returncode != 0 and is_finished(state) and 0 < step < 300
    advice = "which was saved. Give the same command again with `--resume`, in place of `--overwrite`, to go on."
    assert f"training was interrupted after step {step} of 300, {advice}" in told
    train(read_recipe([*still, "--batch_size", "16", "--output_dir", str(part), "--resume"]))
    train(read_recipe([*still, "--batch_size", "16", "--output_dir", str(whole)]))
    assert_same_run(part, whole)


@pytest.mark.slow
@pytest.mark.numerical
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")
def test_accelerate_told_to_end_leaves_a_saved_run_and_no_process(recipe_file, tmp_path):
    """It hands no signal on to the one process that it starts, which would train on unseen."""
    never = ["--save-strategy", "no", "--eval-strategy", "no", "--load-best-model-at-end", "false"]
    words = [recipe_file, *never, "--max-steps", "300"]
    part, whole = tmp_path / "part", tmp_path / "whole"
    launcher = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "train.py"]
    logged = ["--logging-strategy", "steps", "--logging-steps", "1", "--output-dir", str(part)]
    running = subprocess.Popen(
        [sys.executable, *launcher, *words, *logged], cwd=REPOSITORY, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while "'loss'" not in (line := running.stdout.readline()):
        assert line, "it ended"
    running.send_signal(signal.SIGTERM)
    told = running.communicate(timeout=300)[0]  # until the process that trains has closed the pipe, too
    (state,) = part.with_name("part.partial").glob("checkpoint-*")
    step = int(state.name.split("-")[1])
    assert is_finished(state) and 0 < step < 300
    assert f"training was interrupted after step {step} of 300, which was saved. Give the same command again" in told
    train(read_recipe([*words, "--output-dir", str(part), "--resume"]))
    train(read_recipe([*words, "--output-dir", str(whole)]))
    assert (part / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


ACCELERATE = REPOSITORY / "configs" / "accelerate"
EXPECTED = {  # processes, machines, on CPUs
    "cpu": (1, 1, True),
    "one_gpu": (1, 1, False),
    "eight_gpus": (8, 1, False),
    "two_nodes_slurm": (16, 2, False),
}


def test_each_configuration_is_expected():
    assert sorted(path.stem for path in ACCELERATE.glob("*.yaml")) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_reads_it(name):
    found = load_config_from_file(str(ACCELERATE / f"{name}.yaml"))
    assert (found.num_processes, found.num_machines, found.use_cpu) == EXPECTED[name]
    assert str(found.distributed_type.value) == ("NO" if found.num_processes == 1 else "MULTI_GPU")
    assert found.mixed_precision == "no" and not found.dynamo_config  # the recipe's, and refused


@pytest.mark.parametrize("name", EXPECTED)
def test_its_comment_is_a_command_of_accelerate(name):
    """The launcher's own checks, as far as they need no GPU."""
    lines = [
        line[2:] for line in (ACCELERATE / f"{name}.yaml").read_text().splitlines() if line.startswith("# accelerate")
    ]
    if name == "two_nodes_slurm":
        return  # its sbatch script below
    (command,) = lines
    arguments = launched(command.split()[2:])
    assert arguments.config_file == f"configs/accelerate/{name}.yaml" and Path(REPOSITORY, "train.py").is_file()
    assert arguments.num_processes == EXPECTED[name][0] and arguments.training_script == "train.py"


def launched(words):
    """What `accelerate launch WORDS` would start."""
    folder = os.getcwd()
    os.chdir(REPOSITORY)
    try:
        arguments = launch_command_parser().parse_args(words)
        return _validate_launch_command(arguments)[0]
    finally:
        os.chdir(folder)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Programs in place of Slurm's: both nodes run here, and `accelerate` says what it was given."""
    programs = {
        "scontrol": 'printf "node7\\nnode8\\n"',
        "srun": 'shift; for node in 0 1; do SLURM_NODEID=$node "$@" || exit 1; done',
        "accelerate": 'python3 -c "import json, sys; print(json.dumps(sys.argv[1:]))" "$@"',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[7-8]")
    monkeypatch.setenv("SLURM_JOB_ID", "1234567")


def submit(*words):
    script = str(ACCELERATE / "two_nodes_slurm.sbatch")
    return subprocess.run(["bash", script, *words], capture_output=True, text=True, timeout=60)


def test_the_job_script_starts_a_launcher_on_each_node(slurm, tmp_path):
    words = ["configs/base.yaml", "--data", "meg=data with space", "--output-dir", str(tmp_path / "out")]
    done = submit(*words)
    assert done.returncode == 0, done.stderr
    for node, line in enumerate(done.stdout.splitlines()):
        command, *given = json.loads(line)
        assert command == "launch"
        arguments = launched(given)
        assert (arguments.num_processes, arguments.num_machines, arguments.machine_rank) == (16, 2, node)
        assert (arguments.main_process_ip, arguments.main_process_port) == ("node7", 24567)
        assert arguments.multi_gpu and arguments.training_script == "train.py"
        assert arguments.training_script_args == words
    assert node == 1


@pytest.mark.parametrize("given", ["--output-dir {}", "--output_dir={}", "--training.output-dir={}"])
def test_the_job_script_goes_on_where_a_run_was_interrupted(slurm, tmp_path, given):
    """From a state that is whole: `--resume` refuses one that is half written, as a kill leaves it."""
    place, state = tmp_path / "out with space", tmp_path / "out with space.partial" / "checkpoint-5"
    words = ["configs/base.yaml", *(word.format(place) for word in given.split(" "))]
    mark_unfinished(state)
    (state / "trainer_state.json").write_text("{}")
    (state / "model.safetensors").touch()
    assert json.loads(submit(*words).stdout.splitlines()[0])[-len(words) :] == words
    mark_finished(state)
    assert json.loads(submit(*words).stdout.splitlines()[0])[-len(words) - 1 :] == [*words, "--resume"]
    done = submit("configs/base.yaml")
    assert done.returncode == 2 and "give --output-dir" in done.stderr


@pytest.mark.slow
def test_the_one_for_cpus_trains(recipe_file, tmp_path):
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(ACCELERATE / "cpu.yaml"), "train.py"]
    done = python(*launcher, recipe_file, "--output-dir", tmp_path / "out", "--max-steps", "2", cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (record["processes"], record["device"], record["steps"]) == (1, "cpu", 2)
