"""Surroundings and fixtures shared by all tests."""

import atexit
import collections
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent

# The libraries read these when they are imported, so they are set here, before any test is; subprocesses inherit them.
CACHE = Path(tempfile.mkdtemp(prefix="neural_clip_tests_"))
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
os.environ |= {
    "HF_HOME": str(CACHE / "huggingface"),  # nothing cached by or for the user is read or written
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MNE_DONTWRITE_HOME": "true",
    "MNE_LOGGING_LEVEL": "WARNING",
    "MPLBACKEND": "Agg",
}
for variable in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_TOKEN", "NEURAL_CLIP_TRACEBACK"):
    os.environ.pop(variable, None)
# The models of the tests are small: one thread is as fast as many, and sums do not depend on the machine.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
# Where tests run in the background, the shell has them ignore Ctrl-C, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Run the slow tests last, so that a plain mistake shows within seconds.

    Several processes take a file each: then files with slow tests, and files with many, come first, so that no process
    waits for another at the end.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
        size = collections.Counter(item.path for item in items)
        items.sort(key=lambda item: (-slow[item.path], -size[item.path]))


@pytest.fixture(scope="session")
def real_data():
    """Folder of real recordings named by `NEURAL_CLIP_REAL_DATA`; tests skip, saying so, where it is absent."""
    folder = Path(os.environ.get("NEURAL_CLIP_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder}; set NEURAL_CLIP_REAL_DATA")
    return folder
