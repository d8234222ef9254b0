"""THINGS-fMRI: both routes on files written by hand, and on frames that pandas wrote."""

import csv
import io
import shutil
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file

import things_fmri_raw as made
from neural_clip.commands.prepare import main
from neural_clip.corpora.things_fmri import prepare
from neural_clip.corpora.things_fmri.betas import TableBetas
from neural_clip.corpora.things_fmri.facts import REAL, CorpusFacts, declared_trials
from neural_clip.corpora.things_fmri.voxels import noise_ceiling, read_voxels
from neural_clip.errors import DataError
from neural_clip.prepared.facts import read_metadata
from neural_clip.prepared.reader import PreparedSet
from paths import REPOSITORY
from prepared_rows import rows_with_split

FRAMES = REPOSITORY / "tests" / "data" / "pandas_frames"  # written by pandas 3.1.1 and PyTables 3.11.1
PLAIN = {"average_repeats": False, "session_zscore": "none"}
FACTS = CorpusFacts(tuple(made.SIZES["subjects"]), *list(made.SIZES.values())[1:])
TESTED = {"bow1", "dog", "hula_hoop", "t-shirt"}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return made.build(tmp_path_factory.mktemp("fmri") / "raw")


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    """A data set, made once for each choice of options."""
    known, root = {}, tmp_path_factory.mktemp("prepared")

    def make(**options):
        key = repr(sorted(options.items()))
        if key not in known:
            known[key] = prepare(raw, root / str(len(known)), **options)
        return known[key]

    return make


def rows(folder):
    """All rows with their split, by subject, session and trial."""
    found = [row | {"fmri": np.array(row["fmri"], dtype=np.float32)} for row in rows_with_split(Path(folder))]
    return sorted(found, key=lambda row: (row["subject"], row["trial"]))


def shown(subject):
    """Trials without catch trials, and their betas in all voxels of the brain."""
    keep = [n for n, trial in enumerate(made.shown(subject)) if trial[2] != "catch"]
    return [made.shown(subject)[n] for n in keep], made.betas(subject)[keep]


def concept(image):
    return image.rsplit("_", 1)[0]


def region(subject, digits):
    """Voxels whose number modulo 10 is one of the digits."""
    return np.flatnonzero(np.isin(np.arange(made.N_BRAIN[subject]) % 10, digits))


# ------------------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize("route", ["table", "volume"])
def test_rows_are_the_betas_of_the_trials_without_catch_trials_and_tested_concepts(prepared, route):
    found = rows(prepared(route=route, roi=["brain"], **PLAIN))
    expected = []
    for subject in made.SUBJECTS:
        trials, values = shown(subject)
        for number, ((session, run, kind, image, _), beta) in enumerate(zip(trials, values, strict=True)):
            if kind == "test" or concept(image) not in TESTED:
                name = (f"sub-{subject:02d}", f"ses-{session:02d}", f"run-{run:02d}", number, image, concept(image))
                expected.append((*name, kind == "test", beta.astype(np.float32)))
    keys = ("subject", "session", "run", "trial", "image_id", "concept")
    assert [tuple(row[key] for key in keys) for row in found] == [one[:6] for one in expected]
    assert [row["split"] == "test" for row in found] == [one[6] for one in expected]
    for row, one in zip(found, expected, strict=True):
        assert_array_equal(row["fmri"], one[7])


def test_both_routes_give_the_same_data_set(prepared):
    for options in ({}, {"average_repeats": False, "roi": ["IT"], "min_noise_ceiling": 30.0}):
        table, volume = (prepared(route=route, **options) for route in ("table", "volume"))
        assert read_metadata(table)["fingerprint"] == read_metadata(volume)["fingerprint"]


def test_z_scores_are_those_of_the_training_trials_of_the_session(prepared):
    plain = rows(prepared(route="table", roi=["brain"], **PLAIN))
    scaled = rows(prepared(route="table", roi=["brain"], average_repeats=False))
    statistics = PreparedSet.open(prepared(route="table", roi=["brain"], average_repeats=False)).statistics
    for who in {(row["subject"], row["session"]) for row in plain}:
        own = [n for n, row in enumerate(plain) if (row["subject"], row["session"]) == who]
        train = np.stack([plain[n]["fmri"] for n in own if plain[n]["split"] == "train"]).astype(float)
        assert_allclose(statistics["/".join((*who, "std"))], train.std(axis=0), rtol=1e-5)
        for n in own:
            expected = (plain[n]["fmri"] - train.mean(axis=0)) / train.std(axis=0)
            assert_allclose(scaled[n]["fmri"], expected, rtol=1e-4, atol=1e-5)


def test_repeats_of_the_test_images_are_averaged_or_kept(prepared):
    single = rows(prepared(route="table", average_repeats=False))
    average = rows(prepared(route="table"))
    assert Counter(row["n_repeats"] for row in average) == {1: 2 * 12, made.N_SESSIONS: 2 * 4}
    for row in average:
        own = [one["fmri"] for one in single
               if (one["subject"], one["image_id"]) == (row["subject"], row["image_id"])]  # fmt: skip
        assert len(own) == row["n_repeats"] == (made.N_SESSIONS if row["split"] == "test" else 1)
        assert_allclose(row["fmri"], np.mean(own, axis=0), rtol=1e-5, atol=1e-6)
        assert (row["session"] == "") == (row["split"] == "test")


# ------------------------------------------------------------------------------------------------------------ splits


def test_no_tested_concept_is_trained_on_and_what_is_left_out_is_told(prepared):
    folder = prepared(route="table")
    found, facts = rows(folder), read_metadata(folder)
    assert {row["concept"] for row in found if row["split"] == "test"} == TESTED
    assert not TESTED & {row["concept"] for row in found if row["split"] != "test"}
    assert "12 training trials of 4 concepts of each person are left out, and 12 of 4" in facts["split_protocol"]
    assert any(
        "folder of 1 images is wrong, such as 'hula' of 'hula_hoop_16s'" in one for one in facts["known_defects"]
    )
    images = pq.read_table(folder / "images", columns=["image_id", "concept"]).to_pylist()
    assert {row["image_id"]: row["concept"] for row in images} == {row["image_id"]: row["concept"] for row in found}


def test_validation_holds_out_whole_concepts_the_same_for_all_people_routes_and_protocols(prepared):
    sets = [rows(prepared(**options)) for options in (
        {"route": "table"}, {"route": "volume"}, {"route": "table", "split": "all_concepts"},
        {"route": "table", "subjects": [2]}, {"route": "table", "sessions": [1, 3]},
    )]  # fmt: skip
    held_out = []
    for found in sets:
        splits = {}
        for row in found:
            splits.setdefault((row["subject"], row["concept"]), set()).add(row["split"])
        validation = {key: known for key, known in splits.items() if "validation" in known}
        assert all(known == {"validation"} for known in validation.values())
        held_out.append({one for _, one in validation})
    assert len(held_out[0]) == 1 and all(one == held_out[0] for one in held_out)


def test_training_images_of_tested_concepts_can_be_kept(prepared):
    folder = prepared(route="table", split="all_concepts", **PLAIN)
    train = {row["concept"] for row in rows(folder) if row["split"] == "train"}
    assert train >= TESTED and len(rows(folder)) == 2 * made.N_TRIALS
    assert "test concepts are not unseen" in read_metadata(folder)["split_protocol"]


def test_seed_and_share_choose_the_validation_concepts(raw, tmp_path):
    found = rows(prepare(raw, tmp_path / "set", validation_fraction=0.5, seed=1))
    assert len({row["concept"] for row in found if row["split"] == "validation"}) == 2


def test_people_and_sessions_can_be_chosen_at_a_shell(raw, tmp_path):
    words = f"--raw-dir {raw} --output-dir {tmp_path / 'set'} --subjects sub-02 --sessions 2 --roi hV4 FFA"
    main("things_fmri", [*words.split(), "--no-average-repeats", "--split-protocol", "all_concepts"])
    found = rows(tmp_path / "set")
    assert {(row["subject"], row["session"]) for row in found} == {("sub-02", "ses-02")}
    assert [row["trial"] for row in found] == list(range(made.PER_SESSION, 2 * made.PER_SESSION))
    assert read_metadata(tmp_path / "set")["roi"] == "hV4 FFA"


# ------------------------------------------------------------------------------------------------------------ voxels


@pytest.mark.parametrize(
    ("roi", "digits"),
    [(["V1"], (0, 1)), (["hV4", "V2"], (2, 3)), (["FFA"], (5, 6)), (["lFFA"], (5,)), (["LO1"], (4,)),
     (["LO1 (prf)"], (4,)), (["IT", "rFFA"], (6, 7)), (["visual"], (0, 1, 2, 3, 4, 5, 6, 7)),
     (["glasser-p9-46v", "glasser-9-46d"], (2, 9)), (["glasser-p9-\n46v"], (9,)), (["brain"], range(10)),
     (["V1", "brain"], range(10))],
)  # fmt: skip
def test_regions_are_taken_by_name_and_united(raw, roi, digits):
    voxels = read_voxels(raw / "betas_csv" / "sub-01_VoxelMetadata.csv", None, 1, FACTS, roi, 0.0)
    expected = region(1, tuple(digits))
    assert_array_equal(voxels.rows, expected)
    assert_array_equal(np.argwhere(voxels.mask), np.argwhere(made.brain(1))[expected])


def test_columns_are_the_voxels_of_the_regions_in_their_order(prepared):
    options = {"route": "table", "roi": ["hV4", "V1"], "subjects": [1]}
    values = shown(1)[1][:, region(1, (0, 1, 3))].astype(np.float32)
    for row in rows(prepared(**options, **PLAIN)):
        assert_array_equal(row["fmri"], values[row["trial"]])


def test_a_wrong_region_is_answered_by_the_names(raw, tmp_path):
    with pytest.raises(DataError, match=r"'visual', 'brain', 'V1'.*'LO1'.*'FFA'.*4 names like 'glasser-V1', but got "
                                        r"'V4' instead\. Did you mean"):  # fmt: skip
        prepare(raw, tmp_path / "set", roi=["V1", "V4"])
    for roi in (["lEBA"], ["V1", "lEBA"], ["visual", "lEBA"]):
        with pytest.raises(DataError, match=r"No voxel of sub-01 is in 'lEBA', by '.*VoxelMetadata\.csv'") as told:
            prepare(raw, tmp_path / "set", roi=roi)
        assert "noise ceiling" not in str(told.value)
    with pytest.raises(
        DataError, match=r"No voxel of sub-01 is left: 8 are in V1, and none of them has a noise .* 99\.9"
    ):
        prepare(raw, tmp_path / "set", roi=["V1"], min_noise_ceiling=99.999)


def test_places_masks_and_noise_ceilings_of_the_voxels_are_stored(prepared, tmp_path):
    folder = prepared(route="table", roi=["IT", "V1"])
    data, ceilings = PreparedSet.open(folder), load_file(folder / "noise_ceilings.safetensors")
    for subject in made.SUBJECTS:
        name, own = f"sub-{subject:02d}", region(subject, (0, 1, 6, 7))
        places = np.argwhere(made.brain(subject))[own]
        assert_array_equal(load_file(folder / "scaling.safetensors")[f"{name}/voxels"], places)
        mask = nibabel.load(folder / "masks" / f"{name}.nii.gz")
        assert_array_equal(np.argwhere(np.asarray(mask.dataobj)), places)
        assert_array_equal(mask.affine, made.AFFINE)
        assert_allclose(data.scanner_places(name), places @ made.AFFINE[:3, :3].T + made.AFFINE[:3, 3])
        single, mean = made.noise_ceilings(subject)
        assert_allclose(ceilings[f"{name}/nc_singletrial"], single[own], rtol=1e-6)
        assert_allclose(ceilings[f"{name}/nc_testset"], mean[own], rtol=1e-6)
    assert data.verify() is data and data.facts.places_space is None


def test_voxels_with_a_low_noise_ceiling_can_be_left_out_which_the_card_tells(prepared):
    folder = prepared(route="table", roi=["brain"], min_noise_ceiling=60.0)
    facts = read_metadata(folder)
    for subject in made.SUBJECTS:
        expected = int((made.noise_ceilings(subject)[1] >= 60).sum())
        assert 0 < facts["n_voxels"][f"sub-{subject:02d}"] == expected < made.N_BRAIN[subject]
    assert any(
        "below 60 % were left out; it was estimated from the test trials" in one for one in facts["known_defects"]
    )


def test_the_noise_ceiling_is_that_of_the_published_script():
    for subject in made.SUBJECTS:
        trials, values = shown(subject)
        repeats = np.array([[values[n] for n, trial in enumerate(trials) if trial[3] == image] for image in made.TEST])
        for n, published in zip((1, made.N_SESSIONS), made.noise_ceilings(subject), strict=True):
            assert_allclose(noise_ceiling(repeats.transpose(1, 0, 2), n), published, rtol=1e-9, atol=1e-9)


def test_volumes_without_the_table_of_voxels_give_the_brain_alone(raw, prepared, tmp_path):
    folder = shutil.copytree(raw, tmp_path / "raw")
    shutil.rmtree(folder / "betas_csv")
    found = rows(prepare(folder, tmp_path / "set", route="volume", roi=["brain"]))
    whole = rows(prepared(route="volume", roi=["brain"]))
    assert all(np.array_equal(a["fmri"], b["fmri"]) for a, b in zip(found, whole, strict=True))
    assert not (tmp_path / "set" / "noise_ceilings.safetensors").exists()
    for options in ({}, {"roi": ["brain"], "min_noise_ceiling": 1.0}):
        with pytest.raises(DataError, match=r"no VoxelMetadata\.csv of sub-01.*only --roi brain"):
            prepare(folder, tmp_path / "other", route="volume", **options)


# ------------------------------------------------------------------------------------------------------------ files


def test_the_copy_of_openneuro_is_read_with_commas_or_tabs(raw, prepared, tmp_path):
    """Its tables are called `.tsv`; public copies have commas in them."""
    for number, mark in enumerate((",", "\t")):
        folder = tmp_path / str(number)
        shutil.copytree(raw / "images", folder / "images")
        shutil.copy(raw / "SIMULATED.json", folder)
        for subject in ("sub-01", "sub-02"):
            place = folder / "derivatives" / "ICA-betas" / subject / "voxel-metadata"
            place.mkdir(parents=True)
            names = {"ResponseData.h5": "voxel-wise-responses.h5", "StimulusMetadata.csv": "stimulus-metadata.tsv",
                     "VoxelMetadata.csv": "voxel-metadata.tsv"}  # fmt: skip
            for ours, theirs in names.items():
                content = (raw / "betas_csv" / f"{subject}_{ours}").read_bytes()
                if ours.endswith(".csv"):
                    out = io.StringIO(newline="")
                    cells = csv.reader(io.StringIO(content.decode(), newline=""))
                    csv.writer(out, delimiter=mark).writerows(cells)
                    content = out.getvalue().encode()
                (place / f"{subject}_task-things_{theirs}").write_bytes(content)
        found = rows(prepare(folder, tmp_path / f"set{number}"))
        assert all(
            np.array_equal(a["fmri"], b["fmri"]) for a, b in zip(found, rows(prepared(route="table")), strict=True)
        )
        assert not (tmp_path / f"set{number}" / "masks").exists()


@pytest.mark.parametrize("name", ["fixed", "fixed_voxels_first", "fixed_all_floats"])
def test_frames_that_pandas_wrote_are_read(name):
    """Blocks are in the order of their making; labels of columns are pickled or text."""
    betas = TableBetas.open(FRAMES / f"{name}.h5", 6, 5)
    expected = np.arange(30.0).reshape(6, 5) / 8
    assert_array_equal(betas.read(np.array([0, 1, 3, 5]), 1, 4), expected[[0, 1, 3, 5], 1:4].T)


@pytest.mark.parametrize(("name", "words"), [("fixed_objects", "holds Python objects"), ("table", "format 'table'")])
def test_frames_with_pickled_values_or_in_another_format_are_refused(name, words):
    with pytest.raises(DataError, match=words):
        TableBetas.open(FRAMES / f"{name}.h5", 6, 5)


def test_facts_are_those_of_the_published_tables():
    assert declared_trials(REAL) == {
        "trials": 9840, "training trials": 8640, "training images": 8640, "training concepts": 720,
        "test trials": 1200, "test images": 100, "test concepts": 100,
        "test concepts among the training concepts": 100, "runs": 120,
    }  # fmt: skip
    assert REAL.session_trials + REAL.n_catch == 92 * REAL.n_runs
    assert 8640 - 100 * 12 == 7440 and 720 - 100 == 620


@pytest.mark.parametrize(
    ("options", "said"),
    [({"subjects": [3]}, r"'subjects'.*\[1, 2\]"), ({"sessions": [4]}, r"'sessions'.*\[1, 2, 3\]"),
     ({"route": "bids"}, "'table' and 'volume'"), ({"min_noise_ceiling": 100.0}, "'min_noise_ceiling'"),
     ({"roi": []}, "'roi'"), ({"images_dir": "nowhere"}, "--images-dir"),
     ({"validation_fraction": 1.0}, "'validation_fraction'")],
)  # fmt: skip
def test_wrong_options_are_named(raw, tmp_path, options, said):
    with pytest.raises(DataError, match=said):
        prepare(raw, tmp_path / "set", **options)
