"""How every command says where its output lies, and how it prints a command that can be pasted."""

from __future__ import annotations

import shlex
from pathlib import Path


def place_line(kind: str, place: str | Path) -> str:
    """`checkpoint: outputs/base`, as commands end: what lies where, a line each."""
    return f"{kind + ':':<12}{place}"


def command_line(*words: object) -> str:
    """`neural-clip embed-images 'my set'` in backticks: words as a shell reads them."""
    return f"`{shlex.join(map(str, words))}`"
