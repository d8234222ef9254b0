"""Docstrings of this package for mkdocstrings: types in the style of Hugging Face, and links between names.

An entry such as ``x (`torch.Tensor` of shape `(n,)`, *optional*): ...`` may run over several lines. The parser wants
its name and type on one, without marks. ``[`NeuralGallery`]`` becomes a link where the site has that name, else code.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import griffe

PAGES = Path(__file__).resolve().parents[1] / "docs" / "api"
ENTRY = re.compile(r"^( {4})(\*{0,2}\w[\w, *]*?) \((.+?)\):(?=\s)", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^(Returns|Yields|Raises):\n((?: {4}.*\n?|\n)+)", re.MULTILINE)
RETURNED = re.compile(r"^ {4}(\S.*?):(?=\s)", re.DOTALL)
REFERENCE = re.compile(r"\[`~?([\w.]+)(\(\))?`\](?![\[(])")


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Take one docstring."""
        if obj.docstring:
            obj.docstring.value = plain(obj.docstring.value)


def plain(text: str) -> str:
    """A docstring as the parser and Markdown want it."""
    text = ENTRY.sub(lambda match: f"{match[1]}{match[2]} ({_type(match[3])}):", text)
    text = SECTION.sub(_returned, text)
    return REFERENCE.sub(lambda match: _link(match[1], match[2] or ""), text)


def _returned(section: re.Match) -> str:
    """A section `Returns:` with its type on one line."""
    if section[1] == "Raises":
        return section[0]
    return f"{section[1]}:\n" + RETURNED.sub(lambda match: f"    {_type(match[1])}:", section[2], count=1)


def _type(words: str) -> str:
    """A type in words, without marks."""
    return " ".join(re.sub(r"\[`~?([\w.]+)`\]|`|\*(?=optional)|(?<=optional)\*", r"\1", words).split())


def _link(name: str, call: str) -> str:
    first, *rest = name.split(".")
    shown = f"`{name}{call}`"
    return f"[{shown}][{'.'.join([documented()[first], *rest])}]" if first in documented() else shown


@cache
def documented() -> dict[str, str]:
    """Last part of each name that the pages document, and where it is defined."""
    names = [name for page in PAGES.glob("*.md") for name in re.findall(r"^::: (\S+)", page.read_text("utf-8"), re.M)]
    return {name.rpartition(".")[2]: name for name in names}
