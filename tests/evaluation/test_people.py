"""Protocols that go person by person against slow loops, on planted data of THINGS."""

import json

import numpy as np
import pytest

from neural_clip.commands.evaluate import main
from neural_clip.errors import DataError
from neural_clip.evaluation import people
from neural_clip.evaluation.people import (
    Gallery,
    Queries,
    concept_templates,
    exact_images,
    person_rows,
    rows_over_people,
)
from neural_clip.evaluation.published import CATEGORIES
from neural_clip.evaluation.run import evaluate_checkpoints
from neural_clip.files.record import sealed
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.stimuli import packed
from neural_clip.report.people import people_table
from neural_clip.report.protocols import by_person_table
from neural_clip.report.protocols import people_table as people_of_one_model
from planted_data import PlantedModel, plant
from slow_scores import cosine
from things_sets import concept_of, embedding, images_of, write_things

TRAIN = images_of([f"seen{n}" for n in range(14)], "01b", "02b")
VALIDATION = images_of(["kept0", "kept1", "kept2", "kept3"], "01b", "02b")
TEST = images_of([f"new{n}" for n in range(8)], "05s")
EEG2 = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
# the test concepts of EEG2 by other images, and one of the images that are scored
MEG = {
    "train": [*images_of([f"new{n}" for n in range(8)], "01b", "02b", "03b"), "new0_05s"],
    "test": ["seen0_09s", "seen1_09s"],
}
WORDS = ["--baselines", "ridge", "identity", "--no-controls", "--no-pictures"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    write_things(root / "eeg2", "things_eeg2", "eeg", EEG2, n_people=3, repeats=3, noise=8.0)
    write_things(root / "meg", "things_meg", "meg", MEG, seed=1)
    write_things(root / "real", "things_eeg2", "eeg", EEG2, simulated=False)
    shown = EEG2 | {"test": images_of([f"new{n}" for n in range(200)], "05s")}
    for name, n_repeats in (("whole", 80), ("session", 20)):
        write_things(root / name, "things_eeg2", "eeg", shown, simulated=False, repeats=1, n_repeats=n_repeats)
    return root


@pytest.fixture
def planted(monkeypatch):
    plant(monkeypatch, lambda checkpoint: PlantedModel(("eeg", "meg"), n_subjects=3))


def slow_ranks(queries, keys, gallery):
    """Top-1, top-5 and 2-way of each query; no ties in random numbers."""
    found = []
    for query, key in zip(queries, keys, strict=True):
        own = cosine(query, gallery[key])
        better = sum(cosine(query, other) > own for name, other in gallery.items() if name != key)
        found.append((better < 1, better < 5, 1 - better / (len(gallery) - 1)))
    return np.array(found, dtype=float)


def slow_scores(queries, subjects, ids, gallery, key_of):
    """Each person's scores and their mean, by loops."""
    scores = slow_ranks(queries, [key_of(name) for name in ids], gallery)
    by_person = {}
    for person in sorted(set(subjects)):
        images = []
        for image in sorted(set(ids)):
            rows = [row for row in range(len(ids)) if subjects[row] == person and ids[row] == image]
            images.append(np.mean([scores[row] for row in rows], axis=0))
        by_person[person] = np.mean(images, axis=0)
    return by_person, np.mean(list(by_person.values()), axis=0)


def slow_templates():
    """Mean unit embedding of the other images of each concept."""
    found = {}
    for name in TEST:
        others = [
            embedding(other) for other in MEG["train"] if concept_of(other) == concept_of(name) and other != name
        ]
        found[concept_of(name)] = np.mean([other / np.linalg.norm(other) for other in others], axis=0)
    return found


def test_scores_are_those_of_loops(sets):
    """Also where people differ in repeats."""
    part = PreparedSet.open(sets / "eeg2").split("test")
    rng = np.random.default_rng(0)
    part = part.at(np.array([row for row in range(len(part)) if row % 3 == 0 or rng.random() < 0.4]))
    embeds = rng.standard_normal((len(part), 16)) + 0.3 * part.targets
    asked = Queries(embeds, part.subjects, part.image_ids)
    galleries = [exact_images(part), concept_templates(part, sets / "meg")]
    rows = person_rows("m", [asked], galleries, seed=0)
    slow = [({name: embedding(name) for name in TEST}, str), (slow_templates(), concept_of)]
    for row, (gallery, key_of) in zip(rows, slow, strict=True):
        by_person, mean = slow_scores(embeds, part.subjects.tolist(), part.image_ids.tolist(), gallery, key_of)
        assert [row[name] for name in people.SCORES] == pytest.approx(mean)
        for person, scores in by_person.items():
            assert [row["people"][person][name] for name in people.SCORES] == pytest.approx(scores)
        assert (row["chance_top1"], row["chance_top5"], row["gallery_size"]) == (1 / 8, 5 / 8, 8)
        for name in people.SCORES:
            (low, high), (lowest, highest) = row[f"{name}_interval"], row[f"{name}_interval_people_drawn"]
            assert low < row[name] < high and lowest < row[name] < highest
    assert [row["gallery"] for row in rows] == ["exact images", "concept templates"]


@pytest.mark.parametrize("signal", [0.0, 0.05, 0.4])
def test_p_values_are_those_of_exchanged_images(sets, signal):
    """A thousand exchanges of images by hand, scored by loops: the mean over people, and each person."""
    part = PreparedSet.open(sets / "eeg2").split("test")
    rng = np.random.default_rng(4)
    part = part.at(np.array([row for row in range(len(part)) if row % 3 == 0 or rng.random() < 0.4]))
    embeds = rng.standard_normal((len(part), 16)) + signal * part.targets
    (row,) = person_rows("m", [Queries(embeds, part.subjects, part.image_ids)], [exact_images(part)], seed=7)
    gallery = {name: embedding(name) for name in exact_images(part).keys}
    names, subjects, ids = [*gallery], part.subjects.tolist(), part.image_ids.tolist()
    as_if = {name: slow_ranks(embeds, [name] * len(ids), gallery)[:, 2] for name in names}

    def scores_of(label_of):
        found = {}
        for person in sorted(set(subjects)):
            images = {}
            for query in (n for n in range(len(ids)) if subjects[n] == person):
                images.setdefault(ids[query], []).append(as_if[label_of[ids[query]]][query])
            found[person] = sum(sum(own) / len(own) for own in images.values()) / len(images)
        return np.array([sum(found.values()) / len(found), *found.values()])

    observed, shuffles = scores_of({name: name for name in names}), np.random.default_rng(7)
    reached = np.zeros(4)
    for _ in range(1000):
        others = shuffles.permutation(8)
        reached += (
            scores_of({name: names[other] for name, other in zip(names, others, strict=True)}) >= observed - 1e-9
        )
    assert [row["two_way_p"], *(own["two_way_p"] for own in row["people"].values())] == list((1 + reached) / 1001)
    assert (row["two_way_p"] < 0.05) == (signal == 0.4)


def test_at_category_level_p_exchanges_labels_within_a_person():
    """Of two people who saw one category each, nothing can be exchanged; of two who saw both, all can."""
    categories = Gallery(CATEGORIES, np.eye(2), ["a", "b"], {"a": "a", "b": "b"}, {})
    shown = np.array(["a"] * 10 + ["b"] * 10)
    embeds = np.eye(2)[(shown == "b").astype(int)]
    for who, p in ((np.array(["1"] * 10 + ["2"] * 10), 1.0), (np.array(["1", "2"] * 10), 1 / 1001)):
        (row,) = person_rows("m", [Queries(embeds, who, shown)], [categories], seed=0)
        assert row["two_way"] == 1 and row["two_way_p"] == p
    assert row["people"]["1"]["two_way_p"] == pytest.approx(1 / 252, abs=0.01)  # 10 over 5 ways


def row_of(two_way, **changes):
    """What `person_rows` gives of one person, in short."""
    scores = dict.fromkeys(("top1", "top5", "two_way"), two_way)
    return {"method": "m", "queries": "single recordings", "repeats": None, "gallery": "exact images", "n_queries": 9,
            "gallery_size": 9, "people": {}, **scores, **{f"{name}_interval": None for name in scores},
            **{f"chance_{name}": 0.5 for name in scores}, "two_way_p": 0.5} | changes  # fmt: skip


def test_p_over_people_is_a_one_sided_t_test():
    (row,) = rows_over_people({"1": [row_of(0.6)], "2": [row_of(0.56)], "3": [row_of(0.47, two_way_p=0.8)]})
    above = np.array([0.1, 0.06, -0.03])
    t = above.mean() / (above.std(ddof=1) / np.sqrt(3))
    assert row["two_way_p"] == pytest.approx(0.5 - t / (2 * np.sqrt(2 + t**2)))  # two degrees of freedom
    assert [own["two_way_p"] for own in row["people"].values()] == [0.5, 0.5, 0.8]
    (below,) = rows_over_people({"1": [row_of(0.4)], "2": [row_of(0.44)], "3": [row_of(0.53)]})
    assert below["two_way_p"] == pytest.approx(1 - row["two_way_p"])


@pytest.mark.parametrize(
    ("scores", "said"), [((0.6, 0.7), "none: too few people"), ((0.6, 0.3 * 2, 1.8 / 3), "none: equal scores")]
)
def test_a_mean_without_p_says_why(scores, said):
    rows = rows_over_people({str(n): [row_of(value)] for n, value in enumerate(scores)})
    assert rows[0]["two_way_p"] is None
    _, table = people_table({"rows": rows})
    assert {cells[2]: cells[-1] for cells in table}[f"mean of {len(scores)}"] == said


def test_reports_without_p_values_are_read(sets):
    """Those of before have none, neither of people nor of their means."""
    old = {name: value for name, value in row_of(0.6).items() if name != "two_way_p"}
    rows = rows_over_people({"1": [old], "2": [old | {"two_way": 0.7}], "3": [row_of(0.5)]})
    assert [own["two_way_p"] for own in rows[0]["people"].values()] == [None, None, 0.5]
    del rows[0]["two_way_p"], rows[0]["people"]["1"]["two_way_p"]
    assert {cells[-1] for cells in people_table({"rows": rows})[1]} == {"-", "0.500", ""}
    part = PreparedSet.open(sets / "eeg2").split("test")
    found = person_rows("m", [Queries(part.targets, part.subjects, part.image_ids)], [exact_images(part)], seed=0)
    report = {"protocol": {"by_person": {"eeg": found}}, "checkpoints": [{"name": "m"}]}
    report |= {"simulated_modalities": ["eeg"], "data": {"eeg": {"category_level": False}}}
    tables = [table(report) for table in (by_person_table, people_of_one_model)]
    assert {cells[head.index("p")] for head, found in tables for cells in found} == {"<0.001"}
    for row in found:
        for each in (row, *row["people"].values()):
            del each["two_way_p"]
    tables = [table(report) for table in (by_person_table, people_of_one_model)]
    assert {cells[head.index("p")] for head, found in tables for cells in found} == {"-"}


def test_the_mean_recording_is_averaged_before_the_model(sets, planted, tmp_path, capsys):
    words = ["--checkpoint", "planted", "--data", f"eeg={sets / 'eeg2'}", "--protocol", "things-eeg2-200", *WORDS]
    report = main([*words, "--templates", str(sets / "meg"), "--output-dir", str(tmp_path / "out")])
    part = PreparedSet.open(sets / "eeg2").split("test")
    keys = sorted(set(zip(part.subjects.tolist(), part.image_ids.tolist(), strict=True)))
    values, subjects = np.asarray(part.values()), part.subjects
    means = [values[(subjects == who) & (part.image_ids == what)].mean(axis=0) for who, what in keys]
    numbers = [int(who[-2:]) - 1 for who, _ in keys]
    model = PlantedModel(("eeg",), n_subjects=3)
    embeds = [value.reshape(-1) @ model.inverses["eeg"][n] for value, n in zip(means, numbers, strict=True)]
    who, what = zip(*keys, strict=True)
    rows = {(row["method"], row["queries"], row["gallery"]): row for row in report["protocol"]["by_person"]["eeg"]}
    gallery = {name: embedding(name) for name in TEST}
    by_person, mean = slow_scores(embeds, who, what, gallery, str)
    found = rows["neural_clip", "mean of 3 recordings", "exact images"]
    assert [found[name] for name in people.SCORES] == pytest.approx(mean)
    assert {name: [scores[key] for key in people.SCORES] for name, scores in found["people"].items()} == {
        name: pytest.approx(scores) for name, scores in by_person.items()
    }
    assert set(found["people"]) == set(by_person) and found["two_way_p"] < 0.01
    single = rows["neural_clip", "single recordings", "exact images"]
    assert found["top1"] > single["top1"] > single["chance_top1"]  # averaging helps
    assert len(rows) == 3 * 2 * 2 and found["repeats"] == [3, 3] and single["repeats"] is None
    assert report["protocol"]["templates"]["eeg"]["most"] == 3
    text = (tmp_path / "out" / "report.md").read_text()
    assert "3 of 3 people, simulated, 8 images" in text and "templates are means of 3 other images each" in text
    assert (
        "SIMULATED recordings of 8 test images" in text and "Chance is 12.5 % for top-1 and 62.5 % for top-5" in text
    )
    assert "| NICE |" not in text and "0.5 % for" not in text  # nothing published is of simulated recordings
    assert "simulated, 8 images" in capsys.readouterr().out


def test_published_scores_stand_beside_those_of_the_whole_corpus(sets, planted, tmp_path, capsys):
    main(["--checkpoint", "planted", "--data", f"eeg={sets / 'whole'}", "--protocol", "things-eeg2-200", *WORDS,
          "--baselines", "none", "--output-dir", str(tmp_path / "out")])  # fmt: skip
    text, told = (
        (tmp_path / "out" / "report.md").read_text(),
        "things_eeg2, 2 of the 10 people of the corpus, 200 images",
    )
    assert "| NICE | things_eeg2 | same people | concept templates | 15.6 | 42.8 |" in text
    assert told in text and told in capsys.readouterr().out
    assert (
        "The 200 test images of THINGS-EEG2. Queries are single recordings, and the mean recording of all 80" in text
    )


def test_of_a_linear_baseline_means_of_predictions_are_predictions_of_means(sets, planted, tmp_path):
    """The same set with repeats averaged before: the ridge's single recordings are what its means were."""
    options = {"protocol": "things-eeg2-200", "controls": False, "baselines": ["identity"]}
    whole = evaluate_checkpoints({"m": "planted"}, [sets / "eeg2"], tmp_path / "out", **options)
    (row,) = [r for r in whole["protocol"]["by_person"]["eeg"] if r["repeats"] and r["method"] != "m"]
    opened = PreparedSet.open(sets / "eeg2")
    part = opened.split("test")
    from neural_clip.evaluation.baselines.linear import frozen_identity_alignment

    splits = [opened.split(name) for name in ("train", "validation")]
    predictions, _ = frozen_identity_alignment(*splits, people.mean_recordings(part))
    means = people.mean_recordings(part)
    slow = person_rows("m", [Queries(predictions, means.subjects, means.image_ids)], [exact_images(part)], 0)[0]
    assert [row[name] for name in people.SCORES] == pytest.approx([slow[name] for name in people.SCORES])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "meg={meg}"], r"'things-eeg2-200' is for things_eeg2, but .* is of things_meg"),
        (["--data", "eeg={real}"], r"over the 200 test images of things_eeg2, but the test split .* shows 8"),
        (["--data", "eeg={session}"], r"of 80 recordings of each test image by a person, but .* holds 20"),
        (["--data", "eeg={eeg2}", "--split", "train"], r"Allowed values.*|Allowed.* 'test' for the protocol"),
        (["--data", "eeg={eeg2}", "--gallery", "all"], r"none for the protocol 'things-eeg2-200'"),
        (["--data", "eeg={eeg2}", "--templates", "{real}"], r"no other image of 8 of the 8 test concepts"),
    ],
)  # fmt: skip
def test_what_a_protocol_is_not_for_is_refused(sets, planted, tmp_path, monkeypatch, words, said):
    monkeypatch.setattr("neural_clip.evaluation.run.embed_together", None)
    places = {name: sets / name for name in ("eeg2", "meg", "real", "session")}
    words = [word.format(**places) for word in words]
    with pytest.raises(DataError, match=said):
        main(["--checkpoint", "planted", *words, "--protocol", "things-eeg2-200", *WORDS,
              "--output-dir", str(tmp_path / "out")])  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_templates_are_for_protocols_that_have_them(sets, planted, tmp_path):
    with pytest.raises(DataError, match=r"'templates'.*things-eeg2-200"):
        evaluate_checkpoints({"m": "planted"}, [sets / "eeg2"], tmp_path, templates=str(sets / "meg"))


def test_two_test_images_of_a_concept_have_no_template(sets, tmp_path):
    twice = {"train": TRAIN, "test": ["new0_05s", "new0_06s", "new1_05s"]}
    part = PreparedSet.open(write_things(tmp_path / "twice", "things_eeg2", "eeg", twice)).split("test")
    with pytest.raises(DataError, match=r"one test image a concept, but the 3 images .* have 2 concepts"):
        concept_templates(part, sets / "meg")


def checkpoint(folder, corpus, ids, **more):
    """The record of a checkpoint that was trained on images."""
    folder.mkdir()
    entry = {"database": "THINGS", "corpus": corpus, "concepts": packed({name: concept_of(name) for name in ids})}
    (folder / "training.json").write_text(json.dumps(sealed({"stimuli": [entry], **more})))
    return folder


def test_a_checkpoint_that_saw_test_images_elsewhere_is_told_or_refused(sets, planted, tmp_path):
    """Seven test concepts by other images, two of the test images themselves."""
    leaky = checkpoint(
        tmp_path / "leaky", "things_eeg1", [*TEST[:2], *images_of([f"new{n}" for n in range(7)], "01b")]
    )
    words = ["--checkpoint", str(leaky), "--data", f"eeg={sets / 'eeg2'}", *WORDS]
    report = main([*words, "--output-dir", str(tmp_path / "told")])
    seen = report["data"]["eeg"]["seen_in_training"]["neural_clip"]
    assert (seen["images"], seen["concepts"], seen["by"], seen["foreign"]) == (2, 7, ["things_eeg1"], True)
    text = (tmp_path / "told" / "report.md").read_text()
    assert "2 of the 8 scored images and 7 of the 8 scored concepts were among its training or validation" in text
    for protocol, unit in (
        ("things-eeg2-200", "images"),
        ("things-eeg2-200-zero-shot", "concepts"),
        ("zero-shot-200", "concepts"),
    ):
        with pytest.raises(DataError, match=rf"needs test {unit} that nothing was trained.*things_eeg1"):
            main([*words, "--protocol", protocol, "--output-dir", str(tmp_path / "refused")])
    others = checkpoint(tmp_path / "others", "things_fmri", images_of(["new3"], "01b"))
    words[1] = str(others)
    main([*words, "--protocol", "things-eeg2-200", "--output-dir", str(tmp_path / "concepts")])  # other images
    assert "0 of the 8 scored images and 1 of the 8" in (tmp_path / "concepts" / "report.md").read_text()
    with pytest.raises(DataError, match="1 of the 8 of"):
        main([*words, "--protocol", "things-eeg2-200-zero-shot", "--output-dir", str(tmp_path / "refused")])


def test_what_a_record_does_not_tell_is_not_known(sets, planted, tmp_path):
    own = {"corpus": "things_eeg2", "fingerprint": PreparedSet.open(sets / "eeg2").facts.fingerprint}
    for name, record, known in [
        ("none", {}, False), ("others", {"data": {"fmri": {"corpus": "nsd"}}}, True),
        ("own", {"data": {"eeg": own}}, True),
        ("before", {"data": {"meg": {"corpus": "things_meg", "fingerprint": "f"}}}, False),
    ]:  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "training.json").write_text(json.dumps(record))
        report = evaluate_checkpoints(
            {"m": tmp_path / name}, [sets / "eeg2"], tmp_path / "out", baselines=False, controls=False
        )
        assert report["data"]["eeg"]["seen_in_training"]["m"]["known"] is known
        assert report["checkpoints"][0]["chosen_by"] == "not known"


def test_people_who_were_trained_on_are_refused_by_leave_one_person_out(sets, planted, tmp_path):
    with pytest.raises(DataError, match="knows sub-01, sub-02, sub-03"):
        evaluate_checkpoints(
            {"m": "planted"}, [sets / "eeg2"], tmp_path, protocol="leave-one-person-out", subject="average"
        )
