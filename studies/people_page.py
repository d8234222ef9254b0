"""Write docs/studies/new_people.md and its picture from the results of `studies/compare_people.py`.

python studies/people_page.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neural_clip.errors import DataError, run
from neural_clip.files.whole import whole_file, write_whole
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.report.intervals import STYLES
from neural_clip.report.tables import as_markdown, percent, score, with_interval
from results_page import REPOSITORY, Table, in_order, label, over_seeds

FULL, ADAPTED, AVERAGE, RIDGE = "everybody", "adapted", "average subject", "ridge alone"
WORDS = {FULL: "trained with all subjects", ADAPTED: "left out, then adapted", AVERAGE: "left out, average subject",
         RIDGE: "ridge regression alone", "a quarter, with everybody": "a quarter, with all subjects"}  # fmt: skip


def mean(group: Sequence[dict], key: str) -> float:
    """Mean of a number over the records of several seeds."""
    return statistics.fmean(record[key] for record in group)


def share_of_full(group: Sequence[dict], full: dict[int, dict]) -> float:
    """Mean over seeds of the distance from chance as a share of that in training with everybody."""
    shares = [
        (record["two_way"] - record["chance_two_way"]) / (full[record["seed"]]["two_way"] - record["chance_two_way"])
        for record in group
    ]
    return statistics.fmean(shares)


def shown_minutes(group: Sequence[dict]) -> str:
    """Minutes with one digit, or a dash where nobody knows how long a trial is."""
    return "-" if group[0]["minutes"] is None else f"{mean(group, 'minutes'):.1f}"


def people_table(records: Sequence[dict]) -> Table:
    """Scores of each way to use a new subject's recordings, for each modality."""
    head = ["recordings", "subject", "how", "recordings used", "minutes of trials", "seeds"]
    head += ["2-way, mean over seeds [95 % t interval]", "2-way of one seed [95 %, images drawn]", "top-1 %"]
    head += ["share of full training's distance from chance %"]
    rows = []
    for modality in in_order(records, "modality"):
        full = {record["seed"]: record for record in modality if record["how"] == FULL}
        for group in in_order(modality, "how", "share"):
            first = group[0]
            cells = [label(first), first["person"], WORDS.get(first["how"], first["how"])]
            cells += [f"{mean(group, 'recordings'):.0f}", shown_minutes(group)]
            cells += [", ".join(str(record["seed"]) for record in group)]
            cells += [over_seeds([record["two_way"] for record in group])]
            cells += [f"seed {first['seed']}: {with_interval(first['two_way'], first['two_way_interval'])}"]
            rows.append([*cells, percent(mean(group, "top1")), percent(share_of_full(group, full))])
        one = modality[0]
        chance = [score(one["chance_two_way"]), "", percent(one["chance_top1"]), percent(0.0)]
        rows.append([label(one), one["person"], "chance", "", "", "", *chance])
    return head, rows


def draw_people(records: Sequence[dict], twin: str, path: Path) -> None:
    """Draw 2-way accuracy against minutes, a panel a modality, with lines at full training and chance.

    Args:
        records (sequence of `dict`): Of `studies/compare_people.py`; those whose minutes nobody knows are left out.
        twin (`str`): Preset, for the title.
        path (`Path`): PNG file, written aside and renamed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = in_order([record for record in records if record["minutes"] is not None], "modality")
    figure, grid = pyplot.subplots(1, len(panels), figsize=(3.4 * len(panels), 3.2), sharey=True, squeeze=False)
    for axes, group in zip(grid[0], panels, strict=True):
        draw_panel(axes, group)
    grid[0][0].set_ylabel("2-way")
    named = {name: line for axes in grid[0] for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=len(named))
    figure.suptitle(f"A new subject, simulated recordings (twin '{twin}')", fontsize=10, y=1.02)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)


def draw_panel(axes: Any, records: Sequence[dict]) -> None:
    """One modality: each seed a point, their mean a line."""
    for how, kind in ((ADAPTED, "ours"), (RIDGE, "baseline")):
        colour, marker = STYLES[kind]
        fitted = [record for record in records if record["how"] == how]
        if not fitted:
            continue
        groups = in_order(fitted, "share")
        axes.plot([record["minutes"] for record in fitted], [record["two_way"] for record in fitted], marker,
                  color=colour, markersize=3, alpha=0.5)  # fmt: skip
        axes.plot([mean(group, "minutes") for group in groups], [mean(group, "two_way") for group in groups], "-",
                  color=colour, label=WORDS[how])  # fmt: skip
    for how, style, kind in ((FULL, "--", "paper"), (AVERAGE, "-.", "ours")):
        if values := [record["two_way"] for record in records if record["how"] == how]:
            axes.axhline(statistics.fmean(values), linestyle=style, color=STYLES[kind][0], label=WORDS[how])
    axes.axhline(records[0]["chance_two_way"], linestyle=":", color="black", label="chance")
    axes.set_title(f"{MODALITIES[records[0]['modality']].title}, simulated" if records[0]["simulated"]
                   else MODALITIES[records[0]["modality"]].title, fontsize=9)  # fmt: skip
    axes.set_xlabel("minutes of the new subject's trials")
    axes.set_xlim(left=0)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)


HEAD = """# What the recordings of a new subject are worth

This study is closed: it stays reproducible and is not extended. Every number is of **simulated** recordings
([twins.md](../twins.md)) and says nothing about how well real recordings can be decoded.
`python studies/people_page.py` writes the page and its picture from `studies/results/people_*.json`, which
`studies/compare_people.py` writes. No number is typed by hand. Ridge rows are those of version 0.1 and weaker than
today's ([README.md](README.md)).

The last subject of each data set is left out of training. `neural-clip adapt` then fits the alignment layer of that
subject to a random share of the training recordings; the rest of the model stays as it is. Every model is of one
modality. All scores are single trials of that one subject among all images of the split.

- *Minutes of trials*: minutes of the training recordings that were used; an average of repeats counts as often as it
  was averaged. [`known_corpora.py`](../../src/neural_clip/prepared/known_corpora.py) states the seconds of a trial and
  their sources. Set-up, breaks and the validation recordings, on which the epoch is chosen, come on top.
- *Trained with all subjects*: the subject took part in training from the start.
- *A quarter, with all subjects* and *a quarter, alone*: training from the start with a quarter of that subject's
  training recordings, and with all recordings of the other subjects or with none. *Alone* takes as many steps.
- *Ridge regression alone*: per-subject ridge ([evaluation.md](../evaluation.md)) on the same share of that subject's
  recordings as adapting uses, and on no other subject's. With all of them it does not depend on the seed.
- *Share*: (score - chance) / (score of training with all subjects - chance), of each seed, then the mean.
- *t interval*: over seeds of training, of the choice of recordings and of the order of batches, for one subject of one
  twin. It is about repeated training, not about other subjects or images. With one seed there is none.
- *Images drawn*: bootstrap over the images, for the first seed alone."""


def section(results: dict, picture: str) -> str:
    """Everything the page says of one twin."""
    records = results["records"]
    first = [group[0] for group in in_order(records, "modality")]
    galleries = "; ".join(f"{label(r)} {r['n_queries']} queries, {r['gallery_size']} images" for r in first)
    commits = ", ".join(sorted({str(record["commit"]) for record in records}))
    versions = ", ".join(f"{name} {version}" for name, version in records[0]["versions"].items())
    prints = "; ".join(f"{record['modality']} `{record['fingerprint'][:12]}`" for record in first)
    simulated = " (simulated)" if results["simulated"] else ""
    return "\n\n".join([
        f"## Twin `{results['twin']}`{simulated}, recipe `{results['recipe']}`",
        f"![2-way accuracy against minutes of recording, simulated]({picture})",
        f"Split: {results['split']}. {galleries}.",
        as_markdown(people_table(records)),
        f"Made by `{results['command']}` at commit {commits}; {versions}; data {prints}.",
    ])  # fmt: skip


def publish(results_dir: Path, page: Path, picture: Path) -> None:
    """Write the page and a picture of each twin, the first of them at `picture`."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results_dir.glob("people_*.json"))]
    if not found:
        raise DataError(f"'{results_dir}' holds no people_<twin>.json; `studies/compare_people.py` writes them.")
    sections = []
    for number, results in enumerate(found):
        path = picture if number == 0 else picture.with_name(f"{picture.stem}_{results['twin']}{picture.suffix}")
        draw_people(results["records"], results["twin"], path)
        sections.append(section(results, os.path.relpath(path, page.parent)))
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, "\n\n".join([HEAD, *sections]) + "\n")
    print(f"page: {page}")


def main(argv: Sequence[str] | None = None) -> None:
    """Write page and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results-dir", type=Path, default=REPOSITORY / "studies" / "results")
    parser.add_argument("--page", type=Path, default=REPOSITORY / "docs" / "studies" / "new_people.md")
    parser.add_argument("--picture", type=Path, default=REPOSITORY / "docs" / "images" / "new_people.png")
    arguments = parser.parse_args(argv)
    publish(arguments.results_dir, arguments.page, arguments.picture)


if __name__ == "__main__":
    run(main)
