"""Attack the package: damage valid inputs in numbered ways, kill commands that write, and count what goes wrong.

    make attack                                   five minutes
    make attack ATTACK_SECONDS=7200 ATTACK_SEED=3 longer, other cases
    make attack ATTACK_ARGS="--from 2000"         go on where an earlier run of the same seed ended

Case `i` of a seed is the same on every machine. Each is a process of its own, forked from one that imported everything.
It must end as an error of our own type that names a file, or as the right result: no traceback from the depths, no dead
interpreter, no hang, not 2 GB more than the undamaged input takes, no other values where something could tell. The
inputs of faults are kept in `runs/attack`.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import importlib
import json
import os
import re
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HANG_S = 20.0  # of the processor; three times as much by the clock, because other work may go on
MEMORY = 2 * 2**30  # bytes beyond the undamaged run
NAMES = re.compile(r"[\w.\-+]{5,}")


class Child:
    """A process that does one thing and leaves a JSON object; watched for hangs and memory."""

    def __init__(self, work: Callable[[], dict], folder: Path, memory: float = float("inf"), hang_s: float = HANG_S) -> None:
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


def _work(work: Callable[[], dict], folder: Path, answer: Path) -> None:
    """In the child: do the work in its folder, answer, and end at once."""
    try:
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        log = os.open(os.devnull, os.O_WRONLY)
        os.dup2(log, 1), os.dup2(log, 2)
        _own_caches(folder.with_name(folder.name + ".cache"))
        text = json.dumps(work())
        answer.with_suffix(".half").write_text(text)
        answer.with_suffix(".half").rename(answer)
    except BaseException:
        answer.write_text(json.dumps({"outcome": "fault", "why": "the attack itself failed", "trace": traceback.format_exc()}))
    finally:
        os._exit(0)


def _own_caches(folder: Path) -> None:
    """Let `datasets` keep what it reads to this case: another case's rows would hide the damage."""
    import datasets

    datasets.config.HF_DATASETS_CACHE = folder


# --------------------------------------------------------------------------------------------------------- one case


def snapshot(folder: Path) -> dict[str, object]:
    """What lies in a folder: sizes and times of files, targets of links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        found[path.relative_to(folder).as_posix()] = (info.st_mode, info.st_size if path.is_file() else 0, info.st_mtime_ns if path.is_file() else 0)
    return found


def attempt(target, damage=None) -> dict:
    """Let a target read the current folder, and say how that ended."""
    from neural_clip.errors import DataError

    from attack.targets import Refused

    before = snapshot(Path())
    try:
        results = target.run()
    except (DataError, Refused, *target.refusals) as error:
        return _refused(str(error), damage, before)
    except MemoryError as error:
        return {"outcome": "fault", "why": f"MemoryError: {error}", "trace": traceback.format_exc()[-3000:]}
    except BaseException as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "neural_clip" in frame.filename]
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else f"{Path(line.filename).name}:{line.lineno}"
        return {"outcome": "fault", "why": f"{type(error).__name__} at {place}: {str(error)[:300]}", "trace": traceback.format_exc()[-3000:]}
    return {"outcome": "right", "results": results}


def _refused(message: str, damage, before: dict) -> dict:
    """An error of our own type: does it name a file, and is all as it was?"""
    left = [name for name in sorted(set(snapshot(Path())) - set(before)) if name.partition("/")[0] in ("out", "out.old")]
    gone = sorted(set(before) - set(snapshot(Path())))
    if left or gone:
        return {"outcome": "fault", "why": f"an error, but left {left[:3]} and removed {gone[:3]}: {message[:200]}"}
    names = {part for name in before for part in (*Path(name).parts, Path(name).stem)} | {"out"}
    names |= {part for name in (damage.files if damage else ()) for part in (*Path(name).parts, Path(name).stem)}
    if damage and not any(name in message for name in names if len(name) > 3):
        return {"outcome": "fault", "why": f"names no file: {message[:300]}"}
    return {"outcome": "error", "why": message[:300]}


def judge(found: dict, target, damage, expected: dict) -> dict:
    """Compare a result with that of the undamaged input."""
    from attack.damage import GUARDS

    if found["outcome"] != "right":
        return found
    results, peak = found.pop("results"), found.get("peak", 0)
    other = [key for key in {**results, **expected} if expected.get(key, "?") is not None and results.get(key) != expected.get(key, "?")]
    if any(value == "not finite" for value in results.values()):
        return {"outcome": "fault", "why": "results that are not finite", "peak": peak}
    if not other:
        return found
    guards = {guard_of(target, name) for name in damage.files}
    told = any(damage.kind in GUARDS[guard] for guard in guards if guard)
    why = f"other values without a word: {sorted(other)[:4]}"
    return {"outcome": "fault" if told else "right", "why": why, "other": True, "peak": peak}


def guard_of(target, name: str) -> str | None:
    """How well a file is guarded: the last pattern that fits."""
    found = [guard for pattern, guard in target.guards.items() if fnmatch.fnmatch(name, pattern)]
    return found[-1] if found else None


class Attack:
    """Sources, undamaged results, and cases by number."""

    def __init__(self, targets, seed: int, work: Path, kept: Path) -> None:
        import numpy as np

        self.targets, self.seed, self.work, self.kept, self.np = targets, seed, work, kept, np
        self.expected: dict[str, dict] = {}
        self.memory: dict[str, float] = {}
        self.files: dict[str, list[str]] = {}

    def make(self) -> None:
        """Write the sources and their donors, and read each undamaged one twice; what differs is no result."""
        import torch
        import transformers

        from attack.sources import SOURCES

        for name in sorted({target.source for target in self.targets}):
            for number in range(2):
                folder = self.work / "sources" / f"{name}_{number}"
                folder.mkdir(parents=True)
                self._alone(lambda name=name, folder=folder, number=number: SOURCES[name](folder, number) or {"outcome": "right"}, folder, f"source {name}")
        for target in self.targets:
            runs = []
            for number in range(2):
                folder = self._copy(target, self.work / f"undamaged{number}")
                runs.append(self._alone(lambda target=target: attempt(target), folder, target.name))
                shutil.rmtree(folder)
            first, second = (run["results"] for run in runs)
            self.expected[target.name] = {key: value if value == second.get(key) else None for key, value in (first | second).items()}
            self.memory[target.name] = max(run["peak"] for run in runs) + MEMORY
            folder = self.work / "sources" / f"{target.source}_0"
            names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
            self.files[target.name] = [name for name in names if guard_of(target, name)]
    def _copy(self, target, folder: Path) -> Path:
        return shutil.copytree(self.work / "sources" / f"{target.source}_0", folder, symlinks=True)

    def _alone(self, work: Callable[[], dict], folder: Path, what: str) -> dict:
        """Run something undamaged, which must succeed."""
        child = Child(lambda: work() | {"modules": sorted(sys.modules)}, folder, hang_s=120)
        while not child.ended():
            time.sleep(0.005)
        shutil.rmtree(folder.with_name(folder.name + ".cache"), ignore_errors=True)
        found = child.result()
        if found["outcome"] != "right":
            raise SystemExit(f"the undamaged {what} fails: {found.get('why')}\n{found.get('trace', '')}")
        for module in sorted(set(found.pop("modules")) - set(sys.modules)):  # now, so that no case has to
            with contextlib.suppress(Exception):
                importlib.import_module(module)
        return found

    def start(self, number: int) -> tuple[Child, object]:
        """Fork a case."""
        from attack.damage import bite

        rng = self.np.random.default_rng([self.seed, number])
        weights = self.np.array([target.weight for target in self.targets])
        target = self.targets[rng.choice(len(self.targets), p=weights / weights.sum())]
        folder = self._copy(target, self.work / f"case{number}")
        donor = self.work / "sources" / f"{target.source}_1"

        def work() -> dict:
            damage = bite(Path(), self.files[target.name], donor, rng)
            folder.with_name(folder.name + ".damage").write_text(json.dumps(damage))
            return attempt(target, damage)

        return Child(work, folder, self.memory[target.name]), target

    def finish(self, number: int, child: Child, target) -> dict:
        """Judge a case that ended, and keep the input of a fault."""
        from attack.damage import Damage

        record = child.folder.with_name(child.folder.name + ".damage")
        damage = Damage(*json.loads(record.read_text()))
        record.unlink()
        found = judge(child.result(), target, damage, self.expected[target.name])
        if found["outcome"] == "fault":
            folder = self.kept / f"{self.seed}-{number}"
            shutil.rmtree(folder, ignore_errors=True)
            for name in damage.files:
                path = child.folder / name
                if path.is_file() and path.stat().st_size < 2**20:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, folder / name)
            folder.mkdir(parents=True, exist_ok=True)
            entry = {"seed": self.seed, "case": number, "target": target.name, **damage._asdict(), **found}
            (folder / "case.json").write_text(json.dumps(entry, indent=1) + "\n")
            print(f"fault {self.seed}-{number}: {target.name} | {damage.files[0]} | {damage.way} | {found['why']}", flush=True)
        for path in (child.folder, child.folder.with_name(child.folder.name + ".cache")):
            shutil.rmtree(path, ignore_errors=True)
        return found

    def run(self, first: int, count: int, until: float, workers: int) -> Counter:
        """Go through the cases, several at a time."""
        counts: Counter = Counter()
        active: dict[int, tuple] = {}
        number = first
        while active or (number < first + count and time.monotonic() < until):
            while len(active) < workers and number < first + count and time.monotonic() < until:
                active[number] = self.start(number)
                number += 1
            for key, (child, target) in list(active.items()):
                if child.ended():
                    found = self.finish(key, child, target)
                    counts.update(inputs=1, **{found["outcome"]: 1}, other=bool(found.get("other")) and found["outcome"] == "right")
                    del active[key]
            time.sleep(0.002)
        counts["next"] = number
        return counts


def main(argv=None, targets=None) -> int:
    """Run the attack; 1 where there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="for inputs (three quarters) and kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", dest="first", type=int, default=0, help="number of the first case")
    parser.add_argument("--inputs", type=int, default=10**9, help="most of them")
    parser.add_argument("--kills", type=int, default=10**9, help="most of them")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="", help="targets whose names hold this")
    parser.add_argument("--kept", type=Path, default=REPOSITORY / "runs" / "attack")
    options = parser.parse_args(argv)
    runpy.run_path(str(REPOSITORY / "conftest.py"))  # the surroundings of the tests: no network, caches of their own
    from attack.targets import TARGETS

    chosen = [target for target in targets or TARGETS if options.only in target.name]
    with tempfile.TemporaryDirectory(prefix="attack_") as work:
        started = time.monotonic()
        attack = Attack(chosen, options.seed, Path(work), options.kept)
        attack.make()
        print(f"seed {options.seed}: {len(chosen)} targets are ready after {time.monotonic() - started:.0f} s", flush=True)
        share = 1 if options.kills == 0 else 0.75
        counts = attack.run(options.first, options.inputs, time.monotonic() + options.seconds * share, options.workers)
        print(f"seed {options.seed}, cases {options.first} to {counts['next'] - 1}; {counts['other']} of the right results are "
              "other values that nothing could tell")  # fmt: skip
        print(f"inputs {counts['inputs']}, errors {counts['error']}, right {counts['right']}, faults {counts['fault']}")
    return int(bool(counts["fault"]))


if __name__ == "__main__":
    sys.exit(main())
