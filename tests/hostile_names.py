"""Names that mean something in Markdown, HTML, YAML, CSV or a spreadsheet."""

from hypothesis import strategies as st

HOSTILE = (
    "![x](/etc/passwd)", "[x](javascript:alert(1))", "[x]: /etc/passwd", "<script>alert(1)</script>", "<!-- x",
    "a|b|c", "`rm`", "```", "# x", "x ##", "- x", "1. x", "> x", "***", "---", "===", "~~x~~", "$x^2$", "&lt;b&gt;",
    "a\nb", "a\r\n\r\n# b", "x: y", "x # y", "'x", '"x"', "!!python/object/apply:os.system [ls]", "&a *a",
    '=HYPERLINK("x")', "@x", "+1", "a,b", "{{ 7 * 7 }}", "{% raw %}", "\\", "a\\|b", "_x_", "https://x.example/<b>",
    "<https://x.example>", "\t x", "[^1]", "[ ] x",
)  # fmt: skip
_PIECES = [*HOSTILE, *r"!\"#$%&'()*+,-./:;<=>?@[\]^_`{|}~ ab1é", *"\n\t\r\x00\x1b\u2028\u202e"]
hostile_names = st.lists(st.sampled_from(_PIECES), min_size=1, max_size=8).map("".join)


def structure(text):
    """Tokens of Markdown without the text in them, and the text of all of them."""
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    tokens = [inner for token in tokens for inner in (token, *(token.children or []))]
    texts = ("text", "text_special", "code_inline", "fence")
    kinds = [(token.type, token.tag, token.attrs) for token in tokens if not token.type.startswith("text")]
    return kinds, "".join(token.content for token in tokens if token.type in texts)


def renamed(value, names):
    """A value of JSON with other names, as keys too."""
    if isinstance(value, dict):
        return {names.get(key, key): renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value
