"""A forked second process does what `python` does with the same words."""

import subprocess
import sys
import time

import pytest

from second_process import python

QUICK = ("json",)  # libraries of the process that is forked
PROGRAM = "import os, sys\nprint(__name__, os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd())\n"
CASES = {
    "words": ["-c", PROGRAM, "a", "--b=c d"],
    "text on both streams": ["-c", "import sys; print('ä'); print('wrong', file=sys.stderr)"],
    "number": ["-c", "raise SystemExit(3)"],
    "message": ["-c", "import sys; sys.exit('told')"],
    "none": ["-c", "import sys; sys.exit()"],
    "error": ["-c", "1 / 0"],
    "called at the end": ["-c", "import atexit; atexit.register(print, 'bye'); print('hello')"],
    "thread": ["-c", "import threading; threading.Thread(target=print, args=('late',)).start()"],
    "killed": ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"],
    "nothing to read": ["-c", "import sys; print(repr(sys.stdin.read()))"],
    "module": ["-m", "shown", "a"],
    "file": ["folder/program.py", "a"],
}


@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_it_does_what_python_does(words, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "shown.py").write_text(PROGRAM)
    (tmp_path / "folder" / "beside.py").write_text("")
    (tmp_path / "folder" / "program.py").write_text("import beside\n" + PROGRAM)
    real = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    found = python(*words, cwd=tmp_path, libraries=QUICK)
    assert (found.returncode, found.stdout) == (real.returncode, real.stdout)
    assert found.stderr.splitlines()[-1:] == real.stderr.splitlines()[-1:]


def test_processes_share_variables_of_the_moment_and_no_memory(monkeypatch):
    monkeypatch.setenv("OF_THIS_MOMENT", "one")
    code = "import json, os; print(os.environ.get('OF_THIS_MOMENT'), hasattr(json, 'mine')); json.mine = 1"
    assert python("-c", code, libraries=QUICK).stdout == "one False\n"
    monkeypatch.delenv("OF_THIS_MOMENT")
    assert python("-c", code, libraries=QUICK).stdout == "None False\n"


def test_only_the_libraries_are_there():
    code = "import sys; print([name in sys.modules for name in ('json', 'numpy', 'neural_clip')])"
    assert python("-c", code, libraries=QUICK).stdout == "[True, False, False]\n"


def test_a_process_that_hangs_is_ended():
    start = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        python("-c", "import time; time.sleep(60)", libraries=QUICK, timeout=1)
    assert time.monotonic() - start < 30
    assert python("-c", "print(1)", libraries=QUICK).stdout == "1\n"
