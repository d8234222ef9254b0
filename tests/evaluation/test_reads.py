"""What an evaluation reads from disk, counted where files and Arrow tables are read."""

import io
from collections import Counter

import datasets
import numpy as np
import pytest

from neural_clip.errors import DataError
from neural_clip.evaluation import baseline_rows
from neural_clip.evaluation.baselines import closed_form, strengths, whitening
from neural_clip.evaluation.run import evaluate_checkpoints
from neural_clip.prepared.reader import PreparedSet
from planted_data import SHAPES, PlantedModel, plant, write_planted

COUNTS = {"train": 14, "validation": 7, "test": 9}
SUBJECTS = REPEATS = 2
ROWS = {split: SUBJECTS * REPEATS * count for split, count in COUNTS.items()}


@pytest.fixture
def reads(monkeypatch):
    """Files opened, and tables read: columns and the number of rows of each read."""
    files, tables = Counter(), []
    really_open, really_get = io.open, datasets.Dataset._getitem

    def opened(file, *args, **kwargs):
        files[str(file)] += 1
        return really_open(file, *args, **kwargs)

    def got(self, key, **kwargs):
        found = really_get(self, key, **kwargs)
        tables.append((tuple(self.column_names), len(found)))
        return found

    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr(datasets.Dataset, "_getitem", got)
    return files, tables


def test_two_checkpoints_on_three_data_sets(tmp_path, monkeypatch, reads):
    folders = {m: write_planted(tmp_path / m, m, seed=i, pixels=False, counts=COUNTS) for i, m in enumerate(SHAPES)}
    plant(monkeypatch, lambda checkpoint: PlantedModel(tuple(SHAPES)))
    files, tables = reads
    files.clear()
    tables.clear()
    evaluate_checkpoints({"one": "a", "two": "b"}, [str(folder) for folder in folders.values()], tmp_path / "out",
                         batch_size=10)  # fmt: skip
    for modality, folder in folders.items():
        # when the set is opened and when its files are read whole: what kind of file it is, and its content
        assert files[str(folder / "neural_clip.json")] == 4
        of_recordings = [rows for columns, rows in tables if columns == (modality,)]
        # the scored split once for each checkpoint, in blocks; then all three for baselines and controls together
        blocks = [10] * (ROWS["test"] // 10) + [ROWS["test"] % 10]
        assert of_recordings == [*blocks, *blocks, ROWS["train"], ROWS["validation"], ROWS["test"]]
    assert [rows for columns, rows in tables if "image_embeds" in columns] == [sum(COUNTS.values())] * len(folders)


def test_without_baselines_and_controls_no_split_is_read_whole(tmp_path, monkeypatch, reads):
    folder = write_planted(tmp_path / "meg", "meg", pixels=False, counts=COUNTS)
    plant(monkeypatch, lambda checkpoint: PlantedModel(("meg",)))
    _, tables = reads
    tables.clear()
    evaluate_checkpoints({"one": "a"}, [folder], tmp_path / "out", baselines=False, controls=False, batch_size=7)
    found = [rows for columns, rows in tables if columns == ("meg",)]
    assert max(found) == 7 and sum(found) == ROWS["test"]


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Gives what was copied to an empty cache of `datasets`: the Arrow files of recordings, by split and rows."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)

    def found():
        names = [path.name for path in cache.rglob("*.arrow") if not path.name.startswith("parquet-images")]
        rows = sum(len(datasets.Dataset.from_file(str(path))) for path in cache.rglob("*.arrow")
                   if not path.name.startswith("parquet-images"))  # fmt: skip
        return sorted(names), rows

    return found


@pytest.mark.parametrize("gallery", [None, "train"])
def test_only_the_scored_split_of_those_who_are_scored_is_copied(tmp_path, monkeypatch, copied, gallery):
    """Conversion by training images, and galleries of other splits, need labels alone."""
    modalities = ("eeg", "fmri")
    folders = [write_planted(tmp_path / name, name, pixels=False, counts=COUNTS) for name in modalities]
    plant(monkeypatch, lambda checkpoint: PlantedModel(modalities))
    chosen = {"subjects": ["sub-01"], "baselines": False, "controls": False}
    if gallery is not None:
        with pytest.raises(DataError, match="The gallery lacks"):  # once its images are known
            evaluate_checkpoints({"one": "a"}, folders, tmp_path / "out", gallery=gallery, **chosen)
    else:
        report = evaluate_checkpoints({"one": "a"}, folders, tmp_path / "out", **chosen)
        assert report["conversion"][0]["n_bank_images"] == COUNTS["train"]  # the same in both
    n_sets = 1 if gallery else 2  # the first is refused
    assert copied() == (["parquet-test.arrow"] * n_sets, n_sets * ROWS["test"] // SUBJECTS)


def test_a_split_is_copied_when_it_is_asked_for(tmp_path, copied):
    data = PreparedSet.open(write_planted(tmp_path / "eeg", "eeg", pixels=False, counts=COUNTS))
    shown = {name: data.distinct(name) for name in COUNTS}
    assert copied() == ([], 0)
    for number, name in enumerate(COUNTS, 1):
        part = data.split(name, ["sub-02"])
        assert copied()[0] == sorted(f"parquet-{split}.arrow" for split in list(COUNTS)[:number])
        np.testing.assert_array_equal(shown[name], part.shown_ids)
    data.split("test", ["sub-02"])
    assert len(copied()[0]) == len(COUNTS)
    data.split("test")
    assert len(copied()[0]) == len(COUNTS) + 1


def test_baselines_and_controls_read_large_splits_by_blocks(tmp_path, monkeypatch, reads):
    folder = write_planted(tmp_path / "meg", "meg", pixels=False, counts=COUNTS)
    plant(monkeypatch, lambda checkpoint: PlantedModel(("meg",)))
    for module in (baseline_rows, closed_form):
        monkeypatch.setattr(module, "MAX_LOADED", 0)
    monkeypatch.setattr(strengths, "ROWS_LOOKED_AT", 4)
    monkeypatch.setattr(whitening, "BLOCK_NUMBERS", 8 * 56)  # eight recordings of 8 x 7 numbers
    _, tables = reads
    tables.clear()
    report = evaluate_checkpoints({"one": "a"}, [folder], tmp_path / "out", batch_size=7)
    found = [rows for columns, rows in tables if columns == ("meg",)]
    assert max(found) == 8 and sum(found) > 10 * sum(ROWS.values())
    assert all("not_computed" not in row for row in report["decoding"]["meg"]["rows"])


def test_a_second_look_is_counted(tmp_path, reads):
    """The counters see what they are there to see."""
    folder = write_planted(tmp_path / "eeg", "eeg", pixels=False, counts=COUNTS)
    files, tables = reads
    files.clear()
    for _ in range(2):
        part = PreparedSet.open(folder).split("test")
        tables.clear()
        part.values(), part.values(), part.data.images
    assert files[str(folder / "neural_clip.json")] == 4
    assert [rows for columns, rows in tables if columns == ("eeg",)] == [ROWS["test"]] * 2
    assert sum("image_embeds" in columns for columns, _ in tables) == 1
