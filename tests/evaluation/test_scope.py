"""Whom an evaluation scores and what it searches: new and chosen subjects, galleries beyond the split, few images."""

import json
from dataclasses import replace

import numpy as np
import pytest

from neural_clip.commands.evaluate import main
from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.rows import BASELINES
from neural_clip.evaluation.run import evaluate_checkpoints
from neural_clip.files.privacy import shared_place
from neural_clip.gallery.embedding import embed_split
from neural_clip.gallery.searched import searched_images
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.writer import write_prepared
from neural_clip.report.tables import print_tables
from neural_clip.report.text import markdown
from neural_clip.report.write import write_report
from neural_clip.retrieval.scores import retrieval_scores
from planted_data import ENCODER, SHAPES, WIDTH, PlantedModel, plant, planted_maps, write_planted
from saved_models import save_model
from slow_scores import cosine

NO_FITS = {"baselines": False, "controls": False}


def write_held_out(folder, splits=("train", "validation", "test"), modality="eeg", n_subjects=3, n_images=30, **facts):
    """The last subject is tested on all images; the others are trained on two thirds, validated on the rest."""
    rng = np.random.default_rng(4)
    embeds = rng.standard_normal((n_images, WIDTH)).astype(np.float32)
    images = [{"image_id": f"im{i:02d}", "concept": "", "image_embeds": vector} for i, vector in enumerate(embeds)]
    maps = planted_maps(modality, n_subjects)
    rows = []
    for subject in range(n_subjects):
        for i in range(n_images):
            split = "test" if subject == n_subjects - 1 else "validation" if i % 3 == 0 else "train"
            values = embeds[i] @ maps[subject] + 4 * rng.standard_normal(maps[subject].shape[1])
            values = values.reshape(SHAPES[modality] or -1)
            rows.append(
                {"subject": f"sub-{subject + 1:02d}", "image_id": f"im{i:02d}", "split": split, modality: values}
            )
    metadata = {
        "corpus": "planted", "modality": modality, "split_protocol": "by subject", "split_unit": "subject",
        "licence": "none", "redistribution": "allowed", "citation": "none", "source": "planted",
        "image_encoder": ENCODER,
    }  # fmt: skip
    if modality != "fmri":
        metadata |= {"sfreq": 100.0, "tmin": 0.0, "ch_names": [f"C{i}" for i in range(SHAPES[modality][0])]}
    return write_prepared(folder, metadata | facts, [row for row in rows if row["split"] in splits], images)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return write_held_out(tmp_path_factory.mktemp("held_out") / "eeg")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Planted sets by their number of test and validation images."""
    root = tmp_path_factory.mktemp("few")

    def folder(n_test, n_validation=4, modality="eeg"):
        path = root / f"{modality}{n_test}_{n_validation}"
        counts = {"train": 10, "validation": n_validation, "test": n_test}
        return path if path.exists() else write_planted(path, modality, counts=counts, pixels=False)

    return folder


@pytest.fixture
def planted(monkeypatch):
    """A model that knows so many subjects, for all checkpoints."""

    def make(modalities=("eeg",), n_subjects=2):
        model = PlantedModel(modalities, n_subjects)
        plant(monkeypatch, lambda checkpoint: model)
        return model

    return make


def test_new_subjects_are_scored_by_the_average_subject(held_out, planted, tmp_path, capsys):
    planted()
    report = evaluate_checkpoints({"neural_clip": "planted"}, [held_out], tmp_path, subject="average")
    part = PreparedSet.open(held_out).split("test")
    mean = np.mean(planted_maps("eeg", 2), axis=0)
    expected = retrieval_scores(
        part.values().reshape(len(part), -1) @ np.linalg.pinv(mean),
        part.gallery_embeds,
        part.image_ids,
        part.gallery_ids,
    )
    row, *others = report["decoding"]["eeg"]["rows"]
    assert row["two_way"] == pytest.approx(expected["two_way"]) and expected["two_way"] > 0.9
    assert list(row["subjects"]) == report["data"]["eeg"]["unseen_subjects"] == ["sub-03"]
    # what is fitted for each subject cannot score one that is in no other split
    told = {other["method"]: other.get("not_computed") for other in others}
    assert list(told) == [name for name, _ in BASELINES] and told.pop("ridge, identity alignment") is None
    assert set(told.values()) == {
        "Subject 'sub-03' has no training rows; ridge regression is fitted for ['sub-01', 'sub-02']."
    }
    controls = {record["check"]: record for record in report["controls"]["eeg"]}
    assert controls["leave one subject out"]["two_way"] > 0.9  # fitted on the others
    assert "'sub-03' has no training rows" in controls["shuffled labels"]["not_computed"]
    assert controls["queries whose image was trained"]["n_queries"] == 20
    assert controls["queries whose image was not trained"]["n_queries"] == 10
    print_tables(report)
    for text in (markdown(report, {}), " ".join(capsys.readouterr().out.split())):
        assert "EEG: sub-03: never seen in training. Their recordings go through the average subject" in text
    assert "per-subject ridge was not computed. Subject 'sub-03' has no training rows" in markdown(report, {})
    assert "| EEG | per-subject ridge | - | - | - | - | not computed |" in markdown(report, {})


def test_chosen_subjects_have_recordings_in_the_split(held_out, planted, tmp_path):
    planted()
    with pytest.raises(DataError, match="has no test recordings of 'sub-01'; choose others"):
        evaluate_checkpoints({"a": "planted"}, [held_out], tmp_path, subject="average", subjects=["sub-01", "sub-03"])
    report = evaluate_checkpoints(
        {"a": "planted"}, [held_out], tmp_path, split="train", subjects=["sub-01"], **NO_FITS
    )
    assert list(report["decoding"]["eeg"]["rows"][0]["subjects"]) == ["sub-01"]


def test_new_subjects_are_refused_by_name_where_the_average_was_not_asked_for(held_out, planted, tmp_path):
    planted()
    with pytest.raises(DataError, match=r"subject 'sub-03', but the model knows .*adapt.*evaluate --subject average"):
        evaluate_checkpoints({"neural_clip": "planted"}, [held_out], tmp_path)
    with pytest.raises(DataError, match="'understand' shows each subject's own layer"):
        pytest.importorskip("captum")
        evaluate_checkpoints({"neural_clip": "planted"}, [held_out], tmp_path, subject="average", understand=4)


def test_fmri_has_no_average_subject(planted, tmp_path):
    planted(("fmri",))
    folder = write_held_out(tmp_path / "fmri", modality="fmri")
    with pytest.raises(DataError, match="no average subject for fMRI: voxels of two subjects do not correspond"):
        evaluate_checkpoints({"neural_clip": "planted"}, [folder], tmp_path / "out", subject="average")
    with pytest.raises(DataError, match=r"has subject 'sub-03', but the model knows .*adapt` fits .* new subject\.$"):
        evaluate_checkpoints({"neural_clip": "planted"}, [folder], tmp_path / "out")


def test_known_subjects_by_the_average_are_called_known(folders, planted, tmp_path):
    planted()
    report = evaluate_checkpoints({"a": "planted"}, [folders["eeg"]], tmp_path, subject="average", **NO_FITS)
    assert report["data"]["eeg"]["unseen_subjects"] == []
    assert "sub-01, sub-02: seen in training, but scored by the average subject" in markdown(report, {})


def test_the_command_scores_new_subjects(held_out, tmp_path):
    checkpoint = save_model(tmp_path / "model")
    arguments = ["--checkpoint", str(checkpoint), "--data", f"eeg={held_out}", "--output-dir", str(tmp_path / "out")]
    report = main([*arguments, "--subject", "average", "--subjects", "sub-03", "--baselines", "none", "--no-controls"])
    assert report["data"]["eeg"]["scored_subjects"] == ["sub-03"]
    assert "sub-03: never seen in training" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(SystemExit):
        main([*arguments, "--subject", "mean"])


def test_subjects_choose_whose_recordings_are_scored(folders, planted, tmp_path):
    model = planted(("eeg", "fmri"))
    report = evaluate_checkpoints({"a": "planted"}, [folders["eeg"]], tmp_path, subjects=["sub-02"])
    part = embed_split(model, PreparedSet.open(folders["eeg"]).split("test", ["sub-02"]))
    expected = retrieval_scores(part.embeds, part.gallery_embeds, part.image_ids, part.gallery_ids)
    assert report["decoding"]["eeg"]["rows"][0]["two_way"] == pytest.approx(expected["two_way"])
    assert list(report["decoding"]["eeg"]["rows"][0]["subjects"]) == ["sub-02"]
    controls = {record["check"]: record for record in report["controls"]["eeg"]}
    assert controls["leave one subject out"]["two_way"] > 0.6  # fitted on sub-01, who is not scored
    with pytest.raises(DataError, match=r"'subjects' .* Allowed values are 'sub-01' and 'sub-02', but got 'sub-09'"):
        evaluate_checkpoints({"a": "planted"}, [folders["eeg"]], tmp_path, subjects=["sub-09"])
    three = write_planted(tmp_path / "three", "fmri", n_subjects=3, repeats=1, pixels=False, counts=FEW)
    with pytest.raises(DataError, match=r"eeg' has \['sub-01', 'sub-02'\], none of the subjects \['sub-03'\]"):
        evaluate_checkpoints({"a": "planted"}, [folders["eeg"], three], tmp_path, subjects=["sub-03"])


FEW = {"train": 10, "validation": 4, "test": 6}


def slow_two_way(queries, shown, ids, embeds):
    """Mean over queries and other images of [cosine with the own image is higher]."""
    scores = []
    for query, name in zip(queries, shown, strict=True):
        cosines = {image: cosine(query, vector) for image, vector in zip(ids, embeds, strict=True)}
        own = cosines.pop(name)
        scores.append(np.mean([own > other for other in cosines.values()]))
    return float(np.mean(scores))


def test_a_gallery_of_all_images(few, planted, tmp_path):
    model = planted(("eeg", "meg"))
    data = [few(6), few(6, modality="meg")]
    default = evaluate_checkpoints({"a": "planted"}, data, tmp_path / "default", baselines=False)
    report = evaluate_checkpoints({"a": "planted"}, data, tmp_path / "all", gallery="all")
    found = PreparedSet.open(data[0])
    part = embed_split(model, found.split("test"))
    row = report["decoding"]["eeg"]["rows"][0]
    assert (row["gallery_size"], row["n_unique_images"], row["chance_top1"]) == (20, 6, pytest.approx(1 / 20))
    images = found.images
    expected = slow_two_way(part.embeds.astype(float), part.image_ids, images.image_ids, images.embeds.astype(float))
    assert row["two_way"] == pytest.approx(expected, abs=1e-9)
    n_trained = len(found.split("train").shown_ids)
    assert 0 < n_trained < 20
    assert report["data"]["eeg"]["gallery"] == {"name": "all", "images": 20, "shown": 6, "trained": n_trained}
    baselines = [row for row in report["decoding"]["eeg"]["rows"][1:] if "not_computed" not in row]
    assert len({row["method"] for row in baselines}) > 3 and {row["gallery_size"] for row in baselines} == {20}
    controls = {record["check"]: record for record in report["controls"]["eeg"]}
    sized = [record["gallery_size"] for record in controls.values() if "gallery_size" in record]
    assert len(sized) > 3 and set(sized) == {20}
    counts = [{c["check"]: c for c in r["controls"]["eeg"]}["overlap with training"] for r in (default, report)]
    assert counts[0] == counts[1]  # it counts what was shown
    # images as queries are those that were shown; their recordings are searched as before
    for key in ("same_image", "chance_same_image", "n_queries", "direct"):
        assert report["encoding"]["eeg"]["rows"][0][key] == default["encoding"]["eeg"]["rows"][0][key]
    assert report["encoding"]["eeg"]["rows"][0]["gallery_size"] == 20
    for ours, theirs in zip(report["conversion"], default["conversion"], strict=True):
        assert ours["direct"] == theirs["direct"] and ours["gallery_size"] == 20
    text = write_report(tmp_path / "all").read_text()
    assert f"searched are 20 images (all); shown: 6; of the training split: {n_trained}." in text


def test_the_default_gallery_is_that_of_the_split(folders, planted, tmp_path):
    planted()
    default, test = (
        evaluate_checkpoints({"a": "planted"}, [folders["eeg"]], tmp_path / str(gallery), gallery=gallery, **NO_FITS)
        for gallery in (None, "test")
    )
    assert "gallery" not in default["data"]["eeg"]
    assert default["decoding"] == test["decoding"] and default["encoding"] == test["encoding"]


def test_another_data_set_as_gallery(folders, planted, tmp_path):
    planted()
    report = evaluate_checkpoints(
        {"a": "planted"}, [folders["eeg"]], tmp_path / "out", gallery=str(folders["meg"]), **NO_FITS
    )
    assert report["decoding"]["eeg"]["rows"][0]["gallery_size"] == 24 + 76
    text = write_report(tmp_path / "out", data={"eeg": folders["eeg"]}).read_text()
    name, fingerprint = (
        shared_place(folders["meg"], tmp_path / "out"),
        PreparedSet.open(folders["meg"]).facts.fingerprint,
    )
    gallery = report["data"]["eeg"]["gallery"]
    assert (gallery["name"], gallery["fingerprint"]) == (name, fingerprint)
    assert f"searched are 100 images ({name}); shown: 24" in text and str(folders["meg"].parent) not in text
    assert f"* EEG, images searched beside its own: `{name}`, corpus " in text and f"`{fingerprint}`" in text
    assert (tmp_path / "out" / "pictures" / "decoding.png").is_file()  # the other set's images have no pixels here


def test_shuffles_among_what_was_shown_see_through_a_gallery_from_elsewhere(folders, planted):
    """Predictions that know where images come from, but not which was seen."""
    from neural_clip.retrieval.scoring import score_record

    part = PreparedSet.open(folders["eeg"]).split("test")
    part = replace(part, searched=searched_images(part, "all"))
    rng = np.random.default_rng(2)
    embeds = part.gallery_embeds + 3 * np.isin(part.gallery_ids, part.shown_ids)[:, None]  # the split lies elsewhere
    guesses = 3 + rng.standard_normal((len(part), WIDTH))
    given = (guesses, embeds, part.image_ids, part.gallery_ids)
    loose, _ = score_record(*given, seed=0)
    strict, _ = score_record(*given, seed=0, among_shown=True)
    assert loose["two_way"] == strict["two_way"] > 0.75
    assert loose["two_way_p"] < 0.01 and strict["two_way_p"] > 0.05


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("n_test", [1, 2, 4])
def test_few_images_are_scored_or_refused_and_commented_on(few, planted, tmp_path, n_test):
    planted()
    if n_test == 1:
        with pytest.raises(DataError, match=r"one image, and a score needs another .*`--gallery all` .* 15 images"):
            evaluate_checkpoints({"a": "planted"}, [few(1)], tmp_path)
        pytest.importorskip("captum")
        with pytest.raises(DataError, match=r"one image.*--understand. is shown by images that have recordings"):
            evaluate_checkpoints({"a": "planted"}, [few(1)], tmp_path, gallery="all", understand=4)
    for gallery in ("all",) if n_test == 1 else (None, "all"):
        report = evaluate_checkpoints({"a": "planted"}, [few(n_test)], tmp_path, gallery=gallery)
        row = report["decoding"]["eeg"]["rows"][0]
        size = 14 + n_test if gallery else n_test
        assert (row["gallery_size"], row["two_way_interval"]) == (size, None)
        assert row["chance_top1"] == pytest.approx(1 / size) and row["chance_top5"] == pytest.approx(min(5 / size, 1))
        assert row["two_way_p"] >= (1.0, 0.3, 0.01)[(1, 2, 4).index(n_test)]
        assert (report["encoding"]["eeg"]["rows"][0]["direct"] is None) == (n_test == 1)
        text = write_report(tmp_path, pictures=False).read_text()
        counted = f"{n_test} image{'s' * (n_test > 1)}"
        assert f"EEG simulated: too few for an interval: {counted}; `p` cannot be smaller than about" in text
        shown = next(line for line in text.splitlines() if line.startswith("| EEG simulated | chance"))
        assert (shown.split("|")[4].strip() == "-") == (size <= 5)  # all would be among the first five


def test_wide_intervals_are_commented_on(few, planted, tmp_path):
    planted()
    report = evaluate_checkpoints({"a": "planted"}, [few(6)], tmp_path, **NO_FITS)
    row = report["decoding"]["eeg"]["rows"][0]
    row["two_way_interval"] = [0.04, 0.92]
    assert "with 6 images the interval of the 2-way score reaches from 0.04 to 0.92" in markdown(report, {})
    row["two_way_interval"] = [0.7, 0.92]
    assert "the interval of the 2-way score reaches" not in markdown(report, {})


@pytest.mark.parametrize("n_validation", [0, 1])
@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_without_validation_images_every_baseline_and_control_is_there(
    few, planted, tmp_path, monkeypatch, capsys, modality, n_validation
):
    planted((modality,))
    monkeypatch.chdir(tmp_path)
    data = few(6, n_validation, modality)
    report = main(["--checkpoint", "planted", "--data", f"{modality}={data}", "--output-dir", "out"])
    _, *rows = (r for r in report["decoding"][modality]["rows"] if r["aggregation"] == "single trial")
    assert [row["method"] for row in rows] == [name for name, _ in BASELINES]
    lacking = {row["method"]: row["not_computed"] for row in rows if "not_computed" in row}
    inherent = {"ridge, identity alignment": "Voxels of different subjects do not correspond; they cannot be pooled "
                "without an alignment."} if modality == "fmri" else {}  # fmt: skip
    assert lacking == inherent
    for row in rows:
        if row["method"] not in lacking:
            assert row["two_way"] > 0.7 and row["fit"]["strength_by"] == "held-out training recordings"
    ridges = {each["check"]: each for each in report["controls"][modality] if each["by"] == "ridge"}
    fitted = {"shuffled labels"} | ({"slow drift alone", "leave one subject out"} if modality == "eeg" else set())
    assert {check for check in fitted if "two_way" not in ridges[check]} == set()
    n_images = rows[0]["fit"]["n_images"]
    told = (
        f"{'EEG' if modality == 'eeg' else 'fMRI'} simulated: strengths were chosen by held-out training recordings, "
        f"in 5 folds over training images, {n_images} in all, as there are no two validation images: per-subject ridge"
    )
    assert told in (tmp_path / "out" / "report.md").read_text()
    assert capsys.readouterr().out.count("not computed") == len(inherent)


def test_a_set_that_can_only_be_scored_is(planted, tmp_path):
    planted()
    folder = write_held_out(tmp_path / "eeg", splits=("test",), presentation_order=True)
    report = evaluate_checkpoints({"a": "planted"}, [folder], tmp_path / "out", subject="average")
    row, *baselines = report["decoding"]["eeg"]["rows"]
    assert row["two_way"] > 0.9
    assert {other["not_computed"] for other in baselines} == {"There are no training recordings to fit it on."}
    controls = [record.get("not_computed", "") for record in report["controls"]["eeg"]]
    assert len(controls) > 3 and all(controls)
    assert "was not computed. There are no training" in write_report(tmp_path / "out", pictures=False).read_text()


def test_a_target_that_is_never_decoded_gives_no_normalised_conversion(few, planted, tmp_path):
    model = planted(("eeg", "meg"))
    model.inverses["meg"] = [-inverse for inverse in model.inverses["meg"]]  # always the farthest image
    folders = [few(2), few(2, modality="meg")]
    report = evaluate_checkpoints({"a": "planted"}, folders, tmp_path, protocol="paper", **NO_FITS)
    assert report["decoding"]["meg"]["rows"][0]["two_way"] == 0
    to_meg = next(record for record in report["conversion"] if record["target"] == "meg")
    assert to_meg["normalised"] is to_meg["normalised_interval"] is None
    assert "EEG -> MEG simulated" in write_report(tmp_path, pictures=False).read_text()
    assert json.loads((tmp_path / "report.json").read_text())["conversion"]
