"""Memory that there is, for this process and beside it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from neural_clip.files.numbers import is_count

GROUPS, LIMITS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def memory_there() -> int:
    """Bytes of memory of this machine, or what its container or job may have where that is less (Linux)."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    lines: list[str] = []
    with suppress(OSError):
        lines = GROUPS.read_text(encoding="utf-8").splitlines()
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        # one tree for all controllers, or one for each
        root, name = (LIMITS / "memory", "memory.limit_in_bytes") if controllers else (LIMITS, "memory.max")
        within = Path(group.lstrip("/"))
        for folder in (within, *within.parents):  # each holds back those below it
            with suppress(OSError):
                text = (root / folder / name).read_text(encoding="utf-8").strip()
                found += [int(text)] if is_count(text) else []  # or "max"
    return min(found)


def memory_held() -> int:
    """Bytes that this process holds now."""
    pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
