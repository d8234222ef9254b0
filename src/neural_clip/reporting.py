"""Turn `report.json` into `report.md`, `report.html`, pictures and the tables at the end of an evaluation.

```
neural-clip report outputs/demo/report.json
```

Every number printed here is read from `report.json`; nothing is computed anew.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from neural_clip.errors import DataError, run
from neural_clip.paper_figures import PAPER_REMARKS
from neural_clip.report_page import write_page
from neural_clip.report_tables import (
    NAMES,
    aggregation_table,
    as_markdown,
    audit_table,
    comparison_table,
    conversion_table,
    decoding_table,
    direct_table,
    encoding_table,
    known_ceiling,
    label,
    method_name,
    print_tables,
    protocol_table,
    sizes_table,
    subjects_table,
)
from neural_clip.whole_files import write_whole

FORMAT_VERSION = 2  # of report.json
SIMULATED_NOTE = (
    "SIMULATED recordings: no person was recorded. The simulated corpora are calibrated so that per-subject ridge "
    "regression scores about what the paper reports. They show that the method works on data with a known answer, not "
    "how well it reads real brains."
)
CATEGORY_NOTE = (
    "Category level: only the category of each presentation is known, the target is the category's mean embedding, "
    "and the gallery holds categories, not images. Train and test share these categories."
)
ENCODING_TEXT = (
    "Each test image retrieves the nearest recording (cosine in the shared space); the image behind that recording is "
    "compared with the query by their image embeddings, against all other test images. *Same image*: the retrieved "
    "recording was of the query image itself. Queries are all images, searched are all recordings (sizes above)."
)
CONVERSION_TEXT = (
    "Each test recording of the source retrieves the nearest test recording of the target; the image behind it is "
    "compared with the image behind the query by their image embeddings. *Normalised*: divided by the single-trial "
    "decoding 2-way score of the target modality in Table 1, same split; its interval carries the numerator's "
    "uncertainty only. Queries are all recordings of the source. *Paper (norm.)*: its plain and normalised scores."
)
DIRECT_TEXT = (
    "The query looks for its own image in a gallery of recordings, averaged over all recordings of an image; no image "
    "embedding stands between them. Conversion has this form where both modalities answered to the same pictures "
    "(equal embeddings, whatever their names)."
)
COMPARISON_TEXT = (
    "Differences of scores on the same queries in the same gallery. Intervals resample images (recordings at category "
    "level); `p` is two-sided, by flipping the signs of whole images. Methods that share queries can differ clearly "
    "though their own intervals overlap."
)
AGGREGATION_TEXT = (
    "*Single trial*: every recording is a query. *Image mean within subject*: the mean embedding of a person's "
    "recordings of an image. *Image mean over subjects*: that of all people. The first interval speaks of other "
    "images and these people; *subjects drawn* resamples people too and speaks of other people, as far as so few can."
)
UNDERSTANDING_TEXT = (
    "Numbers behind each picture lie beside it as CSV, all of them in `understanding/understanding.json`, which also "
    "says how far maps from two halves of the images agree: maps that do not agree are noise."
)
PICTURES_TEXT = (
    "Left: the image behind the query. Right: the five nearest, best first. Frames: green, the same image; amber, "
    "another image of the same concept or category; red, neither; grey, "
    "the labels of the two corpora cannot be compared. Rows are not chosen by eye: queries were ordered by "
    "their own score and taken at evenly spaced positions from best to worst."
)


def _audit_text(report: dict) -> str:
    """What each control means, and why some were not computed."""
    lines: dict[str, str] = {}
    for modality, records in report["audits"].items():
        for record in records:
            name = "Repeats" if "n_repeats" in record else record["check"].capitalize()
            lines.setdefault(name, f"* *{name}.* {record['meaning']}")
            if said := record.get("found") or record.get("not_computed"):
                said = said.rstrip(".")
                lines[f"{modality} {name}"] = f"* {label(report, modality)}, {record['check']}: {said}."
    return "\n".join(lines.values())


def markdown(report: dict, pictures: dict[str, str], missing: str = "") -> str:
    """Text of `report.md`.

    Args:
        report (`dict`): What `report.json` holds.
        pictures (`dict[str, str]`): Title of each picture and its file name beside the report.
        missing (`str`): Why there are no pictures, where there are none.

    Returns:
        `str`: Markdown.
    """
    notes = [SIMULATED_NOTE] if report["simulated"] else []
    notes += [CATEGORY_NOTE] if report["category_level"] else []
    notes += [
        f"{NAMES[m]}: classes were shown in blocks; slow drift alone can tell them apart."
        for m, part in report["data"].items()
        if part["block_confounded"]
    ]
    what = f"Split: {report['split']}. Scores are means over single trials. `p`: 1,000 shuffles of the labels."
    sections = [
        f"# Evaluation{' of simulated recordings' if report['simulated'] else ''}",
        *(f"**{note}**" for note in notes),
        what,
    ]
    protocol = report["protocol"]
    sections += [f"## Protocol: {protocol['name']}", protocol["meaning"], as_markdown(protocol_table(report))]
    sections += [
        "## Table 1. Decoding: which image was seen?",
        as_markdown(decoding_table(report)),
        _decoding_text(report),
    ]
    sections += [as_markdown(sizes_table(report))]
    sections += [
        "## Encoding: which recording answers to this image?",
        as_markdown(encoding_table(report)),
        ENCODING_TEXT,
    ]
    if report["conversion"]:
        sections += [
            "## Table 2. Conversion between modalities",
            as_markdown(conversion_table(report)),
            CONVERSION_TEXT,
        ]
    sections += ["## Direct encoding and conversion", as_markdown(direct_table(report)), _direct_text(report)]
    if report["comparisons"]:
        title = f"## What {method_name(report['checkpoints'][0]['name'])} gains"
        sections += [title, as_markdown(comparison_table(report)), COMPARISON_TEXT]
    if report["audits"]:
        sections += ["## Controls beside the scores", as_markdown(audit_table(report)), _audit_text(report)]
    sections += ["## Pictures", missing or PICTURES_TEXT, *(f"![{title}]({name})" for title, name in pictures.items())]
    if report.get("understanding"):
        found = report["understanding"]["pictures"].items()
        sections += ["## What was learned", UNDERSTANDING_TEXT]
        sections += [f"![{title}](understanding/{name})" for title, name in found]
    sections += ["## All aggregations, both directions", as_markdown(aggregation_table(report)), AGGREGATION_TEXT]
    sections += ["## Each subject, single trial", as_markdown(subjects_table(report))]
    defects = [
        f"* {NAMES[m]}, {part['corpus']}: {defect}"
        for m, part in report["data"].items()
        for defect in part["known_defects"] or []
    ]
    sections += ["## Known defects of the data", "\n".join(defects)] if defects else []
    sections += ["## The paper's figures", "\n".join(f"* {remark}" for remark in PAPER_REMARKS)]
    sections += ["## How this was made", _provenance(report)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _decoding_text(report: dict) -> str:
    """Remarks on Table 1."""
    lines = [
        "Top-k ranks the unique test images of the corpus; cls-k asks whether one of the first k images is of the "
        "right class, and its chance counts the images each class has in this gallery. 2-way: all pairs of different "
        "images, ties one half. Intervals resample images (recordings at category level) 2,000 times with the gallery "
        "held fixed."
    ]
    for modality, part in report["decoding"].items():
        lines += [
            f"{label(report, modality)}: {row['method']} was not computed. {row['not_computed']}"
            for row in part["rows"]
            if "not_computed" in row
        ]
    if any(known_ceiling(part["ceiling"], "two_way") is not None for part in report["decoding"].values()):
        lines.append(
            "Known-model ceiling: an observer of the simulation that knows its generative model. It was computed when "
            "the recordings were simulated, over a gallery of its own; recordings of people have none."
        )
    return "\n\n".join(lines)


def _direct_text(report: dict) -> str:
    """What the direct forms are, and which pairs have none."""
    pairs = {(part["source"], part["target"]): part["direct"] for part in report["conversion"]}
    without = [label(report, *pair) for pair, direct in pairs.items() if not direct]
    return DIRECT_TEXT + (f" No two images in common: {', '.join(without)}." if without else "")


def _provenance(report: dict) -> str:
    """Command, checkpoints, data and versions."""
    lines = [f"* command: `{report['command']}`"]
    lines += [
        f"* checkpoint {part['name']}: `{part['path']}`, SHA-256 of the weights `{part['sha256']}`"
        for part in report["checkpoints"]
    ]
    for modality, data in report["data"].items():
        simulated = data["simulated"]
        source = (
            f"simulated, preset {simulated.get('preset')}, seed {simulated.get('seed')}" if simulated else "recorded"
        )
        corpus = f"corpus {data['corpus']} ({source}), fingerprint `{data['fingerprint']}`"
        lines.append(f"* {NAMES[modality]}: `{data['folder']}`, {corpus}")
    lines += [f"* seed {report['seed']}; versions: " + ", ".join(f"{k} {v}" for k, v in report["versions"].items())]
    return "\n".join(lines)


def read_report(path: str | Path) -> dict:
    """Read `report.json`.

    Raises:
        DataError: If the file is missing, damaged or no report.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"'{path}' does not exist; `neural-clip evaluate` writes it.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is no readable report: {error}") from error
    missing = {"format_version", "decoding", "encoding", "conversion", "data"} - set(report)
    if missing:
        raise DataError(f"'{path}' is no report of `neural-clip evaluate`: it lacks {sorted(missing)}.")
    if report["format_version"] != FORMAT_VERSION:
        raise DataError(
            f"'{path}' has format {report['format_version']}, but this version reads format {FORMAT_VERSION}; "
            "run `neural-clip evaluate` again."
        )
    return report


def interval_groups(report: dict) -> dict[str, list]:
    """Lines of the pictures of intervals by their title: decoding with baselines and controls, and conversion."""
    checkpoints = {part["name"] for part in report["checkpoints"]}
    decoding = []
    for modality, part in report["decoding"].items():
        lines = [
            (method_name(row["method"]), row["two_way"], row["two_way_interval"],
             "ours" if row["method"] in checkpoints else "baseline")
            for row in part["rows"]
            if row["aggregation"] == "single trial" and "not_computed" not in row
        ]  # fmt: skip
        lines += [
            (f"control: {record['check']}", record["two_way"], record["two_way_interval"], "control")
            for record in report["audits"].get(modality, [])
            if "two_way" in record and "n_repeats" not in record
        ]
        lines.append((f"the paper, {part['paper']['corpus']}", part["paper"]["two_way"], None, "paper"))
        decoding.append((label(report, modality), lines))
    pairs: dict[str, list[tuple]] = {}
    for record in report["conversion"]:
        lines = pairs.setdefault(label(report, record["source"], record["target"]), [])
        if lines:
            lines.pop()  # the paper's figure goes last
        lines.append((method_name(record["method"]), record["two_way"], record["two_way_interval"], "ours"))
        lines.append(("the paper", record["paper"]["two_way"], None, "paper"))
    conversion = list(pairs.items())
    groups = {"Decoding, single trial, with baselines and controls": decoding, "Conversion": conversion}
    return {title: found for title, found in groups.items() if found}


def _draw_intervals(report: dict, folder: Path) -> dict[str, str]:
    """Pictures of the intervals: title and file name."""
    from neural_clip.interval_pictures import draw_intervals

    drawn = {}
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for title, groups in interval_groups(report).items():
        name = f"pictures/intervals_{title.split(',')[0].lower()}.png"
        draw_intervals(groups, title + (" (SIMULATED recordings)" if report["simulated"] else ""), 0.5, folder / name)
        drawn[f"{title}: scores and 95 % intervals"] = name
    return drawn


def write_report(path: str | Path, *, pictures: bool = True) -> Path:
    """Write `report.md`, `report.html` and the pictures beside `report.json`.

    Args:
        path (`str` or `Path`): `report.json`, or its folder.
        pictures (`bool`, defaults to `True`): Draw panels of retrieved images; needs `embeddings.npz` beside the
            report and the data sets where they were.

    Returns:
        `Path`: `report.md`.

    Raises:
        DataError: If the report cannot be read.
    """
    report = read_report(path)
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    drawn: dict[str, str] = {}
    missing = "Pictures were not asked for." if not pictures else ""
    if pictures:
        from neural_clip.pictures import draw_panels

        panels, missing = draw_panels(report, folder)
        drawn = _draw_intervals(report, folder) | panels
    target = folder / "report.md"
    write_whole(target, markdown(report, drawn, missing))
    write_page(target)
    return target


def main(argv: Sequence[str] | None = None) -> Path:
    """Run `neural-clip report`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", help="report.json that `neural-clip evaluate` wrote, or its folder")
    parser.add_argument("--no-pictures", action="store_true", help="leave the panels of retrieved images out")
    arguments = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    path = write_report(arguments.report, pictures=not arguments.no_pictures)
    print_tables(read_report(path.parent), path.parent)
    return path


if __name__ == "__main__":
    run(main)
