"""The configurations of `configs/accelerate`: accelerate reads them, and starts what their comments say."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from paths import REPOSITORY
from second_process import python

FOLDER = REPOSITORY / "configs" / "accelerate"
EXPECTED = {  # processes, machines, on CPUs
    "cpu": (1, 1, True),
    "one_gpu": (1, 1, False),
    "eight_gpus": (8, 1, False),
    "two_nodes_slurm": (16, 2, False),
}


def test_each_configuration_is_expected():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_accelerate_reads_it(name):
    found = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert (found.num_processes, found.num_machines, found.use_cpu) == EXPECTED[name]
    assert str(found.distributed_type.value) == ("NO" if found.num_processes == 1 else "MULTI_GPU")
    assert found.mixed_precision == "no" and not found.dynamo_config  # the recipe's, and refused


@pytest.mark.parametrize("name", EXPECTED)
def test_its_comment_is_a_command_of_accelerate(name):
    """The launcher's own checks, as far as they need no GPU."""
    lines = [
        line[2:] for line in (FOLDER / f"{name}.yaml").read_text().splitlines() if line.startswith("# accelerate")
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
    script = str(FOLDER / "two_nodes_slurm.sbatch")
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


def test_the_job_script_goes_on_where_a_run_was_interrupted(slurm, tmp_path):
    (tmp_path / "out.partial" / "checkpoint-5").mkdir(parents=True)
    done = submit("configs/base.yaml", "--output-dir", str(tmp_path / "out"))
    assert json.loads(done.stdout.splitlines()[0])[-1] == "--resume"
    done = submit("configs/base.yaml")
    assert done.returncode == 2 and "give --output-dir" in done.stderr


@pytest.mark.slow
def test_the_one_for_cpus_trains(recipe_file, tmp_path):
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(FOLDER / "cpu.yaml"), "train.py"]
    done = python(*launcher, recipe_file, "--output-dir", tmp_path / "out", "--max-steps", "2", cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (record["processes"], record["device"], record["steps"]) == (1, "cpu", 2)
