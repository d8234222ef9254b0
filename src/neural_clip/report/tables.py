"""Tables of an evaluation, read from `report.json`; nothing is computed anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import factorial
from pathlib import Path
from textwrap import fill

from neural_clip.files.places import place_line
from neural_clip.markup import one_line
from neural_clip.prepared.modalities import MODALITIES, kind_of, title_of

SCORES = {"two_way": "2-way", "top1": "top-1"}
COLUMNS = 110  # of a terminal
WIDE = 0.3  # an interval of the 2-way score that says little, where chance and perfect are 0.5 apart
Table = tuple[list[str], list[list[str]]]


def score(value: float | None) -> str:
    """Share with three digits, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def p_value(value: float | None) -> str:
    """p-value with three digits, or a dash; smaller ones are not called zero."""
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def percent(value: float | None) -> str:
    """Share in percent with one digit, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """Score and its 95 % interval."""
    return score(value) + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def percent_ends(interval: Sequence[float] | None) -> str:
    """Ends of an interval in percent, behind a score; nothing where there is none."""
    return f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""


def label(report: dict, *modalities: str) -> str:
    """Modality, marked when simulated or at category level: `"EEG simulated"`, `"EEG -> MEG simulated"`."""
    text = " -> ".join(title_of(name) for name in modalities)
    if any(name in report["simulated_modalities"] for name in modalities):
        text += " simulated"
    if any(report["data"][name]["category_level"] for name in modalities):
        text += " (category level)"
    return text


def method_name(method: str) -> str:
    """Method as tables show it."""
    return "neural_clip (ours)" if method == "neural_clip" else method


def scope_notes(report: dict) -> list[str]:
    """Who was scored as a new subject, and what was searched beside the images that were shown."""
    notes = [
        f"{label(report, modality)}, {method_name(entry['name'])}: {made['said']} Rows were interpolated as they are "
        "scaled; baselines and controls read the channels that were recorded."
        for entry in report["checkpoints"]
        for modality, made in entry.get("montage", {}).items()
    ]
    for modality, data in report["data"].items():
        name, unseen = label(report, modality), data.get("unseen_subjects", [])
        scored = report["decoding"][modality]["rows"][0]["subjects"]
        if unseen:
            notes.append(
                f"{name}: {', '.join(unseen)}: never seen in training. Their recordings go through the average "
                "subject, the mean of the alignment layers of those who were."
            )
        if data.get("subject") and (seen := [subject for subject in scored if subject not in unseen]):
            notes.append(
                f"{name}: {', '.join(seen)}: seen in training, but scored by the average subject, not by their own "
                "layers."
            )
        if fitted := data.get("seen_by_closed_form"):  # people; `True` in reports of before
            whose = "" if fitted is True or set(fitted) == set(scored) else f" of {', '.join(fitted)}"
            before = "" if data.get("subject") else "; the model card holds its validation scores of before"
            notes.append(
                f"{name}: the closed form in {report['checkpoints'][0]['name']} was fitted on training and validation "
                "recordings, after it had been chosen by some that it had not learnt from. These scores are of "
                f"recordings that it has seen{', those' + whose if whose else ''}{before}."
            )
        notes += _seen_notes(report, modality)
        if own := data.get("scaled_by_own_rows"):
            notes.append(
                f"{name}: {', '.join(own)}: without training recordings in the data set, so scaled by mean and "
                "deviation of all their own recordings (no label takes part)."
            )
        if gallery := data.get("gallery"):
            of_training = f"; of the training split: {gallery['trained']}" if gallery.get("trained") else ""
            notes.append(
                f"{name}: searched are {gallery['images']} images ({gallery['name']}); shown: {gallery['shown']}"
                f"{of_training}. "
                "The others may be told from these by more than what was seen: by where they come from, or as images "
                "that were trained on. The control with shuffled labels searches the same gallery, and `p` exchanges "
                "shown images alone."
            )
    return notes


def _seen_notes(report: dict, modality: str) -> list[str]:
    """What a checkpoint was trained or chosen on in other corpora; nothing for reports of before."""
    notes = []
    for name, seen in report["data"][modality].get("seen_in_training", {}).items():
        said = f"{label(report, modality)}, {method_name(name)}"
        if not seen["known"]:
            notes.append(
                f"{said}: the record of the checkpoint does not list the images that it was trained on, so it is not "
                "known which scored images it has seen in other corpora."
            )
        elif seen["foreign"]:
            notes.append(
                f"{said}: {seen['images']} of the {seen['scored_images']} scored images and {seen['concepts']} of the "
                f"{seen['scored_concepts']} scored concepts were among its training or validation images "
                f"({', '.join(seen['by'])}). What is scored of such images is memory as well."
            )
    return notes


def size_notes(report: dict) -> list[str]:
    """What so few images, or so wide an interval, allow to say."""
    notes = []
    for modality, part in report["decoding"].items():
        row, name = part["rows"][0], label(report, modality)
        unit, interval = row["resampled_unit"], row["two_way_interval"]
        count = row["n_queries"] if unit == "recording" else row["n_unique_images"]
        counted = f"{count} {unit}{'s' * (count != 1)}"
        if interval is None:
            few = unit == "image" and count <= 20  # more have an interval
            least = f"; `p` cannot be smaller than about {1 / factorial(count):.2g}" if few else ""
            notes.append(f"{name}: too few for an interval: {counted}{least}. Such a score shows nothing.")
        elif interval[1] - interval[0] > WIDE:
            notes.append(
                f"{name}: with {counted} the interval of the 2-way score reaches from {interval[0]:.2f} to "
                f"{interval[1]:.2f}. Scores that differ by less cannot be told apart; more {unit}s are needed."
            )
    return notes


def decoding_table(report: dict) -> Table:
    """Table 1: single-trial decoding by checkpoints and baselines, chance, ceiling and the paper's figures."""
    head = ["recordings", "method", "top-1 %", "top-5 %", "cls-1 %", "cls-5 %", "2-way [95 % CI]", "p"]
    rows = []
    for modality, part in report["decoding"].items():
        singles = [row for row in part["rows"] if row["aggregation"] == "single trial"]
        for row in singles:
            rows.append([label(report, modality), *_decoding_cells(row)])
        ours = singles[0]
        chance = [percent(_top(ours, f"chance_{name}", name)) for name in ("top1", "top5", "class_top1", "class_top5")]
        rows.append([label(report, modality), "chance", *chance, score(0.5), ""])
        known = known_ceiling(part["ceiling"], "two_way")
        if known is not None:
            rows.append([label(report, modality), "known-model ceiling", "", "", "", "", score(known), ""])
        if paper := part["paper"]:  # there is none of a modality that it did not measure
            figures = [percent(paper["top1"]), percent(paper["top5"]), "-", "-", score(paper["two_way"]), ""]
            rows.append([f"{MODALITIES[kind_of(modality)].title} {paper['corpus']}", "the paper", *figures])
    return head, rows


def _decoding_cells(row: dict) -> list[str]:
    """Method and scores of one row; a baseline that was not computed has dashes."""
    method = method_name(row["method"])
    if "not_computed" in row:
        return [method, "-", "-", "-", "-", "not computed", ""]
    tops = [percent(_top(row, name, name)) for name in ("top1", "top5", "class_top1", "class_top5")]
    return [method, *tops, with_interval(row["two_way"], row["two_way_interval"]), p_value(row["two_way_p"])]


def _top(row: dict, key: str, name: str) -> float | None:
    """Value of a top-k score, or nothing where the list is as long as the gallery and every model scores 1."""
    return None if name.endswith("5") and row["gallery_size"] <= 5 else row.get(key)


def known_ceiling(ceiling: object, key: str) -> float | None:
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
        sizes += [str(len(row["subjects"])), report["split"], row["resampled_unit"], str(data["split_unit"])]
        rows.append([label(report, modality), *sizes])
    return head, rows


def confidence_table(report: dict) -> Table:
    """How sure methods are of first hits, and how often these are right; nothing where no checkpoint says."""
    head = ["recordings", "method", "right %", "confidence %", "ECE [95 % CI]", "by chance", "bins"]
    head += ["n", "gallery"]
    rows = []
    for modality, records in report.get("confidence", {}).items():  # reports of before have none
        for record in records:
            if "not_computed" not in record:
                cells = [method_name(record["method"]), percent(record["right"]), percent(record["mean_confidence"])]
                cells += [with_interval(record["ece"], record["ece_interval"]), score(record["ece_by_chance"])]
                cells += [str(record[name]) for name in ("n_bins", "n_queries", "gallery_size")]
                rows.append([label(report, modality), *cells])
    return head, rows


def encoding_table(report: dict) -> Table:
    """Encoding: image to recordings, scored by the images behind them; ceiling and paper beside the first method."""
    head = ["recordings", "method", "2-way [95 % CI]", "p", "same image % (chance)", "ceiling", "the paper"]
    rows = []
    for modality, part in report["encoding"].items():
        known = known_ceiling(report["decoding"][modality]["ceiling"], "two_way_encoding")
        beside = [score(known), score(part["paper"]["two_way"]) if part["paper"] else "-"]
        for row in part["rows"]:
            cells = [method_name(row["method"]), *_two_way_cells(row)]
            cells.append(f"{percent(row['same_image'])} ({percent(row['chance_same_image'])})")
            rows.append([label(report, modality), *cells, *(beside if row is part["rows"][0] else ["", ""])])
    return head, rows


def conversion_table(report: dict) -> Table:
    """Table 2: conversions, plain and normalised; the paper's figures beside the first method."""
    head = ["conversion", "method", "2-way [95 % CI]", "p", "normalised [95 % CI]", "paper (norm.)"]
    rows = []
    for part in report["conversion"]:
        cells = [method_name(part["method"]), *_two_way_cells(part)]
        cells.append(with_interval(part["normalised"], part["normalised_interval"]))
        first = part["method"] == report["checkpoints"][0]["name"]
        known = part["paper"]
        paper = f"{score(known['two_way'])} ({score(known['normalised'])})" if known else "-"
        rows.append([label(report, part["source"], part["target"]), *cells, paper if first else ""])
    return head, rows


def ways_table(report: dict) -> Table:
    """Conversion by each of its ways, normalised by the target and by the weaker of source and target."""
    head = ["conversion", "method", "via", "2-way [95 % CI]", "p", "normalised [95 % CI]"]
    head += ["by the weaker [95 % CI]", "weaker (2-way)"]
    rows = []
    for part in report["conversion"]:
        weaker = title_of(part["weaker"]) if "weaker" in part else ""
        for way in part.get("ways", []):  # reports of before have one way
            cells = [label(report, part["source"], part["target"]), method_name(part["method"]), way["via"]]
            cells += _two_way_cells(way)
            for name in ("normalised", "normalised_by_weaker"):
                cells.append(with_interval(way[name], way[f"{name}_interval"]))
            rows.append([*cells, f"{weaker} ({score(part['weaker_two_way'])})"])
    return head, rows


def direct_table(report: dict) -> Table:
    """Direct forms: the query looks for its own image among mean recordings."""
    head = ["query -> recordings", "method", "top-1 % [95 % CI]", "top-5 %", "chance %", "cls-1 % (chance)"]
    head += ["2-way [95 % CI]", "p", "queries", "gallery"]
    found = [
        (f"image -> {label(report, modality)}", row)
        for modality, part in report["encoding"].items()
        for row in part["rows"]
        if row["direct"]
    ]
    found += [(label(report, part["source"], part["target"]), part) for part in report["conversion"] if part["direct"]]
    rows = []
    for name, row in found:
        direct = row["direct"]
        tops = [percent(direct["top1"]) + percent_ends(direct.get("top1_interval"))]
        tops.append(percent(_top(direct, "top5", "top5")))
        tops.append(" / ".join(percent(_top(direct, f"chance_{key}", key)) for key in ("top1", "top5")))
        named = direct.get("class_top1") is not None  # reports of before, and images as queries, have none
        tops.append(f"{percent(direct['class_top1'])} ({percent(direct['chance_class_top1'])})" if named else "-")
        same = row.get("same_pictures") or {}  # of conversion, where both corpora share a database
        sizes = [f"{direct['n_queries']}{of_splits(same.get('query_splits'))}"]
        sizes.append(f"{direct['gallery_size']} images{of_splits(same.get('gallery_splits'))}")
        rows.append([name, method_name(row["method"]), *tops, *_two_way_cells(direct), *sizes])
    return head, rows


def of_splits(counts: Mapping[str, int] | None) -> str:
    """Of which splits images are, in brackets; nothing where it is not told."""
    if not counts:
        return ""
    return f" ({', '.join(counts if len(counts) == 1 else (f'{n} {name}' for name, n in counts.items()))})"


def comparison_table(report: dict) -> Table:
    """Differences of the first checkpoint to every other method, on the same queries."""
    head = ["recordings", "task", "score", "method", "minus", "difference [95 % CI]", "p", "queries"]
    rows = []
    for part in report["comparisons"]:
        low, high = part["interval"]
        cells = [part["task"], SCORES[part["score"]], method_name(part["method"]), method_name(part["other"])]
        cells += [f"{part['difference']:+.3f} [{low:+.3f}, {high:+.3f}]", p_value(part["p"]), str(part["n_queries"])]
        rows.append([label(report, *part["modalities"]), *cells])
    return head, rows


def _two_way_cells(row: dict) -> list[str]:
    """2-way score with interval, and p."""
    return [with_interval(row["two_way"], row["two_way_interval"]), p_value(row["two_way_p"])]


def aggregation_table(report: dict) -> Table:
    """Decoding at every level of aggregation, in both directions, and for other subjects."""
    head = ["recordings", "method", "aggregation", "queries", "top-1 %", "top-5 %", "2-way [95 % CI]"]
    head += ["[95 % CI, subjects drawn]", "p", "2-way image to recording"]
    rows = []
    for modality, part in report["decoding"].items():
        for row in part["rows"]:
            if "not_computed" not in row:
                cells = [method_name(row["method"]), row["aggregation"], str(row["n_queries"])]
                cells += [percent(_top(row, name, name)) for name in ("top1", "top5")]
                cells.append(with_interval(row["two_way"], row["two_way_interval"]))
                drawn = row.get("two_way_interval_subjects_drawn")
                cells += [f"[{drawn[0]:.3f}, {drawn[1]:.3f}]" if drawn else "-", p_value(row["two_way_p"])]
                other = with_interval(row["two_way_image_to_neural"], row["two_way_image_to_neural_interval"])
                rows.append([label(report, modality), *cells, other])
    return head, rows


def controls_table(report: dict) -> Table:
    """Controls beside the scores; those that are no score stand in the text."""
    head = ["recordings", "control", "decoder", "2-way [95 % CI]", "p", "queries"]
    rows = []
    for modality, records in report["controls"].items():
        for record in records:
            cells = [label(report, modality), record["check"], record["by"]]
            if "not_computed" in record:
                rows.append([*cells, "not computed", "", ""])
            elif "two_way" in record:
                rows.append([*cells, *_two_way_cells(record), str(record["n_queries"])])
    return head, rows


def protocol_table(report: dict) -> Table:
    """The scores that the protocol puts first."""
    head = ["recordings", "method", "score", "value [95 % CI]", "chance"]
    rows = []
    found = [((name,), entries) for name, entries in report["protocol"]["decoding"].items()]
    found += [(tuple(pair.split("->")), entries) for pair, entries in report["protocol"]["conversion"].items()]
    for names, entries in found:
        size = report["decoding"][names[0]]["rows"][0]["gallery_size"] if len(names) == 1 else None
        for entry in entries:
            if size is not None and size <= 5 and entry["label"].endswith("top-5"):  # every model scores 1
                continue
            value = with_interval(entry["score"], entry["interval"])
            cells = [method_name(entry["method"]), entry["label"], value, score(entry["chance"])]
            rows.append([label(report, *names), *cells])
    return head, rows


def subjects_table(report: dict) -> Table:
    """Single-trial decoding of each subject."""
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
    head, rows = table[0], [[one_line(cell) for cell in cells] for cells in table[1]]  # names may move the cursor
    widths = [max(len(cells[column]) for cells in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(c, widths, strict=True)).rstrip() for c in (head, *rows)
    ]
    return "\n".join([lines[0], "-" * len(max(lines, key=len)), *lines[1:]])


def print_tables(report: dict, folder: str | Path | None = None) -> None:
    """Print the tables to stdout, at most `COLUMNS` wide, and where everything lies.

    Args:
        report (`dict`): What `report.json` holds.
        folder (`str` or `Path`, *optional*): Where the report was written.
    """
    simulated = " of SIMULATED recordings" if report["simulated"] else ""
    parts = [f"Table 1. Decoding{simulated}, {report['split']} split, single trial", as_text(decoding_table(report))]
    parts += [
        line for note in (*scope_notes(report), *size_notes(report)) for line in ("", fill(one_line(note), COLUMNS))
    ]
    parts += ["", f"Galleries{simulated}", as_text(sizes_table(report))]
    if (found := confidence_table(report))[1]:
        parts += ["", f"Confidence{simulated}: expected calibration error (ECE)", as_text(found)]
    parts += ["", f"Encoding{simulated}, image -> recording", as_text(encoding_table(report))]
    if report["conversion"]:
        parts += ["", f"Table 2. Conversion{simulated}", as_text(conversion_table(report))]
    if any(part["direct"] for part in report["conversion"]):
        exact = as_text(direct_table({**report, "encoding": {}}))
        parts += ["", f"Exact conversion{simulated}: the same picture in the other modality", exact]
    if found := report["protocol"].get("conditions"):
        parts += ["", f"Protocol {report['protocol']['name']}: {'; '.join(found.values())}"]
    if report["category_level"]:
        parts += ["", "Category level: targets and galleries are categories, not images."]
    if folder is not None:
        parts += ["", *_where(Path(folder), report)]
    print("\n".join(parts))


def _where(folder: Path, report: dict) -> list[str]:
    """Files of an evaluation that exist."""
    names = {"report.html": "page", "report.md": "report", "report.json": "numbers", "embeddings.npz": "embeddings"}
    lines = [place_line(text, folder / name) for name, text in names.items() if (folder / name).is_file()]
    lines += [place_line("picture", path) for path in sorted((folder / "pictures").glob("*.png"))]
    return [*lines, *(place_line("checkpoint", part["path"]) for part in report["checkpoints"])]
