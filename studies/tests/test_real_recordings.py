"""Tests of studies/real_recordings.py, where the recordings are."""

import json

import numpy as np
import pytest

import real_recordings
from neural_clip.prepared.facts import verify_prepared
from prepared_rows import columns_of


def needs(folder, name):
    if not (folder / name).is_dir():
        pytest.skip(f"no {name} among the real recordings")


def test_real_digits_keep_the_published_split(tmp_path, real_data):
    needs(real_data, "digit69_fmri")
    real_recordings.main(["--data-dir", str(real_data), "--output-dir", str(tmp_path), "--sets", "digit69"])
    metadata = verify_prepared(tmp_path / "digit69")
    assert {split: count["rows"] for split, count in metadata["splits"].items()} == {
        "train": 81, "validation": 9, "test": 10,
    }  # fmt: skip
    assert metadata["n_voxels"] == {"sub-01": 3092}
    test = columns_of(tmp_path / "digit69", "test", tmp_path)
    assert sorted(test["image_id"]) == [f"image-{i:05d}" for i in range(90, 100)]
    assert str(real_data) not in json.dumps(metadata) + (tmp_path / "digit69" / "README.md").read_text()


def test_real_slice_of_haxby_decodes_faces_from_houses_in_held_out_runs(tmp_path, real_data):
    from sklearn.linear_model import LogisticRegression

    needs(real_data, "haxby_fmri")
    needs(real_data, "n170_eeg")
    real_recordings.main(["--data-dir", str(real_data), "--output-dir", str(tmp_path), "--sets", "haxby"])
    metadata = verify_prepared(tmp_path / "haxby")
    assert metadata["n_voxels"] == {"sub-01": 530} and metadata["category_level"]
    train, test = (columns_of(tmp_path / "haxby", split, tmp_path) for split in ("train", "test"))
    assert set(test["run"]) == {"run-11", "run-12"} and not set(train["run"]) & set(test["run"])
    model = LogisticRegression(C=1e-3, max_iter=500).fit(np.stack(train["fmri"]), train["concept"])
    assert model.score(np.stack(test["fmri"]), test["concept"]) > 0.75  # chance is 0.5


@pytest.mark.slow
def test_real_muse_files_that_are_of_no_use_are_told(tmp_path, real_data, capsys):
    needs(real_data, "n170_eeg")
    real_recordings.main(["--data-dir", str(real_data), "--output-dir", str(tmp_path), "--sets", "n170"])
    told = capsys.readouterr().out
    assert "14 recordings used, 13 skipped" in told
    assert told.count("noise:") == 6 and "same bytes as" in told and "fewer than 20" in told
    metadata = verify_prepared(tmp_path / "n170")
    assert metadata["ch_names"] == ["TP9", "AF7", "AF8", "TP10"] and metadata["sfreq"] == 256.0
    assert sum(defect.startswith("skipped") for defect in metadata["known_defects"]) == 13
    rows = {split: columns_of(tmp_path / "n170", split, tmp_path) for split in ("train", "validation", "test")}
    units = [set(zip(r["subject"], r["session"], r["run"], strict=True)) for r in rows.values()]
    assert not units[0] & units[1] and not units[0] & units[2] and not units[1] & units[2]


def test_each_digit_is_tested_in_one_fold():
    rng = np.random.default_rng(3)
    whole = {"fmri": rng.standard_normal((100, 5)), "stim": np.arange(100)[:, None], "label": np.arange(100)[:, None]}
    source = {name + part: rows[which] for name, rows in whole.items()
              for part, which in (("Trn", slice(90)), ("Test", slice(90, None)))}  # fmt: skip
    tested = []
    for fold in range(real_recordings.N_FOLDS):
        found = real_recordings._divided(source, fold)
        for part, count in (("Trn", 90), ("Test", 10)):
            shown = found[f"stim{part}"].ravel()
            assert len(shown) == count and np.array_equal(found[f"fmri{part}"], whole["fmri"][shown])
            assert np.array_equal(found[f"label{part}"].ravel(), shown)
        tested += found["stimTest"].ravel().tolist()
    assert sorted(tested) == list(range(100))
