"""What scripts/publish_results.py writes: the table of README.md, the tables of docs/demo.md and docs/studies."""

import json
import re

import pytest

import publish_results
from neural_clip.evaluation.baselines.rows import BASELINES
from paths import REPOSITORY

README, DEMO = REPOSITORY / "README.md", REPOSITORY / "docs" / "demo.md"


def row(method, two_way, aggregation="single trial"):
    interval = [two_way - 0.01, two_way + 0.01]
    return {"method": method, "aggregation": aggregation, "two_way": two_way, "two_way_interval": interval,
            "chance_two_way": 0.5}  # fmt: skip


def report():
    rows = [
        row("ours", 0.7), row("ours", 0.99, "image mean within subject"), row("frozen", 0.98), row("ridge", 0.6),
        row("whitened", 0.65), {"method": "identity", "aggregation": "single trial", "not_computed": "voxels"},
        row("whitened", 0.97, "image mean within subject"),
    ]  # fmt: skip
    return {
        "checkpoints": [{"name": "ours"}, {"name": "frozen"}], "simulated_modalities": ["meg"],
        "data": {"meg": {"category_level": False}}, "decoding": {"meg": {"rows": rows}},
    }  # fmt: skip


def test_the_summary_has_the_first_checkpoint_beside_its_best_baseline():
    head, (cells,) = publish_results.summary_table(report())
    assert len(head) == len(cells)
    assert cells == ["MEG simulated", "0.700 [0.690, 0.710]", "0.650 [0.640, 0.660], whitened", "0.500"]


def table(path, name):
    """Rows of the table between the marks of a name, head and rule left out."""
    text = re.search(rf"<!-- results: {name} -->(.*?)<!-- end -->", path.read_text("utf-8"), re.DOTALL).group(1)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.split("\n") if line.startswith("|")]
    return rows[2:]


def test_the_readme_says_what_the_model_card_was_made_from():
    rows = {cells[0]: cells[1:] for cells in table(README, "demo")}
    source = json.loads((REPOSITORY / "model_cards" / "demo.json").read_text("utf-8"))
    assert set(rows) == {"EEG simulated", "MEG simulated", "fMRI simulated"}
    for name, (ours, _, chance) in rows.items():
        (expected,) = source["report"]["decoding"][name.split()[0].lower()]["rows"]
        low, high = expected["two_way_interval"]
        numbers = [float(number) for number in re.findall(r"\d\.\d+", ours)]
        assert numbers == pytest.approx([expected["two_way"], low, high], abs=5e-4)
        assert float(chance) == expected["chance_two_way"]


def test_the_readme_says_what_the_page_of_the_demo_says():
    page = table(DEMO, "demo decoding")
    for name, ours, best, chance in table(README, "demo"):
        scores = {cells[1]: cells[6] for cells in page if cells[0] == name}
        assert scores["neural_clip (ours)"] == ours and scores["chance"] == chance
        of_baselines = {method: text for method, text in scores.items() if method in dict(BASELINES)}
        computed = {method: float(text.split()[0]) for method, text in of_baselines.items() if "[" in text}
        winner = max(computed, key=computed.__getitem__)
        assert best == f"{scores[winner]}, {winner}"


@pytest.mark.parametrize("name", ["decoding", "sizes", "encoding", "conversion", "controls"])
def test_every_row_of_the_demo_says_simulated(name):
    rows = table(DEMO, f"demo {name}")
    assert rows and all("simulated" in cells[0] or cells[1] == "the paper" for cells in rows)


def test_all_places_that_are_filled_exist(tmp_path, monkeypatch):
    """Publishing fills each place; a page without the place is refused."""
    for path in (README, DEMO, REPOSITORY / "docs" / "studies" / "real_recordings.md"):
        copy = tmp_path / path.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(publish_results, "TABLES", {name: lambda report: (["a"], [["new"]]) for name in
                                                    (*publish_results.TABLES,)})  # fmt: skip
    monkeypatch.setattr(publish_results, "publish_card", lambda *given: None)
    for folder in ("demo/pictures", "real/digits_report", "real/digits_mobilenet_report", "real/faces_report"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "report.json").write_text("{}")
    (tmp_path / "demo" / "report.json").write_text("{}")
    (tmp_path / "docs" / "images").mkdir()
    for name in publish_results.PICTURES:
        (tmp_path / "demo" / "pictures" / f"{name}.png").write_bytes(name.encode())
    publish_results.publish_demo(tmp_path / "demo", tmp_path)
    publish_results.publish_real(tmp_path / "real", tmp_path)
    marks = re.compile(r"<!-- results: (.+?) -->(.*?)<!-- end -->", re.DOTALL)
    for path in tmp_path.rglob("*.md"):
        places = marks.findall(path.read_text("utf-8"))
        assert places and all("| new |" in text for _, text in places), path
    assert (tmp_path / "docs" / "images" / "demo_decoding.png").read_bytes() == b"decoding"
