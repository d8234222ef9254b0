"""THINGS-fMRI, damaged, mixed up and half downloaded: the fault is named with its file, and no data set appears."""

import os
import pickle
import re
import shutil
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest

import things_fmri_raw as made
from mixed_up_files import copy, cut, swap
from neural_clip.corpora.things_fmri import prepare
from neural_clip.corpora.things_fmri.voxels import check_against_ceilings, noise_ceiling
from neural_clip.errors import DataError
from neural_clip.prepared.facts import read_metadata
from prepared_rows import rows_with_split

RESPONSES, STIMULI, VOXELS = (
    f"betas_csv/sub-01_{name}" for name in ("ResponseData.h5", "StimulusMetadata.csv", "VoxelMetadata.csv")
)
BETAS, CONDITIONS = (f"{made.run_stem(Path(), 1, 2, 1)}{end}" for end in ("_betas.nii.gz", "_conditions.tsv"))
MASK = "brainmasks/sub-01_space-T1w_brainmask.nii.gz"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made.build(tmp_path_factory.mktemp("whole") / "raw")


def refused(whole, tmp_path, damage, words, **options):
    folder = tmp_path / "raw"
    shutil.copytree(whole, folder, copy_function=os.link)  # damage writes new files in their place
    damage(folder)
    with pytest.raises(DataError, match=words):
        prepare(folder, tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def absent(name):
    return lambda folder: (folder / name).unlink()


def replaced(name, content):
    """Other bytes in place of a file."""

    def damage(folder):
        (folder / name).unlink()
        (folder / name).write_bytes(content)

    return damage


def table(name, edit):
    """Another table, as pandas writes it after a change."""

    def damage(folder):
        sep = "\t" if name.endswith(".tsv") else ","
        frame = pd.read_csv(folder / name, sep=sep)
        changed = edit(frame)
        (folder / name).unlink()
        (frame if changed is None else changed).to_csv(folder / name, sep=sep, index=False)

    return damage


def cell(row, column, value):
    def edit(frame):
        frame[column] = frame[column].astype(object)
        frame.loc[row, column] = value

    return edit


def both(frame, one, other, column):
    """Two rows exchange a value."""
    frame.loc[[one, other], column] = frame.loc[[other, one], column].to_numpy()


def rewritten(edit):
    """Another file of betas: arguments of `write_h5`, changed."""

    def damage(folder):
        with h5py.File(folder / RESPONSES) as file:
            values = file["ResponseData/block0_values"][()]
        (folder / RESPONSES).unlink()
        content = {"values": values, "labels": None, "ids": None}
        made.write_h5(folder / RESPONSES, **(content | edit(values)))

    return damage


def inside(edit):
    """A change within the file of betas."""

    def damage(folder):
        content = (folder / RESPONSES).read_bytes()
        (folder / RESPONSES).unlink()
        (folder / RESPONSES).write_bytes(content)
        with h5py.File(folder / RESPONSES, "a") as file:
            edit(file)

    return damage


def without(file, name):
    del file[f"ResponseData/{name}"]


def put(file, name, **words):
    del file[f"ResponseData/{name}"]
    file.create_dataset(f"ResponseData/{name}", **words)


def voxel_id_at(file, place):
    """`voxel_id` as a float among the betas, in one block."""
    group = file["ResponseData"]
    values = group["block0_values"][()]
    for name in ("block0_values", "block1_values", "block1_items"):
        without(file, name)
    group["block0_values"] = np.insert(values, place, np.arange(len(values)), axis=1)
    labels = list(range(values.shape[1]))
    made.put_labels(group, "block0_items", [*labels[:place], "voxel_id", *labels[place:]])


def image(name, edit):
    """Another volume."""

    def damage(folder):
        volume = nibabel.load(folder / name)
        data, affine = edit(np.array(volume.dataobj), volume.affine.copy())
        (folder / name).unlink()
        nibabel.save(nibabel.Nifti1Image(data, affine), folder / name)

    return damage


def first_false(data):
    data[tuple(np.argwhere(data)[0])] = 0
    return data


class Runs:
    def __reduce__(self):
        return os.mkdir, ("it_ran",)


N, V = made.N_TRIALS, made.N_BRAIN[1]
shuffled = np.random.default_rng(0).permutation(N)
TABLES = {
    "responses half downloaded": (cut(RESPONSES), r"ResponseData\.h5' cannot be read: .*(truncated|damaged)"),
    "responses empty": (replaced(RESPONSES, b""), "is empty"),
    "responses a pointer": (replaced(RESPONSES, b"../.git/annex/objects/x/MD5E-s1"), "is not downloaded"),
    "responses an archive": (replaced(RESPONSES, b"PK\3\4" + bytes(99)), "no HDF5 file: it begins like a zip"),
    "responses absent": (absent(RESPONSES), r"no sub-01_ResponseData\.h5.*'subjects'"),
    "responses of another person": (copy(RESPONSES.replace("01", "02"), RESPONSES),
                                    r"has 31 voxels, the table of voxels lists 37.*same subject"),
    "voxels of another person": (copy(VOXELS.replace("01", "02"), VOXELS), "line 4 is of subject 2, not of 1"),
    "trials of another person": (copy(STIMULI.replace("01", "02"), STIMULI), "line 2 is of subject 2, not of 1"),
    "trials of another person, renamed": (
        lambda folder: table(STIMULI, lambda frame: frame.assign(subject_id=1))(
            copy(STIMULI.replace("01", "02"), STIMULI)(folder) or folder),
        "do not belong together|in the same order"),
    "betas in another order of trials": (rewritten(lambda values: {"values": values[:, shuffled]}),
                                         "do not belong together: .*another order"),
    "labels in another order": (rewritten(lambda values: {"labels": list(range(N))[::-1]}), "trials in another order"),
    "a trial less": (rewritten(lambda values: {"values": values[:, 1:]}), rf"has {N - 1} trials; .* lists {N}"),
    "a trial more": (rewritten(lambda values: {"values": np.c_[values, values[:, 0]]}), rf"has {N + 1} trials"),
    "other voxels": (rewritten(lambda values: {"ids": np.arange(1, V + 1)}), "the two are not the same"),
    "a voxel less": (rewritten(lambda values: {"values": values[1:]}), f"has {V - 1} voxels"),
    "whole numbers": (rewritten(lambda values: {"values": (100 * values).astype(int)}), "floating-point"),
    "transposed": (rewritten(lambda values: {"values": values.T, "labels": list(range(N))}), "floating-point"),
    "not finite": (rewritten(lambda values: {"values": np.where(values == values[2, 3], np.nan, values)}),
                   "not finite"),
    "voxel_id among the trials": (inside(lambda file: voxel_id_at(file, 5)), "'voxel_id' in the middle of the trials"),
    "objects": (inside(lambda file: made.put_labels(file["ResponseData"], "block0_values", [1.0, 2.0])),
                "Python objects"),
    "labels that run code": (inside(lambda file: made.put_labels(
        file["ResponseData"], "block0_items", pickle.dumps(Runs()))), "could run code"),
    "labels damaged": (inside(lambda file: made.put_labels(file["ResponseData"], "block0_items", b"\x80\x05]")),
                       "its pickle is damaged"),
    "labels too few": (inside(lambda file: made.put_labels(file["ResponseData"], "block0_items", [0, 1])),
                       r"floating-point numbers \(voxel, 2\)"),
    "no labels": (inside(lambda file: without(file, "block0_items")), "no data set 'block0_items'"),
    "no voxel_id": (inside(lambda file: without(file, "block1_values")), "should have a column 'voxel_id'"),
    "no table": (inside(lambda file: file.__delitem__("ResponseData")), "one table that pandas wrote"),
    "two tables": (inside(lambda file: file.copy("ResponseData", "More")), "but holds 2"),
    "declared, not stored": (inside(lambda file: put(file, "block0_values", shape=(V, N), dtype="f8",
                                                     chunks=(V, N))), "is incomplete"),
    "elsewhere": (inside(lambda file: (without(file, "block0_values"), file["ResponseData"].__setitem__(
        "block0_values", h5py.ExternalLink("/etc/passwd", "x")))), "cannot be read|is a link"),
    "trials cut": (cut(STIMULI, 0.9), "cells, the header|does not hold the trials"),
    "a row of trials gone": (table(STIMULI, lambda frame: frame.drop(5)), "is trial 6, but trial 5 should follow"),
    "a row of trials gone, renumbered": (
        table(STIMULI, lambda frame: frame.drop(5).assign(trial_id=range(N - 1))),
        rf"does not hold the trials of THINGS-fMRI as published: trials: {N - 1} instead of {N}"),
    "trials sorted by name": (table(STIMULI, lambda frame: frame.sort_values("stimulus")),
                              "should follow|order of sessions"),
    "sessions in another order": (table(STIMULI, lambda frame: frame.assign(
        session=4 - frame.session)), "not in the order of sessions"),
    "images exchanged": (table(STIMULI, lambda frame: both(frame, 0, 1, "stimulus")), "by its name it is of"),
    "a session shows a concept twice": (
        table(STIMULI, lambda frame: [both(frame, *_same_kind(frame), name) for name in ("stimulus", "concept")] and
              None), "occurs 2 times; a session has"),
    "another kind": (table(STIMULI, cell(0, "trial_type", "catch")), "is a 'catch' trial"),
    "test and train exchanged": (table(STIMULI, lambda frame: frame.assign(
        trial_type=frame.trial_type.map({"train": "test", "test": "train"}))), "as published"),
    "no number": (table(STIMULI, cell(0, "run", "one")), "whole number as run"),
    "no image": (table(STIMULI, cell(0, "stimulus", "picture.jpg")), "allowed are names like"),
    "an image elsewhere": (table(STIMULI, cell(0, "stimulus", "../x_01b.jpg")), "not a path inside"),
    "no concept": (table(STIMULI, lambda frame: frame.drop(columns="concept")), "lacks concept"),
    "voxels cut": (cut(VOXELS, 0.95), "cells, the header|lists|damaged"),
    "a voxel gone": (table(VOXELS, lambda frame: frame.drop(3)), "is of voxel 4, but voxel 3 should follow"),
    "a voxel gone, renumbered": (table(VOXELS, lambda frame: frame.drop(3).assign(voxel_id=range(V - 1))),
                                 "are not the same in the same order"),
    "voxels sorted": (table(VOXELS, lambda frame: frame.sort_values("nc_testset")), "should follow"),
    "places exchanged": (table(VOXELS, lambda frame: both(frame, 4, 9, "voxel_x")),
                         "C order of the volume|not the same"),
    "axes exchanged": (table(VOXELS, lambda frame: frame.rename(
        columns={"voxel_x": "voxel_z", "voxel_z": "voxel_x"})), "C order of the volume"),
    "ceilings exchanged": (table(VOXELS, lambda frame: frame.rename(
        columns={"nc_singletrial": "nc_testset", "nc_testset": "nc_singletrial"})), "noise ceilings of .* contradict"),
    "a ceiling of 200 %": (table(VOXELS, cell(0, "nc_testset", 200)), "allowed are 0 to 100"),
    "a region of 3": (table(VOXELS, cell(0, "V1", 3)), "'3' as 'V1'; allowed are 0 and 1"),
    "empty ceilings": (table(VOXELS, lambda frame: frame.assign(nc_singletrial=np.nan, nc_testset=np.nan)),
                       "tells no noise ceilings, by which betas and trials are compared"),
    "one kind of ceilings empty": (table(VOXELS, lambda frame: frame.assign(nc_singletrial=np.nan)),
                                   "tells no noise ceilings"),
    "no ceilings": (table(VOXELS, lambda frame: frame.drop(columns="nc_testset")), "lacks nc_testset"),
    "mask of another person": (copy(MASK.replace("01", "02"), MASK), "Do they belong to the same subject"),
    "mask less": (image(MASK, lambda data, affine: (first_false(data), affine)), "marks 36 voxels"),
    "mask cut": (cut(MASK), "cannot be read"),
}  # fmt: skip


def _same_kind(frame):
    """Two training trials of two sessions, of different concepts."""
    train = frame[frame.trial_type == "train"]
    first = train[train.session == 1].iloc[0]
    other = train[(train.session == 2) & (train.concept != first.concept)].iloc[0]
    return first.name, other.name


@pytest.mark.parametrize("fault", TABLES)
def test_tables(whole, tmp_path, fault, monkeypatch):
    monkeypatch.chdir(tmp_path)
    damage, words = TABLES[fault]
    refused(whole, tmp_path, damage, words, roi=["V1" if fault == "a region of 3" else "brain"])
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("place", [0, N])
def test_the_column_voxel_id_may_stand_before_or_after_the_trials(whole, tmp_path, place):
    folder = shutil.copytree(whole, tmp_path / "raw")
    inside(lambda file: voxel_id_at(file, place))(folder)
    sets = [prepare(one, tmp_path / str(number), roi=["brain"]) for number, one in enumerate((whole, folder))]
    assert len({read_metadata(one)["fingerprint"] for one in sets}) == 1


def test_a_check_of_the_order_that_was_not_possible_is_told(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "raw")
    table(VOXELS, lambda frame: frame.assign(nc_singletrial=0.0, nc_testset=0.0))(folder)
    told = read_metadata(prepare(folder, tmp_path / "set", roi=["brain"]))["known_defects"]
    sentences = [sentence for sentence in told if "in the order of the tables was not checked" in sentence]
    assert len(sentences) == 1 and "betas of sub-01" in sentences[0]


def test_columns_of_visual_that_a_table_lacks_are_told(whole, tmp_path, capsys):
    folder = shutil.copytree(whole, tmp_path / "raw")
    table(VOXELS, lambda frame: frame.drop(columns=["V1", "IT"]))(folder)
    sentence = "The table of voxels of sub-01 lacks V1, IT, which 'visual' would have taken too."
    told = read_metadata(prepare(folder, tmp_path / "set"))["known_defects"]
    assert [one for one in told if "lacks" in one] == [sentence] and sentence in capsys.readouterr().err
    told = read_metadata(prepare(folder, tmp_path / "other", roi=["brain"]))["known_defects"]
    assert not [one for one in told if "lacks" in one]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_in_other_encodings_of_unicode_are_read(whole, tmp_path, encoding):
    folder = shutil.copytree(whole, tmp_path / "raw")
    for name in (STIMULI, VOXELS):
        (folder / name).write_text((folder / name).read_text(), encoding=encoding)
    sets = [prepare(one, tmp_path / str(number)) for number, one in enumerate((whole, folder))]
    assert len({read_metadata(one)["fingerprint"] for one in sets}) == 1


def test_people_exchanged_are_noticed_by_their_noise_ceilings(tmp_path, monkeypatch):
    """Two people with as many voxels: nothing but the betas tells whose file it is."""
    monkeypatch.setattr(made, "N_BRAIN", {1: 37, 2: 37})
    whole = made.build(tmp_path / "whole")
    refused(whole, tmp_path, swap(RESPONSES, RESPONSES.replace("01", "02")), "do not belong together", roi=["brain"])


def test_betas_in_another_order_are_noticed_by_their_noise_ceilings():
    """At the counts of the real test set, most of whose voxels have a low ceiling."""
    rng = np.random.default_rng(0)
    betas = rng.normal(size=(1, 100, 400)) + rng.normal(size=(12, 100, 400)) * np.geomspace(1, 40, 400)
    told = noise_ceiling(betas, 1)
    best = np.sort(np.argsort(-told)[:100])
    check_against_ceilings("'x'", betas[..., best], told[best])
    check_against_ceilings("'x'", betas[..., best] + rng.normal(size=(12, 100, 100)), told[best])  # other betas
    mixed = betas.reshape(1200, 400)[rng.permutation(1200)].reshape(12, 100, 400)
    for wrong in (betas[..., ::-1][..., best], mixed[..., best]):
        with pytest.raises(DataError, match="'x' do not belong together"):
            check_against_ceilings("'x'", wrong, told[best])


VOLUMES = {
    "betas cut": (cut(BETAS), r"run-01_betas\.nii\.gz' cannot be read"),
    "betas absent": (absent(BETAS), r"run-01_betas\.nii\.gz' does not exist\. Choose other .*--allow-partial"),
    "betas of another person": (copy(BETAS.replace("sub-01", "sub-02"), BETAS), "should have shape"),
    "a volume less": (image(BETAS, lambda data, affine: (data[..., 1:], affine)), "should have shape"),
    "betas of another run": (copy(BETAS.replace("run-01", "run-02"), BETAS), r"run-01_betas.*run-02_betas\.nii\.gz' "
                             "hold the same betas"),
    "betas of another session": (copy(BETAS.replace("things02", "things01"), BETAS), "hold the same betas"),
    "elsewhere in space": (image(BETAS, lambda data, affine: (data, affine + np.eye(4))), "elsewhere in space"),
    "not finite": (image(BETAS, lambda data, affine: (np.where(data > 0, np.inf, data), affine)),
                   "not finite"),
    "conditions absent": (absent(CONDITIONS), "lists of all runs of a person are needed"),
    "conditions a row less": (table(CONDITIONS, lambda frame: frame.drop(0)), "catch trials|as published"),
    "conditions of another run": (copy(CONDITIONS.replace("run-01", "run-02"), CONDITIONS),
                                  "catch trials|as published"),
    "another image": (table(CONDITIONS, lambda frame: frame.replace(
        frame.image_filename[~frame.image_filename.str.startswith("catch")].iloc[0], "dog/dog_09b.jpg")),
        "as published|occurs 2 times"),
    "an image in a foreign folder": (table(CONDITIONS, lambda frame: frame.replace(
        r"^(?!catch).*/", "other/", regex=True)), "is of 'other'; by its name"),
    "no names": (table(CONDITIONS, lambda frame: frame.rename(columns={"image_filename": "x"})),
                 "lacks image_filename"),
    "no mask": (absent(MASK), "Volumes need it"),
    "mask of another person": (copy(MASK.replace("01", "02"), MASK), "not the same in the same order"),
    "mask in another order": (image(MASK, lambda data, affine: (data[::-1], affine)),
                              "not the same in the same order"),
}  # fmt: skip


@pytest.mark.parametrize("fault", VOLUMES)
def test_volumes(whole, tmp_path, fault):
    damage, words = VOLUMES[fault]
    refused(whole, tmp_path, damage, words, roi=["brain"], route="volume")


def test_people_who_saw_other_images_or_the_same_order_are_refused(whole, tmp_path):
    def other_image(frame):
        name = frame.stimulus[frame.concept == "aardvark"].iloc[0]
        return frame.replace(name, "aardvark_09b.jpg")

    refused(whole, tmp_path / "1", table(STIMULI, other_image), "show different images", roi=["brain"])

    def same_order(folder):
        for session in range(1, made.N_SESSIONS + 1):
            for run in range(1, made.N_RUNS + 1):
                one, other = (made.run_stem(folder, subject, session, run) for subject in made.SUBJECTS)
                for stem, target in ((f"{one}_conditions.tsv", f"{other}_conditions.tsv"),):
                    os.unlink(target)
                    shutil.copy(stem, target)

    refused(whole, tmp_path / "2", same_order, "in the same order", roi=["brain"], route="volume")


IMAGES = {
    "an image absent": (lambda folder: next((folder / "images").rglob("aardvark_01b.jpg")).unlink(),
                        r"1 of the images cannot be used.*aardvark_01b\.jpg"),
    "none": (lambda folder: shutil.rmtree(folder / "images"), "--images-dir"),
}  # fmt: skip


@pytest.mark.parametrize("fault", IMAGES)
def test_images(whole, tmp_path, fault):
    refused(whole, tmp_path, *IMAGES[fault])


def test_an_image_may_lie_in_the_wrong_folder_that_was_published(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "raw")
    images = folder / "images" / "object_images"
    (images / "hula").mkdir()
    (images / "hula_hoop" / "hula_hoop_16s.jpg").rename(images / "hula" / "hula_hoop_16s.jpg")
    prepare(folder, tmp_path / "set")


def left(whole, folder, *names):
    """A copy without some files."""
    shutil.copytree(whole, folder, copy_function=os.link)
    for name in names:
        (folder / name).unlink()
    return folder


@pytest.mark.parametrize("name", [RESPONSES, STIMULI, VOXELS])
def test_people_whose_tables_are_lacking_are_left_out_if_asked_for(whole, tmp_path, name):
    raw = left(whole, tmp_path / "raw", name)
    with pytest.raises(DataError, match=r"no sub-01_.*--allow-partial"):
        prepare(raw, tmp_path / "set")
    facts = read_metadata(prepare(raw, tmp_path / "set", allow_partial=True))
    assert facts["subjects"] == ["sub-02"]
    assert facts["partial"] == {"sessions of sub-01": {"found": None, "declared": made.N_SESSIONS}}
    assert (tmp_path / "set" / "not_downloaded.txt").read_text() == f"{name}\n"
    assert "1 files are lacking; not_downloaded.txt lists them." in facts["known_defects"]
    chosen = read_metadata(prepare(raw, tmp_path / "chosen", subjects=[2]))
    assert chosen["partial"] is None and chosen["splits"] == facts["splits"]


def test_sessions_whose_volumes_are_lacking_are_left_out_if_asked_for(whole, tmp_path):
    """Absent, and a pointer of git-annex; somebody without a list of images is left out."""
    raw, options = left(whole, tmp_path / "raw", BETAS), {"route": "volume", "average_repeats": False}
    facts = read_metadata(prepare(raw, tmp_path / "set", allow_partial=True, **options))
    kept = [session for session in range(1, made.N_SESSIONS + 1) if session != 2]
    assert facts["preprocessing"]["sessions"] == {"sub-01": kept, "sub-02": [*range(1, made.N_SESSIONS + 1)]}
    assert facts["partial"] == {"sessions of sub-01": {"found": len(kept), "declared": made.N_SESSIONS}}
    other = prepare(raw, tmp_path / "chosen", subjects=[1], sessions=kept, **options)
    own, other = (rows_with_split(folder) for folder in (tmp_path / "set", other))
    assert {row["session"] for row in other} == {"ses-01", "ses-03"}
    assert str([row for row in own if row["subject"] == "sub-01"]) == str(other)
    (raw / BETAS).write_bytes(b"/annex/objects/SHA256E-s1--0.nii.gz")
    again = prepare(raw, tmp_path / "set", allow_partial=True, overwrite=True, **options)
    assert read_metadata(again)["partial"] == facts["partial"]
    (raw / CONDITIONS).unlink()
    alone = read_metadata(prepare(raw, tmp_path / "set", allow_partial=True, overwrite=True, **options))
    assert alone["subjects"] == ["sub-02"] and alone["partial"]["sessions of sub-01"]["found"] is None
    listed = (tmp_path / "set" / "not_downloaded.txt").read_text().splitlines()
    assert sorted(listed) == sorted(map(str, (BETAS, CONDITIONS)))


def test_a_whole_download_is_not_partial_and_nothing_is_refused_as_ever(whole, tmp_path):
    facts = read_metadata(prepare(whole, tmp_path / "set", allow_partial=True))
    assert facts["partial"] is None and not (tmp_path / "set" / "not_downloaded.txt").exists()
    with pytest.raises(DataError, match=r"no sub-01_ResponseData\.h5"):
        prepare(tmp_path / "set", tmp_path / "other", allow_partial=True)
    raw = left(whole, tmp_path / "raw")
    with (raw / STIMULI).open("rb+") as file:
        content = file.read()
    (raw / STIMULI).unlink()
    (raw / STIMULI).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="StimulusMetadata"):
        prepare(raw, tmp_path / "other", allow_partial=True)


def test_recordings_without_betas_are_refused(tmp_path):
    func = tmp_path / "ds004192" / "sub-01" / "ses-things01" / "func"
    func.mkdir(parents=True)
    (func / "sub-01_ses-things01_task-things_run-01_bold.nii.gz").write_bytes(b"x")
    for route in ("table", "volume"):
        with pytest.raises(DataError, match=r"Recordings are not read: single-trial betas are needed.*figshare"):
            prepare(tmp_path / "ds004192", tmp_path / "set", route=route)


def test_an_archive_that_was_not_unpacked_is_named(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "betas_csv.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=re.escape(f"Unpack '{tmp_path / 'raw' / 'betas_csv.zip'}' first")):
        prepare(tmp_path / "raw", tmp_path / "set")


def test_a_real_corpus_has_the_published_counts(whole, tmp_path):
    """Without the mark of a simulation, smaller counts are refused."""
    with pytest.raises(DataError, match=r"trials: 36 instead of 9840; training trials: 24 instead of 8640"):
        folder = shutil.copytree(whole, tmp_path / "raw")
        (folder / "SIMULATED.json").unlink()
        prepare(folder, tmp_path / "set", subjects=[1])


@pytest.mark.parametrize("entry", ["subjects", "n_sessions", "n_catch"])
def test_a_damaged_mark_is_named(whole, tmp_path, entry):
    def damage(folder):
        text = (folder / "SIMULATED.json").read_text()
        (folder / "SIMULATED.json").unlink()
        (folder / "SIMULATED.json").write_text(text.replace(f'"{entry}"', '"x"'))

    refused(whole, tmp_path, damage, rf"SIMULATED\.json' is damaged.*'{entry}'")
