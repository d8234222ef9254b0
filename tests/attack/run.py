"""Attack the package: damage valid inputs in numbered ways, kill commands that write, and count what goes wrong.

    make attack                                   five minutes
    make attack ATTACK_SECONDS=7200 ATTACK_SEED=3 longer, other cases
    make attack ATTACK_ARGS="--from 2000"         go on where an earlier run of the same seed ended
    make attack ATTACK_ARGS="--from 17 --inputs 1 --kills 0"  repeat a case; only what it reads is made

Case `i` of a seed is the same on every machine. Each is a process of its own, forked from one that imported all, and
must end as an error of our own type that names a file, or as the right result: no traceback from the depths, no dead
interpreter, no hang, not 2 GB more than the undamaged input takes, no other values where something could tell. Inputs
of faults are kept in `runs/attack`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import runpy
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def main(argv=None) -> int:
    """Run the attack; 1 where there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0, help="for inputs (three quarters) and kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", dest="first", type=int, default=0, help="number of the first case")
    parser.add_argument("--from-kill", dest="first_kill", type=int, default=0, help="number of the first kill")
    parser.add_argument("--inputs", type=int, default=10**9, help="most of them")
    parser.add_argument("--kills", type=int, default=10**9, help="most of them")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="", help="targets whose names hold one of these words, separated by commas")
    parser.add_argument("--kept", type=Path, default=REPOSITORY / "runs" / "attack")
    options = parser.parse_args(argv)
    runpy.run_path(str(REPOSITORY / "conftest.py"))  # the surroundings of the tests: no network, caches of their own
    for package in ("datasets", "torch", "transformers"):  # once, before the first fork
        importlib.import_module(package)
    from attack.cases import Attack
    from attack.kills import WRITERS, Kills
    from attack.targets import TARGETS

    chosen = [target for target in TARGETS if any(word in target.name for word in options.only.split(","))]
    writers = [writer for writer in WRITERS if any(word in writer.name for word in options.only.split(","))]
    with tempfile.TemporaryDirectory(prefix="attack_") as work:
        started = time.monotonic()
        attack = Attack(chosen, options.seed, Path(work), options.kept)
        if options.inputs:
            attack.make(options.first, options.inputs)
        print(
            f"seed {options.seed}: {len(attack.expected)} targets are ready after {time.monotonic() - started:.0f} s",
            flush=True,
        )
        began = time.monotonic()
        share = 0.7 if options.kills else 1
        cases = attack.run(options.first, options.inputs, began + options.seconds * share, options.workers)
        kills = Kills(writers, options.seed, Path(work) / "kills", Path(work) / "sources")
        killed = kills.run(options.first_kill, options.kills, began + options.seconds)
    cases_done = f"cases {options.first} to {cases['next'] - 1}, kills {options.first_kill} to {killed['next'] - 1}"
    print(
        f"seed {options.seed}, {cases_done}; {cases['other']} right results are other values that nothing could tell"
    )
    print(
        f"inputs {cases['inputs']}, errors {cases['error']}, right {cases['right']}, faults {cases['fault']}; "
        f"kills {killed['kills']}, lost {killed['lost']}"
    )
    return int(bool(cases["fault"] or killed["lost"]))


if __name__ == "__main__":
    sys.exit(main())
