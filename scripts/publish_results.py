"""Carry results into the repository: model card, tables of README.md and docs/studies/real_recordings.md, pictures.

    python scripts/publish_results.py --demo outputs/demo --real outputs/real

No number in those files is typed by hand: each comes from the `report.json` of a run.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from neural_clip.errors import run
from neural_clip.files.whole import replace_marked
from neural_clip.publishing.model_card import publish
from neural_clip.report.tables import (
    as_markdown,
    audit_table,
    conversion_table,
    decoding_table,
    encoding_table,
    sizes_table,
)

REPOSITORY = Path(__file__).resolve().parents[1]
TABLES = {
    "decoding": decoding_table,
    "sizes": sizes_table,
    "encoding": encoding_table,
    "conversion": conversion_table,
    "controls": audit_table,
}
PICTURES = ("decoding", "conversion", "intervals_decoding")


def read_report(folder: Path) -> dict:
    """Report of an evaluation."""
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def fill(path: Path, name: str, tables: Sequence[str], report: dict) -> None:
    """Put tables of a report where they belong."""
    replace_marked(path, name, "\n\n".join(as_markdown(TABLES[table](report)) for table in tables))


def main(argv: Sequence[str] | None = None) -> None:
    """Rewrite everything in the repository that states a result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="folder of `make demo`")
    parser.add_argument("--real", type=Path, help="folder of the real recordings (docs/studies/real_recordings.md)")
    arguments = parser.parse_args(argv)
    if arguments.demo:
        report = read_report(arguments.demo)
        publish(arguments.demo / "checkpoint", report, REPOSITORY / "model_cards" / "demo.md")
        fill(REPOSITORY / "README.md", "demo", ["decoding", "sizes", "encoding", "conversion", "controls"], report)
        for name in PICTURES:
            picture = arguments.demo / "pictures" / f"{name}.png"
            shutil.copy(picture, REPOSITORY / "docs" / "images" / f"demo_{name}.png")
    if arguments.real:
        page = REPOSITORY / "docs" / "studies" / "real_recordings.md"
        for name in ("digits", "digits_mobilenet"):
            fill(page, name, ["decoding", "sizes"], read_report(arguments.real / f"{name}_report"))
        fill(page, "faces", ["decoding", "sizes", "conversion"], read_report(arguments.real / "faces_report"))


if __name__ == "__main__":
    run(main)
