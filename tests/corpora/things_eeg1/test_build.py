"""THINGS-EEG1 on files written by hand: epochs, splits, scaling, people and versions."""

import json

import numpy as np
import pytest
import scipy.linalg
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.discriminant_analysis import _cov

import things_eeg1_raw as made
from neural_clip.commands.prepare import main
from neural_clip.corpora.things_eeg1 import prepare
from neural_clip.corpora.things_eeg1.facts import CorpusFacts
from neural_clip.errors import DataError
from neural_clip.prepared.facts import read_metadata
from neural_clip.prepared.reader import PreparedSet
from planted_pictures import picture, recorded
from prepared_rows import rows_with_split
from raw_to_score import scored


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return made.build(tmp_path_factory.mktemp("eeg1") / "raw")


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    """A data set, made once for each choice of options."""
    known, root = {}, tmp_path_factory.mktemp("prepared")

    def make(**options):
        key = tuple(sorted(options.items()))
        if key not in known:
            known[key] = prepare(raw, root / str(len(known)), **options)
        return known[key]

    return make


def rows(folder):
    found = [row | {"eeg": np.array(row["eeg"], dtype=np.float32)} for row in rows_with_split(folder)]
    return sorted(found, key=lambda row: (row["subject"], row["trial"]))


def test_epochs_are_the_recorded_signal_at_250_hz_minus_the_baseline(tmp_path):
    folder = made.build(tmp_path / "raw", people=(2,))
    shown = made.shown(2)
    samples = made.onsets(shown, 2)
    wave = np.sin(2 * np.pi * 4.37 * np.arange(samples[-1] + made.AFTER) / 1000)
    size = 20.0 + np.arange(63)  # steps of each channel, so that an exchanged one is noticed
    made.write_person(folder, 2, values=size[:, None] * wave)
    prepare(folder, tmp_path / "set", subjects=[2], scaling="none", split="all_concepts")
    facts, found = read_metadata(tmp_path / "set"), rows(tmp_path / "set")
    assert (facts["n_chans"], facts["n_times"], facts["sfreq"], facts["tmin"], facts["unit"]) == (63, 250, 250, 0, "V")
    assert len(found) == len(shown) and sorted(facts["ch_names"]) == sorted(made.CHANNELS)
    volts = dict(zip(made.CHANNELS, size * made.RESOLUTION * 1e-6, strict=True))
    for row, (sequence, concept, number, _), onset in zip(found, shown, samples, strict=True):
        assert (row["run"], row["image_id"]) == (f"sequence-{sequence:02d}", made.file_of(concept, number)[:-4])
        course = (
            np.sin(2 * np.pi * 4.37 * (onset / 1000 + np.arange(250) / 250)) - wave[onset - 200 : onset + 1].mean()
        )
        for place in (0, 11, 62):
            expected = volts[facts["ch_names"][place]] * course
            assert_allclose(row["eeg"][place, 5:-5], expected[5:-5], atol=2e-3 * volts[facts["ch_names"][place]])


def test_no_training_image_is_of_a_test_concept_unless_they_are_kept(prepared):
    for kept in (False, True):
        found = rows(prepared(scaling="none", split="all_concepts" if kept else "zero_shot"))
        by_split = {}
        for row in found:
            by_split.setdefault(row["split"], {}).setdefault(row["image_id"], []).append(row["subject"])
        assert set(by_split["test"]) == made.TEST_IDS
        assert all(sorted(who) == ["sub-02"] * 3 + ["sub-03"] * 3 for who in by_split["test"].values())
        other = by_split["train"] | by_split["validation"]
        dropped = {image_id for image_id in made.TRAIN_IDS if image_id.startswith(("t-shirt", "yo-yo"))}
        assert set(other) == (made.TRAIN_IDS if kept else made.TRAIN_IDS - dropped)
        assert all(sorted(who) == ["sub-02", "sub-03"] for who in other.values())
        concepts = [{image_id.rsplit("_", 1)[0] for image_id in by_split[name]} for name in ("train", "validation")]
        assert not concepts[0] & concepts[1] and len(concepts[1]) == 1
        facts = read_metadata(prepared(scaling="none", split="all_concepts" if kept else "zero_shot"))
        assert facts["split_protocol"].startswith("by image" if kept else "zero-shot")
        told = [finding for finding in facts["findings"] if finding["check"] == "concepts"]
        assert f"{2 if kept else 0} of the 2 test concepts" in told[0]["message"]


def test_validation_concepts_do_not_depend_on_who_is_read_or_on_the_test_concepts(prepared):
    choices = [{}, {"split": "all_concepts"}, {"subjects": (3,)}, {"include_excluded": True}]
    held_out = []
    for options in choices:
        found = rows(prepared(scaling="none", **options))
        held_out.append({row["concept"] for row in found if row["split"] == "validation"})
    assert held_out == held_out[:1] * 4


def test_onsets_in_ms_and_in_s_give_the_same_rows(raw, prepared, tmp_path):
    older = made.build(tmp_path / "raw", version="1.1.0", people=(2, 3))
    assert "sample" not in (older / f"{made.STEM.format(2)}events.tsv").read_text()
    for row, other in zip(
        rows(prepare(older, tmp_path / "set", scaling="none")), rows(prepared(scaling="none")), strict=True
    ):
        assert_array_equal(row.pop("eeg"), other.pop("eeg"))
        assert {**row, "split": other["split"]} == other


def test_whitening_and_statistics_are_fitted_on_the_training_epochs_of_a_person(prepared):
    plain, white, scaled = (rows(prepared(scaling=scaling)) for scaling in ("none", "mvnn", "train_std"))
    statistics = PreparedSet.open(prepared(scaling="train_std")).statistics
    for subject in ("sub-02", "sub-03"):
        own = [n for n, row in enumerate(plain) if row["subject"] == subject]
        training = np.stack([plain[n]["eeg"] for n in own if plain[n]["split"] == "train"]).astype(float)
        sigma = np.mean([_cov(epoch.T, shrinkage="auto") for epoch in training], axis=0)
        matrix = scipy.linalg.fractional_matrix_power(sigma, -0.5)
        rms = np.sqrt((training**2).mean(axis=(0, 2)))
        assert_allclose(statistics[f"{subject}/std"], rms, rtol=1e-5)
        for n in own:
            assert_allclose(white[n]["eeg"], matrix @ plain[n]["eeg"], rtol=2e-3, atol=2e-3)
            assert_allclose(scaled[n]["eeg"], plain[n]["eeg"] / rms[:, None], rtol=1e-4, atol=1e-6)
    facts = read_metadata(prepared(scaling="mvnn"))
    assert (facts["unit"], facts["scaling"]["fit_scope"]) == ("z", "train")


def test_excluded_people_are_left_out_with_a_sentence_or_read_when_asked_for(raw, prepared, tmp_path, capsys):
    facts = read_metadata(prepare(raw, tmp_path / "set", scaling="none", subjects=None))
    sentence = "Left out are sub-01, sub-06, whom participants.tsv marks as excluded"
    assert facts["subjects"] == ["sub-02", "sub-03"] and sentence in capsys.readouterr().err
    assert any(sentence in told and "sub-49, who wore another cap" in told for told in facts["known_defects"])
    found = read_metadata(prepared(scaling="none", include_excluded=True))
    assert found["subjects"] == ["sub-01", "sub-02", "sub-03", "sub-06"] and found["partial"] is None
    assert found["subject_splits"]["sub-01"] == {"train": 12, "validation": 4}
    assert sum(found["subject_splits"]["sub-06"].values()) == 8  # half of the images, no test images
    for number, who in ((6, "whom participants"), (49, "who wore another cap")):
        with pytest.raises(DataError, match=rf"'subjects' parameter. Among them are sub-{number:02d}, {who}"):
            prepare(raw, tmp_path / "no", subjects=[2, number])


def test_averages_are_means_over_presentations(prepared):
    single = rows(prepared(scaling="none"))
    average = rows(prepared(scaling="none", average_repeats=True))
    assert len(average) == 2 * (16 + 2)
    for row in average:
        own = [one["eeg"] for one in single
               if (one["subject"], one["image_id"]) == (row["subject"], row["image_id"])]  # fmt: skip
        assert row["n_repeats"] == len(own) == (3 if row["split"] == "test" else 1)
        assert_allclose(row["eeg"], np.mean(own, axis=0, dtype=float), rtol=1e-5, atol=1e-11)


@pytest.mark.slow
def test_two_processes_and_options_at_a_shell_give_the_same_rows(raw, prepared, tmp_path):
    words = ["--raw-dir", str(raw), "--output-dir", str(tmp_path / "set"), "--images-dir", str(raw / "images")]
    main(
        "things_eeg1",
        [*words, "--subjects", "sub-03", "--split-protocol", "all_concepts", "--scaling", "none", "--num-proc", "2"],
    )
    expected = [row for row in rows(prepared(scaling="none", split="all_concepts")) if row["subject"] == "sub-03"]
    for row, other in zip(rows(tmp_path / "set"), expected, strict=True):
        assert_array_equal(row["eeg"], other["eeg"])


def test_facts_are_those_of_the_published_tables():
    facts = CorpusFacts()
    assert facts.shown(2) == {
        "training images": 22_248, "training images shown once": 22_248, "test images": 200,
        "test images shown 12 times": 200,
    }  # fmt: skip
    assert 22_248 + 12 * 200 == 24_648 and facts.n_concepts * facts.images_per_concept == 22_248 == 72 * 309
    assert list(facts.shown(1).values()) == [22_248, 22_248, 0, 0]
    assert list(facts.shown(6).values()) == [12_360, 12_360, 0, 0] and 12_360 == 40 * 309
    assert len(made.CHANNELS) == 63 and "Cz" not in made.CHANNELS


@pytest.mark.slow
def test_from_raw_files_to_scores(tmp_path):
    """Unseen concepts are decoded above chance from single trials, although responses overlap."""
    concepts, a_concept, n_test, repeats = [f"thing{chr(97 + n // 8)}{n}" for n in range(40)], 8, 10, 6
    (tmp_path / "raw").mkdir()
    for subject in (2, 3):
        shown = made.shown(subject, concepts, a_concept, n_test, repeats)
        samples = made.onsets(shown, subject)
        events = [(sample, concept, number) for sample, (_, concept, number, _) in zip(samples, shown, strict=True)]
        values = 20 * recorded(63, int(samples[-1]) + made.AFTER, 1000, events, 2.0, subject)
        made.write_person(tmp_path / "raw", subject, rows=shown, values=values)
    numbers = {concept: [*range(a_concept)] + [12] * (concept in concepts[-n_test:]) for concept in concepts}
    for concept, own in numbers.items():
        for number in own:
            made.write_image(tmp_path / "raw", concept, number, picture(concept, number))
    made.write_participants(tmp_path / "raw")
    sizes = {"n_concepts": 40, "images_per_concept": a_concept, "n_test_images": n_test, "test_repeats": repeats}
    sizes = made.SIZES | sizes | {"subjects": [2, 3]}
    (tmp_path / "raw" / "SIMULATED.json").write_text(json.dumps({"simulated": True, "sizes": sizes}))
    score = scored(tmp_path, f"things_eeg1 --raw-dir {tmp_path}/raw")
    assert score["two_way_interval"][0] > 0.5, score
