"""Hostile names in Markdown, YAML, CSV and Python, read back by real parsers: they give the name and nothing else."""

import ast
import csv
import io

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hostile_names import hostile_names
from neural_clip.markup import cell, code, code_block, markdown, markdown_values, one_line, python_text

PARSER = MarkdownIt("commonmark").enable("table").enable("strikethrough")
WRITTEN = {"{}": "p", "# {}": "h1", "## {}\n": "h2", "- {}": "li", "> {}": "blockquote", "| a | {} |\n|---|---|": "th",
           "| a |\n|---|\n| {} |": "td", "- corpus {} (real), all of it": "li", "**Note: {}.**": "strong"}  # fmt: skip


def tokens_of(text, parser=PARSER):
    """All tokens, those inside lines too."""
    for token in parser.parse(text):
        yield token
        yield from token.children or []


@pytest.mark.parametrize("where", WRITTEN)
@given(name=hostile_names)
@example(name="![x](/etc/passwd)")
@example(name="1. x")
@example(name="| `a` | <script>alert(1)</script> &amp; [b]: c")
def test_markdown_shows_the_name_and_nothing_else(where, name):
    shown, plain = one_line(name), [(token.type, token.tag) for token in tokens_of(where.format("name"))]
    tokens = list(tokens_of(where.format(markdown(name))))
    kinds = [(token.type, token.tag) for token in tokens if token.type not in ("text", "text_special")]
    assert kinds == [kind for kind in plain if kind[0] != "text"] if shown else True
    content = "".join(token.content for token in tokens if token.type in ("text", "text_special"))
    assert not shown or shown in content


UNSEEN = "\u061c\u180e\u200b\u200e\u200f\u202a\u202e\u2060\u2064\u2066\u2069\ufeff\ufff9\U000e0041"


def test_characters_that_are_not_seen_or_turn_the_text_are_left_out_and_joiners_stay():
    for character in UNSEEN:
        for shown in (one_line, markdown, lambda name: code(name).strip("`")):
            assert shown(f"sub{character}01") == "sub 01", hex(ord(character))
        assert character not in python_text(f"a{character}b")
    assert one_line("می\u200cخواهم 👩\u200d🔬") == "می\u200cخواهم 👩\u200d🔬"


@given(name=hostile_names)
def test_code_shows_the_name_and_nothing_else(name):
    inline = list(tokens_of(f"* command: {code(name)}, then"))
    (found,) = [token for token in inline if token.type == "code_inline"]
    assert found.content.strip() == one_line(name)
    (block,) = list(tokens_of(code_block(name)))
    assert block.type == "fence" and block.content.split() == [
        w for x in name.splitlines() for w in one_line(x).split()
    ]


@given(name=hostile_names)
def test_python_reads_the_name(name):
    assert ast.literal_eval(python_text(name)) == name and "\n" not in python_text(name)
    (fence,) = tokens_of(f"```python\nmodel = f({python_text(name)})\n```")
    assert fence.type == "fence" and fence.content.count("\n") == 1


@given(names=st.lists(hostile_names, min_size=2, max_size=4))
def test_csv_reads_the_names_with_an_apostrophe_before_formulas(names):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([*map(cell, names), -1.5])
    (row,) = csv.reader(io.StringIO(text.getvalue(), newline=""), strict=True)
    lines = [name.replace("\r\n", "\n").replace("\r", "\n") for name in names]
    assert row == [f"'{name}" if name[:1] in tuple("=+-@\t\n") else name for name in lines] + ["-1.5"]


def test_ordinary_names_stay_as_they_are():
    names = "things_meg|sub-01|alarm clock|CC-BY-4.0|0.1 to 40 Hz|p < 0.05|A > B|n01440764|tench, Tinca tinca|x_1|é"
    for name in f"{names}|50 % (of all)|日本|by hand: # x|['a', 'b']|http://example.org/a_b|0.1, 0.2] s".split("|"):
        assert markdown(name) == one_line(name) == name and code(name) == f"`{name}`"
    assert markdown_values({"a*b": ["`x`", 1, None, {"c": "|"}]}) == {"a\\*b": ["\\`x\\`", 1, None, {"c": "\\|"}]}


def test_characters_that_move_the_cursor_or_turn_text_are_left_out():
    assert one_line("a\x1b[2Jb\r\nc\u202ed\x00e\u2028f") == "a [2Jb c d e f"


@settings(deadline=None)  # the first imports huggingface_hub
@given(name=hostile_names)
def test_front_matter_of_cards_reads_as_the_name(name):
    from huggingface_hub import DatasetCard, DatasetCardData

    data = DatasetCardData(pretty_name=name, configs=[{"config_name": name, "data_files": []}], tags=[name])
    card = DatasetCard.from_template(data, template_str="---\n{{ card_data }}\n---\n\n# {{ name }}", name="x")
    (front,) = [part for part in card.content.split("---\n\n# x")[:1]]
    read = yaml.safe_load(front.split("---\n", 1)[1])
    assert (read["pretty_name"], read["configs"][0]["config_name"], read["tags"]) == (name, name, [name])
