"""The report as one HTML page that needs nothing beside it: `report.md` with its pictures inside.

What most readers want is open: the summary and the tables of the three tasks. All else is folded, and a list of
contents leads there.
"""

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
section > h2:first-child { margin-top: 1.5rem; }
summary { cursor: pointer; padding: 0.4rem 0; border-top: 1px solid #ddd; }
summary h2 { display: inline; font-size: 1.1rem; }
nav { border-top: 1px solid #ddd; border-bottom: 1px solid #ddd; padding: 0.4rem 0; font-size: 0.9rem; }
nav a { margin-right: 1rem; display: inline-block; }
table { border-collapse: collapse; font-size: 0.85rem; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
th { border-bottom: 2px solid #555; }
tbody tr:hover { background: #f3f6fa; }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
p:has(> img + img) { display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: flex-start; }
p:has(> img + img) img { flex: 0 1 21rem; min-width: 0; }
code { font-size: 0.85em; background: #f3f3f3; padding: 0.1em 0.25em; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  h1 { font-size: 1.5rem; }
  th:first-child, td:first-child { position: sticky; left: 0; background: #fff; border-right: 1px solid #ddd; }
  p:has(> img:only-child) { overflow-x: auto; }
  img:only-child { max-width: none; width: 46rem; }
}
"""
OPEN = ("Summary", "Table 1", "Encoding", "Table 2")  # how the titles of sections start that are not folded


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
    opening, *sections = re.split(r"(?=<h2>)", body)
    folded = [_section(number, text) for number, text in enumerate(sections, 1)]
    if len(sections) > 1:
        folded.insert(1, _contents(sections))
    body = opening + "".join(folded)
    title = html.escape(next((line[2:] for line in text.splitlines() if line.startswith("# ")), "Evaluation"))
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n{body}</body>\n</html>\n"
    )
    target = path.with_suffix(".html")
    write_whole(target, page)
    return target


def _title(section: str) -> str:
    """What stands in the heading of a section, as HTML."""
    return section[len("<h2>") : section.index("</h2>")]


def _section(number: int, text: str) -> str:
    """A section, folded under its heading if it is not one that most readers want."""
    title, rest = _title(text), text[text.index("</h2>") + len("</h2>") :]
    if title.startswith(OPEN):
        return f'<section id="section-{number}">\n<h2>{title}</h2>{rest}</section>\n'
    # browsers unfold what holds the target of a link
    return f'<details>\n<summary><h2>{title}</h2></summary>\n<div id="section-{number}">{rest}</div>\n</details>\n'


def _contents(sections: list[str]) -> str:
    """Links to all sections."""
    links = [f'<a href="#section-{number}">{_title(text)}</a>' for number, text in enumerate(sections, 1)]
    return "<nav>\n" + "\n".join(links) + "\n</nav>\n"


def _inside(folder: Path, name: str) -> str:
    """A picture as a `data:` address."""
    picture = folder / unquote(html.unescape(name))
    mime = MIME_TYPES.get(picture.suffix)
    if mime is None or not picture.is_file() or not picture.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"The report names the picture '{picture}', which is no PNG or SVG file in its own folder.")
    return f"data:{mime};base64,{base64.b64encode(picture.read_bytes()).decode()}"
