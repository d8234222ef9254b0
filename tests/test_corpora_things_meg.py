"""THINGS-MEG: the simulated corpus in its raw formats, both routes of the reader, and the real metadata."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
from datasets import load_dataset
from numpy.testing import assert_allclose

from neural_clip.corpora import things_meg, things_meg_files, things_meg_sources
from neural_clip.corpora.meg_preprocessing import PAPER, PUBLISHED, cut_epochs, filter_continuous, filter_taps
from neural_clip.corpora.prepared import read_metadata
from neural_clip.corpora.things_meg import main, prepare
from neural_clip.errors import DataError
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
def mini_twin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini") / "things_meg"
    write(folder, MINI, SEED)
    return folder


@pytest.fixture
def mini(mini_twin, tmp_path):
    """A small copy to damage."""
    return shutil.copytree(mini_twin, tmp_path / "raw")


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


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------------------------------------- the twin


def test_one_seed_gives_one_corpus(mini_twin, tmp_path):
    write(tmp_path / "again", MINI, SEED)
    write(tmp_path / "other", MINI, SEED + 1, derivative=False)
    first, again, other = files(mini_twin), files(tmp_path / "again"), files(tmp_path / "other")
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
    assert table.shape == (TINY.meg.n_trials_per_session * TINY.meg.n_sessions, 18)


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
    main(argv)
    assert "THINGS-MEG is in" in capsys.readouterr().out
    found = rows(tmp_path / "a")
    assert {row["subject"] for row in found.values()} == {"sub-02"} and {r["session"] for r in found.values()} == {
        "ses-01"
    }
    with pytest.raises(DataError, match="--overwrite"):
        main(argv)


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


# ------------------------------------------------------------------------------------------- what can go wrong


def edit(path, old, new, count=1):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, count))


def meg4(raw, session=1):
    folder = raw / (RUN.format(session) + "meg.ds")
    return next(folder.glob("*.meg4"))


def pointer(path):
    path.write_text("/annex/objects/SHA256E-s518000008--0123456789abcdef.meg4\n")


def dangle(path):
    path.unlink()
    path.symlink_to("../../../.git/annex/objects/xx/yy/gone")


def truncate(path, n_bytes):
    path.write_bytes(path.read_bytes()[:-n_bytes])


def late_event(raw):
    path = raw / (RUN.format(2) + "events.tsv")
    lines = path.read_text().splitlines()
    fields = lines[-1].split("\t")
    fields[0], fields[2], fields[3], fields[4], fields[5] = "900.0", "exp", "1.0", "1.0", "1080000"
    path.write_text("\n".join([*lines[:-1], "\t".join(fields)]) + "\n")


def move_sample(raw):
    path = raw / (RUN.format(1) + "events.tsv")
    lines = path.read_text().splitlines()
    fields = lines[1].split("\t")
    fields[5] = str(int(fields[5]) + 180)  # the 150 ms by which trigger times differ
    path.write_text("\n".join([lines[0], "\t".join(fields), *lines[2:]]) + "\n")


def second_concept(raw):
    path = raw / (RUN.format(2) + "events.tsv")
    table = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=str)
    row = table.index[table.trial_type == "test"][0]
    table.loc[row, "things_category_nr"] = str(float(table.loc[row, "things_category_nr"]) % 8 + 1)
    table.to_csv(path, sep="\t", index=False)


def shift_image_list(raw):
    path = raw / "images" / "image_paths.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[1:], lines[0]]) + "\n")


def lose_image(raw):
    sorted((raw / "images" / "object_images").rglob("*_02b.jpg"))[0].unlink()


def old_version(raw):
    edit(raw / "dataset_description.json", b"v3.0.0", b"v1.0.3")


def header(raw, session=1):
    return meg4(raw, session).with_suffix(".res4")


def events_file(raw, session=1):
    return raw / (RUN.format(session) + "events.tsv")


def other_rate(raw):
    edit(header(raw), np.array(1200.0, ">f8").tobytes(), np.array(600.0, ">f8").tobytes())


def two_in_the_matrix(raw):
    edit(raw / "sourcedata" / "category_mat_manual.tsv", b"\t0", b"\t2")


RAW_FAULTS = {
    "dangling link": (lambda raw: dangle(meg4(raw)), "is a link to a file that was not downloaded.*datalad get"),
    "annex pointer": (lambda raw: pointer(meg4(raw)), r"\.meg4' was not downloaded \(it is a git-annex pointer\)"),
    "no recording": (lambda raw: shutil.rmtree(meg4(raw).parent), r"_meg\.ds' was not downloaded"),
    "truncated": (lambda raw: truncate(meg4(raw), 1000), r"\.meg4' is truncated: \d+ bytes, expected \d+"),
    "one block short": (lambda raw: truncate(meg4(raw), 10 * 4 * 1200), r"\.meg4' is truncated"),
    "no header": (lambda raw: header(raw).write_bytes(bytes(3000)), r"\.res4' is no CTF header"),
    "short header": (lambda raw: truncate(header(raw), 20_000), "cannot be read by MNE"),
    "broken coils": (lambda raw: edit(meg4(raw).with_suffix(".hc"), b"measured", b"unable"), "cannot be read by MNE"),
    "other channel": (lambda raw: edit(header(raw, 2), b"MRT", b"XRT", -1), r"missing \['MRT.*extra \[\]"),
    "too few channels": (lambda raw: edit(header(raw), b"MRT", b"XRT", -1), "usable MEG channels.*expected 4"),
    "other rate": (other_rate, "has 600 Hz; expected 1200 Hz"),
    "late event": (late_event, r"event \d+ at sample 1080000 needs samples"),
    "moved sample": (move_sample, "is not sample"),
    "no number": (lambda raw: edit(events_file(raw), b"test\t", b"test\tN/A\t"), "lacks an onset, a sample or"),
    "other type": (lambda raw: edit(events_file(raw), b"\texp\t", b"\toddball\t"), "but got 'oddball'"),
    "other columns": (lambda raw: edit(events_file(raw), b"value", b"number"), "expected the columns"),
    "empty events": (lambda raw: events_file(raw).write_text("onset\n"), "expected the columns"),
    "no events": (lambda raw: events_file(raw).unlink(), r"_events\.tsv' is missing"),
    "two concepts": (second_concept, "comes with two concept numbers|has the THINGS numbers"),
    "old version": (old_version, r"version 2\.0\.0 or later"),
    "no description": (lambda raw: (raw / "dataset_description.json").unlink(), "no THINGS-MEG folder"),
    "shifted list": (shift_image_list, "but elsewhere it is"),
    "no image": (lose_image, r"_02b\.jpg' was not downloaded"),
    "no images": (lambda raw: shutil.rmtree(raw / "images"), "--images-dir"),
    "bad matrix": (two_in_the_matrix, "zeros and ones"),
}  # fmt: skip


@pytest.mark.parametrize("fault", RAW_FAULTS)
def test_raw_faults_are_named(mini, tmp_path, fault):
    damage, words = RAW_FAULTS[fault]
    damage(mini)
    with pytest.raises(DataError, match=words):
        prepare(mini, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def epo(raw, part=""):
    return raw / "derivatives" / "preprocessed" / f"preprocessed_P1-epo{part}.fif"


def shuffle_table(raw):
    path = raw / "sourcedata" / "sample_attributes_P1.csv"
    pd.read_csv(path).sample(frac=1, random_state=0).to_csv(path, index=False)


def cut_table(raw):
    path = raw / "sourcedata" / "sample_attributes_P1.csv"
    pd.read_csv(path).iloc[:-1].to_csv(path, index=False)


DERIVATIVE_FAULTS = {
    "shuffled table": (shuffle_table, "disagree in .* rows; first in row"),
    "short table": (cut_table, r"holds \d+ epochs, but its table of attributes has \d+ rows"),
    "no table": (lambda raw: (raw / "sourcedata" / "sample_attributes_P1.csv").unlink(), "P1.csv' was not downloaded"),
    "part is a link": (lambda raw: dangle(epo(raw, "-1")), "epo-1.fif' is a link to a file that was not downloaded"),
    "part is a pointer": (lambda raw: pointer(epo(raw, "-1")), "epo-1.fif' was not downloaded"),
    "part is missing": (lambda raw: epo(raw, "-1").unlink(), "cannot be read by MNE|holds .* epochs, but"),
    "no file": (lambda raw: epo(raw).unlink(), "epo.fif' was not downloaded"),
    "truncated": (lambda raw: truncate(epo(raw), 40_000), "cannot be read by MNE"),
    "no fif": (lambda raw: epo(raw).write_bytes(bytes(5000)), "cannot be read by MNE"),
    "old version": (old_version, "version 2.0.0 or later"),
}


@pytest.mark.parametrize("fault", DERIVATIVE_FAULTS)
def test_derivative_faults_are_named(mini, tmp_path, fault):
    damage, words = DERIVATIVE_FAULTS[fault]
    damage(mini)
    with pytest.raises(DataError, match=words):
        prepare(mini, tmp_path / "out", route="derivative")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"route": "fif"}, "'route'.*'raw', 'derivative', but got 'fif'"),
        ({"split": "random"}, "'split'.*but got 'random'"),
        ({"scaling": "robust"}, "'scaling'.*but got 'robust'"),
        ({"preprocessing": "none"}, "'preprocessing'.*but got 'none'"),
        ({"route": "derivative", "preprocessing": "paper"}, "allows only"),
        ({"route": "derivative", "scaling": "train_std"}, "allows only"),
        ({"subjects": [4]}, "Present are subjects \\[1\\]"),
        ({"sessions": [7]}, "ses-07/meg' holds 0 runs"),
        ({"route": "derivative", "sessions": [7]}, r"has no sessions \[7\]"),
        ({"validation_fraction": 1.5}, "'fraction'"),
    ],
)
def test_bad_parameters_are_named(mini_twin, tmp_path, parameters, words):
    with pytest.raises(DataError, match=words):
        prepare(mini_twin, tmp_path / "out", **parameters)


# ------------------------------------------------------------------------------------------------ the real files


@pytest.fixture(scope="module")
def real_trials(real_data):
    raw_dir = real_data / "things_meg_metadata"
    runs = things_meg_files.find_runs(raw_dir, None, None, simulated=False)
    return runs, things_meg_files.run_trials(runs, sfreq=1200.0, simulated=False)


def test_counts_of_the_real_corpus(real_trials):
    runs, trials = real_trials
    assert len(runs) == 480 and len(trials) == 108_192
    for _, own in trials.groupby("subject"):
        assert own.trial_type.value_counts().to_dict() == {"exp": 22_248, "test": 2_400, "catch": 2_400}
        exp, test = own[own.trial_type == "exp"], own[own.trial_type == "test"]
        assert exp.value.is_unique and exp.category.nunique() == 1854
        assert (
            test.value.value_counts().to_dict() == dict.fromkeys(test.value.unique(), 12)
            and test.value.nunique() == 200
        )
        assert (~exp.category.isin(test.category)).sum() == 19_848
        assert own.trial.tolist() == list(range(27_048))
    assert (trials.value[trials.trial_type == "catch"] == -1).all()


def test_splits_of_the_real_corpus(real_trials):
    trials = real_trials[1].query("subject > 2").copy()
    trials["image_id"] = trials.value.astype(str)
    trials["concept"] = trials.category.astype(str)
    for split, train, test, images in (
        ("paper", 22_248, 2_400, 200),
        ("zero_shot", 19_848, 2_400, 200),
        ("large", 19_848, 2_400, 2_400),
    ):
        things_meg.assign_splits(trials, split, 0.1, 0)
        own = trials[trials.subject == 3]
        counts = own.split.value_counts().to_dict()
        assert counts["train"] + counts["validation"] == train and counts["test"] == test
        assert own.image_id[own.split == "test"].nunique() == images
        per_subject = trials[trials.split == "validation"].groupby("subject").image_id.agg(frozenset)
        assert len(per_subject) == 2 and per_subject.nunique() == 1 and len(per_subject.iloc[0]) == round(0.1 * train)


def test_categories_of_the_real_corpus(real_data):
    path = real_data / "things_meg_metadata" / "sourcedata" / "category_mat_manual.tsv"
    categories = things_meg_files._read_categories(path, simulated=False)
    assert len(categories) == 1854
    assert sum(names == ["none"] for names in categories) == 559 and sum(len(names) > 1 for names in categories) == 302
    assert categories[0] == ["animal"] and categories[1] == ["home decor"]  # aardvark, abacus


def test_real_metadata_without_recordings_are_not_downloaded(real_data, tmp_path):
    raw_dir = real_data / "things_meg_metadata"
    assert things_meg_files.check_version(raw_dir, required=True) == "3.0.0"
    runs = things_meg_files.find_runs(raw_dir, [1], [1], simulated=False)
    with pytest.raises(DataError, match=r"_meg\.ds' was not downloaded"):
        things_meg_sources.RawSource(runs, PAPER, "baseline_zscore", 1200.0).check()
    with pytest.raises(DataError, match="--images-dir"):
        prepare(raw_dir, tmp_path / "out")


def test_incomplete_real_sessions_are_refused(real_data, tmp_path):
    source = real_data / "things_meg_metadata"
    for session in (1, 2):
        target = tmp_path / "sub-BIGMEG1" / f"ses-{session:02d}" / "meg"
        target.mkdir(parents=True)
        for path in (source / target.relative_to(tmp_path)).glob("*_events.tsv"):
            shutil.copyfile(path, target / path.name)
    with pytest.raises(DataError, match=r"ses-03/meg' holds 0 runs, expected 10.*--sessions"):
        things_meg_files.find_runs(tmp_path, [1], None, simulated=False)
    assert len(things_meg_files.find_runs(tmp_path, [1], [1, 2], simulated=False)) == 20
    last = sorted((tmp_path / "sub-BIGMEG1" / "ses-02" / "meg").iterdir())[-1]
    last.write_text("\n".join(last.read_text().splitlines()[:-1]) + "\n")
    runs = things_meg_files.find_runs(tmp_path, [1], [1, 2], simulated=False)
    with pytest.raises(DataError, match=r"sub-BIGMEG1/ses-02 has .* events, but the corpus has"):
        things_meg_files.run_trials(runs, sfreq=1200.0, simulated=False)


def test_real_recordings(real_data):
    folder = real_data / "ctf"
    facts = things_meg_files.check_recording(folder / "testdata_ctf_short_discontinuous.ds")
    assert facts == {"sfreq": 1200.0, "n_times": 2402, "n_chans": 356}
    raw = things_meg_sources.open_recording(folder / "somMDYO-18av.ds")
    assert raw.info["sfreq"] == 1250.0
    assert things_meg_sources.meg_names(raw.ch_names) == []  # another system: names end in -606
    renamed = [name.replace("-606", "-1609") for name in raw.ch_names]
    assert len(things_meg_sources.meg_names(renamed)) == 150  # 151 gradiometers without MRO11
    with pytest.raises(DataError, match=r"catch-alp-good-f\.meg4' was not downloaded"):
        things_meg_files.check_recording(folder / "catch-alp-good-f.ds")
