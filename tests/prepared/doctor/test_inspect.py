"""The leak guard: every planted fault is found, and nothing is found in a clean data set."""

import json
import math
import re
from collections import Counter, defaultdict
from operator import itemgetter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from neural_clip.commands.doctor import main
from neural_clip.errors import DataError
from neural_clip.prepared.doctor import scan as doctor_scan
from neural_clip.prepared.doctor.inspect import inspect
from neural_clip.prepared.doctor.labels import Labels, check_labels
from neural_clip.prepared.doctor.scan import scan_folder
from neural_clip.prepared.doctor.values import fitted_rows
from neural_clip.prepared.facts import fingerprint
from neural_clip.prepared.moments import Moments, RowMoments, block_moments
from neural_clip.prepared.writer import write_prepared
from second_process import python

SPLITS = ("train",) * 60 + ("validation",) * 12 + ("test",) * 24
N_IMAGES, CONCEPTS, SHAPE, N_VOXELS = len(SPLITS), 4, (5, 8), 9
COLUMNS = {
    "subject": pa.string(), "session": pa.string(), "run": pa.string(), "trial": pa.int32(), "image_id": pa.string(),
    "concept": pa.string(), "categories": pa.list_(pa.string()), "n_repeats": pa.int32(),
}  # fmt: skip
VALUES = {"eeg": pa.list_(pa.list_(pa.float32())), "fmri": pa.list_(pa.float32())}


class Planted:
    """A clean set as rows of Python dictionaries, to be spoilt and written without our own writer."""

    def __init__(self, modality="eeg", seed=0, n_subjects=2):
        rng = np.random.default_rng(seed)
        concept = rng.permutation(np.arange(N_IMAGES) % CONCEPTS)
        self.facts = {
            "format_version": 1, "corpus": "planted", "modality": modality, "split_unit": "image", "unit": None,
            "split_protocol": "by hand", "redistribution": "allowed",
            "scaling": {"method": "none", "fit_scope": "none"},
            "image_encoder": {"name": "x", "revision": "0", "pooling": "mean"},
        }  # fmt: skip
        self.images = [
            {"image_id": f"im{i:02d}", "concept": f"c{concept[i]}", "categories": [f"c{concept[i]}"],
             "image": {"bytes": bytes([i, 1]), "path": None}, "image_embeds": rng.normal(size=6).tolist()}
            for i in range(N_IMAGES)
        ]  # fmt: skip
        self.rows = []
        for subject in range(1, n_subjects + 1):
            for trial, i in enumerate(rng.permutation(N_IMAGES).tolist()):
                shape = SHAPE if modality == "eeg" else (N_VOXELS + subject,)
                self.rows.append({
                    "subject": f"sub-{subject:02d}", "session": f"ses-{1 + trial // 48:02d}", "run": "run-01",
                    "trial": trial, "image_id": f"im{i:02d}", "concept": f"c{concept[i]}", "n_repeats": 1,
                    "categories": [f"c{concept[i]}"], "values": rng.normal(size=shape).astype(np.float32),
                    "split": SPLITS[i], "folder": f"sub-{subject:02d}",
                })  # fmt: skip

    def of(self, *splits, subject=None):
        return [row for row in self.rows if row["split"] in splits and subject in (None, row["subject"])]

    def write(self, folder):
        modality = self.facts["modality"]
        files = defaultdict(list)
        for row in self.rows:
            files[f"data/{row['folder']}/{row['split']}-00000.parquet"].append(row)
        for name, rows in files.items():
            columns = {key: pa.array([row[key] for row in rows], type_) for key, type_ in COLUMNS.items()}
            columns[modality] = pa.array(
                [list(map(list, row["values"])) if modality == "eeg" else row["values"] for row in rows],
                VALUES[modality],
            )
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(columns), folder / name, row_group_size=7)
        (folder / "images").mkdir(parents=True)
        pq.write_table(
            pa.Table.from_pylist(self.images), folder / "images" / "images-00000.parquet", row_group_size=50
        )
        (folder / "neural_clip.json").write_text(json.dumps(self.facts))
        return folder


def faults(findings):
    return {(finding.check, finding.severity) for finding in findings if finding.severity != "note"}


def message_of(findings, check):
    return " ".join(finding.message for finding in findings if finding.check == check)


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_clean_set_has_notes_only(tmp_path, modality):
    findings = inspect(Planted(modality).write(tmp_path / "set"))
    assert [(finding.check, finding.severity) for finding in findings] == [("concepts", "note")]
    assert findings[0].message == "4 of the 4 test concepts occur in training."


@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
def test_sets_of_the_writer_are_clean(tmp_path, modality):
    from planted_data import write_planted  # loads torch

    folder = write_planted(tmp_path / "set", modality)
    assert faults(inspect(folder)) == set()
    assert [finding.check for finding in inspect(folder)] == ["concepts", "simulated"]


def move(rows, split):
    for row in rows:
        row["split"] = split


def shared_image(planted):
    move([row for row in planted.rows if row["image_id"] == planted.of("train")[0]["image_id"]][:1], "test")


def repeat_in_test(planted):
    row = planted.of("train")[0]
    values = np.random.default_rng(9).normal(size=SHAPE)
    planted.rows.append(row | {"split": "test", "trial": 500, "values": values})


def shared_run(planted):
    planted.facts |= {"category_level": True, "split_unit": "run"}
    for row in planted.rows:
        row["run"] = row["split"]
    planted.of("train")[0]["run"] = "test"


def copied(source, target):
    def spoil(planted):
        rows = planted.of(source[0], subject=source[1])
        other = next(row for row in planted.of(target[0], subject=target[1]) if row is not rows[0])
        other["values"] = rows[0]["values"]

    return spoil


def same_trial(planted):
    first = planted.of("train")[0]
    planted.rows.append(first | {"values": first["values"] + 1})


def same_pixels(*splits):
    def spoil(planted):
        first, second = ([row["image_id"] for row in planted.of(split)][1 + i] for i, split in enumerate(splits))
        images = {image["image_id"]: image for image in planted.images}
        images[second]["image"] = images[first]["image"]

    return spoil


def same_embeds(planted):
    images = {image["image_id"]: image for image in planted.images}
    train, test = planted.of("train")[0]["image_id"], planted.of("test")[0]["image_id"]
    images[test]["image_embeds"] = images[train]["image_embeds"]


def channel(number, change, part=slice(None), subject="sub-01"):
    def spoil(planted):
        for row in [row for row in planted.rows if row["subject"] == subject][part]:
            row["values"][number] = change(row["values"][number])

    return spoil


def facts(**changes):
    def spoil(planted):
        planted.facts |= changes

    return spoil


def all_values(change):
    def spoil(planted):
        for row in planted.rows:
            row["values"] = np.float32(change(row["values"]))

    return spoil


def blocks(planted):
    for subject in ("sub-01", "sub-02"):
        rows = sorted((row for row in planted.rows if row["subject"] == subject), key=lambda row: row["concept"])
        for trial, row in enumerate(rows):
            row |= {"trial": trial, "session": "ses-01"}


def category_blocks(planted):
    blocks(planted)
    for row in planted.rows:  # concepts of one image each tell nothing of blocks
        row["concept"] = row["image_id"]


def one_class(planted):
    for row in planted.rows:
        i = int(row["image_id"][2:])
        row["concept"] = "common" if i % 3 else f"rare{i % 12}"
    for image in planted.images:
        image["concept"] = "any"


def embeds(change):
    def spoil(planted):
        for i, image in enumerate(planted.images):
            image["image_embeds"] = change(i, image["image_embeds"])

    return spoil


def without(*splits):
    def spoil(planted):
        planted.rows = [row for row in planted.rows if row["split"] not in splits]

    return spoil


def lost_image(planted):
    planted.images = [image for image in planted.images if image["image_id"] != planted.rows[0]["image_id"]]


def image_twice(planted):
    planted.images.append(planted.images[0] | {"image": {"bytes": b"new", "path": None}, "image_embeds": [1.0] * 6})


def no_embeds(planted):
    for image in planted.images:
        del image["image_embeds"]


def one_shape(planted):
    planted.rows[3]["values"] = planted.rows[3]["values"][:-1]


def ragged(planted):
    planted.rows[3]["values"] = [list(map(float, range(n))) for n in (3, 8, 8, 8, 8)]


ZSCORE = {"unit": "z (V before scaling)", "scaling": {"method": "z", "fit_scope": "train"}}
FAULTS = {
    "image in two splits": (
        shared_image,
        ("split overlap", "error"),
        r"1 images .*0 within a subject, 1 across.*train",
    ),
    "repeat in test": (repeat_in_test, ("split overlap", "error"), r"\(1 within a subject, 0 across subjects only\)"),
    "run in two splits": (shared_run, ("split overlap", "error"), r"1 runs .* sub-01/ses-0./test \(train and test\)"),
    "row twice": (
        copied(("train", "sub-01"), ("train", "sub-01")),
        ("duplicate recordings", "warning"),
        "2 rows.*withi",
    ),
    "row in test": (
        copied(("train", "sub-01"), ("test", "sub-01")),
        ("duplicate recordings", "error"),
        "different splits",
    ),
    "other name": (
        copied(("test", "sub-01"), ("test", "sub-02")),
        ("duplicate recordings", "error"),
        "different subjects",
    ),
    "trial twice": (same_trial, ("duplicate trials", "warning"), "2 rows share .* sub-01/ses-01/run-01 trial"),
    "pixels across": (
        same_pixels("train", "test"),
        ("duplicate images", "error"),
        "2 images have 1 identical files in d",
    ),
    "pixels within": (same_pixels("test", "test"), ("duplicate images", "warning"), "identical files within a split"),
    "embeds across": (same_embeds, ("duplicate images", "error"), "identical embeddings in different splits"),
    "zero-shot": (
        facts(split_protocol="zero_shot"),
        ("concepts", "warning"),
        "speaks of zero-shot, but 'c0', 'c1', 'c2'",
    ),
    "constant": (channel(2, lambda v: v * 0 + 0.1), ("constant channels", "warning"), "sub-01: 1 of 5 .*: channel 2"),
    "flat": (channel(2, lambda v: v * 0 + v[0], slice(0, 40)), ("flat channels", "warning"), r"channel 2 \(42%\)"),
    "nan": (channel(1, lambda v: v * np.nan, slice(3, 4)), ("values", "error"), "1 rows .*: 8 in a row of image 'im"),
    "infinite": (channel(1, lambda v: v + np.inf, slice(3, 5)), ("values", "error"), "2 rows"),
    "shape": (one_shape, ("values", "error"), r"191 of shape \(5, 8\), 1 of shape \(4, 8\)"),
    "ragged": (ragged, ("values", "error"), r"1 of shape \(5, -1\)"),
    "loud": (
        channel(4, lambda v: v * 5000),
        ("scale", "warning"),
        r"sub-01: 1 channels .*channel 4 \([45]\d{3} times\)",
    ),
    "not volts": (
        facts(unit="V"),
        ("scale", "warning"),
        r"deviates by (1|0.9\d|1.0\d*), but the unit is stated as 'V'",
    ),
    "not tesla": (facts(unit="T"), ("scale", "warning"), "stated as 'T'"),
    "not z": (
        lambda p: (facts(**ZSCORE)(p), all_values(lambda v: 30 * v)(p)),
        ("scale", "warning"),
        r"stated as 'z \(V before",
    ),
    "tesla": (
        lambda p: (facts(unit="T")(p), all_values(lambda v: 1e-13 * v)(p)),
        ("scale", "warning"),
        r"deviates by (1|9.\d|1.\d)e-1[34] T; networks train on values that deviate by about 1.",
    ),
    "fitted on all": (facts(scaling={"fit_scope": "all"}), ("fit scope", "error"), "declares that"),
    "scope unknown": (facts(scaling={"fit_scope": "unknown"}), ("fit scope", "warning"), "is unknown"),
    "scope odd": (
        facts(scaling={"fit_scope": "session"}),
        ("fit scope", "warning"),
        "'session', which is none of train,",
    ),
    "declared blocks": (facts(block_confounded=True), ("block design", "warning"), "are declared as a block design.$"),
    "blocks": (
        blocks,
        ("block design", "warning"),
        r"not declared.*97% of trials share their concept.*24.\d% in random",
    ),
    "category blocks": (category_blocks, ("block design", "warning"), "share their category"),
    "one class": (
        one_class,
        ("class balance", "warning"),
        r"'common' has \d+ of \d+ rows of .*, 3.\d times the mean of 5",
    ),
    "other images": (lost_image, ("images", "error"), "1 image ids of recordings are not among the images: 'im"),
    "image twice": (image_twice, ("images", "error"), "1 image ids occur twice: 'im00'"),
    "no test": (without("test"), ("splits", "error"), "no test split"),
    "no validation": (without("validation"), ("splits", "warning"), "no validation split"),
    "no training": (without("train"), ("splits", "error"), "no train split"),
    "zeros": (embeds(lambda i, e: e if i else [0.0] * 6), ("embeddings", "error"), "1 are all zeros: 'im00'"),
    "nan embeds": (embeds(lambda i, e: e if i else [math.nan] * 6), ("embeddings", "error"), "1 hold values .*'im00'"),
    "same embeds": (embeds(lambda i, e: [1.0, 2, 3, 4, 5, 6]), ("embeddings", "error"), "All 96 are identical"),
    "collapsed": (embeds(lambda i, e: [x + 100 for x in e]), ("embeddings", "warning"), "0.99.. *|1.0000"),
    "widths": (
        embeds(lambda i, e: e if i else e[:5]),
        ("embeddings", "error"),
        "one width: 95 are 6 wide, 1 are 5 wide",
    ),
    "no encoder": (facts(image_encoder=None), ("embeddings", "error"), "no image encoder is stated"),
    "no embeddings": (no_embeds, ("embeddings", "error"), "no image has an embedding"),
    "other width": (facts(image_encoder={"name": "x", "projection_dim": 7}), ("embeddings", "error"), "6 wide"),
    "channels": (facts(n_chans=6, n_times=8), ("counts", "error"), "n_chans is 5 instead of 6.$"),
    "places": (facts(ch_positions=[[0, 0, 0.1]] * 2), ("counts", "error"), "length of ch_positions is 5 instead of 2"),
    "names": (facts(ch_names=["a", "b"]), ("counts", "error"), "length of ch_names is 5 instead of 2"),
    "subjects": (facts(subjects=["sub-01"]), ("counts", "error"), "subjects is"),
    "subject rows": (
        facts(subject_splits={"sub-01": {"train": 61, "validation": 12, "test": 24}}),
        ("counts", "error"),
        r"subject_splits sub-01 train is 60 instead of 61, subject_splits sub-02 is \{.*\} instead of None",
    ),
    "fingerprint": (facts(fingerprint="0" * 64), ("fingerprint", "error"), "instead of 000000000000"),
    "named otherwise": (
        lambda p: p.rows[0].update(subject="sub-02"),
        ("subjects", "error"),
        "'sub-02' in the files of",
    ),
    "unknown name": (
        lambda p: p.rows[0].update(subject="sub-09"),
        ("subjects", "error"),
        "some of whom have no files",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_planted_fault_is_found_and_nothing_else(tmp_path, fault):
    spoil, expected, message = FAULTS[fault]
    planted = Planted()
    spoil(planted)
    findings = inspect(planted.write(tmp_path / "set"))
    assert faults(findings) == {expected}
    assert re.search(message, message_of(findings, expected[0])), message_of(findings, expected[0])
    assert all(finding.message.endswith(".") and finding.consequence.endswith(".") for finding in findings)


def test_a_set_without_a_validation_split_is_told_how_epochs_are_chosen(tmp_path):
    planted = Planted()
    without("validation")(planted)
    found = inspect(planted.write(tmp_path / "set"))
    (consequence,) = [finding.consequence for finding in found if finding.check == "splits"]
    assert "cross-validation on the training split (`folds`)" in consequence


def test_counts_of_the_metadata_are_compared_only_where_they_are_stated(tmp_path):
    planted = Planted("fmri")
    planted.facts |= {"n_voxels": {"sub-01": 10, "sub-02": 12}, "n_chans": None, "splits": None, "subjects": None}
    planted.facts["splits"] = {"test": {"rows": 48, "images": 24, "concepts": 4}}
    found = message_of(inspect(planted.write(tmp_path / "set")), "counts")
    assert "n_voxels sub-02 is 11 instead of 12" in found
    assert "sub-01" not in found
    assert "splits train is" in found
    assert "splits test" not in found


def test_voxels_may_differ_between_subjects_but_not_within_one(tmp_path):
    planted = Planted("fmri")
    planted.rows[0]["values"] = planted.rows[0]["values"][:-1]
    findings = inspect(planted.write(tmp_path / "set"))
    assert faults(findings) == {("values", "error")}
    assert "Rows of sub-01 have different shapes" in message_of(findings, "values")


def test_images_that_are_the_same_in_files_and_embeddings_are_reported_once(tmp_path):
    planted = Planted()
    same_pixels("train", "test")(planted)
    first = next(image for image in planted.images for other in planted.images
                 if image is not other and image["image"] == other["image"])  # fmt: skip
    for image in planted.images:
        if image["image"] == first["image"]:
            image["image_embeds"] = first["image_embeds"]
    found = [finding for finding in inspect(planted.write(tmp_path / "set")) if finding.check == "duplicate images"]
    assert [finding.message.split(" in different")[0] for finding in found] == ["2 images have 1 identical files"]


def of_categories():
    """A planted set whose recordings name categories and are split by run."""
    planted = Planted()
    planted.facts |= {"category_level": True, "split_unit": "run"}
    for row in planted.rows:
        row |= {"image_id": f"im{int(row['concept'][1]):02d}", "run": f"{row['split']}-{row['trial'] % 2}"}
    planted.images = planted.images[:CONCEPTS]
    return planted


def test_category_level_sets_share_images_but_not_runs(tmp_path):
    planted = of_categories()
    findings = inspect(planted.write(tmp_path / "set"))
    assert faults(findings) == set()
    (told,) = (finding.consequence for finding in findings if finding.check == "concepts")
    assert told == "Scores tell known concepts in new recordings; they are not zero-shot."
    for trial, row in enumerate(sorted(planted.rows, key=lambda row: (row["run"], row["concept"]))):
        row["trial"] = trial
    assert faults(inspect(planted.write(tmp_path / "sorted"))) == {("block design", "warning")}


def test_subject_without_test_rows(tmp_path):
    planted = Planted()
    planted.rows = [row for row in planted.rows if row["split"] != "test" or row["subject"] == "sub-01"]
    assert faults(inspect(planted.write(tmp_path / "set"))) == {("splits", "warning")}
    by_run = inspect(tmp_path / "set", metadata=planted.facts | {"split_unit": "recording", "category_level": True})
    assert ("splits", "note") in {(finding.check, finding.severity) for finding in by_run}


def test_notes_tell_stamps_and_concepts(tmp_path):
    planted = Planted()
    planted.facts |= {"partial": {"trials": {}}, "simulated": {"seed": 0}, "redistribution": "forbidden"}
    for row in planted.rows:
        row["concept"] += "t" if row["split"] == "test" and row["concept"] != "c0" else ""
    planted.images.append(planted.images[0] | {"image_id": "spare", "image": None, "image_embeds": [1.0] * 6})
    findings = inspect(planted.write(tmp_path / "set"))
    assert faults(findings) == set()
    assert [finding.check for finding in findings] == ["concepts", "images", "simulated", "partial", "redistribution"]
    assert findings[0].message == "1 of the 4 test concepts occur in training. Not trained on: 'c1t', 'c2t', 'c3t'."
    assert findings[1].message == "1 of 97 images have no recording: 'spare'."
    for row in planted.rows:
        row["concept"] += "t" if row["split"] == "test" else ""
    disjoint = inspect(planted.write(tmp_path / "zero"))
    assert "zero-shot: no test concept" in next(f.consequence for f in disjoint if f.check == "concepts")


def test_repeats_in_a_row_and_averaged_rows_are_no_block_design(tmp_path):
    planted = Planted()
    planted.rows = [row | {"trial": 2 * row["trial"] + i, "values": row["values"] + i}
                    for row in planted.rows for i in range(2)]  # fmt: skip
    assert faults(inspect(planted.write(tmp_path / "repeats"))) == set()
    planted = Planted()
    blocks(planted)
    planted.facts["average_repeats"] = True
    assert faults(inspect(planted.write(tmp_path / "averaged"))) == set()
    planted.facts["average_repeats"] = False
    planted.rows.sort(key=lambda row: row["trial"])
    for row in planted.rows:  # trials of different runs are no neighbours
        row["run"] = f"run-{row['trial']:02d}"
    assert faults(inspect(planted.write(tmp_path / "runs"))) == set()


def test_blocks_of_two_classes_and_of_whole_runs_are_found(tmp_path):
    for name, run in (("two", lambda i: "run-01"), ("runs", lambda i: f"run-{i // 12:02d}")):
        planted = Planted()
        for i, row in enumerate(sorted(planted.rows, key=lambda row: (row["subject"], row["trial"]))):
            row |= {"concept": f"c{i // 12 % 2}", "run": run(i % N_IMAGES), "session": "", "categories": []}
        assert ("block design", "warning") in faults(inspect(planted.write(tmp_path / name)))


def has_blocks(concepts):
    """Whether the doctor finds blocks in trials of one run, each of an image of its own."""
    number, zeros = np.arange(len(concepts)), np.zeros(len(concepts), dtype=np.int64)
    codes = dict.fromkeys(("subject", "stated_subject", "session", "run", "category", "split"), zeros)
    codes |= dict.fromkeys(("trial", "image_id", "hash"), number) | {"concept": np.array(concepts), "n_repeats": zeros}
    names = {"subject": ["sub-01"], "stated_subject": ["sub-01"], "session": ["s"], "run": ["r"], "category": [""]}
    names |= {
        "split": ["train", "validation", "test"],
        "image_id": [f"im{i}" for i in number],
        "concept": [f"c{i}" for i in range(60)],
    }
    return any(finding.check == "block design" for finding in check_labels(Labels(codes, names), {}))


@pytest.mark.parametrize(("n_pairs", "found"), [(9, False), (10, True), (11, True)])
def test_fewer_than_ten_pairs_are_no_blocks(n_pairs, found):
    assert has_blocks([*np.repeat(np.arange(n_pairs), 2), *range(20, 60)]) is found  # pairs, then each its own


def test_pairs_that_random_order_may_give_are_no_blocks():
    """Ten pairs where three are expected: more than three times as many, but only by four deviations."""
    concepts = np.array([*np.repeat(np.arange(10), 2), *range(10, 15), *range(15), *range(10, 15), *range(15)])
    assert (np.bincount(concepts) == 4).all() and (concepts[1:] == concepts[:-1]).sum() == 10
    assert not has_blocks(concepts)


def test_small_imbalance_by_chance_is_not_reported(tmp_path):
    planted = Planted()
    for row in planted.rows:  # 24 test images of 20 concepts, one of them 5 times: chance does that
        i = int(row["image_id"][2:])
        row["concept"] = "c0" if 72 <= i < 76 else f"c{i % 20}"
    assert faults(inspect(planted.write(tmp_path / "set"))) == set()


def test_whole_numbers_gaps_and_files_without_rows_are_read(tmp_path):
    planted = Planted("fmri")
    for row in planted.rows:
        row["values"] = [int(value) for value in 50 * row["values"]]
    planted.rows[0]["values"] = [None, *planted.rows[0]["values"][1:]]
    planted.rows[1]["values"] = None
    folder = planted.write(tmp_path / "set")
    findings = inspect(folder)
    assert faults(findings) == {("values", "error")}
    assert "1 rows hold values that are not finite or beyond float32: 1 in a row" in message_of(findings, "values")
    assert "1 of shape (0,)" in message_of(findings, "values")
    path = folder / "data" / "sub-02" / "train-00000.parquet"
    for table in (pq.read_table(path), pq.read_table(path).slice(0, 0)):
        whole = table["fmri"].cast(pa.list_(pa.int16()))
        place = table.column_names.index("fmri")
        pq.write_table(table.set_column(place, "fmri", whole), path.with_stem(f"train-0000{len(table) > 0:d}"))
    assert faults(inspect(folder)) == {("values", "error")}


# ---- statistics fitted on test ----


def moments_by_split(values, splits, weights=None):
    weights = np.ones(len(values)) if weights is None else weights
    return {split: block_moments(values[splits == split], weights[splits == split]) for split in np.unique(splits)}


def zscored(values, fit):
    axes = (0,) if values.ndim == 2 else (0, 2)
    mean, std = values[fit].mean(axis=axes, keepdims=True), values[fit].std(axis=axes, keepdims=True)
    return ((values - mean) / std).astype(np.float32)


@st.composite
def recordings(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_rows, n_chans = draw(st.integers(12, 400)), draw(st.integers(3, 60))
    shape = (n_rows, n_chans, draw(st.integers(2, 30))) if draw(st.booleans()) else (n_rows, n_chans)
    values = rng.normal(size=shape)
    if draw(st.booleans()):  # channels that move together, and drifts
        values += 3 * rng.normal(size=(n_rows,) + (1,) * (len(shape) - 1))
    scale = rng.lognormal(sigma=2, size=(n_chans,) + (1,) * (len(shape) - 2))
    values = scale * (values + draw(st.sampled_from([0, 1, 100])) * rng.normal(size=scale.shape))
    n_test = draw(st.integers(max(3, n_rows // 10), n_rows // 3))
    n_validation = draw(st.integers(0, n_rows // 4))
    splits = np.array(["test"] * n_test + ["validation"] * n_validation + ["train"] * (n_rows - n_test - n_validation))
    return values, rng.permutation(splits), rng


@settings(max_examples=60, deadline=None, derandomize=True)
@given(recordings())
def test_statistics_of_training_rows_are_never_taken_for_others(drawn):
    values, splits, rng = drawn
    sessions = rng.permutation(np.arange(len(values)) % 3)
    assert fitted_rows(moments_by_split(zscored(values, splits == "train"), splits)) is None
    assert fitted_rows(moments_by_split(zscored(values, splits != "test"), splits)) is None
    by_session = values.copy()
    for session in range(3):
        rows = sessions == session
        if (splits[rows] == "train").sum() > 1:
            by_session[rows] = zscored(values[rows], splits[rows] == "train")
    assert fitted_rows(moments_by_split(by_session.astype(np.float32), splits)) is None
    assert fitted_rows(moments_by_split(values.astype(np.float32), splits)) is None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(recordings(), st.sampled_from(["float64", "float32"]))
def test_statistics_of_all_rows_or_of_test_rows_are_found(drawn, dtype):
    values, splits, _ = drawn
    everything = np.ones(len(values), bool)
    if np.abs(values).mean() / values.std() < 20:  # else float32 statistics are themselves wrong by more
        assert fitted_rows(moments_by_split(zscored(values.astype(dtype), everything), splits)) == "all"
    sessions = np.arange(len(values)) % 3
    by_session = np.concatenate([zscored(values[sessions == s], everything[sessions == s]) for s in range(3)])
    shuffled = np.concatenate([splits[sessions == s] for s in range(3)])
    assert fitted_rows(moments_by_split(by_session, shuffled)) == "all"
    own = np.concatenate([zscored(values[splits == s], everything[splits == s]) for s in ("train", "test")])
    if "validation" not in splits:
        assert fitted_rows(moments_by_split(own, np.sort(splits)[::-1])) == "test"


@settings(max_examples=30, deadline=None, derandomize=True)
@given(recordings())
def test_scaling_of_each_row_by_itself_is_not_taken_for_a_fit(drawn):
    values, splits, _ = drawn
    if values.ndim == 3:
        own = ((values - values.mean(axis=2, keepdims=True)) / values.std(axis=2, keepdims=True)).astype(np.float32)
        assert fitted_rows(moments_by_split(own, splits)) is None
        own = (values - values[:, :, :1]).astype(np.float32)  # a baseline of one sample
        assert fitted_rows(moments_by_split(own, splits)) is None


def test_rows_that_are_exactly_zero_in_the_mean_tell_nothing():
    values = np.random.default_rng(0).normal(size=(90, 5, 1)).astype(np.float32)
    splits = np.repeat(["train", "validation", "test"], 30)
    assert fitted_rows(moments_by_split(np.concatenate([values, -values], axis=2), splits)) is None


def test_means_of_very_many_rows_are_small_but_not_zero():
    rng = np.random.default_rng(0)
    for _ in range(300):
        splits = {}
        for split, n_rows in (("train", 200_000), ("test", 40_000)):
            chans, row_std = np.ones(4), 0.01  # rows of very many samples have means near 0
            mean = rng.normal(size=4) * row_std / n_rows**0.5 * (split == "test")
            within = chans * n_rows * 1000
            rows = Moments(n_rows, mean, chans * n_rows * row_std**2)
            splits[split] = RowMoments(rows, 1000, within, n_rows, mean, 0 * chans)
        assert fitted_rows(splits) is None


@pytest.mark.parametrize(("mean", "fitted"), [(3e-4, "all"), (1e-4, None)])
def test_training_means_below_a_thousandth_of_their_error_are_rounding(mean, fitted):
    """100 training rows of deviation 2 have means with a standard error of 0.2; those of 10 test rows balance them."""
    splits = {}
    for split, n_rows, found in (("train", 100, mean), ("test", 10, -10 * mean)):
        means = np.full(4, found)
        rows = Moments(n_rows, means, np.full(4, 4.0 * n_rows))
        splits[split] = RowMoments(rows, 1, np.zeros(4), n_rows, means, np.zeros(4))
    assert fitted_rows(splits) == fitted


def test_fit_on_all_trials_is_found_after_repeats_were_averaged():
    rng = np.random.default_rng(0)
    repeats = rng.integers(1, 4, 200)
    image = np.repeat(np.arange(200), repeats)
    trials = zscored(rng.normal(size=(len(image), 20)) + 5, np.ones(len(image), bool))
    rows = np.stack([trials[image == i].mean(axis=0) for i in range(200)]).astype(np.float32)
    splits = np.where(np.arange(200) < 150, "train", "test")
    assert fitted_rows(moments_by_split(rows, splits, repeats)) == "all"
    assert fitted_rows(moments_by_split(rows, splits)) is None  # so it is the weights that tell


def scaled(planted, fit, scope, by=("subject",)):
    planted.facts |= {"unit": "z", "scaling": {"method": "z", "fit_scope": scope}}
    place = itemgetter(*by)
    for key in {place(row) for row in planted.rows}:
        rows = [row for row in planted.rows if place(row) == key]
        values = np.stack([row["values"] for row in rows]).astype(np.float64) * 3 + 1
        for row, value in zip(rows, zscored(values, np.array([fit(row) for row in rows])), strict=True):
            row["values"] = value
    return planted


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
@pytest.mark.parametrize("by", [("subject",), ("subject", "session")])
def test_fit_scope_is_read_off_the_files(tmp_path, modality, by):
    folder = scaled(Planted(modality), lambda row: True, "train", by).write(tmp_path / "all")
    findings = inspect(folder)
    assert faults(findings) == {("fit scope", "error")}
    assert "fitted on the test split as well, though 'train' is declared" in message_of(findings, "fit scope")
    folder = scaled(Planted(modality), lambda row: row["split"] == "train", "train", by).write(tmp_path / "train")
    assert faults(inspect(folder)) == set()


def test_declared_scopes_soften_what_the_files_show(tmp_path):
    folder = scaled(Planted(), lambda row: True, "unknown").write(tmp_path / "set")
    facts_of = json.loads((folder / "neural_clip.json").read_text())
    assert faults(inspect(folder)) == {("fit scope", "warning")}
    told = inspect(folder, metadata=facts_of | {"scaling": {"method": "z", "fit_scope": "run"}})
    assert faults(told) == set()
    assert "run by run as declared" in message_of(told, "fit scope")


def test_test_rows_scaled_by_their_own_statistics_are_found(tmp_path):
    planted = scaled(Planted(), lambda row: row["split"] == "train", "train")
    for subject in ("sub-01", "sub-02"):
        rows = planted.of("test", subject=subject)
        own = zscored(np.stack([row["values"] for row in rows]).astype(np.float64), np.ones(len(rows), bool))
        for row, value in zip(rows, own, strict=True):
            row["values"] = value
    findings = inspect(planted.write(tmp_path / "set"))
    assert faults(findings) == {("fit scope", "error")}
    assert "the test rows alone is 0 to rounding (sub-01, sub-02, all subjects together)" in message_of(
        findings, "fit scope"
    )
    by_run = planted.facts | {"split_unit": "run", "category_level": True}
    assert ("fit scope", "warning") in faults(inspect(tmp_path / "set", metadata=by_run))


def test_fit_over_all_subjects_together_is_found(tmp_path):
    planted = Planted()
    for row in planted.rows:
        row["values"] += {"sub-01": 0, "sub-02": 2}[row["subject"]]
    planted = scaled(planted, lambda row: True, "train", by=("run",))
    findings = inspect(planted.write(tmp_path / "set"))
    assert faults(findings) == {("fit scope", "error")}
    assert "(all subjects together)" in message_of(findings, "fit scope")


# ---- against slow computations ----


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_scan_agrees_with_plain_loops_over_load_dataset(tmp_path, modality, monkeypatch):
    monkeypatch.setattr("neural_clip.prepared.moments.BLOCK_VALUES", 100)  # several blocks a batch
    monkeypatch.setattr(doctor_scan, "BATCH_BYTES", 1)  # a row a batch
    rng = np.random.default_rng(3)
    subjects, images = (
        ("sub-01", "sub-02"),
        [{"image_id": f"i{i}", "image_embeds": rng.normal(size=3)} for i in range(30)],
    )
    rows = [
        {"subject": subject, "image_id": f"i{i}", "split": ("train", "validation", "test")[min(i // 10, 2)],
         "session": f"s{i % 2}", "concept": f"c{i % 7}", "n_repeats": 1 + i % 3,
         modality: 40 + rng.normal(size=SHAPE if modality == "eeg" else 6 + int(subject[-1]))}
        for subject in subjects for i in range(30)
    ]  # fmt: skip
    metadata = {
        "corpus": "toy", "modality": modality, "split_protocol": "p", "split_unit": "image", "licence": "l",
        "redistribution": "allowed", "citation": "c", "source": "s", "sfreq": 1.0, "tmin": 0.0,
        "image_encoder": {"name": "x"},
    }  # fmt: skip
    folder = write_prepared(tmp_path / "set", metadata, rows, images, shard_rows=4)
    scan = scan_folder(folder, modality)
    for subject in subjects:
        for split in ("train", "validation", "test"):
            stored = load_dataset(str(folder), subject, split=split, cache_dir=str(tmp_path / "cache"))
            parts = [part for part in scan.recordings if (part.subject, part.split) == (subject, split)]
            assert len(parts) > 1
            assert Counter(name for part in parts for name in part.labels["image_id"].to_pylist()) == Counter(
                stored["image_id"]
            )
            moments = parts[0].moments
            for part in parts[1:]:
                moments = moments.merged(part.moments)
            for chan in range(moments.mean.size):
                own = [np.atleast_1d(row[modality][chan]).tolist() for row in stored]
                flat = [value for values in own for value in values]
                mean = math.fsum(flat) / len(flat)
                std = math.sqrt(math.fsum((value - mean) ** 2 for value in flat) / len(flat))
                row_means = [math.fsum(values) / len(values) for values in own]
                row_std = math.sqrt(math.fsum((value - mean) ** 2 for value in row_means) / (len(own) - 1))
                weighted = math.fsum(w * m for w, m in zip(stored["n_repeats"], row_means, strict=True))
                np.testing.assert_allclose(moments.mean[chan], mean, rtol=1e-6)
                np.testing.assert_allclose(moments.std[chan], std, rtol=1e-5)
                np.testing.assert_allclose(moments.row_std[chan], row_std, rtol=1e-4)
                np.testing.assert_allclose(moments.weighted_mean[chan], weighted / sum(stored["n_repeats"]), rtol=1e-6)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.data())
def test_overlaps_and_duplicates_agree_with_plain_loops(tmp_path_factory, data):
    planted = Planted(seed=data.draw(st.integers(0, 5)))
    for row in data.draw(st.lists(st.sampled_from(range(len(planted.rows))), max_size=6)):
        planted.rows[row]["split"] = data.draw(st.sampled_from(["train", "test"]))
        planted.rows[row]["values"] = planted.rows[data.draw(st.integers(0, 191))]["values"]
    findings = inspect(planted.write(tmp_path_factory.mktemp("set") / "set"))
    splits, same = defaultdict(set), defaultdict(list)
    for row in planted.rows:
        splits[row["image_id"]].add(row["split"])
        same[row["values"].tobytes()].append(row)
    shared = sum(len(found) > 1 for found in splits.values())
    told = message_of(findings, "split overlap")
    assert told.startswith(f"{shared} images") if shared else not told
    groups = [rows for rows in same.values() if len(rows) > 1]
    subjects = [rows for rows in groups if len({row["subject"] for row in rows}) > 1]
    across = [rows for rows in groups if rows not in subjects and len({row["split"] for row in rows}) > 1]
    within = [rows for rows in groups if rows not in subjects and rows not in across]
    told = message_of(findings, "duplicate recordings")
    for kind, where in (
        (subjects, "under different subjects"),
        (across, "in different splits"),
        (within, "within a split"),
    ):
        expected = f"{sum(map(len, kind))} rows hold {len(kind)} identical recordings {where}"
        assert (expected in told) == bool(kind)


def test_processes_find_what_one_finds(tmp_path, monkeypatch):
    planted = Planted()
    shared_image(planted)
    folder = planted.write(tmp_path / "set")
    monkeypatch.setattr(doctor_scan, "PROCESS_BYTES", 0)
    assert inspect(folder, num_proc=2) == inspect(folder)
    with pytest.raises(DataError, match=r"'num_proc' parameter. Allowed is 1 and more, but got 0"):
        inspect(folder, num_proc=0)


# ---- damage ----


def test_damaged_files_are_named(tmp_path):
    folder = Planted().write(tmp_path / "set")
    for name in ("data/sub-02/test-00000.parquet", "images/images-00000.parquet"):
        path = folder / name
        whole = path.read_bytes()
        for damaged in (whole[:-20], whole[: len(whole) // 2], b"", b"PAR1" + bytes(len(whole)) + b"PAR1",
                        whole[:40] + bytes(200) + whole[240:]):  # fmt: skip
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=f"{path.name}' is (damaged|empty)"):
                inspect(folder)
        path.write_bytes(whole)
    inspect(folder)


def test_files_that_do_not_belong_are_named(tmp_path):
    folder = Planted().write(tmp_path / "set")
    for name in ("data/sub-01/dev-00000.parquet", "data/train-00000.parquet", "stray.parquet", "images/x.parquet"):
        stray = folder / name
        stray.write_bytes((folder / "images" / "images-00000.parquet").read_bytes())
        with pytest.raises(DataError, match=f"{stray.name}' is neither data/<subject>/<split>"):
            inspect(folder)
        stray.unlink()
    path = folder / "data" / "sub-01" / "train-00000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["run", "eeg"]), path)
    with pytest.raises(DataError, match=r"train-00000.parquet' lacks the columns run, eeg"):
        inspect(folder)
    voxels = pq.read_table(Planted("fmri").write(tmp_path / "voxels") / "data" / "sub-01" / "test-00000.parquet")
    names = [{"fmri": "eeg"}.get(name, name) for name in voxels.column_names]
    pq.write_table(voxels.rename_columns(names), path)
    with pytest.raises(
        DataError, match=r"train-00000.parquet' holds rows of shape \(10,\), which no eeg recording has"
    ):
        inspect(folder)
    for part, kind in (("images", "images"), ("data", "recordings")):
        lacking = Planted().write(tmp_path / f"no {kind}")
        for path in (lacking / part).rglob("*.parquet"):
            path.unlink()
        with pytest.raises(DataError, match=f"has no {kind}"):
            inspect(lacking)


def test_folder_without_metadata_is_no_prepared_data_set(tmp_path):
    with pytest.raises(DataError, match="no prepared data set"):
        inspect(tmp_path)


# ---- at the shell ----


def test_main_prints_findings_consequences_and_counts(tmp_path, capsys):
    folder = Planted().write(tmp_path / "clean")
    assert [finding.check for finding in main([str(folder)])] == ["concepts"]
    assert capsys.readouterr().out.splitlines() == [
        "note: concepts: 4 of the 4 test concepts occur in training.",
        "    Scores tell known concepts in new images; they are not zero-shot.",
        f"{folder}: 0 errors, 0 warnings, 1 note",
    ]
    planted = Planted()
    without("validation")(planted)
    assert next(finding.severity for finding in main([str(planted.write(tmp_path / "warned"))])) == "warning"
    capsys.readouterr()
    shared_image(planted)
    leaky = planted.write(tmp_path / "leaky")
    with pytest.raises(SystemExit) as stopped:
        main([str(leaky), "--json"])
    assert stopped.value.code == 1
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {"error": 1, "warning": 1, "note": 2}
    assert [finding["severity"] for finding in told["findings"]] == ["error", "warning", "note", "note"]
    assert set(told["findings"][0]) == {"check", "severity", "message", "consequence"}


def test_command_line_in_a_process_of_its_own(tmp_path):
    planted = Planted()
    planted.facts["fingerprint"] = fingerprint(planted.write(tmp_path / "set"))
    (tmp_path / "set" / "neural_clip.json").write_text(json.dumps(planted.facts))
    command = ["-m", "neural_clip.commands.main", "doctor"]

    def call(*arguments):
        return python(*command, *arguments)

    whole = call(str(tmp_path / "set"))
    assert (whole.returncode, whole.stderr) == (0, "")
    path = tmp_path / "set" / "data" / "sub-01" / "train-00000.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    changed = call(str(tmp_path / "set"), "--json", "--num-proc", "2")
    assert changed.returncode == 1
    assert json.loads(changed.stdout)["findings"][0]["check"] == "fingerprint"
    path.write_bytes(b"PAR1")
    damaged = call(str(tmp_path / "set"))
    assert damaged.returncode == 2
    assert damaged.stderr.startswith(f"error: '{path}' is damaged")


def held_out(planted, who="sub-02"):
    """Planted rows with one subject held out for testing."""
    planted.facts |= {"split_unit": "subject"}
    planted.rows = [row for row in planted.rows if row["subject"] == who or row["split"] != "test"]
    for row in planted.rows:
        row["split"] = "test" if row["subject"] == who else row["split"]
    return planted


def test_held_out_subjects_may_see_images_that_were_trained_on(tmp_path):
    found = inspect(held_out(Planted()).write(tmp_path / "set"))
    assert faults(found) == {("known images", "warning")}
    assert "72 images are in several splits, by different subjects; 96 are tested" in message_of(found, "known images")
    told = {finding.message: finding.consequence for finding in found if finding.check == "splits"}
    assert "evaluate --subject average" in told["1 of 2 subjects has no train rows: sub-02."]
    by_image = inspect(tmp_path / "set", metadata=Planted().facts)
    assert ("split overlap", "error") in faults(by_image)


def test_a_subject_that_is_not_held_out_whole_is_found(tmp_path):
    planted = held_out(Planted(n_subjects=3))
    next(row for row in planted.rows if row["subject"] == "sub-02")["split"] = "train"
    found = inspect(planted.write(tmp_path / "set"))
    assert ("split overlap", "error") in faults(found)
    assert "1 test subjects have rows in other splits, though subjects are held out: sub-02" in message_of(
        found, "split overlap"
    )


def test_images_that_two_splits_of_the_others_share_are_found(tmp_path):
    planted = held_out(Planted(n_subjects=3))
    rows = [row for row in planted.rows if row["subject"] == "sub-01"]
    first = next(row for row in rows if row["split"] == "train")
    next(row for row in rows if row["split"] == "validation")["image_id"] = first["image_id"]
    found = inspect(planted.write(tmp_path / "set"))
    assert "1 images are in more than one split (1 within a subject" in message_of(found, "split overlap")


def test_at_category_level_runs_of_the_others_are_not_divided(tmp_path):
    planted = held_out(Planted())
    planted.facts |= {"category_level": True}
    found = inspect(planted.write(tmp_path / "set"))
    assert "runs are in more than one split, which should divide subjects: sub-01/ses-0" in message_of(
        found, "split overlap"
    )


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, ("warning", "The test split has one image.", "`evaluate --gallery all` searches all images")),
        (2, ("warning", "The test split has 2 images.", "one lucky guess moves the score by 50%")),
        (4, ("warning", "The test split has 4 images.", "No interval can be given for fewer than 5")),
        (5, ("note", "The test split has 5 images.", "Intervals are wide")),
        (19, ("note", "The test split has 19 images.", "Intervals are wide")),
        (20, None),
    ],
)
def test_small_test_splits_are_commented_on(tmp_path, count, expected):
    planted = Planted()
    kept = sorted({row["image_id"] for row in planted.of("test")})[:count]
    planted.rows = [row for row in planted.rows if row["split"] != "test" or row["image_id"] in kept]
    found = [finding for finding in inspect(planted.write(tmp_path / "set")) if finding.check == "split size"]
    if expected is None:
        assert not found
        return
    ((severity, message, consequence),) = [(f.severity, f.message, f.consequence) for f in found]
    assert (severity, message) == expected[:2] and expected[2] in consequence


@pytest.mark.parametrize(("count", "words"), [(1, "no epoch or setting can be chosen"), (3, "are chosen by chance")])
def test_small_validation_splits_are_commented_on(tmp_path, count, words):
    planted = Planted()
    kept = sorted({row["image_id"] for row in planted.of("validation")})[:count]
    planted.rows = [row for row in planted.rows if row["split"] != "validation" or row["image_id"] in kept]
    (found,) = [finding for finding in inspect(planted.write(tmp_path / "set")) if finding.check == "split size"]
    assert found.severity == "warning" and words in found.consequence


def test_at_category_level_recordings_are_counted(tmp_path):
    planted = of_categories()
    assert not message_of(inspect(planted.write(tmp_path / "set")), "split size")  # four categories, 48 recordings
    kept = planted.of("test")[:3]
    planted.rows = [row for row in planted.rows if row["split"] != "test" or row in kept[:3]]
    found = message_of(inspect(planted.write(tmp_path / "few")), "split size")
    assert found == "The test split has 3 recordings."


def test_windows_that_splits_share_are_told_again(tmp_path):
    planted = Planted()
    planted.facts |= {"shared_windows": {"rows": 7, "held_out": 36}}
    found = inspect(planted.write(tmp_path / "set"))
    assert faults(found) == {("shared windows", "warning")}
    assert "The windows of 7 of 36 test and validation rows overlap" in message_of(found, "shared windows")


@pytest.mark.parametrize(("version", "n_absent"), [(1, 1), (2, 0)])
def test_absent_concepts_are_counted_as_the_format_says(tmp_path, version, n_absent):
    planted = Planted()
    for row in planted.rows:
        row |= {"concept": "", "categories": []}
    planted.facts |= {
        "format_version": version,
        "splits": {
            split: {"rows": 2 * count, "images": count, "concepts": n_absent}
            for split, count in (("train", 60), ("validation", 12), ("test", 24))
        },
    }
    assert not message_of(inspect(planted.write(tmp_path / "set")), "counts")
    planted.facts["splits"]["test"]["concepts"] = 1 - n_absent
    assert "concepts is" in message_of(inspect(tmp_path / "set", metadata=planted.facts), "counts")
