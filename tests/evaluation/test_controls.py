"""Controls find what was planted for them, and stay at chance where nothing was."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tqdm

from neural_clip.corpora.imagenet_eeg.build import prepare
from neural_clip.evaluation import controls
from neural_clip.evaluation.baselines import tried
from neural_clip.evaluation.baselines.linear import per_subject_ridge
from neural_clip.evaluation.baselines.ridge import CholeskyRidge
from neural_clip.evaluation.controls import ControlData, run_controls
from neural_clip.evaluation.finished_parts import FinishedParts
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.writer import write_prepared
from neural_clip.retrieval.scores import retrieval_scores
from neural_clip.simulation import imagenet_eeg_twin
from neural_clip.simulation.presets import get_preset
from neural_clip.targets.embed_images import embed_images
from paths import REPOSITORY
from planted_data import embedded, split_of

pytestmark = pytest.mark.numerical

WIDTH, N_CHANS, N_TIMES, SFREQ, TMIN = 12, 6, 20, 100.0, -0.08
N_IMAGES = {"train": 240, "validation": 60, "test": 60}
PRE = 8  # samples before onset


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """`planted_data` with the images of a data set that have the ids of the recordings, for files and concepts."""
    rng = np.random.default_rng(0)
    names = [(f"{split}{i:03d}", split) for split, count in N_IMAGES.items() for i in range(count)]
    images = [{"image_id": name, "concept": f"concept {i % 7}", "categories": [],
               "image_embeds": rng.standard_normal(WIDTH)} for i, (name, _) in enumerate(names)]  # fmt: skip
    rows = ({"subject": "sub-01", "image_id": name, "split": split, "fmri": rng.standard_normal(3)}
            for name, split in names)  # fmt: skip
    metadata = {
        "corpus": "planted", "modality": "fmri", "split_protocol": "planted", "split_unit": "image", "source": "none",
        "licence": "none", "redistribution": "allowed", "citation": "none",
        "image_encoder": {"name": "planted", "revision": "0", "pooling": "projected"},
    }  # fmt: skip
    written = PreparedSet.open(write_prepared(tmp_path_factory.mktemp("planted") / "data", metadata, rows, images))

    def make(*args, **kwargs):
        data = planted_data(*args, **kwargs)
        table, own = written.images, data.scored.data.images
        embeds = table.embeds.astype(float)
        embeds[table.rows_of(own.image_ids)] = own.embeds
        images = replace(table, embeds=embeds)
        opened = PreparedSet(written.name, written.folder, data.scored.facts, images)
        return replace(data, scored=replace(data.scored, data=opened))

    return make


def planted_data(kind, *, n_subjects=2, repeats=1, seed=0, block=False, modality="eeg", **more):
    """Recordings whose signal sits in one place only: `post`, `pre`, `drift`, or nowhere (`none`)."""
    rng = np.random.default_rng([seed, 5])
    maps = rng.standard_normal((WIDTH, N_CHANS))
    classes = rng.standard_normal((10, WIDTH))
    splits, times, facts = {}, {}, {"tmin": TMIN, "sfreq": SFREQ} | more
    for name, count in N_IMAGES.items():
        labels = rng.integers(0, 10, count)
        embeds = classes[labels] + 0.6 * rng.standard_normal((count, WIDTH))
        image = np.tile(np.arange(count), n_subjects * repeats)
        subject = np.repeat([f"sub-{s:02d}" for s in range(1, n_subjects + 1)], count * repeats)
        waves = {
            "post": np.r_[np.zeros(PRE), np.sin(np.linspace(0, 4 * np.pi, N_TIMES - PRE))],
            "pre": np.r_[np.sin(np.linspace(0, 4 * np.pi, PRE)), np.zeros(N_TIMES - PRE)],
            "drift": np.linspace(0, 1, N_TIMES),
            "none": np.zeros(N_TIMES),
        }
        signal = (embeds[image] @ maps)[:, :, None] * waves[kind]
        recordings = (signal + 2 * rng.standard_normal(signal.shape)).astype(np.float32)
        ids = np.array([f"{name}{i:03d}" for i in image])
        splits[name] = split_of(recordings, subject, ids, embeds[image], modality, name=name, **facts)
        # in blocks, images of a class follow each other; otherwise time knows nothing
        time = labels[image] + 0.5 * rng.random(len(image)) if block else rng.permutation(len(image))
        times[name] = (subject, time)
    test = splits["test"]
    scored = embedded(test, (test.targets + 1.5 * rng.standard_normal(test.targets.shape)).astype(np.float32))
    return ControlData(scored, splits["train"], splits["validation"], test, times)


def by_check(records):
    return {record["check"]: record for record in records}


@pytest.mark.parametrize(
    ("kind", "block", "found"),
    [
        ("post", False, {"leave one subject out"}),
        ("pre", False, {"before onset", "leave one subject out"}),
        ("drift", False, {"slow drift alone", "before onset", "leave one subject out"}),
        ("none", True, {"time alone"}),
        ("none", False, set()),
    ],
)
def test_controls_find_what_was_planted_for_them(planted, kind, block, found):
    records = by_check(run_controls(planted(kind, block=block), seed=0))
    for check in ("shuffled labels", "time alone", "slow drift alone", "before onset", "leave one subject out"):
        record = records[check]
        if check in found:
            assert record["two_way"] > 0.65, (check, record)
            assert record["two_way_p"] < 0.01
        elif not (check == "slow drift alone" and kind in ("pre", "post")):  # a wave has some slope of its own
            assert record["two_way_interval"][0] < 0.53, (check, record)
            assert record["two_way"] < 0.58, (check, record)
        assert record["meaning"]


def test_averaging_more_repeats_scores_better(planted):
    records = run_controls(planted("post", repeats=5), seed=0)
    scores = {record["n_repeats"]: record["two_way"] for record in records if "n_repeats" in record}
    assert list(scores) == [1, 2, 4, 5]
    assert scores[1] < scores[2] < scores[5]
    assert not [record for record in run_controls(planted("post"), seed=0) if "n_repeats" in record]


def test_what_cannot_be_computed_says_why(planted):
    data = planted("post", n_subjects=1, tmin=0.0, category_level=True)
    data = ControlData(data.scored, data.train, data.validation, data.test, None)
    records = by_check(run_controls(data, seed=0))
    assert "a few categories" in records["shuffled labels"]["not_computed"]
    assert "order in which images were shown is not known" in records["time alone"]["not_computed"]
    assert "no sample before" in records["before onset"]["not_computed"]
    assert "one subject" in records["leave one subject out"]["not_computed"]


def test_voxels_have_no_time(planted):
    data = planted("post", modality="fmri")
    voxels = [
        replace(split, recordings=split.recordings[:, :, 10]) for split in (data.train, data.validation, data.test)
    ]
    records = by_check(run_controls(ControlData(data.scored, *voxels, data.times), seed=0))
    assert set(records) == {"overlap with training", "shuffled labels", "time alone"}


def test_nearest_in_time_equals_a_plain_loop(planted):
    data = planted("none", block=True)
    from neural_clip.evaluation.controls import NEIGHBOURS, _time_alone

    found = _time_alone(data, 0)
    (sessions, times), (asked, when) = data.times["train"], data.times["test"]
    for row in (0, 17, 59, 119):
        near = sorted((abs(times[i] - when[row]), i) for i in range(len(times)) if sessions[i] == asked[row])
        expected = np.mean([data.train.targets[i] for _, i in near[:NEIGHBOURS]], axis=0)
        np.testing.assert_allclose(found[row], expected - data.train.targets.mean(axis=0), atol=1e-12)


def slow_time_alone(data):
    """Query by query, all training trials of its session in a stable order of their distance."""
    (sessions, times), (asked, when) = data.times["train"], data.times["test"]
    mean, found = data.train.targets.mean(axis=0), np.zeros((len(asked), data.train.targets.shape[1]))
    for row, (session, time) in enumerate(zip(asked, when, strict=True)):
        own = np.flatnonzero(sessions == session)
        if own.size:
            nearest = own[np.argsort(np.abs(times[own] - time), kind="stable")[: controls.NEIGHBOURS]]
            found[row] = data.train.targets[nearest].mean(axis=0) - mean
    return found


@pytest.mark.parametrize("most", [3, 12, 400])
@pytest.mark.parametrize("seed", range(3))
def test_time_alone_is_that_of_a_slow_loop_with_ties(planted, seed, most, monkeypatch):
    """Trials with equal numbers, sessions with one to many training trials, and one with none."""
    monkeypatch.setattr(controls, "BLOCK_QUERIES", 7)
    data, rng = planted("none", seed=seed), np.random.default_rng(seed)
    names, times = np.array([f"sub-01/ses-{number}" for number in range(6)], dtype=object), {}
    for name, known, weights in (("train", names[:-1], [0.01, 0.04, 0.05, 0.3, 0.6]), ("test", names, None)):
        rows = len(getattr(data, name))
        times[name] = rng.choice(known, rows, p=weights), rng.integers(0, most, rows)
    data = replace(data, times=times)
    found, expected = controls._time_alone(data, 0), slow_time_alone(data)
    assert (expected == 0).all(axis=1).any() and len(set(map(tuple, expected))) > 10
    np.testing.assert_array_equal(found, expected)


def test_time_alone_reads_each_session_once(planted, monkeypatch):
    """Names of sessions are compared once, not for each query."""
    sorts, really = [], np.unique
    monkeypatch.setattr(
        controls.np, "unique", lambda values, **more: sorts.append(len(values)) or really(values, **more)
    )
    data = planted("none", block=True)
    monkeypatch.setattr(controls, "_nearest", lambda times, asked, real=controls._nearest: real(times, asked))
    controls._time_alone(data, 0)
    assert sorts.count(len(data.train) + len(data.test)) == 1


def test_each_control_is_kept_and_predicts_its_strength_alone(planted, tmp_path, monkeypatch):
    """The scored split of all people is predicted with few strengths at a time, where all would be many."""
    data, parts = planted("post"), FinishedParts(tmp_path / "parts")
    whole = run_controls(data, 0)
    tested, really = [], CholeskyRidge.deviations

    def spy(self, others, alphas):
        tested.extend((len(alphas), rows.n_rows) for rows in others)
        return really(self, others, alphas)

    monkeypatch.setattr(CholeskyRidge, "deviations", spy)
    monkeypatch.setattr(tried, "MAX_PATHS", 60 * WIDTH)
    found = run_controls(data, 0, parts)
    assert tested and max(n_alphas * rows for n_alphas, rows in tested) <= 60
    for one, other in zip(found, whole, strict=True):
        assert one["check"] == other["check"]
        assert one.get("two_way") == pytest.approx(other.get("two_way"), abs=1e-6)
    kept = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "parts").iterdir())
    names = ["before-onset", "leave-one-subject-out", "shuffled-labels", "slow-drift-alone", "time-alone"]
    assert kept == [f"eeg-controls-{name}" for name in names]
    monkeypatch.setattr(
        controls, "_record", lambda *arguments: pytest.fail("computed again")
    )  # nothing is computed twice
    assert run_controls(data, 0, parts) == found


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_ridges_of_controls_are_counted_as_was_said(planted, modality, monkeypatch, capsys):
    data, ticks = planted("post", modality=modality), []
    if modality == "fmri":
        voxels = [replace(split, recordings=split.recordings[:, :, 10]) for split in
                  (data.train, data.validation, data.test)]  # fmt: skip
        data = ControlData(data.scored, *voxels, data.times)
    really = tqdm.tqdm.update
    monkeypatch.setattr(tqdm.tqdm, "update", lambda bar, n=1: ticks.append(bar.total) or really(bar, n))
    controls.tell_cost(data)
    run_controls(data, seed=0)
    assert not capsys.readouterr().err  # a second's work is not told
    cost = controls.cost_of_controls(data)
    # ridges of each person: of three controls, or of one; and of a pool for each who is left out
    assert cost.ridges == (2 * 4 if modality == "eeg" else 2)
    assert ticks.count(cost.ridges) == cost.ridges  # of the bar with so many
    monkeypatch.setattr(controls, "LONG", 0.0)
    controls.tell_cost(data)
    run_controls(data, seed=0)
    said = capsys.readouterr().err
    assert f"{modality}: controls fit {cost.ridges} ridges on at most 4,000 rows of each person" in said
    assert f"{modality} controls: 100%" in said and f"{cost.ridges}/{cost.ridges}" in said


def shuffled_and_overlap(data):
    records = by_check(run_controls(data, seed=0))
    return records["shuffled labels"], records["overlap with training"]["images"]["same_id"]


def test_shuffled_labels_fire_where_people_saw_different_kinds_of_images(planted):
    """Noise only, but one person's images lie on one side of the space, in training as in the scored split."""
    data = planted("none")
    assert shuffled_and_overlap(data)[0]["two_way"] < 0.58

    def seen_by_one(split):
        return split.at(np.flatnonzero((split.targets[:, 0] > 0) == (split.subjects == "sub-01")))

    parts = [seen_by_one(split) for split in (data.train, data.validation, data.test)]
    assert all(len(set(split.subjects)) == 2 for split in parts)
    rows = (data.test.targets[:, 0] > 0) == (data.test.subjects == "sub-01")
    scored = data.scored.at(np.flatnonzero(rows))
    record, _ = shuffled_and_overlap(
        replace(data, scored=scored, times=None, train=parts[0], validation=parts[1], test=parts[2])
    )
    assert record["two_way"] > 0.6 and record["two_way_interval"][0] > 0.53 and record["two_way_p"] < 0.01


def test_leaked_test_images_show_in_the_overlap_and_not_in_shuffled_labels(planted):
    """Shuffling whole images takes a leaked image's label away with all others, so that a count must find it."""
    data = planted("post")
    train = split_of(
        [*data.train.recordings, *data.test.recordings], np.r_[data.train.subjects, data.test.subjects],
        np.r_[data.train.image_ids, data.test.image_ids], np.r_[data.train.targets, data.test.targets],
    )  # fmt: skip
    record, same = shuffled_and_overlap(replace(data, train=train, times=None))
    assert (shuffled_and_overlap(data)[1], same) == (0, 60)
    assert record["two_way"] < 0.58


def test_most_rows_of_a_person_are_drawn_before_they_are_copied(planted, monkeypatch):
    """Drawn from all other people together; the same rows each time."""
    data = planted("post", n_subjects=3)
    monkeypatch.setattr(controls, "MAX_TRAIN_ROWS", 50)
    scales = {name: controls._channel_scale(data.train, name) for name in ("sub-01", "sub-02", "sub-03")}
    drawn = controls._scaled(data.train, scales, ["sub-01", "sub-03"], 4)
    assert set(drawn.subjects) == {"sub-01", "sub-03"} and len(drawn.subjects) == 50
    others = np.flatnonzero(data.train.subjects != "sub-02")
    expected = np.sort(np.random.default_rng(4).permutation(np.arange(len(others)))[:50])
    np.testing.assert_array_equal(drawn.image_ids, data.train.image_ids[others[expected]])
    for row, recording in zip(others[expected], drawn.values(), strict=True):
        own = data.train.recordings[data.train.subjects == data.train.subjects[row]]
        centred = data.train.recordings[row] - own.mean(axis=(0, 2))[:, None]
        np.testing.assert_allclose(recording, centred / own.std(axis=(0, 2))[:, None], rtol=1e-5, atol=1e-6)


def twin(root, block_drift):
    """Controls and the whole-window ridge on a simulated ImageNetEEG of three people and eight classes."""
    preset = get_preset("tiny")
    dials = replace(preset.eeg.dials, block_drift=block_drift, artefact_rate=0.0)
    sizes = replace(preset.eeg, subjects=(1, 2, 3), n_classes=8, images_per_class=18, n_missing_trials=0, dials=dials)
    imagenet_eeg_twin.write(root / "raw", replace(preset, name="demo", eeg=sizes), seed=1)
    folder = embed_images(prepare(root / "raw", root / "data", variant="raw"))
    data = PreparedSet.open(folder)
    splits = [data.split(name).loaded() for name in ("train", "validation", "test")]
    test = splits[2]
    noise = np.random.default_rng(0).standard_normal(test.targets.shape)
    scored = embedded(test, test.targets + noise)
    found = {
        name: record.get("two_way")
        for name, record in by_check(run_controls(ControlData(scored, *splits, None), 0)).items()
    }
    whole, _ = per_subject_ridge(*splits)
    scores = retrieval_scores(whole, scored.gallery_embeds, test.image_ids, scored.gallery_ids)
    found["whole window"] = scores["two_way"]
    return found


@pytest.mark.slow
def test_block_drift_raises_slow_drift_alone_and_the_score_but_not_across_people(tmp_path):
    """Simulated ImageNetEEG, unfiltered, without and with states that a class block shares."""
    without, blocks = twin(tmp_path / "without", 0.0), twin(tmp_path / "blocks", 2.0)
    assert without["slow drift alone"] < 0.62 and blocks["slow drift alone"] > 0.85
    assert blocks["whole window"] > without["whole window"] + 0.1  # what the guard is there to explain
    assert blocks["leave one subject out"] < without["leave one subject out"] - 0.1
    assert blocks["slow drift alone"] > blocks["leave one subject out"] + 0.2
    assert without["slow drift alone"] < without["leave one subject out"] - 0.2


THREADS = """
import hashlib, sys
import numpy as np
from neural_clip.evaluation.controls import ControlData, _before_onset, _leave_one_out, _shuffled_labels, _slow_drift
from neural_clip.evaluation.baselines.rows import BASELINES
from planted_data import embedded, split_of

for shape in ((64, 200), (1500,)):
    splits = []
    for seed, count in enumerate((300, 60, 60)):
        rng = np.random.default_rng([seed, len(shape)])
        recordings = rng.standard_normal((count, *shape)).astype(np.float32)
        names = np.array([f"{seed}-{i}" for i in range(count)])
        splits.append(split_of(recordings, np.repeat(["a", "b", "c"], count // 3), names,
                               rng.standard_normal((count, 48)).astype(np.float32), tmin=-0.1, sfreq=100.0))
    for name, fit in BASELINES:
        if not (name == "ridge, identity alignment" and len(shape) == 1):
            print(name, shape, hashlib.sha256(fit(*splits)[0].tobytes()).hexdigest())
    test = splits[2]
    scored = embedded(test, test.targets)
    for control in (_shuffled_labels, _slow_drift, _before_onset, _leave_one_out):
        if len(shape) == 2:
            found = control(ControlData(scored, *splits, None), 0)
            print(control.__name__, hashlib.sha256(found.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_predictions_of_ridges_do_not_depend_on_the_number_of_threads():
    outputs = []
    for threads in ("1", "2"):
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        variables["PYTHONPATH"] = str(REPOSITORY / "tests")
        done = subprocess.run(
            [sys.executable, "-c", THREADS], env=os.environ | variables, capture_output=True, text=True, check=True
        )
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] and outputs[0].count("\n") == 13


def test_trials_numbered_anew_in_each_run_are_told_apart_by_run():
    table = pd.DataFrame({"subject": ["sub-01"] * 4, "session": ["a"] * 4, "run": ["1", "1", "2", "2"]})
    once = {"train": table.assign(trial=[0, 1, 2, 3])}
    assert controls._stretches(once["train"], once).tolist() == ["sub-01/a"] * 4
    anew = {"train": table.assign(trial=[0, 1, 0, 1])}
    assert controls._stretches(anew["train"], anew).tolist() == ["sub-01/a/1"] * 2 + ["sub-01/a/2"] * 2
