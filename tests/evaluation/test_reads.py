"""What an evaluation reads from disk, counted where files and Arrow tables are read."""

import io
from collections import Counter

import datasets
import pytest

from neural_clip.evaluation import run
from neural_clip.evaluation.baselines import closed_form, strengths, whitening
from neural_clip.evaluation.run import evaluate_checkpoints
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


def test_baselines_and_controls_read_large_splits_by_blocks(tmp_path, monkeypatch, reads):
    folder = write_planted(tmp_path / "meg", "meg", pixels=False, counts=COUNTS)
    plant(monkeypatch, lambda checkpoint: PlantedModel(("meg",)))
    for module in (run, closed_form):
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
    from neural_clip.prepared.reader import PreparedSet

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
