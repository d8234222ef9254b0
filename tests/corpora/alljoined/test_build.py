"""Alljoined-1.6M and Alljoined1 on files written by hand: each route, splits, scaling, order and names."""

import json

import numpy as np
import pytest
import scipy.linalg
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import resample_poly
from sklearn.discriminant_analysis import _cov

import alljoined_raw as made
from neural_clip.commands.prepare import main
from neural_clip.corpora.alljoined import prepare
from neural_clip.corpora.alljoined.alljoined1 import CHANNELS as FIRST_CHANNELS
from neural_clip.corpora.alljoined.facts import CHANNELS, CorpusFacts
from neural_clip.errors import DataError
from neural_clip.files.pickled import read_pickled
from neural_clip.prepared.facts import read_metadata
from neural_clip.prepared.reader import PreparedSet
from planted_pictures import picture, recorded
from prepared_rows import rows_with_split
from raw_to_score import scored


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("alljoined")
    made.build_raw(root / "raw", subjects=(8,))
    return {
        "raw": root / "raw",
        "flat": made.build_flat(root / "flat"),
        "alljoined1": made.build_first(root / "first"),
    }


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    """A data set, made once for each choice of options."""
    known, root = {}, tmp_path_factory.mktemp("prepared")

    def make(route, **options):
        key = (route, *sorted(options.items()))
        if key not in known:
            known[key] = prepare(raw[route], root / str(len(known)), route=route, **options)
        return known[key]

    return make


def rows(folder):
    found = [row | {"eeg": np.array(row["eeg"], dtype=np.float32)} for row in rows_with_split(folder)]
    return sorted(found, key=lambda row: (row["subject"], row["session"], row["run"], row["trial"]))


def name(number):
    return f"alljoined-{number:05d}"


# ---------------------------------------------------------------------------------------------------- recordings


def test_epochs_are_the_recorded_signal_at_250_hz_minus_the_baseline(prepared):
    found, place = rows(prepared("raw", scaling="none")), 0
    for session, block in ((session, block) for session in (1, 2) for block in range(1, 5)):
        ids = made.shown(8, session, block)
        values = made.signal(8, session, block) * 1e-6
        for number, onset in zip(ids, made.onsets(ids), strict=True):
            row, place = found[place], place + 1
            assert (row["session"], row["run"]) == (f"ses-{session:02d}", f"block-{block:02d}")
            assert (row["subject"], row["image_id"]) == ("sub-08", name(number))
            baseline = values[:, onset - 51 : onset + 1].mean(axis=1, keepdims=True)
            epoch = values[:, onset : onset + 256] - baseline
            expected = resample_poly(epoch, 125, 128, axis=1, padtype="line")[:, :250]
            assert_allclose(row["eeg"], expected, rtol=1e-4, atol=2e-8)
    assert place == len(found)
    facts = read_metadata(prepared("raw", scaling="none"))
    assert facts["ch_names"] == made.CHANNELS and (facts["n_times"], facts["sfreq"], facts["tmin"]) == (250, 250, 0)


def test_a_session_that_was_given_up_is_ignored_with_a_sentence(raw, tmp_path, capsys):
    facts = read_metadata(prepare(raw["raw"], tmp_path / "set", subjects=[8], scaling="none"))
    sentence = "sub-08: the folder 'session_02 old' is ignored."
    assert sentence in facts["known_defects"] and sentence in capsys.readouterr().err


def test_trials_whose_epoch_reaches_beyond_the_file_are_counted_and_left_out(raw, tmp_path):
    folder = made.build_raw(tmp_path / "raw", subjects=(8,))
    ids = made.shown(8, 1, 3)
    late = np.append(made.onsets(ids)[:-1], made.SECONDS * 256 - 100)
    made.write_block(folder, 8, 1, 3, samples=late)
    facts = read_metadata(prepare(folder, tmp_path / "set", scaling="none"))
    assert any("sub-08: 1 trials are left out" in told for told in facts["known_defects"])
    assert sum(facts["subject_splits"]["sub-08"].values()) == 4 * made.N_TRAIN + 23 - 1


@pytest.mark.slow
def test_whitening_and_statistics_are_fitted_on_the_training_epochs_of_a_session(prepared):
    plain, white, scaled = (rows(prepared("raw", scaling=scaling)) for scaling in ("none", "mvnn", "train_std"))
    statistics = PreparedSet.open(prepared("raw", scaling="train_std")).statistics
    for session in ("ses-01", "ses-02"):
        own = [n for n, row in enumerate(plain) if (row["subject"], row["session"]) == ("sub-08", session)]
        training = np.stack([plain[n]["eeg"] for n in own if plain[n]["split"] == "train"]).astype(float)
        sigma = np.mean([_cov(epoch.T, shrinkage="auto") for epoch in training], axis=0)
        matrix = scipy.linalg.fractional_matrix_power(sigma, -0.5)
        rms = np.sqrt((training**2).mean(axis=(0, 2)))
        assert_allclose(statistics[f"sub-08/{session}/std"], rms, rtol=1e-5)
        for n in own:
            assert_allclose(white[n]["eeg"], matrix @ plain[n]["eeg"], rtol=2e-3, atol=2e-3)
            assert_allclose(scaled[n]["eeg"], plain[n]["eeg"] / rms[:, None], rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------------------------------------------- flat files


def test_trials_of_flat_files_are_joined_to_the_rows_that_were_not_dropped(prepared):
    found = rows(prepared("flat"))
    for subject in made.SUBJECTS:
        for part in ("training", "test"):
            values, table = made.values(subject, part), made.kept(subject, part)
            own = [row for row in found if row["subject"] == f"sub-{subject:02d}"
                   and (row["split"] == "test") == (part == "test")]  # fmt: skip
            own.sort(key=lambda row: row["trial"])
            assert_array_equal([row["eeg"] for row in own], values.astype(np.float32))
            numbers = table.image_path.str[-9:-4].astype(int)
            assert [row["image_id"] for row in own] == [name(number) for number in numbers]
            assert [row["session"] for row in own] == [f"ses-{session:02d}" for session in table.session]
    facts = read_metadata(prepared("flat"))
    assert (facts["unit"], facts["scaling"]["fit_scope"]) == ("z", "train")


def test_a_table_whose_row_was_moved_before_is_left_as_it_is(raw, prepared, tmp_path):
    """As the script of the corpus saves it: the former rows are a column of the table."""
    folder = made.build_flat(tmp_path / "raw", subjects=(6,))
    table = made.trials(6)
    table.index = [0, 3, 1, 2, *range(4, len(table))]
    table.to_parquet(folder / "preprocessed_eeg" / "sub-06" / "experiment_metadata.parquet")
    found = rows(prepare(folder, tmp_path / "set", route="flat"))
    expected = [row for row in rows(prepared("flat")) if row["subject"] == "sub-06"]
    for row, other in zip(found, expected, strict=True):
        assert_array_equal(row.pop("eeg"), other.pop("eeg"))
        assert row == other


def test_settings_within_a_pickle_are_read_and_nothing_runs(raw):
    content = read_pickled(raw["flat"] / "preprocessed_eeg/sub-06/preprocessed_eeg_test_flat.npy")
    assert content["configs"] == {"baseline": [None, 0], "tmin": -0.2, "sfreq": 250, "l_freq": None,
                                  "mvnn_dim": "epochs"}  # fmt: skip


# ---------------------------------------------------------------------------------------------------- Alljoined1


def test_epochs_of_alljoined1_are_those_of_its_files(prepared):
    found = rows(prepared("alljoined1", scaling="none"))
    by_key = {}
    for split in ("train", "test"):
        for row in made.first_rows(split):
            by_key[row["subject_id"], row["session"], row["block"], row["73k_id"]] = (split, row["EEG"])
    assert len(found) == len(by_key)
    for row in found:
        number = int(row["image_id"].removeprefix("nsd-"))
        key = (int(row["subject"][4:]), int(row["session"][4:]), int(row["run"][6:]), number)
        split, epoch = by_key[key]
        assert (row["split"] == "test") == (split == "test")
        assert_array_equal(row["eeg"], epoch.astype(np.float32))
    facts = read_metadata(prepared("alljoined1", scaling="none"))
    assert (facts["n_chans"], facts["n_times"], facts["sfreq"], facts["tmin"], facts["unit"]) == (64, 334, 512, -0.05,
                                                                                                  "V")  # fmt: skip
    assert facts["splits"]["test"]["images"] == 3 and facts["splits"]["validation"]["images"] == 1


def test_epochs_of_alljoined1_that_are_not_scaled_claim_no_baseline(prepared):
    facts, recorded_ = (read_metadata(prepared(route, scaling="none")) for route in ("alljoined1", "raw"))
    assert facts["scaling"] == {"method": "none", "fit_scope": "none", "description": "none: V, as released"}
    assert facts["preparation"]["baseline"] == "unknown"
    assert recorded_["scaling"]["fit_scope"] == "per epoch baseline"
    assert "minus mean of the samples up to onset" in recorded_["scaling"]["description"]


def test_scaling_of_alljoined1_is_fitted_on_the_training_epochs_of_a_session(prepared):
    plain, white = (rows(prepared("alljoined1", scaling=scaling)) for scaling in ("none", "mvnn"))
    own = [n for n, row in enumerate(plain) if (row["subject"], row["session"]) == ("sub-02", "ses-01")]
    training = [plain[n]["eeg"].astype(float) for n in own if plain[n]["split"] == "train"]
    sigma = np.mean([_cov(epoch.T, shrinkage="auto") for epoch in training], axis=0)
    matrix = scipy.linalg.fractional_matrix_power(sigma, -0.5)
    for n in own:
        assert_allclose(white[n]["eeg"], matrix @ plain[n]["eeg"], rtol=2e-3, atol=2e-3)


# ---------------------------------------------------------------------------------------------------- all routes


def test_validation_holds_out_whole_concepts_the_same_for_all_people_and_both_routes(prepared):
    held_out = {}
    for route, options in (("raw", {"scaling": "none"}), ("flat", {})):
        for row in rows(prepared(route, **options)):
            assert (row["split"] == "test") == (int(row["image_id"][-5:]) >= made.N_TRAIN)
            held_out.setdefault((route, row["subject"]), {}).setdefault(row["split"], set()).add(row["concept"])
    splits = list(held_out.values())
    assert splits == splits[:1] * 3 and len(splits[0]["validation"]) == 1
    assert not splits[0]["validation"] & splits[0]["train"] and not splits[0]["test"] & splits[0]["train"]


@pytest.mark.parametrize("route", ["raw", "flat", "alljoined1"])
def test_averages_are_means_over_presentations(prepared, route):
    options = {} if route == "flat" else {"scaling": "none"}
    single, average = rows(prepared(route, **options)), rows(prepared(route, average_repeats=True, **options))
    assert len(average) == len({(row["subject"], row["image_id"]) for row in single})
    for row in average:
        own = [one["eeg"] for one in single
               if (one["subject"], one["image_id"]) == (row["subject"], row["image_id"])]  # fmt: skip
        assert row["n_repeats"] == len(own)
        assert_allclose(row["eeg"], np.mean(own, axis=0, dtype=float), rtol=1e-4, atol=2e-6 * np.abs(own).max())


@pytest.mark.parametrize("route", [pytest.param("raw", marks=pytest.mark.slow), "flat"])
def test_images_are_called_as_in_other_corpora_of_things_where_the_table_is_given(raw, prepared, tmp_path, route):
    made.image_metadata(tmp_path / "image_metadata.npy")
    options = {"scaling": "none"} if route == "raw" else {}
    folder = prepare(
        raw[route], tmp_path / "set", route=route, image_metadata=tmp_path / "image_metadata.npy", **options
    )
    for row, other in zip(rows(folder), rows(prepared(route, **options)), strict=True):
        number = int(other["image_id"][-5:])
        concept = made.CATEGORIES[made.concept_of(number)]
        assert (row["concept"], row["split"]) == (concept, other["split"])
        assert row["image_id"] == f"{concept}_{number % made.A_CONCEPT + 1:02d}s"
        assert_array_equal(row["eeg"], other["eeg"])
    told = [read_metadata(one)["known_defects"] for one in (folder, prepared(route, **options))]
    assert [any("--image-metadata" in sentence for sentence in sentences) for sentences in told] == [False, True]


def test_terms_forbid_to_pass_on_and_say_that_the_licence_is_uncertain(tmp_path):
    """A data set that is not simulated: the counts of the real corpus differ, so they are accepted as partial."""
    folder = made.build_first(tmp_path / "raw")
    (folder / "SIMULATED.json").unlink()
    facts = read_metadata(
        prepare(folder, tmp_path / "set", route="alljoined1", subjects=[1], allow_partial=True, scaling="none")
    )
    assert facts["redistribution"] == "forbidden" and "licence is uncertain" in facts["terms"]
    assert facts["partial"]["sub-01"]["declared"] == {"images": 960, "test images": 194}


@pytest.mark.slow
def test_two_processes_and_options_at_a_shell_give_the_same_rows(raw, prepared, tmp_path):
    words = ["--raw-dir", str(raw["raw"]), "--output-dir", str(tmp_path / "set"), "--subjects", "sub-08"]
    main("alljoined", [*words, "--scaling", "none", "--num-proc", "2"])
    expected = [row for row in rows(prepared("raw", scaling="none")) if row["subject"] == "sub-08"]
    for row, other in zip(rows(tmp_path / "set"), expected, strict=True):
        assert_array_equal(row["eeg"], other["eeg"])


def test_facts_are_those_of_the_published_counts():
    facts = CorpusFacts()
    assert facts.n_training_images == 16_540 and facts.part(16_539) == "training" and facts.part(16_540) == "test"
    assert facts.part(16_740) is None and facts.concept(16_539) == 1653 and facts.concept(16_540) == 1654
    assert [facts.test_trials(subject) for subject in (1, 9, 19, 20)] == [16_224, 16_084, 16_204, 16_212]
    assert made.CHANNELS == CHANNELS and len(set(CHANNELS)) == 32
    assert len(set(FIRST_CHANNELS)) == 64 and facts.first_images == 960


@pytest.mark.parametrize(
    ("options", "said"),
    [({"route": "flat", "scaling": "mvnn"}, "'scaling'.*Route 'flat' has no use"), ({"route": "edf"}, "'raw', 'flat'"),
     ({"route": "alljoined1", "sessions": [1]}, "'sessions'"), ({"subjects": [3]}, r"'subjects'.*\[8\]")],
)  # fmt: skip
def test_wrong_options_are_named(raw, tmp_path, options, said):
    with pytest.raises(DataError, match=said):
        prepare(raw["raw"], tmp_path / "set", **options)


@pytest.mark.slow
def test_from_recordings_to_scores(tmp_path):
    """Unseen concepts are decoded above chance from single trials, although responses overlap."""
    n_concepts, a_concept, n_test = 30, 4, 10
    n_train = n_concepts * a_concept
    concepts = [f"thing{n // (a_concept if n < n_train else 1)}-{n >= n_train}" for n in range(n_train + n_test)]
    for subject in (6, 8):
        for session in (1, 2):
            for block in range(1, 5):
                rng = np.random.default_rng([subject, session, block])
                ids = n_train + np.tile(rng.permutation(n_test), 2) if block <= 2 else rng.permutation(n_train)
                samples = made.onsets(ids)
                events = [(sample, concepts[number], int(number)) for sample, number in zip(samples, ids, strict=True)]
                seconds = int(samples[-1]) // 256 + 2
                values = np.round(
                    15 * recorded(32, 256 * seconds, 256, events, 2.0, subject * 100 + session * 10 + block)
                )
                made.write_block(tmp_path / "raw", subject, session, block, ids=ids, values=values.astype(int) + 4000)
    for number, concept in enumerate(concepts):
        made.picture(tmp_path / "raw" / "stimuli" / "images", number, picture(concept, number))
    sizes = {"n_concepts": n_concepts, "images_per_concept": a_concept, "n_test_images": n_test, "fewer": []}
    made.stamp(tmp_path / "raw", made.SIZES | sizes | {"test_shown": 40})
    score = scored(tmp_path, f"alljoined --raw-dir {tmp_path}/raw")
    assert score["two_way_interval"][0] > 0.5, json.dumps(score)
