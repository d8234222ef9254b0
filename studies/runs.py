"""Runs of commands that are kept: what decides a run, and what is done only where that has changed."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import neural_clip
from neural_clip.errors import DataError
from neural_clip.files.whole import write_whole

PACKAGE = Path(neural_clip.__file__).parent
NEURAL_CLIP = Path(sys.executable).parent / "neural-clip"
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
PRINT_MODULES = """import sys, neural_clip.training.run
print(*(m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "neural_clip"), sep="\\n")"""


def digest(value: object) -> str:
    """SHA-256 of something that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def code_of(path: Path) -> str:
    """What a file does: of Python its syntax tree without docstrings and comments, of others the text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


def digest_files(paths: Iterable[Path], folder: Path) -> str:
    """SHA-256 over places of files in a folder and what they do; prose in Python files changes nothing."""
    return digest({path.relative_to(folder).as_posix(): code_of(path) for path in paths})


def training_modules() -> list[Path]:
    """Files of the package that `neural_clip.training.run` imports."""
    done = subprocess.run([sys.executable, "-c", PRINT_MODULES], capture_output=True, text=True, check=True)
    return [Path(line) for line in done.stdout.splitlines()]


@cache
def source_states() -> dict[str, str]:
    """State of the code that trains, and of the whole package."""
    return {
        "training": digest_files(training_modules(), PACKAGE),
        "package": digest_files(PACKAGE.rglob("*.py"), PACKAGE),
    }


def commit() -> str | None:
    """Commit of the repository, marked where tracked files differ from it; nothing outside a repository."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"], capture_output=True, text=True
    )
    return described.stdout.strip() or None


def once(folder: Path, key: str, command: Sequence[object], start: bool = True) -> dict | None:
    """Run a command whose outputs lie in a folder, unless they are there already.

    Returns:
        `dict`: Key, command, commit and seconds of the run; `None` where it is not finished and may not start.

    Raises:
        DataError: If the command fails; its output stands in `log.txt`.
    """
    record_file = folder / "run.json"
    if record_file.is_file():
        record = json.loads(record_file.read_text(encoding="utf-8"))
        if record["key"] == key:
            print(f"{time.strftime('%H:%M:%S')} kept     {folder}", flush=True)
            return record
    if not start:
        return None
    log_file, aside = folder / "log.txt", folder.with_name(folder.name + ".log")
    for path in (record_file, log_file):  # from here on the folder is not what they say
        path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    print(f"{time.strftime('%H:%M:%S')} started  {folder} (output in {aside})", flush=True)
    started, state = time.monotonic(), commit()
    with aside.open("w", encoding="utf-8") as log:  # commands write into empty folders and their own alone
        process = subprocess.Popen(
            words, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    folder.mkdir(exist_ok=True)
    os.replace(aside, log_file)
    shown = shlex.join([Path(words[0]).name, *words[1:]])
    if process.returncode != 0:
        raise DataError(f"'{shown}' failed; its output stands in '{log_file}'.")
    seconds = time.monotonic() - started
    record = {"key": key, "command": shown, "commit": state, "seconds": round(seconds, 1)}
    record["cpu_seconds"] = round(usage.ru_utime + usage.ru_stime, 1)
    write_whole(record_file, json.dumps(record, indent=2) + "\n")
    print(f"{time.strftime('%H:%M:%S')} finished {folder} in {seconds:.0f} s", flush=True)
    return record
