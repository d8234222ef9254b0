"""Protocols choose among the scores of the metric; `legacy` explains what a set without order prints."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neural_clip.errors import DataError
from neural_clip.evaluation.protocols import (
    LEGACY_DENOMINATORS,
    PROTOCOLS,
    check_protocol,
    conditions,
    conversion_entries,
    decoding_entries,
    legacy_top_k,
    meaning_of,
    published_beside,
)
from neural_clip.prepared.reader import PreparedSet
from neural_clip.retrieval.scoring import score_record
from planted_data import embedded, split_of, write_planted
from slow_scores import cosine
from things_sets import images_of, write_things


def split(n_images=24, repeats=3, width=8, noise=1.0, n_classes=None, modality="meg", seed=0):
    rng = np.random.default_rng(seed)
    gallery = rng.standard_normal((n_images, width)).astype(np.float32)
    ids = np.array([f"im{i:03d}" for i in range(n_images)])
    shown = np.tile(np.arange(n_images), repeats)
    embeds = gallery[shown] + noise * rng.standard_normal((len(shown), width)).astype(np.float32)
    concepts = {name: f"c{i % (n_classes or n_images)}" for i, name in enumerate(ids)}
    subjects = np.full(len(shown), "sub-01")
    part = split_of(np.zeros((len(shown), 1)), subjects, ids[shown], gallery[shown], modality, concepts=concepts)
    return embedded(part, embeds)


def simulated_legacy(part, n_nearest, k, draws, seed):
    """The authors' procedure with the order of the set drawn at random, over and over."""
    rng = np.random.default_rng(seed)
    concept = dict(zip(part.gallery_ids, part.gallery_concepts, strict=True))
    vector = dict(zip(part.gallery_ids, part.gallery_embeds, strict=True))
    hits = []
    for embed, image_id in zip(part.embeds, part.image_ids, strict=True):
        trials = sorted(part.image_ids, key=lambda other: -cosine(embed, vector[other]))  # one entry a trial
        images = sorted(set(trials[:n_nearest]))
        for _ in range(draws):
            looked = rng.permutation(images)[:k]
            hits.append(any(concept[other] == concept[image_id] for other in looked))
    return np.mean(hits)


@pytest.mark.parametrize(("n_nearest", "k", "n_classes"), [(10, 1, 24), (10, 5, 24), (10, 5, 6), (200, 1, 24)])
def test_legacy_equals_the_procedure_it_explains(n_nearest, k, n_classes):
    part = split(n_classes=n_classes)
    found = legacy_top_k(part, n_nearest, k)["score"]
    assert found == pytest.approx(simulated_legacy(part, n_nearest, k, 200, 1), abs=0.012)


def test_legacy_meg_is_the_accuracy_at_eleven_over_eleven():
    """200 images, 48 trials each, 500 nearest trials: the set holds 11 images."""
    part = split(n_images=200, repeats=48, width=16, noise=4.0)
    similarity = part.embeds @ (part.gallery_embeds / np.linalg.norm(part.gallery_embeds, axis=1, keepdims=True)).T
    truth = similarity[np.arange(len(similarity)), part.columns]
    within_11 = ((similarity > truth[:, None]).sum(axis=1) < 11).mean()
    found = decoding_entries("legacy", part, {"two_way_permutation": 0.6})
    top1, top5 = found[1], found[2]
    assert top1["score"] == pytest.approx(within_11 / 11, rel=1e-6)
    assert top5["score"] == pytest.approx(5 * within_11 / 11, rel=1e-6)
    assert (top1["chance"], top5["chance"]) == (pytest.approx(1 / 200), pytest.approx(5 / 200))
    assert top1["score"] < (similarity.argmax(axis=1) == part.columns).mean()  # true top-1 is better than it prints


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), n_nearest=st.integers(1, 40), k=st.integers(1, 6), n_classes=st.integers(1, 12))
def test_legacy_of_unrelated_embeddings_lies_around_chance(seed, n_nearest, k, n_classes):
    scores = []
    for repeat in range(30):
        part = split(n_images=12, repeats=2, noise=1e6, n_classes=n_classes, seed=[seed, repeat])
        found = legacy_top_k(part, n_nearest, k)
        assert 0 <= found["score"] <= 1
        scores.append(found["score"] - found["chance"])
    assert abs(np.mean(scores)) < 5 * np.std(scores) / np.sqrt(30) + 1e-9


@pytest.mark.parametrize("name", PROTOCOLS)
def test_entries_are_scores_of_the_metric(name):
    part = split(n_images=320, repeats=1, width=12, modality="fmri", n_classes=40)
    record, _ = score_record(
        part.embeds, part.gallery_embeds, part.image_ids, part.gallery_ids, seed=0, classes=part.gallery_concepts
    )
    entries = decoding_entries(name, part, record)
    assert [entry["label"] for entry in entries] == list(PROTOCOLS[name].scores.values())  # fMRI has no legacy top-k
    for entry, key in zip(entries, PROTOCOLS[name].scores, strict=True):
        assert entry["score"] == record[key] and entry["chance"] == record[f"chance_{key}"]
        assert entry["score"] > entry["chance"]
    if name == "mindeye-300":
        assert entries[0]["interval"][0] <= entries[0]["score"] <= entries[0]["interval"][1]


def test_a_gallery_below_300_has_no_pools():
    part = split()
    record, _ = score_record(part.embeds, part.gallery_embeds, part.image_ids, part.gallery_ids, seed=0)
    assert [entry["score"] for entry in decoding_entries("mindeye-300", part, record)][:2] == [None, None]


def test_conversions_name_what_they_are_divided_by():
    record = {"target": "meg", "two_way_permutation": 0.6}
    assert conversion_entries("strict", record, 0.75) == []
    paper = conversion_entries("paper", record, 0.75)
    assert [entry["score"] for entry in paper] == [0.6, pytest.approx(0.8)]
    legacy = conversion_entries("legacy", record, 0.75)
    assert legacy[1]["score"] == pytest.approx(0.6 / LEGACY_DENOMINATORS["meg"]) and "0.595" in legacy[1]["label"]


def test_conditions_are_checked(tmp_path):
    data = PreparedSet.open(write_planted(tmp_path / "eeg", "eeg"))
    with pytest.raises(DataError, match=r"zero-shot-200.*occur in training.*--split-protocol zero_shot"):
        check_protocol("zero-shot-200", [data])
    check_protocol("legacy", [data])


OF_CORPORA = [("things-eeg2-200", "eeg", 80, 10), ("things-meg-200", "meg", 12, 4)]


def real(folder, protocol, modality, n_repeats, n_images=200, **more):
    """A real data set of the corpus of a protocol, each row the mean of so many repeats."""
    shown = {"train": ["cat_01b", "dog_01b"], "test": images_of([f"new{n}" for n in range(n_images)], "05s")}
    corpus = PROTOCOLS[protocol].corpus
    options = {"n_people": 1, "repeats": 1, "n_repeats": n_repeats, "simulated": False} | more
    return PreparedSet.open(write_things(folder, corpus, modality, shown, **options))


@pytest.mark.parametrize(("protocol", "modality", "n_repeats", "n_people"), OF_CORPORA)
def test_all_repeats_of_the_corpus_are_needed_and_people_are_counted_among_its_own(
    tmp_path, protocol, modality, n_repeats, n_people
):
    whole = real(tmp_path / "whole", protocol, modality, n_repeats)
    part = whole.split("test")
    for name in (protocol, f"{protocol}-zero-shot"):
        check_protocol(name, [whole])
        told = meaning_of(name, [part])
        assert f"The 200 test images of THINGS-{modality.upper()}" in told and f"all {n_repeats} repeats" in told
        assert "Chance is 0.5 % for top-1 and 2.5 % for top-5." in told
        assert published_beside(name, [part]) == list(PROTOCOLS[name].published) != []
    assert conditions(part) == f"{whole.facts.corpus}, 1 of the {n_people} people of the corpus, 200 images"
    fewer = real(tmp_path / "fewer", protocol, modality, n_repeats // 4)
    for name in (protocol, f"{protocol}-zero-shot"):
        with pytest.raises(DataError, match=rf"is of {n_repeats} recordings of each.* holds {n_repeats // 4}\. Prep"):
            check_protocol(name, [fewer])
    assert published_beside("leave-one-person-out", [fewer.split("test")]) == []
    assert bool(published_beside("leave-one-person-out", [part])) == (modality == "eeg")


def test_people_with_other_repeats_than_the_rest_are_noticed(tmp_path):
    """One row of one image is lost."""
    data = real(tmp_path / "set", "things-meg-200", "meg", 6, repeats=2)
    check_protocol("things-meg-200", [data])
    data.split = lambda name, split=data.split: split(name).at(np.arange(1, 400))
    with pytest.raises(DataError, match="holds 6 to 12"):
        check_protocol("things-meg-200", [data])


@pytest.mark.parametrize(("protocol", "modality", "n_repeats", "n_people"), OF_CORPORA)
def test_of_a_twin_its_own_images_repeats_and_chance_are_told(tmp_path, protocol, modality, n_repeats, n_people):
    for n_images, chance in ((8, "12.5 % for top-1 and 62.5 % for top-5."), (4, "25 % for top-1.")):
        twin = real(tmp_path / f"twin{n_images}", protocol, modality, 3, n_images, simulated=True)
        check_protocol(protocol, [twin])
        part = twin.split("test")
        told = meaning_of(protocol, [part])
        assert told.startswith(f"SIMULATED recordings of {n_images} test images, a twin of THINGS-{modality.upper()}")
        assert "all 3 repeats" in told and f"Chance is {chance}" in told and "0.5 %" not in told
        assert f"which has 200 that a person saw {n_repeats} times" in told
        assert published_beside(protocol, [part]) == published_beside("leave-one-person-out", [part]) == []
        assert conditions(part).endswith(f"1 of 1 people, simulated, {n_images} images")


def test_people_of_other_corpora_are_counted_in_the_data_set(tmp_path):
    part = PreparedSet.open(write_planted(tmp_path / "eeg", "eeg", simulated=False)).split("test", ["sub-01"])
    assert conditions(part) == "planted, 1 of the 2 people of the data set, 24 images"
    assert meaning_of("leave-one-person-out", [part]) == PROTOCOLS["leave-one-person-out"].meaning
