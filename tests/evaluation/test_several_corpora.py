"""Scores of a model of several corpora: each corpus by itself, with baselines of its own."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from neural_clip import EegConfig, FmriConfig, NeuralClipConfig, NeuralClipModel
from neural_clip.commands import evaluate as command
from neural_clip.commands import report as report_command
from neural_clip.errors import DataError
from neural_clip.evaluation.checkpoints import open_data
from neural_clip.evaluation.protocols import conversion_entries
from neural_clip.evaluation.run import evaluate_checkpoints
from neural_clip.evaluation.seen import known_people
from neural_clip.gallery.neural_gallery import NeuralGallery
from neural_clip.prepared.reader import PreparedSet
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from several_corpora import COUNTS, FIRST, SECOND, write_sensors, write_voxels

N_IMAGES = sum(COUNTS.values())
BASELINE = "per-subject ridge"
BARE = {"controls": False, "baselines": "none"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two EEG corpora and one of fMRI; the images of the second EEG corpus are those of the fMRI."""
    root, numbers = tmp_path_factory.mktemp("corpora"), range(100, 100 + N_IMAGES)
    return {"first": write_sensors(root / "first", FIRST),
            "second": write_sensors(root / "second", SECOND, numbers=numbers, seed=1),
            "fmri": write_voxels(root / "fmri", "voxels", [30], numbers=numbers)}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(folders, tmp_path_factory):
    words = ["--data", f"eeg={folders['first']}", f"eeg={folders['second']}", f"fmri={folders['fmri']}"]
    words += ["--output_dir", str(tmp_path_factory.mktemp("run") / "out"), "--use_cpu", "true"]
    settings = {"num_train_epochs": 1, "min_steps": 0, "folds": 0, "disable_tqdm": "true", "model.eeg.decimation": 1,
                "model.eeg.num_networks": 1, "model.eeg.hidden_size": 8, "model.eeg.temporal_kernel_size": 3,
                "model.fmri.num_networks": 1, "model.fmri.alignment_size": 16, "closed_form": "false"}  # fmt: skip
    return train(
        read_recipe([*words, *(part for key, value in settings.items() for part in (f"--{key}", str(value)))])
    )


@pytest.fixture(scope="module")
def scored(checkpoint, folders, tmp_path_factory):
    """Report of the command line, and its folder."""
    output = tmp_path_factory.mktemp("report")
    data = [f"eeg={folders['first']}", f"eeg={folders['second']}", f"fmri={folders['fmri']}"]
    found = command.main(["--checkpoint", str(checkpoint), "--data", *data, "--output-dir", str(output),
                          "--baselines", "ridge", "--no-controls"])  # fmt: skip
    return found, output


def rows_of(report, key):
    return {row["method"]: row for row in report["decoding"][key]["rows"] if row["aggregation"] == "single trial"}


@pytest.mark.slow
def test_each_corpus_has_scores_of_its_own(scored):
    report, folder = scored
    assert list(report["data"]) == list(report["decoding"]) == ["eeg.first", "eeg.second", "fmri"]
    assert report["data"]["eeg.second"]["subjects"] == ["second/sub-01", "second/sub-02"]
    for key, n_queries in (("eeg.first", 64), ("eeg.second", 64), ("fmri", 32)):
        found = rows_of(report, key)
        assert set(found) == {"neural_clip", BASELINE}
        assert all((row["n_queries"], row["gallery_size"]) == (n_queries, 16) for row in found.values())
        assert found[BASELINE]["two_way"] > 0.8
    pairs = {(part["source"], part["target"]) for part in report["conversion"]}
    eeg = ("eeg.first", "eeg.second")
    assert pairs == {(key, "fmri") for key in eeg} | {("fmri", key) for key in eeg}
    text = (folder / "report.md").read_text()
    for said in ("EEG first simulated", "EEG second simulated", "fMRI simulated"):
        assert text.count(said) > 3 and said in (folder / "report.html").read_text()
    assert {path.name for path in (folder / "pictures").glob("summary*")} == {
        "summary_eeg.first.png", "summary_eeg.second.png", "summary_fmri.png"}  # fmt: skip
    with np.load(folder / "embeddings.npz") as arrays:
        assert set(arrays["eeg.second_subjects"]) == {"second/sub-01", "second/sub-02"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["first", "second"])
def test_one_corpus_of_a_model_scores_as_among_others(scored, checkpoint, folders, tmp_path, name):
    alone = evaluate_checkpoints({"neural_clip": checkpoint}, [folders[name]], tmp_path / "alone",
                                 baselines="ridge", controls=False)  # fmt: skip
    assert list(alone["decoding"]) == [f"eeg.{name}"]
    for method, row in rows_of(alone, f"eeg.{name}").items():
        assert row == rows_of(scored[0], f"eeg.{name}")[method]


@pytest.mark.slow
def test_a_report_of_several_corpora_is_written_again(scored, folders):
    before = (scored[1] / "report.md").read_text()
    data = [f"eeg={folders['second']}", f"eeg={folders['first']}", f"fmri={folders['fmri']}"]
    report_command.main([str(scored[1]), "--data", *data])
    assert (scored[1] / "report.md").read_text() == before


def test_people_are_known_by_their_corpus(folders):
    """`sub-01` of another corpus is another person, and one who was trained on stays so under another name."""
    first, second = (PreparedSet.open(folders[name]) for name in ("first", "second"))
    config = SimpleNamespace(
        subjects=["sub-01", "sub-02"], trained_on=[{"corpus": "first", "subjects": ["sub-01", "sub-02"]}]
    )
    assert known_people(config, first) == ["sub-01", "sub-02"] and known_people(config, second) == []
    assert known_people(config, first.of_corpus()) == ["first/sub-01", "first/sub-02"]
    config.trained_on = None  # of an older checkpoint: by name alone
    assert known_people(config, second.of_corpus()) == ["second/sub-01", "second/sub-02"]


def save_alone(folder, data, corpus, width):
    """A checkpoint with random weights, each person's layer its own, of people of a corpus; returns the folder."""
    facts = PreparedSet.open(data).facts
    if facts.modality == "eeg":
        config = {"eeg_config": EegConfig(
            n_chans=facts.n_chans, n_times=facts.n_times, sfreq=facts.sfreq, tmin=facts.tmin, ch_names=facts.ch_names,
            subjects=facts.subjects, hidden_size=8, temporal_kernel_size=3, trained_on=learnt_from(corpus, facts),
            confidence_temperature={"sub-01": 0.1, "sub-02": 0.2},
        )}  # fmt: skip
    else:
        config = {"fmri_config": FmriConfig(subjects=facts.subjects, n_voxels=facts.n_voxels, alignment_size=8,
                                            hidden_size=8, trained_on=learnt_from(corpus, facts))}  # fmt: skip
    return save_random(folder, NeuralClipConfig(**config, projection_dim=width))


def learnt_from(corpus, facts):
    return corpus and [{"corpus": corpus, "subjects": facts.subjects, "redistribution": "allowed"}]


def save_random(folder, config):
    torch.manual_seed(3)
    model = NeuralClipModel(config)
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    model.save_pretrained(folder)
    return folder


def by_person(rows):
    """Rows of a report with people called as the data set calls them."""
    return [row | {"subjects": {name.rpartition("/")[2]: own for name, own in row["subjects"].items()}}
            for row in rows]  # fmt: skip


@pytest.fixture(scope="module")
def apart(checkpoint, folders, tmp_path_factory):
    """A model of both corpora and one of the first: where they lie, and rows of a report of each."""
    root = tmp_path_factory.mktemp("apart")
    width = NeuralClipModel.from_pretrained(checkpoint).config.projection_dim
    places = {"joint": checkpoint, "alone": save_alone(root / "alone", folders["first"], "first", width)}
    rows = {}
    for name, place in places.items():
        found = evaluate_checkpoints({name: place}, [folders["first"]], root / f"{name} out", **BARE)
        (rows[name],) = (part["rows"] for part in found["decoding"].values())
    return places, rows


@pytest.mark.parametrize("order", [("joint", "alone"), ("alone", "joint")])
def test_a_model_of_several_corpora_stands_beside_one_of_one_of_them(apart, folders, tmp_path, order):
    """What each scores alone, and differences on the same recordings, whichever is the first."""
    places, own = apart
    names = [f"{name}={places[name]}" for name in order]
    report = command.main(["--checkpoint", *names, "--data", f"eeg={folders['first']}", "--output-dir",
                           str(tmp_path / "out"), "--no-controls", "--no-pictures",
                           "--baselines", "none"])  # fmt: skip
    assert [*report["decoding"]] == ["eeg.first"] and report["data"]["eeg.first"]["subjects"][0] == "first/sub-01"
    for name in order:
        mine = [row for row in report["decoding"]["eeg.first"]["rows"] if row["method"] == name]
        assert by_person(mine) == by_person(own[name])
        assert set(mine[0]["subjects"]) == {"first/sub-01", "first/sub-02"}
        (sure,) = [each for each in report["confidence"]["eeg.first"] if each["method"] == name]
        if name == "alone":
            assert sure["temperatures"] == {"first/sub-01": 0.1, "first/sub-02": 0.2}
    compared = [each for each in report["comparisons"] if (each["task"], each["score"]) == ("decoding", "two_way")]
    assert [(each["method"], each["other"]) for each in compared] == [order]
    difference = own[order[0]][0]["two_way"] - own[order[1]][0]["two_way"]
    assert compared[0]["difference"] == pytest.approx(difference) and abs(difference) > 0.05
    assert compared[0]["interval"][0] < difference < compared[0]["interval"][1]


def test_each_corpus_is_compared_with_the_model_of_that_corpus(checkpoint, folders, tmp_path):
    width = NeuralClipModel.from_pretrained(checkpoint).config.projection_dim
    alone = {name: save_alone(tmp_path / name, folders[name], name, width) for name in ("first", "second")}
    data = [folders["first"], folders["second"]]
    report = evaluate_checkpoints({"joint": checkpoint} | alone, data, tmp_path / "out", **BARE)
    methods = {key: [row["method"] for row in part["rows"]] for key, part in report["decoding"].items()}
    assert {key: [*dict.fromkeys(found)] for key, found in methods.items()} == {
        "eeg.first": ["joint", "first"], "eeg.second": ["joint", "second"]}  # fmt: skip
    assert {(each["other"], *each["modalities"]) for each in report["comparisons"]} == {
        ("first", "eeg.first"), ("second", "eeg.second")}  # fmt: skip
    with pytest.raises(DataError, match=r"of the corpus 'second', but the eeg encoder of the model .* knows people of "
                       r"first, and the first checkpoint needs one for every data set"):  # fmt: skip
        evaluate_checkpoints({"first": alone["first"], "joint": checkpoint}, data, tmp_path / "no", **BARE)
    assert not (tmp_path / "no" / "report.json").exists()


@pytest.mark.parametrize(("corpus", "said"), [("second", "second"), (None, "a corpus that it does not name")])
def test_a_model_of_another_corpus_is_not_taken_for_one_of_the_same_names(
    checkpoint, folders, tmp_path, corpus, said
):  # fmt: skip
    """`sub-01` of another corpus is another person, also where recordings look alike."""
    width = NeuralClipModel.from_pretrained(checkpoint).config.projection_dim
    other = save_alone(tmp_path / "other", folders["first"], corpus, width)
    for order in ([("joint", checkpoint), ("other", other)], [("other", other), ("joint", checkpoint)]):
        with pytest.raises(
            DataError, match=rf"corpus 'first', but the eeg encoder of .*other' knows people of {said}"
        ):
            evaluate_checkpoints(dict(order), [folders["first"]], tmp_path / "out", **BARE)


def test_voxels_of_several_corpora_stand_beside_those_of_one(folders, tmp_path):
    facts = PreparedSet.open(folders["fmri"]).facts
    people = {"voxels/sub-01": facts.n_voxels["sub-01"], "others/sub-01": 11}
    settings = FmriConfig(subjects=[*people], n_voxels=people, alignment_size=8, hidden_size=8)
    joint = save_random(tmp_path / "joint", NeuralClipConfig(fmri_config=settings, projection_dim=16))
    both = {"alone": save_alone(tmp_path / "alone", folders["fmri"], "voxels", 16), "joint": joint}
    report = evaluate_checkpoints(both, [folders["fmri"]], tmp_path / "out", **BARE)
    rows = report["decoding"]["fmri.voxels"]["rows"]
    for name, place in both.items():
        found = evaluate_checkpoints({name: place}, [folders["fmri"]], tmp_path / f"{name} out", **BARE)
        (part,) = found["decoding"].values()
        assert by_person([row for row in rows if row["method"] == name]) == by_person(part["rows"])


def test_the_constants_of_legacy_are_those_of_the_modality():
    record = {"target": "eeg", "two_way_permutation": 0.5}
    expected = conversion_entries("legacy", record, 0.417)
    assert "a constant of the authors' code" in expected[1]["label"]
    assert conversion_entries("legacy", record | {"target": "eeg.first"}, 0.417) == expected


def test_people_of_a_gallery_are_named_by_their_corpus(checkpoint, folders):
    gallery = NeuralGallery.from_recordings(checkpoint, [folders["first"], folders["second"]])
    assert set(gallery.subjects) == {f"{corpus}/sub-0{n}" for corpus in ("first", "second") for n in (1, 2)}
    rows = PreparedSet.open(folders["second"]).split("test")
    images = NeuralGallery.from_images(checkpoint, folders["second"])
    by_split = images.decode(rows.at(np.arange(4)))
    by_array = images.decode(rows.values([0, 1, 2, 3]), subject="second/sub-01", modality="eeg")
    assert [[hit.image_id for hit in hits] for hits in by_split] == [
        [hit.image_id for hit in hits] for hits in by_array
    ]
    with pytest.raises(DataError, match="sensors, samples"):
        images.decode(rows.values([0]), subject="first/sub-01", modality="eeg")


def test_what_does_not_fit_is_refused(checkpoint, folders, tmp_path):
    with pytest.raises(DataError, match="both hold eeg of the corpus 'first'"):
        open_data([folders["first"], str(folders["first"])])
    score = {"checkpoints": {"neural_clip": checkpoint}, "output_dir": tmp_path / "out", "controls": False}
    with pytest.raises(DataError, match="no average subject"):
        evaluate_checkpoints(data=[folders["first"]], subject="average", **score)
    with pytest.raises(DataError, match="'understand' shows a model of one corpus"):
        evaluate_checkpoints(data=[folders["first"], folders["second"]], understand=4, **score)
    other = write_sensors(tmp_path / "other", SECOND | {"corpus": "third"}, n_subjects=1)
    with pytest.raises(DataError, match=r"has subject 'sub-01', but the model knows \['first/sub-01'"):
        evaluate_checkpoints(data=[other], **score)
    swapped = write_sensors(tmp_path / "swapped", SECOND | {"corpus": "first"}, n_subjects=1)
    with pytest.raises(DataError, match=r"in its channels: it lacks 'Fz'.* nobody stated how they were scaled"):
        evaluate_checkpoints(data=[swapped], **score)
    assert not (tmp_path / "out" / "report.json").exists()
    assert json.loads((folders["first"] / "neural_clip.json").read_text())["subjects"] == ["sub-01", "sub-02"]
