"""Controls find what was planted for them, and stay at chance where nothing was."""

import numpy as np
import pytest

from neural_clip.audits import AuditData, audit
from neural_clip.baselines import BaselineSplit
from neural_clip.recording_embeddings import EmbeddedSplit

WIDTH, N_CHANS, N_TIMES, SFREQ, TMIN = 12, 6, 20, 100.0, -0.08
N_IMAGES = {"train": 240, "validation": 60, "test": 60}
PRE = 8  # samples before onset


def planted(kind, *, n_subjects=2, repeats=1, seed=0, block=False, modality="eeg"):
    """Recordings whose signal sits in one place only: `post`, `pre`, `drift`, or nowhere (`none`)."""
    rng = np.random.default_rng([seed, 5])
    maps = rng.standard_normal((WIDTH, N_CHANS))
    classes = rng.standard_normal((10, WIDTH))
    splits, times, gallery = {}, {}, {}
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
        splits[name] = BaselineSplit(recordings, subject, ids, embeds[image])
        # in blocks, images of a class follow each other; otherwise time knows nothing
        time = labels[image] + 0.5 * rng.random(len(image)) if block else rng.permutation(len(image))
        times[name] = (subject, time)
        gallery[name] = embeds
    test = splits["test"]
    scored = EmbeddedSplit(
        modality=modality, folder="planted", metadata={"tmin": TMIN, "sfreq": SFREQ, "category_level": False},
        embeds=(test.targets + 1.5 * rng.standard_normal(test.targets.shape)).astype(np.float32),
        subjects=test.subjects, image_ids=test.image_ids, gallery_ids=np.unique(test.image_ids),
        gallery_embeds=gallery["test"].astype(np.float32), gallery_concepts=[""] * N_IMAGES["test"],
        gallery_categories=[[]] * N_IMAGES["test"],
    )  # fmt: skip
    return AuditData(scored, splits["train"], splits["validation"], test, times)


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
def test_controls_find_what_was_planted_for_them(kind, block, found):
    records = by_check(audit(planted(kind, block=block), seed=0))
    for check in ("shuffled labels", "time alone", "slow drift alone", "before onset", "leave one subject out"):
        record = records[check]
        if check in found:
            assert record["two_way"] > 0.65, (check, record)
            assert record["two_way_p"] < 0.01
        elif not (check == "slow drift alone" and kind in ("pre", "post")):  # a wave has some slope of its own
            assert record["two_way_interval"][0] < 0.53, (check, record)
            assert record["two_way"] < 0.58, (check, record)
        assert record["meaning"]


def test_averaging_more_repeats_scores_better():
    records = audit(planted("post", repeats=5), seed=0)
    scores = {record["n_repeats"]: record["two_way"] for record in records if record["by"] == "model"}
    assert list(scores) == [1, 2, 4, 5]
    assert scores[1] < scores[2] < scores[5]
    assert not [record for record in audit(planted("post"), seed=0) if record["by"] == "model"]


def test_what_cannot_be_computed_says_why():
    data = planted("post", n_subjects=1)
    data.scored.metadata["tmin"] = 0.0
    data = AuditData(data.scored, data.train, data.validation, data.test, None)
    data.scored.metadata["category_level"] = True
    records = by_check(audit(data, seed=0))
    assert "a few categories" in records["shuffled labels"]["not_computed"]
    assert "order in which images were shown is not known" in records["time alone"]["not_computed"]
    assert "no sample before" in records["before onset"]["not_computed"]
    assert "one person" in records["leave one subject out"]["not_computed"]


def test_voxels_have_no_time():
    data = planted("post", modality="fmri")
    voxels = [
        BaselineSplit(split.recordings[:, :, 10], split.subjects, split.image_ids, split.targets)
        for split in (data.train, data.validation, data.test)
    ]
    records = by_check(audit(AuditData(data.scored, *voxels, data.times), seed=0))
    assert set(records) == {"shuffled labels", "time alone"}


def test_nearest_in_time_equals_a_plain_loop():
    data = planted("none", block=True)
    from neural_clip.audits import NEIGHBOURS, _time_alone

    found = _time_alone(data, 0)
    (sessions, times), (asked, when) = data.times["train"], data.times["test"]
    for row in (0, 17, 59, 119):
        near = sorted((abs(times[i] - when[row]), i) for i in range(len(times)) if sessions[i] == asked[row])
        expected = np.mean([data.train.targets[i] for _, i in near[:NEIGHBOURS]], axis=0)
        np.testing.assert_allclose(found[row], expected - data.train.targets.mean(axis=0), atol=1e-12)
