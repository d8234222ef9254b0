"""Pages of the site that lie outside docs/: README.md, its start, and whatever else of the repository a page links to.

mkdocs calls the functions below (`hooks` in mkdocs.yml). Pages link to files of the repository by relative paths,
which work where the repository is viewed. On the site such a file is a page of its own: text as it is, code and
settings as a code block, a notebook with its outputs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]
START = "README.md"
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")  # to a file: neither an address nor a heading of the same page
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
NAMED = re.compile(r"\[[\w./]+\.md\](?=\(([^)\s#:]+\.md)[)#])")  # a link whose words are the name of a page's file
UNSEARCHED = "---\nsearch: {exclude: true}\n---\n"
FENCE = "`" * 6  # longer than those within a file


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/ and a page for each notebook."""
    waiting = [START, *(f"docs/{file.src_uri}" for file in files if file.src_uri.endswith((".md", ".ipynb")))]
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        if place_of(name) != name.removeprefix("docs/"):
            files.append(File.generated(config, place_of(name), content=_page(name)))
        if name.endswith(".md"):
            linked = set(_linked(name, _text(name))) - seen
            seen |= linked
            waiting += sorted(path for path in linked if not _is_asset(path))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Have links lead to where the files that they name are on the site, and call a page by its title."""
    name = _name_of(page.file.src_uri)
    here = PurePosixPath(place_of(name)).parent

    def moved(match: re.Match) -> str:
        target = _target(name, match[1])
        return os.path.relpath(place_of(target), here) if target and not (REPOSITORY / target).is_dir() else match[1]

    def titled(match: re.Match) -> str:
        target = _target(name, match[1])
        return f"[{TITLE.search(_text(target))[1]}]" if target else match[0]  # type: ignore[index]

    return LINK.sub(moved, NAMED.sub(titled, markdown))


def place_of(name: str) -> str:
    """Source of a file's page on the site, by its path in the repository."""
    if name == START:
        return "index.md"
    if name.startswith("docs/"):
        return re.sub(r"\.ipynb$", ".md", name.removeprefix("docs/"))
    folder = name.removesuffix("/README.md")  # a README would become the page of a section of the navigation
    return f"repository/{name}" if name.endswith(".md") and folder == name else f"repository/{folder}.md"


@cache
def _text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def _name_of(place: str) -> str:
    """Path in the repository of what stands in a place."""
    if place == "index.md":
        return START
    if not place.startswith("repository/"):
        return f"docs/{place}"
    name = place.removeprefix("repository/")
    names = (name, name.removesuffix(".md"), f"{name.removesuffix('.md')}/README.md")
    return next(each for each in names if (REPOSITORY / each).is_file())


def _is_asset(name: str) -> bool:
    """Whether a file is copied as it is, such as a picture."""
    return name.startswith("docs/") and not name.endswith((".md", ".ipynb"))


def _target(name: str, link: str) -> str | None:
    """Path in the repository of what a page links to."""
    target = os.path.normpath(PurePosixPath(name).parent / link)
    return target if (REPOSITORY / target).exists() else None


def _linked(name: str, text: str) -> Iterator[str]:
    """Files that a page links to."""
    targets = (_target(name, link) for link in LINK.findall(text))
    return (target for target in targets if target and (REPOSITORY / target).is_file())


def _page(name: str) -> str:
    """Text of a file's page."""
    if name.endswith(".ipynb"):
        download = f'<a href="{Path(name).name}" download>Download this notebook</a>'
        return "\n\n".join([*_cells(json.loads(_text(name))), download])
    if name.endswith(".md"):
        text = _text(name)
        return text if name == START or text.startswith("---\n") else UNSEARCHED + text
    language = {".py": "python", ".yaml": "yaml"}.get(Path(name).suffix, "text")
    return f"{UNSEARCHED}# {name}\n\n{FENCE}{language}\n{_text(name)}{FENCE}\n"


def _cells(notebook: dict) -> Iterator[str]:
    """Text, code and outputs of a notebook, one after the other."""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                yield f"![Output of the code above](data:image/png;base64,{''.join(data['image/png']).strip()})"
            else:
                yield f"```text\n{''.join(data['text/plain']).rstrip()}\n```"
