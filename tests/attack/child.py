"""A forked process that does one thing: watched for hangs and memory, and survived when it dies."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

HANG_S = 20.0  # of the processor; three times as much by the clock, because other work may go on


class Child:
    """A process that does one thing and leaves a JSON object; watched for hangs and memory."""

    def __init__(
        self, work: Callable[[], dict], folder: Path, memory: float = float("inf"), hang_s: float = HANG_S
    ) -> None:
        self.folder, self.memory, self.hang_s, self.started = folder, memory, hang_s, time.monotonic()
        self.answer = folder.with_name(folder.name + ".answer")
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _work(work, folder, self.answer)
        self.fault: str | None = None
        self.peak = 0

    def ended(self) -> bool:
        """Whether it is over; kills it where it takes too much."""
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            self._watch()
            return False
        self.peak = usage.ru_maxrss * 1024
        if self.fault is None and os.WIFSIGNALED(status):
            self.fault = f"died by signal {signal.Signals(os.WTERMSIG(status)).name}"
        if self.fault is None and self.peak > self.memory:
            self.fault = f"took {self.peak / 2**30:.1f} GB"
        return True

    def wait(self, kill_after: float | None = None) -> bool:
        """Wait for its end, or kill it after so many seconds; whether it died without an answer."""
        while not self.ended():
            if kill_after is not None and time.monotonic() - self.started > kill_after:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.002)
        return not self.answer.exists()

    def _watch(self) -> None:
        with contextlib.suppress(OSError, IndexError, ValueError):
            stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            used = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
            if used > self.hang_s or time.monotonic() - self.started > 3 * self.hang_s:
                self.fault = f"hung: {used:.0f} s of the processor, {time.monotonic() - self.started:.0f} s in all"
            elif int(stat[21]) * os.sysconf("SC_PAGE_SIZE") > self.memory:
                self.fault = f"took {int(stat[21]) * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GB"
            if self.fault:
                os.kill(self.pid, signal.SIGKILL)

    def result(self) -> dict:
        """What it left, or why there is nothing."""
        found = json.loads(self.answer.read_text()) if self.answer.exists() else {}
        self.answer.unlink(missing_ok=True)
        if self.fault or not found:
            return {"outcome": "fault", "why": self.fault or "ended without an answer"}
        return found | {"peak": self.peak}


def alone(work: Callable[[], object], folder: Path, what: str) -> dict:
    """Do something that must succeed, and import what it imported, so that no later child has to."""

    def told() -> dict:
        found = work()
        return {"outcome": "right"} | (found if isinstance(found, dict) else {}) | {"modules": sorted(sys.modules)}

    child = Child(told, folder, hang_s=120)
    child.wait()
    shutil.rmtree(folder.with_name(folder.name + ".cache"), ignore_errors=True)
    found = child.result()
    if found["outcome"] != "right":
        raise SystemExit(f"undamaged, {what} fails: {found.get('why')}\n{found.get('trace', '')}")
    for module in sorted(set(found.pop("modules")) - set(sys.modules)):
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    return found


def _work(work: Callable[[], dict], folder: Path, answer: Path) -> None:
    """In the child: do the work in its folder, answer, and end at once."""
    try:
        faulthandler.disable()
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        log = os.open(os.devnull, os.O_WRONLY)
        os.dup2(log, 1), os.dup2(log, 2)
        _own_caches(folder.with_name(folder.name + ".cache"))
        text = json.dumps(work())
        answer.with_suffix(".half").write_text(text)
        answer.with_suffix(".half").rename(answer)
    except BaseException:
        answer.write_text(
            json.dumps({"outcome": "fault", "why": "the attack itself failed", "trace": traceback.format_exc()})
        )
    finally:
        os._exit(0)


def _own_caches(folder: Path) -> None:
    """Let `datasets` keep what it reads to this case: another case's rows would hide the damage."""
    import datasets

    datasets.config.HF_DATASETS_CACHE = folder
