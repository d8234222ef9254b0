"""The writer of prepared data sets: whole or not at all, checked row by row, readable by `load_dataset`."""

import hashlib
import io
import json

import numpy as np
import pytest
import yaml
from datasets import load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from neural_clip.errors import DataError
from neural_clip.prepared.facts import read_metadata, verify_prepared
from neural_clip.prepared.parquet import ParquetShards
from neural_clip.prepared.splits import validation_split
from neural_clip.prepared.writer import write_prepared
from paths import REPOSITORY
from small_disk import run_on_small_disk
from toy_sets import toy_facts

N_IMAGES = 10


def split_of(i):
    return "test" if i >= 8 else "validation" if i >= 6 else "train"


def signal(subject, i, shape=(3, 5)):
    return np.random.default_rng([subject, i]).normal(size=shape).astype(np.float32)


def recordings(n_subjects=2, **changes):
    return [
        {
            "subject": f"sub-0{s}", "session": "ses-01", "run": "run-01", "trial": i, "image_id": f"im{i}",
            "split": split_of(i), "eeg": signal(s, i),
        } | changes
        for s in range(1, n_subjects + 1)
        for i in range(N_IMAGES)
    ]  # fmt: skip


def images(**changes):
    pixels = np.random.default_rng(0).integers(0, 255, (N_IMAGES, 6, 8, 3), dtype=np.uint8)
    return [
        {"image_id": f"im{i}", "image": pixels[i], "concept": f"c{i % 3}", "categories": ["x", "y"]} | changes
        for i in range(N_IMAGES)
    ]


def write(folder, rows=None, pictures=None, overwrite=False, shard_rows=2000, **changes):
    rows = recordings() if rows is None else rows
    pictures = images() if pictures is None else pictures
    return write_prepared(folder, toy_facts(**changes), rows, pictures, overwrite=overwrite, shard_rows=shard_rows)


def test_load_dataset_gives_back_what_was_written(tmp_path):
    folder = write(tmp_path / "set", shard_rows=3)
    for config, split, count in (("sub-02", "test", 2), ("all", "train", 12), ("images", "images", 10)):
        stored = load_dataset(str(folder), config, split=split, cache_dir=str(tmp_path / "cache"))
        streamed = list(load_dataset(str(folder), config, split=split, streaming=True))
        assert len(stored) == len(streamed) == count
        assert [row["image_id"] for row in stored] == [row["image_id"] for row in streamed]
    row = load_dataset(str(folder), "sub-02", split="validation", cache_dir=str(tmp_path / "cache"))[1]
    expected = {
        "subject": "sub-02", "session": "ses-01", "run": "run-01", "trial": 7, "image_id": "im7", "concept": "c1",
        "categories": ["x", "y"], "n_repeats": 1, "eeg": signal(2, 7).tolist(),
    }  # fmt: skip
    assert row == expected
    picture = load_dataset(str(folder), "images", split="images", cache_dir=str(tmp_path / "cache"))[4]["image"]
    np.testing.assert_array_equal(np.asarray(picture), images()[4]["image"])
    assert len(load_dataset(str(folder), split="test", cache_dir=str(tmp_path / "cache"))) == 4  # default: all


def test_fmri_rows_are_as_long_as_the_subject_s_region(tmp_path):
    rows = [
        {key: value for key, value in row.items() if key != "eeg"}
        | {"fmri": signal(int(row["subject"][-1]), row["trial"], (width,))}
        for row in recordings()
        for width in [4 if row["subject"] == "sub-01" else 7]
    ]
    folder = write(tmp_path / "set", rows, modality="fmri", ch_names=None)
    assert read_metadata(folder)["n_voxels"] == {"sub-01": 4, "sub-02": 7}
    stored = load_dataset(str(folder), "all", split="test", cache_dir=str(tmp_path / "cache"))
    assert [len(values) for values in stored["fmri"]] == [4, 4, 7, 7]


def test_metadata_and_card_tell_the_counts(tmp_path):
    folder = write(tmp_path / "set")
    metadata = json.loads((folder / "neural_clip.json").read_text())
    assert metadata["splits"] == {
        "train": {"rows": 12, "images": 6, "concepts": 3},
        "validation": {"rows": 4, "images": 2, "concepts": 2},
        "test": {"rows": 4, "images": 2, "concepts": 2},
    }
    assert metadata["subjects"] == ["sub-01", "sub-02"]
    assert (metadata["n_chans"], metadata["n_times"], metadata["n_voxels"]) == (3, 5, None)
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert [config["config_name"] for config in front["configs"]] == ["all", "sub-01", "sub-02", "images"]
    assert front["license"] == "cc0-1.0"
    assert metadata["fingerprint"] in card


def test_card_tells_terms_parts_and_declared_facts(tmp_path):
    folder = write(
        tmp_path / "set", terms="For research.", declared={"trials": 20, "images": 11},
        partial={"images": {"found": 10, "declared": 11}},
    )  # fmt: skip
    card = (folder / "README.md").read_text()
    assert "Terms: For research." in card
    assert "**Part of the corpus.**" in card
    assert "images 10 of 11" in card
    assert "checked against: trials 20, images 11" in card
    assert "Part of the corpus" not in (write(tmp_path / "whole") / "README.md").read_text()


def test_fingerprint_is_over_names_and_contents(tmp_path):
    folder = write(tmp_path / "set")
    lines = [
        f"{path.relative_to(folder).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for path in sorted(folder.rglob("*.parquet"))
    ]
    assert verify_prepared(folder)["fingerprint"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    again = write(tmp_path / "again")
    assert read_metadata(again)["fingerprint"] == read_metadata(folder)["fingerprint"]
    lost = next(folder.rglob("test-*.parquet"))
    lost.write_bytes(lost.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"test-00000\.parquet' is not the file that was written: it has \d+ bytes"):
        verify_prepared(folder)


def test_new_contents_are_not_hidden_by_the_cache_of_load_dataset(tmp_path):
    folder = write(tmp_path / "set")
    cache = {"cache_dir": str(tmp_path / "cache"), "split": "test"}
    first = load_dataset(str(folder), "sub-01", **cache)[0]["eeg"]
    changed = [row | {"eeg": row["eeg"] + 1} for row in recordings()]
    write(folder, changed, overwrite=True)
    second = load_dataset(str(folder), "sub-01", **cache)[0]["eeg"]
    np.testing.assert_allclose(np.array(second), np.array(first) + 1, rtol=1e-6)


def test_shards_hold_no_more_rows_than_asked(tmp_path):
    folder = write(tmp_path / "set", shard_rows=4)
    names = sorted(path.name for path in (folder / "data" / "sub-01").iterdir())
    assert names == ["test-00000.parquet", "train-00000.parquet", "train-00001.parquet", "validation-00000.parquet"]


def one_changed(index, **changes):
    rows = recordings()
    rows[index] = {key: value for key, value in (rows[index] | changes).items() if value is not ...}
    return rows


BAD_ROWS = {
    "nan": ({"eeg": np.full((3, 5), np.nan)}, "recording 3 .*15 values that are not finite"),
    "infinite": ({"eeg": np.full((3, 5), np.inf)}, "not finite"),
    "shape": ({"eeg": np.zeros((3, 6))}, r"shape \(3, 6\); expected \(3, 5\)"),
    "flat": ({"eeg": np.zeros(15)}, r"shape \(15,\)"),
    "unknown image": ({"image_id": "im99"}, "image 'im99' is not among the 10 images"),
    "unknown split": ({"split": "dev"}, "'train', 'validation' and 'test', but got 'dev'"),
    "leak": ({"split": "test"}, "in split 'train', but image 'im3' is in split 'test' as well"),
    "subject name": ({"subject": "../sub"}, "named like 'sub-01', but got '../sub'"),
    "no signal": ({"eeg": ...}, "has no 'eeg'"),
    "no image": ({"image_id": ...}, "has no 'image_id'"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_recordings_are_named_and_leave_nothing_behind(tmp_path, case):
    changes, message = BAD_ROWS[case]
    with pytest.raises(DataError, match=message):
        write(tmp_path / "set", one_changed(3, **changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(3, 0), (0, 5)])
def test_recordings_without_a_value_are_refused(tmp_path, shape):
    rows = [row | {"eeg": np.zeros(shape)} for row in recordings()]
    with pytest.raises(DataError, match=rf"has shape \({shape[0]}, {shape[1]}\)|channels, but the recordings have 0"):
        write(tmp_path / "set", rows)
    rows = [{key: value for key, value in row.items() if key != "eeg"} | {"fmri": np.zeros(0)} for row in recordings()]
    with pytest.raises(DataError, match=r"has shape \(0,\)"):
        write_prepared(tmp_path / "set", toy_facts("fmri"), rows, images())
    rows = [row | {"fmri": np.ones(1)} for row in rows]  # one voxel is few, but some
    with pytest.raises(DataError, match=r"has shape \(2,\); expected \(1,\)"):
        write_prepared(tmp_path / "set", toy_facts("fmri"), [*rows, rows[0] | {"fmri": np.ones(2)}], images())
    assert list(tmp_path.iterdir()) == []


BAD_IMAGES = {
    "twice": (lambda: [*images(), images()[2]], {}, "'im2' occurs twice"),
    "float": (lambda: images(image=np.zeros((4, 4, 3))), {}, "expected uint8"),
    "no file": (lambda: images(image=b"GIF87a nonsense"), {}, "no readable image file"),
    "nothing": (lambda: images(image=None), {}, "neither pixels nor an embedding"),
    "none": (list, {}, "no images to write"),
    "uneven": (lambda: [images()[0], images(image_embeds=np.ones(2))[1]], {}, "give all the same"),
    "nan": (lambda: images(image_embeds=np.array([np.nan, 1])), {}, "not finite"),
    "zeros": (lambda: images(image_embeds=np.zeros(2)), {}, "all zeros"),
    "matrix": (lambda: images(image_embeds=np.ones((2, 2))), {}, r"shape \(2, 2\)"),
    "nameless": (lambda: images(image_embeds=np.ones(2)), {}, "'image_encoder' is None"),
    "named only": (images, {"image_encoder": {"name": "x"}}, "embeddings of width None"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_are_named_and_leave_nothing_behind(tmp_path, case):
    pictures, changes, message = BAD_IMAGES[case]
    with pytest.raises(DataError, match=message):
        write(tmp_path / "set", pictures=pictures(), **changes)
    assert list(tmp_path.iterdir()) == []


def test_truncated_jpeg_is_an_error(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(buffer, format="JPEG")
    with pytest.raises(DataError, match="'im0' is no readable image file"):
        write(tmp_path / "set", pictures=images(image=buffer.getvalue()[:-500]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": "ecog"}, "'eeg', 'meg' and 'fmri', but got 'ecog'"),
        ({"split_unit": "day"}, "'image', 'run', 'recording' and 'subject', but got 'day'"),
        ({"licence": ""}, "lacks 'licence'"),
        ({"category_level": True}, "cannot be split by image"),
        ({"ch_names": ["A"]}, "'ch_names' lists 1 channels, but the recordings have 3"),
        ({"subjects": ["sub-01"]}, "expected of subjects"),
    ],
)
def test_bad_metadata_is_an_error(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        write(tmp_path / "set", **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lacking", [("validation",), ("train",), ("test",), ("train", "validation")])
def test_a_subject_may_lack_splits_and_the_doctor_says_so(tmp_path, lacking):
    rows = [row for row in recordings() if row["subject"] == "sub-01" or row["split"] not in lacking]
    facts = read_metadata(write(tmp_path / "set", rows))
    assert set(facts["subject_splits"]["sub-02"]) == {"train", "validation", "test"} - set(lacking)
    told = [found["message"] for found in facts["findings"] if found["check"] == "splits"]
    assert told == [f"1 of 2 subjects has no {split} rows: sub-02." for split in lacking]


def test_nothing_to_train_on_or_to_score_is_refused_and_no_validation_told(tmp_path):
    for split in ("train", "test"):
        with pytest.raises(DataError, match=f"'{split}' is empty: it has no rows of sub-01, sub-02"):
            write(tmp_path / "set", [row for row in recordings() if row["split"] != split])
    with pytest.raises(DataError, match="no recordings"):
        write(tmp_path / "set", [])
    facts = read_metadata(write(tmp_path / "set", [row for row in recordings() if row["split"] != "validation"]))
    assert facts["splits"]["validation"] == {"rows": 0, "images": 0, "concepts": 0}
    assert ("warning", "There is no validation split.") in [(f["severity"], f["message"]) for f in facts["findings"]]


def held_out(subject="sub-02", **changes):
    """All rows of a subject for testing, whose images the other was trained on."""
    own = [row for row in recordings() if row["subject"] != subject and row["split"] != "test"]
    return own + [row | {"split": "test"} | changes for row in recordings() if row["subject"] == subject]


def test_a_held_out_subject_may_see_images_that_others_were_trained_on(tmp_path):
    facts = read_metadata(write(tmp_path / "set", held_out(), split_unit="subject"))
    assert facts["subject_splits"] == {"sub-01": {"train": 6, "validation": 2}, "sub-02": {"test": 10}}
    assert facts["splits"]["test"]["images"] == 10
    (known,) = [found for found in facts["findings"] if found["check"] == "known images"]
    assert known["severity"] == "warning"
    assert "8 images are in several splits, by different subjects; 10 are tested" in known["message"]
    with pytest.raises(DataError, match="is in split 'test', but image 'im0' is in split 'train' as well"):
        write(tmp_path / "leak", held_out())
    alone = [row for row in held_out() if row["subject"] == "sub-02"]
    facts = read_metadata(write(tmp_path / "alone", alone, split_unit="subject"))
    assert facts["subject_splits"] == {"sub-02": {"test": 10}}
    assert ("warning", "There is no train split.") in [(f["severity"], f["message"]) for f in facts["findings"]]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_held_out_subject_is_held_out_whole(tmp_path, split):
    rows = held_out()
    rows[-1] = rows[-1] | {"split": split, "image_id": "im9"}
    with pytest.raises(DataError, match="Subjects are held out, but sub-02 has rows in 'test' and in another split"):
        write(tmp_path / "set", rows, split_unit="subject")


def test_images_of_one_subject_in_two_splits_are_refused_where_subjects_are_held_out(tmp_path):
    rows = held_out()
    rows[0] = rows[0] | {"split": "validation"}
    rows.append(rows[0] | {"split": "train", "trial": 99, "eeg": signal(9, 9)})
    with pytest.raises(DataError, match="1 images are in split 'train' and in split 'validation' as well"):
        write(tmp_path / "set", rows, split_unit="subject")


def test_absent_concepts_are_no_concept(tmp_path):
    pictures = [row | {"concept": "" if i != 9 else "cat"} for i, row in enumerate(images())]
    facts = read_metadata(write(tmp_path / "set", pictures=pictures))
    assert [facts["splits"][split]["concepts"] for split in ("train", "validation", "test")] == [0, 0, 1]
    assert "counts" not in {found["check"] for found in facts["findings"]}


def category_rows():
    return [row | {"image_id": "im0", "run": f"run-{i % N_IMAGES:02d}"} for i, row in enumerate(recordings())]


def test_category_level_sets_are_split_by_run(tmp_path):
    folder = write(tmp_path / "set", category_rows(), category_level=True, split_unit="run")
    assert read_metadata(folder)["category_level"]
    assert "Category level" in (folder / "README.md").read_text()
    rows = [row | {"run": "run-01"} for row in category_rows()]
    with pytest.raises(DataError, match="its run sub-01/ses-01/run-01 is in 'train' as well"):
        write(tmp_path / "leak", rows, category_level=True, split_unit="run")


def test_subject_with_few_runs_may_lack_a_test_split(tmp_path):
    rows = [row for row in category_rows() if row["subject"] == "sub-01" or row["split"] == "train"]
    folder = write(tmp_path / "set", rows, category_level=True, split_unit="run")
    assert read_metadata(folder)["subject_splits"]["sub-02"] == {"train": 6}
    assert len(load_dataset(str(folder), "sub-02", split="train", cache_dir=str(tmp_path / "cache"))) == 6


def test_existing_folders_are_kept(tmp_path):
    folder = write(tmp_path / "set")
    before = (folder / "neural_clip.json").read_text()
    with pytest.raises(DataError, match=r"not empty.*--overwrite"):
        write(folder)
    with pytest.raises(DataError, match="has no 'image_id'"):
        write(folder, one_changed(3, image_id=...), overwrite=True)
    assert (folder / "neural_clip.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(DataError, match="no prepared data set, so it is not overwritten"):
        write(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "precious"


def test_a_data_set_that_was_moved_aside_by_a_killed_run_comes_back(tmp_path):
    folder = write(tmp_path / "set")
    kept = (folder / "neural_clip.json").read_bytes()
    folder.rename(tmp_path / "set.replaced")  # where it is between the two renames that replace it
    with pytest.raises(DataError, match=r"not empty.*--overwrite"):
        write(folder)
    assert (folder / "neural_clip.json").read_bytes() == kept
    assert not (tmp_path / "set.replaced").exists()


def test_interruption_leaves_nothing_behind(tmp_path):
    def interrupted():
        yield from recordings()[:7]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set", interrupted())
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_run_do_not_get_in(tmp_path):
    (tmp_path / "set.partial" / "data" / "sub-09").mkdir(parents=True)
    (tmp_path / "set.partial" / "data" / "sub-09" / "train-00000.parquet").write_bytes(b"half")
    folder = write(tmp_path / "set")
    assert sorted(path.name for path in (folder / "data").iterdir()) == ["sub-01", "sub-02"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no prepared data set"),
        ("{", "is no readable JSON file"),
        ("[]", "format_version None"),
        ('{"format_version": 9}', "9"),
    ],
)
def test_read_metadata_says_what_is_wrong(tmp_path, content, message):
    if content is not None:
        (tmp_path / "neural_clip.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_metadata(tmp_path)


def test_rows_pass_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("neural_clip.prepared.parquet.ROW_GROUP_BYTES", 1000)
    from datasets import Features, List, Value

    most = 0
    with ParquetShards(tmp_path, 10_000) as shards:
        for i in range(100):
            shards.add("data/x", Features({"v": List(Value("float32"))}), {"v": np.full(10, i, np.float32)})
            most = max(most, len(shards.streams["data/x"].rows))
    assert most <= 1000 // 40
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "data" / "x-00000.parquet")
    assert [row[0] for row in table["v"].to_pylist()] == list(range(100))


@settings(max_examples=30, deadline=None)
@given(
    ids=st.lists(st.text(min_size=1, max_size=4), min_size=2, max_size=40).filter(lambda ids: len(set(ids)) > 1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
    data=st.data(),
)
def test_validation_split_groups_images(ids, fraction, seed, data):
    chosen = validation_split(ids, fraction, seed)
    unique = set(ids)
    assert chosen < unique
    assert chosen
    assert abs(len(chosen) - fraction * len(unique)) <= 1
    shuffled = data.draw(st.permutations(ids + ids[:3]))
    assert validation_split(shuffled, fraction, seed) == chosen


def test_validation_split_depends_on_the_seed_and_refuses_nonsense():
    ids = [f"im{i}" for i in range(50)]
    assert validation_split(ids, 0.2, 0) != validation_split(ids, 0.2, 1)
    for fraction in (0, 1, -0.1, 2):
        with pytest.raises(DataError, match="'fraction'"):
            validation_split(ids, fraction, 0)
    with pytest.raises(DataError, match="at least 2 unique images, but got 1"):
        validation_split(["a", "a"], 0.5, 0)


# Prepares a data set on a small disk, and then in its place one that is too large for it.
FILLS = """
import sys
from pathlib import Path
import numpy as np
from neural_clip.errors import DataError
from neural_clip.prepared.facts import verify_prepared
from toy_sets import toy_facts
from neural_clip.prepared.writer import write_prepared

disk, rng = Path(sys.argv[1]), np.random.default_rng(0)
splits = ["train"] * 10 + ["validation"] * 5 + ["test"] * 5

def write(size):
    images = [{"image_id": f"im{i:02d}", "image": rng.integers(0, 255, (size, size, 3), np.uint8)} for i in range(20)]
    rows = [{"subject": "sub-01", "image_id": f"im{i:02d}", "split": split, "fmri": rng.normal(size=size * size)}
            for i, split in enumerate(splits)]
    write_prepared(disk / "set", toy_facts("fmri"), rows, images, overwrite=True)

write(16)
before = verify_prepared(disk / "set")
try:
    write(60)
except DataError as error:
    print(error)
assert verify_prepared(disk / "set") == before
print(*(path.name for path in disk.iterdir()))
"""


def test_a_full_disk_is_told_and_keeps_the_older_set(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests"))
    done = run_on_small_disk(tmp_path, "512k", FILLS)
    told = f"'{tmp_path}/set' cannot be written: no space is left on the device. What was there before is unchanged."
    assert done.stdout.splitlines() == [told, "set"], done.stderr
