"""Carry the results of `make demo` into the repository: model card, README table, pictures.

python scripts/publish_demo.py --output-dir outputs/demo
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from neural_clip.errors import run
from neural_clip.model_card import publish
from neural_clip.reporting import as_markdown, conversion_table, decoding_table

REPOSITORY = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- made by scripts/publish_demo.py -->", "<!-- end -->"


def main(argv: Sequence[str] | None = None) -> None:
    """Rewrite everything in the repository that states a result of the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/demo"))
    output = parser.parse_args(argv).output_dir
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    publish(output / "checkpoint", report, REPOSITORY / "model_cards" / "demo.md")
    readme = REPOSITORY / "README.md"
    text = readme.read_text(encoding="utf-8")
    tables = f"{as_markdown(decoding_table(report))}\n\n{as_markdown(conversion_table(report))}"
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    readme.write_text(pattern.sub(lambda _: f"{BEGIN}\n\n{tables}\n\n{END}", text), encoding="utf-8")
    for name in ("decoding", "conversion"):
        shutil.copy(output / "pictures" / f"{name}.png", REPOSITORY / "docs" / "images" / f"demo_{name}.png")


if __name__ == "__main__":
    run(main)
