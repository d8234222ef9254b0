"""What a report says first: what was decoded, how well, and beside what. Every number is read from `report.json`."""

from __future__ import annotations

from neural_clip.report.tables import known_ceiling, label, method_name, p_value, percent

SIGNIFICANT = 0.05  # of p, above which a score is not told from chance
CHANCE_TEXT = "Chance is what guessing reaches in the same gallery."
CEILING_TEXT = (
    "The ceiling is what an observer reaches who knows how the recordings were simulated. Recordings of people have "
    "no known ceiling."
)


def summary(report: dict) -> str:
    """Sentences on each modality, on conversion, and on what the scores stand beside.

    Args:
        report (`dict`): What `report.json` holds, with values that are safe in Markdown.

    Returns:
        `str`: A list in Markdown, and a paragraph.
    """
    lines = [f"* {_decoding(report, modality)}" for modality in report["decoding"]]
    if converted := _conversion(report):
        lines.append(f"* {converted}")
    ceilings = [known_ceiling(part["ceiling"], "two_way") for part in report["decoding"].values()]
    known = any(ceiling is not None for ceiling in ceilings)
    return "\n".join(lines) + f"\n\n{CHANCE_TEXT}" + (f" {CEILING_TEXT}" if known else "")


def best_baseline(report: dict, modality: str) -> dict | None:
    """The row of the baseline with the highest 2-way score in single trials, or `None` where none was computed."""
    checkpoints = {part["name"] for part in report["checkpoints"]}
    rows = [
        row
        for row in report["decoding"][modality]["rows"]
        if row["aggregation"] == "single trial"
        and row["method"] not in checkpoints
        and "part_of" not in row
        and "not_computed" not in row
    ]
    return max(rows, key=lambda row: row["two_way"], default=None)


def _decoding(report: dict, modality: str) -> str:
    """How well the images that were seen were found."""
    row, data = report["decoding"][modality]["rows"][0], report["data"][modality]
    image = "category" if data["category_level"] else "image"
    n_subjects = len(row["subjects"])
    low_high = row["two_way_interval"]
    interval = f"95 % interval {percent(low_high[0])} to {percent(low_high[1])}, " if low_high else ""
    ceiling = known_ceiling(report["decoding"][modality]["ceiling"], "two_way")
    known = f", ceiling {percent(ceiling)}" if ceiling is not None else ""
    return " ".join(
        [
            f"**{label(report, modality)}**: {row['n_queries']} recordings of {n_subjects} "
            f"subject{'s' * (n_subjects != 1)}, {row['gallery_size']} {_plural(image)}.",
            f"The right {image} comes first for {percent(row['top1'])} % of them (chance "
            f"{percent(row['chance_top1'])}).",
            f"It is nearer than another {image} in {percent(row['two_way'])} % of pairs "
            f"({interval}chance 50.0{known}).",
            *([_not_above_chance(row)] if row["two_way_p"] >= SIGNIFICANT else []),
            _beside_baseline(report, modality),
        ]
    ).rstrip()


def _plural(noun: str) -> str:
    """More than one of them."""
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def _not_above_chance(row: dict) -> str:
    """What a score says that guessing reaches too."""
    return f"Guessing reaches that too (p {p_value(row['two_way_p'])}): nothing was shown to be decoded."


def _beside_baseline(report: dict, modality: str) -> str:
    """Ahead of the best baseline, behind it, or neither."""
    baseline = best_baseline(report, modality)
    if baseline is None:
        return "No baseline was computed."
    name = f"the best baseline, {method_name(baseline['method'])} ({percent(baseline['two_way'])} %)"
    for found in report["comparisons"]:
        if (found["task"], found["score"], found["modalities"]) != ("decoding", "two_way", [modality]):
            continue
        if found["other"] == baseline["method"]:
            low, high = found["interval"]
            where = "ahead of" if low > 0 else "behind" if high < 0 else "not told apart from"
            points = f"{100 * found['difference']:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
            return f"This is {where} {name}: {points}."
    return f"Compare {name}."


def _conversion(report: dict) -> str:
    """The best and the worst direction of the first checkpoint."""
    first = report["checkpoints"][0]["name"]
    parts = [part for part in report["conversion"] if part["method"] == first]
    if not parts:
        return ""
    ends = [choose(parts, key=lambda part: part["two_way"]) for choose in (max, min)]
    told = [f"{percent(part['two_way'])} % ({label(report, part['source'], part['target'])})" for part in ends]
    between = told[0] if len(parts) == 1 else f"{told[1]} to {told[0]}"
    return (
        "**Conversion**: the image behind the nearest recording of the other modality resembles the query's image "
        f"more than another image does, in {between} of pairs (chance 50.0)."
    )
