"""Exact conversion of corpora of one database: pictures that training has not seen, of any split, against loops."""

import json

import numpy as np
import pytest

from neural_clip.commands.evaluate import main
from neural_clip.evaluation.options import EvaluateOptions
from neural_clip.evaluation.same_pictures import same_pictures
from neural_clip.evaluation.scope import scored_parts
from neural_clip.evaluation.tasks import conversion_record
from neural_clip.files.record import RECORD_FILE, sealed
from neural_clip.gallery.embedding import embed_split
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.stimuli import packed
from neural_clip.report import text as report_text
from neural_clip.report.tables import direct_table
from planted_data import PlantedModel, plant
from slow_scores import cosine
from things_sets import concept_of, images_of, write_things

NEW = [f"new{n}" for n in range(8)]  # concepts that EEG2 tests
EEG2 = {
    "train": images_of([f"seen{n}" for n in range(6)], "01b", "02b"),
    "validation": ["kept0_01b", "kept1_01b"],
    "test": [*images_of(NEW[:7], "05s"), "new7_15s"],
}
# Five test images of EEG2 are training images here, one is a validation image; one was trained on all the same.
MEG = {
    "train": [*images_of(NEW[:5], "05s", "06s"), *images_of([f"seen{n}" for n in range(6)], "01b"), "old0_01b"],
    "validation": ["new5_05s", "kept1_01b"],
    "test": ["seen0_09s", "seen1_09s", "seen2_02b", "old0_09s"],
}
WORDS = ["--baselines", "none", "--no-controls", "--no-pictures"]
LEARNT = [*EEG2["train"], *EEG2["validation"], *images_of([f"seen{n}" for n in range(6)], "01b"), "new4_05s"]
# What both have and one tests, but for seen2_02b and new4_05s, which were learnt
COMMON = [f"new{n}_05s" for n in (0, 1, 2, 3, 5)]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    write_things(root / "eeg2", "things_eeg2", "eeg", EEG2, n_people=3, repeats=3, noise=6.0)
    write_things(root / "meg", "things_meg", "meg", MEG, noise=6.0, seed=1)
    return root


def checkpoint(folder, learnt, corpora=("things_eeg2", "things_meg")):
    """A folder whose record says what was learnt."""
    folder.mkdir()
    stimuli = [
        {"modality": "eeg", "corpus": corpus, "fingerprint": "0", "database": "THINGS", "split": "train",
         "images": len(learnt), "left_out": None, "concepts": packed({name: concept_of(name) for name in learnt})}
        for corpus in corpora
    ]  # fmt: skip
    record = {"data": {corpus: {"corpus": corpus} for corpus in corpora}, "stimuli": stimuli}
    (folder / RECORD_FILE).write_text(json.dumps(sealed(record)))
    return folder


@pytest.fixture
def planted(monkeypatch):
    plant(monkeypatch, lambda name: PlantedModel(("eeg", "meg"), n_subjects=3))


def recordings(folder, modality, images):
    """By loops over all splits: the unit embedding of each recording of these images, and its image."""
    model, found = PlantedModel(("eeg", "meg"), n_subjects=3), []
    data = PreparedSet.open(folder)
    for split in ("train", "validation", "test"):
        part = data.split(split)
        for row, image in enumerate(part.image_ids.tolist()):
            if image in images:
                values = np.asarray(part.values([row]))[0].reshape(-1)
                vector = values @ model.inverses[modality][int(part.subjects[row][-2:]) - 1]
                found.append((vector / np.linalg.norm(vector), image))
    return found


def slow_scores(queries, gallery):
    """Top-1, top-5 and 2-way of single recordings among the mean recordings of the pictures."""
    names = sorted({image for _, image in gallery})
    means = {name: np.mean([vector for vector, image in gallery if image == name], axis=0) for name in names}
    found = []
    for vector, image in queries:
        own = cosine(vector, means[image])
        better = sum(cosine(vector, means[other]) > own for other in names if other != image)
        found.append((better < 1, better < 5, 1 - better / (len(names) - 1)))
    return np.mean(np.array(found, dtype=float), axis=0)


def conversions(report):
    return {(part["source"], part["target"]): part for part in report["conversion"]}


def test_unseen_pictures_of_any_split_are_scored_as_loops_score_them(sets, planted, tmp_path, capsys):
    model = checkpoint(tmp_path / "model", LEARNT)
    data = [f"eeg={sets / 'eeg2'}", f"meg={sets / 'meg'}"]
    report = main(["--checkpoint", str(model), "--data", *data, *WORDS, "--output-dir", str(tmp_path / "out")])
    embedded = {m: recordings(sets / name, m, COMMON) for m, name in (("eeg", "eeg2"), ("meg", "meg"))}
    of_eeg, of_meg = {"test": 5}, {"train": 4, "validation": 1}
    for (source, target), splits in ((("eeg", "meg"), (of_eeg, of_meg)), (("meg", "eeg"), (of_meg, of_eeg))):
        part = conversions(report)[source, target]
        assert part["same_pictures"] == {
            "known": True, "images": 5, "seen": 2, "query_splits": splits[0], "gallery_splits": splits[1],
        }  # fmt: skip
        direct = part["direct"]
        scores = slow_scores(embedded[source], embedded[target])
        assert [direct["top1"], direct["top5"], direct["two_way"]] == pytest.approx(scores, abs=1e-6)
        assert (direct["gallery_size"], direct["n_common_images"], direct["by_name"]) == (5, 5, 5)
        assert direct["n_queries"] == len(embedded[source]) == (45 if source == "eeg" else 20)
        assert (direct["chance_top1"], direct["resampled_unit"]) == (pytest.approx(0.2), "image")
        assert direct["top1_interval"][0] <= direct["top1"] <= direct["top1_interval"][1]
        assert 0 < direct["two_way_p"] <= 1 and direct["two_way"] > 0.6
    shown = capsys.readouterr().out
    assert "45 (test)" in shown and "5 images (4 train, 1 validation)" in shown
    cells = {row[0]: row[-2:] for row in direct_table(report | {"encoding": {}})[1]}
    assert list(cells.values()) == [
        ["45 (test)", "5 images (4 train, 1 validation)"], ["20 (4 train, 1 validation)", "5 images (test)"],
    ]  # fmt: skip
    text = report_text.markdown(report, {})
    assert (
        "5 unseen pictures in common, for the queries (test), for the gallery (4 train, 1 validation); 2 more" in text
    )


def found(checkpoint, folders, **options):
    """Both directions, EEG to MEG first."""
    asked = EvaluateOptions(**options)
    model = PlantedModel(("eeg", "meg"), n_subjects=3)
    data = {modality: PreparedSet.open(folder) for modality, folder in zip(("eeg", "meg"), folders, strict=True)}
    splits = {name: embed_split(model, part) for name, part in scored_parts(data, asked).items()}
    return list(same_pictures(checkpoint, model, splits, asked).values())


def test_what_was_learnt_in_either_modality_does_not_count(sets, tmp_path):
    everything = [name for shown in (EEG2, MEG) for names in shown.values() for name in names]
    for learnt, n_images in ((everything, 0), ([*LEARNT, *COMMON[:-1]], 1), ([], 7)):
        for corpus in ("things_eeg2", "things_meg"):
            model = checkpoint(tmp_path / f"{corpus}{n_images}", learnt, [corpus])
            pair, turned = found(model, (sets / "eeg2", sets / "meg"))
            assert (pair.told["images"], pair.told["seen"]) == (n_images, 7 - n_images)
            assert len(pair.source) == 9 * n_images and len(pair.target) == 4 * n_images
            record, _ = conversion_record(*found_splits(pair), 1.0, 0, method="m", same=pair)
            assert (record["direct"] is None) == (n_images < 2) and record["same_pictures"] == pair.told
            assert (" A score needs two." in told_of(record)) == (n_images < 2)
            assert (turned.source, turned.target) == (pair.target, pair.source)
            assert turned.told["query_splits"] == pair.told["gallery_splits"]


def told_of(record):
    """What a report says of one conversion."""
    data = {name: {"category_level": False} for name in ("eeg", "meg")}
    return report_text._direct_text({"conversion": [record], "data": data, "simulated_modalities": []})


def found_splits(pair):
    """Something to score beside the same pictures."""
    part = embed_split(PlantedModel(("eeg",), n_subjects=3), PreparedSet.open(pair.source.data.folder).split("test"))
    return part, part


def test_only_the_chosen_people_count(sets, tmp_path):
    model = checkpoint(tmp_path / "model", LEARNT)
    pair, _ = found(model, (sets / "eeg2", sets / "meg"), subjects=["sub-02"])
    assert (len(pair.source), len(pair.target)) == (15, 10)
    assert {*pair.source.subjects.tolist(), *pair.target.subjects.tolist()} == {"sub-02"}


def test_where_it_is_not_known_what_was_seen_test_recordings_alone_are_compared(sets, tmp_path):
    (tmp_path / "model").mkdir()
    for pair in found(tmp_path / "model", (sets / "eeg2", sets / "meg")):
        assert pair.told == {"known": False} and (pair.source.name, pair.target.name) == ("test", "test")
    record = {"source": "eeg", "target": "meg", "direct": None, "same_pictures": pair.told}
    assert "what the checkpoint has seen is not known, so that test recordings alone" in told_of(record)
    model = checkpoint(tmp_path / "known", LEARNT)
    assert found(model, (sets / "eeg2", sets / "meg"), split="validation") == []  # they chose the weights


def test_another_picture_of_the_same_name_is_not_the_same(sets, tmp_path):
    model = checkpoint(tmp_path / "model", LEARNT)
    write_things(tmp_path / "other", "things_meg", "meg", MEG, n_people=1, repeats=1, seed=1, changed=2.0)
    for pair in found(model, (sets / "eeg2", tmp_path / "other")):
        assert (pair.told["images"], pair.told["seen"]) == (0, 0)
