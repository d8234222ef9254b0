"""THINGS-MEG: the simulated corpus in its raw formats, both routes of the reader, and the real metadata."""

import itertools
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
from datasets import load_dataset
from numpy.testing import assert_allclose
from PIL import Image

from folder_contents import contents
from neural_clip.commands.prepare import main
from neural_clip.corpora.declared import check_facts
from neural_clip.corpora.image_parts import image_parts
from neural_clip.corpora.stamp import read_stamp
from neural_clip.corpora.things_meg import (
    build as things_meg,
)
from neural_clip.corpora.things_meg import (
    facts as things_meg_facts,
)
from neural_clip.corpora.things_meg import (
    layout as things_meg_files,
)
from neural_clip.corpora.things_meg import (
    raw_route as things_meg_recordings,
)
from neural_clip.corpora.things_meg import (
    rows as things_meg_rows,
)
from neural_clip.corpora.things_meg import (
    stimuli as things_meg_stimuli,
)
from neural_clip.corpora.things_meg.build import prepare
from neural_clip.corpora.things_meg.derivative_route import open_derivative
from neural_clip.corpora.things_meg.facts import REAL, corpus_facts
from neural_clip.corpora.things_meg.preprocessing import PAPER, PUBLISHED, cut_epochs, filter_continuous, filter_taps
from neural_clip.errors import DataError
from neural_clip.prepared.facts import read_metadata
from neural_clip.simulation.ctf import CtfChannel, write_ds
from neural_clip.simulation.generative import SensorModel
from neural_clip.simulation.presets import get_preset
from neural_clip.simulation.things_meg_twin import CORPUS_INDEX, make_stimuli, make_trials, write

SEED = 3
TINY = get_preset("tiny")
MINI = replace(
    TINY,
    meg=replace(
        TINY.meg,
        subjects=(1,),
        n_concepts=8,
        n_test_images=2,
        n_catch_per_session=2,
        n_sessions=2,
        n_runs=1,
        n_chans=5,
    ),
)
RUN = "sub-BIGMEG1/ses-{0:02d}/meg/sub-BIGMEG1_ses-{0:02d}_task-main_run-01_"


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twin") / "things_meg"
    write(folder, TINY, SEED)
    return folder


@pytest.fixture(scope="module")
def prepared(twin, tmp_path_factory):
    """Prepared sets of both routes."""
    folder = tmp_path_factory.mktemp("prepared")
    return {
        "paper": prepare(twin, folder / "paper", scaling="none"),
        "published": prepare(twin, folder / "published", preprocessing="published"),
        "derivative": prepare(twin, folder / "derivative", route="derivative"),
    }


def rows(folder, config="all"):
    """All rows of a prepared set by (subject, trial), with their split."""
    found = {}
    for split in ("train", "validation", "test"):
        table = load_dataset(str(folder), config, split=split).with_format("numpy")
        for row in table:
            row = {
                key: value.item() if hasattr(value, "item") and value.ndim == 0 else value
                for key, value in row.items()
            }
            found[row["subject"], int(row["trial"])] = row | {"split": split}
    return found


# ---------------------------------------------------------------------------------------------------- the twin


def test_one_seed_gives_one_corpus(mini_twin, tmp_path):
    write(tmp_path / "again", MINI, SEED)
    write(tmp_path / "other", MINI, SEED + 1, derivative=False)
    first, again, other = contents(mini_twin), contents(tmp_path / "again"), contents(tmp_path / "other")
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []
    data = next(name for name in first if name.endswith(".meg4"))
    assert first[data] != other[data]


def test_sizes_follow_the_preset(twin):
    meg = TINY.meg
    stamp = json.loads((twin / "SIMULATED.json").read_text())
    assert stamp["simulated"] is True and stamp["seed"] == SEED and stamp["ceiling"]
    tables = [pd.read_csv(path, sep="\t") for path in sorted(twin.rglob("*_events.tsv"))]
    assert len(tables) == meg.n_subjects * meg.n_sessions * meg.n_runs
    events = pd.concat(tables).groupby("trial_type").size() / meg.n_subjects
    assert events.to_dict() == {
        "exp": meg.n_exp_images,
        "test": meg.n_test_images * meg.n_sessions,
        "catch": meg.n_catch_per_session * meg.n_sessions,
    }
    parts = sorted(path.name for path in (twin / "derivatives" / "preprocessed").iterdir())
    assert parts == [f"preprocessed_P{k}-epo{part}.fif" for k in (1, 2) for part in ("-1", "")]


def test_design_of_the_stimuli():
    stimuli = make_stimuli(TINY.meg, np.random.default_rng(0))
    assert [s.value for s in stimuli] == list(range(1, len(stimuli) + 1))
    assert [s.category for s in stimuli] == sorted(s.category for s in stimuli)
    for test in (s for s in stimuli if s.kind == "test"):
        exp = [s.value for s in stimuli if s.category == test.category and s.kind == "exp"]
        assert exp == list(range(exp[0], exp[0] + TINY.meg.n_sessions)) and test.value > exp[-1]
    trials = make_trials(TINY.meg, stimuli, np.random.default_rng(0))
    for session in (1, 2):
        shown = [stimuli[t.stimulus] for t in trials if t.session == session and t.kind == "exp"]
        assert sorted(s.category for s in shown) == list(range(1, TINY.meg.n_concepts + 1))
    gaps = np.diff([t.sample for t in trials if (t.session, t.run) == (1, 1)]) / TINY.meg.sfreq
    assert gaps.min() >= TINY.meg.soa_s[0] - 1e-3 and gaps.max() <= TINY.meg.soa_s[1] + 1e-3


def test_trigger_and_photodiode_frame_the_onsets(twin):
    events = pd.read_csv(twin / (RUN.format(1) + "events.tsv"), sep="\t")
    raw = mne.io.read_raw_ctf(twin / (RUN.format(1) + "meg.ds"), verbose="ERROR")
    triggers = mne.find_events(raw, "UPPT001", verbose="ERROR")
    assert (triggers[:-1, 2] == 64).all() and triggers[-1, 2] == 32 and len(triggers) == len(events) + 1
    leads = events["sample"].to_numpy() - triggers[:-1, 0]
    assert leads.min() >= 8 and leads.max() <= 20 and len(set(leads)) > 1  # so a reader of triggers would be wrong
    (light,) = raw.get_data(["UADC016-2104"])
    assert (np.flatnonzero(np.diff((light > 0.5).astype(int)) == 1) + 1).tolist() == events["sample"].tolist()


def test_metadata_have_the_shape_of_the_real_corpus(real_data, twin):
    real = real_data / "things_meg_metadata"
    for name in ("events.tsv", "channels.tsv"):
        ours, theirs = (pd.read_csv(folder / (RUN.format(1) + name), sep="\t") for folder in (twin, real))
        assert ours.columns.tolist() == theirs.columns.tolist()
        assert ours.dtypes.tolist() == theirs.dtypes.tolist()
        if name == "channels.tsv":
            assert set(ours.type) == set(theirs.type) and set(ours.description) == set(theirs.description)
            assert set(ours.name) <= set(theirs.name)
            assert [n for n in theirs.name if n in set(ours.name)] == ours.name.tolist()  # the same order
    for name in (RUN.format(1) + "meg.json", RUN.format(1) + "coordsystem.json", "task-main_events.json"):
        ours, theirs = (json.loads((folder / name).read_text()) for folder in (twin, real))
        assert list(ours) == list(theirs)
    matrices = [pd.read_csv(folder / "sourcedata" / "category_mat_manual.tsv", sep="\t") for folder in (twin, real)]
    assert matrices[0].shape == (TINY.meg.n_concepts, 27) and matrices[1].shape == (1854, 27)
    table = pd.read_csv(twin / "sourcedata" / "sample_attributes_P1.csv")
    assert table.shape == ((20 + 6 + 2) * 2, 18)


# --------------------------------------------------------------------------------------------------- the signals


def mne_epochs(twin, run, recipe):
    """Epochs of a run, `(n, n_chans, n_times)` in T, by MNE alone and at the raw rate until the end."""
    events = pd.read_csv(twin / (run + "events.tsv"), sep="\t")
    raw = mne.io.read_raw_ctf(twin / (run + "meg.ds"), preload=True, verbose="ERROR")
    raw.pick([name for name in raw.ch_names if name.startswith("M") and name != "MRO11-1609"], verbose="ERROR")
    raw.filter(recipe.high_pass, recipe.low_pass, verbose="ERROR")
    onsets = np.stack([events["sample"], np.zeros(len(events), int), np.ones(len(events), int)], axis=1)
    options = {"tmin": recipe.tmin, "tmax": recipe.tmax, "baseline": None, "preload": True, "verbose": "ERROR"}
    return mne.Epochs(raw, onsets, **options), events


def test_paper_route_equals_mne(twin, prepared):
    epochs, events = mne_epochs(twin, RUN.format(1), PAPER)
    epochs.apply_baseline((None, 0), verbose="ERROR")
    expected = epochs.get_data()[:, :, ::10]  # 1200 to 120 Hz
    assert expected.shape[2] == 181 == read_metadata(prepared["paper"])["n_times"]
    found = rows(prepared["paper"])
    for trial, kind in enumerate(events.trial_type):
        assert (("sub-01", trial) in found) == (kind != "catch")
        if kind != "catch":
            assert_allclose(found["sub-01", trial]["meg"], expected[trial], atol=1e-4 * expected.std())


def test_published_route_equals_mne(twin, prepared):
    epochs, events = mne_epochs(twin, RUN.format(1), PUBLISHED)
    scaled = mne.baseline.rescale(epochs.get_data(), epochs.times, (None, 0), mode="zscore", verbose="ERROR")
    expected = scaled[:, :, ::6]  # 1200 to 200 Hz
    found = rows(prepared["published"])
    for trial in np.flatnonzero(events.trial_type != "catch"):
        assert_allclose(found["sub-01", int(trial)]["meg"], expected[trial], atol=1e-3 * expected.std())


def test_both_routes_tell_the_same(prepared):
    raw, derivative = rows(prepared["published"]), rows(prepared["derivative"])
    assert raw.keys() == derivative.keys()
    for key, row in raw.items():
        for name in ("image_id", "concept", "split", "session", "run", "categories"):
            assert np.array_equal(row[name], derivative[key][name]), (key, name)
        assert_allclose(
            row["meg"], derivative[key]["meg"], atol=1e-2 * np.std(row["meg"])
        )  # int32 steps in the raw one


def test_known_signal_arrives_at_the_right_samples(twin, prepared):
    """What is left after the known noise is taken off is the response of the generator, sample by sample."""
    model = SensorModel(TINY.meg, SEED)
    events = pd.read_csv(twin / (RUN.format(2) + "events.tsv"), sep="\t")
    raw = mne.io.read_raw_ctf(twin / (RUN.format(2) + "meg.ds"), verbose="ERROR")
    rng = np.random.default_rng([SEED, CORPUS_INDEX, 0, 2, 1])
    noise = model.noise(0, raw.n_times, rng)  # the writer draws it first
    clean = raw.get_data(picks=model.ch_names) - noise
    onset, silence = int(events["sample"][0]), clean[:, : int(events["sample"][0])]
    assert np.abs(silence).max() < 1e-2 * np.abs(clean).max()  # nothing but rounding before the first image
    keep = [name != "MRO11-1609" for name in model.ch_names]
    found = rows(prepared["paper"])
    first = len(pd.read_csv(twin / "sourcedata" / "sample_attributes_P1.csv").query("session_nr == 1"))
    filtered = mne.filter.filter_data(noise[keep].astype(float), 1200.0, None, PAPER.low_pass, verbose="ERROR")
    checked = 0
    for trial, (onset, kind) in enumerate(zip(events["sample"], events.trial_type, strict=True)):
        if kind == "catch":
            continue
        window = slice(onset - 600, onset + 1201)
        parts = [
            part[:, window] - part[:, onset - 600 : onset + 1].mean(axis=1, keepdims=True)
            for part in (filtered, clean[keep])
        ]
        left = found["sub-01", first + trial]["meg"] - parts[0][:, ::10]
        expected = parts[1][:, ::10]
        assert np.corrcoef(left.ravel(), expected.ravel())[0, 1] > 0.99
        shifted = clean[keep][:, onset - 600 + 60 : onset + 1201 + 60][:, ::10]  # 50 ms off must not fit
        assert np.corrcoef(left.ravel(), shifted[:, : left.shape[1]].ravel())[0, 1] < 0.95
        checked += 1
    assert checked


def test_filter_equals_mne_also_at_the_ends():
    data = np.cumsum(np.random.default_rng(0).normal(size=(20, 6000)), axis=1) * 1e-13
    centred = data - data.mean(axis=1, keepdims=True)
    for recipe in (PAPER, PUBLISHED):  # the second filter is longer than the data
        ours = filter_continuous(data + 1e-9, filter_taps(recipe, 1200.0))  # a CTF system's offset does no harm
        theirs = mne.filter.filter_data(centred, 1200.0, recipe.high_pass, recipe.low_pass, verbose="ERROR")
        assert_allclose(ours, theirs, atol=2e-5 * theirs.std())


def test_mains_hum_is_kept_out_of_the_paper_route():
    """60 Hz lies on the Nyquist frequency of 120 Hz data and 100 Hz would fold to 20 Hz."""
    times = np.arange(12000) / 1200.0
    for frequency, least, most in ((60.0, 0.0, 0.01), (100.0, 0.0, 0.01), (20.0, 0.95, 1.05)):
        filtered = filter_continuous(np.sin(2 * np.pi * frequency * times)[None], filter_taps(PAPER, 1200.0))
        epochs = cut_epochs(filtered, np.array([6001]), PAPER, 1200.0, "none")
        assert least <= np.sqrt(2) * epochs.std() <= most, frequency


def test_zscore_is_by_epoch_and_channel():
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(3, 9000)) * [[1e-13], [1e-12], [5.0]]).astype(np.float32)
    (epoch,) = cut_epochs(data, np.array([4000]), PAPER, 1200.0, "baseline_zscore")
    for channel in range(3):
        baseline = data[channel, 3400:4001].astype(float)
        expected = (data[channel, 3400:5201:10] - baseline.mean()) / baseline.std()
        assert_allclose(epoch[channel], expected, rtol=1e-4, atol=1e-4)


# -------------------------------------------------------------------------------------------------- the data set


@pytest.mark.parametrize("route", ["paper", "derivative"])
def test_places_of_sensors_are_those_of_the_first_recording(prepared, twin, route):
    metadata = read_metadata(prepared[route])
    raw = mne.io.read_raw_ctf(twin / (RUN.format(1) + "meg.ds"), verbose="ERROR")
    expected = [raw.info["chs"][raw.ch_names.index(name)]["loc"][:3] for name in metadata["ch_names"]]
    np.testing.assert_allclose(metadata["ch_positions"], expected, rtol=0, atol=6e-5)  # m
    assert metadata["ch_positions_frame"] == "device" and len(np.unique(expected, axis=0)) > 10


def test_prepared_set_loads_with_datasets(prepared):
    folder = str(prepared["derivative"])
    meg, metadata = TINY.meg, read_metadata(folder)
    assert metadata["simulated"]["simulated"] is True and metadata["corpus"] == "things_meg"
    assert metadata["n_chans"] == meg.n_chans - 1 and "MRO11-1609" not in metadata["ch_names"]
    assert (metadata["sfreq"], metadata["tmin"], metadata["unit"], metadata["n_times"]) == (200.0, -0.1, "z", 281)
    assert metadata["scaling"]["fit_scope"] == "per epoch baseline" and metadata["licence"] == "CC0-1.0"
    test = load_dataset(folder, "sub-02", split="test")
    assert len(test) == meg.n_test_images * meg.n_sessions and set(test["subject"]) == {"sub-02"}
    assert set(test["n_repeats"]) == {1}
    streamed = list(load_dataset(folder, "all", split="train", streaming=True))
    assert len(streamed) == metadata["splits"]["train"]["rows"]
    images = load_dataset(folder, "images", split="images")
    assert len(images) == meg.n_exp_images + meg.n_test_images
    assert images[0]["image"].size == (meg.image_size, meg.image_size)
    assert {"none"} in [set(categories) for categories in images["categories"]]
    assert {len(categories) for categories in images["categories"]} == {1, 2}
    for row in images:
        assert row["image_id"].startswith(row["concept"] + "_") and row["concept"].count("_") == 4


def test_splits_are_the_same_images_for_all_subjects(prepared):
    by_split = {}
    for (subject, _), row in rows(prepared["paper"]).items():
        by_split.setdefault(row["split"], {}).setdefault(subject, set()).add(row["image_id"])
    for subjects in by_split.values():
        assert len(set(map(frozenset, subjects.values()))) == 1 and len(subjects) == 2
    sets = [set.union(*subjects.values()) for subjects in by_split.values()]
    assert sum(map(len, sets)) == len(set.union(*sets)) == TINY.meg.n_exp_images + TINY.meg.n_test_images


def test_zero_shot_and_large_keep_concepts_apart(twin, tmp_path):
    counts = {}
    for split in ("zero_shot", "large"):
        folder = prepare(twin, tmp_path / split, route="derivative", split=split)
        found = rows(folder).values()
        concepts = {
            part: {row["concept"] for row in found if row["split"] == part} for part in ("train", "validation", "test")
        }
        assert not (concepts["train"] | concepts["validation"]) & concepts["test"]
        counts[split] = {part: sum(row["split"] == part for row in found) for part in concepts}
    meg = TINY.meg
    train = 2 * (meg.n_concepts - meg.n_test_images) * meg.n_sessions
    assert all(count["train"] + count["validation"] == train for count in counts.values())
    assert counts["zero_shot"]["test"] == 2 * meg.n_test_images * meg.n_sessions
    assert counts["large"]["test"] == 2 * meg.n_test_images * meg.n_sessions  # exp images of the test concepts


def test_repeats_are_averaged(twin, prepared, tmp_path):
    folder = prepare(twin, tmp_path / "mean", route="derivative", average_repeats=True)
    single, means = rows(prepared["derivative"]), rows(folder)
    assert read_metadata(folder)["average_repeats"] is True
    tests = {key: row for key, row in means.items() if row["split"] == "test"}
    assert len(tests) == 2 * TINY.meg.n_test_images
    for (subject, _), row in tests.items():
        same = [r["meg"] for (s, _), r in single.items() if s == subject and r["image_id"] == row["image_id"]]
        assert row["n_repeats"] == len(same) == TINY.meg.n_sessions and row["session"] == ""
        assert_allclose(row["meg"], np.mean(same, axis=0), rtol=1e-5, atol=1e-5)
    assert {row["n_repeats"] for row in means.values() if row["split"] != "test"} == {1}


def test_train_std_is_fitted_on_training_epochs(twin, prepared, tmp_path):
    folder = prepare(twin, tmp_path / "scaled", scaling="train_std")
    scaled, plain = rows(folder), rows(prepared["paper"])
    assert read_metadata(folder)["scaling"]["fit_scope"] == "train"
    for subject in ("sub-01", "sub-02"):
        train = np.stack([r["meg"] for (s, _), r in plain.items() if s == subject and r["split"] == "train"])
        scale = np.sqrt(np.square(train, dtype=float).mean(axis=(0, 2)))[:, None]
        for key in (key for key in plain if key[0] == subject):
            assert_allclose(scaled[key]["meg"], plain[key]["meg"] / scale, rtol=1e-4, atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["scaled"]  # the temporary file is gone


def test_command_line_and_subset(twin, tmp_path, capsys):
    argv = ["--raw-dir", str(twin), "--output-dir", str(tmp_path / "a"), "--subjects", "sub-02", "--sessions", "1"]
    main("things_meg", argv)
    assert capsys.readouterr().out == f"data:       {tmp_path / 'a'}\n"
    found = rows(tmp_path / "a")
    assert {row["subject"] for row in found.values()} == {"sub-02"} and {r["session"] for r in found.values()} == {
        "ses-01"
    }
    with pytest.raises(DataError, match="--overwrite"):
        main("things_meg", argv)


def table_of_53(raw, change=None):
    """Table of 53 categories for a twin: its 27, then 26 more, words by concept, a row of sums."""
    names, *rows = [line.split("\t") for line in (raw / things_meg_stimuli.MATRIX).read_text().splitlines()]
    listed = (raw / "images" / "image_paths.csv").read_text().split()
    words = list(dict.fromkeys(path.split("/")[1].replace("_", " ") for path in listed))
    lines = [[*row, *["1" if (k + number) % 7 == 0 else "" for k in range(26)]] for number, row in enumerate(rows)]
    lines = [
        [word, "meaning", *[flag.replace("0", "") for flag in row]] for word, row in zip(words, lines, strict=True)
    ]
    sums = ["", "", *[str(sum(row[column] == "1" for row in lines)) for column in range(2, 55)]]
    table = [["Word", "Definition", *names, *[f"more {k}" for k in range(26)]], *lines, sums]
    if change:
        change(table)
    path = raw / "Categories_final_20200131.tsv"
    path.write_text("\r\n".join("\t".join(row) for row in table), newline="")
    return path


def test_53_categories_are_joined_by_row(mini, tmp_path):
    path = table_of_53(mini)
    folder = prepare(mini, tmp_path / "out", categories="53", categories_file=path)
    rows_of_table = [line.split("\t") for line in path.read_text().splitlines()]
    expected = {
        row[0].replace(" ", "_"): [rows_of_table[0][k] for k in range(2, 55) if row[k] == "1"] or ["none"]
        for row in rows_of_table[1:-1]
    }
    images = load_dataset(str(folder), "images", split="images")
    assert {row["concept"]: row["categories"] for row in images} == expected
    assert any("more" in name for names in expected.values() for name in names)
    assert read_metadata(folder)["preprocessing"]["categories"] == "53"


def swap_rows(table):
    table[1], table[2] = table[2], table[1]


def swap_words(table):
    table[1][0], table[2][0] = table[2][0], table[1][0]


def wrong_sum(table):
    table[-1][10] = "99"


def no_sums(table):
    table.pop()


def other_27(table):
    row = next(row for row in table[1:-1] if row[2] != "1")
    row[2], table[-1][2] = "1", str(int(table[-1][2]) + 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swap_rows, "first 27 categories differ|but concept 1 is"),
        (swap_words, "Row [12] of .* joined by row"),
        (wrong_sum, "the sums of the columns"),
        (no_sums, "then a row of sums without a word"),
        (other_27, "first 27 categories differ"),
    ],
)
def test_a_wrong_table_of_53_is_refused(mini, tmp_path, change, words):
    path = table_of_53(mini, change)
    with pytest.raises(DataError, match=words):
        prepare(mini, tmp_path / "out", categories="53", categories_file=path)
    assert not (tmp_path / "out").exists()


def test_53_categories_need_their_table(mini_twin, tmp_path):
    with pytest.raises(DataError, match=r"need --categories-file: Categories_final_20200131\.tsv"):
        prepare(mini_twin, tmp_path / "out", categories="53")
    with pytest.raises(DataError, match="give categories '53'"):
        prepare(mini_twin, tmp_path / "out", categories_file="x.tsv")
    with pytest.raises(DataError, match=r"not downloaded: 'x\.tsv'; get it with the public repository"):
        prepare(mini_twin, tmp_path / "out", categories="53", categories_file="x.tsv")


# ------------------------------------------------------------------------------------------------ parts and choices


def opened(raw, scaling="none"):
    """Reader and trials of a twin, all of it training data."""
    facts = corpus_facts(raw, read_stamp(raw))
    sessions = range(1, facts.n_sessions + 1)
    runs, _ = things_meg_files.find_runs(raw, facts.subjects, sessions, facts, allow_partial=False)
    trials = things_meg_files.run_trials(runs, facts)
    trials["split"] = np.where(trials.trial_type == "exp", "train", "")
    trials["image_id"] = trials.value.astype(str)
    trials["concept"] = trials.category.astype(str)
    return things_meg_recordings.open_raw(runs, PAPER, scaling, facts), trials


def test_parts_can_be_sent_to_other_processes(twin, tmp_path):
    reader, trials = opened(twin)
    options = {"train_std": False, "average": False, "workspace": tmp_path}
    parts = things_meg_rows.recording_parts(reader, trials, (Path("table"),), **options)
    assert [part.name for part in parts] == [f"sub-{k:02d}_ses-{s:02d}" for k in (1, 2) for s in (1, 2)]
    part = parts[-1]
    names = {path.name for path in part.files}
    stems = [f"sub-BIGMEG2_ses-02_task-main_run-{run:02d}_" for run in (1, 2)]
    assert names == {stem + end for stem in stems for end in ("meg.res4", "meg.meg4", "events.tsv")} | {"table"}
    here, there = list(part.rows()), list(pickle.loads(pickle.dumps(part.rows))())
    assert len(here) == part.n_rows == TINY.meg.n_concepts
    assert {(row["subject"], row["session"]) for row in here} == {("sub-02", "ses-02")}
    for one, other in zip(here, there, strict=True):
        assert np.array_equal(one.pop("meg"), other.pop("meg")) and one == other


@pytest.mark.parametrize("choice", ["train_std", "average"])
def test_what_crosses_sessions_is_one_part_a_subject(twin, tmp_path, choice):
    reader, trials = opened(twin)
    options = {"train_std": False, "average": False, "workspace": tmp_path} | {choice: True}
    parts = things_meg_rows.recording_parts(reader, trials, (), **options)
    assert [part.name for part in parts] == ["sub-01", "sub-02"]
    assert len(parts[0].files) == 3 * TINY.meg.n_sessions * TINY.meg.n_runs
    found = list(pickle.loads(pickle.dumps(parts[1].rows))())
    if choice == "train_std":
        first = found.pop(0)
        assert (first.subject, first.session) == ("sub-02", "") and not first.mean.any() and (first.std > 0).all()
    assert len(found) == parts[1].n_rows == TINY.meg.n_exp_images
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_given_up_leaves_no_temporary_file(twin, tmp_path):
    reader, trials = opened(twin)
    parts = things_meg_rows.recording_parts(reader, trials, (), train_std=True, average=False, workspace=tmp_path)
    rows_of_part = iter(parts[0].rows())
    next(rows_of_part)
    rows_of_part.close()
    assert list(tmp_path.iterdir()) == []


def test_parts_of_the_derivative(twin, tmp_path):
    facts = corpus_facts(twin, read_stamp(twin))
    reader = open_derivative(twin, facts.subjects, facts)
    trials = things_meg_files.attribute_trials(twin, 1)
    trials["split"], trials["image_id"], trials["concept"] = "train", "x", "y"
    options = {"train_std": False, "average": False, "workspace": tmp_path}
    first, second = things_meg_rows.recording_parts(reader, trials, (), **options)
    names = ["preprocessed_P1-epo.fif", "preprocessed_P1-epo-1.fif", "sample_attributes_P1.csv"]
    assert [path.name for path in first.files] == names
    found = [row["meg"] for part in (first, second) for row in pickle.loads(pickle.dumps(part.rows))()]
    epochs = mne.read_epochs(first.files[0], verbose="ERROR").get_data()
    assert np.array_equal(np.stack(found), epochs.astype(np.float32))


def test_images_come_in_parts_of_a_thousand():
    images = [{"image_id": str(number), "image": Path(str(number))} for number in range(2300)]
    parts = image_parts(images, iter, lambda rows: [*(row["image"] for row in rows), Path("table")])
    assert [part.n_rows for part in parts] == [1000, 1000, 300] and len({part.name for part in parts}) == 3
    assert [row for part in parts for row in pickle.loads(pickle.dumps(part.rows))()] == images
    assert parts[2].files == (*[image["image"] for image in images[2000:]], Path("table"))


@pytest.mark.slow
def test_two_processes_write_the_same(mini, tmp_path):
    for route in ("raw", "derivative"):
        folders = [prepare(mini, tmp_path / f"{route}{n}", route=route, num_proc=n) for n in (1, 2)]
        assert len({read_metadata(folder)["fingerprint"] for folder in folders}) == 1


def test_choices_are_recorded(prepared, twin, tmp_path):
    metadata = read_metadata(prepared["paper"])
    assert metadata["partial"] is None
    assert metadata["preprocessing"]["subjects"] == [1, 2] and metadata["preprocessing"]["sessions"] == [1, 2]
    assert metadata["declared"]["trials of subject 1"]["exp"] == TINY.meg.n_exp_images
    part = read_metadata(prepare(twin, tmp_path / "a", sessions=[2], subjects=[2]))
    assert part["partial"] is None and part["preprocessing"]["sessions"] == [2]
    assert part["declared"]["trials of subject 2"]["exp"] == TINY.meg.n_concepts
    assert part["preprocessing"]["trials_sha256"] != metadata["preprocessing"]["trials_sha256"]
    other = read_metadata(prepare(twin, tmp_path / "b", sessions=[2], subjects=[2], seed=1))
    assert part["preprocessing"]["trials_sha256"] != other["preprocessing"]["trials_sha256"]


def test_partial_download_is_used_if_asked_for(twin, tmp_path):
    raw = shutil.copytree(twin, tmp_path / "raw")
    gone = "sub-BIGMEG1/ses-02/meg/sub-BIGMEG1_ses-02_task-main_run-02_meg.ds/"
    shutil.rmtree(raw / gone)
    shutil.rmtree(raw / "sub-BIGMEG2" / "ses-01")
    with pytest.raises(DataError, match=r"sub-BIGMEG2/ses-01/meg' holds 0 runs, expected 2.*--allow-partial"):
        prepare(raw, tmp_path / "out")
    folder = prepare(raw, tmp_path / "out", allow_partial=True)
    metadata, found = read_metadata(folder), rows(folder)
    listed = (folder / "not_downloaded.txt").read_text().splitlines()
    runs = [f"sub-BIGMEG2/ses-01/meg/sub-BIGMEG2_ses-01_task-main_run-{run:02d}_events.tsv" for run in (1, 2)]
    assert listed == [gone + Path(gone).name.replace(".ds", ".res4"), *runs]
    assert any("3 files are lacking" in defect for defect in metadata["known_defects"])
    assert metadata["partial"]["trials of subject 2 in session 1"]["found"] is None
    facts = metadata["partial"]["trials of subject 1"]
    assert (facts["found"]["runs"], facts["declared"]["runs"]) == (3, 4)
    assert metadata["partial"]["split paper of subject 2"]["found"]["test"] == TINY.meg.n_test_images
    present = {(row["subject"], row["session"], row["run"]) for row in found.values()}
    assert ("sub-01", "ses-02", "run-02") not in present and ("sub-02", "ses-01", "run-01") not in present
    assert len(present) == 5
    whole = read_metadata(prepare(twin, tmp_path / "whole", allow_partial=True))
    assert whole["partial"] is None and not (tmp_path / "whole" / "not_downloaded.txt").exists()


def test_partial_derivative_is_used_if_asked_for(twin, tmp_path):
    raw = shutil.copytree(twin, tmp_path / "raw")
    (raw / "derivatives" / "preprocessed" / "preprocessed_P1-epo.fif").unlink()
    with pytest.raises(DataError, match=r"not downloaded: .*preprocessed_P1-epo\.fif"):
        prepare(raw, tmp_path / "out", route="derivative")
    folder = prepare(raw, tmp_path / "out", route="derivative", allow_partial=True)
    metadata = read_metadata(folder)
    assert metadata["partial"]["subjects"] == {"found": [2], "declared": [1, 2]}
    assert metadata["subjects"] == ["sub-02"]
    listed = (folder / "not_downloaded.txt").read_text()
    assert listed == "derivatives/preprocessed/preprocessed_P1-epo.fif\n"


def test_signal_dropouts_are_filled_before_the_filter(twin):
    """Against MNE: fill 0.2 s with the median of each channel, drop the sensor, filter, cut, z-score, decimate."""
    reader, trials = opened(twin, "baseline_zscore")
    own = trials[(trials.subject == 1) & (trials.session == 1)]
    start = int(own["sample"][(own.run == 1) & (own.split != "")].iloc[1]) + 300  # 0.25 s into an epoch
    reader = replace(reader, recipe=PUBLISHED, facts=replace(reader.facts, dropouts={(1, 1, 1): start / 1200}))
    found = np.stack([epoch for _, epoch in reader.epochs(own)])
    raw = mne.io.read_raw_ctf(twin / (RUN.format(1) + "meg.ds"), preload=True, verbose="ERROR")
    raw._data[:, start : start + 240] = np.median(raw.get_data(), axis=1)[:, None]
    raw.pick([name for name in raw.ch_names if name.startswith("M") and name != "MRO11-1609"], verbose="ERROR")
    raw.filter(0.1, 40, verbose="ERROR")
    events = own[own.run == 1]
    onsets = np.stack([events["sample"], np.zeros(len(events), int), np.ones(len(events), int)], axis=1)
    epochs = mne.Epochs(raw, onsets, tmin=-0.1, tmax=1.3, baseline=None, preload=True, verbose="ERROR")
    data = mne.baseline.rescale(epochs.get_data(), epochs.times, (None, 0), mode="zscore", verbose="ERROR")
    expected = data[(events.split != "").to_numpy()][:, :, ::6]
    assert_allclose(found[: len(expected)], expected, atol=1e-3 * expected.std())
    plain = np.stack([epoch for _, epoch in replace(reader, facts=replace(reader.facts, dropouts={})).epochs(own)])
    assert np.abs(found - plain).max() > 0.3 * expected.std()  # without the fill it would be something else
    assert REAL.dropouts == {(1, 11, 5): 13.4, (2, 10, 3): 59.8}


def test_recordings_beyond_two_gigabytes_go_on_in_further_files(mini, tmp_path):
    before = rows(prepare(mini, tmp_path / "one"))
    data_file = next((mini / (RUN.format(1) + "meg.ds")).glob("*.meg4"))
    content = data_file.read_bytes()
    n_blocks = (len(content) - 8) // (4 * 1200 * 10)  # 5 sensors, 2 references, clock, diode, trigger
    assert (len(content) - 8) % (4 * 1200 * 10) == 0 and n_blocks > 4
    cut = 8 + 4 * 1200 * 10 * 4
    data_file.write_bytes(content[:cut])
    further = data_file.with_suffix(".1_meg4")
    further.write_bytes(content[:8] + content[cut:])
    after = rows(prepare(mini, tmp_path / "two"))
    assert all(np.array_equal(before[key]["meg"], after[key]["meg"]) for key in before)
    further.unlink()
    with pytest.raises(DataError, match=r"\.meg4' is truncated"):
        prepare(mini, tmp_path / "three")


def test_triggers_are_found_as_mne_finds_them(twin, real_data):
    recordings = [twin / (RUN.format(1) + "meg.ds"), real_data / "ctf" / "testdata_ctf_short_discontinuous.ds"]
    for path, count in zip(recordings, (len(make_run(twin)), 0), strict=True):
        raw = mne.io.read_raw_ctf(path, verbose="ERROR")
        events = mne.find_events(raw, "UPPT001", initial_event=True, shortest_event=1, verbose="ERROR")
        found = things_meg_recordings.trigger_samples(raw.get_data(["UPPT001"])[0])
        assert found.tolist() == events[events[:, 2] == 64, 0].tolist() and len(found) == count
    info = mne.create_info(["UPPT001"], 1200.0, "stim")
    codes = np.repeat([0, 64, 0, 32, 64, 96, 64, 0, 64], 7).astype(float)
    events = mne.find_events(mne.io.RawArray(codes[None], info, verbose="ERROR"), "UPPT001", verbose="ERROR")
    assert things_meg_recordings.trigger_samples(codes).tolist() == events[events[:, 2] == 64, 0].tolist()


def make_run(twin):
    return pd.read_csv(twin / (RUN.format(1) + "events.tsv"), sep="\t")


def test_list_of_images_is_enough_without_the_tables(mini, tmp_path):
    for path in (mini / "sourcedata").glob("*.csv"):
        path.write_text("/annex/objects/MD5E-s4123--0123.csv\n")
    assert prepare(mini, tmp_path / "a").is_dir()


def test_hidden_files_are_ignored(mini, tmp_path):
    for name in (
        "._" + Path(RUN.format(1)).name + "events.tsv",
        ".DS_Store",
        "._" + Path(RUN.format(1)).name + "meg.ds",
    ):
        (mini / "sub-BIGMEG1" / "ses-01" / "meg" / name).write_bytes(b"\x00\x05\x16\x07")
    assert prepare(mini, tmp_path / "a").is_dir()


# ------------------------------------------------------------------------------------------------ the real files


def real_runs(folder, subjects=(1, 2, 3, 4), sessions=range(1, 13)):
    """Runs of the real metadata, whose recordings are not there."""
    return things_meg_files.find_runs(folder, subjects, sessions, REAL, allow_partial=False)[0]


@pytest.fixture(scope="module")
def real_trials(real_data):
    runs = real_runs(real_data / "things_meg_metadata")
    return runs, things_meg_files.run_trials(runs, REAL)


def test_counts_of_the_real_corpus(real_trials):
    runs, trials = real_trials
    assert len(runs) == 480 and len(trials) == 108_192
    for _, own in trials.groupby("subject"):
        assert own.trial_type.value_counts().to_dict() == {"exp": 22_248, "test": 2_400, "catch": 2_400}
        exp, test = own[own.trial_type == "exp"], own[own.trial_type == "test"]
        assert exp.value.is_unique and exp.category.nunique() == 1854
        assert test.value.value_counts().to_dict() == dict.fromkeys(test.value.unique(), 12)
        assert test.value.nunique() == 200
        assert (~exp.category.isin(test.category)).sum() == 19_848
        assert own.trial.tolist() == list(range(27_048))
    assert (trials.value[trials.trial_type == "catch"] == -1).all()


@pytest.mark.parametrize("sessions", [range(1, 13), [2, 7, 12], [5]])
def test_declared_facts_are_those_of_the_real_corpus(real_trials, sessions):
    trials = real_trials[1].query("session in @sessions")
    for subjects in ([1, 2, 3, 4], [3]):
        own = trials[trials.subject.isin(subjects)]
        declared = things_meg_facts.declared_trials(REAL, subjects, list(sessions))
        found = things_meg_facts.found_trials(own)
        assert check_facts("real", declared, found, allow_partial=False) is None
        assert found.keys() - declared.keys() <= {"images shown"}
    if len(sessions) == 12:
        facts = declared["trials of subject 3"]
        assert (facts["runs"], facts["exp"], facts["test"], facts["catch"]) == (120, 22_248, 2_400, 2_400)
        assert (facts["exp concepts"], facts["test images"], facts["repeats of a test image"]) == (1854, 200, [12])
        assert declared["images shown"] == 22_448
        for lost in (own.index[:1], own.index[own.session == 4], own.index[own.run == 3]):
            with pytest.raises(DataError, match=r"trials of subject 3: .* instead of"):
                check_facts("real", declared, things_meg_facts.found_trials(own.drop(lost)), allow_partial=False)
        with pytest.raises(DataError, match=r"subjects: \[3\] instead of \[3, 4\]"):
            check_facts("real", things_meg_facts.declared_trials(REAL, [3, 4], [1]), found, allow_partial=False)


def test_splits_of_the_real_corpus(real_trials):
    trials = real_trials[1].copy()
    trials["image_id"] = trials.value.astype(str)
    trials["concept"] = trials.category.astype(str)
    for split, train, test, images in (
        ("paper", 22_248, 2_400, 200),
        ("zero_shot", 19_848, 2_400, 200),
        ("large", 19_848, 2_400, 2_400),
    ):
        things_meg.assign_splits(trials, split, 0.1, 0)
        for subject in (1, 2, 3, 4):
            own = trials[trials.subject == subject]
            counts = own.split.value_counts().to_dict()
            assert counts["train"] + counts["validation"] == train and counts["test"] == test
            assert own.image_id[own.split == "test"].nunique() == images
        per_subject = trials[trials.split == "validation"].groupby("subject").image_id.agg(frozenset)
        assert len(per_subject) == 4 and per_subject.nunique() == 1 and len(per_subject.iloc[0]) == round(0.1 * train)
        declared = things_meg_facts.declared_splits(REAL, [1, 2, 3, 4], range(1, 13), split)
        found = things_meg_facts.found_splits(trials, split)
        assert check_facts("real", declared, found, allow_partial=False) is None and len(found) == 4
        moved = trials.copy()
        moved.loc[moved.index[moved.split == "test"][0], "split"] = ""
        with pytest.raises(DataError, match="'test': 2399"):
            check_facts("real", declared, things_meg_facts.found_splits(moved, split), allow_partial=False)


def test_categories_of_the_real_corpus(real_data):
    path = real_data / "things_meg_metadata" / "sourcedata" / "category_mat_manual.tsv"
    names, flags = things_meg_stimuli._read_matrix(path, REAL)
    assert len(flags) == 1854 and len(names) == 27
    assert sum(not any(row) for row in flags) == 559 and sum(sum(row) > 1 for row in flags) == 302
    assert [names[k] for k in np.flatnonzero(flags[0])] == ["animal"]  # aardvark
    assert [names[k] for k in np.flatnonzero(flags[1])] == ["home decor"]  # abacus
    table = real_data / "things_tables" / "MRI" / "data" / "Categories_final_20200131.tsv"
    words, more, flags_53 = things_meg_stimuli._read_table(table, REAL, path, names, flags)
    assert len(words) == len(flags_53) == 1854 and len(set(words)) < 1854 and len(more) == len(set(more)) == 53
    assert sum(not any(row) for row in flags_53) == 406 and sum(sum(row) > 1 for row in flags_53) == 664
    assert [more[k] for k in np.flatnonzero(flags_53[0])] == ["animal", "mammal"]
    concepts = (real_data / "things_tables" / "things_concepts.tsv").read_text(encoding="utf-8").splitlines()[1:]
    unique_ids = [line.split("\t")[1] for line in concepts]
    plain = things_meg_stimuli._plain_word
    assert [plain(word) for word in words] == [plain(name) for name in unique_ids]  # both are in THINGS order


def test_real_metadata_without_recordings_are_not_downloaded(real_data, tmp_path):
    raw_dir = real_data / "things_meg_metadata"
    assert things_meg_files.check_version(raw_dir, required=True) == "3.0.0"
    with pytest.raises(DataError, match=r"not downloaded: .*_meg\.ds'; get it with `datalad get`"):
        things_meg_recordings.open_raw(real_runs(raw_dir, [1], [1]), PAPER, "none", REAL)
    with pytest.raises(DataError, match=r"not downloaded: .*_meg\.ds'; get it with `datalad get`"):
        prepare(raw_dir, tmp_path / "out")
    with pytest.raises(DataError, match=r"None of the 480 recordings is downloaded, first .*run-01_meg\.res4"):
        prepare(raw_dir, tmp_path / "out", allow_partial=True)


def test_incomplete_real_sessions_are_refused(real_data, tmp_path):
    source = real_data / "things_meg_metadata"
    for session in (1, 2):
        target = tmp_path / "sub-BIGMEG1" / f"ses-{session:02d}" / "meg"
        target.mkdir(parents=True)
        for path in (source / target.relative_to(tmp_path)).glob("*_events.tsv"):
            shutil.copyfile(path, target / path.name)
    with pytest.raises(DataError, match=r"ses-03/meg' holds 0 runs, expected 10.*--sessions"):
        real_runs(tmp_path, [1])
    assert len(real_runs(tmp_path, [1], [1, 2])) == 20
    last = sorted((tmp_path / "sub-BIGMEG1" / "ses-02" / "meg").iterdir())[-1]
    last.write_text("\n".join(last.read_text().splitlines()[:-1]) + "\n")
    trials = things_meg_files.run_trials(real_runs(tmp_path, [1], [1, 2])[:19], REAL)
    assert len(trials) == 1854 + 2 * 400 + 1854 - 185 - 40
    with pytest.raises(DataError, match=r"run-10_events.tsv' has (184|19) trials of type|instead of"):
        trials = things_meg_files.run_trials(real_runs(tmp_path, [1], [1, 2]), REAL)
        declared = things_meg_facts.declared_trials(REAL, [1], [1, 2])
        check_facts(tmp_path, declared, things_meg_facts.found_trials(trials), allow_partial=False)


def test_real_recordings(real_data):
    folder = real_data / "ctf"
    facts = things_meg_recordings.check_recording(folder / "testdata_ctf_short_discontinuous.ds")
    assert facts == {"sfreq": 1200.0, "n_times": 2402, "n_chans": 356}
    raw = things_meg_recordings.open_recording(folder / "testdata_ctf_short_discontinuous.ds")
    assert raw.n_times == 2402 and np.isfinite(raw.get_data(["MLC22-4304", "UPPT001"])).all()
    gains = np.abs([gain for name, gain, *_ in things_meg_recordings._channels(raw) if name.startswith("M")])
    ratios = gains / np.median(gains)
    assert len(gains) == 273 and ratios.min() > 0.94 and ratios.max() < 1.11
    raw = things_meg_recordings.open_recording(folder / "somMDYO-18av.ds")
    assert raw.info["sfreq"] == 1250.0
    assert things_meg_recordings.meg_names(raw.ch_names) == []  # another system: names end in -606
    renamed = [name.replace("-606", "-1609") for name in raw.ch_names]
    assert len(things_meg_recordings.meg_names(renamed)) == 150  # 151 gradiometers without MRO11
    with pytest.raises(DataError, match=r"not downloaded: .*catch-alp-good-f\.meg4'; get it with"):
        things_meg_recordings.check_recording(folder / "catch-alp-good-f.ds")


# ------------------------------------------------------------------- the real design with one recording of real size


def things_names(real_data, trials):
    """A list of 26,107 file names in the form of THINGS: real concepts, made-up names of the images."""
    concepts = (real_data / "things_tables" / "things_concepts.tsv").read_text(encoding="utf-8").splitlines()[1:]
    unique_ids = [line.split("\t")[1] for line in concepts]
    shown = trials[trials.value > 0].drop_duplicates("value").set_index("value").category
    category = shown.reindex(range(1, 26_108)).bfill().ffill().astype(int)  # images nobody saw: the next one's concept
    number = category.groupby(category).cumcount() + 1
    return [f"{unique_ids[c - 1]}_{n:02d}s.jpg" for c, n in zip(category, number, strict=True)]


def write_real_size_run(path, events):
    """348 s of all sensors, triggers and clock; after the onset of image v, 0.4 s of a field of (v mod 97 + 1) pT."""
    n_times, rng = 417_600, np.random.default_rng(0)
    places = itertools.product("LRZ", "CFOPT", range(1, 8), range(1, 6))
    concise = ["".join(map(str, place)) for place in places]
    names = [*[f"M{name}-1609" for name in concise if name != "RO11"][:271], "MRO11-1609"]
    data = np.zeros((275, n_times), dtype=np.float32)
    data[1:273] = 1e-14 * rng.standard_normal((1, n_times), dtype=np.float32)
    data[0] = np.arange(1, n_times + 1) / 1200.0
    for sample, value in zip(events["sample"], events.value.fillna(0).astype(int), strict=True):
        data[1:273, sample : sample + 480] += (value % 97 + 1) * 1e-12
        data[274, sample - 18 : sample - 6] = 64
    place = ((0.0, 0.0, 0.12), (0.0, 0.0, 1.0))
    channels = [CtfChannel("SCLK01-177", "clock"), *[CtfChannel(name, "meg", *place) for name in names]]
    channels += [CtfChannel("BG1-1609", "ref_mag", *place), CtfChannel("UPPT001", "stim")]
    write_ds(path, data, channels, 1200.0, trial_samples=1200)


@pytest.mark.slow
def test_one_recording_of_real_size_joins_the_real_design(real_data, real_trials, tmp_path):
    """Real events of all runs, real concepts and categories; synthetic signals, for one run, and images."""
    source, raw = real_data / "things_meg_metadata", tmp_path / "raw"
    raw.mkdir()
    for path in source.iterdir():
        if path.name != "sub-BIGMEG3":
            (raw / path.name).symlink_to(path)
    run = things_meg_files.Run(3, 4, 5, *[
        raw / "sub-BIGMEG3" / "ses-04" / "meg" / f"sub-BIGMEG3_ses-04_task-main_run-05_{end}"
        for end in ("meg.ds", "events.tsv")
    ])  # fmt: skip
    run.events.parent.mkdir(parents=True)
    shutil.copyfile(source / run.events.relative_to(raw), run.events)
    events = pd.read_csv(run.events, sep="\t")
    write_real_size_run(run.recording, events)
    names = things_names(real_data, real_trials[1])
    (raw / "images").mkdir()
    (raw / "images" / "image_paths.csv").write_text("".join(f"images/x/{name}\n" for name in names))
    for value in events.value.dropna().astype(int):
        path = raw / "images" / names[value - 1].rsplit("_", 1)[0] / names[value - 1]
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(value).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    table = real_data / "things_tables" / "MRI" / "data" / "Categories_final_20200131.tsv"
    options = {"categories": "53", "categories_file": table, "scaling": "none", "allow_partial": True}
    folder = prepare(raw, tmp_path / "out", **options)
    shutil.rmtree(raw / "sub-BIGMEG3")  # half a gigabyte
    metadata, found = read_metadata(folder), rows(folder)
    assert metadata["partial"]["subjects"] == {"found": [3], "declared": [1, 2, 3, 4]}
    assert len((folder / "not_downloaded.txt").read_text().splitlines()) == 479
    assert metadata["n_chans"] == 271 and "MRO11-1609" not in metadata["ch_names"]
    shown = events[events.trial_type != "catch"]
    assert len(found) == len(shown) and sum(row["split"] == "test" for row in found.values()) == 20
    for (_, trial), row in found.items():
        value = int(shown.value[trial])
        assert f"{row['image_id']}.jpg" == names[value - 1]
        height = row["meg"][:, 66:102].mean()  # 0.05 to 0.35 s
        assert_allclose(height, (value % 97 + 1) * 1e-12, atol=4e-13)
    images = load_dataset(str(folder), "images", split="images")
    mammals = {row["concept"] for row in images if "mammal" in row["categories"]}
    lines = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
    expected = {names[value - 1].rsplit("_", 1)[0] for value, category in zip(
        shown.value.astype(int), shown.things_category_nr.astype(int), strict=True
    ) if lines[category][lines[0].index("mammal")] == "1"}  # fmt: skip
    assert mammals == expected and mammals
