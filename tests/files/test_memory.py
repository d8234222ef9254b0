"""Memory of the machine, and of containers that are given less."""

from pathlib import Path

import numpy as np
import pytest

from neural_clip.files import memory
from neural_clip.files.memory import memory_held, memory_there
from neural_clip.prepared.streamed_rows import KEPT_SHARE, ParquetFiles

GB = 2**30


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Write what a kernel tells of control groups: lines of the process, and limits by file."""

    def write(lines, limits):
        (tmp_path / "cgroup").write_text("".join(f"{line}\n" for line in lines))
        for name, text in limits.items():
            (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "fs" / name).write_text(text + "\n")
        monkeypatch.setattr(memory, "GROUPS", tmp_path / "cgroup")
        monkeypatch.setattr(memory, "LIMITS", tmp_path / "fs")

    return write


@pytest.mark.parametrize(
    ("lines", "limits", "found"),
    [
        (["0::/"], {"memory.max": "1073741824"}, GB),  # a container
        (["0::/job/step"], {"job/memory.max": "1073741824", "job/step/memory.max": "max"}, GB),  # the job's
        (["0::/job/step"], {"job/memory.max": "3221225472", "job/step/memory.max": "1073741824"}, GB),
        (["4:memory:/slurm/job", "1:cpu:/"], {"memory/slurm/job/memory.limit_in_bytes": "1073741824"}, GB),
        (["5:cpu,memory:/job", "0::/"], {"memory/job/memory.limit_in_bytes": "1073741824"}, GB),
        (["1:cpu:/job"], {"memory/job/memory.limit_in_bytes": "1073741824"}, None),  # of another tree
        (["4:memory:/"], {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),  # as good as none
        (["0::/"], {"memory.max": "max"}, None),
        ([], {}, None),
    ],
)
def test_the_lowest_limit_counts(lines, limits, found, groups):
    groups([], {})
    machine = memory_there()
    groups(lines, limits)
    assert memory_there() == (found or machine)


def test_without_control_groups_it_is_that_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "none")
    told = Path("/proc/meminfo").read_text().splitlines()[0]
    assert told.split()[0] == "MemTotal:" and memory_there() == int(told.split()[1]) * 1024


def test_row_groups_are_kept_in_a_quarter_of_what_a_container_has(groups):
    groups(["0::/"], {"memory.max": "1073741824"})
    assert ParquetFiles([]).most_bytes == KEPT_SHARE * GB


def test_what_a_process_holds_grows_with_it():
    before = memory_held()
    block = np.ones(25 * 2**20)  # 200 MB
    assert memory_held() - before > 150 * 2**20 and block[-1] == 1
