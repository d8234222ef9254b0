"""Markdown pages of the repository: links, images, anchors and the paths of our modules lead somewhere."""

import re
import subprocess
from urllib.parse import unquote

import pytest

from paths import REPOSITORY

CODE_BLOCK = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$", re.DOTALL | re.MULTILINE)
CODE_SPAN = re.compile(r"(?<!`)`[^`]+`(?!`)")
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)  # https:, mailto:
# A path that begins at the repository, alone or as a command. A command beside its commit speaks of that commit.
FOLDERS = "src|tests|studies|scripts|benchmarks|configs|dataset_scripts|docs|metrics|model_cards"
OUR_PATH = re.compile(rf"`(?:python )?((?:{FOLDERS})/[\w./-]+\.(?:py|md|yaml|json))`(?! at commit)")
# A path that begins at the package, such as `training/run.py`
IN_PACKAGE = re.compile(r"`((?:[a-z_]+/)+[a-z_]+\.py)`")


def pages():
    """Tracked pages; the files of a checkout without git."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    names = listed.stdout.split() or [str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("docs/**/*.md")]
    return sorted(name for name in names if (REPOSITORY / name).is_file())


def anchors(path):
    """Names under which a browser finds the headings of a page, as GitHub makes them."""
    found = []
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", CODE_BLOCK.sub("", path.read_text("utf-8")), re.MULTILINE):
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.append(f"{name}-{found.count(name)}" if name in found else name)
    return set(found)


def faults(page, repository):
    """What a page points to and is not there, one line each."""
    text = CODE_BLOCK.sub("", page.read_text("utf-8"))
    lines = []
    for target in LINK.findall(CODE_SPAN.sub("", text)):
        if ELSEWHERE.match(target):
            continue
        name, _, anchor = unquote(target).partition("#")
        path = page.parent / name if name else page
        if not path.exists():
            lines.append(f"{target}: no such file")
        elif repository.resolve() not in path.resolve().parents:
            lines.append(f"{target}: outside the repository")
        elif anchor and (path.suffix != ".md" or anchor not in anchors(path)):
            lines.append(f"{target}: no such heading")
    lines += [f"`{path}`: no such file" for path in OUR_PATH.findall(text) if not (repository / path).is_file()]
    package = repository / "src" / "neural_clip"
    for path in IN_PACKAGE.findall(text):
        if not any((place / path).is_file() for place in (repository, package)):
            lines.append(f"`{path}`: no such module")
    return lines


def test_the_pages_are_found():
    assert {"README.md", "CONTRIBUTING.md", "docs/evaluation.md", "docs/studies/results.md"} <= set(pages())


@pytest.mark.parametrize("name", pages())
def test_every_link_leads_somewhere(name):
    assert faults(REPOSITORY / name, REPOSITORY) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[a](b.md)", "b.md: no such file"),
        ("![a](images/b.png)", "images/b.png: no such file"),
        ("[a](other.md#no-heading)", "other.md#no-heading: no such heading"),
        ("[a](#nowhere)", "#nowhere: no such heading"),
        ("[a](../../etc)", "../../etc: no such file"),
        ("[a](../outside.md)", "../outside.md: outside the repository"),
        ("see `src/neural_clip/gone.py`", "`src/neural_clip/gone.py`: no such file"),
        ("see `studies/gone.py` and `training/gone.py`", "`studies/gone.py`: no such file"),
        ("see `training/gone.py`", "`training/gone.py`: no such module"),
        ("run `python studies/gone.py`", "`studies/gone.py`: no such file"),
    ],
)
def test_what_leads_nowhere_is_named(tmp_path, text, found):
    repository = tmp_path / "repository"
    repository.mkdir()
    (tmp_path / "outside.md").touch()
    (repository / "other.md").write_text("# A heading\n")
    (repository / "page.md").write_text(text)
    assert found in faults(repository / "page.md", repository)


def test_what_is_there_is_no_fault(tmp_path):
    module = tmp_path / "src" / "neural_clip" / "training" / "run.py"
    module.parent.mkdir(parents=True)
    module.touch()
    (tmp_path / "other.md").write_text("```\n# no heading\n```\n# `One` heading, twice\n\n## One heading, twice\n")
    (tmp_path / "page.md").write_text(
        "# Here\n[a](other.md#one-heading-twice) [b](other.md#one-heading-twice-1) [c](#here) [d](https://x.y/z)\n"
        "`[e](gone.md)`\n```\n[f](gone.md)\n```\n`training/run.py` `src/neural_clip/training/run.py` [g](src)\n"
        "Made by `python scripts/gone.py` at commit 1234567.\n"
    )
    assert faults(tmp_path / "page.md", tmp_path) == []
    (tmp_path / "page.md").write_text("[a](other.md#no-heading)")
    assert faults(tmp_path / "page.md", tmp_path) == ["other.md#no-heading: no such heading"]
