"""Images of a prepared data set: rows by their numbers, without those before them being read."""

import numpy as np
import pytest

from neural_clip.targets.unique_images import image_files, read_image_rows, rows_at
from toy_sets import write_toy_set


@pytest.mark.parametrize("group_rows", [1, 3, 100])
def test_rows_are_found_by_their_numbers(tmp_path, monkeypatch, group_rows):
    import pyarrow.parquet as pq

    folder = write_toy_set(tmp_path / "set")
    (file,) = image_files(folder)
    table = pq.read_table(file)
    files = []
    for number, start in enumerate(range(0, len(table), 4)):
        files.append(file.with_name(f"images-{number:05d}.parquet"))
        pq.write_table(table.slice(start, 4), files[-1], row_group_size=group_rows)
    monkeypatch.setattr("neural_clip.targets.unique_images.ROWS_READ", 2)
    rows = list(read_image_rows(files))
    assert len(rows) == len(table) > 4
    for first in range(len(rows) + 1):
        assert list(read_image_rows(files, first)) == rows[first:]
    rng = np.random.default_rng(0)
    for size in (1, 2, len(rows)):
        numbers = sorted(rng.choice(len(rows), size, replace=False).tolist())
        assert rows_at(files, numbers) == [rows[number] for number in numbers]
