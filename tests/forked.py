"""What an action costs: it is run in a child process, whose memory and time are measured."""

import os
import pickle
import resource
import signal
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """How an action ended: with what error, after how many seconds, with how many MB more than before."""

    error: Exception | None
    seconds: float
    megabytes: float


def run_forked(action, *args, seconds=20):
    """Run `action(*args)` in a child; one that does not end in time, or ends the interpreter, is no outcome."""
    reader, writer = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        signal.alarm(seconds)
        before, error = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, None
        try:
            action(*args)
        except Exception as caught:  # handed over
            error = caught
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            content = pickle.dumps((error, (after - before) / 1024))
        except Exception:  # an error that cannot be pickled
            content = pickle.dumps((RuntimeError(repr(error)), (after - before) / 1024))
        os.write(writer, content)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0 and content, f"the child ended with status {status} after {time.monotonic() - started:.1f} s"
    error, megabytes = pickle.loads(content)
    return Outcome(error, time.monotonic() - started, megabytes)
