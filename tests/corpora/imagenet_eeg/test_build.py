"""ImageNetEEG builder, on small corpora written here by hand in the format of the release."""

import hashlib
import io
import json
import pickle
import runpy
import shutil
import sys
import tarfile
import warnings
from pathlib import Path

import mne
import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image
from scipy.signal import butter, sosfiltfilt

from damaged_bytes import flipped_bits
from imagenet_eeg_raw import LABELS, N_CHANS, NAMES, SPLIT_OF_IMAGE, SUBJECTS, build
from neural_clip.corpora.imagenet_eeg import build as imagenet_eeg
from neural_clip.corpora.imagenet_eeg.layout import FACTS, SPLIT_FACTS, SYNSETS, forget_recordings
from neural_clip.corpora.imagenet_eeg.options import IMAGE_DIR
from neural_clip.errors import DataError
from paths import REPOSITORY
from prepared_rows import rows_of


@pytest.fixture(scope="module")
def raw_dir(tmp_path_factory):
    return build(tmp_path_factory.mktemp("eeg") / "raw")


@pytest.fixture(scope="module")
def prepared(raw_dir, tmp_path_factory):
    return imagenet_eeg.prepare(raw_dir, tmp_path_factory.mktemp("eeg") / "prepared")


def rows_by_trial(folder, config="all"):
    """All rows by (subject, trial), with their split."""
    return {(row["subject"], row["trial"]): (split, row) for split, row in rows_of(folder, config)}


def test_rows_equal_the_raw_file(raw_dir, prepared):
    content = torch.load(raw_dir / "eeg_14_70_std.pth", weights_only=True)
    rows = rows_by_trial(prepared)
    assert len(rows) == len(content["dataset"]) == 23
    for i, trial in enumerate(content["dataset"]):
        split, row = rows[f"sub-{trial['subject']:02d}", i]
        np.testing.assert_array_equal(row["eeg"], trial["eeg"][:, 40:480].numpy())
        assert row["image_id"] == NAMES[trial["image"]]
        assert split == {"train": "train", "val": "validation", "test": "test"}[SPLIT_OF_IMAGE[trial["image"]]]
        assert list(row["categories"]) == [LABELS[trial["label"]]]
        assert row["concept"] == f"{LABELS[trial['label']]} round thing"


def test_images_are_the_files_themselves(raw_dir, prepared):
    table = load_dataset(str(prepared), "images", split="images").with_format("arrow")[:]
    assert sorted(table["image_id"].to_pylist()) == sorted(NAMES)
    for name, image in zip(table["image_id"].to_pylist(), table["image"].to_pylist(), strict=True):
        path = raw_dir / IMAGE_DIR / name.split("_")[0] / f"{name}.JPEG"
        assert image["bytes"] == path.read_bytes()


def test_metadata_says_what_it_is(prepared):
    facts = json.loads((prepared / "neural_clip.json").read_text())
    assert facts["block_confounded"] is True and facts["simulated"]["simulated"] is True
    assert facts["redistribution"] == "forbidden"
    assert facts["ch_names"] == ["EEG000", "EEG001", "EEG002"]
    assert (facts["n_times"], facts["tmin"], facts["sfreq"], facts["unit"]) == (440, 0.04, 1000.0, "z")
    assert facts["splits"]["test"]["images"] == 4 and facts["splits"]["test"]["rows"] == 8
    assert "block" in (prepared / "README.md").read_text()


@pytest.mark.parametrize(("block_drift", "confounded"), [(0.0, False), (0.5, True)])
def test_simulation_without_blocks_is_not_called_confounded(tmp_path, block_drift, confounded):
    raw = build(tmp_path / "raw")
    stamp = json.loads((raw / "SIMULATED.json").read_text())
    (raw / "SIMULATED.json").write_text(json.dumps(stamp | {"dials": {"block_drift": block_drift}}))
    facts = json.loads((imagenet_eeg.prepare(raw, tmp_path / "out") / "neural_clip.json").read_text())
    assert facts["block_confounded"] is confounded
    assert any("block design" in defect for defect in facts["known_defects"]) is confounded


def test_streams(prepared):
    first = next(iter(load_dataset(str(prepared), "sub-04", split="test", streaming=True)))
    assert first["subject"] == "sub-04" and np.shape(first["eeg"]) == (N_CHANS, 440)


def test_subjects_are_selected_after_the_split(raw_dir, prepared, tmp_path):
    """Global indices on a filtered list pick other trials: the defect of the releasers' loader."""
    alone = rows_by_trial(imagenet_eeg.prepare(raw_dir, tmp_path / "one", subjects=["sub-01"]))
    everyone = {key: value for key, value in rows_by_trial(prepared).items() if key[0] == "sub-01"}
    assert alone.keys() == everyone.keys() and len(alone) == 12
    for key, (split, row) in alone.items():
        assert split == everyone[key][0] and row["image_id"] == everyone[key][1]["image_id"]


def test_raw_is_scaled_by_training_trials(raw_dir, tmp_path):
    folder = imagenet_eeg.prepare(raw_dir, tmp_path / "raw", variant="raw", window=(20, 460))
    rows = rows_by_trial(folder)
    for subject in ("sub-01", "sub-04"):
        parts = {
            name: np.stack([row["eeg"] for (s, _), (split, row) in rows.items() if s == subject and split == name])
            for name in ("train", "test")
        }
        np.testing.assert_allclose(parts["train"].mean((0, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(parts["train"].std((0, 2)), 1, atol=1e-5)
        assert np.abs(parts["test"].mean((0, 2))).max() > 1e-4
    facts = json.loads((folder / "neural_clip.json").read_text())
    scaling = facts["scaling"]
    assert (scaling["method"], scaling["fit_scope"]) == ("z-score per subject and channel", "train")
    train = np.array(sorted(trial for (_, trial), (split, _) in rows.items() if split == "train"), dtype="<i8")
    assert scaling["fit_trials"] == len(train) == 11
    assert scaling["fit_trials_sha256"] == hashlib.sha256(train.tobytes()).hexdigest()


def test_training_scale_is_that_of_a_direct_computation(raw_dir, tmp_path):
    content = torch.load(raw_dir / "eeg_signals_raw_with_mean_std.pth", weights_only=True)["dataset"]
    rows = rows_by_trial(imagenet_eeg.prepare(raw_dir, tmp_path / "raw", variant="raw"))
    for number in SUBJECTS:
        own = {trial: row for (subject, trial), row in rows.items() if subject == f"sub-{number:02d}"}
        train = np.stack([content[i]["eeg"][:, 40:480].double() for i, (split, _) in own.items() if split == "train"])
        mean, spread = train.mean((0, 2))[:, None], train.std((0, 2))[:, None]
        for i, (_, row) in own.items():
            expected = (content[i]["eeg"][:, 40:480].double().numpy() - mean) / spread
            np.testing.assert_allclose(row["eeg"], expected, rtol=2e-7, atol=1e-12)


def test_raw_without_scaling_is_in_volts(raw_dir, tmp_path):
    folder = imagenet_eeg.prepare(raw_dir, tmp_path / "raw", variant="raw", standardize="none")
    content = torch.load(raw_dir / "eeg_signals_raw_with_mean_std.pth", weights_only=True)
    _, row = rows_by_trial(folder)["sub-04", 0]
    np.testing.assert_allclose(row["eeg"], content["dataset"][0]["eeg"][:, 40:480].numpy() * 1e-6, rtol=1e-6)
    assert json.loads((folder / "neural_clip.json").read_text())["unit"] == "V"


def test_length_range_filters(raw_dir, tmp_path):
    content = torch.load(raw_dir / "eeg_14_70_std.pth", weights_only=True)
    expected = {i for i, trial in enumerate(content["dataset"]) if 495 <= trial["eeg"].shape[1] <= 525}
    rows = rows_by_trial(imagenet_eeg.prepare(raw_dir, tmp_path / "short", length_range=(495, 525)))
    assert {trial for _, trial in rows} == expected and 0 < len(expected) < 23


def test_channel_names_from_a_file(raw_dir, tmp_path):
    (tmp_path / "names.txt").write_text("Fp1\nFp2\nF7\n")
    folder = imagenet_eeg.prepare(raw_dir, tmp_path / "out", ch_names_file=tmp_path / "names.txt")
    assert json.loads((folder / "neural_clip.json").read_text())["ch_names"] == ["Fp1", "Fp2", "F7"]
    (tmp_path / "names.txt").write_text("Fp1\nFp2\n")
    with pytest.raises(DataError, match="3 different channels"):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out2", ch_names_file=tmp_path / "names.txt")


def swap_subjects(content):
    content["dataset"][2]["subject"] = 1


def wrong_label(content):
    content["dataset"][0]["label"] = 1


def wrong_image(content):
    content["dataset"][0]["image"] = 99


def seventh_subject(content):
    content["dataset"][0]["subject"] = 7


def lost_channel(content):
    content["dataset"][4]["eeg"] = content["dataset"][4]["eeg"][:2]


def flat_trial(content):
    content["dataset"][4]["eeg"] = content["dataset"][4]["eeg"][0]


def no_finite(content):
    content["dataset"][4]["eeg"][1, 100] = float("nan")


def short_trial(content):
    content["dataset"][4]["eeg"] = content["dataset"][4]["eeg"][:, :470]


def foreign_class(content):
    content["labels"] = ["n03888257", "n00000000"]
    content["images"] = [name.replace("n02389026", "n00000000") for name in NAMES]


def no_labels(content):
    del content["labels"]


def name_is_a_path(content):
    content["images"] = [f"../../{NAMES[0]}", *NAMES[1:]]


def image_listed_twice(content):
    content["images"] = [*NAMES[:-2], NAMES[1], NAMES[1]]


def broken_number(content):
    content["dataset"][3]["image"] = 3.0


def huge_number(content):
    content["dataset"][3]["image"] = 2**70


def whole_numbers(content):
    content["dataset"][3]["eeg"] = content["dataset"][3]["eeg"].int()


def shuffled_images(content):
    order = np.random.default_rng(0).permutation(len(content["dataset"]))
    images = [content["dataset"][i]["image"] for i in order]
    for trial, image in zip(content["dataset"], images, strict=True):
        trial["image"] = image


def shuffled_images_within_class(content):
    """Of one subject: images 2 (train) and 8 (test) are of the same class."""
    for trial in content["dataset"]:
        if trial["subject"] == 1:
            trial["image"] = {2: 8, 8: 2}.get(trial["image"], trial["image"])


def exchanged_trials(content):
    """Image 7 of one subject for image 7 of the other; all else agrees."""
    own, other = (next(t for t in content["dataset"] if t["image"] == 7 and t["subject"] == s) for s in SUBJECTS)
    own["subject"], other["subject"] = other["subject"], own["subject"]


def third_subject(content):
    content["dataset"][2]["subject"] = 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap_subjects, "mixed up"),
        (wrong_label, "its label says 'n02389026'"),
        (wrong_image, "image 99; allowed values are 0 to 11"),
        (seventh_subject, "subject 7; allowed values are 1 to 6"),
        (lost_channel, "Trial 4 .* 2 channels, the others 3"),
        (flat_trial, "Trial 4 .* 2-D"),
        (no_finite, "not finite"),
        (short_trial, "Trial 4 .* 470 samples"),
        (foreign_class, "n00000000"),
        (no_labels, "no entry 'labels'"),
        (name_is_a_path, r"has '\.\./\.\./n03888257_100' under 'images'"),
        (image_listed_twice, "lists 'n02389026_101' more than once"),
        (broken_number, "Trial 3 .* whole numbers"),
        (huge_number, "image 2147483648; allowed"),
        (whole_numbers, r"Trial 3 .* torch\.int32"),
        (shuffled_images, "its label says"),
        (shuffled_images_within_class, "images must not cross splits"),
        (exchanged_trials, "groups_of_subjects: 6 instead of 2"),
        (third_subject, "subjects: 3 instead of 2"),
    ],
)
def test_contradictions_are_refused(tmp_path, change, message):
    raw_dir = build(tmp_path / "raw", change)
    with pytest.raises(DataError, match=message):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_corpus_is_refused(tmp_path, raw_dir):
    broken = build(tmp_path / "content")
    torch.save({"dataset": [{"eeg_data": 1}], "labels": [], "images": []}, broken / "eeg_14_70_std.pth")
    with pytest.raises(DataError, match="different corpus"):
        imagenet_eeg.prepare(broken, tmp_path / "out")
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "EEG-ImageNet_1.pth").write_bytes(b"")
    with pytest.raises(DataError, match="Tsinghua"):
        imagenet_eeg.prepare(tmp_path / "named", tmp_path / "out")


def crossing_images(splits):
    splits["splits"][0]["train"].append(splits["splits"][0]["test"].pop())


def listed_twice(splits):
    splits["splits"][0]["train"].append(splits["splits"][0]["test"][0])


def beyond_the_end(splits):
    splits["splits"][0]["test"].append(23)


def incomplete(splits):
    splits["splits"][0]["test"].pop()


def no_validation(splits):
    del splits["splits"][0]["val"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (crossing_images, "images must not cross splits"),
        (listed_twice, "again in 'test'"),
        (beyond_the_end, "names trial 23"),
        (incomplete, "covers 22 of the 23 trials"),
        (no_validation, "train, val and test"),
    ],
)
def test_wrong_splits_are_refused(tmp_path, change, message):
    raw_dir = build(tmp_path / "raw", splits_change=change)
    with pytest.raises(DataError, match=message):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out")


def test_single_subject_splits_are_refused(raw_dir, tmp_path):
    with pytest.raises(DataError, match="1,000 trials only"):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out", splits_file=raw_dir / "block_splits_by_image_single.pth")


class Malicious:
    """Runs code when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_does_not_run(tmp_path, zipped):
    raw_dir = build(tmp_path / "raw")
    target = tmp_path / "it_ran"
    torch.save({"dataset": Malicious(target)}, raw_dir / "eeg_14_70_std.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match=r"eeg_14_70_std\.pth.*namely .*open.* run code"):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out")
    assert not target.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_values_and_old_files_load(tmp_path, zipped):
    def as_numpy(content):
        for trial in content["dataset"]:
            trial["image"] = np.int64(trial["image"])
        content["means"] = np.zeros((N_CHANS, 1))

    raw_dir = build(tmp_path / "raw", as_numpy)
    content = torch.load(raw_dir / "eeg_14_70_std.pth", weights_only=False)
    torch.save(content, raw_dir / "eeg_14_70_std.pth", _use_new_zipfile_serialization=zipped)
    assert len(rows_by_trial(imagenet_eeg.prepare(raw_dir, tmp_path / "out"))) == 23


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0, 60, 0.5, -10])
def test_truncated_files_are_named(tmp_path, kept, zipped):
    raw_dir = build(tmp_path / "raw")
    path = raw_dir / "eeg_14_70_std.pth"
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept) if kept == 0.5 else kept])
    with pytest.raises(DataError, match=rf"eeg_14_70_std\.pth.*({'incomplete|damaged' if kept else 'is empty'})"):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out")


def test_missing_images_are_listed_once_or_dropped(tmp_path):
    raw_dir = build(tmp_path / "raw")
    missing = [NAMES[i] for i in (0, 3, 5, 11)]
    for name in missing:
        (raw_dir / IMAGE_DIR / name.split("_")[0] / f"{name}.JPEG").unlink()
    listing = tmp_path / "new" / "out.missing_images.txt"
    with pytest.raises(DataError, match="4 of 12 ") as caught:
        imagenet_eeg.prepare(raw_dir, tmp_path / "new" / "out")
    assert listing.read_text().split() == sorted(missing) and str(listing) in str(caught.value)
    assert sum(name in str(caught.value) for name in missing) == 3, "only the first few belong into a message"
    assert [path.name for path in listing.parent.iterdir()] == [listing.name]
    with pytest.warns(UserWarning, match="4 of 12") as caught:
        folder = imagenet_eeg.prepare(raw_dir, tmp_path / "out", missing_images="drop")
    assert len([w for w in caught if "4 of 12" in str(w.message)]) == 1
    assert {row["image_id"] for _, row in rows_by_trial(folder).values()} == set(NAMES) - set(missing)
    assert len(rows_by_trial(folder)) == 23 - 7  # subject 4 lacks the trial of image 5 anyway
    assert (folder / "missing_images.txt").read_text().split() == sorted(missing)
    facts = json.loads((folder / "neural_clip.json").read_text())
    assert any("4 images" in defect for defect in facts["known_defects"])
    assert not (tmp_path / "out.missing_images.txt").exists()


def test_nothing_is_missing_where_all_images_are(prepared):
    assert not (prepared / "missing_images.txt").exists()


def into_archive(raw_dir: Path) -> Path:
    """Replace the tree of images by the official tar of tars."""
    with tarfile.open(raw_dir / "ILSVRC2012_img_train.tar", "w") as outer:
        for folder in sorted((raw_dir / IMAGE_DIR).iterdir()):
            with tarfile.open(raw_dir / "aside.tar", "w") as inner:
                for path in sorted(folder.iterdir()):
                    inner.add(path, path.name)
            outer.add(raw_dir / "aside.tar", f"{folder.name}.tar")
    (raw_dir / "aside.tar").unlink()
    shutil.rmtree(raw_dir / "ILSVRC")
    return raw_dir / "ILSVRC2012_img_train.tar"


def image_table(folder):
    table = load_dataset(str(folder), "images", split="images").with_format("arrow")[:]
    return {row["image_id"]: row for row in table.to_pylist()}


def test_images_may_stay_in_their_archive(prepared, tmp_path):
    raw_dir = build(tmp_path / "raw")
    archive = into_archive(raw_dir)
    found = imagenet_eeg.prepare(raw_dir, tmp_path / "found")
    archive = archive.rename(tmp_path / "elsewhere.tar")
    named = imagenet_eeg.prepare(raw_dir, tmp_path / "named", image_dir=archive)
    assert image_table(found) == image_table(named) == image_table(prepared)


def test_a_damaged_image_in_an_archive_is_named(tmp_path):
    raw_dir = build(tmp_path / "raw")
    path = raw_dir / IMAGE_DIR / NAMES[4].split("_")[0] / f"{NAMES[4]}.JPEG"
    path.write_bytes(path.read_bytes()[:-100])
    into_archive(raw_dir)
    with pytest.raises(DataError, match=rf"{NAMES[4]}' in '.*ILSVRC2012_img_train\.tar'"):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"variant": "eeg_1_2"}, "'variant' .* 'eeg_14_70_std', .*'eeg_1_2'"),
        ({"window": (480, 40)}, "'window'"),
        ({"window": (40, 495)}, "fewer than the end"),
        ({"standardize": "test"}, "'standardize'"),
        ({"missing_images": "ignore"}, "'missing_images'"),
        ({"subjects": ["sub-02"]}, "Allowed values are 'sub-01' and 'sub-04'"),
        ({"length_range": (600, 700)}, "No trial"),
        ({"variant": "eeg_5_95_std"}, "'eeg_5_95_std.pth' was not found"),
        ({"image_dir": "/nowhere"}, "'/nowhere', which should hold ImageNet images, does not exist"),
        ({"standardize": "released"}, "'released' takes means"),
        ({"band_pass": (14, 70)}, "'band_pass' and 'notch' parameters are for the raw file"),
        ({"notch": 50}, "'band_pass' and 'notch' parameters are for the raw file"),
        ({"variant": "raw", "band_pass": (70, 14)}, r"'band_pass' .* low < high < 500, but got \(70, 14\)"),
        ({"variant": "raw", "band_pass": (0, 14)}, "'band_pass'"),
        ({"variant": "raw", "band_pass": (14, 500)}, "'band_pass'"),
        ({"variant": "raw", "band_pass": (14, float("inf"))}, "'band_pass'"),
        ({"variant": "raw", "band_pass": (float("nan"), 70)}, "'band_pass'"),
        ({"variant": "raw", "notch": float("nan")}, "'notch'"),
        ({"variant": "raw", "notch": 498}, "'notch' .* above 3 and below 497"),
        ({"variant": "raw", "notch": -50}, "'notch'"),
        ({"num_proc": 0}, "'num_proc'"),
    ],
)
def test_wrong_parameters_are_named(raw_dir, tmp_path, parameters, message):
    with pytest.raises(DataError, match=message):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out", **parameters)


def test_counts_are_checked(tmp_path):
    twin = build(tmp_path / "twin", counts_change={"trials": 24, "images": 13})
    with pytest.raises(DataError, match="trials: 23 instead of 24; images: 12 instead of 13"):
        imagenet_eeg.prepare(twin, tmp_path / "out")
    real = build(tmp_path / "real", stamped=False)
    with pytest.raises(DataError, match="trials: 23 instead of 11965"):
        imagenet_eeg.prepare(real, tmp_path / "out")
    with pytest.warns(UserWarning, match="one block"):
        folder = imagenet_eeg.prepare(real, tmp_path / "out", allow_partial=True)
    facts = json.loads((folder / "neural_clip.json").read_text())
    assert facts["simulated"] is None and "part of the corpus: 23 trials" in facts["known_defects"][1]
    assert facts["partial"]["trials"] == {"found": 23, "declared": 11965}
    assert facts["partial"]["test_trials"] == {"found": 8, "declared": 1997}
    assert facts["declared"] == FACTS | SPLIT_FACTS


def test_splits_that_leave_trials_out_need_a_word(tmp_path):
    twin = build(tmp_path / "twin", splits_change=incomplete)
    facts = json.loads(
        (imagenet_eeg.prepare(twin, tmp_path / "out", allow_partial=True) / "neural_clip.json").read_text()
    )
    assert facts["partial"] == {"trials_in_splits": {"found": 22, "declared": 23}}
    assert sum(split["rows"] for split in facts["splits"].values()) == 22
    assert any("22 trials_in_splits" in defect for defect in facts["known_defects"])


def test_a_whole_corpus_is_not_called_partial(raw_dir, tmp_path):
    facts = json.loads(
        (imagenet_eeg.prepare(raw_dir, tmp_path / "out", allow_partial=True) / "neural_clip.json").read_text()
    )
    assert facts["partial"] is None and not any("part of" in defect for defect in facts["known_defects"])


@pytest.mark.parametrize("lost", ["counts", "category_names"])
def test_a_damaged_stamp_is_named(tmp_path, lost):
    raw_dir = build(tmp_path / "raw")
    stamp = json.loads((raw_dir / "SIMULATED.json").read_text())
    del stamp[lost]
    (raw_dir / "SIMULATED.json").write_text(json.dumps(stamp))
    with pytest.raises(
        DataError, match=rf"SIMULATED\.json' is damaged: it should have an object as '{lost}', but has None"
    ):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out")


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A file with the published counts: 11,965 trials, split 7,970 / 1,998 / 1,997; begins with subject 4."""
    folder = tmp_path_factory.mktemp("complete")
    labels, eeg = sorted(SYNSETS, reverse=True), torch.randn(FACTS["n_chans"], 12000)
    names = [f"{labels[(i + 10) % 40]}_{i}" for i in range(FACTS["images"])]
    part = np.repeat(["train", "val", "test"], [1330, 333, 333])
    lost = {(1, i) for i in range(10)} | {(1, 1990)}
    trials, splits = [], {"train": [], "val": [], "test": []}
    for subject in (4, 1, 2, 3, 5, 6):
        for i in range(FACTS["images"]):
            if (subject, i) not in lost:
                splits[part[i]].append(len(trials))
                # pieces of one storage keep the file small
                own = eeg[:, len(trials) : len(trials) + 12]
                trials.append({"eeg": own, "image": i, "label": (i + 10) % 40, "subject": subject})
    assert {name: len(indices) for name, indices in splits.items()} == {"train": 7970, "val": 1998, "test": 1997}
    for i, name in enumerate(names):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (i % 40 * 6, i // 40 * 5, 0)).save(buffer, "JPEG")
        path = folder / "images" / name.split("_")[0] / f"{name}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
    torch.save({"dataset": trials, "labels": labels, "images": names}, folder / "eeg_5_95_std.pth")
    torch.save({"splits": [splits]}, folder / "block_splits_by_image_all.pth")
    return folder


@pytest.mark.slow
def test_complete_corpus_is_accepted(complete, tmp_path):
    with pytest.warns(UserWarning, match="slow frequencies of 'eeg_5_95_std'"):
        folder = imagenet_eeg.prepare(
            complete, tmp_path / "out", variant="eeg_5_95_std", window=(2, 12), image_dir=complete / "images"
        )
    facts = json.loads((folder / "neural_clip.json").read_text())
    assert {name: split["rows"] for name, split in facts["splits"].items()} == {
        "train": 7970, "validation": 1998, "test": 1997,
    }  # fmt: skip
    assert facts["splits"]["test"]["images"] == 333 and facts["simulated"] is None and facts["partial"] is None
    assert "11 of 11,976" in facts["known_defects"][1]


@pytest.mark.slow
def test_the_first_subject_is_known(complete, tmp_path):
    """Nothing else tells that two subjects were exchanged as a whole."""
    content = torch.load(complete / "eeg_5_95_std.pth", weights_only=True)
    for trial in content["dataset"]:
        trial["subject"] = {4: 2, 2: 4}.get(trial["subject"], trial["subject"])
    torch.save(content, tmp_path / "eeg_5_95_std.pth")
    with pytest.raises(DataError, match="first_trial: image 0, label 10, subject 2 instead of image 0"):
        imagenet_eeg.prepare(tmp_path, tmp_path.with_name("out"), variant="eeg_5_95_std", window=(2, 12))


@pytest.mark.slow
def test_sizes_of_the_published_splits_are_checked(complete, tmp_path):
    """Image-disjoint and complete, but not the published split; under another name it would be the user's own."""
    splits = torch.load(complete / "block_splits_by_image_all.pth", weights_only=True)
    splits["splits"][0]["train"], splits["splits"][0]["test"] = (
        splits["splits"][0][name] for name in ("test", "train")
    )
    parameters = {"variant": "eeg_5_95_std", "window": (2, 12), "image_dir": complete / "images"}
    torch.save(splits, tmp_path / "block_splits_by_image_all.pth")
    with pytest.raises(DataError, match="train_trials: 1997 instead of 7970; test_trials: 7970 instead of 1997"):
        imagenet_eeg.prepare(
            complete, tmp_path / "out", splits_file=tmp_path / "block_splits_by_image_all.pth", **parameters
        )


def test_program_reports_in_one_line(raw_dir, tmp_path, capsys, monkeypatch):
    script = REPOSITORY / "dataset_scripts" / "imagenet_eeg.py"
    arguments = ["--raw-dir", str(raw_dir), "--output-dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [str(script), *arguments, "--window", "20", "460"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(script), run_name="__main__")
    assert json.loads((tmp_path / "out" / "neural_clip.json").read_text())["tmin"] == 0.02
    monkeypatch.setattr(
        sys, "argv",
        [
            str(script), "--raw-dir", str(raw_dir), "--output-dir", str(tmp_path / "raw"), "--variant", "raw",
            "--band-pass", "14", "70", "--notch", "50", "--subjects", "sub-01", "--num-proc", "1",
            "--image-dir", str(raw_dir / IMAGE_DIR), "--missing-images", "drop", "--allow-partial",
            "--standardize", "none", "--length-range", "491", "530",
        ],
    )  # fmt: skip
    runpy.run_path(str(script), run_name="__main__")
    facts = json.loads((tmp_path / "raw" / "neural_clip.json").read_text())
    assert (facts["preprocessing"]["band_pass_hz"], facts["preprocessing"]["notch_hz"]) == ([14.0, 70.0], 50.0)
    assert facts["subjects"] == ["sub-01"] and facts["unit"] == "V"
    monkeypatch.setattr(sys, "argv", [str(script), *arguments, "--overwrite", "--subjects", "sub-09"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 2 and "error: Invalid value for the 'subjects'" in capsys.readouterr().err


# filters and the scale of the raw file


def with_moments(content):
    rng = np.random.default_rng(5)
    content["means"] = torch.from_numpy(rng.normal(3.0, 1.0, (N_CHANS, 1)).astype(np.float32))
    content["stddevs"] = torch.from_numpy(rng.uniform(0.5, 2.0, N_CHANS))


def test_released_scale_is_applied_as_the_file_states_it(tmp_path):
    raw_dir = build(tmp_path / "raw", with_moments)
    folder = imagenet_eeg.prepare(raw_dir, tmp_path / "out", variant="raw", standardize="released")
    content = torch.load(raw_dir / "eeg_signals_raw_with_mean_std.pth", weights_only=True)
    for (_, i), (_, row) in rows_by_trial(folder).items():
        eeg = content["dataset"][i]["eeg"].double().numpy()
        expected = (eeg - content["means"].double().numpy()) / content["stddevs"].numpy()[:, None]
        np.testing.assert_allclose(row["eeg"], expected[:, 40:480], rtol=2e-7, atol=1e-12)
    facts = json.loads((folder / "neural_clip.json").read_text())
    assert facts["scaling"]["fit_scope"] == "unknown" and "means and stddevs" in facts["scaling"]["method"]
    assert facts["unit"] == "z"


def test_scope_of_released_standardisation_is_called_unknown(prepared):
    scaling = json.loads((prepared / "neural_clip.json").read_text())["scaling"]
    assert scaling["fit_scope"] == "unknown" and "test split may be among them" in scaling["description"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("means", None, "no entry 'means'"),
        ("stddevs", None, "no entry 'stddevs'"),
        ("means", torch.zeros(N_CHANS, 440), r"'means' .* shape \(3, 440\); allowed are \(3,\) and \(3, 1\)"),
        ("means", torch.zeros(1, N_CHANS), r"shape \(1, 3\)"),
        ("stddevs", torch.ones(()), r"shape \(\)"),
        ("stddevs", torch.tensor([1.0, 0.0, 1.0]), "'stddevs' .* is 0.0 for channel 1"),
        ("stddevs", torch.tensor([1.0, 1.0, float("nan")]), "'stddevs' .* is nan for channel 2"),
        ("stddevs", torch.tensor([-1.0, 1.0, 1.0]), "'stddevs' .* is -1.0 for channel 0"),
        ("means", torch.tensor([1.0, float("inf"), 1.0]), "'means' .* is inf for channel 1"),
        ("means", ["a", "b", "c"], "'means' .* should be numbers"),
    ],
)
def test_released_scales_that_cannot_be_used_are_refused(tmp_path, name, value, message):
    def change(content):
        with_moments(content)
        content[name] = value

    raw_dir = build(tmp_path / "raw", change)
    with pytest.raises(DataError, match=message):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out", variant="raw", standardize="released")
    assert not (tmp_path / "out").exists()


def scipy_filtered(eeg, band, kind):
    """The same filter by SciPy alone, continued at the ends as far as MNE does."""
    sos = butter(2, band, kind, fs=1000.0, output="sos")
    reach = mne.filter.estimate_ringing_samples(sos)
    assert reach < eeg.shape[1]
    return sosfiltfilt(sos, eeg, axis=1, padtype="odd", padlen=reach)


@pytest.mark.parametrize("standardize", ["none", "released", "train"])
def test_filters_are_those_of_scipy(tmp_path, standardize):
    raw_dir = build(tmp_path / "raw", with_moments)
    folder = imagenet_eeg.prepare(
        raw_dir, tmp_path / "out", variant="raw", standardize=standardize, band_pass=(14.0, 70.0), notch=50.0
    )
    content = torch.load(raw_dir / "eeg_signals_raw_with_mean_std.pth", weights_only=True)
    rows, expected = rows_by_trial(folder), {}
    for (_, i), _ in rows.items():
        eeg = content["dataset"][i]["eeg"].double().numpy()
        if standardize == "released":
            eeg = (eeg - content["means"].double().numpy()) / content["stddevs"].numpy()[:, None]
        eeg = scipy_filtered(scipy_filtered(eeg, (14, 70), "bandpass"), (47, 53), "bandstop")[:, 40:480]
        expected[i] = eeg * 1e-6 if standardize == "none" else eeg
    for number in SUBJECTS if standardize == "train" else ():
        own = [i for subject, i in rows if subject == f"sub-{number:02d}"]
        train = np.stack([expected[i] for i in own if rows[f"sub-{number:02d}", i][0] == "train"])
        for i in own:
            expected[i] = (expected[i] - train.mean((0, 2))[:, None]) / train.std((0, 2))[:, None]
    for (_, i), (_, row) in rows.items():
        np.testing.assert_allclose(row["eeg"], expected[i], rtol=1e-5, atol=1e-6 * np.abs(expected[i]).max())
    facts = json.loads((folder / "neural_clip.json").read_text())
    assert facts["preprocessing"] == {
        "variant": "raw", "window_samples": [40, 480], "standardize": standardize, "length_range": None,
        "missing_images": "error", "band_pass_hz": [14.0, 70.0], "notch_hz": 50.0,
        "filter": facts["preprocessing"]["filter"],
    }  # fmt: skip
    assert (
        "order 2" in facts["preprocessing"]["filter"]["design"] and "odd" in facts["preprocessing"]["filter"]["extent"]
    )
    assert any("near both ends" in defect for defect in facts["known_defects"])
    assert "near both ends" in (folder / "README.md").read_text()


def tones(content):
    """A response at 20 Hz under a slow drift, a fast tone, and a 50 Hz line five times as large."""
    for i, trial in enumerate(content["dataset"]):
        time = np.arange(trial["eeg"].shape[1]) / 1000
        eeg = np.sin(2 * np.pi * 20 * time + 0.3) + 5 * np.sin(2 * np.pi * 50 * time + i)
        eeg = eeg + 2 * np.sin(2 * np.pi * 3 * time + i) + np.sin(2 * np.pi * 180 * time)
        trial["eeg"] = torch.from_numpy(np.tile(eeg, (N_CHANS, 1)).astype(np.float32))


def amplitudes(eeg, first, frequencies):
    """Complex amplitude of each tone by least squares, phase 0 meaning a sine that begins at image onset."""
    time = (first + np.arange(eeg.shape[-1])) / 1000
    basis = np.concatenate([trig(2 * np.pi * f * time)[None] for f in frequencies for trig in (np.sin, np.cos)]).T
    weights = np.linalg.lstsq(basis, eeg, rcond=None)[0].reshape(-1, 2)
    return dict(zip(frequencies, weights @ [1, 1j], strict=True))


def test_notch_takes_the_line_and_keeps_the_phase(tmp_path):
    raw_dir = build(tmp_path / "raw", tones)
    parameters = {"variant": "raw", "standardize": "none", "window": (140, 360)}
    both = {
        name: rows_by_trial(imagenet_eeg.prepare(raw_dir, tmp_path / name, **parameters, **filters))
        for name, filters in (
            ("as it is", {}),
            ("notch", {"notch": 50.0}),
            ("both", {"notch": 50.0, "band_pass": (10, 90)}),
        )
    }
    for key in both["notch"]:
        found = {
            name: amplitudes(1e6 * rows[key][1]["eeg"][0].astype(float), 140, (3, 20, 50, 180))
            for name, rows in both.items()
        }
        assert abs(found["as it is"][50]) == pytest.approx(5, rel=0.01)
        for name in ("notch", "both"):
            assert abs(found[name][50]) < 0.08 * 5
            assert abs(found[name][20]) == pytest.approx(1, abs=0.06)
            assert np.angle(found[name][20]) == pytest.approx(0.3, abs=0.06)
        assert abs(found["notch"][3]) == pytest.approx(2, rel=0.1) and abs(found["notch"][180]) > 0.95
        assert abs(found["both"][3]) < 0.1 * 2 and abs(found["both"][180]) < 0.1


# parts


def planned(monkeypatch, raw_dir, **parameters):
    """Metadata, recording parts and image parts that `prepare` hands to the writer, without writing."""
    caught = []
    with monkeypatch.context() as patch:
        patch.setattr(imagenet_eeg, "write_prepared", lambda *args, **others: caught.append((args, others)))
        imagenet_eeg.prepare(raw_dir, raw_dir.with_name("unwritten"), **parameters)
    (_, about, recordings, images), others = caught[0]
    return about, recordings, images, others


def test_parts_are_small_and_stand_alone(raw_dir, prepared, monkeypatch):
    monkeypatch.setattr("neural_clip.corpora.image_parts.IMAGES_A_PART", 5)
    _, recordings, images, others = planned(monkeypatch, raw_dir, num_proc=3)
    assert [part.name for part in recordings] == ["sub-04", "sub-01"] and others["num_proc"] == 3
    assert [part.n_rows for part in images] == [5, 5, 2] and len({part.name for part in images}) == 3
    for part in [*recordings, *images]:
        rows = list(pickle.loads(pickle.dumps(part)).rows())
        assert len(rows) == part.n_rows and all(path.is_file() for path in part.files)
    assert {path.name for path in recordings[0].files} == {"eeg_14_70_std.pth", "block_splits_by_image_all.pth"}
    expected = rows_by_trial(prepared)
    for part in recordings:
        for row in part.rows():
            split, other = expected[row["subject"], row["trial"]]
            assert row["split"] == split and row["subject"] == part.name
            np.testing.assert_array_equal(row["eeg"], other["eeg"])
    assert [row["image_id"] for part in images for row in part.rows()] == NAMES


def test_parts_are_the_same_on_every_run(raw_dir, monkeypatch):
    """Otherwise a rerun would not know the parts that are finished."""
    first, second = (planned(monkeypatch, raw_dir, variant="raw", notch=50.0)[1:3] for _ in range(2))
    assert [pickle.dumps(part) for parts in first for part in parts] == [
        pickle.dumps(part) for parts in second for part in parts
    ]


@pytest.mark.slow
def test_several_processes_write_the_same(raw_dir, prepared, tmp_path):
    folder = imagenet_eeg.prepare(raw_dir, tmp_path / "out", num_proc=2)
    first, second = (json.loads((path / "neural_clip.json").read_text()) for path in (prepared, folder))
    assert first == second


# damage


def tree_digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def outcome(monkeypatch, raw_dir):
    """All rows that would be written, `None` if there is an error that says so."""
    forget_recordings()  # the file may have been rewritten within a tick of the clock
    try:
        about, recordings, images, _ = planned(monkeypatch, raw_dir)
        rows = [row for part in recordings for row in part.rows()]
        pictures = [(row["image_id"], row["image"]) for part in images for row in part.rows()]
    except DataError:
        return None
    stored = [{key: value.tobytes() if key == "eeg" else value for key, value in row.items()} for row in rows]
    return stored, pictures, about["n_chans"]


def complete_trials(content):
    """No trial is missing: a flip could otherwise make one of another that is missing, which nothing would tell."""
    torch.manual_seed(0)
    content["dataset"].insert(5, content["dataset"][4] | {"eeg": torch.randn(N_CHANS, 500), "image": 5, "label": 1})


def corpus_for_flips(tmp_path, zipped):
    raw_dir = build(tmp_path / "raw", complete_trials, counts_change={"trials": 24})
    for path in raw_dir.glob("*.pth"):
        content = torch.load(path, weights_only=True)
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return raw_dir


def test_flipped_bits_in_zipped_files_never_change_rows(tmp_path, monkeypatch):
    raw_dir = corpus_for_flips(tmp_path, zipped=True)
    path, rng = raw_dir / "eeg_14_70_std.pth", np.random.default_rng(1)
    content, expected = path.read_bytes(), outcome(monkeypatch, raw_dir)
    directory = content.index(b"PK\x01\x02")
    positions = [*rng.integers(0, len(content), 80), *rng.integers(directory, len(content), 120), *range(0, 4000, 40)]
    found = []
    for damaged in flipped_bits(content, positions, rng):
        path.write_bytes(damaged)
        found.append(outcome(monkeypatch, raw_dir))
    assert all(one in (None, expected) for one in found)
    assert found.count(None) > 150


def test_a_flipped_sample_in_a_zipped_file_is_noticed(tmp_path):
    raw_dir = corpus_for_flips(tmp_path, zipped=True)
    path = raw_dir / "eeg_14_70_std.pth"
    sample = torch.load(path, weights_only=True)["dataset"][7]["eeg"].numpy().tobytes()
    content = bytearray(path.read_bytes())
    content[bytes(content).index(sample) + 800] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"eeg_14_70_std\.pth' is damaged: the checksum of '.*/data/7' in it differs"):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out")


@pytest.mark.parametrize(("size", "stride"), [((N_CHANS, 490), (491, 1)), ((N_CHANS, 491), (490, 1))])
def test_a_sheared_trial_of_an_old_file_is_noticed(tmp_path, size, stride):
    """What a flipped bit in the stored size or stride of one trial does."""
    raw_dir = corpus_for_flips(tmp_path, zipped=False)
    path = raw_dir / "eeg_14_70_std.pth"
    content = torch.load(path, weights_only=True)
    assert content["dataset"][0]["eeg"].shape == (N_CHANS, 491)
    content["dataset"][0]["eeg"] = content["dataset"][0]["eeg"].as_strided(size, stride)
    torch.save(content, path, _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match=r"eeg_14_70_std\.pth' is damaged: trial 0 does not fill its memory"):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning", "ignore:TypedStorage:UserWarning")
def test_flipped_bits_in_the_tables_of_old_files_never_change_rows(tmp_path, monkeypatch):
    """Old files have no checksums: samples are left out here, and flips in them do pass."""
    raw_dir = corpus_for_flips(tmp_path, zipped=False)
    path, rng = raw_dir / "eeg_14_70_std.pth", np.random.default_rng(2)
    content, expected = path.read_bytes(), outcome(monkeypatch, raw_dir)
    tables = np.ones(len(content), bool)
    for trial in torch.load(path, weights_only=True)["dataset"]:
        samples = trial["eeg"].numpy().tobytes()
        start = content.index(samples)
        tables[start : start + len(samples)] = False
    found = []
    for damaged in flipped_bits(content, rng.choice(np.flatnonzero(tables), 500, replace=False), rng):
        path.write_bytes(damaged)
        found.append(outcome(monkeypatch, raw_dir))
    assert all(one in (None, expected) for one in found)
    assert found.count(None) > 250


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("zipped", [True, False])
def test_flipped_bits_in_the_splits_never_change_rows(tmp_path, monkeypatch, zipped):
    raw_dir = corpus_for_flips(tmp_path, zipped)
    path, rng = raw_dir / "block_splits_by_image_all.pth", np.random.default_rng(3)
    content, expected = path.read_bytes(), outcome(monkeypatch, raw_dir)
    found = []
    for damaged in flipped_bits(content, rng.integers(0, len(content), 80), rng):
        path.write_bytes(damaged)
        found.append(outcome(monkeypatch, raw_dir))
    assert all(one in (None, expected) for one in found) and None in found


def truncated(zipped, kept):
    def damage(raw_dir):
        path = raw_dir / "eeg_14_70_std.pth"
        torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=zipped)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])

    return damage


def malicious(raw_dir):
    torch.save({"dataset": Malicious(raw_dir / "it_ran")}, raw_dir / "eeg_14_70_std.pth")


def resaved(change, name="eeg_14_70_std.pth"):
    def damage(raw_dir):
        content = torch.load(raw_dir / name, weights_only=True)
        change(content)
        torch.save(content, raw_dir / name)

    return damage


def no_splits_file(raw_dir):
    (raw_dir / "block_splits_by_image_all.pth").unlink()


def lost_images(raw_dir):
    for path in (raw_dir / IMAGE_DIR / LABELS[0]).iterdir():
        path.unlink()


def truncated_image(raw_dir):
    path = raw_dir / IMAGE_DIR / LABELS[1] / f"{NAMES[9]}.JPEG"
    path.write_bytes(path.read_bytes()[:-50])


def truncated_archive(raw_dir):
    archive = into_archive(raw_dir)
    archive.write_bytes(archive.read_bytes()[:9000])


def flipped_sample(raw_dir):
    path = raw_dir / "eeg_14_70_std.pth"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)


DAMAGES = {
    "truncated zip": truncated(True, 0.6), "truncated old file": truncated(False, 0.6), "malicious": malicious,
    "flipped sample": flipped_sample, "swapped subject": resaved(swap_subjects),
    "exchanged trials": resaved(exchanged_trials), "shuffled images": resaved(shuffled_images),
    "shuffled within class": resaved(shuffled_images_within_class), "not a number": resaved(no_finite),
    "index beyond the end": resaved(beyond_the_end, "block_splits_by_image_all.pth"),
    "crossing images": resaved(crossing_images, "block_splits_by_image_all.pth"),
    "image beyond the end": resaved(wrong_image),
    "no splits": no_splits_file, "lost images": lost_images, "truncated image": truncated_image,
    "truncated archive": truncated_archive, "short trial": resaved(short_trial),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_complete_stays_when_the_raw_files_are_damaged(tmp_path, prepared, damage):
    raw_dir = build(tmp_path / "raw")
    out = shutil.copytree(prepared, tmp_path / "out")
    before = tree_digest(out)
    DAMAGES[damage](raw_dir)
    for target in ("out", "new"):
        with pytest.raises(DataError):
            imagenet_eeg.prepare(raw_dir, tmp_path / target, overwrite=True)
    assert tree_digest(out) == before and not (tmp_path / "new").exists() and not (raw_dir / "it_ran").exists()


@pytest.mark.parametrize(
    ("variant", "factor", "message"),
    [
        ("eeg_14_70_std", 1e3, "subject 4: the unit is z, but .* plausible are 0.1 to 10"),
        ("eeg_14_70_std", 1e-5, "the unit is z"),
        ("raw", 1e-6, "the unit is V, but .* plausible"),
        ("raw", 1e6, "the unit is V, but .* plausible"),
    ],
)
def test_values_in_another_unit_are_refused(tmp_path, variant, factor, message):
    def scale(content):
        for trial in content["dataset"]:
            trial["eeg"] *= factor

    raw_dir = build(tmp_path / "raw", scale)
    with pytest.raises(DataError, match=rf"\.pth', {message}" if "subject" in message else message):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out", variant=variant)
    assert not (tmp_path / "out").exists()


def test_channel_names_with_spaces_and_accents(tmp_path):
    raw_dir, names = build(tmp_path / "raw"), [f"EEG K\u00e4fer {i}" for i in range(N_CHANS)]
    (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*names, ""]).encode())
    folder = imagenet_eeg.prepare(raw_dir, tmp_path / "out", ch_names_file=tmp_path / "names.txt")
    assert json.loads((folder / "neural_clip.json").read_text(encoding="utf-8"))["ch_names"] == names
