"""Embedded recordings as Parquet: those of a gallery, whole or not at all, and what made them."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from local_cluster import local_cluster
from neural_clip import NeuralGallery
from neural_clip.commands import main as cli
from neural_clip.errors import DataError
from neural_clip.gallery.embedder import Embedder
from neural_clip.gallery.parquet import NOBODY, _opened, write_embeddings
from neural_clip.prepared.reader import PreparedSet


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


def test_streamed_recordings_become_the_same_bytes(world, tmp_path, monkeypatch):
    words = ["embed-recordings", str(world.folders["fmri"]), "--checkpoint", str(world.checkpoint), "--output-file"]
    cli.main([*words, str(tmp_path / "mapped.parquet")])
    monkeypatch.setattr(PreparedSet, "_of_subject", lambda *_: pytest.fail("recordings were written as Arrow"))
    cli.main([*words, str(tmp_path / "streamed.parquet"), "--streaming"])
    assert (tmp_path / "streamed.parquet").read_bytes() == (tmp_path / "mapped.parquet").read_bytes()
    folder, facts = str(world.folders["fmri"]), world.data["fmri"].facts
    sha256 = Embedder.of(str(world.checkpoint)).identity.sha256
    _, blocks = _opened(str(world.checkpoint), sha256, folder, facts.fingerprint, True)  # as another process does
    assert all(block.data.streaming for block in blocks)


@pytest.mark.slow
def test_two_processes_and_a_cluster_write_the_same_bytes(world, tmp_path, monkeypatch):
    """Names that are not absolute; workers of a cluster were started in another folder."""
    monkeypatch.chdir(world.root)
    files = []
    for name, more in (("one", []), ("two", ["--num-proc", "2"]), ("cluster", ["--cluster", local_cluster()])):
        files.append(tmp_path / f"{name}.parquet")
        words = ["eeg", "--checkpoint", "checkpoint", "--output-file", f"{tmp_path}/{name}.parquet"]
        cli.main(["embed-recordings", *words, *more])
    one, two, cluster = (path.read_bytes() for path in files)
    assert one == two == cluster and sorted(tmp_path.iterdir()) == sorted(files)


def test_an_interrupted_run_goes_on_with_the_blocks_that_are_missing(world, tmp_path, monkeypatch, capsys):
    path, embed, done = tmp_path / "eeg.parquet", Embedder.embed_split, []

    def embed_split(self, part, subject=None, **how):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(part.name)
        return embed(self, part, subject, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "embed_split", embed_split)
        with pytest.raises(KeyboardInterrupt):
            write_embeddings(world.checkpoint, world.folders["eeg"], path)
        kept = tmp_path / "eeg.parquet.blocks-partial"
        assert [entry.name for entry in tmp_path.iterdir()] == [kept.name]
        assert f"2 embedded blocks of recordings stay in '{kept}'" in capsys.readouterr().err
        done.clear()
        other = Embedder.of(world.checkpoint)
        other.model.config.dropout_of_another = 0.5  # weights are the same
        with pytest.raises(KeyboardInterrupt):
            write_embeddings(other, world.folders["eeg"], path)
        assert done == ["train", "validation"]
        shutil.rmtree(kept)
        done.clear()
        with pytest.raises(KeyboardInterrupt):
            write_embeddings(world.checkpoint, world.folders["eeg"], path)
        done.clear()
        write_embeddings(world.checkpoint, world.folders["eeg"], path)
        assert done == ["test"] and [entry.name for entry in tmp_path.iterdir()] == [path.name]
    other = write_embeddings(world.checkpoint, world.folders["eeg"], tmp_path / "whole.parquet")
    assert path.read_bytes() == other.read_bytes()


def test_another_process_must_find_the_same_checkpoint_and_data(world):
    with pytest.raises(DataError, match=r"another checkpoint '.*', or another data set"):
        _opened(str(world.checkpoint), "other weights", str(world.folders["eeg"]), "other rows")
