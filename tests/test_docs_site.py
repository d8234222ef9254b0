"""The site of the pages: whole, without a warning, and without anything that a browser would fetch elsewhere."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

import neural_clip
import site_docstrings
import site_pages
from paths import REPOSITORY
from second_process import python

# mkdocs where every connection is refused
BUILD = """
import socket, sys
def refuse(*_): raise OSError("no network here")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli(["build", "--strict", "--site-dir", sys.argv[1]])
"""
STYLED = re.compile(r"""(@import\s+|url\()\s*["']?(https?:)?//""")  # in a style
FETCHED = ("src", "srcset", "href", "data", "style")  # attributes with addresses


class Outside(HTMLParser):
    """Addresses that a browser would fetch by itself."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes if tag != "a" else ():
            if name in FETCHED and re.search(r"(^|[\s(,])(https?:)?//", value or ""):
                self.found.append(f"{tag} {name} {value}")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "site"
    done = python("-c", BUILD, folder, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_is_built_without_a_network_and_fetches_nothing_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    assert [(page.name, found) for page in pages for found in Outside(page).found] == []
    styles = sorted(site.rglob("*.css"))
    assert styles and [path.name for path in styles if STYLED.search(path.read_text("utf-8"))] == []
    # what the theme would fetch from unpkg.com, if a page asked for it
    assert not any('class="mermaid"' in page.read_text("utf-8") for page in pages)


@pytest.mark.slow
def test_links_out_of_docs_lead_to_pages_of_the_site(site):
    start = (site / "index.html").read_text("utf-8")
    for name in ("repository/CONTRIBUTING.html", "tutorials/index.html", "repository/LICENSE.html"):
        assert f'href="{name}"' in start and (site / name).is_file()
    evaluation = (site / "evaluation.html").read_text("utf-8")
    assert 'href="repository/src/neural_clip/retrieval/scores.py.html"' in evaluation
    assert "def two_way" in re.sub(
        "<[^>]+>", "", (site / "repository/src/neural_clip/retrieval/scores.py.html").read_text()
    )


@pytest.mark.slow
def test_public_names_are_documented_from_their_docstrings(site):
    text = "".join(page.read_text("utf-8") for page in site.glob("api/*.html"))
    for name in set(neural_clip.__all__) - {"__version__"}:
        assert f'id="{site_docstrings.documented()[name]}"' in text
    assert not re.search(r"\[<code>", text), "a reference that is no link"


def test_outside_addresses_are_noticed(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<a href="https://a.b">a</a><img src="images/a.png"><script src="//c.d/e.js"></script>'
                    '<link href="https://fonts.f/g">')  # fmt: skip
    assert Outside(page).found == ["script src //c.d/e.js", "link href https://fonts.f/g"]
    for style in ('@import "https://a.b/c.css";', "x {src: url(//a.b/c.woff)}", "@import url('https://a.b');"):
        assert STYLED.search(style)
    assert not STYLED.search("x {background: url(\"data:image/svg+xml,<svg xmlns='http://www.w3.org'>\")}")


def test_every_public_name_has_its_entry():
    assert set(neural_clip.__all__) - {"__version__"} <= set(site_docstrings.documented())


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("x (`Tensor` of shape `(n,)`, *optional*): Rows.", "x (Tensor of shape (n,), optional): Rows."),
        ("source ([`Split`], or\n        a list): Of it.", "source (Split, or a list): Of it."),
        ("a, b (`int`): Two.", "a, b (int): Two."),
        ("**more (`Any`): Rest.", "**more (Any): Rest."),
    ],
)  # fmt: skip
def test_types_of_docstrings_stand_on_one_line_without_marks(written, read):
    assert site_docstrings.plain(f"Do.\n\nArgs:\n    {written}\n") == f"Do.\n\nArgs:\n    {read}\n"


def test_names_in_docstrings_become_links_where_the_site_has_them():
    found = site_docstrings.plain("See [`~NeuralGallery.load_from_disk`] and [`private`], not [`Hit`](x).")
    there = "neural_clip.gallery.neural_gallery.NeuralGallery.load_from_disk"
    assert found == f"See [`NeuralGallery.load_from_disk`][{there}] and `private`, not [`Hit`](x)."
    assert site_docstrings.plain("Do.\n\nReturns:\n    `dict` of [`Hits`]: All.\n") == (
        "Do.\n\nReturns:\n    dict of Hits: All.\n"
    )


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("README.md", "index.md"), ("docs/studies/README.md", "studies/README.md"),
        ("docs/tutorials/a.ipynb", "tutorials/a.md"), ("CHANGELOG.md", "repository/CHANGELOG.md"),
        ("metrics/image_retrieval/README.md", "repository/metrics/image_retrieval.md"),
        ("src/neural_clip/losses.py", "repository/src/neural_clip/losses.py.md"),
    ],
)  # fmt: skip
def test_every_file_has_one_place_on_the_site(name, place):
    assert site_pages.place_of(name) == place
    if name.startswith(("README", "CHANGELOG", "metrics", "src")):
        assert site_pages._name_of(place) == name


def test_links_lead_to_places_on_the_site_and_call_pages_by_their_titles():
    page = SimpleNamespace(file=SimpleNamespace(src_uri="studies/results.md"))
    written = (
        "[evaluation.md](../evaluation.md#scores) [code](../../src/neural_clip/losses.py) [a.md](https://x.y/a.md)"
    )
    found = site_pages.on_page_markdown(written, page, None)
    code = "../repository/src/neural_clip/losses.py.md"
    assert found == f"[Evaluation](../evaluation.md#scores) [code]({code}) [a.md](https://x.y/a.md)"
