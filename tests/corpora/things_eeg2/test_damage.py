"""THINGS-EEG2, damaged and mixed up: the fault is named with its file, and no data set appears."""

import json
import re
import shutil

import numpy as np
import pytest

import things_eeg2_raw as made
from mixed_up_files import copy, cut, swap
from neural_clip.corpora.things_eeg2 import prepare
from neural_clip.errors import DataError

SUB, SES, BIDS = "sub-01", "sub-01/ses-01", "sub-02/ses-03/eeg/sub-02_ses-03_"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folders of all routes."""
    root = tmp_path_factory.mktemp("whole")
    return {route: made.build(root / route, route) for route in made.WRITERS}


def refused(whole, tmp_path, route, damage, words, **options):
    folder = tmp_path / "raw"
    shutil.copytree(whole[route], folder, copy_function=shutil.os.link)  # damage writes new files in their place
    damage(folder)
    with pytest.raises(DataError, match=words):
        prepare(folder, tmp_path / "set", route=route, **options)
    assert not (tmp_path / "set").exists()


def change(name, edit, load=made.load_npy, save=made.save_npy):
    """Damage what a file holds."""

    def damage(folder):
        content = load(folder / name)
        changed = edit(content)
        (folder / name).unlink()
        save(folder / name, content if changed is None else changed)

    return damage


def text(name, edit):
    def damage(folder):
        content = edit((folder / name).read_text())
        (folder / name).unlink()
        (folder / name).write_text(content)

    return damage


def stim(edit):
    """Another row of codes."""

    def damage(content):
        row = content["raw_eeg_data"][-1]
        row[:] = edit(row.copy())

    return damage


def put(place, value):
    def edit(row):
        row[np.flatnonzero(row)[place]] = value
        return row

    return edit


def shift(row):
    row[np.flatnonzero(row)[0] + 1] = 1
    return row


def exchange(content):
    names = content["ch_names"]
    names[3], names[4] = names[4], names[3]


def in_microvolts(content):
    content["raw_eeg_data"][:-1] *= 1e6


def replaced(name, write):
    """Something else in place of a file."""

    def damage(folder):
        (folder / name).unlink()
        write(folder / name)

    return damage


def without(key):
    return lambda content: {name: value for name, value in content.items() if name != key}


def told(**entries):
    return lambda content: content | entries


TRAIN, TEST = f"{SES}/raw_eeg_training.npy", f"{SES}/raw_eeg_test.npy"
RAW = {
    "half downloaded": (cut(TRAIN), r"raw_eeg_training\.npy' cannot be read: it ends .* bytes too early"),
    "absent": (lambda folder: (folder / TRAIN).unlink(), r"ses-01/raw_eeg_training\.npy' does not exist.*'sessions'"),
    "swapped parts": (swap(TRAIN, TEST), r"raw_eeg_training\.npy' holds the test part.*swapped"),
    "a session twice": (copy(TRAIN, "sub-01/ses-02/raw_eeg_training.npy"), "hold the same recording"),
    "of another person": (copy("sub-02/ses-01/raw_eeg_training.npy", TRAIN),
                          "Sessions 1 and 2 of sub-01 have .* in common|hold the same recording"),
    "sessions of two pairs": (swap(TRAIN, "sub-01/ses-03/raw_eeg_training.npy"),
                              r"Sessions 1 and 2 of sub-01 have 2 training images in common and show 6 of 8"),
    "two channels exchanged": (change(TRAIN, exchange), r"in another order: its channel 4 is 'FC5' instead of 'FT9'"),
    "with Fz": (change(TRAIN, lambda c: c["ch_names"].__setitem__(0, "Fz")), "a channel Fz"),
    "without stim": (change(TRAIN, lambda c: c | {"raw_eeg_data": c["raw_eeg_data"][:-1],
                                                  "ch_names": c["ch_names"][:-1]}), "the last of them 'AF8'"),
    "rows and names differ": (change(TRAIN, lambda c: c | {"ch_names": c["ch_names"][1:]}), "64 rows for 63 channels"),
    "another rate": (change(TRAIN, told(sfreq=500)), r"recorded at 500 Hz; THINGS-EEG2 was at 1000 Hz"),
    "a rate of many": (change(TRAIN, told(sfreq=[1000, 1000])), r"recorded at \[1000, 1000\] Hz"),
    "no names": (change(TRAIN, told(ch_names=7)), "'ch_names' should be a list of names"),
    "no data": (change(TRAIN, without("raw_eeg_data")), "no entry 'raw_eeg_data'"),
    "a code between": (change(TRAIN, stim(put(0, 2.5))), r"'stim' holds 2\.5, which is no code"),
    "a code below zero": (change(TRAIN, stim(put(0, -3))), "'stim' holds -3, which is no code"),
    "an unknown code": (change(TRAIN, stim(put(0, 9))), "the code 9 among its events; allowed are 1 to 8"),
    "codes of two samples": (change(TRAIN, stim(shift)), "two codes at samples 400 and 401"),
    "one image of a concept": (change(TRAIN, stim(lambda row: np.where(row == row[row > 0].min(), 99999, row))),
                               "shows 1 of the 2 images of training concept"),
    "fewer images": (change(TRAIN, stim(put(-1, 99999))), "not the corpus as published: training part of sub-01"),
    "no events": (change(TRAIN, stim(lambda row: 0 * row)), "shows no image"),
    "microvolts": (change(TRAIN, in_microvolts), "the unit is V"),
    "not finite": (change(TRAIN, lambda c: c["raw_eeg_data"].__setitem__((5, 450), np.nan)), "not finite"),
    "too short": (change(TRAIN, lambda c: c | {"raw_eeg_data": c["raw_eeg_data"][:, :1600]}), "too few for an event"),
    "flat": (change(TRAIN, lambda c: c["raw_eeg_data"].__setitem__(7, 0.0)), r"Channel \d+ of sub-01, ses-01 is flat"),
    "an array": (replaced(TRAIN, lambda path: np.save(path, np.zeros(3))), "a dict was expected"),
}  # fmt: skip


@pytest.mark.parametrize("fault", RAW)
def test_raw_files(whole, tmp_path, fault):
    damage, words = RAW[fault]
    people = {} if fault == "of another person" else {"subjects": [1]}
    refused(whole, tmp_path, "raw", damage, words, **people)


def test_raw_files_with_other_counts_can_be_accepted(whole, tmp_path):
    folder = shutil.copytree(whole["raw"], tmp_path / "raw")
    change(TRAIN, stim(put(-1, 99999)))(folder)
    prepare(folder, tmp_path / "set", subjects=[1], sessions=[1, 2], allow_partial=True, scaling="none")
    facts = json.loads((tmp_path / "set" / "neural_clip.json").read_text())
    (name,) = facts["partial"]
    assert name == "training part of sub-01, ses-01" and facts["partial"][name]["declared"]["images shown"] == 9


def line(number, column, value):
    """Another value in a table of events."""

    def edit(content):
        lines = [row.split("\t") for row in content.splitlines()]
        image = [n for n, row in enumerate(lines) if row[4] == "image"][number]
        lines[image][lines[0].index(column)] = value
        return "\n".join("\t".join(row) for row in lines) + "\n"

    return edit


EVENTS, SIGNALS = f"{BIDS}task-train_run-01_events.tsv", f"{BIDS}task-train_run-01_eeg.bdf"
BIDS_FAULTS = {
    "half downloaded": (cut(SIGNALS), r"eeg\.bdf' has .* bytes of recordings, but its header announces 3 records"),
    "a pointer": (replaced(SIGNALS, lambda path: path.write_text("/annex/objects/MD5E-s1")), "is not downloaded"),
    "a run absent": (lambda folder: (folder / SIGNALS).unlink(), r"run-01_eeg\.bdf' does not exist"),
    "events of the test": (copy(f"{BIDS}task-test_events.tsv", EVENTS), "of '00001_cat', which is of '00001_aardvark'"
                           "|of '0000._(dog|emu)', which is of"),
    "a run twice": (copy(SIGNALS, f"{BIDS}task-train_run-02_eeg.bdf"), "hold the same recording"),
    "an unknown image": (text(EVENTS, line(0, "tot_img_number", "90")), "shows image 90; this part has 1 to 8"),
    "another concept": (text(EVENTS, line(0, "category_name", "00001_x")), r"line \d+ shows image \d+ of '00001_x'"),
    "another kind": (text(EVENTS, line(0, "trial_type", "press")), "is a 'press'; allowed are 'image' and 'target'"),
    "no number": (text(EVENTS, line(0, "sample", "soon")), "should have a whole number as sample, but has 'soon'"),
    "not in order": (text(EVENTS, line(1, "sample", "2")), "not in order of time"),
    "beyond the end": (text(EVENTS, line(-1, "sample", "2500")), "too few for an event at sample 2500"),
    "a column absent": (text(EVENTS, lambda content: content.replace("tot_img_number", "n")), "lacks tot_img_number"),
    "fewer events": (text(EVENTS, lambda content: "\n".join(content.splitlines()[:-2]) + "\n"),
                     "is not the corpus as published|images of training concept"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BIDS_FAULTS)
def test_files_of_bids(whole, tmp_path, fault):
    damage, words = BIDS_FAULTS[fault]
    refused(whole, tmp_path, "bids", damage, words, subjects=[2], sessions=[3])


def of(route):
    """Names of the files of a person, and how they are loaded and saved."""
    names = {"ubp": ("train.pt", "test.pt"), "neurobridge": ("train.npy", "test.npy")}
    pair = names.get(route, ("preprocessed_eeg_training.npy", "preprocessed_eeg_test.npy"))
    load, save = {
        "official": (made.load_npy, made.save_npy), "nice": (made.load_pickle, made.save_pickle),
        "ubp": (made.load_pt, made.save_pt), "neurobridge": (np.load, np.save),
    }[route]  # fmt: skip
    return *(f"{SUB}/{name}" for name in pair), load, save


@pytest.mark.parametrize("route", ["official", "nice", "ubp", "neurobridge"])
def test_files_of_releases(whole, tmp_path, route):
    """Each fault in turn; files are linked, so a copy costs nothing."""
    train, test, load, save = of(route)
    key = {"ubp": "eeg", "neurobridge": None}.get(route, "preprocessed_eeg_data")

    def values(edit):
        def on_content(content):
            return edit(content) if key is None else content | {key: edit(content[key])}

        return change(train, on_content, load, save)

    faults = {
        "half downloaded": (cut(train), re.escape(train.rpartition("/")[2]) + "' (cannot be read|is damaged)"),
        "absent": (lambda folder: (folder / train).unlink(), "' does not exist.*'subjects'"),
        "swapped": (swap(train, test), "were the two swapped"),
        "of another person": (copy(train.replace("01", "02"), train), "hold the same recording"),
        "another type": (values(lambda own: own.astype(np.float64 if route != "official" and route != "nice"
                                                       else np.float32)), "holds values of type float"),
        "fewer images": (values(lambda own: own[:-1]), r"holds values of shape \([37], "),
        "not finite": (values(lambda own: np.where(np.arange(own.shape[-1]) == 5, np.nan, own)), "not finite"),
        "another unit": (values(lambda own: own * own.dtype.type(1e-3)), "the unit is z"),
    }  # fmt: skip
    if key:
        faults |= {
            "two channels exchanged": (change(train, exchange, load, save), "its channel 4 is"),
            "times from onset of a shorter window": (
                change(train, lambda c: c | {"times": c["times"] + 0.1}, load, save), "those of .* end with"),
            "times in words": (change(train, told(times=["a"]), load, save), "'times' should be numbers, in s"),
            "no channels": (change(train, without("ch_names"), load, save), "no entry 'ch_names'"),
        }  # fmt: skip
    for number, (damage, words) in enumerate(faults.values()):
        refused(whole, tmp_path / str(number), route, damage, words)


def test_files_of_another_release_are_named(whole, tmp_path):
    for route, other in (("official", "nice"), ("nice", "official")):
        with pytest.raises(DataError, match=f"read it by --route {other}"):
            prepare(whole[other], tmp_path / "set", route=route)


def test_ubp_in_another_order_or_with_impossible_sessions(whole, tmp_path):
    train, _, load, save = of("ubp")

    def order(content):
        content["img"] = content["img"][::-1].copy()

    def sessions(content):
        content["session"][2, :] = [0, 0, 1, 1]

    refused(whole, tmp_path / "1", "ubp", change(train, order, load, save), "image 1 is 'ping-pong_table_06b'.*order")
    refused(whole, tmp_path / "2", "ubp", change(train, sessions, load, save), "image 3 was shown in sessions")
    as_text = change(train, lambda content: content | {"session": content["session"].astype(str)}, load, save)
    refused(whole, tmp_path / "3", "ubp", as_text, "'session' should be numbers, but has values of type <U")


def test_neurobridge_without_its_description(whole, tmp_path):
    refused(
        whole, tmp_path, "neurobridge", lambda folder: (folder / "info.json").unlink(), r"info\.json' does not exist"
    )


def test_pickles_that_run_code_are_refused(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Runs:
        def __reduce__(self):
            return shutil.os.mkdir, ("it_ran",)

    for route in ("official", "nice", "ubp"):
        train, _, load, save = of(route)
        refused(whole, tmp_path / route, route, change(train, told(more=Runs()), load, save), "could run code")
    assert not (tmp_path / "it_ran").exists()


TABLE = "image_set/image_metadata.npy"
IMAGES = {
    "no table": (lambda folder: (folder / TABLE).unlink(), r"image_metadata\.npy' does not exist"),
    "reordered": (change(TABLE, lambda c: c["train_img_files"].reverse()), "contradicts itself: its training image 1"),
    "a concept of the test": (change(TABLE, lambda c: {
        key: [text.replace("cat", "bow1") for text in texts] for key, texts in c.items()}), "among training and test"),
    "an image twice": (change(TABLE, lambda c: c["train_img_files"].__setitem__(1, c["train_img_files"][0])), "twice"),
    "fewer": (change(TABLE, lambda c: {key: texts[:2] for key, texts in c.items()}), "lists 2 'train_img_concepts'"),
    "outside": (change(TABLE, lambda c: {key: [text.replace("aardvark", "../x") for text in texts]
                                         for key, texts in c.items()}), "not a path inside"),
    "no list": (change(TABLE, without("test_img_files")), "should have a list of texts under 'test_img_files'"),
    "an image absent": (lambda folder: next((folder / "image_set").rglob("bow1_01b.jpg")).unlink(),
                        r"1 of the images cannot be used.*bow1_01b\.jpg"),
    "no folder": (lambda folder: shutil.rmtree(folder / "image_set" / "test_images"), "no folder 'test_images'"),
    "none": (lambda folder: shutil.rmtree(folder / "image_set"), "--images-dir"),
}  # fmt: skip


@pytest.mark.parametrize("fault", IMAGES)
def test_images(whole, tmp_path, fault):
    damage, words = IMAGES[fault]
    refused(whole, tmp_path, "ubp", damage, words)
