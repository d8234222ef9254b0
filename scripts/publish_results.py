"""Write the results of a run into the repository: tables of README.md and docs/, model card, pictures.

    python scripts/publish_results.py --demo outputs/demo --real outputs/real

No number in those files is typed by hand: each comes from the `report.json` of a run.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from neural_clip.errors import run
from neural_clip.files.record import RECORD_FILE
from neural_clip.files.whole import replace_marked
from neural_clip.publishing.model_card import model_card, score_rows
from neural_clip.report.summary import best_baseline
from neural_clip.report.tables import (
    Table,
    as_markdown,
    controls_table,
    conversion_table,
    decoding_table,
    encoding_table,
    label,
    score,
    sizes_table,
    with_interval,
)

REPOSITORY = Path(__file__).resolve().parents[1]
PICTURES = ("decoding", "conversion", "intervals_decoding")


def summary_table(report: dict) -> Table:
    """One row a modality: single-trial 2-way accuracy of the first checkpoint, of its best baseline, and chance."""
    rows = []
    for modality, part in report["decoding"].items():
        ours, best = part["rows"][0], best_baseline(report, modality)
        assert best is not None  # published runs have baselines
        cells = [with_interval(row["two_way"], row["two_way_interval"]) for row in (ours, best)]
        cells[1] += f", {best['method']}"
        rows.append([label(report, modality), *cells, score(ours["chance_two_way"])])
    return ["recordings", "neural_clip, 2-way [95 % CI]", "best linear baseline", "chance"], rows


TABLES: dict[str, Callable[[dict], Table]] = {
    "summary": summary_table,
    "decoding": decoding_table,
    "sizes": sizes_table,
    "encoding": encoding_table,
    "conversion": conversion_table,
    "controls": controls_table,
}


def read_report(folder: Path) -> dict:
    """Report of an evaluation."""
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def fill(path: Path, name: str, tables: Sequence[str], report: dict) -> None:
    """Put tables of a report between the marks of this name."""
    replace_marked(path, name, "\n\n".join(as_markdown(TABLES[table](report)) for table in tables))


def publish_card(folder: Path, report: dict, target: Path) -> None:
    """Write a card as `target` and everything it was made from beside it, as JSON of the same name."""
    record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    scores = {modality: {"rows": [row]} for modality, row in score_rows(report).items()}
    data = {modality: {"corpus": report["data"][modality]["corpus"]} for modality in scores}
    kept = {"checkpoints": report["checkpoints"][:1], "decoding": scores, "data": data, "split": report["split"]}
    source = {"name": target.stem, "training": record, "report": kept}
    target.with_suffix(".json").write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")
    target.write_text(model_card(target.stem, record, kept), encoding="utf-8")


def publish_demo(folder: Path, repository: Path = REPOSITORY) -> None:
    """Write what README.md, docs/demo.md, the model card and the pictures tell of the demo."""
    report = read_report(folder)
    publish_card(folder / "checkpoint", report, repository / "model_cards" / "demo.md")
    fill(repository / "README.md", "demo", ["summary"], report)
    for name in ("decoding", "sizes", "encoding", "conversion", "controls"):
        fill(repository / "docs" / "demo.md", f"demo {name}", [name], report)
    for name in PICTURES:
        shutil.copy(folder / "pictures" / f"{name}.png", repository / "docs" / "images" / f"demo_{name}.png")


def publish_real(folder: Path, repository: Path = REPOSITORY) -> None:
    """Write what docs/studies/real_recordings.md tells of the real recordings."""
    page = repository / "docs" / "studies" / "real_recordings.md"
    for name in ("digits", "digits_mobilenet"):
        fill(page, name, ["decoding", "sizes"], read_report(folder / f"{name}_report"))
    fill(page, "faces", ["decoding", "sizes", "conversion"], read_report(folder / "faces_report"))


def main(argv: Sequence[str] | None = None) -> None:
    """Rewrite everything in the repository that states a result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="folder of `make demo`")
    parser.add_argument("--real", type=Path, help="folder of the real recordings (docs/studies/real_recordings.md)")
    arguments = parser.parse_args(argv)
    if arguments.demo:
        publish_demo(arguments.demo)
    if arguments.real:
        publish_real(arguments.real)


if __name__ == "__main__":
    run(main)
