"""Keep freed memory for the next step: the system hands out large buffers slowly, a page at a time."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Names and defaults of mallopt(3) of the GNU C library. M_MMAP_MAX is how many buffers may have memory of their own,
# which goes back to the system when they are freed, M_TRIM_THRESHOLD how many free bytes are kept.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEEP_ALL, TAKE_NONE = 2**31 - 1, 0
DEFAULTS = {M_TRIM_THRESHOLD: 128 * 1024, M_MMAP_MAX: 65536}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Have this process use freed memory again while it trains, and return what is free to the system afterwards.

    A step frees activations and gradients, and the next one asks for as many. By default the GNU C library returns
    buffers above 32 MB to the system at once, which clears each page before it hands it out again: a third of the time
    of a step on fMRI (`benchmarks/README.md`). No number that is computed changes. The most memory that a process
    takes stays nearly the same. With another C library nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_MAX, TAKE_NONE)
    library.mallopt(M_TRIM_THRESHOLD, KEEP_ALL)
    try:
        yield
    finally:
        for name, value in DEFAULTS.items():
            library.mallopt(name, value)
        library.malloc_trim(0)
