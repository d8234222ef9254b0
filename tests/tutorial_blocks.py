"""Code blocks of Markdown pages, and what it takes to run them as a reader would, one after the other."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from second_process import python

BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"\n]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks_of(page):
    """Language, file name and text of each block."""
    return [match.groups() for match in BLOCK.finditer(Path(page).read_text("utf-8"))]


def run_block(language, name, text, folder):
    """Run code or write a file; returns what was printed."""
    if language == "yaml":
        Path(folder, name).write_text(text, encoding="utf-8")
        return ""
    if language == "python":
        return _checked(text, python("-c", text, cwd=folder))
    lines = text.replace("\\\n", " ").splitlines()
    return "".join(_checked(line, _run(shlex.split(line, comments=True), folder)) for line in lines)


def _run(words, folder):
    if words[0] == "neural-clip":
        return python("-m", "neural_clip", *words[1:], cwd=folder)
    program = Path(sys.executable).with_name(words[0])
    return subprocess.run([program, *words[1:]], cwd=folder, env=os.environ, capture_output=True, text=True)


def _checked(what, done):
    assert done.returncode == 0, f"{what}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
