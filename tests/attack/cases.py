"""Numbered cases: damage a copy of a valid input, let a target read it, and judge how that ends."""

from __future__ import annotations

import fnmatch
import json
import shutil
import time
import traceback
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from attack.child import HANG_S, Child, alone
from attack.damage import GUARDS, Damage, bite
from attack.rewrites import RAN
from attack.sources import SOURCES
from attack.targets import Refused, differing

MEMORY = 2 * 2**30  # bytes beyond the undamaged run


def snapshot(folder: Path) -> dict[str, object]:
    """What lies in a folder: kinds, sizes and times of files."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        of_file = (info.st_size, info.st_mtime_ns) if path.is_file() else ()
        found[path.relative_to(folder).as_posix()] = (info.st_mode, *of_file)
    return found


def attempt(target, damage=None) -> dict:
    """Let a target read the current folder, and say how that ended."""
    found = _ending(target, damage)
    return {"outcome": "fault", "why": "code of the input ran"} if Path(RAN).exists() else found


def _ending(target, damage) -> dict:
    """Results of a target, or its error."""
    from neural_clip.errors import DataError

    before = snapshot(Path())
    try:
        results = target.run()
    except (DataError, Refused, *target.refusals) as error:
        return _refused(str(error), damage, before)
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        last = [frame for frame in frames if "/neural_clip/" in frame.filename] or frames
        why = f"{type(error).__name__} at {Path(last[-1].filename).name}:{last[-1].lineno}: {str(error)[:300]}"
        return {"outcome": "fault", "why": why, "trace": traceback.format_exc()[-3000:]}
    return {"outcome": "right", "results": results}


def _refused(message: str, damage, before: dict) -> dict:
    """An error of our own type: does it name a file, and is all as it was?"""
    after = snapshot(Path())
    left = [name for name in sorted(set(after) - set(before)) if name.partition("/")[0] in ("out", "out.replaced")]
    changed = sorted(name for name, state in before.items() if after.get(name) != state)
    if left or changed:
        return {"outcome": "fault", "why": f"an error, but left {left[:3]} and changed {changed[:3]}: {message[:200]}"}
    names = {Path(name).name for name in (*before, *(damage.files if damage else ())) if "." in Path(name).name}
    names |= {Path(name).parts[0] for name in before}
    if damage and not any(name in message for name in names):
        return {"outcome": "fault", "why": f"names no file: {message[:300]}"}
    return {"outcome": "error", "why": message[:300]}


def judge(found: dict, target, damage, expected: dict) -> dict:
    """Compare a result with that of the undamaged input."""
    if found["outcome"] != "right":
        return found
    results, peak = found.pop("results"), found.get("peak", 0)
    other = differing(results, expected)
    if any(value == "not finite" for value in results.values()):
        return {"outcome": "fault", "why": "results that are not finite", "peak": peak}
    if not other:
        return found
    guards = {guard_of(target, name) for name in damage.files}
    told = any(damage.kind in GUARDS[guard] for guard in guards if guard)
    if told:
        return {"outcome": "fault", "why": f"other values without a word: {other[:4]}", "peak": peak}
    return {"outcome": "right", "other": True}


def guard_of(target, name: str) -> str | None:
    """How well a file is guarded: the last pattern that fits."""
    found = [guard for pattern, guard in target.guards.items() if fnmatch.fnmatch(name, pattern)]
    return found[-1] if found else None


class Attack:
    """Sources, undamaged results, and cases by number."""

    def __init__(
        self, targets, seed: int, work: Path, kept: Path, *, sources=SOURCES, memory=MEMORY, hang_s=HANG_S
    ) -> None:
        self.targets, self.seed, self.work, self.kept = targets, seed, work, kept
        self.sources, self.more, self.hang_s = sources, memory, hang_s
        self.expected: dict[str, dict] = {}
        self.memory: dict[str, float] = {}
        self.files: dict[str, list[str]] = {}

    def make(self, first: int = 0, count: int = 10**9) -> None:
        """Write sources and donors of these cases, and read each undamaged one twice; what differs is no result."""
        targets = self._asked(first, count)
        for name in sorted({target.source for target in targets}):
            for number in range(2):
                folder = self.work / "sources" / f"{name}_{number}"
                folder.mkdir(parents=True)
                alone(partial(self.sources[name], folder, number), folder, f"source {name}")
        for target in targets:
            runs = []
            for number in range(2):
                folder = self._copy(target, self.work / f"undamaged{number}")
                runs.append(alone(partial(attempt, target), folder, target.name))
                shutil.rmtree(folder)
            first, second = (run["results"] for run in runs)
            self.expected[target.name] = {
                key: value if value == second.get(key) else None for key, value in (first | second).items()
            }
            self.memory[target.name] = max(run["peak"] for run in runs) + self.more
            folder = self.work / "sources" / f"{target.source}_0"
            names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
            self.files[target.name] = [name for name in names if guard_of(target, name)]

    def _asked(self, first: int, count: int) -> list:
        """Targets of these cases."""
        names: set[str] = set()
        for number in range(first, first + count):
            names.add(self._drawn(number)[0].name)
            if len(names) == len(self.targets):
                break
        return [target for target in self.targets if target.name in names]

    def _drawn(self, number: int) -> tuple:
        """Target of a case, and what draws its damage."""
        rng = np.random.default_rng([self.seed, number])
        weights = np.array([target.weight for target in self.targets])
        return self.targets[rng.choice(len(self.targets), p=weights / weights.sum())], rng

    def _copy(self, target, folder: Path) -> Path:
        return shutil.copytree(self.work / "sources" / f"{target.source}_0", folder, symlinks=True)

    def start(self, number: int) -> tuple[Child, object]:
        """Fork a case."""
        target, rng = self._drawn(number)
        folder = self._copy(target, self.work / f"case{number}")
        donor = self.work / "sources" / f"{target.source}_1"

        def work() -> dict:
            damage = bite(Path(), self.files[target.name], donor, rng)
            folder.with_name(folder.name + ".damage").write_text(json.dumps(damage))
            return attempt(target, damage)

        return Child(work, folder, self.memory[target.name], self.hang_s), target

    def finish(self, number: int, child: Child, target) -> dict:
        """Judge a case that ended, and keep the input of a fault."""
        record = child.folder.with_name(child.folder.name + ".damage")
        damage = Damage("damaging failed", "missing", ["-"])
        if record.exists():
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
            print(
                f"fault {self.seed}-{number}: {target.name} | {damage.files[0]} | {damage.way} | {found['why']}",
                flush=True,
            )
        self._clear(child)
        return found

    def _clear(self, child: Child) -> None:
        """Remove what a case leaves."""
        for path in (child.folder, child.folder.with_name(child.folder.name + ".cache")):
            shutil.rmtree(path, ignore_errors=True)
        child.folder.with_name(child.folder.name + ".damage").unlink(missing_ok=True)

    def run(self, first: int, count: int, until: float, workers: int) -> Counter:
        """Go through the cases, several at a time."""
        counts: Counter = Counter()
        active: dict[int, tuple] = {}
        again: set[int] = set()
        number = first
        while active or (number < first + count and time.monotonic() < until):
            while len(active) < workers and number < first + count and time.monotonic() < until:
                active[number] = self.start(number)
                number += 1
            for key, (child, target) in list(active.items()):
                if child.ended():
                    if (child.fault or "").startswith("hung") and key not in again:  # a fork may wait for a lost lock
                        again.add(key)
                        self._clear(child)
                        active[key] = self.start(key)
                        continue
                    found = self.finish(key, child, target)
                    counts.update(["inputs", found["outcome"], *(["other"] if found.get("other") else [])])
                    del active[key]
            time.sleep(0.002)
        counts["next"] = number
        return counts
