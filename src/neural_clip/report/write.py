"""`report.json` to report.md, report.html and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.evaluation.outputs import FORMAT_VERSION
from neural_clip.files.whole import write_whole
from neural_clip.prepared.reader import PreparedSet
from neural_clip.report.page import write_page
from neural_clip.report.tables import label, method_name
from neural_clip.report.text import markdown


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
    return {"controls": report.pop("audits", {})} | report  # what version 0.1 called them


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
            for record in report["controls"].get(modality, [])
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
    from neural_clip.report.intervals import draw_intervals

    drawn = {}
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for title, groups in interval_groups(report).items():
        name = f"pictures/intervals_{title.split(',')[0].lower()}.png"
        draw_intervals(groups, title + (" (SIMULATED recordings)" if report["simulated"] else ""), 0.5, folder / name)
        drawn[f"{title}: scores and 95 % intervals"] = name
    return drawn


def write_report(
    path: str | Path, *, pictures: bool = True, data: Mapping[str, str | Path | PreparedSet] | None = None
) -> Path:
    """Write `report.md`, `report.html` and the pictures beside `report.json`.

    Args:
        path (`str` or `Path`): `report.json`, or its folder.
        pictures (`bool`, defaults to `True`): Draw panels of retrieved images; needs `embeddings.npz` beside the
            report and the data sets.
        data (`Mapping`, *optional*): Data sets by modality; without it those that the report names, where they lie as
            it says: seen from its folder, or from the working directory.

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
        import matplotlib

        from neural_clip.gallery.panels import draw_panels

        with matplotlib.rc_context({"text.parse_math": False}):  # a dollar in a name is no formula
            panels, missing = draw_panels(report, folder, data or {})
            drawn = _draw_intervals(report, folder) | panels
    target = folder / "report.md"
    write_whole(target, markdown(report, drawn, missing))
    write_page(target)
    return target
