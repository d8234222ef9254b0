"""Embedded recordings as Parquet: those of a gallery, whole or not at all, and what made them."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from neural_clip import NeuralGallery
from neural_clip.commands import main as cli
from neural_clip.errors import DataError
from neural_clip.gallery.parquet import NOBODY


def test_all_rows_of_all_splits_are_written_with_what_stands_behind_them(world, tmp_path, capsys):
    path = tmp_path / "eeg.parquet"
    words = ["embed-recordings", str(world.folders["eeg"]), "--checkpoint", str(world.checkpoint), "--output-file"]
    cli.main([*words, str(path)])
    shown = capsys.readouterr()
    assert shown.out == f"embeddings: {path}\n" and NOBODY in shown.err
    rows = load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    expected = NeuralGallery.from_recordings(world.checkpoint, world.data["eeg"])
    assert np.array_equal(np.array(rows["vector"], np.float32), expected.vectors)
    for name in ("image_id", "concept", "subject", "session", "split", "modality", "categories"):
        assert rows[name][:] == expected.rows[name][:]
    assert not any(place.startswith("/") for place in rows["file"])  # where the set lies from here, or its name
    told = json.loads(pq.read_schema(path).metadata[b"neural_clip"])
    assert told["checkpoint"]["sha256"] == expected.checkpoint.sha256
    assert told["data_set"]["fingerprint"] == world.data["eeg"].facts.fingerprint
    assert told["data_set"]["redistribution"] == "allowed" and told["simulated"] is True
    assert told["image_encoder"] == expected.encoder.named and str(world.root) not in json.dumps(told)

    before = path.read_bytes()
    with pytest.raises(DataError, match=r"exists\. Pass `--overwrite` to replace the file"):
        cli.main([*words, str(path)])
    with pytest.raises(DataError, match=r"has suffix '\.csv'; allowed is '\.parquet'"):
        cli.main([*words, str(tmp_path / "eeg.csv")])
    with pytest.raises(DataError, match="lies in the data set"):
        cli.main([*words, str(world.folders["eeg"] / "eeg.parquet")])
    with pytest.raises(DataError, match="There is no folder 'gone'"):
        cli.main([*words[:2], "--checkpoint", "gone", "--output-file", str(path), "--overwrite"])
    assert path.read_bytes() == before and not list(tmp_path.glob("*.partial"))
    cli.main([*words, str(path), "--overwrite", "--dtype", "float16"])
    assert pq.read_table(path)["vector"].type.value_type == "halffloat"
