"""Ctrl-C at any moment of a command: one line and code 130, from the first import on."""

import signal
import subprocess
import sys
import time

import pytest

COMMAND = [sys.executable, "-m", "neural_clip", "simulate", "--preset", "tiny", "--output-dir"]


def heard():
    """A background job of a shell does not hear Ctrl-C, nor do its children unless told."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("where", ["errors", "commands.main", "simulation.simulate"])
def test_an_interruption_while_modules_are_imported(tmp_path, where):
    """The module that is imported at that moment sends it."""
    press = (
        "import importlib.abc, os, runpy, signal, sys, time\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        " def find_spec(self, name, path, target=None):\n"
        f"  if name == 'neural_clip.{where}':\n"
        "   sys.meta_path.remove(self); os.kill(os.getpid(), signal.SIGINT); time.sleep(20)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "runpy.run_module('neural_clip', run_name='__main__', alter_sys=True)\n"
    )
    words = ["simulate", "--preset", "tiny", "--output-dir", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", press, *words], capture_output=True, text=True, preexec_fn=heard, timeout=120
    )
    assert done.returncode == 130 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("interrupted"), done.stderr


def test_an_interruption_of_the_work_says_how_to_go_on(tmp_path):
    running = subprocess.Popen([*COMMAND, str(tmp_path / "out")], stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    first = running.stderr.readline()
    assert "simulating" in first
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=120)[1]
    assert running.returncode == 130 and "Traceback" not in said
    assert said.splitlines()[-1] == "interrupted. Give the same command again; what is whole is kept."


def test_an_ignored_interruption_stays_ignored(tmp_path):
    """As of a background job."""
    program = "import neural_clip.__main__ as m, signal, sys; sys.argv[1:] = ['--version']; m.main(); "
    program += "print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "True"
