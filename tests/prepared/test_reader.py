"""Reading of prepared data sets and making of batches."""

import numpy as np
import pyarrow as pa
import pytest

from neural_clip.errors import DataError
from neural_clip.prepared.reader import load_image_table, load_recordings, recording_array, resolve_folder
from neural_clip.prepared.writer import write_prepared


def test_recording_array(ready_folders):
    recordings = load_recordings(ready_folders["eeg"], "test")
    values = recording_array(recordings, "eeg")
    assert values.shape == (len(recordings), 6, 10)
    assert np.array_equal(values[3], np.asarray(recordings[3]["eeg"], dtype=np.float32))
    recordings = load_recordings(ready_folders["fmri"], "test")
    rows = recording_array(recordings, "fmri")
    assert len(rows) == len(recordings)
    assert {len(row) for row in rows} == {50, 57}
    assert np.array_equal(rows[-1], np.asarray(recordings[-1]["fmri"], dtype=np.float32))


def test_one_subject_alone(ready_folders):
    assert set(load_recordings(ready_folders["eeg"], "train", ["sub-02"])["subject"]) == {"sub-02"}


def test_bad_input_is_named(ready_folders, tmp_path):
    with pytest.raises(DataError, match="no prepared data set"):
        load_recordings(tmp_path, "test")
    with pytest.raises(DataError, match="'split' parameter"):
        load_recordings(ready_folders["eeg"], "valid")
    with pytest.raises(DataError, match=r"has no subject \['sub-07'\]"):
        load_recordings(ready_folders["eeg"], "test", ["sub-07"])
    with pytest.raises(DataError, match="is no folder"):
        resolve_folder("some/where/else")
    with pytest.raises(DataError, match="nobody/nothing"):
        resolve_folder("nobody/nothing")


def test_images_without_embeddings(tmp_path):
    metadata = {"corpus": "none", "modality": "fmri", "split_protocol": "none", "split_unit": "image"}
    metadata |= {"licence": "none", "redistribution": "allowed", "citation": "none", "source": "none"}
    images = [{"image_id": name, "image": np.full((4, 4, 3), i, np.uint8)} for i, name in enumerate("abc")]
    rows = [
        {"subject": "sub-01", "image_id": name, "split": split, "fmri": np.float32([i, 1, -i])}
        for i, (name, split) in enumerate(zip("abc", ("train", "validation", "test"), strict=True))
    ]
    folder = write_prepared(tmp_path / "bare", metadata, rows, images)
    with pytest.raises(DataError, match="run `neural-clip embed-images"):
        load_image_table(folder)


def test_arrow_slices_keep_their_rows():
    """A slice of an Arrow column starts inside its buffers: the offset must not be lost."""
    from neural_clip.prepared.reader import column_arrays

    column = pa.chunked_array([pa.array([[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]], pa.list_(pa.float32()))]).slice(1, 2)
    flat, lengths = column_arrays(column, None)
    assert flat.tolist() == [3, 4, 5, 6]
    assert lengths.tolist() == [1, 3]
