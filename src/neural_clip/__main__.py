"""`neural-clip`, and `python -m neural_clip` where no console script is installed."""

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import Any

INTERRUPTED = 130  # exit code, as shells say it of a program that Ctrl-C ended


def main() -> None:
    """Run the command line. Ctrl-C while its modules are still imported is one line and code 130, too."""
    ended_by: list[object] = []
    atexit.register(lambda: _end() if INTERRUPTED in ended_by else None)  # the first that is registered runs last
    unheard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if unheard:
        signal.signal(signal.SIGINT, _leave)
    from neural_clip.commands.main import entry

    if unheard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        entry()
    except SystemExit as stop:
        ended_by.append(stop.code)
        raise


def _leave(*_: Any) -> None:
    os.write(2, b"interrupted before anything was done\n")
    os._exit(INTERRUPTED)


def _end() -> None:
    """End at once after Ctrl-C: Python would send itself the signal again where C code had seen it, or abort where a
    thread was printing.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
