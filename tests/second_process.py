"""Second processes of tests: `python(*words)` does what `python words` does, without the seconds of the imports.

A process that imports torch and transformers needs eight seconds of a core before it does anything. So each process of
pytest keeps one that has imported them, and nothing of ours, and forks it. The fork has a memory, a folder, variables,
arguments, streams and an exit status of its own. Tests start Python itself where that is not enough: for the order in
which libraries are imported, for variables that they read on load, and to stop a process from outside.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

TORCH = ("torch._dynamo", "torch.distributed.tensor", "torch.distributed.fsdp", "torch.export", "numpy", "pandas")
TRANSFORMERS = (*TORCH, "transformers.trainer", "transformers.models.clip.modeling_clip", "datasets", "scipy.signal")


def python(*words, cwd=None, libraries=TRANSFORMERS, timeout=600):
    """Run `python words` in a fork of a process that has imported `libraries`.

    Returns:
        `subprocess.CompletedProcess`: With `stdout` and `stderr` as text.
    """
    words, server = [str(word) for word in words], _server(libraries)
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdout", "stderr")]
        request = {"words": words, "cwd": str(cwd or Path.cwd()), "env": dict(os.environ)}
        print(json.dumps(request | {"streams": [str(path) for path in streams]}), file=server.stdin, flush=True)
        if not select.select([server.stdout], [], [], timeout)[0]:
            os.killpg(server.pid, signal.SIGKILL)
            _server.cache_clear()
            raise subprocess.TimeoutExpired(words, timeout, *(path.read_bytes() for path in streams))
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(words, status, *(path.read_text("utf-8") for path in streams))


@functools.cache
def _server(libraries):
    return subprocess.Popen(
        [sys.executable, __file__, *libraries], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def _request(libraries):
    """Serve requests: the parent ends with its standard input, a fork returns with what it is to do."""
    for name in libraries:
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would copy all of it
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    sys.exit()


def _become(request):
    """Take over folder, variables and streams, then run the program."""
    for number, name in enumerate((os.devnull, *request["streams"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    first, *sys.argv = request["words"]
    if first == "-c":
        code, sys.argv[0], sys.path[0] = sys.argv[0], "-c", ""
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.path[0] = request["cwd"]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv.insert(0, first)
        sys.path[0] = str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


def _end(status):
    """End as Python does, but leave the memory to the system: to take it apart, a fork would copy it first."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    status = 0
    try:
        _become(_request(sys.argv[1:]))
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    _end(status)
