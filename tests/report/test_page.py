"""The report as one page: everything inside, nothing from outside, text that stays text."""

import base64
import re
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, example, given, settings

from hostile_names import hostile_names, renamed
from neural_clip.errors import DataError
from neural_clip.markup import one_line
from neural_clip.report.intervals import draw_intervals
from neural_clip.report.page import write_page
from neural_clip.report.tables import print_tables
from neural_clip.report.text import markdown
from neural_clip.report.write import read_report

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
REPORT = """# Evaluation of <simulated> recordings

| recordings | score |
| --- | --- |
| EEG simulated | 0.962 [0.951, 0.972] |

![Decoding: recording → images](pictures/a%20b.png)

* command: `neural-clip evaluate --data eeg=x`
"""


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)


def test_page_holds_tables_and_pictures_and_asks_for_nothing(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a b.png").write_bytes(PNG)
    (tmp_path / "report.md").write_text(REPORT, encoding="utf-8")
    text = write_page(tmp_path / "report.md").read_text(encoding="utf-8")
    page = Page(text)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in images] == [PNG]
    assert images[0]["alt"] == "Decoding: recording → images"
    assert [tag for tag, _ in page.tags].count("td") == 2 and "0.962 [0.951, 0.972]" in page.texts
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text) and "<script" not in text and "@import" not in text
    assert not list(tmp_path.glob("*.partial"))


class Sections(HTMLParser):
    """Whether each section is folded, its place, and where the contents lead."""

    def __init__(self, text):
        super().__init__()
        self.folded, self.links, self.inside, self.tag = {}, {}, [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes, self.tag = dict(attributes), tag
        if tag in ("section", "details"):
            self.inside.append(tag)
        if "id" in attributes:
            self.folded[attributes["id"]] = "details" in self.inside
        if tag == "a" and not attributes["href"].startswith("#"):  # a reference in the text
            self.tag = ""
        elif tag == "a":
            self.links[attributes["href"].removeprefix("#")] = ""

    def handle_endtag(self, tag):
        self.tag = ""
        if tag in ("section", "details"):
            assert self.inside.pop() == tag

    def handle_data(self, data):
        if self.tag == "a":
            self.links[list(self.links)[-1]] += data


def test_summary_and_the_three_tasks_are_open_and_all_sections_are_in_the_contents(output_dir):
    page = Sections((output_dir / "report.html").read_text(encoding="utf-8"))
    assert not page.inside and list(page.links) == list(page.folded) == [
        f"section-{n + 1}" for n in range(len(page.links))
    ]
    titles = [line[3:] for line in (output_dir / "report.md").read_text().splitlines() if line.startswith("## ")]
    assert list(page.links.values()) == titles and titles[0] == "Summary"
    unfolded = [page.links[place] for place, folded in page.folded.items() if not folded]
    assert [title.split(".")[0].split(":")[0] for title in unfolded] == ["Summary", "Table 1", "Encoding", "Table 2"]
    assert len(unfolded) < len(titles)


def test_names_cannot_bring_markup(tmp_path):
    (tmp_path / "report.md").write_text("# <b>x</b>\n\n| a |\n| --- |\n| <script>alert(1)</script> |\n")
    text = write_page(tmp_path / "report.md").read_text()
    assert "<script" not in text and "<b>" not in text and "&lt;script&gt;" in text


@pytest.mark.parametrize("name", ["pictures/gone.png", "notes.txt"])
def test_pictures_that_are_not_there_are_named(tmp_path, name):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "report.md").write_text(f"![x]({name})\n")
    with pytest.raises(DataError, match=name):
        write_page(tmp_path / "report.md")
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(DataError, match="does not exist"):
        write_page(tmp_path / "nothing.md")


def test_intervals_are_drawn_where_the_numbers_are(tmp_path):
    """The blue of our row lies over the pixels of its interval, and the same input gives the same bytes."""
    import numpy as np
    from PIL import Image

    def ends(low, high):
        lines = [
            ("ours", (low + high) / 2, [low, high], "ours"),
            ("zero", 0.0, None, "paper"),
            ("one", 1.0, None, "paper"),
        ]
        draw_intervals([("EEG simulated", lines)], "Decoding (SIMULATED recordings)", 0.5, tmp_path / "a.png")
        pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
        columns = {}
        for name, colour in {"ours": (0, 114, 178), "paper": (204, 121, 167)}.items():
            columns[name] = np.flatnonzero((np.abs(pixels - colour).sum(axis=2) < 30).any(axis=0))
        paper = columns["paper"]
        middle = (paper.min() + paper.max()) / 2
        zero, one = paper[paper < middle].mean(), paper[paper > middle].mean()
        return [(column - zero) / (one - zero) for column in (columns["ours"].min(), columns["ours"].max())]

    assert ends(0.2, 0.9) == pytest.approx([0.2, 0.9], abs=0.01)
    first = (tmp_path / "a.png").read_bytes()
    assert ends(0.4, 0.6) == pytest.approx([0.4, 0.6], abs=0.01)
    ends(0.2, 0.9)
    assert (tmp_path / "a.png").read_bytes() == first


class Tags(HTMLParser):
    """Tags of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, [name for name, _ in attrs]))

    def handle_data(self, data):
        self.text += data


def page_of(report, names, folder):
    report = renamed(report, names)
    (folder / "report.md").write_text(markdown(report, {}))
    return Tags(write_page(folder / "report.md").read_text())


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=hostile_names.filter(one_line))
@example(name="![x](/etc/passwd)")
@example(name="<img src=x onerror=alert(1)>")
def test_names_are_text_in_the_page_whatever_they_hold(output_dir, tmp_path, name):
    report = read_report(output_dir)
    report["data"]["eeg"]["known_defects"] = ["defect"]
    names = ("planted", "sub-01", "neural_clip", "defect", report["data"]["eeg"]["folder"], "per-subject ridge")
    plain = page_of(report, dict.fromkeys(names, "name"), tmp_path)
    page = page_of(report, dict.fromkeys(names, name), tmp_path)
    assert page.tags == plain.tags
    assert " ".join(page.text.split()).count(one_line(name)) >= 12
    print_tables(renamed(report, dict.fromkeys(names, name)))


def test_pictures_outside_the_folder_are_not_embedded(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "report").mkdir()
    for name in ("../secret.png", str(tmp_path / "secret.png"), "%2E%2E/secret.png"):
        (tmp_path / "report" / "report.md").write_text(f"![x]({name})")
        with pytest.raises(DataError, match="no PNG or SVG file in its own folder"):
            write_page(tmp_path / "report" / "report.md")
