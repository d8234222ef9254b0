"""Alljoined-1.6M and Alljoined1, damaged and mixed up: the fault is named with its file, and no data set appears."""

import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import alljoined_raw as made
from mixed_up_files import copy, cut, swap
from neural_clip.corpora.alljoined import prepare
from neural_clip.errors import DataError
from neural_clip.prepared.facts import read_metadata


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    made.build_raw(root / "raw", subjects=(8,))
    made.build_flat(root / "flat")
    made.build_first(root / "alljoined1")
    return root


def refused(whole, tmp_path, route, damage, words, **options):
    folder = shutil.copytree(whole / route, tmp_path / "raw", copy_function=shutil.os.link)  # damage writes new files
    damage(folder)
    with pytest.raises(DataError, match=words):
        prepare(folder, tmp_path / "set", route=route, **options)
    assert not (tmp_path / "set").exists()


def gone(name):
    def damage(folder):
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()

    return damage


# ---------------------------------------------------------------------------------------------------- recordings


def place(session, block):
    return str(made.block_of(Path(), 8, session, block))


def written(session=1, block=3, **changes):
    """A block with other events, signals or channels."""

    def damage(folder):
        made.block_of(folder, 8, session, block).unlink()
        made.write_block(folder, 8, session, block, **changes)

    return damage


def moved(session, block, to_session, to_block):
    """The folder of a block in place of another one."""
    one, other = (
        f"raw_eeg/sub-08/session_{s:02d}/block_{b:02d}" for s, b in ((session, block), (to_session, to_block))
    )
    return swap(one, other)


def beside(name):
    """A second file in a block."""
    return lambda folder: shutil.copy(folder / place(1, 3), (folder / place(1, 3)).with_name(name))


def renamed(name):
    """Another name for the file of a block."""
    return lambda folder: (folder / place(1, 3)).rename((folder / place(1, 3)).with_name(name))


LABELS = ["Afz" if name == "AFz" else name for name in made.CHANNELS]
VALUES = made.signal(8, 1, 3)
IDS = made.shown(8, 1, 3)
SLOW = made.onsets(IDS)[:1] + 200 * np.arange(len(IDS))
RAW = {
    "half downloaded": (cut(place(1, 3)), r"md\.edf' has .* bytes of recordings, but its header announces 9 records"),
    "a block absent": (gone(place(1, 3)), "not the corpus as published: sub-08, session 1: .*'blocks': 3"),
    "a session absent": (gone("raw_eeg/sub-08/session_02"), r"session_02' is no folder.*'sessions' parameters"),
    "a person absent": (gone("raw_eeg/sub-08"), "is no folder.*'subjects' and 'sessions'"),
    "two files in a block": (beside("again.edf"), "has 2 EDF files"),
    "blocks exchanged": (moved(1, 3, 1, 4), "is of subject 19, session 1, block 4 by its name, but lies among the "
                                            "files of subject 8, session 1, block 3"),
    "sessions exchanged": (moved(1, 3, 2, 3), "is of subject 19, session 2, block 3 by its name"),
    "of another subject": (renamed("Subject 5, Session 1, Block 3 Recording_X.md.edf"), "is of subject 5"),
    "a test block among training": (copy(place(1, 1), place(1, 3)), "shows image 1?[0-9] as stim_test in a block of "
                                                                      "the training part"),
    "the same block twice": (copy(place(1, 3), place(1, 4)), "hold the same recording"),
    "no annotations": (written(texts=[]), "has no annotations of images"),
    "an annotation of another kind": (written(texts=[("1.000000", 0, "stim_train,abc,-1,1")]), "has the annotation "
                                      "'stim_train,abc,-1,1'"),
    "an unknown image": (written(texts=[("1.000000", 0, "stim_train,99,-1,1")]), "shows image 99 as stim_train"),
    "a test image called training": (written(texts=[("1.000000", 0, "stim_train,9,-1,1")]), "shows image 9 as "
                                     "stim_train"),
    "another interval": (written(samples=SLOW), "follow each other every 0.78125 s"),
    "a channel absent": (written(names=["X", *LABELS[1:]]), "lacks 1 of the 32 electrodes of Alljoined-1.6M, such as "
                                                            "'Cz'"),
    "no signal": (written(values=np.zeros_like(VALUES) + 7), "half of the channels or more do not vary over time"),
    "another unit": (written(values=np.clip(1000 * (VALUES - VALUES.mean(1, keepdims=True).round().astype(int)),
                                            -2**15, 2**15 - 1)), "the unit is V"),
    "fewer test trials": (written(1, 1, ids=made.shown(8, 1, 1)[:-1]), "sub-08: .'test trials': 22. instead of"),
    "no images": (gone("stimuli"), "--images-dir"),
    "an image absent": (gone("stimuli/images/00003.jpg"), r"1 of the images cannot be used.*00003\.jpg"),
}  # fmt: skip


@pytest.mark.parametrize("fault", RAW)
def test_recordings(whole, tmp_path, fault):
    damage, words = RAW[fault]
    refused(whole, tmp_path, "raw", damage, words, scaling="none")


def test_a_flat_channel_cannot_be_whitened(whole, tmp_path):
    def damage(folder):
        for block in (3, 4):
            values = np.where(np.arange(32)[:, None] == 4, 0, made.signal(8, 1, block))
            written(1, block, values=values)(folder)

    refused(whole, tmp_path, "raw", damage, "Channel 5 of sub-08, ses-01 is flat", sessions=[1])


def test_missing_blocks_can_be_accepted(whole, tmp_path):
    folder = shutil.copytree(whole / "raw", tmp_path / "raw")
    gone(place(1, 3))(folder)
    prepare(folder, tmp_path / "set", allow_partial=True, scaling="none")
    facts = read_metadata(tmp_path / "set")
    assert facts["partial"] == {"sub-08, session 1": {"found": {"blocks": 3}, "declared": {"blocks": 4}}}


def test_the_copy_in_bids_without_training_images_is_named(whole, tmp_path):
    def damage(folder):
        shutil.rmtree(folder / "raw_eeg")
        events = folder / "sub-08" / "ses-01" / "eeg" / "sub-08_ses-01_task-images_run-01_events.tsv"
        events.parent.mkdir(parents=True)
        events.write_text("onset\tduration\n")

    refused(whole, tmp_path, "raw", damage, r"the copy of Alljoined-1\.6M in BIDS.*list no training images")


def test_images_that_are_still_packed_are_named(whole, tmp_path):
    def damage(folder):
        shutil.rmtree(folder / "stimuli")
        (folder / "stimuli.zip").write_bytes(b"PK")

    refused(whole, tmp_path, "raw", damage, r"Unpack '.*stimuli\.zip' first")


# ---------------------------------------------------------------------------------------------------- flat files

SUB = "preprocessed_eeg/sub-08"
TRAIN, TEST, TABLE = (
    f"{SUB}/{name}"
    for name in ("preprocessed_eeg_training_flat.npy", "preprocessed_eeg_test_flat.npy", "experiment_metadata.parquet")
)
OTHER = "preprocessed_eeg/sub-06/preprocessed_eeg_training_flat.npy"


def content(edit):
    """Other values in a pickle."""

    def damage(folder):
        found = pickle.loads((folder / TRAIN).read_bytes())
        changed = edit(found)
        (folder / TRAIN).unlink()
        (folder / TRAIN).write_bytes(pickle.dumps(found if changed is None else changed, protocol=5))

    return damage


def values(edit):
    return content(lambda found: found | {"preprocessed_eeg_data": edit(found["preprocessed_eeg_data"])})


def without(key):
    return content(lambda found: {name: value for name, value in found.items() if name != key})


def table(edit):
    """Another table."""

    def damage(folder):
        found = edit(pd.read_parquet(folder / TABLE))
        (folder / TABLE).unlink()
        found.to_parquet(folder / TABLE)

    return damage


def column(name, edit):
    def change(found):
        found[name] = edit(found[name].to_numpy().copy())
        return found

    return table(change)


def first_kept(change):
    """Another value for the first training row that was kept."""

    def edit(found):
        at = found.index[(found.partition == "stim_train") & ~found.dropped][0]
        for name, value in change.items():
            found.loc[at, name] = value
        return found

    return table(edit)


def exchange(found):
    names = found["ch_names"]
    names[3], names[4] = names[4], names[3]


FLAT = {
    "half downloaded": (cut(TRAIN), r"training_flat\.npy' cannot be read: it ends .* bytes too early"),
    "absent": (gone(TEST), r"test_flat\.npy' does not exist"),
    "saved again by NumPy": (lambda folder: (gone(TRAIN)(folder), np.save(folder / TRAIN, np.zeros(3))),
                             "which are pickles by themselves"),
    "exchanged": (swap(TRAIN, TEST), "lists .* of 'stim_train' that were not dropped.*exchanged"),
    "of another person": (copy(OTHER, TRAIN), "hold the same trials|that were not dropped"),
    "without a table": (gone(TABLE), r"has no experiment_metadata\.parquet. stim_order\.parquet does not do"),
    "nothing to tell images": (lambda folder: (gone(TABLE)(folder), gone(f"{SUB}/stim_order.parquet")(folder)),
                               r"experiment_metadata\.parquet' does not exist.*'subjects'"),
    "a table without dropped": (table(lambda found: found.drop(columns="dropped")), "has no column 'dropped'"),
    "the table of another person": (column("subject", lambda own: own - 2), "is of subject 6, but lies among the"),
    "half a table": (cut(TABLE), r"experiment_metadata\.parquet' cannot be read"),
    "fewer rows": (table(lambda found: found.iloc[:-5]), "that were not dropped"),
    "one more dropped": (first_kept({"dropped": True}), "that were not dropped"),
    "sessions in another order": (table(lambda found: found.iloc[::-1]), "does not list the sessions in order"),
    "sessions as text": (column("session", lambda own: own.astype(str)), "'session' holds values of type"),
    "an unknown image": (first_kept({"image_path": "/images/99999.jpg"}), "lists image 99999 as 'stim_train'"),
    "a test image in training": (first_kept({"image_path": "/images/00009.jpg"}), "lists image 9 as 'stim_train'"),
    "an image without a number": (first_kept({"image_path": "/images/cat.jpg"}), "names the image '/images/cat.jpg'"),
    "another category": (first_kept({"category_num": 77}), "gives images of one concept several categories"),
    "two channels exchanged": (content(exchange), "its channel 4 is 'F5' instead of 'Fp1'"),
    "fewer channels": (values(lambda own: own[:, 1:]), r"should hold numbers of shape \(trials, 32, 250\)"),
    "no values": (without("preprocessed_eeg_data"), "has no entry 'preprocessed_eeg_data'"),
    "other times": (content(lambda found: found | {"times": found["times"] - 0.2}), "'times' should go from 0 to"),
    "not finite": (values(lambda own: np.where(np.arange(250) == 7, np.nan, own)), "not finite"),
    "another unit": (values(lambda own: own * 1e-6), "the unit is z"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FLAT)
def test_flat_files(whole, tmp_path, fault):
    damage, words = FLAT[fault]
    refused(whole, tmp_path, "flat", damage, words)


def test_names_of_concepts_must_be_those_of_the_table_of_images(whole, tmp_path):
    made.image_metadata(tmp_path / "image_metadata.npy")
    named = [made.CATEGORIES[made.concept_of(int(path[-9:-4]))] for path in made.trials(8).image_path]
    options = {"image_metadata": tmp_path / "image_metadata.npy", "subjects": [8]}

    def damage(folder):
        table(lambda found: found.assign(category_name=["cat" if name == "dog" else name for name in named]))(folder)

    (tmp_path / "a").mkdir()
    refused(whole, tmp_path / "a", "flat", damage, "calls image 9 'cat', but the table of images 'dog'", **options)
    shutil.copytree(whole / "flat", tmp_path / "raw")
    table(lambda found: found.assign(category_name=named))(tmp_path / "raw")
    prepare(tmp_path / "raw", tmp_path / "set", route="flat", **options)


def test_a_copy_of_the_table_with_categories_must_fit_too(whole, tmp_path):
    made.image_metadata(tmp_path / "image_metadata.npy")
    options = {"image_metadata": tmp_path / "image_metadata.npy", "subjects": [8]}

    def beside(edit):
        def damage(folder):
            listed = made.trials(8)
            numbers = listed.image_path.str[-9:-4].astype(int)
            names = [made.CATEGORIES[made.concept_of(number)] for number in numbers]
            made.write_table(
                folder, 8, edit(listed.assign(category_name=names)), "experiment_metadata_categories.parquet"
            )

        return damage

    def other_name(listed):
        return listed.assign(category_name=listed.category_name.replace("dog", "cat"))

    def other_image(listed):
        return listed.assign(image_path=listed.image_path.where(listed.partition != "stim_test", "/data/99999.jpg"))

    words = "categories.parquet' calls image 9 'cat', but the table of images 'dog'"
    for number, (edit, said) in enumerate([
        (other_name, words), (other_image, "categories.parquet' lists image 99999 as 'stim_test'"),
        (lambda listed: listed.drop(columns="partition"), "categories.parquet' has no column 'partition'"),
    ]):  # fmt: skip
        (tmp_path / str(number)).mkdir()
        refused(whole, tmp_path / str(number), "flat", beside(edit), said, **options)
    folder = shutil.copytree(whole / "flat", tmp_path / "raw")
    beside(lambda listed: listed.drop(columns="dropped"))(folder)
    prepare(folder, tmp_path / "set", route="flat", **options)


def test_flat_files_of_fewer_sessions_are_partial(whole, tmp_path):
    def damage(folder):
        listed = made.trials(8)
        listed = listed[listed.session == 1].reset_index(drop=True)
        (folder / TABLE).unlink()
        made.write_table(folder, 8, listed)
        for part, path in (("training", TRAIN), ("test", TEST)):
            found = made.flat_content(8, part)
            found["preprocessed_eeg_data"] = found["preprocessed_eeg_data"][made.kept(8, part).session == 1]
            (folder / path).unlink()
            (folder / path).write_bytes(pickle.dumps(found, protocol=5))

    refused(whole, tmp_path, "flat", damage, r"sub-08, training: \{'sessions': 1\} instead of \{'sessions': 2\}")
    prepare(tmp_path / "raw", tmp_path / "set", route="flat", allow_partial=True)
    assert read_metadata(tmp_path / "set")["partial"] == {
        "sub-08, training": {"found": {"sessions": 1}, "declared": {"sessions": 2}},
        "sub-08, test": {
            "found": {"sessions": 1, "test images": 3}, "declared": {"sessions": 2, "test images": 3},
        },
    }  # fmt: skip


def test_a_table_of_images_in_another_order_is_refused(whole, tmp_path):
    path = tmp_path / "image_metadata.npy"
    made.image_metadata(path)
    listed = np.load(path, allow_pickle=True).item()
    listed["train_img_files"][0], listed["train_img_files"][2] = (listed["train_img_files"][n] for n in (2, 0))
    np.save(path, listed, allow_pickle=True)
    refused(whole, tmp_path / "1", "flat", lambda _: None, "does not list 2 images of each", image_metadata=path)
    np.save(path, {"train_img_files": ["a_1.jpg"]}, allow_pickle=True)
    refused(whole, tmp_path / "2", "flat", lambda _: None, "lists 1 'train_img_files'", image_metadata=path)


def test_a_pickle_that_runs_code_is_refused(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Runs:
        def __reduce__(self):
            return shutil.os.mkdir, ("it_ran",)

    damage = content(lambda found: found | {"configs": {"baseline": Runs()}})
    refused(whole, tmp_path, "flat", damage, "could run code", subjects=[8])
    assert not (tmp_path / "it_ran").exists()


# ---------------------------------------------------------------------------------------------------- Alljoined1

FIRST, SECOND, LAST = (
    f"data/{name}.parquet" for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")
)


def shard(name, edit):
    """Other rows in a file."""

    def damage(folder):
        found = edit(pq.read_table(folder / name))
        (folder / name).unlink()
        pq.write_table(found, folder / name)

    return damage


def cells(name, edit, file=FIRST):
    """Another column of numbers."""

    def change(found):
        at = found.column_names.index(name)
        own = edit(found[name].to_numpy().copy())
        return found.set_column(at, name, pa.array(own, found[name].type))

    return shard(file, change)


def epochs(edit, kind="float64"):
    """Other epochs."""

    def change(found):
        own = [np.asarray(edit(np.array(epoch))).tolist() for epoch in found["EEG"].to_pylist()]
        return found.set_column(0, "EEG", pa.array(own, pa.list_(pa.list_(getattr(pa, kind)()))))

    return shard(FIRST, change)


def renamed_shard(name, other):
    return lambda folder: (folder / name).rename(folder / "data" / f"{other}.parquet")


def put(place, value):
    def edit(own):
        own[place] = value
        return own

    return edit


def stimuli(write):
    def damage(folder):
        (folder / "nsd_stimuli.hdf5").unlink()
        with h5py.File(folder / "nsd_stimuli.hdf5", "w") as file:
            write(file)

    return damage


ALLJOINED1 = {
    "a file absent": (gone(SECOND), "has 1 files of the train split, of 2"),
    "no test file": (gone(LAST), "has 0 files of the test split"),
    "of two totals": (renamed_shard(SECOND, "train-00001-of-00003"), "has 2 files of the train split, of 2 and 3"),
    "a number twice": (renamed_shard(SECOND, "train-00000-of-00002-0a"), r"of 2, with the numbers \[0, 0\]; allowed"),
    "numbers from 1 on": (
        lambda folder: [renamed_shard(*names)(folder) for names in
                        ((SECOND, "train-00002-of-00002"), (FIRST, "train-00001-of-00002"))],
        r"of 2, with the numbers \[1, 2\]"),
    "half downloaded": (cut(FIRST), r"train-00000-of-00002\.parquet' cannot be read"),
    "a file twice": (copy(FIRST, SECOND), "has a trial twice"),
    "a column absent": (shard(FIRST, lambda found: found.drop_columns(["trial"])), "has no column 'trial'"),
    "no epochs": (shard(FIRST, lambda found: found.drop_columns(["EEG"])), "has no column 'EEG'"),
    "numbers as text": (shard(FIRST, lambda found: found.set_column(3, "block", pa.array(["1"] * len(found)))),
                        "'block' should hold whole numbers"),
    "a test image in training": (cells("73k_id", lambda own: np.where(own == own[0], 4, own)),
                                 "images in train and test files both, such as 73k_id 4|several ids"),
    "people counted from 0": (cells("subject_id", lambda own: own - 1), r"rows of subject 0; Alljoined1 has \[1, 2\]"),
    "a number below 0": (cells("73k_id", put(0, -4)), "has the image -4 as '73k_id'"),
    "ids that contradict": (cells("coco_id", put(0, 9)), "gives an image several ids"),
    "fewer images": (shard(LAST, lambda found: found.filter(pa.compute.not_equal(found["73k_id"], 4))),
                     "'test images': 2. instead of"),
    "other channels": (epochs(lambda own: own[:63]), r"there are \{63\} of \{334\}"),
    "another length": (epochs(lambda own: own[:, :300]), r"there are \{64\} of \{300\}"),
    "whole numbers": (epochs(lambda own: np.round(own).astype(int), "int32"), "should be 64 channels of 334"),
    "not finite": (epochs(lambda own: np.where(np.arange(334) == 9, np.nan, own)), "not finite"),
    "microvolts": (epochs(lambda own: own * 1e6), "the unit is V"),
    "no images": (gone("nsd_stimuli.hdf5"), "Alljoined1 shows images of NSD: give nsd_stimuli.hdf5"),
    "other images": (stimuli(lambda file: file.create_dataset("imgBrick", data=np.zeros((24, 5)))), "imgBrick should"),
    "fewer pictures": (stimuli(lambda file: file.create_dataset("imgBrick", data=np.zeros((9, 5, 5, 3), np.uint8))),
                       "more than 22 of them"),
    "no pictures": (stimuli(lambda file: file.create_dataset("x", data=np.zeros(3))), r"nsd_stimuli\.hdf5'.*imgBrick"),
}  # fmt: skip


@pytest.mark.parametrize("fault", ALLJOINED1)
def test_files_of_alljoined1(whole, tmp_path, fault):
    damage, words = ALLJOINED1[fault]
    refused(whole, tmp_path, "alljoined1", damage, words)
