"""Tests of scripts/compare_recipes.py and scripts/results_page.py: what is run, kept, collected and shown."""

import importlib.util
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from neural_clip.errors import DataError

REPOSITORY = Path(__file__).parents[1]
MODALITIES = ("eeg", "meg", "fmri")


def load(name):
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


compare_recipes, results_page = load("compare_recipes"), load("results_page")


def row(method, two_way, top1, **more):
    interval = [two_way - 0.05, two_way + 0.05]
    return {
        "method": method, "aggregation": "single trial", "two_way": two_way, "two_way_interval": interval,
        "two_way_p": 0.004, "top1": top1, "top1_interval": [0.0, 1.0], "top5": 2 * top1, "top5_interval": [0.0, 1.0],
        "chance_two_way": 0.5, "chance_top1": 0.0125, "chance_top5": 0.0625, "gallery_size": 80, "n_queries": 477,
    } | more  # fmt: skip


def pair(other, score, difference):
    return {
        "task": "decoding", "modalities": ["eeg"], "method": "demo", "other": other, "score": score, "p": 0.0002,
        "difference": difference, "interval": [difference - 0.03, difference + 0.03], "n_queries": 477,
    }  # fmt: skip


def report(seed, ours, theirs, split="test", baselines=True):
    """Report of an evaluation of two recipes, written by hand in the form that an evaluation gives it."""
    mean = row("demo", 0.999, 0.9, aggregation="image mean within subject")
    rows = [row("demo", *ours), mean, row("linear", *theirs)]
    if baselines:
        rows += [row("per-subject ridge", 0.71, 0.08)]
        rows += [{"method": "identity", "aggregation": "single trial", "not_computed": "voxels differ"}]
    pairs = [pair("linear", "two_way", ours[0] - theirs[0]), pair("linear", "top1", ours[1] - theirs[1])]
    pairs.append({"task": "encoding", "modalities": ["eeg"], "score": "two_way"})
    return {
        "split": split, "versions": {"torch": "9.8.7"}, "simulated_modalities": ["eeg"],
        "checkpoints": [{"name": "demo", "sha256": f"d{seed}"}, {"name": "linear", "sha256": f"l{seed}"}],
        "data": {"eeg": {"fingerprint": "abcdef0123456789"}},
        "decoding": {"eeg": {"rows": rows, "ceiling": {"two_way": 0.9, "top1": 0.5125, "valid": True}}},
        "comparisons": pairs,
    }  # fmt: skip


def made(name, seed):
    return {
        "key": "k",
        "command": f"train {name} {seed}",
        "commit": "c0ffee",
        "seconds": 99.0,
        "cpu_seconds": 10.0 + seed,
    }


SCORES = {0: ((0.80, 0.30), (0.70, 0.20)), 1: ((0.82, 0.34), (0.75, 0.22)), 3: ((0.87, 0.31), (0.71, 0.24))}


def results_of(seeds, split="test"):
    """What `compare` makes of such reports."""
    found = {"twin": "realistic", "split": split, "recipes": ["demo", "linear"], "seeds": [0, 1, 3]}
    found |= {"command": "python x", "records": [], "comparisons": []}
    evaluation = {"command": "evaluate x", "commit": "c0ffee"}
    for seed in seeds:
        one = report(seed, *SCORES[seed], split=split, baselines=seed == seeds[0])
        runs = {name: made(name, seed) for name in ("demo", "linear")}
        records, pairs = compare_recipes.collect(one, evaluation, runs, seed)
        found["records"] += records
        found["comparisons"] += pairs
    return json.loads(json.dumps(found))


def test_collect_keeps_single_trials_with_their_provenance():
    records = results_of([0, 1])["records"]
    assert [(r["method"], r["kind"], r["seed"]) for r in records] == [
        ("demo", "recipe", 0), ("linear", "recipe", 0), ("per-subject ridge", "baseline", None),
        ("identity", "baseline", None), ("demo", "recipe", 1), ("linear", "recipe", 1),
    ]  # fmt: skip
    first, baseline, failed = records[0], records[2], records[3]
    assert (first["two_way"], first["top1"], first["top5"], first["gallery_size"]) == (0.80, 0.30, 0.60, 80)
    assert first["share_of_way_two_way"] == pytest.approx(0.75)  # (.8 - .5) / (.9 - .5)
    assert first["share_of_way_top1"] == pytest.approx(0.575)  # (.3 - .0125) / (.5125 - .0125)
    assert (first["command"], first["training_seconds"], first["training_cpu_seconds"]) == ("train demo 0", 99.0, 10.0)
    assert (first["weights_sha256"], first["commit"], first["fingerprint"]) == ("d0", "c0ffee", "abcdef0123456789")
    assert first["simulated"] is True and first["versions"] == {"torch": "9.8.7"}
    assert baseline["command"] == "evaluate x" and baseline["training_seconds"] is None
    assert failed["not_computed"] == "voxels differ" and "two_way" not in failed


def test_the_ceiling_of_the_test_split_is_not_used_elsewhere():
    record = results_of([0], split="validation")["records"][0]
    assert record["ceiling_two_way"] is None and record["share_of_way_two_way"] is None
    rows = results_page.scores_table(results_of([0], split="validation"))[1]
    assert rows[0][7:9] == ["-", "-"]


def numbers(text):
    return [float(found) for found in re.findall(r"[-+]?\d+\.\d+", text)]


def test_scores_table_shows_the_records():
    results = results_of([0, 1, 3])
    head, rows = results_page.scores_table(results)
    assert len({len(head), *map(len, rows)}) == 1 and all(cells[0] == "EEG simulated" for cells in rows)
    assert [cells[1] for cells in rows] == [
        "demo", "linear", "per-subject ridge", "identity", "chance", "known-model ceiling",
    ]  # fmt: skip
    for cells, name in ((rows[0], "demo"), (rows[1], "linear")):
        group = [record for record in results["records"] if record["method"] == name]
        values = [record["two_way"] for record in group]
        mean, half = statistics.mean(values), 4.302653 * statistics.stdev(values) / 3**0.5  # t(2), 97.5 %
        assert cells[2] == "0, 1, 3"
        assert numbers(cells[3]) == [round(100 * statistics.mean(r["top1"] for r in group), 1)]
        assert numbers(cells[4]) == [round(100 * statistics.mean(r["top5"] for r in group), 1)]
        assert numbers(cells[5]) == pytest.approx([mean, mean - half, mean + half], abs=6e-4)
        low, high = group[0]["two_way_interval"]
        assert cells[6].startswith("seed 0: ") and numbers(cells[6]) == pytest.approx([values[0], low, high], abs=6e-4)
        assert numbers(cells[7]) == pytest.approx([100 * (mean - 0.5) / 0.4], abs=0.06)
        assert cells[9] == "11"  # mean of 10, 11 and 13 s
    assert rows[2][2] == "none" and numbers(rows[2][5]) == [0.71] and rows[2][9] == "-"
    assert "not computed" in rows[3]
    assert rows[4][3:6] == ["1.2", "6.2", "0.500"] and rows[5][3:6] == ["51.2", "", "0.900"]


def test_differences_are_paired_by_seed():
    head, rows = results_page.differences_table(results_of([0, 1, 3]))
    assert len({len(head), *map(len, rows)}) == 1
    two_way, top1 = rows
    assert two_way[:5] == ["EEG simulated", "2-way", "demo", "linear", "0, 1, 3"] and top1[1] == "top-1"
    values = [0.10, 0.07, 0.16]
    half = 4.302653 * statistics.stdev(values) / 3**0.5
    assert numbers(two_way[5]) == pytest.approx([0.11, 0.11 - half, 0.11 + half], abs=6e-4)
    assert two_way[6] == "seed 0: +0.100 [+0.070, +0.130]" and two_way[7] == "<0.001"


def test_one_seed_has_no_interval_and_what_is_missing_is_named():
    results = results_of([0])
    text = results_page.section(results)
    assert "0.800 (one seed, no interval over seeds)" in text
    assert "demo with seed 1, demo with seed 3, linear with seed 1, linear with seed 3" in text
    assert "Incomplete" not in results_page.section(results_of([0, 1, 3]))


def test_equal_seeds_have_an_interval_of_no_width():
    assert results_page.over_seeds([0.5, 0.5]) == "0.500 [0.500, 0.500]"


def test_publish_writes_all_twins_and_needs_one(tmp_path):
    with pytest.raises(DataError, match="holds no results"):
        results_page.publish(tmp_path, tmp_path / "page.md")
    (tmp_path / "realistic.json").write_text(json.dumps(results_of([0])))
    (tmp_path / "linear.json").write_text(json.dumps(results_of([0]) | {"twin": "linear"}))
    results_page.main(["--results-dir", str(tmp_path), "--page", str(tmp_path / "page.md")])
    text = (tmp_path / "page.md").read_text()
    assert text.index("## Twin `linear` (simulated)") < text.index("## Twin `realistic` (simulated)")
    lines = [line for line in text.splitlines() if line.startswith("| EEG")]
    assert len(lines) == 16 and all("EEG simulated" in line for line in lines)


def test_the_committed_page_is_that_of_the_committed_results(tmp_path):
    if not (REPOSITORY / "docs" / "results.md").is_file():
        assert not list((REPOSITORY / "results").glob("*.json"))
        return
    results_page.publish(REPOSITORY / "results", tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == (REPOSITORY / "docs" / "results.md").read_text()


COUNT = "import sys; sum(range(10**7)); open(sys.argv[1], 'a').write('x')"


def test_a_finished_run_is_kept_and_a_changed_one_done_again(tmp_path):
    folder, counter = tmp_path / "runs" / "demo-0", tmp_path / "counter"
    command = [sys.executable, "-c", COUNT, counter]
    assert compare_recipes.once(folder, "one", command, start=False) is None
    assert not folder.exists()
    first = compare_recipes.once(folder, "one", command)
    assert compare_recipes.once(folder, "one", command) == first
    assert compare_recipes.once(folder, "one", command, start=False) == first
    assert counter.read_text() == "x"
    assert first["seconds"] > 0 and first["cpu_seconds"] > 0 and str(counter) in first["command"]
    assert compare_recipes.once(folder, "two", command, start=False) is None
    second = compare_recipes.once(folder, "two", command)
    assert second["key"] == "two" and counter.read_text() == "xx"


def test_a_failed_run_says_where_and_is_not_kept(tmp_path):
    compare_recipes.once(tmp_path, "one", [sys.executable, "-c", ""])
    failing = [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"]
    with pytest.raises(DataError, match="failed; its output stands in"):
        compare_recipes.once(tmp_path, "two", failing)
    assert "the reason" in (tmp_path / "log.txt").read_text()
    assert compare_recipes.once(tmp_path, "one", failing, start=False) is None  # its outputs may be gone


def key(recipe="demo", seed=0, twin="outputs/a", epochs=None, data="d", source="s"):
    words = compare_recipes.training_words(recipe, seed, Path(twin), epochs)
    return compare_recipes.training_key(words, {"eeg": data}, source)


def test_a_run_is_known_by_what_decides_it(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert key() == key(twin="outputs/elsewhere")
    others = [key(seed=1), key("demo+frozen"), key("linear"), key(epochs=1), key(data="e"), key(source="t")]
    assert len({key(), *others}) == 7


def test_names_of_recipes_and_variants_are_checked(tmp_path):
    for name, message in (("demmo", "Allowed are .*'demo'"), ("demo+frosen", r"Allowed are \['frozen'\]")):
        with pytest.raises(DataError, match=message):
            compare_recipes.training_words(name, 0, tmp_path)
    words = compare_recipes.training_words("demo+frozen", 2, Path("outputs/t"))
    assert words[:5] == ["configs/demo.yaml", "--training.seed", "2", "--model.freeze_alignment", "true"]
    assert "outputs/t/runs/demo+frozen-2" in words


def test_an_evaluation_is_known_by_what_decides_it():
    one, two = {"demo": {"key": "a"}, "linear": {"key": "b"}}, {"demo": {"key": "a"}, "linear": {"key": "c"}}
    turned = dict(reversed(one.items()))
    variants = [(one, "test", True, "s", {}), (two, "test", True, "s", {}), (turned, "test", True, "s", {})]
    variants += [(one, "validation", True, "s", {}), (one, "test", False, "s", {}), (one, "test", True, "t", {})]
    variants += [(one, "test", True, "s", {"eeg": "d"}), ({"demo": {"key": "a"}}, "test", True, "s", {})]
    assert len({compare_recipes.evaluation_key(*variant) for variant in variants}) == len(variants)
    again = {name: record | {"seconds": 7.0} for name, record in one.items()}
    assert compare_recipes.evaluation_key(again, *variants[0][1:]) == compare_recipes.evaluation_key(*variants[0])


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two recipes on the smallest twin, one epoch, in real processes."""
    output = tmp_path_factory.mktemp("recipes")

    def command(*more):
        words = [sys.executable, "scripts/compare_recipes.py", "--twins", "tiny", "--recipes", "demo", "demo+frozen"]
        words += ["--seeds", "0", "--epochs", "1", "--output-dir", str(output / "out"), "--jobs", "2"]
        words += ["--results-dir", str(output / "results"), *more]
        return subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=1200)

    first = command()
    assert first.returncode == 0, first.stderr[-4000:] + first.stdout[-2000:]
    return output, command, first.stdout


@pytest.mark.slow
def test_real_runs_are_scored_recorded_and_shown(compared):
    output, _, printed = compared
    assert str(output / "results" / "tiny.json") in printed
    results = json.loads((output / "results" / "tiny.json").read_text())
    scored = json.loads((output / "out" / "tiny" / "test-0" / "report.json").read_text())
    trained = {r["method"] for r in results["records"] if r["kind"] == "recipe"}
    assert trained == {"demo", "demo+frozen"} and results_page.missing(results) == []
    for record in results["records"]:
        assert record["simulated"] is True and len(record["fingerprint"]) == 64
        rows = scored["decoding"][record["modality"]]["rows"]
        (found,) = [r for r in rows if r["method"] == record["method"] and r["aggregation"] == "single trial"]
        for name in ("two_way", "top1", "top5", "two_way_interval"):
            assert record.get(name) == found.get(name)
        if record["kind"] == "recipe":
            assert record["training_cpu_seconds"] > 0 and "--training.num_train_epochs 1" in record["command"]
    assert {(r["modality"], r["method"]) for r in results["records"]} >= {(m, "per-subject ridge") for m in MODALITIES}
    pairs = {(p["modalities"][0], p["other"]) for p in results["comparisons"]}
    assert {(m, "demo+frozen") for m in MODALITIES} <= pairs
    configs = {
        name: json.loads((output / "out" / "tiny" / "runs" / f"{name}-0" / "config.json").read_text())
        for name in trained
    }
    assert configs["demo+frozen"]["freeze_alignment"] is True and configs["demo"]["freeze_alignment"] is False
    results_page.publish(output / "results", output / "page.md")
    text = (output / "page.md").read_text()
    for name in ("EEG", "MEG", "fMRI"):
        assert text.count(f"| {name} simulated | demo+frozen | 0 |") == 1
    assert "one seed, no interval over seeds" in text


@pytest.mark.slow
def test_the_same_command_keeps_everything(compared):
    output, command, _ = compared
    twin = output / "out" / "tiny"
    files = [twin / "runs" / "demo-0" / "model.safetensors", twin / "test-0" / "report.json"]
    before = [file.stat().st_mtime_ns for file in files]
    again = command("--finished")
    assert again.returncode == 0, again.stderr[-4000:]
    assert again.stdout.count(" kept  ") == 3 and "started" not in again.stdout
    assert [file.stat().st_mtime_ns for file in files] == before
