"""Change one place of a module at a time and see whether a test that runs this place fails.

    make mutation MUTATION_SECONDS=1800
    python scripts/mutation.py --seconds 1800 --seed 0 losses splits

Works on a copy of the repository. First the fast tests of each group run there, and coverage keeps which of them ran
which line. Then a session of pytest that has collected them is forked once a change: the fork exchanges the code of
the function (and the file, for processes that tests start) and runs the tests of the line until one fails, which must
pass where nothing is changed. A change outside functions is tried by a session of its own. Changes are drawn with the
seed, the same number from each group. What survived is printed as it is found and stays in `mutants.json` of the
output folder; at the end stand killed and total of each group.

No tool that exists fits. mutmut wraps every function, so that tests that read signatures or compare the code that
travels with weights fail; cosmic-ray starts Python anew for each change, which takes longer than the tests.
"""

from __future__ import annotations

import argparse
import ast
import collections
import gc
import hashlib
import importlib
import itertools
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
import traceback
import types
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "src/neural_clip"
# by group: what is changed, and the tests that are there for it
GROUPS = {
    "losses": (["losses.py"], ["test_losses.py"]),
    "retrieval": (["retrieval"], ["retrieval"]),
    "splits": (
        ["corpora/custom/splits.py", "training/splits.py", "prepared/splits.py"],
        ["corpora/custom/test_splits.py", "training/test_splits.py", "prepared/test_splits.py"],
    ),
    "alignment": (
        ["modeling_subject_layers.py", "modeling_sensors.py"],
        ["test_modeling_subject_layers.py", "test_modeling_subject_branch.py", "test_modeling_neural_clip.py"],
    ),
    "prepared": (["prepared"], ["prepared", "test_format_1.py", "test_target_space.py", "targets/test_identity.py"]),
}
LARGE = ["torch", "transformers", "datasets", "pandas", "scipy.signal", "sklearn", "hypothesis", "PIL.Image"]
PLAIN = ["-q", "-m", "not slow", "-p", "no:cacheprovider"]
MOST_SECONDS = 90  # of tests for one change, by what they took; the tests of the module itself come first
UNABLE = 70  # exit status of a fork that could not do its work
MOMENTS = itertools.count(int(time.time()) + 1)  # no two changes of a file have one
OPPOSITE: dict[type, list[type]] = {
    ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.LtE], ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is], ast.In: [ast.NotIn],
    ast.NotIn: [ast.In], ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Div], ast.Mod: [ast.Mult], ast.Pow: [ast.Mult], ast.BitOr: [ast.BitAnd],
    ast.BitAnd: [ast.BitOr], ast.And: [ast.Or], ast.Or: [ast.And],
}  # fmt: skip


class Mutant(NamedTuple):
    """A file, the lines that are changed, and what stands there instead."""

    path: str
    first: int
    last: int
    inside: bool  # a function, whose code can be exchanged
    before: str
    after: str
    source: str


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """What a node is replaced by, one at a time. Texts, messages and annotations stay."""
    match node:
        case ast.Compare(ops=[operator]):
            yield from (ast.Compare(node.left, [new()], node.comparators) for new in OPPOSITE[type(operator)])
        case ast.BinOp(op=operator) if type(operator) in OPPOSITE and not fails_anyway(node):
            yield from (ast.BinOp(node.left, new(), node.right) for new in OPPOSITE[type(operator)])
        case ast.BoolOp(values=values):
            yield ast.BoolOp(OPPOSITE[type(node.op)][0](), values)
            yield from (ast.BoolOp(node.op, values[:i] + values[i + 1 :]) for i in range(len(values)))
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.Return(value=value) if value is not None and not is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Expr(value=ast.Call()) | ast.AugAssign():
            yield ast.Pass()
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()


def is_none(node: ast.AST) -> bool:
    """Whether a node is the constant `None`."""
    return isinstance(node, ast.Constant) and node.value is None


def fails_anyway(node: ast.BinOp) -> bool:
    """Whether the other operator is an error that any test shows: of texts, lists, paths and types in `isinstance`."""
    for operand in (node.left, node.right):
        if isinstance(operand, ast.JoinedStr | ast.List | ast.Tuple | ast.Dict | ast.Set | ast.DictComp):
            return True
        if isinstance(operand, ast.Constant) and isinstance(operand.value, str | None):
            return True
    if isinstance(node.op, ast.BitOr | ast.BitAnd):
        return not any(isinstance(part, ast.Compare) for part in (node.left, node.right))
    return isinstance(node.op, ast.Div) and "folder" in ast.unparse(node.left)


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but annotations, decorators, messages and what `if TYPE_CHECKING` holds."""
    yield tree
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "type_params") or isinstance(value, ast.JoinedStr):
            continue
        if isinstance(tree, ast.Raise) or (isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING"):
            continue
        if isinstance(tree, ast.keyword) and tree.arg == "strict":  # of `zip`: lengths that no input makes differ
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield from nodes(child)


def mutants_of(path: str, source: str) -> Iterator[Mutant]:
    """Every change of a file; the rest of its text stays as it is."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    tree = ast.parse(source)
    bodies = [(f.body[0].lineno, f.end_lineno or 0) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]
    conditions = {node.test for node in ast.walk(tree) if isinstance(node, ast.If | ast.IfExp)}
    for node in nodes(tree):
        new_ones = list(replacements(node))
        if node in conditions and isinstance(node, ast.Name | ast.Call | ast.Attribute):
            new_ones.append(ast.UnaryOp(ast.Not(), node))
        for new in new_ones:
            assert isinstance(node, ast.expr | ast.stmt) and node.end_lineno and node.end_col_offset is not None
            begin, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
            before = source.encode()[begin:end].decode()
            text = ast.unparse(ast.fix_missing_locations(new)) + "\n" * before.count(
                "\n"
            )  # what follows keeps its line
            text = text if isinstance(new, ast.stmt) else f"({text})"
            changed = source.encode()[:begin] + text.encode() + source.encode()[end:]
            first = source.encode()[:begin].count(b"\n") + 1
            inside = any(begins <= node.lineno <= ends for begins, ends in bodies)
            yield Mutant(path, first, first + before.count("\n"), inside, before, text, changed.decode())


def copied(tree: Path) -> Path:
    """Copy what git knows of, and what it does not ignore, into an empty folder."""
    shutil.rmtree(tree, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=REPOSITORY, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, tree / name, follow_symlinks=False)
    return tree


def in_fork(work: Callable[[], int], log: Path, seconds: float) -> int | None:
    """Exit status of some work in a fork of this process, `None` where it took longer."""
    if (child := os.fork()) == 0:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1), os.dup2(output, 2)
        try:
            os._exit(work())
        except BaseException:
            traceback.print_exc()
            os._exit(UNABLE)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


class Covered:
    """Which fast tests ran which lines, and how long each took; measured once for one state of the files."""

    def __init__(self, tree: Path, output: Path, tests: list[str]) -> None:
        files = sorted(path for name in ("src", "tests") for path in (tree / name).rglob("*.py"))
        state = hashlib.sha256(repr([tests, *(path.read_bytes() for path in files)]).encode()).hexdigest()[:12]
        junit, data = output / f"tests-{state}.xml", output / f"coverage-{state}"
        if not junit.is_file():
            words = [*tests, f"--junitxml={output / 'unfinished.xml'}", "--cov=neural_clip"]
            os.environ["COVERAGE_FILE"] = str(data)
            words += ["--cov-context=test", "--cov-report="]
            if (status := in_fork(lambda: pytest.main([*words, *PLAIN]), output / "log", 3600)) not in (0, 1):
                sys.exit(f"error: the tests end with {status} without any change; see '{output / 'log'}'.")
            (output / "unfinished.xml").rename(junit)
        self.seconds = {}
        for case in ET.parse(junit).getroot().iter("testcase"):
            name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
            if case.find("failure") is None and case.find("error") is None:
                self.seconds[name] = float(case.get("time", 0))
            else:
                print(f"left out, since it fails without any change: {name}", flush=True)
        self.data = importlib.import_module("coverage").CoverageData(str(data))
        self.data.read()

    def tests_of(self, mutant: Mutant, tree: Path) -> tuple[list[str], bool]:
        """Tests that ran these lines, the nearest first, and whether they are known.

        Of a line that is only imported these are all of the file; of a line that no test is known to run, as in the
        metric, of which a copy is loaded, those of the module.
        """
        lines = self.data.contexts_by_lineno(str(tree / mutant.path))
        found = {name for line in range(mutant.first, mutant.last + 1) for name in lines.get(line, [])}
        if found == {""}:
            found = {name for names in lines.values() for name in names}
        tests = {name.rsplit("|", 1)[0] for name in found} & self.seconds.keys()
        own, known = f"/test_{Path(mutant.path).stem}.py::", bool(tests)
        tests = tests or {test for test in self.seconds if own in test}
        kept: list[str] = []
        total = 0.0
        for test in sorted(tests, key=lambda test: (own not in test, self.seconds[test])):
            total += self.seconds[test]
            if total < MOST_SECONDS or not kept:
                kept.append(test)
        return kept, known


def exchange_code(path: Path, source: str) -> bool:
    """Give each function that was loaded from a file the code of a source; whether that reached what has changed."""
    codes, found = [compile(source, str(path), "exec", dont_inherit=True)], {}
    for code in codes:
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
        found[code.co_qualname, code.co_firstlineno] = code
    loaded = [f for f in gc.get_objects() if type(f) is types.FunctionType and f.__code__.co_filename == str(path)]
    changed = False
    for function in loaded:
        old = function.__code__
        with suppress(ValueError):  # where it needs fewer variables from around it, it is not reached
            function.__code__ = found.get((old.co_qualname, old.co_firstlineno), old)
            changed |= function.__code__ != old
    return changed or not loaded  # what is loaded later reads the file


class Trials:
    """A plugin of pytest that tries changes in place of running what was collected."""

    def __init__(self, covered: Covered, tree: Path, output: Path, mutants: Iterator, seconds: float) -> None:
        self.covered, self.tree, self.output, self.mutants = covered, tree, output, mutants
        self.end = time.monotonic() + seconds
        self.results: list[dict] = []
        self.failed, self.sound = output / "failed", {""}

    def pytest_runtestloop(self, session) -> bool:
        """Try changes until the time is up."""
        items = {item.nodeid: item for item in session.items}
        for group, mutant in self.mutants:
            if time.monotonic() > self.end:
                break
            tests, known = self.covered.tests_of(mutant, self.tree)
            mutant = mutant._replace(inside=mutant.inside and known)
            became = self.tried(mutant, [items[test] for test in tests], session) if tests else "not run"
            kept = {name: value for name, value in mutant._asdict().items() if name != "source"}
            self.results.append({"group": group, "became": became, "tests": len(tests)} | kept)
            (self.output / "mutants.json").write_text(json.dumps(self.results, indent=1))
            if became != "killed":
                told = f"{became}: {mutant.path}:{mutant.first}: {mutant.before!r} -> {mutant.after!r}"
                os.write(2, f"{told}\n".encode())
        return True

    def tried(self, mutant: Mutant, items: list, session) -> str:
        """What became of one change."""
        place = self.tree / mutant.path

        def work() -> int:
            if mutant.inside and exchange_code(place, mutant.source):
                return self.run(items, session)
            words = [item.nodeid for item in items]
            return subprocess.run([sys.executable, "-m", "pytest", "-x", *PLAIN, *words], check=False).returncode

        whole, times = place.read_text(), place.stat()
        place.write_text(mutant.source)
        os.utime(place, (next(MOMENTS),) * 2)  # by which Python knows what it compiled
        seconds = sum(self.covered.seconds[item.nodeid] for item in items)
        try:
            status = in_fork(work, self.output / "log", 60 + 10 * seconds)
        finally:
            place.write_text(whole)
            os.utime(place, (times.st_atime, times.st_mtime))
        if status == UNABLE or (status == 4 and "not found:" in (self.output / "log").read_text(errors="replace")):
            sys.exit(f"error: '{mutant.path}' cannot be tried; see '{self.output / 'log'}'.")
        if status == 1 and (name := self.failed.read_text()) not in self.sound:
            if in_fork(lambda: self.run([i for i in items if i.nodeid == name], session), self.output / "log", 900):
                sys.exit(f"error: '{name}' fails without any change; see '{self.output / 'log'}'.")
            self.sound.add(name)
        return "survived" if status == 0 else "killed"

    def run(self, items: list, session) -> int:
        """Run tests until one fails, whose name is kept."""
        self.failed.write_text("")
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                self.failed.write_text(item.nodeid)
                return 1
        return 0


def drawn(mutants: dict[str, list[Mutant]], seed: int) -> Iterator[tuple[str, Mutant]]:
    """Changes in the order of the seed, one of each group in turn."""
    for group, found in mutants.items():
        random.Random(f"{seed} {group}").shuffle(found)
    for number in range(max(map(len, mutants.values()))):
        yield from ((group, found[number]) for group, found in mutants.items() if number < len(found))


def main() -> None:
    """Run for the time that is given, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("groups", nargs="*", default=list(GROUPS), choices=[*GROUPS, []], metavar="group")
    parser.add_argument("--seconds", type=float, default=1800, help="after which no further change is tried")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/mutation"))
    options = parser.parse_args()
    output = options.output_dir.resolve()
    output.mkdir(parents=True, exist_ok=True)
    tree = copied(output / "tree")
    os.environ |= {"PYTHONPATH": str(tree / "src")}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False  # what stays is compiled once
    runpy.run_path(str(tree / "conftest.py"))  # variables that the libraries read on load
    mutants: dict[str, list[Mutant]] = {}
    for group in options.groups:
        places = [tree / PACKAGE / name for name in GROUPS[group][0]]
        files = [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*.py")))]
        names = [str(file.relative_to(tree)) for file in files]
        mutants[group] = [mutant for name in names for mutant in mutants_of(name, (tree / name).read_text())]
    for name in LARGE:
        importlib.import_module(name)
    hypothesis = importlib.import_module("hypothesis").settings
    hypothesis.register_profile("mutation", deadline=None)  # the time that an example takes is nothing to fail by
    hypothesis.load_profile("mutation")
    os.chdir(tree)
    sys.path[:0] = [str(tree / "src"), str(tree)]
    tests = [f"tests/{name}" for group in options.groups for name in GROUPS[group][1]]
    covered = Covered(tree, output, tests)
    trials = Trials(covered, tree, output, drawn(mutants, options.seed), options.seconds)
    pytest.main([*tests, *PLAIN, "--capture=no"], plugins=[trials])
    results = trials.results
    counts = collections.Counter((result["group"], result["became"] == "killed") for result in results)
    for group, found in mutants.items():
        killed, total = counts[group, True], counts[group, True] + counts[group, False]
        print(f"{group}: killed {killed} of {total} ({killed / max(total, 1):.1%}), drawn from {len(found)}")
    print(f"seed {options.seed}: killed {sum(counts[g, True] for g in mutants)} of {len(results)}")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
