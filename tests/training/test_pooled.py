"""Corpora of one database that are trained together: what one of them tests is learnt from none."""

import json

import numpy as np
import pytest
import yaml

from neural_clip.commands import main as cli
from neural_clip.errors import DataError
from neural_clip.evaluation.seen import seen_in_training
from neural_clip.files.record import sealed
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.stimuli import shown_images, unpacked
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.pooled import leave_out_test_concepts, seen_stimuli, with_seen
from neural_clip.training.splits import Splits
from things_sets import concept_of, images_of, write_things

EEG = {
    "train": images_of(["ant", "bee", "cat", "dog", "elk"], "01b", "02b"),
    "validation": images_of(["fox", "gnu"], "01b", "02b"), "test": images_of(["hen", "ibis", "jay"], "05s"),
}  # fmt: skip
MEG = {  # tests images of the EEG's training concepts, one of them the very image, and learns its own test concepts
    "train": images_of(["hen", "ibis", "kiwi", "lynx", "bee"], "03b", "04b", "05b"),
    "validation": images_of(["jay", "mole", "newt"], "03b", "04b"), "test": ["bee_07s", "cat_01b", "kiwi_09s"],
}  # fmt: skip
TESTED = {"hen", "ibis", "jay", "bee", "cat", "kiwi"}
MODEL = {"hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 2, "dropout": 0.1}
RECIPE = {
    "data": {"eeg": "x"}, "model": {"eeg": MODEL, "meg": MODEL},
    "training": {"output_dir": "x", "num_train_epochs": 1, "per_device_train_batch_size": 8, "learning_rate": 0.003,
                 "seed": 5, "use_cpu": True, "disable_tqdm": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """EEG and MEG of THINGS, and the same EEG of a corpus that names its images otherwise."""
    root = tmp_path_factory.mktemp("things")
    write_things(root / "eeg", "things_eeg2", "eeg", EEG)
    write_things(root / "meg", "things_meg", "meg", MEG, seed=1)
    write_things(root / "other", "lab", "eeg", EEG)
    return root


def datasets(*places):
    """Training and validation splits of data sets."""
    opened = [PreparedSet.open(place) for place in places]
    return [
        RecordingDataset.open(data, split, data.facts.subjects) for data in opened for split in ("train", "validation")
    ]


def test_every_test_concept_goes_and_all_else_stays(things):
    parts = datasets(things / "eeg", things / "meg")
    before = [part.part.image_ids.tolist() for part in parts]
    notes = leave_out_test_concepts(parts)
    for part, ids in zip(parts, before, strict=True):
        slow = [name for name in ids if concept_of(name) not in TESTED]
        assert part.part.image_ids.tolist() == slow == [slow[i] for i in range(len(part))]
        gone = sorted(set(ids) - set(slow))
        told = {"rows": len(ids) - len(slow), "images": len(gone), "concepts": len(set(map(concept_of, gone)))}
        assert part.left_out == told
        batch = part.__getitems__(list(range(len(part))))
        assert len(batch["image_ids"]) == len(slow)
    assert len(notes) == 3  # nothing goes of the EEG's validation
    assert notes[0] == (
        f"16 of the 40 training recordings of '{things / 'eeg'}' (4 images of 2 concepts) are left out: they are "
        f"held out in '{things / 'eeg'}' and '{things / 'meg'}' (THINGS)."
    )


def test_what_another_set_of_the_modality_validates_on_is_not_trained_on(things, tmp_path):
    """Whole concepts where a set holds them out whole, single images where it learns other images of them."""
    by_concept = {
        "train": images_of(["ant", "fox", "gnu", "owl"], "08b"), "validation": images_of(["bee", "cat"], "01b", "08b"),
        "test": images_of(["rat", "sow"], "05s"),
    }  # fmt: skip
    by_image = {
        "train": images_of(["dog", "elk"], "08b"), "validation": ["dog_01b", "elk_09b"],
        "test": ["rat_06s", "sow_06s"],
    }  # fmt: skip
    write_things(tmp_path / "by_concept", "things_eeg1", "eeg", by_concept, seed=2)
    write_things(tmp_path / "by_image", "things_eeg1", "eeg", by_image, seed=3)
    for place, gone in (("by_concept", {"bee", "cat"}), ("by_image", {"dog_01b"})):
        parts = datasets(things / "eeg", tmp_path / place)
        before = set(parts[0].part.image_ids.tolist())
        leave_out_test_concepts(parts)
        lost = before - set(parts[0].part.image_ids.tolist())
        assert lost == {name for name in before if name in gone or concept_of(name) in gone}
        other = set(parts[2].part.image_ids.tolist())
        assert other == ({"ant_08b", "owl_08b"} if place == "by_concept" else {"dog_08b", "elk_08b"})
        assert {part.left_out["rows"] for part in (parts[1], parts[3])} == {0}
    meg = datasets(things / "eeg", things / "meg")
    leave_out_test_concepts(meg)
    assert any(name.startswith("dog") for name in meg[0].part.image_ids)  # each modality has a network of its own


@pytest.fixture(scope="module")
def numbered(things):
    """Alljoined without the table of images."""
    places = {"train": range(6), "validation": range(6, 9), "test": range(9, 12)}
    shown = {split: [f"alljoined-{place:05d}" for place in own] for split, own in places.items()}
    return write_things(things / "numbers", "alljoined", "eeg", shown, seed=4)


def test_numbers_of_alljoined_are_refused_beside_names(things, numbered, tmp_path):
    """Beside any corpus that could show the same images; beside others, and alone, they are trained on."""
    for places in ((things / "eeg", numbered), (numbered, things / "meg")):
        with pytest.raises(DataError, match=r"numbers' \(alljoined\) has numbers.* THINGS too.*`--image-metadata`"):
            leave_out_test_concepts(datasets(*places))
    named = {"train": ["hen_02b", "ant_01b"], "validation": ["fox_01b", "gnu_01b"], "test": ["hen_05s"]}
    write_things(tmp_path / "named", "alljoined", "eeg", named, seed=4)
    assert leave_out_test_concepts(datasets(things / "eeg", tmp_path / "named"))
    for places in ((things / "other", numbered), (numbered,)):
        parts = datasets(*places)
        assert leave_out_test_concepts(parts) == [] and all(part.left_out is None for part in parts)
        assert seen_stimuli(parts) == []
    words = ["--data", f"eeg={things / 'eeg'}", f"eeg={numbered}", "--output-dir", str(tmp_path / "run")]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    with pytest.raises(DataError, match="`--image-metadata`"):
        cli.main(["train", str(tmp_path / "recipe.yaml"), *words])
    assert not (tmp_path / "run").exists()


def test_numbers_of_alljoined_are_no_names(things, numbered):
    """Neither of the images that it was trained on, nor of those that it is scored on."""
    parts = datasets(things / "eeg")
    record = {"data": {"a": {"corpus": "things_eeg2"}, "b": {"corpus": "alljoined"}}, "stimuli": seen_stimuli(parts)}
    assert shown_images(record, "THINGS", "x") is None
    assert len(shown_images(record | {"data": {"a": {"corpus": "things_eeg2"}}}, "THINGS", "x")) == 2
    known = with_seen(record["stimuli"], datasets(things / "meg"))
    assert known[:2] == record["stimuli"] and [entry["corpus"] for entry in known[2:]] == ["things_meg"] * 2
    assert (
        with_seen(record["stimuli"], datasets(numbered)) is None
    )  # adapted to people of whom nobody knows the images
    alone, pooled = things / "seen_alone", things / "seen_pooled"
    data, own = PreparedSet.open(numbered), {"a": {"corpus": "things_eeg2"}}
    learnt = {"a": {"corpus": "alljoined", "fingerprint": data.facts.fingerprint}}
    for folder, content in ((alone, {"data": learnt, "stimuli": []}), (pooled, record | {"data": own})):
        folder.mkdir()
        (folder / "training.json").write_text(json.dumps(sealed(content)))
    assert seen_in_training(pooled, data, "test") == {"known": False}
    seen = seen_in_training(alone, data, "test")
    assert seen["known"] and (seen["images"], seen["scored_images"], seen["foreign"]) == (0, 3, False)
    assert seen_in_training(pooled, PreparedSet.open(things / "other"), "test") is None


def test_an_image_without_a_concept_is_known_by_its_name(tmp_path, things, monkeypatch):
    parts = datasets(things / "eeg", things / "meg")
    for data in {id(part.part.data): part.part.data for part in parts}.values():
        monkeypatch.setattr(data, "_images", data.images.of(data.images.image_ids))
        data.images.concepts[:] = [""] * len(data.images.concepts)
    leave_out_test_concepts(parts)
    assert [part.left_out["images"] for part in parts] == [1, 0, 0, 0]
    assert "cat_01b" not in parts[0].part.image_ids and "cat_02b" in parts[0].part.image_ids


def test_a_data_set_alone_or_beside_other_names_stays_as_it_is(things):
    for places in [("meg",), ("other", "meg")]:
        parts = datasets(*(things / place for place in places))
        before = [part.part for part in parts]
        assert leave_out_test_concepts(parts) == []
        assert all(part.part is kept for part, kept in zip(parts, before, strict=True))
        assert [part.left_out for part in parts] == [None] * len(parts)


def test_it_is_refused_where_nothing_is_left(things, tmp_path):
    everything = {
        "train": MEG["train"],
        "validation": MEG["validation"],
        "test": images_of(["ant", "bee", "cat", "dog", "elk"], "08s"),
    }
    write_things(tmp_path / "all", "things_fmri", "fmri", everything)
    with pytest.raises(DataError, match=r"nothing is left of sub-01, sub-02.*train them one by one"):
        leave_out_test_concepts(datasets(things / "eeg", tmp_path / "all"))
    one = {"train": images_of(["mole"], "01b", "02b"), "validation": ["hen_03b"], "test": ["newt_09s"]}
    write_things(tmp_path / "one", "things_fmri", "fmri", one)
    told = (
        r"4 of the 4 validation recordings of .*\(1 image of 1 concept\) .*with other validation concepts \(--seed\)"
    )
    with pytest.raises(DataError, match=told):
        leave_out_test_concepts(datasets(things / "eeg", tmp_path / "one"))


def test_splits_of_a_run_are_without_them(things):
    data = {name: PreparedSet.open(things / name) for name in ("eeg", "meg")}
    splits = Splits.open(data, {name: opened.facts.subjects for name, opened in data.items()}, 8)
    left = [set(map(concept_of, part.part.image_ids)) for part in (*splits.train, *splits.validation)]
    assert not set().union(*left) & TESTED and all(left)
    assert sum("left out" in note for note in splits.notes) == 3
    few = {"train": EEG["train"], "validation": ["bee_01b", "fox_01b"], "test": EEG["test"]}
    few["train"] = [name for name in few["train"] if name != "bee_01b"]
    write_things(things / "few", "things_eeg2", "eeg", few, seed=2)
    data["eeg"] = PreparedSet.open(things / "few")
    with pytest.raises(DataError, match="shows 1 image to the subjects"):
        Splits.open(data, {name: opened.facts.subjects for name, opened in data.items()}, 8)


def test_the_record_lists_what_was_seen(things):
    parts = datasets(things / "eeg", things / "meg")
    leave_out_test_concepts(parts)
    entries = seen_stimuli(parts)
    assert [(entry["modality"], entry["split"]) for entry in entries] == [
        ("eeg", "train"), ("eeg", "validation"), ("meg", "train"), ("meg", "validation"),
    ]  # fmt: skip
    for entry, part in zip(entries, parts, strict=True):
        assert unpacked(entry["concepts"]) == {name: concept_of(name) for name in part.part.image_ids.tolist()}
        assert (entry["images"], entry["left_out"]) == (len(part.part.shown_ids), part.left_out)
    assert seen_stimuli(datasets(things / "other")) == []


@pytest.fixture(scope="module")
def trained(things):
    """Checkpoints of the command line: of both, and of the EEG alone."""
    (things / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    for name, kinds in (("pooled", ("eeg", "meg")), ("alone", ("meg",))):
        words = [f"{kind}={things / kind}" for kind in kinds]
        cli.main(["train", str(things / "recipe.yaml"), "--data", *words, "--output-dir", str(things / name)])
    return things


def test_a_run_of_both_records_it_and_its_evaluation_is_zero_shot(trained, capsys):
    record = json.loads((trained / "pooled" / "training.json").read_text())
    seen = {concept for entry in record["stimuli"] for concept in entry["concepts"]}
    assert seen == {"ant", "dog", "elk", "fox", "gnu", "lynx", "mole", "newt"}
    assert record["stimuli"][0]["left_out"] == {"rows": 16, "images": 4, "concepts": 2}
    words = ["--data", f"eeg={trained / 'eeg'}", "--baselines", "none", "--no-controls", "--no-pictures"]
    report = cli.main([
        "evaluate", "--checkpoint", str(trained / "pooled"), *words, "--output-dir", str(trained / "scores"),
        "--protocol", "things-eeg2-200-zero-shot",
    ])  # fmt: skip
    seen = {"images": 0, "concepts": 0, "scored_images": 3, "scored_concepts": 3, "by": [], "foreign": False}
    assert report["data"]["eeg"]["seen_in_training"]["neural_clip"] == seen | {"known": True}
    assert report["checkpoints"][0]["chosen_by"] == "validation recordings"
    assert (
        "Protocol things-eeg2-200-zero-shot: things_eeg2, 2 of 2 people, simulated, 3 images"
        in capsys.readouterr().out
    )
    text = (trained / "scores" / "report.md").read_text()
    assert "## Protocol: things-eeg2-200-zero-shot (things_eeg2, 2 of 2 people, simulated, 3 images)" in text


def test_one_data_set_alone_is_trained_as_ever(trained):
    record = json.loads((trained / "alone" / "training.json").read_text())
    assert [entry["left_out"] for entry in record["stimuli"]] == [None, None]
    assert np.sum([entry["images"] for entry in record["stimuli"]]) == len(MEG["train"] + MEG["validation"])
