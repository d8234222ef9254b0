"""Names of subjects, concepts, corpora and files in text of other languages, where they mean nothing but themselves.

Ordinary names stay as they are: `things_meg`, `sub-01`, `alarm clock`.
"""

from __future__ import annotations

import json
import re
from typing import Any

# Line ends, and characters that move a cursor, change the direction of text or are not seen. Joiners (200c, 200d)
# stay: letters of several scripts and emoji change by them.
_CONTROLS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    r"\U000e0000-\U000e007f]+"
)
# what means something else in Markdown (CommonMark, and tables, lists of tasks and formulas as the Hub shows them)
_SPECIAL = re.compile(
    r"""[\\`*|~$]
    | (?<![^\W_])_ | _(?![^\W_])  # emphasis; within a word an underscore is itself
    | <(?=[A-Za-z/!?])            # HTML and addresses
    | &(?=\#|\w+;)                # a character by its name
    | \](?=[(\[:]) | \A\[(?=.\])  # links, pictures, definitions, tasks
    | \A\# | (?<=\s)\#+\Z         # a heading, or its end
    | \A[>+=-] | \A\d{1,9}[.)](?=\s|\Z)  # quotations, lists, lines
    """,
    re.VERBOSE,
)

_SPECIAL_IN_BRACKETS = re.compile(rf"{_SPECIAL.pattern} | [\[\]]", re.VERBOSE)


def one_line(text: object) -> str:
    """Text without line ends and control characters; these and other white space become single spaces."""
    return " ".join(_CONTROLS.sub(" ", str(text)).split())


def markdown(text: object) -> str:
    """Text in a paragraph, heading, list or table of Markdown."""
    return _SPECIAL.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", one_line(text))


def markdown_in_brackets(text: object) -> str:
    """Text between the brackets of a link or picture of Markdown."""
    return _SPECIAL_IN_BRACKETS.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", one_line(text))


def markdown_values(value: Any) -> Any:
    """A value of JSON with every text and key as [`markdown`] gives it."""
    if isinstance(value, dict):
        return {markdown_values(name): markdown_values(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [markdown_values(item) for item in value]
    return markdown(value) if isinstance(value, str) else value


def code(text: object) -> str:
    """Text as inline code of Markdown, which does not end before it does."""
    line = one_line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def code_block(text: object) -> str:
    """Text as a block of code of Markdown."""
    lines = [one_line(line) for line in str(text).splitlines()]
    fence = "`" * max([3, *(1 + len(run) for line in lines for run in re.findall("`+", line))])
    return "\n".join([fence, *lines, fence])


def python_text(text: object) -> str:
    """Text as Python writes it, on one line."""
    return json.dumps(str(text), ensure_ascii=False) if str(text).isprintable() else ascii(str(text))


def cell(text: object) -> object:
    """A cell of CSV: text that a spreadsheet would compute gets an apostrophe before it; numbers stay.

    Text is computed if it begins with `=`, `+`, `-`, `@`, a tab or a line end (OWASP, "CSV injection"). Line ends
    become those of Unix, since `csv.writer` leaves others without quotation marks.
    """
    if not isinstance(text, str):
        return text
    text = re.sub(r"\r\n?", "\n", text)
    return f"'{text}" if text.startswith(tuple("=+-@\t\n")) else text
