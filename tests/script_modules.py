"""Programs of `scripts/` as modules, for their tests."""

import importlib
import sys
from types import ModuleType

from paths import REPOSITORY

SCRIPTS = REPOSITORY / "scripts"


def load_script(name: str) -> ModuleType:
    """Import `scripts/<name>.py`, which may import other scripts."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))
