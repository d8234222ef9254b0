"""ImageNetEEG builder, on small corpora written here by hand in the format of the release."""

import io
import json
import runpy
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image

from neural_clip.corpora import imagenet_eeg
from neural_clip.corpora.imagenet_eeg_files import FACTS, SYNSETS
from neural_clip.errors import DataError

N_CHANS, N_IMAGES, SUBJECTS = 3, 12, (4, 1)
LABELS = ["n03888257", "n02389026"]
NAMES = [f"{LABELS[i % 2]}_{100 + i}" for i in range(N_IMAGES)]
SPLIT_OF_IMAGE = ["train"] * 6 + ["val"] * 2 + ["test"] * 4


def build(folder: Path, change=None, splits_change=None, counts_change=None, stamped=True) -> Path:
    """Write a corpus; the callbacks damage it before it is saved."""
    rng = np.random.default_rng(0)
    trials = [
        {
            "eeg": torch.from_numpy(rng.standard_normal((N_CHANS, 491 + (7 * i) % 40), dtype=np.float32)),
            "image": i, "label": i % 2, "subject": subject,
        }
        for subject in SUBJECTS
        for i in range(N_IMAGES)
    ]  # fmt: skip
    del trials[5]  # image 5 of subject 4: missing as trials are in the real release
    content = {"dataset": trials, "labels": LABELS, "images": NAMES}
    split = {part: [] for part in ("train", "val", "test")}
    for i, trial in enumerate(trials):
        split[SPLIT_OF_IMAGE[trial["image"]]].append(i)
    splits = {"splits": [split]}
    if change:
        change(content)
    if splits_change:
        splits_change(splits)
    folder.mkdir(parents=True)
    for name in ("eeg_14_70_std.pth", "eeg_signals_raw_with_mean_std.pth"):
        torch.save(content, folder / name)
    torch.save(splits, folder / "block_splits_by_image_all.pth")
    for i, name in enumerate(NAMES):
        path = folder / imagenet_eeg.IMAGE_DIR / name.split("_")[0] / f"{name}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)).save(path)
    counts = {"trials": 23, "images": N_IMAGES, "classes": 2, "subjects": 2, "n_chans": N_CHANS}
    if counts_change:
        counts |= counts_change
    if stamped:
        stamp = {"simulated": True, "counts": counts, "category_names": dict.fromkeys(LABELS, "round thing")}
        (folder / "SIMULATED.json").write_text(json.dumps(stamp))
    return folder


@pytest.fixture(scope="module")
def raw_dir(tmp_path_factory):
    return build(tmp_path_factory.mktemp("eeg") / "raw")


@pytest.fixture(scope="module")
def prepared(raw_dir, tmp_path_factory):
    return imagenet_eeg.prepare(raw_dir, tmp_path_factory.mktemp("eeg") / "prepared")


def rows_of(folder, config="all"):
    """All rows by (subject, trial), with their split."""
    return {
        (row["subject"], row["trial"]): (split, row)
        for split in ("train", "validation", "test")
        for row in load_dataset(str(folder), config, split=split).with_format("numpy")
    }


def test_rows_equal_the_raw_file(raw_dir, prepared):
    content = torch.load(raw_dir / "eeg_14_70_std.pth", weights_only=True)
    rows = rows_of(prepared)
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
        path = raw_dir / imagenet_eeg.IMAGE_DIR / name.split("_")[0] / f"{name}.JPEG"
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
    alone = rows_of(imagenet_eeg.prepare(raw_dir, tmp_path / "one", subjects=["sub-01"]))
    everyone = {key: value for key, value in rows_of(prepared).items() if key[0] == "sub-01"}
    assert alone.keys() == everyone.keys() and len(alone) == 12
    for key, (split, row) in alone.items():
        assert split == everyone[key][0] and row["image_id"] == everyone[key][1]["image_id"]


def test_raw_is_scaled_by_training_trials(raw_dir, tmp_path):
    folder = imagenet_eeg.prepare(raw_dir, tmp_path / "raw", variant="raw", window=(20, 460))
    rows = rows_of(folder)
    for subject in ("sub-01", "sub-04"):
        parts = {
            name: np.stack([row["eeg"] for (s, _), (split, row) in rows.items() if s == subject and split == name])
            for name in ("train", "test")
        }
        np.testing.assert_allclose(parts["train"].mean((0, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(parts["train"].std((0, 2)), 1, atol=1e-5)
        assert np.abs(parts["test"].mean((0, 2))).max() > 1e-4
    facts = json.loads((folder / "neural_clip.json").read_text())
    assert facts["scaling"] == {"method": "z-score per subject and channel", "fit_scope": "train"}


def test_raw_without_scaling_is_in_volts(raw_dir, tmp_path):
    folder = imagenet_eeg.prepare(raw_dir, tmp_path / "raw", variant="raw", standardize="none")
    content = torch.load(raw_dir / "eeg_signals_raw_with_mean_std.pth", weights_only=True)
    _, row = rows_of(folder)["sub-04", 0]
    np.testing.assert_allclose(row["eeg"], content["dataset"][0]["eeg"][:, 40:480].numpy() * 1e-6, rtol=1e-6)
    assert json.loads((folder / "neural_clip.json").read_text())["unit"] == "V"


def test_length_range_filters(raw_dir, tmp_path):
    content = torch.load(raw_dir / "eeg_14_70_std.pth", weights_only=True)
    expected = {i for i, trial in enumerate(content["dataset"]) if 495 <= trial["eeg"].shape[1] <= 525}
    rows = rows_of(imagenet_eeg.prepare(raw_dir, tmp_path / "short", length_range=(495, 525)))
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
    ],
)
def test_contradictions_are_refused(tmp_path, change, message):
    raw_dir = build(tmp_path / "raw", change)
    with pytest.raises(DataError, match=message):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


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
    assert len(rows_of(imagenet_eeg.prepare(raw_dir, tmp_path / "out"))) == 23


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0, 60, 0.5, -10])
def test_truncated_files_are_named(tmp_path, kept, zipped):
    raw_dir = build(tmp_path / "raw")
    path = raw_dir / "eeg_14_70_std.pth"
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept) if kept == 0.5 else kept])
    with pytest.raises(DataError, match=r"eeg_14_70_std\.pth.*(incomplete|damaged)"):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out")


def test_missing_images_are_listed_once_or_dropped(tmp_path):
    raw_dir = build(tmp_path / "raw")
    for i in (0, 11):
        (raw_dir / imagenet_eeg.IMAGE_DIR / NAMES[i].split("_")[0] / f"{NAMES[i]}.JPEG").unlink()
    with pytest.raises(DataError, match=f"2 of 12 .*: {NAMES[0]}, {NAMES[11]}"):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out")
    with pytest.warns(UserWarning, match="2 of 12") as caught:
        folder = imagenet_eeg.prepare(raw_dir, tmp_path / "out", missing_images="drop")
    assert len([w for w in caught if "2 of 12" in str(w.message)]) == 1
    assert len(rows_of(folder)) == 23 - 4
    assert any(
        "2 images" in defect for defect in json.loads((folder / "neural_clip.json").read_text())["known_defects"]
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"variant": "eeg_1_2"}, "'variant' .* 'eeg_14_70_std', .*'eeg_1_2'"),
        ({"window": (480, 40)}, "'window'"),
        ({"window": (40, 495)}, "fewer than the end"),
        ({"standardize": "test"}, "'standardize'"),
        ({"missing_images": "ignore"}, "'missing_images'"),
        ({"subjects": ["sub-02"]}, "Allowed values are sub-01, sub-04"),
        ({"length_range": (600, 700)}, "No trial"),
        ({"variant": "eeg_5_95_std"}, "'eeg_5_95_std.pth' was not found"),
        ({"image_dir": "/nowhere"}, "12 of 12 ImageNet images"),
    ],
)
def test_wrong_parameters_are_named(raw_dir, tmp_path, parameters, message):
    with pytest.raises(DataError, match=message):
        imagenet_eeg.prepare(raw_dir, tmp_path / "out", **parameters)


def test_counts_are_checked(tmp_path):
    twin = build(tmp_path / "twin", counts_change={"trials": 24})
    with pytest.raises(DataError, match="23 trials, but the corpus has 24"):
        imagenet_eeg.prepare(twin, tmp_path / "out")
    real = build(tmp_path / "real", stamped=False)
    with pytest.raises(DataError, match="23 trials, but the corpus has 11965"):
        imagenet_eeg.prepare(real, tmp_path / "out")
    with pytest.warns(UserWarning, match="one block"):
        folder = imagenet_eeg.prepare(real, tmp_path / "out", allow_partial=True)
    facts = json.loads((folder / "neural_clip.json").read_text())
    assert facts["simulated"] is None and "part of the corpus: 23 trials" in facts["known_defects"][1]


def test_complete_corpus_is_accepted(tmp_path):
    """A file with the published counts: 11,965 trials, split 7,970 / 1,998 / 1,997."""
    labels, eeg = sorted(SYNSETS, reverse=True), torch.randn(FACTS["n_chans"], 12)
    names = [f"{labels[i % 40]}_{i}" for i in range(FACTS["images"])]
    part = np.repeat(["train", "val", "test"], [1330, 333, 333])
    lost = {(1, i) for i in range(10)} | {(1, 1990)}
    trials, splits = [], {"train": [], "val": [], "test": []}
    for subject in range(1, 7):
        for i in range(FACTS["images"]):
            if (subject, i) not in lost:
                splits[part[i]].append(len(trials))
                # one storage for all keeps the file small
                trials.append({"eeg": eeg, "image": i, "label": i % 40, "subject": subject})
    assert {name: len(indices) for name, indices in splits.items()} == {"train": 7970, "val": 1998, "test": 1997}
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "JPEG")
    for name in names:
        path = tmp_path / "images" / name.split("_")[0] / f"{name}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
    torch.save({"dataset": trials, "labels": labels, "images": names}, tmp_path / "eeg_5_95_std.pth")
    torch.save({"splits": [splits]}, tmp_path / "block_splits_by_image_all.pth")
    with pytest.warns(UserWarning, match="slow frequencies of 'eeg_5_95_std'"):
        folder = imagenet_eeg.prepare(
            tmp_path, tmp_path / "out", variant="eeg_5_95_std", window=(2, 12), image_dir=tmp_path / "images"
        )
    facts = json.loads((folder / "neural_clip.json").read_text())
    assert {name: split["rows"] for name, split in facts["splits"].items()} == {
        "train": 7970, "validation": 1998, "test": 1997,
    }  # fmt: skip
    assert facts["splits"]["test"]["images"] == 333 and facts["simulated"] is None


def test_program_reports_in_one_line(raw_dir, tmp_path, capsys, monkeypatch):
    script = Path(__file__).resolve().parents[1] / "dataset_scripts" / "imagenet_eeg.py"
    arguments = ["--raw-dir", str(raw_dir), "--output-dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [str(script), *arguments, "--window", "20", "460"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(script), run_name="__main__")
    assert json.loads((tmp_path / "out" / "neural_clip.json").read_text())["tmin"] == 0.02
    monkeypatch.setattr(sys, "argv", [str(script), *arguments, "--subjects", "sub-09"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 2 and "error: Invalid value for the 'subjects'" in capsys.readouterr().err
