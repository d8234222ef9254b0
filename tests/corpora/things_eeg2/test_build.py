"""THINGS-EEG2: every route on files written by hand, against mne and the scripts of the corpus."""

from pathlib import Path

import mne
import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.linalg
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.discriminant_analysis import _cov

import things_eeg2_raw as made
from neural_clip.commands.prepare import main
from neural_clip.corpora.things_eeg2 import prepare
from neural_clip.corpora.things_eeg2.facts import ALL_CHANNELS, POSTERIOR, RAW_ORDER, REAL
from neural_clip.errors import DataError
from neural_clip.prepared.facts import read_metadata
from neural_clip.prepared.reader import PreparedSet
from prepared_rows import rows_with_split

ROUTES = [pytest.param(route, marks=pytest.mark.slow) if route == "bids" else route for route in made.WRITERS]
RELEASED = {"official": (17, 100), "nice": (63, 250), "ubp": (63, 250), "neurobridge": (63, 250)}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder for each route, written when it is first asked for."""
    root = tmp_path_factory.mktemp("eeg2")

    def folder(route):
        return root / route if (root / route).exists() else made.build(root / route, route)

    return folder


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    """Rows of a data set, made once for each choice of options."""
    known, root = {}, tmp_path_factory.mktemp("prepared")

    def make(route, **options):
        key = (route, *sorted(options.items()))
        if key not in known:
            known[key] = prepare(raw(route), root / str(len(known)), route=route, **options)
        return known[key]

    return make


def rows(folder):
    """All rows with their split, by subject, session, run and trial."""
    found = [row | {"eeg": np.array(row["eeg"], dtype=np.float32)} for row in rows_with_split(Path(folder))]
    return sorted(found, key=lambda row: (row["subject"], row["session"], row["run"], row["trial"]))


def used(codes, repeats):
    """Places of the first presentations of each image, by walking through them."""
    seen, kept = {}, []
    for place, code in enumerate(codes):
        seen[code] = seen.get(code, 0) + 1
        if code != made.TARGET and seen[code] <= repeats:
            kept.append(place)
    return kept


def mne_epochs(values, codes, picks, tmax=1.0):
    """Epochs of mne in V, referred to their baseline, at 1000 Hz."""
    array = mne.io.RawArray(values * 1e-6, mne.create_info(made.RAW_63.split(), 1000.0, "eeg"), verbose="ERROR")
    events = np.stack([made.onsets(codes), np.zeros(len(codes), int), codes], axis=1)
    options = {"tmin": -0.2, "tmax": tmax, "baseline": (None, 0), "preload": True, "verbose": "ERROR"}
    return mne.Epochs(array, events, event_repeated="error", **options).get_data(picks=picks, verbose="ERROR")


def expected_rows(route, subject):
    """Image and epoch `(63, 250)` of each row of a person, in order."""
    found = []
    for session in range(1, 5):
        train = made.shown(subject, session, "training")
        pieces = np.array_split(train, 2) if route == "bids" else [train]
        names = [f"task-train_run-{n + 1:02d}" for n in range(2)] if route == "bids" else ["training"]
        kept, start = used(train, 2), 0
        for number, (piece, name) in enumerate(zip(pieces, names, strict=True)):
            epochs = mne_epochs(made.signal(subject, session, "training", number), piece, made.FRONT_63.split())
            for place in [place - start for place in kept if start <= place < start + len(piece)]:
                found.append((session, name, made.TRAIN_IDS[piece[place] - 1], epochs[place]))
            start += len(piece)
        codes = made.shown(subject, session, "test")
        epochs = mne_epochs(made.signal(subject, session, "test"), codes, made.FRONT_63.split())
        name = "task-test" if route == "bids" else "test"
        found += [(session, name, made.TEST_IDS[codes[place] - 1], epochs[place]) for place in used(codes, 2)]
    return found


# ---------------------------------------------------------------------------------------------------- recordings


@pytest.mark.parametrize("route", ["raw", pytest.param("bids", marks=pytest.mark.slow)])
def test_epochs_are_those_of_mne_without_targets_and_surplus(prepared, route):
    found = rows(prepared(route, scaling="none"))
    for subject in made.SUBJECTS:
        own = [row for row in found if row["subject"] == f"sub-{subject:02d}"]
        expected = sorted(expected_rows(route, subject), key=lambda row: (row[0], row[1]))
        assert [(row["session"], row["run"], row["image_id"]) for row in own] == [
            (f"ses-{session:02d}", run, image_id) for session, run, image_id, _ in expected
        ]
        assert len(own) == 4 * (4 * 2 + 3 * 2)
        for row, (*_, epoch) in zip(own, expected, strict=True):
            assert_allclose(row["eeg"], epoch[:, 200:1200:4], rtol=1e-5, atol=1e-11)
    trials = [(row["subject"], row["trial"]) for row in found]
    assert len(set(trials)) == len(trials)


@pytest.mark.slow
def test_both_routes_of_recordings_agree_on_what_was_shown(prepared):
    one, other = (rows(prepared(route, scaling="none")) for route in ("raw", "bids"))
    for subject in ("sub-01", "sub-02"):
        told = [
            sorted((row["session"], row["trial"], row["image_id"], row["split"]) for row in found
                   if row["subject"] == subject)
            for found in (one, other)
        ]  # fmt: skip
        assert told[0] == told[1]


def test_whitening_is_that_of_the_scripts_on_training_epochs_alone(prepared):
    plain, white = (rows(prepared("raw", scaling=scaling)) for scaling in ("none", "mvnn"))
    assert len(plain) == len(white)
    for subject in ("sub-01", "sub-02"):
        for session in ("ses-01", "ses-02", "ses-03", "ses-04"):
            own = [n for n, row in enumerate(plain) if (row["subject"], row["session"]) == (subject, session)]
            train = [n for n in own if plain[n]["split"] == "train"]
            sigma = [_cov(plain[n]["eeg"].astype(float).T, shrinkage="auto") for n in train]
            matrix = scipy.linalg.fractional_matrix_power(np.mean(sigma, axis=0), -0.5)
            for n in own:
                assert_allclose(white[n]["eeg"], matrix @ plain[n]["eeg"], rtol=2e-3, atol=2e-3)
    assert 0.5 < np.std([row["eeg"] for row in white]) < 2
    facts = read_metadata(prepared("raw", scaling="mvnn"))
    assert (facts["unit"], facts["scaling"]["fit_scope"]) == ("z", "train")
    assert "whitened" in facts["preparation"]["obstacle"]


def test_a_changed_test_part_changes_no_training_row(raw, prepared, tmp_path):
    """The whitening is fitted on training epochs, so others do not reach them."""
    folder = made.build(tmp_path / "other", "raw", subjects=(1,))
    path = folder / "sub-01" / "ses-02" / "raw_eeg_test.npy"
    content = made.load_npy(path)
    content["raw_eeg_data"][:-1] *= 5
    made.save_npy(path, content)
    changed = rows(prepare(folder, tmp_path / "set"))
    own = [row for row in rows(prepared("raw", scaling="mvnn")) if row["subject"] == "sub-01"]
    for row, other in zip(own, changed, strict=True):
        same = np.array_equal(row["eeg"], other["eeg"])
        assert same == (row["session"] != "ses-02" or row["split"] != "test")


def test_train_std_divides_by_the_training_epochs_and_keeps_the_statistics(prepared):
    plain, scaled = (rows(prepared("raw", scaling=scaling)) for scaling in ("none", "train_std"))
    statistics = PreparedSet.open(prepared("raw", scaling="train_std")).statistics
    for session in ("ses-01", "ses-04"):
        own = [n for n, row in enumerate(plain) if (row["subject"], row["session"]) == ("sub-02", session)]
        training = np.stack([plain[n]["eeg"] for n in own if plain[n]["split"] == "train"]).astype(float)
        rms = np.sqrt((training**2).mean(axis=(0, 2)))
        assert_allclose(statistics[f"sub-02/{session}/std"], rms, rtol=1e-5)
        for n in own:
            assert_allclose(scaled[n]["eeg"], plain[n]["eeg"] / rms[:, None], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("route", ["raw", "nice"])
def test_averages_are_means_over_sessions(prepared, route):
    options = {"scaling": "none"} if route == "raw" else {}
    single, average = rows(prepared(route, **options)), rows(prepared(route, **options, average_repeats=True))
    assert len(average) == 2 * (8 + 3)
    for row in average:
        repeats = [one["eeg"] for one in single
                   if (one["subject"], one["image_id"]) == (row["subject"], row["image_id"])]  # fmt: skip
        assert row["n_repeats"] == len(repeats) == (8 if row["split"] == "test" else 4)
        assert_allclose(
            row["eeg"], np.mean(repeats, axis=0, dtype=float), rtol=1e-5, atol=1e-6 * np.abs(row["eeg"]).max()
        )


@pytest.mark.slow
def test_official_preprocessing_of_recordings_has_17_channels_at_100_hz(raw, tmp_path):
    folder = made.build(tmp_path / "sine", "raw", subjects=(1,))
    wave = np.sin(2 * np.pi * 6 * np.arange(made.N_TIMES) / 1000)
    for path in folder.glob("sub-*/ses-*/*.npy"):
        content = made.load_npy(path)
        content["raw_eeg_data"][:-1] = 1e-5 * wave + 1e-9 * content["raw_eeg_data"][:-1]
        made.save_npy(path, content)
    data = PreparedSet.open(prepare(folder, tmp_path / "set", preprocessing="official", scaling="none"))
    assert data.facts.ch_names == made.POSTERIOR_17.split()
    assert (data.facts.n_times, data.facts.sfreq, data.facts.tmin) == (100, 100.0, -0.2)
    row = rows(tmp_path / "set")[0]
    codes = made.shown(1, 1, "test" if row["run"] == "test" else "training")
    onset = made.onsets(codes)[row["trial"] - (len(made.shown(1, 1, "training")) if row["run"] == "test" else 0)]
    times = onset / 1000 - 0.2 + np.arange(100) / 100
    before = wave[onset - 200 : onset + 1].mean()
    expected = 1e-5 * (np.sin(2 * np.pi * 6 * times) - before)
    assert np.abs(row["eeg"][0] - expected)[5:-5].max() < 3e-7  # the ends suffer from the filter


# ---------------------------------------------------------------------------------------------------- releases


@pytest.mark.parametrize("route", RELEASED)
def test_values_of_a_release_are_kept(prepared, route):
    found = rows(prepared(route))
    assert len(found) == 2 * (8 * 4 + 3 * 8)
    kind = {"ubp": np.float16}.get(route, np.float64)
    for subject in made.SUBJECTS:
        for part, ids in (("training", made.TRAIN_IDS), ("test", made.TEST_IDS)):
            values = made.released(subject, part, *RELEASED[route]).astype(kind).astype(np.float32)
            sessions = made.sessions_of(subject, part)
            for number, image_id in enumerate(ids):
                own = [row for row in found if (row["subject"], row["image_id"]) == (f"sub-{subject:02d}", image_id)]
                own.sort(key=lambda row: row["trial"])
                assert_array_equal([row["eeg"] for row in own], values[number])
                told = [f"ses-{int(n) + 1:02d}" for n in sessions[number]] if route == "ubp" else [""] * len(own)
                assert [row["session"] for row in own] == told


@pytest.mark.parametrize(("route", "scope"), [("official", "train and test"), ("nice", "unknown"), ("ubp", "train")])
def test_a_release_says_what_its_whitening_saw(prepared, capsys, route, scope):
    facts = read_metadata(prepared(route))
    assert facts["scaling"]["fit_scope"] == scope
    assert any(finding["check"] == "fit scope" for finding in facts["findings"]) == (scope != "train")
    assert not any(finding["check"] == "block design" for finding in facts["findings"])  # their order is not of time


@pytest.mark.slow
def test_neurobridge_is_read_as_a_pickle_too(raw, prepared, tmp_path):
    folder = made.build(tmp_path / "pickled", "neurobridge")
    for path in folder.glob("sub-*/*.npy"):
        content = {"data": np.load(path), "ch_names": made.FRONT_63.split(), "times": np.arange(300) / 250 - 0.2}
        made.save_pickle(path, content)
    (folder / "info.json").unlink()
    one, other = rows(prepare(folder, tmp_path / "set", route="neurobridge")), rows(prepared("neurobridge"))
    assert all(np.array_equal(a["eeg"], b["eeg"]) for a, b in zip(one, other, strict=True))


# ---------------------------------------------------------------------------------------------------- splits, images


@pytest.mark.parametrize("route", ROUTES)
def test_validation_holds_out_whole_concepts_the_same_for_all_people_and_routes(prepared, route):
    found = rows(prepared(route, **({"scaling": "none"} if route in ("raw", "bids") else {})))
    by_person = {}
    for row in found:
        by_person.setdefault(row["subject"], set()).add((row["split"], row["concept"], row["image_id"]))
    assert by_person["sub-01"] == by_person["sub-02"]
    splits = {}
    for split, concept, image_id in by_person["sub-01"]:
        splits.setdefault(concept, set()).add(split)
        assert image_id in (made.TEST_IDS if split == "test" else made.TRAIN_IDS)
        assert concept == image_id.rsplit("_", 1)[0]
    assert all(len(known) == 1 for known in splits.values())
    assert [concept for concept, known in splits.items() if known == {"validation"}] == ["ice_cream"]
    assert {concept for concept, known in splits.items() if known == {"test"}} == set(made.TEST_CONCEPTS)


def test_seed_and_share_choose_the_validation_concepts(raw, tmp_path):
    folder = prepare(raw("ubp"), tmp_path / "set", route="ubp", validation_fraction=0.5, seed=1)
    held_out = {row["concept"] for row in rows(folder) if row["split"] == "validation"}
    assert len(held_out) == 2


def test_people_and_sessions_can_be_chosen_at_a_shell(raw, tmp_path):
    words = ["--raw-dir", str(raw("raw")), "--output-dir", str(tmp_path / "set")]
    main("things_eeg2", [*words, "--subjects", "sub-02", "--sessions", "1", "--scaling", "none", "--seed", "3"])
    found = rows(tmp_path / "set")
    assert {(row["subject"], row["session"]) for row in found} == {("sub-02", "ses-01")}
    shown = {row["image_id"] for row in found}
    images = pq.read_table(tmp_path / "set" / "images", columns=["image_id"])["image_id"].to_pylist()
    assert sorted(images) == sorted(shown) and len(shown) == 4 + 3


def test_whitening_is_told_to_be_for_these_rows_alone(raw, tmp_path, capsys):
    """At a shell and on the card, with the way out; scalings that other recordings can be given say nothing."""
    words = ["--raw-dir", str(raw("raw")), "--subjects", "1", "--sessions", "1", "--output-dir"]
    for name, more, told in (("mvnn", [], True), ("std", ["--scaling", "train_std"], False)):
        main("things_eeg2", [*words, str(tmp_path / name), *more])
        for text in (capsys.readouterr().err, (tmp_path / name / "README.md").read_text()):
            assert ("takes no recordings as they were recorded: each session was whitened" in text) == told
            assert ("--scaling train_std" in text) == told


def test_facts_are_those_of_the_published_tables():
    assert REAL.session("training") == {
        "images shown": 16_710, "targets": 90, "different images": 8270, "images shown 2 times or more": 8270,
    }  # fmt: skip
    assert REAL.session("test")["images shown"] == 4056 and REAL.session("test")["targets"] == 24
    assert 16_710 + 90 == 15 * 56 * 20 and 4056 + 24 == 4 * 51 * 20  # sequences of 20
    assert (REAL.n_images("training"), REAL.all_repeats("training")) == (16_540, 4)
    assert (REAL.n_images("test"), REAL.all_repeats("test")) == (200, 80)
    assert made.RAW_63.split() == RAW_ORDER and made.FRONT_63.split() == ALL_CHANNELS
    assert sorted(RAW_ORDER) == sorted(ALL_CHANNELS) and len(set(RAW_ORDER)) == 63 and "Fz" not in RAW_ORDER
    assert made.POSTERIOR_17.split() == POSTERIOR and set(POSTERIOR) == set(ALL_CHANNELS[-17:])


@pytest.mark.parametrize(
    ("options", "said"),
    [({"route": "nice", "scaling": "mvnn"}, "'scaling'.*Route 'nice' reads what was preprocessed already"),
     ({"route": "ubp", "sessions": [1]}, "'sessions'.*'ubp'"), ({"subjects": [3]}, r"'subjects'.*\[1, 2\]"),
     ({"route": "atm"}, "'raw', 'bids', 'official', 'nice', 'ubp' and 'neurobridge'"),
     ({"sessions": [5]}, "'sessions'")],
)  # fmt: skip
def test_wrong_options_are_named(raw, tmp_path, options, said):
    with pytest.raises(DataError, match=said):
        prepare(raw("raw"), tmp_path / "set", **options)
