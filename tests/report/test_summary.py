"""The summary says what the numbers say."""

import copy
import html
import re

import pytest
from markdown_it import MarkdownIt

from neural_clip.report.summary import best_baseline, summary
from neural_clip.report.text import markdown
from neural_clip.report.write import read_report, summary_lines


@pytest.fixture
def report(output_dir):
    return copy.deepcopy(read_report(output_dir))


def line_of(report, modality):
    place = list(report["decoding"]).index(modality)
    return summary(report).splitlines()[place]


def test_numbers_are_those_of_the_report(report):
    row = report["decoding"]["eeg"]["rows"][0]
    low, high = row["two_way_interval"]
    line = line_of(report, "eeg")
    assert line.startswith("* **EEG simulated**: ")
    assert f"{row['n_queries']} recordings of {len(row['subjects'])} subjects, {row['gallery_size']} images." in line
    assert f"{100 * row['top1']:.1f} % of them (chance {100 * row['chance_top1']:.1f})" in line
    assert f"{100 * row['two_way']:.1f} % of pairs (95 % interval {100 * low:.1f} to {100 * high:.1f}, chance" in line


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ([0.01, 0.03], "This is ahead of the best baseline"),
        ([-0.03, -0.01], "This is behind the best baseline"),
        ([-0.01, 0.03], "This is not told apart from the best baseline"),
    ],
)
def test_beside_the_best_baseline(report, interval, words):
    rows = report["decoding"]["eeg"]["rows"]
    names = [row["method"] for row in rows if "not_computed" not in row and "ridge" in row["method"]]
    for row in rows:
        if row["method"] in names:
            row["two_way"] = 0.9 if row["method"] == names[-1] else 0.6
        if row["method"] == "closed form":
            row["two_way"] = 0.5
    found = {
        "task": "decoding",
        "score": "two_way",
        "modalities": ["eeg"],
        "method": "neural_clip",
        "other": names[-1],
    }
    others = [part for part in report["comparisons"] if part["modalities"] != ["eeg"]]
    report["comparisons"] = [{**found, "difference": 0.02, "interval": interval}, *others]
    assert best_baseline(report, "eeg")["method"] == names[-1]
    low, high = (f"{100 * end:+.1f}" for end in interval)
    assert f"{words}, {names[-1]} (90.0 %): +2.0 points [{low}, {high}]." in line_of(report, "eeg")


def test_parts_of_a_blend_and_what_was_not_computed_are_no_baselines(report):
    name = report["checkpoints"][0]["name"]
    rows = report["decoding"]["eeg"]["rows"]
    single = {"aggregation": "single trial", "two_way_interval": None}
    rows += [
        {"method": f"{name}, network alone", "part_of": name, "two_way": 1.0, **single},
        {"method": "too large", "not_computed": "It is too large.", "two_way": 1.0, **single},
    ]
    assert "ridge" in best_baseline(report, "eeg")["method"] or best_baseline(report, "eeg")["method"] == "closed form"
    report["decoding"]["eeg"]["rows"] = rows[:1]
    assert best_baseline(report, "eeg") is None and line_of(report, "eeg").endswith("No baseline was computed.")
    assert [kind for _, _, _, kind in summary_lines(report, "eeg") if kind == "baseline"] == []


def test_what_guessing_reaches_too_is_no_success(report):
    assert "nothing was shown to be decoded" not in summary(report)
    report["decoding"]["fmri"]["rows"][0]["two_way_p"] = 0.2
    assert "Guessing reaches that too (p 0.200): nothing was shown to be decoded." in line_of(report, "fmri")
    assert "nothing was shown to be decoded" not in line_of(report, "eeg")


def test_one_subject_category_level_and_no_interval(report):
    row = report["decoding"]["eeg"]["rows"][0]
    row["subjects"] = {"sub-01": next(iter(row["subjects"].values()))}
    row["two_way_interval"] = None
    report["data"]["eeg"]["category_level"] = True
    line = line_of(report, "eeg")
    assert (
        " of 1 subject, " in line and " categories. The right category comes first" in line and "interval" not in line
    )


def test_best_and_worst_conversion(report):
    first = report["checkpoints"][0]["name"]
    scores = {(p["source"], p["target"]): p["two_way"] for p in report["conversion"] if p["method"] == first}
    low, high = (f"{100 * choose(scores.values()):.1f} % (" for choose in (min, max))
    last = [line for line in summary(report).splitlines() if line.startswith("* **Conversion**")]
    assert len(last) == 1 and low in last[0] and high in last[0]
    report["conversion"] = []
    assert "Conversion" not in summary(report)


def test_each_modality_has_a_picture_whose_text_says_what_it_shows(output_dir, report):
    text = (output_dir / "report.md").read_text()
    for modality in report["decoding"]:
        row = report["decoding"][modality]["rows"][0]
        assert (output_dir / "pictures" / f"summary_{modality}.png").is_file()
        line = next(line for line in text.splitlines() if line.endswith(f"(pictures/summary_{modality}.png)"))
        assert f"{row['two_way']:.3f}" in line and "chance 0.500" in line and "simulated" in line


@pytest.mark.parametrize("title", ["a](/etc/passwd) ![x", "\\[x](y)", "`a` *b*", "]", "[", "<img src=x>"])
def test_names_stay_text_in_the_texts_of_pictures(report, title):
    body = MarkdownIt().render(markdown(report, {}, summaries={title: "pictures/x.png"}))
    assert re.findall('<img src="([^"]*)" alt="([^"]*)"', body) == [("pictures/x.png", html.escape(title))]
