"""Work that falls into units, done by several processes: of this machine, or of a Dask cluster.

[`run_units`] is the one place where processes start. They are joblib's: `num_proc` processes of this machine, or
whatever `joblib.parallel_config` says, such as an existing cluster ([`on_cluster`], `--cluster` at a shell). A unit
writes a whole result of its own, on a disk that all processes share, so that what is done is kept.
"""

from __future__ import annotations

import asyncio
import functools
import os
import pickle
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from typing import Any

from .errors import DataError

CONNECT_S = 8  # that a scheduler has to answer, and then a worker to be there
WATCH_S = 0.05  # between two looks at whether the process that gave the work is alive
ONE_AT_A_TIME = threading.Lock()  # a worker with several threads: our libraries keep settings of the whole process


@contextmanager
def on_cluster(address: str | None) -> Iterator[None]:
    """Let the workers of a Dask cluster do the units of what runs within the block; without an address, nothing.

    Args:
        address (`str`, *optional*): Of the scheduler, such as `"tcp://host:8786"`.

    Raises:
        DataError: If Dask is not installed, or no scheduler or no worker answers within seconds.
    """
    if address is None:
        yield
        return
    try:
        import dask
        import distributed
        from distributed.utils import LoopRunner
    except ImportError as error:
        raise DataError(
            "A Dask cluster ('--cluster') needs Dask, which is not installed: `pip install 'neural_clip[dask]'`."
        ) from error
    import joblib

    with _quiet_connections():
        try:
            if dask.config.get("distributed.client.security-loader", None) is None:  # which a `Client` alone asks
                LoopRunner().run_sync(_reach, address)
            client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
        except Exception as error:  # of sockets, of the address or of Dask's protocol
            raise DataError(
                f"No Dask scheduler answers at '{address}' within {CONNECT_S} s. Start one with `dask scheduler`, or "
                "check the address."
            ) from error
        try:
            try:
                client.wait_for_workers(1, timeout=CONNECT_S)
            except TimeoutError as error:
                raise DataError(
                    f"The Dask scheduler at '{address}' has no workers. Start some with `dask worker {address}`."
                ) from error
            with joblib.parallel_config(backend=_cluster_backend()(client=client)):
                yield
        finally:
            client.close()


async def _reach(address: str) -> None:
    """Connect to a scheduler as a `Client` does, which waits for ever for one that takes connections and is silent."""
    from distributed import Security
    from distributed.comm import connect

    settings = Security().get_connection_args("client")
    comm = await asyncio.wait_for(connect(address, timeout=CONNECT_S, **settings), CONNECT_S)
    await comm.close()


def n_processes(num_proc: int) -> int:
    """How many units are done at a time; 1 where this process does them itself."""
    import joblib

    return joblib.effective_n_jobs(None if num_proc == 1 else num_proc)


def run_units(work: Callable[[Any], Any], units: Mapping[str, Any], *, num_proc: int = 1) -> Iterator[tuple[str, Any]]:
    """Do something with each unit, several at a time.

    Args:
        work (`Callable`): Takes a unit; with several processes it must be picklable. What it writes should be whole
            or not at all.
        units (`Mapping[str, Any]`): By their names, which messages say.
        num_proc (`int`, *optional*, defaults to 1): Processes of this machine; with 1 this process does the work,
            unless `joblib.parallel_config` says otherwise.

    Yields:
        `tuple[str, Any]`: Name of a unit and what `work` returned, as units are finished.

    Raises:
        DataError: If a process is killed, or cannot read its unit. What `work` raises comes out as it is; units that
            were handed out before are finished first, so that nothing done is lost.
    """
    at_a_time = n_processes(num_proc)
    if at_a_time == 1:
        yield from ((name, work(unit)) for name, unit in units.items())
        return
    done: list[str] = []
    failure: Exception | None = None
    results = _parallel(work, units, num_proc, lambda: failure is not None)
    try:
        for name, result, error in results:
            done.append(name)
            failure = failure or error
            if error is None:
                yield name, result
    except Exception as error:
        if (kind := type(error).__name__) == "BrokenProcessPool":  # loky says so of what cannot be unpickled alone
            reason = [line for line in str(error.__cause__).splitlines() if line.strip('"')][-1]
            raise DataError(
                f"A process could not read the work that it was given: {reason}. Processes import the same modules as "
                "this one: install what this one finds by a changed 'sys.path' alone."
            ) from error
        if kind not in ("TerminatedWorkerError", "KilledWorker"):
            raise
        under_way = [name for name in [*units][: len(done) + at_a_time] if name not in done]
        raise DataError(
            f"A process that worked on {' or '.join(map(repr, under_way))} was killed, probably because memory ran "
            "out. What was finished is kept. Use fewer processes: a lower 'num_proc' (--num-proc), or fewer workers "
            "on a machine of the cluster."
        ) from error
    finally:
        with warnings.catch_warnings(action="ignore"):  # that units are left undone
            results.close()
    if failure is not None:
        raise failure


def _parallel(work: Callable, units: Mapping[str, Any], num_proc: int, stopped: Callable[[], bool]) -> Any:
    """Name, result and error of each unit, as they are finished; none is handed out once the work is stopped."""
    import joblib

    found, configured = joblib.parallel.get_active_backend()
    if hasattr(found, "client") and not isinstance(found, _cluster_backend()):
        found = _cluster_backend()(client=found.client)
    parent = os.getpid() if isinstance(found, joblib.parallel.LokyBackend) else 0
    tasks = (
        joblib.delayed(_outcome)(work, name, unit, parent, os.getcwd())
        for name, unit in units.items()
        if not stopped()
    )
    # arrays as they are: those that joblib maps from files are of another type, and a unit is known by its pickle
    return joblib.Parallel(
        configured if num_proc == 1 else num_proc, backend=found, batch_size=1, pre_dispatch="n_jobs",
        max_nbytes=None, return_as="generator_unordered",
    )(tasks)  # fmt: skip


def _outcome(work: Callable, name: str, unit: Any, parent: int, cwd: str) -> tuple[str, Any, Exception | None]:
    """Do one unit in a worker; an error is handed over, since one that is raised would end the other workers."""
    _begin(parent)
    try:
        with ONE_AT_A_TIME, chdir(cwd):  # for names that are not absolute
            return name, work(unit), None
    except Exception as error:
        if not isinstance(error, DataError):
            error.add_note(f"in a process that worked on {name!r}:\n{traceback.format_exc()}")
        try:
            return name, None, pickle.loads(pickle.dumps(error))
        except Exception:  # an error of a library that takes other arguments than it keeps
            return name, None, RuntimeError(f"{name}: {type(error).__name__}: {error}\n{traceback.format_exc()}")


@functools.cache
def _begin(parent: int) -> None:
    """Make a worker of this machine end with the process that gave it work."""
    if parent == 0 or parent == os.getpid():
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@functools.cache
def _cluster_backend() -> type:
    """The Dask backend of joblib, which waits for ever where a worker died, and works here where there is one core."""
    from joblib._dask import DaskDistributedBackend

    class ClusterBackend(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, super().effective_n_jobs(n_jobs))

        def submit(self, func: Any, callback: Any = None) -> Any:
            future = super().submit(func, callback)
            future.add_done_callback(lambda done: done.exception() and callback(done.exception()))
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            if isinstance(out, BaseException):
                raise out
            return super().retrieve_result_callback(out)

    return ClusterBackend


@contextmanager
def _quiet_connections() -> Iterator[None]:
    """Let Dask say nothing of connections that end; what matters comes out as an error."""
    import logging

    loggers = [logging.getLogger(name) for name in ("distributed.client", "distributed.comm")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
