"""Units of work in one process, in two, and on a Dask cluster: the same results, errors and names."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import joblib
import pytest

from local_cluster import local_cluster
from neural_clip.errors import DataError
from neural_clip.parallel import n_processes, on_cluster, run_units
from paths import REPOSITORY

WAYS = ["here", "two processes", "cluster"]


def everywhere(way, work, units):
    """Results by name, done in one of three ways."""
    if way == "cluster":
        with on_cluster(local_cluster()):
            return dict(run_units(work, units))
    return dict(run_units(work, units, num_proc=2 if way == "two processes" else 1))


def square_and_process(number):
    return number**2, os.getpid()


@pytest.mark.parametrize("way", WAYS)
def test_every_unit_is_done_once_and_where_it_was_asked(way):
    found = everywhere(way, square_and_process, {f"unit {i}": i for i in range(7)})
    assert {name: result for name, (result, _) in found.items()} == {f"unit {i}": i**2 for i in range(7)}
    processes = {process for _, process in found.values()}
    assert processes == {os.getpid()} if way == "here" else os.getpid() not in processes and len(processes) <= 2


def test_what_joblib_is_told_is_where_the_work_is_done():
    assert n_processes(1) == 1 and n_processes(3) == 3
    with joblib.parallel_config(n_jobs=2):
        assert n_processes(1) == 2
        assert os.getpid() not in {process for _, (_, process) in run_units(square_and_process, {"a": 1, "b": 2})}
    client = pytest.importorskip("distributed").Client(local_cluster())
    with client, joblib.parallel_config("dask"):
        assert os.getpid() not in {process for _, (_, process) in run_units(square_and_process, {"a": 1, "b": 2})}


def cluster_here(n_workers, threads):
    """A cluster in this process, which starts at once; its workers are threads."""
    distributed = pytest.importorskip("distributed")
    return distributed.LocalCluster(
        n_workers=n_workers, threads_per_worker=threads, processes=False, protocol="tcp://", host="127.0.0.1",
        dashboard_address=":0",
    )  # fmt: skip


def name_of_thread(number):
    return threading.current_thread().name


def test_a_cluster_of_one_core_does_the_work_not_this_process():
    with cluster_here(1, 1) as cluster, on_cluster(cluster.scheduler_address):
        assert dict(run_units(name_of_thread, {"a": 3}))["a"].count("Dask")


def fails(unit):
    number, log = unit
    if number == 1:
        raise DataError("'/raw/sub-01.mat' is damaged.")
    time.sleep(0.3)
    Path(log, str(number)).write_text("done")
    return number


@pytest.mark.parametrize("way", WAYS)
def test_an_error_comes_out_as_it_is_and_what_was_begun_is_finished(tmp_path, way):
    units = {f"unit {i}": (i, tmp_path) for i in range(12)}
    with pytest.raises(DataError, match=r"^'/raw/sub-01.mat' is damaged.$"):
        everywhere(way, fails, units)
    done = {int(path.name) for path in tmp_path.iterdir()}
    assert 0 in done and len(done) < 6, done  # two were handed out with it, and as many were next


class Awkward(Exception):
    """As some libraries have: it cannot be pickled and read again."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def awkward_first(unit):
    if unit:
        raise Awkward("this", "that")


def divides(unit):
    return 1 / unit


@pytest.mark.parametrize("way", WAYS[1:])
def test_a_defect_keeps_its_type_and_tells_where_it_happened(way):
    with pytest.raises(ZeroDivisionError) as told:
        everywhere(way, divides, {"sub-07": 0, "sub-08": 1})
    (note,) = told.value.__notes__
    assert "in a process that worked on 'sub-07'" in note and "return 1 / unit" in note
    with pytest.raises(RuntimeError, match="sub-09: Awkward: this and that"):
        everywhere(way, awkward_first, {"sub-09": True, "sub-10": False})


def test_errors_of_ours_survive_the_way_between_processes():
    error = pickle.loads(pickle.dumps(DataError("'/raw/a.mat' is damaged.")))
    assert type(error) is DataError and str(error) == "'/raw/a.mat' is damaged."


def dies(number):
    if number == 2:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("way", ["two processes", pytest.param("cluster", marks=pytest.mark.slow)])
def test_a_process_that_dies_is_told_with_the_unit(way, monkeypatch):
    monkeypatch.setattr("neural_clip.parallel.CONNECT_S", 60)  # a cluster starts workers anew, which takes its time
    with pytest.raises(DataError, match=r"'unit 2'.* was killed, probably because memory.*kept.*--num-proc"):
        everywhere(way, dies, {f"unit {i}": i for i in range(4)})
    assert everywhere(way, square_and_process, {"a": 2, "b": 3})["b"][0] == 9  # others work as before


class Elsewhere:
    """What this process can make, but another one cannot import."""

    def __reduce__(self):
        return __import__, ("module_of_this_process_alone",)


def test_work_that_another_process_cannot_read_is_no_lack_of_memory():
    with pytest.raises(DataError, match=r"could not read.*No module named 'module_of_this_process_alone'.*install"):
        everywhere("two processes", divides, {"a": Elsewhere(), "b": 1})
    assert everywhere("two processes", square_and_process, {"a": 2, "b": 3})["b"][0] == 9  # others work as before


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "tcp://no-such-host.invalid:8786"])
def test_a_cluster_that_does_not_answer_is_told_within_seconds(address):
    pytest.importorskip("distributed")
    began = time.monotonic()
    expected = pytest.raises(DataError, match=f"No Dask scheduler answers at '{address}' within 8 s")
    with expected, on_cluster(address):
        pass
    assert time.monotonic() - began < 20


def test_an_address_that_takes_connections_and_says_nothing_is_told(monkeypatch):
    """As a scheduler that hangs does, or a tunnel to a machine that is off."""
    pytest.importorskip("distributed")
    monkeypatch.setattr("neural_clip.parallel.CONNECT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(DataError, match=f"No Dask scheduler answers at '{address}'"), on_cluster(address):
            pass
    assert time.monotonic() - began < 15


def test_a_cluster_without_workers_is_told_within_seconds(monkeypatch):
    monkeypatch.setattr("neural_clip.parallel.CONNECT_S", 1)
    with cluster_here(0, 1) as cluster:
        expected = f"scheduler at '{cluster.scheduler_address}' has no workers.*dask worker"
        with pytest.raises(DataError, match=expected), on_cluster(cluster.scheduler_address):
            pass


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DataError, match=r"neural_clip\[dask\]"), on_cluster("tcp://127.0.0.1:8786"):
        pass


def at_once(unit):
    """Whether two units are ever in one process at a time."""
    threads = sum(thread.name == "unit" for thread in threading.enumerate())
    mark = threading.Thread(target=time.sleep, args=(0.2,), name="unit")
    mark.start()
    mark.join()
    return threads


def test_a_worker_with_several_threads_does_one_unit_at_a_time():
    with cluster_here(1, 3) as cluster, on_cluster(cluster.scheduler_address):
        assert set(dict(run_units(at_once, {str(i): i for i in range(5)})).values()) == {0}


PROGRAM = """
import sys, time
from pathlib import Path
from neural_clip.errors import run
from neural_clip.parallel import on_cluster, run_units

def work(unit):
    Path(unit[1], f"begun {unit[0]}").touch()
    time.sleep(unit[2])

def main(argv):
    folder, seconds, *cluster = sys.argv[1:]
    with on_cluster(*cluster or [None]):
        list(run_units(work, {str(i): (i, folder, float(seconds)) for i in range(4)}, num_proc=2))

if __name__ == "__main__":
    run(main)
"""


def stopped(folder, stop, *words):
    """A program of two processes that is stopped once both work."""
    (folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(folder / "program.py"), str(folder), *words]
    with subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while len(list(folder.glob("begun *"))) < 2:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        # a terminal sends Ctrl-C to all processes of a group; the system kills one
        (os.killpg if stop == signal.SIGINT else os.kill)(process.pid, stop)
        told = process.communicate(timeout=30)[1]
    return process, told


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_the_program_that_started_them(tmp_path, stop):
    process, told = stopped(tmp_path, stop, "60")
    if stop == signal.SIGINT:
        assert process.returncode == 130 and told == "interrupted\n"
    deadline = time.monotonic() + 10
    while left := _processes_of(process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_ctrl_c_leaves_a_cluster_in_one_line(tmp_path):
    process, told = stopped(tmp_path, signal.SIGINT, "2", local_cluster())
    assert process.returncode == 130 and told == "interrupted\n"
    assert everywhere("cluster", square_and_process, {"a": 2, "b": 3})["b"][0] == 9


def _processes_of(session):
    """Commands of processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((stat.parent / "cmdline").read_text())
        except OSError:
            continue
    return found
