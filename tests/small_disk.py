"""Programs on a disk that is small, or read-only: a file system in memory, in a name space of its own."""

import shutil
import subprocess
import sys

import pytest

_MOUNT = 'mount -t tmpfs -o "size=$1" none "$2" && shift 2 && exec "$@"'


def run_on_small_disk(folder, size, program, *words):
    """Run a Python program while `folder` is a disk of `size` bytes; skips where the machine does not allow it."""
    apart = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNT, "sh"]
    try:
        allowed = subprocess.run([*apart, "64k", str(folder), "true"], capture_output=True).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        pytest.skip("no file system can be mounted here")
    command = [*apart, str(size), str(folder), sys.executable, "-c", program, str(folder), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)
