"""Steps that are announced, run one after the other, and left out where what they make is there."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A step of several.

    Args:
        name (`str`): What it does.
        do (`Callable`): Does it.
        is_whole (`Callable`, *optional*): Whether what it makes is there, of what stands there now; by default it
            never is.
    """

    name: str
    do: Callable[[], object]
    is_whole: Callable[[], bool] = lambda: False


def run_steps(steps: Sequence[Step], again: str) -> None:
    """Run what is to be done, and say so on stderr.

    Args:
        steps (sequence of [`Step`]): In this order; a step is looked at when those before it are done.
        again (`str`): How to go on where a step stops, a sentence.
    """
    started = time.monotonic()
    for number, step in enumerate(steps, 1):
        place = f"step {number} of {len(steps)}: {step.name}"
        try:
            is_whole = step.is_whole()
            done = " (done before)" if is_whole else ""
            print(f"[{time.monotonic() - started:5.0f} s] {place}{done}", file=sys.stderr, flush=True)
            if not is_whole:
                step.do()
        except BaseException:
            print(f"stopped in {place}. {again}", file=sys.stderr)
            raise
