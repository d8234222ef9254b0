"""Images of a prepared data set: rows by their numbers, without those before them being read."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neural_clip.targets.unique_images import read_image_rows, rows_at

ROWS = [
    {"image_id": f"im{i}", "concept": "c", "categories": ["x"], "image": {"bytes": bytes([i]), "path": None}}
    for i in range(11)
]


@pytest.mark.parametrize("group_rows", [1, 3, 100])
def test_rows_are_found_by_their_numbers(tmp_path, monkeypatch, group_rows):
    files = []
    for start in range(0, len(ROWS), 4):
        files.append(tmp_path / f"images-{start:05d}.parquet")
        pq.write_table(pa.Table.from_pylist(ROWS[start : start + 4]), files[-1], row_group_size=group_rows)
    monkeypatch.setattr("neural_clip.targets.unique_images.ROWS_READ", 2)
    for first in range(len(ROWS) + 1):
        assert list(read_image_rows(files, first)) == ROWS[first:]
    rng = np.random.default_rng(0)
    for size in (1, 2, len(ROWS)):
        numbers = sorted(rng.choice(len(ROWS), size, replace=False).tolist())
        assert rows_at(files, numbers) == [ROWS[number] for number in numbers]
