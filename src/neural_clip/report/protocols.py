"""Tables of protocols that go person by person, and of what was published beside them."""

from __future__ import annotations

from collections.abc import Callable

from neural_clip.report.tables import Table, label, method_name, p_value, percent, percent_ends, score, with_interval

BY_PERSON_TEXT = (
    "Scores are means over people. The first interval resamples images, with these people held fixed; *people drawn* "
    "resamples people too. `p`: 1,000 exchanges of images (at category level of labels within a person), by the 2-way "
    "score, with these people held fixed. A mean recording is averaged before the model sees it (for linear baselines "
    "that is the mean of their predictions). Exact images and concept templates are different tasks; so are single "
    "recordings and means."
)
PUBLISHED_TEXT = (
    "Published scores are of mean recordings, averaged over people. Compare rows of the same gallery alone, and "
    "people who were as new to the model. Where the checkpoint was chosen on the test images, the score is the best "
    "of many looks at the test, and higher than one look gives."
)


def by_person_table(report: dict) -> Table:
    """Each method, kind of queries and gallery: mean over people."""
    head = ["recordings", "method", "queries", "gallery", "top-1 % [95 % CI]", "people drawn", "top-5 %", "chance %"]
    head += ["2-way [95 % CI]", "p", "people"]
    rows = []
    for modality, found in report["protocol"]["by_person"].items():
        for row in found:
            cells = [label(report, modality), method_name(row["method"]), row["queries"]]
            cells.append(f"{row['gallery_size']} {row['gallery']}")
            cells.append(percent(row["top1"]) + percent_ends(row["top1_interval"]))
            cells += [percent_ends(row["top1_interval_people_drawn"]).strip() or "-", percent(_top5(row, "top5"))]
            cells.append(f"{percent(row['chance_top1'])} / {percent(_top5(row, 'chance_top5'))}")
            cells += [with_interval(row["two_way"], row["two_way_interval"]), p_value(row.get("two_way_p"))]
            rows.append([*cells, str(len(row["people"]))])
    return head, rows


def people_table(report: dict) -> Table:
    """Each person by the first checkpoint."""
    head = ["recordings", "person", "queries", "gallery", "top-1 %", "top-5 %", "2-way", "p"]
    rows = []
    first = report["checkpoints"][0]["name"]
    for modality, found in report["protocol"]["by_person"].items():
        for row in (row for row in found if row["method"] == first):
            for person, scores in row["people"].items():
                cells = [label(report, modality), person, row["queries"], f"{row['gallery_size']} {row['gallery']}"]
                cells += [percent(scores["top1"]), percent(_top5(row, "top5", scores)), score(scores["two_way"])]
                rows.append([*cells, p_value(scores.get("two_way_p"))])  # reports of before have none
    return head, rows


def published_table(published: list[dict]) -> Table:
    """What was published, and what chose the checkpoints."""
    head = ["published", "corpus", "people", "gallery", "top-1 %", "top-5 %", "checkpoint chosen by"]
    head += ["on test images", "read in"]
    rows = []
    for entry in published:
        said = {True: "yes", False: "no", None: "not known"}[entry["on_test_images"]]
        cells = [entry["name"], entry["corpus"], entry["people"], entry["gallery"], percent(entry["top1"])]
        rows.append([*cells, percent(entry["top5"]), entry["chosen_by"], said, entry["source"]])
    return head, rows


def _others(least: int, most: int) -> str:
    """How many images a template is the mean of."""
    images = "image" if most == 1 else "images"
    return f"{least if least == most else f'{least} to {most}'} other {images} each"


def protocol_sections(report: dict) -> list[str | Callable]:
    """Conditions and tables of a protocol that goes person by person; nothing for others."""
    protocol = report["protocol"]
    if "by_person" not in protocol:
        return []
    lines = []
    for modality, made in protocol["templates"].items():
        counts = _others(made["least"], made["most"])
        simulated = ", simulated" if made["simulated"] else ""
        lines.append(f"* {label(report, modality)}: templates are means of {counts} ({made['corpus']}{simulated}).")
    lines += [f"* {method_name(entry['name'])}: chosen by {entry['chosen_by']}." for entry in report["checkpoints"]]
    found: list[str | Callable] = ["\n".join(lines), by_person_table, BY_PERSON_TEXT, people_table]
    if protocol["published"]:
        found += [lambda _: published_table(protocol["published"]), PUBLISHED_TEXT]
    return found


def _top5(row: dict, name: str, scores: dict | None = None) -> float | None:
    """Top-5, or nothing where the list is as long as the gallery."""
    return None if row["gallery_size"] <= 5 else (row if scores is None else scores)[name]
