"""Tests of studies/compare_recipes.py and studies/results_page.py: what is run, kept, collected and shown."""

import argparse
import json
import re
import statistics
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import collected
import compare_recipes
import results_page
import runs
import variants
from neural_clip import NeuralClipModel
from neural_clip.errors import DataError
from neural_clip.prepared.known_corpora import CORPUS_OF
from neural_clip.prepared.reader import PreparedSet
from neural_clip.retrieval.scores import retrieval_scores
from neural_clip.targets.embed_images import embed_images
from neural_clip.targets.tiny_clip import TINY_CLIP
from neural_clip.training.recipe import read_recipe
from paths import REPOSITORY
from planted_data import facts_of, write_planted
from saved_models import save_model

MODALITIES = ("eeg", "meg", "fmri")


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


def conversion(method, decoding):
    share = 0.6 / decoding
    return {
        "method": method, "source": "meg", "target": "eeg", "two_way": 0.6, "chance_two_way": 0.5, "n_queries": 480,
        "normalised": share, "normalised_interval": [share - 0.05, share + 0.05], "denominator_two_way": decoding,
        "gallery_size": 60, "n_recordings": 477, "two_way_p": 0.1,
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
        "conversion": [conversion("demo", ours[0]), conversion("linear", theirs[0]), conversion("ridge", 0.6)],
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
    found |= {"command": "python x", "evaluations": [], "records": [], "comparisons": [], "conversions": []}
    evaluation = {"command": "evaluate x", "commit": "c0ffee"}
    for seed in seeds:
        one = report(seed, *SCORES[seed], split=split, baselines=seed == seeds[0])
        runs = {name: made(name, seed) for name in ("demo", "linear")}
        records, pairs = collected.collect(one, evaluation, runs, seed)
        found["records"] += records
        found["comparisons"] += pairs
        found["conversions"] += collected.conversions_of(one, runs, seed)
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
        assert cells[2] == "3 (0, 1, 3)"
        assert numbers(cells[3]) == [round(100 * statistics.mean(r["top1"] for r in group), 1)]
        assert numbers(cells[4]) == [round(100 * statistics.mean(r["top5"] for r in group), 1)]
        assert numbers(cells[5]) == pytest.approx([mean, mean - half, mean + half], abs=6e-4)
        low, high = group[0]["two_way_interval"]
        assert cells[6].startswith("seed 0: ") and numbers(cells[6]) == pytest.approx([values[0], low, high], abs=6e-4)
        assert numbers(cells[7]) == pytest.approx([100 * (mean - 0.5) / 0.4], abs=0.06)
        assert cells[9] == "10"  # of the first seed: others may come from a faster machine
    assert rows[2][2] == "none" and numbers(rows[2][5]) == [0.71] and rows[2][9] == "-"
    assert "not computed" in rows[3]
    assert rows[4][3:6] == ["1.2", "6.2", "0.500"] and rows[5][3:6] == ["51.2", "", "0.900"]


def test_differences_are_paired_by_seed():
    head, rows = results_page.differences_table(results_of([0, 1, 3]))
    assert len({len(head), *map(len, rows)}) == 1
    assert head[3].startswith("2-way") and head[6].startswith("top-1")
    (cells,) = rows
    assert cells[:3] == ["EEG simulated", "demo - linear", "3 (0, 1, 3)"]
    for values, shown in (([0.10, 0.07, 0.16], cells[3]), ([0.10, 0.12, 0.07], cells[6])):
        mean, half = statistics.mean(values), 4.302653 * statistics.stdev(values) / 3**0.5
        assert numbers(shown) == pytest.approx([mean, mean - half, mean + half], abs=6e-4)
    assert cells[4:6] == cells[7:] == ["seed 0: +0.100 [+0.070, +0.130]", "<0.001"]


def test_conversions_are_shares_of_what_the_same_model_decodes():
    head, rows = results_page.conversions_table(results_of([0, 1, 3]))
    assert len({len(head), *map(len, rows)}) == 1
    assert [cells[1] for cells in rows] == ["demo", "linear"]  # baselines convert nothing
    values = [0.6 / 0.80, 0.6 / 0.82, 0.6 / 0.87]
    mean, half = statistics.mean(values), 4.302653 * statistics.stdev(values) / 3**0.5
    first = rows[0]
    assert first[:4] == ["MEG to EEG simulated", "demo", "3 (0, 1, 3)", "0.600"]
    assert numbers(first[4]) == pytest.approx([0.83], abs=6e-4)
    assert numbers(first[5]) == pytest.approx([mean, mean - half, mean + half], abs=6e-4)
    assert numbers(first[6]) == pytest.approx([0.75, 0.70, 0.80], abs=6e-4)
    text = results_page.section(results_of([0]))
    assert "| MEG to EEG simulated | linear |" in text
    without = {key: value for key, value in results_of([0]).items() if key != "conversions"}
    assert "Conversion" not in results_page.section(without)  # results of older versions


def test_a_named_comparison_says_its_name():
    assert "## Twin `realistic` (simulated): paper\n" in results_page.section(results_of([0]) | {"name": "paper"})


def test_real_recordings_are_called_real_and_have_no_ceiling():
    """Scores that have no meaning, as top-5 among two categories, are left blank."""
    results = results_of([0, 1, 3]) | {"twin": "faces"}
    for record in results["records"]:
        record |= {"simulated": False, "share_of_way_two_way": None, "share_of_way_top1": None}
        record |= {"gallery_size": 2} if "two_way" in record else {}
        for key in ("ceiling_two_way", "ceiling_top1"):
            record.pop(key, None)
    text = results_page.section(results)
    assert "## Real recordings `faces`\n" in text
    assert "imulated" not in text and "known-model" not in text
    (row,) = [line for line in text.splitlines() if line.startswith("| EEG | demo |")]
    assert row.split(" | ")[4] == "-"
    assert "| MEG to EEG | linear |" in text


def test_real_recordings_stand_in_the_place_of_a_twin(monkeypatch):
    place = Path("outputs/recipes/faces")
    recipe = read_recipe(variants.training_words("base", 3, place))
    assert recipe.data == {"eeg": "outputs/real/n170", "fmri": "outputs/real/haxby"}
    assert recipe.training_arguments.output_dir == "outputs/recipes/faces/runs/base-3"
    assert read_recipe(variants.training_words("base+fmri", 0, place)).data == {"fmri": "outputs/real/haxby"}
    monkeypatch.setattr(compare_recipes, "REAL", {"faces": {"eeg": Path("nowhere/n170")}})
    with pytest.raises(DataError, match="There is no nowhere/n170; `python studies/real_recordings"):
        compare_recipes.make_data("faces", place)


def test_recipes_may_have_different_seeds():
    """Three seeds of one and one of the other: each row says how many, and differences pair what there is."""
    results = results_of([0, 1, 3])
    results["records"] = [r for r in results["records"] if r["method"] != "linear" or r["seed"] == 1]
    results["comparisons"] = [p for p in results["comparisons"] if p["seed"] == 1]
    _, rows = results_page.scores_table(results)
    assert {cells[1]: cells[2] for cells in rows[:2]} == {"demo": "3 (0, 1, 3)", "per-subject ridge": "none"}
    (linear,) = [cells for cells in rows if cells[1] == "linear"]
    assert linear[2] == "1 (1)" and linear[5] == "0.750 (one seed)" and linear[6].startswith("seed 1: 0.750")
    (cells,) = results_page.differences_table(results)[1]
    assert cells[2:4] == ["1 (1)", "+0.070 (one seed)"]
    assert results_page.missing(results) == ["linear with seed 0, 3"]


def test_runs_of_another_machine_are_added():
    """Together they are what one machine would have made; runs of both stay as they were, with their times."""
    whole, now = results_of([0, 1, 3]), results_of([1, 3])
    parts = ("records", "comparisons", "conversions")
    together = collected.added(results_of([0]) | {"seeds": [0]}, now | {"seeds": [3, 1], "command": "python y"})
    assert {part: together[part] for part in parts} == {part: whole[part] for part in parts}
    assert (together["seeds"], together["recipes"]) == ([0, 1, 3], ["demo", "linear"])
    assert together["command"] == "python x; python y" and results_page.missing(together) == []
    before = results_of([0, 1, 3]) | {"recipes": ["demo"]}
    before["records"] = [r for r in before["records"] if r["method"] != "linear" or r["seed"] == 0]
    before["comparisons"] = [p for p in before["comparisons"] if p["seed"] == 0]
    before["conversions"] = [
        entry for entry in before["conversions"] if entry["method"] != "linear" or not entry["seed"]
    ]
    for record in now["records"]:
        record["training_cpu_seconds"] = 1.0 if record["method"] == "demo" else record["training_cpu_seconds"]
    together = collected.added(before, now)
    in_order = {part: sorted(whole[part], key=json.dumps) for part in parts}
    assert {part: sorted(together[part], key=json.dumps) for part in parts} == in_order
    assert [record["seed"] for record in together["records"]] == [0, 0, None, None, 1, 1, 3, 3]


def test_only_the_same_runs_on_the_same_data_are_added():
    now = results_of([1])
    now["records"][1]["weights_sha256"] = "other"
    with pytest.raises(DataError, match=r"'linear' with seed 1 has other weights \(other\) than in .* \(l1\)"):
        collected.added(results_of([0, 1]), now)
    with pytest.raises(DataError, match=r"so far compare with 'demo', .* but got 'linear'"):
        collected.added(results_of([0]), results_of([1]) | {"recipes": ["linear"]})
    for record in now["records"]:
        record["fingerprint"] = "0123"
    with pytest.raises(DataError, match=r"are of the data .*abcdef0123456789.* cannot keep them for .*'0123'"):
        collected.added(results_of([0]), now)


def test_one_seed_has_no_interval_and_what_is_missing_is_named():
    results = results_of([0])
    text = results_page.section(results)
    assert "0.800 (one seed)" in text
    assert "demo with seed 1, 3; linear with seed 1, 3" in text
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
    assert len(lines) == 14 and all("EEG simulated" in line for line in lines)


def test_the_committed_page_is_that_of_the_committed_results(tmp_path):
    if not (REPOSITORY / "docs" / "studies" / "results.md").is_file():
        assert not list((REPOSITORY / "studies" / "results").glob("*.json"))
        return
    results_page.publish(REPOSITORY / "studies" / "results", tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == (REPOSITORY / "docs" / "studies" / "results.md").read_text()


COUNT = "import sys; sum(range(10**7)); open(sys.argv[1], 'a').write('x')"


def test_a_finished_run_is_kept_and_a_changed_one_done_again(tmp_path):
    folder, counter = tmp_path / "runs" / "demo-0", tmp_path / "counter"
    command = [sys.executable, "-c", COUNT, counter]
    assert runs.once(folder, "one", command, start=False) is None
    assert not folder.exists()
    first = runs.once(folder, "one", command)
    assert runs.once(folder, "one", command) == first
    assert runs.once(folder, "one", command, start=False) == first
    assert counter.read_text() == "x"
    assert first["seconds"] > 0 and first["cpu_seconds"] > 0 and str(counter) in first["command"]
    assert runs.once(folder, "two", command, start=False) is None
    second = runs.once(folder, "two", command)
    assert second["key"] == "two" and counter.read_text() == "xx"


ONE_FORM = '''"""Prose."""

class Layer:
    """Prose."""

def scaled(x):  # prose
    """Prose."""
    return 2 * x
'''


@pytest.mark.parametrize(
    "name, old, new, same",
    [
        ("a.py", '"""Prose."""', '"""Other\n    words."""', True),
        ("a.py", "  # prose", "", True),
        ("a.py", '    """Prose."""\n    return', "    return", True),
        ("a.py", "2 * x", "3 * x", False),
        ("a.py", "return 2 * x", 'return """Prose."""', False),
        ("a.py", "scaled(x)", "scaled(x=1)", False),
        ("a.yaml", "  # prose", "", False),
    ],
)
def test_prose_does_not_decide_what_code_does(tmp_path, name, old, new, same):
    (tmp_path / "new").mkdir()
    assert ONE_FORM.replace(old, new) != ONE_FORM
    (tmp_path / name).write_text(ONE_FORM)
    (tmp_path / "new" / name).write_text(ONE_FORM.replace(old, new))
    one, other = (runs.digest_files([folder / name], folder) for folder in (tmp_path, tmp_path / "new"))
    assert (one == other) is same


def test_files_of_one_name_in_two_folders_both_decide(tmp_path):
    files = [tmp_path / "a" / "run.py", tmp_path / "b" / "run.py"]
    states = set()
    for texts in (("x = 1", "x = 1"), ("x = 2", "x = 1"), ("x = 1", "x = 2")):
        for file, text in zip(files, texts, strict=True):
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        states.add(runs.digest_files(files, tmp_path))
    assert len(states) == 3


def test_all_code_that_a_training_needs_is_known():
    """The modules of training but for those of adapting, the hub set, and what reads data sets."""
    found = {path.relative_to(runs.PACKAGE).as_posix() for path in runs.training_modules()}
    expected = {f"training/{name}.py" for name in ("batches", "checks", "model", "recipe", "record", "run", "trainer")}
    expected |= {"losses.py", "modeling_eeg.py", "modeling_meg.py", "modeling_fmri.py", "modeling_neural_clip.py"}
    expected |= {"prepared/reader.py", "retrieval/scores.py", "targets/encoder.py"}
    assert expected <= found
    # how validation embeds, the closed form and its finished parts, and what is kept of validation
    used = {f"evaluation/{name}.py" for name in ("__init__", "finished_parts", "validation_predictions")}
    others = {name for name in found if name.startswith(("evaluation/", "studies/", "report/"))} - used
    assert all(name.startswith("evaluation/baselines/") for name in others)


def test_a_failed_run_says_where_and_is_not_kept(tmp_path):
    runs.once(tmp_path, "one", [sys.executable, "-c", ""])
    failing = [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"]
    with pytest.raises(DataError, match="failed; its output stands in"):
        runs.once(tmp_path, "two", failing)
    assert "the reason" in (tmp_path / "log.txt").read_text()
    assert runs.once(tmp_path, "one", failing, start=False) is None  # its outputs may be gone


def key(recipe="demo", seed=0, twin="outputs/a", epochs=None, person=None, data="d", source="s", passes=None):
    words = variants.training_words(recipe, seed, Path(twin), epochs, person)
    words += [] if passes is None else ["--passes", passes]
    return variants.training_key(words, {"eeg": data, "meg": "m", "fmri": "f"}, source)


def test_a_run_is_known_by_what_decides_it(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert key() == key(twin="outputs/elsewhere")
    others = [
        key(seed=1),
        key("base"),
        key("base", passes="{eeg: 2}"),
        key("demo+frozen"),
        key("linear"),
        key(epochs=1),
        key(data="e"),
        key(source="t"),
    ]
    others += [key("demo+mse"), key("demo+eeg"), key("demo+fmri"), key("demo+eeg+fmri")]
    others += [
        key("demo+alone", person=person) for person in (("eeg", "sub-01"), ("eeg", "sub-02"), ("meg", "sub-01"))
    ]
    assert len({key(), *others}) == 16
    assert key("demo+meg") == key("demo+meg", data="e")  # what it does not learn from


def test_names_of_recipes_and_variants_are_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    for name, message in (
        ("demmo", "Allowed are .*'demo'"),
        ("demo+frosen", r"Allowed are .*'frozen', 'meg', 'mse', 'shallow'"),
    ):
        with pytest.raises(DataError, match=message):
            variants.training_words(name, 0, tmp_path)
        with pytest.raises(DataError, match=message):
            compare_recipes.main(["--recipes", "demo", name, "--output-dir", str(tmp_path)])
    for name in ("demo+alone", "linear+eeg"):
        with pytest.raises(DataError, match=f"must learn all modalities and people, but got '{re.escape(name)}'"):
            compare_recipes.main(["--recipes", name, "demo", "--output-dir", str(tmp_path)])
    words = variants.training_words("demo+frozen", 2, Path("outputs/t"))
    assert words[:5] == ["configs/demo.yaml", "--training.seed", "2", "--model.freeze_alignment", "true"]
    assert "outputs/t/runs/demo+frozen-2" in words


def test_variants_are_trained_on_what_they_name(monkeypatch):
    monkeypatch.chdir(REPOSITORY)

    def recipe_of(*arguments):
        return read_recipe(variants.training_words(*arguments))

    whole = recipe_of("demo+mse", 3, Path("t"))
    assert whole.data == {m: str(Path("t/data") / corpus.name) for m, corpus in CORPUS_OF.items()}
    assert whole.model["objective"] == "mse" and whole.training["seed"] == 3
    assert recipe_of("demo+meg", 0, Path("t")).data == {"meg": "t/data/things_meg"}
    one = recipe_of("demo+alone", 0, Path("t"), None, ("fmri", "sub-05"))
    assert one.data == {"fmri": "t/data/nsd"} and one.model["fmri"]["subjects"] == ["sub-05"]
    assert one.training["output_dir"] == "t/runs/demo+alone-0/fmri-sub-05"


def write_facts(twin, subjects):
    for modality, folder in variants.data_folders(twin).items():
        folder.mkdir(parents=True)
        facts = facts_of(modality, subjects=subjects[modality], fingerprint=modality, split_unit="image")
        (folder / "neural_clip.json").write_text(json.dumps(facts.as_dict()))


def test_models_of_one_person_each_are_one_run_when_all_are_there(tmp_path, monkeypatch):
    write_facts(tmp_path, {"eeg": ["sub-01", "sub-02"], "meg": ["sub-01"], "fmri": ["sub-07"]})
    done = {("eeg", "sub-01"), ("eeg", "sub-02"), ("meg", "sub-01")}

    def train_one(recipe, person, seed, *_):
        finished = (person is None and recipe == "demo") or person in done
        return (
            {"key": str(person), "command": f"{person}", "commit": "c", "seconds": 2.0, "cpu_seconds": 1.0}
            if finished
            else None
        )

    monkeypatch.setattr(compare_recipes, "train_one", train_one)
    arguments = argparse.Namespace(recipes=["demo", "demo+alone", "demo+eeg", "linear"], jobs=2)
    assert list(compare_recipes.train_seed(0, tmp_path, "s", arguments)) == ["demo"]
    done.add(("fmri", "sub-07"))
    runs = compare_recipes.train_seed(0, tmp_path, "s", arguments)
    assert list(runs) == ["demo", "demo+alone"]
    assert (runs["demo+alone"]["cpu_seconds"], runs["demo+alone"]["seconds"]) == (4.0, 8.0)
    assert "the first of 4" in runs["demo+alone"]["command"] and runs["demo"]["command"] == "None"
    done.discard(("fmri", "sub-07"))
    arguments.recipes = ["demo", "demo+alone+eeg"]
    assert (
        runs["demo+alone"]["key"] != compare_recipes.train_seed(0, tmp_path, "s", arguments)["demo+alone+eeg"]["key"]
    )


def test_models_of_single_people_are_scored_together(tmp_path):
    folder = write_planted(tmp_path / "data" / "imagenet_eeg", "eeg", pixels=False)
    save_model(
        tmp_path / "runs" / "demo-4", subjects=["sub-01", "sub-02"], seed=0, encoder_type="linear", hidden_size=16
    )
    people = {"sub-01": 1, "sub-02": 2}
    for name, seed in people.items():
        save_model(
            tmp_path / "runs" / "demo+alone+eeg-4" / f"eeg-{name}",
            subjects=[name],
            seed=seed,
            encoder_type="linear",
            hidden_size=16,
        )
    first = {"name": "demo", "path": str(tmp_path / "runs" / "demo-4"), "sha256": "x"}
    made = {"checkpoints": [first], "split": "test", "seed": 0, "decoding": {"eeg": {"rows": []}}, "comparisons": []}
    compare_recipes.add_alone(made, "demo+alone+eeg", 4, tmp_path)

    data, embeds, shown = PreparedSet.open(folder), {"demo": [], "alone": []}, []
    images = data.images
    for name in people:
        rows = data.split("test", [name]).recordings
        values, shown = torch.tensor(np.array(rows["eeg"][:]), dtype=torch.float32), [*shown, *rows["image_id"][:]]
        for method, place, index in (
            ("demo", "demo-4", people[name] - 1),
            ("alone", f"demo+alone+eeg-4/eeg-{name}", 0),
        ):
            model = NeuralClipModel.from_pretrained(tmp_path / "runs" / place)
            with torch.no_grad():
                embeds[method].append(model.get_eeg_features(values, torch.full((len(values),), index)).numpy())
    gallery = sorted(set(shown))
    scores = {
        method: retrieval_scores(np.concatenate(parts), images.embeds[images.rows_of(gallery)], shown, gallery)
        for method, parts in embeds.items()
    }
    row = made["decoding"]["eeg"]["rows"][0]
    assert (row["method"], row["aggregation"], row["n_queries"]) == ("demo+alone+eeg", "single trial", len(shown))
    assert row["two_way"] == pytest.approx(scores["alone"]["two_way"], abs=1e-6) != scores["demo"]["two_way"]
    difference = {pair["score"]: pair["difference"] for pair in made["comparisons"]}
    for name in ("two_way", "top1"):
        assert difference[name] == pytest.approx(scores["demo"][name] - scores["alone"][name], abs=1e-6)
    assert {(pair["method"], pair["other"], pair["task"]) for pair in made["comparisons"]} == {
        ("demo", "demo+alone+eeg", "decoding")
    }
    assert made["checkpoints"][1]["name"] == "demo+alone+eeg" and len(made["checkpoints"][1]["sha256"]) == 64


def test_an_evaluation_is_known_by_what_decides_it():
    one, two = {"demo": {"key": "a"}, "linear": {"key": "b"}}, {"demo": {"key": "a"}, "linear": {"key": "c"}}
    turned = dict(reversed(one.items()))
    variants = [(one, "test", True, "s", {}), (two, "test", True, "s", {}), (turned, "test", True, "s", {})]
    variants += [(one, "validation", True, "s", {}), (one, "test", False, "s", {}), (one, "test", True, "t", {})]
    variants += [(one, "test", True, "s", {"eeg": "d"}), ({"demo": {"key": "a"}}, "test", True, "s", {})]
    assert len({compare_recipes.evaluation_key(*variant) for variant in variants}) == len(variants)
    again = {name: record | {"seconds": 7.0} for name, record in one.items()}
    assert compare_recipes.evaluation_key(again, *variants[0][1:]) == compare_recipes.evaluation_key(*variants[0])


RECIPES = ("demo", "demo+frozen")


def test_a_twin_is_made_by_the_demo(tmp_path, monkeypatch):
    started = []

    def run(words):
        started.append(words)
        return SimpleNamespace(returncode=len(started) - 1)

    monkeypatch.setattr(compare_recipes.subprocess, "run", run)
    compare_recipes.make_data("linear", tmp_path)
    program, *words = started[0]
    assert Path(program).name == "neural-clip" and Path(program).is_file()
    assert words == ["demo", "--data-only", "--preset", "linear", "--output-dir", str(tmp_path)]
    with pytest.raises(DataError, match="data sets of the twin 'linear' could not be made"):
        compare_recipes.make_data("linear", tmp_path)


COUNTS = {"train": 24, "validation": 8, "test": 8}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Recipes on planted data in the place of the smallest twin, one epoch, in real processes."""
    output = tmp_path_factory.mktemp("recipes")
    for modality, folder in variants.data_folders(output / "out" / "tiny").items():
        write_planted(folder, modality, repeats=1, counts=COUNTS)
        embed_images(folder, TINY_CLIP, overwrite=True)
    words = ["--twins", "tiny", "--seeds", "0", "--epochs", "1", "--output-dir", str(output / "out"), "--jobs", "2"]
    words += ["--results-dir", str(output / "results")]

    def compare(*more):
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
            patch.chdir(REPOSITORY)
            patch.setattr(compare_recipes, "make_data", lambda name, twin: None)
            compare_recipes.main([*words, "--recipes", *RECIPES, *more])
        return printed.getvalue()

    return output, compare, compare()


@pytest.fixture(scope="module")
def turned(compared):
    """The same runs with another first recipe."""
    output, compare, _ = compared
    evaluation = output / "out" / "tiny" / "test-0" / "report.json"
    before = evaluation.stat().st_mtime_ns
    compare("--finished", "--name", "turned", "--recipes", "demo+frozen", "demo")
    assert evaluation.stat().st_mtime_ns == before
    return output / "results" / "tiny_turned.json"


@pytest.mark.slow
def test_real_runs_are_scored_recorded_and_shown(compared):
    output, _, printed = compared
    assert str(output / "results" / "tiny.json") in printed
    results = json.loads((output / "results" / "tiny.json").read_text())
    scored = json.loads((output / "out" / "tiny" / "test-0" / "report.json").read_text())
    trained = {r["method"] for r in results["records"] if r["kind"] == "recipe"}
    assert trained == set(RECIPES) and results_page.missing(results) == []
    for name in RECIPES:
        assert {r["modality"] for r in results["records"] if r["method"] == name} == set(MODALITIES)
        compared_in = {m for pair in results["comparisons"] if pair["other"] == name for m in pair["modalities"]}
        assert compared_in == (set(MODALITIES) if name != "demo" else set())
    for record in results["records"]:
        assert record["simulated"] is True and len(record["fingerprint"]) == 64
        rows = scored["decoding"][record["modality"]]["rows"]
        (found,) = [r for r in rows if r["method"] == record["method"] and r["aggregation"] == "single trial"]
        for name in ("two_way", "top1", "top5", "two_way_interval"):
            assert record.get(name) == found.get(name)
        if record["kind"] == "recipe":
            assert record["training_cpu_seconds"] > 0 and "--training.num_train_epochs 1" in record["command"]
    assert {(r["modality"], r["method"]) for r in results["records"]} >= {(m, "per-subject ridge") for m in MODALITIES}
    configs = {
        name: json.loads((output / "out" / "tiny" / "runs" / f"{name}-0" / "config.json").read_text())
        for name in RECIPES
    }
    assert configs["demo+frozen"]["freeze_alignment"] is True and configs["demo"]["freeze_alignment"] is False
    results_page.publish(output / "results", output / "page.md")
    text = (output / "page.md").read_text()
    for name in ("EEG", "MEG", "fMRI"):
        assert text.count(f"| {name} simulated | demo+frozen | 1 (0) |") == 1
    assert "(one seed)" in text


@pytest.mark.slow
def test_the_same_command_keeps_everything(compared):
    output, compare, _ = compared
    twin = output / "out" / "tiny"
    files = [twin / "runs" / "demo-0" / "model.safetensors", twin / "test-0" / "report.json"]
    before = [file.stat().st_mtime_ns for file in files]
    again = compare("--finished")
    results = json.loads((output / "results" / "tiny.json").read_text())
    assert {part["method"] for part in results["conversions"]} == set(RECIPES)
    assert again.count(" kept  ") == len(RECIPES) + 1 and "started" not in again
    assert [file.stat().st_mtime_ns for file in files] == before


@pytest.mark.slow
def test_another_first_recipe_is_kept_beside(turned):
    results = json.loads(turned.read_text())
    assert {(pair["method"], pair["other"]) for pair in results["comparisons"]} == {("demo+frozen", "demo")}
    assert {record["kind"] for record in results["records"]} == {"recipe"} and results["name"] == "turned"


@pytest.mark.slow
def test_a_recipe_is_added_to_what_is_there(compared, turned, tmp_path):
    """What is there is the first recipe alone; adding the other one makes the results of both."""
    _, compare, _ = compared
    whole = json.loads(turned.read_text())
    of_one = whole | {"recipes": ["demo+frozen"], "comparisons": []}
    for part in ("records", "conversions"):
        of_one[part] = [entry for entry in whole[part] if entry["method"] == "demo+frozen"]
    (tmp_path / turned.name).write_text(json.dumps(of_one))
    more = ["--finished", "--name", "turned", "--add", "--results-dir", str(tmp_path)]
    compare(*more, "--recipes", "demo+frozen", "demo")
    results = json.loads((tmp_path / turned.name).read_text())
    assert [record["method"] for record in results["records"]] == ["demo+frozen"] * 3 + ["demo"] * 3
    assert {(pair["method"], pair["other"]) for pair in results["comparisons"]} == {("demo+frozen", "demo")}
    assert results["comparisons"] == whole["comparisons"]
    in_order = {part: sorted(whole[part], key=json.dumps) for part in ("records", "conversions")}
    assert {part: sorted(results[part], key=json.dumps) for part in in_order} == in_order


@pytest.mark.slow
def test_there_must_be_something_to_add_to(tmp_path):
    words = [
        sys.executable,
        "studies/compare_recipes.py",
        "--twins",
        "tiny",
        "--finished",
        "--name",
        "turned",
        "--add",
    ]
    words += ["--recipes", "demo+frozen", "--results-dir", str(tmp_path), "--output-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2 and "tiny_turned.json" in done.stderr
