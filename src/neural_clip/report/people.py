"""Tables of people who were left out one after the other, read from `people.json`."""

from __future__ import annotations

from collections.abc import Sequence

from neural_clip.markup import markdown_values
from neural_clip.report.protocols import PUBLISHED_TEXT, published_table
from neural_clip.report.tables import (
    Table,
    as_markdown,
    as_text,
    method_name,
    p_value,
    percent,
    percent_ends,
    with_interval,
)

TEXT = (
    "Each person was scored by a model that was trained and chosen on recordings of the others alone, through the "
    "mean of their alignment layers; baselines were fitted on the others too. Recordings were scaled as the data set "
    "was prepared, which may use the person's own recordings, never their labels. Intervals of a person resample "
    "images; those of means are over people (Student's t) with the images held fixed, and rest on as few numbers "
    "as there are people. `p`, of the 2-way score: of a person 1,000 exchanges of images; of a mean a "
    "one-sided t-test against chance over people. Models of two folds share most of their training people, so that "
    "intervals of means are a little too narrow, and `p` of means too small."
)


def people_table(record: dict) -> Table:
    """Each person by the model, the mean over people, the same of baselines, and chance."""
    head = ["queries", "method", "person", "n", "gallery", "top-1 % [95 % CI]", "top-5 %", "2-way [95 % CI]", "p"]
    rows: list[list[str]] = []
    ours = record["rows"][0]["method"]
    for row in (row for row in record["rows"] if row["method"] == ours):
        of_people = row["people"].items()
        rows += [
            [row["queries"], method_name(ours), person, *_cells(own, row["gallery"]), p_value(own.get("two_way_p"))]
            for person, own in of_people
        ]
        beside = [
            other
            for other in record["rows"]
            if (other["queries"], other["gallery"]) == (row["queries"], row["gallery"])
        ]
        for other in beside:
            rows.append(
                [row["queries"], method_name(other["method"]), _mean_of(other), *_mean_cells(other), _p_of_mean(other)]
            )
        chance = {name: row[f"chance_{name}"] for name in ("top1", "top5", "two_way")}
        rows.append([row["queries"], "chance", "", "", *_mean_cells(row | chance, interval=False)[1:], ""])
    return head, rows


def baselines_table(record: dict) -> Table:
    """Top-1 of each person by each method."""
    methods = list(dict.fromkeys(row["method"] for row in record["rows"]))
    head = ["queries", "gallery", "person", *(f"{method_name(name)}, top-1 %" for name in methods)]
    rows = []
    for queries, gallery in dict.fromkeys((row["queries"], row["gallery"]) for row in record["rows"]):
        own = {row["method"]: row for row in record["rows"] if (row["queries"], row["gallery"]) == (queries, gallery)}
        for person in record["people"]:
            found = [own[name]["people"][person]["top1"] if name in own else None for name in methods]
            rows.append([queries, gallery, person, *map(percent, found)])
    return head, rows


def people_text(record: dict) -> str:
    """`people.md`: what was done, the tables, and what was published."""
    record = markdown_values(record)
    simulated = "**SIMULATED recordings: nobody was recorded.**" if record["simulated"] else ""
    told = "\n".join(
        f"* {person}: {record['conditions'][person]}; trained on {', '.join(own['trained_on'])}; chosen by "
        f"{own['chosen_by']}."
        for person, own in record["people"].items()
    )
    parts = [f"# {_title(record)}", simulated, record["meaning"], as_markdown(people_table(record)), TEXT]
    parts += ["## Each person by each method", as_markdown(baselines_table(record)), "## People", told]
    parts.append("\n".join(f"* {name}: not computed. {why}" for name, why in record["not_computed"].items()))
    if record["published"]:
        parts += ["## Published scores", as_markdown(published_table(record["published"])), PUBLISHED_TEXT]
    return "\n\n".join(part for part in parts if part) + "\n"


def print_people(record: dict) -> None:
    """Print the table."""
    print("\n".join([_title(record), as_text(people_table(record))]))


def _title(record: dict) -> str:
    simulated = "SIMULATED recordings, " if record["simulated"] else ""
    images = sorted({own["gallery_size"] for own in record["rows"][0]["people"].values()})
    sizes = " to ".join(map(str, dict.fromkeys((images[0], images[-1]))))
    return f"Leave one person out: {record['data']['corpus']}, {simulated}{sizes} images"


def _cells(row: dict, gallery: str) -> list[str]:
    """Sizes and scores of a person."""
    top5 = percent(None if row["gallery_size"] <= 5 else row["top5"])
    scores = [percent(row["top1"]) + percent_ends(row["top1_interval"]), top5]
    sizes = [str(row["n_queries"]), f"{row['gallery_size']} {gallery}"]
    return [*sizes, *scores, with_interval(row["two_way"], row["two_way_interval"])]


def _mean_of(row: dict) -> str:
    return f"mean of {len(row['people'])}"


def _p_of_mean(row: dict) -> str:
    """The p-value of a mean over people, or why there is none; records of before have none."""
    if "two_way_p" in row and row["two_way_p"] is None:
        return "none: too few people" if row["two_way_interval"] is None else "none: equal scores"
    return p_value(row.get("two_way_p"))


def _mean_cells(row: dict, *, interval: bool = True) -> list[str]:
    """Sizes and scores over people."""
    own: Sequence[dict] = list(row["people"].values())
    ends = {f"{name}_interval": row[f"{name}_interval"] if interval else None for name in ("top1", "two_way")}
    size = {"n_queries": sum(each["n_queries"] for each in own), "gallery_size": max(e["gallery_size"] for e in own)}
    return _cells(row | ends | size, row["gallery"])
