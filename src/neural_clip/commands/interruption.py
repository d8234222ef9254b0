"""How commands end that are told to: what is said last after Ctrl-C, and which end with the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PR_SET_PDEATHSIG = 1  # of prctl(2)
NOTHING_CHANGED = "What stood there before is unchanged. Give the same command again."
AFTER_INTERRUPTION = {
    "train": "Give the same command again; where finished parts stay, with `--resume` in place of `--overwrite`.",
    **dict.fromkeys(("simulate", "prepare", "embed-images"), "Give the same command again; what is whole is kept."),
    **dict.fromkeys(
        ("run", "leave-one-person-out", "demo"),
        "Give the same command again, without `--overwrite`; what is whole is kept.",
    ),
    "app": "The page is closed, and what was uploaded is deleted.",
    "push": "Give the same command again; it sends what is still missing.",
}


@contextmanager
def told_how_to_go_on(command: str) -> Iterator[None]:
    """Let the last line after Ctrl-C say what to do next; what is kept of the work was told where it is known."""
    advice = AFTER_INTERRUPTION.get(command, NOTHING_CHANGED)
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(advice) from None
    except Exception as error:
        vars(error)["going_on"] = advice  # told where Ctrl-C was what made this error
        raise


def end_with_parent() -> None:
    """Let this process get SIGTERM when the one that started it has ended; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))


def end_with_launcher() -> None:
    """Do so under `accelerate launch`, which hands no signal on to the one process that it starts."""
    if "ACCELERATE_USE_CPU" in os.environ:
        end_with_parent()
