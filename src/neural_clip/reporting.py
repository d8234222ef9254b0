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
from neural_clip.report_page import write_page
from neural_clip.whole_files import write_whole

# arXiv 2411.09723, tables 1 and 2; the EEG and MEG top-k of the paper are no ranks, see PAPER_REMARKS
PAPER: dict[str, dict] = {
    "decoding": {
        "eeg": {"corpus": "ImageNetEEG", "top1": 0.400, "top5": 0.543, "two_way": 0.794},
        "meg": {"corpus": "THINGS-MEG", "top1": 0.012, "top5": 0.061, "two_way": 0.601},
        "fmri": {"corpus": "NSD", "top1": None, "top5": None, "two_way": 0.903},
    },
    "encoding": {
        "eeg": {"corpus": "ImageNetEEG", "two_way": 0.855},
        "meg": {"corpus": "THINGS-MEG", "two_way": 0.588},
        "fmri": {"corpus": "NSD", "two_way": 0.878},
    },
    "conversion": {
        "fmri->eeg": {"two_way": 0.6710, "normalised": 0.8370},
        "meg->eeg": {"two_way": 0.6790, "normalised": 0.8470},
        "fmri->meg": {"two_way": 0.5679, "normalised": 0.9540},
        "eeg->meg": {"two_way": 0.5594, "normalised": 0.9396},
        "eeg->fmri": {"two_way": 0.7648, "normalised": 0.8598},
        "meg->fmri": {"two_way": 0.7928, "normalised": 0.8912},
    },
}
PAPER_REMARKS = (
    "The paper's figures come from its authors' splits, image encoder and code, on real recordings. They stand here "
    "for orientation: different data, galleries and definitions do not make a ranking.",
    "The paper's top-1 and top-5 are no ranks: its code passes the nearest trials through a set, which loses their "
    "order. Ours are ranks over unique images.",
    "The paper's 2-way score compares each prediction with one randomly permuted one; its expectation is our score in "
    "the direction image to recording. Ours compares all pairs of different images, ties one half.",
    "The paper's MEG gallery holds 200 images (chance 0.5 % and 2.5 %), not 720 classes (0.13 % and 0.65 %).",
    "In the paper's code the test set is also the validation set and steers the learning rate, and the subjects' "
    "alignment layers are neither trained nor saved. Ours are trained and saved, and tests are read once.",
    "The abstract of the paper gives 93.8 % for fMRI, its table 90.3 %; the table is quoted.",
    "The paper divides conversions by constants for each target (EEG .8017, MEG .595, fMRI .889); ours are divided by "
    "the decoding score of the target modality in this report.",
)
SIMULATED_NOTE = (
    "SIMULATED recordings: no person was recorded. The simulated corpora are calibrated so that per-subject ridge "
    "regression scores about what the paper reports. They show that the method works on data with a known answer, not "
    "how well it reads real brains."
)
CATEGORY_NOTE = (
    "Category level: only the category of each presentation is known, the target is the category's mean embedding, "
    "and the gallery holds categories, not images. Train and test share these categories."
)
NAMES = {"eeg": "EEG", "meg": "MEG", "fmri": "fMRI"}
METHODS = {"neural_clip": "neural_clip (ours)"}
Table = tuple[list[str], list[list[str]]]


def score(value: float | None) -> str:
    """Share with three digits, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """Share in percent with one digit, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """Score and its 95 % interval."""
    return score(value) + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def label(report: dict, *modalities: str) -> str:
    """Modality, marked when simulated or at category level: `"EEG simulated"`, `"EEG -> MEG simulated"`."""
    text = " -> ".join(NAMES[name] for name in modalities)
    if any(name in report["simulated_modalities"] for name in modalities):
        text += " simulated"
    if any(report["data"][name]["category_level"] for name in modalities):
        text += " (category level)"
    return text


def decoding_table(report: dict) -> Table:
    """Table 1: single-trial decoding, baselines, chance, ceiling and the paper's figures."""
    head = ["recordings", "method", "top-1 %", "top-5 %", "cls-1 %", "cls-5 %", "2-way [95 % CI]", "p"]
    rows = []
    for modality, part in report["decoding"].items():
        singles = [row for row in part["rows"] if row["aggregation"] == "single trial"]
        for row in singles:
            rows.append([label(report, modality), *_decoding_cells(row)])
        ours = singles[0]
        chance = [percent(_top(ours, f"chance_{name}", name)) for name in ("top1", "top5", "class_top1", "class_top5")]
        rows.append([label(report, modality), "chance", *chance, score(0.5), ""])
        known = _ceiling(part["ceiling"], "two_way")
        if known is not None:
            rows.append([label(report, modality), "known-model ceiling", "", "", "", "", score(known), ""])
        paper = part["paper"]
        figures = [percent(paper["top1"]), percent(paper["top5"]), "-", "-", score(paper["two_way"]), ""]
        rows.append([f"{NAMES[modality]} {paper['corpus']}", "the paper", *figures])
    return head, rows


def _decoding_cells(row: dict) -> list[str]:
    """Method and scores of one row; a baseline that was not computed has dashes."""
    method = METHODS.get(row["method"], row["method"])
    if "not_computed" in row:
        return [method, "-", "-", "-", "-", "not computed", ""]
    tops = [percent(_top(row, name, name)) for name in ("top1", "top5", "class_top1", "class_top5")]
    return [method, *tops, with_interval(row["two_way"], row["two_way_interval"]), score(row["two_way_p"])]


def _top(row: dict, key: str, name: str) -> float | None:
    """Value of a top-k score, or nothing where the list is as long as the gallery and every model scores 1."""
    return None if name.endswith("5") and row["gallery_size"] <= 5 else row.get(key)


def _ceiling(ceiling: object, key: str) -> float | None:
    """Score of the observer that knows the generative model, where the simulation left one that holds."""
    if not isinstance(ceiling, dict) or ceiling.get("valid") is False:
        return None
    return ceiling.get(key)


def sizes_table(report: dict) -> Table:
    """What the galleries hold."""
    head = ["recordings", "queries", "gallery", "classes", "subjects", "split", "resampled", "split by"]
    rows = []
    for modality, part in report["decoding"].items():
        row, data = part["rows"][0], report["data"][modality]
        unit = "categories" if data["category_level"] else "images"
        sizes = [str(row["n_queries"]), f"{row['gallery_size']} {unit}", str(row["n_classes"] or "-")]
        people = str(len(row["subjects"]))
        rows.append(
            [label(report, modality), *sizes, people, report["split"], row["resampled_unit"], str(data["split_unit"])]
        )
    return head, rows


def encoding_table(report: dict) -> Table:
    """Encoding: image to recordings, scored by the images behind them."""
    head = [
        "recordings",
        "2-way [95 % CI]",
        "p",
        "same image %",
        "chance %",
        "images",
        "searched",
        "ceiling",
        "the paper",
    ]
    rows = []
    for modality, part in report["encoding"].items():
        cells = [with_interval(part["two_way"], part["two_way_interval"]), score(part["two_way_p"])]
        cells += [percent(part["top1"]), percent(part["chance_top1"])]
        cells += [str(part["n_queries"]), str(part["n_recordings"])]
        cells.append(score(_ceiling(report["decoding"][modality]["ceiling"], "two_way_encoding")))
        rows.append([label(report, modality), *cells, score(part["paper"]["two_way"])])
    return head, rows


def conversion_table(report: dict) -> Table:
    """Table 2: conversions, plain and normalised."""
    head = ["conversion", "2-way [95 % CI]", "p", "normalised [95 % CI]", "queries", "the paper", "normalised"]
    rows = []
    for part in report["conversion"]:
        cells = [with_interval(part["two_way"], part["two_way_interval"]), score(part["two_way_p"])]
        cells += [with_interval(part["normalised"], part["normalised_interval"]), str(part["n_queries"])]
        paper = [score(part["paper"]["two_way"]), score(part["paper"]["normalised"])]
        rows.append([label(report, part["source"], part["target"]), *cells, *paper])
    return head, rows


def aggregation_table(report: dict) -> Table:
    """Decoding at every level of aggregation, in both directions."""
    head = [
        "recordings",
        "method",
        "aggregation",
        "queries",
        "top-1 %",
        "top-5 %",
        "2-way [95 % CI]",
        "2-way image to recording",
    ]
    rows = []
    for modality, part in report["decoding"].items():
        for row in part["rows"]:
            if "not_computed" not in row:
                cells = [METHODS.get(row["method"], row["method"]), row["aggregation"], str(row["n_queries"])]
                cells += [percent(_top(row, name, name)) for name in ("top1", "top5")]
                cells.append(with_interval(row["two_way"], row["two_way_interval"]))
                other = with_interval(row["two_way_image_to_neural"], row["two_way_image_to_neural_interval"])
                rows.append([label(report, modality), *cells, other])
    return head, rows


def audit_table(report: dict) -> Table:
    """Controls beside the scores."""
    head = ["recordings", "control", "decoder", "2-way [95 % CI]", "p", "queries"]
    rows = []
    for modality, records in report.get("audits", {}).items():
        for record in records:
            cells = [label(report, modality), record["check"], record["by"]]
            if "not_computed" in record:
                rows.append([*cells, "not computed", "", ""])
            else:
                interval = with_interval(record["two_way"], record["two_way_interval"])
                rows.append([*cells, interval, score(record["two_way_p"]), str(record["n_queries"])])
    return head, rows


def _audit_text(report: dict) -> str:
    """What each control means, and why some were not computed."""
    lines: dict[str, str] = {}
    for modality, records in report["audits"].items():
        for record in records:
            name = "Repeats" if "n_repeats" in record else record["check"].capitalize()
            lines.setdefault(name, f"* *{name}.* {record['meaning']}")
            if "not_computed" in record:
                lines[f"{modality} {name}"] = (
                    f"* {label(report, modality)}, {record['check']}: {record['not_computed']}."
                )
    return "\n".join(lines.values())


def protocol_table(report: dict) -> Table:
    """The scores that the protocol puts first."""
    head = ["recordings", "score", "value [95 % CI]", "chance"]
    rows = []
    found = [((name,), entries) for name, entries in report["protocol"]["decoding"].items()]
    found += [(tuple(pair.split("->")), entries) for pair, entries in report["protocol"]["conversion"].items()]
    for names, entries in found:
        for entry in entries:
            value = with_interval(entry["score"], entry["interval"])
            rows.append([label(report, *names), entry["label"], value, score(entry["chance"])])
    return head, rows


def subjects_table(report: dict) -> Table:
    """Single-trial decoding of each person."""
    head = ["recordings", "subject", "queries", "top-1 %", "top-5 %", "2-way"]
    rows = []
    for modality, part in report["decoding"].items():
        ours = part["rows"][0]
        for subject, scores in ours["subjects"].items():
            tops = [percent(scores["top1"]), percent(None if ours["gallery_size"] <= 5 else scores["top5"])]
            rows.append([label(report, modality), subject, str(scores["n_queries"]), *tops, score(scores["two_way"])])
    return head, rows


def as_markdown(table: Table) -> str:
    """Table in Markdown."""
    head, rows = table
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def as_text(table: Table) -> str:
    """Table in columns for a terminal. Labels are repeated: each line says by itself what is simulated."""
    head, rows = table
    widths = [max(len(cells[column]) for cells in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(c, widths, strict=True)).rstrip() for c in (head, *rows)
    ]
    return "\n".join([lines[0], "-" * len(max(lines, key=len)), *lines[1:]])


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
    if "protocol" in report:
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
    if report.get("audits"):
        sections += ["## Controls beside the scores", as_markdown(audit_table(report)), _audit_text(report)]
    sections += ["## Pictures", missing or PICTURES_TEXT, *(f"![{title}]({name})" for title, name in pictures.items())]
    if report.get("understanding"):
        found = report["understanding"]["pictures"].items()
        sections += ["## What was learned", UNDERSTANDING_TEXT]
        sections += [f"![{title}](understanding/{name})" for title, name in found]
    sections += ["## All aggregations, both directions", as_markdown(aggregation_table(report))]
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


ENCODING_TEXT = (
    "Each test image retrieves the nearest recording (cosine in the shared space); the image behind that recording is "
    "compared with the query by their image embeddings, against all other test images. *Same image*: the retrieved "
    "recording was of the query image itself. *Searched*: recordings in the gallery."
)
CONVERSION_TEXT = (
    "Each test recording of the source retrieves the nearest test recording of the target; the image behind it is "
    "compared with the image behind the query by their image embeddings. *Normalised*: divided by the single-trial "
    "decoding 2-way score of the target modality in Table 1, same split; its interval carries the numerator's "
    "uncertainty only."
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
    if any(_ceiling(part["ceiling"], "two_way") is not None for part in report["decoding"].values()):
        lines.append(
            "Known-model ceiling: an observer of the simulation that knows its generative model. It was computed when "
            "the recordings were simulated, over a gallery of its own; recordings of people have none."
        )
    return "\n\n".join(lines)


def _provenance(report: dict) -> str:
    """Command, checkpoint, data and versions."""
    lines = [f"* command: `{report['command']}`"]
    lines += [
        f"* checkpoint: `{report['checkpoint']['path']}`, SHA-256 of the weights `{report['checkpoint']['sha256']}`"
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
    missing = {"decoding", "encoding", "conversion", "data"} - set(report)
    if missing:
        raise DataError(f"'{path}' is no report of `neural-clip evaluate`: it lacks {sorted(missing)}.")
    return report


def interval_groups(report: dict) -> dict[str, list]:
    """Lines of the pictures of intervals by their title: decoding with baselines and controls, and conversion."""
    decoding, conversion = [], []
    for modality, part in report["decoding"].items():
        lines = [
            (METHODS.get(row["method"], row["method"]), row["two_way"], row["two_way_interval"],
             "ours" if row["method"] == "neural_clip" else "baseline")
            for row in part["rows"]
            if row["aggregation"] == "single trial" and "not_computed" not in row
        ]  # fmt: skip
        lines += [
            (f"control: {record['check']}", record["two_way"], record["two_way_interval"], "control")
            for record in report.get("audits", {}).get(modality, [])
            if "not_computed" not in record and "n_repeats" not in record
        ]
        lines.append((f"the paper, {part['paper']['corpus']}", part["paper"]["two_way"], None, "paper"))
        decoding.append((label(report, modality), lines))
    for record in report["conversion"]:
        lines = [("neural_clip (ours)", record["two_way"], record["two_way_interval"], "ours")]
        lines.append(("the paper", record["paper"]["two_way"], None, "paper"))
        conversion.append((label(report, record["source"], record["target"]), lines))
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


def print_tables(report: dict, folder: str | Path | None = None) -> None:
    """Print the tables to stdout, at most 110 columns wide, and where everything lies.

    Args:
        report (`dict`): What `report.json` holds.
        folder (`str` or `Path`, *optional*): Where the report was written.
    """
    simulated = " of SIMULATED recordings" if report["simulated"] else ""
    parts = [f"Table 1. Decoding{simulated}, {report['split']} split, single trial", as_text(decoding_table(report))]
    parts += ["", f"Galleries{simulated}", as_text(sizes_table(report))]
    parts += ["", f"Encoding{simulated}, image -> recording", as_text(encoding_table(report))]
    if report["conversion"]:
        parts += ["", f"Table 2. Conversion{simulated}", as_text(conversion_table(report))]
    if report["category_level"]:
        parts += ["", "Category level: targets and galleries are categories, not images."]
    if folder is not None:
        parts += ["", *_where(Path(folder), report)]
    print("\n".join(parts))


def _where(folder: Path, report: dict) -> list[str]:
    """Files of an evaluation that exist."""
    names = {"report.html": "page", "report.md": "report", "report.json": "numbers", "embeddings.npz": "embeddings"}
    lines = [f"{text + ':':<12}{folder / name}" for name, text in names.items() if (folder / name).is_file()]
    lines += [f"{'picture:':<12}{path}" for path in sorted((folder / "pictures").glob("*.png"))]
    return [*lines, f"{'checkpoint:':<12}{report['checkpoint']['path']}"]


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
