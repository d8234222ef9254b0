"""The report as one HTML page that needs nothing beside it: `report.md` with its pictures inside."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path
from urllib.parse import unquote

from neural_clip.errors import DataError
from neural_clip.files.whole import write_whole

MIME_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; margin-top: 2.5rem; }
h1 { margin-top: 0; }
table { border-collapse: collapse; font-size: 0.85rem; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
th { border-bottom: 2px solid #555; }
tbody tr:hover { background: #f3f6fa; }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
code { font-size: 0.85em; background: #f3f3f3; padding: 0.1em 0.25em; overflow-wrap: anywhere; }
"""


def write_page(path: str | Path) -> Path:
    """Write `report.html` beside a `report.md`.

    Args:
        path (`str` or `Path`): `report.md`; its pictures are looked for from its folder on.

    Returns:
        `Path`: The page, written aside and renamed.

    Raises:
        DataError: If the report or one of its pictures is not there, or a picture is neither PNG nor SVG.
    """
    from markdown_it import MarkdownIt

    path = Path(path)
    if not path.is_file():
        raise DataError(f"'{path}' does not exist; `neural-clip report` writes it.")
    text = path.read_text(encoding="utf-8")
    # raw HTML in names of data sets and concepts stays text
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = re.sub(r'<img src="([^"]*)"', lambda found: f'<img src="{_inside(path.parent, found[1])}"', body)
    title = html.escape(next((line[2:] for line in text.splitlines() if line.startswith("# ")), "Evaluation"))
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n{body}</body>\n</html>\n"
    )
    target = path.with_suffix(".html")
    write_whole(target, page)
    return target


def _inside(folder: Path, name: str) -> str:
    """A picture as a `data:` address."""
    picture = folder / unquote(html.unescape(name))
    mime = MIME_TYPES.get(picture.suffix)
    if mime is None or not picture.is_file() or not picture.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"The report names the picture '{picture}', which is no PNG or SVG file in its own folder.")
    return f"data:{mime};base64,{base64.b64encode(picture.read_bytes()).decode()}"
