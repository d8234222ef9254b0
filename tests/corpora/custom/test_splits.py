"""Splits by image, run, recording and subject: what they hold, and what is refused before a file is read."""

import json

import numpy as np
import pytest

from custom_raw import TERMS, rng, write_manifest
from neural_clip.corpora.custom.build import prepare
from neural_clip.corpora.custom.manifest import Recording, Splits
from neural_clip.corpora.custom.splits import assign_splits, shared_windows
from neural_clip.corpora.custom.trials import Trials
from neural_clip.errors import DataError
from neural_clip.prepared.facts import read_metadata
from neural_clip.prepared.reader import PreparedSet
from prepared_rows import rows_with_split

N = 24  # rows of each subject, each of another image


def manifest_of(splits, n_subjects=3, entries=None, **changes):
    """Subjects who all see the same images, in patterns of two channels; nothing is written."""
    entries = entries or [{"subject": f"sub-0{s}"} for s in range(1, n_subjects + 1)]
    entries = [
        {"file": f"{entry['subject']}.npy", "events": "shown.csv", "kind": "patterns"} | entry for entry in entries
    ]
    embeddings = {"file": "e.npz", "name": "net"}
    return {
        "name": "mine", "modality": "eeg", "sfreq": 100.0, "tmin": 0.0, "ch_names": ["A", "B"], "recordings": entries,
        "embeddings": embeddings, "splits": splits, "unit": "z", **TERMS,
    } | changes  # fmt: skip


def write_files(folder, n_subjects=3):
    names = [f"im{i:02d}" for i in range(N)]
    np.savez(folder / "e.npz", ids=np.array(names), embeds=rng(5).normal(size=(N, 6)).astype(np.float32))
    (folder / "shown.csv").write_text("image_id,run\n" + "\n".join(f"{name},{i // 6}" for i, name in enumerate(names)))
    for subject in range(1, n_subjects + 1):
        np.save(folder / f"sub-0{subject}.npy", subject + subject * rng(subject).normal(size=(N, 2, 9)))


def prepared(folder, content, **options):
    return prepare(write_manifest(folder, content), folder / "set", **options)


@pytest.mark.parametrize("test", [["sub-03"], 0.34])
def test_a_subject_is_held_out_whole_and_others_are_validated_on_other_images(tmp_path, test):
    write_files(tmp_path)
    folder = prepared(tmp_path, manifest_of({"by": "subject", "test": test, "validation": 0.25}))
    facts = read_metadata(folder)
    (unseen,) = [subject for subject, counts in facts["subject_splits"].items() if "train" not in counts]
    assert unseen == "sub-03" or test == 0.34
    seen = sorted(set(facts["subject_splits"]) - {unseen})
    assert facts["subject_splits"] == {unseen: {"test": N}} | {s: {"train": 18, "validation": 6} for s in seen}
    images = {
        split: {row["image_id"] for row in rows_with_split(folder) if row["split"] == split}
        for split in facts["splits"]
    }
    assert not images["train"] & images["validation"] and len(images["test"]) == N
    assert (
        facts["split_unit"] == "subject" and "a share of 0.25 of the other subjects' rows" in facts["split_protocol"]
    )
    assert not [found for found in facts["findings"] if found["severity"] == "error"]
    assert PreparedSet.open(folder).split("test").subjects.tolist() == [unseen] * N


def test_an_unseen_subject_is_scaled_by_all_own_rows_and_the_facts_say_so(tmp_path):
    write_files(tmp_path)
    folder = prepared(tmp_path, manifest_of({"by": "subject", "test": ["sub-03"], "validation": 0.25}))
    assert read_metadata(folder)["scaling"]["fitted_on_own_rows"] == ["sub-03"]
    rows = sorted((row for row in rows_with_split(folder) if row["subject"] == "sub-03"), key=lambda row: row["trial"])
    raw = np.load(tmp_path / "sub-03.npy").astype(np.float32).astype(np.float64)
    expected = (raw - raw.mean(axis=(0, 2), keepdims=True)) / raw.std(axis=(0, 2), keepdims=True)
    np.testing.assert_allclose([row["eeg"] for row in rows], expected, rtol=1e-5, atol=1e-6)
    by_image = prepare(
        write_manifest(tmp_path, manifest_of({"validation": 0.25, "test": 0.25})), tmp_path / "by_image"
    )
    assert "fitted_on_own_rows" not in read_metadata(by_image)["scaling"]


def test_a_set_of_new_subjects_alone_can_be_scored_and_says_so(tmp_path, capsys):
    write_files(tmp_path)
    folder = prepared(tmp_path, manifest_of({"by": "subject", "test": ["sub-01", "sub-02"]}, n_subjects=2))
    assert read_metadata(folder)["subject_splits"] == {"sub-01": {"test": N}, "sub-02": {"test": N}}
    assert "There is no train split. The set can only be scored" in capsys.readouterr().err
    centred = manifest_of({"by": "subject", "test": ["sub-01"]}, n_subjects=1)
    centred["embeddings"] |= {"centre": "train"}
    with pytest.raises(DataError, match="'centre: train' needs training images, but no recording is trained on"):
        prepare(write_manifest(tmp_path, centred), tmp_path / "centred")


def test_leaving_each_subject_out_in_turn(tmp_path):
    write_files(tmp_path)
    for out in ("sub-01", "sub-02", "sub-03"):
        splits = {"by": "subject", "test": [out], "validation": 0.25}
        facts = read_metadata(prepare(write_manifest(tmp_path, manifest_of(splits)), tmp_path / out))
        assert [s for s, counts in facts["subject_splits"].items() if "test" in counts] == [out]


def test_at_category_level_the_others_are_validated_on_other_runs(tmp_path):
    write_files(tmp_path)
    (tmp_path / "shown.csv").write_text("image_id,run\n" + "\n".join(f"{'ab'[i % 2]},{i // 6}" for i in range(N)))
    np.savez(tmp_path / "e.npz", ids=np.array(["a/1", "b/1"]), embeds=rng(5).normal(size=(2, 6)).astype(np.float32))
    content = manifest_of({"by": "subject", "test": ["sub-03"], "validation": 0.25}, category_level=True)
    content["embeddings"] |= {"concept": "folder"}
    content["defaults"] = {"run_column": "run"}
    folder = prepared(tmp_path, content)
    runs = {}
    for row in rows_with_split(folder):
        runs.setdefault((row["subject"], row["run"]), set()).add(row["split"])
    assert all(len(splits) == 1 for splits in runs.values())
    counts = read_metadata(folder)["subject_splits"]
    assert counts == {
        "sub-01": {"train": 18, "validation": 6},
        "sub-02": {"train": 18, "validation": 6},
        "sub-03": {"test": N},
    }


def test_without_a_validation_split_where_the_manifest_says_so(tmp_path):
    write_files(tmp_path)
    facts = read_metadata(prepared(tmp_path, manifest_of({"test": 0.25, "validation": None})))
    assert facts["splits"]["validation"]["rows"] == 0
    assert "There is no validation split." in [found["message"] for found in facts["findings"]]


OWN = [{"subject": "sub-01", "split": "train"}, {"subject": "sub-02", "split": "test"}]


@pytest.mark.parametrize(
    ("splits", "changes", "message"),
    [
        ({"test": 1.5}, {}, "'test': allowed are shares between 0 and 1 and lists of names, but got 1.5"),
        ({"test": 0}, {}, "'test': allowed are shares between 0 and 1 and lists of names, but got 0"),
        ({"test": 0.5, "validation": 1.0}, {}, "'validation': allowed are shares between 0 and 1"),
        ({"test": 0.6, "validation": 0.4}, {}, "are 1 of all together; none is left to train on"),
        ({"test": []}, {}, "'test' is an empty list. Allowed are names, a share, and null for none"),
        ({"test": ["im01", "im01"]}, {}, "'test' lists 'im01' twice"),
        ({"test": [1, 2]}, {}, "'test' lists names, but got 1; write it in quotes"),
        ({"validation": 0.2}, {}, "there is nothing to test on. Give 'test' as a share or a list of names"),
        ({}, {"entries": OWN}, "every recording has its own 'split', but none is 'validation'.* 'validation: null'"),
        ({"validation": None}, {"entries": [OWN[1]]}, "every recording has its own 'split', but none is 'train'"),
        ({"test": 0.2}, {"entries": [OWN[0]]}, "every recording has its own 'split', but none is 'validation'"),
        ({"by": "subject", "test": ["sub-04"]}, {}, "'sub-04' does not occur. Did you mean 'sub-0"),
        ({"by": "subject", "test": ["sub-03"], "validation": ["sub-03"]}, {}, "for 'test' and for 'val"),
        ({"by": "subject", "test": 0.3}, {"n_subjects": 1}, "'test' cannot be a share of 0.3 of 1 subject"),
        (
            {"by": "subject", "test": ["sub-01"], "validation": ["sub-02", "sub-03"]}, {},
            "nothing is left for 'train': every subject is in 'test' or in 'validation'",
        ),
        (
            {"by": "subject", "test": ["sub-01"]}, {"entries": [{"subject": "sub-01"}, OWN[0]]},
            "subjects are divided, but sub-01 is in 'test' and 'train'",
        ),
        ({"by": "recording", "test": 0.3, "validation": 0.3}, {"n_subjects": 2}, "left for 'test'. To divide: 2"),
        ({"by": "recording", "test": ["sub-09"]}, {}, "'sub-09' does not occur"),
        ({"by": "recording", "test": ["sub-01", "sub-02", "sub-03"], "validation": None}, {}, "left for 'train'"),
        ({"by": "run", "test": 0.3, "validation": 0.3}, {}, "left for 'test'. To divide: 3 runs of 3 subjects"),
    ],
)  # fmt: skip
def test_impossible_splits_are_refused_before_any_file_is_read(tmp_path, splits, changes, message):
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, manifest_of(splits, **changes))  # none of its files exists
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.yaml"]


def test_shares_that_need_the_tables_are_refused_before_signals_are_read(tmp_path):
    write_files(tmp_path, n_subjects=0)  # tables and embeddings; no recording
    for subject in (1, 2, 3):
        (tmp_path / f"sub-0{subject}.npy").write_bytes(b"no array")
    runs = manifest_of(
        {"by": "run", "test": 0.5, "validation": 0.4}, defaults={"run_column": "run", "keep": {"run": [0]}}
    )
    with pytest.raises(DataError, match=r"nothing is left for 'test'\. To divide: 3 runs of 3 subjects"):
        prepared(tmp_path, runs)
    one = manifest_of({"test": 0.5, "validation": 0.4}, defaults={"keep": {"image_id": ["im00"]}},
                      expect={"n_chans": 2, "n_times": 9})  # fmt: skip
    with pytest.raises(DataError, match=r"'test' cannot be a share of 0\.5 of 1 image"):
        prepared(tmp_path, one)


def test_subjects_that_are_left_out_are_not_divided(tmp_path):
    write_files(tmp_path)
    content = manifest_of({"by": "subject", "test": ["sub-03"], "validation": 0.25})
    with pytest.raises(DataError, match="'sub-03' does not occur"):
        prepared(tmp_path, content, subjects=["sub-01", "sub-02"])
    folder = prepared(tmp_path, content, subjects=["sub-01", "sub-03"])
    assert set(json.loads((folder / "neural_clip.json").read_text())["subject_splits"]) == {"sub-01", "sub-03"}


def test_the_command_prepares_a_held_out_subject(tmp_path):
    from neural_clip.commands.prepare import main

    write_files(tmp_path)
    path = write_manifest(tmp_path, manifest_of({"by": "subject", "test": ["sub-02"], "validation": 0.25}))
    main("custom", [str(path), "--output-dir", str(tmp_path / "set")])
    assert read_metadata(tmp_path / "set")["subject_splits"]["sub-02"] == {"test": N}


def test_shared_windows_equal_a_loop_over_pairs():
    generator = np.random.default_rng(3)
    order = ("train", "validation", "test")
    trials, splits = [], []
    for source in ("a", "a", "b"):  # two entries of one recording
        begins = generator.uniform(0, 20, 15)
        windows = np.stack([begins, begins + 0.4], axis=1)
        trials.append(Trials(None, ["x"] * 15, None, ["r"] * 15, windows=windows, source=source))
        splits.append(generator.choice(order, 15, p=[0.6, 0.2, 0.2]).tolist())
    rows = [
        (trial.source, *window, order.index(split))
        for trial, names in zip(trials, splits, strict=True)
        for window, split in zip(trial.windows, names, strict=True)
    ]
    expected = sum(
        any(b[0] == a[0] and b[3] < a[3] and b[1] < a[2] and a[1] < b[2] for b in rows) for a in rows if a[3]
    )
    assert expected > 3
    assert shared_windows(trials, splits) == {"rows": expected, "held_out": sum(row[3] > 0 for row in rows)}
    unknown = [Trials(None, ["x"] * 15, None, ["r"] * 15) for _ in trials]
    assert shared_windows(unknown, splits) is None


def test_windows_that_only_touch_share_nothing():
    windows = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]])  # s
    trials = [Trials(None, ["x"] * 3, None, ["r"] * 3, windows=windows, source="a")]
    assert shared_windows(trials, [["train", "test", "train"]]) is None
    windows[1, 1] += 1e-9
    assert shared_windows(trials, [["train", "test", "train"]]) == {"rows": 1, "held_out": 1}


@pytest.mark.parametrize(("n_runs", "counts"), [(10, (3, 2)), (3, (1, 1)), (2, (1, 0)), (1, (0, 0))])
def test_each_subject_gives_its_share_of_runs_and_keeps_one(n_runs, counts):
    subjects = ["sub-01", "sub-02"]
    entries = [Recording(file="f", kind="patterns", subject=subject) for subject in subjects]
    runs = [[f"{run}" for run in range(n_runs)] for _ in subjects]
    images = [[f"im{row}" for row in range(n_runs)] for _ in subjects]
    splits = Splits(by="run", test=0.3, validation=0.2, seed=4)
    if 0 in counts:
        with pytest.raises(DataError, match=r"nothing is left for '(test|validation)'"):
            assign_splits(entries, images, runs, splits)
        return
    found = assign_splits(entries, images, runs, splits)
    assert [(rows.count("test"), rows.count("validation")) for rows in found] == [counts] * 2
    assert found[0] != found[1] or n_runs == 3  # chosen for each subject anew


@pytest.mark.parametrize(("share", "counts"), [(0.3, [3, 1, 1]), (0.9, [9, 3, 3])])
def test_shares_are_of_a_subjects_own_runs_and_leave_one(share, counts):
    sizes = [10, 4, 4]
    entries = [Recording(file="f", kind="patterns", subject=f"sub-0{number}") for number in (1, 2, 3)]
    runs = [[f"{run}" for run in range(size)] for size in sizes]
    found = assign_splits(entries, runs, runs, Splits(by="run", test=share, validation=None, seed=4))
    assert [rows.count("test") for rows in found] == counts
    assert not any("validation" in rows for rows in found)
