"""`report.json` to report.md, report.html and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.evaluation.outputs import EMBEDDINGS_FILE, REPORT_FILE, WEIGHTS, read_report, why_not_of
from neural_clip.files.privacy import found_place
from neural_clip.files.reading import read_json
from neural_clip.files.whole import only_writer, sha256_of, write_whole
from neural_clip.prepared.reader import PreparedSet
from neural_clip.report.conversion import conversion_figure, conversion_text, has_ways
from neural_clip.report.page import write_page
from neural_clip.report.summary import best_baseline
from neural_clip.report.tables import known_ceiling, label, method_name, percent, score
from neural_clip.report.text import WAYS_PICTURE, markdown


def interval_groups(report: dict) -> dict[str, list]:
    """Lines of the pictures of intervals by their title: decoding with baselines and controls, and conversion."""
    checkpoints = {part["name"] for part in report["checkpoints"]}
    decoding = []
    for modality, part in report["decoding"].items():
        lines = [
            (method_name(row["method"]), row["two_way"], row["two_way_interval"],
             "ours" if row["method"] in checkpoints else "part" if "part_of" in row else "baseline")
            for row in part["rows"]
            if row["aggregation"] == "single trial" and "not_computed" not in row
        ]  # fmt: skip
        lines += [
            (f"control: {record['check']}", record["two_way"], record["two_way_interval"], "control")
            for record in report["controls"].get(modality, [])
            if "two_way" in record and "n_repeats" not in record
        ]
        if part["paper"]:
            lines.append((f"the paper, {part['paper']['corpus']}", part["paper"]["two_way"], None, "paper"))
        decoding.append((label(report, modality), lines))
    pairs: dict[str, list[tuple]] = {}
    for record in report["conversion"]:
        lines = pairs.setdefault(label(report, record["source"], record["target"]), [])
        if lines and lines[-1][-1] == "paper":
            lines.pop()  # the paper's figure goes last
        lines.append((method_name(record["method"]), record["two_way"], record["two_way_interval"], "ours"))
        if record["paper"]:
            lines.append(("the paper", record["paper"]["two_way"], None, "paper"))
    conversion = list(pairs.items())
    groups = {"Decoding, single trial, with baselines and controls": decoding, "Conversion": conversion}
    return {title: found for title, found in groups.items() if found}


def summary_lines(report: dict, modality: str) -> list:
    """Lines of a modality's picture in the summary: checkpoints, the best baseline, the ceiling where it is known."""
    checkpoints = {part["name"] for part in report["checkpoints"]}
    part = report["decoding"][modality]
    lines = [
        (method_name(row["method"]), row["two_way"], row["two_way_interval"], "ours")
        for row in part["rows"]
        if row["aggregation"] == "single trial" and row["method"] in checkpoints
    ]
    if baseline := best_baseline(report, modality):
        lines.append((baseline["method"], baseline["two_way"], baseline["two_way_interval"], "baseline"))
    if (ceiling := known_ceiling(part["ceiling"], "two_way")) is not None:
        lines.append(("known-model ceiling", ceiling, None, "ceiling"))
    return lines


def _draw_summaries(report: dict, folder: Path) -> dict[str, str]:
    """A small picture of each modality: title and file name."""
    from neural_clip.report.intervals import NARROW_INCHES, draw_intervals

    drawn = {}
    for modality in report["decoding"]:
        title, name = f"{label(report, modality)}: was the right image nearer?", f"pictures/summary_{modality}.png"
        lines = summary_lines(report, modality)
        draw_intervals([("", lines)], title, 0.5, folder / name, NARROW_INCHES)
        told = ", ".join(f"{method} {score:.3f}" for method, score, _, _ in lines)
        drawn[f"{title} 2-way scores: {told}, chance 0.500"] = name
    return drawn


def _draw_reliability(report: dict, folder: Path) -> dict[str, str]:
    """A small picture of the confidence of each modality: title and file name."""
    from neural_clip.report.reliability import write_reliability

    drawn = {}
    for modality, records in report.get("confidence", {}).items():
        found = [
            {**record, "method": method_name(record["method"])} for record in records if "not_computed" not in record
        ]
        if found:
            title, name = (
                f"{label(report, modality)}: right as often as stated?",
                f"pictures/confidence_{modality}.png",
            )
            write_reliability(found, title, folder / name)
            told = "; ".join(
                f"{record['method']}: mean confidence {percent(record['mean_confidence'])} %, right "
                f"{percent(record['right'])} %, expected calibration error {score(record['ece'])}"
                for record in found
            )
            drawn[f"{title} {told}"] = name
    return drawn


def _draw_ways(report: dict, folder: Path) -> dict[str, str]:
    """The picture of conversion by ways, where the report has them: title and file name."""
    if not has_ways(report):
        return {}
    from neural_clip.report.intervals import write_picture

    write_picture(conversion_figure(report), folder / WAYS_PICTURE)
    return {conversion_text(report): WAYS_PICTURE}


def _draw_intervals(report: dict, folder: Path) -> dict[str, str]:
    """Pictures of the intervals: title and file name."""
    from neural_clip.report.intervals import draw_intervals

    drawn = {}
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
        DataError: If the report cannot be read, or another process writes there.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    read_report(path)  # before a lock is made
    with only_writer(folder / REPORT_FILE):  # no evaluation is written between reading and writing
        report = read_report(path)
        with _right_entries(path, report):
            _compare_checkpoints(report, folder)
            _check_understanding(report, folder / "understanding" / "understanding.json")
            return _write(report, folder, pictures, data or {})


def _write(report: dict, folder: Path, pictures: bool, data: Mapping[str, str | Path | PreparedSet]) -> Path:
    """Write pictures, text and page."""
    drawn: dict[str, str] = {}
    summaries: dict[str, str] = {}
    reliability: dict[str, str] = {}
    missing = "Pictures were not asked for." if not pictures else ""
    if pictures:
        import matplotlib

        from neural_clip.gallery.panels import draw_panels

        reason = why_not_of(report, folder / EMBEDDINGS_FILE)
        with matplotlib.rc_context({"text.parse_math": False}):  # a dollar in a name is no formula
            panels, missing = ({}, f"No pictures: {reason}") if reason else draw_panels(report, folder, data)
            (folder / "pictures").mkdir(parents=True, exist_ok=True)
            summaries, reliability = _draw_summaries(report, folder), _draw_reliability(report, folder)
            drawn = _draw_intervals(report, folder) | _draw_ways(report, folder) | panels
    target = folder / "report.md"
    write_whole(target, markdown(report, drawn, missing, summaries, reliability))
    write_page(target)
    return target


@contextmanager
def _right_entries(path: str | Path, report: dict) -> Iterator[None]:
    """Name the file where an entry is missing or of a wrong type, of a report that no digest vouches for."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, DataError) or "sha256" in report:
            raise
        raise DataError(
            f"'{path}' is damaged: an entry is missing or of a wrong type ({type(error).__name__}: {error}). Run "
            "`neural-clip evaluate` again."
        ) from error


def _compare_checkpoints(report: dict, folder: Path) -> None:
    """Note whether the folder of a checkpoint holds other weights than those that were scored, if it is there."""
    for part in report["checkpoints"]:
        place = found_place(part["path"], folder)
        if part["sha256"]:
            part["changed"] = sha256_of(place.glob(WEIGHTS)) != part["sha256"] if place.is_dir() else None


def _check_understanding(report: dict, path: Path) -> None:
    """Leave out what was learned where the folder beside the report holds another analysis."""
    if found := report.get("understanding"):
        try:
            same = read_json(path, "analysis") == found
        except DataError:
            same = False
        if not same:
            report["understanding"] = {
                "missing": f"Not shown: '{path.parent.name}/{path.name}' is not that of this evaluation, or is "
                "damaged. Run `neural-clip evaluate --understand` again."
            }
